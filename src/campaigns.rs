//! Campaigns: changes are appended to the campaigns log, and every node applies the log in its order.
//!
//! The node that accepts a change answers once it has applied it itself, so whoever gets the answer reads their own
//! write there. A change says which version it was made on; one made on an old version has no effect on any node.

mod comparison;
pub mod hold;
mod reading;
pub mod restore;
mod snapshots;
mod webhooks;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::Utc;
use tokio::sync::watch;

use self::hold::LogStatus;
use self::reading::ViewHistory;
use self::snapshots::SnapshotProgress;
use crate::broker::names::Names;
use crate::broker::publisher::Publisher;
use crate::broker::stream_writer::{AppendError, StreamWriter};
use crate::delivery::campaign::{Campaign, diff};
use crate::delivery::document::{self, UrlPolicy};
use crate::delivery::egress::EgressRules;
use crate::delivery::ids::WebhookId;
use crate::delivery::secret_encryption::{self, Keyring};
use crate::delivery::violation::Violation;
use crate::metrics::Metrics;
use crate::store::{Change, ChangeAuthor, ChangeOutcome, Store, StoreError, StoredCampaign};
use crate::view_sync::SyncState;

/// A change is published, confirmed and applied within this time, or the caller is told that it may yet happen.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);

/// A change waits this long for the changes before it.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// A change made on no particular version is tried again when it loses a race against another node, this often.
const MAX_CONFLICT_RETRIES: usize = 50;

