//! `autonomy completions` and `autonomy man`

use std::{fs, path::PathBuf};

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use host_native::ErrorClass;

use crate::{
    args::Cli,
    context::Context,
    error::{CliError, Exit},
    output::Format,
};

/// Print a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  autonomy completions bash > /etc/bash_completion.d/autonomy
  autonomy completions zsh > ~/.zfunc/_autonomy
  autonomy completions fish > ~/.config/fish/completions/autonomy.fish")]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "autonomy", &mut script);
        context.out.raw(&script)?;
        Ok(Exit::Success)
    }
}

/// Write the manual pages.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  autonomy man --out /usr/local/share/man/man1
  autonomy man --out man")]
pub(crate) struct Man {
    /// Where the pages go; made if missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Man {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let written = fs::create_dir_all(&self.out).and_then(|()| clap_mangen::generate_to(Cli::command(), &self.out));
        written.map_err(|error| CliError::Failed {
            class: ErrorClass::of(&error),
            message: format!(
                "cannot write manual pages to `{}` ({error}): choose another `--out`, or free space there",
                self.out.display()
            ),
        })?;
        match context.out.format() {
            Format::Json => context.out.json(&serde_json::json!({ "directory": self.out }))?,
            Format::Text => context.out.line(format_args!("wrote the manual pages to {}", self.out.display()))?,
        }
        Ok(Exit::Success)
    }
}
