//! `autonomy attestation preview` and `autonomy attestation replay`: questions about what the log holds.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use gate_core::Mode;
use host_native::{
    ErrorClass,
    audit::{self, AuditError, Difference, Finding, Preview, Replay},
};

use crate::{
    args::{SETTINGS, WalFlag},
    context::{Context, Flags},
    error::{CliError, Exit},
    output::{Cell, Format},
    progress, time,
};

#[derive(Debug, Args)]
pub(crate) struct PreviewArgs {
    /// Only calls from this time on: RFC 3339, or an age such as `15m`.
    #[arg(long, value_name = "TIME", value_parser = time::parse_since)]
    since: Option<u64>,
    /// The directory of a log; repeat it for the logs of several nodes (else `AUTONOMY_WAL_DIR`, else `wal.dir`).
    #[arg(long = "wal-dir", value_name = "DIR", help_heading = SETTINGS)]
    wal_dirs: Vec<PathBuf>,
    /// The mode to turn on.
    #[arg(long, default_value = Mode::Enforce.as_str(), value_parser = modes())]
    mode: Mode,
}

/// A mode to turn on.
pub(super) fn modes() -> impl TypedValueParser<Value = Mode> {
    let words = PossibleValuesParser::new([Mode::Advisory.as_str(), Mode::Enforce.as_str()]);
    words.map(|word| word.parse().unwrap_or(Mode::Enforce))
}

#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Only calls from this time on: RFC 3339, or an age such as `15m`.
    #[arg(long, value_name = "TIME", value_parser = time::parse_since)]
    since: Option<u64>,
    #[command(flatten)]
    wal: WalFlag,
}

impl PreviewArgs {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let Self { since, wal_dirs, mode } = self;
        let preview = |wal_dir: &Path| progress::reading(wal_dir, |log| audit::preview(log, mode, since));
        let mut seen = BTreeSet::new();
        for wal_dir in &wal_dirs {
            // What is not there is named by who reads it.
            let place = fs::canonicalize(wal_dir).unwrap_or_else(|_| wal_dir.clone());
            if !seen.insert(place) {
                let message = format!(
                    "log `{}` is named twice: its calls would be counted twice; name it once",
                    wal_dir.display()
                );
                return Err(CliError::usage(message));
            }
        }
        let preview = match wal_dirs.split_first() {
            None => preview(&context.config(&Flags::default())?.wal_dir())?,
            Some((first, others)) => others
                .iter()
                .try_fold(preview(first)?, |sum, wal_dir| Ok::<_, AuditError>(sum.and(preview(wal_dir)?)))?,
        };
        print_preview(context, &preview, since)?;
        Ok(if preview.safe { Exit::Success } else { Exit::Denied })
    }
}

fn print_preview(context: &mut Context<'_>, preview: &Preview, since: Option<u64>) -> Result<(), CliError> {
    let out = &mut context.out;
    if out.format() == Format::Json {
        return out.json(preview);
    }
    let Preview { mode, calls, failing, unjudged, safe, findings } = preview;
    out.fields([
        ("MODE", Cell::new(mode)),
        ("CALLS", Cell::new(calls)),
        ("FAILING", Cell::new(failing)),
        ("UNJUDGED", Cell::new(unjudged)),
        ("SAFE", if *safe { Cell::new("yes").good() } else { Cell::new("no").bad() }),
    ])?;
    if !findings.is_empty() {
        out.line("")?;
        let mut table = out.table(["REASON", "NODE_ID", "CALLS", "FIRST", "LAST", "LAST_AUDIT_ID"]);
        for Finding { reason, node_id, calls, first, last, last_audit_id } in findings {
            table.row([
                Cell::new(reason).bad(),
                Cell::or_none(node_id.as_ref()),
                Cell::new(calls),
                Cell::new(first),
                Cell::new(last),
                Cell::new(last_audit_id),
            ])?;
        }
        table.finish()?;
    }
    match findings.first() {
        _ if *calls == 0 => {
            let since = since.map(|since| format!(" since {}", time::rfc3339(since))).unwrap_or_default();
            out.note(format_args!(
                "no call that the policy allowed is in the log{since}: run the nodes for a while first"
            ))
        }
        Some(Finding { reason, .. }) => out.note(format_args!("first, `{reason}`: {}", reason.remedy())),
        None if *unjudged > 0 => out.note("the log no longer holds what some calls were decided on"),
        None => Ok(()),
    }
}

impl LogArgs {
    pub(crate) fn replay(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let config = context.config(&self.wal.add_to(Flags::default()))?;
        let replay = progress::reading(&config.wal_dir(), |log| audit::replay(log, self.since))?;
        print_replay(context, &replay)?;
        let Replay { calls, same, different, unjudged, .. } = replay;
        if same == calls {
            return Ok(Exit::Success);
        }
        let message = format!(
            "{different} of {calls} calls do not follow from their facts, and {unjudged} have none in the log: keep the log as it is and look at `autonomy wal verify`"
        );
        Err(CliError::Failed { class: ErrorClass::Damaged, message })
    }
}

fn print_replay(context: &mut Context<'_>, replay: &Replay) -> Result<(), CliError> {
    let out = &mut context.out;
    if out.format() == Format::Json {
        return out.json(replay);
    }
    let Replay { calls, same, different, unjudged, differences } = replay;
    out.fields([
        ("CALLS", Cell::new(calls)),
        ("SAME", Cell::new(same)),
        ("DIFFERENT", if *different == 0 { Cell::new(0) } else { Cell::new(different).bad() }),
        ("UNJUDGED", if *unjudged == 0 { Cell::new(0) } else { Cell::new(unjudged).warn() }),
    ])?;
    for Difference { seq, audit_id, logged, decided } in differences {
        out.line("")?;
        out.line(format_args!("frame {seq}, call {audit_id}"))?;
        logged.iter().try_for_each(|attrs| out.line(format_args!("  logged:  {attrs}")))?;
        decided.iter().try_for_each(|attrs| out.line(format_args!("  decided: {attrs}")))?;
    }
    Ok(())
}
