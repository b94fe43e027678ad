use super::{url::Url, *};
use axum::{Router, http::StatusCode, response::Redirect, routing::get};
use serde_json::json;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{TlsAcceptor, rustls};

use crate::serve::{Limits, Listener, Metrics, serve};

fn name(text: &str) -> ToolName {
    ToolName::parse(text).unwrap()
}

fn tools(allow: &[&str]) -> Tools {
    tools_within(30_000, allow)
}

fn tools_within(total_timeout_ms: u64, allow: &[&str]) -> Tools {
    Tools::new(HttpGetConfig {
        allow: allow.iter().map(|text| text.parse().unwrap()).collect(),
        total_timeout: Duration::from_millis(total_timeout_ms),
        ..HttpGetConfig::default()
    })
    .unwrap()
}

async fn fetch(tools: &Tools, url: &str) -> Result<Value, Error> {
    tools.run(&name("tool.http_get"), json!({"url": url})).await
}

/// A local server that has one page of each kind.
async fn website() -> SocketAddr {
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.address().unwrap();
    let large = |bytes: usize| move || async move { vec![b'x'; bytes] };
    let router = Router::new()
        .route("/", get(|| async { "home" }))
        .route("/public/a", get(|| async { "a" }))
        .route("/secret", get(|| async { "secret" }))
        .route("/public/away", get(|| async { Redirect::temporary("/secret") }))
        .route("/latin", get(|| async { vec![b'a', 0xe9] }))
        .route("/teapot", get(|| async { (StatusCode::IM_A_TEAPOT, "short and stout") }))
        .route("/fits", get(large(1024 * 1024)))
        .route("/large", get(large(1024 * 1024 + 1)))
        .route("/slow", get(|| async { tokio::time::sleep(Duration::from_secs(30)).await }));
    let metrics = Arc::new(Metrics::new("test", "0"));
    tokio::spawn(serve(listener, router, Limits::default(), metrics, std::future::pending()));
    address
}

#[tokio::test]
async fn each_tool_takes_its_own_params_and_nothing_else() {
    let tools = tools(&[]);
    let cases = [
        ("tool.echo", json!({"a": [1, null]}), Ok(json!({"a": [1, null]}))),
        ("tool.shell", json!({"command": "true"}), Err("`tool.shell` refused: a shell can do anything")),
        ("tool.shell", json!({}), Err("bad params for `tool.shell`: missing field `command`")),
        ("tool.http_get", json!({}), Err("bad params for `tool.http_get`: missing field `url`")),
        ("tool.http_get", json!({"url": "http://a/", "body": 1}), Err("bad params for `tool.http_get`: unknown field")),
        ("tool.http_get", json!({"url": 7}), Err("bad params for `tool.http_get`: invalid type")),
        ("tool.http_get", json!("http://a/"), Err("bad params for `tool.http_get`: invalid type")),
        (
            "tool.http_get",
            json!({"url": "http://a/"}),
            Err("`tool.http_get` refused: `http://a/` is not on the allow-list"),
        ),
        ("tool.none", json!({}), Err("unknown tool `tool.none`: use `tool.echo`")),
        ("Tool.echo", json!({}), Err("unknown tool `Tool.echo`")),
    ];
    for (kind, params, wanted) in cases {
        let found = tools.run(&name(kind), params.clone()).await;
        match (found, wanted) {
            (Ok(found), Ok(wanted)) => assert_eq!(found, wanted),
            (Err(found), Err(wanted)) => assert!(found.to_string().starts_with(wanted), "{found}"),
            (found, _) => panic!("{kind} {params}: {found:?}"),
        }
    }
}

#[tokio::test]
async fn http_get_returns_what_the_server_says() {
    let address = website().await;
    let tools = tools(&[&format!("http://{address}")]);
    let page = |path: &str| format!("http://{address}{path}");

    let home = fetch(&tools, &page("/?q=%2e%2e/x")).await.unwrap();
    let wanted = json!({"status": 200, "content_type": "text/plain; charset=utf-8", "body": "home", "lossy": false});
    assert_eq!(home, wanted);
    let teapot = fetch(&tools, &page("/teapot")).await.unwrap();
    assert_eq!((&teapot["status"], &teapot["body"]), (&json!(418), &json!("short and stout")));
    let latin = fetch(&tools, &page("/latin")).await.unwrap();
    assert_eq!((&latin["body"], &latin["lossy"]), (&json!("a\u{fffd}"), &json!(true)));
    let fits = fetch(&tools, &page("/fits")).await.unwrap();
    assert_eq!(fits["body"].as_str().unwrap().len(), 1024 * 1024);

    let large = fetch(&tools, &page("/large")).await.unwrap_err().to_string();
    assert_eq!(large, "`tool.http_get` failed: the body has more than 1048576 bytes");
    let slow =
        fetch(&tools_within(800, &[&format!("http://{address}")]), &page("/slow")).await.unwrap_err().to_string();
    assert_eq!(slow, "`tool.http_get` failed: no whole answer within 800ms");
}

