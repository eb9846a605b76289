//! What was typed before, kept in a file: one entry a line, with `\n` for a line break.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Entries that are kept.
const LIMIT: usize = 2000;

#[derive(Debug, Default)]
pub struct History {
    entries: Vec<String>,
    path: Option<PathBuf>,
}

impl History {
    /// Where it is kept for this user: below XDG_STATE_HOME, or ~/.local/state.
    pub fn default_path() -> Option<PathBuf> {
        let state = std::env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty());
        let state = state.map(PathBuf::from).or_else(|| {
            let home = std::env::var_os("HOME").filter(|path| !path.is_empty());
            home.map(|home| PathBuf::from(home).join(".local/state"))
        });
        state.map(|state| state.join("oribi/sql_history"))
    }

    /// That of a file, which need not be there.
    pub fn open(path: Option<PathBuf>) -> Self {
        let text = path.as_deref().and_then(|path| fs::read_to_string(path).ok());
        let mut entries: Vec<String> = text.unwrap_or_default().lines().map(unescape).collect();
        let mut history = Self { entries: Vec::new(), path };
        let many = entries.len() > 2 * LIMIT;
        entries.drain(..entries.len().saturating_sub(LIMIT));
        history.entries = entries;
        if many {
            // A history that cannot be shortened goes on as it is.
            let _ = history.rewrite();
        }
        history
    }

    pub fn entries(&self) -> &[String] {
        &self.entries
    }

    /// Takes an entry up. Not what begins with a space, nor a password, nor the same twice in a row.
    pub fn add(&mut self, entry: &str) -> io::Result<()> {
        let upper = entry.to_uppercase();
        let secret = SECRET.iter().any(|word| upper.contains(word));
        let entry = entry.trim_end();
        let repeated = self.entries.last().is_some_and(|last| last == entry);
        if entry.is_empty() || entry.starts_with(' ') || secret || repeated {
            return Ok(());
        }
        self.entries.push(entry.to_owned());
        match &self.path {
            Some(path) => writeln!(open(path, true)?, "{}", escape(entry)),
            None => Ok(()),
        }
    }

    fn rewrite(&self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let lines: Vec<String> = self.entries.iter().map(|entry| escape(entry) + "\n").collect();
        let part = path.with_extension("part");
        open(&part, false)?.write_all(lines.concat().as_bytes())?;
        fs::rename(part, path)
    }
}

/// Words by which an entry is known that has something to hide.
const SECRET: [&str; 5] = ["PASSWORD", "SECRET", "TOKEN", "ACCESS_KEY", "SIGNATURE="];

/// Nobody else reads it.
fn open(path: &Path, append: bool) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut options = File::options();
    options.create(true).append(append).write(true).truncate(!append).mode(0o600).open(path)
}

fn escape(entry: &str) -> String {
    entry.replace('\\', "\\\\").replace('\n', "\\n")
}

fn unescape(line: &str) -> String {
    let (mut entry, mut characters) = (String::new(), line.chars());
    while let Some(character) = characters.next() {
        entry.push(match character {
            '\\' => match characters.next() {
                Some('n') => '\n',
                other => other.unwrap_or('\\'),
            },
            other => other,
        });
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_outlive_the_program() {
        let directory = tempfile::tempdir().expect("a folder");
        let path = directory.path().join("a/history");
        let mut history = History::open(Some(path.clone()));
        for entry in ["SELECT 1;", "SELECT\n '\\n';", "SELECT\n '\\n';", " hidden", ""] {
            history.add(entry).expect("written");
        }
        history.add("ALTER ROLE a PASSWORD 'x';").expect("left out");
        let again = History::open(Some(path));
        assert_eq!(again.entries(), ["SELECT 1;", "SELECT\n '\\n';"]);
    }
}
