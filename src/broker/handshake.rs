//! Which broker this is: the first thing that it says on a connection. lapin reads that and keeps it to itself.

use std::time::Duration;

use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};
use lapin::tcp::AMQPUriTcpExt as _;

use super::BrokerError;
use super::connection::ConnectionConfig;
use super::wire_reader::WireReader;

/// The broker says its first word within this time.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longer than any broker's first frame: its properties are a few hundred bytes.
const MAX_FRAME_BYTES: usize = 64 * 1024;

/// What an AMQP 0-9-1 client sends first.
const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

/// `connection.start`, by class and method.
const CONNECTION_START: [u8; 4] = [0, 10, 0, 10];

/// The oldest and the newest RabbitMQ that are supported.
pub const SUPPORTED: [(u32, u32); 2] = [(3, 10), (4, 3)];

/// A broker by its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `RabbitMQ`
    pub product: String,
    /// `3.13.7`
    pub version: String,
}

/// Whether Waypost is tested with a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It is.
    Supported,
    /// A RabbitMQ that is too old.
    TooOld,
    /// A RabbitMQ that is newer than those tested.
    Newer,
    /// Something else that speaks AMQP 0-9-1.
    AnotherProduct,
}

impl Server {
    /// Whether Waypost is tested with it.
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

/// Asks a broker what it is, on a connection that is dropped after that. Nobody logs in.
///
/// # Errors
/// [`BrokerError::Connect`].
pub async fn server(address: &ConnectionConfig) -> Result<Server, BrokerError> {
    let uri = address.uri()?;
    let failed = |error: String| BrokerError::Connect { address: uri.authority.host.clone(), error };
    let runtime = lapin::runtime::default_runtime().map_err(|error| failed(error.to_string()))?;
    let tls = address.tls();
    let ask = async {
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
    let frame = match tokio::time::timeout(TIMEOUT, ask).await {
        Ok(frame) => frame.map_err(|error| failed(error.to_string()))?,
        Err(_) => return Err(failed(format!("no answer within {} s", TIMEOUT.as_secs()))),
    };
    read_start(&frame).ok_or_else(|| failed("its first frame cannot be read: it is no AMQP 0-9-1 broker".to_owned()))
}

/// Reads product and version from `connection.start`.
fn read_start(frame: &[u8]) -> Option<Server> {
    let mut reader = WireReader(frame.strip_prefix(&CONNECTION_START)?);
    // The version of the protocol.
    reader.take(2)?;
    let table = reader.long_bytes()?;
    let text = |name: &str| text_of(table, name);
    Some(Server { product: text("product")?, version: text("version")? })
}

/// The text of a table's entry.
fn text_of(table: &[u8], wanted: &str) -> Option<String> {
    let mut reader = WireReader(table);
    while !reader.0.is_empty() {
        let name = reader.short_string()?;
        let (kind, value) = reader.value()?;
        if kind == b'S' && name == wanted.as_bytes() {
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
    fn a_broker_says_what_it_is() {
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
        let server = Server { product: "RabbitMQ".to_owned(), version: "3.10.8".to_owned() };
        assert_eq!(read_start(&frame), Some(server));
        for end in 0..frame.len() - 9 {
            // Cut anywhere it is refused, and nothing panics.
            assert_eq!(read_start(&frame[..end]).map(|server| server.version), None, "{end}");
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        let support = |product: &str, version: &str| {
            Server { product: product.to_owned(), version: version.to_owned() }.support()
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
