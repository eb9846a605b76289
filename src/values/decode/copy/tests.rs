//! What PostgreSQL 15 makes of the same bytes, however they are cut.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::*;

/// The columns `a int` and `b text`.
fn columns() -> Vec<FieldRef> {
    let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
    vec![field("a", DataType::Int32), field("b", DataType::Utf8)]
}

fn text() -> CopySource {
    text_with('\t', "\\N", Header::None)
}

fn text_with(delimiter: char, null: &str, header: Header) -> CopySource {
    let text = CopyText { delimiter: delimiter as u8, null: null.into() };
    CopySource::Text(text, header)
}

fn csv() -> CopySource {
    csv_with(Header::None, |_| ())
}

fn csv_with(header: Header, change: impl Fn(&mut Csv)) -> CopySource {
    let mut csv = Csv {
        delimiter: b',',
        null: "".into(),
        quote: b'"',
        escape: b'"',
        force_not_null: Vec::new(),
        force_null: Vec::new(),
    };
    change(&mut csv);
    CopySource::Csv(csv, header)
}

/// Rows as text, with `~` for null; or the code, the message and the context.
type Outcome = Result<Vec<String>, String>;

fn shown_error(error: &Error) -> String {
    let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    let context = error.context.as_deref().unwrap_or("-");
    format!("{} {error}{hint} | {context}", error.sqlstate())
}

fn decode_chunks(fields: &[FieldRef], source: &CopySource, chunks: &[&[u8]]) -> Outcome {
    let mut decoder = CopyDecoder::new("t", fields, source.clone(), TimeZone::utc(), 1 << 20);
    let mut rows = Vec::new();
    let mut take = |decoder: &mut CopyDecoder| {
        while let Some(batch) = decoder.next_batch().map_err(|error| shown_error(&error))? {
            let options = FormatOptions::default().with_null("~");
            let columns = batch.columns().iter();
            let columns = columns.map(|c| ArrayFormatter::try_new(c, &options).expect("shown"));
            let columns: Vec<_> = columns.collect();
            for row in 0..batch.num_rows() {
                let values: Vec<_> = columns.iter().map(|c| c.value(row).to_string()).collect();
                rows.push(values.join("|"));
            }
        }
        Ok::<(), String>(())
    };
    for chunk in chunks {
        decoder.push(chunk);
        take(&mut decoder)?;
    }
    decoder.end();
    take(&mut decoder)?;
    assert_eq!(decoder.rows(), rows.len() as u64);
    Ok(rows)
}

/// Decodes in one piece, byte by byte, and cut in two anywhere.
fn decode_as(fields: &[FieldRef], source: &CopySource, data: &[u8]) -> Outcome {
    let whole = decode_chunks(fields, source, &[data]);
    let single: Vec<_> = data.chunks(1).collect();
    let mut ways = vec![single];
    ways.extend((0..=data.len()).map(|at| vec![&data[..at], &data[at..]]));
    for way in ways {
        let found = decode_chunks(fields, source, &way);
        // What is shown of a broken character depends on how much of it there was.
        let encoding = |outcome: &Outcome| {
            outcome
                .as_ref()
                .err()
                .filter(|text| text.contains("22021"))
                .map(|text| text[..53].to_owned())
        };
        match (encoding(&whole), encoding(&found)) {
            (Some(one), Some(other)) => assert_eq!(one, other),
            _ => assert_eq!(found, whole, "{:?} in {way:?}", data.escape_ascii()),
        }
    }
    whole
}

#[track_caller]
fn good(source: &CopySource, data: impl AsRef<[u8]>, expected: &[&str]) {
    let rows = decode_as(&columns(), source, data.as_ref());
    assert_eq!(rows, Ok(expected.iter().map(|row| (*row).to_owned()).collect()));
}

#[track_caller]
fn bad(source: &CopySource, data: impl AsRef<[u8]>, expected: &str) {
    assert_eq!(decode_as(&columns(), source, data.as_ref()), Err(expected.to_owned()));
}

