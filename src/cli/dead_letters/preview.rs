//! The output of `waypost dead-letters replay --dry-run`: what a replay would do.

use comfy_table::{CellAlignment, Table, presets};
use waypost_api::replays::ReplayPreviewResponse;

use super::request;
use crate::cli::sanitize;

/// The number of dead letters, their endpoints, those that can't be sent, and samples of the requests.
pub(super) fn render(preview: &ReplayPreviewResponse) -> String {
    let ReplayPreviewResponse { total, endpoints, unsendable, sample } = preview;
    let mut sections = vec![format!("{} would be sent again. Nothing has been sent.", sanitize::dead_letters(*total))];
    if !endpoints.is_empty() {
        let counts = endpoints.iter().map(|endpoint| (&*endpoint.endpoint, endpoint.count));
        sections.push(table("ENDPOINT", counts));
    }
    if !unsendable.is_empty() {
        let counts = unsendable.iter().map(|unsendable| (unsendable.reason.as_str(), unsendable.count));
        sections.push(format!("These can't be sent now:\n{}", table("REASON", counts)));
    }
    match sample.len() {
        0 => {}
        1 => sections.push("One of the requests:".to_owned()),
        count => sections.push(format!("{count} of the requests:")),
    }
    for sample in sample {
        let id = sanitize::text(sample.dead_letter_id.as_str(), 64);
        sections.push(format!("{id}\n{}", request::render(&sample.request, "  ").trim_end()));
    }
    sections.join("\n\n")
}

fn table<'a>(title: &str, counts: impl Iterator<Item = (&'a str, u64)>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([title, "DEAD LETTERS"]);
    for (name, count) in counts {
        table.add_row([sanitize::text(name, 100), sanitize::count(count)]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn preview(json: serde_json::Value) -> ReplayPreviewResponse {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn all_sections_are_shown() {
        let preview = preview(json!({ "total": 1203,
            "endpoints": [ { "endpoint": "https://a.example.com:443", "count": 1200 } ],
            "unsendable": [ { "reason": "webhook_deleted", "count": 3 } ],
            "sample": [ { "deadLetterId": "dl_1", "method": "POST", "url": "https://a.example.com/hook",
                          "headers": { "x-api-key": "********" }, "body": "{}" } ] }));
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
        let preview = preview(json!({ "total": 1, "endpoints": [], "unsendable": [], "sample": [] }));
        assert_eq!(render(&preview), "1 dead letter would be sent again. Nothing has been sent.");
    }
}
