//! Properties of the diagram of any campaign.

use std::collections::BTreeSet;

use proptest::prelude::*;
use roxmltree::{Document, Node as Element};
use serde_json::{Value, json};

use super::layout::{ROW_HEIGHT, head_height};
use super::*;
use crate::campaign::{Campaign, WebhookKind};
use crate::document;
use crate::document::tests::example;
use crate::egress::HttpUrls;
use crate::ids::WebhookId;

fn campaign_of(document: &Value) -> Campaign {
    document::read(document.to_string().as_bytes(), HttpUrls::Refused, None).expect("a campaign")
}

/// Texts that often cause errors, and arbitrary texts.
fn hostile_texts() -> impl Strategy<Value = String> {
    let hostile = [
        "</script><img src=x onerror=alert(1)>",
        "]]></style>&amp;<!--",
        "\" onload=\"alert(1)",
        "a\nb\tc\u{0}\u{1b}\u{fffe}",
        "مرحبا بكم \u{202e}في خدمة",
        "日本語の長い長い長い長い長い長い長いラベル",
        "👩‍👩‍👧‍👦🏳️‍🌈",
        "Z̸̧a̷l̵g̶o",
        "long ",
    ];
    prop_oneof![
        proptest::sample::select(hostile.to_vec()).prop_map(str::to_owned),
        any::<String>(),
        Just("w".repeat(200)),
    ]
}

/// Random numbers that choose a redirect, its target, and if the webhook is enabled.
type RedirectAndWebhook = (u8, u8, bool);

fn add_redirect_and_webhook(
    parent: &mut Value,
    (redirect, to, enabled): RedirectAndWebhook,
    labels: &[String],
    number: usize,
) {
    let webhook = json!({ "url": format!("https://example.com/{number}?a=1&b='<"), "enabled": enabled });
    match redirect {
        0..=3 => {
            let label = &labels[usize::from(to) % labels.len()];
            parent["redirect"] = json!({ "type": "interaction", "to": label });
        }
        4 | 5 => parent["redirect"] = json!({ "type": "campaign", "to": format!("<campaign {}>", to % 3) }),
        6 => parent["redirect"] = json!({ "type": "webhook" }),
        _ => {}
    }
    if redirect % 3 == 0 {
        parent["webhook"] = webhook;
    }
}

fn campaigns() -> impl Strategy<Value = Campaign> {
    let redirect_and_webhook = || (0_u8..10, any::<u8>(), any::<bool>());
    let entry = (redirect_and_webhook(), prop::option::of(hostile_texts()));
    let section = (
        hostile_texts(),
        prop::option::of(hostile_texts()),
        redirect_and_webhook(),
        prop::collection::vec(entry, 0..6),
    );
    let sections = prop::collection::vec(section, 0..12);
    (prop::option::of(hostile_texts()), sections, any::<bool>()).prop_map(|(name, sections, welcome)| {
        let labels: Vec<String> =
            sections.iter().enumerate().map(|(index, (label, ..))| format!("{label}{index}")).collect();
        let mut numbers = 0..;
        let sections = sections.iter().enumerate().map(|(index, (_, message, own, menu))| {
            let kind = if welcome && index == 0 { "welcomeMessage" } else { "interaction" };
            let mut section = json!({ "label": labels[index], "kind": kind, "message": message });
            add_redirect_and_webhook(&mut section, *own, &labels, numbers.next().unwrap_or_default());
            let entries = menu.iter().enumerate().map(|(key, (own, option))| {
                let mut entry = json!({ "keyword": format!("{key}<&\">") });
                if own.0 != 6 {
                    entry["option"] = json!(option);
                }
                add_redirect_and_webhook(&mut entry, *own, &labels, numbers.next().unwrap_or_default());
                entry
            });
            section["menu"] = entries.collect();
            section
        });
        campaign_of(&json!({ "id": "c", "name": name, "sections": sections.collect::<Vec<_>>() }))
    })
}

/// Tells if a part of a route crosses the inside of a rectangle. The border does not count.
fn crosses(rect: &Rect, one: &Point, other: &Point) -> bool {
    let within = |from: i64, to: i64, low: i64, high: i64| from.max(to) > low && from.min(to) < high;
    let across = within(one.x, other.x, rect.x, rect.x + rect.width);
    let is_level = one.y == other.y && one.direction == other.direction;
    // A curve can be at any height between its ends, and slightly above and below.
    across && (!is_level || (one.y > rect.y && one.y < rect.y + rect.height))
}

