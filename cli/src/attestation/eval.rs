//! `autonomy attestation eval`

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _},
    ops::ControlFlow,
    path::PathBuf,
};

use clap::{ArgGroup, Args};
use gate_core::{
    Answer, Enrollment, Facts, NodeId, Reason, Verdict,
    decision::Outcome,
    facts::{BundleFact, SubCheck, SubCheckOutcome},
    reason::Attestation,
};
use host_native::{
    ErrorClass, bundle,
    config::Config,
    enrollment::{Store, StoreError, read_lease},
    evaluate::Matrix,
};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::{
    args::{EngineFlags, LeaseFlags, StoreFlag, TrustFlags, short},
    audit::outcome_cell,
    context::{self, Access, Context, Flags},
    error::{CliError, Exit},
    output::{Cell, Format, Output, Table},
    progress, time,
};

#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("nodes").multiple(true),
    mut_arg("lease_keys", |keys| keys.requires("lease")),
    mut_arg("lease_threshold", |threshold| threshold.requires("lease"))
)]
pub(crate) struct Eval {
    /// A bundle; repeat it for several.
    #[arg(long = "bundle", value_name = "FILE", required = true)]
    bundles: Vec<PathBuf>,
    /// A node; repeat it for several (else `AUTONOMY_NODE_ID`, else `identity.node_id`).
    #[arg(long = "node-id", value_name = "ID", conflicts_with = "all_nodes")]
    node_ids: Vec<NodeId>,
    /// Every node in the store.
    #[arg(long)]
    all_nodes: bool,
    /// Go by this lease of the node, as its gate does, and ask nobody: a file that a runtime keeps or an orchestrator gave.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["all_nodes", "store", "orchestrator_url"])]
    lease: Option<PathBuf>,
    #[command(flatten)]
    store: StoreFlag,
    #[command(flatten)]
    trust: TrustFlags,
    #[command(flatten)]
    leases: LeaseFlags,
    #[command(flatten)]
    engine: EngineFlags,
}

#[derive(Debug, Serialize)]
struct BundleOf<'a> {
    path: &'a PathBuf,
    #[serde(flatten)]
    fact: &'a BundleFact,
}

#[derive(Debug, Serialize)]
struct Judged<'a> {
    node_id: &'a str,
    bundle: &'a PathBuf,
    /// What a call would get in `enforce`.
    effect: Outcome,
    reason: Option<Reason>,
    remedy: Option<&'static str>,
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_checks: Option<Vec<SubCheck>>,
}

#[derive(Debug, Default, Serialize)]
struct Summary {
    pairs: u64,
    allow: u64,
    deny: u64,
    by_reason: BTreeMap<Reason, u64>,
}

impl Summary {
    fn count(&mut self, verdict: Verdict) {
        self.pairs += 1;
        match verdict {
            Verdict::Pass => self.allow += 1,
            Verdict::Fail(reason) => {
                self.deny += 1;
                *self.by_reason.entry(reason.into()).or_default() += 1;
            }
        }
    }

    fn exit(&self) -> Exit {
        let unavailable = Reason::from(Attestation::EnrollmentUnavailable);
        match self.deny {
            0 => Exit::Success,
            _ if self.by_reason.contains_key(&unavailable) => Exit::Unavailable,
            _ => Exit::Denied,
        }
    }
}

impl Eval {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let flags = self.trust.add_to(self.engine.add_to(self.store.add_to(Flags::default())))?;
        let config = context.config(&self.leases.add_to(flags)?)?;
        let keys = context::trusted_keys(&config)?;
        let (freshness, now_ms) = (config.freshness(), time::now_ms());
        let mut matrix = match context::engine(&config)? {
            None => Matrix::new(freshness, now_ms),
            Some(engine) => Matrix::in_module(engine, freshness, now_ms),
        };
        for path in &self.bundles {
            // A refused bundle stays in the matrix: its verdicts say why.
            let _ = matrix.add_bundle(&bundle::read(path)?, &keys);
        }
        let nodes = match self.node_ids.as_slice() {
            [] if !self.all_nodes => vec![context::node_id(&config)?],
            ids => ids.to_vec(),
        };
        let lease = match &self.lease {
            None => None,
            Some(path) => Some((read_lease(path)?, context::keys_of_leases(&config)?)),
        };
        let single = nodes.len() == 1 && self.bundles.len() == 1;
        let facts = matrix.bundles().to_vec();
        let mut report = Report::new(context.out, matrix.now_ms(), &self.bundles, &facts, single)?;
        let mut mistyped = Vec::new();
        match lease {
            Some((lease, keys)) => {
                for node_id in nodes {
                    matrix.set_leased_node(node_id, &lease, &keys);
                    report.node(&mut matrix)?;
                }
            }
            None if self.all_nodes => all_nodes(&config, &mut matrix, &mut report)?,
            None => mistyped = some_nodes(&config, nodes, &mut matrix, &mut report)?,
        }
        let exit = report.finish()?;
        for not_enrolled in mistyped {
            context.out.note(not_enrolled)?;
        }
        Ok(exit)
    }
}

