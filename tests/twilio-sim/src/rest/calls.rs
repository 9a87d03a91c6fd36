//! Calls: made, looked up, redirected, ended (`twilio.com/docs/voice/api/call-resource`).

use axum::Json;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Named, Parameters, Rest, RestError, page};
use crate::call::{Command, MachineDetection, Outbound, Redirect, Source};
use crate::company::{Handle, Record, lock, rfc2822};
use crate::transcript::Ending;
use crate::twiml;

type Answer = Result<(StatusCode, Json<Value>), RestError>;

/// Error: no number to call.
const NO_TO: u32 = 21201;
/// Error: a URL that is missing or cannot be asked.
const BAD_URL: u32 = 21205;
/// Error: a value of `IfMachine` that does not exist.
const BAD_IF_MACHINE: u32 = 21207;
/// Error: a number that cannot be called.
const BAD_TO: u32 = 21211;
/// Error: a number that cannot be shown.
const BAD_FROM: u32 = 21212;
/// Error: no number to show.
const NO_FROM: u32 = 21213;
/// Error: TwiML that is too long or cannot be read.
const BAD_TWIML: u32 = 21218;
/// Error: the call is not in a state in which that can be done.
const NOT_IN_PROGRESS: u32 = 21220;
/// Error: a decision that nobody would be told.
const NO_DECISION_CALLBACK: u32 = 21262;
/// Error: a callback URL that cannot be asked.
const BAD_CALLBACK: u32 = 21609;
/// Error: something that exists at Twilio and not here.
const NOT_MODELLED: u32 = 20001;
/// Error: a call that is not over cannot be deleted.
const NOT_OVER: u32 = 20009;

/// The longest TwiML that may be given instead of a URL.
const LONGEST_TWIML: usize = 4000;
const EVENTS: [&str; 4] = ["initiated", "ringing", "answered", "completed"];

pub(super) async fn create(State(rest): State<Rest>, body: Bytes) -> Answer {
    let parameters = Parameters::read(&body);
    let outbound = outbound(&parameters)?;
    let call = rest.company.outbound(outbound);
    let (handle, busy) = (call.handle(), rest.company.busy());
    tokio::spawn(async move {
        call.make().await;
        drop(busy);
    });
    let record = lock(&handle.record).clone();
    Ok((StatusCode::CREATED, Json(shown(&rest, &record))))
}

pub(super) async fn fetch(State(rest): State<Rest>, Named(sid): Named) -> Answer {
    let record = lock(&find(&rest, &sid)?.record).clone();
    Ok((StatusCode::OK, Json(shown(&rest, &record))))
}

