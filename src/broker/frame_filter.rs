//! Splits what the broker sends into frames, and passes them on: most as they are, some repaired by `frame_repair`.

use super::frame_repair::{repair_header, repair_method};

/// Frame types of AMQP 0-9-1.
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// The first byte of a protocol header, with which a broker answers that it speaks another version.
const PROTOCOL_HEADER: u8 = b'A';
const PROTOCOL_HEADER_BYTES: usize = 8;

/// Type, channel and size of a frame.
const FRAME_START_BYTES: usize = 7;
const FRAME_END: u8 = 0xCE;

/// Received at once, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// A method or content header above this size is not repaired: RabbitMQ sends none.
const MAX_REPAIRED_BYTES: usize = 16 * 1024 * 1024;

/// Bytes on their way from the broker to lapin.
#[derive(Debug, Default)]
pub struct FrameFilter {
    buffer: Vec<u8>,
    /// The buffer holds bytes from `start` to `end`. Those before `checked` may be passed on.
    start: usize,
    checked: usize,
    end: usize,
    /// Bytes yet to come of a frame that is passed on before it is complete.
    unchecked_rest: usize,
    /// A frame that replaces one of the buffer, and how much of it was passed on.
    repaired: Vec<u8>,
    repaired_sent: usize,
}

/// The next frame in the buffer.
enum FilterState {
    /// More bytes are needed.
    Incomplete,
    /// The frame may be passed on as it is. It has this many bytes.
    Clean(usize),
    /// It has this many bytes, and others take its place.
    Repaired(usize, Vec<u8>),
}

impl FrameFilter {
    /// Where bytes from the broker are to be written. Never empty.
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

    /// This many bytes were written to the [free space](Self::free_space).
    pub fn received(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// Passes on as many bytes as fit into `out`, and answers how many. None if more have to be received first.
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

    /// Checks as many frames as are clean, or repairs one. Answers whether there are bytes to pass on.
    fn check_frames(&mut self) -> bool {
        loop {
            match self.next_frame() {
                FilterState::Incomplete => return self.start < self.checked,
                FilterState::Clean(bytes) => {
                    let available = bytes.min(self.end - self.checked);
                    self.checked += available;
                    self.unchecked_rest = bytes - available;
                }
                FilterState::Repaired(bytes, repaired) if self.start == self.checked => {
                    self.start += bytes;
                    self.checked = self.start;
                    (self.repaired, self.repaired_sent) = (repaired, 0);
                    return true;
                }
                // Those before it go first.
                FilterState::Repaired(..) => return true,
            }
        }
    }

    fn next_frame(&self) -> FilterState {
        let bytes = &self.buffer[self.checked..self.end];
        if bytes.is_empty() {
            return FilterState::Incomplete;
        }
        if self.unchecked_rest > 0 {
            return FilterState::Clean(self.unchecked_rest);
        }
        let kind = bytes[0];
        if kind == PROTOCOL_HEADER {
            return FilterState::Clean(PROTOCOL_HEADER_BYTES);
        }
        let Some(start) = bytes.get(..FRAME_START_BYTES) else { return FilterState::Incomplete };
        let payload_bytes = u32::from_be_bytes([start[3], start[4], start[5], start[6]]) as usize;
        let frame_bytes = FRAME_START_BYTES + payload_bytes + 1;
        let repair = match kind {
            METHOD => repair_method,
            HEADER => repair_header,
            BODY | HEARTBEAT => return FilterState::Clean(frame_bytes),
            // Not AMQP: lapin says so.
            _ => return FilterState::Clean(usize::MAX),
        };
        if payload_bytes > MAX_REPAIRED_BYTES {
            return FilterState::Clean(frame_bytes);
        }
        let Some(frame) = bytes.get(..frame_bytes) else { return FilterState::Incomplete };
        match repair(&frame[FRAME_START_BYTES..frame_bytes - 1]) {
            None => FilterState::Clean(frame_bytes),
            Some(payload) => {
                let size = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
                FilterState::Repaired(frame_bytes, [&start[..3], &size, &payload, &[FRAME_END]].concat())
            }
        }
    }
}

#[cfg(test)]
mod tests;
