//! The structure of the house, held by a test: floors import downward only, the map in `lib.rs`
//! names every room, and files and functions stay small enough to read at one sitting.
//!
//! It reads `src/` as text. What it lists as an exception has its reason beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Nudges to think, not rules to game: raise them for a file that is better read in one piece.
const MAX_FILE: usize = 700;
const MAX_FUNCTION: usize = 120;

/// Functions that are one long table: (file, function, reason).
const TABLES: &[(&str, &str, &str)] = &[];

/// Lines outside tests that may panic: (file, part of the line, why it cannot).
const INVARIANTS: &[(&str, &str, &str)] = &[
    ("src/engine/memory.rs", "const NAMED_CONSUMERS", "evaluated by the compiler"),
    (
        "src/system/pg_catalog/statics.rs",
        "PgCatalogStaticTables",
        "data compiled in, read by its tests",
    ),
];

/// Files with `unsafe`, which `Cargo.toml` denies all others; `src/help/security.md` names them. (file, reason)
const UNSAFE: &[(&str, &str)] =
    &[("src/slices.rs", "a system call for which no crate has a safe function")];

/// Files that may start a task nobody owns: (file, reason).
const DETACHED: &[(&str, &str)] = &[];

#[test]
fn rooms_import_lower_floors_only() {
    let floors = floors();
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(room) = source.room() else { continue };
        let floor = floors[&room];
        for (line, name) in source.imports() {
            match floors.get(&name) {
                Some(_) if name == room => {}
                Some(other) if *other < floor => {}
                Some(other) => wrong.push(format!(
                    "{}:{line}: {room} (floor {floor}) imports {name} (floor {other})",
                    source.name
                )),
                None => wrong.push(format!("{}:{line}: \"{name}\" is no room", source.name)),
            }
        }
        wrong.extend(source.escapes());
    }
    none(wrong);
}

#[test]
fn the_map_names_every_room() {
    let on_the_map: BTreeSet<String> = floors().into_keys().collect();
    let library = read(&root().join("src/lib.rs"));
    let declared: BTreeSet<String> = (library.lines())
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned))
        .collect();
    assert_eq!(declared, on_the_map, "modules of src/lib.rs against its table");
    let on_disk: BTreeSet<String> = sources().iter().filter_map(Source::room).collect();
    assert_eq!(on_disk, on_the_map, "files below src/ against the table in src/lib.rs");
}

#[test]
fn the_program_is_the_command_line_only() {
    let main = Source::load(&root().join("src/main.rs"));
    let used: Vec<String> = paths_after(&main.code, "oribi::").map(|(_, name)| name).collect();
    assert!(used.iter().all(|name| name == "cli"), "src/main.rs uses {used:?}");
}

#[test]
fn files_can_be_read_at_one_sitting() {
    let long = |source: &Source| {
        let lines = source.code.lines().count();
        (lines > MAX_FILE).then(|| format!("{}: {lines} lines, over {MAX_FILE}", source.name))
    };
    none(sources().iter().filter_map(long).collect());
}

#[test]
fn functions_can_be_read_at_one_sitting() {
    let mut wrong = Vec::new();
    for source in sources() {
        for function in source.functions() {
            let table = |entry: &&(&str, &str, &str)| {
                entry.0 == source.name && entry.1 == function.name.as_str()
            };
            if function.lines > MAX_FUNCTION && !TABLES.iter().any(|entry| table(&entry)) {
                let Function { name, line, lines } = function;
                wrong.push(format!("{}:{line}: {name} has {lines} lines", source.name));
            }
        }
    }
    none(wrong);
}

#[test]
fn nothing_panics_on_purpose() {
    let mut wrong = Vec::new();
    let mut needless: BTreeSet<_> =
        INVARIANTS.iter().map(|(file, part, _)| (*file, *part)).collect();
    for source in sources() {
        for at in source.panics() {
            let (number, line) = source.line(at);
            let excuse = INVARIANTS
                .iter()
                .find(|(file, part, _)| *file == source.name && line.contains(part));
            match excuse {
                Some((file, part, _)) => drop(needless.remove(&(*file, *part))),
                None => wrong.push(format!("{}:{number}: {}", source.name, line.trim())),
            }
        }
    }
    wrong.extend(needless.iter().map(|entry| format!("no longer needed in INVARIANTS: {entry:?}")));
    none(wrong);
}

#[test]
fn every_task_is_owned() {
    let mut wrong = Vec::new();
    for source in sources() {
        if DETACHED.iter().any(|(file, _)| *file == source.name) {
            continue;
        }
        for (at, _) in source.code.match_indices("tokio::spawn(") {
            if !source.is_test(at) {
                let (number, line) = source.line(at);
                wrong.push(format!("{}:{number}: {}", source.name, line.trim()));
            }
        }
    }
    none(wrong);
}

