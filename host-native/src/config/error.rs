//! Why settings are refused.

use std::{io, path::PathBuf};

use super::KEYS;
use crate::{ErrorClass, file};

/// Why the settings are refused. Nothing starts with half of them.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The config file cannot be read or written.
    #[error("config file `{}` ({source}): {}", path.display(), file::remedy(source, "correct the path, or who may read and write it"))]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory of trusted keys cannot be read.
    #[error("trust directory `{}` ({source}): correct `--trust-dir` or `attestation.trust_dir`, or who may read it", path.display())]
    TrustDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The config file is not what it must be.
    #[error("config file `{}`: {why}; correct the file", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A value is refused.
    #[error("{origin}: {why}")]
    Value {
        /// Where it was written.
        origin: String,
        /// Why.
        why: String,
    },
    /// An environment variable that nothing reads.
    #[error("environment variable `{name}` is not known: use one of {}", known_attestation_variables())]
    UnknownVariable {
        /// The variable.
        name: String,
    },
    /// An environment variable that nothing reads, almost named as one that is.
    #[error("environment variable `{name}` is not known, did you mean `{meant}`: set that, or unset it")]
    MisspeltVariable {
        /// The variable.
        name: String,
        /// The one that is read.
        meant: &'static str,
    },
    /// An environment variable that is not Unicode.
    #[error("environment variable `{name}` is not UTF-8: set it again, or unset it")]
    NotUnicode {
        /// The variable.
        name: String,
    },
    /// A name that is no setting's.
    #[error("`{name}` is not a setting{}: `autonomy config show` lists them", nearest(name))]
    UnknownKey {
        /// The name.
        name: String,
    },
    /// There is nowhere to keep state.
    #[error("no home directory: set `AUTONOMY_HOME`, or `HOME`")]
    NoHome,
}

impl ConfigError {
    /// Whose turn it is: a wrong name is the operator's, what the disk or its rights refuse is not.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::File { source, .. } | Self::TrustDir { source, .. } => ErrorClass::of(source),
            Self::Content { .. }
            | Self::Value { .. }
            | Self::UnknownVariable { .. }
            | Self::MisspeltVariable { .. }
            | Self::NotUnicode { .. }
            | Self::UnknownKey { .. }
            | Self::NoHome => ErrorClass::Usage,
        }
    }
}

fn known_attestation_variables() -> String {
    let names = KEYS.iter().map(|key| key.env).filter(|env| env.starts_with("AUTONOMY_ATTESTATION_"));
    names.map(|env| format!("`{env}`")).collect::<Vec<_>>().join(", ")
}

fn nearest(name: &str) -> String {
    let last = name.rsplit('.').next().unwrap_or(name);
    let close = KEYS.iter().find(|key| key.name.ends_with(last) || name.contains(key.name));
    close.map(|key| format!(", did you mean `{}`", key.name)).unwrap_or_default()
}
