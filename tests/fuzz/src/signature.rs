//! The proof: what was signed for a request proves it, and nothing else does.

#![no_main]

use std::sync::LazyLock;

use holdline_twilio::signature::{Content, Key};
use holdline_twilio::{Form, Keyring, PublicUrl, Signed};

const ACCOUNT: &str = "ACdddddddddddddddddddddddddddddddd";
const BASE: &str = "https://edge.test";

static KEYS: LazyLock<Keyring> = LazyLock::new(|| {
    let mut keys = Keyring::default();
    keys.add_token(ACCOUNT.parse().unwrap(), &"a token".into());
    keys.add_shared_key("key".into(), "a secret".into());
    keys
});
static KEY: LazyLock<Key> = LazyLock::new(|| Key::auth_token(&"a token".into()));
static URL: LazyLock<PublicUrl> = LazyLock::new(|| PublicUrl::parse(BASE).unwrap());

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // A line each: what is received as proof, its settings, the target; then the body.
    let mut parts = data.splitn(4, |&byte| byte == b'\n');
    let mut text = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
    let (Some(received), Some(settings), Some(target)) = (text(), text(), text()) else { return };
    let body = parts.next().unwrap_or_default();
    let form = Form::parse(body).ok();
    let content = || match &form {
        _ if body.is_empty() => Content::Empty,
        Some(form) => Content::Form(form),
        None => Content::Raw(body),
    };
    let prove = |signature: &str, settings: Option<&str>| {
        KEYS.prove(&Signed {
            signature: Some(signature),
            settings,
            base: &URL,
            target,
            content: content(),
            account: ACCOUNT.parse().ok(),
        })
    };
    let settings = Some(settings).filter(|settings| !settings.is_empty());
    let guessed = prove(received, settings);
    if body.is_empty() || form.is_some() {
        let right = KEY.sign(BASE, target, content());
        assert!(prove(&right, None).is_ok(), "{target}");
        assert!(guessed.is_err() || received == right || settings.is_some(), "{received}");
        let other = format!("{target}x");
        let elsewhere = KEY.sign(BASE, &other, content());
        assert!(prove(&elsewhere, None).is_err(), "{target}");
    }
});
