//! What pages about dead letters show while the view of dead letters is being built.

use askama::Template;
use axum::response::{IntoResponse as _, Response};
use waypost_engine::dead_letters::DeadLetterError;

use super::labels::letter_count;
use super::layout::{Layout, PageError, RequestContext, page};
use crate::api_state::ApiState;
use crate::problem::Problem;

/// Pages that wait for the view reload after this time.
const REFRESH_SECONDS: &str = "2";

#[derive(Template)]
#[template(path = "dead_letters_building.html")]
struct BuildingPage {
    layout: Layout,
    letters: String,
}

/// Waits until dead letters can be read. Otherwise returns the response to send instead: while the view is being built,
/// a page that reloads itself.
pub(super) async fn wait_until_readable(state: &ApiState, context: &RequestContext) -> Result<(), Response> {
    match state.dead_letters.wait_until_readable().await {
        Ok(()) => Ok(()),
        Err(DeadLetterError::Unavailable(_)) => {
            let letters = letter_count(state.dead_letters.state_counts().iter().sum());
            let building = page(&BuildingPage { layout: Layout::new(context, "Dead letters"), letters });
            Err(([(http::HeaderName::from_static("refresh"), REFRESH_SECONDS)], building).into_response())
        }
        Err(error) => Err(PageError(Problem::from(error)).into_response()),
    }
}
