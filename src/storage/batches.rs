//! Batches of rows from the bytes of a text, no more bytes at once than they take.

use arrow::array::RecordBatch;
use arrow::csv::reader::Decoder as CsvDecoder;
use arrow::error::ArrowError;
use arrow::json::reader::Decoder as JsonDecoder;
use bytes::{Buf, Bytes};
use datafusion::error::Result;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use memchr::{memchr, memchr2};

use super::text::{Chunks, LONGEST, too_long};

/// Bytes of text in a batch, but for its last row: few rows may be long.
const FULL: usize = 16 << 20;

/// What makes rows of bytes.
pub(super) trait Decoder: Send + 'static {
    /// Takes some of the bytes, none if a batch is full. Without bytes the text is over.
    fn decode(&mut self, bytes: &[u8]) -> Result<usize, ArrowError>;

    /// Whether there is a batch, and no part of another row.
    fn is_full(&self) -> bool;

    fn flush(&mut self) -> Result<Option<RecordBatch>, ArrowError>;
}

/// The rows of a text.
pub(super) fn rows(
    chunks: Chunks,
    decoder: impl Decoder,
) -> BoxStream<'static, Result<RecordBatch>> {
    let rows = Rows { chunks, chunk: Bytes::new(), over: false, decoder };
    stream::try_unfold(rows, async |mut rows| Ok(rows.next().await?.map(|it| (it, rows)))).boxed()
}

struct Rows<D> {
    chunks: Chunks,
    /// What is left of the last one.
    chunk: Bytes,
    over: bool,
    decoder: D,
}

impl<D: Decoder> Rows<D> {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            while self.over || !self.chunk.is_empty() {
                let decoded = self.decoder.decode(&self.chunk)?;
                self.chunk.advance(decoded);
                if decoded > 0 && !self.decoder.is_full() {
                    continue;
                }
                let batch = self.decoder.flush()?;
                if batch.is_some() || (self.over && self.chunk.is_empty()) {
                    return Ok(batch);
                }
            }
            match self.chunks.try_next().await? {
                Some(chunk) => self.chunk = chunk,
                None => self.over = true,
            }
        }
    }
}

/// Objects of JSON.
pub(super) struct Objects {
    decoder: JsonDecoder,
    /// Bytes since the last batch.
    taken: usize,
}

impl Objects {
    pub fn new(decoder: JsonDecoder) -> Self {
        Self { decoder, taken: 0 }
    }
}

impl Decoder for Objects {
    fn decode(&mut self, bytes: &[u8]) -> Result<usize, ArrowError> {
        // An object may end there.
        let piece = match memchr(b'}', bytes) {
            Some(end) if self.taken >= FULL => &bytes[..=end],
            _ => bytes,
        };
        let decoded = self.decoder.decode(piece)?;
        self.taken += decoded;
        match self.taken > FULL + LONGEST && self.decoder.has_partial_record() {
            true => Err(too_long().into()),
            false => Ok(decoded),
        }
    }

    fn is_full(&self) -> bool {
        self.taken >= FULL && !self.decoder.has_partial_record()
    }

    fn flush(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        self.taken = 0;
        self.decoder.flush()
    }
}

/// Records of CSV.
pub(super) struct Records {
    decoder: CsvDecoder,
    /// What ends lines instead of `\n` and `\r`.
    terminator: Option<u8>,
    /// Bytes since the last batch.
    taken: usize,
    /// The last byte taken was the end of a record, as far as that was looked for.
    ended: bool,
}

impl Records {
    pub fn new(decoder: CsvDecoder, terminator: Option<u8>) -> Self {
        Self { decoder, terminator, taken: 0, ended: false }
    }

    /// Up to the end of a line, or that end alone.
    fn piece<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let end = match self.terminator {
            Some(terminator) => memchr(terminator, bytes),
            None => memchr2(b'\n', b'\r', bytes),
        };
        match end {
            Some(end) => &bytes[..end.max(1)],
            None => bytes,
        }
    }
}

impl Decoder for Records {
    fn decode(&mut self, bytes: &[u8]) -> Result<usize, ArrowError> {
        let is_much = self.taken >= FULL;
        let piece = if is_much { self.piece(bytes) } else { bytes };
        let before = self.decoder.capacity();
        let decoded = self.decoder.decode(piece)?;
        self.taken += decoded;
        // The decoder does not tell whether it is within a record. Behind one byte that has made another it is not.
        self.ended = is_much && decoded == 1 && self.decoder.capacity() < before;
        Ok(decoded)
    }

