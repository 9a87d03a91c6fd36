//! What a call keeps between its requests: cookies, and where it has logged in.
//!
//! Twilio keeps the cookies of one call and sends them back to the host they came from
//! (`twilio.com/docs/voice/twiml`, "HTTP cookies"). Attributes are not looked at.

use std::collections::{BTreeMap, HashSet};

use http::{HeaderMap, header};
use url::Url;

/// Cookies and logins of one call.
#[derive(Debug, Clone, Default)]
pub struct Jar {
    cookies: BTreeMap<(String, String), String>,
    logged_in: HashSet<String>,
}

// === impl Jar ===

impl Jar {
    /// Takes in what an answer sets.
    pub(super) fn keep(&mut self, url: &Url, headers: &HeaderMap) {
        for value in headers.get_all(header::SET_COOKIE) {
            let text = value.to_str().unwrap_or_default();
            let pair = text.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                let place = (host(url), name.trim().to_owned());
                self.cookies.insert(place, value.trim().to_owned());
            }
        }
    }

    /// The `Cookie` field for a request.
    pub(super) fn cookies_for(&self, url: &Url) -> Option<String> {
        let host = host(url);
        let of_host = self.cookies.iter().filter(|((place, _), _)| *place == host);
        let pairs: Vec<String> =
            of_host.map(|((_, name), value)| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// Sends the URL's name and password to its host from now on; false if that was so already.
    pub(super) fn log_in(&mut self, url: &Url) -> bool {
        self.logged_in.insert(host(url))
    }

    pub(super) fn is_logged_in(&self, url: &Url) -> bool {
        !url.username().is_empty() && self.logged_in.contains(&host(url))
    }
}

fn host(url: &Url) -> String {
    url[url::Position::BeforeHost..url::Position::AfterPort].to_owned()
}
