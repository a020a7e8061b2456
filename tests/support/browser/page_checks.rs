//! What every page of the console must be: quiet (no error on its console), within its width, and open to everybody, as far as
//! axe-core can tell.

use std::future::Future;
use std::panic::Location;

use serde::Deserialize;
use thirtyfour::BrowserLogEntry;

use super::{Browser, Motion, Scheme, axe};

const OVERFLOW_SCRIPT: &str = include_str!("overflow.js");

/// Widths that every page has to fit: a small telephone's, and a large screen's.
pub(crate) const CHECKED_WIDTHS: [u32; 2] = [360, 1920];

#[derive(Debug, Deserialize)]
struct PageExtent {
    laid_out: u32,
    wide: u32,
    protruding: Vec<String>,
}

impl Browser {
    /// What the console of the pages has said since this was asked last.
    pub(crate) async fn take_console_log(&self) -> Vec<BrowserLogEntry> {
        self.session.browser_log().await.unwrap_or_else(|error| panic!("the browser's console: {error}"))
    }

    /// The errors among that: an exception, something that was not to be had, or that the page's content security policy forbids.
    pub(crate) async fn take_console_errors(&self) -> Vec<String> {
        let said = self.take_console_log().await.into_iter();
        said.filter(|entry| entry.level == "SEVERE").map(|entry| entry.message).collect()
    }

    /// In which way the page does not fit a screen of this width, where it does not. The browser is as wide as before then.
    pub(crate) async fn overflow_at(&self, width: u32) -> Option<String> {
        let before = self.width();
        self.resize(width).await;
        let PageExtent { laid_out, wide, protruding } = self.script(OVERFLOW_SCRIPT, Vec::new()).await;
        self.resize(before).await;
        if laid_out > width {
            return Some(format!("laid out for {laid_out} on a screen of {width}: is its meta viewport right?"));
        }
        (wide > laid_out).then(|| format!("{wide} wide on a screen of {width}; what protrudes: {protruding:#?}"))
    }

    /// What axe-core finds that shuts people out, of serious or critical impact.
    pub(crate) async fn accessibility_violations(&self) -> Vec<String> {
        axe::serious_violations(self).await.iter().map(ToString::to_string).collect()
    }

    /// Fails if a page has had an error since the console was asked last.
    #[track_caller]
    pub(crate) fn assert_no_console_errors(&self) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let errors = self.take_console_errors().await;
            assert!(errors.is_empty(), "errors on the page ({caller}):\n{}", errors.join("\n"));
        }
    }

    /// Fails if the page does not fit a screen of one of these widths.
    #[track_caller]
    pub(crate) fn assert_fits_widths(&self, widths: &[u32]) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            for width in widths {
                if let Some(misfit) = self.overflow_at(*width).await {
                    panic!("{} is {misfit} ({caller})", self.path().await);
                }
            }
        }
    }

    /// Fails if the page shuts people out.
    #[track_caller]
    pub(crate) fn assert_accessible(&self) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let violations = self.accessibility_violations().await;
            assert!(
                violations.is_empty(),
                "{} is not accessible ({caller}):\n{}",
                self.path().await,
                violations.join("\n")
            );
        }
    }

    /// All of it: at [`WIDTHS`], in light and in dark.
    #[track_caller]
    pub(crate) fn assert_page_quality(&self) -> impl Future<Output = ()> {
        let caller = Location::caller();
        let (fits, quiet) = (self.assert_fits_widths(&CHECKED_WIDTHS), self.assert_no_console_errors());
        async move {
            fits.await;
            let before = self.width();
            for (width, scheme) in CHECKED_WIDTHS.into_iter().zip([Scheme::Dark, Scheme::Light]) {
                self.resize(width).await;
                self.emulate_media(scheme, Motion::Reduced).await;
                let violations = self.accessibility_violations().await;
                let found = violations.join("\n");
                assert!(
                    violations.is_empty(),
                    "{} at {width} ({caller}) shuts people out:\n{found}",
                    self.path().await
                );
            }
            self.resize(before).await;
            quiet.await;
        }
    }
}
