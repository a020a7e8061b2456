//! Selects the dead letters that a command changes: ids, a filter, or `--all`. Without any of them the command fails,
//! so that nobody changes all dead letters by mistake.

use chrono::{DateTime, Utc};
use clap::Args;
use waypost_core::dead_letter::LetterState;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::dead_letter::selection::Selection;
use waypost_core::ids::DeadLetterId;

use crate::cli::client::parse_id;
use crate::cli::error::CliError;
use crate::cli::letter_filter::Filter;

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

impl SelectionArgs {
    pub(super) fn resolve(self, now: DateTime<Utc>) -> Result<Selection, CliError> {
        let usage_error = |text: &str| Err(CliError::Usage(text.to_owned()));
        if self.filter.state == Some(LetterState::Replaying) {
            return usage_error(
                "dead letters that are being replayed can't be selected. Use `waypost replays` to change their replay",
            );
        }
        let filter = self.filter.to_filter(now)?;
        match (self.ids.is_empty(), filter == LetterFilter::default(), self.all) {
            (true, true, false) => {
                usage_error("no dead letters are selected: pass ids, a filter such as `--campaign ID`, or --all")
            }
            (false, true, false) => {
                let ids = self.ids.into_iter().map(DeadLetterId::new).collect();
                Selection::read(Some(ids), None).map_err(|violations| CliError::new(&violations[0]))
            }
            (true, false, false) | (true, true, true) => Ok(Selection::Filter(filter)),
            _ => usage_error("ids, filters and --all can't be combined: use only one of them"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct TestCli {
        #[command(flatten)]
        selection: SelectionArgs,
    }

    fn parse(arguments: &[&str]) -> Result<Selection, String> {
        let cli = TestCli::try_parse_from([&["waypost"], arguments].concat()).map_err(|error| error.to_string())?;
        match cli.selection.resolve(DateTime::UNIX_EPOCH) {
            Ok(selection) => Ok(selection),
            Err(CliError::Usage(text)) => Err(text),
            Err(CliError::Failed(text)) => panic!("{text}"),
        }
    }

    #[test]
    fn ids_or_a_filter_or_all_are_a_selection() {
        let ids = ["dl_a", "dl_b"].map(DeadLetterId::new).to_vec();
        assert_eq!(parse(&["dl_a", "dl_b", "dl_a"]), Ok(Selection::Ids(ids)));
        let filter = LetterFilter { campaign_id: Some("c".to_owned()), status: Some(500), ..LetterFilter::default() };
        assert_eq!(parse(&["--campaign", "c", "--status", "500"]), Ok(Selection::Filter(filter)));
        assert_eq!(parse(&["--all"]), Ok(Selection::Filter(LetterFilter::default())));
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
