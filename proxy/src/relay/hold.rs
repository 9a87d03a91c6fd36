//! Holding a caller: the token that says what was asked, and the keys that seal it.
//!
//! A hold document sends Twilio back to the same URL after a pause. What Twilio will not send again
//! (the digits, the result of a dialed leg) and what must stay the same (the delivery id) travels in
//! a token in that URL. URLs are logged by Twilio and by whoever stands in front of us, and digits
//! are PINs; so the token is sealed, and one that cannot be opened is worth nothing.
//!
//! Any edge with the same keys can take up what another began; no edge needs to remember anything.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use holdline_twilio::{CallSid, Form};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

/// The query parameter that carries the token.
pub const PARAMETER: &str = "holdline";
/// The longest token, as it stands in the URL. What does not fit is not held.
pub const LONGEST_TOKEN: usize = 2048;
/// How much later than the end of its hold a token is still believed.
pub(super) const GRACE: Duration = Duration::from_secs(20);
const NONCE: usize = 24;

/// Keys shared by all edges. The first seals; all of them open, so that keys can be rotated.
#[derive(Clone)]
pub struct HoldKeys(Vec<XChaCha20Poly1305>);

/// What a hold carries to its return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The delivery id of the first request.
    pub delivery: String,
    /// The row's name; a token is good for its own row only.
    pub row: String,
    /// The call; a token is good for its own call only.
    pub call: String,
    /// When the first request arrived, in milliseconds since 1970.
    pub since_ms: u64,
    /// How many hold documents were given before this one's return.
    pub holds: u32,
    /// Whether an upstream may have run the request already.
    pub may_have_run: bool,
    /// Parameters of the first request that Twilio will not send again.
    pub carried: Vec<(String, String)>,
}

/// What became of a token that came with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenFate {
    /// The hold goes on.
    Good,
    /// It cannot be opened: forged, cut off, or sealed with a key nobody has any more.
    Forged,
    /// It belongs to another row or another call.
    Foreign,
    /// Its time is over.
    Expired,
    /// The caller did something new meanwhile; the request is a visit of its own.
    NewTrigger,
}

/// Parameters that Twilio sends with every request of a call (twilio.com/docs/voice/twiml), so that a
/// token need not carry them. Geographic ones and everything else Twilio may add is told by prefix.
const ALWAYS_SENT: [&str; 16] = [
    "AccountSid",
    "ApiVersion",
    "ApplicationSid",
    "CallSid",
    "CallStatus",
    "CallToken",
    "Called",
    "Caller",
    "CallerName",
    "Direction",
    "ForwardedFrom",
    "From",
    "ParentCallSid",
    "StirPassportToken",
    "StirVerstat",
    "To",
];
const GEOGRAPHIC: [&str; 4] = ["From", "To", "Caller", "Called"];
const PLACES: [&str; 4] = ["City", "State", "Zip", "Country"];

/// Parameters whose presence means that the caller, or the other end, has just done something.
const TRIGGERS: [&str; 6] =
    ["Digits", "SpeechResult", "DialCallStatus", "RecordingUrl", "QueueResult", "ErrorUrl"];

// === impl HoldKeys ===

impl HoldKeys {
    /// Keys of 32 bytes in base64.
    pub fn new(secrets: &[SecretString]) -> Result<HoldKeys, &'static str> {
        const WRONG: &str = "a hold key is 32 random bytes in base64 (openssl rand -base64 32)";
        let mut keys = Vec::with_capacity(secrets.len());
        for secret in secrets {
            let bytes = STANDARD.decode(secret.expose_secret().trim()).map_err(|_| WRONG)?;
            keys.push(XChaCha20Poly1305::new_from_slice(&bytes).map_err(|_| WRONG)?);
        }
        if keys.is_empty() { Err(WRONG) } else { Ok(HoldKeys(keys)) }
    }

    /// A key that only this process has, and those that it hands over to. Enough for development.
    pub fn draw() -> Result<SecretString, getrandom::Error> {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes)?;
        Ok(STANDARD.encode(bytes).into())
    }

    /// Seals a token. `None` when it would be longer than [`LONGEST_TOKEN`].
    pub fn seal(&self, token: &Token) -> Option<String> {
        let plain = serde_json::to_vec(token).ok()?;
        let mut sealed = vec![0u8; NONCE];
        getrandom::fill(&mut sealed).ok()?;
        let nonce = XNonce::clone_from_slice(&sealed);
        sealed.extend(self.0.first()?.encrypt(&nonce, plain.as_slice()).ok()?);
        let text = URL_SAFE_NO_PAD.encode(sealed);
        (text.len() <= LONGEST_TOKEN).then_some(text)
    }

    /// Opens a token.
    pub fn open(&self, text: &str) -> Option<Token> {
        if text.len() > LONGEST_TOKEN {
            return None;
        }
        let sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, body) = sealed.split_at_checked(NONCE)?;
        let payload = |msg| Payload { msg, aad: &[] };
        let open =
            |key: &XChaCha20Poly1305| key.decrypt(XNonce::from_slice(nonce), payload(body)).ok();
        serde_json::from_slice(&self.0.iter().find_map(open)?).ok()
    }
}

