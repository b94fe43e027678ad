//! `autonomy wal`

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use clap::{Args, Subcommand};
use gate_core::{AuditId, TrustedKeys, frame::Kind};
use host_native::{
    ErrorClass,
    config::Config,
    drain::{self, Progress, Until},
    key::{self, PrivateKey},
    wal::{
        self, Checked, Checkpoint, Diagnosis, Doctored, Opening, Past, Plan, Pruned, Reader, Record, Report, Undrained,
        Wal, WalError,
    },
};
use serde::Serialize;

use crate::{
    args::{RetentionFlags, WalFlag, kinds},
    context::{self, Context, Flags},
    error::{CliError, Exit},
    output::{Cell, Format},
    progress, service, time, usage,
};

/// Read the log, check it, send it to a collector, and mend it.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the frames of the log: one JSON object a line, byte for byte as in the log, with either `--output`.
    ///
    /// On a terminal, characters that it would obey are shown as `\uXXXX`, which is the same JSON.
    #[command(after_help = "Examples:
  autonomy wal inspect
  autonomy wal inspect --kind autonomy.decision --since 15m
  autonomy wal inspect --kind autonomy.decision |
    jq 'select(.attrs.reason | startswith(\"attestation:\"))'
  autonomy wal inspect --follow")]
    Inspect(Inspect),
    /// Sign what the log holds now, as one line to be kept elsewhere.
    ///
    /// Whoever has it and the public key can show later that nothing up to its frame was changed or cut.
    #[command(after_help = "Examples:
  autonomy key generate --out robot-7.pem
  autonomy wal checkpoint --key robot-7.pem >> checkpoints.jsonl
  autonomy wal verify --checkpoints checkpoints.jsonl \\
    --checkpoint-key robot-7.pem.pub")]
    Checkpoint {
        /// The private key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        #[command(flatten)]
        wal: WalFlag,
    },
    /// Check every number, checksum, batch and link of the log. Changes nothing.
    #[command(after_help = "Examples:
  autonomy wal verify
  autonomy wal verify --wal-dir wal --output json
  autonomy wal verify --checkpoints checkpoints.jsonl \\
    --checkpoint-key robot-7.pem.pub")]
    Verify {
        /// Signed checkpoints, one a line: the log must hold what they say.
        ///
        /// Give a copy that was kept elsewhere: who can change the log can cut `telemetry.checkpoints` beside it, too.
        #[arg(long, value_name = "FILE", requires = "checkpoint_key")]
        checkpoints: Option<PathBuf>,
        /// The public key that signed them.
        #[arg(long, value_name = "FILE", requires = "checkpoints")]
        checkpoint_key: Option<PathBuf>,
        #[command(flatten)]
        wal: WalFlag,
    },
    /// Send the log to an OpenTelemetry collector: OTLP over HTTP, at least once, from where the last drain stopped.
    ///
    /// Beside a runtime that writes the log, too; one drain at a time. Each record has the attribute `autonomy.id`, by
    /// which a record that was sent twice is known. A record that the collector refuses while it takes others is noted
    /// in `telemetry.parked` and passed over.
    #[command(after_help = "Examples:
  autonomy wal drain --to http://127.0.0.1:4318
  autonomy wal drain --to https://otlp.example.com/v1/logs \\
    --token-file otlp.token --follow
  autonomy wal drain --to http://127.0.0.1:4318 --output json")]
    Drain(Drain),
    /// Delete the sealed segments that are past `--retain-bytes` or `--retain-days`, oldest first.
    ///
    /// Only what was drained, unless `--prune any` says otherwise. A frame in the log says first, durably, what is deleted,
    /// so that `wal verify` still shows that nothing else is missing. A runtime that writes the log does this by itself.
    #[command(after_help = "Examples:
  autonomy wal prune --retain-days 90 --dry-run
  autonomy wal prune --retain-days 90
  autonomy wal prune --retain-bytes 10000000000 --prune any")]
    Prune {
        /// Only say what would be deleted.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        retention: RetentionFlags,
        #[command(flatten)]
        wal: WalFlag,
    },
    /// Say what is wrong with a log that does not open and, only if told to, accept the loss.
    ///
    /// With `--accept-loss` the files are copied aside, the longest part that holds is kept, and a frame in the log
    /// says what was lost. Restoring the log from a copy is always better.
    #[command(after_help = "Examples:
  autonomy wal doctor
  autonomy wal doctor --accept-loss")]
    Doctor {
        /// Drop what does not hold.
        #[arg(long)]
        accept_loss: bool,
        #[command(flatten)]
        wal: WalFlag,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Only frames of this kind; repeat it for several.
    #[arg(long = "kind", value_name = "KIND", value_parser = kinds())]
    kinds: Vec<Kind>,
    /// Only frames of this call.
    #[arg(long, value_name = "ID")]
    audit_id: Option<AuditId>,
    /// Only frames from this time on: RFC 3339, or an age such as `15m`.
    #[arg(long, value_name = "TIME", value_parser = time::parse_since)]
    since: Option<u64>,
    /// Go on as frames are written, until interrupted.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    wal: WalFlag,
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// The collector; a URL without a path gets `/v1/logs` (else `AUTONOMY_DRAIN_TO`, else `drain.to`).
    #[arg(long, value_name = "URL", alias = "drain-to")]
    to: Option<String>,
    /// The file of the bearer token that the collector lets in (else `AUTONOMY_DRAIN_TOKEN_FILE`).
    #[arg(long, value_name = "FILE")]
    token_file: Option<String>,
    /// PEM file of the only roots to trust for the collector (else `AUTONOMY_DRAIN_CA`).
    #[arg(long, value_name = "FILE")]
    ca_file: Option<String>,
    /// Stop once everything durable is acknowledged, or nothing was for `--patience-ms`; so it is without `--follow`.
    #[arg(long, conflicts_with = "follow")]
    once: bool,
    /// Go on as frames are written, and wait for a collector that is busy or away, until interrupted.
    #[arg(long)]
    follow: bool,
    /// How long a collector may be busy, away or silent; it is given a second for each answer at least.
    #[arg(long, value_name = "MS", default_value_t = 60_000, value_parser = usage::whole_number(0), conflicts_with = "follow")]
    patience_ms: u32,
    #[command(flatten)]
    wal: WalFlag,
}

