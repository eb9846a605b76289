//! Patterns of PostgreSQL's in the notations that the engine reads.

/// PostgreSQL's template patterns for dates and times, and what they are for the engine (the
/// formats of the crate `chrono`). Longer ones first.
const DATE_PATTERNS: &[(&str, &str)] = &[
    ("YYYY", "%Y"),
    ("IYYY", "%G"),
    ("Month", "%B"),
    ("HH24", "%H"),
    ("HH12", "%I"),
    ("DDD", "%j"),
    ("Day", "%A"),
    ("Mon", "%b"),
    ("YY", "%y"),
    ("MM", "%m"),
    ("DD", "%d"),
    ("Dy", "%a"),
    ("HH", "%I"),
    ("MI", "%M"),
    ("SS", "%S"),
    ("MS", "%3f"),
    ("US", "%6f"),
    ("AM", "%p"),
    ("PM", "%p"),
    ("am", "%P"),
    ("pm", "%P"),
    ("IW", "%V"),
    ("TZ", "%Z"),
];

/// A template of PostgreSQL's as the engine's; `None` for one that it cannot express, or that is
/// the engine's own.
pub fn date_pattern(template: &str) -> Option<String> {
    let mut result = String::new();
    let mut rest = template;
    while let Some(c) = rest.chars().next() {
        if let Some((pattern, format)) = DATE_PATTERNS.iter().find(|(p, _)| rest.starts_with(p)) {
            result.push_str(format);
            rest = &rest[pattern.len()..];
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let (literal, behind) = quoted.split_once('"')?;
            result.push_str(literal);
            rest = behind;
        } else if c.is_alphanumeric() || c == '%' {
            return None;
        } else {
            result.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    Some(result)
}

/// SQL's pattern, which matches the whole text, as a regular expression.
pub fn regular_expression(pattern: &str, escape: Option<char>) -> String {
    let mut result = "^(?:".to_owned();
    let mut chars = pattern.chars();
    let mut in_brackets = false;
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => {
                if let Some(next) = chars.next() {
                    if !next.is_alphanumeric() {
                        result.push('\\');
                    }
                    result.push(next);
                }
            }
            '[' | ']' => {
                in_brackets = c == '[';
                result.push(c);
            }
            '%' if !in_brackets => result.push_str("(?s:.*)"),
            '_' if !in_brackets => result.push_str("(?s:.)"),
            '.' | '^' | '$' | '\\' if !in_brackets => result.extend(['\\', c]),
            c => result.push(c),
        }
    }
    result + ")$"
}