impl std::fmt::Debug for HoldKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HoldKeys({} redacted)", self.0.len())
    }
}

// === impl Token ===

impl Token {
    /// What becomes of this token on a visit to `row` with these parameters.
    pub fn fate(
        &self,
        row: &str,
        call: Option<CallSid>,
        form: &Form,
        now_ms: u64,
        hold: Duration,
    ) -> TokenFate {
        let last_ms = u64::try_from((hold + GRACE).as_millis()).unwrap_or(u64::MAX);
        if self.row != row || call.is_none_or(|call| call.as_str() != self.call) {
            TokenFate::Foreign
        } else if now_ms.saturating_sub(self.since_ms) > last_ms || self.since_ms > now_ms + 60_000
        {
            TokenFate::Expired
        } else if TRIGGERS.iter().any(|name| form.get(name).is_some()) {
            TokenFate::NewTrigger
        } else {
            TokenFate::Good
        }
    }

    /// How long the call has been held, in all.
    pub fn held_for(&self, now_ms: u64) -> Duration {
        Duration::from_millis(now_ms.saturating_sub(self.since_ms))
    }
}

// === impl TokenFate ===

impl TokenFate {
    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            TokenFate::Good => "good",
            TokenFate::Forged => "forged",
            TokenFate::Foreign => "foreign",
            TokenFate::Expired => "expired",
            TokenFate::NewTrigger => "new_trigger",
        }
    }

    /// All of them.
    pub const ALL: [TokenFate; 5] = [
        TokenFate::Good,
        TokenFate::Forged,
        TokenFate::Foreign,
        TokenFate::Expired,
        TokenFate::NewTrigger,
    ];
}

