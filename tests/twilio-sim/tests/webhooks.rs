//! How a request is made, and what is made of its answer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod application;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use application::{App, Said, at, line, twiml};
use holdline_twilio::Form;
use http::Method;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use twilio_sim::{Company, Connecting, Ending, Fetched, Party, Webhook};
use url::Url;

async fn ask(company: &Company, url: &Url) -> Fetched {
    let form = Form::from_pairs([("Digits", "7"), ("From", "+15005550006")]);
    let key = company.key();
    let method = Method::POST;
    company.fetch(&Webhook { url, method, form: &form, key, idempotency_token: "t" }).await
}

/// What a call ends with when its voice URL answers this.
async fn ends(said: Said, ending: Ending) {
    let answer = said.clone();
    let app = App::start(move |_| answer.clone()).await;
    let mut line = line("/voice");
    line.fallback = None;
    let heard = app.company().call(line, Party::silent()).make().await;
    assert_eq!(heard.ending, ending, "{said:?}\n{heard}");
}

fn with(content_type: &str, body: &str) -> Said {
    Said::With(200, vec![("content-type", content_type.into())], body.into())
}

#[tokio::test]
async fn an_answer_that_will_not_do_has_twilios_number() {
    let xml = "<Response/>";
    ends(with("text/html", xml), Ending::RanOut).await;
    ends(with("text/plain", "Stack trace"), Ending::HungUp).await;
    ends(with("audio/mpeg", "x"), Ending::HungUp).await;
    for (said, code) in [
        (Said::Status(500), 11200),
        (Said::Status(404), 11200),
        (Said::With(308, vec![("location", "/x".into())], vec![]), 11216),
        (Said::With(302, vec![], vec![]), 11216),
        (Said::With(302, vec![("location", "/again".into())], vec![]), 11215),
        (Said::With(200, vec![], xml.into()), 12300),
        (with("application/json", "{}"), 12300),
        (with("text/xml", "\n<?xml version=\"1.0\"?><Response/>"), 12100),
        (with("text/xml", "<html/>"), 12102),
        (with("text/xml", &format!("<Response>{}</Response>", " ".repeat(65_536))), 11750),
    ] {
        ends(said, Ending::Apology(code)).await;
    }
}

#[tokio::test]
async fn what_is_no_http_is_told_from_what_breaks_off() {
    for (bytes, code) in [
        (b"SSH-2.0-OpenSSH_9.9\r\n".as_slice(), 11206),
        (b"", 11200),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", 11200),
    ] {
        let app = App::raw(bytes).await;
        let fetched = ask(&app.company(), &at("/x")).await;
        assert_eq!(fetched.result.map(|received| received.status), Err(code), "{bytes:?}");
        assert_eq!(fetched.attempts.len(), 1, "it was sent, so that it is not sent again");
    }
    let empty = App::raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    )
    .await;
    let mut line = line("/voice");
    line.fallback = None;
    let heard = empty.company().call(line, Party::silent()).make().await;
    assert_eq!(heard.ending, Ending::Apology(11770));
}

#[tokio::test]
async fn who_refuses_is_tried_twice() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let app = App::start(|_| Said::Status(204)).await;
    let company = app.company_with(|settings| settings.connecting.connect_to = Some(nobody));
    let fetched = ask(&company, &at("/x")).await;
    assert_eq!(fetched.result.map(|received| received.status), Err(11202));
    assert_eq!(fetched.attempts.iter().map(|a| a.sent).collect::<Vec<_>>(), [false, false]);
    assert_eq!(ask(&company, &at("/x#rc=0")).await.attempts.len(), 1);
    assert_eq!(ask(&company, &at("/x#rc=3&rp=5xx")).await.attempts.len(), 1);
    assert_eq!(ask(&company, &at("/x#rp=mars")).await.result.map(|r| r.status), Err(11243));
    let lost = app.company_with(|settings| settings.connecting = Connecting::default());
    let unknown = Url::parse("http://no-such-host.invalid/x").unwrap();
    assert_eq!(ask(&lost, &unknown).await.result.map(|r| r.status), Err(11210));
}

#[tokio::test]
async fn a_fragment_says_what_is_tried_again_and_is_never_sent() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let app = App::start(move |_| match counted.fetch_add(1, Ordering::AcqRel) {
        0 => Said::Status(503),
        1 => Said::Never,
        _ => twiml(""),
    })
    .await;
    let fetched = ask(&app.company(), &at("/x?a=1#rp=5xx,rt&rt=300&rc=2")).await;
    assert_eq!(fetched.result.unwrap().status, 200);
    let attempts: Vec<_> = fetched.attempts.iter().map(|a| (a.sent, a.status)).collect();
    assert_eq!(attempts, [(true, Some(503)), (true, None), (true, Some(200))]);
    let asked = app.asked();
    assert!(asked.iter().all(|asked| asked.target == "/x?a=1"), "{asked:?}");
    let tokens = asked.iter().map(|asked| asked.header("i-twilio-idempotency-token"));
    assert!(tokens.eq(["t"; 3]), "retries carry the same token");

    count.store(1, Ordering::Release);
    let fetched = ask(&app.company(), &at("/x#tt=200")).await;
    assert_eq!(fetched.result.map(|r| r.status), Err(11203));
    assert!(fetched.attempts[0].sent && fetched.attempts[0].took_ms >= 150);
    count.store(1, Ordering::Release);
    let fetched = ask(&app.company(), &at("/x#rt=200")).await;
    assert_eq!(fetched.result.map(|r| r.status), Err(11200));
}

