//! Values as PostgreSQL 15 reads them, and bytes that no client should send.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use bytes::BytesMut;

use super::*;
use crate::values::encode::{RowEncoder, TextStyle};
use crate::values::types::arrow_type;

fn paris() -> TimeZone {
    TimeZone::parse("Europe/Paris").unwrap()
}

/// The value as it would be sent.
fn sent(value: &ScalarValue, format: Format) -> Vec<u8> {
    let field = Field::new("c", value.data_type(), true);
    let schema = Arc::new(Schema::new(vec![field]));
    let array = value.to_array().unwrap();
    let batch = RecordBatch::try_new(schema.clone(), vec![array]).unwrap();
    let style = TextStyle { time_zone: paris(), ..TextStyle::default() };
    let mut out = BytesMut::new();
    let mut encoder = RowEncoder::new(&schema, vec![format], style).unwrap();
    encoder.encode(&batch, 0..1, &mut out).unwrap();
    out[11..].to_vec()
}

/// What PostgreSQL makes of the text, or the SQLSTATE with which it refuses it. The session's time
/// zone is Europe/Paris.
fn check(pg: &Type, cases: &[(&str, Result<&str, &str>)]) {
    let target = arrow_type(pg).unwrap();
    for (text, expected) in cases {
        let value = decode_in(&paris(), Some(text.as_bytes()), Format::Text, pg, &target);
        let value = value.map(|value| String::from_utf8(sent(&value, Format::Text)).unwrap());
        let found = value.as_ref().map(String::as_str).map_err(Error::sqlstate);
        assert_eq!(found, *expected, "{pg} {text:?}");
    }
}

#[test]
fn booleans_and_numbers() {
    let yes = ["t", "TRUE", " yes ", "on", "1", "tr"].map(|text| (text, Ok("t")));
    let no = ["of", "n", "0", "False"].map(|text| (text, Ok("f")));
    let neither = ["", "o", "2", "truer"].map(|text| (text, Err("22P02")));
    check(&Type::BOOL, &[&yes[..], &no, &neither].concat());
    check(
        &Type::INT4,
        &[
            (" 42 ", Ok("42")),
            ("-2147483648", Ok("-2147483648")),
            ("2147483648", Err("22003")),
            ("+7", Ok("7")),
            ("1.5", Err("22P02")),
            ("", Err("22P02")),
            ("0x10", Err("22P02")),
            ("- 1", Err("22P02")),
        ],
    );
    check(
        &Type::FLOAT8,
        &[
            ("1e400", Err("22003")),
            ("1e-400", Err("22003")),
            ("nan", Ok("NaN")),
            (" Infinity", Ok("Infinity")),
            ("-inf", Ok("-Infinity")),
            ("1.", Ok("1")),
            (".5", Ok("0.5")),
            ("0e400", Ok("0")),
            ("1e-320", Ok("1e-320")),
            ("1x", Err("22P02")),
        ],
    );
}

#[test]
fn numeric_text_takes_the_scale_it_needs() {
    let read = |text: &str, target: &DataType| {
        decode(Some(text.as_bytes()), Format::Text, &Type::NUMERIC, target)
            .map(|value| String::from_utf8(sent(&value, Format::Text)).unwrap())
            .map_err(|error| error.sqlstate())
    };
    let money = DataType::Decimal128(15, 2);
    for (text, expected) in [
        ("1e3", Ok("1000.00")),
        (" -12.50 ", Ok("-12.50")),
        (".5", Ok("0.50")),
        ("5.", Ok("5.00")),
        ("0.005", Ok("0.01")),
        ("-0.005", Ok("-0.01")),
        ("0.0049999", Ok("0.00")),
        ("9999999999999.99", Ok("9999999999999.99")),
        ("9999999999999.995", Err("22003")),
        ("1e999999999", Err("22003")),
        ("1e-999999999", Ok("0.00")),
        ("0e999999999", Ok("0.00")),
        ("NaN", Err("22003")),
        ("", Err("22P02")),
        (".", Err("22P02")),
        ("1e", Err("22P02")),
        ("--1", Err("22P02")),
    ] {
        assert_eq!(read(text, &money).as_deref().map_err(|e| *e), expected, "{text:?}");
    }
    assert_eq!(read("12.345", &DataType::Float64).unwrap(), "12.345");
    assert_eq!(read("2.5", &DataType::Int64).unwrap(), "3");
    assert_eq!(read("1e3", &DataType::Utf8).unwrap(), "1e3");
    assert_eq!(read("1e30", &DataType::Int64), Err("42846"));
    let wide = DataType::Decimal256(76, 10);
    let digits = "1".repeat(60);
    assert_eq!(read(&digits, &wide).unwrap(), format!("{digits}.0000000000"));
    assert_eq!(read("1.5", &DataType::Decimal32(9, 3)).unwrap(), "1.500");
}

