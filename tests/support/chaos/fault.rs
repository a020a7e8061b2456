//! The kinds of faults, their lanes and their durations.

use std::time::Duration;

/// A kind of fault, in the order of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    /// `kill -9` of a worker, then a restart with its store.
    WorkerKilled,
    /// SIGTERM to a worker, then a restart.
    WorkerStopped,
    /// SIGSTOP of a worker, then SIGCONT.
    WorkerFrozen,
    /// `kill -9` of a worker and deletion of its store, then a restart.
    StoreLost,
    /// The disk of a worker's store fills up, then a restart with free space.
    DiskFull,
    /// A worker's clock jumps forward, and back at the end.
    ClockAhead,
    /// A worker's clock jumps back, and forward at the end.
    ClockBehind,
    /// `kill -9` of a broker node, then a restart.
    NodeKilled,
    /// `kill -9` of the node that leads the queue of events, then a restart.
    LeaderKilled,
    /// `kill -9` of all nodes at once, then a restart.
    ClusterKilled,
    /// SIGSTOP of a node, then SIGCONT.
    NodeFrozen,
    /// A node raises the memory alarm, so the cluster accepts no messages.
    MemoryAlarm,
    /// A node can't reach the other nodes. Clients still reach it.
    NodePartitioned,
    /// Packets from one node to another are lost, but not in the other direction.
    NodeOneWayPartition,
    /// A fifth of a node's packets are lost.
    NodePacketLoss,
    /// A node's packets are delayed.
    NodePacketDelay,
    /// A node writes to its disk slowly.
    NodeDiskSlow,
    /// All connections of a worker or a publisher are cut, and new ones are refused for a while.
    ConnectionsCut,
    /// The connections of a worker or a publisher are slow.
    ConnectionsSlow,
    /// Connections stay open but forward nothing.
    ConnectionsStalled,
    /// A receiver answers 500.
    ReceiverFails,
    /// A receiver answers 429 with `Retry-After`.
    ReceiverRateLimits,
    /// A receiver answers 410.
    ReceiverGone,
    /// A receiver never answers.
    ReceiverHangs,
    /// A receiver resets connections.
    ReceiverResets,
    /// A receiver sends its answers one byte at a time.
    ReceiverTrickles,
    /// A receiver sends answers without an end.
    ReceiverNeverEnds,
}

/// Faults of one lane run one after the other. Lanes run concurrently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Workers,
    Nodes,
    Connections,
    Receivers,
}

impl Fault {
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

    /// Faults that need a network of their own for the nodes ([`crate::support::network`]).
    pub(crate) const NETWORK_FAULTS: [Self; 5] = [
        Self::NodePartitioned,
        Self::NodeOneWayPartition,
        Self::NodePacketLoss,
        Self::NodePacketDelay,
        Self::NodeDiskSlow,
    ];

    /// All faults of nodes are in one lane. So either one node or all nodes are down, because two of three would stop
    /// the cluster.
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

    /// The minimum and maximum duration. A process that is restarted is down for this time, and the start takes
    /// additional time.
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

    /// The name in tables.
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
