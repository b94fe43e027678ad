//! URLs in one spelling.
//!
//! Two programs that read one URL differently are how allow-lists are passed. So a URL is not repaired here: whatever is
//! not written in the one canonical way is refused, and what is compared is what is connected to. A policy that looks at
//! the text of a URL sees the same origin as this code.

use std::{fmt, str::FromStr};

use http::{Uri, uri::InvalidUri};
use serde::Deserialize;

use crate::client::{Origin, Scheme, Target};

/// Bytes of a URL.
const MAX_BYTES: usize = 4096;

/// Why a text is not a URL that is used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("url `{url}` {fault}")]
pub struct ParseUrlError {
    url: String,
    fault: &'static str,
}

impl ParseUrlError {
    fn new(url: &str, fault: &'static str) -> Self {
        Self { url: without_credentials(url).chars().take(200).flat_map(char::escape_debug).collect(), fault }
    }
}

/// A text that should have been a URL or a reference, as a log may have it: what stands before the host of one that somebody
/// put a password into is left out. The `@` before a digest is no such sign.
pub(crate) fn without_credentials(text: &str) -> String {
    let (scheme, rest) = text.split_at(text.find("://").map_or(0, |at| at + "://".len()));
    let is_host = |(_, after): &(&str, &str)| !after.starts_with("@sha256:");
    let ats = rest.rmatch_indices('@').map(|(at, _)| rest.split_at(at));
    match ats.into_iter().find(is_host) {
        Some((_, host)) => format!("{scheme}***{host}"),
        None => text.to_owned(),
    }
}

/// A canonical `http` or `https` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) origin: Origin,
    /// Starts with `/`; no dot segments; no escaped slash, backslash, dot or control character;
    /// what is escaped is UTF-8.
    path: String,
    query: Option<String>,
}

impl Url {
    pub(crate) fn parse(text: &str) -> Result<Self, ParseUrlError> {
        parse(text).map_err(|fault| ParseUrlError::new(text, fault))
    }

    pub(crate) fn target(&self) -> Result<Target, InvalidUri> {
        let path = match &self.query {
            None => self.path.parse(),
            Some(query) => format!("{}?{query}", self.path).parse(),
        };
        Ok(Target { origin: self.origin.clone(), path: path? })
    }
}

/// Whether a service can be asked below this URL, with a token that nobody between may read.
pub(crate) fn check_service(text: &str) -> Result<(), ParseUrlError> {
    let url = parse(&format!("{}/", text.trim_end_matches('/')));
    let fault = match url {
        Ok(Url { origin, .. }) if origin.scheme == Scheme::Https || origin.is_loopback() => return Ok(()),
        Ok(_) => "is neither https nor on this machine: use https, so that nobody between reads the token",
        Err(fault) => fault,
    };
    Err(ParseUrlError::new(text, fault))
}

fn parse(text: &str) -> Result<Url, &'static str> {
    if text.len() > MAX_BYTES {
        return Err("is too long: use at most 4096 bytes");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic() && !b"\\\"<>^`{|}#".contains(&b)) {
        return Err(
            "holds a character that must be percent-encoded, or a fragment: use plain ascii without `\\` and `#`",
        );
    }
    let (scheme, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(rest), _) => (Scheme::Http, rest),
        (None, Some(rest)) => (Scheme::Https, rest),
        (None, None) => return Err("does not start with `http://` or `https://`: put that, in lower case, before it"),
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("holds credentials: leave out everything up to `@`");
    }
    if authority.contains('%') {
        return Err("has a percent sign in its host: write the host plainly");
    }
    let uri = Uri::from_str(text).map_err(|_| "is not a url: check host, port and path")?;
    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16());
    let is_name = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.');
    let is_v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    if let Some(address) = is_v6 {
        let parsed: std::net::Ipv6Addr = address.parse().map_err(|_| "has a bad ipv6 address as its host")?;
        if parsed.to_string() != address {
            return Err("writes its ipv6 address in an unusual way: use the shortest form");
        }
    } else if host.is_empty() || !host.chars().all(is_name) || host.starts_with('.') || host.contains("..") {
        return Err("has a host that is not in lower case `a-z 0-9 - _ .`");
    } else if host.ends_with('.') {
        return Err("has a host that ends with a dot: remove it");
    } else if host.split('.').next_back().is_some_and(is_numeric) && host.parse::<std::net::Ipv4Addr>().is_err() {
        return Err("has a number as its host that is not four decimal parts");
    }
    // What was compared must be all there was: nothing between host and path but the port that was read.
    let spelled = match port {
        None => host.to_owned(),
        Some(port) if port == scheme.default_port() => return Err("names the default port: leave it out"),
        Some(port) => format!("{host}:{port}"),
    };
    if spelled != authority || port == Some(0) {
        return Err("has a port that is not a plain number from 1 to 65535");
    }
    let tail = rest.strip_prefix(authority).unwrap_or_default();
    let (path, query) = match tail.split_once('?') {
        None => (tail, None),
        Some((path, query)) => (path, Some(query.to_owned())),
    };
    if !path.starts_with('/') {
        return Err("has no path: add at least `/`");
    }
    check_escapes(path)?;
    // Servers that know parameters of a segment (`..;x`) look at what is before them.
    if path.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | ".."))) {
        return Err("has `.` or `..` in its path: write the path they lead to");
    }
    let origin = Origin { scheme, host: host.to_owned(), port: port.unwrap_or(scheme.default_port()) };
    Ok(Url { origin, path: path.to_owned(), query })
}

