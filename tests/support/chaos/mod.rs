//! The drill: workers against a cluster, with publishers and receivers around them, and faults injected by a schedule that
//! follows from a seed. At the end all is healed, and an account tells what became of every event; it is taken from the
//! publishers', the receivers' and the broker's records, and from nothing a worker says.
//!
//! Pure: [`schedule`] (what befalls whom and when), [`load`] (what is published), [`account`], [`orders`], [`unseen`] and [`stalls`]
//! (what came of it). The rest does it: [`scene`] sets up, [`publisher`], [`receivers`] and [`operator`] take part, [`injector`]
//! injects, [`settling`] waits for the end, [`views`] reads what the workers then show.

pub(crate) mod account;
pub(crate) mod books;
mod chance;
mod clock;
pub(crate) mod fault;
mod injector;
mod letters;
mod load;
mod operator;
pub(crate) mod orders;
mod publisher;
mod receivers;
mod scene;
mod schedule;
mod settling;
mod small_disk;
pub(crate) mod stalls;
mod streams;
mod tls;
mod unseen;
mod views;
mod witness;

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::interval;

use super::network::{Delay, Network};
use super::{Amqp, Broker, Waypost};
use account::Account;
use books::{Answered, Books, Pages, Published};
use fault::Fault;
use operator::Operator;
use orders::OrderAccount;
use publisher::Publisher;
use scene::Scene;
pub(crate) use schedule::Manner;
pub(crate) use settling::Settled;
use views::View;
pub(crate) use witness::Testimony;

/// What is to be done.
#[derive(Debug, Clone)]
pub(crate) struct Drill {
    /// All chance follows from it.
    pub(crate) seed: u64,
    /// How long events are published and faults injected.
    pub(crate) length: Duration,
    pub(crate) manner: Manner,
    pub(crate) nodes: usize,
    pub(crate) workers: usize,
    pub(crate) publishers: usize,
    pub(crate) receivers: usize,
    /// Events a second, of all publishers together.
    pub(crate) per_second: u32,
    /// Whether the workers speak to the broker over TLS.
    pub(crate) tls: bool,
    /// What is not to be done.
    pub(crate) left_out: Vec<Fault>,
}

/// Events of a drill whose workers write a line for each delivery. With more of them the lines would fill the memory.
const MAX_LOGGED_EVENTS: u64 = 100_000;

impl Drill {
    /// Whether the workers write a line for each delivery.
    fn logs_deliveries(&self) -> bool {
        u64::from(self.per_second) * self.length.as_secs() <= MAX_LOGGED_EVENTS
    }
}

/// How far it is.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub(crate) now: Duration,
    pub(crate) published: usize,
    pub(crate) accepted: usize,
    pub(crate) faults: usize,
    /// What is being done.
    pub(crate) under_way: Vec<String>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) account: Account,
    /// What became of replays, discards and changes of campaigns, and whether workers show every dead letter.
    pub(crate) orders: OrderAccount,
    pub(crate) pages: Pages,
    pub(crate) settled: Settled,
    /// How packets were made late; none, if the nodes had no network of their own.
    pub(crate) delay: Option<Delay>,
    /// What the broker did without Waypost.
    pub(crate) testimony: Testimony,
    /// What was not to be done, or could not be done on this machine.
    pub(crate) left_out: Vec<Fault>,
    /// What each worker printed.
    pub(crate) logs: Vec<Vec<String>>,
    /// What each node of the broker logged.
    pub(crate) node_logs: Vec<String>,
}

impl Findings {
    /// Whether nothing was lost, workers show every dead letter, all has come to an end, and nothing happened that nobody had planned.
    pub(crate) fn is_good(&self) -> bool {
        self.account.balances()
            && self.orders.contradictions.is_empty()
            && self.pages.incidents.is_empty()
            && matches!(self.settled, Settled::All { .. })
    }
}

