//! Callers who come at a steady pace, whatever becomes of those before them.
//!
//! Each call is one question. A caller who is put on hold listens, and comes back as the document
//! says, until there is an answer or an end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use holdline_tests::world::{ACCOUNT, TOKEN, call_sid, form};
use http::Method;
use twilio_sim::twiml::{self, Verb};
use twilio_sim::{Company, Connecting, Mishaps, Population, Seed, Settings, Webhook};
use url::Url;

/// The URL Twilio was given.
pub(crate) const PUBLIC_URL: &str = "http://edge.test";
/// What ends a call that is held for ever.
const LONGEST: Duration = Duration::from_secs(40);

/// The kinds of rows: one may be repeated, the other must not run twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    Idempotent,
    Once,
}

/// What a call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The origin's answer.
    Origin,
    /// The standby's.
    Standby,
    /// A document that neither of them wrote.
    Dropped,
    /// No document, or none in Twilio's 15 s.
    Lost,
}

/// One call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) sid: String,
    pub(crate) row: Row,
    /// When it began, since the start of the run.
    pub(crate) begun: Duration,
    /// How long each of its requests took.
    pub(crate) waits: Vec<Duration>,
    /// When it ended, since the start of the run.
    pub(crate) ended: Duration,
    pub(crate) end: End,
}

// === impl Row ===

impl Row {
    fn path(self) -> &'static str {
        match self {
            Row::Idempotent => "/idempotent",
            Row::Once => "/once",
        }
    }
}

// === impl Call ===

impl Call {
    /// Whether the caller was held on the way.
    pub(crate) fn was_held(&self) -> bool {
        self.waits.len() > 1
    }
}

/// Lets callers come to `proxy`, this many a second for this long from `start`.
pub(crate) async fn come(
    proxy: SocketAddr,
    rate: u32,
    length: Duration,
    start: Instant,
) -> anyhow::Result<Vec<Call>> {
    let settings = Settings {
        account_sid: ACCOUNT.into(),
        auth_token: TOKEN.into(),
        connecting: Connecting { connect_to: Some(proxy), ..Connecting::default() },
        seed: Seed::from_environment().map_err(anyhow::Error::msg)?,
        speed: 1.0,
        mishaps: Mishaps::default(),
        people: Population::default(),
    };
    let company = Arc::new(Company::open(settings).map_err(anyhow::Error::msg)?);
    let count = rate * u32::try_from(length.as_secs())?;
    let mut calls = Vec::new();
    for number in 0..count {
        let due = start + Duration::from_secs(1) * number / rate;
        tokio::time::sleep_until(due.into()).await;
        let row = if number % 2 == 0 { Row::Idempotent } else { Row::Once };
        calls.push(tokio::spawn(call(company.clone(), number.into(), row, start)));
    }
    let mut ended = Vec::new();
    for call in calls {
        ended.push(call.await.context("a caller panicked")?);
    }
    Ok(ended)
}

async fn call(company: Arc<Company>, number: u64, row: Row, start: Instant) -> Call {
    let sid = call_sid(number);
    let begun = start.elapsed();
    let mut call = Call { sid, row, begun, waits: Vec::new(), ended: begun, end: End::Lost };
    // What was keyed comes once; Twilio does not send it again when a document leads elsewhere.
    let (keyed, alone) = (form(&call.sid, &[("Digits", "1234")]), form(&call.sid, &[]));
    let Ok(mut url) = Url::parse(&format!("{PUBLIC_URL}{}", row.path())) else { return call };
    let token = format!("{number:08x}-0000-4000-8000-000000000000");
    while start.elapsed() < begun + LONGEST {
        let is_first = call.waits.is_empty();
        let webhook = Webhook {
            url: &url,
            method: Method::POST,
            form: if is_first { &keyed } else { &alone },
            key: company.key(),
            // Twilio makes a new token for each request of a call.
            idempotency_token: if is_first { &token } else { "" },
        };
        let fetched = company.fetch(&webhook).await;
        call.waits.push(fetched.took);
        let Ok(received) = fetched.result else { break };
        let script = match twiml::read(received.header("content-type"), &received.body) {
            Ok(script) if received.status == 200 => script,
            _ => break,
        };
        let Some((pause, back)) = hold(&script.verbs) else {
            call.end = end(&script.verbs);
            break;
        };
        tokio::time::sleep(pause).await;
        match url.join(back) {
            Ok(next) => url = next,
            Err(_) => break,
        }
    }
    call.ended = start.elapsed();
    call
}

/// The pause of a hold document, and where it leads back to.
fn hold(verbs: &[Verb]) -> Option<(Duration, &str)> {
    let Some(Verb::Redirect(back)) = verbs.last() else { return None };
    let pauses = verbs.iter().filter_map(|verb| match verb {
        Verb::Pause(seconds) => Some(Duration::from_secs(*seconds)),
        _ => None,
    });
    Some((pauses.sum(), &back.url))
}

fn end(verbs: &[Verb]) -> End {
    let said = verbs.iter().find_map(|verb| match verb {
        Verb::Say { text, .. } => Some(text.as_str()),
        _ => None,
    });
    match said {
        Some("origin") => End::Origin,
        Some("standby") => End::Standby,
        _ => End::Dropped,
    }
}

/// All waits of these calls, shortest first.
pub(crate) fn waits<'c>(calls: impl IntoIterator<Item = &'c Call>) -> Vec<Duration> {
    let mut waits: Vec<_> = calls.into_iter().flat_map(|call| call.waits.iter().copied()).collect();
    waits.sort();
    waits
}

/// A percentile of sorted times.
pub(crate) fn share(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(at).copied()
}
