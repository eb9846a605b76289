//! Types with a number of digits behind the second's point, or with fields of an interval: the engine has
//! the types alone, and a function does the rest.

use sqlparser::ast::{
    ArrayElemTypeDef, DataType, DateTimeField, Expr, Ident, Interval, IntervalFields, ObjectName,
    Values,
};

use super::build::{as_text, call, cast, function_name, number, take, text};

/// The most digits that there are (`MAX_TIMESTAMP_PRECISION` of PostgreSQL).
const MOST: u64 = crate::values::types::MAX_PRECISION as u64;

/// A value of a type that says how exact it is.
pub fn rewrite(expr: &mut Expr) {
    if let Expr::Cast { expr: value, data_type: DataType::Interval { fields, .. }, .. } = expr
        && let Some(fields) = fields
        && let Some(literal) = as_text(value)
    {
        **value = text(&with_unit(literal, fields));
    }
    let (Expr::Cast { data_type, .. }
    | Expr::TypedString(sqlparser::ast::TypedString { data_type, .. })) = &*expr
    else {
        return;
    };
    if let Some((digits, least)) = exactness(data_type) {
        let mut args = vec![take(expr), number(digits)];
        args.extend(least.map(text));
        *expr = call(NAME, args);
    }
}

/// What says of a value how exact it is.
const NAME: &str = "with_precision";

/// The values of a list, of which some may be more exact than others, without what says so.
pub fn of_values(values: &mut Values) {
    for value in values.rows.iter_mut().flat_map(|row| &mut row.content) {
        if let Expr::Function(function) = value
            && function_name(function).is_some_and(|name| name == NAME)
        {
            function.name = ObjectName::from(vec![Ident::new("rounded_to_precision")]);
        }
    }
}

/// How many digits of a second a type has, and the least field of an interval; `None` if it has all.
fn exactness(data_type: &DataType) -> Option<(u64, Option<&'static str>)> {
    match data_type {
        DataType::Timestamp(Some(digits), _) | DataType::Time(Some(digits), _) => {
            (*digits < MOST).then_some((*digits, None))
        }
        DataType::Interval { fields, precision } => {
            let least = fields.as_ref().and_then(least);
            let digits = precision.unwrap_or(MOST).min(MOST);
            (digits < MOST || least.is_some()).then_some((digits, least))
        }
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) => exactness(element),
        _ => None,
    }
}

/// What is least in an interval of these fields; `None` for seconds.
fn least(fields: &IntervalFields) -> Option<&'static str> {
    use IntervalFields as F;
    Some(match fields {
        F::Year => "year",
        F::Month | F::YearToMonth => "month",
        F::Day => "day",
        F::Hour | F::DayToHour => "hour",
        F::Minute | F::DayToMinute | F::HourToMinute => "minute",
        F::Second | F::DayToSecond | F::HourToSecond | F::MinuteToSecond => return None,
    })
}

/// A literal of an interval with fields behind it, as a cast to that type.
pub fn interval(expr: &mut Expr) {
    let Expr::Interval(interval) = &*expr else { return };
    let (Some(fields), Some(literal)) = (fields(interval), as_text(&interval.value)) else {
        return;
    };
    // The engine knows `'90' DAY`, of which there is nothing to be cut off.
    let whole = literal.chars().all(|c| c.is_ascii_digit());
    if whole && interval.last_field.is_none() && interval.leading_precision.is_none() {
        return;
    }
    let precision = match interval.leading_field {
        Some(DateTimeField::Second) => interval.leading_precision,
        _ => interval.fractional_seconds_precision,
    };
    *expr = cast(text(literal), DataType::Interval { fields: Some(fields), precision });
    rewrite(expr);
}

/// The fields that PostgreSQL has.
fn fields(interval: &Interval) -> Option<IntervalFields> {
    use DateTimeField as D;
    use IntervalFields as F;
    Some(match (interval.leading_field.as_ref()?, &interval.last_field) {
        (D::Year, None) => F::Year,
        (D::Month, None) => F::Month,
        (D::Day, None) => F::Day,
        (D::Hour, None) => F::Hour,
        (D::Minute, None) => F::Minute,
        (D::Second, None) => F::Second,
        (D::Year, Some(D::Month)) => F::YearToMonth,
        (D::Day, Some(D::Hour)) => F::DayToHour,
        (D::Day, Some(D::Minute)) => F::DayToMinute,
        (D::Day, Some(D::Second)) => F::DayToSecond,
        (D::Hour, Some(D::Minute)) => F::HourToMinute,
        (D::Hour, Some(D::Second)) => F::HourToSecond,
        (D::Minute, Some(D::Second)) => F::MinuteToSecond,
        _ => return None,
    })
}

/// The last number of an interval's text has the least field for its unit where it has none of its own, and
/// a time of two numbers is one of minutes and seconds if these are the fields (`DecodeInterval` and
/// `DecodeTime` of PostgreSQL 15).
fn with_unit(literal: &str, fields: &IntervalFields) -> String {
    let trimmed = literal.trim();
    let last = trimmed.rsplit(char::is_whitespace).next().unwrap_or_default();
    let digits = last.trim_start_matches(['+', '-']);
    if *fields == IntervalFields::MinuteToSecond && digits.matches(':').count() == 1 {
        let (before, sign) =
            (&trimmed[..trimmed.len() - last.len()], &last[..last.len() - digits.len()]);
        return format!("{before}{sign}00:{digits}");
    }
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    match least(fields) {
        Some(unit) if is_number => format!("{trimmed} {unit}"),
        _ => literal.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against PostgreSQL 15.
    #[test]
    fn numbers_without_a_unit_have_that_of_the_least_field() {
        use IntervalFields as F;
        for (literal, fields, said) in [
            ("10", F::Minute, "10 minute"),
            ("1-2", F::YearToMonth, "1-2"),
            ("1 day 10", F::DayToHour, "1 day 10 hour"),
            ("-1:30", F::MinuteToSecond, "-00:1:30"),
            ("1 day 2:03", F::MinuteToSecond, "1 day 00:2:03"),
            ("1:02:03", F::MinuteToSecond, "1:02:03"),
            ("1.5", F::Second, "1.5"),
            ("2 weeks", F::Day, "2 weeks"),
        ] {
            assert_eq!(with_unit(literal, &fields), said, "{literal}");
        }
    }
}
