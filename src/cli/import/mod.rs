//! `oribi import`: CSV, JSON lines or Parquet into a managed table, part by part.
//!
//! Each part is one transaction, which adds the rows and notes the part in the table
//! `oribi_imports`: so an import that was interrupted, or whose connection was lost in the middle of a
//! commit, goes on exactly behind the last part that is there when it is run again. Nothing is added
//! twice. Where the notes are of another state of the file or of parts of another size, or where the table
//! has fewer rows than its parts had, it refuses to guess; rows that others have put in place of removed ones
//! hide that.
//!
//! - [`parts`]: a file as parts of CSV, cut between records.

mod parts;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures::SinkExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio_postgres::Client as Connection;

use self::parts::{Columns, Part, Parts, Start};
use super::error::{Error, Result};
use super::link::Link;
use super::link::client::{Client, is_lost};
use super::{runtime, tour};
use crate::wording::counted;

const APPLICATION: &str = "oribi import";

/// Where parts are noted, beside the table.
const NOTES: &str = "oribi_imports";

/// Bytes of a message with rows: a daemon refuses those of 64 MiB.
const MESSAGE: usize = 1 << 20;

/// Bytes of the smallest parts: each is a commit.
const LEAST_PART: u64 = 4 << 10;

/// Times that one part is tried again when the connection is lost.
const ATTEMPTS: usize = 5;

/// SQLSTATE of a transaction that another was quicker than.
const CONFLICT: &str = "40001";

/// Times that the notes' removal meets one before it is given up.
const MOST_CONFLICTS: usize = 100;

#[derive(Debug, Args)]
pub struct Options {
    /// The file: .csv, .json (an object a line), .jsonl, .ndjson or .parquet.
    file: PathBuf,
    /// The table, as "table" or "schema.table".
    table: String,
    /// What the file is, if its name does not say.
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Make the table if it is not there: with Parquet's types, or those that a sample of the values has.
    #[arg(long)]
    create: bool,
    /// The first line of a CSV file is a record too: it does not name columns.
    #[arg(long)]
    no_header: bool,
    /// What stands between the values of a CSV file.
    #[arg(long, default_value = ",", value_name = "CHARACTER")]
    delimiter: char,
    /// Bytes of one part, at least 4 KiB.
    #[arg(long, default_value = "64MiB", value_name = "SIZE")]
    part: bytesize::ByteSize,
    /// Begin anew, even if a part of this file is in the table already: what is there stays.
    #[arg(long)]
    restart: bool,
    /// Say what was done as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    link: Link,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Csv,
    /// An object a line.
    Json,
    Parquet,
}

#[derive(Debug, Serialize)]
struct Done {
    table: String,
    rows: u64,
    parts: u64,
    /// Parts that were there before.
    resumed: u64,
    seconds: f64,
}

pub fn run(options: Options) -> Result<()> {
    if options.file.as_os_str() == "-" {
        return Err(Error::Usage(format!(
            "an import goes on where it was interrupted, for which standard input would have to be there again: \
             write it into a file first, or use oribi sql -c \"\\copy {} from pstdin csv header\"",
            options.table
        )));
    }
    if let Some(program) = unpacked_by(&options.file) {
        let file = options.file.display();
        let reason = format!("{file} is compressed: unpack it first ({program} {file})");
        return Err(Error::Usage(reason));
    }
    let format = options.format.or_else(|| of_name(&options.file)).ok_or_else(|| {
        let file = options.file.display();
        Error::Usage(format!("{file}: what is it? --format csv, json or parquet says so"))
    })?;
    let (json, runtime) = (options.json, runtime()?);
    let (done, notes) = runtime.block_on(async {
        tokio::select! {
            done = import(options, format) => done,
            _ = tokio::signal::ctrl_c() => Err(Error::Interrupted),
        }
    })?;
    tell(&done, json)?;
    // Only now: whoever is interrupted before has not been told, and runs it again.
    runtime.block_on(notes.forget())
}

fn tell(done: &Done, json: bool) -> Result<()> {
    if json {
        let text = serde_json::to_string(done).map_err(|error| Error::Rows(error.to_string()))?;
        return tour::print(&text);
    }
    let resumed = match done.resumed {
        0 => String::new(),
        1 => "; 1 part was there from before".to_owned(),
        parts => format!("; {parts} parts were there from before"),
    };
    let (rows, parts) = (counted(done.rows, "row"), counted(done.parts, "part"));
    tour::print(&format!("{rows} in {parts} into {} in {:.1} s{resumed}", done.table, done.seconds))
}

