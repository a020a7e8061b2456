//! Dead letters over HTTP: found, understood, discarded.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::task::block_in_place;

use super::Http;
use super::access::Caller;
use super::audit::About;
use super::given::{Given, Id};
use super::list::{Limit, List};
use super::problem::Problem;
use super::route::Route;
use crate::config::Role;
use crate::dead_letters::Rest;
use crate::delivery::Delivery;
use crate::delivery::campaign::Secrets;
use crate::delivery::dead_letter::choice::Choice;
use crate::delivery::dead_letter::filter::Filter;
use crate::delivery::dead_letter::mark::{MAX_REASON_CHARS, ReplayOf, Verdict};
use crate::delivery::dead_letter::{self, DeadLetter};
use crate::delivery::fault::Fault;
use crate::delivery::identity::{DeadLetterId, WebhookId};
use crate::delivery::reason::Reason;
use crate::delivery::request::{self, Shown};
use crate::store::dead_letters::search::Tally;

/// The routes of dead letters.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/dead-letters", Role::Viewer, list)
            .named("listDeadLetters", "List dead letters that match a filter, the latest of the log first")
            .query::<Search>()
            .answers::<List<DeadLetter>>(
                StatusCode::OK,
                "A page of dead letters, in the order of the log: `deadAt` descends but for what several workers wrote at once. \
                 Where few of very many match, a page can be short and have a next one all the same",
            ),
        Route::get("/dead-letters/summary", Role::Viewer, summary)
            .named("summarizeDeadLetters", "Count the dead letters that match a filter")
            .query::<Filter>()
            .answers::<Summary>(StatusCode::OK, "The counts"),
        Route::get("/dead-letters/{id}", Role::Viewer, get)
            .named("getDeadLetter", "Read a dead letter: its event, its request, its attempts, and what became of it")
            .subject("The dead letter's id")
            .answers::<Detail>(StatusCode::OK, "The dead letter"),
        Route::post("/dead-letters/discard", Role::Operator, discard)
            .named("discardDeadLetters", "Give pending dead letters up for good, by ids or by filter")
            .takes::<Discard>()
            .answers::<Discarded>(StatusCode::OK, "What was discarded")
            .problem(StatusCode::NOT_FOUND, "One of them is not there")
            .problem(StatusCode::CONFLICT, "One of them is being replayed"),
    ]
}

/// A page is looked for this long, and ends where it has come to.
const SEARCH_TIME: Duration = Duration::from_millis(25);

/// The most campaigns and webhooks that a summary names.
const NAMED: usize = 100;

/// Which dead letters, and which page of them.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "it is the description of what `Asked` reads")]
struct Search {
    #[schemars(flatten)]
    filter: Filter,
    /// The most items of the page.
    #[schemars(default)]
    limit: Limit,
    /// `next` of the page before, with the same filter.
    cursor: Option<String>,
}

/// A dead letter, and what became of it.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "DeadLetterDetail")]
struct Detail {
    #[serde(flatten)]
    letter: DeadLetter,
    /// As it was sent at the last attempt; values of custom headers are not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<Shown>,
    /// Each time it was sent again, oldest first.
    replays: Vec<ReplayOf>,
    /// Who gave it up.
    #[serde(skip_serializing_if = "Option::is_none")]
    discard: Option<Verdict>,
}

/// What is to be discarded.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "DiscardOrder")]
struct Discard {
    /// These dead letters.
    ids: Option<Vec<DeadLetterId>>,
    /// Or all pending ones that this matches.
    #[schemars(with = "Option<Filter>")]
    filter: Option<Map<String, Value>>,
    /// Why, for whoever asks later.
    #[schemars(length(min = 1, max = MAX_REASON_CHARS))]
    reason: Option<String>,
}

/// What was discarded.
#[derive(Serialize, JsonSchema)]
struct Discarded {
    /// How many dead letters.
    discarded: u64,
    /// Whether there are more: send the request again.
    more: bool,
}

/// Dead letters, counted. The greatest counts come first.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "DeadLetterSummary")]
struct Summary {
    /// All that match.
    total: u64,
    /// When the first was given up.
    oldest: Option<String>,
    /// When the last was given up.
    newest: Option<String>,
    states: Vec<OfState>,
    reasons: Vec<OfReason>,
    /// By the class of the last attempt's status; `none` where there was no answer.
    statuses: Vec<OfStatus>,
    /// The campaigns with the most.
    campaigns: Vec<OfCampaign>,
    /// How many campaigns are not named.
    more_campaigns: usize,
    /// The webhooks with the most.
    webhooks: Vec<OfWebhook>,
    /// How many webhooks are not named.
    more_webhooks: usize,
}

