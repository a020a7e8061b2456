//! Runs the properties of the fuzz targets (`tests/properties`) with the fuzzers' seeds, with modified seeds, and with
//! generated inputs.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use crate::properties::{
    answer, document, event, frames, record, retry_after, secret_encryption, url, waiting_delivery,
};

/// The seeds of a target, with their names.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let files = std::fs::read_dir(&folder).expect("a folder of seeds").map(|file| file.expect("a file").path());
    let mut seeds: Vec<(String, Vec<u8>)> =
        files.map(|path| (path.display().to_string(), std::fs::read(path).expect("a seed"))).collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{target} has no seeds");
    seeds
}

/// Seeds that are text.
fn texts(target: &str) -> Vec<String> {
    seeds(target).into_iter().map(|(name, seed)| String::from_utf8(seed).expect(&name)).collect()
}

/// Values that broke something once, and edge cases.
fn edges() -> Vec<Value> {
    let number = |digits: &str| digits.parse::<serde_json::Number>().expect("a number").into();
    vec![
        json!(null),
        json!(true),
        json!([]),
        json!({}),
        json!(""),
        json!(" "),
        json!("1"),
        json!("\u{0}"),
        json!("ı\u{307}"),
        json!("hush\r\nX-Evil: 1"),
        json!("********"),
        json!("sealed:v1:hush\n"),
        json!("sealed:v1:01234567:AAAA"),
        json!("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        json!("https://127.0.0.1/"),
        json!("0000-01-01T00:00:00+00:01"),
        json!("9999-12-31T23:59:59.9999999-00:01"),
        json!("2024-06-18T23:26:14.2069999+05:30"),
        json!("2016-12-31T23:59:60Z"),
        json!(0),
        json!(1),
        json!(-1),
        json!(4_294_967_295_u32),
        number("1e400"),
        number("-0"),
        number("0.10"),
        number("123456789012345678901234567890"),
    ]
}

/// The number of values in a value, itself included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// Replaces the value at index `at` in depth-first order. Returns the number of values still to skip.
fn replace(value: &mut Value, at: usize, new: &Value) -> Option<usize> {
    let Some(mut at) = at.checked_sub(1) else {
        *value = new.clone();
        return None;
    };
    let parts: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    };
    for part in parts {
        at = replace(part, at, new)?;
    }
    Some(at)
}

/// JSON seeds of a target with some values replaced by others.
fn changed_json(target: &str) -> impl Strategy<Value = Vec<u8>> {
    let seeds: Vec<Value> = seeds(target).iter().filter_map(|(_, seed)| serde_json::from_slice(seed).ok()).collect();
    let value = prop_oneof![
        8 => select(edges()),
        1 => any::<String>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
    ];
    (select(seeds), prop::collection::vec((any::<Index>(), value), 1..4)).prop_map(|(mut seed, changes)| {
        for (at, value) in changes {
            let at = at.index(count(&seed));
            replace(&mut seed, at, &value);
        }
        seed.to_string().into_bytes()
    })
}

/// Seeds of a target that are truncated or have a changed byte.
fn damaged(target: &str) -> impl Strategy<Value = Vec<u8>> {
    let seeds: Vec<Vec<u8>> = seeds(target).into_iter().map(|(_, seed)| seed).collect();
    (select(seeds), any::<Index>(), prop::option::of(any::<u8>())).prop_map(|(mut seed, at, byte)| {
        let at = at.index(seed.len());
        match byte {
            Some(byte) => seed[at] = byte,
            None => seed.truncate(at),
        }
        seed
    })
}

/// Text seeds of a target in which a part is replaced by a part of another seed or by any text.
fn changed_text(target: &str) -> impl Strategy<Value = String> {
    let part = |text: &str, from: Index, to: Index| {
        let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let (from, to) = (ends[from.index(ends.len())], ends[to.index(ends.len())]);
        from.min(to)..from.max(to)
    };
    let new = prop_oneof![3 => select(texts(target)), 1 => any::<String>()];
    let places: [_; 4] = std::array::from_fn(|_| any::<Index>());
    (select(texts(target)), new, places).prop_map(move |(text, new, [from, to, new_from, new_to])| {
        let (old, new_part) = (part(&text, from, to), part(&new, new_from, new_to));
        format!("{}{}{}", &text[..old.start], &new[new_part], &text[old.end..])
    })
}