#[tokio::test]
async fn a_redirect_is_followed_without_the_digits() {
    let app = App::start(|asked| match asked.path.as_str() {
        "/x" => Said::With(302, vec![("location", "/y".into())], vec![]),
        "/kept" => Said::With(307, vec![("location", "http://app.test/y".into())], vec![]),
        _ => twiml(""),
    })
    .await;
    let company = app.company();
    for (from, method) in [("/x", "GET"), ("/kept", "POST")] {
        let fetched = ask(&company, &at(from)).await;
        assert_eq!((fetched.result.unwrap().status, fetched.attempts.len()), (200, 2));
        let asked = app.asked().pop().unwrap();
        assert_eq!((asked.path.as_str(), asked.method.as_str()), ("/y", method));
        assert_eq!((asked.get("Digits"), asked.get("From")), (None, Some("+15005550006")));
    }
}

#[tokio::test]
async fn a_call_keeps_its_cookies_and_logs_in() {
    let app = App::start(|asked| match asked.path.as_str() {
        "/voice" if asked.header("authorization").is_empty() => {
            Said::With(401, vec![("www-authenticate", "Basic realm=\"x\"".into())], vec![])
        }
        "/voice" => Said::With(
            200,
            vec![("content-type", "text/xml".into()), ("set-cookie", "a=b; Path=/".into())],
            b"<Response><Redirect>/next</Redirect></Response>".to_vec(),
        ),
        _ => twiml(""),
    })
    .await;
    let mut line = line("/voice");
    line.voice.url = Url::parse("http://me:secret@app.test/voice").unwrap();
    let heard = app.company().call(line, Party::silent()).make().await;
    assert_eq!(heard.ending, Ending::RanOut, "\n{heard}");
    let voice = app.asked_at("/voice");
    assert_eq!(voice[1].header("authorization"), "Basic bWU6c2VjcmV0");
    assert_eq!(voice[0].header("x-twilio-signature"), voice[1].header("x-twilio-signature"));
    let next = &app.asked_at("/next")[0];
    assert_eq!(next.header("cookie"), "a=b");
}

/// A TLS server with this certificate that answers everything with an empty document.
async fn tls_server(chain: String, key: &KeyPair) -> std::net::SocketAddr {
    let certificates =
        CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let _ = stream.read(&mut [0; 4096]).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: 11\r\n\r\n<Response/>";
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

#[tokio::test]
async fn certificates_are_checked_as_twilio_checks_them() {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = async |change: fn(&mut CertificateParams)| {
        let mut params = CertificateParams::new(vec!["app.test".to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &authority).unwrap();
        tls_server(certificate.pem(), &key).await
    };
    let good = server(|_| {}).await;
    let expired = server(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1)).await;
    let app = App::start(|_| Said::Status(204)).await;
    let company = |address, trusted: bool| {
        let trust = trusted.then(|| authority.pem().into_bytes());
        app.company_with(|settings| {
            let resolve = HashMap::from([("app.test".to_owned(), address)]);
            settings.connecting =
                Connecting { resolve, connect_to: Some(address), trust, reuse: false };
        })
    };
    let url = |host: &str| Url::parse(&format!("https://{host}/x#rc=0")).unwrap();
    for (company, host, result) in [
        (company(good, true), "app.test", Ok(200)),
        (company(good, true), "other.test", Err(11235)),
        (company(expired, true), "app.test", Err(11236)),
        (company(good, false), "app.test", Err(11237)),
        // A server that speaks no TLS on its port.
        (company(app.address, true), "app.test", Err(11206)),
    ] {
        let fetched = ask(&company, &url(host)).await;
        assert_eq!(fetched.result.map(|received| received.status), result, "{host}");
    }
}

#[tokio::test]
async fn connections_are_kept_where_that_is_asked_for() {
    let app = App::start(|_| twiml("")).await;
    let company = app.company_with(|settings| settings.connecting.reuse = true);
    for _ in 0..20 {
        assert_eq!(ask(&company, &at("/x")).await.result.unwrap().status, 200);
    }
    // One that the server has closed meanwhile is replaced, and that counts as no retry.
    let closing = App::raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: 11\r\n\r\n<Response/>",
    )
    .await;
    let company = closing.company_with(|settings| settings.connecting.reuse = true);
    for _ in 0..3 {
        let fetched = ask(&company, &at("/x")).await;
        assert_eq!((fetched.result.unwrap().status, fetched.attempts.len()), (200, 1));
    }
}

#[tokio::test]
async fn what_was_written_on_a_kept_connection_is_not_written_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = taken.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            // Each connection answers one request, and takes one more without a word.
            for answers in [true, false] {
                if stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {
                    counted.fetch_add(1, Ordering::AcqRel);
                    if answers {
                        let _ = stream.write_all(answer).await;
                    }
                }
            }
        }
    });
    let app = App::start(|_| Said::Status(204)).await;
    let company = app.company_with(|settings| {
        let connect_to = Some(address);
        settings.connecting = Connecting { connect_to, reuse: true, ..Connecting::default() };
    });
    assert_eq!(ask(&company, &at("/x")).await.result.unwrap().status, 200);
    let cut = ask(&company, &at("/x")).await;
    assert_eq!(cut.result.map(|received| received.status), Err(11200));
    assert!(cut.attempts.len() == 1 && cut.attempts[0].sent);
    assert_eq!(taken.load(Ordering::Acquire), 2);
}
