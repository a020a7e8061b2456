//! Writes a graph as a Mermaid flowchart, for documents that can render Mermaid.

use std::fmt::{self, Write as _};

use super::graph::{ArrowKind, DanglingTarget, Graph, GraphNode, GraphRow, WebhookState};
use super::text::{Font, fit};
use crate::campaign::{SectionKind, WebhookKind};

/// In pixels. Mermaid does not break words, so a long word would make its node as wide.
const MAX_TEXT_WIDTH: i64 = 480;

/// Writes a section with rows as a subgraph: the section itself, and a node for each row.
pub fn mermaid(graph: &Graph) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = write_flowchart(&mut text, graph);
    text
}

fn write_flowchart(out: &mut String, graph: &Graph) -> fmt::Result {
    writeln!(out, "flowchart LR")?;
    for (index, node) in graph.nodes.iter().enumerate() {
        write_node(out, index, node)?;
    }
    for arrow in &graph.arrows {
        let shape = match arrow.kind {
            ArrowKind::Interaction => "-->",
            ArrowKind::Campaign => "==>",
            ArrowKind::Webhook(WebhookKind::Redirect) => "-.->",
            ArrowKind::Webhook(WebhookKind::Underlying) => "-.-o",
        };
        writeln!(out, "  n{}r{} {shape} n{}", arrow.from, arrow.row, arrow.to)?;
    }
    // After all arrows: `linkStyle` counts the links from the first.
    for (index, section) in graph.sections().enumerate() {
        for row in 0..section.rows.len() {
            writeln!(out, "  n{index} --- n{index}r{row}")?;
        }
    }
    write_link_styles(out, graph)
}

fn write_node(out: &mut String, index: usize, node: &GraphNode) -> fmt::Result {
    match node {
        GraphNode::Section(section) => {
            let label = Quoted(&section.label);
            let (open, close) = if section.kind == SectionKind::WelcomeMessage { ("([", "])") } else { ("[", "]") };
            if section.rows.is_empty() {
                return writeln!(out, "  n{index}{open}{label}{close}");
            }
            writeln!(out, "  subgraph n{index}s [\" \"]\n    n{index}{open}{label}{close}")?;
            for (number, row) in section.rows.iter().enumerate() {
                let text = match row {
                    GraphRow::Own => "every event".to_owned(),
                    GraphRow::Entry { keyword, option: Some(option) } => format!("{keyword} · {option}"),
                    GraphRow::Entry { keyword, option: None } => keyword.clone(),
                };
                writeln!(out, "    n{index}r{number}[{}]", Quoted(&text))?;
            }
            writeln!(out, "  end")
        }
        GraphNode::Webhook(webhook) => {
            let text = match webhook.state {
                WebhookState::Enabled => webhook.url.clone(),
                WebhookState::Disabled => format!("{} (disabled)", webhook.url),
            };
            let (open, close) = match webhook.kind {
                WebhookKind::Redirect => ("{{", "}}"),
                WebhookKind::Underlying => ("[/", "/]"),
            };
            writeln!(out, "  n{index}{open}{}{close}", Quoted(&text))
        }
        GraphNode::Campaign(name) => writeln!(out, "  n{index}({})", Quoted(name)),
        GraphNode::Missing(missing) => {
            let text = match missing {
                DanglingTarget::Section(label) => format!("no such section: {label}"),
                DanglingTarget::Unnamed => "broken redirect: its target is missing".to_owned(),
                DanglingTarget::Webhook => "broken redirect: its webhook is missing".to_owned(),
            };
            writeln!(out, "  n{index}>{}]", Quoted(&text))
        }
    }
}

/// Webhook arrows keep Mermaid's default line colour: black in its light theme, light in its dark theme.
fn write_link_styles(out: &mut String, graph: &Graph) -> fmt::Result {
    for (kind, colour) in [(ArrowKind::Interaction, "#2563eb"), (ArrowKind::Campaign, "#dc2626")] {
        let arrows = graph.arrows.iter().enumerate().filter(|(_, arrow)| arrow.kind == kind);
        let links: Vec<String> = arrows.map(|(index, _)| index.to_string()).collect();
        if !links.is_empty() {
            writeln!(out, "  linkStyle {} stroke:{colour}", links.join(","))?;
        }
    }
    Ok(())
}

/// Displays a text in quotes. All ASCII punctuation is escaped as character codes, because the characters that mean
/// something to Mermaid or HTML differ between Mermaid versions.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in fit(self.0, MAX_TEXT_WIDTH, 14, Font::Proportional).chars() {
            match character {
                character if character.is_control() => f.write_char(' ')?,
                ' ' | '0'..='9' | 'A'..='Z' | 'a'..='z' => f.write_char(character)?,
                '!'..='~' => write!(f, "#{};", u32::from(character))?,
                other => f.write_char(other)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::tests::example;
    use crate::flow::graph::graph;

    #[test]
    fn the_example_becomes_a_flowchart() {
        let expected = r#"flowchart LR
  subgraph n0s [" "]
    n0(["Welcome Message"])
    n0r0["1 · Plans"]
    n0r1["2 · Raffle"]
    n0r2["3"]
    n0r3["4 · Offers"]
    n0r4["5 · Survey"]
  end
  n1["Plans"]
  subgraph n2s [" "]
    n2["Offers"]
    n2r0["every event"]
  end
  n3("raffle#45;giveaway")
  n4{{"https#58;#47;#47;example#46;com#47;hooks#47;agent"}}
  n5[/"https#58;#47;#47;example#46;com#47;hooks#47;offers"/]
  n6("web#45;polls")
  n7[/"https#58;#47;#47;example#46;com#47;hooks#47;survey"/]
  n8{{"https#58;#47;#47;example#46;com#47;hooks#47;name"}}
  n0r0 --> n1
  n0r1 ==> n3
  n0r2 -.-> n4
  n0r3 --> n2
  n0r3 -.-o n5
  n0r4 ==> n6
  n0r4 -.-o n7
  n2r0 -.-> n8
  n0 --- n0r0
  n0 --- n0r1
  n0 --- n0r2
  n0 --- n0r3
  n0 --- n0r4
  n2 --- n2r0
  linkStyle 0,3 stroke:#2563eb
  linkStyle 1,5 stroke:#dc2626
"#;
        assert_eq!(mermaid(&graph(&example())), expected);
    }

    #[test]
    fn texts_are_escaped() {
        let text = "a\"]\n  click n0 \"javascript:x\"\n%%{i}<img>#;`é日`";
        let quoted = Quoted(text).to_string();
        let inner = &quoted[1..quoted.len() - 1];
        assert!(!inner.contains(['"', '\n', '<', '%', '`', '{', ':']), "{quoted}");
        assert!(inner.starts_with("a#34;#93; click n0 #34;javascript#58;x") && inner.contains("é日"), "{quoted}");
    }
}