#[test]
fn byte_strings_and_uuids() {
    check(
        &Type::BYTEA,
        &[
            ("\\x00ff", Ok("\\x00ff")),
            ("\\x00 FF", Ok("\\x00ff")),
            ("a\\\\b", Ok("\\x615c62")),
            ("a\\001b", Ok("\\x610162")),
            ("abc", Ok("\\x616263")),
            ("\\400", Err("22P02")),
            ("a\\b", Err("22P02")),
            ("\\x0", Err("22P02")),
        ],
    );
    let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    let good = [uuid, "{A0EEBC999C0B4EF8BB6D6BB9BD380A11}", "a0eebc99-9c0b4ef8bb6d-6bb9bd380a11"];
    for text in good {
        for target in [DataType::Utf8View, DataType::Utf8] {
            let value = decode(Some(text.as_bytes()), Format::Text, &Type::UUID, &target).unwrap();
            assert_eq!(sent(&value, Format::Text), uuid.as_bytes());
        }
    }
    let bad = [&uuid[1..], "", "{", &format!("{uuid}-"), "a0e-ebc99", &format!("{uuid}00")];
    for text in bad {
        let target = DataType::FixedSizeBinary(16);
        let error = decode(Some(text.as_bytes()), Format::Text, &Type::UUID, &target);
        assert_eq!(error.unwrap_err().sqlstate(), "22P02", "{text}");
    }
    check(&Type::JSON, &[("{\"a\": [1]}", Ok("{\"a\": [1]}")), ("{", Err("22P02"))]);
    check(&Type::TEXT, &[("", Ok("")), (" ü ", Ok(" ü ")), ("\0", Err("22021"))]);
}

