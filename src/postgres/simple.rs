//! The simple protocol: one message, any number of statements, text results.

use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse};

use super::extended::row_description;
use super::portal::{Failure, Portal, encoder};
use super::session::{Client, Trouble, ready};
use super::sqlstate::Report;
use crate::query::life::Source;
use crate::query::{Outcome, Session};
use crate::values::encode::Format;

impl Client {
    /// Runs the statements of a message in order, up to the first that fails.
    pub async fn simple(&mut self, text: &str) -> Result<(), Failure> {
        self.extended.forget_unnamed();
        match self.statements(text).await {
            Ok(()) => {}
            Err(Trouble::Report(report)) if !report.fatal => self.report(report)?,
            Err(Trouble::Report(report)) => return self.part(report).await,
            Err(Trouble::Failure(Failure::Query(error))) => match Report::from(error) {
                report if report.fatal => return self.part(report).await,
                report => self.report(report)?,
            },
            Err(Trouble::Failure(gone)) => return Err(gone),
        }
        self.extended.end_portals(self.session.transaction_state());
        ready(&mut self.connection, &self.session)?;
        Ok(self.connection.flush().await?)
    }

    /// The failure ends the connection.
    async fn part(&mut self, report: Report) -> Result<(), Failure> {
        self.report(report)?;
        self.connection.close().await;
        Err(Failure::Gone(std::io::ErrorKind::ConnectionAborted.into()))
    }

    async fn statements(&mut self, text: &str) -> Result<(), Trouble> {
        let sources = Session::parse(text)?;
        if sources.is_empty() {
            self.connection.put(Backend::EmptyQueryResponse(EmptyQueryResponse::new()))?;
        }
        for source in sources {
            self.statement(&source).await?;
        }
        Ok(())
    }

    async fn statement(&mut self, source: &Source) -> Result<(), Trouble> {
        let registered = self.session.start(source.text())?;
        let mut prepared = self.session.prepare(&registered, source, Vec::new()).await?;
        if let Some(count) = std::num::NonZeroUsize::new(prepared.parameters().len()) {
            return Err(Report::error("42P02", format!("there is no parameter ${count}")).into());
        }
        let before = self.session.settings().clone();
        let schema = prepared.schema();
        let formats = vec![Format::Text; schema.fields().len()];
        let transform = encoder(&schema, formats.clone(), self.style())?;
        match self.session.execute(registered, &mut prepared, Vec::new(), transform).await? {
            Outcome::Rows(running) => {
                let description = row_description(&schema, &formats);
                self.connection.put(Backend::RowDescription(description))?;
                Portal::new(running).send(&mut self.connection, None).await?;
            }
            Outcome::Done(done) => {
                self.notify(done.notices)?;
                if let Some(which) = done.deallocate {
                    self.extended.deallocate(which.as_deref())?;
                }
                self.report_settings(&before)?;
                let tag = CommandComplete::new(done.tag.to_owned());
                self.connection.put(Backend::CommandComplete(tag))?;
            }
        }
        Ok(())
    }
}
