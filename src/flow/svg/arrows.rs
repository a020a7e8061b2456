//! Arrows: their lines and heads.

use std::fmt::{self, Write as _};

use super::{Picture, labels};
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
            let (row, end) = (labels::row(&card.rows[arrow.row]), labels::end(graph, arrow));
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
        match (from.heading == to.heading, from.x == to.x, from.y == to.y) {
            (true, true, _) => write!(out, "V{}", from.y)?,
            (true, _, true) => write!(out, "H{}", from.x)?,
            _ => {
                let reach = reach(*from, to);
                let (near, far) = (beside(to, -reach), beside(*from, reach));
                write!(out, "C{},{} {},{} {},{}", near.0, near.1, far.0, far.1, from.x, from.y)?;
            }
        }
        to = *from;
    }
    Ok(())
}

/// How far a line goes straight on at the ends of a curve.
fn reach(from: Point, to: Point) -> i64 {
    let (across, down) = ((to.x - from.x).abs(), (to.y - from.y).abs());
    match (from.heading, to.heading) {
        (one, other) if one == other => across / 2,
        (Heading::Right, Heading::Left) | (Heading::Left, Heading::Right) => (down / 2).clamp(TURNS.0, TURNS.1),
        // A quarter of a circle.
        _ => across.min(down) * 55 / 100,
    }
}

/// A point so far ahead of another.
fn beside(point: Point, ahead: i64) -> (i64, i64) {
    match point.heading {
        Heading::Right => (point.x + ahead, point.y),
        Heading::Left => (point.x - ahead, point.y),
        Heading::Up => (point.x, point.y - ahead),
        Heading::Down => (point.x, point.y + ahead),
    }
}
