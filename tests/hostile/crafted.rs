//! Parquet files that no writer would write, byte by byte.

/// Thrift's compact protocol, written.
#[derive(Clone, Default)]
pub struct Thrift {
    bytes: Vec<u8>,
    last: Vec<i16>,
}

pub const I32: u8 = 5;
pub const BINARY: u8 = 8;
pub const STRUCT: u8 = 12;

impl Thrift {
    pub fn new() -> Self {
        Self { bytes: Vec::new(), last: vec![0] }
    }

    fn head(&mut self, field: i16, kind: u8) {
        let last = self.last.last_mut().expect("within a structure");
        let delta = field - *last;
        *last = field;
        if (1..=15).contains(&delta) {
            self.bytes.push((delta as u8) << 4 | kind);
        } else {
            self.bytes.push(kind);
            self.number(i64::from(field));
        }
    }

    pub fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    fn number(&mut self, number: i64) {
        self.varint(((number << 1) ^ (number >> 63)) as u64);
    }

    pub fn int(mut self, field: i16, value: i64) -> Self {
        self.head(field, I32);
        self.number(value);
        self
    }

    /// As `int`, of 64 bits.
    pub fn long(mut self, field: i16, value: i64) -> Self {
        self.head(field, 6);
        self.number(value);
        self
    }

    pub fn text(mut self, field: i16, text: &str) -> Self {
        self.head(field, BINARY);
        self.varint(text.len() as u64);
        self.bytes.extend(text.as_bytes());
        self
    }

    pub fn list(mut self, field: i16, kind: u8, count: u64) -> Self {
        self.head(field, 9);
        if count < 15 {
            self.bytes.push((count as u8) << 4 | kind);
        } else {
            self.bytes.push(0xf0 | kind);
            self.varint(count);
        }
        self
    }

    /// Numbers of a list, without fields.
    pub fn items(mut self, items: &[i64]) -> Self {
        items.iter().for_each(|item| self.number(*item));
        self
    }

    pub fn item_text(mut self, text: &str) -> Self {
        self.varint(text.len() as u64);
        self.bytes.extend(text.as_bytes());
        self
    }

    /// A structure in a list begins, or one in a field.
    pub fn begin(mut self, field: Option<i16>) -> Self {
        if let Some(field) = field {
            self.head(field, STRUCT);
        }
        self.last.push(0);
        self
    }

    pub fn end(mut self) -> Self {
        self.last.pop();
        self.bytes.push(0);
        self
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    pub fn done(self) -> Vec<u8> {
        self.end().bytes
    }
}

pub const INT32: i64 = 1;
pub const INT64: i64 = 2;
pub const BYTE_ARRAY: i64 = 6;
pub const FIXED: i64 = 7;

pub const REQUIRED: i64 = 0;
pub const OPTIONAL: i64 = 1;
pub const REPEATED: i64 = 2;

pub const PLAIN: i64 = 0;
pub const RLE: i64 = 3;
pub const DELTA_LENGTH: i64 = 6;
pub const DELTA_TEXT: i64 = 7;
pub const DICTIONARY: i64 = 8;

pub const NONE: i64 = 0;
pub const SNAPPY: i64 = 1;
pub const GZIP: i64 = 2;
pub const BROTLI: i64 = 4;
pub const LZ4: i64 = 5;
pub const ZSTD: i64 = 6;
pub const LZ4_RAW: i64 = 7;

/// A file with one column `c`, in one row group.
#[derive(Clone)]
pub struct File {
    pub kind: i64,
    pub length: Option<i64>,
    pub repetition: i64,
    pub codec: i64,
    pub rows: i64,
    pub values: i64,
    /// Of the column's chunk, as it stands in the file.
    pub pages: Vec<u8>,
    /// Bytes of the dictionary, which comes first.
    pub dictionary: usize,
    /// What the chunk says that it has, if not what it has.
    pub size: Option<i64>,
    /// What stands behind the pages: a column index and an offset index.
    pub indexes: Option<[Vec<u8>; 2]>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            kind: INT32,
            length: None,
            repetition: REQUIRED,
            codec: NONE,
            rows: 1,
            values: 1,
            pages: page(PLAIN, 1, 4, &[7, 0, 0, 0]),
            dictionary: 0,
            size: None,
            indexes: None,
        }
    }
}

