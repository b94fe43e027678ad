//! Who is let in, and what for: bearer tokens with names and roles, kept as their hashes.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use gate_core::{Digest, NodeId, json, read_object};
use http::HeaderMap;
use serde::Serialize;

use crate::{
    ErrorClass, file,
    token::{Token, TokenError},
};

/// Largest file of tokens, in bytes: some 100,000 of them.
const FILE_BYTES: u64 = 16 * 1024 * 1024;
/// More than a line of it has, in bytes.
const LINE_BYTES: u64 = 1024;
/// Longest name of a token, in bytes.
const NAME_BYTES: usize = 128;

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// May read everything.
    Reader,
    /// May read and change everything.
    Operator,
    /// May read what concerns this node, and say how far it has come in a rollout.
    Node(NodeId),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reader => f.write_str("reader"),
            Self::Operator => f.write_str("operator"),
            Self::Node(node_id) => write!(f, "node {node_id}"),
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's name, which the history of a change keeps.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// From when on it lets nobody in, in milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
}

impl Caller {
    /// A caller with a name that the history can keep.
    ///
    /// # Errors
    /// [`AccessError::Name`].
    pub fn new(name: &str, role: Role) -> Result<Self, AccessError> {
        if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(AccessError::Name { name: name.chars().take(NAME_BYTES).collect() });
        }
        Ok(Self { name: name.to_owned(), role, expires_at_ms: None })
    }

    pub(super) fn has_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|expires_at_ms| expires_at_ms <= now_ms)
    }

    /// Whether it may read everything.
    pub(super) fn reads_all(&self) -> bool {
        match self.role {
            Role::Reader | Role::Operator => true,
            Role::Node(_) => false,
        }
    }

    /// Whether it may read what concerns a node.
    pub(super) fn reads(&self, node_id: &NodeId) -> bool {
        match &self.role {
            Role::Reader | Role::Operator => true,
            Role::Node(own) => own == node_id,
        }
    }

    /// Whether it may say how far a node has come.
    pub(super) fn reports(&self, node_id: &NodeId) -> bool {
        match &self.role {
            Role::Operator => true,
            Role::Reader => false,
            Role::Node(own) => own == node_id,
        }
    }

    /// Whether it may change enrollments and rollouts.
    pub(super) fn changes(&self) -> bool {
        match self.role {
            Role::Operator => true,
            Role::Reader | Role::Node(_) => false,
        }
    }
}

/// Why tokens cannot be used. No token is in a message.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file cannot be read or written.
    #[error("cannot use tokens `{}` ({source}): {}", path.display(), file::remedy(source, "correct `--tokens`, or make a token with `autonomy orchestrator token`"))]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read or write the file.
    #[error("tokens `{}` can be read by others (mode {mode:03o}): run `chmod 600 {}`", path.display(), file::shell_word(path))]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A line is not what `autonomy orchestrator token` writes.
    #[error("tokens `{}`: line {line}: {why}; correct or remove the line", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// Another token has the name.
    #[error("a token named `{name}` is there already: choose another `--name`, or remove its line from `{}`", path.display())]
    Taken {
        /// The name.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// One more and it would not be read.
    #[error("tokens `{}` has as many lines as are read: remove those that nobody uses", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Not a name.
    #[error("token name `{}` is not 1 to {NAME_BYTES} printable characters without spaces: choose another", name.escape_debug())]
    Name {
        /// What was given.
        name: String,
    },
    /// The token itself could not be made.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl AccessError {
    /// Whose turn it is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::File { source, .. } => ErrorClass::of(source),
            Self::Exposed { .. } | Self::Line { .. } | Self::Taken { .. } | Self::Full { .. } | Self::Name { .. } => {
                ErrorClass::Usage
            }
            Self::Token(error) => error.class(),
        }
    }
}

/// The tokens of a file, read again when it changes: one that is added or removed counts from the next request on.
#[derive(Debug)]
pub struct Access {
    path: PathBuf,
    read: Mutex<(Stamp, Arc<Tokens>)>,
    pace: Pace,
}

/// By a hash with a key of this process: where a token is looked for says nothing of those that there are.
type Tokens = HashMap<Token, Caller>;

/// What tells a file from the same one later, or another of its name.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