fn of_name(file: &Path) -> Option<Format> {
    match file.extension()?.to_str()?.to_lowercase().as_str() {
        "csv" => Some(Format::Csv),
        "json" | "jsonl" | "ndjson" => Some(Format::Json),
        "parquet" => Some(Format::Parquet),
        _ => None,
    }
}

/// The program for a file whose name says that it is compressed, as a whole.
fn unpacked_by(file: &Path) -> Option<&'static str> {
    match file.extension()?.to_str()?.to_lowercase().as_str() {
        "gz" => Some("gunzip -k"),
        "zst" => Some("unzstd"),
        "bz2" => Some("bunzip2 -k"),
        "xz" => Some("unxz -k"),
        "zip" => Some("unzip"),
        _ => None,
    }
}

/// Imports a file, but for the notes, which are to be forgotten once it is told that all is there.
async fn import(options: Options, format: Format) -> Result<(Done, Noted)> {
    let since = std::time::Instant::now();
    let Options { file, table, create, no_header, delimiter, part, restart, link, .. } = options;
    let delimiter = u8::try_from(delimiter)
        .ok()
        .filter(u8::is_ascii)
        .ok_or_else(|| Error::Usage("the delimiter must be one ASCII character".to_owned()))?;
    let path = std::fs::canonicalize(&file).map_err(Error::io("read", &file))?;
    if part.as_u64() < LEAST_PART {
        return Err(Error::Usage(format!("--part {part}: parts have at least 4 KiB")));
    }
    let bytes = usize::try_from(part.as_u64()).unwrap_or(usize::MAX);
    let mut parts = Parts::open(&path, format, !no_header, delimiter, bytes)?;
    let mut client = link.open(APPLICATION).await?;
    let target = Target::of(&table);
    let made = create && target.make(&mut client, &parts).await?;
    let file = File { path: &path, bytes, restart };
    match target.fill(&mut client, &mut parts, &file).await {
        Ok(Filled { id, rows, parts, resumed }) => {
            let seconds = since.elapsed().as_secs_f64();
            let done = Done { table, rows, parts, resumed, seconds };
            Ok((done, Noted { client, target, id }))
        }
        Err(error) => {
            // What was guessed of a file that has to be mended would keep the mended one out.
            if made {
                target.unmake(&mut client).await;
            }
            Err(error)
        }
    }
}

/// What is imported, and how.
struct File<'a> {
    path: &'a Path,
    /// Of one part.
    bytes: usize,
    restart: bool,
}

/// The notes of an import that has ended.
struct Noted {
    client: Client,
    target: Target,
    id: String,
}

impl Noted {
    /// The same file may come again.
    async fn forget(mut self) -> Result<()> {
        let condition = format!("import = {}", literal(&self.id));
        let mut conflicts = 0;
        loop {
            match self.target.forget(&mut self.client, &condition).await {
                // Somebody has noted something else.
                Err(Error::Statement(error))
                    if error.code().is_some_and(|code| code.code() == CONFLICT)
                        && conflicts < MOST_CONFLICTS =>
                {
                    conflicts += 1;
                }
                done => return done,
            }
        }
    }
}

struct Filled {
    id: String,
    rows: u64,
    parts: u64,
    resumed: u64,
}

/// How an import is noted.
struct Import {
    /// The file as it is, how it is cut, and the table: by its identifier, since another may come to its name.
    id: String,
    /// What notes of the same file begin with, and those of the same table end with.
    file: String,
    table: String,
}

impl Import {
    fn of(path: &Path, target: &Target, oid: i64, bytes: usize) -> Result<Self> {
        let found = std::fs::metadata(path).map_err(Error::io("read", path))?;
        let changed = found.modified().map_err(Error::io("read", path))?;
        let changed = changed.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let file = format!("{} ", path.display());
        let table = format!(" {} {oid}", target.name);
        Ok(Self { id: format!("{file}{} {changed} {bytes}{table}", found.len()), file, table })
    }

    /// The condition for notes of the file, in whatever state and parts.
    fn any(&self) -> String {
        let (file, table) = (literal(&self.file), literal(&self.table));
        format!(
            "left(import, length({file})) = {file} AND right(import, length({table})) = {table}"
        )
    }
}

