//! The phone company: accounts, calls, conferences, and how everything is let go wrong.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdline_twilio::Form;
use holdline_twilio::signature::Key;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::call::{Call, Command, Line, Outbound};
use crate::mishaps::Mishaps;
use crate::party::{Lead, Party, Population};
use crate::rooms::{Listener, RoomEvent, Rooms, Shut};
use crate::seed::{Dice, Seed};
use crate::transcript::{Purpose, Transcript, WebhookStep};
use crate::twiml::Conference;
use crate::webhook::{Connecting, Fetched, Jar, Webhook, WebhookClient, millis};

/// Ended calls whose record and transcript are kept.
const MOST_ENDED: usize = 5_000;
/// Requests outside any call that are kept.
const MOST_LOOSE: usize = 5_000;

/// How a company is set up.
#[derive(Debug)]
pub struct Settings {
    /// The account.
    pub account_sid: String,
    /// Its auth token.
    pub auth_token: SecretString,
    /// How requests are made.
    pub connecting: Connecting,
    /// What chance comes from.
    pub seed: Seed,
    /// How much faster than in reality speech, pauses, ringing and waiting pass. Time limits of
    /// requests stay real.
    pub speed: f64,
    /// What goes wrong.
    pub mishaps: Mishaps,
    /// Who answers numbers that nobody was put at.
    pub people: Population,
}

/// What the REST API shows of a call.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its identifier.
    pub sid: String,
    /// The call that dialed it.
    pub parent: Option<String>,
    /// Who called.
    pub from: String,
    /// Who was called.
    pub to: String,
    /// `inbound`, `outbound-api` or `outbound-dial`.
    pub direction: &'static str,
    /// Twilio's word for where it is in its life.
    pub status: &'static str,
    /// When it came to be.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// When it was answered.
    pub answered: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Who answered it, where that was asked.
    pub answered_by: Option<&'static str>,
    /// How long it waited to be begun.
    pub queued_for: Duration,
    /// What happened, once it has ended.
    pub transcript: Option<Arc<Transcript>>,
}

/// A call as others see it.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Its record.
    pub record: Arc<Mutex<Record>>,
    /// Where to tell it something.
    pub commands: mpsc::UnboundedSender<Command>,
}

/// A phone company with one account.
#[derive(Debug, Clone)]
pub struct Company(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    account_sid: String,
    auth_token: SecretString,
    key: Key,
    client: WebhookClient,
    seed: Seed,
    speed: f64,
    mishaps: Mutex<Mishaps>,
    people: Population,
    places: Mutex<HashMap<String, Lead>>,
    calls: Mutex<Calls>,
    rooms: Mutex<Rooms>,
    loose: Mutex<VecDeque<WebhookStep>>,
    given: Mutex<HashMap<String, u64>>,
    requests: AtomicU64,
    listener: Mutex<Option<mpsc::UnboundedSender<Event>>>,
    busy: watch::Sender<usize>,
    reports: Semaphore,
    reports_at_once: AtomicU64,
    /// When the next call may begin, in microseconds of Unix time.
    next_begin_us: AtomicU64,
}

#[derive(Debug, Default)]
struct Calls {
    all: HashMap<String, Handle>,
    ended: VecDeque<String>,
}

/// Something that has ended.
#[derive(Debug, Clone)]
pub enum Event {
    /// A call.
    Call(Transcript),
    /// A request that belonged to no call.
    Webhook(WebhookStep),
}

/// Something that is under way.
#[derive(Debug)]
pub(crate) struct Busy(Company);

/// A participant's place in a conference, which is given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    company: Company,
    room: String,
    call_sid: String,
}

// === impl Company ===

