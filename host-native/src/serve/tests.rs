use super::*;
use axum::{body::Bytes, routing::post};
use std::{io::ErrorKind, os::unix::fs::PermissionsExt as _, process::Command};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

struct Server {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    stop: oneshot::Sender<()>,
    report: JoinHandle<Report>,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.address().unwrap();
        let metrics = Arc::new(Metrics::new("test", "0.0.0"));
        let readiness = Readiness::default();
        let routes = Router::new()
            .route("/echo", post(|body: Bytes| async move { body }))
            .route(
                "/slow",
                post(|| async {
                    tokio::time::sleep(Duration::from_millis(400)).await;
                    "done"
                }),
            )
            .route("/never", post(std::future::pending::<()>))
            .route("/large", post(|| async { vec![b'x'; 64 * 1024 * 1024] }))
            .route("/panic", post(crash))
            .merge(health_routes(readiness.clone(), Arc::clone(&metrics)));
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = serve(listener, fallbacks(routes, "`/echo`"), limits, Arc::clone(&metrics), async move {
            let _ = stopped.await;
        });
        Self { address, metrics, readiness, stop, report: tokio::spawn(serving) }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends these bytes on a new connection and reads until the server closes it.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_all(&mut stream).await
    }

    async fn stop(self) -> Report {
        let _ = self.stop.send(());
        self.report.await.unwrap()
    }
}