#[test]
fn unsafe_is_where_it_is_named() {
    let found: Vec<String> = (sources().into_iter())
        .filter(|source| source.code.contains("allow(unsafe_code)"))
        .map(|source| source.name)
        .collect();
    assert_eq!(found, UNSAFE.iter().map(|(file, _)| *file).collect::<Vec<_>>());
    let page = read(&root().join("src/help/security.md"));
    none(found.into_iter().filter(|file| !page.contains(&format!("`{file}`"))).collect());
}

#[test]
fn the_readme_names_every_setting() {
    let readme = root().join("README.md");
    assert!(readme.exists(), "README.md is missing");
    let readme = read(&readme);
    let named = |key: &String| {
        // A key stands for itself, in code style; the last part alone would match ordinary words.
        readme.contains(&format!("`{key}`")) || readme.contains(&format!("`{key} "))
    };
    let missing: Vec<String> = settings().into_iter().filter(|key| !named(key)).collect();
    assert!(missing.is_empty(), "README.md does not name the settings {missing:?}");
}

/// A file of `src/`, with comments and the insides of literals blanked out.
struct Source {
    /// Relative to the repository.
    name: String,
    code: String,
    /// The parts that only tests compile.
    tests: Vec<Range<usize>>,
}

struct Function {
    name: String,
    line: usize,
    lines: usize,
}

impl Source {
    fn load(path: &Path) -> Self {
        let name = path.strip_prefix(root()).expect("in the repository").display().to_string();
        let code = blank(&read(path));
        let tests = (code.match_indices("#[cfg(test)]"))
            .map(|(at, _)| at..at + item_end(&code[at..]))
            .collect();
        Self { name, code, tests }
    }

    /// The room it belongs to; none for the crate's own files.
    fn room(&self) -> Option<String> {
        let inside = self.name.strip_prefix("src/")?;
        let room = inside.split('/').next()?.trim_end_matches(".rs");
        (!["lib", "main", "build"].contains(&room)).then(|| room.to_owned())
    }

    /// Modules between the crate's root and this file's own items: 1 for a room's own file.
    fn depth(&self) -> usize {
        let inside = self.name.trim_start_matches("src/").trim_end_matches(".rs");
        inside.trim_end_matches("/mod").split('/').count()
    }

    fn is_test(&self, at: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&at))
    }

    /// Line number and text of a position.
    fn line(&self, at: usize) -> (usize, &str) {
        let start = self.code[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = self.code[at..].find('\n').map_or(self.code.len(), |newline| at + newline);
        (self.code[..at].matches('\n').count() + 1, &self.code[start..end])
    }

    /// Rooms it names, with the lines.
    fn imports(&self) -> Vec<(usize, String)> {
        paths_after(&self.code, "crate::").map(|(at, name)| (self.line(at).0, name)).collect()
    }

    /// Uses of `super` that leave the room, which `imports` would miss.
    fn escapes(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut rest = 0;
        while let Some(at) = self.code[rest..].find("super::").map(|at| rest + at) {
            let chain = self.code[at..].split("super::").take_while(|part| part.is_empty()).count();
            let chain = chain.saturating_sub(1).max(1);
            if chain >= self.depth() + self.nesting(at) {
                found.push(format!("{}:{}: super leaves the room", self.name, self.line(at).0));
            }
            rest = at + chain * "super::".len();
        }
        found
    }

    /// How many modules inside the file surround a position.
    fn nesting(&self, at: usize) -> usize {
        let surrounds = |start: usize| {
            let item = &self.code[start..start + item_end(&self.code[start..])];
            item.ends_with('}') && (start..start + item.len()).contains(&at)
        };
        self.code.match_indices("mod ").filter(|(start, _)| surrounds(*start)).count()
    }

    fn panics(&self) -> impl Iterator<Item = usize> {
        let unwraps = self.code.match_indices(".unwrap()").map(|(at, _)| at);
        // `expect` of a message; other methods of that name do not panic.
        let expects = self.code.match_indices(".expect(").map(|(at, _)| at).filter(|at| {
            let argument = self.code[at + ".expect(".len()..].trim_start();
            argument.starts_with('"') || argument.starts_with("&format!")
        });
        unwraps.chain(expects).filter(|at| !self.is_test(*at))
    }

    /// Functions outside tests.
    fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            let word = !self.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if !word || self.is_test(at) {
                continue;
            }
            let name = ident(&self.code[at + 3..]);
            let lines = self.code[at..at + item_end(&self.code[at..])].lines().count();
            if !name.is_empty() {
                found.push(Function { name, line: self.line(at).0, lines });
            }
        }
        found
    }
}

