//! The index of the dead letters: one row per letter, with the fields of filters.
//!
//! sled keeps about sixteen entries a page, whatever their size, and some memory for each page. One index tree per
//! field would need ten entries per letter. So the rows of 64 neighbouring offsets are one entry, a *block*. A *zone*
//! in memory summarizes each block. A search reads only the blocks whose zone may match the filter.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::dead_letter::{DeadLetter, LetterState};
use waypost_core::endpoint::Origin;
use waypost_core::ids::DeadLetterId;
use waypost_core::reason::DeadLetterReason;

use super::location::{SegmentLocation, first_offset_of, slot_of};
use super::segment_codec::compress;

/// The fields of a letter that filters and counts use. An absent text is empty: the texts of a letter are never empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexRow<'a> {
    /// The index in its block, from 0 to 63.
    slot: u8,
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// The current state.
    pub state: LetterState,
    pub reason: DeadLetterReason,
    pub status: Option<u16>,
    /// Milliseconds since 1970.
    pub dead_at: i64,
    #[serde(borrow)]
    pub campaign: Cow<'a, str>,
    #[serde(borrow)]
    pub webhook: Cow<'a, str>,
    /// A fingerprint: a label may be as long as an event.
    label: Option<u64>,
    /// The fingerprint of the event's phone number. `None` once it was erased.
    phone: Option<u64>,
    /// The fingerprint of the event id.
    event: Option<u64>,
    /// The fingerprint of the delivery id.
    delivery: Option<u64>,
    /// Scheme, host and port of the last attempt's URL.
    #[serde(borrow)]
    pub endpoint: Cow<'a, str>,
}

impl IndexRow<'_> {
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

    pub fn letter_id(&self) -> DeadLetterId {
        DeadLetterId::new(self.id.as_ref())
    }

    /// Removes the phone number from the index. Returns its fingerprint.
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

/// Scheme, host and port of a URL: `https://example.com:443`. Empty for an invalid URL.
pub fn endpoint_of(url: &str) -> String {
    url::Url::parse(url).map(|url| Origin::from_url(&url).to_string()).unwrap_or_default()
}

/// The first eight bytes of the SHA-256. Stored, so it must be the same in every version.
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
    archived: Option<ArchivedRows>,
}

/// The rows of a block as they were archived.
#[derive(Debug, Clone, PartialEq)]
struct ArchivedRows {
    location: SegmentLocation,
    /// The mutable fields of each row.
    fields: Vec<MutableFields>,
}

/// The fields of a row that can change: the state and the phone number's fingerprint.
type MutableFields = (LetterState, Option<u64>);

fn mutable_fields(row: &IndexRow<'_>) -> MutableFields {
    (row.state, row.phone)
}

/// The change of a row since its block was archived.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RowChange {
    slot: u8,
    state: LetterState,
    phone: PhoneChange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum PhoneChange {
    Unchanged,
    Erased,
}

impl<'a> Block<'a> {
    /// Decodes decompressed rows.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(bytes)
    }

    /// Encodes and compresses the rows, to about a third.
    pub(super) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(self).map(|bytes| compress(&bytes))
    }

    /// Marks the rows as archived at `location`, and applies the changes since.
    pub(super) fn archived_at(mut self, location: SegmentLocation, changes: &[RowChange]) -> Self {
        let fields = self.rows.iter().map(mutable_fields).collect();
        self.archived = Some(ArchivedRows { location, fields });
        for change in changes {
            if let Some(row) = self.rows.iter_mut().find(|row| row.slot == change.slot) {
                row.state = change.state;
                if change.phone == PhoneChange::Erased {
                    row.erase_person();
                }
            }
        }
        self
    }

    /// Where the rows are archived. `None` if they are not.
    pub(super) fn location(&self) -> Option<&SegmentLocation> {
        self.archived.as_ref().map(|archived| &archived.location)
    }

    /// The changes since the rows were archived.
    pub(super) fn changes(&self) -> Vec<RowChange> {
        let fields = self.archived.iter().flat_map(|archived| &archived.fields);
        let changed = self.rows.iter().zip(fields).filter(|(row, fields)| mutable_fields(row) != **fields);
        let change = |(row, (_, phone)): (&IndexRow<'_>, &MutableFields)| RowChange {
            slot: row.slot,
            state: row.state,
            phone: if row.phone == *phone { PhoneChange::Unchanged } else { PhoneChange::Erased },
        };
        changed.map(change).collect()
    }

    pub(super) fn into_owned(self) -> Block<'static> {
        Block { rows: self.rows.into_iter().map(IndexRow::into_owned).collect(), archived: self.archived }
    }

    /// The rows with their offsets. `number` is the number of this block.
    pub(super) fn rows(&self, number: u64) -> impl DoubleEndedIterator<Item = (u64, &IndexRow<'a>)> {
        self.rows.iter().map(move |row| (first_offset_of(number) + u64::from(row.slot), row))
    }

    pub(super) fn row_mut(&mut self, offset: u64) -> Option<&mut IndexRow<'a>> {
        let slot = slot_of(offset);
        self.rows.iter_mut().find(|row| row.slot == slot)
    }

    /// Adds a row after all others. The block is no longer archived.
    pub(super) fn push(&mut self, row: IndexRow<'a>) {
        self.archived = None;
        self.rows.push(row);
    }
}

/// A Bloom filter of fingerprints with 256 bits and one hash function.
#[derive(Debug, Clone, Copy, Default)]
struct BloomFilter([u64; 4]);

