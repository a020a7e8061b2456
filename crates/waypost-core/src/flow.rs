//! Draws the flow diagram of a campaign: its sections with their menus, and where each entry leads. Blue arrows lead to
//! interactions, red arrows to other campaigns, and black arrows to webhooks. The kinds of arrows also differ in line
//! and head, so that the diagram does not depend on colours.
//!
//! ```text
//! Campaign ─graph─▶ nodes and arrows ─layout─▶ rectangles and routes ─svg─▶ text
//!                                   └─mermaid─▶ text
//! ```
//!
//! All functions are pure, as in the rest of the crate.

mod graph;
mod health;
mod layout;
mod mermaid;
mod svg;
mod text;

pub use graph::{
    Arrow, ArrowKind, DanglingTarget, Graph, GraphNode, GraphRow, Reach, SectionNode, WebhookNode, WebhookState, graph,
};
pub use health::WebhookHealth;
pub use layout::{ArrowRoute, Drawing, Point, Rect, RouteDirection, layout};
pub use mermaid::mermaid;
pub use svg::{CSS, Part, Style, svg};

#[cfg(test)]
mod tests;
