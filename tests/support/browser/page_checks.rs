//! Checks for every page of the console: no errors in the browser's console, no horizontal overflow, and no
//! accessibility violations.

use std::future::Future;
use std::panic::Location;

use serde::Deserialize;
use thirtyfour::BrowserLogEntry;

use super::{Browser, Motion, Scheme, axe};

const OVERFLOW_SCRIPT: &str = include_str!("overflow.js");

/// Every page must fit these widths: a small phone and a large screen.
pub(crate) const CHECKED_WIDTHS: [u32; 2] = [360, 1920];

#[derive(Debug, Deserialize)]
struct PageExtent {
    laid_out: u32,
    wide: u32,
    protruding: Vec<String>,
}

impl Browser {
    /// The messages in the browser's console since the last call.
    pub(crate) async fn take_console_log(&self) -> Vec<BrowserLogEntry> {
        self.session.browser_log().await.unwrap_or_else(|error| panic!("the browser's console: {error}"))
    }

    /// The errors in the browser's console since the last call: exceptions, failed requests and violations of the
    /// content security policy.
    pub(crate) async fn take_console_errors(&self) -> Vec<String> {
        let said = self.take_console_log().await.into_iter();
        said.filter(|entry| entry.level == "SEVERE").map(|entry| entry.message).collect()
    }

    /// Describes how the page overflows a screen of this width, if it does. Restores the width afterwards.
    pub(crate) async fn overflow_at(&self, width: u32) -> Option<String> {
        let before = self.width();
        self.resize(width).await;
        let overflow = self.overflow().await;
        self.resize(before).await;
        overflow
    }

    /// Describes how the page overflows its screen, if it does.
    async fn overflow(&self) -> Option<String> {
        let width = self.width();
        let PageExtent { laid_out, wide, protruding } = self.script(OVERFLOW_SCRIPT, Vec::new()).await;
        if laid_out > width {
            return Some(format!("laid out for {laid_out} on a screen of {width}: is its meta viewport right?"));
        }
        (wide > laid_out).then(|| format!("{wide} wide on a screen of {width}; what protrudes: {protruding:#?}"))
    }

    /// The violations that axe-core finds, with serious or critical impact.
    pub(crate) async fn accessibility_violations(&self) -> Vec<String> {
        axe::serious_violations(self).await.iter().map(ToString::to_string).collect()
    }

    /// Fails if the browser's console has errors since the last call.
    #[track_caller]
    pub(crate) fn assert_no_console_errors(&self) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let errors = self.take_console_errors().await;
            assert!(errors.is_empty(), "errors on the page ({caller}):\n{}", errors.join("\n"));
        }
    }

    /// Fails if the page overflows at one of these widths.
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

    /// Fails if axe-core finds a serious or critical violation.
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

    /// Runs all checks at [`CHECKED_WIDTHS`], in light and dark colors.
    #[track_caller]
    pub(crate) fn assert_page_quality(&self) -> impl Future<Output = ()> {
        let caller = Location::caller();
        let quiet = self.assert_no_console_errors();
        async move {
            let before = self.width();
            // Each width is laid out once for both checks.
            for (width, scheme) in CHECKED_WIDTHS.into_iter().zip([Scheme::Dark, Scheme::Light]) {
                self.emulate_media(scheme, Motion::Reduced).await;
                self.resize(width).await;
                if let Some(misfit) = self.overflow().await {
                    panic!("{} is {misfit} ({caller})", self.path().await);
                }
                let violations = self.accessibility_violations().await;
                let found = violations.join("\n");
                assert!(
                    violations.is_empty(),
                    "{} at {width} has accessibility violations ({caller}):\n{found}",
                    self.path().await
                );
            }
            self.resize(before).await;
            quiet.await;
        }
    }
}
