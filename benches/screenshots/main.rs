//! Screenshots of the console for the documentation: a worker with sample data on its own broker, and each page on a
//! desktop and on a phone, in light and in dark colors.
//!
//! ```text
//! make screenshots                     # all pages, into docs/screenshots
//! make screenshots ARGS="overview"     # some of them
//! ```

mod setup;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::Path;

use setup::ScreenshotSetup;
use support::Browser;
use support::browser::{Motion, Scheme};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/screenshots");

/// The views of each page, with files such as `overview-1440-dark.png`.
const VIEWS: [(u32, Scheme); 3] = [(1440, Scheme::Light), (1440, Scheme::Dark), (360, Scheme::Light)];

#[tokio::main]
async fn main() {
    // Cargo adds `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let setup = ScreenshotSetup::start().await;
    let browser = Browser::start(&setup.waypost.url("")).await;
    for page in setup.pages() {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == page.name) {
            continue;
        }
        browser.open(&page.path).await;
        for (width, scheme) in VIEWS {
            browser.resize(width).await;
            browser.emulate_media(scheme, Motion::Reduced).await;
            let colours = if scheme == Scheme::Dark { "dark" } else { "light" };
            let file = Path::new(FOLDER).join(format!("{}-{width}-{colours}.png", page.name));
            browser.screenshot(&file).await;
            println!("{}", file.display());
        }
    }
}
