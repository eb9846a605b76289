//! `\pset` and what stands for parts of it: how rows are shown.

use super::print::{Expanded, Format, Style};
use super::shell::Shell;
use crate::cli::error::{Error, Result};

/// Does one of `\x`, `\t`, `\a`, `\f` and `\pset`.
pub fn run(shell: &mut Shell, name: &str, arguments: &[String]) -> Result<bool> {
    let first = arguments.first().map(String::as_str);
    let (name, value) = match name {
        "x" => ("expanded", first),
        "t" => ("tuples_only", first),
        "f" => ("fieldsep", first),
        "a" => (
            "format",
            Some(match shell.style.format {
                Format::Unaligned => "aligned",
                _ => "unaligned",
            }),
        ),
        _ => (first.unwrap_or_default(), arguments.get(1).map(String::as_str)),
    };
    let name = match name {
        "t" => "tuples_only",
        "x" | "vertical" => "expanded",
        other => other,
    };
    set(&mut shell.style, name, value)?;
    let text = shown(&shell.style, name);
    // What was asked for is said however quiet it is to be.
    if name.is_empty() || !shell.session.quiet {
        shell.say(&text)?;
    }
    Ok(true)
}

fn set(style: &mut Style, name: &str, value: Option<&str>) -> Result<()> {
    match name {
        "" => {}
        "expanded" => {
            style.expanded = match (value, style.expanded) {
                (Some("auto"), _) => Expanded::Auto,
                (value, now) => match switch(value, now != Expanded::Off)? {
                    true => Expanded::On,
                    false => Expanded::Off,
                },
            }
        }
        "tuples_only" => style.tuples_only = switch(value, style.tuples_only)?,
        "footer" => style.footer = switch(value, style.footer)?,
        "fieldsep" => value.unwrap_or_default().clone_into(&mut style.separator),
        "null" => value.unwrap_or_default().clone_into(&mut style.null),
        "format" => style.format = match value.unwrap_or("aligned") {
            "aligned" | "wrapped" => Format::Table,
            other => <Format as clap::ValueEnum>::from_str(other, true).map_err(|_| {
                Error::Usage(format!(
                    "\"{other}\" is no format: aligned, unaligned, expanded, csv, tsv, json, jsonl \
                         and markdown are"
                ))
            })?,
        },
        // Set by what people have in their scripts: all is well as long as it asks for what is so anyway.
        "pager" if value == Some("off") => {}
        "pager" => {
            return Err(Error::Usage(
                "there is no pager: pipe a result with \\g |less, or all of them with \\o |less"
                    .to_owned(),
            ));
        }
        "border" if value == Some("1") => {}
        "linestyle" if value == Some("ascii") => {}
        "border" | "linestyle" => {
            let only = if name == "border" { "1" } else { "ascii" };
            return Err(Error::Usage(format!("{name} is {only}, and nothing else")));
        }
        other => {
            return Err(Error::Usage(format!(
                "\"{other}\" cannot be set: expanded, fieldsep, footer, format, null and tuples_only can"
            )));
        }
    }
    Ok(())
}

fn shown(style: &Style, name: &str) -> String {
    let Style { format, expanded, tuples_only, footer, separator, null, .. } = style;
    let on = |on: bool| if on { "on" } else { "off" };
    let expanded = match expanded {
        Expanded::Auto => "used automatically",
        other => on(*other == Expanded::On),
    };
    let format = match format {
        Format::Table => "aligned".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    match name {
        "expanded" => format!("Expanded display is {expanded}."),
        "tuples_only" => format!("Tuples only is {}.", on(*tuples_only)),
        "footer" => format!("Default footer is {}.", on(*footer)),
        "fieldsep" => format!("Field separator is \"{separator}\"."),
        "null" => format!("Null display is \"{null}\"."),
        "format" => format!("Output format is {format}."),
        "pager" => "Pager usage is off.".to_owned(),
        "border" => "Border style is 1.".to_owned(),
        "linestyle" => "Line style is ascii.".to_owned(),
        _ => format!(
            "expanded     {expanded}\nfieldsep     '{separator}'\nfooter       {}\nformat       {format}\n\
             null         '{null}'\ntuples_only  {}",
            on(*footer),
            on(*tuples_only)
        ),
    }
}

pub fn switch(argument: Option<&str>, now: bool) -> Result<bool> {
    match argument.map(str::to_lowercase).as_deref() {
        None => Ok(!now),
        Some("on" | "true" | "1" | "yes") => Ok(true),
        Some("off" | "false" | "0" | "no") => Ok(false),
        Some(other) => Err(Error::Usage(format!("\"{other}\" is neither on nor off"))),
    }
}
