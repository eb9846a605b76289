//! Strings, byte strings and UUIDs: mostly copies.

use arrow::array::{Array, ArrayRef, AsArray, ByteView, FixedSizeBinaryArray};
use arrow::array::{GenericByteArray, GenericByteViewArray, OffsetSizeTrait, StringViewArray};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::*;
use bytes::BytesMut;

use super::column::{ValueWriter, mismatch};
use super::sink::{MAX_LENGTH, Sink};
use super::{Error, Result};

/// Copies of at most this many bytes are done with wide moves that may copy too much.
const SHORT: usize = 32;

/// Values that are byte strings in Arrow.
trait Bytes {
    fn get(&self, row: usize) -> &[u8];

    #[inline(always)]
    fn copy(&self, row: usize, out: &mut Sink) -> Result<()> {
        put(self.get(row), out)
    }
}

/// Byte strings one behind the other.
struct Run<O: OffsetSizeTrait> {
    offsets: OffsetBuffer<O>,
    data: Buffer,
}

impl<O: OffsetSizeTrait> Bytes for Run<O> {
    #[inline(always)]
    fn get(&self, row: usize) -> &[u8] {
        &self.data[self.offsets[row].as_usize()..self.offsets[row + 1].as_usize()]
    }

    #[inline(always)]
    fn copy(&self, row: usize, out: &mut Sink) -> Result<()> {
        put_part(&self.data, self.offsets[row].as_usize(), self.offsets[row + 1].as_usize(), out)
    }
}

impl<T: ByteViewType> Bytes for GenericByteViewArray<T> {
    #[inline(always)]
    fn get(&self, row: usize) -> &[u8] {
        self.value(row).as_ref()
    }

    #[inline(always)]
    fn copy(&self, row: usize, out: &mut Sink) -> Result<()> {
        let view = self.views()[row];
        let len = view as u32 as usize;
        if len <= 12 {
            // The string stands in the view itself.
            *out.room() = (view >> 32).to_le_bytes();
            out.advance(len);
            return Ok(());
        }
        let view = ByteView::from(view);
        let start = view.offset as usize;
        put_part(&self.data_buffers()[view.buffer_index as usize], start, start + len, out)
    }
}

impl Bytes for FixedSizeBinaryArray {
    fn get(&self, row: usize) -> &[u8] {
        self.value(row)
    }
}

/// Appends a string of a view array.
#[inline(always)]
pub(super) fn view(strings: &StringViewArray, row: usize, out: &mut Sink) -> Result<()> {
    strings.copy(row, out)
}

/// Byte strings with their ends.
pub(super) struct Slices {
    data: BytesMut,
    ends: Vec<usize>,
}

impl Slices {
    pub(super) fn new(data: BytesMut, ends: Vec<usize>) -> Self {
        Self { data, ends }
    }

    #[inline(always)]
    pub(super) fn copy(&self, index: usize, out: &mut Sink) -> Result<()> {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        put_part(&self.data, start, self.ends[index], out)
    }
}

/// Appends a part of a larger buffer.
#[inline(always)]
fn put_part(data: &[u8], start: usize, end: usize, out: &mut Sink) -> Result<()> {
    if end - start <= SHORT
        && let Some(chunk) = data[start..].first_chunk::<SHORT>()
    {
        *out.room() = *chunk;
        out.advance(end - start);
        return Ok(());
    }
    put(&data[start..end], out)
}

fn put(bytes: &[u8], out: &mut Sink) -> Result<()> {
    if bytes.len() > MAX_LENGTH {
        return Err(Error::TooLarge { bytes: bytes.len() });
    }
    out.put(bytes);
    Ok(())
}

/// As they are: text, and `bytea` in binary format.
struct Raw<B>(B);

impl<B: Bytes> ValueWriter for Raw<B> {
    #[inline(always)]
    fn write(&self, row: usize, out: &mut Sink) -> Result<()> {
        self.0.copy(row, out)
    }
}

/// `bytea` as text: `\x` and two digits a byte.
struct Hex<B>(B);

impl<B: Bytes> ValueWriter for Hex<B> {
    fn write(&self, row: usize, out: &mut Sink) -> Result<()> {
        let bytes = self.0.get(row);
        if bytes.len() > MAX_LENGTH / 2 {
            return Err(Error::TooLarge { bytes: 2 * bytes.len() });
        }
        out.put(b"\\x");
        let len = 2 * bytes.len();
        put_hex(bytes, out.room_for(len));
        out.advance(len);
        Ok(())
    }
}

/// A UUID as text.
struct Hyphenated(FixedSizeBinaryArray);

impl ValueWriter for Hyphenated {
    fn write(&self, row: usize, out: &mut Sink) -> Result<()> {
        let bytes = self.0.get(row);
        let room = out.room::<36>();
        let groups = [(0..4, 0), (4..6, 9), (6..8, 14), (8..10, 19), (10..16, 24)];
        room.fill(b'-');
        for (bytes, at) in groups.map(|(range, at)| (&bytes[range], at)) {
            put_hex(bytes, &mut room[at..at + 2 * bytes.len()]);
        }
        out.advance(36);
        Ok(())
    }
}

fn put_hex(bytes: &[u8], out: &mut [u8]) {
    static DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// Does the same with whatever kind of byte strings the array has.
macro_rules! with_bytes {
    ($array:expr, $writer:ident) => {
        match $array.data_type() {
            DataType::Utf8 => boxed($writer(run($array.as_string::<i32>()))),
            DataType::LargeUtf8 => boxed($writer(run($array.as_string::<i64>()))),
            DataType::Binary => boxed($writer(run($array.as_binary::<i32>()))),
            DataType::LargeBinary => boxed($writer(run($array.as_binary::<i64>()))),
            DataType::Utf8View => boxed($writer($array.as_string_view().clone())),
            DataType::BinaryView => boxed($writer($array.as_binary_view().clone())),
            DataType::FixedSizeBinary(_) => boxed($writer($array.as_fixed_size_binary().clone())),
            _ => Err(mismatch($array)),
        }
    };
}

fn run<T: ByteArrayType>(array: &GenericByteArray<T>) -> Run<T::Offset> {
    Run { offsets: array.offsets().clone(), data: array.values().clone() }
}

fn boxed(writer: impl ValueWriter + 'static) -> Result<Box<dyn ValueWriter>> {
    Ok(Box::new(writer))
}

/// The writer that copies strings and byte strings.
pub(super) fn raw(array: &ArrayRef) -> Result<Box<dyn ValueWriter>> {
    with_bytes!(array, Raw)
}

/// The writer of `bytea` as text.
pub(super) fn hex(array: &ArrayRef) -> Result<Box<dyn ValueWriter>> {
    with_bytes!(array, Hex)
}

/// The writer of `uuid` as text.
pub(super) fn uuid(array: &ArrayRef) -> Result<Box<dyn ValueWriter>> {
    match array.as_fixed_size_binary_opt() {
        Some(array) if array.value_length() == 16 => boxed(Hyphenated(array.clone())),
        _ => Err(mismatch(array)),
    }
}
