//! Where results go: standard output, a file, or a program.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write, stdout};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use super::variables::{Variables, arguments};
use crate::cli::error::{Error, Result};

pub enum Output {
    Stdout(BufWriter<Stdout>),
    File(BufWriter<File>),
    Program(BufWriter<ChildStdin>, Child),
}

impl Output {
    pub fn stdout() -> Self {
        Self::Stdout(BufWriter::new(stdout()))
    }

    /// What a command names: a file, in whose name variables stand for their values, or a program, as it
    /// is written, where `|` is. What a variable holds is never run.
    pub fn of_argument(text: &str, variables: &Variables) -> Result<Self> {
        if text.starts_with('|') {
            return Self::open(text);
        }
        match &arguments(text, variables)[..] {
            [file] => Self::file(file),
            _ => Err(Error::Usage("one file: quote a name with spaces in it".to_owned())),
        }
    }

    /// A file, or a program where `|` stands before it.
    pub fn open(target: &str) -> Result<Self> {
        match target.strip_prefix('|') {
            Some(program) => Self::program(program),
            None => Self::file(target),
        }
    }

    /// What a program reads.
    pub fn program(program: &str) -> Result<Self> {
        let failed = |source| Error::Io { what: format!("write to {program}"), source };
        let mut child = Command::new("sh")
            .args(["-c", program])
            .stdin(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        match child.stdin.take() {
            Some(input) => Ok(Self::Program(BufWriter::new(input), child)),
            None => Err(failed(io::ErrorKind::BrokenPipe.into())),
        }
    }

    pub fn file(path: &str) -> Result<Self> {
        let failed = |source| Error::Io { what: format!("write to {path}"), source };
        Ok(Self::File(BufWriter::new(File::create(path).map_err(failed)?)))
    }

    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Stdout(out) if out.get_ref().is_terminal())
    }

    /// Whether something waits to be written.
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Stdout(out) => !out.buffer().is_empty(),
            Self::File(out) => !out.buffer().is_empty(),
            Self::Program(out, _) => !out.buffer().is_empty(),
        }
    }

    pub fn flush(&mut self) -> Result<()> {
        Write::flush(self).map_err(Error::Print)
    }

    /// Ends what was begun, and waits for the program, if it is one: how that has ended.
    pub fn close(mut self) -> Result<Option<ExitStatus>> {
        let flushed = self.flush();
        let Self::Program(out, mut child) = self else { return flushed.map(|()| None) };
        drop(out);
        let failed = |source| Error::Io { what: "wait for the program".into(), source };
        let ended = child.wait().map_err(failed)?;
        flushed.map(|()| Some(ended))
    }

    fn inner(&mut self) -> &mut dyn Write {
        match self {
            Self::Stdout(out) => out,
            Self::File(out) => out,
            Self::Program(out, _) => out,
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner().flush()
    }
}
