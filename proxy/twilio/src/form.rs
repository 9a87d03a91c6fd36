//! Form bodies and query strings, as Twilio writes them.
//!
//! Order, repeated names and blank values are kept, because all three are part of what Twilio signs
//! (twilio-python issue 613; Twilio's security page forbids trimming). What is not a form is refused
//! with the byte at which it stops being one, never repaired: a repaired body has another signature.

use std::fmt;

/// More pairs than any Twilio callback carries; a bound on work, not a rule of Twilio's.
pub const MAX_PAIRS: usize = 512;

/// A decoded form: name and value pairs in the order received.
///
/// All text lives in one allocation; a pair is three offsets into it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Form {
    text: String,
    pairs: Vec<Pair>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Pair {
    start: u32,
    middle: u32,
    end: u32,
}

/// Why a body is not a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// A `%` that two hexadecimal digits do not follow.
    #[error("bad percent-encoding at byte {at}")]
    BadPercent {
        /// Offset of the `%` in the body.
        at: usize,
    },
    /// A name or value whose bytes, once decoded, are not UTF-8.
    #[error("not UTF-8 in the pair that starts at byte {at}")]
    NotUtf8 {
        /// Offset of the pair in the body.
        at: usize,
    },
    /// More than [`MAX_PAIRS`] pairs.
    #[error("more than {MAX_PAIRS} pairs")]
    TooManyPairs,
    /// The body does not fit 32-bit offsets.
    #[error("longer than 4 GiB")]
    TooLong,
}

// === impl Form ===

impl Form {
    /// Reads `application/x-www-form-urlencoded` bytes. Empty pieces (`a=1&&b=2`) are skipped and a
    /// piece without `=` is a name with a blank value, as the official libraries do.
    pub fn parse(body: &[u8]) -> Result<Form, FormError> {
        if u32::try_from(body.len()).is_err() {
            return Err(FormError::TooLong);
        }
        let mut decoded = Vec::with_capacity(body.len());
        let mut pairs = Vec::with_capacity(32);
        let mut at = 0;
        for piece in body.split(|&byte| byte == b'&') {
            if !piece.is_empty() {
                if pairs.len() == MAX_PAIRS {
                    return Err(FormError::TooManyPairs);
                }
                pairs.push(decode_pair(piece, at, &mut decoded)?);
            }
            at += piece.len() + 1;
        }
        let text = match String::from_utf8(decoded) {
            Ok(text) => text,
            Err(error) => {
                let bad = error.utf8_error().valid_up_to();
                let pair = pairs.partition_point(|pair: &Pair| pair.end as usize <= bad);
                return Err(FormError::NotUtf8 { at: nth_piece(body, pair) });
            }
        };
        // A character may not be split over two names or values either.
        let whole = |at: u32| text.is_char_boundary(at as usize);
        match pairs.iter().position(|pair| !whole(pair.middle) || !whole(pair.end)) {
            Some(pair) => Err(FormError::NotUtf8 { at: nth_piece(body, pair) }),
            None => Ok(Form { text, pairs }),
        }
    }

    /// Builds a form from pairs; used by whoever sends one.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Form {
        let mut form = Form::default();
        for (name, value) in pairs {
            form.push(name.as_ref(), value.as_ref());
        }
        form
    }

    /// Appends a pair.
    pub fn push(&mut self, name: &str, value: &str) {
        let offset = |text: &String| u32::try_from(text.len()).unwrap_or(u32::MAX);
        let start = offset(&self.text);
        self.text.push_str(name);
        let middle = offset(&self.text);
        self.text.push_str(value);
        let end = offset(&self.text);
        self.pairs.push(Pair { start, middle, end });
    }

    /// The first value of `name`, blank values included.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The first value of `name` unless it is blank.
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// All pairs in the order received.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.pairs.iter().map(|pair| {
            let (start, middle, end) =
                (pair.start as usize, pair.middle as usize, pair.end as usize);
            (&self.text[start..middle], &self.text[middle..end])
        })
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are no pairs at all.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The form as `application/x-www-form-urlencoded` text, blanks as `+`.
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(self.text.len() * 3 / 2 + self.pairs.len() * 2);
        for (index, (name, value)) in self.iter().enumerate() {
            if index > 0 {
                out.push('&');
            }
            encode_into(&mut out, name);
            out.push('=');
            encode_into(&mut out, value);
        }
        out
    }
}

