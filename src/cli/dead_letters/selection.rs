//! Selects the dead letters that a command changes: ids, a filter, or `--all`. Without any of them the command fails,
//! so that nobody changes all dead letters by mistake.

use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::{Map, Value};
use waypost_core::dead_letter::LetterState;

use crate::cli::client::parse_id;
use crate::cli::error::CliError;
use crate::cli::letter_filter::{Filter, FilterQuery};

#[derive(Args, Default)]
pub(super) struct SelectionArgs {
    /// The ids of dead letters
    #[arg(value_name = "ID", value_parser = parse_id)]
    ids: Vec<String>,
    /// All pending dead letters
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, PartialEq, Eq, Clone)]
pub(super) enum SelectedLetters {
    Ids(Vec<String>),
    /// An empty filter selects all.
    Filter(FilterQuery),
}

impl SelectionArgs {
    pub(super) fn resolve(self, now: DateTime<Utc>) -> Result<SelectedLetters, CliError> {
        let usage_error = |text: &str| Err(CliError::Usage(text.to_owned()));
        if self.filter.state.as_deref() == Some(LetterState::Replaying.as_str()) {
            return usage_error(
                "dead letters that are being replayed can't be selected. Use `waypost replays` to change their replay",
            );
        }
        let query = self.filter.to_query(now)?;
        match (self.ids.is_empty(), query.is_empty(), self.all) {
            (true, true, false) => {
                usage_error("no dead letters are selected: pass ids, a filter such as `--campaign ID`, or --all")
            }
            (false, true, false) => Ok(SelectedLetters::Ids(self.ids)),
            (true, false, false) | (true, true, true) => Ok(SelectedLetters::Filter(query)),
            _ => usage_error("ids, filters and --all can't be combined: use only one of them"),
        }
    }
}

impl SelectedLetters {
    /// The `ids` or the `filter` of a request body.
    pub(super) fn to_json(&self) -> Map<String, Value> {
        let (name, value) = match self {
            Self::Ids(ids) => ("ids", Value::from(ids.clone())),
            Self::Filter(query) => ("filter", query.to_json()),
        };
        Map::from_iter([(name.to_owned(), value)])
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct TestCli {
        #[command(flatten)]
        selection: SelectionArgs,
    }

    fn parse(arguments: &[&str]) -> Result<Value, String> {
        let cli = TestCli::try_parse_from([&["waypost"], arguments].concat()).map_err(|error| error.to_string())?;
        match cli.selection.resolve(DateTime::UNIX_EPOCH) {
            Ok(selected) => Ok(selected.to_json().into()),
            Err(CliError::Usage(text)) => Err(text),
            Err(CliError::Failed(text)) => panic!("{text}"),
        }
    }

    #[test]
    fn ids_or_a_filter_or_all_are_a_selection() {
        assert_eq!(parse(&["dl_a", "dl_b"]), Ok(json!({ "ids": ["dl_a", "dl_b"] })));
        assert_eq!(
            parse(&["--campaign", "c", "--status", "500"]),
            Ok(json!({ "filter": { "campaignId": "c", "status": 500 } }))
        );
        assert_eq!(parse(&["--all"]), Ok(json!({ "filter": {} })));
    }

    #[test]
    fn no_selection_and_combined_selections_are_refused() {
        assert!(parse(&[]).unwrap_err().starts_with("no dead letters are selected"));
        for arguments in [&["dl_a", "--all"][..], &["dl_a", "--campaign", "c"], &["--all", "--campaign", "c"]] {
            assert!(parse(arguments).unwrap_err().contains("can't be combined"), "{arguments:?}");
        }
        assert!(parse(&["--state", "replaying"]).unwrap_err().contains("waypost replays"));
        for arguments in [[""], [".."]] {
            assert!(parse(&arguments).is_err());
        }
    }
}