fn check_layout(drawing: &Drawing) -> Result<(), TestCaseError> {
    let Drawing { graph, rects, routes, width, height } = drawing;
    prop_assert_eq!(rects.len(), graph.nodes.len());
    prop_assert_eq!(routes.len(), graph.arrows.len());
    for (index, one) in rects.iter().enumerate() {
        prop_assert!(one.x >= 0 && one.y >= 0 && one.x + one.width <= *width && one.y + one.height <= *height);
        for other in &rects[index + 1..] {
            let beside = one.x + one.width <= other.x || other.x + other.width <= one.x;
            let above = one.y + one.height <= other.y || other.y + other.height <= one.y;
            prop_assert!(beside || above, "{:?} and {:?} overlap", one, other);
        }
    }
    for (arrow, ArrowRoute(points)) in graph.arrows.iter().zip(routes) {
        let (from, to) = (&rects[arrow.from], &rects[arrow.to]);
        let section = graph.section(arrow.from).expect("arrows come from sections");
        let row = from.y + head_height(section) + ROW_HEIGHT * i64::try_from(arrow.row).expect("a small number");
        let ([start, ..], [.., end]) = (points.as_slice(), points.as_slice()) else { panic!("a route without points") };
        prop_assert_eq!(start.x, from.x + from.width);
        prop_assert!(start.y > row && start.y < row + ROW_HEIGHT, "{:?} is not at row {}", start, arrow.row);
        prop_assert_eq!(end.x, to.x);
        prop_assert!(end.y > to.y && end.y < to.y + to.height, "{:?} is not at {:?}", end, to);
        for pair in points.windows(2) {
            for rect in rects {
                prop_assert!(!crosses(rect, &pair[0], &pair[1]), "{:?} crosses {:?}", pair, rect);
            }
            prop_assert!(pair[1].y > 0 && pair[1].y < *height && pair[1].x > 0 && pair[1].x < *width);
        }
    }
    Ok(())
}

/// Writes the SVG with links on most parts, and with all kinds of health.
fn write_svg(drawing: &Drawing, style: Style) -> String {
    let health = |id: &WebhookId| match id.as_str().bytes().last().unwrap_or_default() % 4 {
        0 => WebhookHealth::Unknown,
        1 => WebhookHealth::Healthy,
        2 => WebhookHealth::Failing { percent: 40 },
        _ => WebhookHealth::Paused,
    };
    let links = |part: Part<'_>| match part {
        Part::Section { label } => Some(format!("/sections?label={label}")),
        Part::Entry { section, keyword } => Some(format!("/entries?label={section}&keyword={keyword}")),
        Part::Webhook(id) => Some(format!("/webhooks/{id}")),
        Part::Campaign(_) => None,
    };
    svg(drawing, style, &health, &links)
}

fn elements<'a, 'input>(document: &'a Document<'input>) -> impl Iterator<Item = Element<'a, 'input>> {
    document.descendants().filter(Element::is_element)
}

fn check_svg(graph: &Graph, text: &str, style: Style) -> Result<(), TestCaseError> {
    let document = Document::parse(text).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let names: BTreeSet<&str> = elements(&document).map(|element| element.tag_name().name()).collect();
    let mut allowed = BTreeSet::from(["svg", "g", "a", "title", "text", "rect", "path", "circle"]);
    if style == Style::Standalone {
        allowed.insert("style");
    }
    prop_assert!(names.is_subset(&allowed), "{:?}", names);
    let attributes = elements(&document).flat_map(|element| element.attributes().collect::<Vec<_>>());
    for attribute in attributes {
        let name = attribute.name();
        prop_assert!(!name.starts_with("on") && !["style", "id", "src"].contains(&name), "{}", name);
    }
    let class = |element: &Element<'_, '_>, class: &str| {
        element.attribute("class").is_some_and(|classes| classes.split(' ').any(|one| one == class))
    };
    let class_count = |name: &str| elements(&document).filter(|element| class(element, name)).count();
    prop_assert_eq!(class_count("node"), graph.nodes.len());
    prop_assert_eq!(class_count("row"), graph.sections().map(|section| section.rows.len()).sum::<usize>());
    // The legend has four more.
    prop_assert_eq!(class_count("arrow"), graph.arrows.len() + 4);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_campaign_can_be_drawn(campaign in campaigns()) {
        let graph = graph(&campaign);
        let drawing = layout(graph.clone());
        prop_assert_eq!(&drawing, &layout(graph.clone()));
        check_layout(&drawing)?;
        for style in [Style::Standalone, Style::Embedded] {
            check_svg(&graph, &write_svg(&drawing, style), style)?;
        }
        let flowchart = mermaid(&graph);
        prop_assert_eq!(flowchart.matches("<").count(), 0);
        let links = ["-->", "==>", "-.->", "-.-o"].map(|link| flowchart.matches(&format!(" {link} ")).count());
        prop_assert_eq!(links.iter().sum::<usize>(), graph.arrows.len());
    }
}

