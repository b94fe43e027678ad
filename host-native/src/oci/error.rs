use std::{io, path::PathBuf, time::Duration};

use gate_core::Digest;

use crate::{ErrorClass, client::SetUpError, file, tool::url::without_credentials};

/// Why a bundle could not be pushed or pulled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OciError {
    /// A reference that does not parse.
    #[error(
        "reference `{}` {rule}: use `<host>[:<port>]/<repository>:<tag>`, or `oci:<directory>[:<tag>]`, or `@sha256:<digest>` in the place of the tag",
        without_credentials(.reference).escape_debug()
    )]
    Reference {
        /// What was given.
        reference: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A digest is the result of a push.
    #[error("cannot push to the digest `{digest}`: push to a tag")]
    PushToDigest {
        /// The digest.
        digest: Digest,
    },
    /// More bytes than any gate loads.
    #[error("the bundle has {bytes} bytes and {limit} are allowed: leave out what the policies do not need")]
    BundleTooLarge {
        /// The bundle's bytes.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The tag is not in the layout.
    #[error("`{}` has no tag `{tag}`: {}", .layout.display(), the_tags(.tags))]
    NoSuchTag {
        /// The layout.
        layout: PathBuf,
        /// The tag that was asked for.
        tag: String,
        /// The tags that are there.
        tags: Vec<String>,
    },
    /// The reference has no tag, and not exactly one bundle is there.
    #[error("`{}` holds {count} manifests: name one, {}", .layout.display(), the_tags(.tags))]
    WhichOne {
        /// The layout.
        layout: PathBuf,
        /// How many manifests are there.
        count: usize,
        /// Their tags.
        tags: Vec<String>,
    },
    /// A directory with something else in it.
    #[error("`{}` is not an OCI layout ({why}): correct the path; a push makes one in an empty directory", .path.display())]
    NotALayout {
        /// The directory.
        path: PathBuf,
        /// What is missing or wrong.
        why: String,
    },
    /// A document or a blob that is not what it must be.
    #[error("`{}` is refused ({why}): push the bundle again", .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        why: String,
    },
    /// The operating system refused.
    #[error("cannot {doing} `{}` ({source}): {}", .path.display(), file::remedy(source, "check that it is there and who may use it"))]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A file of credentials that cannot be used.
    #[error("cannot take credentials from `{}` ({source}): make it with `skopeo login --authfile`, or name another with `--auth-file`", .path.display())]
    AuthFile {
        /// The file.
        path: PathBuf,
        /// What is wrong. Never what is in it.
        source: io::Error,
    },
    /// The roots to trust.
    #[error(transparent)]
    SetUp(#[from] SetUpError),
    /// The registry did not do it.
    #[error("registry `{registry}`, repository `{repository}`: {fault}")]
    Registry {
        /// Its host and port.
        registry: String,
        /// The repository.
        repository: String,
        /// Why not.
        fault: Box<Fault>,
    },
}

/// Why a registry did not do what it was asked. What it says itself is escaped and cut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Plain http is for this machine, or for the registry that is named.
    #[error(
        "plain http is not allowed with it: leave `--allow-insecure-registry` out, or name it with `--allow-insecure-registry={0}`"
    )]
    NotPlain(String),
    /// Credentials would be readable on their way.
    #[error("credentials are not sent over plain http to another machine: use https, or a registry that asks for none")]
    CredentialsInClear,
    /// Nobody there.
    #[error("{0}: check the registry's name and port, and the network")]
    Unreachable(String),
    /// No TLS, or not with whom it should be.
    #[error(
        "{0}: name its authority with `--registry-ca`, or allow plain http on this machine with `--allow-insecure-registry`"
    )]
    Tls(String),
    /// The connection ended before the answer did.
    #[error("the answer broke off ({0}): run the same line again")]
    Lost(String),
    /// The overall deadline.
    #[error("not done within {0:?}: run the same line again, or allow more with `--timeout`")]
    TimedOut(Duration),
    /// The machine has nothing left to ask with.
    #[error("cannot ask it ({0}): free threads and file descriptors of this machine")]
    NoRuntime(io::Error),
    /// 401, and there were no credentials.
    #[error(
        "it wants credentials (401{0}): log in with `skopeo login`, or name an auth file with `--auth-file`; credential helpers are not asked"
    )]
    Unauthenticated(String),
    /// 401, in spite of credentials.
    #[error("it refuses the credentials of `{}` (401{said}): log in again with `skopeo login`", .file.display())]
    CredentialsRefused {
        /// Where they are from.
        file: PathBuf,
        /// What it says.
        said: String,
    },
    /// 403.
    #[error("this is forbidden (403{0}): ask its owner for the right, or log in as somebody else")]
    Forbidden(String),
    /// 404.
    #[error("there is no {what} (404{said}): correct the reference, or push the bundle first")]
    NotFound {
        /// What was asked for.
        what: String,
        /// What it says.
        said: String,
    },
    /// 429.
    #[error("it has had too many requests (429{0}): wait, then run the same line again")]
    TooManyRequests(String),
    /// 5xx.
    #[error("it failed ({status}{said}): run the same line again later, or ask who operates it")]
    Failed {
        /// The status.
        status: u16,
        /// What it says.
        said: String,
    },
    /// Another status.
    #[error(
        "it answers {status}{said} where a registry does not: check that it is one, and that it takes OCI artifacts"
    )]
    Unexpected {
        /// The status.
        status: u16,
        /// What it says.
        said: String,
    },
    /// A status of somebody it sent us to.
    #[error("it redirects to `{host}`, which answers {status}: run the same line again, or ask who operates it")]
    Elsewhere {
        /// Where to.
        host: String,
        /// The status.
        status: u16,
    },
    /// A loop, or nearly.
    #[error("it redirects more than {0} times: ask who operates it")]
    TooManyRedirects(usize),
    /// From where it may be read to where it may be read by others.
    #[error("it sends on to `{0}`, over plain http: ask who operates it")]
    Downgrade(String),
    /// Credentials are for the registry, and for whom the caller names.
    #[error(
        "it sends for a token to `{0}`, which is not the registry: if that may have your credentials, say so with `--token-host {0}`"
    )]
    RealmElsewhere(String),
    /// An upload is for the registry.
    #[error("it sends an upload to `{0}`, which is not the registry: ask who operates it")]
    UploadElsewhere(String),
    /// An answer that means nothing.
    #[error("it does not answer as a registry does ({0}): check that it is one")]
    NotSpoken(String),
    /// What it has is not a bundle, or not the one that was asked for.
    #[error("{what} is refused ({why}): push the bundle again, or pull another")]
    Refused {
        /// Its manifest or its layer.
        what: &'static str,
        /// What does not hold.
        why: String,
    },
    /// It has something else than what was pushed.
    #[error("it says that it has stored `{0}`, which was not pushed: push again")]
    Stored(String),
}

