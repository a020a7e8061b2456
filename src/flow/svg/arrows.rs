//! Arrows: their lines and heads.

use std::fmt::{self, Write as _};

use super::{Picture, words};
use crate::delivery::campaign::WebhookKind;
use crate::flow::graph::ArrowKind;
use crate::flow::layout::{Heading, Point};
use crate::flow::text::Escaped;

/// How much of an arrow is its head.
const HEAD: i64 = 12;
/// How far a line goes ahead, at least and at most, before it turns round.
const TURNS: (i64, i64) = (24, 60);

impl Picture<'_> {
    /// All arrows. They are told with the rows, so who hears the picture does not hear them again.
    pub(super) fn arrows(&self, out: &mut String) -> fmt::Result {
        writeln!(out, r#"<g class="arrows" aria-hidden="true">"#)?;
        let graph = &self.drawing.graph;
        for (arrow, route) in graph.arrows.iter().zip(&self.drawing.routes) {
            let Some(card) = graph.card(arrow.from) else { continue };
            let (row, end) = (words::row(&card.rows[arrow.row]), words::end(graph, arrow));
            write!(out, r#"<g class="arrow {}"><title>"#, class(arrow.kind))?;
            write!(out, "{}, {}: {}</title>", Escaped(&card.label), Escaped(&row), Escaped(&end))?;
            self::arrow(out, arrow.kind, &route.0)?;
            writeln!(out, "</g>")?;
        }
        writeln!(out, "</g>")
    }
}

/// A short arrow of a kind, for the legend.
pub(super) fn sample(out: &mut String, kind: ArrowKind, x: i64, y: i64) -> fmt::Result {
    write!(out, r#"<g class="arrow {}">"#, class(kind))?;
    arrow(out, kind, &[x + 4, x + 44].map(|x| Point { x, y, heading: Heading::Right }))?;
    out.write_str("</g>")
}

fn class(kind: ArrowKind) -> &'static str {
    match kind {
        ArrowKind::Interaction => "interaction",
        ArrowKind::Campaign => "campaign",
        ArrowKind::Webhook(WebhookKind::Redirect) => "webhook redirect",
        ArrowKind::Webhook(WebhookKind::Underlying) => "webhook underlying",
    }
}

fn arrow(out: &mut String, kind: ArrowKind, points: &[Point]) -> fmt::Result {
    let ([start, ..], [.., tip]) = (points, points) else { return Ok(()) };
    write!(out, r#"<path class="line" d=""#)?;
    line(out, points)?;
    write!(out, r#""/><circle class="start" cx="{}" cy="{}" r="3"/>"#, start.x, start.y)?;
    let (x, y) = (tip.x, tip.y);
    match kind {
        ArrowKind::Interaction | ArrowKind::Campaign => {
            write!(out, r#"<path class="head" d="M{},{}l{HEAD},5l-{HEAD},5z"/>"#, x - HEAD, y - 5)
        }
        ArrowKind::Webhook(WebhookKind::Redirect) => {
            write!(out, r#"<path class="head" d="M{},{y}l6,-5l6,5l-6,5z"/>"#, x - HEAD)
        }
        ArrowKind::Webhook(WebhookKind::Underlying) => {
            write!(out, r#"<circle class="head" cx="{}" cy="{y}" r="5"/>"#, x - 6)
        }
    }
}

/// The line of an arrow, from its head to its start: so arrows that share the way to a node have their dashes at the
/// same places.
fn line(out: &mut String, points: &[Point]) -> fmt::Result {
    let Some((tip, before)) = points.split_last() else { return Ok(()) };
    let mut to = Point { x: tip.x - HEAD, ..*tip };
    write!(out, "M{},{}", to.x, to.y)?;
    for from in before.iter().rev() {
        if from.heading == to.heading && from.y == to.y {
            write!(out, "H{}", from.x)?;
        } else {
            let ahead = if from.heading == to.heading {
                (to.x - from.x).abs() / 2
            } else {
                ((to.y - from.y).abs() / 2).clamp(TURNS.0, TURNS.1)
            };
            let (near, far) = (to.x - ahead * sign(to.heading), from.x + ahead * sign(from.heading));
            write!(out, "C{near},{} {far},{} {},{}", to.y, from.y, from.x, from.y)?;
        }
        to = *from;
    }
    Ok(())
}

fn sign(heading: Heading) -> i64 {
    match heading {
        Heading::Right => 1,
        Heading::Left => -1,
    }
}