#[test]
fn text_is_read_as_in_postgres() {
    let text = &text();
    good(text, "1\tx\n2\ty\n", &["1|x", "2|y"]);
    good(text, "1\tx", &["1|x"]);
    good(text, "", &[]);
    good(text, "1\tx\r\n2\ty\r\n", &["1|x", "2|y"]);
    good(text, "1\tx\r2\ty\r", &["1|x", "2|y"]);
    good(text, "1\t\\N\n\\N\t\\\\N\n", &["1|~", "~|\\N"]);
    good(text, "1\ta\\\nb\n", &["1|a\nb"]);
    good(
        text,
        "1\ta\\tb\\x41\\101\\q\\b\\f\\n\\r\\v\\xg\\1\\\n",
        &["1|a\tbAAq\u{8}\u{c}\n\r\u{b}xg\u{1}\n"],
    );
    good(text, "1\ttrailing\\", &["1|trailing"]);
    good(text, "1\t\\xc3\\xa9\u{e9}\n", &["1|\u{e9}\u{e9}"]);
    good(
        &text_with('|', "nil", Header::None),
        "1|nil\n2|a\\|b\n3|\\nil\n",
        &["1|~", "2|a|b", "3|\nil"],
    );
    good(&text_with('\t', "\\N", Header::Skip), "b\tzzz\n1\tx\n", &["1|x"]);
}

#[test]
fn the_end_marker_of_text_is_that_of_postgres() {
    let text = &text();
    good(text, "1\tx\n\\.\n3\ty\n", &["1|x"]);
    good(text, "1\tfoo\\.\n2\ty\n", &["1|foo"]);
    good(text, "1\tx\r\n\\.\r\n\n\n", &["1|x"]);
    let corrupt = "22P04 end-of-copy marker corrupt | COPY t, line 2";
    bad(text, "1\tx\n\\.", corrupt);
    bad(text, "1\tx\n\\.x\n", corrupt);
    let style = "22P04 end-of-copy marker does not match previous newline style | COPY t, line 2";
    bad(text, "1\tx\r\n\\.\n", style);
    bad(text, "1\tx\n\\.\r\n", style);
    // Not even text may follow it, since nobody reads that.
    good(text, b"1\tx\n\\.\n\xff", &["1|x"]);
}

#[test]
fn wrong_text_is_refused_as_in_postgres() {
    let text = &text();
    bad(text, "1\n", "22P04 missing data for column \"b\" | COPY t, line 1: \"1\"");
    bad(text, "1\tx\n2\n\u{1}\n", "22P04 missing data for column \"b\" | COPY t, line 2: \"2\"");
    let extra = "22P04 extra data after last expected column | COPY t, line 1: \"1\tx\ty\"";
    bad(text, "1\tx\ty\n", extra);
    bad(
        text,
        "1\tx\r\n2\ty\n",
        "22P04 literal newline found in data (Use \"\\n\" to represent newline.) | COPY t, line 2",
    );
    let carriage_return = "22P04 literal carriage return found in data \
                           (Use \"\\r\" to represent carriage return.) | COPY t, line 2";
    bad(text, "1\tx\n2\ty\r\n", carriage_return);
    bad(text, "1\tx\r\n2\ty\rz", carriage_return);
    let long = format!("1\t{}\t\n", "z".repeat(300));
    let shown = format!(
        "22P04 extra data after last expected column | COPY t, line 1: \"1\t{}...\"",
        "z".repeat(98)
    );
    bad(text, long, &shown);
}

