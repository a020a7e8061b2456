//! Tests of the admission control of a receiver.

use proptest::prelude::*;

use super::*;
use crate::endpoint::{AskRound, Source};
use crate::outcome::RequestPhase;

const LIMITS: Limits = Limits { concurrency: 64, per_second: None };

/// A receiver with the limiter of its endpoint and a clock.
struct Harness {
    receiver: Receiver,
    endpoint: ConcurrencyLimiter,
    now: Duration,
    in_flight: Vec<AdmissionToken>,
}

impl Harness {
    fn new() -> Self {
        Self {
            receiver: Receiver::default(),
            endpoint: ConcurrencyLimiter::default(),
            now: ms(1_000_000),
            in_flight: Vec::new(),
        }
    }

    /// A receiver that has answered `answers` times with this latency, with as many requests in flight as allowed.
    fn warmed_up(answers: u32, latency: Duration) -> Self {
        let mut harness = Self::new();
        for _ in 0..answers {
            while harness.try_send() {}
            harness.now += latency;
            harness.end_oldest(&answer(200), latency);
        }
        while harness.end_oldest(&answer(200), latency) {}
        harness
    }

    fn request_admission(&mut self, request: &AdmissionRequest<'_>) -> Admission {
        self.receiver.admit(&mut self.endpoint, request, self.now)
    }

    /// Requests admission, and tells if the request is now in flight.
    fn try_send(&mut self) -> bool {
        match self.request_admission(&new_delivery()) {
            Admission::Send(token) => {
                self.in_flight.push(token);
                true
            }
            Admission::Wait(..) | Admission::Park(..) | Admission::Refused(_) => false,
        }
    }

    /// Ends the oldest request. False if no request is in flight.
    fn end_oldest(&mut self, send_result: &SendResult, duration: Duration) -> bool {
        if self.in_flight.is_empty() {
            return false;
        }
        let token = self.in_flight.remove(0);
        self.end(token, send_result, duration);
        true
    }

    fn end(&mut self, token: AdmissionToken, send_result: &SendResult, duration: Duration) {
        self.receiver.record_end(&mut self.endpoint, token, send_result, duration, DateTime::UNIX_EPOCH, self.now);
    }

    fn cancel(&mut self, token: AdmissionToken) {
        self.receiver.record_cancellation(&mut self.endpoint, token, self.now);
    }

    fn wait(&mut self, queue: WaitList, change: Change) {
        let limiter = self.receiver.limiter(&mut self.endpoint, queue, &WebhookId::new("wh"));
        match change {
            Change::Begin => limiter.begin_waiting(),
            Change::End => limiter.end_waiting(),
        }
    }

    fn expect_park(&mut self) -> (Duration, ParkReason) {
        match self.request_admission(&new_delivery()) {
            Admission::Park(time, reason) => (time, reason),
            other => panic!("{other:?}"),
        }
    }
}

enum Change {
    Begin,
    End,
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn new_delivery() -> AdmissionRequest<'static> {
    AdmissionRequest {
        webhook: None,
        limits: LIMITS,
        slow_budget: SlowBudget::Free,
        round: AskRound::First,
        source: Source::Event,
        parking: Parking::Possible,
        jitter: 0.5,
    }
}

fn answer(status: u16) -> SendResult {
    SendResult::Response { status, retry_after: None, body: Vec::new() }
}

fn timeout() -> SendResult {
    SendResult::TimedOut { phase: RequestPhase::AwaitingResponse }
}

