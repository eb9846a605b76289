//! Rows of COPY's binary format, once they are there as a whole.

use super::columns::Place;
use super::error::Fault;

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Flags that a reader must know; the lowest of them says that there are OIDs.
const CRITICAL: u32 = 0xffff_0000;
const WITH_OIDS: u32 = 1 << 16;

/// Finds rows, wherever the bytes are cut.
#[derive(Debug)]
pub(super) struct Rows {
    columns: usize,
    limit: usize,
    state: State,
    /// How many rows have begun.
    pub number: u64,
    /// Where the values of the present row are, from its start; none for null.
    fields: Vec<Option<(usize, usize)>>,
    /// How far the present row was looked through.
    scanned: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    /// Bytes of the header's extension that are still to be skipped.
    Extension(usize),
    Rows,
    /// After the trailer.
    Over,
}

/// What the bytes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A row of so many bytes.
    Row(usize),
    /// So many bytes that matter no longer.
    Skip(usize),
    More,
    End,
}

impl Rows {
    pub fn new(columns: usize, limit: usize) -> Self {
        Self { columns, limit, state: State::Header, number: 0, fields: Vec::new(), scanned: 0 }
    }

    /// The number of the row that is not there as a whole.
    pub fn expected(&self) -> u64 {
        self.number + u64::from(self.scanned == 0)
    }

    /// Where a fault is: in the field that comes next, once a row has begun.
    pub fn place(&self) -> Place<'static> {
        match self.state {
            State::Header | State::Extension(_) => Place::Nowhere,
            State::Rows | State::Over if self.scanned > 0 => Place::Column(self.fields.len(), None),
            State::Rows | State::Over => Place::Row,
        }
    }

    /// A value of the row that was found.
    pub fn get<'a>(&self, row: &'a [u8], at: usize) -> Option<&'a [u8]> {
        let (start, end) = (*self.fields.get(at)?)?;
        row.get(start..end)
    }

    /// How many values of the present row are there.
    pub fn known(&self) -> usize {
        self.fields.len()
    }

    /// Looks for the next row. Nothing follows `data` if it is the `last`.
    pub fn next(&mut self, data: &[u8], last: bool) -> Result<Found, Fault> {
        match self.state {
            State::Header => self.header(data, last),
            State::Extension(0) => {
                self.state = State::Rows;
                self.row(data, last)
            }
            State::Extension(_) if data.is_empty() && last => {
                Err(Fault::format("invalid COPY file header (wrong length)"))
            }
            State::Extension(left) => {
                let skipped = left.min(data.len());
                self.state = State::Extension(left - skipped);
                Ok(if skipped == 0 { Found::More } else { Found::Skip(skipped) })
            }
            State::Rows => self.row(data, last),
            State::Over if data.is_empty() => Ok(if last { Found::End } else { Found::More }),
            State::Over => Err(Fault::format("received copy data after EOF marker")),
        }
    }

    fn header(&mut self, data: &[u8], last: bool) -> Result<Found, Fault> {
        let missing = |what: &str| match last {
            true => Err(Fault::format(what)),
            false => Ok(Found::More),
        };
        const UNKNOWN: &str = "COPY file signature not recognized";
        let Some((signature, rest)) = data.split_first_chunk::<11>() else {
            return missing(UNKNOWN);
        };
        if signature != SIGNATURE {
            return Err(Fault::format(UNKNOWN));
        }
        let Some((flags, rest)) = rest.split_first_chunk::<4>() else {
            return missing("invalid COPY file header (missing flags)");
        };
        match u32::from_be_bytes(*flags) & CRITICAL {
            0 => {}
            critical if critical & WITH_OIDS != 0 => {
                return Err(Fault::format("invalid COPY file header (WITH OIDS)"));
            }
            _ => return Err(Fault::format("unrecognized critical flags in COPY file header")),
        }
        const NO_LENGTH: &str = "invalid COPY file header (missing length)";
        let Some((length, _)) = rest.split_first_chunk::<4>() else { return missing(NO_LENGTH) };
        let length = usize::try_from(i32::from_be_bytes(*length));
        self.state = State::Extension(length.map_err(|_| Fault::format(NO_LENGTH))?);
        Ok(Found::Skip(SIGNATURE.len() + 8))
    }

    fn row(&mut self, data: &[u8], last: bool) -> Result<Found, Fault> {
        if self.scanned == 0 {
            let Some((count, _)) = data.split_first_chunk::<2>() else {
                // The trailer may be missing.
                self.number += u64::from(last);
                return Ok(if last { Found::End } else { Found::More });
            };
            self.fields.clear();
            self.number += 1;
            let count = i16::from_be_bytes(*count);
            if count == -1 {
                self.state = State::Over;
                return Ok(Found::Skip(2));
            }
            if usize::try_from(count).ok() != Some(self.columns) {
                let columns = self.columns;
                let text = format!("row field count is {count}, expected {columns}");
                return Err(Fault::format(text));
            }
            self.scanned = 2;
        }
        while self.fields.len() < self.columns {
            let start = self.scanned + 4;
            let Some(length) = data.get(self.scanned..).and_then(|rest| rest.first_chunk::<4>())
            else {
                return missing(last);
            };
            let field = match i32::from_be_bytes(*length) {
                -1 => None,
                length => {
                    let length = usize::try_from(length);
                    let end = start + length.map_err(|_| Fault::format("invalid field size"))?;
                    if end > self.limit {
                        return Err(Fault::TooLong { limit: self.limit });
                    }
                    if end > data.len() {
                        return missing(last);
                    }
                    Some((start, end))
                }
            };
            self.scanned = field.map_or(start, |(_, end)| end);
            self.fields.push(field);
        }
        Ok(Found::Row(std::mem::take(&mut self.scanned)))
    }
}

fn missing(last: bool) -> Result<Found, Fault> {
    match last {
        true => Err(Fault::format("unexpected EOF in COPY data")),
        false => Ok(Found::More),
    }
}
