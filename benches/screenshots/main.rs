//! Pictures of the console for the documentation: a worker with sample data on a broker of its own, and each page as a browser
//! shows it on a desk and on a telephone, in light and in dark colours.
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

/// How each page is shown: as `overview-1440-dark.png`.
const VIEWS: [(u32, Scheme); 3] = [(1440, Scheme::Light), (1440, Scheme::Dark), (360, Scheme::Light)];

#[tokio::main]
async fn main() {
    // Cargo says `--bench`, too.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let scene = ScreenshotSetup::start().await;
    let browser = Browser::start(&scene.waypost.url("")).await;
    for page in scene.pages() {
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
