//! One try at delivering a callback that was kept.

use std::sync::Arc;
use std::time::Duration;

use holdline_policy::{Access, Outcome, Upstream};
use holdline_twilio::signature::Content;
use holdline_twilio::{AccountSid, CallSid, Form};
use http::{HeaderValue, Method};
use pingora_timeout::fast_timeout::fast_timeout;

use super::Relay;
use super::ask::call_key;
use super::attempt::{Errand, Race, Slot};
use super::exchange::Outgoing;
use super::judge::judge_receipt;
use crate::ingress::is_form_type;
use crate::spool::{Delivery, Kind};
use crate::upstream::http1::push_field;

/// How often a try is looked at; it looks at the clock when it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Which try this is, from 1.
const TRY: &str = "holdline-try";
/// For how many seconds the callback has been waiting.
const AGE: &str = "holdline-age";
/// When it came (RFC 3339, UTC).
const FIRST_SEEN: &str = "holdline-first-seen";

// === impl Relay ===

impl Relay {
    /// Tries to deliver a callback to an upstream, as it came, signed anew.
    pub(crate) async fn redeliver(
        self: &Arc<Self>,
        delivery: &Delivery,
        upstream: Upstream,
        access: Access,
    ) -> Outcome {
        let outgoing = self.outgoing_of(delivery);
        let account: Option<AccountSid> =
            delivery.account.as_deref().and_then(|text| text.parse().ok());
        let call: Option<CallSid> = delivery.call.as_deref().and_then(|text| text.parse().ok());
        let base = &self.targets[upstream.index()].config.public_url;
        let is_form = content_type(&outgoing.fields).is_some_and(is_form_type);
        let form = if is_form { Form::parse(&outgoing.body).ok() } else { None };
        let content = match &form {
            Some(form) => Content::Form(form),
            None if outgoing.body.is_empty() => Content::Empty,
            None => Content::Raw(&outgoing.body),
        };
        let signature = self.keys.signer(account).and_then(|key| {
            HeaderValue::try_from(key.sign(base.signed(), &outgoing.target, content)).ok()
        });
        let errand = Errand {
            upstream,
            slot: match access {
                Access::Serving => Slot::Free,
                Access::OnTrial => Slot::OneAtATime,
                _ => Slot::BesideTheTrial,
            },
            begun: self.clock.now(),
            limit: self.spool.config().try_for,
            outgoing: Arc::new(outgoing),
            signature,
            call: call.map_or(0, call_key),
            row: None,
            // A notice names the row that it tells of; it is not a visit to it.
            watched: match delivery.kind {
                Kind::Callback => self.watch.row(&delivery.row),
                Kind::Notice => self.no_row.clone(),
            },
            drill: None,
            status_counts: delivery.tries == 0,
            judge: judge_receipt,
            account,
        };
        let mut race = Race::new();
        race.begin(self, errand);
        loop {
            if let Ok(Some(done)) = fast_timeout(LOOK_EVERY, race.next()).await {
                return done.result.map_or_else(|ended| ended.outcome, |()| Outcome::Good);
            }
        }
    }

    fn outgoing_of(&self, delivery: &Delivery) -> Outgoing {
        let mut fields = delivery.fields.clone();
        let first_seen = humantime::format_rfc3339_millis(delivery.first_seen()).to_string();
        for (name, value) in [
            (TRY, (delivery.tries + 1).to_string()),
            (AGE, delivery.age().as_secs().to_string()),
            (FIRST_SEEN, first_seen),
        ] {
            push_field(&mut fields, name, value.as_bytes());
        }
        Outgoing {
            method: Method::from_bytes(delivery.method.as_bytes()).unwrap_or(Method::POST),
            target: delivery.target.clone(),
            fields,
            body: delivery.body.clone(),
            delivery: delivery.id.clone(),
            evidence: delivery
                .signature
                .as_ref()
                .and_then(|value| HeaderValue::from_bytes(value).ok()),
            client: delivery.client,
            proto: if self.public_url.is_https() { "https" } else { "http" },
            repeatable: true,
        }
    }
}

/// The content type in a header block.
fn content_type(fields: &[u8]) -> Option<&[u8]> {
    let lines = fields.split(|&byte| byte == b'\n');
    lines.map(<[u8]>::trim_ascii).find_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = line.split_at(colon);
        name.eq_ignore_ascii_case(b"content-type").then(|| value[1..].trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_is_found_in_a_header_block() {
        let block = b"accept: */*\r\nContent-Type: application/x-www-form-urlencoded\r\nx: y\r\n";
        assert_eq!(content_type(block), Some(&b"application/x-www-form-urlencoded"[..]));
        assert_eq!(content_type(b"x: content-type\r\n"), None);
        assert_eq!(content_type(b""), None);
    }
}
