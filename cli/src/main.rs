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
mod key;
mod node;
mod output;
mod rollout;
mod runtime;
mod time;
mod wal;

use std::{env, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _};

use args::{Cli, Command};
use context::Context;
use error::{CliError, Exit};
use output::{Format, Output};

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().collect();
    // Looked at before the parse, which may fail: its errors, too, come as they were asked for.
    let (format, color) = args::format_and_color(&arguments);
    let mut out = Output::new(format, color);
    let outcome = Cli::command().color(color.into()).try_get_matches_from(arguments);
    let cli = match outcome.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return refused(&error, &out),
    };
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
        Command::Wal(command) => command.run(context),
        Command::Audit(command) => command.run(context),
        Command::Config(command) => command.run(context),
        Command::Demo(command) => command.run(context),
        Command::Completions(command) => command.run(context),
        Command::Man(command) => command.run(context),
    }
}

/// Help and version are asked for, the rest is a mistake on the command line.
fn refused(error: &clap::Error, out: &Output) -> ExitCode {
    if error.use_stderr() && out.format() == Format::Json {
        let text = error.render().to_string();
        let cause = text.lines().take_while(|line| !["Usage:", "For more"].iter().any(|end| line.starts_with(end)));
        let parts: Vec<_> = cause.map(str::trim).filter(|line| !line.is_empty()).collect();
        let message = parts.join("; ");
        out.error(host_native::ErrorClass::Usage, message.trim_start_matches("error: "));
    } else {
        // A reader that has gone away needs no help.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}
