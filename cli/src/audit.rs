//! `autonomy audit`

use std::collections::VecDeque;

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use gate_core::{AuditId, NodeId, Reason, decision::Outcome};
use host_native::{
    audit::{self, AuditError, Call, Calls, Trail},
    wal::Walk,
};
use serde::Serialize;

use crate::{
    args::{WalFlag, reasons},
    context::{Context, Flags},
    error::{CliError, Exit},
    output::{Cell, Format},
    progress, time, usage,
};

/// Find out what happened to a call.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show one call: what the caller got and why, what to do about a deny, and every frame that it left.
    #[command(after_help = "Examples:
  autonomy audit get 0196f0c2-7d3e-7a41-9f55-0c5d8e1b2a34
  autonomy audit get 0196f0c2-7d3e-7a41-9f55-0c5d8e1b2a34 --output json")]
    Get {
        /// The call's audit id, as its answer had it.
        audit_id: AuditId,
        #[command(flatten)]
        wal: WalFlag,
    },
    /// List calls, the latest last.
    #[command(after_help = "Examples:
  autonomy audit list
  autonomy audit list --outcome deny --since 1h
  autonomy audit list --reason not_enrolled --limit 5 --output json")]
    List(List),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only calls from this time on: RFC 3339, or an age such as `15m`.
    #[arg(long, value_name = "TIME", value_parser = time::parse_since)]
    since: Option<u64>,
    /// Only calls that ended so.
    #[arg(long, value_parser = PossibleValuesParser::new(["allow", "deny"]).map(outcome))]
    outcome: Option<Outcome>,
    /// Only calls with this reason, or that would be denied for it in `enforce`.
    #[arg(long, value_parser = reasons(), hide_possible_values = true)]
    reason: Option<Reason>,
    /// Only calls on this node.
    #[arg(long, value_name = "ID")]
    node_id: Option<NodeId>,
    /// At most so many, the latest.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = usage::whole_number(1))]
    limit: u32,
    #[command(flatten)]
    wal: WalFlag,
}

fn outcome(word: String) -> Outcome {
    if word == "allow" { Outcome::Allow } else { Outcome::Deny }
}

#[derive(Debug, Serialize)]
struct Listed {
    calls: VecDeque<Call>,
    /// Whether older calls were left out.
    more: bool,
    /// A node with calls whose id differs from the wanted one only in case.
    #[serde(skip)]
    close: Option<NodeId>,
    /// Why the log was not read to its end.
    #[serde(skip)]
    broken: Option<AuditError>,
}

impl Command {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        match self {
            Self::Get { audit_id, wal } => {
                let config = context.config(&wal.add_to(Flags::default()))?;
                let trail = progress::reading(&config.wal_dir(), |log| audit::get(log, &audit_id))?;
                print_trail(context, &audit_id, trail)
            }
            Self::List(list) => list.run(context),
        }
    }
}

/// What to do about a deny, or about one that `advisory` let pass.
fn remedy(call: &Call) -> Option<&'static str> {
    let denied = (call.outcome == Outcome::Deny).then_some(call.reason);
    denied.or(call.would_deny).map(|reason| reason.remedy())
}

fn print_trail(context: &mut Context<'_>, audit_id: &AuditId, trail: Trail) -> Result<Exit, CliError> {
    let Trail { call, frames, broken } = trail;
    // The error comes after what was found.
    let end = broken.map_or(Ok(Exit::Success), |error| Err(error.into()));
    let remedy = call.as_ref().and_then(remedy);
    let out = &mut context.out;
    if out.format() == Format::Json {
        out.raw(format!("{{\"audit_id\":\"{audit_id}\",\"call\":").as_bytes())?;
        out.json_part(&call)?;
        out.raw(b",\"remedy\":")?;
        out.json_part(&remedy)?;
        // Byte for byte as in the log, which gave them back only after it had read them as JSON.
        let frames: Vec<_> = frames.iter().map(|record| record.payload.as_str()).collect();
        out.frame(&format!(",\"frames\":[{}]}}", frames.join(",")))?;
        return end;
    }
    if let Some(call) = call {
        out.pair("outcome", &outcome_cell(call.outcome))?;
        out.pair("reason", &Cell::new(call.reason))?;
        if let Some(reason) = call.would_deny {
            out.pair("would_deny", &Cell::new(reason).warn())?;
        }
        if let Some(detail) = &call.detail {
            out.pair("detail", &Cell::new(detail))?;
        }
        if let Some(remedy) = remedy {
            out.pair("remedy", &Cell::new(remedy))?;
        }
        out.pair("tool", &Cell::new(&call.tool))?;
        out.pair("policy_ref", &Cell::or_none(call.policy_ref.as_ref()))?;
        out.pair("mode", &Cell::new(call.mode))?;
        out.pair("node_id", &Cell::or_none(call.node_id.as_ref()))?;
        out.pair("at", &Cell::new(time::with_age(call.now_ms, time::now_ms())))?;
        out.pair("facts", &Cell::new(call.facts))?;
        out.line("")?;
    }
    for record in &frames {
        out.frame(&record.payload)?;
    }
    end
}

