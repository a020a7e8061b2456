//! What holds of the picture of any campaign.

use std::collections::BTreeSet;

use proptest::prelude::*;
use roxmltree::{Document, Node as Element};
use serde_json::{Value, json};

use super::layout::{ROW, head};
use super::*;
use crate::delivery::campaign::{Campaign, WebhookKind};
use crate::delivery::document;
use crate::delivery::document::tests::example;
use crate::delivery::egress::HttpUrls;
use crate::delivery::ids::WebhookId;

fn read(document: &Value) -> Campaign {
    document::read(document.to_string().as_bytes(), HttpUrls::Refused, None).expect("a campaign")
}

/// Texts, those among them that have gone wrong elsewhere.
fn texts() -> impl Strategy<Value = String> {
    let nasty = [
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
        proptest::sample::select(nasty.to_vec()).prop_map(str::to_owned),
        any::<String>(),
        Just("w".repeat(200)),
    ]
}

/// What can stand beside a section or an entry: a redirect and a webhook, in numbers that choose them.
type Beside = (u8, u8, bool);

fn beside(place: &mut Value, (redirect, to, enabled): Beside, labels: &[String], number: usize) {
    let webhook = json!({ "url": format!("https://example.com/{number}?a=1&b='<"), "enabled": enabled });
    match redirect {
        0..=3 => {
            let label = &labels[usize::from(to) % labels.len()];
            place["redirect"] = json!({ "type": "interaction", "to": label });
        }
        4 | 5 => place["redirect"] = json!({ "type": "campaign", "to": format!("<campaign {}>", to % 3) }),
        6 => place["redirect"] = json!({ "type": "webhook" }),
        _ => {}
    }
    if redirect % 3 == 0 {
        place["webhook"] = webhook;
    }
}

fn campaigns() -> impl Strategy<Value = Campaign> {
    let beside_one = || (0_u8..10, any::<u8>(), any::<bool>());
    let entry = (beside_one(), prop::option::of(texts()));
    let section = (texts(), prop::option::of(texts()), beside_one(), prop::collection::vec(entry, 0..6));
    let sections = prop::collection::vec(section, 0..12);
    (prop::option::of(texts()), sections, any::<bool>()).prop_map(|(name, sections, welcome)| {
        let labels: Vec<String> =
            sections.iter().enumerate().map(|(nth, (label, ..))| format!("{label}{nth}")).collect();
        let mut numbers = 0..;
        let sections = sections.iter().enumerate().map(|(nth, (_, message, own, menu))| {
            let kind = if welcome && nth == 0 { "welcomeMessage" } else { "interaction" };
            let mut section = json!({ "label": labels[nth], "kind": kind, "message": message });
            beside(&mut section, *own, &labels, numbers.next().unwrap_or_default());
            let entries = menu.iter().enumerate().map(|(key, (own, option))| {
                let mut entry = json!({ "keyword": format!("{key}<&\">") });
                if own.0 != 6 {
                    entry["option"] = json!(option);
                }
                beside(&mut entry, *own, &labels, numbers.next().unwrap_or_default());
                entry
            });
            section["menu"] = entries.collect();
            section
        });
        read(&json!({ "id": "c", "name": name, "sections": sections.collect::<Vec<_>>() }))
    })
}

/// Whether a stretch of a line is within the box: on its side is not in it.
fn is_through(place: &Rect, one: &Point, other: &Point) -> bool {
    let within = |from: i64, to: i64, low: i64, high: i64| from.max(to) > low && from.min(to) < high;
    let across = within(one.x, other.x, place.x, place.x + place.width);
    let is_level = one.y == other.y && one.heading == other.heading;
    // A curve may be anywhere between the heights of its ends and a bit above and below.
    across && (!is_level || (one.y > place.y && one.y < place.y + place.height))
}

