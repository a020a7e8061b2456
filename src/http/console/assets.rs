//! Style sheets, the script and the icon: in the program itself. Their addresses have a hash of what they are, so that a
//! browser can keep them for ever.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

use super::super::ApiState;

struct Asset {
    name: &'static str,
    kind: &'static str,
    content: &'static str,
}

const ASSETS: [Asset; 3] = [
    Asset {
        name: "console.css",
        kind: "text/css; charset=utf-8",
        content: concat!(
            include_str!("../../../assets/console.css"),
            include_str!("../../../assets/dead_letters.css"),
            include_str!("../../../assets/overview.css"),
            include_str!("../../../assets/flow.css"),
        ),
    },
    Asset {
        name: "console.js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("../../../assets/console.js"),
    },
    Asset { name: "icon.svg", kind: "image/svg+xml", content: include_str!("../../../assets/icon.svg") },
];

/// Of all assets together: a program has one set.
static HASH: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    ASSETS.iter().for_each(|asset| hash.update(asset.content));
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
});

/// The assets. Anybody may have them: the page that asks for a token needs them too.
pub(super) fn router() -> Router<ApiState> {
    Router::new().route("/assets/{hash}/{name}", get(asset))
}

/// Where an asset is.
pub(super) fn address(name: &str) -> String {
    format!("/assets/{}/{name}", *HASH)
}

async fn asset(Path((hash, name)): Path<(String, String)>) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name && hash == *HASH) {
        Some(asset) => {
            let headers = [
                (header::CONTENT_TYPE, asset.kind),
                (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ];
            (headers, asset.content).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
