//! The dial-in, and the browser's own way in: from a PIN, or a page, to a session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::extract::State;
use holdline_twilio::verbs::Response;
use jiff::Timestamp;
use serde_json::json;

use super::App;
use super::Twiml;
use super::request::{TwilioRequest, random_name};
use super::step::{Answer, Row, counted, instead};
use crate::core::callin::{self, Identified};
use crate::core::documents;
use crate::core::fallback::Asker;
use crate::core::links::Links;
use crate::core::state::Session;
use crate::core::step::Event;
use crate::store::callers::{self, Whoever};
use crate::store::scene::About;
use crate::store::{StoreError, Work, Writing};

/// Somebody who wants to start.
struct Start<'s> {
    who: Who<'s>,
    call: &'s str,
    caller_type: &'static str,
    /// The number of this try at a PIN.
    attempt: u32,
    links: &'s Links,
    to_do: AtomicBool,
}

enum Who<'s> {
    Pin(&'s str),
    Page(&'s str),
}

/// POST /callin/create: the first prompt. It depends on nothing.
pub(super) async fn create(State(app): State<Arc<App>>, request: TwilioRequest) -> Answer {
    let row = Row { name: "callin_create", asker: Asker::Anybody };
    let begun = Instant::now();
    let _ = instead(&app, row, &request);
    counted(&app, row.name, begun, Ok(callin::first_prompt(&app.links).into()))
}

/// POST `/identify_caller`: Digits is a PIN, attempt the number of this try.
pub(super) async fn identify(State(app): State<Arc<App>>, request: TwilioRequest) -> Answer {
    let row = Row { name: "identify_caller", asker: Asker::Caller };
    let who = Who::Pin(request.digits().trim());
    start(&app, row, &request, who, "Phone").await
}

/// POST `/caller/start_calling`: the browser's own telephone; `session_key` is that of its page.
pub(super) async fn start_calling(State(app): State<Arc<App>>, request: TwilioRequest) -> Answer {
    let row = Row { name: "start_calling", asker: Asker::Caller };
    let given = request.form.filled("session_key").or_else(|| request.query.filled("session_key"));
    start(&app, row, &request, Who::Page(given.unwrap_or_default()), "Twilio client").await
}

async fn start(
    app: &App,
    row: Row,
    request: &TwilioRequest,
    who: Who<'_>,
    caller_type: &'static str,
) -> Answer {
    let begun = Instant::now();
    let call = request.require_call()?;
    if instead(app, row, request).is_some() {
        return counted(app, row.name, begun, Ok(documents::retry().into()));
    }
    let attempt = request.number("attempt").and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let links = &app.links;
    let to_do = AtomicBool::new(false);
    let start = Start { who, call: call.as_str(), caller_type, attempt, links, to_do };
    let answer = app.store.once(&request.delivery, &start).await;
    if start.to_do.load(Ordering::Acquire) {
        app.orders.notify_one();
    }
    counted(app, row.name, begun, answer.map(Twiml).map_err(Into::into))
}

impl Work for Start<'_> {
    async fn work(&self, writing: &mut Writing<'_>) -> Result<Response, StoreError> {
        // One session a call, however often and however differently the call asks.
        if let Some(session) = writing.session(None, Some(self.call)).await? {
            return self.welcome(writing, &session).await;
        }
        let who = match self.who {
            Who::Pin(pin) => Whoever::Pin(pin),
            Who::Page(key) => Whoever::Page(key),
        };
        let mut candidate = callers::candidate(writing, who).await?;
        // The seat of a page's earlier leg, which is about to be ended, is its own.
        if let Some(candidate) = &mut candidate
            && let Some(page) = &candidate.page_key
        {
            let earlier = callers::sessions_of_page(writing, page).await?.len();
            candidate.on_call -= i64::try_from(earlier).unwrap_or(0);
        }
        let identified = callin::identify(candidate, Timestamp::now());
        let Identified::Open(new) = identified else {
            return Ok(match (&self.who, &identified) {
                // There is nothing to be keyed again.
                (Who::Page(_), Identified::Unknown) => documents::hang_up(),
                _ => callin::refusal(self.links, &identified, self.attempt),
            });
        };
        if let Some(page) = &new.page_key {
            self.replace_sessions_of(writing, page).await?;
        }
        let id =
            callers::open_session(writing, &new, self.call, self.caller_type, &fresh_key()).await?;
        let Some(session) = writing.session(Some(id), None).await? else {
            return Ok(documents::hang_up());
        };
        if !session.phones_only {
            let data = json!({ "caller_session_id": id, "dialer": new.mode.name() });
            callers::tell_browser(writing, &session.key, "start_calling", &data).await?;
        }
        self.welcome(writing, &session).await
    }
}

impl Start<'_> {
    /// Ends what is left of earlier legs of a browser page: its key is the name of one conference, in which
    /// two leads must not meet.
    async fn replace_sessions_of(
        &self,
        writing: &mut Writing<'_>,
        page: &str,
    ) -> Result<(), StoreError> {
        for id in callers::sessions_of_page(writing, page).await? {
            let about = About::Session { id: Some(id), call_sid: None };
            writing.step(&about, &Event::Replaced, self.links, Timestamp::now()).await?;
            self.to_do.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// What a caller with a session hears first.
    async fn welcome(
        &self,
        writing: &mut Writing<'_>,
        session: &Session,
    ) -> Result<Response, StoreError> {
        let event = if session.phones_only {
            Event::Menu(String::new())
        } else {
            Event::Ready { ends: true }
        };
        let about = About::Session { id: Some(session.id), call_sid: None };
        let taken = writing.step(&about, &event, self.links, Timestamp::now()).await?;
        if taken.to_do {
            self.to_do.store(true, Ordering::Release);
        }
        Ok(taken.document)
    }
}

/// A session key: forty hexadecimal digits that nobody can guess.
fn fresh_key() -> String {
    random_name::<20>()
}
