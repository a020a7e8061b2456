//! The broker of a benchmark that can also run on an existing one.

use crate::support::Broker;

/// The URL in `WAYPOST_BROKER__URL`, or the URL of a private broker, which ends when it is dropped.
pub(crate) async fn target_broker() -> (String, Option<Broker>) {
    match std::env::var("WAYPOST_BROKER__URL") {
        Ok(url) => (url, None),
        Err(_) => {
            let broker = Broker::private().await;
            (broker.url(), Some(broker))
        }
    }
}