#[derive(Serialize, JsonSchema)]
struct OfState {
    state: dead_letter::State,
    count: u64,
}

#[derive(Serialize, JsonSchema)]
struct OfReason {
    reason: Reason,
    count: u64,
}

#[derive(Serialize, JsonSchema)]
struct OfStatus {
    /// `5xx`, or `none`
    status: String,
    count: u64,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct OfCampaign {
    campaign_id: String,
    count: u64,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct OfWebhook {
    webhook_id: WebhookId,
    campaign_id: String,
    count: u64,
}

/// `GET /v1/dead-letters`: the reverse of the order in which they were written, whatever the limit.
async fn list(State(http): State<Http>, RawQuery(query): RawQuery) -> Result<List<DeadLetter>, Problem> {
    let asked = Asked::read(query.as_deref().unwrap_or_default())?;
    let before = asked.cursor.as_deref().map(|cursor| offset_of(cursor, &asked.filter)).transpose()?;
    let view = http.dead_letters.readable().await?;
    let deadline = Instant::now() + SEARCH_TIME;
    let page = block_in_place(|| view.page(&asked.filter, before, asked.limit.get(), deadline))?;
    let items = page.letters.into_iter().map(|kept| shown(kept.letter)).collect();
    Ok(List { items, next: page.next.map(|before| cursor(before, &asked.filter)) })
}

/// `GET /v1/dead-letters/summary`
async fn summary(State(http): State<Http>, RawQuery(query): RawQuery) -> Result<Json<Summary>, Problem> {
    let asked = Asked::read(query.as_deref().unwrap_or_default())?;
    if asked.paged {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "a summary has no pages: leave `limit` and `cursor` out"));
    }
    let view = http.dead_letters.readable().await?.clone();
    let tally = tokio::task::spawn_blocking(move || view.tally(&asked.filter)).await;
    let tally = tally.map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))??;
    Ok(Json(Summary::from(tally)))
}

/// `GET /v1/dead-letters/{id}`
async fn get(State(http): State<Http>, Id(id): Id) -> Result<Json<Detail>, Problem> {
    let view = http.dead_letters.readable().await?;
    let kept = view.letter(&DeadLetterId::new(&*id))?;
    let kept = kept.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("there is no dead letter {id}")))?;
    let fate = view.fate(kept.offset)?;
    let request = sent(&kept.letter);
    Ok(Json(Detail { letter: shown(kept.letter), request, replays: fate.replays, discard: fate.discard }))
}

/// `POST /v1/dead-letters/discard`
async fn discard(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    Given(Discard { ids, filter, reason }): Given<Discard>,
) -> Result<Response, Problem> {
    let choice = Choice::read(ids, filter).map_err(Problem::of_faults)?;
    if let Some(fault) = reason.as_deref().and_then(fault_of) {
        return Err(Problem::of_faults(vec![fault]));
    }
    let chosen = chosen(&choice);
    let why = reason.clone().unwrap_or_else(|| "no reason given".to_owned());
    let discarded = http.dead_letters.discard(choice, &caller.name, reason).await?;
    let about = About(format!("{} dead letters chosen {chosen}: {why}", discarded.letters));
    let answer = Discarded { discarded: discarded.letters, more: discarded.rest == Rest::Some };
    Ok((Extension(about), Json(answer)).into_response())
}

/// What is wrong with the reason of a discard.
fn fault_of(reason: &str) -> Option<Fault> {
    if reason.trim().is_empty() {
        return Some(Fault::new("$.reason", "is empty: say why, or leave it out"));
    }
    let length = reason.chars().count();
    (length > MAX_REASON_CHARS).then(|| {
        let message =
            format!("has {length} characters, and {MAX_REASON_CHARS} at most are kept: say it in fewer words");
        Fault::new("$.reason", message)
    })
}

/// A choice in the words of the audit.
pub(super) fn chosen(choice: &Choice) -> String {
    match choice {
        Choice::Ids(ids) => format!("by {} ids", ids.len()),
        Choice::Filter(filter) => format!("by {}", serde_json::to_string(filter).unwrap_or_default()),
    }
}

/// What a query asks for.
struct Asked {
    filter: Filter,
    limit: Limit,
    cursor: Option<String>,
    /// Whether it says which page.
    paged: bool,
}