/// The resolver reads a host whose last part is a number (also `0x…`) as an address, in more ways than one.
fn is_numeric(label: &str) -> bool {
    label.bytes().all(|b| b.is_ascii_digit())
        || label.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Escapes that some servers undo before they look at the path would make it another path.
fn check_escapes(path: &str) -> Result<(), &'static str> {
    let mut parts = path.split('%');
    let mut decoded = parts.next().unwrap_or_default().as_bytes().to_vec();
    for escape in parts {
        let byte = escape.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            None => return Err("has a `%` without two hex digits in its path"),
            Some(b'/' | b'\\' | b'.' | b'%' | b';' | 0..=0x1f | 0x7f) => {
                return Err("escapes `/`, `\\`, `.`, `;`, `%` or a control character in its path: that is refused");
            }
            Some(byte) => decoded.push(byte),
        }
        decoded.extend(escape.bytes().skip(2));
    }
    // Lenient decoders find a `.` or `/` in the overlong `%c0%ae` and `%c0%af`.
    match str::from_utf8(&decoded) {
        Ok(_) => Ok(()),
        Err(_) => Err("has percent escapes in its path that are not utf-8: escape the bytes of utf-8 text"),
    }
}

/// One entry of an allow-list: an origin (scheme, host, port), and a path that URLs must be at or below.
///
/// `http://files.local:8080/public` allows `…/public`, `…/public?x` and `…/public/a`, not `…/publications`.
/// `http://files.local/` allows the whole origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedPrefix(Url);

impl AllowedPrefix {
    /// Reads a canonical URL without a query; the path may be left out.
    ///
    /// # Errors
    /// What is not canonical, and how to write it.
    pub fn parse(text: &str) -> Result<Self, ParseUrlError> {
        let no_path = text.split_once("://").is_some_and(|(_, rest)| !rest.contains(['/', '?']));
        let url = if no_path { parse(&format!("{text}/")) } else { parse(text) };
        let url = url.map_err(|fault| ParseUrlError::new(text, fault))?;
        if url.query.is_some() {
            return Err(ParseUrlError::new(text, "has a query: an allowed url ends with its path"));
        }
        Ok(Self(url))
    }

    pub(super) fn allows(&self, url: &Url) -> bool {
        let Self(allowed) = self;
        allowed.origin == url.origin
            && match url.path.strip_prefix(&allowed.path) {
                None => false,
                Some(rest) => rest.is_empty() || rest.starts_with('/') || allowed.path.ends_with('/'),
            }
    }

    pub(super) fn scheme(&self) -> Scheme {
        self.0.origin.scheme
    }
}

impl<'de> Deserialize<'de> for AllowedPrefix {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl FromStr for AllowedPrefix {
    type Err = ParseUrlError;
    fn from_str(text: &str) -> Result<Self, ParseUrlError> {
        Self::parse(text)
    }
}

impl fmt::Display for AllowedPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0.origin, self.0.path)
    }
}
