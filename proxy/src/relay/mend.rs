//! What can be put right about an answer before it is judged.
//!
//! Twilio reads a document that is not compressed, in UTF-8, with nothing before its declaration. An
//! application that answers otherwise, although it means well, must not cost a call: what it meant is
//! plain. Everything that was put right is counted, because the application is still at fault.

use std::borrow::Cow;
use std::io::Read;

use bytes::Bytes;
use encoding_rs::Encoding;
use flate2::read::{DeflateDecoder, GzDecoder, ZlibDecoder};
use holdline_twilio::document::MAX_BYTES;

use crate::telemetry::Metrics;
use crate::upstream::http1::Reply;

/// What was put right; the label of its metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mended {
    /// It was compressed.
    Compressed,
    /// It was in another charset than UTF-8.
    Charset,
    /// A byte order mark or blanks stood before the declaration.
    Prolog,
}

// === impl Mended ===

impl Mended {
    const fn name(self) -> &'static str {
        match self {
            Mended::Compressed => "compressed",
            Mended::Charset => "charset",
            Mended::Prolog => "prolog",
        }
    }
}

/// The body as it can be judged. What cannot be put right stands as it came, for the judge to refuse.
pub(super) fn body_of(reply: &Reply, metrics: &Metrics) -> Bytes {
    let count = |what: Mended| metrics.answers_mended.with_label_values(&[what.name()]).inc();
    let mut body = reply.body.clone();
    if let Some(coding) = &reply.content_coding
        && let Some(plain) = decompress(coding.as_bytes(), &body)
    {
        count(Mended::Compressed);
        body = plain;
    }
    let charset = reply.content_type.as_ref().and_then(|kind| charset_of(kind.as_bytes()));
    if let Some(text) = to_utf8(&body, charset) {
        count(Mended::Charset);
        body = Bytes::from(text);
    }
    let blank = prolog(&body);
    if blank > 0 {
        count(Mended::Prolog);
        body = body.slice(blank..);
    }
    body
}

/// The bytes without their compression; none if they are not compressed that way. More than a document
/// may have is not looked at.
fn decompress(coding: &[u8], body: &[u8]) -> Option<Bytes> {
    let read = |from: &mut dyn Read| {
        let mut plain = Vec::new();
        from.take(MAX_BYTES as u64 + 1).read_to_end(&mut plain).ok()?;
        Some(Bytes::from(plain))
    };
    let is = |name: &str| coding.trim_ascii().eq_ignore_ascii_case(name.as_bytes());
    if is("gzip") || is("x-gzip") {
        read(&mut GzDecoder::new(body))
    } else if is("deflate") {
        // The name is used for two formats.
        read(&mut ZlibDecoder::new(body)).or_else(|| read(&mut DeflateDecoder::new(body)))
    } else {
        None
    }
}

/// The text in UTF-8, if it is in something else that is named.
fn to_utf8(body: &[u8], charset: Option<&str>) -> Option<String> {
    let marked = Encoding::for_bom(body).map(|(encoding, _)| encoding);
    let utf_8 = encoding_rs::UTF_8;
    let encoding = match marked {
        Some(encoding) if encoding == utf_8 => return None,
        Some(encoding) => encoding,
        // What is UTF-8 already is left alone, whatever it is called.
        None if std::str::from_utf8(body).is_ok() => return None,
        None => {
            charset.or_else(|| declared(body)).and_then(|n| Encoding::for_label(n.as_bytes()))?
        }
    };
    let (text, _, had_errors) = encoding.decode(body);
    if had_errors || encoding == utf_8 {
        return None;
    }
    Some(without_declared_encoding(&text).into_owned())
}

/// The text whose declaration no longer names an encoding that it is not in.
fn without_declared_encoding(text: &str) -> Cow<'_, str> {
    let Some(end) = text.find("?>").filter(|_| text.starts_with("<?xml")) else {
        return Cow::Borrowed(text);
    };
    let (declaration, rest) = text.split_at(end);
    let (Some(from), Some(name)) = (declaration.find(" encoding"), declared(text.as_bytes()))
    else {
        return Cow::Borrowed(text);
    };
    let after = declaration[from..].find(name).map_or(from, |at| from + at + name.len() + 1);
    Cow::Owned(format!("{}{}{rest}", &declaration[..from], &declaration[after.min(end)..]))
}

/// The encoding that an XML declaration names.
fn declared(body: &[u8]) -> Option<&str> {
    let head = body.get(..body.len().min(200))?;
    let end = head.windows(2).position(|pair| pair == b"?>")?;
    let declaration = std::str::from_utf8(&head[..end]).ok()?;
    let value = declaration.strip_prefix("<?xml")?.split_once("encoding")?.1;
    let value = value.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    value[1..].split(quote).next()
}

fn charset_of(content_type: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(content_type).ok()?;
    text.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    })
}

/// How many bytes stand before the document that must not: a byte order mark, and blanks before an
/// XML declaration.
fn prolog(body: &[u8]) -> usize {
    let mark = if body.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let rest = &body[mark..];
    let blanks = rest.len() - rest.trim_ascii_start().len();
    if rest[blanks..].starts_with(b"<?xml") { mark + blanks } else { mark }
}

