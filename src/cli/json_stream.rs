//! Splits a file into its JSON documents, which may be on one line each or span several lines. Writes arrays.

use std::io::Read as _;
use std::path::Path;

use serde::Serialize;
use serde::de::IgnoredAny;

use super::error::CliError;

/// Returns the bytes of each document.
///
/// # Errors
/// If anything in `bytes` is not a JSON document.
pub(super) fn split(bytes: &[u8]) -> Result<Vec<&[u8]>, serde_json::Error> {
    let mut stream = serde_json::Deserializer::from_slice(bytes).into_iter::<IgnoredAny>();
    let mut documents = Vec::new();
    let mut start = 0;
    while let Some(document) = stream.next() {
        document?;
        let end = stream.byte_offset();
        documents.push(bytes[start..end].trim_ascii());
        start = end;
    }
    Ok(documents)
}

/// Reads a file; `-` is standard input.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let result = if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes).map(|_| ())
    } else {
        std::fs::read(file).map(|content| bytes = content)
    };
    result.map_err(CliError::new)?;
    Ok(bytes)
}

/// The items as a JSON array on one line.
pub(super) fn array<T: Serialize>(items: &[T]) -> Result<String, CliError> {
    serde_json::to_string(items).map_err(CliError::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_split_into_its_documents() {
        let split = |text: &'static str| split(text.as_bytes()).map_err(|error| error.is_eof());
        assert_eq!(split(" "), Ok(vec![]));
        assert_eq!(split("{}\n{\"a\":\n1}\n\n[ 2 ]\n"), Ok(vec![&b"{}"[..], b"{\"a\":\n1}", b"[ 2 ]"]));
        assert_eq!(split("{"), Err(true));
        assert_eq!(split("}"), Err(false));
    }
}
