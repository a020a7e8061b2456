//! The index of the dead letters: what filters ask for of each letter, packed.
//!
//! sled keeps about sixteen entries to a page, whatever their size, and some memory for every page. An index tree for
//! each field would cost it ten pages a letter's worth; so the rows of 64 neighbours in the log are one entry, a
//! *block*, and what a block holds is summed up in memory, in its *zone*: a filter reads only the blocks whose zone says
//! that it may find something there. `blocks` knows where a block is.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::location::{SegmentLocation, first_of, slot_of};
use super::segment_codec::compress;
use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::dead_letter::{DeadLetter, LetterState};
use crate::delivery::endpoint::Origin;
use crate::delivery::ids::DeadLetterId;
use crate::delivery::reason::DeadLetterReason;

/// What filters and counts ask for of a letter. Texts that are absent are empty: none of them may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexRow<'a> {
    /// The place in its block.
    slot: u8,
    /// See [`DeadLetter::id`].
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// As it is now.
    pub state: LetterState,
    /// See [`DeadLetter::reason`].
    pub reason: DeadLetterReason,
    /// See [`DeadLetter::status`].
    pub status: Option<u16>,
    /// Milliseconds since 1970.
    pub dead_at: i64,
    /// See [`DeadLetter::campaign_id`].
    #[serde(borrow)]
    pub campaign: Cow<'a, str>,
    /// See [`DeadLetter::webhook_id`].
    #[serde(borrow)]
    pub webhook: Cow<'a, str>,
    /// A label may be as long as an event.
    label: Option<u64>,
    /// Of the event's phone number. None when it was erased.
    phone: Option<u64>,
    event: Option<u64>,
    delivery: Option<u64>,
    /// Scheme, host and port of the latest attempt.
    #[serde(borrow)]
    pub endpoint: Cow<'a, str>,
}

impl IndexRow<'_> {
    /// The row of a letter at `offset`.
    pub(super) fn from_letter(letter: &DeadLetter, offset: u64) -> IndexRow<'static> {
        let owned = |text: Option<&str>| Cow::Owned(text.unwrap_or_default().to_owned());
        IndexRow {
            slot: slot_of(offset),
            id: Cow::Owned(letter.id.as_str().to_owned()),
            state: LetterState::Pending,
            reason: letter.reason,
            status: letter.status,
            dead_at: letter.dead_at.timestamp_millis(),
            campaign: owned(letter.campaign_id.as_deref()),
            webhook: owned(letter.webhook_id.as_ref().map(|id| id.as_str())),
            label: letter.label.as_deref().map(fingerprint),
            phone: letter.event.as_ref().map(|event| fingerprint(&event.phone_number)),
            event: letter.event_id.as_ref().map(|id| fingerprint(id.as_str())),
            delivery: letter.delivery_id.as_ref().map(|id| fingerprint(id.as_str())),
            endpoint: Cow::Owned(letter.url.as_deref().map(endpoint_of).unwrap_or_default()),
        }
    }

    /// The letter's id.
    pub fn letter_id(&self) -> DeadLetterId {
        DeadLetterId::new(self.id.as_ref())
    }

    /// The letter is not found by the person's phone number any more. Returns its fingerprint.
    pub(super) fn erase_person(&mut self) -> Option<u64> {
        self.phone.take()
    }

    fn into_owned(self) -> IndexRow<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        IndexRow {
            slot: self.slot,
            id: owned(self.id),
            state: self.state,
            reason: self.reason,
            status: self.status,
            dead_at: self.dead_at,
            campaign: owned(self.campaign),
            webhook: owned(self.webhook),
            label: self.label,
            phone: self.phone,
            event: self.event,
            delivery: self.delivery,
            endpoint: owned(self.endpoint),
        }
    }
}

/// Scheme, host and port of a URL: `https://example.com:443`.
pub fn endpoint_of(url: &str) -> String {
    url::Url::parse(url).map(|url| Origin::of_url(&url).to_string()).unwrap_or_default()
}

