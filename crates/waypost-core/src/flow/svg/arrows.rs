//! Writes arrows: their lines and heads.

use std::fmt::{self, Write as _};

use super::labels;
use crate::campaign::WebhookKind;
use crate::flow::graph::ArrowKind;
use crate::flow::layout::{Drawing, Point, RouteDirection};
use crate::flow::text::Escaped;

const HEAD_LENGTH: i64 = 12;
/// Minimum and maximum distance that a line runs straight before it turns around.
const TURN_DISTANCE: (i64, i64) = (24, 60);

/// Hidden from screen readers, because the labels of the rows name the targets of the arrows.
pub(super) fn write_arrows(out: &mut String, drawing: &Drawing) -> fmt::Result {
    writeln!(out, r#"<g class="arrows" aria-hidden="true">"#)?;
    let graph = &drawing.graph;
    for (arrow, route) in graph.arrows.iter().zip(&drawing.routes) {
        let Some(section) = graph.section(arrow.from) else { continue };
        let (row, target) = (labels::row(&section.rows[arrow.row]), labels::target(graph, arrow));
        write!(out, r#"<g class="arrow {}"><title>"#, class(arrow.kind))?;
        write!(out, "{}, {}: {}</title>", Escaped(&section.label), Escaped(&row), Escaped(&target))?;
        write_arrow(out, arrow.kind, &route.0)?;
        writeln!(out, "</g>")?;
    }
    writeln!(out, "</g>")
}

/// Writes a short arrow for the legend.
pub(super) fn write_sample(out: &mut String, kind: ArrowKind, x: i64, y: i64) -> fmt::Result {
    write!(out, r#"<g class="arrow {}">"#, class(kind))?;
    write_arrow(out, kind, &[x + 4, x + 44].map(|x| Point { x, y, direction: RouteDirection::Right }))?;
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

fn write_arrow(out: &mut String, kind: ArrowKind, points: &[Point]) -> fmt::Result {
    let ([start, ..], [.., tip]) = (points, points) else { return Ok(()) };
    write!(out, r#"<path class="line" d=""#)?;
    write_line(out, points)?;
    write!(out, r#""/><circle class="start" cx="{}" cy="{}" r="3"/>"#, start.x, start.y)?;
    let (x, y) = (tip.x, tip.y);
    match kind {
        ArrowKind::Interaction | ArrowKind::Campaign => {
            write!(out, r#"<path class="head" d="M{},{}l{HEAD_LENGTH},5l-{HEAD_LENGTH},5z"/>"#, x - HEAD_LENGTH, y - 5)
        }
        ArrowKind::Webhook(WebhookKind::Redirect) => {
            write!(out, r#"<path class="head" d="M{},{y}l6,-5l6,5l-6,5z"/>"#, x - HEAD_LENGTH)
        }
        ArrowKind::Webhook(WebhookKind::Underlying) => {
            write!(out, r#"<circle class="head" cx="{}" cy="{y}" r="5"/>"#, x - 6)
        }
    }
}

/// Writes the line from the head to the start, so that the dashes of arrows that share a lane coincide.
fn write_line(out: &mut String, points: &[Point]) -> fmt::Result {
    let Some((tip, before)) = points.split_last() else { return Ok(()) };
    let mut to = Point { x: tip.x - HEAD_LENGTH, ..*tip };
    write!(out, "M{},{}", to.x, to.y)?;
    for from in before.iter().rev() {
        match (from.direction == to.direction, from.x == to.x, from.y == to.y) {
            (true, true, _) => write!(out, "V{}", from.y)?,
            (true, _, true) => write!(out, "H{}", from.x)?,
            _ => {
                let distance = control_distance(*from, to);
                let (near, far) = (control_point(to, -distance), control_point(*from, distance));
                write!(out, "C{},{} {},{} {},{}", near.0, near.1, far.0, far.1, from.x, from.y)?;
            }
        }
        to = *from;
    }
    Ok(())
}

/// Distance of the control points of a curve from its ends.
fn control_distance(from: Point, to: Point) -> i64 {
    let (across, down) = ((to.x - from.x).abs(), (to.y - from.y).abs());
    match (from.direction, to.direction) {
        (one, other) if one == other => across / 2,
        (RouteDirection::Right, RouteDirection::Left) | (RouteDirection::Left, RouteDirection::Right) => {
            (down / 2).clamp(TURN_DISTANCE.0, TURN_DISTANCE.1)
        }
        // A quarter of a circle.
        _ => across.min(down) * 55 / 100,
    }
}

fn control_point(point: Point, distance: i64) -> (i64, i64) {
    match point.direction {
        RouteDirection::Right => (point.x + distance, point.y),
        RouteDirection::Left => (point.x - distance, point.y),
        RouteDirection::Up => (point.x, point.y - distance),
        RouteDirection::Down => (point.x, point.y + distance),
    }
}
