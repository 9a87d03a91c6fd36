//! The proof that a visit comes from Twilio.

use std::time::SystemTime;

use holdline_twilio::{Keyring, PublicUrl, Signed, Unproven};
use http::HeaderValue;

use crate::config::SignaturePolicy;
use crate::ingress::Visit;

/// Something that was proven; made only by [`Prover::prove`].
#[derive(Debug)]
pub struct Proven<T>(T);

/// What proofs are checked against.
#[derive(Debug)]
pub struct Prover {
    base: PublicUrl,
    keys: Keyring,
    policy: SignaturePolicy,
}

// === impl Proven ===

impl<T> Proven<T> {
    /// The thing itself.
    pub fn into_inner(self) -> T {
        self.0
    }
}

// === impl Prover ===

impl Prover {
    /// A prover for requests that arrive under `base`.
    pub fn new(base: PublicUrl, keys: Keyring, policy: SignaturePolicy) -> Prover {
        Prover { base, keys, policy }
    }

    /// Proves the visit. While the policy only reports, a failure is given back beside the visit.
    pub fn prove(&self, mut visit: Visit) -> Result<(Proven<Visit>, Option<Unproven>), Unproven> {
        let proof = self.keys.prove(&Signed {
            signature: text(visit.arrival.signature.as_ref()),
            settings: text(visit.arrival.settings.as_ref()),
            base: &self.base,
            target: &visit.arrival.target,
            content: visit.content(),
            account: visit.account,
        });
        match proof {
            Ok(proof) => {
                visit.signature_is_current = proof.is_current;
                Ok((Proven(visit), None))
            }
            Err(unproven) if self.only_reports() => Ok((Proven(visit), Some(unproven))),
            Err(unproven) => Err(unproven),
        }
    }

    fn only_reports(&self) -> bool {
        match self.policy {
            SignaturePolicy::Enforce => false,
            SignaturePolicy::ReportUntil(until) => SystemTime::now() < until,
        }
    }
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value.and_then(|value| value.to_str().ok())
}
