//! Compares the view with a naive implementation after random records, deletions and restarts.

mod naive;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use waypost_core::dead_letter::removed::{Removal, RemovedMessage};
use waypost_core::dead_letter_record::{Erase, RemovedMessageDone};
use waypost_core::endpoint::Origin;
use waypost_core::event::StepEvent;
use waypost_core::ids::WebhookId;

use self::naive::{NaiveOutcome, NaiveView};
use super::*;

/// Few ids, so that records refer to the same letters.
const LETTERS: usize = 20;

/// Few replays. Some are never created.
const REPLAYS: usize = 4;

/// Times of records are random, within this many seconds from the start of the stream.
const SECONDS: u64 = 100;

#[derive(Debug, Clone)]
enum Step {
    /// A record, and the distance of its offset from the last offset.
    Record(u64, Payload),
    /// Deletes letters older than this second, at most this many blocks.
    Delete(u64, usize),
    Reopen,
    Clear,
}

#[derive(Debug, Clone)]
struct Query {
    filter: LetterFilter,
    limit: usize,
    /// The range of offsets for `find`.
    from: u64,
    to: u64,
}

/// The last phone number is the mask of an erased letter.
const PHONES: [&str; 3] = ["+5511999990001", "+5511999990002", MASK];
const EVENTS: [&str; 2] = ["e-1", "e-2"];
const DELIVERIES: [&str; 2] = ["msg_1", "msg_2"];
const URLS: [&str; 3] = ["https://a.example/one", "https://a.example:443/two", "http://b.example:8080/"];

fn letter_id() -> impl Strategy<Value = DeadLetterId> {
    (0..LETTERS).prop_map(|number| DeadLetterId::new(format!("dl_{number}")))
}

fn replay_id() -> impl Strategy<Value = ReplayId> {
    (0..REPLAYS).prop_map(|number| ReplayId::new(format!("rp_{number}")))
}

fn second() -> impl Strategy<Value = DateTime<Utc>> {
    (0..SECONDS).prop_map(time)
}

fn one_of(names: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
    option::of(select(names).prop_map(str::to_owned))
}

fn reason() -> impl Strategy<Value = DeadLetterReason> {
    select(vec![DeadLetterReason::Malformed, DeadLetterReason::Exhausted, DeadLetterReason::Gone])
}

fn status() -> impl Strategy<Value = Option<u16>> {
    option::of(select(vec![404, 500, 503]))
}

/// The length of a body: mostly small, sometimes so large that a few fill a pack, or that one is a pack of its own.
fn body_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![40 => 0..40_usize, 3 => Just(60_000), 1 => Just(70_000)]
}

fn letter_payload() -> impl Strategy<Value = Payload> {
    let names = (one_of(&["c_1", "c_2"]), one_of(&["wh_1", "wh_2"]), one_of(&["a", "b"]));
    let identities = (one_of(&PHONES), one_of(&EVENTS), one_of(&DELIVERIES), one_of(&URLS));
    let link = option::weighted(0.3, (letter_id(), replay_id()));
    let fields = (letter_id(), second(), names, identities, reason(), status(), link, body_bytes());
    fields.prop_map(|(id, dead_at, names, identities, reason, status, link, bytes)| {
        let (campaign_id, webhook_id, label) = names;
        let body = Some("x".repeat(bytes));
        let webhook_id = webhook_id.map(WebhookId::new);
        let (replay_of, replay_id) = link.unzip();
        let (phone_number, event, delivery, url) = identities;
        let plain = DeadLetter {
            event: phone_number.map(|phone_number| event_of(&phone_number)),
            event_id: event.map(EventId::new),
            delivery_id: delivery.map(DeliveryId::new),
            url,
            ..letter(id.as_str(), dead_at)
        };
        let letter = DeadLetter { campaign_id, webhook_id, label, reason, status, replay_of, replay_id, body, ..plain };
        Payload::Letter(Box::new(letter))
    })
}

fn removed_message() -> impl Strategy<Value = Payload> {
    (reason(), option::of(second()), body_bytes()).prop_map(|(reason, at, bytes)| {
        let removal = Removal { queue: "p.events".to_owned(), reason, at };
        let body = vec![0xFF; bytes];
        Payload::Removed(Box::new(RemovedMessage { removal, body, message_id: None, trace: None, replay: None }))
    })
}

