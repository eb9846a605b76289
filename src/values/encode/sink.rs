//! A growing output buffer whose writers may write past the end of their value: room is handed out
//! as an array of a fixed size, so that a value is stored with a few wide moves and no bounds check
//! a byte, and only the part that counts is kept.

use bytes::BytesMut;

use super::{Error, Result};

/// How much room is made (and zeroed) at a time.
const STEP: usize = 16 * 1024;

/// The longest value or message the protocol's signed 32-bit lengths allow, in bytes; as much as
/// PostgreSQL's own `MaxAllocSize`.
pub(super) const MAX_LENGTH: usize = 0x3fff_ffff;

/// Invariant: `buf[..end]` is what was written; what follows is scratch.
pub(super) struct Sink {
    buf: BytesMut,
    end: usize,
}

impl Sink {
    /// A sink that appends to what is in `buf`.
    pub(super) fn after(buf: BytesMut) -> Self {
        let end = buf.len();
        Self { buf, end }
    }

    /// Everything written, and what was in the buffer before.
    pub(super) fn into_bytes(mut self) -> BytesMut {
        self.buf.truncate(self.end);
        self.buf
    }

    pub(super) fn len(&self) -> usize {
        self.end
    }

    /// Forgets what was written from `len` on.
    pub(super) fn truncate(&mut self, len: usize) {
        self.end = self.end.min(len);
    }

    /// What was written from `start` on.
    pub(super) fn since(&self, start: usize) -> &[u8] {
        &self.buf[start..self.end]
    }

    /// The next `N` bytes to scribble on; [`Self::advance`] then keeps the first of them.
    #[inline(always)]
    pub(super) fn room<const N: usize>(&mut self) -> &mut [u8; N] {
        if self.buf.len() - self.end < N {
            self.grow(N);
        }
        match self.buf[self.end..].first_chunk_mut() {
            Some(room) => room,
            None => unreachable!("room for N bytes was made"),
        }
    }

    /// Keeps `len` of the bytes last handed out.
    #[inline(always)]
    pub(super) fn advance(&mut self, len: usize) {
        self.end += len;
    }

    /// As [`Self::room`], for a length that is known only now.
    #[inline]
    pub(super) fn room_for(&mut self, len: usize) -> &mut [u8] {
        if self.buf.len() - self.end < len {
            self.grow(len);
        }
        &mut self.buf[self.end..self.end + len]
    }

    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.room_for(bytes.len()).copy_from_slice(bytes);
        self.end += bytes.len();
    }

    #[inline(always)]
    pub(super) fn put_array<const N: usize>(&mut self, bytes: [u8; N]) {
        *self.room() = bytes;
        self.end += N;
    }

    #[inline(always)]
    pub(super) fn put_i32(&mut self, value: i32) {
        self.put_array(value.to_be_bytes());
    }

    /// Leaves room for an i32 length and says where.
    #[inline(always)]
    pub(super) fn open(&mut self) -> usize {
        let at = self.end;
        self.put_array([0; 4]);
        at
    }

    /// Writes at `at` the length of what follows it. The length's own four bytes count if
    /// `inclusive`, as in a message, but not in a value.
    #[inline(always)]
    pub(super) fn close(&mut self, at: usize, inclusive: bool) -> Result<()> {
        let len = self.end - at - if inclusive { 0 } else { 4 };
        if len > MAX_LENGTH {
            return Err(Error::TooLarge { bytes: len });
        }
        self.buf[at..at + 4].copy_from_slice(&(len as u32).to_be_bytes());
        Ok(())
    }

    /// Whether one of the bytes written from `start` on is `special`. Sixteen are looked at at once;
    /// `filler` is a byte that is not special.
    #[inline(always)]
    pub(super) fn any_since(
        &mut self,
        start: usize,
        filler: u8,
        special: impl Fn(u8) -> bool,
    ) -> bool {
        *self.room() = [filler; 16];
        let padded = start + (self.end - start).next_multiple_of(16);
        let mut blocks = self.buf[start..padded].chunks_exact(16);
        blocks.any(|block| block.iter().fold(false, |any, byte| any | special(*byte)))
    }

    /// Puts what was written from `start` on between double quotes, each byte as `escape` says.
    pub(super) fn quote(&mut self, start: usize, escape: impl Fn(u8) -> Escaped) {
        let extra: usize = self.since(start).iter().map(|&b| escape(b).len() - 1).sum();
        self.widen(start, extra, Some(b'"'), escape);
    }

    /// Replaces each byte written from `start` on as `escape` says, which makes it `extra` bytes
    /// longer, and puts it between `quotes`.
    pub(super) fn widen(
        &mut self,
        start: usize,
        mut extra: usize,
        quotes: Option<u8>,
        escape: impl Fn(u8) -> Escaped,
    ) {
        let margin = usize::from(quotes.is_some());
        self.room_for(extra + 2 * margin);
        let (mut from, mut to) = (self.end, self.end + extra + margin);
        self.end = to + margin;
        // From the back, so that nothing is overwritten before it was read.
        while extra > 0 && from > start {
            from -= 1;
            let escaped = escape(self.buf[from]);
            to -= escaped.len();
            self.buf[to..to + escaped.len()].copy_from_slice(escaped.bytes());
            extra -= escaped.len() - 1;
        }
        if let Some(quote) = quotes {
            self.buf.copy_within(start..from, start + 1);
            (self.buf[start], self.buf[self.end - 1]) = (quote, quote);
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, need: usize) {
        let room = need.max(STEP);
        self.buf.resize(self.end + room, 0);
    }
}

/// One byte's escaped form, at most six bytes.
pub(super) struct Escaped {
    bytes: [u8; 6],
    len: u8,
}

impl Escaped {
    pub(super) fn plain(byte: u8) -> Self {
        Self { bytes: [byte, 0, 0, 0, 0, 0], len: 1 }
    }

    pub(super) fn pair(first: u8, second: u8) -> Self {
        Self { bytes: [first, second, 0, 0, 0, 0], len: 2 }
    }

    pub(super) fn six(bytes: [u8; 6]) -> Self {
        Self { bytes, len: 6 }
    }

    fn len(&self) -> usize {
        usize::from(self.len)
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_as_needed_and_what_was_there_stays() {
        let mut sink = Sink::after(BytesMut::from(&b"ab"[..]));
        for _ in 0..10_000 {
            *sink.room() = *b"xyz.....";
            sink.advance(3);
        }
        let bytes = sink.into_bytes();
        assert_eq!(bytes.len(), 30_002);
        assert_eq!(&bytes[..8], b"abxyzxyz");
    }

    #[test]
    fn quoting_in_place() {
        let escape = |b| match b {
            b'"' => Escaped::pair(b'\\', b'"'),
            1 => Escaped::six(*b"\\u0001"),
            b => Escaped::plain(b),
        };
        for (text, expected) in
            [("", ""), ("ab", "ab"), ("\"", "\\\""), ("a\"\u{1}b\"", "a\\\"\\u0001b\\\"")]
        {
            let mut sink = Sink::after(BytesMut::from(&b"-"[..]));
            sink.put(text.as_bytes());
            sink.quote(1, escape);
            assert_eq!(sink.into_bytes(), format!("-\"{expected}\""));
        }
    }
}
