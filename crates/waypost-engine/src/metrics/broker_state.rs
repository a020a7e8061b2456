//! Metrics of the broker's objects and of the streams that a worker follows. They are updated when metrics are read.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use waypost_broker::topology_status::{ObjectKind, TopologyProblem, TopologyStatus};

use crate::view_sync::Followers;

pub struct BrokerState {
    repairs: IntCounterVec,
    problems: IntGaugeVec,
    followed: IntGaugeVec,
}

impl BrokerState {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Broker objects that were missing while this worker ran and were declared again";
        let repairs = IntCounterVec::new(Opts::new("waypost_topology_repairs_total", help), &["object"])?;
        let help = "Broker objects that are missing or have other arguments, which this worker cannot repair";
        let problems = IntGaugeVec::new(Opts::new("waypost_topology_problems", help), &["problem"])?;
        let help = "1 while this worker follows the stream, 0 if there was no sign of it for 30 s";
        let followed = IntGaugeVec::new(Opts::new("waypost_log_followed", help), &["log"])?;
        registry.register(Box::new(repairs.clone()))?;
        registry.register(Box::new(problems.clone()))?;
        registry.register(Box::new(followed.clone()))?;
        let state = Self { repairs, problems, followed };
        state.update_topology(&TopologyStatus::default());
        state.update_followers(&Followers::default());
        Ok(state)
    }

    pub fn update_topology(&self, status: &TopologyStatus) {
        for kind in ObjectKind::ALL {
            let repairs = self.repairs.with_label_values(&[kind.as_str()]);
            repairs.inc_by(status.repairs(kind).saturating_sub(repairs.get()));
        }
        let problems = status.problems();
        for label in TopologyProblem::LABELS {
            let count = problems.iter().filter(|problem| problem.label() == label).count();
            self.problems.with_label_values(&[label]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub fn update_followers(&self, followers: &Followers) {
        for (log, follower) in [("campaigns", &followers.campaigns), ("dead_letters", &followers.dead_letters)] {
            self.followed.with_label_values(&[log]).set(i64::from(follower.stall().is_none()));
        }
    }
}
