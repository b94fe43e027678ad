//! One exchange of HTTP/1.1 with a host on loopback or on a Unix socket: bounded in time and size, no redirects, no proxies.

use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    io::{self, ErrorKind, Read},
    mem::MaybeUninit,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crate::lock::lock;

/// Longest answer that is read.
const ANSWER_BYTES: usize = 64 * 1024;

/// Longest head of an answer.
const HEAD_BYTES: usize = 16 * 1024;

/// Most headers of an answer.
const HEADERS: usize = 64;

/// Most connections that are kept for the next call.
const IDLE: usize = 64;

/// A host's address, and the connections that are kept to it.
#[derive(Debug)]
pub(crate) struct Client {
    domain: Domain,
    address: SockAddr,
    idle: Mutex<Vec<Socket>>,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// What is known of an answer once its head is there.
struct Head {
    status: u16,
    bytes: usize,
    length: Length,
    keep: bool,
}

enum Length {
    Bytes(usize),
    Chunked,
}

impl Client {
    pub(crate) fn new(domain: Domain, address: SockAddr) -> Self {
        Self { domain, address, idle: Mutex::default() }
    }

    /// Sends a request, head and body, and reads its answer. Nothing is tried again.
    pub(crate) fn exchange(&self, request: &[&[u8]], timeout: Duration) -> Result<Response, String> {
        self.try_exchange(request, Instant::now() + timeout).map_err(|error| {
            if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
                return format!("the native host took longer than {} ms", timeout.as_millis());
            }
            format!("the native host did not answer: {error}")
        })
    }

    fn try_exchange(&self, request: &[&[u8]], deadline: Instant) -> io::Result<Response> {
        let socket = match self.idle() {
            Some(socket) => socket,
            None => self.connect(deadline)?,
        };
        for part in request {
            send(&socket, part, deadline)?;
        }
        let (response, keep) = receive(&socket, deadline)?;
        if keep {
            let mut idle = self.lock();
            if idle.len() < IDLE {
                idle.push(socket);
            }
        }
        Ok(response)
    }

    /// A connection that is still open: an append on one that is not would be a call denied.
    fn idle(&self) -> Option<Socket> {
        loop {
            let socket = self.lock().pop()?;
            if is_open(&socket) {
                return Some(socket);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Socket>> {
        lock(&self.idle, Vec::clear)
    }

    fn connect(&self, deadline: Instant) -> io::Result<Socket> {
        let socket = Socket::new(self.domain, Type::STREAM, None)?;
        socket.connect_timeout(&self.address, left(deadline)?)?;
        if self.domain != Domain::UNIX {
            socket.set_tcp_nodelay(true)?;
        }
        Ok(socket)
    }
}

/// Whether the peer has neither closed it nor sent what nobody asked for.
fn is_open(socket: &Socket) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let silent = socket.set_nonblocking(true).and_then(|()| socket.peek(&mut byte));
    matches!(silent, Err(error) if error.kind() == ErrorKind::WouldBlock) && socket.set_nonblocking(false).is_ok()
}

/// The system counts in microseconds, and takes none of them for no end.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left < Duration::from_millis(1) { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn send(socket: &Socket, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    // A host that went away must not end the process by SIGPIPE; where there is no such flag, socket2 sees to it.
    const FLAGS: libc::c_int = if cfg!(target_vendor = "apple") { 0 } else { libc::MSG_NOSIGNAL };
    while !bytes.is_empty() {
        socket.set_write_timeout(Some(left(deadline)?))?;
        match socket.send_with_flags(bytes, FLAGS) {
            Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads an answer whole; says whether the connection may be used again.
fn receive(socket: &Socket, deadline: Instant) -> io::Result<(Response, bool)> {
    let mut buffer = Vec::new();
    let head = loop {
        if let Some(head) = head(&buffer)? {
            break head;
        }
        if buffer.len() > HEAD_BYTES {
            return Err(lie("the head of the answer is too long"));
        }
        more(socket, &mut buffer, deadline)?;
    };
    let mut rest = buffer.split_off(head.bytes);
    let body = match head.length {
        Length::Bytes(length) => {
            while rest.len() < length {
                more(socket, &mut rest, deadline)?;
            }
            let next = rest.split_off(length);
            return Ok((Response { status: head.status, body: rest }, head.keep && next.is_empty()));
        }
        Length::Chunked => chunks(socket, rest, deadline)?,
    };
    // What follows the last chunk is not looked at.
    Ok((Response { status: head.status, body }, false))
}

fn head(buffer: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(bytes) = response.parse(buffer).map_err(lie)? else { return Ok(None) };
    let named = |name: &'static str| {
        response.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    };
    let chunked = named("transfer-encoding").any(|value| value.eq_ignore_ascii_case(b"chunked"));
    let lengths: Vec<_> = named("content-length").collect();
    let length = match lengths.as_slice() {
        [] if chunked => Length::Chunked,
        [length] if !chunked => {
            let length = str::from_utf8(length).ok().and_then(|length| length.parse().ok());
            Length::Bytes(length.filter(|length| *length <= ANSWER_BYTES).ok_or_else(too_long)?)
        }
        _ => return Err(lie("the answer does not say how long it is")),
    };
    let keep = response.version == Some(1) && !named("connection").any(|value| value.eq_ignore_ascii_case(b"close"));
    Ok(Some(Head { status: response.code.unwrap_or_default(), bytes, length, keep }))
}

fn chunks(socket: &Socket, mut rest: Vec<u8>, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let (start, size) = loop {
            match httparse::parse_chunk_size(&rest).map_err(|_| lie("a chunk of the answer has no size"))? {
                httparse::Status::Complete(found) => break found,
                httparse::Status::Partial if rest.len() > HEAD_BYTES => return Err(too_long()),
                httparse::Status::Partial => more(socket, &mut rest, deadline)?,
            }
        };
        if size == 0 {
            return Ok(body);
        }
        let size = usize::try_from(size).ok().filter(|size| body.len().saturating_add(*size) <= ANSWER_BYTES);
        let size = size.ok_or_else(too_long)?;
        // Each chunk ends in a line break of its own.
        let end = start.saturating_add(size);
        while rest.len() < end.saturating_add(2) {
            more(socket, &mut rest, deadline)?;
        }
        body.extend_from_slice(rest.get(start..end).unwrap_or_default());
        rest.drain(..end.saturating_add(2));
    }
}

fn more(socket: &Socket, buffer: &mut Vec<u8>, deadline: Instant) -> io::Result<()> {
    let mut bytes = [0; 8 * 1024];
    socket.set_read_timeout(Some(left(deadline)?))?;
    match (&mut &*socket).read(&mut bytes) {
        Ok(0) => Err(lie("the answer broke off")),
        Ok(read) => {
            buffer.extend_from_slice(bytes.get(..read).unwrap_or_default());
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
        Err(error) => Err(error),
    }
}

fn lie(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

fn too_long() -> io::Error {
    lie(format!("the answer is longer than {ANSWER_BYTES} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_client_that_a_panic_marked_as_dead_keeps_no_connection() {
        let place = std::env::temp_dir().join(format!("autonomy-gate-{}.sock", std::process::id()));
        let _listener = UnixListener::bind(&place).unwrap();
        let client = Client::new(Domain::UNIX, SockAddr::unix(&place).unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        for dead in [false, true] {
            client.lock().push(client.connect(deadline).unwrap());
            if dead {
                crate::lock::kill(&client.idle);
            }
            assert_eq!(client.idle().is_some(), !dead);
        }
        std::fs::remove_file(place).unwrap();
    }
}
