//! Style sheets, script and icon, compiled into the program. Their URLs contain a hash of the content, so that browsers
//! may cache them forever.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

use crate::api_state::ApiState;

struct Asset {
    name: &'static str,
    content_type: &'static str,
    content: &'static str,
}

const ASSETS: [Asset; 3] = [
    Asset {
        name: "console.css",
        content_type: "text/css; charset=utf-8",
        content: concat!(
            include_str!("../../assets/console.css"),
            include_str!("../../assets/dead_letters.css"),
            include_str!("../../assets/overview.css"),
            include_str!("../../../waypost-core/assets/flow.css"),
        ),
    },
    Asset {
        name: "console.js",
        content_type: "text/javascript; charset=utf-8",
        content: include_str!("../../assets/console.js"),
    },
    Asset { name: "icon.svg", content_type: "image/svg+xml", content: include_str!("../../assets/icon.svg") },
];

/// One hash of all assets together.
static HASH: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    ASSETS.iter().for_each(|asset| hash.update(asset.content));
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
});

/// Needs no session, because the login page uses the assets too.
pub(super) fn router() -> Router<ApiState> {
    Router::new().route("/assets/{hash}/{name}", get(serve))
}

pub(super) fn href(name: &str) -> String {
    format!("/assets/{}/{name}", *HASH)
}

async fn serve(Path((hash, name)): Path<(String, String)>) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name && hash == *HASH) {
        Some(asset) => {
            let headers = [
                (header::CONTENT_TYPE, asset.content_type),
                (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ];
            (headers, asset.content).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
