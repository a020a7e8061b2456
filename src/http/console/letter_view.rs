//! The view of dead letters, for pages that need it.

use askama::Template;
use axum::response::{IntoResponse as _, Response};

use super::super::Http;
use super::super::problem::Problem;
use super::page::{Failure, Frame, Visit, page};
use super::words::dead_letters;
use crate::dead_letters::Refused;
use crate::store::dead_letters::LetterView;

/// Seconds until a page that waits for the view loads again.
const AGAIN: &str = "2";

#[derive(Template)]
#[template(path = "dead_letters_building.html")]
struct Waiting {
    frame: Frame,
    letters: String,
}

/// The view. While it is being built, a page that says so and loads again.
pub(super) async fn view<'a>(http: &'a Http, visit: &Visit) -> Result<&'a LetterView, Response> {
    match http.dead_letters.readable().await {
        Ok(view) => Ok(view),
        Err(Refused::Unavailable(_)) => {
            let letters = dead_letters(http.dead_letters.view.counts().iter().sum());
            let waiting = page(&Waiting { frame: Frame::new(visit, "Dead letters"), letters });
            Err(([(http::HeaderName::from_static("refresh"), AGAIN)], waiting).into_response())
        }
        Err(refused) => Err(Failure(Problem::from(refused)).into_response()),
    }
}
