//! axe-core, which finds accessibility violations on a page. It is installed from the npm registry once. The driver
//! injects it, so the content security policy of the page does not apply.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde::Deserialize;

use super::super::broker::run_blocking;
use super::Browser;

const AXE_VERSION: &str = "4.14.1";

const AXE_SCRIPT: &str = "
const done = arguments[arguments.length - 1];
axe.run(document, { resultTypes: ['violations'] }).then(
  (results) => done({ Ok: results.violations }),
  (error) => done({ Err: String(error) }),
);";

/// A rule that a page breaks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Violation {
    id: String,
    impact: Option<String>,
    help: String,
    help_url: String,
    nodes: Vec<Node>,
}

/// An element that breaks the rule.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    html: String,
    failure_summary: Option<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let impact = self.impact.as_deref().unwrap_or("unknown");
        write!(f, "{} ({impact}): {} ({})", self.id, self.help, self.help_url)?;
        for node in &self.nodes {
            write!(f, "\n  {}", node.html)?;
            let summary = node.failure_summary.iter().flat_map(|summary| summary.lines());
            summary.into_iter().try_for_each(|line| write!(f, "\n    {}", line.trim()))?;
        }
        Ok(())
    }
}

/// The violations on the page with serious or critical impact.
pub(super) async fn serious_violations(browser: &Browser) -> Vec<Violation> {
    let source = run_blocking(axe_source).await;
    if browser.script("return typeof axe === 'undefined';", Vec::new()).await {
        let _: () = browser.script(source, Vec::new()).await;
    }
    let results = browser.session.execute_async(AXE_SCRIPT, Vec::new()).await;
    let results = results.and_then(|results| results.convert::<Result<Vec<Violation>, String>>());
    let mut violations = match results {
        Ok(Ok(violations)) => violations,
        Ok(Err(error)) => panic!("axe-core failed: {error}"),
        Err(error) => panic!("axe-core failed: {error}"),
    };
    violations.retain(|violation| matches!(violation.impact.as_deref(), Some("serious" | "critical")));
    violations
}

/// The source of axe-core.
fn axe_source() -> &'static str {
    static SOURCE: OnceLock<String> = OnceLock::new();
    SOURCE.get_or_init(|| {
        let file = install_once().join("node_modules/axe-core/axe.min.js");
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    })
}

/// Returns the folder with axe-core, and installs it if necessary. Concurrent test processes install it in separate
/// folders. The first to finish moves its folder to the final place.
fn install_once() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = target.join(format!("axe-core-{AXE_VERSION}"));
    if !folder.exists() {
        std::fs::create_dir_all(target).expect("a folder");
        let fresh = tempfile::Builder::new().prefix("axe-core-").tempdir_in(target).expect("a temporary folder");
        install(fresh.path());
        if let Err(error) = std::fs::rename(fresh.path(), &folder) {
            assert!(folder.exists(), "{}: {error}", folder.display());
        }
    }
    folder
}

fn install(folder: &Path) {
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]);
    let output = npm.arg(folder).arg(format!("axe-core@{AXE_VERSION}")).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => (),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            panic!(
                "npm could not install axe-core {AXE_VERSION}, which checks the accessibility of the console:\n{said}"
            )
        }
        Err(error) => panic!(
            "npm does not run ({error}). It installs axe-core, which checks the accessibility of the console: \
             install Node.js with npm"
        ),
    }
}
