//! Text that is typed or read, taken apart into statements and commands, as psql takes it apart.

/// A statement or a command, and where what follows it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A statement without its semicolon.
    Statement(String),
    /// A command that begins with a backslash (without it), and the statement before it that has no
    /// semicolon yet.
    Command { before: String, command: String },
}

/// The first piece of a text and the number of bytes that it takes; `None` if the text ends before it
/// does.
pub fn first(text: &str) -> Option<(Piece, usize)> {
    let mut scanner = Scanner::new(text);
    while let Some(character) = scanner.next_outside() {
        let at = scanner.at;
        match character {
            ';' if scanner.depth == 0 => {
                let statement = text[..at].trim().to_owned();
                return Some((Piece::Statement(statement), at + 1));
            }
            // What follows belongs to the statement: see `unescaped`.
            '\\' if text[at + 1..].starts_with([';', ':']) => scanner.at += 1,
            '\\' => {
                let rest = &text[at + 1..];
                let line = rest.split('\n').next().unwrap_or_default();
                let (length, skipped) = command_end(line);
                let end = at + 1 + length;
                let newline = usize::from(length == line.len() && end < text.len());
                let piece = Piece::Command {
                    before: text[..at].trim().to_owned(),
                    command: line[..length].trim().to_owned(),
                };
                return Some((piece, end + skipped + newline));
            }
            _ => {}
        }
        // Behind a backslash it may be another one.
        scanner.at += text[scanner.at..].chars().next().map_or(0, char::len_utf8);
    }
    None
}

/// A statement without the backslashes that stand before semicolons and colons outside of literals, quoted names
/// and comments: psql sends several statements as one request where `\;` is between them.
pub fn unescaped(text: &str) -> String {
    if !text.contains("\\;") && !text.contains("\\:") {
        return text.to_owned();
    }
    let (mut plain, mut from) = (String::new(), 0);
    let mut scanner = Scanner::new(text);
    while let Some(character) = scanner.next_outside() {
        let at = scanner.at;
        if character == '\\' && text[at + 1..].starts_with([';', ':']) {
            plain.push_str(&text[from..at]);
            from = at + 1;
            scanner.at += 1;
        }
        scanner.at += text[scanner.at..].chars().next().map_or(0, char::len_utf8);
    }
    plain + &text[from..]
}

/// Commands whose arguments are all of the line.
const WHOLE_LINE: [&str; 6] = ["copy", "h", "help", "sf", "sv", "!"];

/// Bytes of the command that a line begins with, and of what only ends it: another command follows, or two
/// backslashes, behind which a statement goes on.
fn command_end(line: &str) -> (usize, usize) {
    let name = line.find(|c: char| c.is_whitespace() || c == '\\').unwrap_or(line.len());
    let piped = line[name..].trim_start().starts_with('|');
    if line.starts_with('!') || WHOLE_LINE.contains(&&line[..name]) || piped {
        return line.find("\\\\").map_or((line.len(), 0), |end| (end, 2));
    }
    let mut quote = None;
    let mut characters = line.char_indices();
    while let Some((at, character)) = characters.next() {
        match (quote, character) {
            (Some('\''), '\\') => drop(characters.next()),
            (Some(open), character) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '\\') => return (at, if line[at + 1..].starts_with('\\') { 2 } else { 0 }),
            _ => {}
        }
    }
    (line.len(), 0)
}

/// Whether nothing of a text would be left to wait for.
pub fn is_whole(text: &str) -> bool {
    let mut rest = text;
    loop {
        if is_blank(rest) {
            return true;
        }
        match first(rest) {
            Some((_, length)) => rest = &rest[length..],
            None => return false,
        }
    }
}

/// Whether a text says nothing: spaces and comments.
pub fn is_blank(text: &str) -> bool {
    let mut scanner = Scanner::new(text);
    while let Some(character) = scanner.next_outside() {
        if !character.is_whitespace() {
            return false;
        }
        scanner.at += character.len_utf8();
    }
    !scanner.is_open
}