impl BloomFilter {
    fn insert(&mut self, fingerprint: u64) {
        let (word, bit) = Self::position(fingerprint);
        self.0[word] |= bit;
    }

    fn may_contain(&self, fingerprint: u64) -> bool {
        let (word, bit) = Self::position(fingerprint);
        self.0[word] & bit != 0
    }

    fn position(fingerprint: u64) -> (usize, u64) {
        ((fingerprint >> 6) as usize % 4, 1 << (fingerprint % 64))
    }
}

/// 16 bits of each fingerprint of phone numbers, events and deliveries. These differ between letters, so 64 of them
/// would fill a [`BloomFilter`]. Here, a block without the text is read needlessly in one of a thousand cases.
#[derive(Debug, Clone, Default)]
struct ShortFingerprints(Box<[u16]>);

impl ShortFingerprints {
    const FIELDS: usize = 3;

    fn from_rows(rows: &[IndexRow<'_>]) -> Self {
        let fields: [fn(&IndexRow<'_>) -> Option<u64>; Self::FIELDS] =
            [|row| row.phone, |row| row.event, |row| row.delivery];
        // 0 stands for `None`, so that each field has one value per row.
        let values = |field: fn(&IndexRow<'_>) -> Option<u64>| rows.iter().map(move |row| field(row).map_or(0, short));
        Self(fields.into_iter().flat_map(values).collect())
    }

    /// `true` if `fingerprint` is `None`.
    fn may_contain(&self, field: usize, fingerprint: Option<u64>) -> bool {
        let Some(fingerprint) = fingerprint else { return true };
        let rows = self.0.len() / Self::FIELDS;
        let values = self.0.get(field * rows..(field + 1) * rows);
        values.is_some_and(|values| values.contains(&short(fingerprint)))
    }

    fn may_contain_phone(&self, phone: Option<u64>) -> bool {
        self.may_contain(0, phone)
    }

    fn may_contain_event(&self, event: Option<u64>) -> bool {
        self.may_contain(1, event)
    }

    fn may_contain_delivery(&self, delivery: Option<u64>) -> bool {
        self.may_contain(2, delivery)
    }
}

fn short(fingerprint: u64) -> u16 {
    (fingerprint >> 48) as u16
}

/// The summary of a block, in memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Zone {
    /// Milliseconds since 1970, like `newest`.
    oldest: i64,
    newest: i64,
    /// The number of letters in each state, indexed by [`LetterState`].
    pub(super) states: [u8; 4],
    /// A bit for each [`DeadLetterReason`].
    reasons: u16,
    campaigns: BloomFilter,
    webhooks: BloomFilter,
    labels: BloomFilter,
    statuses: BloomFilter,
    endpoints: BloomFilter,
    /// Phone numbers, events and deliveries.
    identities: ShortFingerprints,
}

impl Zone {
    pub(super) fn from_block(block: &Block<'_>) -> Self {
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

    /// Whether all letters became dead letters before this time, in milliseconds since 1970.
    pub(super) fn is_before(&self, milliseconds: i64) -> bool {
        self.newest < milliseconds
    }

    /// Whether a letter of the block may match the filter.
    pub(super) fn may_match(&self, filter: &CompiledFilter) -> bool {
        filter.state.is_none_or(|state| self.states[state as usize] > 0)
            && filter.reason.is_none_or(|reason| self.reasons & 1 << reason as u16 != 0)
            && self.newest >= filter.since
            && self.oldest < filter.until
            && filter.campaign.as_ref().is_none_or(|(_, campaign)| self.campaigns.may_contain(*campaign))
            && filter.webhook.as_ref().is_none_or(|(_, webhook)| self.webhooks.may_contain(*webhook))
            && filter.label.is_none_or(|label| self.labels.may_contain(label))
            && filter.status.is_none_or(|status| self.statuses.may_contain(u64::from(status)))
            && filter.endpoint.as_ref().is_none_or(|(_, endpoint)| self.endpoints.may_contain(*endpoint))
            && self.identities.may_contain_phone(filter.phone)
            && self.identities.may_contain_event(filter.event)
            && self.identities.may_contain_delivery(filter.delivery)
            && filter.mention.as_ref().is_none_or(|mention| {
                self.webhooks.may_contain(mention.no_webhook) || self.identities.may_contain_phone(Some(mention.phone))
            })
    }
}

/// Letters that may be about a person: letters of the phone number, and letters whose body may contain the number.
struct Mention {
    phone: u64,
    /// The fingerprint of an empty webhook id. Only letters without a webhook have a body.
    no_webhook: u64,
}

/// A filter with fingerprints, to be compared with rows and zones.
pub(super) struct CompiledFilter {
    state: Option<LetterState>,
    reason: Option<DeadLetterReason>,
    status: Option<u16>,
    /// Milliseconds since 1970, inclusive.
    since: i64,
    /// Milliseconds since 1970, exclusive.
    until: i64,
    /// The text and its fingerprint, as for the webhook and the endpoint.
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
    /// Matches every letter that may be about the person with this phone number.
    pub(super) fn mentioning(phone_number: &str) -> Self {
        let mention = Mention { phone: fingerprint(phone_number), no_webhook: fingerprint("") };
        Self { mention: Some(mention), ..Self::from(&LetterFilter::default()) }
    }

    pub(super) fn matches(&self, row: &IndexRow<'_>) -> bool {
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
