//! Acknowledges many messages with one frame.

use std::collections::VecDeque;
use std::time::Duration;

use lapin::Channel;
use lapin::options::BasicAckOptions;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// Acknowledgements are batched for this time.
const FLUSH_INTERVAL: Duration = Duration::from_millis(2);

/// The acknowledgement state of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InHand,
    /// Finished since the last flush.
    Fresh,
    /// Finished before the last flush, behind an unfinished message.
    Stuck,
    Acknowledged,
}

/// Acknowledges the finished prefix with one frame, and messages that waited behind an unfinished one with single
/// frames.
pub(super) async fn acknowledge(channel: Channel, mut tags: mpsc::UnboundedReceiver<u64>) {
    let (mut first, mut window) = (1_u64, VecDeque::<State>::new());
    let mut finished = Vec::new();
    let mut flush = tokio::time::interval(FLUSH_INTERVAL);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let waiting = window.iter().any(|state| matches!(state, State::Fresh | State::Stuck));
        if !waiting && tags.recv_many(&mut finished, 4096).await == 0 {
            return;
        }
        flush.tick().await;
        while let Ok(tag) = tags.try_recv() {
            finished.push(tag);
        }
        for tag in finished.drain(..) {
            let place = usize::try_from(tag - first).expect("a window fits into memory");
            if window.len() <= place {
                window.resize(place + 1, State::InHand);
            }
            window[place] = State::Fresh;
        }
        let mut prefix = None;
        while let Some(state) = window.pop_front_if(|state| *state != State::InHand) {
            // The broker closes the channel if a tag is acknowledged twice.
            if state != State::Acknowledged {
                prefix = Some(first);
            }
            first += 1;
        }
        if let Some(tag) = prefix {
            channel.basic_ack(tag, BasicAckOptions { multiple: true }).await.expect("an acknowledgement");
        }
        for (tag, state) in (first..).zip(&mut window) {
            match state {
                State::Stuck => {
                    channel.basic_ack(tag, BasicAckOptions { multiple: false }).await.expect("an acknowledgement");
                    *state = State::Acknowledged;
                }
                State::Fresh => *state = State::Stuck,
                State::InHand | State::Acknowledged => {}
            }
        }
    }
}
