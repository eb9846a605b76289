//! Dates, times and timestamps. PostgreSQL has microseconds; nanoseconds are rounded down.

use arrow::array::ArrayRef;
use arrow::datatypes::*;

use super::calendar::{DATE_RANGE, DAY_MICROS, DAY_SECONDS, Day, day};
use super::calendar::{POSTGRES_EPOCH_DAYS, POSTGRES_EPOCH_MICROS, TIMESTAMP_MIN};
use super::column::{ValueWriter, each, fixed, mismatch};
use super::digits::{pair, unsigned};
use super::sink::Sink;
use super::zone::{Offsets, TimeZone};
use super::{Error, Result, TextStyle};

/// Room for the longest date, timestamp or time.
const ROOM: usize = 64;

/// How times are shown.
pub(super) struct Clock {
    zone: TimeZone,
    form: Form,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// PostgreSQL's own (`USE_ISO_DATES`).
    Iso,
    /// As JSON wants them (`USE_XSD_DATES`): a 'T' in the middle, minutes in every offset.
    Xsd,
    /// The same, with 'Z' for no offset.
    Rfc,
}

impl Clock {
    pub(super) fn new(style: &TextStyle, xsd: bool) -> Self {
        let form = match (xsd, style.json_z) {
            (false, _) => Form::Iso,
            (true, false) => Form::Xsd,
            (true, true) => Form::Rfc,
        };
        Self { zone: style.time_zone.clone(), form }
    }
}

/// The text writer of a date, time or timestamp array.
pub(super) fn text(array: &ArrayRef, clock: &Clock) -> Result<Box<dyn ValueWriter>> {
    use DataType::*;
    match array.data_type() {
        Date32 => each::<Date32Type, _>(array, |days, out| put_date(days.into(), out)),
        Date64 => each::<Date64Type, _>(array, |ms, out| put_date(whole_days(ms), out)),
        Time32(TimeUnit::Second) => {
            each::<Time32SecondType, _>(array, |n, out| put_time(i64::from(n) * 1_000_000, out))
        }
        Time32(_) => {
            each::<Time32MillisecondType, _>(array, |n, out| put_time(i64::from(n) * 1000, out))
        }
        Time64(TimeUnit::Nanosecond) => {
            each::<Time64NanosecondType, _>(array, |n, out| put_time(n.div_euclid(1000), out))
        }
        Time64(_) => each::<Time64MicrosecondType, _>(array, put_time),
        Timestamp(TimeUnit::Second, _) => timestamp::<TimestampSecondType>(array, clock),
        Timestamp(TimeUnit::Millisecond, _) => timestamp::<TimestampMillisecondType>(array, clock),
        Timestamp(TimeUnit::Microsecond, _) => timestamp::<TimestampMicrosecondType>(array, clock),
        Timestamp(TimeUnit::Nanosecond, _) => timestamp::<TimestampNanosecondType>(array, clock),
        _ => Err(mismatch(array)),
    }
}

fn timestamp<T: ArrowTimestampType>(
    array: &ArrayRef,
    clock: &Clock,
) -> Result<Box<dyn ValueWriter>> {
    let form = clock.form;
    if matches!(array.data_type(), DataType::Timestamp(_, None)) {
        return each::<T, _>(array, move |n, out| put_timestamp(micros(T::UNIT, n)?, form, out));
    }
    let offsets = Offsets::new(&clock.zone);
    each::<T, _>(array, move |n, out| put_timestamptz(micros(T::UNIT, n)?, &offsets, form, out))
}