/// The sections form a chain, with arrows to other sections before and after.
#[test]
fn a_large_campaign_can_be_drawn() {
    let label = |number: usize| format!("Section {number}");
    let entry = |section: usize, key: usize| {
        let to = if key == 0 { (section + 1).min(59) } else { section * 7 * key % 60 };
        json!({ "keyword": key, "redirect": { "type": "interaction", "to": label(to) } })
    };
    let sections = (0..60).map(|section| {
        let menu: Vec<Value> = (0..20).map(|key| entry(section, key)).collect();
        json!({ "label": label(section), "menu": menu })
    });
    let drawing = layout(graph(&campaign_of(&json!({ "id": "c", "sections": sections.collect::<Vec<_>>() }))));
    check_layout(&drawing).expect("a valid layout");
}

#[test]
fn the_example_has_arrows_of_all_kinds() {
    let drawing = layout(graph(&example()));
    let text = write_svg(&drawing, Style::Embedded);
    let document = Document::parse(&text).expect("XML");
    let arrows = elements(&document).find(|element| element.attribute("class") == Some("arrows")).expect("arrows");
    let arrow_titles = |class: &str| {
        let titles = arrows.children().filter(|arrow| arrow.attribute("class") == Some(class));
        let titles = titles.filter_map(|arrow| arrow.first_element_child()?.text());
        titles.filter_map(|title| title.strip_prefix("Welcome Message, ")).collect::<Vec<_>>()
    };
    assert_eq!(
        arrow_titles("arrow interaction"),
        ["1 Plans: to the interaction Plans", "4 Offers: to the interaction Offers"]
    );
    assert_eq!(
        arrow_titles("arrow campaign"),
        ["2 Raffle: to the campaign raffle-giveaway", "5 Survey: to the campaign web-polls"]
    );
    assert_eq!(arrow_titles("arrow webhook redirect"), ["3: to the webhook https://example.com/hooks/agent"]);
    assert_eq!(
        arrow_titles("arrow webhook underlying"),
        [
            "4 Offers: with the underlying webhook https://example.com/hooks/offers",
            "5 Survey: with the underlying webhook https://example.com/hooks/survey",
        ]
    );
    let aria_labels: Vec<&str> = elements(&document).filter_map(|element| element.attribute("aria-label")).collect();
    assert!(aria_labels.contains(&"1 Plans: to the interaction Plans"), "{aria_labels:?}");
    assert!(aria_labels.contains(
        &"4 Offers: to the interaction Offers, with the underlying webhook https://example.com/hooks/offers"
    ));
}

#[test]
fn texts_of_the_document_are_escaped() {
    let hostile = "</title></svg><script>x</script><img src=x onerror='y'>\"&";
    let campaign = campaign_of(&json!({ "id": hostile, "name": hostile, "sections": [
        { "label": hostile, "message": hostile, "kind": "welcomeMessage", "menu": [
            { "keyword": hostile, "option": hostile, "redirect": { "type": "campaign", "to": hostile } } ] } ] }));
    let drawing = layout(graph(&campaign));
    for style in [Style::Standalone, Style::Embedded] {
        let text = write_svg(&drawing, style);
        assert!(!text.contains("<script") && !text.contains("<img") && !text.contains("onerror='"), "{text}");
        let document = Document::parse(&text).expect("XML");
        let titles: Vec<&str> = elements(&document)
            .filter(|element| element.has_tag_name(("http://www.w3.org/2000/svg", "title")))
            .filter_map(|title| title.text())
            .collect();
        assert!(titles.contains(&format!("{hostile}\n{hostile}").as_str()), "{titles:#?}");
        assert!(
            titles.iter().any(|title| title.contains(&format!("{hostile} {hostile}: to the campaign {hostile}"))),
            "{titles:#?}"
        );
    }
}