impl Asked {
    fn read(query: &str) -> Result<Self, Problem> {
        let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
        let (mut limit, mut cursor, mut fields) = (None, None, Map::new());
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match name.as_ref() {
                "limit" => limit = Some(value),
                "cursor" => cursor = Some(value),
                name => {
                    fields.insert(name.to_owned(), value.into());
                }
            }
        }
        let filter = Filter::read(fields, "")
            .map_err(|faults| bad(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
        let paged = limit.is_some() || cursor.is_some();
        let limit = match limit {
            Some(limit) => limit.parse().map_err(|error| bad(format!("limit {error}")))?,
            None => Limit::default(),
        };
        Ok(Self { filter, limit, cursor, paged })
    }
}

/// A cursor is the offset before which the page begins, and proof of the filter with which it was made.
fn cursor(before: u64, filter: &Filter) -> String {
    let bytes: Vec<u8> = before.to_be_bytes().into_iter().chain(proof(filter)).collect();
    URL_SAFE_NO_PAD.encode(bytes)
}

fn offset_of(cursor: &str, filter: &Filter) -> Result<u64, Problem> {
    let bad = |detail| Problem::new(StatusCode::BAD_REQUEST, detail);
    let no_cursor = "cursor: not one that this list has given";
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad(no_cursor))?;
    let (before, given) = bytes.split_first_chunk::<8>().ok_or_else(|| bad(no_cursor))?;
    if given.len() != PROOF_BYTES {
        return Err(bad(no_cursor));
    }
    if given != proof(filter) {
        return Err(bad("cursor: made for another filter; begin again without it"));
    }
    Ok(u64::from_be_bytes(*before))
}

const PROOF_BYTES: usize = 8;

fn proof(filter: &Filter) -> [u8; PROOF_BYTES] {
    let mut proof = [0; PROOF_BYTES];
    // All of its keys are strings: it can be written.
    let text = serde_json::to_vec(filter).unwrap_or_default();
    proof.copy_from_slice(&Sha256::digest(text)[..PROOF_BYTES]);
    proof
}

/// Without the webhook's configuration, of which `request` shows what was sent.
fn shown(letter: DeadLetter) -> DeadLetter {
    DeadLetter { target: None, ..letter }
}

/// The request of the last attempt.
fn sent(letter: &DeadLetter) -> Option<Shown> {
    let (event, target, last) = (letter.event.clone()?, letter.target.clone()?, letter.attempts.last()?);
    let mut delivery = Delivery::new(event, target, letter.trace.clone());
    delivery.id = letter.delivery_id.clone()?;
    Some(request::render(&delivery, last.at).shown(Secrets::Masked))
}

impl From<Tally> for Summary {
    fn from(tally: Tally) -> Self {
        let time = |milliseconds| {
            DateTime::<Utc>::from_timestamp_millis(milliseconds).as_ref().map(crate::delivery::timestamp::text)
        };
        let status = |class: Option<u16>| class.map_or_else(|| "none".to_owned(), |class| format!("{class}xx"));
        let webhooks = tally.webhooks.into_iter().flat_map(|(webhook, campaigns)| {
            campaigns.into_iter().map(move |(campaign, count)| ((webhook.clone(), campaign), count))
        });
        let (campaigns, webhooks) = (by_count(tally.campaigns), by_count(webhooks.collect::<HashMap<_, _>>()));
        Self {
            total: tally.total,
            oldest: tally.span.and_then(|(oldest, _)| time(oldest)),
            newest: tally.span.and_then(|(_, newest)| time(newest)),
            states: by_count_with(tally.states, |state| state.as_str().to_owned())
                .into_iter()
                .map(|(state, count)| OfState { state, count })
                .collect(),
            reasons: by_count_with(tally.reasons, |reason| reason.as_str().to_owned())
                .into_iter()
                .map(|(reason, count)| OfReason { reason, count })
                .collect(),
            statuses: by_count_with(tally.status_classes, |class| status(*class))
                .into_iter()
                .map(|(class, count)| OfStatus { status: status(class), count })
                .collect(),
            more_campaigns: campaigns.len().saturating_sub(NAMED),
            campaigns: campaigns
                .into_iter()
                .take(NAMED)
                .map(|(campaign_id, count)| OfCampaign { campaign_id, count })
                .collect(),
            more_webhooks: webhooks.len().saturating_sub(NAMED),
            webhooks: webhooks
                .into_iter()
                .take(NAMED)
                .map(|((webhook, campaign_id), count)| OfWebhook {
                    webhook_id: WebhookId::new(webhook),
                    campaign_id,
                    count,
                })
                .collect(),
        }
    }
}

/// The greatest first, equal ones by name.
fn by_count<K: Ord + Clone>(counts: HashMap<K, u64>) -> Vec<(K, u64)> {
    by_count_with(counts, K::clone)
}

pub(super) fn by_count_with<K, N: Ord>(counts: HashMap<K, u64>, name: impl Fn(&K) -> N) -> Vec<(K, u64)> {
    let mut counts: Vec<(K, u64)> = counts.into_iter().collect();
    counts.sort_by_cached_key(|(key, count)| (std::cmp::Reverse(*count), name(key)));
    counts
}