fn holds_of_the_layout(drawing: &Drawing) -> Result<(), TestCaseError> {
    let Drawing { graph, places, routes, width, height } = drawing;
    prop_assert_eq!(places.len(), graph.nodes.len());
    prop_assert_eq!(routes.len(), graph.arrows.len());
    for (nth, one) in places.iter().enumerate() {
        prop_assert!(one.x >= 0 && one.y >= 0 && one.x + one.width <= *width && one.y + one.height <= *height);
        for other in &places[nth + 1..] {
            let beside = one.x + one.width <= other.x || other.x + other.width <= one.x;
            let above = one.y + one.height <= other.y || other.y + other.height <= one.y;
            prop_assert!(beside || above, "{:?} and {:?} overlap", one, other);
        }
    }
    for (arrow, Route(points)) in graph.arrows.iter().zip(routes) {
        let (from, to) = (&places[arrow.from], &places[arrow.to]);
        let card = graph.card(arrow.from).expect("arrows come from sections");
        let row = from.y + head(card) + ROW * i64::try_from(arrow.row).expect("a small number");
        let ([start, ..], [.., end]) = (points.as_slice(), points.as_slice()) else { panic!("a route without points") };
        prop_assert_eq!(start.x, from.x + from.width);
        prop_assert!(start.y > row && start.y < row + ROW, "{:?} is not at row {}", start, arrow.row);
        prop_assert_eq!(end.x, to.x);
        prop_assert!(end.y > to.y && end.y < to.y + to.height, "{:?} is not at {:?}", end, to);
        for pair in points.windows(2) {
            for place in places {
                prop_assert!(!is_through(place, &pair[0], &pair[1]), "{:?} runs through {:?}", pair, place);
            }
            prop_assert!(pair[1].y > 0 && pair[1].y < *height && pair[1].x > 0 && pair[1].x < *width);
        }
    }
    Ok(())
}

