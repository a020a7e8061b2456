//! The flow of a campaign: its picture, in which each part leads to where it is edited.

use std::collections::HashMap;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};

use super::super::ApiState;
use super::super::extract::Id;
use super::super::route::Route;
use super::campaigns::{name_of, no_such_place};
use super::editor::edit_target::EditTarget;
use super::form::Query;
use super::layout::{Layout, PageError, RequestContext, page};
use super::links;
use crate::config::Role;
use crate::delivery::campaign::WebhookPlace;
use crate::delivery::ids::WebhookId;
use crate::flow::{self, Health, Part, Style};

/// The sizes in which a picture is shown, in percent. The style sheet has a class for each.
const ZOOMS: [u16; 5] = [50, 75, 100, 150, 200];

/// The pages of the flow.
pub(super) fn routes() -> Vec<Route> {
    vec![Route::get("/campaigns/{id}/flow", Role::Viewer, show), Route::get("/webhooks/{id}", Role::Viewer, webhook)]
}

#[derive(Template)]
#[template(path = "flow.html")]
struct FlowPage {
    frame: Layout,
    name: String,
    address: String,
    svg: String,
    zoom: u16,
    smaller: Option<u16>,
    larger: Option<u16>,
}

async fn show(
    State(http): State<ApiState>,
    visit: RequestContext,
    Id(id): Id,
    Query(query): Query,
) -> Result<Response, PageError> {
    let stored = http.campaigns.get(&id)?;
    let campaign = &stored.campaign;
    let zoom = query.get("zoom").parse().ok().filter(|zoom| ZOOMS.contains(zoom)).unwrap_or(100);
    let places: HashMap<&WebhookId, WebhookPlace<'_>> =
        campaign.places().map(|place| (&place.webhook.id, place)).collect();
    let health = |id: &WebhookId| {
        let standing = places.get(id).and_then(|place| http.worker.endpoints.standing(place.webhook.url.place()));
        standing.as_ref().map_or(Health::Unknown, Health::from_stats)
    };
    let drawing = flow::layout(flow::graph(campaign));
    let svg = flow::svg(&drawing, Style::OfThePage, &health, &|part| address_in(&http, &campaign.id, &places, part));
    Ok(page(&FlowPage {
        frame: Layout::new(&visit, format!("Flow · {}", name_of(campaign))),
        name: name_of(campaign).to_owned(),
        address: links::campaign(&id),
        svg,
        zoom,
        smaller: ZOOMS.into_iter().rfind(|smaller| *smaller < zoom),
        larger: ZOOMS.into_iter().find(|larger| *larger > zoom),
    }))
}

/// Where a part of the picture leads.
fn address_in(
    http: &ApiState,
    campaign: &str,
    places: &HashMap<&WebhookId, WebhookPlace<'_>>,
    part: Part<'_>,
) -> Option<String> {
    let spot = match part {
        Part::Section { label } => EditTarget::Section { label: label.to_owned() },
        Part::Entry { section, keyword } => {
            EditTarget::Entry { label: section.to_owned(), keyword: keyword.to_owned() }
        }
        Part::Webhook(id) => {
            let place = places.get(id)?;
            return Some(format!("{}#webhook", EditTarget::new(place.section, place.entry).address(campaign)));
        }
        // A redirect names a campaign as it likes: by its id, or by a name that is nothing to us.
        Part::Campaign(id) => return http.store.has_campaign(id).is_ok_and(|has| has).then(|| links::campaign(id)),
    };
    Some(spot.address(campaign))
}

/// `GET /webhooks/{id}`: the place of a webhook, for who knows no more than its id.
async fn webhook(State(http): State<ApiState>, Id(id): Id) -> Result<Response, PageError> {
    let id = WebhookId::new(id);
    let stored = http.campaigns.of_webhook(&id)?;
    let place = stored.campaign.place_of(&id).ok_or_else(no_such_place)?;
    let spot = EditTarget::new(place.section, place.entry);
    Ok(Redirect::to(&format!("{}#webhook", spot.address(&stored.campaign.id))).into_response())
}