#[test]
fn an_unknown_receiver_starts_with_few_requests_and_gets_more_with_each_answer() {
    let mut harness = Harness::new();
    while harness.try_send() {}
    assert_eq!(harness.in_flight.len(), 8);
    assert!(
        harness.in_flight.iter().all(|token| token.latency_class == LatencyClass::Slow),
        "the receiver is not known yet"
    );
    let mut counts = Vec::new();
    for _ in 0..5 {
        harness.now += ms(5);
        for _ in 0..harness.in_flight.len() {
            harness.end_oldest(&answer(200), ms(5));
            while harness.try_send() {}
        }
        counts.push(harness.in_flight.len());
    }
    assert_eq!(counts, [16, 32, 64, 64, 64], "the number doubles within the latency of one response, up to the limit");
    assert!(harness.in_flight.iter().all(|token| token.latency_class == LatencyClass::Fast));
}

#[test]
fn the_limit_only_grows_if_it_is_used() {
    let mut harness = Harness::new();
    for _ in 0..1000 {
        assert!(harness.try_send());
        harness.now += ms(5);
        harness.end_oldest(&answer(200), ms(5));
    }
    while harness.try_send() {}
    assert_eq!(harness.in_flight.len(), 8);
}

#[test]
fn deliveries_wait_for_a_quick_receiver_but_not_for_a_slow_one() {
    let mut fast = Harness::warmed_up(1000, ms(5));
    while fast.try_send() {}
    for _ in 0..500 {
        assert_eq!(
            fast.request_admission(&new_delivery()),
            Admission::Wait(Source::Event.max_queue_delay(), WaitList::Endpoint)
        );
        fast.wait(WaitList::Endpoint, Change::Begin);
    }
    let mut slow = Harness::warmed_up(1000, ms(800));
    while slow.try_send() {}
    let mut waiting = 0;
    while let Admission::Wait(..) = slow.request_admission(&new_delivery()) {
        slow.wait(WaitList::Endpoint, Change::Begin);
        waiting += 1;
    }
    assert!((10..40).contains(&waiting), "{waiting} deliveries wait for an endpoint with 80 responses a second");
    let retry = AdmissionRequest { source: Source::Retry, ..new_delivery() };
    while let Admission::Wait(..) = slow.request_admission(&retry) {
        slow.wait(WaitList::Endpoint, Change::Begin);
        waiting += 1;
    }
    assert!((80..100).contains(&waiting), "retries of one second wait: {waiting} with 80 responses a second");
    let (time, reason) = slow.expect_park();
    assert_eq!(reason, ParkReason::Concurrency);
    assert!(time >= MIN_PARK_TIME);
    assert!(slow.expect_park().0 > time, "parked deliveries are due one after the other");
}

#[test]
fn new_deliveries_do_not_overtake_waiting_deliveries() {
    let mut harness = Harness::warmed_up(100, ms(5));
    while harness.try_send() {}
    assert_eq!(
        harness.request_admission(&new_delivery()),
        Admission::Wait(Source::Event.max_queue_delay(), WaitList::Endpoint)
    );
    harness.wait(WaitList::Endpoint, Change::Begin);
    harness.now += ms(5);
    harness.end_oldest(&answer(200), ms(5));
    assert_eq!(
        harness.request_admission(&new_delivery()),
        Admission::Wait(Source::Event.max_queue_delay(), WaitList::Endpoint)
    );
    assert!(matches!(
        harness.request_admission(&AdmissionRequest { round: AskRound::Again, ..new_delivery() }),
        Admission::Send(_)
    ));
    assert!(matches!(
        harness.request_admission(&AdmissionRequest { round: AskRound::Last, ..new_delivery() }),
        Admission::Park(_, ParkReason::Concurrency)
    ));
}

#[test]
fn deliveries_of_a_hanging_receiver_are_parked_long_before_its_requests_time_out() {
    let mut harness = Harness::warmed_up(1000, ms(5));
    for _ in 0..8 {
        assert!(harness.try_send());
        harness.now += ms(40);
    }
    assert_eq!(harness.expect_park().1, ParkReason::Slow, "no response for 320 ms");
    let early = harness.expect_park().0;
    harness.now += ms(14_000);
    let late = harness.expect_park().0;
    assert!(early < late && late < ms(30_000), "{early:?} {late:?}: the park time grows with the outage");
    assert_eq!(harness.receiver.stats(harness.now).parked, 1, "the first parked delivery is due");
    for _ in 0..8 {
        harness.end_oldest(&timeout(), ms(15_000));
    }
    assert_eq!((harness.receiver.breaker(), harness.expect_park().1), (BreakerState::Open, ParkReason::Breaker));
}

