//! How CSV is read: columns by the names in a file's own header, wherever they stand in it, and with an error
//! at the end of a file within a quoted value, which has swallowed all that follows. The rows before it are
//! given by then, so what takes only the first of them (LIMIT) does not see the error; and where lines may be
//! comments nothing is looked for.

use std::sync::Arc;

use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::{Bytes, BytesMut};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{CsvSource, FileScanConfig, FileSource};
use datafusion::error::Result;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_datasource::TableSchema;
use datafusion_datasource::file_stream::{FileOpenFuture, FileOpener};
use datafusion_datasource::projection::{ProjectionOpener, SplitProjection};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use memchr::{memchr, memchr_iter, memchr2};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use super::batches::{Records, rows};
use super::spelled::{Source, asked, settled};
use super::text::{Chunks, LONGEST, Part, of_bounded_lines, part, too_long, whole};

/// Bytes in which a file's header ends.
pub(super) const HEADER: u64 = 1 << 20;

/// Bytes in which it ends but for very wide tables.
const NEAR: u64 = 64 << 10;

/// What some programs begin a file with, to say that it is UTF-8.
const MARK: char = '\u{feff}';

/// The engine's source of CSV with another reader.
#[derive(Clone)]
pub(super) struct Csv {
    source: CsvSource,
    batch_size: usize,
}

impl Csv {
    pub fn new(source: CsvSource) -> Self {
        Self { source, batch_size: 8192 }
    }
}

impl FileSource for Csv {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        _: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let table = self.source.table_schema();
        let columns = table.file_schema().clone();
        let projection = match self.source.projection() {
            Some(projection) => SplitProjection::new(&columns, projection),
            None => SplitProjection::unprojected(table),
        };
        let opener = Opener {
            csv: self.clone(),
            columns: columns.clone(),
            wanted: projection.file_indices.clone(),
            compression: config.file_compression_type,
            store,
        };
        ProjectionOpener::try_new(projection, Arc::new(opener), &columns)
    }

    fn table_schema(&self) -> &TableSchema {
        self.source.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Arc::new(Self { batch_size, ..self.clone() })
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.source.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.source.metrics()
    }

    fn file_type(&self) -> &str {
        self.source.file_type()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.source.apply_expressions(f)
    }
}

#[derive(Clone)]
struct Opener {
    csv: Csv,
    /// The table's, but for those of directories.
    columns: SchemaRef,
    /// Which of them are read.
    wanted: Vec<usize>,
    compression: FileCompressionType,
    store: Arc<dyn ObjectStore>,
}

impl FileOpener for Opener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let opener = self.clone();
        Ok(async move { opener.rows(file).await }.boxed())
    }
}

