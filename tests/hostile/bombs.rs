//! Files that are small and say that they are large, and those that would be.

use std::io::Write;

use flate2::write::GzEncoder;

use super::crafted::{self, File, Thrift};
use super::crafted::{
    BINARY, BROTLI, BYTE_ARRAY, DELTA_LENGTH, DELTA_TEXT, DICTIONARY, FIXED, GZIP, I32, INT64, LZ4,
    LZ4_RAW, NONE, OPTIONAL, PLAIN, REPEATED, SNAPPY, STRUCT, ZSTD,
};

/// What has to become of a file.
pub enum Fate {
    /// It is read, with one row of this value.
    Read(&'static str),
    /// It is refused with this SQLSTATE, and a message with these words.
    Refused(&'static str, &'static str),
}

use Fate::{Read, Refused};

/// The longest list that a file can announce.
const MOST: u64 = i32::MAX as u64;

/// Bytes of what compressed pages really have in them.
const BOMB: usize = 600 << 20;

const DAMAGED: &str = "XX001";

/// More than the memory of statements.
const TOO_LARGE: &str = "53200";

pub fn all() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let mut all = footers();
    all.extend(indexes());
    all.extend(pages());
    all.extend(packed());
    all.extend(texts());
    all
}

fn footers() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let file = File::default();
    let start = || Thrift::new().int(1, 1);
    let whole = |thrift: Thrift| file.with_footer(&thrift.done());
    let nested = |depth: usize| {
        let mut schema = start().list(2, STRUCT, depth as u64 + 1);
        for _ in 0..depth {
            schema = schema.begin(None).int(3, OPTIONAL).text(4, "g").int(5, 1).end();
        }
        file.groups(schema.begin(None).int(1, 1).int(3, 0).text(4, "c").end().long(3, 1))
    };
    let group = |children: i64| {
        let schema =
            start().list(2, STRUCT, 2).begin(None).text(4, "schema").int(5, children).end();
        file.groups(schema.begin(None).int(1, 1).int(3, 0).text(4, "c").end().long(3, 1))
    };
    let sound = || file.groups(file.schema(start()).long(3, 1));
    // What nobody knows: lists of lists of so many truth values, which the reader takes for empty.
    let truths = {
        let mut thrift = Thrift::new().list(99, 9, 1000);
        for _ in 0..1000 {
            thrift = thrift.raw(&[0xf2]);
            thrift.varint(MOST);
        }
        let mut rest = sound().done();
        rest.pop();
        let mut all = rest;
        // Field 99, by its number.
        all.extend(thrift.done());
        all
    };
    let fixed = File { kind: FIXED, length: Some(i64::from(i32::MAX)), ..File::default() };
    let here = File { size: Some(1 << 40), ..File::default() };
    let negative = File { size: Some(-1), ..File::default() };
    vec![
        ("sound", file.bytes(), Read("7")),
        (
            "row_groups",
            whole(file.schema(start()).long(3, 1).list(4, STRUCT, MOST)),
            damaged("list"),
        ),
        ("schema", whole(start().list(2, STRUCT, MOST)), damaged("list")),
        ("key_values", whole(sound().list(5, STRUCT, MOST)), damaged("list")),
        (
            "key_value",
            whole(
                sound()
                    .list(5, STRUCT, 1)
                    .begin(None)
                    .raw(&[0x18])
                    .raw(&[0xff, 0xff, 0xff, 0xff, 0x7f]),
            ),
            damaged("ends"),
        ),
        ("orders", whole(sound().list(7, STRUCT, MOST)), damaged("list")),
        ("children", whole(group(i64::from(i32::MAX))), damaged("columns")),
        ("children_negative", whole(group(-1)), damaged("")),
        ("nested", whole(nested(50_000)), damaged("nested")),
        ("unknown", whole(sound().list(99, BINARY, MOST)), damaged("list")),
        ("truths", file.with_footer(&truths), damaged("list")),
        ("mistaken", whole(file.schema(start()).long(3, 1).int(4, 5)), damaged("another type")),
        ("fixed_length", fixed.bytes(), damaged("2147483647 bytes each")),
        ("chunk_outside", here.bytes(), damaged("outside")),
        ("chunk_negative", negative.bytes(), damaged("outside")),
        ("empty_footer", file.with_footer(&[]), damaged("ends")),
    ]
}

fn damaged(words: &'static str) -> Fate {
    Refused(DAMAGED, words)
}

