//! Values of every type, in tables of what PostgreSQL 15 wrote for them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;

use super::{binaries, encoded, texts, texts_of};
use crate::values::encode::{Error, Format};

fn timestamps(micros: &[i64]) -> TimestampMicrosecondArray {
    TimestampMicrosecondArray::from(micros.to_vec())
}

fn check<T: ArrowPrimitiveType>(cases: &[(T::Native, &str)]) {
    for (value, expected) in cases {
        let found = texts(PrimitiveArray::<T>::from_iter_values([*value]));
        assert_eq!(found, [*expected], "{value:?}");
    }
}

#[test]
fn integers_and_booleans() {
    let ints: ArrayRef = Arc::new(Int8Array::from(vec![Some(-128), None, Some(7)]));
    assert_eq!(texts_of(Field::new("c", DataType::Int8, true), ints, "UTC"), ["-128", "NULL", "7"]);
    assert_eq!(binaries(Int8Array::from(vec![-128])), ["ff80"]);
    assert_eq!(binaries(UInt8Array::from(vec![255])), ["00ff"]);
    assert_eq!(binaries(UInt16Array::from(vec![65535])), ["0000ffff"]);
    assert_eq!(binaries(UInt32Array::from(vec![u32::MAX])), ["00000000ffffffff"]);
    assert_eq!(texts(UInt64Array::from(vec![u64::MAX])), ["18446744073709551615"]);
    assert_eq!(binaries(UInt64Array::from(vec![10_000])), ["00010001000000000001"]);
    assert_eq!(texts(BooleanArray::from(vec![true, false])), ["t", "f"]);
    assert_eq!(binaries(BooleanArray::from(vec![true, false])), ["01", "00"]);
    assert_eq!(texts(NullArray::new(2)), ["NULL", "NULL"]);
}

