//! The simple protocol: one message, any number of statements, text results.

use std::num::NonZeroUsize;

use datafusion::common::ScalarValue;
use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::response::EmptyQueryResponse;

use super::extended::row_description;
use super::reading::Failure;
use super::session::{Client, Trouble};
use super::sqlstate::Report;
use crate::query::{Prepared, Registered, Session};
use crate::values::encode::Format;

impl Client {
    /// Runs the statements of a message in order, up to the first that fails.
    pub async fn simple(&mut self, text: &str) -> Result<(), Failure> {
        self.extended.forget_unnamed();
        let done = self.statements(text).await;
        self.session.set_several(false);
        let well = done.is_ok();
        match done {
            Ok(()) => {}
            Err(Trouble::Report(report)) if !report.fatal => self.report(report)?,
            Err(Trouble::Report(report)) => return self.part(report).await,
            Err(Trouble::Failure(Failure::Query(error))) => match self.report_of(error) {
                report if report.fatal => return self.part(report).await,
                report => self.report(report)?,
            },
            Err(Trouble::Failure(gone)) => return Err(gone),
        }
        self.extended.portals.end_turn(self.session.transaction_state(), well);
        self.ready()?;
        Ok(self.connection.flush().await?)
    }

    /// The failure ends the connection.
    pub async fn part(&mut self, report: Report) -> Result<(), Failure> {
        self.report(report)?;
        self.connection.close().await;
        Err(Failure::Gone(std::io::ErrorKind::ConnectionAborted.into()))
    }

    async fn statements(&mut self, text: &str) -> Result<(), Trouble> {
        if let Some(mut prepared) = self.session.known(text, &[]) {
            let registered = self.session.start(&prepared.text)?;
            return self.carry_out(registered, &mut prepared, Vec::new()).await;
        }
        let mut begun = None;
        if let Some(again) = self.session.again(text) {
            let registered = self.session.start(again.text())?;
            let found = self.session.prepare_again(&registered, again).await;
            if let Some((mut prepared, values)) = found {
                return self.carry_out(registered, &mut prepared, values).await;
            }
            begun = Some(registered);
        }
        let sources = Session::parse(text)?;
        if sources.is_empty() {
            self.connection.put(Backend::EmptyQueryResponse(EmptyQueryResponse::new()))?;
        }
        let alone = sources.len() == 1;
        self.session.set_several(!alone);
        for source in sources {
            let registered = match begun.take() {
                Some(registered) => registered,
                None => self.session.start(source.text())?,
            };
            let mut prepared = self.session.prepare(&registered, &source, Vec::new()).await?;
            if alone {
                self.session.note(text, &prepared);
            }
            self.carry_out(registered, &mut prepared, Vec::new()).await?;
        }
        Ok(())
    }

    async fn carry_out(
        &mut self,
        registered: Registered,
        prepared: &mut Prepared,
        values: Vec<ScalarValue>,
    ) -> Result<(), Trouble> {
        if let Some(count) = NonZeroUsize::new(prepared.parameters().len())
            && values.is_empty()
        {
            return Err(Report::error("42P02", format!("there is no parameter ${count}")).into());
        }
        match prepared.object_command().cloned() {
            Some(command) => self.object(registered, prepared, &command, Vec::new()).await?,
            None => self.answer(registered, prepared, values).await?,
        }
        let notices = self.session.settle().await?;
        Ok(self.notify(notices)?)
    }

    /// Runs a statement and sends all that comes of it, in text.
    pub async fn answer(
        &mut self,
        registered: Registered,
        prepared: &mut Prepared,
        values: Vec<ScalarValue>,
    ) -> Result<(), Trouble> {
        let schema = prepared.schema();
        let formats = vec![Format::Text; schema.fields().len()];
        if let Some(mut reading) = self.run_prepared(registered, prepared, values, &formats).await?
        {
            reading.settle(&mut self.connection).await?;
            let description = row_description(&schema, &formats);
            self.connection.put(Backend::RowDescription(description))?;
            self.send(&mut reading, None, None).await?;
        }
        Ok(())
    }
}