/// The binary writer of a date, time or timestamp array.
pub(super) fn binary(array: &ArrayRef) -> Result<Box<dyn ValueWriter>> {
    use DataType::*;
    match array.data_type() {
        Date32 => each::<Date32Type, _>(array, |days, out| send_date(days.into(), out)),
        Date64 => each::<Date64Type, _>(array, |ms, out| send_date(whole_days(ms), out)),
        Time32(TimeUnit::Second) => {
            each::<Time32SecondType, _>(array, |n, out| send_time(i64::from(n) * 1_000_000, out))
        }
        Time32(_) => {
            each::<Time32MillisecondType, _>(array, |n, out| send_time(i64::from(n) * 1000, out))
        }
        Time64(TimeUnit::Nanosecond) => {
            each::<Time64NanosecondType, _>(array, |n, out| send_time(n.div_euclid(1000), out))
        }
        Time64(_) => each::<Time64MicrosecondType, _>(array, send_time),
        Timestamp(TimeUnit::Second, _) => send_timestamps::<TimestampSecondType>(array),
        Timestamp(TimeUnit::Millisecond, _) => send_timestamps::<TimestampMillisecondType>(array),
        Timestamp(TimeUnit::Microsecond, _) => send_timestamps::<TimestampMicrosecondType>(array),
        Timestamp(TimeUnit::Nanosecond, _) => send_timestamps::<TimestampNanosecondType>(array),
        _ => Err(mismatch(array)),
    }
}

fn send_timestamps<T: ArrowTimestampType>(array: &ArrayRef) -> Result<Box<dyn ValueWriter>> {
    each::<T, _>(array, |n, out| {
        let micros = valid_timestamp(micros(T::UNIT, n)?)?;
        fixed((micros - POSTGRES_EPOCH_MICROS).to_be_bytes(), out)
    })
}

fn send_date(days: i64, out: &mut Sink) -> Result<()> {
    fixed((valid_date(days)? - POSTGRES_EPOCH_DAYS).to_be_bytes(), out)
}

fn send_time(micros: i64, out: &mut Sink) -> Result<()> {
    fixed(valid_time(micros)?.to_be_bytes(), out)
}

fn whole_days(millis: i64) -> i64 {
    millis.div_euclid(DAY_MICROS / 1000)
}

#[inline(always)]
fn micros(unit: TimeUnit, value: i64) -> Result<i64> {
    let factor = match unit {
        TimeUnit::Second => 1_000_000,
        TimeUnit::Millisecond => 1000,
        TimeUnit::Microsecond => 1,
        TimeUnit::Nanosecond => return Ok(value.div_euclid(1000)),
    };
    value.checked_mul(factor).ok_or(Error::OutOfRange { pg: "timestamp", value })
}

#[inline(always)]
fn valid_date(value: i64) -> Result<i32> {
    match i32::try_from(value) {
        Ok(days) if DATE_RANGE.contains(&days) => Ok(days),
        _ => Err(Error::OutOfRange { pg: "date", value }),
    }
}

/// A day has at most 24:00:00.
#[inline(always)]
fn valid_time(value: i64) -> Result<i64> {
    match value {
        0..=DAY_MICROS => Ok(value),
        _ => Err(Error::OutOfRange { pg: "time", value }),
    }
}

#[inline(always)]
fn valid_timestamp(value: i64) -> Result<i64> {
    match value {
        TIMESTAMP_MIN.. => Ok(value),
        _ => Err(Error::OutOfRange { pg: "timestamp", value }),
    }
}

#[inline(always)]
pub(super) fn put_date(days: i64, out: &mut Sink) -> Result<()> {
    let day = day(valid_date(days)?.into());
    let room = out.room::<ROOM>();
    let end = put_day(day, room);
    let end = put_era(day, room, end);
    out.advance(end);
    Ok(())
}

#[inline(always)]
fn put_time(micros: i64, out: &mut Sink) -> Result<()> {
    let micros = valid_time(micros)?;
    let end = put_clock(micros as u64, out.room(), 0);
    out.advance(end);
    Ok(())
}

#[inline(always)]
fn put_timestamp(micros: i64, form: Form, out: &mut Sink) -> Result<()> {
    let micros = valid_timestamp(micros)?;
    let room = out.room::<ROOM>();
    let (day, end) = put_moment(micros, form, room);
    let end = put_era(day, room, end);
    out.advance(end);
    Ok(())
}

#[inline(always)]
fn put_timestamptz(micros: i64, offsets: &Offsets, form: Form, out: &mut Sink) -> Result<()> {
    let micros = valid_timestamp(micros)?;
    let offset = offsets.at(micros.div_euclid(1_000_000));
    let local = micros
        .checked_add(i64::from(offset) * 1_000_000)
        .ok_or(Error::OutOfRange { pg: "timestamp", value: micros })?;
    let room = out.room::<ROOM>();
    let (day, end) = put_moment(local, form, room);
    let end = put_offset(offset, form, room, end);
    let end = put_era(day, room, end);
    out.advance(end);
    Ok(())
}