/// How often a followed log is asked for more.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

const FRAMES: &str = "{bar:40} {pos}/{len} frames, {eta} left";

impl Inspect {
    fn wants(&self, record: &Record) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&record.kind))
            && self.audit_id.as_ref().is_none_or(|id| *id == record.audit_id)
            && self.since.is_none_or(|since_ms| time::parse_timestamp(&record.ts).is_none_or(|ms| ms >= since_ms))
    }

    fn run(&self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let config = context.config(&self.wal.add_to(Flags::default()))?;
        let mut reader = Reader::open(config.wal_dir())?;
        loop {
            while let Some(record) = reader.next_record()? {
                if self.wants(&record) {
                    context.out.frame(&record.payload)?;
                }
            }
            if !self.follow {
                return Ok(Exit::Success);
            }
            context.out.flush()?;
            thread::sleep(FOLLOW_EVERY);
        }
    }
}

impl Drain {
    fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let flags = Flags::default()
            .set_by("--to", "drain.to", self.to.as_ref())
            .set_by("--token-file", "drain.token_file", self.token_file.as_ref())
            .set_by("--ca-file", "drain.ca", self.ca_file.as_ref());
        let config = context.config(&self.wal.add_to(flags))?;
        let exporter = context::exporter(&config)?.ok_or_else(|| {
            CliError::usage("no collector: give `--to URL`, or set `AUTONOMY_DRAIN_TO` or `drain.to`")
        })?;
        let until = match (self.follow, self.once) {
            (true, false) => Until::Dropped,
            (false, _) | (true, true) => Until::CaughtUp { patience: Duration::from_millis(self.patience_ms.into()) },
        };
        let wal_dir = config.wal_dir();
        let undrained = progress::reading(&wal_dir, Undrained::open)?;
        service::block_on(drain(context, &wal_dir, drain::Drain::new(undrained, exporter), until))
    }
}

async fn drain(
    context: &mut Context<'_>,
    wal_dir: &Path,
    mut drain: drain::Drain,
    until: Until,
) -> Result<Exit, CliError> {
    let interrupted = service::interrupted()?;
    let bar = progress::bar(0, FRAMES);
    let told = |progress: Progress| {
        bar.set_length(progress.seq + progress.lag);
        bar.set_position(progress.seq);
    };
    let outcome = tokio::select! {
        outcome = drain.run(until, told) => outcome.map(drop),
        () = interrupted => Ok(()),
    };
    bar.finish_and_clear();
    print_progress(context, wal_dir, drain.progress())?;
    outcome?;
    Ok(Exit::Success)
}