#[test]
fn wrong_values_are_refused_where_they_stand() {
    let text = &text();
    bad(
        text,
        "1\tx\nx\ty\n",
        "22P02 invalid input syntax for type integer: \"x\" | COPY t, line 2, column a: \"x\"",
    );
    bad(
        text,
        "\n",
        "22P02 invalid input syntax for type integer: \"\" | COPY t, line 1, column a: \"\"",
    );
    bad(
        text,
        "99999999999\ty\n",
        "22003 value \"99999999999\" is out of range for type integer | COPY t, line 1, column a: \
         \"99999999999\"",
    );
    let cut = format!("{}{}\ty\n", "x".repeat(61), "\u{e9}".repeat(60));
    let shown = decode_as(&columns(), text, cut.as_bytes()).expect_err("no number");
    let end = format!("column a: \"{}{}...\"", "x".repeat(61), "\u{e9}".repeat(19));
    assert!(shown.ends_with(&end), "{shown}");
}

#[test]
fn what_is_not_utf8_is_refused() {
    let start = "22021 invalid byte sequence for encoding \"UTF8\":";
    let check = |data: &[u8], expected: &str| {
        let found = decode_chunks(&columns(), &text(), &[data]);
        assert_eq!(found, Err(format!("{start} {expected}")));
        let _ = decode_as(&columns(), &text(), data);
    };
    check(b"1\t\xff\n", "0xff | COPY t, line 1");
    check(b"1\ta\n2\t\xe9\n", "0xe9 0x0a | COPY t, line 2");
    check(b"1\t\\xff\n", "0xff | COPY t, line 1: \"1\t\\xff\"");
    check(b"1\t\\000\n", "0x00 | COPY t, line 1: \"1\t\\000\"");
    check(b"1\ta\0b\n", "0x00 | COPY t, line 1");
    check(b"1\t\xc3", "0xc3 | COPY t, line 1");
    check(b"1\t\xe2\x82\n", "0xe2 0x82 0x0a | COPY t, line 1");
    check(b"1\t\xf0\x28\x8c\x28\n", "0xf0 0x28 0x8c 0x28 | COPY t, line 1");
    // What is complete is decoded first.
    let first = decode_chunks(&columns(), &text(), &[b"1\tx\n2\n\xff\n"]);
    assert!(first.expect_err("too few").starts_with("22P04 missing data"));
}

#[test]
fn csv_is_read_as_in_postgres() {
    let csv = &csv();
    good(csv, "1,x\n2,y\n", &["1|x", "2|y"]);
    good(csv, "1,\n2,\"\"\n,\n", &["1|~", "2|", "~|~"]);
    good(csv, "1,\"a\nb\"\n2,x\n", &["1|a\nb", "2|x"]);
    good(csv, "1,\"a\"\"b\"c\n", &["1|a\"bc"]);
    good(csv, "1,x\r\n2,\"y\"\r\n", &["1|x", "2|y"]);
    good(csv, "1,x\r2,\"y\"\r", &["1|x", "2|y"]);
    good(csv, "1,\"x\" \n2, \"x\"\n", &["1|x ", "2| x"]);
    good(csv, "1,x\n\\.\n3,y\n", &["1|x"]);
    good(csv, "1,x\r\n\\.\r\n", &["1|x"]);
    good(csv, "1,\\.\n", &["1|\\."]);
    good(csv, "1,\"a,\"\"\"\n2,\"\"\"\"\n", &["1|a,\"", "2|\""]);
    let other = |csv: &mut Csv| (csv.quote, csv.escape) = (b'\'', b'\\');
    good(
        &csv_with(Header::None, other),
        "1,'a\\'b\\\\c\\d'\n2,a\\'b'\n",
        &["1|a'b\\c\\d", "2|a\\b"],
    );
    good(&csv_with(Header::Skip, |_| ()), "b,zzz\n1,x\n", &["1|x"]);
    good(&csv_with(Header::Skip, |_| ()), "", &[]);
    good(&csv_with(Header::None, |csv| csv.force_null = vec![false, true]), "1,\"\"\n", &["1|~"]);
    good(&csv_with(Header::None, |csv| csv.force_not_null = vec![false, true]), "1,\n", &["1|"]);
    let both = |csv: &mut Csv| {
        csv.null = "x".into();
        (csv.force_null, csv.force_not_null) = (vec![false, true], vec![false, true]);
    };
    good(&csv_with(Header::None, both), "1,x\n2,\"x\"\n", &["1|x", "2|~"]);
}

