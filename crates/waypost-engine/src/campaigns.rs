//! Campaigns: changes are appended to the campaigns stream, and every worker applies the stream in order.
//!
//! The worker that accepts a change answers after it has applied the change, so its caller reads its own write.
//! A change names the version that it was made on. A change made on an old version has no effect on any worker.

mod catch_up_log;
mod change_locks;
mod comparison;
mod completion;
pub mod error;
pub mod hold;
mod queries;
mod random;
mod read_ahead;
mod reading;
pub mod restore;
mod snapshot_progress;
mod snapshots;
mod view_history;
mod webhooks;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::Utc;
use tokio::sync::{RwLockWriteGuard, watch};
use waypost_broker::names::Names;
use waypost_broker::publisher::Publisher;
use waypost_broker::stream_writer::StreamWriter;
use waypost_core::campaign::Campaign;
use waypost_core::campaign::diff::{self, CampaignNode};
use waypost_core::egress::EgressRules;
use waypost_core::secret_encryption::{self, Keyring};
use waypost_store::{Change, ChangeAuthor, ChangeOutcome, Store, StoreError, StoredCampaign};

use self::change_locks::{ChangeGuard, ChangeLocks};
use self::error::CampaignError;
use self::hold::StreamStatus;
use self::random::random;
use self::snapshot_progress::SnapshotProgress;
use self::view_history::ViewHistory;
use crate::metrics::Metrics;
use crate::view_sync::SyncState;

/// Time for a change to be published, confirmed and applied. After a timeout the change may still apply.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a change waits for earlier changes of its campaign on this worker.
const WRITE_LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Attempts of a change, if other workers change the same campaign.
const MAX_ATTEMPTS: usize = 50;

