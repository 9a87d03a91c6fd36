//! A call as a live thing: it rings, fetches documents, carries them out, and comes to an end.
//!
//! A call is one task. Whatever takes time waits for three things at once: the time, a command from
//! outside (the REST API, the call that dialed it), and the moment at which the person hangs up. A
//! request that has been made is waited for whatever happens; what happened meanwhile is heeded then.

mod conference;
mod legs;
mod listen;
mod order;
mod parameters;
mod reports;
mod ring;
mod time;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use url::Url;

use crate::company::{Company, Handle, Record, lock, step};
use crate::party::{Lead, Party, Pickup, Span};
use crate::seed::Dice;
use crate::transcript::{Ending, Purpose, Step, Transcript, WebhookStep};
use crate::twiml::{self, Script, Target, Verb};
use crate::webhook::{Jar, Received, Webhook, millis};

pub use order::{Command, Endpoint, Line, MachineDetection, Outbound, Redirect, Source};

/// Documents in a row without the person doing anything: a call with more goes round in circles.
const MOST_DOCUMENTS: usize = 200;
/// Error: a URL that cannot be asked.
const BAD_URL: u32 = 11100;

/// A call.
#[derive(Debug)]
pub struct Call {
    company: Company,
    party: Party,
    pickup: Pickup,
    source: Source,
    fallback: Option<Endpoint>,
    status: Option<Endpoint>,
    events: Vec<String>,
    timeout: u64,
    time_limit: u64,
    machine: Option<MachineDetection>,
    record: Arc<Mutex<Record>>,
    sender: mpsc::UnboundedSender<Command>,
    commands: mpsc::UnboundedReceiver<Command>,
    keyed: String,
    /// Whether it ends with the call that dialed it.
    tied: bool,
    jar: Jar,
    /// What the person does.
    dice: Dice,
    /// Identifiers and tokens, which must not change what the person does.
    names: Dice,
    /// Whether somebody outside decides when the person leaves.
    guided: bool,
    begun: Instant,
    leaves_at: Option<Instant>,
    ends_at: Option<Instant>,
    heard: String,
    steps: Vec<Step>,
    documents: usize,
    sequence: u64,
    reports: JoinSet<Vec<WebhookStep>>,
    watcher: Option<Watcher>,
}

/// A step that has just happened. The call goes on when this is dropped.
#[derive(Debug)]
pub struct Moment {
    /// What happened.
    pub step: Step,
    _go_on: oneshot::Sender<()>,
}

type Watcher = mpsc::UnboundedSender<Moment>;

/// Where a call goes next.
#[derive(Debug)]
enum Next {
    /// To a document that a document named.
    Document(Box<Fetch>),
    /// To what the REST API said.
    Redirected(Source),
    /// To the fallback, because this error was met at this URL.
    Failed(u32, String),
    /// Nowhere.
    End(Ending),
}

/// A document to be fetched.
#[derive(Debug)]
struct Fetch {
    endpoint: Endpoint,
    extra: Vec<(String, String)>,
}

/// What happens, or what came in between.
type Flow<T> = Result<T, Next>;

// === impl Call ===

impl Call {
    pub(crate) fn inbound(company: &Company, from: &str, line: Line, party: Party) -> Call {
        let lead = Lead { pickup: Pickup::Human(Span::seconds(0.0)), party };
        let dice = company.dice(&format!("inbound {from} {}", line.number));
        let mut call = Call::new(company, "inbound", (from, &line.number), None, Some(lead), dice);
        call.source = Source::Endpoint(line.voice);
        call.fallback = line.fallback;
        call.status = line.status;
        call
    }

    pub(crate) fn outbound(company: &Company, outbound: Outbound) -> Call {
        let numbers = (outbound.from.as_str(), outbound.to.as_str());
        let dice = company.dice(&format!("outbound {} {}", outbound.from, outbound.to));
        let mut call = Call::new(company, "outbound-api", numbers, None, None, dice);
        call.source = outbound.source;
        call.fallback = outbound.fallback;
        call.status = outbound.status;
        call.events = outbound.events;
        call.timeout = outbound.timeout;
        call.time_limit = outbound.time_limit;
        call.machine = outbound.machine;
        call
    }

