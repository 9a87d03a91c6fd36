//! Twilio's request signature, made and checked.
//!
//! Source: twilio.com/docs/usage/security and the official libraries. The signed text is the URL as
//! Twilio asked for it, followed by the form's pairs sorted by name, de-duplicated, without
//! delimiters; a body that is no form is covered by its SHA-256 in the query (`bodySHA256`). Because
//! Twilio is inconsistent about the port and about `'`, `@` and `:` in queries, each spelling that
//! it is known to use is tried; nothing else is. Comparison takes constant time.
//!
//! The URL comes from configuration, never from a `Host` header: whoever can choose the URL can
//! choose what was signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret as _, SecretString};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::form::Form;
use crate::public_url::PublicUrl;
use crate::sid::AccountSid;

/// A signing key: an account's auth token, or one of its webhook shared keys.
#[derive(Clone)]
pub struct Key(Keyed);

#[derive(Clone)]
enum Keyed {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
}

/// The keys this process knows, by account and by shared key id. Several auth tokens an account are
/// allowed, so that a token can be rotated without refusing a single request.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    tokens: Vec<(AccountSid, Key)>,
    shared: Vec<(String, SecretKey)>,
}

#[derive(Clone)]
struct SecretKey(SecretString);

/// What a signature covers beside the URL.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// Nothing: a GET, or an empty body.
    Empty,
    /// A form body.
    Form(&'a Form),
    /// Any other body, which must be covered by `bodySHA256` in the query.
    Raw(&'a [u8]),
}

/// A request as the check sees it.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// `X-Twilio-Signature`.
    pub signature: Option<&'a str>,
    /// `X-Twilio-Webhooks-Signature-Settings`: which shared key and algorithm were used.
    pub settings: Option<&'a str>,
    /// The public URL configured for the listener.
    pub base: &'a PublicUrl,
    /// Path and query, to the byte as received.
    pub target: &'a str,
    /// The body.
    pub content: Content<'a>,
    /// `AccountSid` of the request, where it has one.
    pub account: Option<AccountSid>,
}

/// How a request was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Whether the very signature received is the one that [`Keyring::signer`] would make for the
    /// same base and target, so that it need not be made again.
    pub is_current: bool,
}

/// Why a request is not proven to come from Twilio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unproven {
    /// No `X-Twilio-Signature`.
    #[error("no signature")]
    Missing,
    /// The signature is not base64 of a digest.
    #[error("malformed signature")]
    Malformed,
    /// No auth token is configured for the request's account.
    #[error("unknown account")]
    UnknownAccount,
    /// The shared key named in the settings header is not configured.
    #[error("unknown shared key")]
    UnknownKey,
    /// The settings header names an algorithm that does not exist.
    #[error("unknown algorithm")]
    UnknownAlgorithm,
    /// A body that is no form, and no `bodySHA256` to cover it, or a wrong one.
    #[error("body not covered by the signature")]
    BodyNotCovered,
    /// Every spelling and every key was tried.
    #[error("signature does not match")]
    Mismatch,
}

// === impl Key ===

impl Key {
    /// An account's auth token: HMAC-SHA1.
    pub fn auth_token(token: &SecretString) -> Key {
        Key(Keyed::Sha1(sha1_of(token)))
    }

    /// A webhook shared key, with HMAC-SHA256.
    pub fn shared(secret: &SecretString) -> Key {
        Key(Keyed::Sha256(sha256_of(secret)))
    }

    /// The signature of `url` (base and target together) and `content`, in base64.
    pub fn sign(&self, base: &str, target: &str, content: Content<'_>) -> String {
        let pairs = sorted_pairs(content);
        STANDARD.encode(self.digest([base, target, ""], &pairs))
    }

    fn digest(&self, url: [&str; 3], pairs: &[(&str, &str)]) -> Digest {
        fn feed<M: Mac>(mut mac: M, url: [&str; 3], pairs: &[(&str, &str)]) -> Digest {
            for part in url {
                mac.update(part.as_bytes());
            }
            for (name, value) in pairs {
                mac.update(name.as_bytes());
                mac.update(value.as_bytes());
            }
            let bytes = mac.finalize().into_bytes();
            let mut digest = Digest { bytes: [0; 32], len: bytes.len() };
            digest.bytes[..bytes.len()].copy_from_slice(&bytes);
            digest
        }
        match &self.0 {
            Keyed::Sha1(mac) => feed(mac.clone(), url, pairs),
            Keyed::Sha256(mac) => feed(mac.clone(), url, pairs),
        }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(redacted)")
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(redacted)")
    }
}

struct Digest {
    bytes: [u8; 32],
    len: usize,
}

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

