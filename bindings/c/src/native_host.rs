//! Look-ups and durable appends at the native host of this machine (`autonomy host serve`).

use gate_core::{json, read_object, text::line};
use socket2::{Domain, SockAddr};
use std::{
    fs::File,
    io::Read,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    answer::Answer,
    error::Error,
    guard::{Appended, Sink, Source},
    http::{Client, Response},
};

/// Bits of a file's mode that let anybody but its owner in.
const OTHERS: u32 = 0o077;

/// Longest file of a token that is read.
const TOKEN_BYTES: u64 = 4096;

/// How often a look-up is tried where the host did not answer. An append is never tried again.
const ATTEMPTS: u32 = 2;

#[derive(Debug)]
pub(crate) struct NativeHost {
    client: Client,
    token: String,
}

struct Said {
    error: String,
}

read_object!(Said { error });

impl NativeHost {
    /// A host on a loopback address: `http://127.0.0.1:7778`.
    pub(crate) fn at_url(url: &str, token: String) -> Result<Self, Error> {
        let address = address(url)?;
        Self::new(Client::new(Domain::for_address(address), address.into()), token)
    }

    /// A host on a Unix socket.
    pub(crate) fn at_socket(path: &Path, token: String) -> Result<Self, Error> {
        let address = SockAddr::unix(path);
        let address = address.map_err(|error| {
            Error::malformed(line(&format!("`{}` is no path of a socket: {error}: use a shorter one", path.display())))
        })?;
        Self::new(Client::new(Domain::UNIX, address), token)
    }

    fn new(client: Client, token: String) -> Result<Self, Error> {
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let wrong = "the token is empty or has other than printable characters: give it as the host has it";
            return Err(Error::malformed(wrong));
        }
        Ok(Self { client, token })
    }

    /// Whether the host takes frames.
    pub(crate) fn is_healthy(&self, timeout: Duration) -> bool {
        self.get("/v1/health", timeout).is_ok_and(|response| response.status == 200)
    }

    fn get(&self, path: &str, timeout: Duration) -> Result<Response, String> {
        let token = &self.token;
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n");
        self.client.exchange(&[head.as_bytes()], timeout)
    }
}

/// The token in a file that nobody but its owner can read.
pub(crate) fn token_of(path: &Path) -> Result<String, Error> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        Error::refused(line(&format!(
            "the token file `{shown}` cannot be read: {error}: make one with `autonomy host token`"
        )))
    };
    // The mode of what is read, whatever happens to the name.
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(Error::refused(line(&format!(
            "others can read `{shown}` (mode `{mode:o}`): run `chmod 600` on it"
        ))));
    }
    let mut token = String::new();
    file.take(TOKEN_BYTES).read_to_string(&mut token).map_err(unreadable)?;
    Ok(token.trim().to_owned())
}

impl Source for NativeHost {
    fn look_up(&self, node_id: &str, timeout: Duration) -> Result<Answer, String> {
        let (path, deadline) = (format!("/v1/enrollments/{node_id}"), Instant::now() + timeout);
        let mut attempt = 1;
        let response = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.get(&path, left) {
                Ok(response) => break response,
                Err(why) if left.is_zero() || attempt == ATTEMPTS => return Err(why),
                Err(_) => attempt += 1,
            }
        };
        match response.status {
            200 => Ok(Answer::Json(response.body)),
            _ => Err(answered(&response)),
        }
    }
}

impl Sink for NativeHost {
    fn append(&self, frames: &str, timeout: Duration) -> Appended {
        let (token, length) = (&self.token, frames.len().saturating_add(r#"{"frames":}"#.len()));
        let head = format!(
            "POST /v1/frames HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{{\"frames\":"
        );
        // One write where it is short: two would be two packets.
        let request = [head.as_bytes(), frames.as_bytes(), b"}"].concat();
        match self.client.exchange(&[&request], timeout) {
            Ok(response) => match response.status {
                200 if is_receipt(&response.body) => Appended::Durable,
                200 => Appended::Failed("the native host answered `200` with what is no receipt".to_owned()),
                409 => Appended::FactsNotLogged(answered(&response)),
                _ => Appended::Failed(answered(&response)),
            },
            Err(why) => Appended::Failed(why),
        }
    }
}

struct Receipt {
    first_seq: u64,
    last_seq: u64,
}

impl json::Read for Receipt {
    fn read(value: json::Value<'_>) -> Self {
        // A newer host may say more.
        let read = |object: &mut json::Object<'_>| Self {
            first_seq: object.take("first_seq"),
            last_seq: object.take("last_seq"),
        };
        value.open_object(read).0
    }
}

/// Whether it names the frames' numbers in the log.
fn is_receipt(body: &[u8]) -> bool {
    json::read::<Receipt>(body).is_ok_and(|receipt| receipt.first_seq <= receipt.last_seq)
}

fn answered(response: &Response) -> String {
    let said = json::read::<Said>(&response.body).map_or_else(|_| String::new(), |said| format!(": {}", said.error));
    line(&format!("the native host answered `{}`{said}", response.status))
}

/// Refuses an address on which the token could be read by others.
fn address(url: &str) -> Result<SocketAddr, Error> {
    let authority = url.strip_prefix("http://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let address = authority.and_then(|authority| match authority.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}").parse::<SocketAddr>().ok(),
        None => authority.parse().ok(),
    });
    match address {
        Some(address) if address.ip().is_loopback() => Ok(address),
        Some(_) => Err(Error::malformed(line(&format!(
            "`{url}` is not loopback: the token would be read on the way, use an address of this machine or a socket"
        )))),
        None => Err(Error::malformed(line(&format!("`{url}` is no address: give one like `http://127.0.0.1:7778`")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_an_address() {
        for good in ["http://127.0.0.1:7778", "http://127.9.9.9:1/", "http://localhost:80", "http://[::1]:7778"] {
            address(good).unwrap();
        }
        for bad in ["http://10.0.0.1:7778", "http://0.0.0.0:1", "http://[::]:1"] {
            assert!(address(bad).unwrap_err().message.contains("is not loopback"), "{bad}");
        }
        for bad in ["https://127.0.0.1:1", "127.0.0.1:1", "http://127.0.0.1.example.org:1", "http://127.0.0.1:1/x", ""]
        {
            assert!(address(bad).unwrap_err().message.contains("is no address"), "{bad}");
        }
    }

    #[test]
    fn a_receipt_names_the_frames() {
        assert!(is_receipt(br#"{"first_seq":7,"last_seq":8,"more":[]}"#));
        for lie in [b"".as_slice(), b"{}", b"[]", br#"{"durable":true}"#, br#"{"first_seq":8,"last_seq":7}"#] {
            assert!(!is_receipt(lie));
        }
    }
}
