//! What is done to the system: every kind of fault, whom it can befall, and for how long.

use std::time::Duration;

/// A kind of fault, in the order of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    /// `kill -9` of a worker; it is started again with its store.
    WorkerKilled,
    /// SIGTERM to a worker; it is started again.
    WorkerStopped,
    /// A worker stands still (SIGSTOP), and then goes on as if nothing had been.
    WorkerFrozen,
    /// `kill -9` of a worker, and its store is gone.
    StoreLost,
    /// A worker's store is on a disk that fills up; it is started again with room.
    DiskFull,
    /// A worker's clock jumps forward, and back at the end.
    ClockAhead,
    /// A worker's clock jumps back, and forward at the end.
    ClockBehind,
    /// `kill -9` of a broker's node; it is started again.
    NodeKilled,
    /// The same, of the node that leads the queue of events.
    LeaderKilled,
    /// `kill -9` of all nodes at once; they are started again.
    ClusterKilled,
    /// A node stands still (SIGSTOP), and then goes on.
    NodeFrozen,
    /// A node is short of memory: the cluster takes no messages.
    MemoryAlarm,
    /// A node is cut off from the others; clients still reach it.
    NodePartitioned,
    /// What one node sends to another is lost, and the other way it arrives.
    NodeOneWayPartition,
    /// A fifth of a node's packets are lost.
    NodePacketLoss,
    /// A node's packets are late.
    NodePacketDelay,
    /// A node writes to its disk slowly.
    NodeDiskSlow,
    /// All connections of a worker or a publisher are cut, and new ones refused for a while.
    ConnectionsCut,
    /// What a worker or a publisher sends and gets is late.
    ConnectionsSlow,
    /// Connections stay open, and nothing passes.
    ConnectionsStalled,
    /// A receiver answers 500.
    ReceiverFails,
    /// A receiver answers 429, and when to come again.
    ReceiverRateLimits,
    /// A receiver answers 410.
    ReceiverGone,
    /// A receiver takes requests and never answers.
    ReceiverHangs,
    /// A receiver resets connections.
    ReceiverResets,
    /// A receiver's answers, good and bad, come a byte at a time.
    ReceiverTrickles,
    /// A receiver's answers, good and bad, have no end.
    ReceiverNeverEnds,
}

/// Faults of one lane come one after the other; lanes go side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Workers,
    Nodes,
    Connections,
    Receivers,
}

impl Fault {
    /// All there are.
    pub(crate) const ALL: [Self; 27] = [
        Self::WorkerKilled,
        Self::WorkerStopped,
        Self::WorkerFrozen,
        Self::StoreLost,
        Self::DiskFull,
        Self::ClockAhead,
        Self::ClockBehind,
        Self::NodeKilled,
        Self::LeaderKilled,
        Self::ClusterKilled,
        Self::NodeFrozen,
        Self::MemoryAlarm,
        Self::NodePartitioned,
        Self::NodeOneWayPartition,
        Self::NodePacketLoss,
        Self::NodePacketDelay,
        Self::NodeDiskSlow,
        Self::ConnectionsCut,
        Self::ConnectionsSlow,
        Self::ConnectionsStalled,
        Self::ReceiverFails,
        Self::ReceiverRateLimits,
        Self::ReceiverGone,
        Self::ReceiverHangs,
        Self::ReceiverResets,
        Self::ReceiverTrickles,
        Self::ReceiverNeverEnds,
    ];

    /// Those that need a network of the nodes' own ([`crate::support::network`]).
    pub(crate) const NETWORK_FAULTS: [Self; 5] = [
        Self::NodePartitioned,
        Self::NodeOneWayPartition,
        Self::NodePacketLoss,
        Self::NodePacketDelay,
        Self::NodeDiskSlow,
    ];