#[test]
fn webhooks_show_their_health() {
    let campaign = campaign_of(&json!({ "id": "c", "sections": [ { "label": "A", "menu": [
        { "keyword": 1, "webhook": { "id": "wh_on", "url": "https://example.com/a" } },
        { "keyword": 2, "redirect": { "type": "webhook" },
          "webhook": { "id": "wh_off", "url": "https://example.com/b", "enabled": false } } ] } ] }));
    let drawing = layout(graph(&campaign));
    for (health, class, label) in [
        (WebhookHealth::Unknown, "unknown", "underlying webhook https://example.com/a"),
        (WebhookHealth::Healthy, "healthy", "underlying webhook https://example.com/a, healthy"),
        (WebhookHealth::Failing { percent: 40 }, "failing", "underlying webhook https://example.com/a, 40 % failing"),
        (WebhookHealth::Paused, "paused", "underlying webhook https://example.com/a, paused"),
    ] {
        let text = svg(&drawing, Style::Embedded, &|_| health, &|_| None);
        let expected = format!(r#"class="node webhook underlying {class}" role="listitem" aria-label="{label}""#);
        assert!(text.contains(&expected), "{expected}: {text}");
        let disabled = r#"class="node webhook redirect disabled" role="listitem" aria-label="redirect webhook https://example.com/b, disabled""#;
        assert!(text.contains(disabled), "{text}");
        assert!(!text.contains("<a "), "{text}");
    }
    let links = |part: Part<'_>| (part == Part::Webhook(&WebhookId::new("wh_on"))).then(|| "/on?a&b".to_owned());
    let text = svg(&drawing, Style::Embedded, &|_| WebhookHealth::Unknown, &links);
    assert_eq!((text.matches("<a ").count(), text.matches(r#"<a href="/on?a&amp;b">"#).count()), (1, 1));
}

/// Relative luminance, as the Web Content Accessibility Guidelines define it.
fn luminance(colour: &str) -> f64 {
    let channel = |at: usize| {
        let value = u8::from_str_radix(&colour[at..at + 2], 16).expect("a colour of six digits");
        let value = f64::from(value) / 255.0;
        if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * channel(0) + 0.7152 * channel(2) + 0.0722 * channel(4)
}

#[test]
fn texts_and_arrows_have_enough_contrast() {
    let (light, dark) = CSS.split_once("@media (prefers-color-scheme: dark)").expect("two schemes");
    for scheme in [light, dark] {
        let colour_value = |name: &str| {
            let (_, rest) = scheme.split_once(&format!("--flow-{name}: #")).expect("the colour");
            luminance(&rest[..6])
        };
        let contrast = |one: &str, other: &str| {
            let (one, other) = (colour_value(one), colour_value(other));
            (one.max(other) + 0.05) / (one.min(other) + 0.05)
        };
        let text_colours = [
            ("text", "ground"),
            ("text", "card"),
            ("text", "top"),
            ("muted", "ground"),
            ("muted", "card"),
            ("muted", "top"),
            ("interaction", "top"),
            ("healthy", "card"),
            ("failing", "card"),
            ("paused", "card"),
        ];
        for (text, background) in text_colours {
            assert!(contrast(text, background) >= 4.5, "{text} on {background}: {:.2}", contrast(text, background));
        }
        for arrow in ["interaction", "campaign", "webhook"] {
            assert!(contrast(arrow, "ground") >= 4.5, "{arrow}: {:.2}", contrast(arrow, "ground"));
        }
    }
    // The CSS is put into a `style` element of XML without escaping.
    assert!(!CSS.contains(['<', '&']) && !CSS.contains("]]"));
}

#[test]
fn kinds_of_webhooks_differ_in_shape() {
    let drawing = layout(graph(&example()));
    let text = write_svg(&drawing, Style::Embedded);
    let document = Document::parse(&text).expect("XML");
    let shapes = |kind: WebhookKind| {
        let class = if kind == WebhookKind::Redirect { "redirect" } else { "underlying" };
        let nodes = elements(&document).filter(move |element| {
            element.attribute("class").is_some_and(|classes| classes.starts_with(&format!("node webhook {class}")))
        });
        nodes
            .flat_map(|node| {
                node.descendants().filter(|part| part.attribute("class") == Some("card")).collect::<Vec<_>>()
            })
            .filter_map(|part| part.attribute("d"))
            .collect::<BTreeSet<_>>()
    };
    let (redirect, underlying) = (shapes(WebhookKind::Redirect), shapes(WebhookKind::Underlying));
    assert!(redirect.len() == 1 && underlying.len() == 1 && redirect != underlying, "{redirect:?} {underlying:?}");
}

/// All sections of the chain lead back to the first. Without a limit, the arrows would cross millions of columns.
#[test]
fn the_size_of_a_long_chain_is_limited() {
    let to = |number: usize| json!({ "type": "interaction", "to": number.to_string() });
    let sections = (0..3000).map(|number: usize| {
        json!({ "label": number.to_string(), "redirect": to((number + 1) % 3000),
            "menu": [ { "keyword": 0, "redirect": to(0) } ] })
    });
    let drawing = layout(graph(&campaign_of(&json!({ "id": "c", "sections": sections.collect::<Vec<_>>() }))));
    let points: usize = drawing.routes.iter().map(|ArrowRoute(points)| points.len()).sum();
    assert!(points < 300_000, "{points}");
    let point_counts = drawing.routes.iter().map(|ArrowRoute(points)| points.len());
    assert!(point_counts.clone().min() == Some(2) && point_counts.max() > Some(100));
}