fn event_of(phone_number: &str) -> StepEvent {
    let event = serde_json::json!({ "campaignId": "c", "label": "a", "phoneNumber": phone_number, "date": "2024-06-18T23:26:14Z" });
    event::decode(event.to_string().as_bytes(), None).expect("an event")
}

fn replay_record() -> impl Strategy<Value = DeadLetterRecord> {
    let state = prop_oneof![3 => Just(None), 2 => select(LetterState::ALL.to_vec()).prop_map(Some)];
    let phone_number = option::weighted(0.2, select(&PHONES[..]).prop_map(str::to_owned));
    let filter = (state, one_of(&["c_1", "c_2"]), phone_number, option::weighted(0.2, second())).prop_map(
        |(state, campaign_id, phone_number, until)| LetterFilter {
            state,
            campaign_id,
            phone_number,
            until,
            ..LetterFilter::default()
        },
    );
    let selection = prop_oneof![
        2 => filter.prop_map(|filter| (Some(filter), None)),
        1 => vec(letter_id(), 0..LETTERS).prop_map(|ids| (None, Some(ids))),
    ];
    let ratio = option::of(select(vec![0.0, 0.4, 1.0]));
    (replay_id(), second(), selection, ratio).prop_map(|(id, at, (filter, ids), stop_on_failure_ratio)| {
        let plain = replay(id.as_str(), at);
        DeadLetterRecord::Replay(Box::new(Replay { filter, ids, stop_on_failure_ratio, ..plain }))
    })
}

fn record() -> impl Strategy<Value = Payload> {
    let ids = || vec(letter_id(), 0..LETTERS);
    let outcome = select(ReplayOutcome::ALL.to_vec());
    let sent = vec((letter_id(), outcome).prop_map(|(id, outcome)| LetterResult { id, outcome }), 0..LETTERS);
    let command = select(vec![ReplayCommand::Pause, ReplayCommand::Resume, ReplayCommand::Cancel]);
    let action = || second().prop_map(|at| OperatorAction { by: "ana".to_owned(), at, operator_reason: None });
    prop_oneof![
        2 => (ids(), action()).prop_map(|(ids, action)| DeadLetterRecord::Discard(Discard { ids, action })),
        1 => (vec(letter_id(), 0..4), action()).prop_map(|(ids, action)| DeadLetterRecord::Erase(Erase { ids, action })),
        6 => replay_record(),
        8 => (replay_id(), sent, second()).prop_map(|(replay, sent, at)| DeadLetterRecord::Batch(ReplayBatch { replay, sent, at })),
        3 => (replay_id(), command, second())
            .prop_map(|(replay, command, at)| DeadLetterRecord::Control(ReplayControl { replay, command, by: "ana".to_owned(), at })),
        2 => (0..200_u64).prop_map(|offset| DeadLetterRecord::RemovedMessageDone(RemovedMessageDone { offset })),
    ]
    .prop_map(Payload::Record)
}

fn step() -> impl Strategy<Value = Step> {
    let gap = prop_oneof![16 => Just(1), 6 => 2..70_u64, 1 => Just(1 << 33)];
    let payload =
        prop_oneof![12 => letter_payload(), 16 => record(), 2 => removed_message(), 1 => Just(Payload::Ignored)];
    prop_oneof![
        60 => (gap, payload).prop_map(|(gap, payload)| Step::Record(gap, payload)),
        3 => (0..SECONDS + 1, 1..4_usize).prop_map(|(second, blocks)| Step::Delete(second, blocks)),
        2 => Just(Step::Reopen),
        1 => Just(Step::Clear),
    ]
}

