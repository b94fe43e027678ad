//! Requests a second of a trivial handler behind the accept loop, over kept-alive loopback connections.
//!
//! Client and server share the machine, so this is a floor. `serve [connections] [pipelined requests]`.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, routing::post};
use host_native::serve::{Limits, Listener, Metrics, fallbacks, serve};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const REQUEST: &[u8] = b"POST /v1/tool HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
    content-length: 38\r\n\r\n{\"kind\":\"tool.echo\",\"params\":{\"a\":12}}";

#[allow(clippy::print_stdout, reason = "a bench prints")]
fn main() -> Result<(), Failure> {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse::<usize>().ok());
    let (connections, pipelined) = (numbers.next().unwrap_or(16), numbers.next().unwrap_or(1));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let listener = runtime.block_on(Listener::tcp(([127, 0, 0, 1], 0).into()))?;
    let address = listener.address().ok_or("no address")?;
    let router = fallbacks(Router::new().route("/v1/tool", post(|body: Bytes| async move { body })));
    let metrics = Arc::new(Metrics::new("bench", "0"));
    runtime.spawn(serve(listener, router, Limits::default(), metrics, std::future::pending()));

    let (served, warm_up, measured) = (AtomicU64::new(0), Duration::from_millis(500), Duration::from_secs(4));
    let rate = std::thread::scope(|scope| {
        for _ in 0..connections {
            let served = &served;
            scope.spawn(move || client(address, pipelined, served, Instant::now() + warm_up + measured));
        }
        std::thread::sleep(warm_up);
        let (before, begun) = (served.load(Ordering::Relaxed), Instant::now());
        std::thread::sleep(measured.saturating_sub(Duration::from_millis(100)));
        (served.load(Ordering::Relaxed) - before) as f64 / begun.elapsed().as_secs_f64()
    });
    println!("serve: {rate:.0} requests/s ({connections} connections, {pipelined} pipelined)");
    Ok(())
}

fn client(address: SocketAddr, pipelined: usize, served: &AtomicU64, end: Instant) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let batch = REQUEST.repeat(pipelined);
    // All answers are alike, so the first tells how long each is.
    stream.write_all(REQUEST)?;
    let mut buffer = vec![0; 64 * 1024];
    let length = stream.read(&mut buffer)?;
    let mut answers = vec![0; length * pipelined];
    while Instant::now() < end {
        stream.write_all(&batch)?;
        stream.read_exact(&mut answers)?;
        served.fetch_add(pipelined as u64, Ordering::Relaxed);
    }
    Ok(())
}
