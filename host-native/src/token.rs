//! What lets somebody in: a secret in a file that its owner alone can read, known to the service by its hash alone.

use std::{
    fmt,
    hash::{Hash, Hasher},
    io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use gate_core::Digest;
use http::{HeaderMap, HeaderValue, header};
use subtle::ConstantTimeEq as _;

use crate::{ErrorClass, file};

/// Shortest token that is taken, in bytes: one that cannot be guessed.
const SHORTEST: usize = 32;
/// Longest, in bytes.
const LONGEST: usize = 512;

/// Who takes a token, by which it is known where one comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenBy {
    /// The native host of a node.
    Host,
    /// An orchestrator.
    Orchestrator,
    /// A collector, which is somebody else's.
    Collector,
}

impl TakenBy {
    fn remedy(self) -> &'static str {
        match self {
            Self::Host => "make one with `autonomy host token`",
            Self::Orchestrator => "make one with `autonomy orchestrator token`",
            Self::Collector => "write the token that the collector gave you there, with mode 600",
        }
    }
}

/// Why there is no token. The token itself is in no message.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read token `{}` ({source}): correct the path, or {}", path.display(), taken_by.remedy())]
    Read {
        /// The file.
        path: PathBuf,
        /// Who takes it.
        taken_by: TakenBy,
        /// Why.
        source: io::Error,
    },
    /// Others can read or write the file.
    #[error("token `{}` can be read by others (mode {mode:03o}): run `chmod 600 {}`", path.display(), file::shell_word(path))]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error(
        "token `{}` is not {SHORTEST} to {LONGEST} printable characters in one line: {}",
        path.display(),
        taken_by.remedy()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Who takes it.
        taken_by: TakenBy,
    },
    /// There is a file where the token would be written.
    #[error("`{}` exists, and a token is never overwritten: choose another `--out`, or remove it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write token `{}` ({source}): {}", path.display(), file::remedy(source, "choose another `--out`"))]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system gave no random bytes.
    #[error("the system gives no random bytes ({0}): check that `/dev/urandom` can be read")]
    Random(getrandom::Error),
}

impl TokenError {
    /// Whose turn it is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => ErrorClass::of(source),
            Self::Random(_) => ErrorClass::Unavailable,
            Self::Exposed { .. } | Self::Malformed { .. } | Self::Exists { .. } => ErrorClass::Usage,
        }
    }
}

/// A bearer token (RFC 6750), kept as its hash alone. To compare two takes the same time wherever they differ.
#[derive(Clone, Copy, Eq)]
pub struct Token(Digest);

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Hash for Token {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Token {
    /// Reads the token of a host, which only its owner can read.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        Ok(Self::of(read_secret(path, TakenBy::Host)?.as_bytes()))
    }

    /// Writes a new token of 32 random bytes to a file with mode 0600, and its directory if it is missing.
    ///
    /// # Errors
    /// Why it cannot be written. A file that exists is kept.
    pub fn generate(path: &Path) -> Result<Self, TokenError> {
        let failed = |source: io::Error| {
            let path = path.to_owned();
            if source.kind() == io::ErrorKind::AlreadyExists {
                return TokenError::Exists { path };
            }
            TokenError::Write { path, source }
        };
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(TokenError::Random)?;
        let secret = URL_SAFE_NO_PAD.encode(random);
        if let Some(directory) = path.parent() {
            file::create_directory(directory, 0o700).map_err(failed)?;
        }
        file::create_new(path, format!("{secret}\n").as_bytes(), 0o600).map_err(failed)?;
        Ok(Self::of(secret.as_bytes()))
    }

    /// The token whose SHA-256 this is.
    pub(crate) fn from_hash(hash: Digest) -> Self {
        Self(hash)
    }

    /// Its SHA-256.
    pub(crate) fn hash(&self) -> Digest {
        self.0
    }

    /// The token that a request carries, where it carries one.
    pub(crate) fn presented(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else { return None };
        let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then(|| Self::of(token))
    }

    /// Whether a request carries this token, once.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> bool {
        Self::presented(headers).is_some_and(|presented| presented == *self)
    }

    fn of(token: &[u8]) -> Self {
        Self(Digest::of(token))
    }
}