#[tokio::test]
async fn a_redirect_is_an_answer_not_a_way_out() {
    let address = website().await;
    let tools = tools(&[&format!("http://{address}/public")]);
    let away = fetch(&tools, &format!("http://{address}/public/away")).await.unwrap();
    assert_eq!((&away["status"], &away["body"]), (&json!(307), &json!("")));
    assert_eq!(fetch(&tools, &format!("http://{address}/public/a")).await.unwrap()["body"], json!("a"));
    assert!(matches!(fetch(&tools, &format!("http://{address}/secret")).await, Err(Error::Refused { .. })));
}

#[tokio::test]
async fn a_server_that_misbehaves_is_a_failure_not_a_hang() {
    let trickle = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b'x'; 100]].concat();
    let cases: [(&[u8], bool, &str); 6] = [
        (b"", true, "no answer"),
        (b"", false, "no whole answer within"),
        (b"not http at all\r\n\r\n", true, "no answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", true, "cannot read the body"),
        (&trickle, false, "no whole answer within"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", false, "the body has more than"),
    ];
    for (answer, closes, wanted) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = answer.to_vec();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(&answer).await;
            if !closes {
                tokio::time::sleep(Duration::from_secs(30)).await;
            }
        });
        let tools = tools_within(800, &[&format!("http://{address}")]);
        match fetch(&tools, &format!("http://{address}/")).await {
            Err(Error::Failed { cause, .. }) => {
                assert!(cause.contains(wanted) || cause.contains("connection lost"), "{wanted}: {cause}");
            }
            other => panic!("{wanted}: {other:?}"),
        }
    }
}