#[inline(always)]
fn put_moment(micros: i64, form: Form, room: &mut [u8; ROOM]) -> (Day, usize) {
    let day = day(micros.div_euclid(DAY_MICROS));
    let end = put_day(day, room);
    room[end] = if form == Form::Iso { b' ' } else { b'T' };
    (day, put_clock(micros.rem_euclid(DAY_MICROS) as u64, room, end + 1))
}

/// `YYYY-MM-DD`, the year with more digits if it has them; without "BC".
#[inline(always)]
fn put_day(day: Day, room: &mut [u8; ROOM]) -> usize {
    let end = match day.year {
        1..=9999 => {
            let year = day.year as u32;
            room[0..2].copy_from_slice(&pair(year / 100));
            room[2..4].copy_from_slice(&pair(year % 100));
            4
        }
        _ => put_far_year(day.year, room),
    };
    room[end] = b'-';
    room[end + 1..end + 3].copy_from_slice(&pair(day.month));
    room[end + 3] = b'-';
    room[end + 4..end + 6].copy_from_slice(&pair(day.day));
    end + 6
}

#[cold]
fn put_far_year(year: i32, room: &mut [u8; ROOM]) -> usize {
    let year = if year > 0 { year.unsigned_abs() } else { year.unsigned_abs() + 1 };
    room[..4].fill(b'0');
    let digits = if year < 10 { 1 } else { year.ilog10() as usize + 1 };
    unsigned(year.into(), room, 4_usize.saturating_sub(digits))
}

#[inline(always)]
fn put_era(day: Day, room: &mut [u8; ROOM], end: usize) -> usize {
    if day.year > 0 {
        return end;
    }
    room[end..end + 3].copy_from_slice(b" BC");
    end + 3
}

/// `HH:MM:SS`, and the fraction without zeros at its end.
#[inline(always)]
fn put_clock(micros: u64, room: &mut [u8; ROOM], at: usize) -> usize {
    let (seconds, fraction) = ((micros / 1_000_000) as u32, (micros % 1_000_000) as u32);
    let [h0, h1] = pair(seconds / 3600);
    let [m0, m1] = pair(seconds / 60 % 60);
    let [s0, s1] = pair(seconds % 60);
    room[at..at + 8].copy_from_slice(&[h0, h1, b':', m0, m1, b':', s0, s1]);
    put_fraction(fraction, room, at + 8)
}

/// Nothing for zero, else a point and up to six digits.
#[inline(always)]
pub(super) fn put_fraction<const N: usize>(micros: u32, room: &mut [u8; N], at: usize) -> usize {
    if micros == 0 {
        return at;
    }
    let [a, b] = pair(micros / 10_000);
    let [c, d] = pair(micros / 100 % 100);
    let [e, f] = pair(micros % 100);
    room[at..at + 7].copy_from_slice(&[b'.', a, b, c, d, e, f]);
    let mut end = at + 7;
    while room[end - 1] == b'0' {
        end -= 1;
    }
    end
}

/// `+HH`, with minutes and seconds if there are any (or minutes always, for JSON).
#[inline(always)]
fn put_offset(offset: i32, form: Form, room: &mut [u8; ROOM], at: usize) -> usize {
    if form == Form::Rfc && offset == 0 {
        room[at] = b'Z';
        return at + 1;
    }
    room[at] = if offset < 0 { b'-' } else { b'+' };
    let seconds = offset.unsigned_abs();
    let mut end = at + 1;
    let hours = i64::from(seconds) / (DAY_SECONDS / 24);
    if hours < 100 {
        room[end..end + 2].copy_from_slice(&pair(hours as u32));
        end += 2;
    } else {
        end = unsigned(hours as u64, room, end);
    }
    if form != Form::Iso || !seconds.is_multiple_of(3600) {
        room[end] = b':';
        room[end + 1..end + 3].copy_from_slice(&pair(seconds / 60 % 60));
        end += 3;
    }
    if !seconds.is_multiple_of(60) {
        room[end] = b':';
        room[end + 1..end + 3].copy_from_slice(&pair(seconds % 60));
        end += 3;
    }
    end
}