// A HMAC takes keys of any length, so that making one cannot fail; an empty key is the harmless
// answer the type system asks for.
fn sha1_of(token: &SecretString) -> Hmac<Sha1> {
    Hmac::new_from_slice(token.expose_secret().as_bytes())
        .unwrap_or_else(|_| Hmac::new(&Default::default()))
}

fn sha256_of(token: &SecretString) -> Hmac<Sha256> {
    Hmac::new_from_slice(token.expose_secret().as_bytes())
        .unwrap_or_else(|_| Hmac::new(&Default::default()))
}

// === impl Keyring ===

impl Keyring {
    /// Adds an auth token of an account. The first one added signs; all of them prove.
    pub fn add_token(&mut self, account: AccountSid, token: &SecretString) {
        self.tokens.push((account, Key::auth_token(token)));
    }

    /// Adds a webhook shared key by its id (twilio.com/docs/usage/webhooks/webhook-shared-keys).
    pub fn add_shared_key(&mut self, id: String, secret: SecretString) {
        self.shared.push((id, SecretKey(secret)));
    }

    /// Whether no key at all is known.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.shared.is_empty()
    }

    /// The key that signs for `account`: its first token, or the first token known when the request
    /// names no account or one of whose tokens none is known.
    pub fn signer(&self, account: Option<AccountSid>) -> Option<&Key> {
        self.tokens
            .iter()
            .find(|(known, _)| Some(*known) == account)
            .or_else(|| self.tokens.first())
            .map(|(_, key)| key)
    }

    /// Proves that `request` was signed with a key we know, or says why not.
    pub fn prove(&self, request: &Signed<'_>) -> Result<Proof, Unproven> {
        let text = request.signature.filter(|s| !s.is_empty()).ok_or(Unproven::Missing)?;
        let mut received = [0u8; 48];
        let len = STANDARD
            .decode_slice(text.trim().as_bytes(), &mut received)
            .map_err(|_| Unproven::Malformed)?;
        let received = &received[..len];
        covers_body(request)?;
        let pairs = sorted_pairs(request.content);
        match shared_key(request.settings)? {
            Some((id, sha256)) => {
                let (_, secret) = self
                    .shared
                    .iter()
                    .find(|(known, _)| known == id)
                    .ok_or(Unproven::UnknownKey)?;
                let key = if sha256 { Key::shared(&secret.0) } else { Key::auth_token(&secret.0) };
                any_spelling_matches(&key, request, &pairs, received)
                    .map(|_| Proof { is_current: false })
            }
            None => self.prove_by_token(request, &pairs, received),
        }
    }

    fn prove_by_token(
        &self,
        request: &Signed<'_>,
        pairs: &[(&str, &str)],
        received: &[u8],
    ) -> Result<Proof, Unproven> {
        let mut known = false;
        for (account, key) in &self.tokens {
            if request.account.is_none_or(|named| named == *account) {
                if let Ok(as_twilio_signs) = any_spelling_matches(key, request, pairs, received) {
                    return Ok(Proof {
                        is_current: as_twilio_signs && !known && request.account.is_some(),
                    });
                }
                known = true;
            }
        }
        Err(if known { Unproven::Mismatch } else { Unproven::UnknownAccount })
    }
}

/// Tries every spelling of the URL. `Ok(true)`: it was the usual one.
fn any_spelling_matches(
    key: &Key,
    request: &Signed<'_>,
    pairs: &[(&str, &str)],
    received: &[u8],
) -> Result<bool, Unproven> {
    let usual = request.base.as_twilio_signs();
    let decoded = unescape_query(request.target);
    for target in std::iter::once(request.target).chain(decoded.as_deref()) {
        for base in [usual, request.base.other_spelling()] {
            let expected = key.digest([base, target, ""], pairs);
            if bool::from(expected.as_ref().ct_eq(received)) {
                return Ok(base == usual && target == request.target);
            }
        }
    }
    Err(Unproven::Mismatch)
}

/// Twilio signs `'`, `@` and `:` of a query unescaped although the wire has them escaped
/// (twilio-node issues 1059 and 1183). `None` when there is nothing to unescape.
fn unescape_query(target: &str) -> Option<String> {
    let (path, query) = target.split_once('?')?;
    let mut out = String::with_capacity(target.len());
    out.push_str(path);
    out.push('?');
    let mut rest = query;
    let mut changed = false;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let plain = match rest.as_bytes().get(at + 1..at + 3) {
            Some(b"27") => Some('\''),
            Some(b"40") => Some('@'),
            Some(b"3A" | b"3a") => Some(':'),
            _ => None,
        };
        if let Some(plain) = plain {
            out.push(plain);
            rest = &rest[at + 3..];
            changed = true;
        } else {
            out.push('%');
            rest = &rest[at + 1..];
        }
    }
    out.push_str(rest);
    changed.then_some(out)
}