    fn new(
        company: &Company,
        direction: &'static str,
        (from, to): (&str, &str),
        parent: Option<String>,
        lead: Option<Lead>,
        mut dice: Dice,
    ) -> Call {
        let lead = lead.unwrap_or_else(|| company.whoever_is_at(to, &mut dice));
        let mut names = dice.fork();
        let now = Timestamp::now();
        let record = Record {
            sid: names.sid("CA"),
            parent,
            from: from.to_owned(),
            to: to.to_owned(),
            direction,
            status: "queued",
            created: now,
            updated: now,
            answered: None,
            ended: None,
            answered_by: None,
            queued_for: Duration::ZERO,
            transcript: None,
        };
        let (sender, commands) = mpsc::unbounded_channel();
        Call {
            company: company.clone(),
            party: lead.party,
            pickup: lead.pickup,
            source: Source::Twiml(String::new()),
            fallback: None,
            status: None,
            events: vec!["completed".into()],
            timeout: 60,
            time_limit: 14_400,
            machine: None,
            record: Arc::new(Mutex::new(record)),
            sender,
            commands,
            keyed: String::new(),
            tied: false,
            jar: Jar::default(),
            dice,
            names,
            guided: false,
            begun: Instant::now(),
            leaves_at: None,
            ends_at: None,
            heard: String::new(),
            steps: Vec::new(),
            documents: 0,
            sequence: 0,
            reports: JoinSet::new(),
            watcher: None,
        }
    }

    /// Tells `watcher` every step as it happens, and waits until it has dropped it.
    #[must_use]
    pub fn watched_by(mut self, watcher: Watcher) -> Call {
        self.watcher = Some(watcher);
        self
    }

    /// Lets somebody outside decide when the person leaves a conference.
    #[must_use]
    pub fn guided(mut self) -> Call {
        self.guided = true;
        self
    }

    /// The call's identifier.
    pub fn sid(&self) -> String {
        lock(&self.record).sid.clone()
    }

    /// Makes it known to the REST API, and how it can be told something.
    pub fn handle(&self) -> Handle {
        let handle = Handle { record: self.record.clone(), commands: self.sender.clone() };
        self.company.register(handle.clone());
        handle
    }

    /// Makes the call, from its beginning to its last report.
    pub async fn make(mut self) -> Transcript {
        self.handle();
        self.begun = Instant::now();
        let inbound = lock(&self.record).direction == "inbound";
        let ending = match if inbound { self.come_in().await } else { self.ring().await } {
            Ok(()) => {
                let source = self.source.clone();
                self.walk(Next::Redirected(source)).await
            }
            Err(Next::End(ending)) => ending,
            Err(next) => self.walk(next).await,
        };
        self.end(ending).await
    }

    async fn come_in(&mut self) -> Flow<()> {
        self.ends_at = Some(self.after(self.time_limit as f64));
        self.begin_act();
        lock(&self.record).status = "ringing";
        Ok(())
    }

    /// From document to document, to the end.
    async fn walk(&mut self, mut next: Next) -> Ending {
        loop {
            if self.documents >= MOST_DOCUMENTS {
                return Ending::Endless;
            }
            let flow = match next {
                Next::End(ending) => return ending,
                Next::Document(fetch) => self.document(*fetch).await,
                Next::Redirected(Source::Endpoint(endpoint)) => {
                    self.document(Fetch { endpoint, extra: Vec::new() }).await
                }
                Next::Redirected(Source::Twiml(text)) => self.given(&text).await,
                Next::Failed(code, url) => self.fall_back(code, &url).await,
            };
            next = flow.unwrap_or_else(|next| next);
        }
    }

    async fn document(&mut self, fetch: Fetch) -> Flow<Next> {
        let Fetch { endpoint, extra } = fetch;
        match self.fetch_script(Purpose::Document, &endpoint, &extra).await {
            Ok(script) => self.carry_out(script, Some(&endpoint.url)).await,
            Err(code) => self.fall_back(code, endpoint.url.as_str()).await,
        }
    }

    async fn given(&mut self, text: &str) -> Flow<Next> {
        self.documents += 1;
        let read = twiml::parse(text.as_bytes());
        match read.and_then(|script| twiml::check_inline(&script).map(|()| script)) {
            Ok(script) => self.carry_out(script, None).await,
            Err(error) => self.fall_back(error.0, "").await,
        }
    }

    /// A fatal error is followed by the fallback URL, at once and once.
    async fn fall_back(&mut self, code: u32, failed: &str) -> Flow<Next> {
        let Some(fallback) = self.fallback.clone() else {
            return Ok(Next::End(Ending::Apology(code)));
        };
        let extra = vec![
            ("ErrorCode".to_owned(), code.to_string()),
            ("ErrorUrl".to_owned(), failed.split('#').next().unwrap_or_default().to_owned()),
        ];
        match self.fetch_script(Purpose::Fallback, &fallback, &extra).await {
            Ok(script) => self.carry_out(script, Some(&fallback.url)).await,
            Err(code) => Ok(Next::End(Ending::Apology(code))),
        }
    }

