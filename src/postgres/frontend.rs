//! What clients send, decoded without trusting any length or count in it.
//!
//! `pgwire` decodes these, too, but a short or lying message makes it panic or read into the next
//! one; here each message is cut out first and everything in it is checked.

use bytes::{Buf, Bytes};

/// A message after the start-up phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frontend {
    Query(String),
    Parse {
        name: String,
        query: String,
        types: Vec<u32>,
    },
    Bind(Bind),
    Describe(Target),
    Execute {
        portal: String,
        max_rows: i32,
    },
    Close(Target),
    Flush,
    Sync,
    Terminate,
    /// Where no COPY waits for them, these are left over from one that failed: ignored, as
    /// PostgreSQL does.
    CopyData(Bytes),
    CopyDone,
    /// The reason, as it came.
    CopyFail(Bytes),
    FunctionCall,
    Password(Bytes),
    /// Of a known type, and of its length, but not what that type is to hold: the client is told,
    /// and may go on.
    Invalid {
        kind: u8,
        reason: Malformed,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    pub portal: String,
    pub statement: String,
    pub parameter_formats: Vec<i16>,
    pub parameters: Vec<Option<Bytes>>,
    pub result_formats: Vec<i16>,
}

/// What Describe and Close are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Statement(String),
    Portal(String),
}

/// The first answer of a client that is asked to prove who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaslInitialResponse {
    pub mechanism: String,
    pub data: Bytes,
}

/// The bytes are no message of the protocol; in PostgreSQL's words where it has some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("invalid frontend message: {0}")]
    Invalid(&'static str),
    #[error("invalid frontend message type {0}")]
    UnknownType(u8),
    #[error("insufficient data left in message")]
    TooShort,
    #[error("invalid message format")]
    LeftOver,
    #[error("invalid string in message")]
    EndlessString,
    #[error("invalid {message} message subtype {subtype}")]
    Subtype { message: &'static str, subtype: u8 },
    #[error("invalid byte sequence for encoding \"UTF8\"")]
    NotUtf8,
}

impl Malformed {
    /// Its SQLSTATE.
    pub fn code(self) -> &'static str {
        if self == Self::NotUtf8 { "22021" } else { "08P01" }
    }
}

impl Frontend {
    /// Takes a message's body apart; an error if there is no message of that type.
    pub fn decode(kind: u8, body: Bytes) -> Result<Self, Malformed> {
        if !b"QPBDECHSXFdcfp".contains(&kind) {
            return Err(Malformed::UnknownType(kind));
        }
        let message = Self::read(kind, body);
        Ok(message.unwrap_or_else(|reason| Self::Invalid { kind, reason }))
    }

    /// Whether it ends the skipping that an error began.
    pub fn is_sync(&self) -> bool {
        matches!(self, Self::Sync | Self::Invalid { kind: b'S', .. })
    }

    /// The byte by which the protocol tells it from others.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Query(_) => b'Q',
            Self::Parse { .. } => b'P',
            Self::Bind(_) => b'B',
            Self::Describe(_) => b'D',
            Self::Execute { .. } => b'E',
            Self::Close(_) => b'C',
            Self::Flush => b'H',
            Self::Sync => b'S',
            Self::Terminate => b'X',
            Self::CopyData(_) => b'd',
            Self::CopyDone => b'c',
            Self::CopyFail(_) => b'f',
            Self::FunctionCall => b'F',
            Self::Password(_) => b'p',
            Self::Invalid { kind, .. } => *kind,
        }
    }

    fn read(kind: u8, body: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader(body);
        let message = match kind {
            b'Q' => Self::Query(reader.string()?),
            b'P' => Self::Parse {
                name: reader.string()?,
                query: reader.string()?,
                types: reader.list(|reader| reader.u32())?,
            },
            b'B' => Self::Bind(Bind {
                portal: reader.string()?,
                statement: reader.string()?,
                parameter_formats: reader.list(|reader| reader.i16())?,
                parameters: reader.list(Reader::value)?,
                result_formats: reader.list(|reader| reader.i16())?,
            }),
            b'D' => Self::Describe(reader.target("DESCRIBE")?),
            b'E' => Self::Execute { portal: reader.string()?, max_rows: reader.u32()? as i32 },
            b'C' => Self::Close(reader.target("CLOSE")?),
            b'H' => Self::Flush,
            b'S' => Self::Sync,
            b'X' => Self::Terminate,
            b'F' => return Ok(Self::FunctionCall),
            b'd' => return Ok(Self::CopyData(reader.0)),
            b'c' => return Ok(Self::CopyDone),
            b'f' => return Ok(Self::CopyFail(reader.0)),
            b'p' => return Ok(Self::Password(reader.0)),
            other => return Err(Malformed::UnknownType(other)),
        };
        match reader.0.is_empty() {
            true => Ok(message),
            false => Err(Malformed::LeftOver),
        }
    }
}

