//! Carries the schedule out: does what a fault says, waits until it is over, and makes all as it was before.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{sleep, sleep_until};

use super::books::{Books, Happened};
use super::fault::{Fault, Lane};
use super::scene::{Scene, is_ready};
use super::schedule::Injection;
use super::small_disk;
use crate::support::Waypost;
use crate::support::network::NetworkFault;
use crate::support::until::poll;

/// A worker that is asked to stop has stopped within its grace of 3 s and six more; the rest is for a busy machine.
const STOPS_WITHIN: Duration = Duration::from_secs(25);

const SIGTERM: i32 = 15;

/// So many seconds a clock jumps. Retries that the worker then has in hand can be late by as much.
const JUMP: u32 = 15;

/// How late what passes a slow connection is, in each direction.
const SLOW: Duration = Duration::from_millis(150);

/// Of a hundred.
const PACKETS_LOST: u8 = 20;

/// A node that paused itself runs again once the network is whole.
const PAUSE_ENDS_WITHIN: Duration = Duration::from_secs(120);

/// Less than any node uses.
const NO_MEMORY: [&str; 3] = ["set_vm_memory_high_watermark", "absolute", "1MB"];
const USUAL_MEMORY: [&str; 2] = ["set_vm_memory_high_watermark", "0.4"];

/// Injects the faults of a lane, one after the other.
pub(crate) async fn inject(scene: &Scene, lane: &[Injection]) {
    let books = &scene.books;
    for injection in lane {
        let lane = injection.fault.lane();
        sleep_until(books.at(injection.begins)).await;
        if lane == Lane::Workers {
            scene.mind_workers();
        }
        let begins = books.now();
        let injecting = async {
            match lane {
                Lane::Workers => worker(scene, injection).await,
                Lane::Nodes => node(scene, injection).await,
                Lane::Lines => line(scene, injection).await,
                Lane::Receivers => {
                    let endpoint = &scene.endpoints[injection.whom];
                    endpoint.set_mood(Some(injection.fault));
                    sleep(injection.lasts).await;
                    endpoint.set_mood(None);
                }
            }
        };
        books.doing(&format!("{} ({})", injection.fault.name(), injection.whom), injecting).await;
        books.pages().happened.push(Happened { fault: injection.fault, begins, ends: books.now() });
    }
}

/// What befalls a worker. Each ends with the worker running as before.
async fn worker(scene: &Scene, injection: &Injection) {
    let Injection { fault, whom, lasts, .. } = *injection;
    let worker = &scene.workers[whom];
    match fault {
        Fault::ClockAhead => return clock(scene, '+', lasts).await,
        Fault::ClockBehind => return clock(scene, '-', lasts).await,
        Fault::WorkerFrozen => {
            worker.freeze();
            sleep(lasts).await;
            return worker.thaw();
        }
        Fault::DiskFull => fill_disk(worker, lasts, &scene.books).await,
        Fault::WorkerStopped => {
            stop(worker, &scene.books).await;
            sleep(lasts).await;
        }
        _ => {
            worker.kill().await;
            if fault == Fault::StoreLost {
                std::fs::remove_dir_all(worker.store_path()).expect("the store is removed");
            }
            sleep(lasts).await;
        }
    }
    worker.relaunch(&[]);
}

async fn clock(scene: &Scene, sign: char, lasts: Duration) {
    let Some(clock) = &scene.clock else { return };
    clock.set(&format!("{sign}{JUMP}"));
    sleep(lasts).await;
    clock.set("+0");
}

/// Gives a worker a small disk, fills it, and waits until the worker has ended of it.
async fn fill_disk(worker: &Waypost, lasts: Duration, books: &Books) {
    worker.kill().await;
    let store = worker.store_path();
    std::fs::create_dir_all(&store).expect("the store's folder");
    worker.relaunch(&small_disk::launcher(&store.display().to_string()));
    // Full before it has anything on it, it would prove little.
    poll(lasts, async || is_ready(worker).await.then_some(())).await;
    if !small_disk::fill(worker.pid(), &store) {
        books.incident("the small disk was not to be had");
    }
    match poll(lasts, async || worker.ended_by_itself()).await {
        Some(status) if status.code() == Some(1) => {
            let last = worker.lines().into_iter().rev().find(|line| line.starts_with("error"));
            books.remark(&format!("a worker whose disk was full: {}", last.unwrap_or_default()));
        }
        Some(status) => books.incident(&format!("a worker with a full disk ended with {status}")),
        None => {
            books.remark("a worker had no need of the room that was taken from it, and was killed");
            worker.kill().await;
        }
    }
}

