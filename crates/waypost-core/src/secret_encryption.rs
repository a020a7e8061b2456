//! Encryption of secrets at rest (XChaCha20-Poly1305): header values and signing secrets are encrypted in the campaigns
//! stream and in every worker's store. Stored deliveries and dead letters have no secrets, see [`Target::mask`].
//!
//! An encrypted value is `sealed:v1:KEY:` and the base64 of nonce and ciphertext. `KEY` is the id of the key. A value
//! is bound to its campaign and cannot be decrypted in another campaign.
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

const KEY_ID_CHARS: usize = 8;

/// The random bytes for one campaign. A nonce is these bytes and the number of the value.
pub const SALT_BYTES: usize = NONCE_BYTES - 4;

/// The keys that decrypt secrets. The first key also encrypts. Without a key, secrets are stored as plain text.
#[derive(Clone, Default)]
pub struct Keyring {
    keys: Arc<[Key]>,
    missing_key: MissingKeyPolicy,
}

/// What to do with a secret that no key decrypts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum MissingKeyPolicy {
    #[default]
    Fail,
    /// The key is lost: disable the webhook until its secret is set again.
    DisableWebhook,
}

/// Stands for a lost key in `WAYPOST_SECRET_KEY`.
const LOST_KEY: &str = "lost";

struct Key {
    /// The first [`KEY_ID_CHARS`] hexadecimal digits of a hash of the key.
    id: String,
    cipher: XChaCha20Poly1305,
}

