//! A campaign as a picture: its sections with their menus, and where each entry leads. Blue arrows lead to interactions,
//! red ones to other campaigns, black ones to webhooks; and as not everybody sees colours, lines and heads differ too.
//!
//! ```text
//! Campaign ─graph─▶ nodes and arrows ─layout─▶ places and routes ─svg─▶ text
//!                                   └─mermaid─▶ text
//! ```
//!
//! Plain functions over plain values, as in [`delivery`](super::delivery).

mod graph;
mod health;
mod layout;
mod mermaid;
mod svg;
mod text;

pub use graph::{
    Arrow, ArrowKind, DanglingTarget, EntryNode, Graph, HookState, Node, Reach, SectionNode, WebhookNode, graph,
};
pub use health::Health;
pub use layout::{Drawing, Heading, Point, Rect, Route, layout};
pub use mermaid::mermaid;
pub use svg::{Part, Style, svg};

/// What the classes of [`svg()`] look like, in light and dark: to be in the style sheets of a page that has it within.
pub const CSS: &str = include_str!("../assets/flow.css");

#[cfg(test)]
mod tests;
