//! The URL that Twilio was given, and the two ways in which it may have been signed.

/// The public URL under which requests arrive: scheme, host and perhaps a port; no path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    with_port: String,
    without_port: String,
    authority: String,
    written_with_port: bool,
    https: bool,
}

/// Why a text is no public URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a URL of the form https://host or http://host:port, without path, query or fragment")]
pub struct NotAPublicUrl;

// === impl PublicUrl ===

impl PublicUrl {
    /// Parses `scheme://authority`, with an optional trailing slash.
    pub fn parse(text: &str) -> Result<PublicUrl, NotAPublicUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(NotAPublicUrl)?;
        let https = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(NotAPublicUrl),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let unusable =
            |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '?' | '#');
        if authority.is_empty() || authority.contains(unusable) {
            return Err(NotAPublicUrl);
        }
        let (host, port) = split_port(authority)?;
        if host.is_empty() || host.ends_with('@') {
            return Err(NotAPublicUrl);
        }
        let default_port = if https { 443 } else { 80 };
        Ok(PublicUrl {
            with_port: format!("{scheme}://{host}:{}", port.unwrap_or(default_port)),
            without_port: format!("{scheme}://{host}"),
            authority: authority.to_owned(),
            written_with_port: port.is_some(),
            https,
        })
    }

    /// Host and port as written, for a `Host` header.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether the scheme is https.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The spelling Twilio signs for Voice: no port over https, the port as written over http
    /// (twilio.com/docs/usage/security, notes on ports).
    pub fn as_twilio_signs(&self) -> &str {
        if !self.https && self.written_with_port { &self.with_port } else { &self.without_port }
    }

    pub(crate) fn other_spelling(&self) -> &str {
        if !self.https && self.written_with_port { &self.without_port } else { &self.with_port }
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), NotAPublicUrl> {
    let host_start = authority.rfind('@').map_or(0, |at| at + 1);
    let host_end = match authority[host_start..].find(']') {
        Some(bracket) => host_start + bracket + 1,
        None => authority[host_start..].find(':').map_or(authority.len(), |at| host_start + at),
    };
    match authority[host_end..].strip_prefix(':') {
        None if host_end == authority.len() => Ok((authority, None)),
        None => Err(NotAPublicUrl),
        Some(port) => Ok((&authority[..host_end], Some(port.parse().map_err(|_| NotAPublicUrl)?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn spelled(url: &str, signs: &str, other: &str) {
        let url = PublicUrl::parse(url).unwrap();
        assert_eq!((url.as_twilio_signs(), url.other_spelling()), (signs, other));
    }

    #[test]
    fn https_drops_the_port_and_http_keeps_it() {
        spelled("https://a.example", "https://a.example", "https://a.example:443");
        spelled("https://a.example:8443/", "https://a.example", "https://a.example:8443");
        spelled("http://a.example:8080", "http://a.example:8080", "http://a.example");
        spelled("http://a.example", "http://a.example", "http://a.example:80");
        spelled("http://[::1]:8080", "http://[::1]:8080", "http://[::1]");
    }

    #[test]
    fn a_public_url_is_scheme_and_authority_only() {
        for wrong in [
            "",
            "a.example",
            "ftp://a",
            "https://",
            "https://a/b",
            "https://a?x",
            "http://a:b",
            "http://a:99999",
            "http://[::1]x",
            "http://u@",
        ] {
            assert_eq!(PublicUrl::parse(wrong), Err(NotAPublicUrl), "{wrong}");
        }
    }
}