/// Runs one; `watch` hears how far it is, about once a second. All that it starts ends with the future.
pub(crate) async fn run(drill: &Drill, watch: impl Fn(Progress)) -> Findings {
    let scene = Scene::set(drill).await;
    let cast = scene.cast(drill);
    let plan = schedule::plan(drill.seed, drill.length, drill.manner, &cast);
    let witness_books = Books::open();
    let busy = async {
        let books = &scene.books;
        let publishing = join_all((0..drill.publishers).map(|number| publisher(drill, &scene, number).run()));
        let publishing = books.doing("publishing", publishing);
        let witnessing = witness_publisher(drill, &scene, &witness_books).run();
        let witnessing = books.doing("publishing to the witness", witnessing);
        let injecting = join_all(plan.iter().map(|lane| injector::inject(&scene, lane)));
        let operating = books.doing("giving orders", Operator::new(&scene, drill.seed, drill.length).run());
        tokio::join!(publishing, witnessing, injecting, operating);
        let settled = books.doing("settling", settling::settle(&scene)).await;
        let (dead_letters, witness) = (scene.dead_letters(), scene.witness());
        // A replay that is under way may still write letters.
        books.doing("waiting for replays", views::read(&scene, |_| true)).await;
        let streams = async { (streams::read(&scene, &dead_letters).await, streams::read(&scene, &witness).await) };
        let (dead_letters, witness) = books.doing("reading the streams", streams).await;
        let (letters, strange) = letters::letters(&dead_letters);
        let is_complete = |views: &[View]| unseen::unseen(&letters, views).is_empty();
        let views = books.doing("reading what workers show", views::read(&scene, is_complete)).await;
        books.pages().incidents.extend(strange);
        (settled, views, letters, witness)
    };
    let watching = async {
        let mut turns = interval(Duration::from_secs(1));
        loop {
            turns.tick().await;
            watch(progress(&scene.books));
            scene.endpoints.iter().for_each(receivers::Endpoint::forget);
        }
    };
    let (settled, views, letters, witness) = tokio::select! {
        done = busy => done,
        () = watching => unreachable!("it watches until the end"),
    };
    let pages = scene.books.pages().clone();
    Findings {
        account: account::draw_up(&pages, &letters),
        orders: orders::draw_up(&pages, &letters, &views),
        pages,
        settled,
        testimony: witness::testimony(&witness_books, &witness),
        left_out: cast.left_out,
        delay: scene.cluster.network().map(Network::delay),
        logs: scene.workers.iter().map(Waypost::lines).collect(),
        node_logs: scene.cluster.nodes().iter().map(Broker::log).collect(),
    }
}

fn publisher<'a>(drill: &Drill, scene: &'a Scene, number: usize) -> Publisher<'a> {
    let publishers = u32::try_from(drill.publishers).expect("a few publishers");
    Publisher {
        // Of two missed heartbeats a connection dies.
        broker_url: format!("{}?heartbeat=5", scene.lines[drill.workers + number].amqp_url()),
        exchange: scene.events(),
        receivers: drill.receivers,
        first: number as u64,
        step: u64::from(publishers),
        pause: Duration::from_secs(1) * publishers / drill.per_second,
        until: drill.length,
        books: &scene.books,
    }
}

/// Far more records than there are dead letters.
fn witness_publisher<'a>(drill: &Drill, scene: &Scene, books: &'a Books) -> Publisher<'a> {
    Publisher {
        broker_url: format!("{}?heartbeat=5", scene.witness_line.amqp_url()),
        exchange: scene.witness(),
        receivers: drill.receivers,
        first: 0,
        step: 1,
        pause: Duration::from_millis(50),
        until: drill.length,
        books,
    }
}

fn progress(books: &Books) -> Progress {
    let pages = books.pages();
    let confirmed = pages.published.values().filter(|published| **published == Published::Confirmed).count();
    let accepted = pages.receipts.iter().filter(|receipt| receipt.answered == Answered::Accepted).count();
    Progress {
        now: books.now(),
        published: confirmed,
        accepted,
        faults: pages.happened.len(),
        under_way: pages.under_way.clone(),
    }
}
