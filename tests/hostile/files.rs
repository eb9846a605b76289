//! Real Parquet files, written in several ways, and damaged by a seed.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, FixedSizeBinaryArray, Float64Array, Int32Array,
    Int64Array, ListArray, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type};
use parquet::arrow::ArrowWriter;
use parquet::basic::{BrotliLevel, Compression, Encoding, GzipLevel, ZstdLevel};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

use crate::mutate::Random;

const ROWS: i64 = 2_000;

/// A file, and where in it something stands that a reader goes by.
pub struct Seed {
    pub name: String,
    pub bytes: Vec<u8>,
    spots: Vec<(&'static str, usize, usize)>,
}

fn rows() -> RecordBatch {
    let all = || 0..ROWS;
    let some = |n: i64| n % 7 != 0;
    let text = |n: i64| some(n).then(|| format!("text {}", n * 7919 % 1000));
    let fixed = all().map(|n| [n.to_le_bytes(), (n * 31).to_be_bytes()].concat());
    let decimals: Decimal128Array =
        all().map(|n| some(n).then_some(i128::from(n) * 1_000_003)).collect();
    let inner: Vec<(Arc<Field>, ArrayRef)> = vec![
        (
            Arc::new(Field::new("a", DataType::Int64, true)),
            Arc::new(all().map(|n| some(n).then_some(n)).collect::<Int64Array>()),
        ),
        (
            Arc::new(Field::new("b", DataType::Utf8, true)),
            Arc::new(all().map(text).collect::<StringArray>()),
        ),
    ];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(all().collect::<Int64Array>())),
        (
            "i",
            Arc::new(
                all().map(|n| some(n).then_some((n * n % 977) as i32)).collect::<Int32Array>(),
            ),
        ),
        ("n", Arc::new(all().map(|n| some(n).then_some(n * 12_345)).collect::<Int64Array>())),
        ("d", Arc::new(all().map(|n| some(n).then_some(n as f64 / 8.0)).collect::<Float64Array>())),
        ("s", Arc::new(all().map(|n| Some(format!("word {}", n % 50))).collect::<StringArray>())),
        ("t", Arc::new(all().map(text).collect::<StringArray>())),
        ("u", Arc::new(all().map(|n| Some(format!("prefix {n:06}"))).collect::<StringArray>())),
        ("f", Arc::new(FixedSizeBinaryArray::try_from_iter(fixed).expect("of one length"))),
        ("c", Arc::new(decimals.with_precision_and_scale(20, 2).expect("they fit"))),
        ("b", Arc::new(all().map(|n| some(n).then_some(n % 3 == 0)).collect::<BooleanArray>())),
        ("w", Arc::new(all().map(|n| Some(n * 1_000_000)).collect::<TimestampMicrosecondArray>())),
        (
            "l",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(
                all().map(|n| some(n).then(|| (0..n % 4).map(|n| (n > 0).then_some(n as i32)))),
            )),
        ),
        ("r", Arc::new(StructArray::from(inner))),
    ];
    let columns = columns.into_iter().map(|(name, column)| (name, column, true));
    RecordBatch::try_from_iter_with_nullable(columns).expect("rows")
}

pub fn seeds() -> Vec<Seed> {
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let gzip = Compression::GZIP(GzipLevel::default());
    let codecs = [
        ("plain", Compression::UNCOMPRESSED),
        ("snappy", Compression::SNAPPY),
        ("zstd", zstd),
        ("gzip", gzip),
        ("lz4", Compression::LZ4_RAW),
        ("brotli", Compression::BROTLI(BrotliLevel::default())),
    ];
    let mut seeds = Vec::new();
    for (at, (codec, compression)) in codecs.into_iter().enumerate() {
        for second in [false, true] {
            let version = match second {
                false => WriterVersion::PARQUET_1_0,
                true => WriterVersion::PARQUET_2_0,
            };
            let column = |name: &str| ColumnPath::from(name);
            let mut way = WriterProperties::builder()
                .set_compression(compression)
                .set_writer_version(version)
                .set_max_row_group_row_count(Some(900))
                .set_data_page_row_count_limit(200)
                .set_write_batch_size(100)
                .set_offset_index_disabled(at == 3 && !second)
                .set_column_bloom_filter_enabled(column("s"), true)
                .set_column_bloom_filter_enabled(column("n"), true);
            for (name, encoding) in [
                ("n", Encoding::DELTA_BINARY_PACKED),
                ("d", Encoding::BYTE_STREAM_SPLIT),
                ("t", Encoding::DELTA_LENGTH_BYTE_ARRAY),
                ("u", Encoding::DELTA_BYTE_ARRAY),
                ("f", Encoding::DELTA_BYTE_ARRAY),
            ] {
                way = way
                    .set_column_dictionary_enabled(column(name), false)
                    .set_column_encoding(column(name), encoding);
            }
            let name = format!("{codec}_{}", if second { "v2" } else { "v1" });
            seeds.push(Seed::new(name, way.build()));
        }
    }
    seeds
}

