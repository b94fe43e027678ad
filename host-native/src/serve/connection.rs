//! One connection: from its first byte to its close.

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, body::Body};
use http::{HeaderValue, Request, Response, StatusCode, Version, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::{Instant, Sleep},
};
use tower_service::Service;

use super::{
    Limits, error_response,
    metrics::OpenConnection,
    own::{self, OwnAnswer},
};
use crate::client::Stream;

/// Serves one connection to its end. After `stop` it finishes the request in flight and closes.
pub(super) async fn run(
    stream: Box<dyn Stream>,
    router: Router,
    limits: Arc<Limits>,
    mut stop: watch::Receiver<bool>,
    _open: OpenConnection,
) {
    let service = {
        let limits = Arc::clone(&limits);
        service_fn(move |request| {
            let (router, limits) = (router.clone(), Arc::clone(&limits));
            async move { Ok::<_, Infallible>(answer(request, router, &limits).await) }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .auto_date_header(false) // a clock before 1970 has no such date
        .header_read_timeout(limits.head_timeout)
        .max_headers(limits.max_headers)
        .max_buf_size(limits.max_head_bytes.max(8 * 1024))
        .half_close(limits.half_close)
        .serve_connection(TokioIo::new(StallGuard::new(stream, limits.write_timeout)), service);
    tokio::pin!(connection);

    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { drop(stop.wait_for(|stop| *stop).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

/// Reads the whole request, then asks the router.
async fn answer(request: Request<Incoming>, mut router: Router, limits: &Limits) -> Response<Body> {
    let (head, body) = request.into_parts();
    if let Err((own, error)) = check(&head) {
        return last(&own, error.to_owned());
    }
    let max_body = limits.max_body_bytes;
    let too_large = || last(&own::BODY_TOO_LARGE, format!("the body has more than {max_body} bytes: send less"));
    if hyper::body::Body::size_hint(&body).lower() > max_body as u64 {
        return too_large(); // announced: not a byte of it is read, no `100 continue` is sent
    }
    let body = match tokio::time::timeout(limits.body_timeout, Limited::new(body, max_body).collect()).await {
        Ok(Ok(body)) => Body::from(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return too_large(),
        Ok(Err(error)) => {
            return last(&own::MALFORMED, format!("cannot read the body: {error}: send it whole"));
        }
        Err(_) => {
            let max = limits.body_timeout;
            return last(&own::BODY_LATE, format!("the body took more than {max:?}: send it faster"));
        }
    };
    match tokio::time::timeout(limits.handler_timeout, router.call(Request::from_parts(head, body))).await {
        Ok(Ok(mut response)) => {
            if response.status() == StatusCode::NOT_MODIFIED {
                // The router says 0 of what has no body; it would be the length of what is not sent (RFC 9110, section 8.6).
                response.headers_mut().remove(header::CONTENT_LENGTH);
            }
            response
        }
        Err(_) => {
            let max = limits.handler_timeout;
            let error =
                format!("no answer within {max:?}: what it did until then is in the log, look there before a retry");
            last(&own::NO_ANSWER, error)
        }
    }
}

/// What every server must refuse, and the parser lets through (RFC 9112, sections 3.2 and 6.1).
fn check(head: &Parts) -> Result<(), (OwnAnswer, &'static str)> {
    if head.version == Version::HTTP_11 && head.headers.get_all(header::HOST).iter().count() != 1 {
        return Err((own::MALFORMED, "the request does not name one host: send one `Host` header"));
    }
    let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err((own::UNREAD_CODING, "the body has a transfer coding that is not read: send it as it is"));
    }
    Ok(())
}

/// An error after which the connection is of no use: what is left of the request cannot be told from the next one.
fn last(own: &OwnAnswer, error: String) -> Response<Body> {
    let mut response = error_response(own.status, error);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Fails a write that makes no progress for a while: a client that does not read must not hold a connection.
struct StallGuard {
    stream: Box<dyn Stream>,
    timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl StallGuard {
    fn new(stream: Box<dyn Stream>, timeout: Duration) -> Self {
        Self { stream, timeout, stalled: None }
    }

    fn guard<T>(&mut self, cx: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.stalled = None;
            return progress;
        }
        let deadline = Instant::now() + self.timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }
}

impl AsyncRead for StallGuard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for StallGuard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.guard(cx, progress)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.guard(cx, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
