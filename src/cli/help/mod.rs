//! `oribi help TOPIC`: the reference, inside the binary.
//!
//! A topic is a text of its own ([`Source::Text`], a Markdown file in `src/help/`), or made of what the
//! code itself says ([`Source::Made`]), so that it cannot be out of date. [`TOPICS`] is the list.

mod made;
mod statements;

use std::ffi::OsStr;
use std::fmt::Write;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Args, Command, CommandFactory};

use super::error::{Error, Result};
use super::tour;

#[derive(Debug, Args)]
pub struct Options {
    /// A topic, a command, or the name of a statement, such as MERGE or CREATE TABLE. Without it, the topics are
    /// listed.
    #[arg(value_parser = Names, hide_possible_values = true)]
    topic: Vec<String>,
    /// As JSON: an object with the topic's name, title and Markdown, or an array of the topics.
    #[arg(long)]
    json: bool,
}

/// Takes any name, and tells shells those that there are.
#[derive(Clone, Debug)]
struct Names;

impl TypedValueParser for Names {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> std::result::Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let topics = TOPICS.iter().map(|topic| PossibleValue::new(topic.name));
        Some(Box::new(topics.chain(COMMANDS.iter().copied().map(PossibleValue::new))))
    }
}

/// The commands that no topic has the name of: making them of the command line's own description would ask
/// for this again.
const COMMANDS: &[&str] = &[
    "bench",
    "cluster",
    "completions",
    "config",
    "demo",
    "doctor",
    "help",
    "man",
    "query",
    "restore",
    "serve",
];

/// Where a topic's text comes from.
enum Source {
    Text(&'static str),
    Made(fn() -> String),
}

/// What can be asked for.
struct Topic {
    name: &'static str,
    title: &'static str,
    source: Source,
}

const fn text(name: &'static str, title: &'static str, markdown: &'static str) -> Topic {
    Topic { name, title, source: Source::Text(markdown) }
}

const fn made(name: &'static str, title: &'static str, make: fn() -> String) -> Topic {
    Topic { name, title, source: Source::Made(make) }
}

/// All topics, in the order in which they are listed.
const TOPICS: &[Topic] = &[
    text("sql", "the statements", include_str!("../../help/sql.md")),
    text("client", "oribi sql, the interactive client", include_str!("../../help/client.md")),
    text("import", "oribi import: files into tables", include_str!("../../help/import.md")),
    made("settings", "settings of daemons and of sessions", made::settings),
    made("functions", "functions of Oribi's own, and all others", made::functions),
    made("system-tables", "the cluster as SQL: system.* and zk.*", made::system_tables),
    made("znodes", "what is in ZooKeeper", made::znodes),
    text("errors", "error codes, and what to do", include_str!("../../help/errors.md")),
    text("metrics", "what /metrics tells", include_str!("../../help/metrics.md")),
    text("runbook", "what to do about each alert", include_str!("../../help/runbook.md")),
    text("security", "what is defended, and how to report", include_str!("../../help/security.md")),
    text("backup", "back-up, restore, moving and upgrading", include_str!("../../help/backup.md")),
];

impl Topic {
    fn markdown(&self) -> String {
        match self.source {
            Source::Text(markdown) => markdown.to_owned(),
            Source::Made(make) => make(),
        }
    }
}

pub fn run(options: Options) -> Result<()> {
    let name = options.topic.join(" ");
    if !options.json {
        return tour::print(show(&name)?.trim_end());
    }
    let about = |topic: &Topic| serde_json::json!({ "topic": topic.name, "title": topic.title });
    let value = if name.is_empty() {
        TOPICS.iter().map(about).collect()
    } else {
        let (topic, markdown) = match find(&name) {
            Some(topic) => (topic, topic.markdown()),
            None => about_statement(&name).ok_or_else(|| unknown(&name))?,
        };
        let mut value = about(topic);
        value["markdown"] = markdown.into();
        value
    };
    tour::print(&value.to_string())
}

/// A topic's text, a command's help, what the reference says of a statement, or, without a name, the list of
/// topics.
pub fn show(name: &str) -> Result<String> {
    if name.is_empty() {
        return Ok(list());
    }
    if let Some(topic) = find(name) {
        return Ok(topic.markdown());
    }
    let mut program = super::Cli::command();
    program.build();
    match program.find_subcommand_mut(name.to_lowercase()) {
        Some(command) => Ok(command.render_long_help().to_string()),
        None => about_statement(name).map(|(_, text)| text).ok_or_else(|| unknown(name)),
    }
}

/// What is said of a statement, and in which topic.
fn about_statement(name: &str) -> Option<(&'static Topic, String)> {
    let topic = find("sql")?;
    let text = statements::about(&topic.markdown(), name)?;
    Some((topic, text))
}

fn find(name: &str) -> Option<&'static Topic> {
    let name = name.to_lowercase().replace('_', "-");
    TOPICS.iter().find(|topic| topic.name == name)
}