/// Shows names only: values are telephone numbers and PINs.
impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

/// Percent-encodes one component of a form or query (everything but unreserved bytes; blank as `+`).
pub fn encode_into(out: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text.as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            _ => {
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
}

/// Where the pair of this number starts in the body.
fn nth_piece(body: &[u8], pair: usize) -> usize {
    let mut at = 0;
    let mut seen = 0;
    for piece in body.split(|&byte| byte == b'&') {
        if !piece.is_empty() {
            if seen == pair {
                break;
            }
            seen += 1;
        }
        at += piece.len() + 1;
    }
    at
}

fn decode_pair(piece: &[u8], at: usize, out: &mut Vec<u8>) -> Result<Pair, FormError> {
    let split = piece.iter().position(|&byte| byte == b'=').unwrap_or(piece.len());
    let start = out.len();
    decode(&piece[..split], at, out)?;
    let middle = out.len();
    if split < piece.len() {
        decode(&piece[split + 1..], at + split + 1, out)?;
    }
    let offset = |n: usize| u32::try_from(n).map_err(|_| FormError::TooLong);
    Ok(Pair { start: offset(start)?, middle: offset(middle)?, end: offset(out.len())? })
}

fn decode(bytes: &[u8], at: usize, out: &mut Vec<u8>) -> Result<(), FormError> {
    let mut rest = bytes;
    while let Some(special) = rest.iter().position(|&byte| matches!(byte, b'+' | b'%')) {
        out.extend_from_slice(&rest[..special]);
        if rest[special] == b'+' {
            out.push(b' ');
            rest = &rest[special + 1..];
            continue;
        }
        let digit = |n: usize| rest.get(special + n).and_then(|&d| char::from(d).to_digit(16));
        let (Some(high), Some(low)) = (digit(1), digit(2)) else {
            return Err(FormError::BadPercent { at: at + bytes.len() - rest.len() + special });
        };
        // Two hexadecimal digits always fit a byte.
        out.push((high * 16 + low) as u8);
        rest = &rest[special + 3..];
    }
    out.extend_from_slice(rest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(body: &str, expect: &[(&str, &str)]) {
        let form = Form::parse(body.as_bytes()).unwrap();
        assert_eq!(form.iter().collect::<Vec<_>>(), expect);
    }

    #[test]
    fn keeps_blanks_order_and_repeats() {
        check("b=2&a=&b=1&c", &[("b", "2"), ("a", ""), ("b", "1"), ("c", "")]);
    }

    #[test]
    fn skips_empty_pieces_and_keeps_later_equals_signs() {
        check("&&a=1=2&", &[("a", "1=2")]);
    }

    #[test]
    fn decodes_plus_percent_and_utf8() {
        check(
            "From=%2B15005550006&Name=J%C3%BCrg+Li",
            &[("From", "+15005550006"), ("Name", "Jürg Li")],
        );
    }

    #[test]
    fn an_empty_body_is_an_empty_form() {
        check("", &[]);
    }

    #[test]
    fn names_the_place_of_a_fault() {
        assert_eq!(Form::parse(b"a=1&b=%2"), Err(FormError::BadPercent { at: 6 }));
        assert_eq!(Form::parse(b"a=%zz"), Err(FormError::BadPercent { at: 2 }));
        assert_eq!(Form::parse(b"a=1&b=%ff"), Err(FormError::NotUtf8 { at: 4 }));
        // A character may not be split over name and value either.
        assert_eq!(Form::parse(b"%c3=%bc"), Err(FormError::NotUtf8 { at: 0 }));
        let many = "a=1&".repeat(MAX_PAIRS + 1);
        assert_eq!(Form::parse(many.as_bytes()), Err(FormError::TooManyPairs));
    }

    #[test]
    fn debug_output_holds_no_values() {
        let form = Form::from_pairs([("Digits", "1234567")]);
        assert_eq!(format!("{form:?}"), r#"["Digits"]"#);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(pairs in proptest::collection::vec((".*", ".*"), 0..20)) {
            let form = Form::from_pairs(pairs.iter().map(|(n, v)| (n, v)));
            let back = Form::parse(form.encode().as_bytes()).unwrap();
            prop_assert_eq!(back.iter().collect::<Vec<_>>(), form.iter().collect::<Vec<_>>());
        }

        #[test]
        fn no_body_makes_it_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Form::parse(&body);
        }
    }
}
