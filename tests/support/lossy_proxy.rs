//! A proxy in front of a broker that loses one delivery or one confirm, as a broker can when it loses a leader: the
//! broker sent the delivery or accepted the message, but the client is not notified.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::background_server::BackgroundServer;

/// The type, channel and length before a frame's payload. One byte follows the payload.
const FRAME_HEADER_BYTES: usize = 7;

const METHOD_FRAME: u8 = 1;

/// Class and method of `basic.deliver`.
const DELIVER: [u8; 4] = [0, 60, 0, 60];

/// Class and method of `basic.ack`. From a broker it is a confirm.
const ACK: [u8; 4] = [0, 60, 0, 80];

/// What the proxy loses, once.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Loss {
    /// The first delivery whose body contains this text.
    DeliveryOf(&'static str),
    /// The first confirm.
    Confirm,
}

/// A proxy on a free port of 127.0.0.1.
pub(crate) struct LossyProxy {
    address: SocketAddr,
    lost: Arc<AtomicBool>,
    _server: BackgroundServer,
}

impl LossyProxy {
    /// Starts a proxy in front of a port of 127.0.0.1.
    pub(crate) fn start(port: u16, loss: Loss) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a nonblocking socket");
        let address = listener.local_addr().expect("the proxy's address");
        let lost = Arc::new(AtomicBool::new(false));
        let losing = Arc::clone(&lost);
        let server = BackgroundServer::start("lossy proxy", move || async move {
            let listener = TcpListener::from_std(listener).expect("the proxy's socket");
            loop {
                let (client, _) = listener.accept().await.expect("the proxy accepts");
                let losing = Arc::clone(&losing);
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    let (mut client_reads, client_writes) = client.into_split();
                    let (server_reads, mut server_writes) = server.into_split();
                    tokio::select! {
                        _ = tokio::io::copy(&mut client_reads, &mut server_writes) => (),
                        _ = forward(server_reads, client_writes, loss, &losing) => (),
                    }
                });
            }
        });
        Self { address, lost, _server: server }
    }

    /// The broker's URL through the proxy.
    pub(crate) fn amqp_url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address)
    }

    /// Returns whether the frame was dropped.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Forwards all frames except the one to lose.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    loss: Loss,
    lost: &AtomicBool,
) -> std::io::Result<()> {
    loop {
        let mut frames = read_frame(&mut from).await?;
        if frames[0] == METHOD_FRAME && frames[FRAME_HEADER_BYTES..].starts_with(&DELIVER) {
            // RabbitMQ writes the frames of a delivery in a row: the method, the properties, and one frame for a small
            // body.
            let properties = read_frame(&mut from).await?;
            let is_empty = properties[FRAME_HEADER_BYTES + 4..FRAME_HEADER_BYTES + 12] == [0; 8];
            frames.extend(properties);
            let body = if is_empty { Vec::new() } else { read_frame(&mut from).await? };
            let is_meant = matches!(loss, Loss::DeliveryOf(text) if String::from_utf8_lossy(&body).contains(text));
            if is_meant && !lost.swap(true, Ordering::Relaxed) {
                continue;
            }
            frames.extend(body);
        }
        let is_confirm = frames[0] == METHOD_FRAME && frames[FRAME_HEADER_BYTES..].starts_with(&ACK);
        if is_confirm && matches!(loss, Loss::Confirm) && !lost.swap(true, Ordering::Relaxed) {
            continue;
        }
        to.write_all(&frames).await?;
    }
}

/// The next frame, with its header and end byte.
async fn read_frame(from: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    from.read_exact(&mut frame).await?;
    let length = u32::from_be_bytes(frame[3..FRAME_HEADER_BYTES].try_into().expect("four bytes"));
    frame.resize(FRAME_HEADER_BYTES + usize::try_from(length).expect("a length") + 1, 0);
    from.read_exact(&mut frame[FRAME_HEADER_BYTES..]).await?;
    Ok(frame)
}