#[test]
fn float8() {
    check::<Float64Type>(&[
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (0.1, "0.1"),
        (-12.5, "-12.5"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "Infinity"),
        (f64::NEG_INFINITY, "-Infinity"),
        (1e14, "100000000000000"),
        (123_456_789_012_345.6, "123456789012345.6"),
        (1e15, "1e+15"),
        (-1e15, "-1e+15"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (1.5e300, "1.5e+300"),
        (5e-324, "5e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
        (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
        // 1e23 lies halfway between two floats: PostgreSQL does not take it for either.
        (1e23, "9.999999999999999e+22"),
        (1e22, "1e+22"),
        (9_007_199_254_740_992.0, "9.007199254740992e+15"),
        (295_147_905_179_352_830_000.0, "2.9514790517935283e+20"),
    ]);
    assert_eq!(binaries(Float64Array::from(vec![-2.0])), ["c000000000000000"]);
}

#[test]
fn float4() {
    check::<Float32Type>(&[
        (0.1, "0.1"),
        (1e5, "100000"),
        (999_999.0, "999999"),
        (1e6, "1e+06"),
        (1_234_567.0, "1.234567e+06"),
        (16_777_216.0, "1.6777216e+07"),
        (33_554_432.0, "3.3554432e+07"),
        (268_435_456.0, "2.6843546e+08"),
        (1e-45, "1e-45"),
        (f32::MAX, "3.4028235e+38"),
        (9.999e-5, "9.999e-05"),
    ]);
    assert_eq!(binaries(Float32Array::from(vec![1.0])), ["3f800000"]);
    let half = Float16Array::from_iter_values([0.5_f32, -65504.0].map(half_of));
    assert_eq!(texts(half.clone()), ["0.5", "-65504"]);
    assert_eq!(binaries(half), ["3f000000", "c77fe000"]);
}

/// Without naming the crate that has the type.
fn half_of(value: f32) -> <Float16Type as ArrowPrimitiveType>::Native {
    <Float16Type as ArrowPrimitiveType>::Native::from_f32(value)
}

#[test]
fn dates() {
    check::<Date32Type>(&[
        (0, "1970-01-01"),
        (-719_162, "0001-01-01"),
        (-719_163, "0001-12-31 BC"),
        (-735_160, "0044-03-15 BC"),
        (2_932_897, "10000-01-01"),
        (-2_440_588, "4714-11-24 BC"),
        (2_145_042_905, "5874897-12-31"),
    ]);
    check::<Date64Type>(&[(-1, "1969-12-31"), (86_400_000, "1970-01-02")]);
    assert_eq!(binaries(Date32Array::from(vec![18_262, -735_160])), ["00001c89", "fff49d7b"]);
    for days in [i32::MAX, i32::MIN, -2_440_589, 2_145_042_906] {
        let array: ArrayRef = Arc::new(Date32Array::from(vec![days]));
        let batch = super::batch(Field::new("c", DataType::Date32, true), array);
        for format in [Format::Text, Format::Binary] {
            let found = encoded(&batch, format, "UTC");
            assert!(matches!(found, Err(Error::OutOfRange { pg: "date", .. })));
        }
    }
}

#[test]
fn times() {
    check::<Time64MicrosecondType>(&[
        (0, "00:00:00"),
        (86_400_000_000, "24:00:00"),
        (1, "00:00:00.000001"),
        (45_296_120_000, "12:34:56.12"),
    ]);
    check::<Time64NanosecondType>(&[(1_999, "00:00:00.000001")]);
    check::<Time32SecondType>(&[(3_661, "01:01:01")]);
    check::<Time32MillisecondType>(&[(1_500, "00:00:01.5")]);
    assert_eq!(binaries(Time32SecondArray::from(vec![1])), ["00000000000f4240"]);
}

#[test]
fn timestamps_without_zone() {
    check::<TimestampMicrosecondType>(&[
        (0, "1970-01-01 00:00:00"),
        (-1, "1969-12-31 23:59:59.999999"),
        (946_684_800_100_000, "2000-01-01 00:00:00.1"),
        (-63_517_780_800_000_000, "0044-03-15 12:00:00 BC"),
        (253_402_300_800_000_000, "10000-01-01 00:00:00"),
        (-210_866_803_200_000_000, "4714-11-24 00:00:00 BC"),
    ]);
    check::<TimestampNanosecondType>(&[
        (-1, "1969-12-31 23:59:59.999999"),
        (1_999, "1970-01-01 00:00:00.000001"),
    ]);
    check::<TimestampSecondType>(&[(1, "1970-01-01 00:00:01")]);
    assert_eq!(binaries(timestamps(&[946_684_800_000_001])), ["0000000000000001"]);
    assert_eq!(binaries(TimestampNanosecondArray::from(vec![-1])), ["fffca2fec4c81fff"]);
    let array: ArrayRef = Arc::new(TimestampSecondArray::from(vec![i64::MAX]));
    let batch = super::batch(Field::new("c", array.data_type().clone(), true), array);
    let found = encoded(&batch, Format::Text, "UTC");
    assert!(matches!(found, Err(Error::OutOfRange { pg: "timestamp", .. })));
}

#[test]
fn timestamps_in_the_sessions_zone() {
    let cases = [
        ("UTC", 0, "1970-01-01 00:00:00+00"),
        ("Europe/Paris", 1_593_604_800_000_000, "2020-07-01 14:00:00+02"),
        ("Europe/Paris", -2_208_988_800_000_000, "1900-01-01 00:09:21+00:09:21"),
        ("Europe/Paris", -63_517_780_800_000_000, "0044-03-15 12:09:21+00:09:21 BC"),
        ("Europe/Paris", 2_540_246_400_000_000, "2050-07-01 02:00:00+02"),
        ("Europe/Paris", 8_851_593_600_000_000, "2250-07-01 02:00:00+02"),
        ("5.5", 0, "1970-01-01 05:30:00+05:30"),
        ("Asia/Kolkata", 123_456, "1970-01-01 05:30:00.123456+05:30"),
        ("America/St_Johns", 0, "1969-12-31 20:30:00-03:30"),
        ("-3", 0, "1969-12-31 21:00:00-03"),
    ];
    for (zone, micros, expected) in cases {
        // The column's own zone is of no account.
        let array = timestamps(&[micros]).with_timezone("Asia/Tokyo");
        let field = Field::new("c", array.data_type().clone(), true);
        assert_eq!(texts_of(field, Arc::new(array), zone), [expected]);
    }
}

#[test]
fn intervals() {
    let interval = |months, days, micros: i64| {
        IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(
            months,
            days,
            micros * 1000,
        )])
    };
    let cases = [
        (0, 0, 0, "00:00:00"),
        (-14, 3, -14_706_789_000, "-1 years -2 mons +3 days -04:05:06.789"),
        (1, -1, 0, "1 mon -1 days"),
        (0, -1, 7_380_000_000, "-1 days +02:03:00"),
        (25, 0, 0, "2 years 1 mon"),
        (0, 0, 360_000_000_000, "100:00:00"),
        (0, 0, -500_000, "-00:00:00.5"),
        (0, 1, 1, "1 day 00:00:00.000001"),
    ];
    for (months, days, micros, expected) in cases {
        assert_eq!(texts(interval(months, days, micros)), [expected]);
    }
    assert_eq!(binaries(interval(-14, 3, -14_706_789_000)), ["fffffffc9368357800000003fffffff2"]);
    let nanos = IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(0, 0, -1_999)]);
    assert_eq!(texts(nanos), ["-00:00:00.000001"]);
    assert_eq!(texts(IntervalYearMonthArray::from(vec![13])), ["1 year 1 mon"]);
    let day_time = IntervalDayTimeArray::from(vec![IntervalDayTime::new(2, -1500)]);
    assert_eq!(texts(day_time), ["2 days -00:00:01.5"]);
    assert_eq!(texts(DurationSecondArray::from(vec![172_800])), ["2 days"]);
    assert_eq!(texts(DurationNanosecondArray::from(vec![-1_999])), ["-00:00:00.000001"]);
}