/// One line of the file.
#[derive(Serialize)]
struct Line {
    name: String,
    role: String,
    node_id: Option<NodeId>,
    hash: Digest,
    expires_at_ms: Option<u64>,
}

read_object!(Line { name, role, node_id, hash, expires_at_ms });

/// How often each token may ask: so many times a second, and as many at once (the generic cell rate algorithm, as in ATM
/// Forum's traffic management 4.1, section 4.4.2).
#[derive(Debug)]
struct Pace {
    per_second: u64,
    /// When each token's next request is due, at its steady pace. As many as there are tokens.
    due: Mutex<BTreeMap<String, Instant>>,
}

impl Pace {
    /// Takes a request, or says how long until one is taken again.
    fn take(&self, name: &str, now: Instant) -> Result<(), Duration> {
        const SECOND: Duration = Duration::from_secs(1);
        let mut all = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let due = all.get(name).copied().unwrap_or(now).max(now);
        let apart = Duration::from_nanos(1_000_000_000 / self.per_second.max(1));
        let next = due.checked_add(apart).unwrap_or(due);
        match next.saturating_duration_since(now).checked_sub(SECOND) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                all.insert(name.to_owned(), next);
                Ok(())
            }
        }
    }
}

impl Access {
    /// Reads the file. Each token may ask `per_second` times a second.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(path: impl Into<PathBuf>, per_second: u64) -> Result<Self, AccessError> {
        let path = path.into();
        let read = Mutex::new(read(&path)?);
        Ok(Self { path, read, pace: Pace { per_second, due: Mutex::default() } })
    }

    /// Counts a request of a caller, or says how long until it may ask again.
    pub(super) fn take(&self, caller: &Caller) -> Result<(), Duration> {
        self.pace.take(&caller.name, Instant::now())
    }

    /// Makes a token for a caller: the token goes to a new file at `out`, its hash to the end of the file of tokens.
    ///
    /// # Errors
    /// Why not. Neither file has anything new then.
    pub fn add(tokens: &Path, caller: &Caller, out: &Path) -> Result<(), AccessError> {
        let failed = |source| AccessError::File { path: tokens.to_owned(), source };
        // One after the other: the file itself is replaced, whole or not at all.
        let directory = file::directory_of(tokens);
        file::create_directory(directory, 0o700).map_err(failed)?;
        let turn = fs::File::open(directory).map_err(failed)?;
        turn.lock().map_err(failed)?;
        let before = match text(tokens) {
            Ok(before) => before,
            Err(AccessError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        if parse(tokens, &before)?.values().any(|known| known.name == caller.name) {
            return Err(AccessError::Taken { name: caller.name.clone(), path: tokens.to_owned() });
        }
        if before.len() as u64 + LINE_BYTES > FILE_BYTES {
            return Err(AccessError::Full { path: tokens.to_owned() });
        }
        let token = Token::generate(out)?;
        let (role, node_id) = match &caller.role {
            Role::Reader => ("reader", None),
            Role::Operator => ("operator", None),
            Role::Node(node_id) => ("node", Some(node_id.clone())),
        };
        let (name, role, expires_at_ms) = (caller.name.clone(), role.to_owned(), caller.expires_at_ms);
        let line = Line { name, role, node_id, hash: token.hash(), expires_at_ms };
        let end = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
        let text = format!("{before}{end}{}\n", json::write(&line));
        file::replace(tokens, text.as_bytes()).map_err(|source| {
            // Nobody would be let in with it.
            let _ = fs::remove_file(out);
            failed(source)
        })
    }

    /// Who sends these headers, if anybody who is let in.
    ///
    /// # Errors
    /// The file cannot be used any more: then nobody is let in.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Option<Caller>, AccessError> {
        let found = fs::metadata(&self.path).map(|found| Stamp::of(&found));
        let found = found.map_err(|source| AccessError::File { path: self.path.clone(), source })?;
        let tokens = {
            let mut last = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            if found != last.0 {
                *last = read(&self.path)?;
            }
            Arc::clone(&last.1)
        };
        Ok(Token::presented(headers).and_then(|token| tokens.get(&token).cloned()))
    }
}