#[derive(Debug, Serialize)]
struct Drained<'a> {
    wal_dir: &'a Path,
    sent: u64,
    parked: u64,
    acknowledged: u64,
    lag: u64,
}

fn print_progress(context: &mut Context<'_>, wal_dir: &Path, progress: Progress) -> Result<(), CliError> {
    let Progress { sent, parked, seq: acknowledged, lag, .. } = progress;
    let out = &mut context.out;
    if out.format() == Format::Json {
        return out.json(&Drained { wal_dir, sent, parked, acknowledged, lag });
    }
    let parked_cell = Cell::new(parked);
    out.fields([
        ("LOG", Cell::new(wal_dir.display())),
        ("SENT", Cell::new(sent)),
        ("PARKED", if parked > 0 { parked_cell.warn() } else { parked_cell }),
        ("ACKNOWLEDGED", Cell::new(acknowledged)),
        ("LAG", Cell::new(lag)),
    ])?;
    match parked {
        0 => Ok(()),
        _ => out.warning("the collector refused records: which and why is in `telemetry.parked`, beside the log"),
    }
}

#[derive(Debug, Serialize)]
struct Verified<'a> {
    wal_dir: &'a Path,
    holds: bool,
    /// The first frame that is kept; what came before was pruned.
    first: u64,
    /// Why it was.
    pruned: Option<Past>,
    sealed_segments: usize,
    frames: u64,
    batches: u64,
    bytes: u64,
    committed: u64,
    head: &'a str,
    unfinished_write: bool,
    fault: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoints: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoints_passed_over: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Diagnosed<'a> {
    wal_dir: &'a Path,
    opening: &'static str,
    row: &'static str,
    why: &'static str,
    last_good: u64,
    good_bytes: u64,
    committed: u64,
    would_lose: u64,
    safe_seq: Option<u64>,
    bytes: Option<u64>,
    fault: Option<String>,
    doctored: Option<Treatment>,
}

#[derive(Debug, Serialize)]
struct Treatment {
    kept: u64,
    lost: u64,
    dropped_bytes: u64,
    copies: Vec<String>,
}

impl From<Doctored> for Treatment {
    fn from(doctored: Doctored) -> Self {
        let Doctored { kept, lost, dropped_bytes, copies, .. } = doctored;
        Self { kept, lost, dropped_bytes, copies }
    }
}

impl Command {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        match self {
            Self::Inspect(inspect) => inspect.run(context),
            Self::Drain(drain) => drain.run(context),
            Self::Verify { checkpoints, checkpoint_key, wal } => {
                let dir = context.config(&wal.add_to(Flags::default()))?.wal_dir();
                let signed = match (checkpoints, checkpoint_key) {
                    // What cannot be read is said before a long log is.
                    (Some(path), Some(key)) => Some(Signed::read(path, key::read_trusted(&[key], 1)?)?),
                    (None, _) | (_, None) => None,
                };
                let report = progress::reading(&dir, wal::verify)?;
                // A log that does not hold together is the first thing to say.
                let held = match signed.filter(|_| report.holds()) {
                    Some(signed) => Some(signed.check(&dir)?),
                    None => None,
                };
                print_report(context, &dir, report, held)
            }
            Self::Checkpoint { key, wal } => {
                let key = PrivateKey::read(&key)?;
                let dir = context.config(&wal.add_to(Flags::default()))?.wal_dir();
                let envelope = progress::reading(&dir, Checkpoint::of)?.sign(&key);
                context.out.raw(&envelope)?;
                context.out.raw(b"\n")?;
                Ok(Exit::Success)
            }
            Self::Prune { dry_run, retention, wal } => {
                let config = context.config(&wal.add_to(retention.add_to(Flags::default())))?;
                prune(context, &config, dry_run)
            }
            Self::Doctor { accept_loss, wal } => {
                let dir = context.config(&wal.add_to(Flags::default()))?.wal_dir();
                doctor(context, &dir, accept_loss)
            }
        }
    }
}

/// How often a log that is pruned meanwhile is asked for its checkpoints.
const CHECKS: u32 = 5;

/// Signed checkpoints, and where they were read.
struct Signed {
    path: PathBuf,
    keys: TrustedKeys,
    checkpoints: Vec<Checkpoint>,
}