/// Judges these nodes, and says which of them are close to one that is enrolled.
fn some_nodes(
    config: &Config,
    nodes: Vec<NodeId>,
    matrix: &mut Matrix,
    report: &mut Report<'_>,
) -> Result<Vec<StoreError>, CliError> {
    // A store that cannot be asked is an answer about every node.
    let store = match context::store(config, Access::Read) {
        Ok(store) => Ok(store),
        Err(CliError::Failed { class: ErrorClass::Unavailable, message }) => Err(message),
        Err(error) => return Err(error),
    };
    let (observed_at_ms, mut mistyped) = (matrix.now_ms(), Vec::new());
    for node_id in nodes {
        let found =
            store.as_ref().map_err(Clone::clone).and_then(|store| store.get(&node_id).map_err(|e| e.to_string()));
        let answer = match found {
            Ok(Some(row)) => Answer::Enrolled { enrollment: row.enrollment, observed_at_ms },
            Ok(None) => Answer::NotEnrolled { observed_at_ms },
            Err(why) => Answer::Unavailable { why },
        };
        if let (Ok(store), Answer::NotEnrolled { .. }) = (&store, &answer) {
            mistyped.extend(context::mistyped(&**store, &node_id));
        }
        matrix.set_node(node_id, answer);
        report.node(matrix)?;
    }
    Ok(mistyped)
}

fn all_nodes(config: &Config, matrix: &mut Matrix, report: &mut Report<'_>) -> Result<(), CliError> {
    let is_watched = report.is_watched();
    let observed_at_ms = matrix.now_ms();
    each_node(config, is_watched, |enrollment| {
        matrix.set_node(enrollment.node_id.clone(), Answer::Enrolled { enrollment, observed_at_ms });
        report.node(matrix)
    })
}

