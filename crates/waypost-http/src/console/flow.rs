//! Draws the flow of a campaign. Each part of the drawing links to its editor.

use std::collections::HashMap;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use waypost_core::access::Role;
use waypost_core::campaign::WebhookPlace;
use waypost_core::flow::{self, Part, Style, WebhookHealth};
use waypost_core::ids::WebhookId;

use super::edit_target::{EditTarget, no_such_place};
use super::form::FormQuery;
use super::layout::{Layout, PageError, RequestContext, page};
use super::links;
use crate::api_state::ApiState;
use crate::extract::Id;
use crate::route::Route;

/// Zoom levels in percent. The style sheet has a class for each.
const ZOOM_LEVELS: [u16; 5] = [50, 75, 100, 150, 200];

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/campaigns/{id}/flow", Role::Viewer, show),
        Route::get("/webhooks/{id}", Role::Viewer, redirect_to_editor),
    ]
}

#[derive(Template)]
#[template(path = "flow.html")]
struct FlowPage {
    layout: Layout,
    name: String,
    href: String,
    svg: String,
    zoom: u16,
    smaller: Option<u16>,
    larger: Option<u16>,
}

async fn show(
    State(state): State<ApiState>,
    context: RequestContext,
    Id(id): Id,
    FormQuery(query): FormQuery,
) -> Result<Response, PageError> {
    let stored = state.campaigns.get(&id)?;
    let campaign = &stored.campaign;
    let zoom = query.get("zoom").parse().ok().filter(|zoom| ZOOM_LEVELS.contains(zoom)).unwrap_or(100);
    let places: HashMap<&WebhookId, WebhookPlace<'_>> =
        campaign.places().map(|place| (&place.webhook.id, place)).collect();
    let health = |id: &WebhookId| {
        let stats = places.get(id).and_then(|place| state.endpoints.stats(place.webhook.url.receiver_key()));
        stats.as_ref().map_or(WebhookHealth::Unknown, WebhookHealth::from_stats)
    };
    let drawing = flow::layout(flow::graph(campaign));
    let svg = flow::svg(&drawing, Style::Embedded, &health, &|part| part_href(&state, &campaign.id, &places, part));
    Ok(page(&FlowPage {
        layout: Layout::new(&context, format!("Flow · {}", campaign.display_name())),
        name: campaign.display_name().to_owned(),
        href: links::campaign(&id),
        svg,
        zoom,
        smaller: ZOOM_LEVELS.into_iter().rfind(|smaller| *smaller < zoom),
        larger: ZOOM_LEVELS.into_iter().find(|larger| *larger > zoom),
    }))
}

/// The link target of a part of the drawing. `None` if it has none.
fn part_href(
    state: &ApiState,
    campaign: &str,
    places: &HashMap<&WebhookId, WebhookPlace<'_>>,
    part: Part<'_>,
) -> Option<String> {
    let target = match part {
        Part::Section { label } => EditTarget::Section { label: label.to_owned() },
        Part::Entry { section, keyword } => {
            EditTarget::Entry { label: section.to_owned(), keyword: keyword.to_owned() }
        }
        Part::Webhook(id) => {
            let place = places.get(id)?;
            return Some(format!("{}#webhook", EditTarget::new(place.section, place.entry).editor_href(campaign)));
        }
        // A redirect may name a campaign by any text. Only ids of known campaigns become links.
        Part::Campaign(id) => {
            return state.campaigns.exists(id).then(|| links::campaign(id));
        }
    };
    Some(target.editor_href(campaign))
}

/// `GET /webhooks/{id}`: finds the editor for a webhook id.
async fn redirect_to_editor(State(state): State<ApiState>, Id(id): Id) -> Result<Response, PageError> {
    let id = WebhookId::new(id);
    let stored = state.campaigns.get_by_webhook(&id)?;
    let place = stored.campaign.place_of(&id).ok_or_else(no_such_place)?;
    let target = EditTarget::new(place.section, place.entry);
    Ok(Redirect::to(&format!("{}#webhook", target.editor_href(&stored.campaign.id))).into_response())
}
