//! `autonomy attestation`

mod eval;
mod history;
mod readiness;

use clap::Subcommand;
use gate_core::{EnrollmentRef, NodeId, Reason, RolloutState, Status};
use serde::Serialize;

use crate::{
    args::{self, NodeFlag, StoreFlag},
    context::{self, Access, Context, Flags},
    error::{CliError, Exit},
    node::{rollout_cell, status_cell},
    output::{Cell, Format},
};

/// Ask what the gate knows, and what it would say.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what a node is enrolled with and where its rollout stands.
    #[command(after_help = "Examples:
  autonomy attestation status --node-id robot-7
  AUTONOMY_NODE_ID=robot-7 autonomy attestation status --output json")]
    Status {
        #[command(flatten)]
        node: NodeFlag,
        #[command(flatten)]
        store: StoreFlag,
    },
    /// Judge nodes against bundles as the gate would in `enforce`, without running anything.
    ///
    /// Exits with 0 when every pair would be allowed, 1 when any would be denied, 3 when enrollments could not be read.
    #[command(after_help = "Examples:
  autonomy attestation eval --bundle bundle.tar --node-id robot-7
  autonomy attestation eval --bundle bundle.tar \\
    --node-id robot-7 --node-id robot-8
  autonomy attestation eval --bundle bundle.tar --bundle unsigned.tar \\
    --all-nodes --output json
  autonomy attestation eval --bundle bundle.tar --node-id robot-7 \\
    --lease lease.json --lease-key lease.pem.pub")]
    Eval(Box<eval::Eval>),
    /// Say of a whole fleet whether a mode can be turned on, and what stands in the way.
    ///
    /// Every enrolled node is judged against the one of the bundles that fits it best, as the gate would in `enforce`. Revoked
    /// nodes stand in nobody's way. Exits with 0 when it is safe, 1 when it is not, 3 when enrollments could not be read.
    #[command(after_help = "Examples:
  autonomy attestation readiness --bundle bundle.tar
  autonomy attestation readiness --bundle bundle.tar \\
    --mode advisory --output json")]
    Readiness(Box<readiness::ReadinessOf>),
    /// Say from the log who would have been denied had a mode been on, and whether it is safe to turn it on.
    ///
    /// Exits with 0 when it is safe, and 1 when it is not: calls would be denied, or there are none to go by.
    #[command(after_help = "Examples:
  autonomy attestation preview --mode enforce
  autonomy attestation preview --mode enforce --since 24h --output json
  autonomy attestation preview --wal-dir logs/robot-7 \\
    --wal-dir logs/robot-8")]
    Preview(history::PreviewArgs),
    /// Decide every call of the log again from what it was decided on, and report the differences.
    ///
    /// Exits with 0 when every decision follows from its facts, and 4 when one does not.
    #[command(after_help = "Examples:
  autonomy attestation replay
  autonomy attestation replay --since 2026-01-31T08:00:00Z")]
    Replay(history::LogArgs),
    /// Explain a reason: when it is given, and what to do about it. Without one, list them all.
    #[command(after_help = "Examples:
  autonomy attestation explain
  autonomy attestation explain not_enrolled
  autonomy attestation explain 'attestation: rollout_incoherent'
  autonomy attestation explain 9 --output json")]
    Explain {
        /// The reason: as the wire has it, without its layer, or its number.
        #[arg(value_parser = args::reasons(), hide_possible_values = true)]
        reason: Option<Reason>,
    },
}

#[derive(Debug, Serialize)]
struct StatusOf {
    node_id: NodeId,
    enrollment_ref: Option<EnrollmentRef>,
    status: Option<Status>,
    rollout_state: Option<RolloutState>,
}

#[derive(Debug, Serialize)]
struct Explained {
    number: u8,
    reason: Reason,
    meaning: &'static str,
    remedy: &'static str,
    anchor: &'static str,
    since: &'static str,
}

impl From<Reason> for Explained {
    fn from(reason: Reason) -> Self {
        Self {
            number: reason.number(),
            reason,
            meaning: reason.meaning(),
            remedy: reason.remedy(),
            anchor: reason.anchor(),
            since: reason.since(),
        }
    }
}

impl Command {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        match self {
            Self::Status { node, store } => status(context, &node, &store),
            Self::Eval(eval) => eval.run(context),
            Self::Readiness(readiness) => readiness.run(context),
            Self::Preview(preview) => preview.run(context),
            Self::Replay(log) => log.replay(context),
            Self::Explain { reason } => explain(context, reason),
        }
    }
}

fn status(context: &mut Context<'_>, node: &NodeFlag, store: &StoreFlag) -> Result<Exit, CliError> {
    let config = context.config(&store.add_to(node.add_to(Flags::default())))?;
    let node_id = context::node_id(&config)?;
    let store = context::store(&config, Access::Read)?;
    let row = store.get(&node_id)?.map(|row| row.enrollment);
    let out = &mut context.out;
    if out.format() == Format::Json {
        let (enrollment_ref, status, rollout_state) = match row {
            Some(row) => (Some(row.enrollment_ref), Some(row.status), Some(row.rollout_state)),
            None => (None, None, None),
        };
        out.json(&StatusOf { node_id, enrollment_ref, status, rollout_state })?;
        return Ok(Exit::Success);
    }
    let mut table = out.table(["ENROLLMENT_REF", "STATUS", "ROLLOUT_STATE"]);
    table.row(match &row {
        Some(row) => [Cell::new(&row.enrollment_ref), status_cell(&row.status), rollout_cell(&row.rollout_state)],
        None => [Cell::none(), Cell::none(), Cell::none()],
    })?;
    table.finish()?;
    if row.is_none() {
        match context::mistyped(&*store, &node_id) {
            Some(not_enrolled) => out.note(not_enrolled)?,
            None => out.note(format_args!(
                "node `{node_id}` is not enrolled: run `autonomy node enroll --node-id {node_id} --enrollment-ref REF`"
            ))?,
        }
    }
    Ok(Exit::Success)
}

fn explain(context: &mut Context<'_>, reason: Option<Reason>) -> Result<Exit, CliError> {
    let out = &mut context.out;
    match (reason, out.format()) {
        (Some(reason), Format::Json) => out.json(&Explained::from(reason))?,
        (None, Format::Json) => {
            out.json(&Reason::ALL.iter().map(|reason| (*reason).into()).collect::<Vec<Explained>>())?
        }
        (Some(reason), Format::Text) => {
            let Explained { number, reason, meaning, remedy, anchor, since } = reason.into();
            out.fields([
                ("REASON", Cell::new(reason)),
                ("NUMBER", Cell::new(number)),
                ("MEANING", Cell::new(meaning)),
                ("REMEDY", Cell::new(remedy)),
                ("BOOK", Cell::new(format_args!("docs/src/reasons.md#{anchor}"))),
                ("SINCE", Cell::new(since)),
            ])?;
        }
        (None, Format::Text) => {
            let mut table = out.table(["NUMBER", "REASON", "MEANING"]);
            for reason in Reason::ALL {
                table.row([Cell::new(reason.number()), Cell::new(reason), Cell::new(reason.meaning())])?;
            }
            table.finish()?;
            out.note("`autonomy attestation explain REASON` says what to do")?;
        }
    }
    Ok(Exit::Success)
}
