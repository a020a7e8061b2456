//! Access to the view of dead letters, for pages that need it.

use askama::Template;
use axum::response::{IntoResponse as _, Response};
use waypost_engine::dead_letters::DeadLetterError;
use waypost_store::dead_letters::LetterView;

use super::super::ApiState;
use super::super::problem::Problem;
use super::labels::letter_count;
use super::layout::{Layout, PageError, RequestContext, page};

/// Pages that wait for the view reload after this time.
const REFRESH_SECONDS: &str = "2";

#[derive(Template)]
#[template(path = "dead_letters_building.html")]
struct BuildingPage {
    layout: Layout,
    letters: String,
}

/// The view, or the response to send instead. While the view is being built, the response is a page that reloads
/// itself.
pub(super) async fn view_or_response<'a>(
    state: &'a ApiState,
    context: &RequestContext,
) -> Result<&'a LetterView, Response> {
    match state.dead_letters.ready_view().await {
        Ok(view) => Ok(view),
        Err(DeadLetterError::Unavailable(_)) => {
            let letters = letter_count(state.dead_letters.view.counts().iter().sum());
            let building = page(&BuildingPage { layout: Layout::new(context, "Dead letters"), letters });
            Err(([(http::HeaderName::from_static("refresh"), REFRESH_SECONDS)], building).into_response())
        }
        Err(error) => Err(PageError(Problem::from(error)).into_response()),
    }
}
