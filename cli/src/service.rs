//! What every long-running command does.

use std::{future::Future, io, sync::Arc};

use host_native::{
    ErrorClass,
    config::Config,
    serve::Limits,
    wal::{Keeper, Opened, Prune, Signing, Wal},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    context::Context,
    error::{CliError, Exit},
    output::Format,
};

/// Runs a service on threads of its own, with as many open files as the system lets it have: each connection is one.
pub(crate) fn block_on(service: impl Future<Output = Result<Exit, CliError>>) -> Result<Exit, CliError> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // What is refused leaves the limit as it was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(no_threads)?.block_on(service)
}

/// Leaves files that may be open to what is no connection: a log that finds none when a segment is full cannot go on. `others` is how
/// many those are at most; `None` where a connection may bring more of them, as the log, the store and what a tool connects to. Two
/// thirds are enough for either.
pub(crate) fn within_open_files(
    context: &mut Context<'_>,
    mut limits: Limits,
    others: Option<usize>,
) -> Result<Limits, CliError> {
    let open = getrlimit(Resource::Nofile).current.and_then(|open| usize::try_from(open).ok());
    let most = open.map(|open| (open / 3).max(others.map_or(0, |others| open.saturating_sub(others))));
    if let (Some(open), Some(most)) = (open, most.filter(|most| *most < limits.max_connections)) {
        limits.max_connections = most;
        context.out.warning(format_args!(
            "at most {most} connections are served, as {open} files may be open: raise `ulimit -n` for more"
        ))?;
    }
    Ok(limits)
}

pub(crate) fn no_threads(error: io::Error) -> CliError {
    let message = format!("cannot start the service's threads ({error}): free some memory or processes");
    CliError::Failed { class: ErrorClass::Unavailable, message }
}

/// From here on a file that reaches the limit of `ulimit -f` is as a full disk: an error of the write, not the end of the process.
pub(crate) fn outlive_large_files() {
    use tokio::signal::unix::{SignalKind, signal};
    // Where the system has no more signals to give, that is said by whoever needs them.
    if let Ok(executor) = tokio::runtime::Builder::new_current_thread().enable_io().build() {
        let _entered = executor.enter();
        drop(signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())));
    }
}

/// Resolves when the process is asked to stop.
pub(crate) fn interrupted() -> Result<impl Future<Output = ()>, CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let asked = |kind| signal(kind).map_err(no_signals);
    let (mut terminate, mut interrupt) = (asked(SignalKind::terminate())?, asked(SignalKind::interrupt())?);
    // The terminal that it was started from is gone.
    let mut hang_up = asked(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => {}
        }
    })
}

fn no_signals(error: io::Error) -> CliError {
    let message = format!("cannot listen for signals ({error}): allow this process more of them");
    CliError::Failed { class: ErrorClass::Unavailable, message }
}

/// What became of the log when it was opened.
pub(crate) fn how_opened(opened: &Opened) -> String {
    match opened {
        Opened::Initialized => "begun".to_owned(),
        Opened::Clean { last_seq } => format!("goes on after frame {last_seq}"),
        Opened::Repaired { last_seq, bytes, tail_file, .. } => {
            format!(
                "goes on after frame {last_seq}; an unfinished write of {bytes} bytes is set aside as `{tail_file}`"
            )
        }
    }
}

/// Prunes the log and signs what it holds, until it is dropped.
pub(crate) fn keep(
    wal: Arc<Wal>,
    config: &Config,
    signing: Option<Signing>,
    by: &'static str,
) -> Result<Keeper, CliError> {
    Keeper::start(wal, config.retention(), signing, by).map_err(no_threads)
}

/// A bound that deletes nothing is to be seen at the start, not when the disk is full.
pub(crate) fn warn_of_retention(context: &mut Context<'_>, config: &Config) -> Result<(), CliError> {
    let retention = config.retention();
    if !retention.is_bounded() || retention.prune == Prune::Any || config.drain().to.is_some() {
        return Ok(());
    }
    context.out.warning(
        "the log is bounded, and nothing of it is deleted before a drain has sent it: set `drain.to`, run \
         `autonomy wal drain --follow`, or say `--prune any`",
    )
}

/// Says that a service ended in order.
pub(crate) fn stopped(context: &mut Context<'_>) -> Result<Exit, CliError> {
    match context.out.format() {
        Format::Text => context.out.line("stopped: calls in flight were answered, the log is closed")?,
        Format::Json => context.out.json(&serde_json::json!({ "event": "stopped" }))?,
    }
    Ok(Exit::Success)
}