    fn is_full(&self) -> bool {
        self.ended || self.decoder.capacity() == 0
    }

    fn flush(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        (self.taken, self.ended) = (0, false);
        self.decoder.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

    use super::*;

    fn columns(kind: DataType) -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("a", kind.clone(), true),
            Field::new("b", kind, true),
        ]))
    }

    fn objects() -> Objects {
        let reader = arrow::json::ReaderBuilder::new(columns(DataType::Utf8)).with_batch_size(1000);
        Objects::new(reader.build_decoder().expect("a decoder"))
    }

    fn records(terminator: Option<u8>) -> Records {
        let mut reader =
            arrow::csv::ReaderBuilder::new(columns(DataType::Utf8)).with_batch_size(1000);
        if let Some(terminator) = terminator {
            reader = reader.with_terminator(terminator);
        }
        Records::new(reader.build_decoder(), terminator)
    }

    /// The values of the rows, and how many rows each batch has.
    async fn read(text: String, size: usize, decoder: impl Decoder) -> (Vec<String>, Vec<usize>) {
        let text = Bytes::from(text);
        let chunks = (0..text.len()).step_by(size);
        let chunks: Vec<_> =
            chunks.map(|at| Ok(text.slice(at..text.len().min(at + size)))).collect();
        let batches: Result<Vec<RecordBatch>> =
            rows(stream::iter(chunks).boxed(), decoder).try_collect().await;
        let batches = batches.expect("rows");
        let values = batches.iter().flat_map(|batch| {
            let (a, b) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
            a.iter().zip(b).map(|(a, b)| format!("{a:?}{b:?}"))
        });
        (values.collect(), batches.iter().map(RecordBatch::num_rows).collect())
    }

    #[tokio::test]
    async fn long_rows_make_small_batches() {
        // Line ends within a value, and values as long as a batch may be.
        let values = [("x".repeat(3 << 20), "y\nz".to_owned()), ("1".into(), "w".repeat(FULL + 7))];
        let values: Vec<_> = values.iter().cycle().take(9).collect();
        let expected: Vec<String> =
            values.iter().map(|(a, b)| format!("{:?}{:?}", Some(a), Some(b))).collect();
        for end in ["\n", "\r\n", "\r", ";"] {
            let rows = values.iter().map(|(a, b)| format!("{a},\"{b}\"{end}"));
            for size in [FULL / 3, 70_001] {
                let terminator = end.bytes().next().filter(|byte| *byte == b';');
                let (read, batches) = read(rows.clone().collect(), size, records(terminator)).await;
                assert!(read == expected, "{end:?} by {size}");
                assert!(batches.iter().all(|rows| *rows <= 5), "{batches:?}");
                assert!(batches.len() > 3, "{batches:?}");
            }
        }
        let spelled = values.iter().map(|(a, b)| serde_json::json!({"a": a, "b": b}));
        let lines: String = spelled.clone().map(|value| format!("{value}\n")).collect();
        let pretty: String = spelled.map(|value| format!("{value:#}")).collect();
        for text in [lines, pretty] {
            for size in [FULL / 3, 70_001] {
                let (read, batches) = read(text.clone(), size, objects()).await;
                assert!(read == expected, "by {size}");
                assert!(batches.iter().all(|rows| *rows <= 5), "{batches:?}");
            }
        }
    }

    #[tokio::test]
    async fn no_more_is_read_than_is_needed() {
        let line = Bytes::from("1,2\n".repeat(10_000));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let chunks = stream::repeat_with(move || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(line.clone())
        });
        let mut rows = rows(chunks.boxed(), records(None));
        for _ in 0..20 {
            assert_eq!(rows.try_next().await.expect("rows").expect("more").num_rows(), 1000);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn an_object_over_several_lines_has_a_bound() {
        let line = Bytes::from(format!("\"{}\",\n", "x".repeat(1 << 20)));
        let chunks = stream::once(async { Ok(Bytes::from_static(b"{\"a\":[")) });
        let chunks = chunks.chain(stream::repeat_with(move || Ok(line.clone())));
        let told = rows(chunks.boxed(), objects()).try_next().await.expect_err("too long");
        assert!(told.to_string().contains("64 MiB"), "{told}");
    }
}