impl Signed {
    fn read(path: PathBuf, keys: TrustedKeys) -> Result<Self, CliError> {
        let checkpoints = Checkpoint::read_all(&path, &keys)?;
        Ok(Self { path, keys, checkpoints })
    }

    /// Asks a log for them. One that is pruned meanwhile outgrows those that were read: then both are read again, and what is wrong
    /// a second time was not for that.
    fn check(mut self, dir: &Path) -> Result<Checked, CliError> {
        let mut wrong = None;
        for _ in 0..CHECKS {
            let error = match progress::reading(dir, |log| Checkpoint::check(&self.checkpoints, log)) {
                Ok(checked) => return Ok(checked),
                Err(error) => error,
            };
            let said = Some(error.to_string());
            let newer = Checkpoint::read_all(&self.path, &self.keys)?;
            if wrong == said || newer.len() <= self.checkpoints.len() {
                return Err(error.into());
            }
            (wrong, self.checkpoints) = (said, newer);
        }
        Err(CliError::Failed {
            class: ErrorClass::Unavailable,
            message: format!("log at `{}` was pruned each time that it was read: read it again", dir.display()),
        })
    }
}

fn print_report(
    context: &mut Context<'_>,
    dir: &Path,
    report: Report,
    checked: Option<Checked>,
) -> Result<Exit, CliError> {
    let holds = report.holds();
    let Report { first, pruned, sealed, frames, batches, bytes, head, committed, fault, unfinished, error, .. } =
        report;
    let fault = fault.map(|fault| fault.to_string());
    let out = &mut context.out;
    match out.format() {
        Format::Json => {
            let unfinished_write = unfinished;
            out.json(&Verified {
                wal_dir: dir,
                holds,
                first,
                pruned,
                sealed_segments: sealed,
                frames,
                batches,
                bytes,
                committed,
                head: &head,
                unfinished_write,
                fault,
                checkpoints: checked.map(|checked| checked.held),
                checkpoints_passed_over: checked.map(|checked| checked.passed_over),
            })?;
        }
        Format::Text => {
            let verdict = match &error {
                None => Cell::new("every frame holds").good(),
                Some(WalError::Stray { .. }) => Cell::new("every frame holds, and a file is not of it").bad(),
                Some(_) => Cell::new("damaged").bad(),
            };
            out.fields([
                ("LOG", Cell::new(dir.display())),
                ("VERDICT", verdict),
                ("FRAMES", Cell::new(frames)),
                ("BATCHES", Cell::new(batches)),
                ("BYTES", Cell::new(bytes)),
                ("COMMITTED", Cell::new(committed)),
                ("HEAD", Cell::new(head)),
                ("FAULT", Cell::or_none(fault)),
            ])?;
            if holds && first > 1 {
                let why = match pruned {
                    Some(Past::Gone) => "were lost, and the doctor was told to accept it",
                    Some(Past::RetainBytes | Past::RetainDays) | None => "were pruned, as it says itself",
                };
                out.line(format_args!("it begins with frame {first}: those before {why}"))?;
            }
            if let Some(Checked { held, passed_over, .. }) = checked {
                let says = if held == 1 { "checkpoint says" } else { "checkpoints say" };
                out.line(format_args!("it holds what {held} signed {says}"))?;
                if passed_over > 0 {
                    out.line(format_args!("{passed_over} are of frames that were pruned, and passed over"))?;
                }
            }
            if unfinished {
                out.note("the end is an unfinished write: nothing is lost, and the next start sets it aside")?;
            }
        }
    }
    error.map_or(Ok(Exit::Success), |error| Err(error.into()))
}

#[derive(Debug, Serialize)]
struct Kept<'a> {
    wal_dir: &'a Path,
    dry_run: bool,
    pruned: &'a [Pruned],
    undrained_segments: usize,
}

fn prune(context: &mut Context<'_>, config: &Config, dry_run: bool) -> Result<Exit, CliError> {
    let (dir, retention) = (config.wal_dir(), config.retention());
    if !retention.is_bounded() {
        return Err(CliError::usage("nothing bounds the log: give `--retain-bytes` or `--retain-days`, or set them"));
    }
    let plan = match dry_run {
        true => progress::reading(&dir, |log| wal::plan(log, &retention))?,
        false => {
            // A log that is not there is not begun.
            drop(Reader::open(&dir)?);
            let (wal, _) = Wal::open(&dir, config.wal_options())?;
            let plan = wal.prune(&retention, "operator")?;
            wal.close()?;
            plan
        }
    };
    print_plan(context, &dir, &plan, dry_run)
}

