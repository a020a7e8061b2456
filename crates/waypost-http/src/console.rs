//! The console: server-rendered HTML pages. Each page has a URL that can be shared.
//!
//! | path | |
//! | --- | --- |
//! | `/` | the overview |
//! | `/campaigns` | list and search; `/new-campaign` creates a campaign |
//! | `/campaigns/{id}` | sections and their menus; `…/flow` draws them |
//! | `/campaigns/{id}/edit` | editor of a section or menu entry (`label`, `keyword`) and its webhook: save, check, test |
//! | `/webhooks/{id}` | redirects to the editor of the webhook |
//! | `/dead-letters` | list of dead letters by filter; `/dead-letters/{id}` shows one |
//! | `/dead-letters/replay` | preview of a replay; `POST /replays` starts it |
//! | `/dead-letters/discard` | confirmation of a discard; `POST /dead-letters/discarded` discards |
//! | `/replays` | list of replays; `/replays/{id}` shows the progress of one |
//! | `/endpoints` | endpoints by health |
//! | `/explain` | which webhooks an event fires, and why |
//! | `/login` | exchanges a token for a session |
//! | `/assets/…` | style sheet, script and icon |
//!
//! Every change is a form post with a CSRF token ([`auth_middleware`]). Everything works without the script.

mod assets;
mod auth_middleware;
mod campaign_version;
mod campaigns;
mod cookies;
mod dead_letters;
mod edit_target;
mod editor;
mod endpoints;
mod explain;
mod flow;
mod form;
mod form_errors;
mod format;
mod labels;
mod last_change;
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
use super::api_state::ApiState;
use super::auth::Access;
use super::route::Route;

pub(super) fn router(state: &ApiState, stop: CancellationToken) -> Router<ApiState> {
    let routes = routes();
    let guard = ConsoleGuard { access: Access::new(state.tokens.clone(), "", &routes), stop };
    let pages = routes.into_iter().fold(Router::new(), |pages, route| pages.route(route.path, route.handler));
    let pages = pages
        .method_not_allowed_fallback(layout::no_such_method)
        .layer(from_fn_with_state(guard.clone(), auth_middleware::require_session));
    let public_pages = session::router().layer(from_fn_with_state(guard, auth_middleware::allow_anonymous));
    assets::router().merge(public_pages).merge(pages)
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
    use waypost_core::access::Role;

    use super::*;

    #[test]
    fn routes_that_change_something_need_the_right_role() {
        let changes: Vec<(&str, Role)> =
            routes().iter().filter(|route| !route.method.is_safe()).map(|route| (route.path, route.role)).collect();
        let (editor, operator) = (Role::Editor, Role::Operator);
        for (path, role) in &changes {
            let needed = match path.split('/').nth(1) {
                // Explaining an event sends and stores nothing.
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
