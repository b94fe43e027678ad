//! `autonomy node`

use std::{env, fs, path::Path};

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use gate_core::{Enrollment, EnrollmentRef, NodeId, RolloutState, Status};
use host_native::{
    config::Config,
    enrollment::{Action, Change, IfActive, Mutation, Query, Row, StoreError},
};
use serde::Serialize;

use crate::{
    args::{NodeFlag, StoreFlag},
    context::{self, Access, Context, Flags},
    error::{CliError, Exit},
    output::{Cell, Format},
    time, usage,
};

/// Enroll nodes, withdraw enrollments, look them up.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Enroll a node: from now on it may run under bundles that declare this enrollment ref.
    #[command(after_help = "Examples:
  autonomy node enroll --node-id robot-7 --enrollment-ref fleet-a
  autonomy node enroll --node-id robot-8 --enrollment-ref fleet-b \\
    --replace --by ops@example.com
  autonomy node enroll --node-id robot-7 --enrollment-ref fleet-a \\
    --orchestrator-url https://fleet.example.com \\
    --orchestrator-token-file ops.token")]
    Enroll {
        /// The node: 1 to 128 of `A-Z a-z 0-9 . _ -`, not starting with `.`.
        #[arg(long, value_name = "ID")]
        node_id: NodeId,
        /// The ref that the node's bundle declares, byte for byte.
        #[arg(long, value_name = "REF")]
        enrollment_ref: EnrollmentRef,
        /// Replace the ref of a node that is active with another one.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        by: By,
        #[command(flatten)]
        store: StoreFlag,
    },
    /// Withdraw a node's enrollment. The node's very next call is denied in `enforce`.
    #[command(after_help = "Examples:
  autonomy node revoke --node-id robot-7
  autonomy node revoke --node-id robot-7 --by ops@example.com")]
    Revoke {
        /// The node.
        #[arg(long, value_name = "ID")]
        node_id: NodeId,
        #[command(flatten)]
        by: By,
        #[command(flatten)]
        store: StoreFlag,
    },
    /// List nodes, in the byte order of their ids.
    #[command(after_help = "Examples:
  autonomy node list
  autonomy node list --status revoked --limit 20
  autonomy node list --after robot-7 --output json")]
    List {
        /// Only nodes with this status.
        #[arg(long, value_parser = PossibleValuesParser::new(Status::KNOWN.iter().map(|status| status.as_str().to_owned())).map(|word| Status::from_word(&word)))]
        status: Option<Status>,
        /// Only nodes that come after this one.
        #[arg(long, value_name = "ID")]
        after: Option<NodeId>,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = usage::whole_number(1))]
        limit: u32,
        #[command(flatten)]
        store: StoreFlag,
    },
    /// Show a node's enrollment and who changed it when.
    #[command(after_help = "Examples:
  autonomy node show --node-id robot-7
  autonomy node show --node-id robot-7 --history 5 --output json")]
    Show {
        #[command(flatten)]
        node: NodeFlag,
        /// How many changes to show, the latest ones.
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = usage::whole_number(0))]
        history: u32,
        #[command(flatten)]
        store: StoreFlag,
    },
}

/// Who makes a change.
#[derive(Debug, Args)]
pub(crate) struct By {
    /// Who makes the change, for the node's history [default: your user name; an orchestrator knows the token's].
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
}

impl By {
    pub(crate) fn name(self, config: &Config) -> Result<String, CliError> {
        if self.by.is_some() && config.orchestrator_url().is_some() {
            return Err(CliError::usage(
                "`--by` is for a local store: an orchestrator writes down the name of the token, so leave it out",
            ));
        }
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        Ok(self.by.or_else(|| variable("USER")).or_else(|| variable("LOGNAME")).unwrap_or_else(user_id))
    }
}

fn user_id() -> String {
    format!("uid:{}", rustix::process::geteuid().as_raw())
}

#[derive(Debug, Serialize)]
struct Node {
    node_id: NodeId,
    enrollment_ref: EnrollmentRef,
    status: Status,
    rollout_state: RolloutState,
    serial: u64,
    created_at: String,
    updated_at: String,
}

impl From<&Row> for Node {
    fn from(row: &Row) -> Self {
        let Enrollment { node_id, enrollment_ref, status, rollout_state, serial } = row.enrollment.clone();
        let (created_at, updated_at) = (time::rfc3339(row.created_at_ms), time::rfc3339(row.updated_at_ms));
        Self { node_id, enrollment_ref, status, rollout_state, serial, created_at, updated_at }
    }
}

#[derive(Debug, Serialize)]
struct Mutated {
    changed: bool,
    action: Option<&'static str>,
    by: Option<String>,
    node: Node,
}