/// Words in capitals outside of literals, quoted names and comments.
pub fn words(text: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let mut scanner = Scanner::new(text);
    let mut last = 0;
    while let Some(character) = scanner.next_outside() {
        let joined = scanner.at == last;
        last = scanner.at + character.len_utf8();
        if !joined && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if character.is_alphanumeric() || matches!(character, '_' | '.') {
            word.extend(character.to_uppercase());
        } else if !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        scanner.at = last;
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Where colons stand alone outside of literals, quoted names and comments, in bytes.
pub fn colons(text: &str) -> Vec<usize> {
    let mut colons: Vec<usize> = Vec::new();
    let mut scanner = Scanner::new(text);
    while let Some(character) = scanner.next_outside() {
        let at = scanner.at;
        let before = text[..at].ends_with([':', '\\']);
        if character == ':' && !before && !text[at + 1..].starts_with(':') {
            colons.push(at);
        }
        scanner.at += character.len_utf8();
    }
    colons
}

/// With which statements that change nothing begin.
const READS: [&str; 8] =
    ["SELECT", "WITH", "VALUES", "TABLE", "SHOW", "EXPLAIN", "DESCRIBE", "DESC"];

/// Words that make more than a read of one.
const CHANGES: [&str; 7] = ["INSERT", "UPDATE", "DELETE", "MERGE", "INTO", "COPY", "CREATE"];

/// Functions that do something.
const DEEDS: [&str; 5] =
    ["ORIBI.", "PG_CANCEL_BACKEND", "PG_TERMINATE_BACKEND", "PG_NOTIFY", "SET_CONFIG"];

/// Whether a statement may be run twice, since it changes nothing, as far as its words tell: what is
/// doubtful counts as a change.
pub fn only_reads(sql: &str) -> bool {
    let words = words(sql);
    let begins = words.first().is_some_and(|word| READS.contains(&word.as_str()));
    let deed = |word: &String| DEEDS.iter().any(|deed| word.contains(deed));
    let change = |word: &String| CHANGES.contains(&word.as_str());
    begins && !words.iter().any(|word| change(word) || deed(word))
}

/// Goes over what is outside of literals, quoted names and comments.
struct Scanner<'a> {
    text: &'a str,
    /// The byte that is looked at.
    at: usize,
    /// Parentheses that are open.
    depth: usize,
    /// A literal, a name or a comment is not closed.
    is_open: bool,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, is_open: false }
    }

    /// The next character outside; it is at `at` then. `None` at the end of the text.
    fn next_outside(&mut self) -> Option<char> {
        loop {
            let rest = &self.text[self.at..];
            let character = rest.chars().next()?;
            let length = match character {
                '\'' => {
                    let escapes = self.escapes();
                    quoted(rest, '\'', escapes)
                }
                '"' => quoted(rest, '"', false),
                '-' if rest.starts_with("--") => Some(rest.find('\n').unwrap_or(rest.len())),
                '/' if rest.starts_with("/*") => comment(rest),
                '$' if !self.is_within_word() => match dollar(rest) {
                    Some(tag) => {
                        let body = &rest[tag.len()..];
                        body.find(tag).map(|end| end + 2 * tag.len())
                    }
                    None => return Some(character),
                },
                '(' | '[' => {
                    self.depth += 1;
                    return Some(character);
                }
                ')' | ']' => {
                    self.depth = self.depth.saturating_sub(1);
                    return Some(character);
                }
                _ => return Some(character),
            };
            match length {
                Some(length) => self.at += length,
                None => {
                    self.is_open = true;
                    self.at = self.text.len();
                    return None;
                }
            }
        }
    }

    /// Whether the quote here begins a literal with escapes: E'...'.
    fn escapes(&self) -> bool {
        let before = &self.text[..self.at];
        let mut last = before.chars().rev();
        matches!(last.next(), Some('e' | 'E'))
            && !last.next().is_some_and(|character| character.is_alphanumeric() || character == '_')
    }

    fn is_within_word(&self) -> bool {
        let last = self.text[..self.at].chars().next_back();
        last.is_some_and(|character| character.is_alphanumeric() || character == '_')
    }
}