impl SaslInitialResponse {
    /// Decodes the body of [`Frontend::Password`], which alone does not say what it is.
    pub fn decode(body: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader(body);
        let mechanism = reader.string()?;
        let data = reader.value()?.ok_or(Malformed::Invalid("the SASL message is empty"))?;
        match reader.0.is_empty() {
            true => Ok(Self { mechanism, data }),
            false => Err(Malformed::LeftOver),
        }
    }
}

/// Takes values off the front, as long as there are any.
struct Reader(Bytes);

impl Reader {
    fn need(&self, length: usize) -> Result<(), Malformed> {
        match self.0.len() >= length {
            true => Ok(()),
            false => Err(Malformed::TooShort),
        }
    }

    fn i16(&mut self) -> Result<i16, Malformed> {
        self.need(2)?;
        Ok(self.0.get_i16())
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.need(4)?;
        Ok(self.0.get_u32())
    }

    fn string(&mut self) -> Result<String, Malformed> {
        let end = self.0.iter().position(|byte| *byte == 0);
        let text = self.0.split_to(end.ok_or(Malformed::EndlessString)?);
        self.0.advance(1);
        String::from_utf8(text.into()).map_err(|_| Malformed::NotUtf8)
    }

    /// A 16-bit count and as many items. Nothing is reserved for what is only claimed.
    fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.i16()? as u16;
        (0..count).map(|_| item(self)).collect()
    }

    fn value(&mut self) -> Result<Option<Bytes>, Malformed> {
        match self.u32()? as i32 {
            -1 => Ok(None),
            length @ 0.. => {
                let length = length as usize;
                self.need(length)?;
                Ok(Some(self.0.split_to(length)))
            }
            _ => Err(Malformed::TooShort),
        }
    }

    fn target(&mut self, message: &'static str) -> Result<Target, Malformed> {
        self.need(1)?;
        match self.0.get_u8() {
            b'S' => Ok(Target::Statement(self.string()?)),
            b'P' => Ok(Target::Portal(self.string()?)),
            subtype => Err(Malformed::Subtype { message, subtype }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind() -> Vec<u8> {
        let mut body = b"portal\0statement\0".to_vec();
        body.extend([0, 1, 0, 1]);
        body.extend([0, 2, 0, 0, 0, 1, b'x', 0xff, 0xff, 0xff, 0xff]);
        body.extend([0, 1, 0, 0]);
        body
    }

    #[test]
    fn bind_is_read_in_full() {
        let expected = Bind {
            portal: "portal".into(),
            statement: "statement".into(),
            parameter_formats: vec![1],
            parameters: vec![Some(Bytes::from_static(b"x")), None],
            result_formats: vec![0],
        };
        assert_eq!(Frontend::decode(b'B', bind().into()), Ok(Frontend::Bind(expected)));
    }

    #[test]
    fn a_sasl_response_is_read_in_full() {
        let whole = b"SCRAM\0\0\0\0\x03n,,";
        let expected =
            SaslInitialResponse { mechanism: "SCRAM".into(), data: Bytes::from_static(b"n,,") };
        assert_eq!(SaslInitialResponse::decode(Bytes::from_static(whole)), Ok(expected));
        for end in 0..whole.len() {
            let cut = Bytes::copy_from_slice(&whole[..end]);
            assert!(SaslInitialResponse::decode(cut).is_err(), "{end}");
        }
        for wrong in [&b"SCRAM\0\xff\xff\xff\xff"[..], b"SCRAM\0\0\0\0\x01nn"] {
            assert!(SaslInitialResponse::decode(Bytes::from_static(wrong)).is_err());
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_an_error_or_another_message() {
        let whole = bind();
        for end in 0..whole.len() {
            let cut = Frontend::decode(b'B', Bytes::copy_from_slice(&whole[..end]));
            assert!(matches!(cut, Ok(Frontend::Invalid { kind: b'B', .. })));
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                for kind in 0..=u8::MAX {
                    let _ = Frontend::decode(kind, changed.clone().into());
                }
            }
        }
    }
}
