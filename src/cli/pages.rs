//! `oribi completions` and `oribi man`: what shells and `man` want to know of the command line, made
//! from the command line itself.

use std::io::{Write, stdout};
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man as Page;

use super::Cli;
use super::error::{Error, Result};
use super::tour;

#[derive(Debug, Args)]
pub struct Completions {
    /// Such as: oribi completions bash > /etc/bash_completion.d/oribi
    shell: Shell,
}

#[derive(Debug, Args)]
pub struct Man {
    /// Where to write a page for each command, such as /usr/local/share/man/man1; without it, the page
    /// of the program itself is printed.
    directory: Option<PathBuf>,
}

pub fn completions(options: Completions) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "oribi", &mut text);
    stdout().write_all(&text).map_err(Error::Print)
}

pub fn man(options: Man) -> Result<()> {
    let Some(directory) = options.directory else {
        let mut text = Vec::new();
        Page::new(Cli::command()).render(&mut text).map_err(Error::Print)?;
        return stdout().write_all(&text).map_err(Error::Print);
    };
    std::fs::create_dir_all(&directory).map_err(Error::io("make", &directory))?;
    clap_mangen::generate_to(Cli::command(), &directory).map_err(Error::io("write", &directory))?;
    tour::print(&format!("the pages are in {}", directory.display()))
}
