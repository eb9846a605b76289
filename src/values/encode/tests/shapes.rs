//! Arrays of every shape: sliced, empty, encoded, nested, with nulls where none are looked for.

use std::sync::Arc;

use ::bytes::BytesMut;
use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::*;

use super::{batch, encoded, style, texts, values};
use crate::values::encode::{Error, Format, RowEncoder};

fn field(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("item", data_type, true))
}

fn ints(rows: Vec<Option<Vec<Option<i32>>>>) -> ListArray {
    ListArray::from_iter_primitive::<Int32Type, _, _>(rows)
}

/// A list of lists, each outer row with the given number of inner rows.
fn nested(inner: ListArray, lengths: &[usize], nulls: Option<Vec<bool>>) -> ListArray {
    let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
    let nulls = nulls.map(NullBuffer::from);
    ListArray::new(field(inner.data_type().clone()), offsets, Arc::new(inner), nulls)
}

#[test]
fn lists_of_lists_are_arrays_of_several_dimensions() {
    let row = |values: &[i32]| Some(values.iter().copied().map(Some).collect());
    let inner = ints(vec![row(&[1, 2]), row(&[3, 4]), row(&[]), row(&[]), None]);
    let lists = nested(inner, &[2, 2, 1], None);
    assert_eq!(texts(lists.clone()), ["{{1,2},{3,4}}", "{}", "{}"]);
    let binary = encoded(
        &batch(Field::new("c", lists.data_type().clone(), true), Arc::new(lists)),
        Format::Binary,
        "UTC",
    );
    let value = values(&binary.unwrap())[0][0].clone().unwrap();
    assert_eq!(value.len(), 12 + 2 * 8 + 4 * 8);
    for second in [row(&[3]), row(&[]), None] {
        let ragged = nested(ints(vec![row(&[1, 2]), second]), &[2], None);
        let ragged = batch(Field::new("c", ragged.data_type().clone(), true), Arc::new(ragged));
        for format in [Format::Text, Format::Binary] {
            assert!(matches!(encoded(&ragged, format, "UTC"), Err(Error::Ragged)));
        }
    }
}

#[test]
fn more_than_six_dimensions_are_refused() {
    let mut lists = ints(vec![Some(vec![Some(1)])]);
    for _ in 0..5 {
        lists = nested(lists, &[1], None);
    }
    assert_eq!(texts(lists.clone()), ["{{{{{{1}}}}}}"]);
    let lists = nested(lists, &[1], None);
    let lists = batch(Field::new("c", lists.data_type().clone(), true), Arc::new(lists));
    let found = encoded(&lists, Format::Text, "UTC");
    assert!(matches!(found, Err(Error::TooManyDimensions { found: 7 })));
}

#[test]
fn dictionaries_and_runs_are_their_values() {
    let keys = Int8Array::from(vec![Some(1), None, Some(0), Some(2), Some(1)]);
    let words: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), None]));
    let dictionary = DictionaryArray::new(keys.clone(), words);
    assert_eq!(texts(dictionary.clone()), ["b", "NULL", "a", "NULL", "b"]);
    assert_eq!(texts(dictionary.slice(3, 2)), ["NULL", "b"]);
    let days: ArrayRef = Arc::new(Date32Array::from(vec![0, 1, i32::MAX]));
    let dictionary = DictionaryArray::new(Int8Array::from(vec![1, 0, 1]), days);
    assert_eq!(texts(dictionary), ["1970-01-02", "1970-01-01", "1970-01-02"]);
    let nothing = new_empty_array(&DataType::Utf8);
    let dictionary = DictionaryArray::new(Int8Array::from(vec![None, None]), nothing);
    assert_eq!(texts(dictionary), ["NULL", "NULL"]);

    let ends = Int32Array::from(vec![2, 3, 6]);
    let runs = RunArray::try_new(&ends, &Int64Array::from(vec![Some(7), None, Some(9)])).unwrap();
    assert_eq!(texts(runs.clone()), ["7", "7", "NULL", "9", "9", "9"]);
    assert_eq!(texts(runs.slice(1, 3)), ["7", "NULL", "9"]);
    assert_eq!(texts(runs.slice(6, 0)), [""; 0]);
    let lists = ListArray::new(
        field(runs.data_type().clone()),
        OffsetBuffer::from_lengths([2, 4]),
        Arc::new(runs),
        None,
    );
    assert_eq!(texts(lists), ["{7,7}", "{NULL,9,9,9}"]);
}

