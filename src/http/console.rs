//! The console: pages for people, made here and sent as they are. Each has an address that can be shared.
//!
//! | path | |
//! | --- | --- |
//! | `/` | the overview |
//! | `/campaigns` | list and search; `/new-campaign` makes one |
//! | `/campaigns/{id}` | sections and their menus; `…/flow` is its picture |
//! | `/campaigns/{id}/edit` | one place (`label`, `keyword`) and its webhook: save, check, test |
//! | `/webhooks/{id}` | where a webhook is edited |
//! | `/dead-letters` | what could not be delivered, by filter; `/dead-letters/{id}` is one |
//! | `/dead-letters/replay` | what a replay would do; `POST /replays` begins it |
//! | `/dead-letters/discard` | what is to be given up; `POST /dead-letters/discarded` gives it up |
//! | `/replays` | the replays; `/replays/{id}` is one, as it goes on |
//! | `/endpoints` | the endpoints by their health |
//! | `/explain` | what an event fires, and why |
//! | `/login` | a token for a session |
//! | `/assets/…` | style sheets and the script |
//!
//! A page changes something by a form with a token against forgery ([`auth_middleware`]). The script makes it quicker, not possible.

mod assets;
mod auth_middleware;
mod campaigns;
mod dead_letters;
mod editor;
mod endpoints;
mod explain;
mod flow;
mod form;
mod form_errors;
mod format;
mod labels;
mod layout;
mod letter_view;
mod links;
mod overview;
mod replays;
mod session;

use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio_util::sync::CancellationToken;

use self::auth_middleware::ConsoleGuard;
use super::ApiState;
use super::auth::Access;
use super::route::Route;

/// All pages.
pub(super) fn router(http: &ApiState, stop: CancellationToken) -> Router<ApiState> {
    let routes = routes();
    let door = ConsoleGuard { access: Access::new(http.tokens.clone(), "", &routes), stop };
    let pages = routes.into_iter().fold(Router::new(), |pages, route| pages.route(route.path, route.handler));
    let pages = pages
        .method_not_allowed_fallback(layout::no_such_method)
        .layer(from_fn_with_state(door.clone(), auth_middleware::pass));
    let open = session::router().layer(from_fn_with_state(door, auth_middleware::open));
    assets::router().merge(open).merge(pages)
}

fn routes() -> Vec<Route> {
    [
        overview::routes(),
        campaigns::routes(),
        editor::routes(),
        flow::routes(),
        dead_letters::routes(),
        replays::routes(),
        endpoints::routes(),
        explain::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;

    #[test]
    fn what_changes_something_takes_a_role_for_it() {
        let changes: Vec<(&str, Role)> =
            routes().iter().filter(|route| !route.method.is_safe()).map(|route| (route.path, route.role)).collect();
        let (editor, operator) = (Role::Editor, Role::Operator);
        for (path, role) in &changes {
            let needed = match path.split('/').nth(1) {
                // It sends nothing and keeps nothing.
                Some("explain") => Role::Viewer,
                Some("campaigns") if path.ends_with("/test") => operator,
                Some("campaigns" | "new-campaign") => editor,
                _ => operator,
            };
            assert_eq!(*role, needed, "{path}");
        }
        assert!(changes.len() > 10, "{changes:?}");
    }
}