/// What the caller of a change knows of the campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// Whatever it is now.
    None,
    /// It has one of these versions.
    Versions(Vec<u64>),
    /// It exists.
    Exists,
    /// It does not exist.
    Absent,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// The document has faults.
    #[error("the document has {} faults", .0.len())]
    Faults(Vec<Violation>),
    /// There is no such campaign.
    #[error("no such campaign")]
    Unknown,
    /// Somebody else has changed the campaign.
    #[error("the campaign was changed meanwhile: read it again, and repeat your change on that")]
    Precondition,
    /// It is not possible as things are.
    #[error("{0}")]
    Conflict(String),
    /// The log could not be written, or not be read, in time.
    #[error("{0}")]
    Unavailable(String),
    /// The local view failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AppendError> for CampaignError {
    fn from(error: AppendError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Accepts changes, and applies the log.
#[derive(Clone)]
pub struct Campaigns {
    store: Store,
    publisher: Publisher,
    names: Names,
    /// The stream's name.
    log: String,
    rules: EgressRules,
    keyring: Keyring,
    metrics: Arc<Metrics>,
    appender: StreamWriter<ChangeOutcome>,
    currency: Arc<watch::Sender<SyncState>>,
    /// Whether the view is current and the log is being read. A view stays current when the connection is lost.
    is_following: Arc<watch::Sender<bool>>,
    status: Arc<watch::Sender<LogStatus>>,
    history: Arc<Mutex<ViewHistory>>,
    /// Snapshots that are being appended to the log, by any worker.
    snapshots: Arc<watch::Sender<SnapshotProgress>>,
    /// Held while the store is read for a restore: the view must not be removed meanwhile.
    restoring: Arc<tokio::sync::Mutex<()>>,
    /// Held by the one change that is being made here: a node does not race against itself.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Campaigns {
    /// Campaigns kept in the campaigns stream of `names`.
    ///
    /// `rules` are those that their webhooks' URLs are held against, `keyring` seals their secrets.
    pub fn new(
        store: Store,
        publisher: Publisher,
        names: Names,
        rules: EgressRules,
        keyring: Keyring,
        metrics: Arc<Metrics>,
    ) -> Self {
        let currency = Arc::new(watch::Sender::new(SyncState::CatchingUp));
        let is_following = Arc::new(watch::Sender::new(false));
        let status = Arc::new(watch::Sender::new(LogStatus::Following));
        let log = names.campaigns();
        let appender = StreamWriter::new(publisher.clone(), log.clone(), APPEND_TIMEOUT);
        let (history, snapshots, restoring, turn) = Default::default();
        Self {
            store,
            publisher,
            names,
            log,
            rules,
            keyring,
            metrics,
            appender,
            currency,
            is_following,
            status,
            history,
            snapshots,
            restoring,
            turn,
        }
    }

    /// Whether the view is current, as it changes.
    pub fn currency(&self) -> watch::Receiver<SyncState> {
        self.currency.subscribe()
    }

    /// Whether campaigns may be missing from the log, as it changes.
    pub fn log_status(&self) -> watch::Receiver<LogStatus> {
        self.status.subscribe()
    }

    /// Checks that the view's campaigns are what was configured, not a part of it.
    ///
    /// # Errors
    /// [`CampaignError::Unavailable`].
    pub fn check_listable(&self) -> Result<(), CampaignError> {
        match &*self.status.borrow() {
            LogStatus::Incomplete(hold) if !hold.reason.keeps_campaigns() => {
                Err(CampaignError::Unavailable(hold.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Creates or replaces a campaign, in the name of whom it is done `by`.
    ///
    /// # Errors
    /// [`CampaignError`].
    pub async fn put(
        &self,
        id: &str,
        document: &[u8],
        precondition: Precondition,
        by: &str,
    ) -> Result<PutOutcome, CampaignError> {
        let _turn = self.write_lock().await?;
        for _ in 0..MAX_CONFLICT_RETRIES {
            let current = self.store.campaign(id)?;
            check(&precondition, current.as_deref())?;
            let campaign = self.read(id, document, current.as_deref())?;
            let expected = current.as_deref().map(|stored| stored.version);
            let places = diff::between(current.as_deref().map(|stored| &stored.campaign), &campaign);
            let made = ChangeAuthor { places, ..author(by) };
            let change =
                Change { id: id.to_owned(), expected, made: Some(made.clone()), campaign: Some(campaign.clone()) };
            match self.append(change).await? {
                ChangeOutcome::Done { version } => {
                    let created = expected.is_none();
                    let stored = StoredCampaign { version, made: Some(made), earlier: Vec::new(), campaign };
                    return Ok(PutOutcome { stored, created });
                }
                ChangeOutcome::WebhookTaken { webhook_id, owner } => {
                    return Err(id_taken(&campaign, &webhook_id, &owner));
                }
                ChangeOutcome::Stale => {}
            }
        }
        Err(CampaignError::Precondition)
    }

    /// The campaign that `document` would make of `current`.
    ///
    /// # Errors
    /// [`CampaignError::Faults`]: all that [`put`](Self::put) would refuse it for; [`CampaignError::Store`].
    pub fn read(&self, id: &str, document: &[u8], current: Option<&StoredCampaign>) -> Result<Campaign, CampaignError> {
        let previous = current.map(|stored| &stored.campaign);
        let elsewhere = |webhook: &WebhookId| {
            // A store that can't be read is told of below, where nothing is made up any more.
            matches!(self.store.owner_of(webhook.as_str()), Ok(Some(owner)) if owner != id)
        };
        let campaign = document::read_among(document, UrlPolicy::Egress(&self.rules), previous, &elsewhere);
        let campaign = self.opened(campaign.map_err(CampaignError::Faults)?)?;
        if campaign.id != id {
            let message = format!("is `{}`, but the address says `{id}`: make them the same", campaign.id);
            return Err(CampaignError::Faults(vec![Violation::new("$.id", message)]));
        }
        self.check_owners(&campaign)?;
        Ok(campaign)
    }

    /// The campaign with this id.
    ///
    /// # Errors
    /// [`CampaignError`].
    pub fn get(&self, id: &str) -> Result<Arc<StoredCampaign>, CampaignError> {
        self.store.campaign(id)?.ok_or_else(|| self.missing())
    }

    /// Why there is no campaign: while the view is being built nobody knows.
    fn missing(&self) -> CampaignError {
        if let LogStatus::Incomplete(hold) = &*self.status.borrow() {
            return CampaignError::Unavailable(hold.to_string());
        }
        match *self.currency.borrow() {
            SyncState::Current => CampaignError::Unknown,
            SyncState::CatchingUp => {
                CampaignError::Unavailable("reading the configuration from the broker: try again".to_owned())
            }
        }
    }

    /// Deletes a campaign, in the name of whom it is done `by`.
    ///
    /// # Errors
    /// [`CampaignError`].
    pub async fn delete(&self, id: &str, precondition: Precondition, by: &str) -> Result<(), CampaignError> {
        let _turn = self.write_lock().await?;
        for _ in 0..MAX_CONFLICT_RETRIES {
            let current = self.store.campaign(id)?;
            check(&precondition, current.as_deref())?;
            let Some(current) = current else {
                return Err(self.missing());
            };
            let expected = Some(current.version);
            let change = Change { id: id.to_owned(), expected, made: Some(author(by)), campaign: None };
            if matches!(self.append(change).await?, ChangeOutcome::Done { .. }) {
                return Ok(());
            }
        }
        Err(CampaignError::Precondition)
    }

    /// Waits for this worker's other changes, and until the log is read: a change that a worker appends to a new log would hide
    /// that the log lacks all others. No change is accepted while campaigns may be missing from the log.
    async fn write_lock(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, CampaignError> {
        let turn = self.lock().await?;
        let (mut is_following, mut status) = (self.is_following.subscribe(), self.status.subscribe());
        let known = async {
            tokio::select! {
                _ = is_following.wait_for(|is_following| *is_following) => {}
                _ = status.wait_for(|status| matches!(status, LogStatus::Incomplete(_))) => {}
            }
        };
        let waited = tokio::time::timeout(TURN_TIMEOUT, known).await;
        match &*self.status.borrow() {
            LogStatus::Following if waited.is_ok() => Ok(turn),
            LogStatus::Following | LogStatus::Comparing => {
                Err(CampaignError::Unavailable("reading the configuration from the broker: try again".to_owned()))
            }
            LogStatus::Incomplete(hold) => Err(CampaignError::Unavailable(format!("no change is accepted: {hold}"))),
        }
    }

    async fn lock(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, CampaignError> {
        let turn = tokio::time::timeout(TURN_TIMEOUT, self.turn.lock()).await;
        turn.map_err(|_| CampaignError::Unavailable("other changes are waiting for the broker: try again".to_owned()))
    }

    fn check_owners(&self, campaign: &Campaign) -> Result<(), CampaignError> {
        for place in campaign.places() {
            let webhook_id = place.webhook.id.as_str();
            if let Some(owner) = self.store.owner_of(webhook_id)?
                && owner != campaign.id
            {
                return Err(id_taken(campaign, webhook_id, &owner));
            }
        }
        Ok(())
    }

    /// The campaign of a document that may have sealed secrets, as a file of kept campaigns has.
    fn opened(&self, campaign: Campaign) -> Result<Campaign, CampaignError> {
        // Its paths are gone with it where it does not open.
        let shape = campaign.clone();
        self.keyring.opened(campaign).map_err(|(webhook, unopened)| {
            CampaignError::Faults(vec![Violation::new(shape.path_of(&webhook), unopened.to_string())])
        })
    }

    /// Appends a change to the log, its secrets sealed, and waits until this node has applied it.
    async fn append(&self, mut change: Change) -> Result<ChangeOutcome, CampaignError> {
        let salt = random::<{ secret_encryption::SALT_BYTES }>()?;
        change.campaign = change.campaign.map(|campaign| self.keyring.sealed(&campaign, salt));
        let body = serde_json::to_vec(&change).map_err(StoreError::from)?;
        Ok(self.appender.append(body).await?)
    }
}

/// A campaign that was put.
#[derive(Debug, Clone)]
pub struct PutOutcome {
    /// As it is now.
    pub stored: StoredCampaign,
    /// Whether there was none before.
    pub created: bool,
}

/// A change that is accepted now.
fn author(by: &str) -> ChangeAuthor {
    ChangeAuthor { by: by.to_owned(), at: Utc::now(), places: Vec::new() }
}

/// Random bytes for what must be nobody's guess.
fn random<const BYTES: usize>() -> Result<[u8; BYTES], CampaignError> {
    let mut random = [0; BYTES];
    getrandom::fill(&mut random)
        .map_err(|error| CampaignError::Unavailable(format!("the system gives no random bytes: {error}")))?;
    Ok(random)
}

fn check(precondition: &Precondition, current: Option<&StoredCampaign>) -> Result<(), CampaignError> {
    let holds = match precondition {
        Precondition::None => true,
        Precondition::Versions(versions) => current.is_some_and(|current| versions.contains(&current.version)),
        Precondition::Exists => current.is_some(),
        Precondition::Absent => current.is_none(),
    };
    if holds { Ok(()) } else { Err(CampaignError::Precondition) }
}

fn id_taken(campaign: &Campaign, webhook_id: &str, owner: &str) -> CampaignError {
    let message = format!(
        "`{webhook_id}` is the id of a webhook of campaign `{owner}`: leave `id` out, and it is given a new one"
    );
    CampaignError::Faults(vec![Violation::new(format!("{}.id", campaign.path_of(webhook_id)), message)])
}
