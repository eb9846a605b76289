//! Topics made of what the code says: settings, functions, system tables, znodes.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::config;
use crate::engine::settings::{Context, SETTINGS, Setting};
use crate::system;

/// The words for system tables and for functions; columns and signatures are the code's.
const TABLES: &str = include_str!("../../help/system_tables.md");
const FUNCTIONS: &str = include_str!("../../help/functions.md");

/// Where the paths are defined, with what is in each.
const PATHS: &str = include_str!("../../coordination/paths.rs");

pub fn settings() -> String {
    let mut text = String::from(
        "# Settings\n\n\
         Daemons have settings from their configuration, and sessions have settings of their own. Some \
         change for all daemons while they run: ALTER SYSTEM SET, or `oribi config set`; \
         `system.settings` shows where each value comes from.\n\n\
         ## Of sessions\n\n\
         `SET name = value`, `SHOW name`, `RESET name`; for a role or a database: `ALTER ROLE ... SET`.\n\n\
         | name | default | values | set by | meaning |\n|---|---|---|---|---|\n",
    );
    for setting in SETTINGS {
        let who = match setting.context {
            Context::User => "anybody",
            Context::Superuser => "superusers",
            Context::Internal => "nobody",
            Context::Postmaster => "the configuration",
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {who} | {} |",
            setting.name,
            code(setting.default),
            values(setting),
            setting.description.replace('|', "\\|")
        );
    }
    let _ = write!(
        text,
        "\n## Of daemons\n\n\
         Every key with its default, as in the file that `--config` names. In the environment a key is \
         ORIBI_ + section + key in capitals; flags exist for the first part.\n\n```toml\n{}```\n",
        config::DEFAULTS
    );
    text
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

fn values(setting: &Setting) -> String {
    if let Some(choices) = setting.choices() {
        return choices.join(", ");
    }
    let unit = setting.unit().map(|unit| format!(", {unit}")).unwrap_or_default();
    match setting.bounds() {
        Some((least, greatest)) => format!("{least} to {greatest}{unit}"),
        None => format!("{}{unit}", setting.value_type()),
    }
}

/// The sections of a text by their titles.
fn sections<'a>(text: &'a str, mark: &str) -> BTreeMap<&'a str, &'a str> {
    let parts = text.split(mark).skip(1);
    parts
        .filter_map(|part| part.split_once('\n'))
        .map(|(title, rest)| (title.trim(), rest.trim()))
        .collect()
}

pub fn system_tables() -> String {
    let words = sections(TABLES, "\n## ");
    let introduction = TABLES.split("\n## ").next().unwrap_or_default();
    let mut text = format!("{}\n", introduction.trim_end());
    for relation in system::relations() {
        if !matches!(relation.schema, "system" | "zk") {
            continue;
        }
        let name = relation.to_string();
        let described = words.get(name.as_str()).copied().unwrap_or_default();
        let _ = write!(text, "\n## {name}\n\n{described}\n\n| column | type | |\n|---|---|---|\n");
        for column in &relation.columns {
            let null = if column.not_null { "not null" } else { "" };
            let kind = match column.kind.strip_prefix('_') {
                Some(element) => format!("{element}[]"),
                None => column.kind.to_owned(),
            };
            let _ = writeln!(text, "| `{}` | {kind} | {null} |", column.name);
        }
    }
    text
}

pub fn functions() -> String {
    let introduction = FUNCTIONS.split("\n### ").next().unwrap_or_default();
    let words = sections(FUNCTIONS, "\n### ");
    let mut own: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut others: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for function in system::functions() {
        if function.schema == "oribi" {
            own.entry(format!("oribi.{}", function.name)).or_default().push(function.signature());
        } else {
            let kind = match function.kind {
                "a" => "Aggregates",
                "w" => "Window functions",
                _ => "Functions",
            };
            others.entry(kind).or_default().push(function.name.clone());
        }
    }
    let mut text = format!("{}\n", introduction.trim_end());
    for (name, signatures) in own {
        let described = words.get(name.as_str()).copied().unwrap_or_default();
        let _ = write!(text, "\n### {name}\n\n");
        for signature in signatures {
            let _ = writeln!(text, "    {signature}");
        }
        let _ = writeln!(text, "\n{described}");
    }
    for (kind, mut names) in others {
        names.sort();
        names.dedup();
        let _ = write!(text, "\n## {kind}\n\n{}\n", names.join(", "));
    }
    text
}

/// The enumeration of paths as the source has it: a path's documentation and how it is written.
pub fn znodes() -> String {
    let mut text = String::from(
        "# Znodes\n\n\
         All that daemons share is below the chroot (default `/oribi`), in small values that `zkCli.sh \
         get` shows. `zk.nodes` shows them in SQL, `oribi backup` saves those that are kept. The \
         version of their forms is in `/cluster`; a daemon refuses a store of a newer one.\n",
    );
    let written = written();
    let body = PATHS.split_once("pub enum Path<'a> {").map_or("", |(_, rest)| rest);
    let body = body.split("\n}").next().unwrap_or_default();
    let mut words = String::new();
    for line in body.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(word) = line.strip_prefix("///") {
            words.push_str(word.trim());
            words.push(' ');
            continue;
        }
        let name = line.split(['(', ',', ' ']).next().unwrap_or_default();
        let path = written.get(name).cloned().unwrap_or_else(|| name.to_owned());
        let described = link_free(words.trim());
        let _ = write!(text, "\n## {path}\n\n{described}\n");
        words.clear();
    }
    text
}

/// Each path as `Display` writes it, with what is put in in angle brackets.
fn written() -> BTreeMap<String, String> {
    let body = PATHS.split_once("match self {").map_or("", |(_, rest)| rest);
    let body = body.split("\n        }\n    }").next().unwrap_or_default();
    let mut paths = BTreeMap::new();
    for arm in body.split("Self::").skip(1) {
        let name = arm.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        let fields = arm[name.len()..].split("=>").next().unwrap_or_default();
        let fields = fields.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let mut fields = fields.filter(|field| !field.is_empty());
        let literals = arm.split('"').skip(1).step_by(2).filter(|text| !text.is_empty());
        let mut path = String::new();
        for (number, literal) in literals.enumerate() {
            // Arms of several steps: what the later ones add is in the words.
            if number > 0 {
                continue;
            }
            path.push_str(literal);
        }
        while let Some(at) = path.find('{') {
            let end = path[at..].find('}').map_or(path.len(), |end| at + end + 1);
            let field = fields.next().unwrap_or("name");
            path.replace_range(at..end, &format!("<{field}>"));
        }
        if path.ends_with('/') {
            path.push_str("<name>");
        }
        paths.insert(name.to_owned(), path);
    }
    paths
}

/// Without the brackets of documentation links.
fn link_free(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("[`") {
        plain.push_str(before);
        let Some((name, behind)) = after.split_once("`]") else { break };
        plain.push('`');
        plain.push_str(name);
        plain.push('`');
        rest = match behind.strip_prefix('(') {
            Some(link) => link.split_once(')').map_or("", |(_, rest)| rest),
            None => behind,
        };
    }
    plain + rest
}
