//! Property tests: serializes arbitrary campaigns and reads them again.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;
use proptest::prelude::*;
use serde_json::Number;

use super::*;
use crate::campaign::PreviousSecret;
use crate::duration::TextDuration;

fn duration(milliseconds: u64) -> TextDuration {
    TextDuration::parse(&format!("{milliseconds}ms")).expect("a duration")
}

fn text() -> impl Strategy<Value = String> {
    "[^ \t\r\n]\\PC{0,12}".prop_filter("not blank", |text| !text.trim().is_empty())
}

fn any_json() -> impl Strategy<Value = Value> {
    let number = "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?(e[+-][0-9]{1,3})?";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number.prop_map(|digits| serde_json::from_str(&digits).expect("a number")),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

prop_compose! {
    fn any_retry()(
        (initial_delay, max_delay, max_age) in (
            prop::option::of(1u64..86_400_000), prop::option::of(1u64..86_400_000), prop::option::of(0u64..86_400_000),
        ),
        // In hundredths, because serde_json may round the last bit of longer fractions.
        multiplier in prop::option::of(100u32..100_000),
        jitter in prop::option::of(0u32..=100),
        max_attempts in prop::option::of(1u32..=1000),
        permanent_statuses in prop::option::of(prop::collection::vec(100u16..=599, 0..4)),
    ) -> RetryOverrides {
        RetryOverrides {
            initial_delay: initial_delay.map(duration),
            multiplier: multiplier.map(|hundredths| f64::from(hundredths) / 100.0),
            max_delay: max_delay.map(duration),
            jitter: jitter.map(|hundredths| f64::from(hundredths) / 100.0),
            max_attempts,
            max_age: max_age.map(duration),
            permanent_statuses,
        }
    }
}

prop_compose! {
    /// A webhook without an id.
    fn any_webhook()(
        url in "https://[a-z]{1,10}\\.example(:[1-9][0-9]{3})?(/[a-zA-Z0-9._~%é-]{0,8}){0,3}(\\?[a-z=&]{0,9})?"
            .prop_filter("percent signs", |url| !url.contains("%é")),
        enabled: bool,
        body in prop::collection::vec(("x[a-zA-Z \"$]{0,8}", any_json()), 0..4),
        headers in prop::collection::hash_map("x-[a-z0-9!#_]{1,8}", "([!-~]([ -~\t]{0,20}[!-~])?)?", 0..4),
        secret in prop::option::of(prop::collection::vec(any::<u8>(), 24..=64)),
        previous in prop::collection::vec((prop::collection::vec(any::<u8>(), 24..=64), 0i64..=4_000_000_000_000), 0..=3),
        timeout_ms in 1u64..=30_000,
        max_concurrency in prop::option::of(1u32..),
        rate_limit in prop::option::of("[1-9][0-9]{0,5}(\\.[0-9]{1,20})?"),
        retry in any_retry(),
    ) -> Arc<Webhook> {
        let encode = |key| format!("whsec_{}", STANDARD.encode(key));
        Arc::new(Webhook {
            id: assign_ids::unassigned(),
            url: url.into(),
            enabled,
            body: body.into_iter().collect(),
            headers: headers.into_iter().map(|(name, value)| (name, Value::from(value))).collect(),
            previous_secrets: previous
                .into_iter()
                .filter(|_| secret.is_some())
                .map(|(key, until)| PreviousSecret {
                    secret: encode(key),
                    until: DateTime::from_timestamp_millis(until).expect("a time"),
                })
                .collect(),
            secret: secret.map(encode),
            timeout_ms,
            max_concurrency,
            rate_limit: rate_limit.map(|digits| digits.parse::<Number>().expect("a number")),
            retry,
        })
    }
}

prop_compose! {
    /// [`any_campaign`] removes entries with equal keywords.
    fn any_entry()(
        keyword in prop_oneof![
            text().prop_map(Keyword::Text), any::<u64>().prop_map(|number| Keyword::Number(number.into())),
        ],
        option in prop::option::of(any::<String>()),
        to in prop::option::of(text()),
        webhook in prop::option::of(any_webhook()),
    ) -> MenuEntry {
        match (webhook, to) {
            (Some(webhook), None) => {
                let redirect = Some(Redirect { kind: RedirectKind::Webhook, to: None });
                MenuEntry { keyword, option: None, redirect, webhook: Some(webhook) }
            }
            (webhook, to) => {
                let redirect = to.map(|to| Redirect { kind: RedirectKind::Campaign, to: Some(to) });
                MenuEntry { keyword, option, redirect, webhook }
            }
        }
    }
}

prop_compose! {
    fn any_campaign()(
        id in "\\PC{1,128}",
        name in prop::option::of(any::<String>()),
        sections in prop::collection::vec((
            text(), prop::option::of(any::<String>()), prop::collection::vec(any_entry(), 0..4),
            prop::option::of(any_webhook()), any::<prop::sample::Index>(),
        ), 0..4),
    ) -> Campaign {
        let labels: Vec<String> = sections.iter().enumerate().map(|(i, (label, ..))| format!("{label}{i}")).collect();
        let mut count = 0;
        let mut assign_id = |webhook: &mut Arc<Webhook>| {
            Arc::make_mut(webhook).id = WebhookId::new(format!("id-{count}"));
            count += 1;
        };
        let sections = sections.into_iter().enumerate().map(|(i, (_, message, mut menu, mut webhook, to))| {
            let kind = if i == 0 { SectionKind::WelcomeMessage } else { SectionKind::Interaction };
            webhook.iter_mut().for_each(&mut assign_id);
            let mut normal_forms = HashSet::new();
            menu.retain(|entry| {
                let form = entry.keyword.normal_form();
                !form.is_empty() && normal_forms.insert(form.into_text())
            });
            menu.iter_mut().filter_map(|entry| entry.webhook.as_mut()).for_each(&mut assign_id);
            let to = labels[to.index(labels.len())].clone();
            let redirect = Some(Redirect { kind: RedirectKind::Interaction, to: Some(to) });
            Section { label: labels[i].clone(), kind, message, menu, redirect, webhook }
        }).collect();
        Campaign { id, name, sections }
    }
}

proptest! {
    #[test]
    fn a_serialized_campaign_reads_as_the_same(campaign in any_campaign()) {
        let bytes = serde_json::to_vec(&campaign).expect("JSON");
        let parsed = read(&bytes, HttpUrls::Refused, None);
        prop_assert_eq!(parsed.as_ref(), Ok(&campaign));
        // Equality ignores the order of keys.
        prop_assert_eq!(serde_json::to_vec(&parsed.expect("equal")).expect("JSON"), bytes.clone());
        prop_assert_eq!(serde_json::from_slice::<Campaign>(&bytes).expect("a campaign"), campaign);
    }

    #[test]
    fn removed_ids_are_restored(campaign in any_campaign()) {
        let mut without_ids = serde_json::to_value(&campaign).expect("JSON");
        for section in without_ids["sections"].as_array_mut().expect("sections") {
            let own = section.get_mut("webhook").into_iter();
            own.for_each(|webhook| { webhook.as_object_mut().expect("a webhook").shift_remove("id"); });
            for entry in section.get_mut("menu").and_then(Value::as_array_mut).into_iter().flatten() {
                let webhooks = entry.get_mut("webhook").into_iter();
                webhooks.for_each(|webhook| { webhook.as_object_mut().expect("a webhook").shift_remove("id"); });
            }
        }
        let without_ids = without_ids.to_string();
        prop_assert_eq!(read(without_ids.as_bytes(), HttpUrls::Refused, Some(&campaign)), Ok(campaign));
        let first = read(without_ids.as_bytes(), HttpUrls::Refused, None).expect("a campaign");
        let ids = ids(&first);
        prop_assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        prop_assert_eq!(read(without_ids.as_bytes(), HttpUrls::Refused, Some(&first)), Ok(first));
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes: Vec<u8>) {
        prop_assert!(!read(&bytes, HttpUrls::Allowed, None).expect_err("no document").is_empty());
    }

    #[test]
    fn a_truncated_or_changed_document_does_not_panic(at in 0..EXAMPLE.len(), byte: u8, cut: bool) {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Err(violations) = read(&bytes, HttpUrls::Refused, None) {
            prop_assert!(!violations.is_empty());
        }
    }
}