fn unknown(name: &str) -> Error {
    let names = TOPICS.iter().map(|topic| topic.name).collect::<Vec<_>>().join(", ");
    Error::Usage(format!(
        "there is no topic \"{name}\": {names} are, each command (oribi --help lists them), and statements by their \
         names, such as MERGE"
    ))
}

fn list() -> String {
    let mut text = String::from("Topics (oribi help TOPIC):\n");
    for Topic { name, title, .. } in TOPICS {
        let _ = writeln!(text, "  {name:15} {title}");
    }
    text + "\nEach command tells of itself: oribi help COMMAND, or oribi COMMAND --help. Of a statement the \
            reference's\npart about it is shown: oribi help MERGE, or \\h MERGE in oribi sql.\n"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::engine::settings::SETTINGS;
    use crate::system;

    fn shown(topic: &str) -> String {
        show(topic).expect(topic)
    }

    #[test]
    fn shells_are_told_of_every_topic_and_command() {
        let told: BTreeSet<String> = (Names.possible_values().expect("some"))
            .map(|value| value.get_name().to_owned())
            .collect();
        for command in crate::cli::Cli::command().get_subcommands() {
            assert!(told.contains(command.get_name()), "{}", command.get_name());
        }
        for name in told {
            show(&name).expect("a text");
        }
    }

    #[test]
    fn every_topic_has_a_text_and_every_text_a_topic() {
        for topic in TOPICS {
            assert!(topic.markdown().starts_with("# "), "{}", topic.name);
            assert!(list().contains(topic.name));
        }
        let texts = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/help"));
        for file in texts.expect("a folder") {
            let name = file.expect("an entry").file_name().to_string_lossy().into_owned();
            let topic = name.trim_end_matches(".md").replace('_', "-");
            assert!(find(&topic).is_some(), "src/help/{name} is no topic");
        }
        assert!(show("serve").expect("a command").contains("--data-dir"));
        assert!(show("SQL").expect("a topic").starts_with("# SQL"));
        assert!(show("nothing").is_err());
    }

    #[test]
    fn settings_are_all_there() {
        let text = shown("settings");
        for setting in SETTINGS {
            assert!(text.contains(&format!("`{}`", setting.name)), "{}", setting.name);
        }
        for line in crate::config::DEFAULTS.lines().filter(|line| !line.starts_with('#')) {
            assert!(text.contains(line), "{line}");
        }
    }

    #[test]
    fn system_tables_and_functions_are_all_described() {
        let text = shown("system-tables");
        for relation in system::relations() {
            if matches!(relation.schema, "system" | "zk") {
                let title = format!("## {}.{}\n\n", relation.schema, relation.name);
                let rest = text.split_once(&title).map(|(_, rest)| rest);
                let rest = rest.unwrap_or_else(|| panic!("{relation} is not described"));
                let described = !rest.starts_with(['|', '#']);
                assert!(described, "{relation} has no words");
                for column in &relation.columns {
                    assert!(
                        rest.contains(&format!("`{}`", column.name)),
                        "{relation}.{}",
                        column.name
                    );
                }
            }
        }
        let text = shown("functions");
        for function in system::functions() {
            assert!(text.contains(&function.name), "{}", function.name);
            if function.schema == "oribi" {
                let title = format!("### oribi.{}", function.name);
                assert!(text.contains(&title), "{title} is not described");
            }
        }
    }

    /// SQLSTATEs in the sources: five letters and digits in quotes that begin with a digit.
    fn codes(directory: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).expect("a folder") {
            let path = entry.expect("an entry").path();
            let test = path.file_name().is_some_and(|name| name == "tests" || name == "tests.rs");
            if path.is_dir() && !test {
                codes(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !test {
                let text = fs::read_to_string(&path).expect("text");
                let text = text.split("#[cfg(test)]").next().unwrap_or_default();
                let word = |word: &&str| {
                    let capital = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
                    word.len() == 5
                        && word.starts_with(|c: char| c.is_ascii_digit())
                        && word.chars().all(capital)
                };
                found.extend(text.split('"').filter(word).map(str::to_owned));
            }
        }
    }

    #[test]
    fn error_codes_are_all_described() {
        let mut found = BTreeSet::new();
        for room in ["postgres", "query", "engine", "catalog", "system", "values"] {
            codes(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room), &mut found);
        }
        assert!(found.len() > 60, "{found:?}");
        let text = shown("errors");
        let missing: Vec<_> =
            found.iter().filter(|code| !text.contains(&format!("`{code}`"))).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn znodes_are_all_there() {
        let text = shown("znodes");
        for path in
            ["/cluster", "/daemons/<id>", "/catalog/<database>", "/roles/<role>", "/settings"]
        {
            assert!(text.contains(path), "{path}: {text}");
        }
    }
}
