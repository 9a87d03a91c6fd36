//! The framing of a chunked body, checked to the byte while it passes (RFC 9112 section 7.1).
//!
//! The framework puts the chunks together; but it takes an empty size for the end, and whatever stands in
//! an extension. Here a size is one to eight hexadecimal digits, each line ends with CR LF, extensions are
//! refused, since nobody uses them but to hide something, and trailers are fields.

/// The largest trailer section.
const LARGEST_TRAILERS: u16 = 4096;
/// The most digits of a size: a chunk of 4 GiB is none.
const MOST_DIGITS: u8 = 8;

/// How far a chunked body was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunks {
    at: At,
    /// Bytes of trailers so far.
    trailers: u16,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size { size: u64, digits: u8 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataEnd { seen_return: bool },
    Trailer { begins: bool, named: bool },
    TrailerEnd { is_last: bool },
    Over,
}

/// The body is not framed as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunks of the body are malformed")]
pub struct Malformed;

// === impl Chunks ===

impl Default for Chunks {
    fn default() -> Chunks {
        Chunks { at: At::Size { size: 0, digits: 0 }, trailers: 0 }
    }
}

impl Chunks {
    /// Reads on. What follows the body is nothing of it.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<(), Malformed> {
        while let Some((&byte, behind)) = bytes.split_first() {
            if let At::Data { left } = self.at {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                bytes = &bytes[taken..];
                self.at = match left - taken as u64 {
                    0 => At::DataEnd { seen_return: false },
                    left => At::Data { left },
                };
                continue;
            }
            if self.at == At::Over {
                return Ok(());
            }
            self.at = self.step(byte)?;
            bytes = behind;
        }
        Ok(())
    }

    fn step(&mut self, byte: u8) -> Result<At, Malformed> {
        match (self.at, byte) {
            (At::Size { size, digits }, _) if byte.is_ascii_hexdigit() && digits < MOST_DIGITS => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Ok(At::Size { size: size * 16 + u64::from(digit), digits: digits + 1 })
            }
            (At::Size { size, digits: 1.. }, b'\r') => Ok(At::SizeEnd { size }),
            (At::SizeEnd { size: 0 }, b'\n') => Ok(At::Trailer { begins: true, named: false }),
            (At::SizeEnd { size }, b'\n') => Ok(At::Data { left: size }),
            (At::DataEnd { seen_return: false }, b'\r') => Ok(At::DataEnd { seen_return: true }),
            (At::DataEnd { seen_return: true }, b'\n') => Ok(Chunks::default().at),
            (At::Trailer { begins: true, .. }, b'\r') => Ok(At::TrailerEnd { is_last: true }),
            (At::Trailer { begins: false, named: true }, b'\r') => {
                Ok(At::TrailerEnd { is_last: false })
            }
            (At::Trailer { begins, named }, _) => self.trailer(byte, begins, named),
            (At::TrailerEnd { is_last: true }, b'\n') => Ok(At::Over),
            (At::TrailerEnd { is_last: false }, b'\n') => {
                Ok(At::Trailer { begins: true, named: false })
            }
            _ => Err(Malformed),
        }
    }

    fn trailer(&mut self, byte: u8, begins: bool, named: bool) -> Result<At, Malformed> {
        self.trailers += 1;
        let fine = match (begins, named) {
            (_, true) => byte == b'\t' || (byte >= b' ' && byte != 0x7f),
            (true, false) => byte.is_ascii_graphic() && byte != b':',
            (false, false) => byte.is_ascii_graphic(),
        };
        if !fine || self.trailers > LARGEST_TRAILERS {
            return Err(Malformed);
        }
        Ok(At::Trailer { begins: false, named: named || byte == b':' })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a body at once and byte by byte.
    #[track_caller]
    fn check(body: &str, expect: Result<bool, Malformed>) {
        let mut at_once = Chunks::default();
        let result = at_once.read(body.as_bytes()).map(|()| at_once.at == At::Over);
        let mut piecewise = Chunks::default();
        let in_pieces = body.as_bytes().chunks(1).try_for_each(|byte| piecewise.read(byte));
        assert_eq!(in_pieces.map(|()| piecewise.at == At::Over), result, "{body:?}");
        assert_eq!(result, expect, "{body:?}");
    }

    #[test]
    fn chunks_as_they_should_be_pass() {
        for body in [
            "0\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            "00A\r\n0123456789\r\n1\r\n\n\r\n000\r\n\r\n",
            "0\r\nX: 1\r\nY:\r\n\r\n",
            "0\r\n\r\nGET /next HTTP/1.1\r\n",
        ] {
            check(body, Ok(true));
        }
        for half in ["", "3", "3\r", "3\r\nab", "3\r\nabc\r", "0\r\n", "0\r\nX: 1\r\n"] {
            check(half, Ok(false));
        }
    }

    #[test]
    fn everything_else_does_not() {
        for body in [
            "\r\n",
            "\n",
            "x\r\n",
            "+3\r\n",
            "-3\r\n",
            "0x3\r\n",
            "3 \r\n",
            " 3\r\n",
            "3;x=1\r\n",
            "3\n",
            "3\r3",
            "3\r\nabcd",
            "3\r\nabc\n",
            "3\r\nabc\r\r",
            "123456789\r\n",
            "0\r\nX\r\n",
            "0\r\n: 1\r\n",
            "0\r\n X: 1\r\n",
            "0\r\nX: 1\n",
            "0\r\nX: \0\r\n",
            "0\r\n\rX",
        ] {
            check(body, Err(Malformed));
        }
        check(&format!("0\r\nX: {}\r\n", "x".repeat(5000)), Err(Malformed));
    }
}
