//! Why a request of the client failed.

use reqwest::StatusCode;
use url::Url;

use crate::problem::ProblemDocument;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There was no complete response.
    #[error("no response from {server} ({cause})")]
    Unreachable { server: Url, cause: String },
    /// The server answered with an error. `problem` is `None` if the answer is not from Waypost.
    #[error("{}", refusal(.status, .problem.as_ref()))]
    Refused { status: StatusCode, problem: Option<ProblemDocument> },
    #[error("the server's response is not valid JSON: {0}")]
    NotJson(serde_json::Error),
    /// The answer has a value that this version does not know. The text names the field.
    #[error("the server's answer can't be read: {0}")]
    Unreadable(String),
}

/// Each violation is a line.
fn refusal(status: &StatusCode, problem: Option<&ProblemDocument>) -> String {
    match problem {
        None => format!("the server answered {status}"),
        Some(problem) if problem.errors.is_empty() => problem.detail.clone(),
        Some(problem) => {
            let lines: String = problem.errors.iter().map(|violation| format!("\n  {violation}")).collect();
            format!("refused:{lines}")
        }
    }
}
