//! Requests as Twilio sends them, and the account that sends them.

use std::net::SocketAddr;

use anyhow::bail;
use holdline_twilio::Form;
use holdline_twilio::signature::{Content, Key};
use http::Method;
use twilio_sim::{
    Company, Connecting, Fetched, Mishaps, Population, Seed, Settings, Webhook, twiml,
};
use url::Url;

/// The account of every world.
pub const ACCOUNT: &str = "ACdddddddddddddddddddddddddddddddd";
/// Its auth token.
pub const TOKEN: &str = "a token for tests";
/// The URL Twilio was given; no name has to resolve, calls connect to the edge's port.
pub const PUBLIC_URL: &str = "http://edge.test";
/// A URL below the one Twilio was given.
pub fn public_url(path: &str) -> Url {
    // Paths are written in the tests themselves.
    Url::parse(&format!("{PUBLIC_URL}{path}"))
        .unwrap_or_else(|error| unreachable!("{path}: {error}"))
}

/// The parameters that every request of a call has, but for these.
pub fn form(call: &str, more: &[(&str, &str)]) -> Form {
    let always = [
        ("AccountSid", ACCOUNT),
        ("ApiVersion", "2010-04-01"),
        ("CallSid", call),
        ("CallStatus", "in-progress"),
        ("Direction", "inbound"),
        ("From", "+15005550006"),
        ("To", "+15005550001"),
    ];
    let usual = always.into_iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name));
    Form::from_pairs(usual.chain(more.iter().copied()))
}

/// A CallSid that ends in this number.
pub fn call_sid(n: u64) -> String {
    format!("CA{n:032x}")
}

/// The bytes of a signed POST, with what Twilio tells repeated requests by.
pub fn signed_post(path: &str, form: &Form, idempotency_token: &str) -> Vec<u8> {
    let signature = Key::auth_token(&TOKEN.into()).sign(PUBLIC_URL, path, Content::Form(form));
    let body = form.encode();
    format!(
        "POST {path} HTTP/1.1\r\nHost: edge.test\r\nUser-Agent: TwilioProxy/1.1\r\nAccept: */*\r\n\
         Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n\
         I-Twilio-Idempotency-Token: {idempotency_token}\r\n\
         X-Twilio-Signature: {signature}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The URL that a hold document leads back to.
pub fn way_back(fetched: &Fetched) -> anyhow::Result<String> {
    let Ok(received) = &fetched.result else { bail!("there is no answer") };
    let script = twiml::read(received.header("content-type"), &received.body)
        .map_err(|error| anyhow::anyhow!("{error:?}"))?;
    match script.verbs.last() {
        Some(twiml::Verb::Redirect(twiml::Target { url, .. })) => Ok(url.clone()),
        _ => bail!("it leads nowhere: {script:?}"),
    }
}

pub(crate) fn open(
    seed: Seed,
    connect_to: Option<SocketAddr>,
    speed: f64,
) -> anyhow::Result<Company> {
    let settings = Settings {
        account_sid: ACCOUNT.into(),
        auth_token: TOKEN.into(),
        connecting: Connecting { connect_to, ..Connecting::default() },
        seed,
        speed,
        mishaps: Mishaps::default(),
        people: Population::default(),
    };
    Company::open(settings).map_err(anyhow::Error::msg)
}

pub(crate) async fn post(company: &Company, url: &Url, form: &Form, token: &str) -> Fetched {
    fetch(company, Method::POST, url, form, token).await
}

pub(crate) async fn get(company: &Company, url: &Url) -> anyhow::Result<(u16, String)> {
    match fetch(company, Method::GET, url, &Form::default(), "").await.result {
        Ok(received) => Ok((received.status, String::from_utf8_lossy(&received.body).into_owned())),
        Err(code) => bail!("no answer from {url}: error {code}"),
    }
}

pub(crate) async fn fetch(
    company: &Company,
    method: Method,
    url: &Url,
    form: &Form,
    idempotency_token: &str,
) -> Fetched {
    let key = company.key();
    company.fetch(&Webhook { url, method, form, key, idempotency_token }).await
}