/// Bytes of what begins with a quote; a doubled one is part of it.
fn quoted(text: &str, quote: char, escapes: bool) -> Option<usize> {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == '\\' && escapes {
            characters.next();
        } else if character == quote {
            match characters.peek() {
                Some((_, next)) if *next == quote => drop(characters.next()),
                _ => return Some(at + quote.len_utf8()),
            }
        }
    }
    None
}

/// Bytes of a comment, with those within it.
fn comment(text: &str) -> Option<usize> {
    let (mut depth, mut at) = (0usize, 0);
    loop {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += rest.chars().next()?.len_utf8();
        }
    }
}

/// The tag of a dollar-quoted literal.
fn dollar(text: &str) -> Option<&str> {
    let end = text[1..].find('$')? + 2;
    let name = &text[1..end - 1];
    let first = name.chars().next();
    let good = first.is_none_or(|first| first.is_alphabetic() || first == '_')
        && name.chars().all(|character| character.is_alphanumeric() || character == '_');
    good.then(|| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(text: &str) -> Option<(Piece, usize)> {
        Some((Piece::Statement(text.to_owned()), text.len() + 1))
    }

    #[test]
    fn statements_end_where_postgresql_ends_them() {
        for text in [
            "SELECT 1",
            "SELECT ';', E'\\';', \";\"",
            "SELECT $$;$$, $a$;$b$;$a$",
            "SELECT /* ; /* ; */ ; */ 1 -- ;\n",
            "SELECT 'it''s;' ",
            "SELECT (1;2)",
            "SELECT a$b, 'x'",
        ] {
            let (piece, length) = first(&format!("{text}; rest")).expect("whole");
            assert_eq!(
                (Some((piece, length))),
                statement(text)
                    .map(|(_, length)| { (Piece::Statement(text.trim().to_owned()), length) }),
                "{text}"
            );
        }
        for text in ["SELECT 1", "SELECT ';", "SELECT $$;", "/* ;", "SELECT (1;", "SELECT \";"] {
            assert_eq!(first(text), None, "{text}");
            assert!(!is_whole(text), "{text}");
        }
        assert!(is_whole("SELECT 1; -- done") && is_whole(" ") && is_whole("\\d t"));
        assert!(!is_whole("SELECT 1; SELECT 2"));
    }

    #[test]
    fn commands_stand_alone_or_behind_a_statement() {
        let command = |before: &str, command: &str| Piece::Command {
            before: before.to_owned(),
            command: command.to_owned(),
        };
        assert_eq!(first("\\dt x\nSELECT"), Some((command("", "dt x"), 6)));
        assert_eq!(first("SELECT 1 \\gx"), Some((command("SELECT 1", "gx"), 12)));
        assert_eq!(first("\\x \\\\ SELECT 1;"), Some((command("", "x"), 5)));
        assert_eq!(first("SELECT '\\'"), None);
        // One that does not end it, as psql has it.
        let both = Piece::Statement("SELECT 1\\; SELECT 2".to_owned());
        assert_eq!(first("SELECT 1\\; SELECT 2;"), Some((both, 20)));
        assert_eq!(first("SELECT 1\\; SELECT 2"), None);
        assert_eq!(
            first("SELECT 1\\; SELECT 2 \\gx"),
            Some((command("SELECT 1\\; SELECT 2", "gx"), 23))
        );
    }

    #[test]
    fn what_changes_nothing_is_known_by_its_words() {
        for sql in [
            "SELECT 1",
            "select 'insert' as \"update\"",
            "WITH a AS (SELECT 1) TABLE a",
            "-- update\nSHOW server_version",
            "EXPLAIN SELECT 1",
        ] {
            assert!(only_reads(sql), "{sql}");
        }
        for sql in [
            "INSERT INTO t VALUES (1)",
            "WITH a AS (DELETE FROM t RETURNING x) SELECT * FROM a",
            "EXPLAIN ANALYZE INSERT INTO t SELECT 1",
            "SELECT oribi.submit('SELECT 1')",
            "SELECT pg_terminate_backend(1)",
            "BEGIN",
            "",
        ] {
            assert!(!only_reads(sql), "{sql}");
        }
    }
}