impl Company {
    /// A company. Fails where certificates to trust cannot be read.
    pub fn open(settings: Settings) -> Result<Company, String> {
        let client = WebhookClient::new(settings.connecting)?;
        let reports = settings.mishaps.reports_at_once.min(Semaphore::MAX_PERMITS);
        Ok(Company(Arc::new(Inner {
            account_sid: settings.account_sid,
            key: Key::auth_token(&settings.auth_token),
            auth_token: settings.auth_token,
            client,
            seed: settings.seed,
            speed: settings.speed.max(0.001),
            mishaps: Mutex::new(settings.mishaps),
            people: settings.people,
            places: Mutex::default(),
            calls: Mutex::default(),
            rooms: Mutex::default(),
            loose: Mutex::default(),
            given: Mutex::default(),
            requests: AtomicU64::new(0),
            listener: Mutex::default(),
            busy: watch::Sender::new(0),
            reports: Semaphore::new(reports),
            reports_at_once: AtomicU64::new(reports as u64),
            next_begin_us: AtomicU64::new(0),
        })))
    }

    /// A call that is about to be made from a person to a line.
    pub fn call(&self, line: Line, party: Party) -> Call {
        self.call_from("+15005550006", line, party)
    }

    /// Such a call from a certain number.
    pub fn call_from(&self, number: &str, line: Line, party: Party) -> Call {
        Call::inbound(self, number, line, party)
    }

    /// A call that is about to be made from the application to somebody.
    pub fn outbound(&self, outbound: Outbound) -> Call {
        Call::outbound(self, outbound)
    }

    /// Puts somebody at a number.
    pub fn put_at(&self, number: &str, lead: Lead) {
        lock(&self.0.places).insert(number.to_owned(), lead);
    }

    /// Whoever is at a number: who was put there, or somebody of the people.
    pub(crate) fn whoever_is_at(&self, number: &str, dice: &mut Dice) -> Lead {
        if let Some(lead) = lock(&self.0.places).get(number) {
            return lead.clone();
        }
        self.0.people.draw(dice)
    }

    /// The account.
    pub fn account_sid(&self) -> &str {
        &self.0.account_sid
    }

    /// Whether this is the account's auth token.
    pub fn is_token(&self, token: &str) -> bool {
        self.0.auth_token.expose_secret() == token
    }

    /// What chance comes from.
    pub fn seed(&self) -> Seed {
        self.0.seed
    }

    /// How much faster than in reality time passes.
    pub fn speed(&self) -> f64 {
        self.0.speed
    }

    /// What goes wrong.
    pub fn mishaps(&self) -> Mishaps {
        lock(&self.0.mishaps).clone()
    }

    /// Lets other things go wrong from now on.
    pub fn let_go_wrong(&self, mishaps: Mishaps) {
        let wanted = mishaps.reports_at_once.min(Semaphore::MAX_PERMITS);
        let before = self.0.reports_at_once.load(Ordering::Acquire) as usize;
        let now = if wanted > before {
            self.0.reports.add_permits(wanted - before);
            wanted
        } else {
            // Those in use cannot be taken back.
            before - self.0.reports.forget_permits(before - wanted)
        };
        self.0.reports_at_once.store(now as u64, Ordering::Release);
        *lock(&self.0.mishaps) = mishaps;
    }

    /// A call that is under way, or has ended not too long ago.
    pub fn find(&self, sid: &str) -> Option<Handle> {
        lock(&self.0.calls).all.get(sid).cloned()
    }

