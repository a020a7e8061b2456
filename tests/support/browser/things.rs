//! What is on a page, named as a person names it who sees or hears it: by its role and its name. Both are those that Chromium
//! gives to a screen reader, so a thing that can't be found here can't be found by one either.

use std::collections::HashMap;
use std::fmt;

use serde_json::{Value, json};
use thirtyfour::WebElement;

use super::Browser;

/// A button, a link, a field … of this name.
#[derive(Debug, Clone)]
pub(crate) struct Thing {
    /// What a person calls it.
    kind: &'static str,
    /// What Chromium calls it: any of these.
    roles: &'static [&'static str],
    name: Name,
    inside: Option<Box<Thing>>,
}

#[derive(Debug, Clone)]
enum Name {
    Exactly(String),
    Containing(String),
    /// It has no name, but text in it.
    Reading(String),
}

/// What can be pressed.
pub(crate) fn button(name: &str) -> Thing {
    Thing::exactly("button", &["button"], name)
}

/// What leads elsewhere.
pub(crate) fn link(name: &str) -> Thing {
    Thing::exactly("link", &["link"], name)
}

/// What takes text, by its label.
pub(crate) fn field(label: &str) -> Thing {
    Thing::exactly("field", &["textbox", "searchbox", "spinbutton", "Date", "DateTime"], label)
}

/// What has a choice, by its label.
pub(crate) fn choice(label: &str) -> Thing {
    Thing::exactly("choice", &["combobox", "listbox"], label)
}

/// A box to tick, or a switch, by its label.
pub(crate) fn checkbox(label: &str) -> Thing {
    Thing::exactly("checkbox", &["checkbox", "switch"], label)
}

/// One of several, by its label.
pub(crate) fn radio(label: &str) -> Thing {
    Thing::exactly("radio button", &["radio"], label)
}

/// What opens a part of the page (`<summary>`).
pub(crate) fn summary(name: &str) -> Thing {
    Thing::exactly("summary", &["DisclosureTriangle", "DisclosureTriangleGrouped"], name)
}

/// The title of a part of the page.
pub(crate) fn heading(name: &str) -> Thing {
    Thing::exactly("heading", &["heading"], name)
}

/// A dialog, by its title.
pub(crate) fn dialog(name: &str) -> Thing {
    Thing::exactly("dialog", &["dialog", "alertdialog"], name)
}

/// A named part of the page: a landmark, a group, a table.
pub(crate) fn region(name: &str) -> Thing {
    let roles = &["region", "navigation", "main", "form", "group", "search", "table", "list", "banner", "contentinfo"];
    Thing::exactly("region", roles, name)
}

/// The row of a table, or the item of a list, that has this text in it.
pub(crate) fn row(text: &str) -> Thing {
    Thing { kind: "row", roles: &["row", "listitem", "article"], name: Name::Reading(plain(text)), inside: None }
}

impl Thing {
    fn exactly(kind: &'static str, roles: &'static [&'static str], name: &str) -> Self {
        Self { kind, roles, name: Name::Exactly(plain(name)), inside: None }
    }

    /// The same, with more text around its name; with an empty name it is any of its kind.
    pub(crate) fn loosely(self) -> Self {
        let name = match self.name {
            Name::Exactly(name) => Name::Containing(name),
            loose => loose,
        };
        Self { name, ..self }
    }

    /// The same inside of another thing: `button("Discard").inside(row("dl_17"))`.
    pub(crate) fn inside(self, outer: Thing) -> Self {
        Self { inside: Some(Box::new(outer)), ..self }
    }

    fn is(&self, role: &str, name: &str) -> bool {
        self.roles.contains(&role)
            && match &self.name {
                Name::Exactly(wanted) => name == wanted,
                Name::Containing(part) | Name::Reading(part) => name.contains(part),
            }
    }
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Name::Exactly(name) => write!(f, "{} {name:?}", self.kind)?,
            Name::Containing(part) | Name::Reading(part) => write!(f, "{} with {part:?}", self.kind)?,
        }
        self.inside.iter().try_for_each(|outer| write!(f, " in {outer}"))
    }
}

/// A thing as it stands on the page.
struct Standing {
    role: String,
    name: String,
    node: Value,
}

/// What is not there, and what is, said for whoever reads a failed test.
pub(super) type Found<T> = Result<T, String>;

