use std::{io, path::PathBuf};

use super::Digest;
use crate::ErrorClass;

/// Why a bundle could not be pushed or pulled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OciError {
    /// A place that this version cannot reach.
    #[error(
        "`{}` is not an OCI layout on disk, and registries are not supported in this version: use `oci:<directory>[:<tag>]`, and `oras` or `skopeo` to copy a registry's bundle there",
        .reference.escape_debug()
    )]
    NoTransport {
        /// What was given.
        reference: String,
    },
    /// A reference that does not parse.
    #[error("reference `{}` {rule}: use `oci:<directory>[:<tag>|@sha256:<digest>]`", .reference.escape_debug())]
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
    /// The output path is taken.
    #[error("`{}` is there already: choose another path, or overwrite it with `--force`", .path.display())]
    OutputPresent {
        /// The path.
        path: PathBuf,
    },
    /// A directory with something else in it.
    #[error("`{}` is not an OCI layout ({why}): correct the path, or use an empty directory", .path.display())]
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
    #[error("cannot {doing} `{}` ({source}): check that it is there and who may use it", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

impl OciError {
    /// Whether to correct the request or the thing it needs.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NoTransport { .. }
            | Self::Reference { .. }
            | Self::PushToDigest { .. }
            | Self::BundleTooLarge { .. }
            | Self::NoSuchTag { .. }
            | Self::WhichOne { .. }
            | Self::OutputPresent { .. } => ErrorClass::Usage,
            Self::NotALayout { .. } | Self::Refused { .. } | Self::Io { .. } => ErrorClass::Unavailable,
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
