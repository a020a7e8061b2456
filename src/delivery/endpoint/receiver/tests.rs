//! What a receiver lets through, step by step and whatever happens.

use proptest::prelude::*;

use super::super::{AskRound, Source};
use super::*;
use crate::delivery::outcome::Phase;

const LIMITS: Limits = Limits { concurrency: 64, per_second: None };

/// A receiver, the gate of its endpoint, and the time.
struct Stage {
    receiver: Receiver,
    endpoint: ConcurrencyLimiter,
    now: Duration,
    under_way: Vec<AdmissionToken>,
}

impl Stage {
    fn new() -> Self {
        Self {
            receiver: Receiver::default(),
            endpoint: ConcurrencyLimiter::default(),
            now: ms(1_000_000),
            under_way: Vec::new(),
        }
    }

    /// One that has answered as often, in this time, with as many at once as it may have.
    fn known(answers: u32, latency: Duration) -> Self {
        let mut stage = Self::new();
        for _ in 0..answers {
            while stage.sends() {}
            stage.now += latency;
            stage.ends(&answer(200), latency);
        }
        while stage.ends(&answer(200), latency) {}
        stage
    }

    fn ask(&mut self, ask: &AdmissionRequest<'_>) -> Admission {
        self.receiver.admit(&mut self.endpoint, ask, self.now)
    }

    /// Asks, and has the request under way where it may be sent.
    fn sends(&mut self) -> bool {
        match self.ask(&first()) {
            Admission::Send(pass) => {
                self.under_way.push(pass);
                true
            }
            Admission::Wait(..) | Admission::Park(..) | Admission::Refused(_) => false,
        }
    }

    /// Ends the oldest request, if there is one.
    fn ends(&mut self, reply: &Reply, took: Duration) -> bool {
        if self.under_way.is_empty() {
            return false;
        }
        let pass = self.under_way.remove(0);
        self.end(pass, reply, took);
        true
    }

    fn end(&mut self, pass: AdmissionToken, reply: &Reply, took: Duration) {
        self.receiver.ended(&mut self.endpoint, pass, reply, took, DateTime::UNIX_EPOCH, self.now);
    }

    fn give_up(&mut self, pass: AdmissionToken) {
        self.receiver.cancelled(&mut self.endpoint, pass, self.now);
    }

    fn wait(&mut self, queue: Queue, change: Change) {
        let gate = self.receiver.gate(&mut self.endpoint, queue, &WebhookId::new("wh"));
        match change {
            Change::Begin => gate.begin_waiting(),
            Change::End => gate.end_waiting(),
        }
    }