#[test]
fn dates_and_times() {
    check(
        &Type::DATE,
        &[
            ("2020-02-29", Ok("2020-02-29")),
            ("2021-02-29", Err("22008")),
            ("0044-03-15 BC", Ok("0044-03-15 BC")),
            ("20200131", Ok("2020-01-31")),
            ("2020-1-5", Ok("2020-01-05")),
            ("infinity", Err("22008")),
            ("epoch", Ok("1970-01-01")),
            ("99999-01-01", Ok("99999-01-01")),
            ("2020-01-01 10:00:00+05", Ok("2020-01-01")),
            ("0000-01-01", Err("22008")),
            ("5874897-12-31", Ok("5874897-12-31")),
            ("5874898-01-01", Err("22008")),
            ("2020-01-01 AD", Ok("2020-01-01")),
            ("2020-01-01T", Err("22007")),
            ("2020-01", Err("22007")),
        ],
    );
    check(
        &Type::TIME,
        &[
            ("12:34", Ok("12:34:00")),
            ("12:34:56.1234567", Ok("12:34:56.123457")),
            ("12:34:56.9999995", Ok("12:34:57")),
            ("23:59:60", Ok("24:00:00")),
            ("24:00:01", Err("22008")),
            ("1:2:3", Ok("01:02:03")),
            ("12", Err("22007")),
            ("12:60", Err("22008")),
        ],
    );
    check(
        &Type::TIMESTAMP,
        &[
            ("2020-02-29 12:34:56.123456", Ok("2020-02-29 12:34:56.123456")),
            ("2020-02-29T12:34", Ok("2020-02-29 12:34:00")),
            ("2020-02-29 24:00:00", Ok("2020-03-01 00:00:00")),
            ("2020-02-29 12:00:00+05", Ok("2020-02-29 12:00:00")),
            ("0044-03-15 12:00:00 BC", Ok("0044-03-15 12:00:00 BC")),
            ("-infinity", Err("22008")),
            ("294277-01-10", Err("22008")),
            ("4714-11-24 BC", Ok("4714-11-24 00:00:00 BC")),
            ("4714-11-23 BC", Err("22008")),
            ("2020-02-29 12:34:56 Europe/Paris", Ok("2020-02-29 12:34:56")),
            ("Weds Feb 26 2020", Ok("2020-02-26 00:00:00")),
            ("Wednesday, Sept 2 2020", Ok("2020-09-02 00:00:00")),
            ("Wednes Feb 26 2020", Err("22007")),
        ],
    );
    check(
        &Type::TIMESTAMPTZ,
        &[
            ("2020-07-01 12:00", Ok("2020-07-01 12:00:00+02")),
            ("2020-07-01 12:00Z", Ok("2020-07-01 14:00:00+02")),
            ("2020-07-01 12:00:00+05:30", Ok("2020-07-01 08:30:00+02")),
            ("2020-07-01 12:00:00-0330", Ok("2020-07-01 17:30:00+02")),
            ("2020-07-01 12:00:00+05:30:15", Ok("2020-07-01 08:29:45+02")),
            ("2020-07-01 12:00 America/New_York", Ok("2020-07-01 18:00:00+02")),
            ("2020-03-29 02:30", Ok("2020-03-29 03:30:00+02")),
            ("2020-10-25 02:30", Ok("2020-10-25 02:30:00+01")),
            ("1900-01-01 00:00", Ok("1900-01-01 00:00:00+00:09:21")),
            ("0044-03-15 12:00:00+00 BC", Ok("0044-03-15 12:09:21+00:09:21 BC")),
            ("2020-07-01 12:00+15:59", Ok("2020-06-30 22:01:00+02")),
            ("2020-07-01 12:00 nowhere", Err("22007")),
        ],
    );
}

#[test]
fn intervals() {
    check(
        &Type::INTERVAL,
        &[
            ("1 year 2 mons -3 days +04:05:06.789", Ok("1 year 2 mons -3 days +04:05:06.789")),
            ("@ 1 year 2 mons ago", Ok("-1 years -2 mons")),
            ("P1Y2M3DT4H5M6.5S", Ok("1 year 2 mons 3 days 04:05:06.5")),
            ("P1W", Ok("7 days")),
            ("PT36H", Ok("36:00:00")),
            ("PT-5M", Ok("-00:05:00")),
            ("P1.5D", Ok("1 day 12:00:00")),
            ("-1-2", Ok("-1 years -2 mons")),
            ("1.5 months", Ok("1 mon 15 days")),
            ("1.3 mons", Ok("1 mon 9 days")),
            ("1.5 years", Ok("1 year 6 mons")),
            ("1.7 decades", Ok("17 years")),
            ("2.25 hours", Ok("02:15:00")),
            ("5", Ok("00:00:05")),
            ("-04:05:06", Ok("-04:05:06")),
            ("1d 2h 3m 4s", Ok("1 day 02:03:04")),
            ("0 years 0 mons 1 days 0 hours 0 mins 0.5 secs", Ok("1 day 00:00:00.5")),
            ("3 milliseconds", Ok("00:00:00.003")),
            ("-0.5 secs", Ok("-00:00:00.5")),
            ("100000000000 years", Err("22008")),
            ("1 fortnight", Err("22007")),
            ("12 ago", Err("22007")),
            ("", Err("22007")),
            ("P", Err("22007")),
            ("-P1D", Err("22007")),
        ],
    );
}

fn nested(pg: &Type, depth: usize) -> DataType {
    let inner = arrow_type(pg).unwrap();
    (0..depth).fold(inner, |t, _| DataType::List(Field::new_list_field(t, true).into()))
}

