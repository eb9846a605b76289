//! The proleptic Gregorian calendar, PostgreSQL's and Arrow's epochs, and PostgreSQL's limits.

/// Days from 0000-03-01, where the algorithm's years begin, to 1970-01-01.
const DAYS_TO_UNIX: i64 = 719_468;

/// Days in the calendar's period of 400 years.
const ERA_DAYS: i64 = 146_097;

/// Days from PostgreSQL's epoch 2000-01-01 back to Arrow's 1970-01-01.
pub(crate) const POSTGRES_EPOCH_DAYS: i32 = 10_957;

/// The same in microseconds.
pub(crate) const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

pub(crate) const DAY_MICROS: i64 = 86_400_000_000;

pub(crate) const DAY_SECONDS: i64 = 86_400;

/// The days since 1970 that PostgreSQL's `date` holds: 4714-11-24 BC to 5874897-12-31
/// (`IS_VALID_DATE`).
pub(crate) const DATE_RANGE: std::ops::Range<i32> = -2_440_588..2_145_042_906;

/// The first microsecond since 1970 that PostgreSQL's `timestamp` holds, 4714-11-24 BC
/// (`IS_VALID_TIMESTAMP`). Its last is beyond what 64 bits hold with Arrow's epoch.
pub(crate) const TIMESTAMP_MIN: i64 = -210_866_803_200_000_000;

/// A day. Year 0 is 1 BC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Day {
    pub year: i32,
    pub month: u32,
    pub day: u32,
}

/// The day that is `days` after 1970-01-01, for any date or timestamp PostgreSQL can hold.
///
/// After Neri and Schneider, "Euclidean affine functions and their application to calendar
/// algorithms" (2022).
#[inline(always)]
pub(crate) fn day(days: i64) -> Day {
    let shifted = days + DAYS_TO_UNIX;
    let (eras, shifted) = match shifted {
        0..0x3fff_ffff => (0, shifted as u32),
        _ => (shifted.div_euclid(ERA_DAYS), shifted.rem_euclid(ERA_DAYS) as u32),
    };
    let quarter_days = 4 * shifted + 3;
    let century = quarter_days / 146_097;
    let century_quarters = (quarter_days % 146_097) | 3;
    let product = 2_939_745 * u64::from(century_quarters);
    let year_of_century = (product >> 32) as u32;
    let day_of_year = (product as u32) / 2_939_745 / 4;
    let months = 2141 * day_of_year + 197_913;
    let (month, day) = (months >> 16, (months & 0xffff) / 2141 + 1);
    // The algorithm's years begin in March.
    let next = u32::from(day_of_year >= 306);
    let year = (100 * century + year_of_century + next) as i32 + 400 * eras as i32;
    Day { year, month: month - 12 * next, day }
}

/// Days from 1970-01-01 to the day; `None` if there is no such day. Any year in PostgreSQL's range.
pub(crate) fn days(day: Day) -> Option<i64> {
    if !(1..=12).contains(&day.month) || day.day == 0 || day.day > month_days(day.year, day.month) {
        return None;
    }
    let year = i64::from(day.year) - i64::from(day.month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month = i64::from((day.month + 9) % 12);
    let day_of_year = (153 * month + 2) / 5 + i64::from(day.day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * ERA_DAYS + day_of_era - DAYS_TO_UNIX)
}

fn month_days(year: i32, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

pub(crate) fn is_leap(year: i32) -> bool {
    year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        let cases = [
            (0, 1970, 1, 1),
            (-1, 1969, 12, 31),
            (i64::from(POSTGRES_EPOCH_DAYS), 2000, 1, 1),
            (11_016, 2000, 2, 29),
            (-719_162, 1, 1, 1),
            (-719_163, 0, 12, 31),
            (i64::from(DATE_RANGE.start), -4713, 11, 24),
            (i64::from(DATE_RANGE.end), 5_874_898, 1, 1),
        ];
        for (n, year, month, day_of_month) in cases {
            let expected = Day { year, month, day: day_of_month };
            assert_eq!(day(n), expected);
            assert_eq!(days(expected), Some(n));
        }
    }

    #[test]
    fn there_and_back() {
        let near = -800_000..800_000_i64;
        let far = (i64::from(i32::MIN)..i64::from(i32::MAX)).step_by(7_654_321);
        for n in near.chain(far) {
            assert_eq!(days(day(n)), Some(n));
        }
    }

    #[test]
    fn no_such_day() {
        for (year, month, day) in [(2023, 2, 29), (1900, 2, 29), (2024, 13, 1), (2024, 4, 31)] {
            assert_eq!(days(Day { year, month, day }), None);
        }
    }
}
