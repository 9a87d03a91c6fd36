//! Twilio's identifiers: two letters and 32 hexadecimal digits (Twilio's OpenAPI document, patterns
//! `^CA[0-9a-fA-F]{32}$` and so on). Thirty-four bytes, copied and never allocated.

use std::fmt;
use std::str::FromStr;

/// A text that is no identifier of the kind asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind} (two letters {prefix} and 32 hexadecimal digits)")]
pub struct NotASid {
    kind: &'static str,
    prefix: &'static str,
}

macro_rules! sid {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 34]);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                // Only ASCII passes the check of `from_str`.
                std::str::from_utf8(&self.0).unwrap_or_default()
            }
        }

        impl FromStr for $name {
            type Err = NotASid;
            fn from_str(text: &str) -> Result<Self, NotASid> {
                let refused = NotASid { kind: stringify!($name), prefix: $prefix };
                let bytes: [u8; 34] = text.as_bytes().try_into().map_err(|_| refused)?;
                let hex = bytes[2..].iter().all(u8::is_ascii_hexdigit);
                if bytes.starts_with($prefix.as_bytes()) && hex { Ok($name(bytes)) } else { Err(refused) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

sid!(
    /// One leg of a call.
    CallSid, "CA"
);
sid!(
    /// An account or subaccount.
    AccountSid, "AC"
);
sid!(
    /// A running conference.
    ConferenceSid, "CF"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_shape_passes() {
        let text = "CA0123456789abcdefABCDEF0123456789";
        assert_eq!(text.parse::<CallSid>().unwrap().as_str(), text);
        for wrong in [
            "",
            "CA",
            "CA123",
            "AC0123456789abcdef0123456789abcdef",
            "CA0123456789abcdef0123456789abcdeg",
        ] {
            assert!(wrong.parse::<CallSid>().is_err(), "{wrong}");
        }
        assert_eq!(
            "x".parse::<AccountSid>().unwrap_err().to_string(),
            "not a AccountSid (two letters AC and 32 hexadecimal digits)"
        );
    }
}