impl Opener {
    async fn rows(
        self,
        file: PartitionedFile,
    ) -> Result<BoxStream<'static, Result<arrow::array::RecordBatch>>> {
        let range = Part::of(&file);
        let mut chunks = match range {
            Some(lines) => part(&self.store, &file.object_meta, lines, self.terminator()),
            None => whole(self.store.as_ref(), &file.object_meta, self.compression).await?,
        };
        let begins = range.is_none_or(|part| part.start == 0);
        let mut header = None;
        if self.csv.source.has_header() {
            let head = if begins {
                let (head, all) = header_of(chunks, &self.csv.source).await?;
                chunks = all;
                head
            } else {
                far_header(self.store.as_ref(), &file.object_meta, &self.csv.source).await?
            };
            header = self.found(&head)?;
        }
        let decoder = self.reader(header, begins).build_decoder();
        let goes_on = range.is_some_and(|part| part.end < file.object_meta.size);
        let chunks = of_bounded_lines(chunks, self.csv.source.terminator());
        let chunks = match self.csv.source.comment() {
            // What stands in a comment opens nothing, and nobody looks where comments are.
            Some(_) => chunks,
            None => self.checked(chunks, goes_on),
        };
        let wanted = Arc::new(self.columns.project(&self.wanted)?);
        let rows = rows(chunks, Records::new(decoder, self.csv.source.terminator()));
        Ok(rows.map(move |batch| Ok(settled(batch?, &wanted)?)).boxed())
    }

    fn terminator(&self) -> u8 {
        self.csv.source.terminator().unwrap_or(b'\n')
    }

    /// Where in a file's lines the table's columns stand, and how many there are in the file; `None` if they
    /// stand as they do in the table.
    fn found(&self, head: &[u8]) -> Result<Option<Header>> {
        // One that is not UTF-8 says nothing of the columns.
        let Ok(names) = names(&self.csv.source, head) else { return Ok(None) };
        let columns: Vec<&str> =
            self.columns.fields().iter().map(|it| it.name().as_str()).collect();
        let places = places(&names, &columns, self.csv.source.truncate_rows());
        let places = places.map_err(ArrowError::CsvError)?;
        Ok(places.map(|places| Header { names, places }))
    }

    fn reader(&self, header: Option<Header>, begins: bool) -> ReaderBuilder {
        let (schema, wanted) = match header {
            None => (self.columns.clone(), self.wanted.clone()),
            Some(Header { names, places }) => {
                let text = |name: &String| Arc::new(Field::new(name, DataType::Utf8, true));
                let mut fields: Vec<_> = names.iter().map(text).collect();
                for (column, place) in self.columns.fields().iter().zip(&places) {
                    fields[*place] = column.clone();
                }
                let wanted = self.wanted.iter().map(|column| places[*column]).collect();
                (Arc::new(Schema::new(fields)), wanted)
            }
        };
        let source = &self.csv.source;
        let mut reader = ReaderBuilder::new(asked(&schema, Source::Csv))
            .with_delimiter(source.delimiter())
            .with_batch_size(self.csv.batch_size)
            .with_header(source.has_header() && begins)
            .with_quote(source.quote())
            .with_truncated_rows(source.truncate_rows())
            .with_projection(wanted);
        if let Some(terminator) = source.terminator() {
            reader = reader.with_terminator(terminator);
        }
        if let Some(escape) = source.escape() {
            reader = reader.with_escape(escape);
        }
        if let Some(comment) = source.comment() {
            reader = reader.with_comment(comment);
        }
        reader
    }

    /// The same bytes, and an error behind them if they end within a quoted value.
    fn checked(&self, chunks: Chunks, goes_on: bool) -> Chunks {
        let source = &self.csv.source;
        let quotes =
            Quotes::new(source.quote(), source.delimiter(), source.escape(), source.terminator());
        let next = move |(mut chunks, mut quotes): (Chunks, Quotes)| async move {
            if let Some(chunk) = chunks.try_next().await? {
                quotes.see(&chunk);
                return match quotes.open().is_some() && quotes.quoted > LONGEST {
                    true => Err(too_long().into()),
                    false => Ok(Some((chunk, (chunks, quotes)))),
                };
            }
            match quotes.open() {
                None => Ok(None),
                Some(line) => {
                    let of = if goes_on { " of a part" } else { "" };
                    let text = format!("unterminated quote at line {line}{of}");
                    Err(ArrowError::CsvError(text).into())
                }
            }
        };
        stream::try_unfold((chunks, quotes), next).boxed()
    }
}

/// What a file's header says of its columns.
struct Header {
    names: Vec<String>,
    /// Where each of the table's columns stands.
    places: Vec<usize>,
}

/// The bytes up to the end of the header, and all bytes.
async fn header_of(mut chunks: Chunks, source: &CsvSource) -> Result<(Bytes, Chunks)> {
    let mut head = BytesMut::new();
    while (head.len() as u64) < HEADER
        && !header_ends(source, &head)
        && let Some(chunk) = chunks.try_next().await?
    {
        head.extend_from_slice(&chunk);
    }
    let head = head.freeze();
    let first = head.clone();
    Ok((head, stream::once(async { Ok(first) }).chain(chunks).boxed()))
}

/// The same bytes of a file that is not read from its beginning.
async fn far_header(
    store: &dyn ObjectStore,
    file: &ObjectMeta,
    source: &CsvSource,
) -> Result<Bytes> {
    let near = store.get_range(&file.location, 0..NEAR.min(file.size)).await?;
    if header_ends(source, &near) || file.size <= NEAR {
        return Ok(near);
    }
    Ok(store.get_range(&file.location, 0..HEADER.min(file.size)).await?)
}

/// Whether the end of the first line that is no comment is among a file's first bytes.
fn header_ends(source: &CsvSource, mut head: &[u8]) -> bool {
    while let Some(first) = head.first()
        && source.comment() == Some(*first)
    {
        let Some(end) = memchr(b'\n', head) else { return false };
        head = &head[end + 1..];
    }
    match source.terminator() {
        Some(terminator) => memchr(terminator, head).is_some(),
        None => memchr2(b'\n', b'\r', head).is_some(),
    }
}

/// The names in a header.
pub(super) fn names(source: &CsvSource, head: &[u8]) -> Result<Vec<String>> {
    let mut format = Format::default()
        .with_header(true)
        .with_delimiter(source.delimiter())
        .with_quote(source.quote());
    if let Some(terminator) = source.terminator() {
        format = format.with_terminator(terminator);
    }
    if let Some(escape) = source.escape() {
        format = format.with_escape(escape);
    }
    if let Some(comment) = source.comment() {
        format = format.with_comment(comment);
    }
    let (found, _) = format.infer_schema(head, Some(0))?;
    let name = |field: &Arc<Field>| field.name().trim_start_matches(MARK).trim().to_owned();
    Ok(found.fields().iter().map(name).collect())
}

