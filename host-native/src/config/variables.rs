//! The environment.

use std::{collections::BTreeMap, env, ffi::OsString, path::PathBuf};

use super::{ConfigError, KEYS, Key};

/// The environment, taken once.
#[derive(Debug, Clone, Default)]
pub struct Variables(BTreeMap<String, Option<String>>);

impl Variables {
    /// The process's.
    pub fn of_process() -> Self {
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()));
        Self(env::vars_os().filter_map(text).collect())
    }

    /// The same, with one of them set.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.insert(name.to_owned(), Some(value.to_owned()));
        self
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, ConfigError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Some(value)) => Ok(Some(value.clone())),
            Some(None) => Err(ConfigError::NotUnicode { name: name.to_owned() }),
        }
    }

    /// Where something is; `what` says what may be there.
    pub(super) fn path(&self, name: &str, what: &str) -> Result<Option<PathBuf>, ConfigError> {
        match self.text(name)? {
            Some(path) if path.is_empty() => Err(ConfigError::Value {
                origin: format!("environment variable `{name}`"),
                why: format!("is empty: name a {what}, or unset it"),
            }),
            path => Ok(path.map(PathBuf::from)),
        }
    }

    /// Refuses names that are almost, or ought to be, those of settings. Not every name of ours: a cluster sets some for a
    /// service that is called `autonomy-…`.
    pub(super) fn refuse_unknown(&self) -> Result<(), ConfigError> {
        for name in self.0.keys().filter(|name| !KEYS.iter().any(|key| key.env == name.as_str())) {
            if let Some(key) = KEYS.iter().find(|key| is_meant(name, key)) {
                return Err(ConfigError::MisspeltVariable { name: name.clone(), meant: key.env });
            }
            if name.to_ascii_uppercase().starts_with("AUTONOMY_ATTESTATION_") {
                return Err(ConfigError::UnknownVariable { name: name.clone() });
            }
        }
        Ok(())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Variables {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), Some(value.to_owned()))).collect())
    }
}

/// Whether a name is one slip or two away from a variable, or is one of those that decide without its middle word.
fn is_meant(name: &str, key: &Key) -> bool {
    strsim::osa_distance(name, key.env) <= 2
        || key
            .env
            .strip_prefix("AUTONOMY_ATTESTATION_")
            .is_some_and(|leaf| name.strip_prefix("AUTONOMY_") == Some(leaf))
}
