//! From a request to a step of the call logic, and from that to an answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::http::StatusCode;
use holdline_twilio::verbs::Response;
use jiff::Timestamp;

use super::request::TwilioRequest;
use super::{App, Fault, Twiml};
use crate::core::documents;
use crate::core::fallback::{self, Asker, Instead};
use crate::core::links::Links;
use crate::core::step::Event;
use crate::store::scene::About;
use crate::store::{StoreError, Work, Writing};

/// What a request is answered: a document, or why there is none.
pub(super) type Answer = Result<Twiml, Fault>;

/// A row of the catalogue, as far as the origin cares.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// Its name, which is the edge's.
    pub(super) name: &'static str,
    /// Who waits.
    pub(super) asker: Asker,
}

/// A step as work that is done once.
struct StepWork<'w> {
    about: &'w About,
    event: &'w Event,
    links: &'w Links,
    to_do: AtomicBool,
}

impl Work for StepWork<'_> {
    async fn work(&self, writing: &mut Writing<'_>) -> Result<Response, StoreError> {
        let taken = writing.step(self.about, self.event, self.links, Timestamp::now()).await?;
        self.to_do.store(taken.to_do, Ordering::Release);
        Ok(taken.document)
    }
}

/// Takes a step for a request, once, and answers it.
pub(super) async fn step(
    app: &App,
    row: Row,
    request: &TwilioRequest,
    about: About,
    event: Event,
) -> Answer {
    let begun = Instant::now();
    counted(app, row.name, begun, answer(app, row, request, &about, &event).await)
}

/// Takes a step for a report, once, and says that it was taken.
pub(super) async fn report(
    app: &App,
    row: Row,
    request: &TwilioRequest,
    about: About,
    event: Event,
) -> Result<StatusCode, Fault> {
    let begun = Instant::now();
    let taken = answer(app, row, request, &about, &event).await;
    reported(app, row.name, begun, taken.map(drop))
}

async fn answer(
    app: &App,
    row: Row,
    request: &TwilioRequest,
    about: &About,
    event: &Event,
) -> Answer {
    match instead(app, row, request) {
        Some(Instead::HangUp) => Ok(documents::hang_up().into()),
        Some(Instead::DialInAgain) => Ok(documents::retry().into()),
        Some(Instead::EndSession) => {
            take(app, request, about, &Event::SessionEnded { duration_s: None }).await
        }
        None => take(app, request, about, event).await,
    }
}

/// Counts what was said to a report.
pub(super) fn reported(
    app: &App,
    row: &str,
    begun: Instant,
    taken: Result<(), Fault>,
) -> Result<StatusCode, Fault> {
    let status = taken.as_ref().err().map_or(StatusCode::NO_CONTENT, Fault::status);
    app.metrics.request(row, status.as_u16(), begun.elapsed().as_secs_f64());
    taken.map(|()| status)
}

/// Counts an answer.
pub(super) fn counted(app: &App, row: &str, begun: Instant, answer: Answer) -> Answer {
    let status = answer.as_ref().err().map_or(200, |fault| fault.status().as_u16());
    app.metrics.request(row, status, begun.elapsed().as_secs_f64());
    answer
}

/// What a request is answered that Twilio sends because another one failed, if it is not to be done.
pub(super) fn instead(app: &App, row: Row, request: &TwilioRequest) -> Option<Instead> {
    let failure = fallback::failure(&request.form)?;
    let instead = fallback::instead(failure, row.asker, app.process_fallbacks);
    app.metrics.fallback(row.name, failure.code, instead.is_none());
    tracing::warn!(
        row = row.name,
        code = failure.code,
        url = failure.url.split('?').next(),
        call = request.call.as_ref().map(|call| call.as_str()),
        account = request.form.get("AccountSid"),
        done = instead.is_none(),
        "a request after a failure"
    );
    instead
}

async fn take(app: &App, request: &TwilioRequest, about: &About, event: &Event) -> Answer {
    let work = StepWork { about, event, links: &app.links, to_do: AtomicBool::new(false) };
    let answer = app.store.once(&request.delivery, &work).await?;
    if work.to_do.load(Ordering::Acquire) {
        app.orders.notify_one();
    }
    Ok(Twiml(answer))
}
