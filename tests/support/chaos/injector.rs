//! Executes the schedule: starts each fault, waits for its duration, and restores the previous state.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{sleep, sleep_until};

use super::fault::{Fault, Lane};
use super::ledger::{InjectedFault, Ledger};
use super::schedule::Injection;
use super::setup::{ChaosSetup, is_ready};
use super::small_disk;
use crate::support::Waypost;
use crate::support::network::NetworkFault;
use crate::support::wait::poll_until;

/// A worker stops within its grace of 3 s and 6 s for closing. The rest is for a busy machine.
const WORKER_STOP_TIMEOUT: Duration = Duration::from_secs(25);

const SIGTERM: i32 = 15;

/// The size of a clock jump. Retries in flight can be late by this time.
const CLOCK_JUMP_SECONDS: u32 = 15;

/// The delay of a slow connection, in each direction.
const CONNECTION_DELAY: Duration = Duration::from_millis(150);

const PACKET_LOSS_PERCENT: u8 = 20;

/// A node that paused itself resumes within this time after the network is restored.
const PAUSE_ENDS_WITHIN: Duration = Duration::from_secs(120);

/// Less memory than any node uses.
const LOW_MEMORY_WATERMARK: [&str; 3] = ["set_vm_memory_high_watermark", "absolute", "1MB"];
const DEFAULT_MEMORY_WATERMARK: [&str; 2] = ["set_vm_memory_high_watermark", "0.4"];

/// Injects the faults of a lane, one after the other.
pub(crate) async fn inject_faults(setup: &ChaosSetup, lane: &[Injection]) {
    let ledger = &setup.ledger;
    for injection in lane {
        let lane = injection.fault.lane();
        sleep_until(ledger.instant_at(injection.starts_at)).await;
        if lane == Lane::Workers {
            setup.restart_ended_workers();
        }
        let begins = ledger.elapsed();
        let injecting = async {
            match lane {
                Lane::Workers => inject_worker_fault(setup, injection).await,
                Lane::Nodes => inject_node_fault(setup, injection).await,
                Lane::Connections => inject_connection_fault(setup, injection).await,
                Lane::Receivers => {
                    let endpoint = &setup.receivers[injection.target];
                    endpoint.set_fault(Some(injection.fault));
                    sleep(injection.duration).await;
                    endpoint.set_fault(None);
                }
            }
        };
        ledger.track(&format!("{} ({})", injection.fault.name(), injection.target), injecting).await;
        ledger.lock_entries().faults.push(InjectedFault {
            fault: injection.fault,
            started_at: begins,
            ended_at: ledger.elapsed(),
        });
    }
}

/// Injects a fault of a worker. The worker runs again when this returns.
async fn inject_worker_fault(setup: &ChaosSetup, injection: &Injection) {
    let Injection { fault, target, duration, .. } = *injection;
    let worker = &setup.workers[target];
    match fault {
        Fault::ClockAhead => return inject_clock_jump(setup, '+', duration).await,
        Fault::ClockBehind => return inject_clock_jump(setup, '-', duration).await,
        Fault::WorkerFrozen => {
            worker.suspend();
            sleep(duration).await;
            return worker.resume();
        }
        Fault::DiskFull => fill_disk(worker, duration, &setup.ledger).await,
        Fault::WorkerStopped => {
            stop_worker(worker, &setup.ledger).await;
            sleep(duration).await;
        }
        _ => {
            worker.kill().await;
            if fault == Fault::StoreLost {
                std::fs::remove_dir_all(worker.store_path()).expect("the store is removed");
            }
            sleep(duration).await;
        }
    }
    worker.relaunch(&[]);
}

async fn inject_clock_jump(setup: &ChaosSetup, sign: char, duration: Duration) {
    let Some(clock) = &setup.clock else { return };
    clock.set_offset(&format!("{sign}{CLOCK_JUMP_SECONDS}"));
    sleep(duration).await;
    clock.set_offset("+0");
}