/// The picture with links everywhere, and with some of everything for health.
fn picture(drawing: &Drawing, style: Style) -> String {
    let health = |id: &WebhookId| match id.as_str().bytes().last().unwrap_or_default() % 4 {
        0 => Health::Unknown,
        1 => Health::Healthy,
        2 => Health::Failing { percent: 40 },
        _ => Health::Paused,
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

fn holds_of_the_picture(graph: &Graph, text: &str, style: Style) -> Result<(), TestCaseError> {
    let document = Document::parse(text).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let names: BTreeSet<&str> = elements(&document).map(|element| element.tag_name().name()).collect();
    let mut known = BTreeSet::from(["svg", "g", "a", "title", "text", "rect", "path", "circle"]);
    if style == Style::Own {
        known.insert("style");
    }
    prop_assert!(names.is_subset(&known), "{:?}", names);
    let attributes = elements(&document).flat_map(|element| element.attributes().collect::<Vec<_>>());
    for attribute in attributes {
        let name = attribute.name();
        prop_assert!(!name.starts_with("on") && !["style", "id", "src"].contains(&name), "{}", name);
    }
    let class = |element: &Element<'_, '_>, class: &str| {
        element.attribute("class").is_some_and(|classes| classes.split(' ').any(|one| one == class))
    };
    let count = |name: &str| elements(&document).filter(|element| class(element, name)).count();
    prop_assert_eq!(count("node"), graph.nodes.len());
    prop_assert_eq!(count("row"), graph.cards().map(|card| card.rows.len()).sum::<usize>());
    // Four more are in the legend.
    prop_assert_eq!(count("arrow"), graph.arrows.len() + 4);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_campaign_has_a_picture(campaign in campaigns()) {
        let graph = graph(&campaign);
        let drawing = layout(graph.clone());
        prop_assert_eq!(&drawing, &layout(graph.clone()));
        holds_of_the_layout(&drawing)?;
        for style in [Style::Own, Style::OfThePage] {
            holds_of_the_picture(&graph, &picture(&drawing, style), style)?;
        }
        let flowchart = mermaid(&graph);
        prop_assert_eq!(flowchart.matches("<").count(), 0);
        let links = ["-->", "==>", "-.->", "-.-o"].map(|link| flowchart.matches(&format!(" {link} ")).count());
        prop_assert_eq!(links.iter().sum::<usize>(), graph.arrows.len());
    }
}

/// All the sections of which are in one row, and lead back to all before.
#[test]
fn a_large_campaign_has_a_picture() {
    let label = |number: usize| format!("Section {number}");
    let entry = |section: usize, key: usize| {
        let to = if key == 0 { (section + 1).min(59) } else { section * 7 * key % 60 };
        json!({ "keyword": key, "redirect": { "type": "interaction", "to": label(to) } })
    };
    let sections = (0..60).map(|section| {
        let menu: Vec<Value> = (0..20).map(|key| entry(section, key)).collect();
        json!({ "label": label(section), "menu": menu })
    });
    let drawing = layout(graph(&read(&json!({ "id": "c", "sections": sections.collect::<Vec<_>>() }))));
    holds_of_the_layout(&drawing).expect("a sound layout");
}

#[test]
fn the_example_has_two_blue_three_red_and_black_arrows() {
    let drawing = layout(graph(&example()));
    let text = picture(&drawing, Style::OfThePage);
    let document = Document::parse(&text).expect("XML");
    let arrows = elements(&document).find(|element| element.attribute("class") == Some("arrows")).expect("arrows");
    let of_the_menu = |class: &str| {
        let titles = arrows.children().filter(|arrow| arrow.attribute("class") == Some(class));
        let titles = titles.filter_map(|arrow| arrow.first_element_child()?.text());
        titles.filter_map(|title| title.strip_prefix("Welcome Message, ")).collect::<Vec<_>>()
    };
    assert_eq!(
        of_the_menu("arrow interaction"),
        ["1 Plans: to the interaction Plans", "4 Offers: to the interaction Offers"]
    );
    assert_eq!(
        of_the_menu("arrow campaign"),
        ["2 Raffle: to the campaign raffle-giveaway", "5 Survey: to the campaign web-polls"]
    );
    assert_eq!(of_the_menu("arrow webhook redirect"), ["3: to the webhook https://example.com/hooks/agent"]);
    assert_eq!(
        of_the_menu("arrow webhook underlying"),
        [
            "4 Offers: with the underlying webhook https://example.com/hooks/offers",
            "5 Survey: with the underlying webhook https://example.com/hooks/survey",
        ]
    );
    let said: Vec<&str> = elements(&document).filter_map(|element| element.attribute("aria-label")).collect();
    assert!(said.contains(&"1 Plans: to the interaction Plans"), "{said:?}");
    assert!(said.contains(
        &"4 Offers: to the interaction Offers, with the underlying webhook https://example.com/hooks/offers"
    ));
}

#[test]
fn texts_of_the_document_stay_texts() {
    let nasty = "</title></svg><script>x</script><img src=x onerror='y'>\"&";
    let campaign = read(&json!({ "id": nasty, "name": nasty, "sections": [
        { "label": nasty, "message": nasty, "kind": "welcomeMessage", "menu": [
            { "keyword": nasty, "option": nasty, "redirect": { "type": "campaign", "to": nasty } } ] } ] }));
    let drawing = layout(graph(&campaign));
    for style in [Style::Own, Style::OfThePage] {
        let text = picture(&drawing, style);
        assert!(!text.contains("<script") && !text.contains("<img") && !text.contains("onerror='"), "{text}");
        let document = Document::parse(&text).expect("XML");
        let titles: Vec<&str> = elements(&document)
            .filter(|element| element.has_tag_name(("http://www.w3.org/2000/svg", "title")))
            .filter_map(|title| title.text())
            .collect();
        assert!(titles.contains(&format!("{nasty}\n{nasty}").as_str()), "{titles:#?}");
        assert!(
            titles.iter().any(|title| title.contains(&format!("{nasty} {nasty}: to the campaign {nasty}"))),
            "{titles:#?}"
        );
    }
}

#[test]
fn webhooks_tell_how_they_are_doing() {
    let campaign = read(&json!({ "id": "c", "sections": [ { "label": "A", "menu": [
        { "keyword": 1, "webhook": { "id": "wh_on", "url": "https://example.com/a" } },
        { "keyword": 2, "redirect": { "type": "webhook" },
          "webhook": { "id": "wh_off", "url": "https://example.com/b", "enabled": false } } ] } ] }));
    let drawing = layout(graph(&campaign));
    for (health, class, words) in [
        (Health::Unknown, "unknown", "underlying webhook https://example.com/a"),
        (Health::Healthy, "healthy", "underlying webhook https://example.com/a, healthy"),
        (Health::Failing { percent: 40 }, "failing", "underlying webhook https://example.com/a, 40 % failing"),
        (Health::Paused, "paused", "underlying webhook https://example.com/a, paused"),
    ] {
        let text = svg(&drawing, Style::OfThePage, &|_| health, &|_| None);
        let whole = format!(r#"class="node webhook underlying {class}" role="listitem" aria-label="{words}""#);
        assert!(text.contains(&whole), "{whole}: {text}");
        let disabled = r#"class="node webhook redirect disabled" role="listitem" aria-label="redirect webhook https://example.com/b, disabled""#;
        assert!(text.contains(disabled), "{text}");
        assert!(!text.contains("<a "), "{text}");
    }
    let links = |part: Part<'_>| (part == Part::Webhook(&WebhookId::new("wh_on"))).then(|| "/on?a&b".to_owned());
    let text = svg(&drawing, Style::OfThePage, &|_| Health::Unknown, &links);
    assert_eq!((text.matches("<a ").count(), text.matches(r#"<a href="/on?a&amp;b">"#).count()), (1, 1));
}

/// Relative luminance, as the Web Content Accessibility Guidelines define it.
fn luminance(colour: &str) -> f64 {
    let part = |at: usize| {
        let value = u8::from_str_radix(&colour[at..at + 2], 16).expect("a colour of six digits");
        let value = f64::from(value) / 255.0;
        if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4)
}

#[test]
fn texts_and_arrows_can_be_told_from_what_is_behind_them() {
    let (light, dark) = CSS.split_once("@media (prefers-color-scheme: dark)").expect("two schemes");
    for scheme in [light, dark] {
        let colour = |name: &str| {
            let (_, rest) = scheme.split_once(&format!("--flow-{name}: #")).expect("the colour");
            luminance(&rest[..6])
        };
        let contrast = |one: &str, other: &str| {
            let (one, other) = (colour(one), colour(other));
            (one.max(other) + 0.05) / (one.min(other) + 0.05)
        };
        let texts = [
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
        for (text, behind) in texts {
            assert!(contrast(text, behind) >= 4.5, "{text} on {behind}: {:.2}", contrast(text, behind));
        }
        for arrow in ["interaction", "campaign", "webhook"] {
            assert!(contrast(arrow, "ground") >= 4.5, "{arrow}: {:.2}", contrast(arrow, "ground"));
        }
    }
    // It stands in a `style` element of XML as it is.
    assert!(!CSS.contains(['<', '&']) && !CSS.contains("]]"));
}

#[test]
fn kinds_of_webhooks_are_told_apart_by_their_shape() {
    let drawing = layout(graph(&example()));
    let text = picture(&drawing, Style::OfThePage);
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

/// A chain of sections that all lead back to the first: arrows would pass millions of columns.
#[test]
fn the_picture_of_a_long_chain_has_bounds() {
    let to = |number: usize| json!({ "type": "interaction", "to": number.to_string() });
    let sections = (0..3000).map(|number: usize| {
        json!({ "label": number.to_string(), "redirect": to((number + 1) % 3000),
            "menu": [ { "keyword": 0, "redirect": to(0) } ] })
    });
    let drawing = layout(graph(&read(&json!({ "id": "c", "sections": sections.collect::<Vec<_>>() }))));
    let points: usize = drawing.routes.iter().map(|Route(points)| points.len()).sum();
    assert!(points < 300_000, "{points}");
    let ways = drawing.routes.iter().map(|Route(points)| points.len());
    assert!(ways.clone().min() == Some(2) && ways.max() > Some(100));
}
