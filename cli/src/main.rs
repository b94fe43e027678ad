//! The `autonomy` command: arguments in, host-native called, tables or JSON out.

mod args;
mod attestation;
mod audit;
mod bundle;
mod completions;
mod config;
mod context;
mod demo;
mod error;
mod host;
mod key;
mod node;
mod orchestrator;
mod output;
mod progress;
mod rollout;
mod runtime;
mod service;
mod time;
mod usage;
mod wal;

use std::{env, ffi::OsString, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _, error::ErrorKind};
use host_native::ErrorClass;

use args::{Cli, Command};
use context::Context;
use error::{CliError, Exit};
use output::Output;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().collect();
    // Looked at before the parse, which may fail: its errors, too, come as they were asked for.
    let (format, color) = args::format_and_color(&arguments);
    let mut out = Output::new(format, color);
    let outcome = Cli::command().color(color.into()).try_get_matches_from(&arguments);
    let cli = match outcome.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return refused(&error, &arguments, &out),
    };
    output::log_to_stderr(format);
    service::outlive_large_files();
    let mut context = Context::new(cli.global, &mut out);
    let outcome = run(cli.command, &mut context);
    // The answer before the error that ends it.
    let flushed = out.flush();
    match outcome.and_then(|exit| flushed.map(|()| exit)) {
        Ok(exit) => exit.into(),
        Err(CliError::Closed) => ExitCode::SUCCESS,
        Err(CliError::Failed { class, message }) => {
            out.error(class, &message);
            Exit::from(class).into()
        }
    }
}

fn run(command: Command, context: &mut Context<'_>) -> Result<Exit, CliError> {
    match command {
        Command::Key(command) => command.run(context),
        Command::Bundle(command) => command.run(context),
        Command::Node(command) => command.run(context),
        Command::Rollout(command) => command.run(context),
        Command::Attestation(command) => command.run(context),
        Command::Runtime(command) => command.run(context),
        Command::Host(command) => command.run(context),
        Command::Orchestrator(command) => command.run(context),
        Command::Wal(command) => command.run(context),
        Command::Audit(command) => command.run(context),
        Command::Config(command) => command.run(context),
        Command::Demo(command) => command.run(context),
        Command::Completions(command) => command.run(context),
        Command::Man(command) => command.run(context),
    }
}

/// Help and version are asked for, and a group of commands alone shows what is in it. The rest is a mistake.
fn refused(error: &clap::Error, arguments: &[OsString], out: &Output) -> ExitCode {
    let is_help = !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if !is_help {
        out.error(ErrorClass::Usage, &usage::message(error, arguments));
    } else if let Err(CliError::Failed { class, message }) = error.print().map_err(CliError::output) {
        out.error(class, &message);
        return Exit::from(class).into();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}
