//! Conditional requests: the `ETag` of a response, and the precondition of a request.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use waypost_engine::campaigns::Precondition;

use super::problem::Problem;

/// Adds the version of a campaign as `ETag`.
pub(super) fn with_etag(version: u64, response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// Parses `If-Match`, which may name several versions, and `If-None-Match`. Weak tags, and tags that are not versions,
/// match nothing.
pub(super) fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let text = |name| {
        let values = headers.get_all(name).iter().map(|value: &HeaderValue| value.to_str().unwrap_or_default().trim());
        values.map(str::to_owned).reduce(|all, value| format!("{all}, {value}"))
    };
    match (text(header::IF_MATCH).as_deref(), text(header::IF_NONE_MATCH).as_deref()) {
        (None, None) => Ok(Precondition::None),
        (Some("*"), None) => Ok(Precondition::Exists),
        (None, Some("*")) => Ok(Precondition::Absent),
        (Some(tags), None) => {
            let versions: Vec<u64> =
                tags.split(',').filter_map(|tag| tag.trim().trim_matches('"').parse().ok()).collect();
            if versions.is_empty() { Err(invalid_tags(tags)) } else { Ok(Precondition::Versions(versions)) }
        }
        (_, Some(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "send either If-Match, or If-None-Match: *")),
    }
}

fn invalid_tags(tags: &str) -> Problem {
    let detail = if tags.split(',').any(|tag| tag.trim().starts_with("W/")) {
        format!("{tags} is a weak tag, which never matches in If-Match: send the ETag of the response, without W/")
    } else {
        format!("{tags} is not a campaign version: send the ETag of the response")
    };
    Problem::new(StatusCode::PRECONDITION_FAILED, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(if_match: &[&str]) -> Result<Precondition, Problem> {
        let headers = if_match.iter().map(|value| (header::IF_MATCH, HeaderValue::from_str(value).expect("a value")));
        precondition(&headers.collect())
    }

    #[test]
    fn if_match_is_parsed_into_versions() {
        for (if_match, expected) in [
            (&[][..], Precondition::None),
            (&["*"], Precondition::Exists),
            (&["\"4\""], Precondition::Versions(vec![4])),
            (&["4"], Precondition::Versions(vec![4])),
            (&["\"1\", \"4\""], Precondition::Versions(vec![1, 4])),
            (&["\"1\"", "\"4\""], Precondition::Versions(vec![1, 4])),
            (&["W/\"1\",\"4\", \"none of ours\""], Precondition::Versions(vec![4])),
        ] {
            assert_eq!(parse(if_match).ok(), Some(expected), "{if_match:?}");
        }
        for (if_match, words) in [
            ("W/\"4\"", "weak"),
            ("\"none of ours\"", "not a campaign version"),
            ("", "not a campaign version"),
            ("\"-1\"", "not a campaign version"),
        ] {
            let problem = serde_json::to_value(parse(&[if_match]).expect_err("a version")).expect("JSON");
            assert_eq!(problem["status"], 412, "{if_match}");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{if_match}: {problem}");
        }
    }
}
