//! Reads the broker's product and version from its first frame. lapin reads that frame, too, but does not expose it.

use std::time::Duration;

use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};
use lapin::tcp::AMQPUriTcpExt as _;

use super::BrokerError;
use super::connection::ConnectionConfig;
use super::wire_reader::WireReader;

/// Limit for the connect and the first frame.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A broker's first frame has a few hundred bytes.
const MAX_FRAME_BYTES: usize = 64 * 1024;

/// An AMQP 0-9-1 client sends this first.
const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

/// Class and method of `connection.start`.
const CONNECTION_START: [u8; 4] = [0, 10, 0, 10];

/// The oldest and the newest supported RabbitMQ (major, minor).
pub const SUPPORTED: [(u32, u32); 2] = [(3, 10), (4, 3)];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// For example `RabbitMQ`.
    pub product: String,
    /// For example `3.13.7`.
    pub version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    Supported,
    TooOld,
    /// Newer than all tested versions.
    Newer,
    /// Not RabbitMQ.
    AnotherProduct,
}

impl ServerInfo {
    pub fn support(&self) -> Support {
        if self.product != "RabbitMQ" {
            return Support::AnotherProduct;
        }
        let mut parts = self.version.split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or_default());
        let version = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let [oldest, newest] = SUPPORTED;
        if version < oldest {
            Support::TooOld
        } else if version > newest {
            Support::Newer
        } else {
            Support::Supported
        }
    }
}

/// Reads the first frame on a connection of its own, without a login, and drops the connection.
///
/// # Errors
/// [`BrokerError::Connect`].
pub async fn read_server_info(config: &ConnectionConfig) -> Result<ServerInfo, BrokerError> {
    let uri = config.uri()?;
    let connect_error = |error: String| BrokerError::Connect { address: uri.authority.host.clone(), error };
    let runtime = lapin::runtime::default_runtime().map_err(|error| connect_error(error.to_string()))?;
    let tls = config.tls();
    let read_frame = async {
        let mut stream = uri.connect_with_config_async(tls.as_ref(), &runtime).await?;
        stream.write_all(PROTOCOL_HEADER).await?;
        stream.flush().await?;
        let mut head = [0; 7];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let mut frame = vec![0; length.min(MAX_FRAME_BYTES)];
        stream.read_exact(&mut frame).await?;
        Ok::<_, std::io::Error>(frame)
    };
    let frame = match tokio::time::timeout(HANDSHAKE_TIMEOUT, read_frame).await {
        Ok(frame) => frame.map_err(|error| connect_error(error.to_string()))?,
        Err(_) => return Err(connect_error(format!("no response within {} s", HANDSHAKE_TIMEOUT.as_secs()))),
    };
    read_start(&frame).ok_or_else(|| {
        connect_error("the first frame is not `connection.start`: this is not an AMQP 0-9-1 broker".to_owned())
    })
}

/// Reads product and version from `connection.start`.
fn read_start(frame: &[u8]) -> Option<ServerInfo> {
    let mut reader = WireReader(frame.strip_prefix(&CONNECTION_START)?);
    // The protocol version.
    reader.take(2)?;
    let table = reader.long_bytes()?;
    let text = |name: &str| string_entry(table, name);
    Some(ServerInfo { product: text("product")?, version: text("version")? })
}

fn string_entry(table: &[u8], name: &str) -> Option<String> {
    let mut reader = WireReader(table);
    while !reader.0.is_empty() {
        let entry_name = reader.short_string()?;
        let (kind, value) = reader.value()?;
        if kind == b'S' && entry_name == name.as_bytes() {
            return Some(String::from_utf8_lossy(value).into_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(text: &[u8]) -> Vec<u8> {
        let length = u32::try_from(text.len()).expect("short");
        [&length.to_be_bytes(), text].concat()
    }

    #[test]
    fn product_and_version_are_read_from_connection_start() {
        let capabilities = [b"\x0cconfirms_etct\x01".as_slice()].concat();
        let table = [
            b"\x0ccapabilitiesF".as_slice(),
            &long(&capabilities),
            b"\x07productS",
            &long(b"RabbitMQ"),
            b"\x07versionS",
            &long(b"3.10.8"),
        ]
        .concat();
        let frame = [CONNECTION_START.as_slice(), &[0, 9], &long(&table), &long(b"PLAIN")].concat();
        let server = ServerInfo { product: "RabbitMQ".to_owned(), version: "3.10.8".to_owned() };
        assert_eq!(read_start(&frame), Some(server));
        for end in 0..frame.len() - 9 {
            // A truncated frame is refused without a panic.
            assert_eq!(read_start(&frame[..end]).map(|server| server.version), None, "{end}");
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        let support = |product: &str, version: &str| {
            ServerInfo { product: product.to_owned(), version: version.to_owned() }.support()
        };
        for (version, expected) in [
            ("3.9.29", Support::TooOld),
            ("3.10.0", Support::Supported),
            ("3.13.7", Support::Supported),
            ("4.0.5", Support::Supported),
            ("4.3.6+rc.1", Support::Supported),
            ("4.4.0-beta.1", Support::Newer),
            ("5.0.0", Support::Newer),
        ] {
            assert_eq!(support("RabbitMQ", version), expected, "{version}");
        }
        assert_eq!(support("LavinMQ", "2.4.0"), Support::AnotherProduct);
    }
}
