//! Writes nodes: sections with their rows, webhooks, other campaigns and missing targets.

use std::fmt::{self, Write as _};

use super::{Part, SvgWriter, labels};
use crate::campaign::{SectionKind, WebhookKind};
use crate::flow::graph::{Arrow, ArrowKind, DanglingTarget, GraphNode, GraphRow, Reach, SectionNode, WebhookNode};
use crate::flow::layout::{COLUMN_WIDTH, PILL_HEIGHT, ROW_HEIGHT, Rect, WEBHOOK_HEIGHT, head_height};
use crate::flow::text::{Escaped, Font, fit, fit_ends, text_width};

/// Space at the left and the right of a text.
const PADDING: i64 = 14;
/// Minimum and maximum width of a keyword.
const KEYWORD_WIDTH: (i64, i64) = (24, 84);

impl SvgWriter<'_> {
    pub(super) fn write_node(&self, out: &mut String, index: usize, node: &GraphNode) -> fmt::Result {
        let rect = self.drawing.rects[index];
        match node {
            GraphNode::Section(section) => self.write_section(out, index, section, rect),
            GraphNode::Webhook(webhook) => self.write_webhook(out, webhook, rect),
            GraphNode::Campaign(name) => self.write_campaign(out, name, rect),
            GraphNode::Missing(target) => write_missing_target(out, target, rect),
        }
    }

    fn write_section(&self, out: &mut String, index: usize, section: &SectionNode, rect: Rect) -> fmt::Result {
        let welcome = if section.kind == SectionKind::WelcomeMessage { " welcome" } else { "" };
        let unreached = if section.reach == Reach::Unreached { " unreached" } else { "" };
        begin_node(out, &format!("section{welcome}{unreached}"), &labels::section(section), rect)?;
        let (width, height, head) = (rect.width, rect.height, head_height(section));
        writeln!(out, r#"<rect class="card" width="{width}" height="{height}" rx="10"/>"#)?;

        let link = self.begin_link(out, Part::Section { label: &section.label })?;
        write_title(out, &[Some(section.label.as_str()), section.message.as_deref()])?;
        let shape = if section.rows.is_empty() {
            format!(r#"<rect class="top" width="{width}" height="{height}" rx="10"/>"#)
        } else {
            format!(
                r#"<path class="top" d="M0,{head}V10a10,10 0 0 1 10,-10H{}a10,10 0 0 1 10,10V{head}z"/>"#,
                width - 10
            )
        };
        writeln!(out, "{shape}")?;
        let caption = match (section.kind, section.reach) {
            (SectionKind::WelcomeMessage, _) => "opens the campaign",
            (SectionKind::Interaction, Reach::Reached) => "interaction",
            (SectionKind::Interaction, Reach::Unreached) => "interaction · nothing leads here",
        };
        let max_width = width - 2 * PADDING;
        write_text(out, "caption", PADDING, 20, caption)?;
        write_text(out, "label", PADDING, 39, &fit(&section.label, max_width, 14, Font::Proportional))?;
        if let Some(message) = &section.message {
            write_text(out, "muted", PADDING, 58, &fit(message, max_width, 12, Font::Proportional))?;
        }
        end_link(out, link)?;
        self.write_rows(out, index, section, head)?;
        writeln!(out, "</g>")
    }

    fn write_rows(&self, out: &mut String, index: usize, section: &SectionNode, head: i64) -> fmt::Result {
        if section.rows.is_empty() {
            return Ok(());
        }
        writeln!(out, r#"<g role="list">"#)?;
        let mut arrows = self.arrows_of(index).iter().peekable();
        for (index, row) in section.rows.iter().enumerate() {
            let mut own: Vec<&Arrow> = Vec::new();
            while let Some(arrow) = arrows.next_if(|arrow| arrow.row == index) {
                own.push(arrow);
            }
            let top = head + ROW_HEIGHT * i64::try_from(index).unwrap_or(i64::MAX);
            self.write_row(out, section, row, &own, top)?;
        }
        writeln!(out, "</g>")
    }

    /// The arrows of a section are adjacent in the graph.
    fn arrows_of(&self, section: usize) -> &[Arrow] {
        let arrows = &self.drawing.graph.arrows;
        let first = arrows.partition_point(|arrow| arrow.from < section);
        let end = arrows.partition_point(|arrow| arrow.from <= section);
        &arrows[first..end]
    }

    fn write_row(
        &self,
        out: &mut String,
        section: &SectionNode,
        row: &GraphRow,
        arrows: &[&Arrow],
        top: i64,
    ) -> fmt::Result {
        let label = labels::row_with_arrows(&self.drawing.graph, row, arrows);
        write!(out, r#"<g class="row" role="listitem" aria-label="{}">"#, Escaped(&label))?;
        let part = match row {
            GraphRow::Own => Part::Section { label: &section.label },
            GraphRow::Entry { keyword, .. } => Part::Entry { section: &section.label, keyword },
        };
        let link = self.begin_link(out, part)?;
        write_title(out, &[Some(label.as_str())])?;
        write!(out, r#"<rect class="field" x="1" y="{top}" width="{}" height="{ROW_HEIGHT}"/>"#, COLUMN_WIDTH - 2)?;
        write!(out, r#"<path class="rule" d="M0,{top}H{COLUMN_WIDTH}"/>"#)?;
        let has_webhook = arrows.iter().any(|arrow| matches!(arrow.kind, ArrowKind::Webhook(_)));
        let right = COLUMN_WIDTH - if has_webhook { 34 } else { PADDING };
        let baseline = top + 21;
        match row {
            GraphRow::Own => write_text(out, "aside", PADDING, baseline, own_row_text(arrows))?,
            GraphRow::Entry { keyword, option } => {
                let keyword = fit(keyword, KEYWORD_WIDTH.1 - 12, 12, Font::Monospaced);
                let width = (text_width(&keyword, 12, Font::Monospaced) + 12).max(KEYWORD_WIDTH.0);
                write!(
                    out,
                    r#"<rect class="chip" x="{PADDING}" y="{}" width="{width}" height="20" rx="5"/>"#,
                    top + 6
                )?;
                write_text(out, "keyword", PADDING + width / 2, baseline - 1, &keyword)?;
                let x = PADDING + width + 10;
                match option {
                    Some(option) => {
                        write_text(out, "option", x, baseline, &fit(option, right - x, 13, Font::Proportional))?
                    }
                    None => write_text(out, "aside", x, baseline, text_without_option(arrows))?,
                }
            }
        }
        if has_webhook {
            let (x, y) = (COLUMN_WIDTH - 30, top + 9);
            write!(
                out,
                r#"<path class="linked" d="M{x},{y}m7,3h-2.5a4,4 0 0 0 0,8h2.5m3,0h2.5a4,4 0 0 0 0,-8h-2.5m-4.5,4h6"/>"#
            )?;
        }
        end_link(out, link)?;
        writeln!(out, "</g>")
    }

    fn write_webhook(&self, out: &mut String, webhook: &WebhookNode, rect: Rect) -> fmt::Result {
        let (class, state) = labels::webhook_state(webhook, (self.health)(&webhook.id));
        let kind = labels::webhook_kind(webhook);
        let shape = match webhook.kind {
            WebhookKind::Redirect => "redirect",
            WebhookKind::Underlying => "underlying",
        };
        let label = match &state {
            Some(state) => format!("{kind} {}, {state}", webhook.url),
            None => format!("{kind} {}", webhook.url),
        };
        begin_node(out, &format!("webhook {shape} {class}"), &label, rect)?;
        let link = self.begin_link(out, Part::Webhook(&webhook.id))?;
        write_title(out, &[Some(label.as_str())])?;
        let (width, half) = (rect.width, WEBHOOK_HEIGHT / 2);
        match webhook.kind {
            WebhookKind::Redirect => write!(
                out,
                r#"<path class="card" d="M0,{half}L12,0H{}L{width},{half}L{},{WEBHOOK_HEIGHT}H12z"/>"#,
                width - 12,
                width - 12
            )?,
            WebhookKind::Underlying => {
                write!(out, r#"<path class="card" d="M0,0H{}l12,12V{WEBHOOK_HEIGHT}H0z"/>"#, width - 12)?;
                write!(out, r#"<path class="fold" d="M{},0v12h12"/>"#, width - 12)?;
            }
        }
        let address = webhook.url.split_once("://").map_or(webhook.url.as_str(), |(_, rest)| rest);
        let max_width = width - 2 * 20;
        write_text(out, "url", 20, 20, &fit_ends(address, max_width, 12, Font::Monospaced))?;
        let mut x = 20;
        if let Some(state) = &state {
            write_state_icon(out, class, x + 5, 35)?;
            write_text(out, "state", x + 16, 39, state)?;
            // The text is bold, so it is wider than computed.
            x += 16 + text_width(state, 12, Font::Proportional) + 8;
        }
        write_text(out, "caption", x, 39, kind)?;
        end_link(out, link)?;
        writeln!(out, "</g>")
    }

    fn write_campaign(&self, out: &mut String, name: &str, rect: Rect) -> fmt::Result {
        begin_node(out, "campaign", &format!("campaign {name}"), rect)?;
        let link = self.begin_link(out, Part::Campaign(name))?;
        write_title(out, &[Some(name)])?;
        let width = rect.width;
        write!(out, r#"<rect class="card" width="{width}" height="{PILL_HEIGHT}" rx="{}"/>"#, PILL_HEIGHT / 2)?;
        write_text(out, "caption", 24, 17, "other campaign")?;
        write_text(out, "label", 24, 34, &fit(name, width - 2 * 24, 14, Font::Proportional))?;
        end_link(out, link)?;
        writeln!(out, "</g>")
    }

    /// Begins a link if the part has an address.
    fn begin_link(&self, out: &mut String, part: Part<'_>) -> Result<LinkTag, fmt::Error> {
        let Some(address) = (self.links)(part) else { return Ok(LinkTag::None) };
        write!(out, r#"<a href="{}">"#, Escaped(&address))?;
        Ok(LinkTag::Begun)
    }
}

enum LinkTag {
    Begun,
    None,
}

fn end_link(out: &mut String, link: LinkTag) -> fmt::Result {
    match link {
        LinkTag::Begun => out.write_str("</a>"),
        LinkTag::None => Ok(()),
    }
}

fn write_missing_target(out: &mut String, target: &DanglingTarget, rect: Rect) -> fmt::Result {
    let (problem, name) = labels::missing_target(target);
    begin_node(out, "missing", &format!("{problem}: {name}"), rect)?;
    write_title(out, &[Some(name)])?;
    let width = rect.width;
    write!(out, r#"<rect class="card" width="{width}" height="{PILL_HEIGHT}" rx="4"/>"#)?;
    write!(out, r#"<path class="cross" d="M20,17l10,10m0,-10l-10,10"/>"#)?;
    write_text(out, "caption", 42, 17, problem)?;
    write_text(out, "label", 42, 34, &fit(name, width - 42 - PADDING, 14, Font::Proportional))?;
    writeln!(out, "</g>")
}

/// The text of a row without a keyword.
fn own_row_text(arrows: &[&Arrow]) -> &'static str {
    match arrows {
        [arrow] if matches!(arrow.kind, ArrowKind::Webhook(WebhookKind::Underlying)) => "on every event",
        [_] => "next",
        _ => "next, and on every event",
    }
}

/// The text of an entry without a menu text.
fn text_without_option(arrows: &[&Arrow]) -> &'static str {
    match arrows {
        [arrow] if matches!(arrow.kind, ArrowKind::Webhook(WebhookKind::Redirect)) => "webhook",
        _ => "no menu text",
    }
}

/// States differ by shape, not only by colour.
fn write_state_icon(out: &mut String, class: &str, x: i64, y: i64) -> fmt::Result {
    match class {
        "healthy" => write!(out, r#"<path class="mark open" d="M{},{y}l3,3.5l6,-7"/>"#, x - 5),
        "failing" => write!(out, r#"<path class="mark" d="M{x},{}l5.5,9.5h-11z"/>"#, y - 5),
        "paused" => write!(out, r#"<path class="mark" d="M{},{}h3v9h-3zm5.5,0h3v9h-3z"/>"#, x - 4, y - 5),
        _ => write!(out, r#"<path class="mark open" d="M{},{}l8,8"/>"#, x - 4, y - 4),
    }
}

fn begin_node(out: &mut String, class: &str, label: &str, rect: Rect) -> fmt::Result {
    let Rect { x, y, .. } = rect;
    let label = Escaped(label);
    writeln!(out, r#"<g class="node {class}" role="listitem" aria-label="{label}" transform="translate({x},{y})">"#)
}

/// Writes the tooltip.
fn write_title(out: &mut String, lines: &[Option<&str>]) -> fmt::Result {
    out.write_str("<title>")?;
    for (index, line) in lines.iter().flatten().enumerate() {
        let separator = if index == 0 { "" } else { "\n" };
        write!(out, "{separator}{}", Escaped(line))?;
    }
    out.write_str("</title>")
}

fn write_text(out: &mut String, class: &str, x: i64, y: i64, content: &str) -> fmt::Result {
    write!(out, r#"<text class="{class}" x="{x}" y="{y}">{}</text>"#, Escaped(content))
}
