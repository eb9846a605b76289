//! How a table's data files are written, from the table's properties by their standard names.

use std::collections::HashMap;
use std::str::FromStr;

use iceberg::spec::Schema;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::{
    BloomFilterProperties, EnabledStatistics, WriterProperties, WriterVersion,
};
use parquet::schema::types::SchemaDescriptor;

use super::statistics::field_id;
use crate::storage::{Error, Result};

const FORMAT: &str = "write.format.default";
const TARGET_FILE_SIZE: &str = "write.target-file-size-bytes";
const CODEC: &str = "write.parquet.compression-codec";
const LEVEL: &str = "write.parquet.compression-level";
const ROW_GROUP_BYTES: &str = "write.parquet.row-group-size-bytes";
const PAGE_BYTES: &str = "write.parquet.page-size-bytes";
const PAGE_ROWS: &str = "write.parquet.page-row-limit";
const DICTIONARY_BYTES: &str = "write.parquet.dict-size-bytes";
const BLOOM_MAX_BYTES: &str = "write.parquet.bloom-filter-max-bytes";
const BLOOM_COLUMN: &str = "write.parquet.bloom-filter-enabled.column.";
const BLOOM_FPP: &str = "write.parquet.bloom-filter-fpp.column.";
const METRICS_DEFAULT: &str = "write.metadata.metrics.default";
const METRICS_COLUMN: &str = "write.metadata.metrics.column.";
const METRICS_COLUMNS: &str = "write.metadata.metrics.max-inferred-column-defaults";

const MIB: usize = 1024 * 1024;

/// Rows of a row group at most; what the bytes allow is less for wide rows. Scans work on row
/// groups in parallel and prune by them.
const ROW_GROUP_ROWS: usize = MIB;

/// Bytes of a dictionary at most, unless a property says otherwise. Less than the 2 MiB of other
/// writers: columns of many values give their dictionaries up sooner, which for TPC-H lineitem is a
/// quarter faster and makes no larger files.
const DICTIONARY: usize = 256 * 1024;

/// Bytes that the statistics in files keep of a text.
const STATISTICS_BYTES: usize = 64;

/// Characters or bytes of a bound in manifests, unless a property says otherwise.
const BOUND_LENGTH: usize = 16;

/// How a table's data files are written. Made by [`WriteProperties::parse`].
#[derive(Clone, Debug, PartialEq)]
pub struct WriteProperties {
    /// Bytes after which a file is closed and the next begun.
    pub target_file_size: u64,
    compression: Compression,
    row_group_bytes: usize,
    page_bytes: usize,
    page_rows: usize,
    dictionary_bytes: usize,
    bloom_max_bytes: u64,
    /// Columns that get a bloom filter, with its rate of false positives.
    bloom_filters: HashMap<String, f64>,
    metrics_default: Option<Metrics>,
    metrics: HashMap<String, Metrics>,
    /// Columns that have bounds when no property speaks of metrics.
    metrics_columns: usize,
}

/// What a manifest says of a column's values in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metrics {
    None,
    Counts,
    /// Counts and bounds, of texts and bytes so many characters or bytes.
    Truncate(usize),
    Full,
}

impl WriteProperties {
    /// Properties that nobody set have Iceberg's defaults, but for the size of dictionaries; those
    /// that do not concern writing are not looked at. Columns are named by their paths and need not
    /// exist.
    pub fn parse(properties: &HashMap<String, String>) -> Result<Self> {
        let given = Given(properties);
        given.get(FORMAT, |value| match value.to_ascii_lowercase().as_str() {
            "parquet" => Ok(()),
            _ => Err("data files are written as parquet only".to_owned()),
        })?;
        let rate = |value: &str| match value.parse() {
            Ok(rate) if 0.0 < rate && rate < 1.0 => Ok(rate),
            _ => Err("it must be between 0 and 1".to_owned()),
        };
        let mut bloom_filters = HashMap::new();
        for (column, enabled) in given.columns(BLOOM_COLUMN, boolean)? {
            if enabled {
                bloom_filters.insert(column, DEFAULT_FPP);
            }
        }
        for (column, rate) in given.columns(BLOOM_FPP, rate)? {
            bloom_filters.entry(column).and_modify(|default| *default = rate);
        }
        Ok(Self {
            target_file_size: given.size(TARGET_FILE_SIZE, 512 * MIB)? as u64,
            compression: compression(&given)?,
            row_group_bytes: given.size(ROW_GROUP_BYTES, 128 * MIB)?,
            page_bytes: given.size(PAGE_BYTES, MIB)?,
            page_rows: given.size(PAGE_ROWS, 20_000)?,
            dictionary_bytes: given.size(DICTIONARY_BYTES, DICTIONARY)?,
            bloom_max_bytes: given.size(BLOOM_MAX_BYTES, MIB)? as u64,
            bloom_filters,
            metrics_default: given.get(METRICS_DEFAULT, str::parse)?,
            metrics: given.columns(METRICS_COLUMN, str::parse)?.into_iter().collect(),
            metrics_columns: given.get(METRICS_COLUMNS, number)?.unwrap_or(100),
        })
    }

