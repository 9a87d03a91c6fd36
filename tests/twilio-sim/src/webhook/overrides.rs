//! Connection overrides: what a URL's fragment tells Twilio about time limits and retries.
//!
//! Source: `twilio.com/docs/usage/webhooks/webhooks-connection-overrides`. The fragment is never sent
//! and never signed. What Twilio does with a number out of its range is not documented; it is brought
//! into the range here.

use std::time::Duration;

use url::Url;

/// For everything, whatever a fragment says.
pub const TOTAL: Duration = Duration::from_secs(15);

/// Error: `e` names no edge.
pub const BAD_EDGE: u32 = 11240;
/// Error: `rp` names no reason.
pub const BAD_RETRY_POLICY: u32 = 11243;

const EDGES: [&str; 8] =
    ["ashburn", "dublin", "frankfurt", "sao-paulo", "singapore", "sydney", "tokyo", "umatilla"];

/// Time limits and retries of one webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overrides {
    /// For connecting, once.
    pub connect: Duration,
    /// For the first packet of an answer, and between packets.
    pub read: Duration,
    /// For everything, retries included.
    pub total: Duration,
    /// Tries after the first.
    pub retries: u32,
    /// What is tried again.
    pub on: RetryOn,
    /// Whether the host is named in the TLS handshake.
    pub sni: bool,
}

/// What is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn {
    /// A connection that could not be made.
    pub connect: bool,
    /// An answer that did not come in time.
    pub read: bool,
    /// A status of 400 to 499.
    pub status_4xx: bool,
    /// A status of 500 to 599.
    pub status_5xx: bool,
}

// === impl Overrides ===

impl Default for Overrides {
    fn default() -> Overrides {
        Overrides {
            connect: Duration::from_secs(5),
            read: TOTAL,
            total: TOTAL,
            retries: 1,
            on: RetryOn { connect: true, ..RetryOn::default() },
            sni: true,
        }
    }
}

impl Overrides {
    /// What a URL's fragment asks for; an error of Twilio's where it asks for what does not exist.
    pub fn of(url: &Url) -> Result<Overrides, u32> {
        let mut overrides = Overrides::default();
        for pair in url.fragment().unwrap_or_default().split('&') {
            let Some((key, value)) = pair.split_once('=') else { continue };
            let number = value.parse::<u64>().ok();
            let millis =
                |from: u64, to: u64| number.map(|n| Duration::from_millis(n.clamp(from, to)));
            match key {
                "ct" => overrides.connect = millis(100, 10_000).unwrap_or(overrides.connect),
                "rt" => overrides.read = millis(100, 15_000).unwrap_or(overrides.read),
                "tt" => overrides.total = millis(100, 15_000).unwrap_or(overrides.total),
                "rc" => {
                    overrides.retries = number.map_or(1, |n| u32::try_from(n.min(5)).unwrap_or(5))
                }
                "rp" => overrides.on = RetryOn::read(value)?,
                "sni" => overrides.sni = value != "n",
                "e" => {
                    let known = |edge: &str| EDGES.contains(&edge.trim_end_matches("-ix"));
                    if !value.split(',').all(known) {
                        return Err(BAD_EDGE);
                    }
                }
                _ => {}
            }
        }
        Ok(overrides)
    }
}

// === impl RetryOn ===

impl RetryOn {
    fn read(text: &str) -> Result<RetryOn, u32> {
        let mut on = RetryOn::default();
        for reason in text.split(',') {
            match reason {
                "ct" => on.connect = true,
                "rt" => on.read = true,
                "4xx" => on.status_4xx = true,
                "5xx" => on.status_5xx = true,
                "all" => {
                    on = RetryOn { connect: true, read: true, status_4xx: true, status_5xx: true }
                }
                _ => return Err(BAD_RETRY_POLICY),
            }
        }
        Ok(on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fragment: &str) -> Result<Overrides, u32> {
        Overrides::of(&Url::parse(&format!("https://edge.test/x#{fragment}")).unwrap())
    }

    #[test]
    fn a_fragment_sets_limits_and_retries() {
        assert_eq!(of(""), Ok(Overrides::default()));
        let set = of("ct=1000&rt=2000&tt=9000&rc=2&rp=5xx,ct&e=ashburn,umatilla-ix&sni=n").unwrap();
        assert_eq!(set.connect, Duration::from_secs(1));
        assert_eq!((set.read, set.total), (Duration::from_secs(2), Duration::from_secs(9)));
        assert_eq!((set.retries, set.sni), (2, false));
        let on = RetryOn { connect: true, status_5xx: true, ..RetryOn::default() };
        assert_eq!(set.on, on);
    }

    #[test]
    fn no_fragment_goes_beyond_the_limits() {
        let set = of("ct=1&rt=99999&tt=99999&rc=9").unwrap();
        assert_eq!(set.connect, Duration::from_millis(100));
        assert_eq!((set.read, set.total, set.retries), (TOTAL, TOTAL, 5));
        assert_eq!(of("rp=3xx"), Err(BAD_RETRY_POLICY));
        assert_eq!(of("e=atlantis"), Err(BAD_EDGE));
    }
}