    /// The lane it belongs to. So one node at a time is away, or all: two of three would be no cluster.
    pub(crate) fn lane(self) -> Lane {
        match self {
            Self::WorkerKilled
            | Self::WorkerStopped
            | Self::WorkerFrozen
            | Self::StoreLost
            | Self::DiskFull
            | Self::ClockAhead
            | Self::ClockBehind => Lane::Workers,
            Self::NodeKilled
            | Self::LeaderKilled
            | Self::ClusterKilled
            | Self::NodeFrozen
            | Self::MemoryAlarm
            | Self::NodePartitioned
            | Self::NodeOneWayPartition
            | Self::NodePacketLoss
            | Self::NodePacketDelay
            | Self::NodeDiskSlow => Lane::Nodes,
            Self::ConnectionsCut | Self::ConnectionsSlow | Self::ConnectionsStalled => Lane::Connections,
            Self::ReceiverFails
            | Self::ReceiverRateLimits
            | Self::ReceiverGone
            | Self::ReceiverHangs
            | Self::ReceiverResets
            | Self::ReceiverTrickles
            | Self::ReceiverNeverEnds => Lane::Receivers,
        }
    }

    /// How long it lasts, at least and at most. What is started again is away for this long; the start itself comes on
    /// top of it.
    pub(crate) fn duration_range(self) -> (Duration, Duration) {
        let (least, most) = match self {
            Self::WorkerKilled | Self::WorkerStopped | Self::StoreLost => (200, 3_000),
            Self::WorkerFrozen => (2_000, 25_000),
            Self::NodeFrozen => (2_000, 20_000),
            Self::DiskFull => (15_000, 25_000),
            Self::ClockAhead | Self::ClockBehind => (4_000, 10_000),
            Self::NodeKilled | Self::LeaderKilled | Self::ClusterKilled => (1_000, 5_000),
            Self::MemoryAlarm => (3_000, 8_000),
            Self::NodePartitioned | Self::NodeOneWayPartition => (2_000, 20_000),
            Self::NodePacketLoss | Self::NodePacketDelay | Self::NodeDiskSlow => (5_000, 15_000),
            Self::ConnectionsCut => (0, 2_000),
            Self::ConnectionsSlow => (3_000, 8_000),
            Self::ConnectionsStalled => (3_000, 25_000),
            Self::ReceiverGone => (500, 2_000),
            Self::ReceiverFails
            | Self::ReceiverRateLimits
            | Self::ReceiverHangs
            | Self::ReceiverResets
            | Self::ReceiverTrickles
            | Self::ReceiverNeverEnds => (2_000, 10_000),
        };
        (Duration::from_millis(least), Duration::from_millis(most))
    }

    /// In a table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WorkerKilled => "worker killed (kill -9)",
            Self::WorkerStopped => "worker stopped (SIGTERM)",
            Self::WorkerFrozen => "worker frozen (SIGSTOP)",
            Self::StoreLost => "worker killed, its store lost",
            Self::DiskFull => "a worker's disk full",
            Self::ClockAhead => "a worker's clock jumps ahead",
            Self::ClockBehind => "a worker's clock jumps back",
            Self::NodeKilled => "broker node killed (kill -9)",
            Self::LeaderKilled => "the queue leader's node killed",
            Self::ClusterKilled => "all nodes killed at once",
            Self::NodeFrozen => "broker node frozen (SIGSTOP)",
            Self::MemoryAlarm => "memory alarm (connection.blocked)",
            Self::NodePartitioned => "node cut off from the others",
            Self::NodeOneWayPartition => "one-way loss between nodes",
            Self::NodePacketLoss => "a node loses packets (20 %)",
            Self::NodePacketDelay => "a node's packets are late",
            Self::NodeDiskSlow => "a node's disk is slow",
            Self::ConnectionsCut => "connections cut",
            Self::ConnectionsSlow => "connections slow",
            Self::ConnectionsStalled => "connections stalled",
            Self::ReceiverFails => "receiver answers 500",
            Self::ReceiverRateLimits => "receiver answers 429",
            Self::ReceiverGone => "receiver answers 410",
            Self::ReceiverHangs => "receiver hangs",
            Self::ReceiverResets => "receiver resets",
            Self::ReceiverTrickles => "receiver drips",
            Self::ReceiverNeverEnds => "receiver never ends",
        }
    }
}