impl Seed {
    fn new(name: String, way: WriterProperties) -> Self {
        let mut bytes = Vec::new();
        let rows = rows();
        let writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(way));
        let mut writer = writer.expect("a writer");
        writer.write(&rows).expect("written");
        writer.close().expect("closed");
        let spots = spots(&bytes);
        Self { name, bytes, spots }
    }

    /// A damaged copy, and what was damaged.
    pub fn damaged(&self, random: &mut Random) -> (&'static str, Vec<u8>) {
        let mut bytes = self.bytes.clone();
        if random.chance(7) {
            // From the beginning or from the end, or some of the middle.
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(..at)),
                _ => drop(bytes.drain(at..(at + 1 + random.below(200)).min(self.bytes.len()))),
            }
            return ("bytes missing", bytes);
        }
        // As often of each kind.
        let kinds = ["footer", "page heads", "page indexes", "bloom filters", "anywhere"];
        let kind = random.pick(&kinds);
        let spots: Vec<_> = self.spots.iter().filter(|(of, ..)| *of == kind).collect();
        let (begin, length) = match spots.is_empty() {
            true => (0, bytes.len()),
            false => {
                let (_, begin, length) = spots[random.below(spots.len())];
                (*begin, *length)
            }
        };
        for _ in 0..=random.below(3) {
            change(&mut bytes, begin + random.below(length), random);
        }
        (kind, bytes)
    }
}

fn change(bytes: &mut [u8], at: usize, random: &mut Random) {
    let long = [0xff, 0xff, 0xff, 0xff, 0x07];
    let longer = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let new: &[u8] = match random.below(7) {
        0..3 => {
            bytes[at] ^= 1 << random.below(8);
            return;
        }
        3 => &[random.next() as u8],
        4 => &long,
        5 => &longer,
        _ => &[0, 0],
    };
    for (old, new) in bytes[at..].iter_mut().zip(new) {
        *old = *new;
    }
}

fn spots(bytes: &[u8]) -> Vec<(&'static str, usize, usize)> {
    let metadata: ParquetMetaData = ParquetMetaDataReader::new()
        .with_page_index_policy(PageIndexPolicy::Optional)
        .parse_and_finish(&bytes::Bytes::copy_from_slice(bytes))
        .expect("metadata");
    let end = bytes.len() - 8;
    let tail: [u8; 4] = bytes[end..end + 4].try_into().expect("four bytes");
    let length = u32::from_le_bytes(tail) as usize;
    let mut spots = vec![("footer", end - length, length + 8)];
    for (group, chunks) in metadata.row_groups().iter().enumerate() {
        for (column, chunk) in chunks.columns().iter().enumerate() {
            spots.push(("page heads", chunk.byte_range().0 as usize, 40));
            let pages = metadata.offset_index().map(|index| &index[group][column]);
            for page in pages.into_iter().flat_map(|pages| pages.page_locations()) {
                spots.push(("page heads", page.offset as usize, 40));
            }
            let parts = [
                ("page indexes", chunk.column_index_offset(), chunk.column_index_length()),
                ("page indexes", chunk.offset_index_offset(), chunk.offset_index_length()),
                ("bloom filters", chunk.bloom_filter_offset(), chunk.bloom_filter_length()),
            ];
            for (name, offset, length) in parts {
                if let (Some(offset), Some(length)) = (offset, length) {
                    // Of a filter its head matters.
                    spots.push((name, offset as usize, (length as usize).min(60)));
                }
            }
        }
    }
    spots
}
