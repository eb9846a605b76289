//! SQL's patterns in the notation that the engine reads.

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