#[test]
fn wrong_csv_is_refused_as_in_postgres() {
    let csv = &csv();
    bad(csv, "1,\"a\n", "22P04 unterminated CSV quoted field | COPY t, line 1: \"1,\"a\n\"");
    bad(csv, "1\n", "22P04 missing data for column \"b\" | COPY t, line 1: \"1\"");
    bad(csv, "1,x,y\n", "22P04 extra data after last expected column | COPY t, line 1: \"1,x,y\"");
    bad(
        csv,
        "1,x\n2,y\r\n",
        "22P04 unquoted carriage return found in data \
         (Use quoted CSV field to represent carriage return.) | COPY t, line 2",
    );
    let newline = "22P04 unquoted newline found in data \
                   (Use quoted CSV field to represent newline.) | COPY t, line 2";
    bad(csv, "1,x\r\n2,y\n", newline);
    bad(csv, "1,x\r\n\\.\n", newline);
    let style = "22P04 end-of-copy marker does not match previous newline style | COPY t, line 2";
    bad(csv, "1,x\n\\.\r\n", style);
    let integer = |value: &str, line: u64| {
        format!(
            "22P02 invalid input syntax for type integer: \"{value}\" | COPY t, line {line}, column \
             a: \"{value}\""
        )
    };
    bad(csv, "1,x\n\\.", &integer("\\.", 2));
    bad(csv, "1,x\n\\.z\n", &integer("\\.z", 2));
    bad(csv, "\\.,1\n", &integer("\\.", 1));
    bad(csv, "1,x\n\"a\nb\",y\n", &integer("a\nb", 3));
    bad(csv, "1,\"a\r\nb\"\r\n2,\"\nx\"\r\nz,1\r\n", &integer("z", 4));
}

#[test]
fn headers_are_compared_as_in_postgres() {
    let csv = &csv_with(Header::Match, |_| ());
    good(csv, "a,b\n1,x\n", &["1|x"]);
    good(csv, "a,b", &[]);
    // A byte-order mark belongs to no name; without a header it would be a value's.
    good(csv, "\u{feff}a,b\n1,x\n", &["1|x"]);
    good(csv, "\u{feff}\"a\",b\r\n1,x", &["1|x"]);
    let wrong = "22P04 wrong number of fields in header line: got 1, expected 2 | COPY t, line 1:";
    bad(csv, "", &format!("{wrong} \"\""));
    bad(csv, "a\n1,x\n", &format!("{wrong} \"a\""));
    let many = wrong.replace("got 1", "got 4");
    bad(csv, "a,b,c,d\n", &format!("{many} \"a,b,c,d\""));
    let name = "22P04 column name mismatch in header line field 1: got";
    bad(csv, "b,a\n", &format!("{name} \"b\", expected \"a\" | COPY t, line 1: \"b,a\""));
    bad(csv, ",b\n", &format!("{name} null value (\"\"), expected \"a\" | COPY t, line 1: \",b\""));
    let text = &text_with('\t', "\\N", Header::Match);
    good(text, "a\tb\n1\tx\n", &["1|x"]);
    bad(
        text,
        "\\N\tb\n",
        &format!("{name} null value (\"\\N\"), expected \"a\" | COPY t, line 1: \"\\N\tb\""),
    );
}

/// A header of so many bytes of extension.
fn header(flags: u32, extension: &[u8]) -> Vec<u8> {
    let length = (extension.len() as i32).to_be_bytes();
    [b"PGCOPY\n\xff\r\n\0", &flags.to_be_bytes()[..], &length, extension].concat()
}

fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut row = (values.len() as i16).to_be_bytes().to_vec();
    for value in values {
        let length = value.map_or(-1, |value| value.len() as i32);
        row.extend(length.to_be_bytes());
        row.extend(value.unwrap_or_default());
    }
    row
}