    fn parked(&mut self) -> (Duration, ParkReason) {
        match self.ask(&first()) {
            Admission::Park(time, why) => (time, why),
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

fn first() -> AdmissionRequest<'static> {
    AdmissionRequest {
        webhook: None,
        limits: LIMITS,
        slow_lane: SlowLane::Free,
        asking: AskRound::First,
        arrival: Source::Event,
        ladder: Ladder::Open,
        jitter: 0.5,
    }
}

fn answer(status: u16) -> Reply {
    Reply::Answer { status, retry_after: None, body: Vec::new() }
}

fn timeout() -> Reply {
    Reply::TimedOut { phase: Phase::Answering }
}

#[test]
fn an_unknown_endpoint_begins_with_a_few_and_has_more_with_each_answer() {
    let mut stage = Stage::new();
    while stage.sends() {}
    assert_eq!(stage.under_way.len(), 8);
    assert!(stage.under_way.iter().all(|pass| pass.lane == Lane::Slow), "nobody knows it yet");
    let mut at_once = Vec::new();
    for _ in 0..5 {
        stage.now += ms(5);
        for _ in 0..stage.under_way.len() {
            stage.ends(&answer(200), ms(5));
            while stage.sends() {}
        }
        at_once.push(stage.under_way.len());
    }
    assert_eq!(at_once, [16, 32, 64, 64, 64], "twice as many in the time of one answer, up to its limit");
    assert!(stage.under_way.iter().all(|pass| pass.lane == Lane::Quick));
}

#[test]
fn what_needs_few_at_once_is_not_given_many() {
    let mut stage = Stage::new();
    for _ in 0..1000 {
        assert!(stage.sends());
        stage.now += ms(5);
        stage.ends(&answer(200), ms(5));
    }
    while stage.sends() {}
    assert_eq!(stage.under_way.len(), 8);
}

#[test]
fn a_quick_endpoint_is_worth_waiting_for_and_a_slow_one_is_not() {
    let mut quick = Stage::known(1000, ms(5));
    while quick.sends() {}
    for _ in 0..500 {
        assert_eq!(quick.ask(&first()), Admission::Wait(Source::Event.patience(), Queue::Endpoint));
        quick.wait(Queue::Endpoint, Change::Begin);
    }
    let mut slow = Stage::known(1000, ms(800));
    while slow.sends() {}
    let mut waiting = 0;
    while let Admission::Wait(..) = slow.ask(&first()) {
        slow.wait(Queue::Endpoint, Change::Begin);
        waiting += 1;
    }
    assert!((10..40).contains(&waiting), "{waiting} wait for an endpoint of 80 answers a second");
    let from_the_ladder = AdmissionRequest { arrival: Source::Retry, ..first() };
    while let Admission::Wait(..) = slow.ask(&from_the_ladder) {
        slow.wait(Queue::Endpoint, Change::Begin);
        waiting += 1;
    }
    assert!((80..100).contains(&waiting), "the ladder's bunch of a second waits: {waiting} of 80 answers a second");
    let (time, why) = slow.parked();
    assert_eq!(why, ParkReason::Concurrency);
    assert!(time >= SHORTEST_PARKING);
    assert!(slow.parked().0 > time, "they come back one after the other");
}

#[test]
fn nobody_overtakes_those_that_wait() {
    let mut stage = Stage::known(100, ms(5));
    while stage.sends() {}
    assert_eq!(stage.ask(&first()), Admission::Wait(Source::Event.patience(), Queue::Endpoint));
    stage.wait(Queue::Endpoint, Change::Begin);
    stage.now += ms(5);
    stage.ends(&answer(200), ms(5));
    assert_eq!(stage.ask(&first()), Admission::Wait(Source::Event.patience(), Queue::Endpoint));
    assert!(matches!(stage.ask(&AdmissionRequest { asking: AskRound::Again, ..first() }), Admission::Send(_)));
    assert!(matches!(
        stage.ask(&AdmissionRequest { asking: AskRound::Last, ..first() }),
        Admission::Park(_, ParkReason::Concurrency)
    ));
}

#[test]
fn an_endpoint_that_hangs_is_parked_long_before_its_requests_time_out() {
    let mut stage = Stage::known(1000, ms(5));
    for _ in 0..8 {
        assert!(stage.sends());
        stage.now += ms(40);
    }
    assert_eq!(stage.parked().1, ParkReason::Slow, "nothing has come for 320 ms");
    let early = stage.parked().0;
    stage.now += ms(14_000);
    let late = stage.parked().0;
    assert!(early < late && late < ms(30_000), "{early:?} {late:?}: the longer it hangs the longer they wait");
    assert_eq!(stage.receiver.standing(stage.now).parked, 1, "the time of the first has come");
    for _ in 0..8 {
        stage.ends(&timeout(), ms(15_000));
    }
    assert_eq!((stage.receiver.breaker(), stage.parked().1), (BreakerState::Open, ParkReason::Breaker));
}

#[test]
fn after_an_outage_it_begins_with_one() {
    let mut stage = Stage::known(1000, ms(5));
    for _ in 0..5 {
        assert!(stage.sends());
        stage.now += ms(15_000);
        stage.ends(&timeout(), ms(15_000));
    }
    assert_eq!(stage.receiver.breaker(), BreakerState::Open);
    stage.now += ms(1_000);
    assert!(stage.sends(), "the probe");
    assert_eq!(stage.under_way[0].lane, Lane::Slow);
    assert!(!stage.sends(), "and no other");
    stage.ends(&answer(200), ms(5));
    assert_eq!(stage.receiver.breaker(), BreakerState::Closed);
    let mut at_once = Vec::new();
    for _ in 0..7 {
        while stage.sends() {}
        at_once.push(stage.under_way.len());
        stage.now += ms(5);
        for _ in 0..stage.under_way.len() {
            stage.ends(&answer(200), ms(5));
        }
    }
    assert_eq!(at_once[..3], [1, 2, 3], "{at_once:?}");
    assert!(at_once.is_sorted(), "{at_once:?}");
}

#[test]
fn slow_endpoints_share_a_part_of_the_window() {
    let lane = |slow_lane| AdmissionRequest { slow_lane, ..first() };
    let mut unknown = Stage::new();
    assert!(matches!(unknown.ask(&lane(SlowLane::Full)), Admission::Park(_, ParkReason::Slow)));
    let admitted = unknown.ask(&lane(SlowLane::Scarce));
    assert!(matches!(admitted, Admission::Send(_)), "the first request tells what it is");
    assert!(matches!(unknown.ask(&lane(SlowLane::Scarce)), Admission::Park(_, ParkReason::Slow)));
    let mut slow = Stage::known(50, ms(3_000));
    assert!(matches!(slow.ask(&lane(SlowLane::Scarce)), Admission::Send(AdmissionToken { lane: Lane::Slow, .. })));
    assert!(matches!(slow.ask(&lane(SlowLane::Full)), Admission::Park(_, ParkReason::Slow)));
    let mut quick = Stage::known(50, ms(30));
    assert!(matches!(quick.ask(&lane(SlowLane::Full)), Admission::Send(AdmissionToken { lane: Lane::Quick, .. })));
}

#[test]
fn a_webhooks_own_limits_hold_beside_its_endpoints() {
    let mut stage = Stage::known(100, ms(5));
    let (one, other) = (WebhookId::new("wh_1"), WebhookId::new("wh_2"));
    let limits = Limits { concurrency: 2, per_second: None };
    let limited = AdmissionRequest { webhook: Some((&one, limits)), ..first() };
    let passes: Vec<Admission> = (0..2).map(|_| stage.ask(&limited)).collect();
    assert!(passes.iter().all(|admission| matches!(admission, Admission::Send(_))));
    assert_eq!(stage.ask(&limited), Admission::Wait(Source::Event.patience(), Queue::Webhook));
    assert!(matches!(stage.ask(&AdmissionRequest { webhook: Some((&other, limits)), ..first() }), Admission::Send(_)));
    let rated =
        AdmissionRequest { webhook: Some((&other, Limits { concurrency: 9, per_second: Some(1.0) })), ..first() };
    assert!(matches!(stage.ask(&rated), Admission::Send(_)));
    let Admission::Park(time, ParkReason::RateLimit) = stage.ask(&rated) else { panic!("a second one in one second") };
    let Admission::Park(next, ParkReason::RateLimit) = stage.ask(&rated) else { panic!("a third one in one second") };
    assert_eq!(next - time, ms(1_000));
    for admission in passes {
        let Admission::Send(pass) = admission else { panic!("{admission:?}") };
        stage.end(pass, &answer(200), ms(5));
    }
    assert!(matches!(stage.ask(&limited), Admission::Send(_)));
}

#[test]
fn what_asks_for_less_has_less() {
    let mut stage = Stage::known(1000, ms(5));
    assert_eq!(stage.receiver.standing(stage.now).allowed, 65);
    for (status, allowed) in [(429, 32), (503, 16), (500, 16), (404, 16)] {
        assert!(stage.sends());
        stage.now += ms(5);
        stage.ends(&answer(status), ms(5));
        assert_eq!(stage.receiver.standing(stage.now).allowed, allowed, "after {status}");
    }
}

#[test]
fn what_cannot_be_parked_leaves_no_trace() {
    // At the endpoint's gate, at a receiver that has stalled, and at an open breaker.
    let mut busy = Stage::known(1000, ms(800));
    while busy.sends() {}
    let mut stalled = Stage::known(1000, ms(5));
    while stalled.sends() {}
    stalled.now += ms(1_000);
    let mut broken = Stage::known(1000, ms(5));
    for _ in 0..5 {
        assert!(broken.sends());
        broken.now += ms(15_000);
        broken.ends(&timeout(), ms(15_000));
    }
    for (mut stage, why) in
        [(busy, ParkReason::Concurrency), (stalled, ParkReason::Slow), (broken, ParkReason::Breaker)]
    {
        let ask = AdmissionRequest { asking: AskRound::Last, ..first() };
        let mut untouched =
            Stage { receiver: stage.receiver.clone(), endpoint: stage.endpoint.clone(), ..Stage::new() };
        untouched.now = stage.now;
        for _ in 0..1_000 {
            assert_eq!(stage.ask(&AdmissionRequest { ladder: Ladder::Closed, ..ask }), Admission::Refused(why));
        }
        assert_eq!(stage.receiver.standing(stage.now).parked, 0);
        assert_eq!(stage.ask(&ask), untouched.ask(&ask), "it comes back as if nobody had asked before");
        assert_eq!(stage.receiver.standing(stage.now).parked, 1);
    }
}

#[test]
fn it_is_forgotten_when_nothing_of_it_is_left() {
    let mut stage = Stage::known(10, ms(5));
    assert!(!stage.receiver.is_idle(stage.now));
    stage.now += IDLE + ms(1);
    assert!(stage.receiver.is_idle(stage.now));
    assert!(stage.sends());
    stage.now += IDLE + ms(1);
    assert!(!stage.receiver.is_idle(stage.now), "a request is under way");
    let pass = stage.under_way.remove(0);
    stage.give_up(pass);
    assert!(stage.receiver.is_idle(stage.now));
}

#[test]
fn how_it_stands() {
    let mut stage = Stage::known(30, ms(20));
    assert!(stage.sends());
    stage.now += ms(20);
    stage.ends(&answer(500), ms(20));
    let standing = stage.receiver.standing(stage.now);
    assert_eq!((standing.breaker, standing.in_flight, standing.parked), (BreakerState::Closed, 0, 0));
    assert!(standing.failure_ratio.is_some_and(|ratio| (0.01..0.1).contains(&ratio)), "{standing:?}");
    assert!(standing.latency_ms.is_some_and(|latency| (latency - 20.0).abs() < 0.1), "{standing:?}");
    assert_eq!(standing.last_error.map(|error| (error.cause, error.status)), Some((Cause::Status5xx, Some(500))));
    assert_eq!(stage.receiver.standing(stage.now + ms(3_600_000)).failure_ratio, None, "all has faded");
    let well = Stage::known(30, ms(20)).receiver.standing(stage.now);
    assert!(stage.receiver.standing(stage.now).health() < well.health());
}

proptest! {
    /// Whatever comes: no more under way than its limits, each request given back once, and nothing parked for longer
    /// than there is.
    #[test]
    fn its_limits_hold(
        steps in proptest::collection::vec((0_u8..8, 0_u64..3_000), 1..300),
        concurrency in 1_u32..20,
        own in 1_u32..5,
    ) {
        let mut stage = Stage::new();
        let id = WebhookId::new("wh_1");
        let mut waiting = 0;
        for (step, milliseconds) in steps {
            stage.now += ms(milliseconds);
            let ask = AdmissionRequest {
                limits: Limits { concurrency, per_second: (step == 0).then_some(5.0) },
                webhook: (step == 1).then_some((&id, Limits { concurrency: own, per_second: None })),
                slow_lane: if step == 2 { SlowLane::Scarce } else { SlowLane::Free },
                asking: if waiting > 0 && step == 3 { AskRound::Last } else { AskRound::First },
                arrival: if milliseconds % 2 == 0 { Source::Event } else { Source::Retry },
                ladder: if milliseconds % 3 == 0 { Ladder::Closed } else { Ladder::Open },
                jitter: 0.9,
            };
            match step {
                0..=3 => match stage.ask(&ask) {
                    Admission::Refused(_) => prop_assert_eq!(ask.ladder, Ladder::Closed),
                    Admission::Send(pass) => stage.under_way.push(pass),
                    Admission::Wait(time, _) => {
                        prop_assert!(time <= ask.arrival.patience());
                        waiting += 1;
                        stage.wait(Queue::Receiver, Change::Begin);
                    }
                    Admission::Park(time, _) => {
                        prop_assert_eq!(ask.ladder, Ladder::Open);
                        prop_assert!((SHORTEST_PARKING..=LONGEST_PARKING + ms(60_000)).contains(&time));
                    }
                },
                4 => drop(stage.ends(&answer(200), ms(5))),
                5 => drop(stage.ends(&answer(503), ms(5))),
                6 => drop(stage.ends(&timeout(), ms(15_000))),
                _ => {
                    if let Some(pass) = stage.under_way.pop() {
                        stage.give_up(pass);
                    }
                    if waiting > 0 {
                        waiting -= 1;
                        stage.wait(Queue::Receiver, Change::End);
                    }
                }
            }
            prop_assert!(stage.under_way.len() <= concurrency as usize);
            let of_webhook = stage.under_way.iter().filter(|pass| pass.webhook.is_some()).count();
            prop_assert!(of_webhook <= own as usize);
            let standing = stage.receiver.standing(stage.now);
            prop_assert_eq!(standing.in_flight as usize, stage.under_way.len());
        }
        stage.now += ms(3_600_000);
        let last = AdmissionRequest { asking: AskRound::Last, ..first() };
        prop_assert!(!stage.under_way.is_empty() || matches!(stage.ask(&last), Admission::Send(_)), "shut for good");
    }
}
