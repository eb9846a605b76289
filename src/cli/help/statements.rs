//! What the reference says of one statement: the sections of the topic `sql` whose forms name it.

/// The sections about a statement, whichever case its name is written in. Of a name of several words the last ones
/// may be too many, as in `CREATE TABLE AS`.
pub fn about(markdown: &str, name: &str) -> Option<String> {
    let wanted = words(name);
    let sections: Vec<&str> = markdown.split("\n## ").skip(1).collect();
    (1..=wanted.len()).rev().find_map(|length| {
        let wanted = &wanted[..length];
        let begins = |form: &Vec<String>| form.starts_with(wanted);
        let has = |form: &Vec<String>| form.windows(length).any(|words| words == wanted);
        of(&sections, begins).or_else(|| of(&sections, has))
    })
}

/// The sections with a form that fits.
fn of(sections: &[&str], fits: impl Fn(&Vec<String>) -> bool) -> Option<String> {
    let found = sections.iter().filter(|section| forms(section).iter().any(&fits));
    let found: Vec<String> = found.map(|section| format!("## {}\n", section.trim_end())).collect();
    (!found.is_empty()).then(|| found.join("\n"))
}

/// What begins a statement in the indented lines of a section, as words in capitals. What stands in brackets may be
/// left out, and is.
fn forms(section: &str) -> Vec<Vec<String>> {
    let mut forms = Vec::new();
    let mut depth = 0usize;
    let mut form = String::new();
    for character in section.lines().filter_map(|line| line.strip_prefix("    ")).flat_map(|line| {
        // A line that goes on is indented further.
        let end = if line.starts_with(' ') { ' ' } else { ';' };
        std::iter::once(end).chain(line.chars())
    }) {
        match character {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            ';' | '|' => forms.push(words(&std::mem::take(&mut form))),
            other => form.push(other),
        }
    }
    forms.push(words(&form));
    forms.retain(|form| !form.is_empty());
    forms
}

fn words(text: &str) -> Vec<String> {
    let words = text.split(|character: char| !(character.is_alphanumeric() || character == '_'));
    words.filter(|word| !word.is_empty()).map(str::to_uppercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQL: &str = include_str!("../../help/sql.md");

    #[test]
    fn statements_are_found_by_their_names() {
        let titles = |name: &str| -> Vec<String> {
            let text = about(SQL, name).unwrap_or_default();
            text.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned).collect()
        };
        for (name, expected) in [
            ("select", &["Queries", "Transactions"][..]),
            ("Merge", &["Changes"]),
            ("create table", &["Tables"]),
            ("CREATE TABLE AS", &["Tables"]),
            ("create external table", &["Tables"]),
            ("CREATE VIEW", &["Databases, schemas, views"]),
            ("REVOKE", &["Roles and rights"]),
            ("rollback", &["Transactions"]),
            ("alter system", &["Sessions"]),
            ("drop pool;", &["Pools"]),
            ("fetch", &["Sessions"]),
            ("nothing", &[]),
            ("", &[]),
        ] {
            assert_eq!(titles(name), expected, "{name}");
        }
    }
}
