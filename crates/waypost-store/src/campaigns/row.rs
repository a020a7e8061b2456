//! The rows of campaigns in sled: JSON, compressed with LZ4 and a dictionary.
//!
//! Campaigns have the same field names, so a row of a typical campaign is a fifth of its JSON. sled writes less, and
//! more rows fit into its cache.

use serde::Deserialize;

use super::change::ChangeAuthor;
use super::stored_campaign::{PastChange, StoredCampaign};
use crate::StoreError;

/// A typical row. LZ4 refers to it for what a row has in common with it. Rows can be read only with the dictionary that
/// they were written with: another one needs another [`FORMAT_VERSION`](crate::FORMAT_VERSION).
const DICTIONARY: &[u8] = include_bytes!("dictionary.json");

/// The bytes of the length before the compressed JSON.
const LENGTH_BYTES: usize = size_of::<u32>();

/// LZ4 makes of a byte at most this many. A damaged length must not allocate memory.
const MAX_RATIO: usize = 256;

/// A row without its campaign.
#[derive(Deserialize)]
pub(super) struct RowHead {
    pub(super) version: u64,
    #[serde(rename = "made", default)]
    pub(super) author: Option<ChangeAuthor>,
    #[serde(rename = "earlier", default)]
    pub(super) past_changes: Vec<PastChange>,
}

pub(super) fn encode(stored: &StoredCampaign) -> Result<Vec<u8>, StoreError> {
    let json = serde_json::to_vec(stored)?;
    let length = u32::try_from(json.len()).map_err(|_| StoreError::Damaged("a campaign of 4 GiB".to_owned()))?;
    let mut row = length.to_le_bytes().to_vec();
    row.extend(lz4_flex::block::compress_with_dict(&json, DICTIONARY));
    Ok(row)
}

pub(super) fn decode(row: &[u8]) -> Result<StoredCampaign, StoreError> {
    Ok(serde_json::from_slice(&decompress(row)?)?)
}

pub(super) fn decode_head(row: &[u8]) -> Result<RowHead, StoreError> {
    Ok(serde_json::from_slice(&decompress(row)?)?)
}

/// The length of the JSON in a row that was read.
pub(super) fn json_bytes(row: &[u8]) -> usize {
    row.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize)
}

fn decompress(row: &[u8]) -> Result<Vec<u8>, StoreError> {
    let damaged = |error: String| StoreError::Damaged(format!("a campaign can't be decompressed: {error}"));
    let (length, compressed) =
        row.split_first_chunk::<LENGTH_BYTES>().ok_or_else(|| damaged("it has no length".to_owned()))?;
    let length = u32::from_le_bytes(*length) as usize;
    if length / MAX_RATIO > compressed.len() {
        return Err(damaged(format!("{} bytes can't be {length}", compressed.len())));
    }
    lz4_flex::block::decompress_with_dict(compressed, length, DICTIONARY).map_err(|error| damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use waypost_core::document;
    use waypost_core::egress::HttpUrls;

    use super::*;

    fn stored(webhooks: usize) -> StoredCampaign {
        let entries: Vec<String> = (0..webhooks)
            .map(|number| {
                format!(
                    r#"{{"keyword":{number},"option":"Offers","redirect":{{"type":"campaign","to":"c{number}"}},
                    "webhook":{{"id":"wh_{number}","url":"https://example.com/hooks/{number}","headers":{{"X-Api-Key":"k{number}"}}}}}}"#
                )
            })
            .collect();
        let document =
            format!(r#"{{"id":"13010","name":"é","sections":[{{"label":"l","menu":[{}]}}]}}"#, entries.join(","));
        let campaign = document::read(document.as_bytes(), HttpUrls::Refused, None).expect("a document");
        let author = ChangeAuthor { by: "editor".to_owned(), at: chrono::Utc::now(), nodes: Vec::new() };
        let past_changes = vec![PastChange { version: 6, author: author.clone() }];
        StoredCampaign { version: 7, author: Some(author), past_changes, campaign }
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        for webhooks in [0, 1, 4, 200] {
            let stored = stored(webhooks);
            let row = encode(&stored).expect("a row");
            assert_eq!(decode(&row).expect("a campaign"), stored);
            let RowHead { version, author, past_changes } = decode_head(&row).expect("a head");
            assert_eq!((version, author, past_changes), (stored.version, stored.author, stored.past_changes));
        }
    }

    #[test]
    fn a_row_of_a_small_campaign_is_much_smaller_than_its_json() {
        let stored = stored(4);
        let (row, json) = (encode(&stored).expect("a row"), serde_json::to_vec(&stored).expect("JSON"));
        assert!(row.len() * 2 < json.len(), "{} of {} bytes", row.len(), json.len());
    }

    #[test]
    fn damage_is_an_error() {
        let row = encode(&stored(1)).expect("a row");
        let too_long = [&u32::MAX.to_le_bytes()[..], &row[LENGTH_BYTES..]].concat();
        for damaged in [&b""[..], &row[..3], &row[..row.len() / 2], &row[LENGTH_BYTES..], &too_long, b"{\"version\":7}"]
        {
            assert!(matches!(decode(damaged), Err(StoreError::Damaged(_))), "{damaged:?}");
        }
    }
}
