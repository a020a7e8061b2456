//! Reads lists over HTTP page by page, and times each page.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::letters::{LetterGenerator, RARE_CAMPAIGN, campaign_id, endpoint, webhook_id};
use crate::report::{Times, milliseconds};
use crate::support::Waypost;

/// Letters on a page.
const LIMIT: usize = 100;

/// The maximum number of pages to read of a list.
const PAGES: usize = 200;

/// A slower page fails the benchmark.
pub(crate) const MAX_PAGE_TIME: Duration = Duration::from_millis(50);

/// A filtered list to read.
pub(crate) struct List {
    /// The filter in words.
    pub(crate) what: String,
    /// The filter as a query.
    query: String,
    /// The number of pages to read before measuring.
    skip: usize,
}

/// The measurements of a list.
pub(crate) struct PageTimings {
    pub(crate) what: String,
    pub(crate) letters: u64,
    pub(crate) times: Times,
    /// The first page with a letter, counted from 1.
    pub(crate) first: Option<usize>,
}

/// The fields of a page that the benchmark reads.
#[derive(Deserialize)]
struct Page {
    items: Vec<IgnoredAny>,
    next: Option<String>,
}

impl List {
    fn new(what: &str, query: &str) -> Self {
        Self { what: what.to_owned(), query: query.to_owned(), skip: 0 }
    }

    /// Reads the pages. If it reaches the end, the number of letters must match the summary.
    pub(crate) async fn follow(&self, waypost: &Waypost) -> PageTimings {
        let mut followed = PageTimings { what: self.what.clone(), letters: 0, times: Times::default(), first: None };
        let mut cursor = String::new();
        for number in 1..=self.skip + PAGES {
            let path = format!("/v1/dead-letters?limit={LIMIT}{}{cursor}", self.query);
            let began = Instant::now();
            let reply = waypost.get(&path).await;
            let took = began.elapsed();
            assert_eq!(reply.status, 200, "{path}: {reply:?}");
            let page: Page = serde_json::from_str(&reply.body).expect("a page");
            if number > self.skip {
                followed.times.add(took);
                followed.letters += page.items.len() as u64;
                if !page.items.is_empty() {
                    followed.first.get_or_insert(number - self.skip);
                }
            }
            match page.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => {
                    let counted = waypost.count_letters(self.query.trim_start_matches('&')).await;
                    let missed = self.skip as u64 * LIMIT as u64;
                    assert_eq!(followed.letters, counted.saturating_sub(missed), "letters of the list {}", self.what);
                    break;
                }
            }
        }
        followed
    }
}

impl PageTimings {
    /// Describes a list with a page that took too long.
    pub(crate) fn too_slow(&self) -> Option<String> {
        let worst = self.times.worst();
        (worst > MAX_PAGE_TIME).then(|| format!("{} ({})", self.what, milliseconds(worst)))
    }
}

/// The lists to read before letters are changed.
pub(crate) fn lists(letters: &LetterGenerator) -> Vec<List> {
    let (large, small) = (campaign_id(0), campaign_id(49));
    let (of_large, of_small) = (webhook_id(&large, 0), webhook_id(&small, 4));
    let (phone, event, delivery) = letters.identities(40);
    let (of_large_endpoint, of_rare_endpoint) = (endpoint(&large), endpoint(RARE_CAMPAIGN));
    let new = List::new;
    let deep = List { skip: 999, ..new("none, from page 1,000 on", "") };
    vec![
        new("none", ""),
        deep,
        new("campaign, a large one", &format!("&campaignId={large}")),
        new("campaign, a small one", &format!("&campaignId={small}")),
        new("label", "&label=Offers"),
        new("webhook, of many letters", &format!("&webhookId={of_large}")),
        new("webhook, of few letters", &format!("&webhookId={of_small}")),
        new("endpoint, of many letters", &format!("&endpoint={of_large_endpoint}")),
        new("reason exhausted", "&reason=exhausted"),
        new("reason forbidden_address", "&reason=forbidden_address"),
        new("status 503", "&status=503"),
        new("status 404", "&status=404"),
        new("state pending", "&state=pending"),
        new("since: the last day", &format!("&since={}", letters.at(950))),
        new("until: the first day", &format!("&until={}", letters.at(50))),
        new("since and until: an hour or so", &format!("&since={}&until={}", letters.at(500), letters.at(502))),
        new("campaign and reason", &format!("&campaignId={large}&reason=webhook_disabled")),
        new("campaign, label and status", &format!("&campaignId={small}&label=Offers&status=502")),
        new("webhook, status and state", &format!("&webhookId={of_small}&status=404&state=pending")),
        new("status and until", &format!("&status=429&until={}", letters.at(100))),
        new("rare: reason gone, 1 in 1,000", "&reason=gone"),
        new("rare: reason malformed, 1 in 2,000", "&reason=malformed"),
        new("rare: gone, of one campaign", &format!("&reason=gone&campaignId={large}")),
        new("rare: gone, of one webhook", &format!("&reason=gone&webhookId={of_small}")),
        new("rare: status 418, three letters", "&status=418"),
        new("rare: a campaign of five old letters", &format!("&campaignId={RARE_CAMPAIGN}")),
        new("rare: a phone number of an old letter", &format!("&phoneNumber={phone}")),
        new("rare: the event of an old letter", &format!("&eventId={event}")),
        new("rare: the delivery of an old letter", &format!("&deliveryId={delivery}")),
        new("rare: an endpoint of five old letters", &format!("&endpoint={of_rare_endpoint}")),
        new("nothing: no such phone number", "&phoneNumber=%2B19995550000"),
        new("nothing: no such event", "&eventId=no-such"),
        new("nothing: no such delivery", "&deliveryId=no-such"),
        new("nothing: no such endpoint", "&endpoint=https://no-such.example"),
        new("nothing: state discarded", "&state=discarded"),
        new("nothing: reason poison", "&reason=poison"),
        new("nothing: no such campaign", "&campaignId=no-such"),
        new("nothing: no such webhook", "&webhookId=no-such"),
        new("nothing: no such label", "&label=no-such"),
        new("nothing: the rare campaign and 418", &format!("&campaignId={RARE_CAMPAIGN}&status=418")),
        new("nothing: no such webhook, reason exhausted", "&webhookId=no-such&reason=exhausted"),
    ]
}

/// The lists of discarded and replayed letters.
pub(crate) fn lists_afterwards() -> Vec<List> {
    vec![
        List::new("state discarded", "&state=discarded"),
        List::new("state replayed", "&state=replayed"),
        List::new("state replayed, of a small campaign", &format!("&state=replayed&campaignId={}", campaign_id(49))),
        List::new("nothing: state replaying", "&state=replaying"),
    ]
}

/// The response time of a request without work, as a measure of the machine.
pub(crate) async fn probe(waypost: &Waypost) -> Times {
    let mut times = Times::default();
    for _ in 0..PAGES {
        let began = Instant::now();
        waypost.get("/healthz").await;
        times.add(began.elapsed());
    }
    times
}
