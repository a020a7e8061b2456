//! Nodes: sections as cards with their rows, webhooks, campaigns, and what is missing.

use std::fmt::{self, Write as _};

use super::{Part, Picture, labels};
use crate::delivery::campaign::{SectionKind, WebhookKind};
use crate::flow::graph::{Arrow, ArrowKind, DanglingTarget, EntryNode, Node, Reach, SectionNode, WebhookNode};
use crate::flow::layout::{COLUMN, HOOK, PILL, ROW, Rect, head};
use crate::flow::text::{Escaped, Font, fit, fit_ends, width_of};

/// What is left free at the left and the right of a text.
const PADDING: i64 = 14;
/// The widths a keyword may have.
const KEYWORD: (i64, i64) = (24, 84);

impl Picture<'_> {
    pub(super) fn node(&self, out: &mut String, index: usize, node: &Node) -> fmt::Result {
        let place = self.drawing.places[index];
        match node {
            Node::Section(card) => self.section(out, index, card, place),
            Node::Webhook(hook) => self.hook(out, hook, place),
            Node::Campaign(name) => self.campaign(out, name, place),
            Node::Missing(gone) => missing(out, gone, place),
        }
    }

    fn section(&self, out: &mut String, index: usize, card: &SectionNode, place: Rect) -> fmt::Result {
        let welcome = if card.kind == SectionKind::WelcomeMessage { " welcome" } else { "" };
        let unreached = if card.reach == Reach::Unreached { " unreached" } else { "" };
        begin(out, &format!("section{welcome}{unreached}"), &labels::section(card), place)?;
        let (width, height, head) = (place.width, place.height, head(card));
        writeln!(out, r#"<rect class="card" width="{width}" height="{height}" rx="10"/>"#)?;

        let link = self.link(out, Part::Section { label: &card.label })?;
        title(out, &[Some(card.label.as_str()), card.message.as_deref()])?;
        let shape = if card.rows.is_empty() {
            format!(r#"<rect class="top" width="{width}" height="{height}" rx="10"/>"#)
        } else {
            format!(
                r#"<path class="top" d="M0,{head}V10a10,10 0 0 1 10,-10H{}a10,10 0 0 1 10,10V{head}z"/>"#,
                width - 10
            )
        };
        writeln!(out, "{shape}")?;
        let caption = match (card.kind, card.reach) {
            (SectionKind::WelcomeMessage, _) => "opens the campaign",
            (SectionKind::Interaction, Reach::Reached) => "interaction",
            (SectionKind::Interaction, Reach::Unreached) => "interaction · nothing leads here",
        };
        let room = width - 2 * PADDING;
        text(out, "caption", PADDING, 20, caption)?;
        text(out, "label", PADDING, 39, &fit(&card.label, room, 14, Font::Proportional))?;
        if let Some(message) = &card.message {
            text(out, "muted", PADDING, 58, &fit(message, room, 12, Font::Proportional))?;
        }
        end_link(out, link)?;
        self.rows(out, index, card, head)?;
        writeln!(out, "</g>")
    }

    fn rows(&self, out: &mut String, index: usize, card: &SectionNode, head: i64) -> fmt::Result {
        if card.rows.is_empty() {
            return Ok(());
        }
        writeln!(out, r#"<g role="list">"#)?;
        let mut arrows = self.arrows_of(index).iter().peekable();
        for (nth, row) in card.rows.iter().enumerate() {
            let mut own: Vec<&Arrow> = Vec::new();
            while let Some(arrow) = arrows.next_if(|arrow| arrow.row == nth) {
                own.push(arrow);
            }
            let top = head + ROW * i64::try_from(nth).unwrap_or(i64::MAX);
            self.row(out, card, row, &own, top)?;
        }
        writeln!(out, "</g>")
    }

    /// The arrows of a section follow one another.
    fn arrows_of(&self, section: usize) -> &[Arrow] {
        let arrows = &self.drawing.graph.arrows;
        let first = arrows.partition_point(|arrow| arrow.from < section);
        let after = arrows.partition_point(|arrow| arrow.from <= section);
        &arrows[first..after]
    }

    fn row(&self, out: &mut String, card: &SectionNode, row: &EntryNode, arrows: &[&Arrow], top: i64) -> fmt::Result {
        let said = labels::row_with_arrows(&self.drawing.graph, row, arrows);
        write!(out, r#"<g class="row" role="listitem" aria-label="{}">"#, Escaped(&said))?;
        let part = match row {
            EntryNode::Own => Part::Section { label: &card.label },
            EntryNode::Entry { keyword, .. } => Part::Entry { section: &card.label, keyword },
        };
        let link = self.link(out, part)?;
        title(out, &[Some(said.as_str())])?;
        write!(out, r#"<rect class="field" x="1" y="{top}" width="{}" height="{ROW}"/>"#, COLUMN - 2)?;
        write!(out, r#"<path class="rule" d="M0,{top}H{COLUMN}"/>"#)?;
        let hooked = arrows.iter().any(|arrow| matches!(arrow.kind, ArrowKind::Webhook(_)));
        let right = COLUMN - if hooked { 34 } else { PADDING };
        let base = top + 21;
        match row {
            EntryNode::Own => text(out, "aside", PADDING, base, own_row(arrows))?,
            EntryNode::Entry { keyword, option } => {
                let keyword = fit(keyword, KEYWORD.1 - 12, 12, Font::Monospaced);
                let width = (width_of(&keyword, 12, Font::Monospaced) + 12).max(KEYWORD.0);
                write!(
                    out,
                    r#"<rect class="chip" x="{PADDING}" y="{}" width="{width}" height="20" rx="5"/>"#,
                    top + 6
                )?;
                text(out, "keyword", PADDING + width / 2, base - 1, &keyword)?;
                let x = PADDING + width + 10;
                match option {
                    Some(option) => text(out, "option", x, base, &fit(option, right - x, 13, Font::Proportional))?,
                    None => text(out, "aside", x, base, unnamed(arrows))?,
                }
            }
        }
        if hooked {
            let (x, y) = (COLUMN - 30, top + 9);
            write!(
                out,
                r#"<path class="linked" d="M{x},{y}m7,3h-2.5a4,4 0 0 0 0,8h2.5m3,0h2.5a4,4 0 0 0 0,-8h-2.5m-4.5,4h6"/>"#
            )?;
        }
        end_link(out, link)?;
        writeln!(out, "</g>")
    }

    fn hook(&self, out: &mut String, hook: &WebhookNode, place: Rect) -> fmt::Result {
        let (class, state) = labels::hook_state(hook, (self.health)(&hook.id));
        let kind = labels::hook_kind(hook);
        let shape = match hook.kind {
            WebhookKind::Redirect => "redirect",
            WebhookKind::Underlying => "underlying",
        };
        let said = match &state {
            Some(state) => format!("{kind} {}, {state}", hook.url),
            None => format!("{kind} {}", hook.url),
        };
        begin(out, &format!("webhook {shape} {class}"), &said, place)?;
        let link = self.link(out, Part::Webhook(&hook.id))?;
        title(out, &[Some(said.as_str())])?;
        let (width, half) = (place.width, HOOK / 2);
        match hook.kind {
            WebhookKind::Redirect => write!(
                out,
                r#"<path class="card" d="M0,{half}L12,0H{}L{width},{half}L{},{HOOK}H12z"/>"#,
                width - 12,
                width - 12
            )?,
            WebhookKind::Underlying => {
                write!(out, r#"<path class="card" d="M0,0H{}l12,12V{HOOK}H0z"/>"#, width - 12)?;
                write!(out, r#"<path class="fold" d="M{},0v12h12"/>"#, width - 12)?;
            }
        }
        let shown = hook.url.split_once("://").map_or(hook.url.as_str(), |(_, rest)| rest);
        let room = width - 2 * 20;
        text(out, "url", 20, 20, &fit_ends(shown, room, 12, Font::Monospaced))?;
        let mut x = 20;
        if let Some(state) = &state {
            mark(out, class, x + 5, 35)?;
            text(out, "state", x + 16, 39, state)?;
            // Bold letters are wider.
            x += 16 + width_of(state, 12, Font::Proportional) + 8;
        }
        text(out, "caption", x, 39, kind)?;
        end_link(out, link)?;
        writeln!(out, "</g>")
    }

    fn campaign(&self, out: &mut String, name: &str, place: Rect) -> fmt::Result {
        begin(out, "campaign", &format!("campaign {name}"), place)?;
        let link = self.link(out, Part::Campaign(name))?;
        title(out, &[Some(name)])?;
        let width = place.width;
        write!(out, r#"<rect class="card" width="{width}" height="{PILL}" rx="{}"/>"#, PILL / 2)?;
        text(out, "caption", 24, 17, "other campaign")?;
        text(out, "label", 24, 34, &fit(name, width - 2 * 24, 14, Font::Proportional))?;
        end_link(out, link)?;
        writeln!(out, "</g>")
    }

    /// Begins a link, where the part leads somewhere.
    fn link(&self, out: &mut String, part: Part<'_>) -> Result<Linked, fmt::Error> {
        let Some(address) = (self.links)(part) else { return Ok(Linked::Not) };
        write!(out, r#"<a href="{}">"#, Escaped(&address))?;
        Ok(Linked::Is)
    }
}

/// Whether a link has begun.
enum Linked {
    Is,
    Not,
}

fn end_link(out: &mut String, link: Linked) -> fmt::Result {
    match link {
        Linked::Is => out.write_str("</a>"),
        Linked::Not => Ok(()),
    }
}

fn missing(out: &mut String, gone: &DanglingTarget, place: Rect) -> fmt::Result {
    let (fault, name) = labels::missing(gone);
    begin(out, "missing", &format!("{fault}: {name}"), place)?;
    title(out, &[Some(name)])?;
    let width = place.width;
    write!(out, r#"<rect class="card" width="{width}" height="{PILL}" rx="4"/>"#)?;
    write!(out, r#"<path class="cross" d="M20,17l10,10m0,-10l-10,10"/>"#)?;
    text(out, "caption", 42, 17, fault)?;
    text(out, "label", 42, 34, &fit(name, width - 42 - PADDING, 14, Font::Proportional))?;
    writeln!(out, "</g>")
}

/// A row of the section itself.
fn own_row(arrows: &[&Arrow]) -> &'static str {
    match arrows {
        [arrow] if matches!(arrow.kind, ArrowKind::Webhook(WebhookKind::Underlying)) => "on every event",
        [_] => "next",
        _ => "next, and on every event",
    }
}

/// An entry without a menu text.
fn unnamed(arrows: &[&Arrow]) -> &'static str {
    match arrows {
        [arrow] if matches!(arrow.kind, ArrowKind::Webhook(WebhookKind::Redirect)) => "webhook",
        _ => "no menu text",
    }
}

/// The mark of a state, told apart by its shape as well.
fn mark(out: &mut String, class: &str, x: i64, y: i64) -> fmt::Result {
    match class {
        "healthy" => write!(out, r#"<path class="mark open" d="M{},{y}l3,3.5l6,-7"/>"#, x - 5),
        "failing" => write!(out, r#"<path class="mark" d="M{x},{}l5.5,9.5h-11z"/>"#, y - 5),
        "paused" => write!(out, r#"<path class="mark" d="M{},{}h3v9h-3zm5.5,0h3v9h-3z"/>"#, x - 4, y - 5),
        _ => write!(out, r#"<path class="mark open" d="M{},{}l8,8"/>"#, x - 4, y - 4),
    }
}

fn begin(out: &mut String, class: &str, said: &str, place: Rect) -> fmt::Result {
    let Rect { x, y, .. } = place;
    let said = Escaped(said);
    writeln!(out, r#"<g class="node {class}" role="listitem" aria-label="{said}" transform="translate({x},{y})">"#)
}

/// What is shown where the pointer rests.
fn title(out: &mut String, lines: &[Option<&str>]) -> fmt::Result {
    out.write_str("<title>")?;
    for (nth, line) in lines.iter().flatten().enumerate() {
        let between = if nth == 0 { "" } else { "\n" };
        write!(out, "{between}{}", Escaped(line))?;
    }
    out.write_str("</title>")
}

fn text(out: &mut String, class: &str, x: i64, y: i64, content: &str) -> fmt::Result {
    write!(out, r#"<text class="{class}" x="{x}" y="{y}">{}</text>"#, Escaped(content))
}