/// Every way to pass an allow-list that is known by name, and the plain ones that must pass.
#[test]
fn an_allow_list_has_no_way_around_it() {
    let allow: Vec<AllowedPrefix> =
        ["http://allowed:8080", "http://plain/", "https://safe.example/pub", "http://[::1]:9/"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
    let passes = |text: &str| Url::parse(text).is_ok_and(|url| allow.iter().any(|allowed| allowed.allows(&url)));
    for url in [
        "http://allowed:8080/",
        "http://allowed:8080/a/b?c=d&e=http://evil/",
        "http://allowed:8080/a%20b",
        "http://plain/",
        "http://plain/?x",
        "https://safe.example/pub",
        "https://safe.example/pub/",
        "https://safe.example/pub/a..b/.c",
        "https://safe.example/pub?x=../..",
        "http://[::1]:9/x",
    ] {
        assert!(passes(url), "{url} should pass");
    }
    for url in [
        "",
        "/",
        "//allowed:8080/",
        "allowed:8080/",
        "http:/allowed:8080/",
        "http:allowed:8080",
        "http:///allowed:8080/",
        "http://allowed/",
        "http://allowed:80/",
        "http://ALLOWED:8080/",
        "HTTP://allowed:8080/",
        "http://allowed:8080",
        "http://allowed:08080/",
        "http://allowed:+8080/",
        "http://allowed:8080:80/",
        "http://allowed:/",
        "http://allowed:18080/",
        "http://allowed:8080.evil/",
        "http://allowed:8080@evil/",
        "http://allowed@evil:8080/",
        "http://allowed:8080%40evil/",
        "http://evil/@allowed:8080/",
        "http://evil?http://allowed:8080/",
        "http://evil/?http://allowed:8080/",
        "http://evil#http://allowed:8080/",
        "http://evil#@allowed:8080/",
        "http://allowed:8080#@evil/",
        "http://evil\\@allowed:8080/",
        "http://allowed:8080\\@evil/",
        "http://allowed:8080\\.evil/",
        "http:\\\\allowed:8080/",
        "http://allowed.:8080/",
        "http://.allowed:8080/",
        "http://allowed.evil:8080/",
        "http://evilallowed:8080/",
        "http://%61llowed:8080/",
        "http://allowed%00.evil:8080/",
        "http://allowed\0:8080/",
        " http://allowed:8080/",
        "http://allowed:8080/ ",
        "http://allowed:8080/\r\nhost: evil",
        "http://allowed:8080/\tx",
        "http://all\u{ad}owed:8080/",
        "http://\u{ff41}llowed:8080/",
        "https://allowed:8080/",
        "ftp://allowed:8080/",
        "file:///etc/passwd",
        "http://plain:80/",
        "http://plain:443/",
        "http://plain./",
        "http://user:pass@plain/",
        "http://@plain/",
        "https://safe.example:443/pub",
        "https://safe.example/",
        "https://safe.example/PUB",
        "https://safe.example/public",
        "https://safe.example//pub",
        "https://safe.example/pub/../secret",
        "https://safe.example/pub/..",
        "https://safe.example/pub/./x",
        "https://safe.example/pub/%2e%2e/secret",
        "https://safe.example/pub/..;/secret",
        "https://safe.example/pub/..;a=b/secret",
        "https://safe.example/pub/..;a;b/secret",
        "https://safe.example/pub/.;/x",
        "https://safe.example/pub/..;",
        "https://safe.example/pub/..%3b/secret",
        "https://safe.example/pub/%c0%ae%c0%ae/secret",
        "https://safe.example/pub/%c0%af..%c0%afsecret",
        "https://safe.example/pub/%e0%80%ae/secret",
        "https://safe.example/pub/%ff",
        "https://safe.example/pub/%c3/%a9",
        "https://safe.example/pub/%ed%a0%80",
        "https://safe.example/pub/.%2E/secret",
        "https://safe.example/pub/%252e%252e/secret",
        "https://safe.example/pub/..%2fsecret",
        "https://safe.example/pub%2f..%2fsecret",
        "https://safe.example/pub/..%5csecret",
        "https://safe.example/pub/..\\secret",
        "https://safe.example/pub/%00",
        "https://safe.example/pub/%",
        "https://safe.example/pub/%g1",
        "https://safe.example/pub/%+1",
        "http://127.0.0.1:8080/",
        "http://[::1]/",
        "http://[0:0:0:0:0:0:0:1]:9/",
        "http://[::ffff:127.0.0.1]:9/",
        "http://[::1%25lo]:9/",
        "http://[::1]evil:9/",
    ] {
        assert!(!passes(url), "{url} should not pass");
    }
    for number in
        ["http://2130706433/", "http://0x7f000001/", "http://127.1/", "http://0177.0.0.1/", "http://1.2.3.4.5/"]
    {
        assert!(Url::parse(number).is_err(), "{number}");
    }
    assert_eq!(allow[0].to_string(), "http://allowed:8080/");
    for text in ["", "*", "http://*/", "http://a b/", "http://a/?q", "allowed", "http://a:80"] {
        assert!(AllowedPrefix::parse(text).is_err(), "{text}");
    }
    // The allow-list can be told apart from a URL that only looks like one in the message.
    let message = Url::parse("http://allowed:8080@evil/").unwrap_err().to_string();
    assert_eq!(message, "url `http://***@evil/` holds credentials: leave out everything up to `@`");
}

#[tokio::test]
async fn https_trusts_the_named_roots_and_no_others() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecure").await;
            let _ = stream.shutdown().await;
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    let with = |host: &str, ca_file| {
        let allow = vec![format!("https://{host}:{port}").parse().unwrap()];
        Tools::new(HttpGetConfig { allow, ca_file: Some(ca_file), ..HttpGetConfig::default() })
    };

    let trusting = with("localhost", file("ca.pem", &cert.pem())).unwrap();
    let answer = fetch(&trusting, &format!("https://localhost:{port}/")).await.unwrap();
    assert_eq!(answer["body"], json!("secure"));
    for (host, roots) in [("localhost", &other), ("127.0.0.1", &cert.pem())] {
        let tools = with(host, file("ca.pem", roots)).unwrap();
        match fetch(&tools, &format!("https://{host}:{port}/")).await {
            Err(Error::Failed { cause, .. }) => assert!(cause.starts_with("tls handshake: "), "{cause}"),
            answer => panic!("{host}: {answer:?}"),
        }
    }
    for bad in ["", "not pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(matches!(with("localhost", file("bad.pem", bad)), Err(SetUpError::CaFile { .. })), "{bad}");
    }
    assert!(matches!(with("localhost", folder.path().join("none.pem")), Err(SetUpError::CaFile { .. })));
}
