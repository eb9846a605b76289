//! A failure as the client sees it.

use std::num::NonZeroU32;

use pgwire::error::ErrorInfo;
use pgwire::messages::response::ErrorResponse;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether the connection ends with it.
    pub fatal: bool,
    /// SQLSTATE.
    pub code: &'static str,
    pub message: String,
    pub detail: Option<Box<str>>,
    pub hint: Option<String>,
    /// Where it happened.
    pub context: Option<Box<str>>,
    /// Where in the client's text, in characters from 1.
    pub position: Option<NonZeroU32>,
    /// The file that it is about: for the log, and for those who may read files.
    pub file: Option<Box<str>>,
    /// Whether it is the daemon itself that may not, and so nobody's attempt.
    pub own: bool,
}

impl Report {
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            fatal: false,
            code,
            message: message.into(),
            detail: None,
            hint: None,
            context: None,
            position: None,
            file: None,
            own: false,
        }
    }

    pub fn fatal(code: &'static str, message: impl Into<String>) -> Self {
        Self { fatal: true, ..Self::error(code, message) }
    }

    pub fn detail(self, detail: impl Into<Box<str>>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Takes a file's name out of the text: its URL, and the path in it with which a store calls it.
    pub fn hide(&mut self, file: &str) {
        let path = match file.split_once(':') {
            Some(("file", path)) => path,
            // Behind the bucket.
            Some((_, rest)) => rest.trim_start_matches('/').split_once('/').map_or("", |it| it.1),
            None => file,
        };
        let path = path.trim_matches('/');
        for name in [file.to_owned(), format!("/{path}"), path.to_owned()] {
            if !name.trim_matches('/').is_empty() {
                self.message = self.message.replace(&name, "a file");
            }
        }
    }
}

impl From<Report> for ErrorResponse {
    fn from(report: Report) -> Self {
        let severity = if report.fatal { "FATAL" } else { "ERROR" };
        // A zero byte would end the field.
        let message = report.message.replace('\0', "\u{fffd}");
        let mut info = ErrorInfo::new(severity.into(), report.code.into(), message);
        info.detail = report.detail.map(String::from);
        info.hint = report.hint;
        info.where_context = report.context.map(|context| context.replace('\0', "\u{fffd}"));
        info.position = report.position.map(|position| position.to_string());
        let mut response = Self::from(info);
        response.fields.insert(1, untranslated(severity));
        response
    }
}

/// The severity once more, in a field that is never translated.
pub fn untranslated(severity: &str) -> (u8, String) {
    (b'V', severity.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_hidden_by_each_of_its_names() {
        for (file, names) in [
            ("file:/lake/t/1.parquet", ["file:/lake/t/1.parquet", "/lake/t/1.parquet"]),
            ("file:///lake/t/1.parquet", ["file:///lake/t/1.parquet", "lake/t/1.parquet"]),
            ("s3://lake/t/1.parquet", ["s3://lake/t/1.parquet", "t/1.parquet"]),
            ("/lake/t/1.parquet", ["/lake/t/1.parquet", "lake/t/1.parquet"]),
        ] {
            let [first, second] = names;
            let mut report = Report::error("58030", format!("cannot read {first}: no {second}"));
            report.hide(file);
            assert_eq!(report.message, "cannot read a file: no a file", "{file}");
        }
        let mut report = Report::error("58030", "cannot read /");
        report.hide("/");
        assert_eq!(report.message, "cannot read /");
    }
}