#[derive(Debug, Serialize)]
struct Listed {
    nodes: Vec<Node>,
    /// What `--after` takes for the next page.
    next_after: Option<NodeId>,
}

#[derive(Debug, Serialize)]
struct Shown {
    node: Node,
    history: Vec<HistoryEntry>,
}

#[derive(Debug, Serialize)]
struct HistoryEntry {
    serial: u64,
    at: String,
    by: String,
    action: &'static str,
    enrollment_ref: EnrollmentRef,
    status: Status,
    rollout_state: RolloutState,
}

impl From<&Change> for HistoryEntry {
    fn from(change: &Change) -> Self {
        let Enrollment { enrollment_ref, status, rollout_state, serial, .. } = change.after.clone();
        let (at, by, action) = (time::rfc3339(change.at_ms), change.who.clone(), change.action.as_str());
        Self { serial, at, by, action, enrollment_ref, status, rollout_state }
    }
}

impl Command {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        match self {
            Self::Enroll { node_id, enrollment_ref, replace, by, store } => {
                let config = context.config(&store.add_to(Flags::default()))?;
                let who = by.name(&config)?;
                let is_new = config.orchestrator_url().is_none() && is_absent(&config.store_path());
                let store = context::store(&config, Access::Create)?;
                let if_active = if replace { IfActive::Replace } else { IfActive::Refuse };
                let mutation = store.enroll(&node_id, &enrollment_ref, if_active, &who, time::now_ms())?;
                let exit = print_mutation(context, &mutation)?;
                if is_new {
                    let path = config.store_path();
                    context.out.note(format_args!(
                        "made a new store, {}: correct `--store` if there was one",
                        path.display()
                    ))?;
                }
                Ok(exit)
            }
            Self::Revoke { node_id, by, store } => {
                let config = context.config(&store.add_to(Flags::default()))?;
                let who = by.name(&config)?;
                let store = context::store(&config, Access::Change)?;
                print_mutation(context, &store.revoke(&node_id, &who, time::now_ms())?)
            }
            Self::List { status, after, limit, store } => {
                let config = context.config(&store.add_to(Flags::default()))?;
                let store = context::store(&config, Access::Read)?;
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                // One more than asked for tells whether there is a next page.
                let mut rows = store.list(&Query { status, after, limit: limit.saturating_add(1) })?;
                let more = rows.len() > limit;
                rows.truncate(limit);
                print_list(context, &rows, more)
            }
            Self::Show { node, history, store } => {
                let config = context.config(&store.add_to(node.add_to(Flags::default())))?;
                let node_id = context::node_id(&config)?;
                let store = context::store(&config, Access::Read)?;
                let row = store.get(&node_id)?.ok_or_else(|| {
                    let unknown = || StoreError::NotEnrolled { node_id: node_id.clone(), close: None };
                    context::mistyped(&*store, &node_id).unwrap_or_else(unknown)
                })?;
                let first = row.enrollment.serial.saturating_sub(u64::from(history));
                let changes = store.history(&node_id, first, usize::MAX)?;
                print_node(context, &row, &changes)
            }
        }
    }
}

/// An empty file is what a full disk leaves of a store.
pub(crate) fn is_absent(store: &Path) -> bool {
    fs::metadata(store).map_or(true, |there| there.len() == 0)
}

/// Says what a change did, or that there was nothing to do.
pub(crate) fn print_mutation(context: &mut Context<'_>, mutation: &Mutation) -> Result<Exit, CliError> {
    let Mutation { row, change } = mutation;
    let out = &mut context.out;
    if out.format() == Format::Json {
        out.json(&Mutated {
            changed: change.is_some(),
            action: change.as_ref().map(|change| change.action.as_str()),
            by: change.as_ref().map(|change| change.who.clone()),
            node: row.into(),
        })?;
        return Ok(Exit::Success);
    }
    let Enrollment { node_id, enrollment_ref, status, rollout_state, serial } = &row.enrollment;
    match change.as_ref().map(|change| change.action) {
        None => out.line(format_args!(
            "nothing to change: node `{node_id}` has enrollment ref `{enrollment_ref}`, status `{status}`, rollout state `{rollout_state}`"
        ))?,
        Some(Action::Enroll) => {
            out.line(format_args!("enrolled node `{node_id}` with ref `{enrollment_ref}` (serial {serial})"))?;
        }
        Some(Action::Reenroll) => {
            out.line(format_args!("enrolled node `{node_id}` again, with ref `{enrollment_ref}` (serial {serial})"))?;
        }
        Some(Action::Replace) => {
            out.line(format_args!("replaced the ref of node `{node_id}` by `{enrollment_ref}` (serial {serial})"))?;
        }
        Some(Action::Revoke) => {
            out.line(format_args!("revoked node `{node_id}` (serial {serial})"))?;
            out.note("its next call is denied where the mode is `enforce`")?;
        }
        Some(Action::SetRollout) => {
            out.line(format_args!("rollout of node `{node_id}` is `{rollout_state}` (serial {serial})"))?;
            if !rollout_state.is_coherent() {
                out.note("its next call is denied where the mode is `enforce`")?;
            }
        }
    }
    if let Some(Change { action: Action::Reenroll | Action::Replace, before: Some(before), .. }) = change {
        if before.enrollment_ref != *enrollment_ref {
            out.note(format_args!("its ref was `{}`, and is `{enrollment_ref}` now", before.enrollment_ref))?;
        }
        // A node that failed its rollout may run again then.
        if before.rollout_state != *rollout_state {
            out.note(format_args!("its rollout state was `{}`, and is `{rollout_state}` now", before.rollout_state))?;
        }
    }
    Ok(Exit::Success)
}