    /// All such calls.
    pub fn calls(&self) -> Vec<Record> {
        let handles: Vec<Handle> = lock(&self.0.calls).all.values().cloned().collect();
        let mut records: Vec<Record> =
            handles.iter().map(|handle| lock(&handle.record).clone()).collect();
        records.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.sid.cmp(&b.sid)));
        records
    }

    /// The conferences.
    pub fn rooms<T>(&self, look: impl FnOnce(&mut Rooms) -> T) -> T {
        let (result, reports) = {
            let mut rooms = lock(&self.0.rooms);
            (look(&mut rooms), rooms.take_reports())
        };
        for report in reports {
            let (company, busy) = (self.clone(), self.busy());
            tokio::spawn(async move {
                let mut form = Form::from_pairs([("AccountSid", company.account_sid())]);
                for (name, value) in &report.parameters {
                    form.push(name, value);
                }
                form.push("Timestamp", &rfc2822(Timestamp::now()));
                let dice = company.seed().dice(&report.name(), 0);
                let begun = Instant::now();
                let steps = company.report(&report.url, report.method, &form, dice, begun).await;
                company.note_loose(steps);
                drop(busy);
            });
        }
        result
    }

    /// The requests that belonged to no call.
    pub fn loose(&self) -> Vec<WebhookStep> {
        lock(&self.0.loose).iter().cloned().collect()
    }

    /// Makes a request outside any call.
    pub async fn fetch(&self, webhook: &Webhook<'_>) -> Fetched {
        self.fetch_with(webhook, &mut Jar::default()).await
    }

    /// Makes a request with what a call keeps between its requests.
    pub(crate) async fn fetch_with(&self, webhook: &Webhook<'_>, jar: &mut Jar) -> Fetched {
        let fetched = self.0.client.fetch(webhook, jar).await;
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        fetched
    }

    /// Requests made so far.
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// The account's key.
    pub fn key(&self) -> &Key {
        &self.0.key
    }

    /// Dice for the next thing of this name. What has other names, and when that happens, does not
    /// change them.
    pub(crate) fn dice(&self, name: &str) -> Dice {
        let mut given = lock(&self.0.given);
        let n = given.entry(name.to_owned()).or_default();
        *n += 1;
        self.0.seed.dice(name, *n)
    }

    pub(crate) fn register(&self, handle: Handle) {
        let sid = lock(&handle.record).sid.clone();
        lock(&self.0.calls).all.insert(sid, handle);
    }

    pub(crate) fn ended(&self, transcript: &Transcript) {
        self.tell(|| Event::Call(transcript.clone()));
        let mut calls = lock(&self.0.calls);
        calls.ended.push_back(transcript.call_sid.clone());
        if calls.ended.len() > MOST_ENDED
            && let Some(oldest) = calls.ended.pop_front()
        {
            calls.all.remove(&oldest);
        }
    }

    /// Forgets a call that has ended.
    pub(crate) fn forget(&self, sid: &str) {
        lock(&self.0.calls).all.remove(sid);
    }

    /// How long a call must wait until it may begin.
    pub(crate) fn queue_time(&self) -> Duration {
        let rate = lock(&self.0.mishaps).calls_a_second;
        if rate <= 0.0 {
            return Duration::ZERO;
        }
        let now = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or_default();
        let gap = (1_000_000.0 / rate) as u64;
        let place =
            self.0.next_begin_us.fetch_update(Ordering::AcqRel, Ordering::Acquire, |next| {
                Some(next.max(now) + gap)
            });
        Duration::from_micros(place.unwrap_or(now).saturating_sub(now))
    }

    pub(crate) fn join(
        &self,
        conference: &Conference,
        call_sid: &str,
        listener: Option<Listener>,
    ) -> Result<(Seat, bool, mpsc::UnboundedReceiver<RoomEvent>), Shut> {
        let (sender, events) = mpsc::unbounded_channel();
        let sid = || self.dice(&format!("conference {}", conference.room)).sid("CF");
        let started =
            self.rooms(|rooms| rooms.join(conference, sid, call_sid, listener, sender))?;
        let seat = Seat {
            company: self.clone(),
            room: conference.room.clone(),
            call_sid: call_sid.to_owned(),
        };
        Ok((seat, started, events))
    }

    /// Sends a report, with everything that may go wrong with one. Nothing is sent where it is lost.
    pub(crate) async fn report(
        &self,
        url: &url::Url,
        method: http::Method,
        form: &Form,
        mut dice: Dice,
        begun: Instant,
    ) -> Vec<WebhookStep> {
        let mishaps = self.mishaps();
        if dice.happens(mishaps.lose_reports) {
            return Vec::new();
        }
        let times = if dice.happens(mishaps.repeat_reports) { 2 } else { 1 };
        let delay = dice.between(0.0, mishaps.delay_reports_s);
        tokio::time::sleep(Duration::from_secs_f64(delay)).await;
        let token = dice.uuid();
        let mut steps = Vec::new();
        for _ in 0..times {
            let expiry = Duration::from_secs_f64(mishaps.report_expiry_s);
            let turn = tokio::time::timeout(expiry, self.0.reports.acquire()).await;
            let Ok(Ok(_turn)) = turn else {
                let at_ms = millis(begun.elapsed());
                steps.push(step(Purpose::Status, url, &token, at_ms, &expired()));
                continue;
            };
            let webhook = Webhook {
                url,
                method: method.clone(),
                form,
                key: &self.0.key,
                idempotency_token: &token,
            };
            let at_ms = millis(begun.elapsed());
            let fetched = self.fetch(&webhook).await;
            let mut step = step(Purpose::Status, url, &token, at_ms, &fetched);
            if step.status.is_some_and(|status| status >= 400) {
                step.error = Some(REPORT_REFUSED);
            }
            steps.push(step);
        }
        steps
    }

    /// Tells `listener` of everything that ends from now on.
    pub fn listened_to_by(&self, listener: mpsc::UnboundedSender<Event>) {
        *lock(&self.0.listener) = Some(listener);
    }

    fn tell(&self, event: impl FnOnce() -> Event) {
        let mut listener = lock(&self.0.listener);
        if listener.as_ref().is_some_and(|listener| listener.send(event()).is_err()) {
            *listener = None;
        }
    }

    /// Something is under way until what this gives is dropped.
    pub(crate) fn busy(&self) -> Busy {
        self.0.busy.send_modify(|count| *count += 1);
        Busy(self.clone())
    }

    /// Waits until nothing is under way that a call has left behind: calls it dialed, reports of
    /// conferences.
    pub async fn settled(&self) {
        // It cannot be closed while this company is there to ask.
        let _ = self.0.busy.subscribe().wait_for(|count| *count == 0).await;
    }

    fn note_loose(&self, steps: Vec<WebhookStep>) {
        for step in &steps {
            self.tell(|| Event::Webhook(step.clone()));
        }
        let mut loose = lock(&self.0.loose);
        loose.extend(steps);
        while loose.len() > MOST_LOOSE {
            loose.pop_front();
        }
    }
}