fn indexes() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let columns = || {
        let thrift = Thrift::new().list(1, 1, 1).raw(&[2]).list(2, BINARY, 1).raw(&[4, 7, 0, 0, 0]);
        thrift.list(3, BINARY, 1).raw(&[4, 7, 0, 0, 0]).int(4, 0).done()
    };
    let length = File::default().pages.len() as i64;
    let offsets = |offset: i64, length: i64| {
        let thrift = Thrift::new().list(1, STRUCT, 1).begin(None).long(1, offset).int(2, length);
        thrift.long(3, 0).end().done()
    };
    let file = |columns: Vec<u8>, offsets: Vec<u8>| {
        File { indexes: Some([columns, offsets]), ..File::default() }.bytes()
    };
    vec![
        ("index", file(columns(), offsets(4, length)), Read("7")),
        (
            "pages_many",
            file(columns(), Thrift::new().list(1, STRUCT, MOST).done()),
            damaged("list"),
        ),
        (
            "nulls_many",
            file(Thrift::new().list(1, 1, MOST).done(), offsets(4, length)),
            damaged("list"),
        ),
        ("page_elsewhere", file(columns(), offsets(1 << 40, length)), damaged("page index")),
        ("page_before", file(columns(), offsets(0, length)), damaged("page index")),
        ("page_huge", file(columns(), offsets(4, i64::from(i32::MAX))), damaged("page index")),
        ("page_negative", file(columns(), offsets(4, -1)), damaged("page index")),
    ]
}

fn pages() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let file = |pages: Vec<u8>| File { pages, ..File::default() }.bytes();
    let body = [7, 0, 0, 0];
    let crc = |body: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(body);
        crc.sum() as i32
    };
    let checked = |body: &[u8], of: &[u8]| {
        file(crafted::checked_page(PLAIN, 1, 4, body, Some(i64::from(crc(of)))))
    };
    // An index of a dictionary, in runs.
    let runs = |width: u8, runs: &[u8]| [&[width], runs].concat();
    let with_dictionary = |dictionary: Vec<u8>, page: Vec<u8>, file: File| {
        let length = dictionary.len();
        File { pages: [dictionary, page].concat(), dictionary: length, ..file }.bytes()
    };
    let of_index = crafted::page(DICTIONARY, 1, 3, &runs(1, &[2, 0]));
    // One row of a list of two thousand million values.
    let list = {
        let mut body = crafted::levels(&[(1, 0), (MOST - 1, 1)]);
        body.extend(crafted::levels(&[(MOST, 1)]));
        body.extend(runs(1, &[0xfe, 0xff, 0xff, 0xff, 0x0f, 0]));
        let file = File { repetition: REPEATED, values: MOST as i64, ..File::default() };
        let page = crafted::page(DICTIONARY, MOST as i64, body.len() as i64, &body);
        with_dictionary(crafted::dictionary(1, 4, &body_of(7)), page, file)
    };
    vec![
        ("checksum", checked(&body, &body), Read("7")),
        ("checksum_wrong", checked(&body, &[8, 0, 0, 0]), damaged("checksum")),
        ("page_cut_off", file(crafted::page(PLAIN, 1, 4, &body)[..10].to_vec()), damaged("")),
        ("page_longer", file(longer_page()), damaged("longer")),
        (
            "dictionary",
            with_dictionary(crafted::dictionary(1, 4, &body), of_index.clone(), File::default()),
            Read("7"),
        ),
        (
            "dictionary_many",
            with_dictionary(crafted::dictionary(MOST as i64, 4, &body), of_index, File::default()),
            damaged("2147483647 values"),
        ),
        ("list", list, Refused(TOO_LARGE, "")),
        (
            "no_width",
            {
                let page = crafted::page(DICTIONARY, 1, 0, &[]);
                with_dictionary(crafted::dictionary(1, 4, &body), page, File::default())
            },
            damaged(""),
        ),
        (
            "unknown_header",
            file(Thrift::new().int(1, 0).int(2, 4).int(3, 4).list(99, I32, MOST).done()),
            damaged("list"),
        ),
    ]
}

fn body_of(value: i32) -> [u8; 4] {
    value.to_le_bytes()
}

fn longer_page() -> Vec<u8> {
    let head = Thrift::new().int(1, 0).int(2, 4).int(3, 1 << 30).begin(Some(5));
    head.int(1, 1).int(2, PLAIN).int(3, 3).int(4, 3).end().done()
}