/// Shows every enrollment, until one fails.
pub(super) fn each_node(
    config: &Config,
    rows_are_watched: bool,
    mut visit: impl FnMut(Enrollment) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let store = context::store(config, Access::Read)?;
    let bar = progress(&*store, rows_are_watched)?;
    let mut outcome = Ok(());
    let walked = store.for_each(&mut |row| {
        bar.inc(1);
        outcome = visit(row);
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    bar.finish_and_clear();
    walked?;
    outcome
}

/// A bar where somebody watches and the rows go elsewhere; rows on a terminal are progress enough.
fn progress(store: &dyn Store, rows_are_watched: bool) -> Result<ProgressBar, CliError> {
    if rows_are_watched || !io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    Ok(progress::bar(store.count(None)?, "{bar:40} {human_pos}/{human_len} nodes, {eta} left"))
}

/// Writes verdicts down as they come.
struct Report<'a> {
    paths: &'a [PathBuf],
    summary: Summary,
    single: bool,
    form: Form<'a>,
}

enum Form<'a> {
    Json(&'a mut Output),
    One(&'a mut Output),
    Rows(Table<'a, 5>),
}

impl<'a> Report<'a> {
    fn new(
        out: &'a mut Output,
        now_ms: u64,
        paths: &'a [PathBuf],
        facts: &[BundleFact],
        single: bool,
    ) -> Result<Self, CliError> {
        let form = match out.format() {
            Format::Json => {
                let bundles: Vec<_> = paths.iter().zip(facts).map(|(path, fact)| BundleOf { path, fact }).collect();
                out.raw(b"{\"evaluated_at\":")?;
                out.json_part(&time::rfc3339(now_ms))?;
                out.raw(b",\"bundles\":")?;
                out.json_part(&bundles)?;
                out.raw(b",\"results\":[")?;
                Form::Json(out)
            }
            Format::Text if single => Form::One(out),
            Format::Text => Form::Rows(out.table(["NODE_ID", "BUNDLE", "EFFECT", "REASON", "REMEDY"])),
        };
        Ok(Self { paths, summary: Summary::default(), single, form })
    }

    fn is_watched(&self) -> bool {
        match &self.form {
            Form::Json(out) | Form::One(out) => out.is_watched(),
            Form::Rows(table) => table.is_watched(),
        }
    }

    /// The node that the matrix is at.
    fn node(&mut self, matrix: &mut Matrix) -> Result<(), CliError> {
        let now_ms = matrix.now_ms();
        let mut outcome = Ok(());
        matrix.verdicts(|at, facts, verdict| {
            if let (Ok(()), Some(path)) = (&outcome, self.paths.get(at)) {
                self.summary.count(verdict);
                outcome = self.pair(path, facts, verdict, now_ms);
            }
        })?;
        outcome
    }

    fn pair(&mut self, bundle: &PathBuf, facts: &Facts, verdict: Verdict, now_ms: u64) -> Result<(), CliError> {
        let node_id = facts.node_id.as_ref().map(NodeId::as_str).unwrap_or_default();
        let (outcome, reason) = match verdict {
            Verdict::Pass => (Outcome::Allow, None),
            Verdict::Fail(reason) => (Outcome::Deny, Some(reason)),
        };
        let cell = outcome_cell(outcome);
        match &mut self.form {
            Form::Json(out) => {
                out.raw(if self.summary.pairs == 1 { b"\n" } else { b",\n" })?;
                out.json_part(&Judged {
                    node_id,
                    bundle,
                    effect: outcome,
                    reason: reason.map(Reason::from),
                    remedy: reason.map(Attestation::remedy),
                    detail: reason.map(|reason| facts.detail(reason, now_ms)),
                    sub_checks: self.single.then(|| facts.explain(now_ms)),
                })
            }
            Form::Rows(table) => table.row([
                Cell::new(node_id),
                Cell::new(bundle.display()),
                cell,
                Cell::or_none(reason),
                Cell::or_none(reason.map(Attestation::remedy)),
            ]),
            Form::One(out) => {
                out.fields([
                    ("NODE_ID", Cell::new(node_id)),
                    ("BUNDLE", Cell::new(bundle.display())),
                    ("EFFECT", cell),
                    ("REASON", Cell::or_none(reason)),
                    ("REMEDY", Cell::or_none(reason.map(Attestation::remedy))),
                ])?;
                out.line("")?;
                let mut table = out.table(["SUB_CHECK", "OUTCOME", "EXPECTED", "FOUND"]);
                for SubCheck { reason, outcome, expected, found } in facts.explain(now_ms) {
                    let outcome = match outcome {
                        SubCheckOutcome::Pass => Cell::new("pass").good(),
                        SubCheckOutcome::Fail => Cell::new("fail").bad(),
                        SubCheckOutcome::NotJudged => Cell::new("not judged").faint(),
                    };
                    table.row([Cell::new(short(reason.into())), outcome, Cell::new(expected), Cell::or_none(found)])?;
                }
                table.finish()?;
                Ok(())
            }
        }
    }

    fn finish(self) -> Result<Exit, CliError> {
        let Self { summary, form, .. } = self;
        match form {
            Form::One(_) => {}
            Form::Json(out) => {
                out.raw(b"\n],\"summary\":")?;
                out.json_part(&summary)?;
                out.raw(b"}\n")?;
            }
            Form::Rows(table) => {
                let out = table.finish()?;
                out.line("")?;
                let mut table = out.table(["EFFECT", "REASON", "PAIRS"]);
                table.row([Cell::new("allow").good(), Cell::none(), Cell::new(summary.allow)])?;
                for (reason, pairs) in &summary.by_reason {
                    table.row([Cell::new("deny").bad(), Cell::new(reason), Cell::new(pairs)])?;
                }
                let out = table.finish()?;
                if summary.pairs == 0 {
                    out.note("no node is enrolled: `autonomy node enroll` adds one")?;
                }
            }
        }
        Ok(summary.exit())
    }
}
