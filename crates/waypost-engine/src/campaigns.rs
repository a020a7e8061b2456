//! Campaigns: changes are appended to the campaigns stream, and every worker applies the stream in order.
//!
//! The worker that accepts a change answers after it has applied the change, so its caller reads its own write.
//! A change names the version that it was made on. A change made on an old version has no effect on any worker.

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
use waypost_broker::names::Names;
use waypost_broker::publisher::Publisher;
use waypost_broker::stream_writer::{AppendError, StreamWriter};
use waypost_core::campaign::{Campaign, diff};
use waypost_core::document::{self, UrlPolicy};
use waypost_core::egress::EgressRules;
use waypost_core::ids::WebhookId;
use waypost_core::secret_encryption::{self, Keyring};
use waypost_core::violation::Violation;
use waypost_store::{Change, ChangeAuthor, ChangeOutcome, Store, StoreError, StoredCampaign};

use self::hold::StreamStatus;
use self::reading::ViewHistory;
use self::snapshots::SnapshotProgress;
use crate::metrics::Metrics;
use crate::view_sync::SyncState;

/// Time for a change to be published, confirmed and applied. After a timeout the change may still apply.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a change waits for earlier changes of this worker.
const WRITE_LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Attempts of a change without a version, if other workers change the same campaign.
const MAX_CONFLICT_RETRIES: usize = 50;

/// What must hold for the campaign when a change is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    None,
    /// The campaign has one of these versions.
    Versions(Vec<u64>),
    Exists,
    Absent,
}

