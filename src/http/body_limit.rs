//! Reading a request's body up to a limit.

use axum::body::Body;
use futures_util::StreamExt as _;

/// So much of a body that is too large is read on and thrown away: a client that is still sending when it is answered
/// takes the closed connection for a failure, and never sees the answer.
const DRAINED_BYTES: usize = 64 * 1024 * 1024;

/// The body could not be used.
pub(super) enum BodyError {
    /// It is longer than the limit.
    TooLarge,
    /// The client went away in the middle of it.
    Broken,
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn read(body: Body, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut length = 0_usize;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| BodyError::Broken)?;
        length += chunk.len();
        if length <= limit {
            bytes.extend_from_slice(&chunk);
        } else if length > DRAINED_BYTES {
            break;
        }
    }
    if length <= limit { Ok(bytes) } else { Err(BodyError::TooLarge) }
}
