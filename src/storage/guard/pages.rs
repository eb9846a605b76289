//! What pages must be like before the reader underneath takes them apart.
//!
//! A page's head says how large the page is without its compression, and how many values it has; room is
//! made for both before anything is looked at. What cannot be right is refused; what is merely large takes
//! its room from the memory of statements.

use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool};
use flate2::Crc;
use parquet::basic::{Compression, Encoding, PageType, Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::page_index::offset_index::PageLocation;

use super::metadata::extent;
use super::shapes::{DATA_PAGE, DATA_PAGE_V2, DICTIONARY_PAGE, PAGE};
use super::thrift::{BEGIN, Shape, Walk, damaged, varint};
use super::unpacked;

/// Bytes besides a value that each value of a list takes: two levels, and its place.
const LEVELS: u64 = 12;

/// The part of the memory of statements that pages may take without being counted.
const SHARE: usize = 16;

/// How much that is at least, and where the memory has no limit.
const LEAST: usize = 64 << 20;

/// Bytes that pages may take without being counted: those of one reader together, as they say, and one page
/// beyond what it says, where only its decompression would tell.
#[derive(Clone, Copy, Debug)]
pub struct Allowance(pub usize);

impl Allowance {
    pub fn of(memory: &dyn MemoryPool) -> Self {
        match memory.memory_limit() {
            MemoryLimit::Finite(bytes) => Self((bytes / SHARE).max(LEAST)),
            _ => Self(LEAST),
        }
    }
}

/// What a page says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head {
    /// Bytes of the head itself.
    pub length: usize,
    kind: i64,
    uncompressed: i64,
    compressed: i64,
    checksum: Option<i64>,
    /// Values of the page, those that are null and those of a dictionary among them.
    pub values: i64,
    encoding: i64,
    /// Bytes of levels that are not compressed, of definition and of repetition.
    levels: [i64; 2],
    plain: bool,
    /// What heads of pages of values, of dictionaries, and of values in the second version it has.
    parts: [u8; 3],
}

impl Head {
    /// # Errors
    /// What is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let mut head = Self::default();
        let mut walk = Walk::new(bytes);
        walk.structure(&PAGE, &mut |shape, field, value| {
            head.see(shape, field, value);
            Ok(())
        })?;
        head.length = bytes.len() - walk.rest().len();
        let numbers = [head.kind, head.uncompressed, head.compressed, head.values, head.encoding];
        let narrow = |number: i64| i32::try_from(number).is_ok();
        let natural =
            [head.uncompressed, head.compressed, head.values, head.levels[0], head.levels[1]];
        // The reader looks into a head of another kind, too.
        let kinds = [PageType::DATA_PAGE, PageType::DICTIONARY_PAGE, PageType::DATA_PAGE_V2];
        let expected = kinds.map(|kind| u8::from(head.is(kind)));
        let right = numbers.into_iter().all(narrow)
            && natural.into_iter().all(|number| number >= 0 && narrow(number))
            && head.parts == expected;
        match right {
            true => Ok(head),
            false => Err(damaged("the head of a page is none")),
        }
    }

    fn see(&mut self, shape: &'static Shape, field: i16, value: i64) {
        let heads = [&DATA_PAGE, &DICTIONARY_PAGE, &DATA_PAGE_V2];
        let part = heads.into_iter().position(|head| std::ptr::eq(shape, head));
        match (part, field) {
            (Some(part), BEGIN) => self.parts[part] = self.parts[part].saturating_add(1),
            (Some(_), 1) => self.values = value,
            (Some(0 | 1), 2) | (Some(2), 4) => self.encoding = value,
            (Some(2), 5) => self.levels[0] = value,
            (Some(2), 6) => self.levels[1] = value,
            (Some(2), 7) => self.plain = value == 0,
            (None, _) if !std::ptr::eq(shape, &PAGE) => {}
            (None, 1) => self.kind = value,
            (None, 2) => self.uncompressed = value,
            (None, 3) => self.compressed = value,
            (None, 4) => self.checksum = Some(value),
            _ => {}
        }
    }

    /// Bytes before the values that are not compressed.
    pub fn levels(&self) -> i64 {
        self.levels[0] + self.levels[1]
    }

    fn is(&self, kind: PageType) -> bool {
        self.kind == kind as i64
    }

    pub fn is_encoded(&self, encoding: Encoding) -> bool {
        self.encoding == encoding as i64
    }

    pub fn is_version_2(&self) -> bool {
        self.is(PageType::DATA_PAGE_V2)
    }

    fn is_of_values(&self) -> bool {
        self.is(PageType::DATA_PAGE) || self.is_version_2()
    }
}

