//! `autonomy attestation readiness`

use std::path::PathBuf;

use clap::Args;
use gate_core::{Mode, NodeId, Reason};
use host_native::{
    bundle,
    evaluate::{Matrix, Obstacle, Readiness},
};
use serde::Serialize;

use super::{eval::each_node, history};
use crate::{
    args::{StoreFlag, TrustFlags},
    context::{self, Context, Flags},
    error::{CliError, Exit},
    output::{Cell, Format},
    time, usage,
};

#[derive(Debug, Args)]
pub(crate) struct ReadinessOf {
    /// A bundle that nodes run; repeat it for several.
    #[arg(long = "bundle", value_name = "FILE", required = true)]
    bundles: Vec<PathBuf>,
    /// The mode to turn on.
    #[arg(long, default_value = Mode::Enforce.as_str(), value_parser = history::modes())]
    mode: Mode,
    /// How many nodes to name for each reason.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = usage::whole_number(0))]
    limit: u32,
    #[command(flatten)]
    store: StoreFlag,
    #[command(flatten)]
    trust: TrustFlags,
}

#[derive(Debug, Serialize)]
struct Report {
    evaluated_at: String,
    mode: Mode,
    safe: bool,
    #[serde(flatten)]
    readiness: Readiness,
}

impl ReadinessOf {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let config = context.config(&self.trust.add_to(self.store.add_to(Flags::default()))?)?;
        let keys = context::trusted_keys(&config)?;
        let mut matrix = Matrix::new(config.freshness(), time::now_ms());
        for path in &self.bundles {
            // No runtime starts with it, in any mode.
            matrix.add_bundle(&bundle::read(path)?, &keys).map_err(|error| crate::bundle::refused(path, &error))?;
        }
        let shown = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let mut readiness = Readiness::default();
        each_node(&config, false, |row| Ok(readiness.add(&mut matrix, row, shown)?))?;
        let (mode, safe) = (self.mode, readiness.is_safe(self.mode));
        let report = Report { evaluated_at: time::rfc3339(matrix.now_ms()), mode, safe, readiness };
        print(context, &report)?;
        Ok(if safe { Exit::Success } else { Exit::Denied })
    }
}

fn print(context: &mut Context<'_>, report: &Report) -> Result<(), CliError> {
    let out = &mut context.out;
    if out.format() == Format::Json {
        return out.json(report);
    }
    let Report { mode, safe, readiness: Readiness { ready, revoked, denied, obstacles }, .. } = report;
    let nodes = ready + denied;
    let word = if *safe { "safe" } else { "not safe" };
    let fails = if *mode == Mode::Enforce { "be denied" } else { "be warned of" };
    let line = Cell::new(format_args!("{mode}: {word}: {denied} of {nodes} nodes would {fails}, {revoked} revoked"));
    out.value(&if *safe { line.good() } else { line.bad() })?;
    if !obstacles.is_empty() {
        out.line("")?;
        let mut table = out.table(["REASON", "NODES", "NODE_IDS"]);
        for (reason, Obstacle { nodes, first }) in obstacles {
            table.row([Cell::new(reason).bad(), Cell::new(nodes), Cell::new(names(first, *nodes))])?;
        }
        table.finish()?;
    }
    match obstacles.iter().max_by_key(|(_, obstacle)| obstacle.nodes) {
        _ if nodes == 0 => out.note("no node is enrolled and active: `autonomy node enroll` adds one"),
        Some((reason, _)) => out.note(format_args!("first, `{reason}`: {}", Reason::remedy(*reason))),
        None => Ok(()),
    }
}

/// The nodes by name, and how many more there are.
fn names(first: &[NodeId], nodes: u64) -> String {
    let more = nodes.saturating_sub(u64::try_from(first.len()).unwrap_or(u64::MAX));
    let mut names: Vec<_> = first.iter().map(ToString::to_string).collect();
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}