fn print_plan(context: &mut Context<'_>, dir: &Path, plan: &Plan, dry_run: bool) -> Result<Exit, CliError> {
    let out = &mut context.out;
    let Plan { pruned, undrained, .. } = plan;
    if out.format() == Format::Json {
        out.json(&Kept { wal_dir: dir, dry_run, pruned, undrained_segments: *undrained })?;
        return Ok(Exit::Success);
    }
    let (verb, bytes) =
        (if dry_run { "would delete" } else { "deleted" }, pruned.iter().map(|one| one.bytes).sum::<u64>());
    match (pruned.first(), pruned.last()) {
        (Some(first), Some(last)) => {
            let (segments, first, last) = (pruned.len(), first.first, last.last);
            out.line(format_args!("{verb} {segments} segments, {bytes} bytes: frames {first} to {last}"))?;
        }
        _ => out.line(format_args!("{verb} nothing"))?,
    }
    if *undrained > 0 {
        out.note(format_args!("{undrained} segments are past a bound and kept: they were not drained"))?;
    }
    Ok(Exit::Success)
}

fn doctor(context: &mut Context<'_>, dir: &Path, accept_loss: bool) -> Result<Exit, CliError> {
    let diagnosis = progress::reading(dir, wal::diagnose)?;
    let needed = diagnosis.opening == Opening::Fail;
    // Without a word from the operator nothing is changed, and what would be lost is the error.
    let doctored = match needed && accept_loss {
        true => Some(progress::reading(dir, wal::doctor)?.into()),
        false => None,
    };
    print_diagnosis(context, dir, &diagnosis, doctored)?;
    if let Some(stray @ WalError::Stray { .. }) = diagnosis.error {
        return Err(stray.into());
    }
    if needed && !accept_loss {
        let message =
            format!("{}: restore the log from a copy, or accept the loss with `--accept-loss`", diagnosis.why);
        return Err(CliError::Failed { class: ErrorClass::Damaged, message });
    }
    Ok(Exit::Success)
}

fn print_diagnosis(
    context: &mut Context<'_>,
    dir: &Path,
    diagnosis: &Diagnosis,
    doctored: Option<Treatment>,
) -> Result<(), CliError> {
    let Diagnosis { opening, row, why, last_good, good_bytes, committed, would_lose, safe_seq, bytes, fault, .. } =
        diagnosis;
    let needed = *opening == Opening::Fail;
    let opening = match opening {
        Opening::Open => "open",
        Opening::Repair => "repair",
        Opening::Fail => "fail",
    };
    let (last_good, good_bytes, committed, would_lose, fault) =
        (*last_good, *good_bytes, *committed, *would_lose, fault.as_ref().map(ToString::to_string));
    let out = &mut context.out;
    if out.format() == Format::Json {
        let (safe_seq, bytes) = (*safe_seq, *bytes);
        return out.json(&Diagnosed {
            wal_dir: dir,
            opening,
            row,
            why,
            last_good,
            good_bytes,
            committed,
            would_lose,
            safe_seq,
            bytes,
            fault,
            doctored,
        });
    }
    let outcome = Cell::new(opening);
    out.fields([
        ("LOG", Cell::new(dir.display())),
        ("OPENING", if needed { outcome.bad() } else { outcome.good() }),
        ("ROW", Cell::new(row)),
        ("WHY", Cell::new(why)),
        ("LAST_GOOD", Cell::new(last_good)),
        ("COMMITTED", Cell::new(committed)),
        ("WOULD_LOSE", Cell::new(counted(would_lose, "frame"))),
        ("SAFE_SEQ", Cell::or_none(*safe_seq)),
        ("FAULT", Cell::or_none(fault)),
    ])?;
    match doctored {
        Some(Treatment { kept, lost, dropped_bytes, copies }) => {
            out.line("")?;
            let (kept, lost) = (counted(kept, "frame"), counted(lost, "committed one"));
            out.line(format_args!("kept {kept}, lost {lost} ({dropped_bytes} bytes dropped)"))?;
            out.note(format_args!("the untouched originals are beside it: {}", copies.join(", ")))
        }
        None if needed => Ok(()),
        None => out.note("it needs no doctor"),
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