/// Checks pages of a chunk that begin at a place of the file: those that its page index has there, or, without
/// one, all that follow each other. Returns how many bytes one of them may take at a time, about, besides
/// those of a dictionary, and how many that may.
pub fn check_chunk(
    chunk: &ColumnChunkMetaData,
    locations: &[PageLocation],
    start: u64,
    bytes: &[u8],
    allowance: Allowance,
) -> Result<Needs> {
    let check = Check { chunk, allowance };
    let mut needs = Needs::default();
    let Some(first) = locations.first() else {
        let mut rest = bytes;
        while !rest.is_empty() {
            let head = Head::read(rest)?;
            let end = usize::try_from(head.compressed).ok();
            let end = end.and_then(|length| head.length.checked_add(length));
            let page = end.and_then(|end| rest.get(..end));
            let page = page.ok_or_else(|| damaged("a page is longer than its column"))?;
            needs.add(&head, check.page(&head, page)?);
            rest = &rest[page.len()..];
        }
        return Ok(needs);
    };
    // A dictionary stands before the first of those pages.
    let begin = extent(chunk).map_or(0, |extent| extent.start);
    let before = first.offset as u64;
    let dictionary = (before > begin).then_some(begin..before);
    let from = locations.partition_point(|page| (page.offset as u64) < start);
    let of_values = locations[from..].iter().map(|page| {
        let begin = page.offset as u64;
        begin..begin + page.compressed_page_size as u64
    });
    let of_values = of_values.take_while(|page| page.end <= start + bytes.len() as u64);
    for page in dictionary.into_iter().chain(of_values) {
        let Some(begin) = page.start.checked_sub(start) else { continue };
        let end = (page.end - start) as usize;
        let Some(page) = bytes.get(begin as usize..end) else { continue };
        let head = Head::read(page)?;
        if head.length as i64 + head.compressed != page.len() as i64 {
            return Err(damaged("a page is not as long as the page index says"));
        }
        needs.add(&head, check.page(&head, page)?);
    }
    Ok(needs)
}

/// Bytes that pages take once they are taken apart, about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub dictionary: u64,
    /// Of the largest page of values.
    pub page: u64,
}

impl Needs {
    fn add(&mut self, head: &Head, bytes: u64) {
        let of = if head.is_of_values() { &mut self.page } else { &mut self.dictionary };
        *of = bytes.max(*of);
    }

    /// What the pages take together with others of the same chunk.
    pub fn with(self, other: Self) -> Self {
        Self { dictionary: self.dictionary.max(other.dictionary), page: self.page.max(other.page) }
    }

    pub fn sum(self) -> u64 {
        self.dictionary.saturating_add(self.page)
    }
}

struct Check<'a> {
    chunk: &'a ColumnChunkMetaData,
    allowance: Allowance,
}

