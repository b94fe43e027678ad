//! Where things are, where nobody says otherwise.

use std::path::PathBuf;

use super::{ConfigError, Variables};

/// Where this machine keeps configuration and state.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// The config file.
    pub(super) config_file: PathBuf,
    /// Keys and enrollments.
    pub(super) data: PathBuf,
    /// The log.
    pub(super) state: PathBuf,
    /// What can be made again.
    pub(super) cache: PathBuf,
}

impl Places {
    /// `AUTONOMY_HOME`, else the XDG base directories (version 0.8).
    pub(super) fn from_environment(variables: &Variables) -> Result<Self, ConfigError> {
        if let Some(home) = variables.path("AUTONOMY_HOME", "directory")? {
            return Ok(Self {
                config_file: home.join("config.toml"),
                data: home.clone(),
                state: home.clone(),
                cache: home.join("cache"),
            });
        }
        let user = variables.text("HOME")?.filter(|home| !home.is_empty()).map(PathBuf::from);
        let base = |variable: &str, below_home: &str| -> Result<PathBuf, ConfigError> {
            // The specification: a relative path is to be ignored.
            match variables.text(variable)?.map(PathBuf::from).filter(|path| path.is_absolute()) {
                Some(base) => Ok(base.join("autonomy")),
                None => user.as_ref().map(|user| user.join(below_home).join("autonomy")).ok_or(ConfigError::NoHome),
            }
        };
        Ok(Self {
            config_file: base("XDG_CONFIG_HOME", ".config")?.join("config.toml"),
            data: base("XDG_DATA_HOME", ".local/share")?,
            state: base("XDG_STATE_HOME", ".local/state")?,
            cache: base("XDG_CACHE_HOME", ".cache")?,
        })
    }
}
