//! Secrets at rest: the values of headers and signing secrets are sealed (XChaCha20-Poly1305) in the campaigns log and in every
//! node's view of it. What is kept of deliveries and dead letters has none of them, see [`Target::mask`].
//!
//! A sealed value is `sealed:v1:KEY:` and the base64 of nonce and ciphertext; `KEY` tells which key opens it. It is bound to its
//! campaign: put into another one it does not open.
//!
//! [`Target::mask`]: super::campaign::Target::mask

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::campaign::{Campaign, Webhook};

const PREFIX: &str = "sealed:v1:";

const NONCE_BYTES: usize = 24;

/// Hexadecimal digits of the hash of a key.
const KEY_ID_CHARS: usize = 8;

/// Random bytes for one campaign: with the number of the value they are its nonce.
pub const SALT_BYTES: usize = NONCE_BYTES - 4;

/// The keys that open secrets; the first seals them as well. Without any, secrets are as they are.
#[derive(Clone, Default)]
pub struct Keyring {
    keys: Arc<[Key]>,
    missing: MissingKeyPolicy,
}

/// What becomes of a secret that no key opens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum MissingKeyPolicy {
    /// Nothing goes on without it.
    #[default]
    Refused,
    /// Its key is lost for good: its webhook is disabled, until somebody gives it the secret anew.
    Lost,
}

/// In the place of a key that is lost.
const LOST: &str = "lost";

struct Key {
    /// The first [`KEY_ID_CHARS`] hexadecimal digits of a hash of the key.
    id: String,
    cipher: XChaCha20Poly1305,
}

/// A value does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecryptError {
    /// Its key is not on the ring.
    #[error(
        "sealed with the key {key}, which WAYPOST_SECRET_KEY does not have ({}): list that key there, after the one that \
         is to seal from now on, or the word lost where it is", known_keys(.known)
    )]
    UnknownKey {
        /// The key's id.
        key: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// It begins as a sealed value does, and is none.
    #[error("begins as a sealed value does, and is none: put the campaign again with the value itself")]
    Malformed,
    /// It was changed, or belongs to another campaign.
    #[error(
        "sealed with the key {key}, and damaged since: list the word lost after the keys of WAYPOST_SECRET_KEY, and give \
         the webhook its secret anew"
    )]
    Damaged {
        /// The key's id.
        key: String,
    },
}

fn known_keys(known: &[String]) -> String {
    if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) }
}

impl Keyring {
    /// Reads `WAYPOST_SECRET_KEY`: keys of 32 bytes as base64, separated by commas, and `lost` in the place of one that is. The
    /// first seals.
    ///
    /// # Errors
    /// A sentence that does not repeat a key.
    pub fn read(text: &str) -> Result<Self, String> {
        let parts = || text.split(',').map(str::trim).filter(|key| !key.is_empty());
        let missing = if parts().any(|part| part == LOST) { MissingKeyPolicy::Lost } else { MissingKeyPolicy::Refused };
        let keys = parts().filter(|part| *part != LOST).enumerate().map(|(i, key)| {
            let bytes = STANDARD.decode(key).ok().filter(|bytes| bytes.len() == 32);
            let wrong = || format!("key {} is not the base64 of 32 bytes: `openssl rand -base64 32` makes one", i + 1);
            let bytes = bytes.ok_or_else(wrong)?;
            let cipher = XChaCha20Poly1305::new_from_slice(&bytes).map_err(|_| wrong())?;
            let hash = Sha256::new().chain_update(b"waypost key id").chain_update(&bytes).finalize();
            Ok(Key { id: hash[..KEY_ID_CHARS / 2].iter().map(|byte| format!("{byte:02x}")).collect(), cipher })
        });
        Ok(Self { keys: keys.collect::<Result<Vec<Key>, String>>()?.into(), missing })
    }

