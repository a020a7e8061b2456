//! Finds messages that a quorum queue holds for consumers that no longer exist.
//!
//! RabbitMQ 3.10 can keep a consumer whose channel has ended, after its queue lost its leader. The queue then counts the
//! consumer's messages as unacknowledged and sends them to nobody, until another leader checks its consumers.

use std::fmt;

use serde_json::Value;

/// Messages of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldMessages {
    pub queue: String,
    /// Unacknowledged messages of the queue. Living consumers may have some of them.
    pub unacknowledged: u64,
    /// The node that leads the queue.
    pub leader: String,
}

impl fmt::Display for HeldMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, unacknowledged, leader } = self;
        write!(f, "{queue} on {leader}: a consumer no longer exists, {unacknowledged} messages are unacknowledged")
    }
}

/// Compares what the management API says of a queue with its list of consumers.
pub(crate) fn held_messages(queue: &str, info: &Value, consumers: &[Value]) -> Option<HeldMessages> {
    let unacknowledged = info["messages_unacknowledged"].as_u64().unwrap_or(0);
    let counted = info["consumers"].as_u64().unwrap_or(0);
    let listed = consumers.iter().filter(|consumer| consumer["queue"]["name"] == queue).count();
    let has_lost_consumer = counted > u64::try_from(listed).unwrap_or(u64::MAX);
    (unacknowledged > 0 && has_lost_consumer).then(|| HeldMessages {
        queue: queue.to_owned(),
        unacknowledged,
        leader: info["leader"].as_str().or(info["node"].as_str()).unwrap_or("an unknown node").to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_counted_consumer_that_is_not_listed_holds_messages() {
        let consumer = |queue: &str| json!({ "queue": { "name": queue } });
        let listed = [consumer("w.retries"), consumer("w.events"), consumer("w.retries")];
        let held = |consumers: u64, unacknowledged: u64| {
            let info =
                json!({ "consumers": consumers, "messages_unacknowledged": unacknowledged, "leader": "rabbit@b" });
            held_messages("w.retries", &info, &listed)
        };
        let expected = HeldMessages { queue: "w.retries".to_owned(), unacknowledged: 1, leader: "rabbit@b".to_owned() };
        assert_eq!(held(3, 1), Some(expected));
        assert_eq!(held(3, 0), None, "nothing is held");
        assert_eq!(held(2, 5), None, "living consumers have the messages");
    }
}