/// The header that carries the token in a file that only its owner can read. It is never shown.
pub(crate) fn read_authorization(path: &Path, taken_by: TakenBy) -> Result<HeaderValue, TokenError> {
    let secret = read_secret(path, taken_by)?;
    let header = HeaderValue::try_from(format!("Bearer {secret}"));
    let mut header = header.map_err(|_| TokenError::Malformed { path: path.to_owned(), taken_by })?;
    header.set_sensitive(true);
    Ok(header)
}

fn read_secret(path: &Path, taken_by: TakenBy) -> Result<String, TokenError> {
    let read = |source| TokenError::Read { path: path.to_owned(), taken_by, source };
    if let Some(mode) = file::exposed(path).map_err(read)? {
        return Err(TokenError::Exposed { path: path.to_owned(), mode });
    }
    let text = file::read_text(path, file::KEY_BYTES).map_err(read)?;
    let secret = text.trim_ascii_end();
    if !(SHORTEST..=LONGEST).contains(&secret.len()) || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::Malformed { path: path.to_owned(), taken_by });
    }
    Ok(secret.to_owned())
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    #[test]
    fn a_generated_token_admits_who_has_it_and_is_never_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("new/host.token");
        Token::generate(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(Token::generate(&path).unwrap_err().class(), ErrorClass::Usage);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        let token = Token::read(&path).unwrap();
        assert_eq!(format!("{token:?}"), "Token(…)");
        let headers = |values: &[String]| -> HeaderMap {
            values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())).collect()
        };
        let secret = text.trim_end();
        for scheme in ["Bearer", "bearer", "BEARER"] {
            assert!(token.admits(&headers(&[format!("{scheme} {secret}")])));
        }
        let wrong = [
            secret.to_owned(),
            format!("Basic {secret}"),
            format!("Bearer  {secret}"),
            format!("Bearer {secret}x"),
            format!("Bearer {}", &secret[1..]),
            "Bearer ".to_owned(),
            String::new(),
        ];
        for value in wrong {
            assert!(!token.admits(&headers(std::slice::from_ref(&value))), "{value}");
        }
        let right = format!("Bearer {secret}");
        assert!(!token.admits(&headers(&[right.clone(), right])), "twice");
        assert!(!token.admits(&headers(&[])));
    }

    #[test]
    fn a_token_file_that_is_none_is_refused_without_showing_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("token");
        let good = "x".repeat(32);
        for (content, mode, message) in [
            (good.clone(), 0o640, "can be read by others (mode 640): run `chmod 600 "),
            (good.clone(), 0o606, "can be read by others (mode 606)"),
            ("x".repeat(31), 0o600, "is not 32 to 512 printable characters in one line: make one with"),
            ("x".repeat(513), 0o600, "is not 32 to 512 printable"),
            (format!("{good}\n{good}\n"), 0o600, "is not 32 to 512 printable"),
            (format!("{good}é"), 0o600, "is not 32 to 512 printable"),
            (String::new(), 0o600, "is not 32 to 512 printable"),
        ] {
            fs::write(&path, &content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Token::read(&path).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
            assert!(content.is_empty() || !error.to_string().contains(&content), "{error}");
            assert_eq!(error.class(), ErrorClass::Usage);
        }
        fs::write(&path, format!("{good}\r\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Token::read(&path).is_ok());
        let missing = Token::read(&home.path().join("none")).unwrap_err();
        assert_eq!(missing.class(), ErrorClass::Unavailable);
        assert!(missing.to_string().ends_with("or make one with `autonomy host token`"), "{missing}");
    }

    #[test]
    fn where_a_token_comes_from_is_said_of_who_takes_it() {
        let home = tempfile::tempdir().unwrap();
        let [none, malformed] = ["none", "malformed"].map(|name| home.path().join(name));
        fs::write(&malformed, "short").unwrap();
        fs::set_permissions(&malformed, fs::Permissions::from_mode(0o600)).unwrap();
        for (taken_by, remedy) in [
            (TakenBy::Orchestrator, "make one with `autonomy orchestrator token`"),
            (TakenBy::Collector, "write the token that the collector gave you there, with mode 600"),
        ] {
            let said = |path: &Path| read_authorization(path, taken_by).unwrap_err().to_string();
            assert!(
                said(&none)
                    .ends_with(&format!("(No such file or directory (os error 2)): correct the path, or {remedy}"))
            );
            assert!(said(&malformed).ends_with(&format!(" printable characters in one line: {remedy}")));
        }
    }
}