    /// The ids of the keys, the one that seals first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.id.as_str())
    }

    /// The campaign with all its secrets sealed by the first key; as it is where there is none. `salt` is random, and never
    /// used again.
    pub fn sealed(&self, campaign: &Campaign, salt: [u8; SALT_BYTES]) -> Campaign {
        let mut campaign = campaign.clone();
        let Some(key) = self.keys.first() else { return campaign };
        let (id, mut number) = (campaign.id.clone(), 0_u32);
        campaign.webhooks_mut().for_each(|webhook| {
            for_each_secret(webhook, &mut |secret: &mut String| {
                let mut nonce = [0; NONCE_BYTES];
                nonce[..SALT_BYTES].copy_from_slice(&salt);
                nonce[SALT_BYTES..].copy_from_slice(&number.to_be_bytes());
                number += 1;
                let payload = Payload { msg: secret.as_bytes(), aad: id.as_bytes() };
                // Only more than 256 GB can't be sealed.
                if let Ok(ciphertext) = key.cipher.encrypt(XNonce::from_slice(&nonce), payload) {
                    *secret = format!("{PREFIX}{}:{}", key.id, STANDARD.encode([&nonce[..], &ciphertext].concat()));
                }
            });
        });
        campaign
    }

    /// The campaign with all its secrets as they are. What is not sealed stays as it is. Where a key is said to be lost, a webhook
    /// with a secret that does not open is disabled.
    ///
    /// # Errors
    /// The first that does not open, and the id of its webhook.
    pub fn opened(&self, mut campaign: Campaign) -> Result<Campaign, (String, DecryptError)> {
        let id = campaign.id.clone();
        let mut unopened = None;
        campaign.webhooks_mut().for_each(|webhook| {
            let webhook_id = webhook.id.to_string();
            let mut is_lost = false;
            for_each_secret(webhook, &mut |secret: &mut String| match self.open(secret, &id) {
                Some(Ok(open)) => *secret = open,
                Some(Err(_)) if self.missing == MissingKeyPolicy::Lost => is_lost = true,
                Some(Err(error)) => {
                    unopened.get_or_insert((webhook_id.clone(), error));
                }
                None => {}
            });
            if is_lost {
                let webhook = Arc::make_mut(webhook);
                webhook.mask();
                webhook.enabled = false;
            }
        });
        unopened.map_or(Ok(campaign), Err)
    }

    /// The value itself; none where it is not sealed.
    fn open(&self, value: &str, campaign: &str) -> Option<Result<String, DecryptError>> {
        if !value.starts_with(PREFIX) {
            return None;
        }
        let Some((id, sealed)) = parts(value) else { return Some(Err(DecryptError::Malformed)) };
        let Some(key) = self.keys.iter().find(|key| key.id == id) else {
            let known = self.ids().map(str::to_owned).collect();
            return Some(Err(DecryptError::UnknownKey { key: id.to_owned(), known }));
        };
        let open = || {
            let sealed = STANDARD.decode(sealed).ok()?;
            let (nonce, ciphertext) = sealed.split_at_checked(NONCE_BYTES)?;
            let payload = Payload { msg: ciphertext, aad: campaign.as_bytes() };
            String::from_utf8(key.cipher.decrypt(XNonce::from_slice(nonce), payload).ok()?).ok()
        };
        Some(open().ok_or_else(|| DecryptError::Damaged { key: id.to_owned() }))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

/// Whether a value looks sealed: a document may have such ones, as they are found in a file of kept campaigns.
pub fn is_sealed(value: &str) -> bool {
    parts(value).is_some()
}

/// The id of the key and what it has sealed. Both are looked at, for what is sealed is let pass where others are checked.
fn parts(value: &str) -> Option<(&str, &str)> {
    let (id, sealed) = value.strip_prefix(PREFIX)?.split_once(':')?;
    let is_id = id.len() == KEY_ID_CHARS && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_base64 = sealed.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
    (is_id && is_base64).then_some((id, sealed))
}

fn for_each_secret(webhook: &mut Arc<Webhook>, change: &mut dyn FnMut(&mut String)) {
    if webhook.headers.is_empty() && webhook.secret.is_none() && webhook.previous_secrets.is_empty() {
        return;
    }
    let webhook = Arc::make_mut(webhook);
    for value in webhook.headers.values_mut() {
        if let Value::String(value) = value {
            change(value);
        }
    }
    webhook.secret.as_mut().into_iter().for_each(&mut *change);
    webhook.previous_secrets.iter_mut().for_each(|previous| change(&mut previous.secret));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::delivery::document;
    use crate::delivery::egress::HttpUrls;

    fn key(byte: u8) -> String {
        STANDARD.encode([byte; 32])
    }

    fn ring(keys: &[u8]) -> Keyring {
        Keyring::read(&keys.iter().map(|byte| key(*byte)).collect::<Vec<_>>().join(", ")).expect("keys")
    }

    fn campaign(value: &str) -> Campaign {
        let document = serde_json::json!({ "id": "c", "sections": [
            { "label": "a", "webhook": { "url": "https://example.com/a", "headers": { "X-Key": value, "X-Other": value },
              "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
              "previousSecrets": [{ "secret": "whsec_AfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "until": "2030-01-01T00:00:00Z" }] } },
            { "label": "b", "webhook": { "url": "https://example.com/b" } }] });
        document::read(document.to_string().as_bytes(), HttpUrls::Refused, None).expect("a campaign")
    }

    #[test]
    fn nothing_of_a_secret_is_left() {
        let sealed = serde_json::to_string(&ring(&[1]).sealed(&campaign("hush-hush"), [7; SALT_BYTES])).expect("JSON");
        for secret in ["hush", "whsec_", "MfKQ9r8G", "AfKQ9r8G"] {
            assert!(!sealed.contains(secret), "{sealed}");
        }
        assert_eq!(sealed.matches("sealed:v1:").count(), 4);
        let values: std::collections::BTreeSet<&str> =
            sealed.split("sealed:v1:").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(values.len(), 4, "the same value twice is not the same sealed");
    }

    #[test]
    fn keys_are_replaced_by_listing_the_old_one_after_the_new() {
        let plain = campaign("hush");
        let old = ring(&[1]).sealed(&plain, [7; SALT_BYTES]);
        assert_eq!(ring(&[2, 1]).opened(old.clone()), Ok(plain.clone()));
        let (webhook, error) = ring(&[2]).opened(old.clone()).expect_err("opened by another key");
        let place = plain.places().next().expect("a webhook");
        assert_eq!(webhook, place.webhook.id.as_str());
        let [one, two] = [ring(&[1]), ring(&[2])].map(|ring| ring.ids().next().expect("an id").to_owned());
        assert_eq!(error, DecryptError::UnknownKey { key: one.clone(), known: vec![two.clone()] });
        assert!(error.to_string().contains(&one) && error.to_string().contains(&format!("it has {two}")), "{error}");
        let none = ring(&[]).opened(old).expect_err("opened by no key").1;
        assert!(none.to_string().contains("it has none"), "{none}");
    }

    #[test]
    fn where_a_key_is_lost_the_webhook_is_disabled() {
        let sealed = ring(&[1]).sealed(&campaign("hush"), [7; SALT_BYTES]);
        let keys = Keyring::read(&format!("{},lost", key(2))).expect("keys");
        assert_eq!(keys.ids().count(), 1);
        let opened = keys.opened(sealed).expect("a campaign");
        let webhooks: Vec<_> = opened.places().map(|place| place.webhook.clone()).collect();
        assert_eq!((webhooks[0].enabled, webhooks[0].headers["X-Key"].as_str()), (false, Some("********")));
        assert!(webhooks[1].enabled, "it has no secrets");
    }

    #[test]
    fn without_a_key_all_is_as_it_is() {
        let plain = campaign("hush");
        assert_eq!(ring(&[]).sealed(&plain, [7; SALT_BYTES]), plain);
        assert_eq!(ring(&[1]).opened(plain.clone()), Ok(plain));
    }

    #[test]
    fn what_was_moved_or_changed_does_not_open() {
        let mut moved = ring(&[1]).sealed(&campaign("hush"), [7; SALT_BYTES]);
        moved.id = "other".to_owned();
        assert!(matches!(ring(&[1]).opened(moved), Err((_, DecryptError::Damaged { .. }))));
    }

    /// Neither as a sealed value, for it would get past the rules of headers, nor as any other.
    #[test]
    fn what_only_begins_as_a_sealed_value_is_not_taken() {
        let id = ring(&[1]).ids().next().expect("an id").to_owned();
        for rest in ["", "hush", "hush:hush", "hush\r\nX-Evil: 1", &format!("{id}:a b"), &format!("{id}:\n")] {
            let value = format!("{PREFIX}{rest}");
            assert!(!is_sealed(&value), "{value}");
            assert_eq!(ring(&[1]).open(&value, "c"), Some(Err(DecryptError::Malformed)), "{value}");
        }
        let document = serde_json::json!({ "id": "c", "sections": [{ "label": "a", "webhook":
            { "url": "https://example.com/", "headers": { "X-Key": "sealed:v1:hush\r\nX-Evil: 1" }, "secret": "sealed:v1:" } }] });
        let faults = document::read(document.to_string().as_bytes(), HttpUrls::Refused, None).expect_err("taken");
        let paths: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["$.sections[0].webhook.headers[\"X-Key\"]", "$.sections[0].webhook.secret"]);
    }

    #[test]
    fn a_key_that_is_none_is_told_without_repeating_it() {
        for text in ["hush", &STANDARD.encode([1; 31]), &format!("{},hush", key(1))] {
            let error = Keyring::read(text).expect_err("taken");
            assert!(!error.contains("hush") && error.contains("openssl rand"), "{error}");
        }
        assert_eq!(Keyring::read(" , ").expect("no keys").ids().count(), 0);
    }

    proptest! {
        #[test]
        fn any_value_is_sealed_and_opened(value in "([!-~]([ -~\t]{0,200}[!-~])?)?", salt: [u8; SALT_BYTES]) {
            prop_assume!(value != crate::delivery::campaign::MASK && !is_sealed(&value));
            let plain = campaign(&value);
            prop_assert_eq!(ring(&[3, 4]).opened(ring(&[3]).sealed(&plain, salt)), Ok(plain));
        }

        /// What begins as a sealed value does and is none is refused, whatever it is.
        #[test]
        fn anything_else_does_not_open(rest in "\\PC{0,60}", flipped in 0_usize..200) {
            let ring = ring(&[1]);
            let id = ring.ids().next().expect("an id");
            for value in [format!("sealed:v1:{rest}"), format!("sealed:v1:{id}:{rest}")] {
                prop_assert!(matches!(ring.open(&value, "c"), Some(Err(_))));
            }
            let sealed = ring.sealed(&campaign("hush"), [7; SALT_BYTES]);
            let value = sealed.places().next().expect("a webhook").webhook.secret.clone().expect("a secret");
            let mut bytes = value.clone().into_bytes();
            let at = flipped % bytes.len();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("text");
            prop_assert!(changed == value || !matches!(ring.open(&changed, "c"), Some(Ok(_))));
        }
    }
}
