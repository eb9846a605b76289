//! What a server says, as lines that can be compared and read.

use std::fmt::Write;
use std::io;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{self, ErrorFields, Message};

use crate::session::Heard;

/// The steps of a case, each with what was heard after it.
pub type Transcript = Vec<(String, Vec<Heard>)>;

/// A line for a message. `texts`: with the texts of errors and notices.
pub fn shown(heard: &Heard, texts: bool) -> String {
    match heard {
        Heard::Message(message) => line(message, texts).unwrap_or_else(|error| error.to_string()),
        Heard::Negotiation(body) => format!("NegotiateProtocolVersion {body:?}"),
        Heard::Nonsense(what) => format!("NOT UNDERSTOOD {what}"),
        Heard::Nothing => "NOTHING CAME".to_owned(),
        Heard::End => "closed".to_owned(),
    }
}

fn line(message: &Message, texts: bool) -> io::Result<String> {
    Ok(match message {
        Message::AuthenticationOk => "AuthenticationOk".to_owned(),
        Message::BackendKeyData(_) => "BackendKeyData".to_owned(),
        Message::ParseComplete => "ParseComplete".to_owned(),
        Message::BindComplete => "BindComplete".to_owned(),
        Message::CloseComplete => "CloseComplete".to_owned(),
        Message::NoData => "NoData".to_owned(),
        Message::PortalSuspended => "PortalSuspended".to_owned(),
        Message::EmptyQueryResponse => "EmptyQueryResponse".to_owned(),
        Message::CopyDone => "CopyDone".to_owned(),
        Message::CopyData(body) => format!("CopyData {}", bytes(body.data())),
        Message::CopyInResponse(body) => {
            let formats: Vec<_> = body.column_formats().collect()?;
            format!("CopyInResponse {} {formats:?}", body.format())
        }
        Message::CopyOutResponse(body) => {
            let formats: Vec<_> = body.column_formats().collect()?;
            format!("CopyOutResponse {} {formats:?}", body.format())
        }
        Message::CommandComplete(body) => format!("CommandComplete {}", body.tag()?),
        Message::ReadyForQuery(body) => format!("ReadyForQuery {}", char::from(body.status())),
        Message::ParameterStatus(body) => match body.name()? {
            // A minor version that is no matter of the protocol.
            name @ "server_version" => format!("ParameterStatus {name}"),
            name => format!("ParameterStatus {name}={}", body.value()?),
        },
        Message::ParameterDescription(body) => {
            format!("ParameterDescription {:?}", body.parameters().collect::<Vec<_>>()?)
        }
        Message::RowDescription(body) => format!("RowDescription {}", columns(body)?),
        Message::DataRow(body) => format!("DataRow {}", row(body)?),
        Message::ErrorResponse(body) => format!("Error {}", fields(body.fields(), texts)?),
        Message::NoticeResponse(body) => format!("Notice {}", fields(body.fields(), texts)?),
        Message::NotificationResponse(body) => {
            format!("Notification {} {}", body.channel()?, body.message()?)
        }
        _ => "another kind of message".to_owned(),
    })
}

/// Name, type, size, modifier and format of each column; where a column comes from is not compared.
fn columns(body: &backend::RowDescriptionBody) -> io::Result<String> {
    let column = |field: backend::Field| {
        let (name, oid, size) = (field.name(), field.type_oid(), field.type_size());
        let (modifier, format) = (field.type_modifier(), field.format());
        Ok(format!("{name}:{oid}:{size}:{modifier}:{format}"))
    };
    Ok(body.fields().map(column).collect::<Vec<_>>()?.join(" "))
}

fn row(body: &backend::DataRowBody) -> io::Result<String> {
    let value = |range: Option<std::ops::Range<usize>>| {
        Ok(range.map_or_else(|| "NULL".to_owned(), |range| bytes(&body.buffer()[range])))
    };
    Ok(body.ranges().map(value).collect::<Vec<_>>()?.join(" "))
}

/// Text where it is that, in quotes, and hexadecimal digits where not.
fn bytes(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains(|c: char| c.is_control() && c != '\n' && c != '\t') => {
            format!("{text:?}")
        }
        _ => value.iter().fold("x".to_owned(), |mut all, byte| {
            write!(all, "{byte:02x}").ok();
            all
        }),
    }
}

