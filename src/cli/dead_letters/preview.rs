//! The output of `waypost dead-letters replay --dry-run`: what a replay would do.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use super::request;
use crate::cli::sanitize;

/// The number of dead letters, their endpoints, those that can't be sent, and samples of the requests.
pub(super) fn render(preview: &Value) -> String {
    let total = preview["total"].as_u64().unwrap_or_default();
    let mut sections = vec![format!("{} would be sent again. Nothing has been sent.", sanitize::dead_letters(total))];
    sections.extend(counts(&preview["endpoints"], "endpoint", "ENDPOINT"));
    if let Some(unsendable) = counts(&preview["unsendable"], "reason", "REASON") {
        sections.push(format!("These can't be sent now:\n{unsendable}"));
    }
    let samples = preview["sample"].as_array().map(Vec::as_slice).unwrap_or_default();
    match samples.len() {
        0 => {}
        1 => sections.push("One of the requests:".to_owned()),
        count => sections.push(format!("{count} of the requests:")),
    }
    for sample in samples {
        let id = sanitize::field(&sample["deadLetterId"], 64);
        sections.push(format!("{id}\n{}", request::render(sample, "  ").trim_end()));
    }
    sections.join("\n\n")
}

fn counts(items: &Value, name: &str, title: &str) -> Option<String> {
    let items = items.as_array().filter(|items| !items.is_empty())?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([title, "DEAD LETTERS"]);
    for item in items {
        table.add_row([sanitize::field(&item[name], 100), sanitize::count(&item["count"])]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    Some(table.trim_fmt())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_sections_are_shown() {
        let preview = json!({ "total": 1203,
            "endpoints": [ { "endpoint": "https://a.example.com:443", "count": 1200 } ],
            "unsendable": [ { "reason": "webhook_deleted", "count": 3 } ],
            "sample": [ { "deadLetterId": "dl_1", "method": "POST", "url": "https://a.example.com/hook",
                          "headers": { "x-api-key": "********" }, "body": "{}" } ] });
        let expected = "\
1,203 dead letters would be sent again. Nothing has been sent.

 ENDPOINT                   DEAD LETTERS
 https://a.example.com:443         1,200

These can't be sent now:
 REASON           DEAD LETTERS
 webhook_deleted             3

One of the requests:

dl_1
  POST https://a.example.com/hook
  x-api-key: ********

  {}";
        assert_eq!(render(&preview), expected);
    }

    #[test]
    fn empty_sections_are_left_out() {
        let preview = json!({ "total": 1, "endpoints": [], "unsendable": [], "sample": [] });
        assert_eq!(render(&preview), "1 dead letter would be sent again. Nothing has been sent.");
    }
}
