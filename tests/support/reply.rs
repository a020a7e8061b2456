//! Responses of the product's API.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// The product's response to a request.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names are in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Reply {
    /// Panics if the body is not JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body as a type of the API. Panics if it is another.
    #[track_caller]
    pub(crate) fn read<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts the status and the problem document, and returns the problem.
    #[track_caller]
    pub(crate) fn expect_problem(&self, status: u16) -> Problem {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem:#}");
        let text = |value: &Value, name: &str| match value[name].as_str() {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => panic!("no {name}: {problem:#}"),
        };
        for name in ["type", "title"] {
            text(&problem, name);
        }
        let violations = problem["errors"].as_array().cloned().unwrap_or_default();
        let path = |violation: &Value| {
            assert!(text(violation, "message").len() > 10, "no sentence: {problem:#}");
            text(violation, "path")
        };
        Problem { detail: text(&problem, "detail"), paths: violations.iter().map(path).collect() }
    }

    /// The paths of all violations of a refused document.
    #[track_caller]
    pub(crate) fn violation_paths(&self) -> Vec<String> {
        let Problem { paths, .. } = self.expect_problem(422);
        assert!(!paths.is_empty(), "no violations: {self:?}");
        paths
    }
}

/// A problem document.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) detail: String,
    /// The path of each violation of a document or parameter.
    pub(crate) paths: Vec<String>,
}