/// What must hold for the campaign when a change is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    None,
    /// The campaign has one of these versions.
    Versions(Vec<u64>),
    Exists,
    Absent,
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
    change_locks: Arc<ChangeLocks>,
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
        let (history, snapshots, restore_mutex, change_locks) = Default::default();
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
            change_locks,
        }
    }

    pub fn sync_state(&self) -> watch::Receiver<SyncState> {
        self.sync_state.subscribe()
    }

    pub fn stream_status(&self) -> watch::Receiver<StreamStatus> {
        self.stream_status.subscribe()
    }

    /// Creates a campaign, or changes it. `change` makes the new campaign from the current one, and is called again if
    /// another worker changes the campaign first. `by` is the name of the token that does it.
    ///
    /// # Errors
    /// [`CampaignError::Precondition`], before `change` is called. The error of `change`, and those of
    /// [`complete`](Self::complete) with what it returned.
    pub async fn update<E: From<CampaignError>>(
        &self,
        id: &str,
        precondition: Precondition,
        by: &str,
        mut change: impl FnMut(Option<&StoredCampaign>) -> Result<Campaign, E>,
    ) -> Result<PutOutcome, E> {
        let change_and_complete = |current: Option<&StoredCampaign>| -> Result<Campaign, E> {
            let changed = change(current)?;
            Ok(self.complete(id, changed, current.map(|stored| &stored.campaign))?)
        };
        let Committed { version, author, campaign, is_new } =
            self.commit::<Campaign, E>(id, &precondition, by, change_and_complete).await?;
        let stored = StoredCampaign { version, author: Some(author), past_changes: Vec::new(), campaign };
        Ok(PutOutcome { stored, is_new })
    }

    /// Deletes a campaign. `by` is the name of the token that does it.
    pub async fn delete(&self, id: &str, precondition: Precondition, by: &str) -> Result<(), CampaignError> {
        let delete = |current: Option<&StoredCampaign>| match current {
            Some(_) => Ok(None),
            None => Err(self.not_found()),
        };
        self.commit::<Option<Campaign>, _>(id, &precondition, by, delete).await.map(drop)
    }

    /// Appends what `change` makes of the current campaign: a new one, or `None` to delete it. If another worker changed
    /// the campaign first, tries again with that change.
    async fn commit<C, E>(
        &self,
        id: &str,
        precondition: &Precondition,
        by: &str,
        mut change: impl FnMut(Option<&StoredCampaign>) -> Result<C, E>,
    ) -> Result<Committed<C>, E>
    where
        C: Clone + Into<Option<Campaign>>,
        E: From<CampaignError>,
    {
        // While the broker is away, a change that is refused anyway does not wait for it.
        if !*self.is_following.borrow() && *self.sync_state.borrow() == SyncState::Current {
            let current = self.store.campaign(id).map_err(CampaignError::from)?;
            check(precondition, current.as_deref())?;
            change(current.as_deref())?;
        }
        let _change_lock = self.lock_campaign(id).await?;
        for _ in 0..MAX_ATTEMPTS {
            let current = self.store.campaign(id).map_err(CampaignError::from)?;
            check(precondition, current.as_deref())?;
            let campaign = change(current.as_deref())?;
            let new: Option<Campaign> = campaign.clone().into();
            let author = ChangeAuthor {
                by: by.to_owned(),
                at: Utc::now(),
                nodes: changed_nodes(current.as_deref(), new.as_ref()),
            };
            let expected_version = current.map(|stored| stored.version);
            let change = Change { id: id.to_owned(), expected_version, author: Some(author.clone()), campaign: new };
            match self.append(change).await? {
                ChangeOutcome::Done { version } => {
                    return Ok(Committed { version, author, campaign, is_new: expected_version.is_none() });
                }
                ChangeOutcome::WebhookTaken { webhook_id, owner } => {
                    let campaign: Option<Campaign> = campaign.into();
                    let path = campaign.map_or_else(|| "$".to_owned(), |campaign| campaign.path_of(&webhook_id));
                    return Err(CampaignError::webhook_id_taken(&path, &webhook_id, &owner).into());
                }
                ChangeOutcome::Stale => {}
            }
        }
        Err(CampaignError::Precondition.into())
    }

    /// Waits for this worker's other changes of the campaign, and until the stream has been read.
    ///
    /// A change appended to a new stream would hide that the stream lacks all earlier changes.
    /// No change is accepted while campaigns may be missing from the stream.
    async fn lock_campaign(&self, id: &str) -> Result<ChangeGuard<'_>, CampaignError> {
        let guard = lock_in_time(self.change_locks.lock_campaign(id)).await?;
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

    /// Waits for all changes of this worker. It makes no change while the guard is held.
    async fn lock_all_campaigns(&self) -> Result<RwLockWriteGuard<'_, ()>, CampaignError> {
        lock_in_time(self.change_locks.lock_all()).await
    }

    /// Appends a change to the stream with encrypted secrets, and waits until this worker has applied it.
    async fn append(&self, mut change: Change) -> Result<ChangeOutcome, CampaignError> {
        let salt = random::<{ secret_encryption::SALT_BYTES }>()?;
        change.campaign = change.campaign.map(|campaign| self.keyring.encrypt(&campaign, salt));
        let body = serde_json::to_vec(&change).map_err(StoreError::from)?;
        Ok(self.appender.append(body).await?)
    }
}

async fn lock_in_time<T>(lock: impl Future<Output = T>) -> Result<T, CampaignError> {
    let guard = tokio::time::timeout(WRITE_LOCK_TIMEOUT, lock).await;
    guard.map_err(|_| CampaignError::Unavailable("other changes are waiting for the broker: try again".to_owned()))
}

#[derive(Debug, Clone)]
pub struct PutOutcome {
    pub stored: StoredCampaign,
    pub is_new: bool,
}

/// A change that this worker has applied.
struct Committed<C> {
    version: u64,
    author: ChangeAuthor,
    campaign: C,
    is_new: bool,
}

/// The nodes that a change is recorded under. A deletion has none.
fn changed_nodes(current: Option<&StoredCampaign>, new: Option<&Campaign>) -> Vec<CampaignNode> {
    new.map_or_else(Vec::new, |new| diff::diff(current.map(|stored| &stored.campaign), new))
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