    async fn carry_out(&mut self, script: Script, base: Option<&Url>) -> Flow<Next> {
        self.heed()?;
        for code in script.warnings {
            self.note(Step::Warned { code }).await;
        }
        if let Some(Verb::Reject { busy }) = script.verbs.first()
            && lock(&self.record).answered.is_none()
        {
            return Ok(Next::End(Ending::Rejected { busy: *busy }));
        }
        let mut verbs = script.verbs.into_iter().peekable();
        if lock(&self.record).answered.is_none() {
            // A pause before anything else delays the pick-up.
            if let Some(Verb::Pause(seconds)) = verbs.next_if(|verb| matches!(verb, Verb::Pause(_)))
            {
                self.pass(seconds as f64).await?;
            }
            self.answer().await;
        }
        for verb in verbs {
            if let Some(next) = self.perform(verb, base).await? {
                return Ok(next);
            }
        }
        Ok(Next::End(Ending::RanOut))
    }

    async fn perform(&mut self, verb: Verb, base: Option<&Url>) -> Flow<Option<Next>> {
        match verb {
            Verb::Say { .. } | Verb::Play { .. } | Verb::Pause(_) | Verb::Tones(_) => {
                self.sound(&verb, base).await?;
                Ok(None)
            }
            Verb::Gather(gather) => self.gather(gather, base).await,
            Verb::Record(record) => self.record_speech(&record, base).await.map(Some),
            Verb::Redirect(to) => Ok(Some(follow(base, &to, Vec::new()))),
            Verb::Dial(dial) => self.dial(dial, base).await,
            Verb::Hangup | Verb::Reject { .. } => Ok(Some(Next::End(Ending::HungUp))),
            Verb::NotModelled(_) => Ok(None),
        }
    }

    /// Fetches a document; Twilio's error number where it cannot be carried out.
    async fn fetch_script(
        &mut self,
        purpose: Purpose,
        endpoint: &Endpoint,
        extra: &[(String, String)],
    ) -> Result<Script, u32> {
        self.documents += 1;
        let result = self.fetch(purpose, endpoint, extra).await;
        let script = result.and_then(|received| script_of(&received));
        if let Err(code) = script {
            self.mark_last(code);
        }
        self.tell_last().await;
        script
    }

    async fn fetch(
        &mut self,
        purpose: Purpose,
        endpoint: &Endpoint,
        extra: &[(String, String)],
    ) -> Result<Received, u32> {
        let form = self.parameters(extra);
        let at_ms = self.at_ms();
        let token = self.names.uuid();
        let webhook = Webhook {
            url: &endpoint.url,
            method: endpoint.method.clone(),
            form: &form,
            key: self.company.key(),
            idempotency_token: &token,
        };
        let fetched = self.company.fetch_with(&webhook, &mut self.jar).await;
        self.steps.push(Step::Webhook(step(purpose, &endpoint.url, &token, at_ms, &fetched)));
        fetched.result
    }

    fn mark_last(&mut self, code: u32) {
        if let Some(Step::Webhook(webhook)) = self.steps.last_mut() {
            webhook.error = Some(code);
        }
    }

    async fn note(&mut self, step: Step) {
        self.steps.push(step);
        self.tell_last().await;
    }

    async fn tell_last(&self) {
        if let (Some(watcher), Some(step)) = (&self.watcher, self.steps.last()) {
            let (go_on, gone_on) = oneshot::channel();
            // Nobody has to watch to the end; and a moment is dropped, never answered.
            if watcher.send(Moment { step: step.clone(), _go_on: go_on }).is_ok() {
                let _ = gone_on.await;
            }
        }
    }

    fn at_ms(&self) -> u64 {
        millis(self.begun.elapsed())
    }
}

/// What an answer tells to do, or Twilio's error number.
fn script_of(received: &Received) -> Result<Script, u32> {
    match received.status {
        200..300 if received.is_chunked_and_empty() => Err(twiml::CHUNKED_EMPTY),
        200..300 => {
            twiml::read(received.header("content-type"), &received.body).map_err(|error| error.0)
        }
        _ => Err(twiml::RETRIEVAL),
    }
}

/// Where a document's target leads.
fn follow(base: Option<&Url>, to: &Target, extra: Vec<(String, String)>) -> Next {
    match resolve(base, &to.url) {
        Some(url) => {
            let endpoint = Endpoint { url, method: to.method.clone() };
            Next::Document(Box::new(Fetch { endpoint, extra }))
        }
        None => Next::Failed(BAD_URL, to.url.clone()),
    }
}

fn resolve(base: Option<&Url>, to: &str) -> Option<Url> {
    match base {
        Some(base) => base.join(to).ok(),
        None => Url::parse(to).ok(),
    }
}