#[test]
fn after_an_outage_a_receiver_starts_with_one_request() {
    let mut harness = Harness::warmed_up(1000, ms(5));
    for _ in 0..5 {
        assert!(harness.try_send());
        harness.now += ms(15_000);
        harness.end_oldest(&timeout(), ms(15_000));
    }
    assert_eq!(harness.receiver.breaker(), BreakerState::Open);
    harness.now += ms(1_000);
    assert!(harness.try_send(), "the probe");
    assert_eq!(harness.in_flight[0].latency_class, LatencyClass::Slow);
    assert!(!harness.try_send(), "only one probe");
    harness.end_oldest(&answer(200), ms(5));
    assert_eq!(harness.receiver.breaker(), BreakerState::Closed);
    let mut counts = Vec::new();
    for _ in 0..7 {
        while harness.try_send() {}
        counts.push(harness.in_flight.len());
        harness.now += ms(5);
        for _ in 0..harness.in_flight.len() {
            harness.end_oldest(&answer(200), ms(5));
        }
    }
    assert_eq!(counts[..3], [1, 2, 3], "{counts:?}");
    assert!(counts.is_sorted(), "{counts:?}");
}

#[test]
fn slow_receivers_share_a_part_of_the_window() {
    let with_budget = |slow_budget| AdmissionRequest { slow_budget, ..new_delivery() };
    let mut unknown = Harness::new();
    assert!(matches!(
        unknown.request_admission(&with_budget(SlowBudget::Exhausted)),
        Admission::Park(_, ParkReason::Slow)
    ));
    let admitted = unknown.request_admission(&with_budget(SlowBudget::Limited));
    assert!(matches!(admitted, Admission::Send(_)), "the first request shows if the receiver is slow");
    assert!(matches!(
        unknown.request_admission(&with_budget(SlowBudget::Limited)),
        Admission::Park(_, ParkReason::Slow)
    ));
    let mut slow = Harness::warmed_up(50, ms(3_000));
    assert!(matches!(
        slow.request_admission(&with_budget(SlowBudget::Limited)),
        Admission::Send(AdmissionToken { latency_class: LatencyClass::Slow, .. })
    ));
    assert!(matches!(
        slow.request_admission(&with_budget(SlowBudget::Exhausted)),
        Admission::Park(_, ParkReason::Slow)
    ));
    let mut fast = Harness::warmed_up(50, ms(30));
    assert!(matches!(
        fast.request_admission(&with_budget(SlowBudget::Exhausted)),
        Admission::Send(AdmissionToken { latency_class: LatencyClass::Fast, .. })
    ));
}

#[test]
fn limits_of_a_webhook_apply_in_addition_to_those_of_its_endpoint() {
    let mut harness = Harness::warmed_up(100, ms(5));
    let (one, other) = (WebhookId::new("wh_1"), WebhookId::new("wh_2"));
    let limits = Limits { concurrency: 2, per_second: None };
    let limited = AdmissionRequest { webhook: Some((&one, limits)), ..new_delivery() };
    let admissions: Vec<Admission> = (0..2).map(|_| harness.request_admission(&limited)).collect();
    assert!(admissions.iter().all(|admission| matches!(admission, Admission::Send(_))));
    assert_eq!(
        harness.request_admission(&limited),
        Admission::Wait(Source::Event.max_queue_delay(), WaitList::Webhook)
    );
    assert!(matches!(
        harness.request_admission(&AdmissionRequest { webhook: Some((&other, limits)), ..new_delivery() }),
        Admission::Send(_)
    ));
    let rate_limited = AdmissionRequest {
        webhook: Some((&other, Limits { concurrency: 9, per_second: Some(1.0) })),
        ..new_delivery()
    };
    assert!(matches!(harness.request_admission(&rate_limited), Admission::Send(_)));
    let Admission::Park(time, ParkReason::RateLimit) = harness.request_admission(&rate_limited) else {
        panic!("a second request in one second")
    };
    let Admission::Park(next, ParkReason::RateLimit) = harness.request_admission(&rate_limited) else {
        panic!("a third request in one second")
    };
    assert_eq!(next - time, ms(1_000));
    for admission in admissions {
        let Admission::Send(token) = admission else { panic!("{admission:?}") };
        harness.end(token, &answer(200), ms(5));
    }
    assert!(matches!(harness.request_admission(&limited), Admission::Send(_)));
}

