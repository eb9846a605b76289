//! Bytes as text and back, in the three forms of PostgreSQL's `encode` and `decode`.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is wrong, in PostgreSQL's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("unrecognized encoding: \"{0}\"")]
    Unknown(String),
    #[error("invalid hexadecimal digit: \"{0}\"")]
    Digit(char),
    #[error("invalid hexadecimal data: odd number of digits")]
    OddDigits,
    #[error("invalid symbol \"{0}\" found while decoding base64 sequence")]
    Symbol(char),
    #[error("invalid base64 end sequence")]
    End,
    #[error("invalid input syntax for type bytea")]
    Escape,
}

impl Error {
    /// The error code that PostgreSQL gives in this case.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Escape => "22P02",
            _ => "22023",
        }
    }
}

/// A form of bytes as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Armor {
    Hex,
    /// With padding, and a line break after each 76 characters.
    Base64,
    /// Zero, and bytes beyond ASCII, as `\ooo`.
    Escape,
}

/// The bytes of a line of base64.
const LINE: usize = 57;

/// Padding may be missing only in the error that says so; bits beyond the last byte do not matter.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

impl Armor {
    pub fn named(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "hex" => Ok(Self::Hex),
            "base64" => Ok(Self::Base64),
            "escape" => Ok(Self::Escape),
            _ => Err(Error::Unknown(name.to_owned())),
        }
    }

    pub fn encode(self, bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len() * 2);
        match self {
            Self::Hex => bytes.iter().for_each(|byte| {
                text.extend(
                    [byte >> 4, byte & 15].map(|digit| char::from(HEX[usize::from(digit)])),
                );
            }),
            Self::Base64 => bytes.chunks(LINE).for_each(|line| {
                STANDARD.encode_string(line, &mut text);
                if line.len() == LINE {
                    text.push('\n');
                }
            }),
            Self::Escape => bytes.iter().for_each(|byte| match byte {
                0 | 0x80.. => {
                    text.push('\\');
                    text.extend([6, 3, 0].map(|shift| char::from(b'0' + (byte >> shift & 7))));
                }
                b'\\' => text.push_str("\\\\"),
                byte => text.push(char::from(*byte)),
            }),
        }
        text
    }

    pub fn decode(self, text: &str) -> Result<Vec<u8>> {
        match self {
            Self::Hex => hex(text),
            Self::Base64 => base64(text),
            Self::Escape => escaped(text),
        }
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\n' | '\t' | '\r')
}

fn hex(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut digits = text.chars().filter(|c| !is_space(*c));
    let value = |c: char| c.to_digit(16).map(|digit| digit as u8).ok_or(Error::Digit(c));
    while let Some(high) = digits.next() {
        let high = value(high)?;
        bytes.push(high << 4 | value(digits.next().ok_or(Error::OddDigits)?)?);
    }
    Ok(bytes)
}

fn base64(text: &str) -> Result<Vec<u8>> {
    let text: String = text.chars().filter(|c| !is_space(*c)).collect();
    let known = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    if let Some(symbol) = text.chars().find(|c| !known(*c)) {
        return Err(Error::Symbol(symbol));
    }
    LENIENT.decode(text).map_err(|_| Error::End)
}

fn escaped(text: &str) -> Result<Vec<u8>> {
    let mut rest = text.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    let octal = |digit: u8| digit - b'0';
    while let Some((first, tail)) = rest.split_first() {
        (rest, _) = match (*first, tail) {
            (b'\\', [b'\\', tail @ ..]) => (tail, bytes.push(b'\\')),
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                (tail, bytes.push(octal(*a) << 6 | octal(*b) << 3 | octal(*c)))
            }
            (b'\\', _) => return Err(Error::Escape),
            (byte, tail) => (tail, bytes.push(byte)),
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        for armor in [Armor::Hex, Armor::Base64, Armor::Escape] {
            for length in [0, 1, 2, 3, 56, 57, 58, 114, 256] {
                let bytes = &all[..length];
                assert_eq!(armor.decode(&armor.encode(bytes)).as_deref(), Ok(bytes), "{armor:?}");
            }
        }
    }

    /// Against PostgreSQL 15.
    #[test]
    fn forms_and_errors_are_those_of_postgres() {
        assert_eq!(Armor::Escape.encode(b"a\0\\\xff\x7f"), "a\\000\\\\\\377\x7f");
        assert_eq!(Armor::Base64.encode(b"a"), "YQ==");
        assert_eq!(Armor::Base64.encode(&[0; 57]), format!("{}\n", "A".repeat(76)));
        assert_eq!(Armor::Base64.decode("Y Q\n=="), Ok(b"a".to_vec()));
        assert_eq!(Armor::Base64.decode("YQ"), Err(Error::End));
        assert_eq!(Armor::Base64.decode("Y*=="), Err(Error::Symbol('*')));
        assert_eq!(Armor::Hex.decode("4 1"), Ok(b"A".to_vec()));
        assert_eq!(Armor::Hex.decode("x"), Err(Error::Digit('x')));
        assert_eq!(Armor::Hex.decode("4"), Err(Error::OddDigits));
        assert_eq!(Armor::Escape.decode("\\400"), Err(Error::Escape));
        assert_eq!(Armor::named("rot13"), Err(Error::Unknown("rot13".to_owned())));
    }
}
