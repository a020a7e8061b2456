//! Writes a drawing as SVG. All styling is in classes (`assets/flow.css`). The SVG has no inline styles or scripts,
//! which a strict content security policy would block, and no ids, which a second diagram on the page could repeat.
//!
//! For screen readers the diagram is a list of sections with their rows, and lists of the other nodes. The labels of
//! the rows name the targets of the arrows.

mod arrows;
mod labels;
mod nodes;

use std::fmt::{self, Write as _};

use super::health::WebhookHealth;
use super::layout::Drawing;
use super::text::{Escaped, Font, fit, text_width};
use crate::campaign::WebhookKind;
use crate::flow::graph::{ArrowKind, GraphNode};
use crate::ids::WebhookId;

/// The style sheet for the classes that [`svg`](fn@svg) uses, with a light and a dark scheme.
pub const CSS: &str = include_str!("../../assets/flow.css");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A file of its own: has the style sheet and a heading.
    Standalone,
    /// Part of a page that has [`CSS`] in its style sheets.
    Embedded,
}

/// A part of the diagram that can link to a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    Section {
        label: &'a str,
    },
    Entry {
        /// The label of the section.
        section: &'a str,
        keyword: &'a str,
    },
    Webhook(&'a WebhookId),
    /// Another campaign, as redirects name it.
    Campaign(&'a str),
}

/// Writes the drawing as SVG. `links` returns the address that a part links to, or `None` for no link.
pub fn svg(
    drawing: &Drawing,
    style: Style,
    health: &dyn Fn(&WebhookId) -> WebhookHealth,
    links: &dyn Fn(Part<'_>) -> Option<String>,
) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = SvgWriter { drawing, style, health, links }.write(&mut text);
    text
}

struct SvgWriter<'a> {
    drawing: &'a Drawing,
    style: Style,
    health: &'a dyn Fn(&WebhookId) -> WebhookHealth,
    links: &'a dyn Fn(Part<'_>) -> Option<String>,
}

/// Minimum width of the diagram, so that the legend fits.
const MIN_WIDTH: i64 = 480;
const HEADING_HEIGHT: i64 = 56;
/// Space beside the heading and the legend.
const MARGIN: i64 = 24;
const LEGEND_LINE_HEIGHT: i64 = 26;

impl SvgWriter<'_> {
    fn write(&self, out: &mut String) -> fmt::Result {
        let graph = &self.drawing.graph;
        let name = graph.name.as_deref().unwrap_or(&graph.id);
        let width = self.drawing.width.max(MIN_WIDTH);
        let legend = Legend::for_width(width);
        let heading_height = if self.style == Style::Standalone { HEADING_HEIGHT } else { 0 };
        let height = heading_height + self.drawing.height + legend.height();
        writeln!(
            out,
            r#"<svg xmlns="http://www.w3.org/2000/svg" class="flow" role="group" aria-label="Flow of the campaign {}" width="{width}" height="{height}" viewBox="0 {} {width} {height}">"#,
            Escaped(name),
            -heading_height,
        )?;
        if self.style == Style::Standalone {
            writeln!(out, "<title>{}</title>\n<style>\n{CSS}</style>", Escaped(name))?;
            writeln!(out, r#"<rect class="ground" y="{}" width="{width}" height="{height}"/>"#, -heading_height)?;
            let name_text = fit(name, width - 2 * MARGIN, 18, Font::Proportional);
            writeln!(out, r#"<text class="heading" x="{MARGIN}" y="-22">{}</text>"#, Escaped(&name_text))?;
            if graph.name.is_some() {
                let id = fit(&graph.id, width - 2 * MARGIN, 12, Font::Proportional);
                writeln!(out, r#"<text class="muted" x="{MARGIN}" y="-4">campaign {}</text>"#, Escaped(&id))?;
            }
        }
        if graph.sections().next().is_none() {
            writeln!(out, r#"<text class="muted" x="{MARGIN}" y="28">This campaign has no sections.</text>"#)?;
        }
        self.write_list(out, "Sections", |node| matches!(node, GraphNode::Section(_)))?;
        self.write_list(out, "Webhooks", |node| matches!(node, GraphNode::Webhook(_)))?;
        self.write_list(out, "Other campaigns", |node| matches!(node, GraphNode::Campaign(_)))?;
        self.write_list(out, "Missing", |node| matches!(node, GraphNode::Missing(_)))?;
        arrows::write_arrows(out, self.drawing)?;
        legend.write(out, self.drawing.height)?;
        out.push_str("</svg>\n");
        Ok(())
    }

    /// Writes the nodes of a kind as a list, if there are any.
    fn write_list(&self, out: &mut String, label: &str, is_listed: impl Fn(&GraphNode) -> bool) -> fmt::Result {
        let nodes = &self.drawing.graph.nodes;
        if !nodes.iter().any(&is_listed) {
            return Ok(());
        }
        writeln!(out, r#"<g role="list" aria-label="{label}">"#)?;
        for (index, node) in nodes.iter().enumerate().filter(|(_, node)| is_listed(node)) {
            self.write_node(out, index, node)?;
        }
        writeln!(out, "</g>")
    }
}

/// The position, kind and caption of each entry.
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
        let entries = items.map(|(kind, caption)| {
            let length = 56 + text_width(caption, 12, Font::Proportional);
            if x + length > width - MARGIN {
                (x, y) = (MARGIN, y + LEGEND_LINE_HEIGHT);
            }
            let entry = (x, y, kind, caption);
            x += length + 16;
            entry
        });
        Self(entries.to_vec())
    }

    fn height(&self) -> i64 {
        self.0.iter().map(|(_, y, ..)| y).max().map_or(0, |last| last + LEGEND_LINE_HEIGHT + 20)
    }

    fn write(&self, out: &mut String, top: i64) -> fmt::Result {
        writeln!(out, r#"<g class="legend" role="list" aria-label="Kinds of arrows">"#)?;
        for (x, y, kind, caption) in &self.0 {
            let middle = top + y + 12;
            writeln!(out, r#"<g role="listitem" aria-label="{caption}">"#)?;
            arrows::write_sample(out, *kind, *x, middle)?;
            writeln!(out, r#"<text class="muted" x="{}" y="{}">{caption}</text></g>"#, x + 52, middle + 4)?;
        }
        writeln!(out, "</g>")
    }
}
