//! A receiver that accepts only requests signed with the secret of its webhook, with the library of Standard Webhooks.
//!
//! ```text
//! SECRET=whsec_... cargo run --example receive -- 127.0.0.1:9000
//! ```

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use standardwebhooks::Webhook;

async fn receive(State(webhook): State<Arc<Webhook>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    // Verify the received bytes before you parse them.
    // This also refuses a timestamp that differs from now by more than five minutes.
    if webhook.verify(&body, &headers).is_err() {
        return StatusCode::UNAUTHORIZED;
    }
    // Every attempt of a delivery has the same webhook-id. A real receiver skips an id that it has processed.
    println!("{}", headers["webhook-id"].to_str().unwrap_or_default());
    StatusCode::NO_CONTENT
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9000".to_owned());
    let webhook = Webhook::new(&std::env::var("SECRET")?)?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, Router::new().fallback(post(receive)).with_state(Arc::new(webhook))).await?;
    Ok(())
}