/// Where columns stand in a header; `None` if they stand as they do in the table: where all that it has of their
/// names are in their places, or it has none. Columns of other names were declared under names of their own.
fn places(
    header: &[String],
    columns: &[&str],
    may_end_early: bool,
) -> Result<Option<Vec<usize>>, String> {
    let at = |column: &str| {
        let column = column.trim_start_matches(MARK).trim();
        let same = |fits: &dyn Fn(&str) -> bool| {
            let found = header.iter().enumerate().filter(|(_, name)| fits(name));
            found.map(|(at, _)| at).collect::<Vec<_>>()
        };
        let exact = same(&|name| name == column);
        if exact.is_empty() {
            same(&|name| name.to_lowercase() == column.to_lowercase())
        } else {
            exact
        }
    };
    let found: Vec<Vec<usize>> = columns.iter().map(|column| at(column)).collect();
    if found.iter().all(Vec::is_empty) {
        return Ok(None);
    }
    let in_place = |(at, found): (usize, &Vec<usize>)| found.is_empty() || *found == [at];
    if header.len() == columns.len() && found.iter().enumerate().all(in_place) {
        return Ok(None);
    }
    let mut places = Vec::with_capacity(columns.len());
    for (column, found) in columns.iter().zip(&found) {
        match found.as_slice() {
            [place] => places.push(*place),
            [] if may_end_early && header.iter().zip(columns).all(|(name, own)| name == own) => {
                return Ok(None);
            }
            [] => {
                let known = header.join(", ");
                return Err(format!("its header has no column \"{column}\", only {known}"));
            }
            _ => return Err(format!("its header has column \"{column}\" twice")),
        }
    }
    Ok(Some(places))
}

/// Follows quoted values through the bytes of lines.
struct Quotes {
    quote: u8,
    delimiter: u8,
    escape: Option<u8>,
    /// What ends lines instead of `\n` and `\r`.
    terminator: Option<u8>,
    state: State,
    /// Where in the bytes that are seen the last quoted value began, if it did there.
    opened: Option<usize>,
    /// In which line it began, from 1, if that was before.
    line: u64,
    /// Bytes since then.
    quoted: usize,
    /// Lines that have ended before.
    lines: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Where a value begins.
    Begin,
    /// In one that is not quoted, or behind a quoted one.
    Plain,
    Quoted,
    /// Behind what escapes in it.
    Escaped,
    /// Behind a quote in it: its end, or half of a quote that is meant.
    Ended,
}

impl Quotes {
    fn new(quote: u8, delimiter: u8, escape: Option<u8>, terminator: Option<u8>) -> Self {
        let (state, opened) = (State::Begin, None);
        Self { quote, delimiter, escape, terminator, state, opened, line: 0, quoted: 0, lines: 0 }
    }