/// Zeros, packed by a writer.
fn zeros(bytes: usize, mut write: impl FnMut(&[u8])) {
    let piece = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let length = left.min(piece.len());
        write(&piece[..length]);
        left -= length;
    }
}

fn gzip(bytes: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
    zeros(bytes, |piece| encoder.write_all(piece).expect("memory does not fail"));
    encoder.finish().expect("memory does not fail")
}

fn brotli(bytes: usize) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut encoder = brotli::CompressorWriter::new(&mut packed, 4096, 1, 22);
    zeros(bytes, |piece| encoder.write_all(piece).expect("memory does not fail"));
    drop(encoder);
    packed
}

fn zstd(bytes: usize) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    zeros(bytes, |piece| encoder.write_all(piece).expect("memory does not fail"));
    encoder.finish().expect("memory does not fail")
}

fn packed() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let file = |codec: i64, says: usize, packed: &[u8]| {
        let (values, rows) = (says as i64 / 8, says as i64 / 8);
        let pages = crafted::page(PLAIN, values, says as i64, packed);
        File { kind: INT64, codec, pages, values, rows, ..File::default() }.bytes()
    };
    let few = 8;
    let snappy = |bytes: usize| {
        snap::raw::Encoder::new().compress_vec(&vec![0; bytes]).expect("it is not too large")
    };
    let most = i32::MAX as usize / 8 * 8;
    let mut lies = snappy(few);
    // The length that the stream itself says.
    lies.splice(..1, [0xf8, 0xff, 0xff, 0xff, 0x07]);
    vec![
        ("gzip", file(GZIP, few, &gzip(few)), Read("0")),
        ("gzip_bomb", file(GZIP, few, &gzip(BOMB)), damaged("more than the 8 bytes")),
        ("gzip_lies", file(GZIP, most, &gzip(few)), damaged("which cannot be")),
        ("brotli", file(BROTLI, few, &brotli(few)), Read("0")),
        ("brotli_bomb", file(BROTLI, few, &brotli(BOMB)), damaged("more than the 8 bytes")),
        ("zstd", file(ZSTD, few, &zstd(few)), Read("0")),
        ("zstd_bomb", file(ZSTD, few, &zstd(BOMB)), damaged("")),
        ("zstd_honest", file(ZSTD, BOMB, &zstd(BOMB)), Refused(TOO_LARGE, "")),
        ("zstd_lies", file(ZSTD, most, &zstd(few)), damaged("which cannot be")),
        ("snappy", file(SNAPPY, few, &snappy(few)), Read("0")),
        ("snappy_lies", file(SNAPPY, most, &snappy(few)), damaged("which cannot be")),
        ("snappy_lies_too", file(SNAPPY, few, &lies), damaged("which cannot be")),
        ("lz4_lies", file(LZ4, most, &[0x10, 0, 0]), damaged("which cannot be")),
        ("lz4_raw_lies", file(LZ4_RAW, most, &[0x10, 0, 0]), damaged("which cannot be")),
    ]
}

fn texts() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let text = |codec: i64, encoding: i64, body: &[u8], uncompressed: usize| {
        let pages = crafted::page(encoding, 1, uncompressed as i64, body);
        File { kind: BYTE_ARRAY, codec, pages, ..File::default() }.bytes()
    };
    let plain = |encoding: i64, body: &[u8]| text(NONE, encoding, body, body.len());
    let packed = |encoding: i64, body: &[u8]| {
        let packed = snap::raw::Encoder::new().compress_vec(body).expect("it is not too large");
        text(SNAPPY, encoding, &packed, body.len())
    };
    let many = crafted::delta(1 << 40);
    let prefixed = [crafted::delta(1), crafted::delta(1 << 40)].concat();
    vec![
        ("texts", plain(DELTA_LENGTH, &crafted::delta(1)), Read("\\x")),
        ("texts_many", plain(DELTA_LENGTH, &many), damaged("1099511627776 texts")),
        ("texts_packed", packed(DELTA_LENGTH, &crafted::delta(1)), Read("\\x")),
        ("texts_packed_many", packed(DELTA_LENGTH, &many), damaged("1099511627776 texts")),
        (
            "prefixes",
            plain(DELTA_TEXT, &[crafted::delta(1), crafted::delta(1)].concat()),
            Read("\\x"),
        ),
        ("prefixes_many", plain(DELTA_TEXT, &many), damaged("1099511627776 texts")),
        ("suffixes_many", packed(DELTA_TEXT, &prefixed), damaged("1099511627776 texts")),
    ]
}