pub(crate) fn outcome_cell(outcome: Outcome) -> Cell {
    match outcome {
        Outcome::Allow => Cell::new("allow").good(),
        Outcome::Deny => Cell::new("deny").bad(),
    }
}

impl List {
    fn wants(&self, call: &Call) -> bool {
        self.since.is_none_or(|since_ms| call.now_ms >= since_ms)
            && self.outcome.is_none_or(|outcome| call.outcome == outcome)
            && self.reason.is_none_or(|reason| call.reason == reason || call.would_deny == Some(reason))
            && self.node_id.as_ref().is_none_or(|node_id| call.node_id.as_ref() == Some(node_id))
    }

    /// Whether the call is on a node whose id differs from the wanted one only in case.
    fn is_close(&self, Call { node_id, .. }: &Call) -> bool {
        let (Some(wanted), Some(found)) = (&self.node_id, node_id) else { return false };
        wanted != found && wanted.as_str().eq_ignore_ascii_case(found.as_str())
    }

    /// The latest calls that are wanted, of as much of the log as can be read.
    fn listed(&self, log: Walk) -> Result<Listed, AuditError> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let (mut walk, mut calls, mut more, mut close) = (Calls::open(log)?, VecDeque::new(), false, None);
        let broken = loop {
            let call = match walk.next_call() {
                Ok(Some(call)) => call,
                Ok(None) => break None,
                Err(error) => break Some(error),
            };
            if self.wants(&call) {
                more |= calls.len() == limit && calls.pop_front().is_some();
                calls.push_back(call);
            } else if close.is_none() && self.is_close(&call) {
                close = call.node_id;
            }
        };
        Ok(Listed { calls, more, close, broken })
    }

    fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let config = context.config(&self.wal.add_to(Flags::default()))?;
        let listed = progress::reading(&config.wal_dir(), |log| self.listed(log))?;
        let out = &mut context.out;
        if out.format() == Format::Json {
            out.json(&listed)?;
            return listed.broken.map_or(Ok(Exit::Success), |error| Err(error.into()));
        }
        let Listed { calls, more, close, broken } = listed;
        let mut table = out.table(["AT", "AUDIT_ID", "NODE_ID", "TOOL", "MODE", "OUTCOME", "REASON", "WOULD_DENY"]);
        for call in &calls {
            table.row([
                Cell::new(time::rfc3339(call.now_ms)),
                Cell::new(&call.audit_id),
                Cell::or_none(call.node_id.as_ref()),
                Cell::new(&call.tool),
                Cell::new(call.mode),
                outcome_cell(call.outcome),
                Cell::new(call.reason),
                call.would_deny.map_or_else(Cell::none, |reason| Cell::new(reason).warn()),
            ])?;
        }
        let out = table.finish()?;
        if more {
            out.note("there are older ones: raise `--limit`, or narrow with `--since`")?;
        }
        // After what was found.
        if let Some(error) = broken {
            return Err(error.into());
        }
        if calls.is_empty() {
            match close {
                None => out.note("no such call in this log")?,
                Some(close) => {
                    out.note(format_args!("no such call in this log: node `{close}` has some, did you mean that?"))?;
                }
            }
        }
        Ok(Exit::Success)
    }
}