/// Every file below `src/` that is not for tests only.
fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    walk(&root().join("src"), &mut files);
    let sources: Vec<Source> = files.iter().map(|path| Source::load(path)).collect();
    let for_tests: Vec<String> = sources.iter().flat_map(test_modules).collect();
    let is_kept = |source: &Source| {
        !for_tests.iter().any(|module| {
            source.name == format!("{module}.rs") || source.name.starts_with(&format!("{module}/"))
        })
    };
    sources.into_iter().filter(is_kept).collect()
}

/// The modules in files of their own that a file declares for tests, as paths without `.rs`.
fn test_modules(source: &Source) -> Vec<String> {
    let file = Path::new(&source.name);
    let folder = match file.file_stem().and_then(|stem| stem.to_str()) {
        Some("mod" | "lib" | "main") => file.parent().expect("in src").to_owned(),
        _ => file.with_extension(""),
    };
    let module = |range: &Range<usize>| {
        let item = &source.code[range.clone()];
        let name = ident(&item[item.find("mod ")? + 4..]);
        item.ends_with(';').then(|| folder.join(name).display().to_string())
    };
    source.tests.iter().filter_map(module).collect()
}

/// The table in `lib.rs`: a room's floor.
fn floors() -> BTreeMap<String, u32> {
    let mut floors = BTreeMap::new();
    let mut floor = None;
    for line in read(&root().join("src/lib.rs")).lines() {
        let Some(row) = line.strip_prefix("//! | ") else { continue };
        let mut cells = row.split('|').map(str::trim);
        let number = cells.next().expect("a first cell");
        if let Ok(number) = number.parse() {
            floor = Some(number);
        } else if !number.is_empty() {
            continue;
        }
        let rooms = cells.next().expect("a second cell");
        for room in rooms.split('[').skip(1).filter_map(|part| part.split('`').nth(1)) {
            floors.insert(room.to_owned(), floor.expect("a floor"));
        }
    }
    assert!(floors.len() > 10, "the table in src/lib.rs cannot be read: {floors:?}");
    floors
}

/// The keys of the settings file: `data_dir`, `query.statement_timeout`.
fn settings() -> Vec<String> {
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in read(&root().join("config/oribi.toml")).lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.push(format!("{section}{}", key.trim()));
        }
    }
    assert!(keys.len() > 10, "config/oribi.toml cannot be read: {keys:?}");
    keys
}

/// The first names after each `prefix`, also of a list in braces; names of types are left out.
fn paths_after(code: &str, prefix: &str) -> impl Iterator<Item = (usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => found.push((at, ident(rest))),
            Some(list) => {
                let mut depth = 0;
                let mut start = true;
                for (offset, character) in list.char_indices() {
                    match character {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        _ if start && !character.is_whitespace() => {
                            found.push((at, ident(&list[offset..])));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found.into_iter().filter(|(_, name)| name.starts_with(|c: char| c.is_lowercase()))
}

fn ident(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Where an item that starts here ends: behind its body, or its semicolon.
fn item_end(code: &str) -> usize {
    let (mut round, mut curly) = (0, 0);
    for (at, character) in code.char_indices() {
        match character {
            '(' | '[' => round += 1,
            ')' | ']' => round -= 1,
            '{' => curly += 1,
            '}' => {
                curly -= 1;
                if curly == 0 && round == 0 {
                    return at + 1;
                }
            }
            ';' if curly == 0 && round == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Replaces comments and the insides of literals by spaces; lines stay where they are.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let previous = at.checked_sub(1).map(|before| bytes[before]);
        let in_word = previous.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        let (inside, end) = if rest.starts_with("//") {
            (at, at + rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            (at, at + rest.find("*/").map_or(rest.len(), |end| end + 2))
        } else if let Some(hashes) = raw_string(rest).filter(|_| !in_word || previous == Some(b'b'))
        {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = hashes + 2;
            let length = rest[open..].find(&close).expect("a raw string ends");
            (at + open, at + open + length + close.len())
        } else if rest.starts_with('"') {
            (at + 1, at + 1 + string_length(&bytes[at + 1..], b'"') + 1)
        } else if let Some(length) = rest.starts_with('\'').then(|| character(rest)).flatten() {
            (at + 1, at + length)
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        };
        let literal = inside > at;
        let last = if literal { end - 1 } else { end };
        for byte in &mut out[inside..last.max(inside)] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("whole characters were replaced")
}

/// The number of hashes of a raw string that starts here.
fn raw_string(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('r')?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest[hashes..].starts_with('"').then_some(hashes)
}

/// Bytes up to the closing quote.
fn string_length(bytes: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at
}

/// The length of a character literal that starts here; none for a lifetime.
fn character(text: &str) -> Option<usize> {
    let mut inner = text[1..].chars();
    let first = inner.next()?;
    if first == '\\' {
        return Some(string_length(&text.as_bytes()[1..], b'\'') + 2);
    }
    (inner.next() == Some('\'')).then(|| first.len_utf8() + 2)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).expect("a folder");
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