const END: &[u8] = b"\xff\xff";

#[test]
fn binary_is_read_as_in_postgres() {
    let one = row(&[Some(&[0, 0, 0, 1]), Some(b"x")]);
    let nulls = row(&[None, None]);
    let good = |data: Vec<u8>, expected: &[&str]| good(&CopySource::Binary, data, expected);
    let plain = || header(0, b"");
    good([plain(), one.clone(), nulls, END.to_vec()].concat(), &["1|x", "~|~"]);
    good([plain(), one.clone()].concat(), &["1|x"]);
    good([plain(), one.clone(), vec![0]].concat(), &["1|x"]);
    good([plain(), END.to_vec()].concat(), &[]);
    good(plain(), &[]);
    good([header(5, b"ab"), one, END.to_vec()].concat(), &["1|x"]);
}

#[test]
fn wrong_binary_is_refused_as_in_postgres() {
    let bad = |data: Vec<u8>, expected: &str| {
        bad(&CopySource::Binary, data, &format!("22P04 {expected}"));
    };
    let unknown = "COPY file signature not recognized | -";
    bad(Vec::new(), unknown);
    bad(b"PGCOP".to_vec(), unknown);
    bad(vec![b'x'; 19], unknown);
    bad(header(0, b"")[..11].to_vec(), "invalid COPY file header (missing flags) | -");
    bad(header(0, b"")[..15].to_vec(), "invalid COPY file header (missing length) | -");
    bad(header(1 << 16, b""), "invalid COPY file header (WITH OIDS) | -");
    bad(header(1 << 17, b""), "unrecognized critical flags in COPY file header | -");
    let negative = [&header(0, b"")[..15], &[0xff; 4]].concat();
    bad(negative, "invalid COPY file header (missing length) | -");
    bad(header(0, b"abcd")[..22].to_vec(), "invalid COPY file header (wrong length) | -");
    let after = |rest: &[u8]| [&header(0, b""), rest].concat();
    let one = row(&[Some(&[0, 0, 0, 1]), Some(b"xyz")]);
    bad(after(&row(&[None])), "row field count is 1, expected 2 | COPY t, line 1");
    let twice = [&one[..], &[0xff, 0xfe]].concat();
    bad(after(&twice), "row field count is -2, expected 2 | COPY t, line 2");
    let left = [&one[..], END, &[0]].concat();
    bad(after(&left), "received copy data after EOF marker | COPY t, line 2");
    let end = "unexpected EOF in COPY data | COPY t, line 1, column b";
    bad(after(&one[..one.len() - 1]), end);
    bad(after(&one[..one.len() - 5]), end);
    bad(after(&[0, 2, 0xff, 0xff, 0xff, 0xfe]), "invalid field size | COPY t, line 1, column a");
    let value = |value: &[u8], other: &[u8]| {
        decode_as(&columns(), &CopySource::Binary, &after(&row(&[Some(value), Some(other)])))
            .expect_err("wrong")
    };
    let short = value(&[0, 1], b"x");
    assert!(short.starts_with("22P03") && short.ends_with("| COPY t, line 1, column a"), "{short}");
    let encoding = "22021 invalid byte sequence for encoding \"UTF8\":";
    let context = "| COPY t, line 1, column b";
    assert_eq!(value(&[0; 4], b"\xff"), format!("{encoding} 0xff {context}"));
    assert_eq!(value(&[0; 4], b"a\0b"), format!("{encoding} 0x00 {context}"));
}

#[test]
fn nulls_are_refused_where_there_must_be_none() {
    let fields = vec![
        Arc::new(Field::new("a", DataType::Int32, false)),
        Arc::new(Field::new("b", DataType::Utf8, true)),
    ];
    let message = "23502 null value in column \"a\" of relation \"t\" violates not-null constraint";
    let found = decode_as(&fields, &text(), b"1\tx\n\\N\ty\n");
    assert_eq!(found, Err(format!("{message} | COPY t, line 2: \"\\N\ty\"")));
    let data = [header(0, b""), row(&[None, None])].concat();
    let found = decode_as(&fields, &CopySource::Binary, &data);
    assert_eq!(found, Err(format!("{message} | COPY t, line 1")));
}