#[test]
fn throttling_answers_reduce_the_limit() {
    let mut harness = Harness::warmed_up(1000, ms(5));
    assert_eq!(harness.receiver.stats(harness.now).allowed, 65);
    for (status, allowed) in [(429, 32), (503, 16), (500, 16), (404, 16)] {
        assert!(harness.try_send());
        harness.now += ms(5);
        harness.end_oldest(&answer(status), ms(5));
        assert_eq!(harness.receiver.stats(harness.now).allowed, allowed, "after {status}");
    }
}

#[test]
fn refused_deliveries_do_not_change_the_state() {
    // At the limit of the endpoint, at a stalled receiver, and at an open breaker.
    let mut busy = Harness::warmed_up(1000, ms(800));
    while busy.try_send() {}
    let mut stalled = Harness::warmed_up(1000, ms(5));
    while stalled.try_send() {}
    stalled.now += ms(1_000);
    let mut broken = Harness::warmed_up(1000, ms(5));
    for _ in 0..5 {
        assert!(broken.try_send());
        broken.now += ms(15_000);
        broken.end_oldest(&timeout(), ms(15_000));
    }
    for (mut harness, reason) in
        [(busy, ParkReason::Concurrency), (stalled, ParkReason::Slow), (broken, ParkReason::Breaker)]
    {
        let request = AdmissionRequest { round: AskRound::Last, ..new_delivery() };
        let mut untouched =
            Harness { receiver: harness.receiver.clone(), endpoint: harness.endpoint.clone(), ..Harness::new() };
        untouched.now = harness.now;
        for _ in 0..1_000 {
            assert_eq!(
                harness.request_admission(&AdmissionRequest { parking: Parking::Blocked, ..request }),
                Admission::Refused(reason)
            );
        }
        assert_eq!(harness.receiver.stats(harness.now).parked, 0);
        assert_eq!(
            harness.request_admission(&request),
            untouched.request_admission(&request),
            "the park time does not depend on refused requests"
        );
        assert_eq!(harness.receiver.stats(harness.now).parked, 1);
    }
}

#[test]
fn an_unused_receiver_is_idle() {
    let mut harness = Harness::warmed_up(10, ms(5));
    assert!(!harness.receiver.is_idle(harness.now));
    harness.now += IDLE_TIMEOUT + ms(1);
    assert!(harness.receiver.is_idle(harness.now));
    assert!(harness.try_send());
    harness.now += IDLE_TIMEOUT + ms(1);
    assert!(!harness.receiver.is_idle(harness.now), "a request is in flight");
    let token = harness.in_flight.remove(0);
    harness.cancel(token);
    assert!(harness.receiver.is_idle(harness.now));
}