#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    #[error("the document has {} errors", .0.len())]
    Invalid(Vec<Violation>),
    #[error("no such campaign")]
    NotFound,
    /// The campaign does not have the version, or the state, that the change requires.
    #[error("the campaign has changed since you read it: read it again, then repeat your change")]
    Precondition,
    /// The state of this worker or of the stream does not allow the operation.
    #[error("{0}")]
    Conflict(String),
    /// The stream could not be written or read in time.
    #[error("{0}")]
    Unavailable(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AppendError> for CampaignError {
    fn from(error: AppendError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Accepts changes, and applies the stream. Cheap to clone.
#[derive(Clone)]
pub struct Campaigns {
    store: Store,
    publisher: Publisher,
    names: Names,
    /// The name of the campaigns stream.
    log: String,
    egress_rules: EgressRules,
    keyring: Keyring,
    metrics: Arc<Metrics>,
    appender: StreamWriter<ChangeOutcome>,
    sync_state: Arc<watch::Sender<SyncState>>,
    /// Whether the view is current and the stream is being read. A view stays current when the connection is lost.
    is_following: Arc<watch::Sender<bool>>,
    stream_status: Arc<watch::Sender<StreamStatus>>,
    history: Arc<Mutex<ViewHistory>>,
    /// Snapshots that any worker is appending to the stream.
    snapshots: Arc<watch::Sender<SnapshotProgress>>,
    /// Locked while the store is read for a restore: the view must not be removed meanwhile.
    restore_mutex: Arc<tokio::sync::Mutex<()>>,
    /// Locked during a change: a worker does not race against itself.
    write_mutex: Arc<tokio::sync::Mutex<()>>,
}

impl Campaigns {
    /// `egress_rules` are checked for each webhook's URL. `keyring` encrypts secrets.
    pub fn new(
        store: Store,
        publisher: Publisher,
        names: Names,
        egress_rules: EgressRules,
        keyring: Keyring,
        metrics: Arc<Metrics>,
    ) -> Self {
        let sync_state = Arc::new(watch::Sender::new(SyncState::CatchingUp));
        let is_following = Arc::new(watch::Sender::new(false));
        let stream_status = Arc::new(watch::Sender::new(StreamStatus::Following));
        let log = names.campaigns();
        let appender = StreamWriter::new(publisher.clone(), log.clone(), APPEND_TIMEOUT);
        let (history, snapshots, restore_mutex, write_mutex) = Default::default();
        Self {
            store,
            publisher,
            names,
            log,
            egress_rules,
            keyring,
            metrics,
            appender,
            sync_state,
            is_following,
            stream_status,
            history,
            snapshots,
            restore_mutex,
            write_mutex,
        }
    }

    pub fn sync_state(&self) -> watch::Receiver<SyncState> {
        self.sync_state.subscribe()
    }

    pub fn stream_status(&self) -> watch::Receiver<StreamStatus> {
        self.stream_status.subscribe()
    }

    /// Checks that the view has all configured campaigns.
    ///
    /// # Errors
    /// [`CampaignError::Unavailable`] if campaigns may be missing.
    pub fn check_listable(&self) -> Result<(), CampaignError> {
        match &*self.stream_status.borrow() {
            StreamStatus::Incomplete(hold) if !hold.reason.keeps_campaigns() => {
                Err(CampaignError::Unavailable(hold.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Creates or replaces a campaign. `by` is the name of the token that does it.
    pub async fn put(
        &self,
        id: &str,
        document: &[u8],
        precondition: Precondition,
        by: &str,
    ) -> Result<PutOutcome, CampaignError> {
        let _write_lock = self.write_lock().await?;
        for _ in 0..MAX_CONFLICT_RETRIES {
            let current = self.store.campaign(id)?;
            check(&precondition, current.as_deref())?;
            let campaign = self.parse(id, document, current.as_deref())?;
            let expected = current.as_deref().map(|stored| stored.version);
            let places = diff::diff(current.as_deref().map(|stored| &stored.campaign), &campaign);
            let author = ChangeAuthor { nodes: places, ..author(by) };
            let change = Change {
                id: id.to_owned(),
                expected_version: expected,
                author: Some(author.clone()),
                campaign: Some(campaign.clone()),
            };
            match self.append(change).await? {
                ChangeOutcome::Done { version } => {
                    let is_new = expected.is_none();
                    let stored = StoredCampaign { version, author: Some(author), past_changes: Vec::new(), campaign };
                    return Ok(PutOutcome { stored, is_new });
                }
                ChangeOutcome::WebhookTaken { webhook_id, owner } => {
                    return Err(id_taken(&campaign, &webhook_id, &owner));
                }
                ChangeOutcome::Stale => {}
            }
        }
        Err(CampaignError::Precondition)
    }

    /// Parses `document`, which would replace `current`, as [`put`](Self::put) does.
    pub fn parse(
        &self,
        id: &str,
        document: &[u8],
        current: Option<&StoredCampaign>,
    ) -> Result<Campaign, CampaignError> {
        let previous = current.map(|stored| &stored.campaign);
        let is_of_another_campaign = |webhook: &WebhookId| {
            // `check_owners` reports an error of the store.
            matches!(self.store.owner_of(webhook.as_str()), Ok(Some(owner)) if owner != id)
        };
        let url_policy = UrlPolicy::Egress(&self.egress_rules);
        let campaign = document::read_among(document, url_policy, previous, &is_of_another_campaign);
        let campaign = self.decrypt(campaign.map_err(CampaignError::Invalid)?)?;
        if campaign.id != id {
            let message = format!("is `{}`, but the address says `{id}`: make them the same", campaign.id);
            return Err(CampaignError::Invalid(vec![Violation::new("$.id", message)]));
        }
        self.check_owners(&campaign)?;
        Ok(campaign)
    }

    pub fn get(&self, id: &str) -> Result<Arc<StoredCampaign>, CampaignError> {
        self.store.campaign(id)?.ok_or_else(|| self.not_found())
    }

    /// The error for a campaign that the view does not have. A view that is not complete yet may still get it.
    fn not_found(&self) -> CampaignError {
        if let StreamStatus::Incomplete(hold) = &*self.stream_status.borrow() {
            return CampaignError::Unavailable(hold.to_string());
        }
        match *self.sync_state.borrow() {
            SyncState::Current => CampaignError::NotFound,
            SyncState::CatchingUp => {
                CampaignError::Unavailable("reading the configuration from the broker: try again".to_owned())
            }
        }
    }

    /// Deletes a campaign. `by` is the name of the token that does it.
    pub async fn delete(&self, id: &str, precondition: Precondition, by: &str) -> Result<(), CampaignError> {
        let _write_lock = self.write_lock().await?;
        for _ in 0..MAX_CONFLICT_RETRIES {
            let current = self.store.campaign(id)?;
            check(&precondition, current.as_deref())?;
            let Some(current) = current else {
                return Err(self.not_found());
            };
            let expected = Some(current.version);
            let change =
                Change { id: id.to_owned(), expected_version: expected, author: Some(author(by)), campaign: None };
            if matches!(self.append(change).await?, ChangeOutcome::Done { .. }) {
                return Ok(());
            }
        }
        Err(CampaignError::Precondition)
    }

    /// Waits for this worker's other changes, and until the stream has been read.
    ///
    /// A change appended to a new stream would hide that the stream lacks all earlier changes.
    /// No change is accepted while campaigns may be missing from the stream.
    async fn write_lock(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, CampaignError> {
        let guard = self.lock().await?;
        let (mut is_following, mut stream_status) = (self.is_following.subscribe(), self.stream_status.subscribe());
        let log_read = async {
            tokio::select! {
                _ = is_following.wait_for(|is_following| *is_following) => {}
                _ = stream_status.wait_for(|stream_status| matches!(stream_status, StreamStatus::Incomplete(_))) => {}
            }
        };
        let waited = tokio::time::timeout(WRITE_LOCK_TIMEOUT, log_read).await;
        match &*self.stream_status.borrow() {
            StreamStatus::Following if waited.is_ok() => Ok(guard),
            StreamStatus::Following | StreamStatus::Comparing => {
                Err(CampaignError::Unavailable("reading the configuration from the broker: try again".to_owned()))
            }
            StreamStatus::Incomplete(hold) => Err(CampaignError::Unavailable(format!("no change is accepted: {hold}"))),
        }
    }

    async fn lock(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, CampaignError> {
        let guard = tokio::time::timeout(WRITE_LOCK_TIMEOUT, self.write_mutex.lock()).await;
        guard.map_err(|_| CampaignError::Unavailable("other changes are waiting for the broker: try again".to_owned()))
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

    /// Decrypts secrets of a document. A backup file of campaigns has encrypted secrets.
    fn decrypt(&self, campaign: Campaign) -> Result<Campaign, CampaignError> {
        let original = campaign.clone();
        self.keyring.decrypt(campaign).map_err(|(webhook, error)| {
            CampaignError::Invalid(vec![Violation::new(original.path_of(&webhook), error.to_string())])
        })
    }

    /// Appends a change to the stream with encrypted secrets, and waits until this worker has applied it.
    async fn append(&self, mut change: Change) -> Result<ChangeOutcome, CampaignError> {
        let salt = random::<{ secret_encryption::SALT_BYTES }>()?;
        change.campaign = change.campaign.map(|campaign| self.keyring.encrypt(&campaign, salt));
        let body = serde_json::to_vec(&change).map_err(StoreError::from)?;
        Ok(self.appender.append(body).await?)
    }
}

#[derive(Debug, Clone)]
pub struct PutOutcome {
    pub stored: StoredCampaign,
    pub is_new: bool,
}

fn author(by: &str) -> ChangeAuthor {
    ChangeAuthor { by: by.to_owned(), at: Utc::now(), nodes: Vec::new() }
}

/// Unpredictable random bytes, for secrets and salts.
fn random<const BYTES: usize>() -> Result<[u8; BYTES], CampaignError> {
    let mut random = [0; BYTES];
    getrandom::fill(&mut random)
        .map_err(|error| CampaignError::Unavailable(format!("no random bytes from the operating system: {error}")))?;
    Ok(random)
}

fn check(precondition: &Precondition, current: Option<&StoredCampaign>) -> Result<(), CampaignError> {
    let is_met = match precondition {
        Precondition::None => true,
        Precondition::Versions(versions) => current.is_some_and(|current| versions.contains(&current.version)),
        Precondition::Exists => current.is_some(),
        Precondition::Absent => current.is_none(),
    };
    if is_met { Ok(()) } else { Err(CampaignError::Precondition) }
}

fn id_taken(campaign: &Campaign, webhook_id: &str, owner: &str) -> CampaignError {
    let message = format!(
        "`{webhook_id}` is the id of a webhook of campaign `{owner}`: leave `id` out, and Waypost assigns a new one"
    );
    CampaignError::Invalid(vec![Violation::new(format!("{}.id", campaign.path_of(webhook_id)), message)])
}
