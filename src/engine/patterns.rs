//! Regular expressions that are none: the engine draws what is wrong with them, on several lines.

use std::error::Error;

/// What is wrong, in one line, as PostgreSQL says it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    #[error("invalid regular expression: {0}")]
    Pattern(String),
    #[error("invalid regular expression option: \"{0}\"")]
    Option(char),
}

impl BadPattern {
    /// What an error of the engine's libraries says of a pattern; `None` if it is about another
    /// thing.
    pub fn of(error: &(dyn Error + Send + Sync + 'static)) -> Option<Self> {
        let is = error.is::<regex::Error>() || error.is::<regex_syntax::Error>();
        is.then(|| Self::read(&error.to_string()))
    }

    /// The same of what the engine's kernels have made text of.
    pub fn of_text(text: &str) -> Option<Self> {
        text.starts_with("Regular expression did not compile").then(|| Self::read(text))
    }

    /// The error code that PostgreSQL gives in this case.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Pattern(_) => "2201B",
            Self::Option(_) => "22023",
        }
    }

    /// Takes the drawing apart: the pattern, a mark below what is wrong, and the reason.
    fn read(drawing: &str) -> Self {
        let reason = drawing.rsplit("error: ").next().unwrap_or(drawing);
        let reason = reason.lines().next().unwrap_or(reason).trim();
        let mut lines = drawing.lines().skip(1);
        if let ("unrecognized flag", Some(pattern), Some(mark)) =
            (reason, lines.next(), lines.next())
            && let Some(at) = mark.find('^')
            && let Some(flag) = pattern.chars().nth(at)
        {
            return Self::Option(flag);
        }
        Self::Pattern(reason.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pattern: &str) -> Option<String> {
        let error = regex::Regex::new(pattern).err()?;
        BadPattern::of(&error).map(|bad| format!("{} {bad}", bad.sqlstate()))
    }

    #[test]
    fn the_drawing_becomes_a_line() {
        let flag = "22023 invalid regular expression option: \"q\"";
        assert_eq!(of("(?q)a").as_deref(), Some(flag));
        assert_eq!(of("(").as_deref(), Some("2201B invalid regular expression: unclosed group"));
        assert_eq!(of("a"), None);
        assert!(BadPattern::of(&std::io::Error::other("error: no pattern")).is_none());
    }
}