    /// What the manifest says of each column, by field id.
    pub(super) fn metrics(&self, schema: &Schema) -> HashMap<i32, Metrics> {
        let mut ids: Vec<i32> = schema.field_id_to_name_map().keys().copied().collect();
        ids.sort_unstable();
        let leaf = |id: &i32| schema.field_by_id(*id).is_some_and(|f| f.field_type.is_primitive());
        let mut metrics = HashMap::new();
        for (index, id) in ids.into_iter().filter(leaf).enumerate() {
            let own = schema.name_by_field_id(id).and_then(|name| self.metrics.get(name));
            let inferred = match index < self.metrics_columns {
                true => Metrics::Truncate(BOUND_LENGTH),
                false => Metrics::None,
            };
            metrics.insert(id, own.copied().or(self.metrics_default).unwrap_or(inferred));
        }
        metrics
    }

    /// Settings of the Parquet writer for files of this schema.
    pub(super) fn writer(&self, schema: &Schema, parquet: &SchemaDescriptor) -> WriterProperties {
        // Files hold at least what manifests are made from. A character has at most four bytes.
        let wanted = |metrics: &Metrics| match metrics {
            Metrics::Full => None,
            Metrics::Truncate(length) => Some(length.saturating_mul(4)),
            Metrics::None | Metrics::Counts => Some(0),
        };
        let lengths: Option<Vec<usize>> = self.metrics(schema).values().map(wanted).collect();
        let length = lengths.map(|all| all.into_iter().max().unwrap_or(0).max(STATISTICS_BYTES));
        let mut builder = WriterProperties::builder()
            // Version 2 is a little smaller and a little slower, and not all readers know it.
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_compression(self.compression)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_max_row_group_bytes(Some(self.row_group_bytes))
            .set_data_page_size_limit(self.page_bytes)
            .set_data_page_row_count_limit(self.page_rows)
            .set_dictionary_page_size_limit(self.dictionary_bytes)
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_statistics_truncate_length(length);
        for column in parquet.columns() {
            let id = field_id(column);
            let name = id.and_then(|id| schema.name_by_field_id(id));
            if let Some(rate) = name.and_then(|name| self.bloom_filters.get(name)) {
                let filter = BloomFilterProperties::builder()
                    .with_fpp(*rate)
                    .with_max_ndv(distinct(self.bloom_max_bytes, *rate))
                    .build();
                builder = builder.set_column_bloom_filter_properties(column.path().clone(), filter);
            }
        }
        builder.build()
    }
}

/// Bloom filters' rate of false positives, unless a property says otherwise.
const DEFAULT_FPP: f64 = 0.01;

/// Distinct values that a bloom filter of so many bytes is good for.
fn distinct(bytes: u64, rate: f64) -> u64 {
    // The inverse of how Parquet's block filters are sized, with eight bits set for each value.
    let bits = bytes as f64 * 8.0;
    let distinct = bits * -(1.0 - rate.powf(1.0 / 8.0)).ln() / 8.0;
    (distinct as u64).max(1)
}

fn compression(given: &Given<'_>) -> Result<Compression> {
    let codec = given.get(CODEC, |value| {
        Ok(match value.to_ascii_lowercase().as_str() {
            "zstd" => Compression::ZSTD(ZstdLevel::default()),
            "snappy" => Compression::SNAPPY,
            "gzip" => Compression::GZIP(GzipLevel::default()),
            // What the format calls LZ4 is a framing of Hadoop's that few readers know.
            "lz4" | "lz4_raw" => Compression::LZ4_RAW,
            "brotli" => Compression::BROTLI(BrotliLevel::default()),
            "uncompressed" | "none" => Compression::UNCOMPRESSED,
            _ => {
                let known = "it must be zstd, snappy, gzip, lz4, brotli or uncompressed";
                return Err(known.to_owned());
            }
        })
    })?;
    let codec = codec.unwrap_or(Compression::ZSTD(ZstdLevel::default()));
    // Codecs without levels leave it alone, so that changing the codec takes one property only.
    let with_level = given.get(LEVEL, |value| {
        let level: i32 = number(value)?;
        let unsigned = || u32::try_from(level).map_err(|error| error.to_string());
        let codec = match codec {
            Compression::ZSTD(_) => ZstdLevel::try_new(level).map(Compression::ZSTD),
            Compression::GZIP(_) => GzipLevel::try_new(unsigned()?).map(Compression::GZIP),
            Compression::BROTLI(_) => BrotliLevel::try_new(unsigned()?).map(Compression::BROTLI),
            other => Ok(other),
        };
        codec.map_err(|_| "the codec has no such level".to_owned())
    })?;
    Ok(with_level.unwrap_or(codec))
}