#[test]
fn of_every_seed() {
    seeds("answer").iter().for_each(|(_, seed)| answer::holds(seed));
    seeds("document").iter().for_each(|(_, seed)| document::holds(seed));
    seeds("event").iter().for_each(|(_, seed)| event::holds(seed));
    seeds("frames").iter().for_each(|(_, seed)| frames::holds(seed));
    seeds("record").iter().for_each(|(_, seed)| record::holds(seed));
    seeds("waiting").iter().for_each(|(_, seed)| waiting_delivery::holds(seed));
    texts("retry_after").iter().for_each(|seed| retry_after::holds(seed));
    texts("sealing").iter().for_each(|seed| secret_encryption::holds(seed));
    texts("url").iter().for_each(|seed| url::holds(seed));
}

proptest! {
    #[test]
    fn of_answers(bytes in prop_oneof![
        2 => damaged("answer"),
        4 => "(HTTP/1\\.[01] [1-5][0-9]{2}( OK)?\r?\n((content-length|transfer-encoding|connection|x)[ \t]{0,1}:[ ]{0,1}(chunked|close|[0-9]{1,3}|keep-alive)?\r?\n[ a]{0,2}){0,4}\r?\n){1,2}([0-3]{0,1}\r?\n[a-z]{0,3}\r?\n){0,4}"
            .prop_map(String::into_bytes),
        1 => any::<Vec<u8>>(),
    ]) {
        answer::holds(&bytes);
    }

    #[test]
    fn of_events(body in prop_oneof![4 => changed_json("event"), 1 => damaged("event")]) {
        event::holds(&body);
    }

    #[test]
    fn of_frames(bytes in prop_oneof![4 => damaged("frames"), 1 => any::<Vec<u8>>()]) {
        frames::holds(&bytes);
    }

    #[test]
    fn of_documents(bytes in prop_oneof![4 => changed_json("document"), 1 => damaged("document")]) {
        document::holds(&bytes);
    }

    #[test]
    fn of_waiting_deliveries(body in prop_oneof![4 => changed_json("waiting"), 1 => damaged("waiting")]) {
        waiting_delivery::holds(&body);
    }

    #[test]
    fn of_records(
        bytes in prop_oneof![4 => changed_json("record"), 1 => damaged("record"), 1 => any::<Vec<u8>>()]
    ) {
        record::holds(&bytes);
    }

    #[test]
    fn of_retry_after(header in prop_oneof![
        changed_text("retry_after"),
        "[ +-]{0,1}[0-9]{0,25}",
        "[A-Z][a-z]{2}, [0-9]{2} (Jan|Feb|Jun|Dec) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT",
        any::<String>(),
    ]) {
        retry_after::holds(&header);
    }

    #[test]
    fn of_urls(url in prop_oneof![
        changed_text("url"),
        // Hosts of one to five numbers, in every base.
        "https?://((0x[0-9a-fA-F]{1,8}|0[0-7]{0,11}|[0-9]{1,10})[.。]{1,2}){0,4}(0x[0-9a-fA-F]{1,8}|0[0-7]{0,11}|[0-9]{1,10})[.]{0,2}/",
        "https://\\[[0-9a-f:.]{2,30}\\](:[0-9]{0,5})?/",
        "https://\\PC{1,20}",
        any::<String>(),
    ]) {
        url::holds(&url);
    }

    #[test]
    fn of_sealed_values(value in prop_oneof![
        changed_text("sealing"),
        "sealed:v1:[0-9a-f]{8}:[A-Za-z0-9+/]{0,80}={0,2}",
        any::<String>(),
    ]) {
        secret_encryption::holds(&value);
    }
}