#[test]
fn list_views_and_fixed_lists() {
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3, 4]));
    let offsets = ScalarBuffer::from(vec![2, 0, 3]);
    let sizes = ScalarBuffer::from(vec![2, 3, 0]);
    let views = ListViewArray::new(field(DataType::Int32), offsets, sizes, numbers.clone(), None);
    assert_eq!(texts(views.clone()), ["{3,4}", "{1,2,3}", "{}"]);
    assert_eq!(texts(views.slice(1, 1)), ["{1,2,3}"]);
    let nulls = Some(NullBuffer::from(vec![true, false]));
    let fixed = FixedSizeListArray::new(field(DataType::Int32), 2, numbers, nulls);
    assert_eq!(texts(fixed.clone()), ["{1,2}", "NULL"]);
    assert_eq!(texts(fixed.slice(1, 1)), ["NULL"]);
    assert_eq!(texts(fixed.slice(0, 1)), ["{1,2}"]);
}

#[test]
fn maps_unions_and_lists_of_objects_are_json() {
    let mut builder = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    builder.keys().append_value("a");
    builder.values().append_value(1);
    builder.keys().append_value("b\"");
    builder.values().append_null();
    builder.append(true).unwrap();
    builder.append(false).unwrap();
    builder.append(true).unwrap();
    assert_eq!(texts(builder.finish()), ["{\"a\":1,\"b\\\"\":null}", "NULL", "{}"]);
    let mut builder = MapBuilder::new(None, Int32Builder::new(), Int32Builder::new());
    builder.keys().append_value(5);
    builder.values().append_value(6);
    builder.append(true).unwrap();
    assert_eq!(texts(builder.finish()), ["{\"5\":6}"]);

    let mut builder = UnionBuilder::new_dense();
    builder.append::<Int32Type>("i", 1).unwrap();
    builder.append::<Float64Type>("f", 1.5).unwrap();
    builder.append_null::<Int32Type>("i").unwrap();
    let union = builder.build().unwrap();
    assert_eq!(texts(union.clone()), ["1", "1.5", "NULL"]);
    assert_eq!(texts(union.slice(1, 2)), ["1.5", "NULL"]);

    let member: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
    let parents = Some(NullBuffer::from(vec![true, false, true]));
    let objects = StructArray::new(vec![field(DataType::Int32)].into(), vec![member], parents);
    assert_eq!(texts(objects.slice(1, 2)), ["NULL", "{\"item\":3}"]);
    let offsets = OffsetBuffer::from_lengths([2, 0, 1]);
    let of = field(objects.data_type().clone());
    let lists = ListArray::new(of, offsets, Arc::new(objects), None);
    assert_eq!(texts(lists), ["[{\"item\":1},null]", "[]", "[{\"item\":3}]"]);
    let none = StructArray::new_empty_fields(2, None);
    assert_eq!(texts(none), ["{}", "{}"]);
}

#[test]
fn batches_without_rows_or_columns() {
    let empty = RecordBatch::new_empty(Arc::new(Schema::new(vec![field(DataType::Int32)])));
    assert!(encoded(&empty, Format::Text, "UTC").unwrap().is_empty());
    let options = RecordBatchOptions::new().with_row_count(Some(2));
    let schema = Arc::new(Schema::empty());
    let bare = RecordBatch::try_new_with_options(schema, vec![], &options).unwrap();
    assert_eq!(
        encoded(&bare, Format::Text, "UTC").unwrap(),
        &b"D\0\0\0\x06\0\0D\0\0\0\x06\0\0"[..]
    );
}