#[test]
fn stats_describe_the_receiver() {
    let mut harness = Harness::warmed_up(30, ms(20));
    assert!(harness.try_send());
    harness.now += ms(20);
    harness.end_oldest(&answer(500), ms(20));
    let stats = harness.receiver.stats(harness.now);
    assert_eq!((stats.breaker, stats.in_flight, stats.parked), (BreakerState::Closed, 0, 0));
    assert!(stats.failure_ratio.is_some_and(|ratio| (0.01..0.1).contains(&ratio)), "{stats:?}");
    assert!(stats.latency_ms.is_some_and(|latency| (latency - 20.0).abs() < 0.1), "{stats:?}");
    assert_eq!(stats.last_error.map(|error| (error.cause, error.status)), Some((Cause::Status5xx, Some(500))));
    assert_eq!(harness.receiver.stats(harness.now + ms(3_600_000)).failure_ratio, None, "too old");
    let healthy = Harness::warmed_up(30, ms(20)).receiver.stats(harness.now);
    assert!(harness.receiver.stats(harness.now).health_rank() < healthy.health_rank());
}

proptest! {
    /// For any steps: the requests in flight do not exceed the limits, each token is returned once, and park times are
    /// in range.
    #[test]
    fn limits_are_never_exceeded(
        steps in proptest::collection::vec((0_u8..8, 0_u64..3_000), 1..300),
        concurrency in 1_u32..20,
        webhook_concurrency in 1_u32..5,
    ) {
        let mut harness = Harness::new();
        let id = WebhookId::new("wh_1");
        let mut waiting = 0;
        for (step, milliseconds) in steps {
            harness.now += ms(milliseconds);
            let request = AdmissionRequest {
                limits: Limits { concurrency, per_second: (step == 0).then_some(5.0) },
                webhook: (step == 1).then_some((&id, Limits { concurrency: webhook_concurrency, per_second: None })),
                slow_budget: if step == 2 { SlowBudget::Limited } else { SlowBudget::Free },
                round: if waiting > 0 && step == 3 { AskRound::Last } else { AskRound::First },
                source: if milliseconds % 2 == 0 { Source::Event } else { Source::Retry },
                parking: if milliseconds % 3 == 0 { Parking::Blocked } else { Parking::Possible },
                jitter: 0.9,
            };
            match step {
                0..=3 => match harness.request_admission(&request) {
                    Admission::Refused(_) => prop_assert_eq!(request.parking, Parking::Blocked),
                    Admission::Send(token) => harness.in_flight.push(token),
                    Admission::Wait(time, _) => {
                        prop_assert!(time <= request.source.max_queue_delay());
                        waiting += 1;
                        harness.wait(WaitList::Receiver, Change::Begin);
                    }
                    Admission::Park(time, _) => {
                        prop_assert_eq!(request.parking, Parking::Possible);
                        prop_assert!((MIN_PARK_TIME..=MAX_PARK_TIME + ms(60_000)).contains(&time));
                    }
                },
                4 => drop(harness.end_oldest(&answer(200), ms(5))),
                5 => drop(harness.end_oldest(&answer(503), ms(5))),
                6 => drop(harness.end_oldest(&timeout(), ms(15_000))),
                _ => {
                    if let Some(token) = harness.in_flight.pop() {
                        harness.cancel(token);
                    }
                    if waiting > 0 {
                        waiting -= 1;
                        harness.wait(WaitList::Receiver, Change::End);
                    }
                }
            }
            prop_assert!(harness.in_flight.len() <= concurrency as usize);
            let webhook_count = harness.in_flight.iter().filter(|token| token.webhook.is_some()).count();
            prop_assert!(webhook_count <= webhook_concurrency as usize);
            let stats = harness.receiver.stats(harness.now);
            prop_assert_eq!(stats.in_flight as usize, harness.in_flight.len());
        }
        harness.now += ms(3_600_000);
        let last = AdmissionRequest { round: AskRound::Last, ..new_delivery() };
        let is_admitted = harness.in_flight.is_empty() && matches!(harness.request_admission(&last), Admission::Send(_));
        prop_assert!(!harness.in_flight.is_empty() || is_admitted, "open forever");
    }
}