#[test]
fn rows_have_a_limit_however_they_come() {
    let check = |source: CopySource, start: &[u8], byte: u8| {
        let mut decoder = CopyDecoder::new("t", &columns(), source, TimeZone::utc(), 1000);
        decoder.push(start);
        let refused = (0..100).find_map(|_| {
            decoder.push(&[byte; 100]);
            decoder.next_batch().err()
        });
        let error = refused.expect("a limit");
        assert_eq!(error.sqlstate(), "54000", "{error}");
    };
    check(text(), b"1\t", b'x');
    check(csv(), b"1,\"", b'x');
    check(csv(), b"1,\"", b'\n');
    let row = [&header(0, b"")[..], &[0, 2, 0x7f, 0xff, 0xff, 0xff]].concat();
    check(CopySource::Binary, &row, b'x');
    // Of many values no more is kept than of the columns.
    let many = [vec![b'\t'; 999], vec![b'\n']].concat();
    let found = decode_chunks(&columns(), &text(), &[&many]);
    assert!(found.expect_err("too many").starts_with("22P04 extra data"));
}

#[test]
fn batches_are_bounded() {
    let mut decoder = CopyDecoder::new("t", &columns(), text(), TimeZone::utc(), 64 << 20);
    let mut sizes = Vec::new();
    let long = format!("1\t{}\n", "x".repeat(1 << 20));
    for line in ["1\tx\n".repeat(20_000), long.repeat(9)] {
        decoder.push(line.as_bytes());
        while let Some(batch) = decoder.next_batch().expect("good") {
            sizes.push(batch.num_rows());
        }
    }
    decoder.end();
    sizes.extend(decoder.next_batch().expect("good").map(|batch| batch.num_rows()));
    assert_eq!(decoder.next_batch().expect("good"), None);
    assert_eq!(sizes.iter().sum::<usize>(), 20_009);
    assert!(sizes.iter().all(|rows| *rows <= BATCH_ROWS), "{sizes:?}");
    assert!(sizes.len() >= 5, "{sizes:?}");
}

#[test]
fn a_client_that_gives_up_is_told_where() {
    let mut decoder = CopyDecoder::new("t", &columns(), text(), TimeZone::utc(), 1 << 20);
    let fail =
        |decoder: &CopyDecoder| shown_error(&decoder.fail(Fault::Failed("why not".to_owned())));
    let start = "57014 COPY from stdin failed: why not | COPY t, line";
    assert_eq!(fail(&decoder), format!("{start} 1"));
    decoder.push(b"1\tx\n2\ty");
    assert_eq!(decoder.next_batch().expect("good"), None);
    assert_eq!(fail(&decoder), format!("{start} 2"));
}

