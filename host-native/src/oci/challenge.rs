//! `www-authenticate`: how a registry wants to be told who asks.

use std::collections::BTreeMap;

use http::{HeaderMap, header::WWW_AUTHENTICATE};

use crate::client::Target;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A name and a password.
    Basic,
    /// A token of the service at `realm`.
    Bearer { realm: Target, service: Option<String> },
}

impl Challenge {
    /// The first that is understood.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        headers.get_all(WWW_AUTHENTICATE).iter().find_map(|value| Self::parse(value.to_str().ok()?))
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, parameters) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut parameters = parse_parameters(parameters)?;
        let realm = Target::parse(&parameters.remove("realm")?)?;
        Some(Self::Bearer { realm, service: parameters.remove("service") })
    }
}

/// `name="value"` or `name=value`, between commas; none twice, and none with a backslash.
fn parse_parameters(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut parameters = BTreeMap::new();
    loop {
        text = text.trim_start_matches([' ', ',']);
        if text.is_empty() {
            return Some(parameters);
        }
        let (name, rest) = text.split_once('=')?;
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_once(',').unwrap_or((rest, "")),
        };
        let is_second = parameters.insert(name.to_ascii_lowercase(), value.to_owned()).is_some();
        if is_second || value.contains('\\') {
            return None;
        }
        text = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_understood_or_it_is_none() {
        let realm = |url: &str| Target::parse(url).unwrap();
        let bearer = |url: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm(url), service: service.map(str::to_owned) })
        };
        for (text, wanted) in [
            ("Basic realm=\"r\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            ("Bearer realm=\"https://r/token\"", bearer("https://r/token", None)),
            (
                "Bearer realm=\"https://r/t?a=b\",service=\"the, registry\",scope=\"repository:a:pull\"",
                bearer("https://r/t?a=b", Some("the, registry")),
            ),
            ("bearer Service=s, REALM=http://127.0.0.1:1/", bearer("http://127.0.0.1:1/", Some("s"))),
            ("Bearer", None),
            ("Bearer realm=\"https://r/token", None),
            ("Bearer realm=\"https://r/token\",realm=\"https://evil/\"", None),
            ("Bearer realm=\"https://r/\\\"token\"", None),
            ("Bearer realm=\"/token\"", None),
            ("Bearer realm=\"https://user@r/token\"", None),
            ("Bearer realm=\"file:///etc/passwd\"", None),
            ("Bearer realm", None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(Challenge::parse(text), wanted, "{text}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(Challenge::of(&headers), None);
        headers.append(WWW_AUTHENTICATE, "Negotiate".parse().unwrap());
        headers.append(WWW_AUTHENTICATE, "Basic realm=x".parse().unwrap());
        assert_eq!(Challenge::of(&headers), Some(Challenge::Basic));
    }
}
