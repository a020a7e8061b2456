//! The view of dead letters, for pages that need it.

use askama::Template;
use axum::response::{IntoResponse as _, Response};

use super::super::ApiState;
use super::super::problem::Problem;
use super::labels::dead_letters;
use super::layout::{Layout, PageError, RequestContext, page};
use crate::dead_letters::DeadLetterError;
use crate::store::dead_letters::LetterView;

/// Seconds until a page that waits for the view loads again.
const AGAIN: &str = "2";

#[derive(Template)]
#[template(path = "dead_letters_building.html")]
struct Waiting {
    frame: Layout,
    letters: String,
}

/// The view. While it is being built, a page that says so and loads again.
pub(super) async fn view<'a>(http: &'a ApiState, visit: &RequestContext) -> Result<&'a LetterView, Response> {
    match http.dead_letters.ready_view().await {
        Ok(view) => Ok(view),
        Err(DeadLetterError::Unavailable(_)) => {
            let letters = dead_letters(http.dead_letters.view.counts().iter().sum());
            let waiting = page(&Waiting { frame: Layout::new(visit, "Dead letters"), letters });
            Err(([(http::HeaderName::from_static("refresh"), AGAIN)], waiting).into_response())
        }
        Err(refused) => Err(PageError(Problem::from(refused)).into_response()),
    }
}