fn bar(size: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr());
    let template = "{msg} [{bar:40}] {bytes} of {total_bytes}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn literal(text: &str) -> String {
    super::sql::describe::literal(text)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn execute(client: &mut Client, sql: &str) -> Result<()> {
    client.link().await?.batch_execute(sql).await.map_err(Error::Statement)
}

/// The table that rows are put into.
struct Target {
    /// In quotes, with its schema if that was given.
    name: String,
    schema: Option<String>,
    table: String,
    notes: String,
}

impl Target {
    fn of(text: &str) -> Self {
        let fold = |name: &str| match name.strip_prefix('"').and_then(|name| name.strip_suffix('"'))
        {
            Some(exact) => exact.replace("\"\"", "\""),
            None => name.to_lowercase(),
        };
        let (schema, table) = match text.split_once('.') {
            Some((schema, table)) => (Some(fold(schema)), fold(table)),
            None => (None, fold(text)),
        };
        let place = schema.as_deref().map(|schema| quoted(schema) + ".").unwrap_or_default();
        let (name, notes) = (place.clone() + &quoted(&table), place + NOTES);
        Self { name, schema, table, notes }
    }

    /// Makes the table; whether it was not there before.
    async fn make(&self, client: &mut Client, parts: &Parts) -> Result<bool> {
        let columns = parts.columns_of_file()?;
        if !self.columns_of(client, &self.table).await?.is_empty() {
            return Ok(false);
        }
        // A table that nobody has meant is more trouble than one that is not made.
        if let (Some(doubt), [(name, _)]) = (parts.doubt(), &columns[..]) {
            return Err(Error::Usage(format!(
                "the only column of the table would be \"{name}\". {doubt}; if not, make the table first: CREATE \
                 TABLE {} ({} text)",
                self.name,
                quoted(name)
            )));
        }
        let columns = columns.iter().map(|(name, kind)| format!("{} {kind}", quoted(name)));
        let columns = columns.collect::<Vec<_>>().join(", ");
        match execute(client, &format!("CREATE TABLE {} ({columns})", self.name)).await {
            Ok(()) => Ok(true),
            // Somebody else was quicker, or a reply was lost.
            Err(Error::Statement(error)) if error.code().is_some_and(|c| c.code() == "42P07") => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the table away that an import has made, if nothing is in it. Others may put rows into it meanwhile,
    /// on any daemon: its files are left, so that they are not lost with it. Whatever goes wrong here says
    /// less than what made the import fail.
    async fn unmake(&self, client: &mut Client) {
        let Ok(connection) = client.link().await else { return };
        // What this daemon knows of the table may be older than what others have put into it.
        if connection.batch_execute("SET oribi.consistency = 'strong'").await.is_err() {
            return;
        }
        let sql = format!("SELECT 1 FROM {} LIMIT 1", self.name);
        if connection.query_opt(&sql, &[]).await.is_ok_and(|row| row.is_none()) {
            let _ = connection.batch_execute(&format!("DROP TABLE {}", self.name)).await;
        }
    }

    /// Puts the file's records into the table, from where an earlier attempt has stopped.
    async fn fill(
        &self,
        client: &mut Client,
        parts: &mut Parts,
        file: &File<'_>,
    ) -> Result<Filled> {
        self.prepare_notes(client).await?;
        let columns = self.columns(client).await?;
        parts.choose(&columns)?;
        let import = Import::of(file.path, self, self.oid(client).await?, file.bytes)?;
        if file.restart {
            self.forget(client, &import.any()).await?;
        }
        let there = self.resume(client, &import).await?;
        let id = import.id;
        let bar = bar(parts.size());
        let (mut rows, mut number) = (0, 0);
        while let Some(part) = parts.next()? {
            number += 1;
            bar.set_position(part.position);
            if number <= there {
                continue;
            }
            rows += self.add(client, parts, &id, number, part).await?;
            bar.set_message(counted(rows, "row"));
        }
        bar.finish_and_clear();
        Ok(Filled { id, rows, parts: number - there, resumed: there })
    }

    /// Makes the table for notes.
    async fn prepare_notes(&self, client: &mut Client) -> Result<()> {
        // Who may add notes need not be who may make or change their table.
        let known = self.columns_of(client, NOTES).await?;
        if known.is_empty() {
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS {} (import text NOT NULL, part bigint NOT NULL, rows bigint)",
                self.notes
            );
            execute(client, &sql).await?;
        } else if !known.iter().any(|name| name == "rows") {
            // One that an older version has made.
            let sql = format!("ALTER TABLE {} ADD COLUMN IF NOT EXISTS rows bigint", self.notes);
            execute(client, &sql).await?;
        }
        Ok(())
    }

    /// The table's object identifier.
    async fn oid(&self, client: &mut Client) -> Result<i64> {
        let sql = format!("SELECT {}::regclass::oid::bigint", literal(&self.name));
        let row = client.link().await?.query_one(&sql, &[]).await.map_err(Error::Statement)?;
        row.try_get(0).map_err(Error::Statement)
    }

    async fn forget(&self, client: &mut Client, condition: &str) -> Result<()> {
        execute(client, &format!("DELETE FROM {} WHERE {condition}", self.notes)).await
    }

    /// The last part that is in the table, if it is sure which ones are.
    async fn resume(&self, client: &mut Client, import: &Import) -> Result<u64> {
        let (notes, name, id) = (&self.notes, &self.name, literal(&import.id));
        let sql = format!(
            "SELECT (SELECT count(*) FROM {notes} WHERE {} AND import <> {id}), \
             (SELECT coalesce(sum(rows), 0)::bigint FROM {notes} WHERE import = {id}), \
             (SELECT count(*) FROM {name})",
            import.any()
        );
        let row = client.link().await?.query_one(&sql, &[]).await.map_err(Error::Statement)?;
        let number = |at: usize| row.try_get::<_, i64>(at).map_err(Error::Statement);
        let (others, noted, rows) = (number(0)?, number(1)?, number(2)?);
        let file = import.file.trim_end();
        if others > 0 {
            return Err(Error::NotInForce(format!(
                "parts of {file} ({others}) are in {name} already, from an import that did not end: the file has \
                 changed since, or --part was another. Go on with that --part, or remove their rows and say \
                 --restart"
            )));
        }
        if rows < noted {
            return Err(Error::NotInForce(format!(
                "{name} has {}, and parts of {file} with {noted} were put into it: some have been \
                 removed since. --restart imports the whole file, beside what is there",
                counted(rows.unsigned_abs(), "row")
            )));
        }
        self.last_part(client, &import.id).await
    }

    /// The table's columns, in their order.
    async fn columns(&self, client: &mut Client) -> Result<Columns> {
        let names = self.columns_of(client, &self.table).await?;
        match names.is_empty() {
            true => Err(Error::NotInForce(format!(
                "there is no table {}: --create makes it",
                self.name
            ))),
            false => Ok(names),
        }
    }

    /// The columns of a table in the same schema, as far as the role may know of them.
    async fn columns_of(&self, client: &mut Client, table: &str) -> Result<Columns> {
        let schema = match &self.schema {
            Some(schema) => literal(schema),
            None => "current_schema()".to_owned(),
        };
        let sql = format!(
            "SELECT column_name::text FROM information_schema.columns \
             WHERE table_schema = {schema} AND table_name = {} ORDER BY ordinal_position",
            literal(table)
        );
        let rows = client.link().await?.query(&sql, &[]).await.map_err(Error::Statement)?;
        let names = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>();
        names.map_err(Error::Statement)
    }

    async fn last_part(&self, client: &mut Client, id: &str) -> Result<u64> {
        let sql = format!(
            "SELECT coalesce(max(part), 0) FROM {} WHERE import = {}",
            self.notes,
            literal(id)
        );
        let row = client.link().await?.query_one(&sql, &[]).await.map_err(Error::Statement)?;
        let last: i64 = row.try_get(0).map_err(Error::Statement)?;
        Ok(last.unsigned_abs())
    }

    /// Adds a part; the number of its rows. When the connection is lost, the notes say whether it is
    /// there.
    async fn add(
        &self,
        client: &mut Client,
        parts: &Parts,
        id: &str,
        number: u64,
        part: Part,
    ) -> Result<u64> {
        let Part { csv, start, .. } = part;
        let mut lost = 0;
        while lost < ATTEMPTS {
            let connection = client.link().await?;
            match self.try_add(connection, parts, id, number, csv.clone()).await {
                Ok(Some(rows)) => return Ok(rows),
                Ok(None) => return Err(self.is_imported_by_another(number)),
                // Somebody has noted something else.
                Err(error) if error.code().is_some_and(|code| code.code() == CONFLICT) => {
                    let _ = client.link().await?.batch_execute("ROLLBACK").await;
                    continue;
                }
                Err(error) if is_lost(&error) => client.lose(),
                Err(error) if error.code().is_some_and(|code| code.code() == "08007") => {}
                Err(error) => {
                    // What was begun is undone with the connection as well.
                    let _ = client.link().await?.batch_execute("ROLLBACK").await;
                    return Err(self.bad_record(parts, (start, &csv), number, error));
                }
            }
            if self.last_part(client, id).await? >= number {
                return Ok(parts::records(&csv));
            }
            lost += 1;
        }
        Err(Error::Unreachable(format!(
            "the connection is lost again and again at part {number}: run it again, and it goes on there"
        )))
    }

    fn is_imported_by_another(&self, number: u64) -> Error {
        Error::NotInForce(format!(
            "part {number} of the file has just been put into {} by somebody else who imports it: wait until they \
             are done; if they stop before, run it again, and it goes on there",
            self.name
        ))
    }

    /// Says which record of the file a daemon has refused, and how to go on.
    fn bad_record(
        &self,
        parts: &Parts,
        (start, csv): (Start, &[u8]),
        number: u64,
        source: tokio_postgres::Error,
    ) -> Error {
        let context = source.as_db_error().and_then(|error| error.where_());
        let Some((line, rest)) = context.and_then(place_of_copy) else {
            return Error::Statement(source);
        };
        let Ok(place) = parts.place(start, csv, line) else { return Error::Statement(source) };
        let name = &self.name;
        let advice = match number {
            1 => format!("nothing of the file is in {name}: mend it, and run the import again"),
            _ => format!(
                "the parts before it ({}) are in {name}. Change the column's type (ALTER TABLE ... ALTER COLUMN ... \
                 TYPE ...), if it is too narrow, and run the import again: it goes on behind them. To mend the \
                 file, remove their rows first, and run it with --restart",
                number - 1
            ),
        };
        Error::Record { place: place + rest, advice, source }
    }

    /// Adds a part and its note, or neither; `None` if somebody else has added it.
    async fn try_add(
        &self,
        connection: &Connection,
        parts: &Parts,
        id: &str,
        number: u64,
        mut csv: Bytes,
    ) -> Result<Option<u64>, tokio_postgres::Error> {
        connection.batch_execute("BEGIN").await?;
        let columns = parts.chosen().iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        let delimiter = char::from(parts.delimiter());
        let copy = format!(
            "COPY {} ({columns}) FROM STDIN (FORMAT csv, DELIMITER {})",
            self.name,
            literal(&delimiter.to_string())
        );
        let sink = connection.copy_in::<_, Bytes>(&copy).await?;
        let mut sink = std::pin::pin!(sink);
        while !csv.is_empty() {
            sink.send(csv.split_to(MESSAGE.min(csv.len()))).await?;
        }
        let rows = sink.finish().await?;
        let (notes, id) = (&self.notes, literal(id));
        // From here to the end nobody else may note anything, or this fails with a conflict.
        connection.batch_execute(&format!("LOCK TABLE {notes}")).await?;
        let there = format!("SELECT 1 FROM {notes} WHERE import = {id} AND part = {number}");
        if connection.query_opt(&there, &[]).await?.is_some() {
            connection.batch_execute("ROLLBACK").await?;
            return Ok(None);
        }
        let note = format!(
            "INSERT INTO {notes} (import, part, rows) VALUES ({id}, {number}, {rows}); COMMIT"
        );
        connection.batch_execute(&note).await?;
        Ok(Some(rows))
    }
}

/// The line of COPY's data that a message is about, and what is said of it besides: `COPY t, line 3, column
/// a: "x"`, as PostgreSQL has it.
fn place_of_copy(context: &str) -> Option<(u64, &str)> {
    // A table's name may hold anything.
    let (_, rest) = context.split_once(", line ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((rest[..end].parse().ok()?, &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_of_copy_is_read() {
        for (context, expected) in [
            ("COPY t, line 3, column a: \"x\"", Some((3, ", column a: \"x\""))),
            ("COPY t, line 12: \"1,2\"", Some((12, ": \"1,2\""))),
            ("COPY t, line 7", Some((7, ""))),
            ("PL/pgSQL function", None),
        ] {
            assert_eq!(place_of_copy(context), expected, "{context}");
        }
    }
}
