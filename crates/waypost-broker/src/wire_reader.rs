//! Reads strings, tables and arrays of AMQP 0-9-1 (4.2.5) from unchecked bytes.

/// Holds the unread bytes. Each method returns `None` if there are too few.
pub(super) struct WireReader<'a>(pub(super) &'a [u8]);

impl<'a> WireReader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    pub(super) fn short_string(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(usize::from(length))
    }

    /// Bytes that follow their number as a `u32`: a long string, a table or an array.
    pub(super) fn long_bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.take(4)?.try_into().ok().map(u32::from_be_bytes)?;
        self.take(usize::try_from(length).ok()?)
    }

    /// A field value: its type, and its content without the length. `None` also if the type is unknown.
    pub(super) fn value(&mut self) -> Option<(u8, &'a [u8])> {
        let kind = self.take(1)?[0];
        let content = match kind {
            b'V' => self.take(0),
            b't' | b'b' | b'B' => self.take(1),
            b's' | b'U' | b'u' => self.take(2),
            b'I' | b'i' | b'f' => self.take(4),
            b'D' => self.take(5),
            b'L' | b'l' | b'd' | b'T' => self.take(8),
            b'S' | b'x' | b'A' | b'F' => self.long_bytes(),
            _ => None,
        };
        Some((kind, content?))
    }
}
