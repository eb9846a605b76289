//! Errors and notices in psql's form.

use crate::cli::sql::editor;
use crate::cli::sql::wire::Said;

/// How much is said of an error, as psql's `VERBOSITY` has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// Its code and nothing else.
    Sqlstate,
    /// One line.
    Terse,
    #[default]
    Default,
    /// With the names of what it is about.
    Verbose,
}

/// An error or notice in psql's form, as much of it as is wanted.
pub fn told(said: &Said, sql: &str, verbosity: Verbosity) -> String {
    let is_error = said.severity == "ERROR" && !said.code.is_empty();
    if verbosity == Verbosity::Sqlstate && is_error {
        return format!("{}:  {}", said.severity, said.code);
    }
    let mut text = said.to_string();
    if is_error {
        text += &format!(" (SQLSTATE {})", said.code);
    }
    if verbosity == Verbosity::Terse {
        if let Some(position) = said.position {
            text += &format!(" at character {position}");
        }
        return text;
    }
    if let Some(place) = said.position.and_then(|position| place(sql, position)) {
        text += &place;
    }
    let more = [("DETAIL", &said.detail), ("HINT", &said.hint), ("CONTEXT", &said.context)];
    for (title, more) in more {
        if let Some(more) = more {
            text += &format!("\n{title}:  {more}");
        }
    }
    if verbosity == Verbosity::Verbose {
        for (kind, name) in &said.objects {
            text += &format!("\n{kind} NAME:  {name}");
        }
    }
    text
}

/// The line of a statement that an error is about, with a mark below the place.
fn place(sql: &str, position: usize) -> Option<String> {
    let before: String = sql.chars().take(position.checked_sub(1)?).collect();
    let number = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map(editor::terminal::width)?;
    let line = sql.lines().nth(number - 1)?;
    let title = format!("LINE {number}: ");
    let space = " ".repeat(title.len() + column);
    Some(format!("\n{title}{line}\n{space}^"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_is_said_of_an_error_as_is_wanted() {
        let said = Said {
            severity: "ERROR".to_owned(),
            code: "23502".to_owned(),
            message: "no".to_owned(),
            hint: Some("yes".to_owned()),
            position: Some(8),
            objects: vec![("COLUMN", "x".to_owned())],
            ..Said::default()
        };
        let shown = |verbosity| told(&said, "SELECT y", verbosity);
        assert_eq!(shown(Verbosity::Sqlstate), "ERROR:  23502");
        assert_eq!(shown(Verbosity::Terse), "ERROR:  no (SQLSTATE 23502) at character 8");
        let all = "ERROR:  no (SQLSTATE 23502)\nLINE 1: SELECT y\n               ^\nHINT:  yes";
        assert_eq!(shown(Verbosity::Default), all);
        assert_eq!(shown(Verbosity::Verbose), format!("{all}\nCOLUMN NAME:  x"));
    }

    #[test]
    fn errors_show_the_place() {
        let shown = place("SELECT\n  größe FROM t", 10).expect("a place");
        assert_eq!(shown, "\nLINE 2:   größe FROM t\n          ^");
        assert_eq!(place("", 5), None);
    }
}