pub(super) async fn list(
    State(rest): State<Rest>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, RestError> {
    let query = Parameters::read(query.unwrap_or_default().as_bytes());
    let wanted = |name: &str, value: Option<&str>| {
        query.get(name).is_none_or(|wanted| Some(wanted) == value)
    };
    let records = rest.company.calls().into_iter().filter(|record| {
        wanted("To", Some(&record.to))
            && wanted("From", Some(&record.from))
            && wanted("Status", Some(record.status))
            && wanted("ParentCallSid", record.parent.as_deref())
    });
    let calls: Vec<Value> = records.map(|record| shown(&rest, &record)).collect();
    let path = format!("/2010-04-01/Accounts/{}/Calls.json", rest.company.account_sid());
    Ok(page("calls", &path, &query, &calls))
}

pub(super) async fn update(State(rest): State<Rest>, Named(sid): Named, body: Bytes) -> Answer {
    let parameters = Parameters::read(&body);
    let handle = find(&rest, &sid)?;
    let status = lock(&handle.record).status;
    let live = matches!(status, "queued" | "ringing" | "in-progress");
    let refused = |what: &str| {
        Err(RestError::bad(NOT_IN_PROGRESS, format!("Call is {status}. Cannot {what}.")))
    };
    let command = match parameters.get("Status") {
        Some("completed") if live => Some(Command::End(Ending::EndedByApi)),
        Some("canceled") if matches!(status, "queued" | "ringing") => {
            Some(Command::End(Ending::EndedByApi))
        }
        Some("completed" | "canceled") => return refused("end"),
        Some(other) => {
            return Err(RestError::bad(
                BAD_URL,
                format!("Status must be canceled or completed: {other}"),
            ));
        }
        None => redirect(&parameters)?,
    };
    if let Some(command) = command {
        let redirects = matches!(&command, Command::Redirect(to) if to.source.is_some());
        if !live || (redirects && status != "in-progress") {
            return refused(if redirects { "redirect" } else { "change" });
        }
        // It may end this very moment.
        if handle.commands.send(command).is_err() {
            return refused("change");
        }
    }
    let record = lock(&handle.record).clone();
    Ok((StatusCode::OK, Json(shown(&rest, &record))))
}

pub(super) async fn delete(
    State(rest): State<Rest>,
    Named(sid): Named,
) -> Result<StatusCode, RestError> {
    let handle = find(&rest, &sid)?;
    if lock(&handle.record).ended.is_none() {
        return Err(RestError::new(409, NOT_OVER, "The call is not over"));
    }
    rest.company.forget(&sid);
    Ok(StatusCode::NO_CONTENT)
}

fn find(rest: &Rest, sid: &str) -> Result<Handle, RestError> {
    rest.company
        .find(sid)
        .ok_or_else(|| RestError::not_found(&format!("The requested resource /Calls/{sid}.json")))
}

fn redirect(parameters: &Parameters) -> Result<Option<Command>, RestError> {
    let source = source(parameters)?;
    let fallback = parameters.endpoint("FallbackUrl", "FallbackMethod", BAD_URL)?;
    let status = parameters.endpoint("StatusCallback", "StatusCallbackMethod", BAD_CALLBACK)?;
    let anything = source.is_some() || fallback.is_some() || status.is_some();
    Ok(anything.then(|| Command::Redirect(Box::new(Redirect { source, fallback, status }))))
}

fn source(parameters: &Parameters) -> Result<Option<Source>, RestError> {
    let url = parameters.endpoint("Url", "Method", BAD_URL)?;
    match (url, parameters.get("Twiml")) {
        (Some(endpoint), _) => Ok(Some(Source::Endpoint(endpoint))),
        (None, Some(text)) if text.len() > LONGEST_TWIML => {
            Err(RestError::bad(BAD_TWIML, "Twiml is longer than 4000 characters"))
        }
        (None, Some(text)) => match twiml::parse(text.as_bytes()) {
            Ok(_) => Ok(Some(Source::Twiml(text.to_owned()))),
            Err(error) => {
                Err(RestError::bad(BAD_TWIML, format!("Twiml cannot be read: error {}", error.0)))
            }
        },
        (None, None) => Ok(None),
    }
}

fn outbound(parameters: &Parameters) -> Result<Outbound, RestError> {
    let to =
        parameters.get("To").ok_or_else(|| RestError::bad(NO_TO, "No 'To' number is specified"))?;
    let from = parameters.get("From").ok_or_else(|| RestError::bad(NO_FROM, "From is required"))?;
    let to =
        number(to).ok_or_else(|| RestError::bad(BAD_TO, format!("{to} is not a valid number")))?;
    let from = number(from)
        .ok_or_else(|| RestError::bad(BAD_FROM, format!("{from} is not a valid number")))?;
    if parameters.get("ApplicationSid").is_some() {
        return Err(RestError::bad(NOT_MODELLED, "ApplicationSid is not modelled: give a Url"));
    }
    let source =
        source(parameters)?.ok_or_else(|| RestError::bad(BAD_URL, "Url or Twiml is required"))?;
    let seconds = |name: &str, default: u64| {
        parameters.get(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    Ok(Outbound {
        to,
        from,
        source,
        fallback: parameters.endpoint("FallbackUrl", "FallbackMethod", BAD_URL)?,
        status: parameters.endpoint("StatusCallback", "StatusCallbackMethod", BAD_CALLBACK)?,
        events: events(parameters.all("StatusCallbackEvent")),
        timeout: seconds("Timeout", 60).min(600),
        time_limit: seconds("TimeLimit", 14_400),
        machine: machine(parameters)?,
    })
}

/// The events to report. Given in a way that does not exist, none are, and nothing is said
/// (`twilio.com/docs/api/errors/21626`).
fn events(given: Vec<String>) -> Vec<String> {
    if given.is_empty() {
        return vec!["completed".to_owned()];
    }
    if given.iter().all(|event| EVENTS.contains(&event.as_str())) { given } else { Vec::new() }
}

fn machine(parameters: &Parameters) -> Result<Option<MachineDetection>, RestError> {
    match (parameters.get("MachineDetection"), parameters.get("IfMachine")) {
        (Some(mode @ ("Enable" | "DetectMessageEnd")), _) => {
            let waits = parameters.is("AsyncAmd") != Some(true);
            let asynchronous = parameters.endpoint(
                "AsyncAmdStatusCallback",
                "AsyncAmdStatusCallbackMethod",
                BAD_CALLBACK,
            )?;
            if !waits && asynchronous.is_none() {
                let message = "AsyncAmd needs an AsyncAmdStatusCallback";
                return Err(RestError::bad(NO_DECISION_CALLBACK, message));
            }
            let message_end = mode == "DetectMessageEnd";
            Ok(Some(MachineDetection::Present { message_end, asynchronous, waits }))
        }
        (_, Some("Continue")) => Ok(Some(MachineDetection::Legacy { hang_up: false })),
        (_, Some("Hangup")) => Ok(Some(MachineDetection::Legacy { hang_up: true })),
        (_, Some(other)) if other != "False" => {
            Err(RestError::bad(BAD_IF_MACHINE, format!("IfMachine cannot be {other}")))
        }
        _ => Ok(None),
    }
}

/// A number as Twilio writes it: ten digits are North American.
fn number(text: &str) -> Option<String> {
    if ["client:", "sip:"].iter().any(|kind| text.starts_with(kind)) {
        return Some(text.to_owned());
    }
    let digits: String =
        text.chars().filter(|c| !matches!(c, '+' | ' ' | '-' | '(' | ')' | '.')).collect();
    let fits = (10..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| if digits.len() == 10 { format!("+1{digits}") } else { format!("+{digits}") })
}

fn shown(rest: &Rest, record: &Record) -> Value {
    let account = rest.company.account_sid();
    let uri = format!("/2010-04-01/Accounts/{account}/Calls/{}", record.sid);
    let seconds = match (record.answered, record.ended) {
        (Some(from), Some(to)) => {
            let real = to.duration_since(from).as_secs_f64();
            Some(format!("{:.0}", real * rest.company.speed()))
        }
        (None, Some(_)) => Some("0".to_owned()),
        _ => None,
    };
    json!({
        "sid": record.sid,
        "account_sid": account,
        "parent_call_sid": record.parent,
        "to": record.to,
        "to_formatted": record.to,
        "from": record.from,
        "from_formatted": record.from,
        "phone_number_sid": null,
        "status": record.status,
        "direction": record.direction,
        "answered_by": record.answered_by,
        "date_created": rfc2822(record.created),
        "date_updated": rfc2822(record.updated),
        "start_time": record.answered.map(rfc2822),
        "end_time": record.ended.map(rfc2822),
        "duration": seconds,
        "queue_time": record.queued_for.as_millis().to_string(),
        "price": null,
        "price_unit": "USD",
        "api_version": "2010-04-01",
        "forwarded_from": null,
        "caller_name": null,
        "group_sid": null,
        "trunk_sid": null,
        "uri": format!("{uri}.json"),
        "subresource_uris": {
            "notifications": format!("{uri}/Notifications.json"),
            "recordings": format!("{uri}/Recordings.json"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(body: &str, code: u32) {
        let error = outbound(&Parameters::read(body.as_bytes())).unwrap_err();
        assert_eq!((error.status, error.code), (400, code), "{body}: {}", error.message);
    }

    #[test]
    fn what_cannot_be_called_is_refused_with_twilios_number() {
        refused("From=5005550001&Url=http://a.test/", NO_TO);
        refused("To=5005550006&Url=http://a.test/", NO_FROM);
        refused("To=7&From=5005550001&Url=http://a.test/", BAD_TO);
        refused("To=5005550006&From=me&Url=http://a.test/", BAD_FROM);
        refused("To=5005550006&From=5005550001", BAD_URL);
        refused("To=5005550006&From=5005550001&Url=/relative", BAD_URL);
        refused("To=5005550006&From=5005550001&Url=http://a_b.test/", BAD_URL);
        refused("To=5005550006&From=5005550001&Twiml=<no", BAD_TWIML);
        let fine = "To=5005550006&From=5005550001&Url=http://a.test/";
        refused(&format!("{fine}&IfMachine=Maybe"), BAD_IF_MACHINE);
        refused(&format!("{fine}&MachineDetection=Enable&AsyncAmd=true"), NO_DECISION_CALLBACK);
        refused(&format!("{fine}&StatusCallback=x"), BAD_CALLBACK);
        refused(&format!("{fine}&ApplicationSid=AP1"), NOT_MODELLED);
    }

    #[test]
    fn defaults_are_twilios() {
        let body = "To=(500) 555-0006&From=client:me&Url=http://a.test/";
        let call = outbound(&Parameters::read(body.as_bytes())).unwrap();
        assert_eq!((call.to.as_str(), call.timeout), ("+15005550006", 60));
        assert_eq!((call.events, call.machine), (vec!["completed".to_owned()], None));
    }

    #[test]
    fn events_in_one_word_are_none_at_all() {
        let given = |events: &[&str]| events.iter().map(|e| (*e).to_owned()).collect();
        assert_eq!(events(given(&["initiated", "answered"])).len(), 2);
        assert_eq!(events(given(&["initiated answered"])), Vec::<String>::new());
    }
}
