//! What commands ask for: rows that they do something with, in place of showing them.

use super::{Session, of};
use crate::cli::error::{Error, Result};
use crate::cli::sql::output::Output;
use crate::cli::sql::print::{Printer, Style};
use crate::cli::sql::wire::{Column, Fault, Row, Table, Wire};

impl Session {
    /// Rows for a command of ours; an error is shown, and there are none.
    pub async fn ask(&mut self, sql: &str) -> Result<Option<Vec<Row>>> {
        let Some(wire) = self.ready_wire().await? else { return Ok(None) };
        let found = wire.rows(sql).await;
        match found {
            Err(Fault::Said(said)) => {
                self.complain(&said, "");
                Ok(None)
            }
            found => self.unless_lost(found).await,
        }
    }

    /// Columns and rows of a statement, for a command that does something with them. An error is shown, and
    /// kept as any statement's is. SIGINT ends it. Of several statements it is the last that the command is
    /// for: what the others gave is shown.
    pub async fn table(
        &mut self,
        sql: &str,
        style: &Style,
        out: &mut Output,
    ) -> Result<Option<Table>> {
        let bound = self.bound.take();
        let mut earlier = Vec::new();
        if self.ready_wire().await?.is_none() {
            return Ok(None);
        }
        let Some(mut wire) = self.wire.take() else { return Ok(None) };
        let canceller = wire.canceller(self.login.clone());
        let asked = match &bound {
            Some(values) => wire.ask_with(sql, values).await,
            None => wire.ask(sql).await,
        };
        let found = match asked {
            Ok(()) => {
                let answer = wire.all(&mut earlier);
                tokio::pin!(answer);
                loop {
                    tokio::select! {
                        found = &mut answer => break found,
                        _ = self.interrupts.recv() => {
                            self.interrupted = true;
                            if let Err(error) = canceller.cancel().await {
                                let why = of(&error);
                                self.note(&format!("the statement could not be cancelled: {why}"));
                            }
                        }
                    }
                }
            }
            Err(error) => Err(error),
        };
        self.wire = Some(wire);
        for (columns, rows) in earlier {
            let mut printer = Printer::begin(style, columns);
            for row in rows {
                printer.row(row, out).map_err(Error::Print)?;
            }
            printer.finish(out).map_err(Error::Print)?;
        }
        out.flush()?;
        if let Ok((_, rows)) = &found {
            self.last_outcome = Ok(format!("SELECT {}", rows.len()));
        }
        self.unless_failed(sql, found).await
    }

    /// The columns that a statement would give.
    pub async fn columns_of(&mut self, sql: &str) -> Result<Option<Vec<Column>>> {
        let Some(wire) = self.ready_wire().await? else { return Ok(None) };
        let found = match wire.ask_columns(sql).await {
            Ok(()) => wire.all(&mut Vec::new()).await,
            Err(error) => Err(error),
        };
        let found = self.unless_failed(sql, found).await?;
        Ok(found.map(|(columns, _)| columns))
    }

    async fn ready_wire(&mut self) -> Result<Option<&mut Wire>> {
        Ok(if self.ready().await? { self.wire.as_mut() } else { None })
    }

    /// What was found, unless the statement failed, which is shown then.
    async fn unless_failed<T>(&mut self, sql: &str, found: Result<T, Fault>) -> Result<Option<T>> {
        match found {
            Err(Fault::Said(said)) => {
                self.fail(*said, sql);
                Ok(None)
            }
            found => self.unless_lost(found).await,
        }
    }

    /// What was found, unless the connection was lost; there is another one then.
    async fn unless_lost<T>(&mut self, found: Result<T, Fault>) -> Result<Option<T>> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) => {
                self.note(&format!("the connection was lost: {}", of(&error)));
                self.lose();
                self.connect_again().await?;
                Ok(None)
            }
        }
    }
}