fn covers_body(request: &Signed<'_>) -> Result<(), Unproven> {
    let Content::Raw(body) = request.content else { return Ok(()) };
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    let named = query.split('&').find_map(|pair| pair.strip_prefix("bodySHA256="));
    let named = named.ok_or(Unproven::BodyNotCovered)?;
    let actual = Sha256::digest(body);
    let mut hex = [0u8; 64];
    for (slot, byte) in hex.chunks_exact_mut(2).zip(actual) {
        slot.copy_from_slice(&[
            b"0123456789abcdef"[usize::from(byte >> 4)],
            b"0123456789abcdef"[usize::from(byte & 15)],
        ]);
    }
    let same =
        named.len() == hex.len() && bool::from(hex.ct_eq(named.to_ascii_lowercase().as_bytes()));
    if same { Ok(()) } else { Err(Unproven::BodyNotCovered) }
}

/// Reads `key=<id>,algorithm=HMAC_SHA256`. `None` means the auth token with HMAC-SHA1, which is also
/// what a missing header, an empty one and one without an algorithm mean (twilio-python 9.13).
fn shared_key(settings: Option<&str>) -> Result<Option<(&str, bool)>, Unproven> {
    let Some(settings) = settings else { return Ok(None) };
    let mut id = None;
    let mut algorithm = None;
    for part in settings.split(',') {
        let Some((name, value)) = part.split_once('=') else { continue };
        match (name.trim(), value.trim()) {
            (_, "") => {}
            ("key", value) => id = Some(value),
            ("algorithm", value) => algorithm = Some(value),
            _ => {}
        }
    }
    let sha256 = match algorithm {
        None => return Ok(None),
        Some(name) if name.eq_ignore_ascii_case("HMAC_SHA1") => false,
        Some(name) if name.eq_ignore_ascii_case("HMAC_SHA256") => true,
        Some(_) => return Err(Unproven::UnknownAlgorithm),
    };
    Ok(Some((id.ok_or(Unproven::UnknownKey)?, sha256)))
}

fn sorted_pairs(content: Content<'_>) -> Vec<(&str, &str)> {
    let Content::Form(form) = content else { return Vec::new() };
    let mut pairs: Vec<_> = form.iter().collect();
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_three_known_escapes_are_undone() {
        assert_eq!(unescape_query("/a?b=%27%40%3A%3a%20").as_deref(), Some("/a?b='@::%20"));
        assert_eq!(unescape_query("/a%27?b=1"), None);
        assert_eq!(unescape_query("/a?b=%2"), None);
    }

    #[test]
    fn settings_name_key_and_algorithm() {
        assert_eq!(shared_key(None), Ok(None));
        assert_eq!(shared_key(Some("")), Ok(None));
        assert_eq!(shared_key(Some("key=k1")), Ok(None));
        assert_eq!(shared_key(Some("key=k1,algorithm=HMAC_SHA256")), Ok(Some(("k1", true))));
        assert_eq!(shared_key(Some("key=k1, algorithm=HMAC_SHA1")), Ok(Some(("k1", false))));
        assert_eq!(shared_key(Some("key=k1,algorithm=")), Ok(None));
        assert_eq!(shared_key(Some("algorithm=MD5")), Err(Unproven::UnknownAlgorithm));
        assert_eq!(shared_key(Some("algorithm=HMAC_SHA1")), Err(Unproven::UnknownKey));
    }

    #[test]
    fn only_the_usual_spelling_with_the_first_token_is_current() {
        let account: AccountSid = "AC0123456789abcdef0123456789abcdef".parse().unwrap();
        let mut ring = Keyring::default();
        ring.add_token(account, &"new".into());
        ring.add_token(account, &"old".into());
        let base = PublicUrl::parse("https://a.example").unwrap();
        let is_current = |token: &str, signed_base: &str, account| {
            let signature = Key::auth_token(&token.into()).sign(signed_base, "/x", Content::Empty);
            let signed = Signed {
                signature: Some(&signature),
                settings: None,
                base: &base,
                target: "/x",
                content: Content::Empty,
                account,
            };
            ring.prove(&signed).unwrap().is_current
        };
        assert!(is_current("new", "https://a.example", Some(account)));
        assert!(!is_current("old", "https://a.example", Some(account)));
        assert!(!is_current("new", "https://a.example:443", Some(account)));
        assert!(!is_current("new", "https://a.example", None));
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let mut ring = Keyring::default();
        ring.add_token("AC0123456789abcdef0123456789abcdef".parse().unwrap(), &"hush".into());
        ring.add_shared_key("k1".into(), "hush".into());
        assert!(!format!("{ring:?}").contains("hush"));
    }
}
