//! Access to parts of JSON documents by name instead of position.

use std::fmt::Debug;

use serde_json::Value;

use super::dead_letters::text_field;

/// The section of a campaign with this label.
#[track_caller]
pub(crate) fn section<'a>(campaign: &'a Value, label: &str) -> &'a Value {
    find_by(array(campaign, "sections"), "label", label)
}

#[track_caller]
pub(crate) fn section_mut<'a>(campaign: &'a mut Value, label: &str) -> &'a mut Value {
    find_by_mut(array_mut(campaign, "sections"), "label", label)
}

/// The menu entry of a section with this keyword.
#[track_caller]
pub(crate) fn entry<'a>(campaign: &'a Value, label: &str, keyword: u32) -> &'a Value {
    find_by(array(section(campaign, label), "menu"), "keyword", keyword)
}

#[track_caller]
pub(crate) fn entry_mut<'a>(campaign: &'a mut Value, label: &str, keyword: u32) -> &'a mut Value {
    find_by_mut(array_mut(section_mut(campaign, label), "menu"), "keyword", keyword)
}

/// Returns the removed menu entry.
#[track_caller]
pub(crate) fn remove_entry(campaign: &mut Value, label: &str, keyword: u32) -> Value {
    let menu = array_mut(section_mut(campaign, label), "menu");
    let position = menu.iter().position(|entry| entry["keyword"] == keyword);
    let Some(position) = position else { panic!("no entry {keyword} in {menu:#?}") };
    menu.remove(position)
}

/// The webhook of a menu entry, or of the section itself if `keyword` is `None`.
#[track_caller]
pub(crate) fn webhook<'a>(campaign: &'a Value, label: &str, keyword: impl Into<Option<u32>>) -> &'a Value {
    let parent = match keyword.into() {
        Some(keyword) => entry(campaign, label, keyword),
        None => section(campaign, label),
    };
    parent.get("webhook").unwrap_or_else(|| panic!("no webhook: {parent:#}"))
}

/// Adds an empty value if there is no webhook.
#[track_caller]
pub(crate) fn webhook_mut<'a>(campaign: &'a mut Value, label: &str, keyword: impl Into<Option<u32>>) -> &'a mut Value {
    let parent = match keyword.into() {
        Some(keyword) => entry_mut(campaign, label, keyword),
        None => section_mut(campaign, label),
    };
    &mut parent["webhook"]
}

/// The id that the worker assigned to a webhook.
#[track_caller]
pub(crate) fn webhook_id<'a>(campaign: &'a Value, label: &str, keyword: impl Into<Option<u32>>) -> &'a str {
    text_field(webhook(campaign, label, keyword), "id")
}

/// The only item; panics with all items if there are none or several.
#[track_caller]
pub(crate) fn only<T: Debug>(items: &[T]) -> &T {
    match items {
        [item] => item,
        _ => panic!("{} items instead of one: {items:#?}", items.len()),
    }
}

/// [`only`] of a JSON array.
#[track_caller]
pub(crate) fn only_of(value: &Value) -> &Value {
    only(items_of(value))
}

/// The items of a JSON array.
#[track_caller]
pub(crate) fn items_of(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("no array: {value:#}"))
}

/// The first item whose field has this value.
#[track_caller]
pub(crate) fn find_by<'a>(items: &'a [Value], field: &str, value: impl Into<Value>) -> &'a Value {
    let value = value.into();
    let found = items.iter().find(|item| item[field] == value);
    found.unwrap_or_else(|| panic!("no item with {field} = {value}: {items:#?}"))
}

/// The first attempt of a dead letter.
#[track_caller]
pub(crate) fn first_attempt(letter: &Value) -> &Value {
    array(letter, "attempts").first().unwrap_or_else(|| panic!("no attempts: {letter:#}"))
}

/// The first dead letter of a list, which is sorted by age with the newest first.
#[track_caller]
pub(crate) fn newest(letters: &[Value]) -> &Value {
    letters.first().expect("a dead letter")
}

/// See [`newest`].
#[track_caller]
pub(crate) fn oldest(letters: &[Value]) -> &Value {
    letters.last().expect("a dead letter")
}

#[track_caller]
fn find_by_mut<'a>(items: &'a mut [Value], field: &str, value: impl Into<Value>) -> &'a mut Value {
    let value = value.into();
    let Some(position) = items.iter().position(|item| item[field] == value) else {
        panic!("no item with {field} = {value}: {items:#?}");
    };
    &mut items[position]
}

#[track_caller]
fn array<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap_or_else(|| panic!("no array {name:?}: {value:#}"))
}

#[track_caller]
fn array_mut<'a>(value: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
    if !value[name].is_array() {
        panic!("no array {name:?}: {value:#}");
    }
    value[name].as_array_mut().expect("an array")
}