fn read(path: &Path) -> Result<(Stamp, Arc<Tokens>), AccessError> {
    let found = fs::metadata(path).map_err(|source| AccessError::File { path: path.to_owned(), source })?;
    // Stamped before it is read: a change in between is seen by the next look.
    Ok((Stamp::of(&found), Arc::new(parse(path, &text(path)?)?)))
}

/// The text of a file that its owner alone can read.
fn text(path: &Path) -> Result<String, AccessError> {
    let failed = |source| AccessError::File { path: path.to_owned(), source };
    if let Some(mode) = file::exposed(path).map_err(failed)? {
        return Err(AccessError::Exposed { path: path.to_owned(), mode });
    }
    file::read_text(path, FILE_BYTES).map_err(failed)
}

fn parse(path: &Path, text: &str) -> Result<Tokens, AccessError> {
    let mut tokens = Tokens::new();
    let mut names = std::collections::BTreeSet::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let refused = |why: String| AccessError::Line { path: path.to_owned(), line: at.saturating_add(1), why };
        let Line { name, role, node_id, hash, expires_at_ms } =
            json::read(line.as_bytes()).map_err(|error| refused(error.to_string()))?;
        let role = match (role.as_str(), node_id) {
            ("reader", None) => Role::Reader,
            ("operator", None) => Role::Operator,
            ("node", Some(node_id)) => Role::Node(node_id),
            ("node", None) => return Err(refused("role `node` has no `node_id`".to_owned())),
            ("reader" | "operator", Some(_)) => return Err(refused("only role `node` has a `node_id`".to_owned())),
            (other, _) => {
                let other = other.escape_debug();
                return Err(refused(format!("role `{other}` is not known: use `reader`, `operator` or `node`")));
            }
        };
        let mut caller = Caller::new(&name, role).map_err(|error| refused(error.to_string()))?;
        caller.expires_at_ms = expires_at_ms;
        if !names.insert(name) || tokens.insert(Token::from_hash(hash), caller).is_some() {
            return Err(refused("another line has this name or hash".to_owned()));
        }
    }
    Ok(tokens)
}

