//! Locators find elements by role and accessible name, as Chromium reports them to a screen reader. So a screen reader
//! can find every element that a test finds.

use std::collections::HashMap;
use std::fmt;

use serde_json::{Value, json};
use thirtyfour::WebElement;

use super::Browser;

/// A button, link, field or other element with this name.
#[derive(Debug, Clone)]
pub(crate) struct Locator {
    /// The word for error messages.
    kind: &'static str,
    /// The accessibility roles of Chromium. An element has one of them.
    roles: &'static [&'static str],
    name: NameMatch,
    inside: Option<Box<Locator>>,
}

#[derive(Debug, Clone)]
enum NameMatch {
    Exact(String),
    Containing(String),
    /// The element has no name, but contains this text.
    TextContent(String),
}

pub(crate) fn button(name: &str) -> Locator {
    Locator::exact("button", &["button"], name)
}

pub(crate) fn link(name: &str) -> Locator {
    Locator::exact("link", &["link"], name)
}

/// A text field, by its label.
pub(crate) fn field(label: &str) -> Locator {
    Locator::exact("field", &["textbox", "searchbox", "spinbutton", "Date", "DateTime"], label)
}

/// A select or combobox, by its label.
pub(crate) fn choice(label: &str) -> Locator {
    Locator::exact("choice", &["combobox", "listbox"], label)
}

/// A checkbox or switch, by its label.
pub(crate) fn checkbox(label: &str) -> Locator {
    Locator::exact("checkbox", &["checkbox", "switch"], label)
}

/// A radio button, by its label.
pub(crate) fn radio(label: &str) -> Locator {
    Locator::exact("radio button", &["radio"], label)
}

/// A `<summary>`.
pub(crate) fn summary(name: &str) -> Locator {
    Locator::exact("summary", &["DisclosureTriangle", "DisclosureTriangleGrouped"], name)
}

pub(crate) fn heading(name: &str) -> Locator {
    Locator::exact("heading", &["heading"], name)
}

pub(crate) fn dialog(name: &str) -> Locator {
    Locator::exact("dialog", &["dialog", "alertdialog"], name)
}

/// A landmark, group or table, by its name.
pub(crate) fn region(name: &str) -> Locator {
    let roles = &["region", "navigation", "main", "form", "group", "search", "table", "list", "banner", "contentinfo"];
    Locator::exact("region", roles, name)
}

/// The table row or list item that contains this text.
pub(crate) fn row(text: &str) -> Locator {
    Locator {
        kind: "row",
        roles: &["row", "listitem", "article"],
        name: NameMatch::TextContent(collapse_whitespace(text)),
        inside: None,
    }
}

impl Locator {
    fn exact(kind: &'static str, roles: &'static [&'static str], name: &str) -> Self {
        Self { kind, roles, name: NameMatch::Exact(collapse_whitespace(name)), inside: None }
    }

    /// Also matches longer names that contain this one. With an empty name it matches every element of the roles.
    pub(crate) fn with_partial_name(self) -> Self {
        let name = match self.name {
            NameMatch::Exact(name) => NameMatch::Containing(name),
            loose => loose,
        };
        Self { name, ..self }
    }

    /// Matches only inside of another element: `button("Discard").inside(row("dl_17"))`.
    pub(crate) fn inside(self, outer: Locator) -> Self {
        Self { inside: Some(Box::new(outer)), ..self }
    }

    fn matches(&self, role: &str, name: &str) -> bool {
        self.roles.contains(&role)
            && match &self.name {
                NameMatch::Exact(wanted) => name == wanted,
                NameMatch::Containing(part) | NameMatch::TextContent(part) => name.contains(part),
            }
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            NameMatch::Exact(name) => write!(f, "{} {name:?}", self.kind)?,
            NameMatch::Containing(part) | NameMatch::TextContent(part) => write!(f, "{} with {part:?}", self.kind)?,
        }
        self.inside.iter().try_for_each(|outer| write!(f, " in {outer}"))
    }
}

/// A node of the accessibility tree.
struct AccessibilityNode {
    role: String,
    name: String,
    node: Value,
}

/// The error says what was not found, and what exists instead.
pub(super) type QueryResult<T> = Result<T, String>;

impl Browser {
    /// The only matching element. Several or none are an error.
    pub(super) async fn find(&self, thing: &Locator) -> QueryResult<WebElement> {
        // A variable of the page carries the element, because WebDriver and the DevTools Protocol share no ids.
        let object = self.object_id(thing).await?;
        let keep = "function () { globalThis.foundByTest = this; }";
        let call = json!({ "objectId": object, "functionDeclaration": keep });
        self.devtools("Runtime.callFunctionOn", call).await?;
        let take = "const found = globalThis.foundByTest; delete globalThis.foundByTest; return found;";
        let taken = self.session.execute(take, Vec::new()).await.map_err(|error| error.to_string())?;
        taken.element().map_err(|error| error.to_string())
    }

