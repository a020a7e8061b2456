//! Markdown tables, numbers as text, and targets with a verdict.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use indicatif::HumanCount;
use serde_json::{Value, json};

/// A table. All columns except the first `words` are aligned to the right.
pub(crate) fn table(titles: &[&str], words: usize, rows: impl IntoIterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(titles);
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in rows {
        table.add_row(row);
    }
    table
}

/// `12.3 ms`, or that the delay exceeded `patience`.
pub(crate) fn milliseconds(delay: Option<Duration>, patience: Duration) -> String {
    match delay {
        Some(delay) => format!("{:.1} ms", delay.as_secs_f64() * 1e3),
        None => format!("> {} s", patience.as_secs()),
    }
}

/// `1,234`
pub(crate) fn whole(number: f64) -> String {
    HumanCount(number.round() as u64).to_string()
}

/// A performance target.
pub(crate) struct Target {
    pub(crate) what: String,
    /// `None` if too little was delivered to compute it.
    pub(crate) figure: Option<f64>,
    pub(crate) bound: Bound,
}

/// The bound of a target.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetResult {
    Pass,
    Miss,
}

impl Target {
    pub(crate) fn verdict(&self) -> TargetResult {
        let met = self.figure.is_some_and(|figure| match self.bound {
            Bound::AtLeast(least) => figure >= least,
            Bound::AtMost(most) => figure <= most,
            Bound::Below(limit) => figure < limit,
        });
        if met { TargetResult::Pass } else { TargetResult::Miss }
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "what": self.what, "figure": self.figure, "verdict": self.verdict().name() })
    }

    fn cells(&self) -> Vec<String> {
        let (sign, limit) = match self.bound {
            Bound::AtLeast(limit) => ("≥", limit),
            Bound::AtMost(limit) => ("≤", limit),
            Bound::Below(limit) => ("<", limit),
        };
        let figure = match self.figure {
            None => "too few came".to_owned(),
            Some(figure) if limit >= 1_000.0 => whole(figure),
            Some(figure) if limit >= 20.0 => format!("{figure:.0}"),
            Some(figure) => format!("{figure:.2}"),
        };
        let limit = if limit >= 1_000.0 { whole(limit) } else { limit.to_string() };
        vec![self.what.clone(), format!("{sign} {limit}"), figure, self.verdict().name().to_owned()]
    }
}

impl TargetResult {
    fn name(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Miss => "MISS",
        }
    }
}

pub(crate) fn target_table(targets: &[Target]) -> Table {
    table(&["target", "", "figure", ""], 1, targets.iter().map(Target::cells))
}