fn query() -> impl Strategy<Value = Query> {
    let names = (one_of(&["c_1", "c_2"]), one_of(&["wh_1", "wh_2"]), one_of(&["a", "b"]));
    let times = (option::weighted(0.2, second()), option::weighted(0.2, second()));
    let others = (option::weighted(0.3, reason()), status(), option::weighted(0.3, select(LetterState::ALL.to_vec())));
    let identities = (one_of(&PHONES), one_of(&EVENTS), one_of(&DELIVERIES), one_of(&URLS));
    let fields = (names, identities, times, others, 1..8_usize, 0..200_u64, 0..300_u64);
    fields.prop_map(|(names, identities, times, others, limit, from, to)| {
        let (campaign_id, webhook_id, label) = names;
        let webhook_id = webhook_id.map(WebhookId::new);
        let ((since, until), (reason, status, state)) = (times, others);
        let (phone_number, event, delivery, url) = identities;
        let filter = LetterFilter {
            campaign_id,
            label,
            webhook_id,
            phone_number,
            event_id: event.map(EventId::new),
            delivery_id: delivery.map(DeliveryId::new),
            endpoint: url.map(|url| Origin::from_url(&url.parse().expect("a URL"))),
            reason,
            status,
            since,
            until,
            state,
        };
        // Mostly at most two fields: filters with many fields match little.
        let filter = match limit {
            1 => LetterFilter::default(),
            2 => LetterFilter { state: filter.state, ..LetterFilter::default() },
            3 => LetterFilter { webhook_id: filter.webhook_id, since: filter.since, ..LetterFilter::default() },
            4 => LetterFilter { phone_number: filter.phone_number, ..LetterFilter::default() },
            5 => LetterFilter { event_id: filter.event_id, endpoint: filter.endpoint, ..LetterFilter::default() },
            6 => LetterFilter { delivery_id: filter.delivery_id, state: filter.state, ..LetterFilter::default() },
            _ => filter,
        };
        Query { filter, limit, from, to }
    })
}

/// Runs the steps, with records in batches of these sizes, and compares after each batch.
fn run(mut log: TestStream, steps: &[Step], batch_sizes: &[usize], queries: &[Query]) -> TestStream {
    let mut naive = NaiveView::new(log.retention);
    let mut batch_sizes = batch_sizes.iter().cycle();
    let mut steps = steps.iter().peekable();
    while let Some(step) = steps.next() {
        match step {
            Step::Record(gap, payload) => {
                let max_records = *batch_sizes.next().expect("a size");
                let mut batch = vec![(*gap, payload)];
                while batch.len() < max_records
                    && let Some(Step::Record(gap, payload)) = steps.next_if(|step| matches!(step, Step::Record(..)))
                {
                    batch.push((*gap, payload));
                }
                let mut entries = Vec::new();
                for (gap, payload) in batch {
                    log.next += gap;
                    entries.push(StreamEntry { position: at(log.next), payload: payload.clone() });
                }
                let outcomes = log.view().apply(&entries).expect("applied");
                let outcomes: Vec<NaiveOutcome> = outcomes.iter().map(NaiveOutcome::from).collect();
                let expected: Vec<NaiveOutcome> = entries.iter().map(|entry| naive.apply(entry)).collect();
                assert_eq!(outcomes, expected);
            }
            Step::Delete(second, blocks) => {
                let before = time(*second).timestamp_millis();
                let deleted = log.view().delete_before(before, *blocks).expect("deleted");
                assert_eq!(deleted, naive.delete_before(before, *blocks));
            }
            Step::Reopen => log = log.reopen(),
            Step::Clear => {
                log.view().clear().expect("cleared");
                naive = NaiveView::new(log.retention);
            }
        }
        naive.compare(&log, &queries[..1]);
    }
    naive.compare(&log, queries);
    log
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Applies the records in batches, then again from the beginning one by one.
    #[test]
    fn the_view_behaves_like_the_naive_view(
        steps in vec(step(), 1..100),
        batch_sizes in vec(1..12_usize, 1..6),
        queries in vec(query(), 8),
        retention in prop_oneof![Just(Duration::MAX), (0..SECONDS).prop_map(Duration::from_secs)],
    ) {
        let mut log = run(TestStream::with_retention(retention), &steps, &batch_sizes, &queries);
        log.view().clear().expect("cleared");
        log.next = 0;
        NaiveView::new(retention).compare(&log, &queries);
        run(log, &steps, &[1], &queries);
    }
}