impl File {
    pub fn schema(&self, thrift: Thrift) -> Thrift {
        let mut thrift = thrift.list(2, STRUCT, 2).begin(None).text(4, "schema").int(5, 1).end();
        thrift = thrift.begin(None).int(1, self.kind);
        if let Some(length) = self.length {
            thrift = thrift.int(2, length);
        }
        thrift.int(3, self.repetition).text(4, "c").end()
    }

    pub fn groups(&self, thrift: Thrift) -> Thrift {
        let begin = 4;
        let size = self.size.unwrap_or(self.pages.len() as i64);
        let mut thrift = thrift
            .list(4, STRUCT, 1)
            .begin(None)
            .list(1, STRUCT, 1)
            .begin(None)
            .long(2, begin)
            .begin(Some(3))
            .int(1, self.kind)
            .list(2, I32, 2)
            .items(&[PLAIN, RLE])
            .list(3, BINARY, 1)
            .item_text("c")
            .int(4, self.codec)
            .long(5, self.values)
            .long(6, 100)
            .long(7, size)
            .long(9, begin + self.dictionary as i64);
        if self.dictionary > 0 {
            thrift = thrift.long(11, begin);
        }
        thrift = thrift.end();
        if let Some([columns, offsets]) = &self.indexes {
            let place = begin + self.pages.len() as i64;
            thrift = thrift
                .long(4, place + columns.len() as i64)
                .int(5, offsets.len() as i64)
                .long(6, place)
                .int(7, columns.len() as i64);
        }
        thrift.end().long(2, 100).long(3, self.rows).end()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let footer = self.groups(self.schema(Thrift::new().int(1, 1)).long(3, self.rows)).done();
        self.with_footer(&footer)
    }

    pub fn with_footer(&self, footer: &[u8]) -> Vec<u8> {
        let mut bytes = b"PAR1".to_vec();
        bytes.extend(&self.pages);
        if let Some(indexes) = &self.indexes {
            bytes.extend(indexes.concat());
        }
        bytes.extend(footer);
        bytes.extend((footer.len() as u32).to_le_bytes());
        bytes.extend(b"PAR1");
        bytes
    }
}

/// A page of values of the first version, which says that it has so many bytes without its compression.
pub fn page(encoding: i64, values: i64, uncompressed: i64, body: &[u8]) -> Vec<u8> {
    checked_page(encoding, values, uncompressed, body, None)
}

/// The same with a checksum.
pub fn checked_page(
    encoding: i64,
    values: i64,
    uncompressed: i64,
    body: &[u8],
    checksum: Option<i64>,
) -> Vec<u8> {
    let mut head = Thrift::new().int(1, 0).int(2, uncompressed).int(3, body.len() as i64);
    if let Some(checksum) = checksum {
        head = head.int(4, checksum);
    }
    head.begin(Some(5))
        .int(1, values)
        .int(2, encoding)
        .int(3, RLE)
        .int(4, RLE)
        .end()
        .end()
        .raw(body)
        .bytes
}

pub fn dictionary(values: i64, uncompressed: i64, body: &[u8]) -> Vec<u8> {
    Thrift::new()
        .int(1, 2)
        .int(2, uncompressed)
        .int(3, body.len() as i64)
        .begin(Some(7))
        .int(1, values)
        .int(2, PLAIN)
        .end()
        .end()
        .raw(body)
        .bytes
}

/// A run of equal values as levels of the first version are written.
pub fn levels(runs: &[(u64, u8)]) -> Vec<u8> {
    let mut thrift = Thrift::new();
    for (count, value) in runs {
        thrift.varint(count << 1);
        thrift.bytes.push(*value);
    }
    let mut bytes = (thrift.bytes.len() as u32).to_le_bytes().to_vec();
    bytes.extend(thrift.bytes);
    bytes
}

/// The head of numbers in the encoding DELTA_BINARY_PACKED.
pub fn delta(count: u64) -> Vec<u8> {
    let mut thrift = Thrift::new();
    for number in [128, 4, count, 0] {
        thrift.varint(number);
    }
    thrift.bytes
}