#[test]
fn arrays() {
    check(
        &Type::INT4_ARRAY,
        &[
            ("{1,2,3}", Ok("{1,2,3}")),
            ("{}", Ok("{}")),
            ("{ }", Ok("{}")),
            (" { 1 , NULL } ", Ok("{1,NULL}")),
            ("[0:1]={1,2}", Ok("{1,2}")),
            ("{1,}", Err("22P02")),
            ("{,1}", Err("22P02")),
            ("{1,2", Err("22P02")),
            ("{1}{2}", Err("22P02")),
            ("{{}}", Err("22P02")),
            ("{1,{2}}", Err("22P02")),
            ("{{1,2},{3}}", Err("22P02")),
            ("{{1},2}", Err("22P02")),
            ("{x}", Err("22P02")),
            ("", Err("22P02")),
            ("{{1}}", Err("0A000")),
        ],
    );
    check(
        &Type::TEXT_ARRAY,
        &[
            ("{a b, c }", Ok("{\"a b\",c}")),
            ("{\"a\\\"b\",\\x,\"\" }", Ok("{\"a\\\"b\",x,\"\"}")),
            ("{null}", Ok("{NULL}")),
            ("{\"null\",\\null,n\\ull}", Ok("{\"null\",\"null\",\"null\"}")),
            ("{a\\ }", Ok("{\"a \"}")),
            ("{a\"b}", Err("22P02")),
            ("{\"a\"b}", Err("22P02")),
        ],
    );
    let square = nested(&Type::INT4, 2);
    let text = b"{{1,2},{3,NULL}}";
    let value = decode(Some(text), Format::Text, &Type::INT4_ARRAY, &square).unwrap();
    assert_eq!(value.data_type(), square);
    let binary = sent(&value, Format::Binary);
    let again = decode(Some(&binary), Format::Binary, &Type::INT4_ARRAY, &square).unwrap();
    assert_eq!(sent(&again, Format::Text), text);
    let wide = DataType::LargeList(Field::new("x", DataType::Int64, true).into());
    let value = decode(Some(b"{1,2}"), Format::Text, &Type::INT4_ARRAY, &wide).unwrap();
    assert_eq!(value.data_type(), wide);
    let none = decode(Some(b"{}"), Format::Text, &Type::INT4_ARRAY, &square).unwrap();
    assert_eq!(none.data_type(), square);
}

#[test]
fn claims_beyond_the_message_are_refused_at_once() {
    let word = |n: i32| n.to_be_bytes();
    let header = [word(2), word(0), word(23), word(i32::MAX), word(1), word(i32::MAX), word(1)];
    let huge = header.concat();
    let one = [word(1), word(0), word(23), word(1), word(1), word(i32::MAX)].concat();
    let wrong_element = [word(0), word(0), word(25)].concat();
    let digits = [0x7f, 0xff, 0x7f, 0xff, 0, 0, 0, 0];
    for message in [&huge[..], &one, &wrong_element] {
        let target = nested(&Type::INT4, 1);
        let error = decode(Some(message), Format::Binary, &Type::INT4_ARRAY, &target);
        assert_eq!(error.unwrap_err().sqlstate(), "22P03");
    }
    let error = decode(Some(&digits), Format::Binary, &Type::NUMERIC, &DataType::Float64);
    assert_eq!(error.unwrap_err().sqlstate(), "22P03");
    // One digit at 10^131068.
    let far = [0, 1, 0x7f, 0xff, 0, 0, 0, 0, 0, 1];
    for target in [DataType::Decimal128(38, 10), DataType::Decimal256(76, 0), DataType::Date32] {
        let error = decode(Some(&far), Format::Binary, &Type::NUMERIC, &target);
        assert_eq!(error.unwrap_err().sqlstate(), "22003");
    }
}