/// A value cannot be decrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecryptError {
    #[error(
        "encrypted with the key {key}, which is not in WAYPOST_SECRET_KEY ({}): append that key. If it is lost, append \
         `lost` and set the secret again", known_keys(.known)
    )]
    UnknownKey {
        /// The key's id.
        key: String,
        /// The ids of the configured keys.
        known: Vec<String>,
    },
    #[error(
        "damaged: starts like an encrypted value, but has another format. Put the campaign again with the plain value"
    )]
    Malformed,
    /// The value was changed, or belongs to another campaign.
    #[error(
        "encrypted with the key {key}, but damaged: append `lost` to WAYPOST_SECRET_KEY, and set the secret of the \
         webhook again"
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
    /// Parses `WAYPOST_SECRET_KEY`: keys of 32 bytes as base64, separated by commas. `lost` stands for a lost key. The
    /// first key encrypts.
    ///
    /// # Errors
    /// A sentence that says what to write. The keys are not repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = || text.split(',').map(str::trim).filter(|key| !key.is_empty());
        let has_lost_key = parts().any(|part| part == LOST_KEY);
        let missing_key = if has_lost_key { MissingKeyPolicy::DisableWebhook } else { MissingKeyPolicy::Fail };
        let keys = parts().filter(|part| *part != LOST_KEY).enumerate().map(|(i, key)| {
            let bytes = STANDARD.decode(key).ok().filter(|bytes| bytes.len() == 32);
            let invalid =
                || format!("key {} is not the base64 of 32 bytes: create one with `openssl rand -base64 32`", i + 1);
            let bytes = bytes.ok_or_else(invalid)?;
            let cipher = XChaCha20Poly1305::new_from_slice(&bytes).map_err(|_| invalid())?;
            let hash = Sha256::new().chain_update(b"waypost key id").chain_update(&bytes).finalize();
            Ok(Key { id: hash[..KEY_ID_CHARS / 2].iter().map(|byte| format!("{byte:02x}")).collect(), cipher })
        });
        Ok(Self { keys: keys.collect::<Result<Vec<Key>, String>>()?.into(), missing_key })
    }

    /// The ids of the keys, starting with the encryption key.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.id.as_str())
    }

    /// Encrypts all secrets of the campaign with the first key. Without a key, the campaign is returned unchanged.
    /// `salt` must be random and never used again.
    pub fn encrypt(&self, campaign: &Campaign, salt: [u8; SALT_BYTES]) -> Campaign {
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
                // Encryption fails only for more than 256 GB.
                if let Ok(ciphertext) = key.cipher.encrypt(XNonce::from_slice(&nonce), payload) {
                    *secret = format!("{PREFIX}{}:{}", key.id, STANDARD.encode([&nonce[..], &ciphertext].concat()));
                }
            });
        });
        campaign
    }

    /// Decrypts all secrets of the campaign. Plain values stay unchanged. If a key is lost, a webhook with a secret
    /// that cannot be decrypted is disabled.
    ///
    /// # Errors
    /// The id of the first webhook with a secret that cannot be decrypted, and why.
    pub fn decrypt(&self, mut campaign: Campaign) -> Result<Campaign, (String, DecryptError)> {
        let id = campaign.id.clone();
        let mut first_error = None;
        campaign.webhooks_mut().for_each(|webhook| {
            let webhook_id = webhook.id.to_string();
            let mut is_lost = false;
            for_each_secret(webhook, &mut |secret: &mut String| match self.decrypt_value(secret, &id) {
                Some(Ok(plain)) => *secret = plain,
                Some(Err(_)) if self.missing_key == MissingKeyPolicy::DisableWebhook => is_lost = true,
                Some(Err(error)) => {
                    first_error.get_or_insert((webhook_id.clone(), error));
                }
                None => {}
            });
            if is_lost {
                let webhook = Arc::make_mut(webhook);
                webhook.mask();
                webhook.enabled = false;
            }
        });
        first_error.map_or(Ok(campaign), Err)
    }

    /// Returns `None` if the value is not encrypted.
    fn decrypt_value(&self, value: &str, campaign: &str) -> Option<Result<String, DecryptError>> {
        if !value.starts_with(PREFIX) {
            return None;
        }
        let Some((id, encrypted)) = split_encrypted(value) else { return Some(Err(DecryptError::Malformed)) };
        let Some(key) = self.keys.iter().find(|key| key.id == id) else {
            let known = self.ids().map(str::to_owned).collect();
            return Some(Err(DecryptError::UnknownKey { key: id.to_owned(), known }));
        };
        let decrypt = || {
            let encrypted = STANDARD.decode(encrypted).ok()?;
            let (nonce, ciphertext) = encrypted.split_at_checked(NONCE_BYTES)?;
            let payload = Payload { msg: ciphertext, aad: campaign.as_bytes() };
            String::from_utf8(key.cipher.decrypt(XNonce::from_slice(nonce), payload).ok()?).ok()
        };
        Some(decrypt().ok_or_else(|| DecryptError::Damaged { key: id.to_owned() }))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

/// The ids of the keys that encrypted the secrets of a campaign, with repetitions. A value that only looks like an
/// encrypted one has an empty id, which no key has.
pub fn key_ids(campaign: &Campaign) -> impl Iterator<Item = &str> {
    let secrets = campaign.places().flat_map(|place| {
        let webhook = &**place.webhook;
        let headers = webhook.headers.values().filter_map(Value::as_str);
        let previous = webhook.previous_secrets.iter().map(|previous| previous.secret.as_str());
        headers.chain(webhook.secret.as_deref()).chain(previous)
    });
    let encrypted = secrets.filter(|secret| secret.starts_with(PREFIX));
    encrypted.map(|secret| split_encrypted(secret).map_or("", |(key, _)| key))
}

/// Whether a value has the format of an encrypted value. A document from a backup of campaigns may have such values.
pub fn is_encrypted(value: &str) -> bool {
    split_encrypted(value).is_some()
}

/// The id of the key, and the base64 of nonce and ciphertext. Both are checked strictly, because encrypted values are
/// exempt from the rules for plain values.
fn split_encrypted(value: &str) -> Option<(&str, &str)> {
    let (id, encrypted) = value.strip_prefix(PREFIX)?.split_once(':')?;
    let is_id = id.len() == KEY_ID_CHARS && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_base64 = encrypted.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
    (is_id && is_base64).then_some((id, encrypted))
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
    use crate::document;
    use crate::egress::HttpUrls;

    fn key(byte: u8) -> String {
        STANDARD.encode([byte; 32])
    }

    fn keyring(keys: &[u8]) -> Keyring {
        Keyring::parse(&keys.iter().map(|byte| key(*byte)).collect::<Vec<_>>().join(", ")).expect("keys")
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
    fn an_encrypted_campaign_has_no_plain_secrets() {
        let encrypted =
            serde_json::to_string(&keyring(&[1]).encrypt(&campaign("hush-hush"), [7; SALT_BYTES])).expect("JSON");
        for secret in ["hush", "whsec_", "MfKQ9r8G", "AfKQ9r8G"] {
            assert!(!encrypted.contains(secret), "{encrypted}");
        }
        assert_eq!(encrypted.matches("sealed:v1:").count(), 4);
        let values: std::collections::BTreeSet<&str> =
            encrypted.split("sealed:v1:").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(values.len(), 4, "equal values have different ciphertexts");
    }

    #[test]
    fn an_old_key_still_decrypts_if_it_follows_the_new_key() {
        let plain = campaign("hush");
        let old = keyring(&[1]).encrypt(&plain, [7; SALT_BYTES]);
        assert_eq!(keyring(&[2, 1]).decrypt(old.clone()), Ok(plain.clone()));
        let (webhook, error) = keyring(&[2]).decrypt(old.clone()).expect_err("decrypted with another key");
        let place = plain.places().next().expect("a webhook");
        assert_eq!(webhook, place.webhook.id.as_str());
        let [old_id, new_id] =
            [keyring(&[1]), keyring(&[2])].map(|keyring| keyring.ids().next().expect("an id").to_owned());
        assert_eq!(error, DecryptError::UnknownKey { key: old_id.clone(), known: vec![new_id.clone()] });
        assert!(
            error.to_string().contains(&old_id) && error.to_string().contains(&format!("it has {new_id}")),
            "{error}"
        );
        let error = keyring(&[]).decrypt(old).expect_err("decrypted without a key").1;
        assert!(error.to_string().contains("it has none"), "{error}");
    }

    #[test]
    fn a_lost_key_disables_the_webhook() {
        let encrypted = keyring(&[1]).encrypt(&campaign("hush"), [7; SALT_BYTES]);
        let keyring = Keyring::parse(&format!("{},lost", key(2))).expect("keys");
        assert_eq!(keyring.ids().count(), 1);
        let decrypted = keyring.decrypt(encrypted).expect("a campaign");
        let webhooks: Vec<_> = decrypted.places().map(|place| place.webhook.clone()).collect();
        assert_eq!((webhooks[0].enabled, webhooks[0].headers["X-Key"].as_str()), (false, Some("********")));
        assert!(webhooks[1].enabled, "this webhook has no secrets");
    }

    #[test]
    fn without_a_key_secrets_stay_plain() {
        let plain = campaign("hush");
        assert_eq!(keyring(&[]).encrypt(&plain, [7; SALT_BYTES]), plain);
        assert_eq!(keyring(&[1]).decrypt(plain.clone()), Ok(plain));
    }

    #[test]
    fn a_secret_of_another_campaign_is_not_decrypted() {
        let mut moved = keyring(&[1]).encrypt(&campaign("hush"), [7; SALT_BYTES]);
        moved.id = "other".to_owned();
        assert!(matches!(keyring(&[1]).decrypt(moved), Err((_, DecryptError::Damaged { .. }))));
    }

    /// Such a value must not bypass the rules for headers.
    #[test]
    fn a_malformed_encrypted_value_is_refused() {
        let id = keyring(&[1]).ids().next().expect("an id").to_owned();
        for rest in ["", "hush", "hush:hush", "hush\r\nX-Evil: 1", &format!("{id}:a b"), &format!("{id}:\n")] {
            let value = format!("{PREFIX}{rest}");
            assert!(!is_encrypted(&value), "{value}");
            assert_eq!(keyring(&[1]).decrypt_value(&value, "c"), Some(Err(DecryptError::Malformed)), "{value}");
        }
        let document = serde_json::json!({ "id": "c", "sections": [{ "label": "a", "webhook":
            { "url": "https://example.com/", "headers": { "X-Key": "sealed:v1:hush\r\nX-Evil: 1" }, "secret": "sealed:v1:" } }] });
        let violations =
            document::read(document.to_string().as_bytes(), HttpUrls::Refused, None).expect_err("accepted");
        let paths: Vec<&str> = violations.iter().map(|violation| violation.path.as_str()).collect();
        assert_eq!(paths, ["$.sections[0].webhook.headers[\"X-Key\"]", "$.sections[0].webhook.secret"]);
    }

    #[test]
    fn an_invalid_key_is_reported_without_its_value() {
        for text in ["hush", &STANDARD.encode([1; 31]), &format!("{},hush", key(1))] {
            let error = Keyring::parse(text).expect_err("accepted");
            assert!(!error.contains("hush") && error.contains("openssl rand"), "{error}");
        }
        assert_eq!(Keyring::parse(" , ").expect("no keys").ids().count(), 0);
    }

    proptest! {
        #[test]
        fn any_secret_survives_encryption_and_decryption(value in "([!-~]([ -~\t]{0,200}[!-~])?)?", salt: [u8; SALT_BYTES]) {
            prop_assume!(value != crate::campaign::MASK && !is_encrypted(&value));
            let plain = campaign(&value);
            prop_assert_eq!(keyring(&[3, 4]).decrypt(keyring(&[3]).encrypt(&plain, salt)), Ok(plain));
        }

        #[test]
        fn a_malformed_or_changed_secret_is_not_decrypted(rest in "\\PC{0,60}", position in 0_usize..200) {
            let keyring = keyring(&[1]);
            let id = keyring.ids().next().expect("an id");
            for value in [format!("sealed:v1:{rest}"), format!("sealed:v1:{id}:{rest}")] {
                prop_assert!(matches!(keyring.decrypt_value(&value, "c"), Some(Err(_))));
            }
            let encrypted = keyring.encrypt(&campaign("hush"), [7; SALT_BYTES]);
            let value = encrypted.places().next().expect("a webhook").webhook.secret.clone().expect("a secret");
            let mut bytes = value.clone().into_bytes();
            let at = position % bytes.len();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("text");
            prop_assert!(changed == value || !matches!(keyring.decrypt_value(&changed, "c"), Some(Ok(_))));
        }
    }
}