/// Asks a worker to stop.
async fn stop(worker: &Waypost, books: &Books) {
    worker.terminate();
    match poll(STOPS_WITHIN, async || worker.ended_by_itself()).await {
        Some(status) if status.success() => {}
        // It had only just been started, and did not listen to signals yet.
        Some(status) if status.signal() == Some(SIGTERM) => books.remark("a worker was stopped before it had begun"),
        Some(status) => books.incident(&format!("a worker that was to stop ended with {status}")),
        None => {
            books.incident(&format!("a worker that was to stop had not after {STOPS_WITHIN:?}"));
            worker.kill().await;
        }
    }
}

/// What befalls the cluster. It ends with all nodes running.
async fn node(scene: &Scene, injection: &Injection) {
    let nodes = scene.cluster.nodes();
    let node = &nodes[injection.whom];
    let mut killed = vec![node];
    match injection.fault {
        Fault::MemoryAlarm => {
            // The node may have paused itself, and runs no command meanwhile.
            let run = async |command: &[&str]| {
                let done = poll(PAUSE_ENDS_WITHIN, async || node.try_ctl(command).await.ok()).await;
                if done.is_none() {
                    scene.books.remark(&format!("{} ran no command for {PAUSE_ENDS_WITHIN:?}", node.name()));
                }
                done
            };
            if run(&NO_MEMORY).await.is_some() {
                sleep(injection.lasts).await;
                run(&USUAL_MEMORY).await;
            }
            return;
        }
        Fault::NodeFrozen => {
            node.freeze();
            sleep(injection.lasts).await;
            node.thaw();
            return;
        }
        fault if Fault::OF_THE_NETWORK.contains(&fault) => return network(scene, injection).await,
        Fault::LeaderKilled => match scene.cluster.leader_of(&scene.events()).await {
            Some(leader) => killed = vec![&nodes[leader]],
            None => scene.books.remark("nobody knew the queue's leader: another node was killed"),
        },
        Fault::ClusterKilled => killed = nodes.iter().collect(),
        _ => {}
    }
    join_all(killed.iter().map(|killed| killed.kill())).await;
    sleep(injection.lasts).await;
    // Together: the first to come back waits for others.
    join_all(killed.iter().map(|killed| killed.start())).await;
}

/// What befalls the network between nodes, or the disk of one. It ends with all as before.
async fn network(scene: &Scene, injection: &Injection) {
    let (nodes, Some(network)) = (scene.cluster.nodes(), scene.cluster.network()) else { return };
    let host = injection.whom;
    let fault = match injection.fault {
        Fault::NodePartitioned => NetworkFault::Partition(host),
        Fault::NodeOneWay => NetworkFault::OneWay(host, (host + 1) % nodes.len()),
        Fault::NodeLoses => NetworkFault::Loss(host, PACKETS_LOST),
        Fault::NodeLate => NetworkFault::Delay(host),
        _ => NetworkFault::SlowDisk(host, nodes[host].pid()),
    };
    match network.inject(&fault).await {
        Ok(()) => sleep(injection.lasts).await,
        Err(error) => scene.books.incident(&error),
    }
    network.heal().await;
}

/// What befalls a connection to the broker.
async fn line(scene: &Scene, injection: &Injection) {
    let line = &scene.lines[injection.whom];
    match injection.fault {
        Fault::ConnectionsCut => line.refuse(),
        Fault::ConnectionsSlow => line.delay(SLOW),
        _ => line.stall(),
    }
    sleep(injection.lasts).await;
    line.resume();
}