/// A number that stands for a text, the same in every version.
pub(super) fn fingerprint(text: &str) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&Sha256::digest(text.as_bytes())[..8]);
    u64::from_be_bytes(bytes)
}

/// The rows of a block, by their slots.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Block<'a> {
    #[serde(borrow)]
    rows: Vec<IndexRow<'a>>,
    #[serde(skip)]
    archived: Option<Archived>,
}

/// What does not change any more.
#[derive(Debug, Clone, PartialEq)]
struct Archived {
    place: SegmentLocation,
    /// What can change of each row, as it was written.
    written: Vec<Changeable>,
}

/// What can change of a row: the state, and the phone number's fingerprint.
type Changeable = (LetterState, Option<u64>);

fn changeable(row: &IndexRow<'_>) -> Changeable {
    (row.state, row.phone)
}

/// What has changed of a row since its block was archived.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Change {
    slot: u8,
    state: LetterState,
    person: Person,
}

/// Whether a row still has what it had of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Person {
    Unchanged,
    Erased,
}

impl<'a> Block<'a> {
    /// Reads the rows out of what `decompress` makes of an entry.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(bytes)
    }

    /// The rows as they are kept: to a third of it shrinks what they have in common.
    pub(super) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(self).map(|bytes| compress(&bytes))
    }

    /// The same block, whose rows were written to this place and have changed so since.
    pub(super) fn archived(mut self, place: SegmentLocation, changes: &[Change]) -> Self {
        let written = self.rows.iter().map(changeable).collect();
        self.archived = Some(Archived { place, written });
        for change in changes {
            if let Some(row) = self.rows.iter_mut().find(|row| row.slot == change.slot) {
                row.state = change.state;
                if change.person == Person::Erased {
                    row.erase_person();
                }
            }
        }
        self
    }

    /// Where its rows are archived.
    pub(super) fn place(&self) -> Option<&SegmentLocation> {
        self.archived.as_ref().map(|archived| &archived.place)
    }

    /// What has changed since they were.
    pub(super) fn changes(&self) -> Vec<Change> {
        let written = self.archived.iter().flat_map(|archived| &archived.written);
        let changed = self.rows.iter().zip(written).filter(|(row, written)| changeable(row) != **written);
        let change = |(row, (_, phone)): (&IndexRow<'_>, &Changeable)| Change {
            slot: row.slot,
            state: row.state,
            person: if row.phone == *phone { Person::Unchanged } else { Person::Erased },
        };
        changed.map(change).collect()
    }

    pub(super) fn into_owned(self) -> Block<'static> {
        Block { rows: self.rows.into_iter().map(IndexRow::into_owned).collect(), archived: self.archived }
    }

    /// The rows with their offsets, where this is block `number`.
    pub(super) fn rows(&self, number: u64) -> impl DoubleEndedIterator<Item = (u64, &IndexRow<'a>)> {
        self.rows.iter().map(move |row| (first_of(number) + u64::from(row.slot), row))
    }

    pub(super) fn row_mut(&mut self, offset: u64) -> Option<&mut IndexRow<'a>> {
        let slot = slot_of(offset);
        self.rows.iter_mut().find(|row| row.slot == slot)
    }

    /// Adds a row behind all others.
    pub(super) fn push(&mut self, row: IndexRow<'a>) {
        self.archived = None;
        self.rows.push(row);
    }
}

/// A set of fingerprints: one that it does not have was not put in.
#[derive(Debug, Clone, Copy, Default)]
struct Bloom([u64; 4]);

impl Bloom {
    fn insert(&mut self, fingerprint: u64) {
        let (word, bit) = Self::place(fingerprint);
        self.0[word] |= bit;
    }

    fn may_have(&self, fingerprint: u64) -> bool {
        let (word, bit) = Self::place(fingerprint);
        self.0[word] & bit != 0
    }