/// Gives a worker a small disk, fills it, and waits until the worker exits because of it.
async fn fill_disk(worker: &Waypost, duration: Duration, ledger: &Ledger) {
    worker.kill().await;
    let store = worker.store_path();
    std::fs::create_dir_all(&store).expect("the store's folder");
    worker.relaunch(&small_disk::launcher(&store.display().to_string()));
    // Filling the disk proves little before the worker has written to it.
    poll_until(duration, async || is_ready(worker).await.then_some(())).await;
    if !small_disk::fill(worker.pid(), &store) {
        ledger.record_incident("the small disk was not to be had");
    }
    match poll_until(duration, async || worker.take_exit_status()).await {
        Some(status) if status.code() == Some(1) => {
            let last = worker.log_lines().into_iter().rev().find(|line| line.starts_with("error"));
            ledger.record_note(&format!("a worker whose disk was full: {}", last.unwrap_or_default()));
        }
        Some(status) => ledger.record_incident(&format!("a worker with a full disk ended with {status}")),
        None => {
            ledger.record_note("a worker had no need of the room that was taken from it, and was killed");
            worker.kill().await;
        }
    }
}

/// Stops a worker with SIGTERM.
async fn stop_worker(worker: &Waypost, ledger: &Ledger) {
    worker.terminate();
    match poll_until(WORKER_STOP_TIMEOUT, async || worker.take_exit_status()).await {
        Some(status) if status.success() => {}
        // A process that just started does not handle signals yet.
        Some(status) if status.signal() == Some(SIGTERM) => {
            ledger.record_note("a worker was stopped before it had begun")
        }
        Some(status) => ledger.record_incident(&format!("a worker that was to stop ended with {status}")),
        None => {
            ledger.record_incident(&format!("a worker that was to stop had not after {WORKER_STOP_TIMEOUT:?}"));
            worker.kill().await;
        }
    }
}

/// Injects a fault of the cluster. All nodes run again when this returns.
async fn inject_node_fault(setup: &ChaosSetup, injection: &Injection) {
    let nodes = setup.cluster.nodes();
    let node = &nodes[injection.target];
    let mut killed = vec![node];
    match injection.fault {
        Fault::MemoryAlarm => {
            // The node may have paused itself, and then runs no command.
            let run = async |command: &[&str]| {
                let done = poll_until(PAUSE_ENDS_WITHIN, async || node.try_ctl(command).await.ok()).await;
                if done.is_none() {
                    setup.ledger.record_note(&format!("{} ran no command for {PAUSE_ENDS_WITHIN:?}", node.name()));
                }
                done
            };
            if run(&LOW_MEMORY_WATERMARK).await.is_some() {
                sleep(injection.duration).await;
                run(&DEFAULT_MEMORY_WATERMARK).await;
            }
            return;
        }
        Fault::NodeFrozen => {
            node.suspend();
            sleep(injection.duration).await;
            node.resume();
            return;
        }
        fault if Fault::NETWORK_FAULTS.contains(&fault) => return inject_network_fault(setup, injection).await,
        Fault::LeaderKilled => match setup.cluster.leader_of(&setup.events()).await {
            Some(leader) => killed = vec![&nodes[leader]],
            None => setup.ledger.record_note("nobody knew the queue's leader: another node was killed"),
        },
        Fault::ClusterKilled => killed = nodes.iter().collect(),
        _ => {}
    }
    join_all(killed.iter().map(|killed| killed.kill())).await;
    sleep(injection.duration).await;
    // Starts all nodes at once, because the first to start waits for the others.
    join_all(killed.iter().map(|killed| killed.start())).await;
}

/// Injects a fault of the network or of a node's disk. The fault is over when this returns.
async fn inject_network_fault(setup: &ChaosSetup, injection: &Injection) {
    let (nodes, Some(network)) = (setup.cluster.nodes(), setup.cluster.network()) else { return };
    let host = injection.target;
    let fault = match injection.fault {
        Fault::NodePartitioned => NetworkFault::Partition(host),
        Fault::NodeOneWayPartition => NetworkFault::OneWayPartition(host, (host + 1) % nodes.len()),
        Fault::NodePacketLoss => NetworkFault::Loss(host, PACKET_LOSS_PERCENT),
        Fault::NodePacketDelay => NetworkFault::Delay(host),
        _ => NetworkFault::SlowDisk(host, nodes[host].pid()),
    };
    match network.inject(&fault).await {
        Ok(()) => sleep(injection.duration).await,
        Err(error) => setup.ledger.record_incident(&error),
    }
    network.heal().await;
}

/// Injects a fault of a connection to the broker.
async fn inject_connection_fault(setup: &ChaosSetup, injection: &Injection) {
    let line = &setup.proxies[injection.target];
    match injection.fault {
        Fault::ConnectionsCut => line.refuse(),
        Fault::ConnectionsSlow => line.delay(CONNECTION_DELAY),
        _ => line.stall(),
    }
    sleep(injection.duration).await;
    line.resume();
}
