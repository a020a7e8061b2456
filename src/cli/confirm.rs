//! Asks before a destructive command changes anything.
//!
//! The question and its answer are on standard error and standard input, so that `--json` output stays parseable.

use std::io::{self, IsTerminal as _, Write as _};

use clap::Args;

use super::error::CliError;
use super::stdio::note;

/// The flags of a destructive command.
#[derive(Args, Debug, Clone, Copy)]
pub(super) struct Confirmation {
    /// Do not ask for confirmation; required without a terminal
    #[arg(long)]
    yes: bool,
    /// Only report what would be changed; change nothing
    #[arg(long)]
    dry_run: bool,
}

/// What the command does after it has said how much it concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum ConfirmOutcome {
    /// Print the report and change nothing.
    Report,
    /// Make the change.
    Proceed,
}

/// How the decision is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConfirmStep {
    Report,
    Proceed,
    Ask,
    Refuse,
}

/// A user can see and answer a question only if standard input and standard error are terminals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Terminal {
    Present,
    Absent,
}

impl Confirmation {
    pub(super) fn is_dry_run(self) -> bool {
        self.dry_run
    }

    /// Decides on a change. `effect` continues "This will": `discard 2,900 dead letters`.
    ///
    /// # Errors
    /// [`CliError::Usage`] without a terminal and without `--yes`. [`CliError::Failed`] if the answer is not `y` or
    /// `yes`.
    pub(super) async fn decide(self, effect: &str) -> Result<ConfirmOutcome, CliError> {
        match self.step(terminal()) {
            ConfirmStep::Report => Ok(ConfirmOutcome::Report),
            ConfirmStep::Proceed => {
                note!("This will {effect}.");
                Ok(ConfirmOutcome::Proceed)
            }
            ConfirmStep::Refuse => Err(CliError::Usage(format!(
                "this would {effect}. Nothing was changed: there is no terminal to ask for confirmation on. Repeat the \
                 command with --yes to confirm"
            ))),
            ConfirmStep::Ask => {
                let question = format!("This will {effect}.\nContinue? [y/N] ");
                // A read of a terminal can't be cancelled. It gets a thread of its own, which the end of the process
                // stops.
                let answer = tokio::task::spawn_blocking(move || ask(&question)).await.map_err(CliError::new)?;
                match answer {
                    Ok(answer) if is_yes(&answer) => Ok(ConfirmOutcome::Proceed),
                    Ok(_) => Err(CliError::new("not confirmed: nothing was changed")),
                    Err(error) => Err(CliError::new(format!("no answer could be read: {error}. Nothing was changed"))),
                }
            }
        }
    }

    fn step(self, terminal: Terminal) -> ConfirmStep {
        match (self.dry_run, self.yes, terminal) {
            (true, _, _) => ConfirmStep::Report,
            (false, true, _) => ConfirmStep::Proceed,
            (false, false, Terminal::Present) => ConfirmStep::Ask,
            (false, false, Terminal::Absent) => ConfirmStep::Refuse,
        }
    }
}

fn terminal() -> Terminal {
    if io::stdin().is_terminal() && io::stderr().is_terminal() { Terminal::Present } else { Terminal::Absent }
}

/// The line that was typed. It is empty at the end of the input.
fn ask(question: &str) -> io::Result<String> {
    let mut stderr = io::stderr();
    stderr.write_all(question.as_bytes())?;
    stderr.flush()?;
    let mut answer = String::new();
    if io::stdin().read_line(&mut answer)? == 0 {
        // Ctrl-D leaves the cursor behind the question.
        writeln!(stderr)?;
    }
    Ok(answer)
}

fn is_yes(answer: &str) -> bool {
    let answer = answer.trim();
    answer.eq_ignore_ascii_case("y") || answer.eq_ignore_ascii_case("yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_y_and_yes_confirm() {
        for answer in ["y\n", "Y\r\n", " yes \n", "YES"] {
            assert!(is_yes(answer), "{answer:?}");
        }
        for answer in ["", "\n", "n\n", "no\n", "ye\n", "yess\n", "y y\n", "ja\n", "1\n"] {
            assert!(!is_yes(answer), "{answer:?}");
        }
    }

    #[test]
    fn flags_and_terminal_decide_what_happens() {
        use Terminal::{Absent, Present};
        for (yes, dry_run, terminal, step) in [
            (false, false, Present, ConfirmStep::Ask),
            (false, false, Absent, ConfirmStep::Refuse),
            (true, false, Present, ConfirmStep::Proceed),
            (true, false, Absent, ConfirmStep::Proceed),
            (false, true, Present, ConfirmStep::Report),
            (false, true, Absent, ConfirmStep::Report),
            (true, true, Absent, ConfirmStep::Report),
        ] {
            let confirmation = Confirmation { yes, dry_run };
            assert_eq!(confirmation.step(terminal), step, "{confirmation:?}, {terminal:?}");
        }
    }

    #[tokio::test]
    async fn a_refusal_says_what_would_happen_and_how_to_confirm() {
        // Tests have no terminal, or the one of a developer, which must not be asked.
        if terminal() == Terminal::Present {
            return;
        }
        let confirmation = Confirmation { yes: false, dry_run: false };
        match confirmation.decide("discard 2,900 dead letters").await {
            Err(CliError::Usage(text)) => {
                assert!(text.starts_with("this would discard 2,900 dead letters."), "{text}");
                assert!(text.contains("--yes"), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
}