impl Browser {
    /// The one thing that is meant.
    pub(super) async fn find(&self, thing: &Thing) -> Found<WebElement> {
        // Handed over in a variable of the page: the two protocols have no other name in common for it.
        let object = self.object(thing).await?;
        let keep = "function () { globalThis.foundByTest = this; }";
        let call = json!({ "objectId": object, "functionDeclaration": keep });
        self.devtools("Runtime.callFunctionOn", call).await?;
        let take = "const found = globalThis.foundByTest; delete globalThis.foundByTest; return found;";
        let taken = self.session.execute(take, Vec::new()).await.map_err(|error| error.to_string())?;
        taken.element().map_err(|error| error.to_string())
    }

    /// The names of all things that are meant, in the order of the page.
    pub(super) async fn all_names(&self, thing: &Thing) -> Found<Vec<String>> {
        let standing = self.standing(thing).await?.into_iter();
        Ok(standing.filter(|one| thing.is(&one.role, &one.name)).map(|one| one.name).collect())
    }

    /// Whether the focus is on it.
    pub(super) async fn has_focus(&self, thing: &Thing) -> Found<()> {
        let focused = self.devtools("Runtime.evaluate", json!({ "expression": "document.activeElement" })).await?;
        let ask = json!({ "objectId": focused["result"]["objectId"], "fetchRelatives": false });
        let tree = self.devtools("Accessibility.getPartialAXTree", ask).await?;
        let standing = tree["nodes"].get(0).map(standing).ok_or("nothing has the focus")?;
        if thing.is(&standing.role, &standing.name) {
            return Ok(());
        }
        Err(format!("the focus is on the {} {:?}", standing.role, standing.name))
    }

    async fn object(&self, thing: &Thing) -> Found<Value> {
        let all = self.standing(thing).await?;
        let meant: Vec<&Standing> = all.iter().filter(|one| thing.is(&one.role, &one.name)).collect();
        match meant[..] {
            [one] => {
                let resolved = self.devtools("DOM.resolveNode", json!({ "backendNodeId": one.node })).await?;
                Ok(resolved["object"]["objectId"].clone())
            }
            [] => {
                let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
                Err(format!("there is no {thing}; of its kind there are {names:?}"))
            }
            _ => Err(format!("there are {} of {thing}: say inside of which thing", meant.len())),
        }
    }

    /// All of a thing's roles, whatever their names.
    async fn standing(&self, thing: &Thing) -> Found<Vec<Standing>> {
        let root = match &thing.inside {
            Some(outer) => Box::pin(self.object(outer)).await?,
            None => {
                let document = self.devtools("Runtime.evaluate", json!({ "expression": "document" })).await?;
                document["result"]["objectId"].clone()
            }
        };
        if let Name::Reading(_) = thing.name {
            let tree = self.devtools("Accessibility.queryAXTree", json!({ "objectId": root })).await?;
            return Ok(reading(thing.roles, nodes(&tree)));
        }
        let mut all = Vec::new();
        for role in thing.roles {
            let ask = json!({ "objectId": root, "role": role });
            let tree = self.devtools("Accessibility.queryAXTree", ask).await?;
            all.extend(nodes(&tree).iter().filter(|node| node["ignored"] == false).map(standing));
        }
        Ok(all)
    }
}

fn nodes(tree: &Value) -> &[Value] {
    tree["nodes"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn standing(node: &Value) -> Standing {
    let text = |field: &str| plain(node[field]["value"].as_str().unwrap_or_default());
    Standing { role: text("role"), name: text("name"), node: node["backendDOMNodeId"].clone() }
}

/// Things of these roles, named by the text in them. Every node comes after those it is in.
fn reading(roles: &[&str], nodes: &[Value]) -> Vec<Standing> {
    let mut all: Vec<Standing> = Vec::new();
    let mut inside_of: HashMap<&str, Vec<usize>> = HashMap::new();
    for node in nodes {
        let parent = node["parentId"].as_str().unwrap_or_default();
        let mut around = inside_of.get(parent).cloned().unwrap_or_default();
        let one = standing(node);
        if one.role == "StaticText" {
            for index in &around {
                let words = &mut all[*index].name;
                *words = plain(&format!("{words} {}", one.name));
            }
        } else if node["ignored"] == false && roles.contains(&one.role.as_str()) {
            around.push(all.len());
            all.push(Standing { name: String::new(), ..one });
        }
        inside_of.insert(node["nodeId"].as_str().unwrap_or_default(), around);
    }
    all
}

/// Text as it is read: one space between words.
pub(super) fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