async fn crash() -> &'static str {
    let empty: Vec<&str> = Vec::new();
    empty[0]
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    match read.expect("the server should have closed the connection") {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Short deadlines; everything else as in production.
fn short() -> Limits {
    Limits {
        head_timeout: Duration::from_millis(200),
        body_timeout: Duration::from_millis(200),
        handler_timeout: Duration::from_millis(1000),
        write_timeout: Duration::from_millis(300),
        drain_timeout: Duration::from_millis(1000),
        ..Limits::default()
    }
}

#[tokio::test]
async fn each_request_gets_the_answer_it_deserves() {
    let server = Server::start(Limits { max_body_bytes: 100, max_headers: 8, ..short() }).await;
    let large = "x".repeat(101);
    let chunked =
        format!("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n65\r\n{large}\r\n0\r\n\r\n");
    let headers = format!("POST /echo HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(9));
    let head = format!("POST /echo HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(64 * 1024));
    let cases: &[(&str, String, &[&str])] = &[
        ("whole", request("/echo", "hello"), &["HTTP/1.1 200 ", "hello"]),
        ("largest body", request("/echo", &large[..100]), &["HTTP/1.1 200 "]),
        ("announced too large", request("/echo", &large), &["HTTP/1.1 413 ", r#"{"error":"the body has more than 100 bytes"#]),
        (
            "announced and not sent",
            "POST /echo HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 101\r\n\r\n".to_owned(),
            &["HTTP/1.1 413 "],
        ),
        ("too large in chunks", chunked, &["HTTP/1.1 413 ", r#"{"error":""#]),
        ("too many headers", headers, &["HTTP/1.1 431 "]),
        ("head too large", head, &["HTTP/1.1 431 "]),
        ("no such path", request("/none", ""), &["HTTP/1.1 404 ", r#"{"error":"no such path: `/echo`"}"#]),
        (
            "wrong method",
            "GET /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(),
            &["HTTP/1.1 405 ", "allow: POST", r#"{"error":"method not allowed"#],
        ),
        ("garbage", "\x16\x03\x01 not http\r\n\r\n".to_owned(), &["HTTP/1.1 400 "]),
        ("http/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), &[]), // closed
        ("two lengths", "POST /echo HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx".to_owned(), &["HTTP/1.1 400 "]),
        ("bad chunk", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_owned(), &["HTTP/1.1 400 "]),
        (
            "length and chunks",
            "POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            &["HTTP/1.1 "],
        ),
        ("slow body", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhel".to_owned(), &["HTTP/1.1 408 ", r#"{"error":"#]),
        ("no host", "POST /echo HTTP/1.1\r\ncontent-length: 0\r\n\r\n".to_owned(), &["HTTP/1.1 400 ", "send one `Host` header"]),
        ("two hosts", "POST /echo HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(), &["HTTP/1.1 400 "]),
        ("no host in 1.0", "POST /echo HTTP/1.0\r\ncontent-length: 2\r\n\r\nhi".to_owned(), &["HTTP/1.0 200 ", "hi"]),
        (
            "a coding besides chunks",
            "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_owned(),
            &["HTTP/1.1 501 "],
        ),
        ("panic", request("/panic", ""), &[]),
        ("and the next one", request("/echo", "still here"), &["still here"]),
    ];
    for (name, bytes, wanted) in cases {
        let answer = server.exchange(bytes.as_bytes()).await;
        for part in *wanted {
            assert!(answer.contains(part), "{name}: {answer}");
        }
    }
    let report = server.stop().await;
    assert_eq!(report, Report { served: cases.len() as u64, ..Report::default() });
}

#[tokio::test]
async fn a_head_that_trickles_in_does_not_hold_a_connection() {
    let server = Server::start(short()).await;
    let mut stream = server.connect().await;
    let trickle = async {
        for byte in b"POST /echo HTTP/1.1\r\nhost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".iter().cycle() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), trickle).await.expect("the connection was held");

    // The same holds for one that says nothing, at first or between two requests.
    assert_eq!(server.exchange(b"").await, "");
    let answer = server.exchange(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").await;
    assert!(answer.contains("200 OK") && answer.ends_with("hi"), "{answer}");
    assert_eq!(server.stop().await.cut, 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_hold_a_connection() {
    let server = Server::start(short()).await;
    let mut stream = server.connect().await;
    stream.write_all(request("/large", "").as_bytes()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), async {
        while !server.metrics.render().contains("autonomy_connections_open 1") {
            tokio::task::yield_now().await;
        }
        while !server.metrics.render().contains("autonomy_connections_open 0") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(server.stop().await.cut, 0);
}

#[tokio::test]
async fn a_handler_that_does_not_answer_is_given_up() {
    let server = Server::start(Limits { handler_timeout: Duration::from_millis(100), ..short() }).await;
    let answer = server.exchange(request("/slow", "").as_bytes()).await;
    assert!(answer.contains("HTTP/1.1 504 ") && answer.contains(r#"{"error":"no answer within 100ms"#), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(short()).await;
    let one = |body: &str| format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer = server.exchange([one("first"), one("second"), request("/echo", "third")].concat().as_bytes()).await;
    let places = ["first", "second", "third"].map(|body| answer.find(body));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_closes_its_sending_half_gets_its_answer() {
    let server = Server::start(short()).await;
    let mut stream = server.connect().await;
    stream.write_all(request("/slow", "").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.contains("200 OK") && answer.ends_with("done"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_at_once() {
    let server = Server::start(Limits { max_connections: 2, head_timeout: Duration::from_secs(60), ..short() }).await;
    let (first, _second) = (server.connect().await, server.connect().await);
    for _ in 0..20 {
        let answer = server.exchange(request("/echo", "hello").as_bytes()).await;
        assert!(answer.is_empty() || answer.contains("HTTP/1.1 503 "), "{answer}");
    }
    let answer = server.exchange(b"").await;
    assert!(answer.contains("HTTP/1.1 503 ") && answer.contains("retry-after: 1"), "{answer}");
    assert!(answer.ends_with(r#"{"error":"too many connections: try again later"}"#), "{answer}");

    // A place that becomes free is given away again.
    drop(first);
    let served = async {
        loop {
            if server.exchange(request("/echo", "hello").as_bytes()).await.contains("200 OK") {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), served).await.unwrap();
    let text = server.metrics.render();
    assert!(text.contains("autonomy_connections_refused_total 2"), "{text}");
    assert!(server.stop().await.refused >= 21);
}

#[tokio::test]
async fn shutdown_finishes_what_is_in_flight_and_cuts_what_does_not_end() {
    for (drain, path, answered, cut) in [(2000, "/slow", true, 0), (50, "/never", false, 1)] {
        let limits =
            Limits { drain_timeout: Duration::from_millis(drain), head_timeout: Duration::from_secs(9), ..short() };
        let server = Server::start(limits).await;
        let _idle = server.connect().await; // does not hold the shutdown up
        let mut stream = server.connect().await;
        stream.write_all(request(path, "").as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let address = server.address;
        let (report, answer) = tokio::join!(server.stop(), read_all(&mut stream));
        assert_eq!(answer.ends_with("done"), answered, "{answer}");
        assert_eq!(report, Report { served: 2, cut, ..Report::default() });
        assert!(TcpStream::connect(address).await.is_err());
    }
}

#[tokio::test]
async fn only_loopback_is_served() {
    let error = Listener::tcp(([0, 0, 0, 0], 0).into()).await.unwrap_err().to_string();
    assert!(error.starts_with("`0.0.0.0:") && error.contains("tls and authentication"), "{error}");
}

#[tokio::test]
async fn a_socket_is_its_owners_alone_and_goes_with_its_listener() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("host.sock");
    let listener = Listener::unix(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "nothing else is left beside it");
    let taken = Listener::unix(&path).unwrap_err();
    assert!(taken.to_string().starts_with("another process listens on socket `"), "{taken}");

    let metrics = Arc::new(Metrics::new("test", "0"));
    let (stop, stopped) = oneshot::channel::<()>();
    let routes = Router::new().route("/echo", post(|body: Bytes| async move { body }));
    let serving = tokio::spawn(serve(listener, routes, Limits::default(), metrics, async {
        let _ = stopped.await;
    }));
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(request("/echo", "over a socket").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("200 OK") && answer.ends_with("over a socket"), "{answer}");
    stop.send(()).unwrap();
    assert_eq!(serving.await.unwrap(), Report { served: 2, ..Report::default() }, "one of them asked who listens");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_that_nobody_listens_on_is_replaced_and_anything_else_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("host.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let first = Listener::unix(&path).unwrap();
    // Another listener's socket under the same name is not taken away with ours.
    std::fs::remove_file(&path).unwrap();
    let _second = Listener::unix(&path).unwrap();
    drop(first);
    assert!(path.exists());

    let file = directory.path().join("file");
    std::fs::write(&file, "kept").unwrap();
    std::os::unix::fs::symlink(&path, directory.path().join("link")).unwrap();
    for name in ["file", "link"] {
        let error = Listener::unix(&directory.path().join(name)).unwrap_err().to_string();
        assert!(error.ends_with("is no socket, so it is kept: choose another `--socket`"), "{error}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    for path in [directory.path().join("no/such/host.sock"), directory.path().join("x".repeat(120))] {
        let error = Listener::unix(&path).unwrap_err().to_string();
        assert!(error.starts_with("cannot listen on socket `") && error.ends_with("`--socket`"), "{error}");
    }
}

#[tokio::test]
async fn health_says_why_and_metrics_say_what() {
    let server = Server::start(short()).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(server.exchange(get("/healthz").as_bytes()).await.contains("200 OK"));
    let answer = server.exchange(get("/readyz").as_bytes()).await;
    assert!(answer.contains("HTTP/1.1 503 ") && answer.contains(r#"{"error":"not ready: starting"}"#), "{answer}");
    server.readiness.set_ready();
    assert!(server.exchange(get("/readyz").as_bytes()).await.contains("200 OK"));
    server.readiness.set_not_ready("the log is poisoned");
    assert!(server.exchange(get("/readyz").as_bytes()).await.contains("not ready: the log is poisoned"));

    let decision = Decision { effect: "deny", reason: "attestation: not_enrolled", mode: "enforce" };
    server.metrics.decided(&decision, Duration::from_micros(3));
    server.metrics.decided(&decision, Duration::from_micros(3));
    server.metrics.answered(&Call { status: 403 });
    server.metrics.appended(7, Duration::from_millis(1));
    let text = server.exchange(get("/metrics").as_bytes()).await;
    for line in [
        "content-type: application/openmetrics-text",
        r#"autonomy_build_info{service="test",version="0.0.0"} 1"#,
        r#"autonomy_decisions_total{effect="deny",reason="attestation: not_enrolled",mode="enforce"} 2"#,
        r#"autonomy_tool_calls_total{status="403"} 1"#,
        r#"autonomy_decide_seconds_bucket{le="0.000005"} 2"#,
        "autonomy_wal_append_seconds_count 1",
        "autonomy_wal_seq 7",
        "autonomy_connections_open 1",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    server.stop().await;
}

/// Runs this test again in a process that may open few files.
#[test]
fn running_out_of_files_pauses_accepting_and_ends_nothing() {
    const CHILD: &str = "AUTONOMY_TEST_FEW_FILES";
    const NAME: &str = "serve::tests::running_out_of_files_pauses_accepting_and_ends_nothing";
    if std::env::var_os(CHILD).is_none() {
        let status = Command::new("sh")
            .args(["-c", "ulimit -n 40 && exec \"$0\" --exact \"$1\" --nocapture"])
            .arg(std::env::current_exe().unwrap())
            .arg(NAME)
            .env(CHILD, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = Server::start(Limits { head_timeout: Duration::from_secs(9), ..short() }).await;
        let mut clients = Vec::new();
        while let Ok(stream) = TcpStream::connect(server.address).await {
            clients.push(stream); // until no file is left, for the server as well
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut first = clients.remove(0);
        first.write_all(request("/echo", "still here").as_bytes()).await.unwrap();
        assert!(read_all(&mut first).await.ends_with("still here"));
        drop((first, clients));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(server.exchange(request("/echo", "back again").as_bytes()).await.ends_with("back again"));
        assert!(server.stop().await.accept_errors > 0);
    });
}