impl Check<'_> {
    /// Checks a page, which begins with its head. Returns how many bytes it takes without its compression,
    /// and its values besides if they are of lists: rows of these have as many as they like.
    fn page(&self, head: &Head, page: &[u8]) -> Result<u64> {
        let body = &page[head.length..];
        if let Some(checksum) = head.checksum {
            let mut found = Crc::new();
            found.update(body);
            if found.sum() != checksum as u32 {
                return Err(damaged("a page's checksum is not that of its bytes"));
            }
        }
        // The reader passes over what is of neither kind.
        if !head.is_of_values() && !head.is(PageType::DICTIONARY_PAGE) {
            return Ok(0);
        }
        let whole = self.uncompressed(head, body)?;
        if head.is(PageType::DICTIONARY_PAGE) {
            self.dictionary(head, whole)?;
            // The values are laid out once more.
            return Ok(whole.saturating_mul(2));
        }
        if self.is_delta(head) {
            unpacked::check(self.chunk, head, page)?;
        }
        let values = match self.chunk.column_descr().max_rep_level() {
            0 => 0,
            _ => (head.values as u64).saturating_mul(LEVELS + self.width()),
        };
        Ok(whole.saturating_add(values))
    }

    /// Bytes of a page's body without its compression.
    fn uncompressed(&self, head: &Head, body: &[u8]) -> Result<u64> {
        let levels = head.levels();
        let packed = usize::try_from(levels).ok().and_then(|levels| body.get(levels..));
        let Some(packed) = packed.filter(|_| levels <= head.uncompressed) else {
            return Err(damaged("a page has more levels than bytes"));
        };
        let codec = self.chunk.compression();
        if codec == Compression::UNCOMPRESSED || (head.is_version_2() && head.plain) {
            return Ok(body.len() as u64);
        }
        let expected = (head.uncompressed - levels) as usize;
        if expected == 0 {
            return Ok(body.len() as u64);
        }
        let impossible = || {
            let length = packed.len();
            let reason =
                format!("a page says that its {length} bytes have {expected} uncompressed");
            damaged(reason + ", which cannot be")
        };
        if most(codec, packed.len()).is_some_and(|most| expected > most) {
            return Err(impossible());
        }
        match codec {
            // It says how long it is itself.
            Compression::SNAPPY if varint(packed)?.0 != expected as u64 => Err(impossible()),
            Compression::GZIP(_) | Compression::BROTLI(_) | Compression::LZ4
                if most(codec, packed.len()).is_none_or(|most| most > self.allowance.0) =>
            {
                unpacked::check_length(codec, packed, expected)?;
                Ok(head.uncompressed as u64)
            }
            _ => Ok(head.uncompressed as u64),
        }
    }

    /// A dictionary has as many values as it says: room for them is made at once.
    fn dictionary(&self, head: &Head, bytes: u64) -> Result<()> {
        let least = match self.chunk.column_type() {
            Type::BOOLEAN => return Ok(()),
            // Each with its length.
            Type::BYTE_ARRAY => 4,
            _ => self.width(),
        };
        match (head.values as u64).saturating_mul(least) > bytes {
            true => Err(damaged(format!(
                "a dictionary says that it has {} values in {bytes} bytes",
                head.values
            ))),
            false => Ok(()),
        }
    }

    /// Bytes of a value.
    fn width(&self) -> u64 {
        match self.chunk.column_type() {
            Type::BOOLEAN => 1,
            Type::INT32 | Type::FLOAT => 4,
            Type::INT64 | Type::DOUBLE => 8,
            Type::INT96 => 12,
            Type::BYTE_ARRAY => 16,
            Type::FIXED_LEN_BYTE_ARRAY => {
                u64::try_from(self.chunk.column_descr().type_length()).unwrap_or(0)
            }
        }
    }

    /// Whether the values begin with how many there are.
    fn is_delta(&self, head: &Head) -> bool {
        head.is_encoded(Encoding::DELTA_LENGTH_BYTE_ARRAY)
            || head.is_encoded(Encoding::DELTA_BYTE_ARRAY)
    }
}

/// The most bytes that so many compressed ones can have; `None` if that is as good as without a bound.
fn most(codec: Compression, bytes: usize) -> Option<usize> {
    // Snappy copies up to 64 bytes by three; LZ4 adds up to 255 by each byte; deflate's longest match is of
    // 258 bytes, and four fit into one; a block of zstd that repeats a byte has 128 KiB by four.
    let by_byte = match codec {
        Compression::SNAPPY => 22,
        Compression::LZ4 | Compression::LZ4_RAW => 255,
        Compression::GZIP(_) => 1032,
        Compression::ZSTD(_) => 1 << 15,
        _ => return None,
    };
    Some(bytes.saturating_mul(by_byte).saturating_add(64))
}

/// What the reader underneath says of pages that are no such thing.
pub fn no_page() -> ParquetError {
    damaged("there is no page where there should be one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        // 1: a page of values; 2: -1 bytes without compression; 3: 0 with.
        let negative = [0x15, 0x00, 0x15, 0x01, 0x15, 0x00, 0x00];
        assert!(Head::read(&negative).is_err());
        // 2: 2^40 bytes.
        let wide = [0x15, 0x00, 0x15, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40, 0x15, 0x00, 0x00];
        assert!(Head::read(&wide).is_err());
        let right = [0x15, 0x02, 0x15, 0x02, 0x15, 0x04, 0x00, 0xff];
        let head = Head::read(&right).expect("it is right");
        assert_eq!((head.uncompressed, head.compressed, head.length), (1, 2, 7));
    }
}
