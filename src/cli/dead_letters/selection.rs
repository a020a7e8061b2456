//! Which dead letters a command changes: by id, by a filter, or all; never all by an oversight.

use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::{Map, Value};

use super::filter::{Filter, FilterQuery};
use crate::cli::CliError;
use crate::cli::client::id;
use crate::delivery::dead_letter::LetterState;

#[derive(Args, Default)]
pub(super) struct Selection {
    /// Dead letters, by id
    #[arg(value_name = "ID", value_parser = id)]
    ids: Vec<String>,
    /// All that are pending
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
}

/// What was selected.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(super) enum SelectedLetters {
    Ids(Vec<String>),
    /// Where it is empty: all.
    Filter(FilterQuery),
}

impl Selection {
    pub(super) fn selected(self, now: DateTime<Utc>) -> Result<SelectedLetters, CliError> {
        let misused = |text: &str| Err(CliError::Usage(text.to_owned()));
        if self.filter.state.as_deref() == Some(LetterState::Replaying.as_str()) {
            return misused("letters that are being replayed can't be chosen: `waypost replays` changes that replay");
        }
        let conditions = self.filter.conditions(now)?;
        match (self.ids.is_empty(), conditions.is_empty(), self.all) {
            (true, true, false) => misused("say which: dead letters by id, a filter such as `--campaign ID`, or --all"),
            (false, true, false) => Ok(SelectedLetters::Ids(self.ids)),
            (true, false, false) | (true, true, true) => Ok(SelectedLetters::Filter(conditions)),
            _ => misused("ids, filters and --all do not go together: say which in one way"),
        }
    }
}

impl SelectedLetters {
    /// The part of a body that says so.
    pub(super) fn document(&self) -> Map<String, Value> {
        let (name, value) = match self {
            Self::Ids(ids) => ("ids", Value::from(ids.clone())),
            Self::Filter(conditions) => ("filter", conditions.document()),
        };
        Map::from_iter([(name.to_owned(), value)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        selection: Selection,
    }

    fn read(arguments: &[&str]) -> Result<Value, String> {
        let line = Line::try_parse_from([&["waypost"], arguments].concat()).map_err(|error| error.to_string())?;
        match line.selection.selected(DateTime::UNIX_EPOCH) {
            Ok(selected) => Ok(selected.document().into()),
            Err(CliError::Usage(text)) => Err(text),
            Err(CliError::Failed(text)) => panic!("{text}"),
        }
    }

    #[test]
    fn one_way_to_say_it() {
        assert_eq!(read(&["dl_a", "dl_b"]), Ok(json!({ "ids": ["dl_a", "dl_b"] })));
        assert_eq!(
            read(&["--campaign", "c", "--status", "500"]),
            Ok(json!({ "filter": { "campaignId": "c", "status": 500 } }))
        );
        assert_eq!(read(&["--all"]), Ok(json!({ "filter": {} })));
    }

    #[test]
    fn nothing_or_several_ways_are_a_misuse() {
        assert!(read(&[]).unwrap_err().starts_with("say which"));
        for arguments in [&["dl_a", "--all"][..], &["dl_a", "--campaign", "c"], &["--all", "--campaign", "c"]] {
            assert!(read(arguments).unwrap_err().contains("do not go together"), "{arguments:?}");
        }
        assert!(read(&["--state", "replaying"]).unwrap_err().contains("waypost replays"));
        for arguments in [[""], [".."]] {
            assert!(read(&arguments).is_err());
        }
    }
}