/// Each type in text, next to what the same text is for a parameter.
#[test]
fn values_are_those_of_parameters() {
    let zone = TimeZone::parse("Europe/Paris").expect("a zone");
    let utc = Some(Arc::from("+00:00"));
    let types = [
        DataType::Boolean,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(15, 2),
        DataType::Decimal128(38, 10),
        DataType::Decimal128(5, 0),
        DataType::Date32,
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(TimeUnit::Microsecond, utc),
        DataType::Timestamp(TimeUnit::Nanosecond, None),
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Binary,
        DataType::LargeBinary,
        DataType::FixedSizeBinary(16),
        DataType::new_list(DataType::Int32, true),
        DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
    ];
    let texts = [
        "t",
        "false",
        "1",
        "yes",
        "0",
        "-1",
        "+5",
        " 7 ",
        "32767",
        "32768",
        "2147483648",
        "-9223372036854775808",
        "9223372036854775807",
        "9223372036854775808",
        "1.5",
        "-1.25",
        ".5",
        "5.",
        ".",
        "-",
        "",
        "1e3",
        "1.005",
        "1.004",
        "99999.5",
        "123456789012345678901.25",
        "NaN",
        "inf",
        "-0.0",
        "1e999",
        "2020-02-29",
        "2021-02-29",
        "0000-01-01",
        "0001-01-01",
        "2020-02-29 12:34:56",
        "2020-02-29T12:34:56.789",
        "2020-02-29 12:34:56.1234567",
        "2020-02-29 12:34:56+00",
        "2020-02-29 12:34:56.5+05:30",
        "2020-07-01 12:00:00",
        "2020-02-29 24:00:00",
        "2020-02-29 25:00:00",
        "12:34:56",
        "23:59:60",
        "24:00:00",
        "12:34",
        "12:34:56.000001",
        "epoch",
        "infinity",
        "20200229",
        "x",
        "\u{e9}t\u{e9}",
        "{1,2,NULL}",
        "1 day",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    ];
    for data_type in types {
        let field = Arc::new(Field::new("c", data_type.clone(), true));
        let pg = crate::values::types::pg_type(&field);
        for text in texts {
            let source = text_with('\u{1}', "\\N", Header::None);
            let fields = std::slice::from_ref(&field);
            let mut decoder = CopyDecoder::new("t", fields, source, zone.clone(), 1 << 20);
            decoder.push(format!("{text}\n\\N\n").as_bytes());
            decoder.end();
            let found = decoder.next_batch();
            let value = text.as_bytes();
            let wanted = super::super::decode_in(&zone, Some(value), Format::Text, &pg, &data_type);
            match (found, wanted) {
                (Ok(Some(batch)), Ok(wanted)) => {
                    assert_eq!(batch.column(0).data_type(), &data_type);
                    let wanted = wanted.to_array_of_size(1).expect("an array");
                    assert_eq!(&batch.column(0).slice(0, 1), &wanted, "{data_type} {text:?}");
                    assert!(batch.column(0).is_null(1));
                }
                (Err(found), Err(wanted)) => {
                    assert_eq!(found.sqlstate(), wanted.sqlstate(), "{data_type} {text:?}");
                    assert_eq!(found.to_string(), wanted.to_string());
                }
                (found, wanted) => panic!("{data_type} {text:?}: {found:?} is not {wanted:?}"),
            }
        }
    }
}