fn print_list(context: &mut Context<'_>, rows: &[Row], more: bool) -> Result<Exit, CliError> {
    let next_after = rows.last().filter(|_| more).map(|row| row.enrollment.node_id.clone());
    let out = &mut context.out;
    if out.format() == Format::Json {
        out.json(&Listed { nodes: rows.iter().map(Node::from).collect(), next_after })?;
        return Ok(Exit::Success);
    }
    let mut table = out.table(["NODE_ID", "ENROLLMENT_REF", "STATUS", "ROLLOUT_STATE", "UPDATED"]);
    let now_ms = time::now_ms();
    for row in rows {
        let Enrollment { node_id, enrollment_ref, status, rollout_state, .. } = &row.enrollment;
        table.row([
            Cell::new(node_id),
            Cell::new(enrollment_ref),
            status_cell(status),
            rollout_cell(rollout_state),
            Cell::new(time::with_age(row.updated_at_ms, now_ms)),
        ])?;
    }
    table.finish()?;
    if rows.is_empty() {
        out.note("no such node: `autonomy node enroll` adds one")?;
    }
    if let Some(last) = next_after {
        out.note(format_args!("there are more: continue with `--after {last}`"))?;
    }
    Ok(Exit::Success)
}

fn print_node(context: &mut Context<'_>, row: &Row, changes: &[Change]) -> Result<Exit, CliError> {
    let out = &mut context.out;
    if out.format() == Format::Json {
        out.json(&Shown { node: row.into(), history: changes.iter().map(HistoryEntry::from).collect() })?;
        return Ok(Exit::Success);
    }
    let Enrollment { node_id, enrollment_ref, status, rollout_state, serial } = &row.enrollment;
    let now_ms = time::now_ms();
    out.fields([
        ("NODE_ID", Cell::new(node_id)),
        ("ENROLLMENT_REF", Cell::new(enrollment_ref)),
        ("STATUS", status_cell(status)),
        ("ROLLOUT_STATE", rollout_cell(rollout_state)),
        ("SERIAL", Cell::new(serial)),
        ("CREATED", Cell::new(time::with_age(row.created_at_ms, now_ms))),
        ("UPDATED", Cell::new(time::with_age(row.updated_at_ms, now_ms))),
    ])?;
    out.line("")?;
    let mut table = out.table(["SERIAL", "AT", "BY", "ACTION", "ENROLLMENT_REF", "STATUS", "ROLLOUT_STATE"]);
    for Change { action, who, at_ms, after, .. } in changes {
        table.row([
            Cell::new(after.serial),
            Cell::new(time::with_age(*at_ms, now_ms)),
            Cell::new(who),
            Cell::new(action),
            Cell::new(&after.enrollment_ref),
            status_cell(&after.status),
            rollout_cell(&after.rollout_state),
        ])?;
    }
    table.finish()?;
    // The first change of a node has serial 1.
    if changes.first().is_none_or(|oldest| oldest.after.serial > 1) {
        out.note("there are older changes: raise `--history`")?;
    }
    Ok(Exit::Success)
}

/// The one good status in green, any other in red.
pub(crate) fn status_cell(status: &Status) -> Cell {
    match status {
        Status::Active => Cell::new(status).good(),
        Status::Revoked | Status::Unknown(_) => Cell::new(status).bad(),
    }
}

/// Good states in green, `<none>` faint, the others in red.
pub(crate) fn rollout_cell(state: &RolloutState) -> Cell {
    let cell = Cell::new(state);
    match state {
        RolloutState::None => cell.faint(),
        RolloutState::Pending | RolloutState::Acknowledged | RolloutState::Active => cell.good(),
        RolloutState::RolledBack | RolloutState::Failed | RolloutState::Unknown(_) => cell.bad(),
    }
}