    /// The names of all matching elements, in the order of the page.
    pub(super) async fn all_names(&self, thing: &Locator) -> QueryResult<Vec<String>> {
        let standing = self.nodes_with_roles(thing).await?.into_iter();
        Ok(standing.filter(|one| thing.matches(&one.role, &one.name)).map(|one| one.name).collect())
    }

    /// Fails if the element does not have the focus.
    pub(super) async fn has_focus(&self, thing: &Locator) -> QueryResult<()> {
        let focused = self.devtools("Runtime.evaluate", json!({ "expression": "document.activeElement" })).await?;
        let ask = json!({ "objectId": focused["result"]["objectId"], "fetchRelatives": false });
        let tree = self.devtools("Accessibility.getPartialAXTree", ask).await?;
        let standing = tree["nodes"].get(0).map(to_accessibility_node).ok_or("nothing has the focus")?;
        if thing.matches(&standing.role, &standing.name) {
            return Ok(());
        }
        Err(format!("the focus is on the {} {:?}", standing.role, standing.name))
    }

    async fn object_id(&self, thing: &Locator) -> QueryResult<Value> {
        let all = self.nodes_with_roles(thing).await?;
        let meant: Vec<&AccessibilityNode> = all.iter().filter(|one| thing.matches(&one.role, &one.name)).collect();
        match meant[..] {
            [one] => {
                let resolved = self.devtools("DOM.resolveNode", json!({ "backendNodeId": one.node })).await?;
                Ok(resolved["object"]["objectId"].clone())
            }
            [] => {
                let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
                Err(format!("there is no {thing}; of its kind there are {names:?}"))
            }
            _ => Err(format!("there are {} of {thing}: narrow it with `inside`", meant.len())),
        }
    }

    /// All elements with the locator's roles, whatever their names.
    async fn nodes_with_roles(&self, thing: &Locator) -> QueryResult<Vec<AccessibilityNode>> {
        let root = match &thing.inside {
            Some(outer) => Box::pin(self.object_id(outer)).await?,
            None => {
                let document = self.devtools("Runtime.evaluate", json!({ "expression": "document" })).await?;
                document["result"]["objectId"].clone()
            }
        };
        if let NameMatch::TextContent(_) = thing.name {
            let tree = self.devtools("Accessibility.queryAXTree", json!({ "objectId": root })).await?;
            return Ok(nodes_by_text(thing.roles, nodes(&tree)));
        }
        let mut all = Vec::new();
        for role in thing.roles {
            let ask = json!({ "objectId": root, "role": role });
            let tree = self.devtools("Accessibility.queryAXTree", ask).await?;
            all.extend(nodes(&tree).iter().filter(|node| node["ignored"] == false).map(to_accessibility_node));
        }
        Ok(all)
    }
}

fn nodes(tree: &Value) -> &[Value] {
    tree["nodes"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn to_accessibility_node(node: &Value) -> AccessibilityNode {
    let text = |field: &str| collapse_whitespace(node[field]["value"].as_str().unwrap_or_default());
    AccessibilityNode { role: text("role"), name: text("name"), node: node["backendDOMNodeId"].clone() }
}

/// Elements with these roles, named by their text. Every node comes after its ancestors.
fn nodes_by_text(roles: &[&str], nodes: &[Value]) -> Vec<AccessibilityNode> {
    let mut all: Vec<AccessibilityNode> = Vec::new();
    let mut inside_of: HashMap<&str, Vec<usize>> = HashMap::new();
    for node in nodes {
        let parent = node["parentId"].as_str().unwrap_or_default();
        let mut around = inside_of.get(parent).cloned().unwrap_or_default();
        let one = to_accessibility_node(node);
        if one.role == "StaticText" {
            for index in &around {
                let words = &mut all[*index].name;
                *words = collapse_whitespace(&format!("{words} {}", one.name));
            }
        } else if node["ignored"] == false && roles.contains(&one.role.as_str()) {
            around.push(all.len());
            all.push(AccessibilityNode { name: String::new(), ..one });
        }
        inside_of.insert(node["nodeId"].as_str().unwrap_or_default(), around);
    }
    all
}

/// Replaces each run of whitespace by one space.
pub(super) fn collapse_whitespace(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
