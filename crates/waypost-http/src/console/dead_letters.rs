//! Pages of dead letters: the list, one letter, and the discard.

mod attempt_outcome;
mod detail;
mod discard;
mod filter_form;
pub(super) mod list;
pub(super) mod selection_form;
mod summary;

use waypost_core::access::Role;

use crate::route::Route;

pub(super) fn routes() -> Vec<Route> {
    let list = vec![
        Route::get("/dead-letters", Role::Viewer, list::list),
        Route::get("/dead-letters/{id}", Role::Viewer, detail::show),
    ];
    list.into_iter().chain(discard::routes()).collect()
}
