//! Against `to_char`, `to_date`, `to_timestamp` and `to_number` of PostgreSQL 15.

use super::*;

fn written(micros: i64, template: &str) -> String {
    let zone = Zone { abbreviation: "CET".to_owned(), offset: 3600 };
    let mut text = String::new();
    let template = MomentTemplate::parse(template).expect("it is short");
    Moment::at(micros, Some(zone)).write(&template, &mut text).expect("a moment has all fields");
    text
}

fn number(digits: &str, template: &str) -> String {
    let mut text = String::new();
    let template = NumberTemplate::parse(template).expect(template);
    template.write(Number::Exact(digits), &mut text).expect("it is written");
    text
}

#[test]
fn moments_have_all_fields() {
    // 2024-03-05 14:07:09.123456
    let micros = 1_709_647_629_123_456;
    for (template, expected) in [
        (
            "WW IW IYYY J D ID DDD CC AD BC A.D. am P.M. RM rm",
            "10 10 2024 2460375 3 2 065 21 AD AD A.D. pm P.M. III  iii ",
        ),
        ("FMMonth DDth, YYYY", "March 05th, 2024"),
        (
            "Month MONTH month Day DAY day|",
            "March     MARCH     march     Tuesday   TUESDAY   tuesday  |",
        ),
        ("SSSS SSSSS MS US FF1 Q Y,YYY IDDD", "50829 50829 123 123456 1 1 2,024 065"),
        ("TZ tz OF TZH:TZM", "CET cet +01 +01:00"),
        ("\"year\" YYYY \\\"x\\\"", "year 2024 \"x\""),
        ("HH12:MI:SS AM FMHH12", "02:07:09 PM 2"),
    ] {
        assert_eq!(written(micros, template), expected, "{template}");
    }
}

#[test]
fn numbers_have_all_forms() {
    for (digits, template, expected) in [
        ("125", "999", " 125"),
        ("-125.8", "999D99S", "125.80-"),
        ("485", "RN", "        CDLXXXV"),
        ("12345678", "FM9,999,999,999", "12,345,678"),
        ("0.1", "0.9", " 0.1"),
        ("-0.1", "99.99", "  -.10"),
        ("0.1", "FM9.99", ".1"),
        ("1234", "99", " ##"),
        ("485", "999th", " 485th"),
        ("-485", "999PR", "<485>"),
        ("12", "99V999", " 12000"),
        ("0.0004859", "9.99EEEE", " 4.86e-04"),
        ("1485", "9G999", " 1,485"),
        ("12", "SG999", "+ 12"),
    ] {
        assert_eq!(number(digits, template), expected, "{template}");
    }
}

#[test]
fn days_are_written_as_far_as_moments_go() {
    let zone = || Zone { abbreviation: "CET".to_owned(), offset: 3600 };
    let template = MomentTemplate::parse("YYYY-MM-DD HH24 TZ").expect("it is short");
    // The first day beyond the microseconds of 64 bits since 1970, and the last of all.
    for (date, expected) in [
        (0, "1970-01-01 00 CET"),
        (106_751_992, "294247-01-11 00 CET"),
        (106_762_939, "294276-12-31 00 CET"),
    ] {
        let mut text = String::new();
        let moment = Moment::of_date(date, zone()).expect(expected);
        moment.write(&template, &mut text).expect("a moment has all fields");
        assert_eq!(text, expected);
    }
    for date in [106_762_940, i32::MAX] {
        let error = Moment::of_date(date, zone()).expect_err("it is beyond");
        assert_eq!(error.sqlstate(), "22008");
    }
}

#[test]
fn long_templates_are_refused() {
    let long = format!("9.{}EEEE", "9".repeat(70_000));
    let error = NumberTemplate::parse(&long).expect_err("it is long");
    assert_eq!(error.sqlstate(), "54000");
    let error = MomentTemplate::parse(&long).expect_err("it is long");
    assert_eq!(error.sqlstate(), "54000");
    // The longest one is written, with as many places as it has.
    let longest = format!("9.{}EEEE", "9".repeat(LONGEST - 6));
    let mut text = String::new();
    let template = NumberTemplate::parse(&longest).expect("it is as long as it may be");
    template.write(Number::Float8(1.5), &mut text).expect("it is written");
    assert_eq!(text, format!(" 1.5{}e+00", "0".repeat(LONGEST - 7)));
}

#[test]
fn texts_are_read() {
    let read = |text: &str, template: &str| MomentTemplate::parse(template)?.read(text);
    let date = |text, template| read(text, template).map(|read| read.date);
    assert_eq!(date("05 Dec 2000", "DD Mon YYYY"), Ok(11_296));
    assert_eq!(date("2000-340", "YYYY-DDD"), Ok(11_296));
    assert_eq!(date("2451884", "J"), Ok(11_296));
    assert_eq!(date("2016 366", "YYYY DDD"), Ok(17_166));
    // What goes beyond a month that is given is counted within it.
    assert_eq!(date("2015 03 366", "YYYY MM DDD"), Ok(16_495));
    assert_eq!(date("2000-49-2", "IYYY-IW-ID"), Ok(11_296));
    assert_eq!(read("14:07 -05", "HH24:MI TZH").map(|read| read.offset), Ok(Some(-18_000)));
    for (text, template, sqlstate) in [
        ("2000-13-01", "YYYY-MM-DD", "22008"),
        ("2015 366", "YYYY DDD", "22008"),
        ("x", "YYYY", "22007"),
        ("13 PM", "HH12 PM", "22007"),
        ("2000-1", "YYYY-IW", "22007"),
        ("CET", "TZ", "0A000"),
    ] {
        let error = read(text, template).expect_err(template);
        assert_eq!(error.sqlstate(), sqlstate, "{template}: {error}");
    }
    for (text, template, expected) in
        [("12,454.8-", "99G999D9S", "-12454.8"), ("<5>", "9PR", "-5"), ("$12", "L99", "12")]
    {
        let template = NumberTemplate::parse(template).expect(template);
        assert_eq!(template.read(text).as_deref(), Ok(expected));
    }
}