/// Every name of what can be put right.
pub const NAMES: [&str; 3] = ["compressed", "charset", "prolog"];

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::HeaderValue;

    use super::*;
    use crate::upstream::http1::Cloudflare;

    const DOCUMENT: &str = "<Response><Say>Grüße</Say></Response>";

    #[track_caller]
    fn check(coding: Option<&str>, content_type: Option<&str>, body: &[u8], expect: &str) {
        let metrics = Metrics::new().unwrap();
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        let reply = Reply {
            status: 200,
            not_run: false,
            cloudflare: Cloudflare::No,
            cookies: Vec::new(),
            content_coding: coding.map(value),
            content_type: content_type.map(value),
            location: None,
            body: Bytes::copy_from_slice(body),
            keeps: false,
        };
        let body = body_of(&reply, &metrics);
        let mut text = String::from_utf8_lossy(&body).into_owned();
        for name in NAMES {
            if metrics.answers_mended.with_label_values(&[name]).get() > 0 {
                text.push_str(&format!(" [{name}]"));
            }
        }
        assert_eq!(text, expect);
    }

    fn written<W: std::io::Write>(mut to: W, finish: impl FnOnce(W) -> Vec<u8>) -> Vec<u8> {
        to.write_all(DOCUMENT.as_bytes()).unwrap();
        finish(to)
    }

    #[test]
    fn what_is_compressed_is_read() {
        let fast = Compression::fast;
        let gzip = written(GzEncoder::new(Vec::new(), fast()), |to| to.finish().unwrap());
        let zlib = written(ZlibEncoder::new(Vec::new(), fast()), |to| to.finish().unwrap());
        let raw = written(DeflateEncoder::new(Vec::new(), fast()), |to| to.finish().unwrap());
        let read = format!("{DOCUMENT} [compressed]");
        check(Some("gzip"), None, &gzip, &read);
        check(Some("X-GZIP"), None, &gzip, &read);
        check(Some("deflate"), None, &zlib, &read);
        check(Some("deflate"), None, &raw, &read);
        check(Some("identity"), None, DOCUMENT.as_bytes(), DOCUMENT);
        // What says so and is not is left as it came.
        check(Some("gzip"), None, DOCUMENT.as_bytes(), DOCUMENT);
        check(Some("br"), None, b"x", "x");
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
        bomb.write_all(&vec![b' '; 64 << 20]).unwrap();
        let plain = decompress(b"gzip", &bomb.finish().unwrap()).unwrap();
        assert_eq!(plain.len(), MAX_BYTES + 1);
    }

    #[test]
    fn other_charsets_become_utf_8() {
        let read = format!("{DOCUMENT} [charset]");
        let (latin, _, _) = encoding_rs::WINDOWS_1252.encode(DOCUMENT);
        check(None, Some("text/xml; charset=ISO-8859-1"), &latin, &read);
        check(None, Some("text/xml; Charset=\"windows-1252\""), &latin, &read);
        for declaration in [
            "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>",
            "<?xml version='1.0' encoding = 'latin1' ?>",
        ] {
            let whole = format!("{declaration}{DOCUMENT}");
            let (bytes, _, _) = encoding_rs::WINDOWS_1252.encode(&whole);
            let kept = declaration.split(" encoding").next().unwrap();
            let blank = if declaration.ends_with(" ?>") { " " } else { "" };
            check(None, None, &bytes, &format!("{kept}{blank}?>{read}"));
        }
        let utf_16: Vec<u8> = "\u{feff}"
            .encode_utf16()
            .chain(DOCUMENT.encode_utf16())
            .flat_map(u16::to_le_bytes)
            .collect();
        check(None, None, &utf_16, &read);
        // UTF-8 that is called something else is UTF-8.
        check(None, Some("text/xml; charset=iso-8859-1"), DOCUMENT.as_bytes(), DOCUMENT);
        // Nobody says what it is.
        let lossy = String::from_utf8_lossy(&latin).into_owned();
        check(None, None, &latin, &lossy);
        check(None, Some("text/xml; charset=martian"), &latin, &lossy);
    }

    #[test]
    fn nothing_stands_before_the_declaration() {
        let declared = format!("<?xml version=\"1.0\"?>{DOCUMENT}");
        let read = format!("{declared} [prolog]");
        check(None, None, format!("\u{feff}{declared}").as_bytes(), &read);
        check(None, None, format!("\n \n{declared}").as_bytes(), &read);
        check(None, None, format!("\u{feff}\n{declared}").as_bytes(), &read);
        check(
            None,
            None,
            format!("\u{feff}{DOCUMENT}").as_bytes(),
            &format!("{DOCUMENT} [prolog]"),
        );
        // Blanks before a document without a declaration are allowed.
        check(None, None, format!("\n{DOCUMENT}").as_bytes(), &format!("\n{DOCUMENT}"));
        check(None, None, b"", "");
    }
}