impl Stamp {
    fn of(found: &fs::Metadata) -> Self {
        Self { file: (found.dev(), found.ino()), size: found.size(), changed: (found.ctime(), found.ctime_nsec()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, header};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_token_lets_in_whom_it_was_made_for_until_its_line_is_gone() {
        let home = tempfile::tempdir().unwrap();
        let (tokens, out) = (home.path().join("new/tokens"), home.path().join("out"));
        let node = Caller::new("seven", Role::Node(NodeId::parse("robot-7").unwrap())).unwrap();
        Access::add(&tokens, &node, &out).unwrap();
        assert_eq!(fs::metadata(&tokens).unwrap().permissions().mode() & 0o777, 0o600);
        let access = Access::open(&tokens, 1_000).unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(access.caller(&headers).unwrap(), None);
        let secret = fs::read_to_string(&out).unwrap();
        let bearer = HeaderValue::from_str(&format!("Bearer {}", secret.trim_end())).unwrap();
        headers.insert(header::AUTHORIZATION, bearer);
        assert_eq!(access.caller(&headers).unwrap(), Some(node.clone()));
        assert!(matches!(Access::add(&tokens, &node, &home.path().join("other")), Err(AccessError::Taken { .. })));
        let other = Caller::new("ops", Role::Operator).unwrap();
        assert!(matches!(Access::add(&tokens, &other, &out), Err(AccessError::Token(_))), "no token is overwritten");
        assert_eq!(access.caller(&headers).unwrap(), Some(node));
        fs::write(&tokens, "").unwrap();
        assert_eq!(access.caller(&headers).unwrap(), None);
        fs::remove_file(&tokens).unwrap();
        assert!(access.caller(&headers).is_err());
    }

    #[test]
    fn tokens_that_are_added_leave_a_file_that_can_be_read() {
        let home = tempfile::tempdir().unwrap();
        let tokens = home.path().join("tokens");
        let add = &|name: String| {
            Access::add(&tokens, &Caller::new(&name, Role::Reader).unwrap(), &home.path().join(&name)).is_ok()
        };
        assert!(add("first".into()));
        // As an editor may leave it.
        let text = fs::read_to_string(&tokens).unwrap();
        fs::write(&tokens, text.trim_end()).unwrap();
        assert!(add("second".into()));
        let added: usize = std::thread::scope(|scope| {
            let adders: Vec<_> =
                (0..8).map(|at| scope.spawn(move || usize::from(add(format!("name-{}", at % 4))))).collect();
            adders.into_iter().map(|adder| adder.join().unwrap()).sum()
        });
        assert_eq!(added, 4, "each name once");
        let (_, known) = read(&tokens).unwrap();
        assert_eq!(known.len(), 6);
    }

    #[test]
    fn a_token_asks_at_its_pace_and_as_often_again_after_a_pause() {
        let pace = Pace { per_second: 10, due: Mutex::default() };
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        assert_eq!((0..15).filter(|_| pace.take("a", at(0)).is_ok()).count(), 10, "as many at once");
        assert_eq!(pace.take("a", at(0)), Err(Duration::from_millis(100)));
        assert_eq!(pace.take("b", at(0)), Ok(()), "another token's pace is its own");
        assert_eq!((0..40).filter(|n| pace.take("a", at(100 + n * 25)).is_ok()).count(), 10, "so many in a second");
        assert_eq!((0..15).filter(|_| pace.take("a", at(60_000)).is_ok()).count(), 10, "a pause saves up no more");
        let pace = Pace { per_second: u64::MAX, due: Mutex::default() };
        assert!((0..10_000).all(|_| pace.take("a", at(0)).is_ok()), "no number is too large");
    }

    #[test]
    fn a_token_expires_and_a_line_may_leave_out_when() {
        let home = tempfile::tempdir().unwrap();
        let (tokens, out) = (home.path().join("tokens"), home.path().join("out"));
        let mut caller = Caller::new("ops", Role::Operator).unwrap();
        caller.expires_at_ms = Some(5_000);
        Access::add(&tokens, &caller, &out).unwrap();
        let (_, known) = read(&tokens).unwrap();
        let known = known.values().next().unwrap();
        assert_eq!([4_999, 5_000, u64::MAX].map(|now_ms| known.has_expired(now_ms)), [false, true, true]);
        let line = format!(r#"{{"name":"a","role":"reader","node_id":null,"hash":"{}"}}"#, Digest::of(b"x"));
        fs::write(&tokens, line).unwrap();
        let (_, known) = read(&tokens).unwrap();
        assert!(!known.values().next().unwrap().has_expired(u64::MAX));
    }

    #[test]
    fn a_line_that_is_none_refuses_the_file_and_says_which() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("tokens");
        let hash = Digest::of(b"x");
        let good = format!(r#"{{"name":"a","role":"reader","node_id":null,"hash":"{hash}"}}"#);
        for (line, why) in [
            ("{}", "line 2: "),
            ("x", "line 2: "),
            (r#"{"name":"b","role":"root","node_id":null,"hash":"HASH"}"#, "role `root` is not known: use `reader`"),
            (r#"{"name":"b","role":"node","node_id":null,"hash":"HASH"}"#, "role `node` has no `node_id`"),
            (r#"{"name":"b","role":"reader","node_id":"n","hash":"HASH"}"#, "only role `node` has a `node_id`"),
            (r#"{"name":"b c","role":"reader","node_id":null,"hash":"HASH"}"#, "token name `b c` is not 1 to 128"),
            (r#"{"name":"","role":"reader","node_id":null,"hash":"HASH"}"#, "token name `` is not 1 to 128"),
            (r#"{"name":"a","role":"reader","node_id":null,"hash":"HASH"}"#, "another line has this name or hash"),
            (r#"{"name":"b","role":"reader","node_id":null,"hash":"HASH","x":1}"#, "`x`"),
            (r#"{"name":"b","role":"reader","node_id":null,"hash":"0000"}"#, "`hash`"),
        ] {
            let line = line.replace("HASH", &Digest::of(line.as_bytes()).to_string());
            fs::write(&path, format!("{good}\n{line}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = Access::open(&path, 1_000).unwrap_err();
            assert!(error.to_string().contains(why) && error.to_string().contains("line 2"), "{line}: {error}");
            assert_eq!(error.class(), ErrorClass::Usage);
        }
        fs::write(&path, format!("{good}\n\n{good}\n")).unwrap();
        assert!(Access::open(&path, 1_000).unwrap_err().to_string().contains("line 3"), "the same hash twice");
    }
}