    fn see(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            // Up to the next byte that may change anything.
            let next = match (self.state, self.escape) {
                (State::Escaped | State::Ended, _) => Some(0),
                (State::Quoted, Some(escape)) => memchr2(self.quote, escape, rest),
                (State::Quoted | State::Plain | State::Begin, _) => memchr(self.quote, rest),
            };
            let skipped = next.unwrap_or(rest.len());
            if skipped > 0 && self.state != State::Quoted {
                self.state = self.behind(rest[skipped - 1]);
            }
            at += skipped;
            if next.is_some() {
                self.step(bytes[at], at);
                at += 1;
            }
        }
        self.quoted += bytes.len();
        if let Some(at) = self.opened.take() {
            self.quoted = bytes.len() - at;
            self.line = self.lines + 1 + self.ends(&bytes[..at]);
        }
        self.lines += self.ends(bytes);
    }

    /// Outside of quotes.
    fn behind(&self, byte: u8) -> State {
        let ends = match self.terminator {
            Some(terminator) => byte == terminator,
            None => matches!(byte, b'\n' | b'\r'),
        };
        if ends || byte == self.delimiter { State::Begin } else { State::Plain }
    }

    fn step(&mut self, byte: u8, at: usize) {
        let quote = byte == self.quote;
        self.state = match self.state {
            State::Begin if quote => {
                self.opened = Some(at);
                State::Quoted
            }
            State::Quoted if quote => State::Ended,
            State::Quoted if self.escape == Some(byte) => State::Escaped,
            State::Quoted | State::Escaped => State::Quoted,
            State::Ended if quote => State::Quoted,
            State::Begin | State::Plain | State::Ended => self.behind(byte),
        };
    }

    /// The line in which a quoted value began that has not ended.
    fn open(&self) -> Option<u64> {
        matches!(self.state, State::Quoted | State::Escaped).then_some(self.line)
    }

    fn ends(&self, bytes: &[u8]) -> u64 {
        memchr_iter(self.terminator.unwrap_or(b'\n'), bytes).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use datafusion::common::config::CsvOptions;
    use object_store::PutPayload;
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn a_quoted_value_that_does_not_end_is_found() {
        for (text, escape, line) in [
            ("a,b\n1,\"x\"\n", None, None),
            ("a,b\n1,\"x\n2,y\n", None, Some(2)),
            ("a,b\n1,\"x\"\"\n2,y\n", None, Some(2)),
            ("a,b\n1,\"x\ny\"\n2,\"", None, Some(4)),
            ("a,b\n1,5\" pipe\n2,y\n", None, None),
            ("a,b\n1,\"x\"y\"\n2,y\n", None, None),
            ("\"\"", None, None),
            ("\"", None, Some(1)),
            ("a\n\"x\\\"y\"\n", Some(b'\\'), None),
            ("a\n\"x\\\"\n", Some(b'\\'), Some(2)),
            ("a\n\"x\\\\\"\n", Some(b'\\'), None),
            ("a\r\n1\r\n\"x\r\n", None, Some(3)),
        ] {
            for size in 1..=text.len() {
                let mut quotes = Quotes::new(b'"', b',', escape, None);
                text.as_bytes().chunks(size).for_each(|chunk| quotes.see(chunk));
                assert_eq!(quotes.open(), line, "{text:?} in chunks of {size}");
            }
        }
        for (text, line) in [
            ("1,x;\"a,\",2;", None),
            ("1,x;\"a,2;", Some(2)),
            ("1,x\n\"a,2;", None),
            ("1,x\n;\"a", Some(2)),
        ] {
            for size in 1..=text.len() {
                let mut quotes = Quotes::new(b'"', b',', None, Some(b';'));
                text.as_bytes().chunks(size).for_each(|chunk| quotes.see(chunk));
                assert_eq!(quotes.open(), line, "{text:?} in chunks of {size}");
            }
        }
    }

    #[tokio::test]
    async fn a_header_is_read_as_far_as_it_goes() {
        let wide: Vec<String> = (0..20_000).map(|column| format!("column {column}")).collect();
        let remark = format!("#{}\n", ".".repeat(100_000));
        let rows = "\n1,2,3".repeat(100_000);
        for (header, bytes) in
            [("a,b,c".to_owned(), NEAR), (wide.join(","), HEADER), (remark + "a,b,c", HEADER)]
        {
            let (store, location) = (InMemory::new(), "t.csv".into());
            let text = PutPayload::from(header.clone() + &rows);
            let size = text.content_length() as u64;
            store.put(&location, text).await.expect("kept");
            let file = store.head(&location).await.expect("there");
            let options = CsvOptions { comment: Some(b'#'), ..CsvOptions::default() };
            let source = CsvSource::new(Arc::new(Schema::empty())).with_csv_options(options);
            let head = far_header(&store, &file, &source).await.expect("a header");
            assert_eq!(head.len() as u64, bytes.min(size));
            let names = names(&source, &head).expect("names");
            assert_eq!(Some(names.join(",").as_str()), header.lines().last());
        }
    }

    #[test]
    fn columns_are_found_by_name() {
        let of = |header: &[&str], columns: &[&str]| {
            let header: Vec<String> = header.iter().map(|&name| name.to_owned()).collect();
            places(&header, columns, false)
        };
        assert_eq!(of(&["a", "b"], &["a", "b"]), Ok(None));
        assert_eq!(of(&["b", "a"], &["a", "b"]), Ok(Some(vec![1, 0])));
        assert_eq!(of(&["A", "x", "B"], &["a", "b"]), Ok(Some(vec![0, 2])));
        assert_eq!(of(&["a", "A"], &["a"]), Ok(Some(vec![0])));
        assert_eq!(of(&["id", "name"], &["a", "b"]), Ok(None));
        assert_eq!(of(&["id", "name"], &["id", "b"]), Ok(None));
        assert!(of(&["name", "id"], &["id", "b"]).is_err());
        assert!(of(&["id", "name", "more"], &["id", "b"]).is_err());
        let missing = of(&["b", "c"], &["a", "b"]).expect_err("a is not there");
        assert_eq!(missing, "its header has no column \"a\", only b, c");
        let twice = of(&["a", "a", "b"], &["a", "b"]).expect_err("which one?");
        assert_eq!(twice, "its header has column \"a\" twice");
        let header = ["a".to_owned()];
        assert_eq!(places(&header, &["a", "b"], true), Ok(None));
    }
}
