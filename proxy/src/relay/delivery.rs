//! The delivery id: the name under which an upstream tells a repeated visit from a new one.

use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// The six bits that are written as a hyphen.
const HYPHEN: u8 = 62;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Derives the id from Twilio's idempotency token, the URL and the body, so that two edges that
/// share nothing agree on it. Without a token every arrival is new: a caller who skips twice sends
/// two identical requests.
pub fn id(token: Option<&[u8]>, public_url: &str, target: &str, body: &[u8]) -> String {
    let mut bytes = [0u8; 18];
    match token {
        Some(token) => {
            let mut hash = Sha256::new();
            for part in [token, public_url.as_bytes(), target.as_bytes(), body] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            bytes.copy_from_slice(&hash.finalize()[..18]);
        }
        None if getrandom::fill(&mut bytes).is_ok() => {}
        // Without randomness, time and a count are the next best names that nothing else has.
        None => {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let now = crate::clock::unix_ms();
            bytes[..8].copy_from_slice(&now.to_be_bytes());
            bytes[8..16].copy_from_slice(&count.to_be_bytes());
        }
    }
    // An id is given to command lines, where a hyphen in front would make it an option.
    if bytes[0] >> 2 == HYPHEN {
        bytes[0] ^= 0x80;
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_agree_by_token_and_nothing_else_collides() {
        let of =
            |token: &[u8], target: &str, body: &[u8]| id(Some(token), "https://a", target, body);
        assert_eq!(of(b"t", "/x", b"b"), of(b"t", "/x", b"b"));
        assert_ne!(of(b"t", "/x", b"b"), of(b"u", "/x", b"b"));
        assert_ne!(of(b"t", "/x", b"b"), of(b"t", "/xb", b""));
        assert_ne!(id(None, "https://a", "/x", b"b"), id(None, "https://a", "/x", b"b"));
    }

    #[test]
    fn no_id_looks_like_an_option() {
        for n in 0..1000u32 {
            let id = id(Some(&n.to_be_bytes()), "https://a", "/x", b"");
            assert!(!id.starts_with('-'), "{n}: {id}");
        }
    }
}
