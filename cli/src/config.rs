//! `autonomy config`

use std::path::Path;

use clap::{
    Subcommand,
    builder::{PossibleValue, PossibleValuesParser},
};
use host_native::config::{KEYS, Key, Origin};
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
    fn new((key, value, origin): (Key, String, Origin)) -> Self {
        let Key { name, env, flag, help, .. } = key;
        let value = Some(value).filter(|value| !value.is_empty());
        Self { key: name, value, origin, environment: env, flag, help }
    }
}

impl Command {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let config = context.config(&Flags::default())?;
        let settings: Vec<_> = config.show()?.into_iter().map(Setting::new).collect();
        let file = config.file();
        let named = |name: &str| settings.iter().find(|setting| setting.key == name);
        let out = &mut context.out;
        match self {
            Self::Show if out.format() == Format::Json => {
                out.json(&serde_json::json!({ "config_file": file, "settings": settings }))?;
            }
            Self::Show => {
                let mut table = out.table(["KEY", "VALUE", "ORIGIN"]);
                for Setting { key, value, origin, .. } in &settings {
                    table.row([Cell::new(key), Cell::or_none(value.as_ref()), Cell::new(origin)])?;
                }
                table.finish()?;
                out.note(format_args!("config file: {}", file.display()))?;
            }
            Self::Get { key } => match (out.format(), named(&key)) {
                (Format::Json, setting) => out.json(&setting)?,
                (Format::Text, setting) => {
                    out.value(&Cell::or_none(setting.and_then(|setting| setting.value.as_ref())))?;
                }
            },
            Self::Set { key, value } => {
                let value = config.set(&key, &value)?;
                written(context, &key, Some(&value), file.display())?;
                let is_path = KEYS.iter().any(|known| known.name == key && known.is_path());
                if is_path && !Path::new(&value).exists() {
                    context.out.note(format_args!("`{value}` is not there yet"))?;
                }
            }
            Self::Unset { key } => {
                config.unset(&key)?;
                written(context, &key, None, file.display())?;
            }
        }
        Ok(Exit::Success)
    }
}

/// Says what the file now holds, and what is in force.
fn written(
    context: &mut Context<'_>,
    key: &str,
    value: Option<&str>,
    file: impl std::fmt::Display,
) -> Result<(), CliError> {
    let config = context.config(&Flags::default())?;
    let found = config.show()?.into_iter().map(Setting::new).find(|setting| setting.key == key);
    let out = &mut context.out;
    if out.format() == Format::Json {
        return out.json(&found);
    }
    match value {
        Some(value) => out.line(format_args!("{key} = {value} in {file}"))?,
        None => out.line(format_args!("{key} is not set in {file}"))?,
    }
    match found {
        Some(Setting { origin: Origin::Environment, environment, .. }) => {
            out.warning(format_args!("`{environment}` is set and beats the config file"))
        }
        Some(_) | None => out.note("a runtime reads its settings when it starts"),
    }
}