    fn place(fingerprint: u64) -> (usize, u64) {
        ((fingerprint >> 6) as usize % 4, 1 << (fingerprint % 64))
    }
}

/// Sixteen bits of the fingerprints of what nearly every letter has another of: phone numbers, events, deliveries. Such
/// texts fill a [`Bloom`] of this size. Here a block that lacks a text is read in vain once in a thousand times.
#[derive(Debug, Clone, Default)]
struct ShortFingerprints(Box<[u16]>);

impl ShortFingerprints {
    const FIELDS: usize = 3;

    fn from_rows(rows: &[IndexRow<'_>]) -> Self {
        let fields: [fn(&IndexRow<'_>) -> Option<u64>; Self::FIELDS] =
            [|row| row.phone, |row| row.event, |row| row.delivery];
        // Zero where there is none: the fields keep their places.
        let of_field =
            |field: fn(&IndexRow<'_>) -> Option<u64>| rows.iter().map(move |row| field(row).map_or(0, short));
        Self(fields.into_iter().flat_map(of_field).collect())
    }

    fn may_have(&self, field: usize, fingerprint: Option<u64>) -> bool {
        let Some(fingerprint) = fingerprint else { return true };
        let length = self.0.len() / Self::FIELDS;
        let of_field = self.0.get(field * length..(field + 1) * length);
        of_field.is_some_and(|of_field| of_field.contains(&short(fingerprint)))
    }

    fn may_have_phone(&self, phone: Option<u64>) -> bool {
        self.may_have(0, phone)
    }

    fn may_have_event(&self, event: Option<u64>) -> bool {
        self.may_have(1, event)
    }

    fn may_have_delivery(&self, delivery: Option<u64>) -> bool {
        self.may_have(2, delivery)
    }
}

fn short(fingerprint: u64) -> u16 {
    (fingerprint >> 48) as u16
}

/// What a block holds, summed up.
#[derive(Debug, Clone, Default)]
pub(super) struct Zone {
    oldest: i64,
    newest: i64,
    /// Letters in each state, by [`LetterState`]'s number.
    pub(super) states: [u8; 4],
    /// A bit for each [`DeadLetterReason`].
    reasons: u16,
    campaigns: Bloom,
    webhooks: Bloom,
    labels: Bloom,
    statuses: Bloom,
    endpoints: Bloom,
    identities: ShortFingerprints,
}

impl Zone {
    pub(super) fn of_block(block: &Block<'_>) -> Self {
        let identities = ShortFingerprints::from_rows(&block.rows);
        let mut zone = Self { oldest: i64::MAX, newest: i64::MIN, identities, ..Self::default() };
        for row in &block.rows {
            zone.oldest = zone.oldest.min(row.dead_at);
            zone.newest = zone.newest.max(row.dead_at);
            zone.states[row.state as usize] += 1;
            zone.reasons |= 1 << row.reason as u16;
            zone.campaigns.insert(fingerprint(&row.campaign));
            zone.webhooks.insert(fingerprint(&row.webhook));
            zone.endpoints.insert(fingerprint(&row.endpoint));
            row.label.into_iter().for_each(|label| zone.labels.insert(label));
            row.status.into_iter().for_each(|status| zone.statuses.insert(u64::from(status)));
        }
        zone
    }

    /// Whether all its letters were given up before this time.
    pub(super) fn is_before(&self, milliseconds: i64) -> bool {
        self.newest < milliseconds
    }

    /// Whether a letter that is wanted may be there.
    pub(super) fn may_have(&self, wanted: &CompiledFilter) -> bool {
        wanted.state.is_none_or(|state| self.states[state as usize] > 0)
            && wanted.reason.is_none_or(|reason| self.reasons & 1 << reason as u16 != 0)
            && self.newest >= wanted.since
            && self.oldest < wanted.until
            && wanted.campaign.as_ref().is_none_or(|(_, campaign)| self.campaigns.may_have(*campaign))
            && wanted.webhook.as_ref().is_none_or(|(_, webhook)| self.webhooks.may_have(*webhook))
            && wanted.label.is_none_or(|label| self.labels.may_have(label))
            && wanted.status.is_none_or(|status| self.statuses.may_have(u64::from(status)))
            && wanted.endpoint.as_ref().is_none_or(|(_, endpoint)| self.endpoints.may_have(*endpoint))
            && self.identities.may_have_phone(wanted.phone)
            && self.identities.may_have_event(wanted.event)
            && self.identities.may_have_delivery(wanted.delivery)
            && wanted.mention.as_ref().is_none_or(|mention| {
                self.webhooks.may_have(mention.no_webhook) || self.identities.may_have_phone(Some(mention.phone))
            })
    }
}

/// Letters that may be about a person: those of the phone number, and those whose body may contain it.
struct Mention {
    phone: u64,
    /// A letter with a body was no delivery, and has no webhook.
    no_webhook: u64,
}

/// A filter, made ready to be compared with rows and zones.
pub(super) struct CompiledFilter {
    state: Option<LetterState>,
    reason: Option<DeadLetterReason>,
    status: Option<u16>,
    since: i64,
    until: i64,
    campaign: Option<(String, u64)>,
    webhook: Option<(String, u64)>,
    label: Option<u64>,
    phone: Option<u64>,
    event: Option<u64>,
    delivery: Option<u64>,
    endpoint: Option<(String, u64)>,
    mention: Option<Mention>,
}

impl From<&LetterFilter> for CompiledFilter {
    fn from(filter: &LetterFilter) -> Self {
        let with_fingerprint = |text: &str| (text.to_owned(), fingerprint(text));
        Self {
            state: filter.state,
            reason: filter.reason,
            status: filter.status,
            since: filter.since.map_or(i64::MIN, |since| since.timestamp_millis()),
            until: filter.until.map_or(i64::MAX, |until| until.timestamp_millis()),
            campaign: filter.campaign_id.as_deref().map(with_fingerprint),
            webhook: filter.webhook_id.as_ref().map(|id| with_fingerprint(id.as_str())),
            label: filter.label.as_deref().map(fingerprint),
            phone: filter.phone_number.as_deref().map(fingerprint),
            event: filter.event_id.as_ref().map(|id| fingerprint(id.as_str())),
            delivery: filter.delivery_id.as_ref().map(|id| fingerprint(id.as_str())),
            endpoint: filter.endpoint.as_ref().map(|endpoint| with_fingerprint(endpoint.as_str())),
            mention: None,
        }
    }
}

impl CompiledFilter {
    /// Every letter that may be about the person with this phone number.
    pub(super) fn mentions(phone_number: &str) -> Self {
        let mention = Mention { phone: fingerprint(phone_number), no_webhook: fingerprint("") };
        Self { mention: Some(mention), ..Self::from(&LetterFilter::default()) }
    }

    pub(super) fn has(&self, row: &IndexRow<'_>) -> bool {
        self.state.is_none_or(|state| row.state == state)
            && self.reason.is_none_or(|reason| row.reason == reason)
            && self.status.is_none_or(|status| row.status == Some(status))
            && (self.since..self.until).contains(&row.dead_at)
            && self.campaign.as_ref().is_none_or(|(campaign, _)| row.campaign == campaign.as_str())
            && self.webhook.as_ref().is_none_or(|(webhook, _)| row.webhook == webhook.as_str())
            && self.label.is_none_or(|label| row.label == Some(label))
            && self.phone.is_none_or(|phone| row.phone == Some(phone))
            && self.event.is_none_or(|event| row.event == Some(event))
            && self.delivery.is_none_or(|delivery| row.delivery == Some(delivery))
            && self.endpoint.as_ref().is_none_or(|(endpoint, _)| row.endpoint == endpoint.as_str())
            && self.mention.as_ref().is_none_or(|mention| row.webhook.is_empty() || row.phone == Some(mention.phone))
    }
}