#[test]
fn strings_and_bytes() {
    let long = "a string that is longer than thirty-two bytes";
    let strings = vec![Some(""), None, Some("ü"), Some("twelve bytes"), Some(long)];
    let expected = ["", "NULL", "ü", "twelve bytes", long];
    assert_eq!(texts(StringArray::from(strings.clone())), expected);
    assert_eq!(texts(LargeStringArray::from(strings.clone())), expected);
    assert_eq!(texts(StringViewArray::from(strings)), expected);
    assert_eq!(texts(BinaryArray::from(vec![&b"\x00\xff"[..], b""])), ["\\x00ff", "\\x"]);
    assert_eq!(binaries(BinaryViewArray::from(vec![&b"\x00\xff"[..]])), ["00ff"]);
    let id = 0xa0ee_bc99_9c0b_4ef8_bb6d_6bb9_bd38_0a11_u128.to_be_bytes();
    let array = FixedSizeBinaryArray::try_from_iter([id].into_iter()).unwrap();
    assert_eq!(texts(array.clone()), ["\\xa0eebc999c0b4ef8bb6d6bb9bd380a11"]);
    let name = ("ARROW:extension:name".to_string(), "arrow.uuid".to_string());
    let field = Field::new("c", DataType::FixedSizeBinary(16), true);
    let field = field.with_metadata(HashMap::from([name]));
    let found = texts_of(field, Arc::new(array.clone()), "UTC");
    assert_eq!(found, ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]);
    assert_eq!(binaries(array), ["a0eebc999c0b4ef8bb6d6bb9bd380a11"]);
}

#[test]
fn arrays() {
    let ints = vec![Some(vec![Some(1), None, Some(3)]), None, Some(vec![])];
    let ints = ListArray::from_iter_primitive::<Int32Type, _, _>(ints);
    assert_eq!(texts(ints.clone()), ["{1,NULL,3}", "NULL", "{}"]);
    let one = "00000001000000010000001700000003000000010000000400000001ffffffff0000000400000003";
    assert_eq!(binaries(ints), [one, "NULL", "000000000000000000000017"]);

    let mut builder = ListBuilder::new(StringBuilder::new());
    let plain = ["ü", "nulls", ";", "\u{1}"];
    let quoted = ["", "a b", "NULL", "null", "a\"b", "a\\b", "{", ",", "\t", "\u{b}"];
    builder.append_value(plain.iter().chain(&quoted).map(Some).chain([None]));
    let expected = "{ü,nulls,;,\u{1},\"\",\"a b\",\"NULL\",\"null\",\"a\\\"b\",\"a\\\\b\",\"{\",\
                    \",\",\"\t\",\"\u{b}\",NULL}";
    assert_eq!(texts(builder.finish()), [expected]);

    let mut builder = ListBuilder::new(TimestampMicrosecondBuilder::new());
    builder.append_value([Some(0), None]);
    assert_eq!(texts(builder.finish()), ["{\"1970-01-01 00:00:00\",NULL}"]);
    let mut builder = ListBuilder::new(BinaryBuilder::new());
    builder.append_value([Some(b"hi")]);
    assert_eq!(texts(builder.finish()), ["{\"\\\\x6869\"}"]);
    let mut builder = ListBuilder::new(Date32Builder::new());
    builder.append_value([Some(18_262), Some(-735_160)]);
    let dates = builder.finish();
    assert_eq!(texts(dates.clone()), ["{2020-01-01,\"0044-03-15 BC\"}"]);
    let bytes = "00000001000000000000043a00000002000000010000000400001c8900000004fff49d7b";
    assert_eq!(binaries(dates), [bytes]);
}

#[test]
fn json() {
    let names = vec![Some("a\"\u{1}\n/"), None];
    let fields = Fields::from(vec![
        Field::new("s \"", DataType::Utf8, true),
        Field::new("f", DataType::Float64, true),
        Field::new("n", DataType::Decimal128(10, 2), true),
        Field::new("t", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("b", DataType::Binary, true),
        Field::new("o", DataType::Boolean, true),
    ]);
    let number = Decimal128Array::from(vec![Some(-5), None]).with_precision_and_scale(10, 2);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(names)),
        Arc::new(Float64Array::from(vec![1e20, f64::NAN])),
        Arc::new(number.unwrap()),
        Arc::new(timestamps(&[0, -2_208_988_800_000_000]).with_timezone("UTC")),
        Arc::new(BinaryArray::from(vec![&b"hi"[..], b""])),
        Arc::new(BooleanArray::from(vec![Some(true), None])),
    ];
    let array: ArrayRef = Arc::new(StructArray::new(fields, columns, None));
    let field = Field::new("c", array.data_type().clone(), true);
    let first = concat!(
        r#"{"s \"":"a\"\u0001\n/","f":1e+20,"n":-0.05,"#,
        r#""t":"1970-01-01T01:00:00+01:00","b":"\\x6869","o":true}"#
    );
    let second =
        r#"{"s \"":null,"f":"NaN","n":null,"t":"1900-01-01T00:09:21+00:09:21","b":"\\x","o":null}"#;
    assert_eq!(texts_of(field.clone(), array.clone(), "Europe/Paris"), [first, second]);
    let binary = encoded(&super::batch(field, array), Format::Binary, "Europe/Paris").unwrap();
    assert_eq!(super::values(&binary)[0][0].as_deref(), Some(first.as_bytes()));
}