impl FromStr for Metrics {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.to_ascii_lowercase();
        let length = text.strip_prefix("truncate(").and_then(|rest| rest.strip_suffix(')'));
        match (text.as_str(), length.map(|length| length.trim().parse())) {
            ("none", _) => Ok(Self::None),
            ("counts", _) => Ok(Self::Counts),
            ("full", _) => Ok(Self::Full),
            (_, Some(Ok(length @ 1..))) => Ok(Self::Truncate(length)),
            _ => Err("it must be none, counts, truncate(length) or full".to_owned()),
        }
    }
}

/// A table's properties.
struct Given<'a>(&'a HashMap<String, String>);

impl Given<'_> {
    fn get<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>> {
        let parsed = self.0.get(name).map(|value| {
            parse(value.trim()).map_err(|reason| Error::BadProperty {
                name: name.to_owned(),
                value: value.clone(),
                reason,
            })
        });
        parsed.transpose()
    }

    /// The values of the properties that have a column's name behind `prefix`.
    fn columns<T>(
        &self,
        prefix: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<(String, T)>> {
        let mut found = Vec::new();
        for name in self.0.keys() {
            let Some(column) = name.strip_prefix(prefix) else { continue };
            if let Some(value) = self.get(name, &parse)? {
                found.push((column.to_owned(), value));
            }
        }
        Ok(found)
    }

    /// A number of bytes or rows, at least one.
    fn size(&self, name: &str, default: usize) -> Result<usize> {
        let size = self.get(name, |value| match number(value)? {
            0 => Err("it must be at least 1".to_owned()),
            size => Ok(size),
        })?;
        Ok(size.unwrap_or(default))
    }
}

fn number<T: FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| "it must be a whole number in range".to_owned())
}

fn boolean(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("it must be true or false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(properties: &[(&str, &str)]) -> Result<WriteProperties> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        WriteProperties::parse(&properties.iter().map(owned).collect())
    }

    #[test]
    fn defaults_are_those_of_iceberg() {
        let defaults = parse(&[("owner", "somebody")]).unwrap();
        assert_eq!(defaults.target_file_size, 512 * 1024 * 1024);
        assert_eq!(defaults.compression, Compression::ZSTD(ZstdLevel::default()));
        assert_eq!(defaults.row_group_bytes, 128 * MIB);
    }

    #[test]
    fn codecs_have_levels() {
        let compression = |properties| parse(properties).unwrap().compression;
        let level = ZstdLevel::try_new(9).unwrap();
        assert_eq!(compression(&[(LEVEL, "9")]), Compression::ZSTD(level));
        assert_eq!(compression(&[(CODEC, "SNAPPY"), (LEVEL, "9")]), Compression::SNAPPY);
        let level = GzipLevel::try_new(3).unwrap();
        assert_eq!(compression(&[(CODEC, "gzip"), (LEVEL, "3")]), Compression::GZIP(level));
    }

    #[test]
    fn bad_values_are_named() {
        let cases = [
            (FORMAT, "orc"),
            (TARGET_FILE_SIZE, "0"),
            (TARGET_FILE_SIZE, "512MB"),
            (CODEC, "zip"),
            (LEVEL, "23"),
            (PAGE_ROWS, "-1"),
            ("write.parquet.bloom-filter-enabled.column.a", "yes"),
            (METRICS_DEFAULT, "truncate(0)"),
            ("write.metadata.metrics.column.a", "some"),
        ];
        for (name, value) in cases {
            let error = parse(&[(name, value)]).unwrap_err();
            assert!(matches!(error, Error::BadProperty { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains(name) && text.contains(&format!("\"{value}\"")), "{text}");
        }
    }

    #[test]
    fn a_bloom_filter_of_a_mebibyte_is_good_for_many() {
        let distinct = distinct(MIB as u64, DEFAULT_FPP);
        assert!((600_000..1_000_000).contains(&distinct), "{distinct}");
    }
}
