//! A drawing as SVG. What things look like is said by classes alone (`assets/flow.css`): there is no style and no script
//! in it that a strict content security policy would stop, and no id that a second picture on a page could have too.
//!
//! To those who hear it, it is a list of sections with their rows, and of what these lead to; the arrows are told with
//! the rows.

mod arrows;
mod labels;
mod nodes;

use std::fmt::{self, Write as _};

use super::CSS;
use super::health::Health;
use super::layout::Drawing;
use super::text::{Escaped, Font, fit, width_of};
use crate::delivery::campaign::WebhookKind;
use crate::delivery::ids::WebhookId;
use crate::flow::graph::{ArrowKind, Node};

/// Where the looks come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// The picture has them with it, and a heading: it is a file of its own.
    Own,
    /// The page that the picture is in has [`CSS`] among its style sheets.
    OfThePage,
}

/// What of a picture can lead to a page about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// A section.
    Section {
        /// Its label.
        label: &'a str,
    },
    /// A menu entry.
    Entry {
        /// The label of its section.
        section: &'a str,
        /// Its keyword, as text.
        keyword: &'a str,
    },
    /// A webhook.
    Webhook(&'a WebhookId),
    /// Another campaign, by the name that redirects have for it.
    Campaign(&'a str),
}

/// The drawing as SVG. `health` tells how webhooks are doing, `links` the addresses that parts lead to, where there are
/// any.
pub fn svg(
    drawing: &Drawing,
    style: Style,
    health: &dyn Fn(&WebhookId) -> Health,
    links: &dyn Fn(Part<'_>) -> Option<String>,
) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = Picture { drawing, style, health, links }.write(&mut text);
    text
}

/// What a picture is made of.
struct Picture<'a> {
    drawing: &'a Drawing,
    style: Style,
    health: &'a dyn Fn(&WebhookId) -> Health,
    links: &'a dyn Fn(Part<'_>) -> Option<String>,
}

/// The least width, for the legend's sake.
const LEAST_WIDTH: i64 = 480;
/// The height of the heading.
const HEADING: i64 = 56;
/// What is left free beside heading and legend.
const MARGIN: i64 = 24;
/// The height of a line of the legend.
const LEGEND_LINE: i64 = 26;

impl Picture<'_> {
    fn write(&self, out: &mut String) -> fmt::Result {
        let graph = &self.drawing.graph;
        let name = graph.name.as_deref().unwrap_or(&graph.id);
        let width = self.drawing.width.max(LEAST_WIDTH);
        let legend = Legend::for_width(width);
        let heading = if self.style == Style::Own { HEADING } else { 0 };
        let height = heading + self.drawing.height + legend.height();
        writeln!(
            out,
            r#"<svg xmlns="http://www.w3.org/2000/svg" class="flow" role="group" aria-label="Flow of the campaign {}" width="{width}" height="{height}" viewBox="0 {} {width} {height}">"#,
            Escaped(name),
            -heading,
        )?;
        if self.style == Style::Own {
            writeln!(out, "<title>{}</title>\n<style>\n{CSS}</style>", Escaped(name))?;
            writeln!(out, r#"<rect class="ground" y="{}" width="{width}" height="{height}"/>"#, -heading)?;
            let shown = fit(name, width - 2 * MARGIN, 18, Font::Proportional);
            writeln!(out, r#"<text class="heading" x="{MARGIN}" y="-22">{}</text>"#, Escaped(&shown))?;
            if graph.name.is_some() {
                let id = fit(&graph.id, width - 2 * MARGIN, 12, Font::Proportional);
                writeln!(out, r#"<text class="muted" x="{MARGIN}" y="-4">campaign {}</text>"#, Escaped(&id))?;
            }
        }
        if graph.cards().next().is_none() {
            writeln!(out, r#"<text class="muted" x="{MARGIN}" y="28">This campaign has no sections.</text>"#)?;
        }
        self.list(out, "Sections", |node| matches!(node, Node::Section(_)))?;
        self.list(out, "Webhooks", |node| matches!(node, Node::Webhook(_)))?;
        self.list(out, "Other campaigns", |node| matches!(node, Node::Campaign(_)))?;
        self.list(out, "Missing", |node| matches!(node, Node::Missing(_)))?;
        self.arrows(out)?;
        legend.write(out, self.drawing.height)?;
        out.push_str("</svg>\n");
        Ok(())
    }

    /// The nodes of a kind, where there are any.
    fn list(&self, out: &mut String, label: &str, is_one: impl Fn(&Node) -> bool) -> fmt::Result {
        let nodes = &self.drawing.graph.nodes;
        if !nodes.iter().any(&is_one) {
            return Ok(());
        }
        writeln!(out, r#"<g role="list" aria-label="{label}">"#)?;
        for (index, node) in nodes.iter().enumerate().filter(|(_, node)| is_one(node)) {
            self.node(out, index, node)?;
        }
        writeln!(out, "</g>")
    }
}

/// What the arrows mean, with the place of each.
struct Legend(Vec<(i64, i64, ArrowKind, &'static str)>);

impl Legend {
    fn for_width(width: i64) -> Self {
        let (mut x, mut y) = (MARGIN, 0);
        let items = [
            (ArrowKind::Interaction, "interaction"),
            (ArrowKind::Campaign, "other campaign"),
            (ArrowKind::Webhook(WebhookKind::Redirect), "webhook as the redirect"),
            (ArrowKind::Webhook(WebhookKind::Underlying), "underlying webhook"),
        ];
        let placed = items.map(|(kind, words)| {
            let length = 56 + width_of(words, 12, Font::Proportional);
            if x + length > width - MARGIN {
                (x, y) = (MARGIN, y + LEGEND_LINE);
            }
            let place = (x, y);
            x += length + 16;
            (place.0, place.1, kind, words)
        });
        Self(placed.to_vec())
    }

    fn height(&self) -> i64 {
        self.0.iter().map(|(_, y, ..)| y).max().map_or(0, |last| last + LEGEND_LINE + 20)
    }

    fn write(&self, out: &mut String, top: i64) -> fmt::Result {
        writeln!(out, r#"<g class="legend" role="list" aria-label="Kinds of arrows">"#)?;
        for (x, y, kind, words) in &self.0 {
            let middle = top + y + 12;
            writeln!(out, r#"<g role="listitem" aria-label="{words}">"#)?;
            arrows::sample(out, *kind, *x, middle)?;
            writeln!(out, r#"<text class="muted" x="{}" y="{}">{words}</text></g>"#, x + 52, middle + 4)?;
        }
        writeln!(out, "</g>")
    }
}