/// Warning: a report was answered with an error.
const REPORT_REFUSED: u32 = 15003;
/// A report was given up in the queue.
const REPORT_EXPIRED: u32 = 15002;

fn expired() -> Fetched {
    Fetched { result: Err(REPORT_EXPIRED), took: Duration::ZERO, attempts: Vec::new() }
}

/// What a transcript says about a request.
pub(crate) fn step(
    purpose: Purpose,
    url: &url::Url,
    token: &str,
    at_ms: u64,
    fetched: &Fetched,
) -> WebhookStep {
    let received = fetched.result.as_ref().ok();
    WebhookStep {
        at_ms,
        purpose,
        url: url.to_string(),
        path: url.path().to_owned(),
        token: token.to_owned(),
        status: received.map(|received| received.status),
        answered_by: received
            .and_then(|received| received.header("holdline-answered-by"))
            .map(str::to_owned),
        took_ms: millis(fetched.took),
        error: fetched.result.as_ref().err().copied(),
        attempts: fetched.attempts.clone(),
    }
}

/// As Twilio writes dates: RFC 2822, GMT.
pub fn rfc2822(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// A lock whose holder panicked holds good data all the same.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.busy.send_modify(|count| *count -= 1);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.company.rooms(|rooms| rooms.leave(&self.room, &self.call_sid, false));
    }
}