/// What is sent by COPY TO comes back, in all formats.
#[test]
fn what_is_sent_comes_back() {
    use crate::values::encode::{CopyCsv, CopyFormat, RowEncoder, TextStyle};
    use arrow::array::*;
    let numbers = || (0..1000_i64).map(|n| (n % 7 != 0).then_some((n - 300) * 1_234_567_891));
    let texts = ["a\tb", "", "\\N", "\"q\"", "x,y", "\u{e9}\n\r", "NULL", "\\.", " "];
    let texts = || (0..1000).map(|n| (n % 5 != 0).then_some(texts[n % texts.len()]));
    let small = |n: i64| n.rem_euclid(3_000_000);
    let decimals = numbers().map(|n| n.map(i128::from)).collect::<Decimal128Array>();
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("a", Arc::new(numbers().collect::<Int64Array>()) as ArrayRef, true),
        ("b", Arc::new(texts().collect::<StringArray>()), true),
        ("c", Arc::new(decimals.with_precision_and_scale(30, 4).expect("fits")), true),
        (
            "d",
            Arc::new(numbers().map(|n| n.map(|n| small(n) as i32)).collect::<Date32Array>()),
            true,
        ),
        (
            "e",
            Arc::new(numbers().collect::<TimestampMicrosecondArray>().with_timezone("+00:00")),
            true,
        ),
        (
            "f",
            Arc::new(numbers().map(|n| n.map(|n| n as f64 / 7.0)).collect::<Float64Array>()),
            true,
        ),
        ("g", Arc::new(numbers().map(|n| n.map(|n| n & 1 == 0)).collect::<BooleanArray>()), true),
        (
            "h",
            Arc::new(numbers().map(|n| n.map(|n| n.to_be_bytes())).collect::<BinaryArray>()),
            true,
        ),
        ("i", Arc::new(numbers().map(|n| n.map(|n| n as f32)).collect::<Float32Array>()), true),
        ("j", Arc::new(numbers().map(|n| n.map(|n| n as i16)).collect::<Int16Array>()), true),
    ])
    .expect("a batch");
    let schema = batch.schema();
    let copy = CopyCsv {
        delimiter: b',',
        null: "".into(),
        quote: b'"',
        escape: b'"',
        force_quote: Vec::new(),
    };
    let plain = CopyText { delimiter: b'\t', null: "\\N".into() };
    let ways = [
        (CopyFormat::Text(plain), text()),
        (CopyFormat::Csv(copy), csv()),
        (CopyFormat::Binary, CopySource::Binary),
    ];
    for (sent, read) in ways {
        let style = TextStyle {
            time_zone: TimeZone::parse("Europe/Paris").expect("a zone"),
            ..TextStyle::default()
        };
        let mut encoder = RowEncoder::copy(&schema, sent, style).expect("supported");
        let mut messages = bytes::BytesMut::new();
        encoder.encode(&batch, 0..batch.num_rows(), &mut messages).expect("encodes");
        let fields: Vec<_> = schema.fields().iter().cloned().collect();
        let mut decoder = CopyDecoder::new("t", &fields, read, TimeZone::utc(), 1 << 20);
        let mut rest = &messages[..];
        while let [b'd', a, b, c, d, tail @ ..] = rest {
            let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize - 4;
            decoder.push(&tail[..length]);
            rest = &tail[length..];
            assert_eq!(decoder.next_batch().expect("good"), None);
        }
        decoder.end();
        let found = decoder.next_batch().expect("good").expect("a batch");
        assert_eq!(found.num_rows(), batch.num_rows());
        for (found, sent) in found.columns().iter().zip(batch.columns()) {
            assert_eq!(found, sent);
        }
        assert_eq!(found.column(1).null_count(), 200);
    }
}

/// Mutations of valid data, cut anywhere: rows or an error, and the same whatever the cuts.
#[test]
fn no_bytes_make_it_panic() {
    let seeds: [(&[u8], CopySource); 3] = [
        (b"1\ta\\tb\\x41\\101\n\\N\t\\\\N\r\n2\tx\\.\n\\.\n", text()),
        (b"1,\"a\"\"b\"\n,\"x\ny\"\r\n2,\\.\n\\.\n", csv()),
        (
            &[header(0, b"ab"), row(&[Some(&[0, 0, 0, 1]), Some(b"x")]), row(&[None, None])]
                .concat(),
            CopySource::Binary,
        ),
    ];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    };
    for round in 0..60_000 {
        let (seed, source) = &seeds[round % seeds.len()];
        let mut data = seed.to_vec();
        for _ in 0..random(5) {
            let at = random(data.len() + 1);
            match random(4) {
                0 => data.insert(at, b"\t\\,\"\r\n.Nx1\0\xff\xc3"[random(13)]),
                1 if at < data.len() => drop(data.remove(at)),
                2 if at < data.len() => data[at] = random(256) as u8,
                _ => data.truncate(at),
            }
        }
        let whole = decode_chunks(&columns(), source, &[&data]);
        let chunks: Vec<_> = data.chunks(1 + random(7)).collect();
        let cut = decode_chunks(&columns(), source, &chunks);
        let code =
            |outcome: &Outcome| outcome.as_ref().map_err(|text| text[..5].to_owned()).cloned();
        assert_eq!(code(&cut), code(&whole), "{}", data.escape_ascii());
    }
}
