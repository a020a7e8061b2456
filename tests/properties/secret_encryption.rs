//! For any header value: it survives encryption and decryption, with its key and in its campaign only. Text that others
//! wrote is never decrypted or treated as encrypted.

use serde_json::json;
use waypost_core::campaign::Campaign;
use waypost_core::document::read;
use waypost_core::egress::HttpUrls;
use waypost_core::secret_encryption::{Keyring, SALT_BYTES};

/// Two keys of 32 bytes, in base64.
const KEYS: [&str; 2] =
    ["AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="];

/// The prefix of every encrypted value.
const PREFIX: &str = "sealed:v1:";

pub(crate) fn holds(value: &str) {
    let document = json!({ "id": "c", "sections": [
        { "label": "a", "webhook": { "url": "https://example.com/", "headers": { "X-Key": value } } }] });
    let Ok(campaign) = read(document.to_string().as_bytes(), HttpUrls::Refused, None) else { return };
    let [one, other] = KEYS.map(|key| Keyring::parse(key).expect("a key"));
    let none = Keyring::default();
    if let Some(rest) = value.strip_prefix(PREFIX) {
        for ring in [&one, &other, &none] {
            let (_, error) = ring.decrypt(campaign.clone()).expect_err("the value was never encrypted");
            assert!(rest.len() <= 8 || !error.to_string().contains(rest), "{error}");
        }
        return;
    }
    for ring in [&one, &none] {
        assert_eq!(ring.decrypt(campaign.clone()).as_ref(), Ok(&campaign), "plain text stays unchanged");
    }
    assert_eq!(none.encrypt(&campaign, [7; SALT_BYTES]), campaign);

    let sealed = one.encrypt(&campaign, [7; SALT_BYTES]);
    assert!(header(&sealed).starts_with(PREFIX), "the value is not encrypted");
    assert_ne!(
        header(&sealed),
        header(&one.encrypt(&campaign, [8; SALT_BYTES])),
        "encrypting twice must give different texts"
    );
    assert_eq!(one.decrypt(sealed.clone()).as_ref(), Ok(&campaign));
    let both = Keyring::parse(&KEYS.map(str::to_owned).join(",")).expect("keys");
    assert_eq!(both.decrypt(sealed.clone()).as_ref(), Ok(&campaign));
    assert!(
        other.decrypt(sealed.clone()).is_err() && none.decrypt(sealed.clone()).is_err(),
        "decrypted with another key"
    );
    let moved = Campaign { id: "d".to_owned(), ..sealed.clone() };
    assert!(one.decrypt(moved).is_err(), "decrypted in another campaign");
    // A backup of campaigns is a document too.
    let kept = serde_json::to_vec(&sealed).expect("JSON");
    assert_eq!(read(&kept, HttpUrls::Refused, None), Ok(sealed));
}

fn header(campaign: &Campaign) -> &str {
    let webhook = campaign.places().next().expect("a webhook").webhook;
    webhook.headers["X-Key"].as_str().expect("text")
}
