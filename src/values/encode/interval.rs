//! `interval`: months, days and microseconds, which Arrow has in three shapes and as a duration.

use arrow::array::ArrayRef;
use arrow::datatypes::*;

use super::column::{ValueWriter, each, mismatch};
use super::datetime::put_fraction;
use super::digits::{pair, signed, unsigned};
use super::sink::Sink;
use super::{Error, Format, Result};

/// An interval as PostgreSQL keeps it; the parts have their own signs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Interval {
    months: i32,
    days: i32,
    micros: i64,
}

/// The writer of an interval or duration array.
pub(super) fn writer(array: &ArrayRef, format: Format) -> Result<Box<dyn ValueWriter>> {
    match array.data_type() {
        DataType::Interval(IntervalUnit::YearMonth) => {
            of::<IntervalYearMonthType>(array, format, |months| {
                Ok(Interval { months, ..Interval::default() })
            })
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            of::<IntervalDayTimeType>(array, format, |n| {
                let micros = i64::from(n.milliseconds) * 1000;
                Ok(Interval { months: 0, days: n.days, micros })
            })
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            of::<IntervalMonthDayNanoType>(array, format, |n| {
                Ok(Interval { months: n.months, days: n.days, micros: n.nanoseconds / 1000 })
            })
        }
        DataType::Duration(TimeUnit::Second) => {
            of::<DurationSecondType>(array, format, |n| duration(n, 1_000_000))
        }
        DataType::Duration(TimeUnit::Millisecond) => {
            of::<DurationMillisecondType>(array, format, |n| duration(n, 1000))
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            of::<DurationMicrosecondType>(array, format, |n| duration(n, 1))
        }
        DataType::Duration(TimeUnit::Nanosecond) => {
            of::<DurationNanosecondType>(array, format, |n| duration(n / 1000, 1))
        }
        _ => Err(mismatch(array)),
    }
}

fn of<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    format: Format,
    read: impl Fn(T::Native) -> Result<Interval> + 'static,
) -> Result<Box<dyn ValueWriter>> {
    match format {
        Format::Text => each::<T, _>(array, move |n, out| {
            put(read(n)?, out);
            Ok(())
        }),
        Format::Binary => each::<T, _>(array, move |n, out| {
            let Interval { months, days, micros } = read(n)?;
            out.put_array(micros.to_be_bytes());
            out.put_i32(days);
            out.put_i32(months);
            Ok(())
        }),
    }
}

/// Full days are days, as in the difference of two timestamps (`timestamp_mi`).
fn duration(value: i64, factor: i64) -> Result<Interval> {
    const DAY: i64 = 86_400_000_000;
    let micros = value.checked_mul(factor).ok_or(Error::OutOfRange { pg: "interval", value })?;
    // The longest duration is 106 751 992 days.
    Ok(Interval { months: 0, days: (micros / DAY) as i32, micros: micros % DAY })
}

/// `IntervalStyle` postgres, as `EncodeInterval` writes it.
fn put(interval: Interval, out: &mut Sink) {
    let Interval { months, days, micros } = interval;
    let mut first = true;
    let mut after_negative = false;
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value == 0 {
            continue;
        }
        let sign: &[u8] = if after_negative && value > 0 { b"+" } else { b"" };
        out.put(if first { b"" } else { b" " });
        out.put(sign);
        let len = signed(value.into(), out.room());
        out.advance(len);
        out.put(b" ");
        out.put(unit.as_bytes());
        out.put(if value == 1 { b"" } else { b"s" });
        after_negative = value < 0;
        first = false;
    }
    if micros == 0 && !first {
        return;
    }
    out.put(if first { b"" } else { b" " });
    if micros < 0 {
        out.put(b"-");
    } else if after_negative {
        out.put(b"+");
    }
    put_hours(micros.unsigned_abs(), out);
}

/// Hours have two digits or as many as it takes.
fn put_hours(micros: u64, out: &mut Sink) {
    let (seconds, fraction) = (micros / 1_000_000, (micros % 1_000_000) as u32);
    let room = out.room::<48>();
    let end = match seconds / 3600 {
        hours @ 0..100 => {
            room[..2].copy_from_slice(&pair(hours as u32));
            2
        }
        hours => unsigned(hours, room, 0),
    };
    let [m0, m1] = pair((seconds / 60 % 60) as u32);
    let [s0, s1] = pair((seconds % 60) as u32);
    room[end..end + 6].copy_from_slice(&[b':', m0, m1, b':', s0, s1]);
    let end = put_fraction(fraction, room, end + 6);
    out.advance(end);
}