#[test]
fn targets_that_differ_from_the_declared_type() {
    let read = |text: &str, pg: &Type, target: DataType| {
        let value = decode_in(&paris(), Some(text.as_bytes()), Format::Text, pg, &target).unwrap();
        assert_eq!(value.data_type(), target);
        String::from_utf8(sent(&value, Format::Text)).unwrap()
    };
    let local = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let zoned = DataType::Timestamp(TimeUnit::Millisecond, Some("Asia/Tokyo".into()));
    assert_eq!(read("7", &Type::INT4, DataType::Int64), "7");
    assert_eq!(read("x", &Type::TEXT, DataType::Utf8View), "x");
    assert_eq!(read("x", &Type::VARCHAR, DataType::LargeUtf8), "x");
    assert_eq!(read("12", &Type::UNKNOWN, DataType::Int16), "12");
    assert_eq!(read("\\x61", &Type::BYTEA, DataType::BinaryView), "\\x61");
    assert_eq!(read("2020-07-01 12:00Z", &Type::TIMESTAMPTZ, local), "2020-07-01 14:00:00");
    assert_eq!(read("2020-07-01 12:00", &Type::TIMESTAMP, zoned), "2020-07-01 12:00:00+02");
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    assert_eq!(read("x", &Type::TEXT, dictionary), "x");
    let null = decode(None, Format::Binary, &Type::INT4, &DataType::Int64).unwrap();
    assert_eq!(null, ScalarValue::Int64(None));
    let overflow = decode(Some(b"70000"), Format::Text, &Type::INT4, &DataType::Int16);
    assert_eq!(overflow.unwrap_err().sqlstate(), "42846");
}

fn all_types() -> Vec<Type> {
    use Type as T;
    let scalars = [T::BOOL, T::INT2, T::INT4, T::INT8, T::OID, T::FLOAT4, T::FLOAT8, T::NUMERIC];
    let others = [T::TEXT, T::BYTEA, T::UUID, T::JSON, T::JSONB, T::DATE, T::TIME, T::TIMESTAMP];
    let arrays = [T::INT4_ARRAY, T::TEXT_ARRAY, T::NUMERIC_ARRAY, T::DATE_ARRAY, T::BYTEA_ARRAY];
    let rest = [T::TIMESTAMPTZ, T::INTERVAL, T::INTERVAL_ARRAY, T::TIMESTAMPTZ_ARRAY];
    [&scalars[..], &others, &arrays, &rest].concat()
}

/// Mutations of valid values, and noise: an answer or an error, and what was accepted can be sent
/// or is refused cleanly there too.
#[test]
fn no_bytes_make_it_panic() {
    const SEEDS: &[&[u8]] = &[
        b"-12.50e3",
        b"true",
        b"2020-02-29 12:34:56.789+05:30 BC",
        b"1 year -2 days +3:04:05.6 ago",
        b"P1Y2M3DT4H5M6.5S",
        b"{{1,2},{3,NULL}}",
        b"{\"a\\\"b\",c}",
        b"\\x00ff",
        b"a\\001",
        b"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        b"{\"a\": [1, null]}",
        b"NaN",
        b"-infinity",
        b"\0\x02\0\x01\0\0\0\x02\0\x01\x09\xc4",
        b"\0\0\0\x01\0\0\0\0\0\0\0\x17\0\0\0\x01\0\0\0\x01",
        b"\0\0\0\x01\0\0\0\0\0\0\0\x17\0\0\0\x01\0\0\0\x01\0\0\0\x04\0\0\0\x07",
        b"\x7f\xff\xff\xff",
        b"\x80\0\0\0\0\0\0\0",
        b"\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\0",
        b"12:34 Europe/X",
    ];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    };
    let types = all_types();
    for round in 0..300_000 {
        let mut bytes = SEEDS[random(SEEDS.len())].to_vec();
        for _ in 0..random(4) {
            let at = random(bytes.len() + 1);
            match random(4) {
                0 => bytes.insert(at, b"0123456789-+:.eE{}\", \\TZP\0\xff"[random(27)]),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 if at < bytes.len() => bytes[at] = random(256) as u8,
                _ => bytes.truncate(at),
            }
        }
        let pg = &types[round % types.len()];
        let format = if random(2) == 0 { Format::Text } else { Format::Binary };
        let target = arrow_type(pg).unwrap();
        if let Ok(value) = decode_in(&paris(), Some(&bytes), format, pg, &target) {
            assert_eq!(value.data_type(), target, "{pg} {bytes:?}");
            if round % 16 == 0 {
                sent(&value, Format::Text);
            }
        }
        let other = arrow_type(&types[random(types.len())]).unwrap();
        let _ = decode(Some(&bytes), format, pg, &other);
    }
}
