//! Reading a request's body up to a limit.

use axum::body::Body;
use futures_util::StreamExt as _;

/// Maximum number of bytes of a too large body that are read and dropped. A client that is still sending when the
/// connection closes reports a network error and does not show the response.
const MAX_DRAINED_BYTES: usize = 64 * 1024 * 1024;

pub(super) enum BodyError {
    TooLarge,
    /// The client disconnected before the end of the body.
    Incomplete,
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn read(body: Body, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut length = 0_usize;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| BodyError::Incomplete)?;
        length += chunk.len();
        if length <= limit {
            bytes.extend_from_slice(&chunk);
        } else if length > MAX_DRAINED_BYTES {
            break;
        }
    }
    if length <= limit { Ok(bytes) } else { Err(BodyError::TooLarge) }
}