/// Severity and SQLSTATE, and the text if it is wanted.
fn fields(mut fields: ErrorFields<'_>, texts: bool) -> io::Result<String> {
    let mut shown = String::new();
    while let Some(field) = fields.next()? {
        let wanted = match field.type_() {
            b'S' | b'V' | b'C' => true,
            b'M' => texts,
            _ => false,
        };
        if wanted {
            write!(
                shown,
                "{}={} ",
                char::from(field.type_()),
                String::from_utf8_lossy(field.value_bytes())
            )
            .ok();
        }
    }
    Ok(shown)
}

/// Failures whose place in the client's text Oribi tells, if it knows it for sure.
const PLACED: &[&str] = &["42703", "42702", "42P01", "42883", "22P02"];

/// Places in texts that are told for the same failure and are not PostgreSQL's.
pub fn wrong_places(theirs: &Transcript, ours: &Transcript) -> Vec<String> {
    let errors = |transcript: &Transcript| -> Vec<(String, Option<String>)> {
        let heard = transcript.iter().flat_map(|(_, heard)| heard);
        heard.filter_map(code_and_place).collect()
    };
    let pairs = errors(theirs).into_iter().zip(errors(ours));
    let wrong = pairs.filter(|((code, place), (own, own_place))| {
        code == own && PLACED.contains(&code.as_str()) && own_place.is_some() && own_place != place
    });
    wrong.map(|(theirs, ours)| format!("{ours:?} instead of {theirs:?}")).collect()
}

fn code_and_place(heard: &Heard) -> Option<(String, Option<String>)> {
    let Heard::Message(Message::ErrorResponse(body)) = heard else { return None };
    let (mut code, mut place, mut fields) = (String::new(), None, body.fields());
    while let Ok(Some(field)) = fields.next() {
        let text = || String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => code = text(),
            b'P' => place = Some(text()),
            _ => {}
        }
    }
    Some((code, place))
}

/// Both, step by step, with a mark at what only one side says.
pub fn compared(theirs: &Transcript, ours: &Transcript) -> String {
    let mut report = String::new();
    let steps = if ours.len() > theirs.len() { ours } else { theirs };
    for (at, (step, _)) in steps.iter().enumerate() {
        writeln!(report, "    {}", step.replace('\n', " ")).ok();
        let (theirs, ours) = (answers(theirs, at), answers(ours, at));
        let mut show = |mark: char, lines: &[String]| {
            for line in lines {
                writeln!(report, "      {mark} {line}").ok();
            }
        };
        if theirs == ours {
            continue;
        }
        // Equal beginnings and ends; what is between is shown of each.
        let start = theirs.iter().zip(&ours).take_while(|(a, b)| a == b).count();
        let rest = theirs.len().min(ours.len()) - start;
        let pairs = theirs.iter().rev().zip(ours.iter().rev());
        let end = pairs.take(rest).take_while(|(a, b)| a == b).count();
        show(' ', &theirs[..start]);
        show('-', &theirs[start..theirs.len() - end]);
        show('+', &ours[start..ours.len() - end]);
        show(' ', &theirs[theirs.len() - end..]);
    }
    report
}

fn answers(transcript: &Transcript, step: usize) -> Vec<String> {
    let heard = transcript.get(step).map(|(_, heard)| &heard[..]);
    heard.unwrap_or_default().iter().map(|heard| shown(heard, true)).collect()
}

/// Whether both say the same. `texts`: also in the texts of errors and notices.
pub fn same(theirs: &Transcript, ours: &Transcript, texts: bool) -> bool {
    let line = |heard: &[Heard]| heard.iter().map(|heard| shown(heard, texts)).collect::<Vec<_>>();
    theirs.len() == ours.len() && theirs.iter().zip(ours).all(|((_, a), (_, b))| line(a) == line(b))
}

/// A few digits that another transcript does not have: FNV-1a, folded to 32 bits.
pub fn digest(transcript: &Transcript, texts: bool) -> String {
    let lines = transcript.iter().flat_map(|(_, heard)| heard).map(|heard| shown(heard, texts));
    let hash = lines
        .flat_map(|line| (line + "\n").into_bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
    format!("{:08x}", (hash >> 32) as u32 ^ hash as u32)
}