#[test]
fn what_does_not_fit_together_is_an_error() {
    let schema = Schema::new(vec![Field::new("c", DataType::Int32, true)]);
    let new = |formats| RowEncoder::new(&schema, formats, style("UTC"));
    assert!(matches!(new(vec![]), Err(Error::Formats { formats: 0, columns: 1 })));
    let mut encoder = new(vec![Format::Text]).unwrap();
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let good = batch(Field::new("c", DataType::Int32, true), numbers);
    let mut out = BytesMut::from(&b"before"[..]);
    let beyond = encoder.encode(&good, 1..3, &mut out);
    assert!(matches!(beyond, Err(Error::NoSuchRows { start: 1, end: 3, rows: 2 })));
    let words: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let other = batch(Field::new("c", DataType::Utf8, true), words);
    assert!(matches!(encoder.encode(&other, 0..1, &mut out), Err(Error::Schema { .. })));
    assert_eq!(out, "before");
    encoder.encode(&good, 1..2, &mut out).unwrap();
    assert_eq!(out, &b"beforeD\0\0\0\x0b\0\x01\0\0\0\x012"[..]);
    // The same PostgreSQL type in another encoding will do.
    let runs = DictionaryArray::<Int8Type>::new(
        Int8Array::from(vec![0]),
        Arc::new(Int32Array::from(vec![7])),
    );
    let encodings = batch(Field::new("c", runs.data_type().clone(), true), Arc::new(runs));
    out.clear();
    encoder.encode(&encodings, 0..1, &mut out).unwrap();
    assert!(out.ends_with(b"7"));
}

fn timestamps() -> Vec<DataType> {
    use TimeUnit::*;
    let zone = || Some(Arc::from("UTC"));
    let units = [Second, Millisecond, Microsecond, Nanosecond];
    let stamps = units.map(|unit| DataType::Timestamp(unit, None));
    let zoned = units.map(|unit| DataType::Timestamp(unit, zone()));
    let durations = units.map(DataType::Duration);
    [stamps, zoned, durations].concat()
}

fn scalar_types() -> Vec<DataType> {
    use DataType::*;
    let numbers = [Null, Boolean, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64];
    let floats = [Float16, Float32, Float64, Decimal32(9, 2), Decimal64(18, -3)];
    let decimals = [Decimal128(38, 38), Decimal256(76, 0), Date32, Date64];
    let strings = [Utf8, LargeUtf8, Utf8View, Binary, LargeBinary, BinaryView, FixedSizeBinary(0)];
    let times = [Time32(TimeUnit::Second), Time64(TimeUnit::Nanosecond), FixedSizeBinary(16)];
    let intervals = [IntervalUnit::YearMonth, IntervalUnit::DayTime, IntervalUnit::MonthDayNano];
    [&numbers[..], &floats, &decimals, &strings, &times, &intervals.map(Interval)].concat()
}

/// Types built on others, two levels deep.
fn types() -> Vec<DataType> {
    let mut types = [scalar_types(), timestamps()].concat();
    for _ in 0..2 {
        let inner = types.clone();
        let sample = inner.iter().step_by(if inner.len() > 100 { 7 } else { 1 });
        for of in sample {
            let pair = vec![field(of.clone()), Arc::new(Field::new("b", DataType::Int8, true))];
            let entries =
                vec![Field::new("k", DataType::Utf8, false), Field::new("v", of.clone(), true)];
            let entries = Field::new("entries", DataType::Struct(entries.into()), false);
            types.extend([
                DataType::List(field(of.clone())),
                DataType::LargeList(field(of.clone())),
                DataType::FixedSizeList(field(of.clone()), 2),
                DataType::ListView(field(of.clone())),
                DataType::LargeListView(field(of.clone())),
                DataType::Struct(pair.into()),
                DataType::Map(Arc::new(entries), false),
            ]);
        }
    }
    types
}

/// Zeros of every type, with nulls, whole and sliced: the same bytes, and no panic.
#[test]
fn every_type_whole_and_sliced() {
    for data_type in types() {
        let nulls = new_null_array(&data_type, 3);
        let Ok(zeros) = nulls.to_data().into_builder().nulls(None).build() else { continue };
        let zeros = make_array(zeros);
        let mixed = arrow::compute::concat(&[&zeros, &nulls, &zeros]).unwrap();
        for format in [Format::Text, Format::Binary] {
            let batch = batch(Field::new("c", data_type.clone(), true), mixed.clone());
            let whole = encoded(&batch, format, "UTC").unwrap();
            let mut parts = BytesMut::new();
            for (start, rows) in [(0, 0), (0, 2), (2, 3), (5, 3), (8, 1)] {
                parts.extend(encoded(&batch.slice(start, rows), format, "UTC").unwrap());
            }
            assert_eq!(whole, parts, "{data_type} {format:?}");
            assert_eq!(values(&whole)[3], [None], "{data_type}");
            assert_eq!(values(&whole).len(), 9);
        }
    }
}