impl OciError {
    /// Whether to correct the request or the thing it needs.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Reference { .. }
            | Self::PushToDigest { .. }
            | Self::BundleTooLarge { .. }
            | Self::NoSuchTag { .. }
            | Self::WhichOne { .. } => ErrorClass::Usage,
            Self::Io { source, .. } | Self::AuthFile { source, .. } => ErrorClass::of(source),
            Self::SetUp(error) => error.class(),
            Self::NotALayout { .. } | Self::Refused { .. } => ErrorClass::Unavailable,
            Self::Registry { fault, .. } => fault.class(),
        }
    }
}

impl OciError {
    /// Whether the same may go well a little later, though nobody changes anything here: the registry, or the way to it, is what
    /// was wrong, and not what was asked for or what it has.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Registry { fault, .. } => fault.may_pass(),
            Self::Reference { .. }
            | Self::PushToDigest { .. }
            | Self::BundleTooLarge { .. }
            | Self::NoSuchTag { .. }
            | Self::WhichOne { .. }
            | Self::NotALayout { .. }
            | Self::Refused { .. }
            | Self::Io { .. }
            | Self::AuthFile { .. }
            | Self::SetUp(_) => false,
        }
    }
}

impl Fault {
    fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_)
            | Self::Tls(_)
            | Self::Lost(_)
            | Self::TimedOut(_)
            | Self::NoRuntime(_)
            | Self::TooManyRequests(_)
            | Self::Failed { .. } => true,
            Self::Elsewhere { status, .. } => *status >= 500,
            Self::NotPlain(_)
            | Self::CredentialsInClear
            | Self::Unauthenticated(_)
            | Self::CredentialsRefused { .. }
            | Self::Forbidden(_)
            | Self::NotFound { .. }
            | Self::Unexpected { .. }
            | Self::TooManyRedirects(_)
            | Self::Downgrade(_)
            | Self::RealmElsewhere(_)
            | Self::UploadElsewhere(_)
            | Self::NotSpoken(_)
            | Self::Refused { .. }
            | Self::Stored(_) => false,
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::NotPlain(_)
            | Self::CredentialsInClear
            | Self::Unauthenticated(_)
            | Self::CredentialsRefused { .. }
            | Self::Forbidden(_)
            | Self::NotFound { .. }
            | Self::RealmElsewhere(_) => ErrorClass::Usage,
            Self::Unreachable(_)
            | Self::Tls(_)
            | Self::Lost(_)
            | Self::TimedOut(_)
            | Self::NoRuntime(_)
            | Self::TooManyRequests(_)
            | Self::Failed { .. }
            | Self::Unexpected { .. }
            | Self::Elsewhere { .. }
            | Self::TooManyRedirects(_)
            | Self::Downgrade(_)
            | Self::UploadElsewhere(_)
            | Self::NotSpoken(_)
            | Self::Refused { .. }
            | Self::Stored(_) => ErrorClass::Unavailable,
        }
    }
}

/// A hint names a few, whatever the layout holds.
const TAGS_SHOWN: usize = 8;

fn the_tags(tags: &[String]) -> String {
    if tags.is_empty() {
        return "it has no tags, use `@sha256:<digest>`".to_owned();
    }
    let shown: Vec<String> = tags.iter().take(TAGS_SHOWN).map(|tag| format!("`{}`", tag.escape_debug())).collect();
    let more = if tags.len() > TAGS_SHOWN { ", …" } else { "" };
    format!("it has {}{more}", shown.join(", "))
}
