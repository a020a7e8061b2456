//! The version of a campaign that a page shows. Its form has the version in a hidden field, so that a change does not
//! overwrite another user's change.

use axum::http::StatusCode;
use waypost_store::StoredCampaign;

use super::form::Form;
use crate::problem::Problem;

/// The campaign version that the form was loaded with.
pub(super) fn from_form(form: &Form) -> Result<u64, Problem> {
    let version = form.get("version").parse();
    version.map_err(|_| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "The form has no valid `version`. Reload the page and repeat your change.",
        )
    })
}

/// The error for a change that lost a race against another change.
pub(super) fn changed_meanwhile(stored: &StoredCampaign) -> Problem {
    let author = stored.author.as_ref().map_or("Another user".to_owned(), |author| {
        format!("{} (at {})", author.by, author.at.format("%Y-%m-%d %H:%M:%S UTC"))
    });
    let detail = format!(
        "{author} changed the campaign after you opened the page. Your change was not applied. Reload the page and \
         repeat it."
    );
    Problem::new(StatusCode::PRECONDITION_FAILED, detail)
}
