//! Helpers for this module's tests.

use bytes::BytesMut;

use super::Result;
use super::sink::Sink;

/// What a writer wrote.
pub(super) fn written(write: impl FnOnce(&mut Sink) -> Result<()>) -> BytesMut {
    let mut sink = Sink::after(BytesMut::new());
    write(&mut sink).unwrap();
    sink.into_bytes()
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