/// The parameters of a request that Twilio will not send again.
pub fn not_sent_again(form: &Form) -> Vec<(String, String)> {
    form.iter()
        .filter(|(name, _)| !is_always_sent(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// What was received, and of what was carried whatever was not received.
pub fn merge(received: &Form, carried: &[(String, String)]) -> Form {
    let mut merged = received.clone();
    for (name, value) in carried {
        if received.get(name).is_none() {
            merged.push(name, value);
        }
    }
    merged
}

/// Takes the token out of a target: the target as it was before, and the token. `None` if there is none.
pub fn strip(target: &str) -> Option<(String, &str)> {
    let (path, query) = target.split_once('?')?;
    let token_of =
        |pair: &'_ str| pair.strip_prefix(PARAMETER).is_some_and(|rest| rest.starts_with('='));
    let token = query.split('&').rfind(|pair| token_of(pair))?;
    let mut kept = String::with_capacity(target.len());
    kept.push_str(path);
    for pair in query.split('&').filter(|pair| !token_of(pair)) {
        kept.push(if kept.len() == path.len() { '?' } else { '&' });
        kept.push_str(pair);
    }
    Some((kept, &token[PARAMETER.len() + 1..]))
}

/// The target with a token.
pub fn with_token(target: &str, token: &str) -> String {
    let mark = if target.contains('?') { '&' } else { '?' };
    format!("{target}{mark}{PARAMETER}={token}")
}

fn is_always_sent(name: &str) -> bool {
    ALWAYS_SENT.contains(&name)
        || GEOGRAPHIC
            .iter()
            .any(|who| name.strip_prefix(who).is_some_and(|place| PLACES.contains(&place)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CALL: &str = "CA0123456789abcdef0123456789abcdef";

    fn token() -> Token {
        Token {
            delivery: "d".into(),
            row: "identify_caller".into(),
            call: CALL.into(),
            since_ms: 1_000_000,
            holds: 1,
            may_have_run: false,
            carried: vec![("Digits".into(), "1234567".into())],
        }
    }

    #[test]
    fn any_edge_with_the_keys_opens_what_another_sealed() {
        let key = |byte: u8| SecretString::from(STANDARD.encode([byte; 32]));
        let old = HoldKeys::new(&[key(1)]).unwrap();
        let rotated = HoldKeys::new(&[key(2), key(1)]).unwrap();
        let sealed = old.seal(&token()).unwrap();
        assert_eq!(rotated.open(&sealed), Some(token()));
        assert_eq!(old.open(&rotated.seal(&token()).unwrap()), None);
    }

    #[test]
    fn nothing_can_be_read_from_a_sealed_token() {
        let sealed = HoldKeys::new(&[HoldKeys::draw().unwrap()]).unwrap().seal(&token()).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(sealed).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"1234567"));
    }

    #[test]
    fn a_token_that_would_be_too_long_is_not_made() {
        let mut big = token();
        big.carried.push(("SpeechResult".into(), "x".repeat(3000)));
        assert_eq!(HoldKeys::new(&[HoldKeys::draw().unwrap()]).unwrap().seal(&big), None);
    }

    #[test]
    fn a_token_is_good_for_its_own_row_call_and_time_only() {
        let call = CALL.parse().ok();
        let other = "CA00000000000000000000000000000000".parse().ok();
        let hold = Duration::from_secs(20);
        let form = |pairs: &[(&str, &str)]| Form::from_pairs(pairs.iter().copied());
        let fate = |row, call, pairs: &[_], now| token().fate(row, call, &form(pairs), now, hold);
        assert_eq!(fate("identify_caller", call, &[("CallSid", CALL)], 1_010_000), TokenFate::Good);
        assert_eq!(fate("pause", call, &[], 1_010_000), TokenFate::Foreign);
        assert_eq!(fate("identify_caller", other, &[], 1_010_000), TokenFate::Foreign);
        assert_eq!(fate("identify_caller", None, &[], 1_010_000), TokenFate::Foreign);
        assert_eq!(fate("identify_caller", call, &[], 1_080_001), TokenFate::Expired);
        assert_eq!(fate("identify_caller", call, &[], 900_000), TokenFate::Expired);
        assert_eq!(
            fate("identify_caller", call, &[("Digits", "1")], 1_010_000),
            TokenFate::NewTrigger
        );
    }

    #[test]
    fn what_twilio_repeats_is_not_carried_and_what_is_received_wins() {
        let first = Form::from_pairs([
            ("CallSid", CALL),
            ("FromCity", ""),
            ("Digits", "12"),
            ("FinishedOnKey", "*"),
        ]);
        let carried = not_sent_again(&first);
        assert_eq!(
            carried.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(),
            ["Digits", "FinishedOnKey"]
        );
        let returned = Form::from_pairs([("CallSid", CALL), ("FinishedOnKey", "#")]);
        let merged = merge(&returned, &carried);
        assert_eq!((merged.get("Digits"), merged.get("FinishedOnKey")), (Some("12"), Some("#")));
    }

    #[test]
    fn a_target_loses_its_token_and_nothing_else() {
        for (target, expect) in [
            ("/a", None),
            ("/a?b=1&c", None),
            ("/a?xholdline=t&holdlines=u", None),
            ("/a?holdline=t", Some(("/a", "t"))),
            ("/a?b=1&holdline=t&c=%27", Some(("/a?b=1&c=%27", "t"))),
            ("/a?b=1&holdline=t", Some(("/a?b=1", "t"))),
            ("/a?holdline=s&b=1&holdline=t", Some(("/a?b=1", "t"))),
        ] {
            assert_eq!(
                strip(target),
                expect.map(|(kept, token)| (kept.to_owned(), token)),
                "{target}"
            );
        }
        for target in ["/a", "/a?b=1"] {
            let with = with_token(target, "t");
            assert_eq!(strip(&with), Some((target.to_owned(), "t")));
        }
    }

    proptest! {
        #[test]
        fn no_text_opens_by_chance(text in "[A-Za-z0-9_-]{0,200}") {
            prop_assert_eq!(HoldKeys::new(&[HoldKeys::draw().unwrap()]).unwrap().open(&text), None);
        }
    }
}
