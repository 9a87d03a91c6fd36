//! Many callers at once, and the people they talk to, for a time.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use url::Url;

use crate::call::{Call, Command, Endpoint, Line, Outbound, Source};
use crate::company::{Company, Event};
use crate::party::Party;
use crate::summary::{OwnCost, Summary, cpu_time};

/// What a load consists of.
#[derive(Debug, Clone)]
pub struct Load {
    /// The number everybody dials.
    pub line: Line,
    /// What each of them does.
    pub party: Party,
    /// How many there are.
    pub callers: usize,
    /// For how long each of them calls, and calls again; then they hang up.
    pub time: Duration,
    /// Over how much time they begin, and end.
    pub ramp: Duration,
    /// How long a person waits before the next call.
    pub again_after: Duration,
    /// Who is called beside them.
    pub leads: Option<Leads>,
}

/// People that the application calls, one after another for each caller.
#[derive(Debug, Clone)]
pub struct Leads {
    /// Asked when one answers; `{n}` stands for the number of the call.
    pub url: String,
    /// Told about the call's progress; `{n}` likewise.
    pub status: Option<String>,
}

/// How a load goes.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// How long it has run.
    pub elapsed: Duration,
    /// Calls that have ended.
    pub calls: u64,
    /// Requests that were made.
    pub webhooks: u64,
    /// What went wrong so far.
    pub breaches: u64,
}

/// Runs a load; `show` is told every second how it goes.
pub async fn run(
    company: &Company,
    load: Load,
    mut show: impl FnMut(Progress),
) -> Result<(Summary, OwnCost), String> {
    if let Some(leads) = &load.leads {
        for url in [Some(&leads.url), leads.status.as_ref()].into_iter().flatten() {
            numbered(url, 0).map_err(|error| format!("{url} is no URL: {error}"))?;
        }
    }
    let (begun, cpu_before) = (Instant::now(), cpu_time());
    let (listener, mut ended) = mpsc::unbounded_channel();
    company.listened_to_by(listener);
    let mut people = JoinSet::new();
    let requests_before = company.requests();
    for number in 0..load.callers {
        let wait = load.ramp.mul_f64(number as f64 / load.callers.max(1) as f64);
        let until = begun + load.time + wait;
        people.spawn(caller(company.clone(), load.clone(), number, wait, until));
        if let Some(leads) = &load.leads {
            let leads = leads.clone();
            let again_after = load.again_after;
            people.spawn(called(company.clone(), leads, number, again_after, wait, until));
        }
    }
    let mut summary = Summary::default();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            event = ended.recv() => add(&mut summary, event),
            person = people.join_next() => match person {
                Some(Err(fault)) => return Err(format!("a call came to grief: {fault}")),
                Some(Ok(())) => {}
                None => break,
            },
            _ = tick.tick() => show(Progress {
                elapsed: begun.elapsed(),
                calls: summary.calls,
                webhooks: company.requests() - requests_before,
                breaches: summary.breaches,
            }),
        }
    }
    company.settled().await;
    while let Ok(event) = ended.try_recv() {
        add(&mut summary, Some(event));
    }
    Ok((summary, OwnCost::since(begun, cpu_before)))
}

fn add(summary: &mut Summary, event: Option<Event>) {
    match event {
        Some(Event::Call(transcript)) => summary.add(&transcript),
        Some(Event::Webhook(webhook)) => summary.add_webhook(&webhook),
        None => {}
    }
}

/// One caller: calls, and calls again, until the time is over.
async fn caller(company: Company, load: Load, number: usize, wait: Duration, until: Instant) {
    tokio::time::sleep(wait).await;
    let from = format!("+1501{number:07}");
    while Instant::now() < until {
        let call = company.call_from(&from, load.line.clone(), load.party.clone());
        finish(call, until).await;
        tokio::time::sleep(load.again_after).await;
    }
}

/// Everybody who is called beside one caller, one after another.
async fn called(
    company: Company,
    leads: Leads,
    caller: usize,
    again_after: Duration,
    wait: Duration,
    until: Instant,
) {
    tokio::time::sleep(wait).await;
    for round in 0.. {
        if Instant::now() >= until {
            return;
        }
        let n = caller as u64 * 1_000_000 + round;
        let Ok(url) = numbered(&leads.url, n) else { return };
        let status = leads.status.as_ref().and_then(|status| numbered(status, n).ok());
        let call = company.outbound(Outbound {
            to: format!("+1500{caller:07}"),
            from: "+15005550001".into(),
            source: Source::Endpoint(Endpoint::from(url)),
            fallback: None,
            status: status.map(Endpoint::from),
            events: vec!["completed".into()],
            timeout: 15,
            time_limit: 14_400,
            machine: None,
        });
        finish(call, until).await;
        tokio::time::sleep(again_after).await;
    }
}

/// Makes a call; when the time is over, whoever is on it hangs up.
async fn finish(call: Call, until: Instant) {
    let handle = call.handle();
    let hang_up = tokio::spawn(async move {
        tokio::time::sleep_until(until.into()).await;
        // It may be over.
        let _ = handle.commands.send(Command::HangUp);
    });
    call.make().await;
    hang_up.abort();
}

fn numbered(url: &str, n: u64) -> Result<Url, url::ParseError> {
    Url::parse(&url.replace("{n}", &n.to_string()))
}
