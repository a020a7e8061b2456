//! Splits the bytes from the broker into frames and passes them on. `frame_repair` rewrites frames that lapin cannot
//! read.

use super::frame_repair::{repair_header, repair_method};

/// Frame types of AMQP 0-9-1.
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// First byte of a protocol header. A broker that speaks another version answers with one.
const PROTOCOL_HEADER: u8 = b'A';
const PROTOCOL_HEADER_BYTES: usize = 8;

/// Type, channel and size of a frame.
const FRAME_START_BYTES: usize = 7;
const FRAME_END: u8 = 0xCE;

/// Free space in the buffer for one read.
const READ_BYTES: usize = 64 * 1024;

/// A method or content header above this size is not repaired: RabbitMQ sends none.
const MAX_REPAIRED_BYTES: usize = 16 * 1024 * 1024;

/// A buffer between the broker and lapin.
#[derive(Debug, Default)]
pub struct FrameFilter {
    buffer: Vec<u8>,
    /// The buffer holds bytes from `start` to `end`. Bytes before `checked` may be passed on.
    start: usize,
    checked: usize,
    end: usize,
    /// Bytes still to be received of a frame that is passed on before it is complete.
    unchecked_rest: usize,
    /// A frame that replaces one in the buffer.
    repaired: Vec<u8>,
    /// Bytes of `repaired` that were passed on.
    repaired_sent: usize,
}

/// The next frame in the buffer.
enum NextFrame {
    /// More bytes have to be received.
    Incomplete,
    /// The frame has this many bytes and may be passed on unchanged.
    Clean(usize),
    /// The frame has this many bytes, and the other frame replaces it.
    Repaired(usize, Vec<u8>),
}

impl FrameFilter {
    /// The caller writes bytes from the broker here, then calls [`received`](Self::received). Never empty.
    pub fn free_space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.checked -= self.start;
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() < self.end + READ_BYTES / 2 {
            self.buffer.resize(self.end + READ_BYTES, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// Call this after writing to the [free space](Self::free_space).
    pub fn received(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// Passes on as many bytes as fit into `out` and returns their number. Returns 0 if more bytes have to be received
    /// first.
    pub fn read(&mut self, out: &mut [u8]) -> usize {
        let mut written = 0;
        while written < out.len() {
            let pending = if self.repaired_sent < self.repaired.len() {
                &self.repaired[self.repaired_sent..]
            } else {
                &self.buffer[self.start..self.checked]
            };
            if pending.is_empty() {
                if !self.check_frames() {
                    break;
                }
                continue;
            }
            let count = pending.len().min(out.len() - written);
            out[written..written + count].copy_from_slice(&pending[..count]);
            written += count;
            if self.repaired_sent < self.repaired.len() {
                self.repaired_sent += count;
            } else {
                self.start += count;
            }
        }
        written
    }

    /// Checks frames up to the first one that needs repair, or repairs one. Returns whether there are bytes to pass on.
    fn check_frames(&mut self) -> bool {
        loop {
            match self.next_frame() {
                NextFrame::Incomplete => return self.start < self.checked,
                NextFrame::Clean(bytes) => {
                    let available = bytes.min(self.end - self.checked);
                    self.checked += available;
                    self.unchecked_rest = bytes - available;
                }
                NextFrame::Repaired(bytes, repaired) if self.start == self.checked => {
                    self.start += bytes;
                    self.checked = self.start;
                    (self.repaired, self.repaired_sent) = (repaired, 0);
                    return true;
                }
                // The clean frames before it go first.
                NextFrame::Repaired(..) => return true,
            }
        }
    }

    fn next_frame(&self) -> NextFrame {
        let bytes = &self.buffer[self.checked..self.end];
        if bytes.is_empty() {
            return NextFrame::Incomplete;
        }
        if self.unchecked_rest > 0 {
            return NextFrame::Clean(self.unchecked_rest);
        }
        let kind = bytes[0];
        if kind == PROTOCOL_HEADER {
            return NextFrame::Clean(PROTOCOL_HEADER_BYTES);
        }
        let Some(start) = bytes.get(..FRAME_START_BYTES) else { return NextFrame::Incomplete };
        let payload_bytes = u32::from_be_bytes([start[3], start[4], start[5], start[6]]) as usize;
        let frame_bytes = FRAME_START_BYTES + payload_bytes + 1;
        let repair = match kind {
            METHOD => repair_method,
            HEADER => repair_header,
            BODY | HEARTBEAT => return NextFrame::Clean(frame_bytes),
            // Not AMQP: lapin reports the error.
            _ => return NextFrame::Clean(usize::MAX),
        };
        if payload_bytes > MAX_REPAIRED_BYTES {
            return NextFrame::Clean(frame_bytes);
        }
        let Some(frame) = bytes.get(..frame_bytes) else { return NextFrame::Incomplete };
        match repair(&frame[FRAME_START_BYTES..frame_bytes - 1]) {
            None => NextFrame::Clean(frame_bytes),
            Some(payload) => {
                let size = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
                NextFrame::Repaired(frame_bytes, [&start[..3], &size, &payload, &[FRAME_END]].concat())
            }
        }
    }
}

#[cfg(test)]
mod tests;
