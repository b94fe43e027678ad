//! `autonomy config`

use clap::{
    Subcommand,
    builder::{PossibleValue, PossibleValuesParser},
};
use host_native::config::{Config, ConfigError, KEYS, Key, Origin};
use serde::Serialize;

use crate::{
    context::{Context, Flags},
    error::{CliError, Exit},
    output::{Cell, Format},
};

/// Read and write settings: flag beats environment beats config file beats default.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print one setting's value in force.
    #[command(after_help = "Examples:
  autonomy config get attestation.mode
  autonomy config get store.path --output json")]
    Get {
        /// The setting: `autonomy config show` lists them.
        #[arg(value_parser = keys(), hide_possible_values = true)]
        key: String,
    },
    /// Write one setting into the config file. Comments stay, and a relative path is meant from here; a value that is not of its form is not written.
    #[command(after_help = "Examples:
  autonomy config set identity.node_id robot-7
  autonomy config set attestation.mode advisory
  autonomy config set runtime.http_allow \\
    https://api.example.com,https://api.example.org")]
    Set {
        /// The setting: `autonomy config show` lists them.
        #[arg(value_parser = keys(), hide_possible_values = true)]
        key: String,
        /// Its value; lists are joined by commas, lists of paths as in `PATH`.
        #[arg(allow_negative_numbers = true)]
        value: String,
    },
    /// Take one setting out of the config file.
    #[command(after_help = "Examples:
  autonomy config unset attestation.mode")]
    Unset {
        /// The setting: `autonomy config show` lists them.
        #[arg(value_parser = keys(), hide_possible_values = true)]
        key: String,
    },
    /// List every setting with its value in force and where that comes from.
    #[command(after_help = "Examples:
  autonomy config show
  AUTONOMY_ATTESTATION_MODE=advisory autonomy config show --output json")]
    Show,
}

fn keys() -> PossibleValuesParser {
    PossibleValuesParser::new(KEYS.iter().map(|key| PossibleValue::new(key.name).help(key.help)))
}

#[derive(Debug, Serialize)]
struct Setting {
    key: &'static str,
    value: Option<String>,
    origin: Origin,
    environment: &'static str,
    flag: &'static str,
    help: &'static str,
}

impl Setting {
    /// A setting as it stands, without a value where that cannot be told.
    fn of(config: &Config, &Key { name, env, flag, help, .. }: &Key, value: Option<String>) -> Self {
        let value = value.filter(|value| !value.is_empty());
        Self { key: name, value, origin: config.origin(name), environment: env, flag, help }
    }

    /// Also where its value cannot be told: what is in the way may be what is to be set right.
    fn read(config: &Config, key: &Key) -> (Self, Option<ConfigError>) {
        let (value, error) = match config.value(key) {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(error)),
        };
        (Self::of(config, key, value), error)
    }
}

impl Command {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let config = context.config(&Flags::default())?;
        let file = config.file();
        let out = &mut context.out;
        match self {
            Self::Show => {
                let (settings, errors): (Vec<_>, Vec<_>) = KEYS.iter().map(|key| Setting::read(&config, key)).unzip();
                if out.format() == Format::Json {
                    out.json(&serde_json::json!({ "config_file": file, "settings": settings }))?;
                } else {
                    let mut table = out.table(["KEY", "VALUE", "ORIGIN"]);
                    for Setting { key, value, origin, .. } in &settings {
                        table.row([Cell::new(key), Cell::or_none(value.as_ref()), Cell::new(origin)])?;
                    }
                    table.finish()?;
                    out.note(format_args!("config file: {}", file.display()))?;
                }
                for error in errors.into_iter().flatten() {
                    out.warning(error)?;
                }
            }
            Self::Get { key } => {
                let key = Key::named(&key)?;
                let setting = Setting::of(&config, key, Some(config.value(key)?));
                match out.format() {
                    Format::Json => out.json(&setting)?,
                    Format::Text => out.value(&Cell::or_none(setting.value.as_ref()))?,
                }
            }
            Self::Set { key, value } => {
                let key = Key::named(&key)?;
                let value = config.set(key, &value)?;
                written(context, key, Some(&value), file.display())?;
                for path in key.paths(&value).into_iter().filter(|path| !path.exists()) {
                    context.out.note(format_args!("`{}` is not there yet", path.display()))?;
                }
            }
            Self::Unset { key } => {
                let key = Key::named(&key)?;
                config.unset(key)?;
                written(context, key, None, file.display())?;
            }
        }
        Ok(Exit::Success)
    }
}

/// Says what the file now holds, and what is in force.
fn written(
    context: &mut Context<'_>,
    key: &Key,
    value: Option<&str>,
    file: impl std::fmt::Display,
) -> Result<(), CliError> {
    let config = context.config(&Flags::default())?;
    let (setting, error) = Setting::read(&config, key);
    let out = &mut context.out;
    match (out.format(), value) {
        (Format::Json, _) => out.json(&setting)?,
        (Format::Text, Some(value)) => out.line(format_args!("{} = {value} in {file}", key.name))?,
        (Format::Text, None) => out.line(format_args!("{} is not set in {file}", key.name))?,
    }
    if let Some(error) = error {
        out.warning(error)?;
    }
    match setting.origin {
        Origin::Environment => out.warning(format_args!("`{}` is set and beats the config file", key.env)),
        Origin::Flag | Origin::File | Origin::Default => out.note("a runtime reads its settings when it starts"),
    }
}
