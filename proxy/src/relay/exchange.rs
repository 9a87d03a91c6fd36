//! One attempt at one upstream: the request goes out, the answer comes in whole and bounded.
//!
//! The caller bounds the attempt as a whole: an upstream that drips its header byte by byte resets
//! every per-read timeout there is.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use holdline_policy::{Ended, Outcome, Sent};
use http::{HeaderValue, Method};

use crate::clock::Clock;
use crate::config::UpstreamConfig;
use crate::ingress::SIGNATURE;
use crate::upstream::Target;
use crate::upstream::http1::{Broken, Reply, RequestHead, converse};

/// On a request to a fallback URL: what is known of the request that failed, `never-arrived` or
/// `delivered`.
pub(super) const EARLIER: &str = "holdline-earlier";

/// Names of the fields that the edge adds to a request.
mod fields {
    /// The delivery id: the same for every attempt at one visit.
    pub(super) const DELIVERY: &str = "holdline-delivery";
    /// Twilio's own signature, kept as evidence.
    pub(super) const EVIDENCE: &str = "holdline-twilio-signature";
    pub(super) const FORWARDED_FOR: &str = "x-forwarded-for";
    pub(super) const FORWARDED_PROTO: &str = "x-forwarded-proto";
}

/// The largest answer that is read. One byte more than a document may have tells "too large" from
/// "just fits".
const LARGEST_ANSWER: usize = holdline_twilio::document::MAX_BYTES + 1;

/// A request as every attempt sends it; only host and signature differ between upstreams.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// End-to-end fields of the original, as they stand in a header block.
    pub fields: Vec<u8>,
    /// The body.
    pub body: Bytes,
    /// The delivery id.
    pub delivery: String,
    /// Twilio's own signature.
    pub evidence: Option<HeaderValue>,
    /// Who connected to the edge, and whether Twilio used TLS.
    pub client: Option<IpAddr>,
    /// `https` or `http`.
    pub proto: &'static str,
    /// Whether another connection may be used when an idle one breaks before it answers.
    pub repeatable: bool,
}

// === impl Outgoing ===

impl Outgoing {
    /// Asks `target`, and keeps the connection if it can carry more. An idle one is used only where a
    /// second may be tried, and not where `fresh` forbids it. `sent` is set once a byte was written.
    pub async fn ask(
        &self,
        target: &Target,
        signature: Option<&HeaderValue>,
        fresh: bool,
        clock: Clock,
        sent: &AtomicBool,
    ) -> Result<Reply, Ended> {
        let request = self.written(&target.config, signature);
        let is_head = self.method == Method::HEAD;
        let pooled = self.repeatable && !fresh;
        if pooled && let Some(mut connection) = target.idle_connection(clock.now()) {
            match converse(&mut connection.stream, &request, is_head, LARGEST_ANSWER, sent).await {
                // What an upstream says as it closes an idle connection is no answer to this.
                Ok(Reply { status: 408, keeps: false, .. }) => {}
                Ok(reply) => {
                    if reply.keeps {
                        target.keep(connection, clock.now());
                    }
                    return Ok(reply);
                }
                // A connection that was closed just as it was used again, or that held what was not
                // meant for us, says nothing of the upstream; a new connection does.
                Err(Broken::Unanswered | Broken::NotHttp) => {}
                Err(Broken::Cut) => return Err(ended(Outcome::Broken, sent)),
            }
        }
        // Connecting is rare and its future large; boxed, it does not weigh on those that reuse.
        let mut connection =
            Box::pin(target.connect()).await.map_err(|outcome| ended(outcome, sent))?;
        let reply = converse(&mut connection.stream, &request, is_head, LARGEST_ANSWER, sent)
            .await
            .map_err(|_| ended(Outcome::Broken, sent))?;
        if pooled && reply.keeps {
            target.keep(connection, clock.now());
        }
        Ok(reply)
    }

    /// The request that a redirect of the same upstream asks for, by the rules of RFC 9110 section
    /// 15.4: the same again after 307 and 308, otherwise a GET whose query carries the parameters, as
    /// Twilio would send it. None for a redirect elsewhere than below the upstream's own URL.
    pub(super) fn redirected(&self, reply: &Reply, upstream: &UpstreamConfig) -> Option<Outgoing> {
        let location = reply.location.as_ref()?.to_str().ok()?;
        let location = location.split('#').next().unwrap_or_default();
        let path = match location.split_once("://") {
            Some((_, rest)) if !location.starts_with('/') => {
                let (authority, path) = rest.split_at(rest.find('/')?);
                let own = [upstream.public_url.authority(), &upstream.host_field];
                own.contains(&authority).then_some(path)?
            }
            _ => location,
        };
        let rest = path.strip_prefix(upstream.public_url.path())?;
        let fine = rest.starts_with('/')
            && !rest.starts_with("//")
            && rest.bytes().all(|byte| byte.is_ascii_graphic());
        if !fine {
            return None;
        }
        let mut next = Outgoing { target: rest.to_owned(), ..self.clone() };
        match reply.status {
            307 | 308 => {}
            301..=303 => {
                if !next.body.is_empty() {
                    next.target.push(if rest.contains('?') { '&' } else { '?' });
                    next.target.push_str(std::str::from_utf8(&next.body).ok()?);
                }
                next.body = Bytes::new();
                next.method = Method::GET;
            }
            _ => return None,
        }
        Some(next)
    }

    /// The request as it is sent to this upstream.
    fn written(&self, upstream: &UpstreamConfig, signature: Option<&HeaderValue>) -> Vec<u8> {
        let (method, host) = (self.method.as_str(), &upstream.host_field);
        let mut head = RequestHead::new(method, &upstream.path, &self.target, host);
        head.fields(&self.fields);
        if self.method != Method::GET || !self.body.is_empty() {
            head.number("content-length", self.body.len());
        }
        head.field(fields::DELIVERY, &self.delivery);
        if let Some(signature) = signature {
            head.field(SIGNATURE.as_str(), signature);
        }
        if let Some(evidence) = &self.evidence {
            head.field(fields::EVIDENCE, evidence);
        }
        if let Some(client) = self.client {
            head.field(fields::FORWARDED_FOR, client.to_string());
        }
        head.field(fields::FORWARDED_PROTO, self.proto);
        head.with_body(&self.body)
    }
}

/// An attempt that came to `outcome`, with whether anything was sent on the way.
pub(super) fn ended(outcome: Outcome, sent: &AtomicBool) -> Ended {
    let something = sent.load(Ordering::Relaxed);
    Ended { outcome, sent: if something { Sent::Something } else { Sent::Nothing } }
}
