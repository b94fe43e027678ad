//! `autonomy rollout`

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use clap::{
    Args, Subcommand,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use gate_core::{Bundle, Enrollment, EnrollmentRef, NodeId, RolloutState, Status};
use host_native::{
    ErrorClass,
    config::Config,
    enrollment::{
        Store,
        rollout::{Command as Verb, Counts, Directive, Order, Phase, Rollout, RolloutId, RolloutStore, Selector},
    },
    oci::{self, Pinned, Reference},
};
use serde::Serialize;

use crate::{
    args::{RegistryFlags, StoreFlag, TrustFlags},
    bundle,
    context::{self, Access, Context, Flags},
    error::{CliError, Exit},
    node::{self, By},
    output::{Cell, Format, Output},
    progress, time, usage,
};

/// Roll bundles out to nodes, and see how far they have come.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Order a bundle for nodes: each that follows the orchestrator takes it, checks it, and runs it without a restart.
    ///
    /// A tag is replaced by the digest that it leads to now, and the bundle must verify. Every node's rollout state follows:
    /// `pending`, `acknowledged`, `active`; or `failed`, which denies in `enforce`. A node runs what it ran before until it is
    /// `active`. With `--canary` some nodes go first; when one of them fails, no other is touched.
    #[command(after_help = "Examples:
  autonomy rollout create --bundle registry.example/fleet/policies:1.1.0 \\
    --all --canary 10%
  autonomy rollout create --bundle registry.example/fleet/policies:1.1.0 \\
    --node-id robot-7 --node-id robot-8 --wait
  autonomy rollout create --bundle registry.example/fleet/policies:1.1.0 \\
    --all --canary 10% --wait=30m
  autonomy rollout create --bundle registry.example/fleet/policies:1.1.0 \\
    --selector enrollment_ref=fleet-a
  autonomy rollout create --bundle oci:layout:1.0.0 --node-id robot-7")]
    Create(Box<Create>),
    /// List rollouts, the latest first.
    #[command(after_help = "Examples:
  autonomy rollout list
  autonomy rollout list --limit 5 --output json")]
    List {
        /// Only rollouts that began before this one.
        #[arg(long, value_name = "ROLLOUT_ID")]
        before: Option<RolloutId>,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = usage::whole_number(1))]
        limit: u32,
        #[command(flatten)]
        store: StoreFlag,
    },
    /// Show a rollout, who changed it when, and how far its nodes have come.
    #[command(after_help = "Examples:
  autonomy rollout show
  autonomy rollout show --failed
  autonomy rollout show 0196a3b2-7c1d-7e4f-8a9b-0c1d2e3f4a5b \\
    --orchestrator-url https://fleet.example.com")]
    Show {
        /// The rollout [default: the latest one].
        rollout_id: Option<RolloutId>,
        /// Only nodes that failed.
        #[arg(long)]
        failed: bool,
        /// Only nodes that come after this one.
        #[arg(long, value_name = "ID")]
        after: Option<NodeId>,
        /// At most so many nodes.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = usage::whole_number(1))]
        limit: u32,
        #[command(flatten)]
        store: StoreFlag,
    },
    /// Let no node go on. Nodes that have begun stay as they are.
    #[command(after_help = "Examples:
  autonomy rollout pause")]
    Pause {
        /// The rollout [default: the latest one].
        rollout_id: Option<RolloutId>,
        #[command(flatten)]
        change: Change,
    },
    /// Let nodes go on after a pause.
    #[command(after_help = "Examples:
  autonomy rollout resume")]
    Resume {
        /// The rollout [default: the latest one].
        rollout_id: Option<RolloutId>,
        #[command(flatten)]
        change: Change,
    },
    /// Take a rollout back: THE GATE DENIES ITS NODES in `enforce` from then on, until another rollout reaches them.
    ///
    /// Every node that was asked for something or may run the bundle is `rolled_back`, and goes back to the bundle that it ran
    /// before; so is one that a later rollout has chosen, or that was enrolled again, and that runs no later bundle yet. Nodes
    /// that failed stay `failed`; nodes that were never asked are not touched. To move a fleet to another bundle without
    /// denying a call, create a rollout of that bundle.
    #[command(after_help = "Examples:
  autonomy rollout rollback 0196a3b2-7c1d-7e4f-8a9b-0c1d2e3f4a5b \\
    --orchestrator-url https://fleet.example.com")]
    Rollback {
        /// The rollout, which is never the latest one by itself.
        rollout_id: Option<RolloutId>,
        #[command(flatten)]
        change: Change,
    },
    /// Set what the gate sees of a node's rollout, by hand. The node's very next decision sees it.
    ///
    /// `none`, `pending`, `acknowledged` and `active` are good; `rolled_back` and `failed` deny. It holds until the node's
    /// directive, if it has one, goes a step further; `rolled_back` until it is `active`.
    #[command(after_help = "Examples:
  autonomy rollout set --node-id robot-7 --state pending
  autonomy rollout set --node-id robot-7 --state failed \\
    --by ops@example.com")]
    Set {
        /// The node.
        #[arg(long, value_name = "ID")]
        node_id: NodeId,
        /// Where its rollout stands.
        #[arg(long, value_parser = states())]
        state: RolloutState,
        #[command(flatten)]
        by: By,
        #[command(flatten)]
        store: StoreFlag,
    },
}

/// Between two looks at a rollout that is waited for.
const LOOK: Duration = Duration::from_millis(500);

/// The same after one that was in vain.
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The bundle: `<host>[:<port>]/<repository>:<tag>`, or `oci:<directory>[:<tag>]`; or `@sha256:<digest>` in the place
    /// of the tag.
    #[arg(long, value_name = "REFERENCE")]
    bundle: Reference,
    #[command(flatten)]
    nodes: Nodes,
    /// How many of a hundred nodes go first, at least one; the others follow when all of those are active.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    canary: Option<u64>,
    /// Watch until it has ended, an hour unless a time is given; exit with 3 unless every node is active. While the orchestrator
    /// cannot be asked it is asked again.
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "1h",
          value_parser = time::parse_duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    by: By,
    #[command(flatten)]
    store: StoreFlag,
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    trust: TrustFlags,
}

/// Which nodes; revoked ones never.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Nodes {
    /// Every active node.
    #[arg(long)]
    all: bool,
    /// This node; repeat it for several.
    #[arg(long = "node-id", value_name = "ID")]
    node_ids: Vec<NodeId>,
    /// The active nodes with `enrollment_ref=<ref>` or `rollout_state=<state>`.
    #[arg(long)]
    selector: Option<Selector>,
}

impl From<Nodes> for Selector {
    fn from(Nodes { all: _, node_ids, selector }: Nodes) -> Self {
        match selector {
            Some(selector) => selector,
            None if node_ids.is_empty() => Self::All,
            None => Self::Nodes(node_ids.into_iter().collect::<BTreeSet<_>>()),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Change {
    #[command(flatten)]
    by: By,
    #[command(flatten)]
    store: StoreFlag,
}

/// `none` as well: a shell takes `<none>` for a redirection.
fn states() -> impl TypedValueParser<Value = RolloutState> {
    let states = RolloutState::KNOWN.iter().map(|state| match *state == RolloutState::None {
        true => PossibleValue::new("none").alias(state.as_str()),
        false => PossibleValue::new(state.as_str()),
    });
    PossibleValuesParser::new(states).map(|word| match word.as_str() {
        "none" => RolloutState::None,
        word => RolloutState::from_word(word),
    })
}

fn percent(text: &str) -> Result<u64, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let percent = number.parse().ok().filter(|percent| (1..=100).contains(percent));
    percent.ok_or_else(|| format!("canary {} is not known: use one such as `10%`", usage::quoted(text)))
}

#[derive(Debug, Serialize)]
struct Listed {
    rollouts: Vec<Rollout>,
    /// What `--before` takes for the next page.
    next_before: Option<RolloutId>,
}

#[derive(Debug, Serialize)]
struct Shown {
    rollout: Rollout,
    directives: Vec<Directive>,
    /// What `--after` takes for the next page.
    next_after: Option<NodeId>,
}

impl Command {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        match self {
            Self::Create(create) => create.run(context),
            Self::List { before, limit, store } => {
                let store = open(context, &store, Access::Read)?;
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                let (mut rollouts, mut before) = (Vec::new(), before);
                // One more than asked for tells whether there is a next page; a store may give fewer at once.
                while rollouts.len() <= limit {
                    let page = store.rollouts().latest(before.as_ref(), limit.saturating_add(1) - rollouts.len())?;
                    let Some(last) = page.last() else { break };
                    before = Some(last.rollout_id.clone());
                    rollouts.extend(page);
                }
                let more = rollouts.len() > limit;
                rollouts.truncate(limit);
                print_list(context, rollouts, more)
            }
            Self::Show { rollout_id, failed, after, limit, store } => {
                let store = open(context, &store, Access::Read)?;
                let rollouts = store.rollouts();
                let id = or_latest(rollouts, rollout_id)?;
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                let (mut directives, mut after) = (Vec::new(), after);
                while directives.len() <= limit {
                    let page = rollouts.directives(&id, after.as_ref(), 1000)?;
                    let Some(last) = page.last() else { break };
                    after = Some(last.node_id.clone());
                    directives.extend(page.into_iter().filter(|one| !failed || one.state == RolloutState::Failed));
                }
                let more = directives.len() > limit;
                directives.truncate(limit);
                print_rollout(context, rollouts.rollout(&id)?, directives, more)
            }
            Self::Pause { rollout_id, change } => change.run(context, rollout_id, Verb::Pause),
            Self::Resume { rollout_id, change } => change.run(context, rollout_id, Verb::Resume),
            Self::Rollback { rollout_id, change } => change.run(context, rollout_id, Verb::Rollback),
            Self::Set { node_id, state, by, store } => {
                let config = context.config(&store.add_to(Flags::default()))?;
                let who = by.name(&config)?;
                let store = context::store(&config, Access::Change)?;
                let mutation = store.set_rollout(&node_id, &state, &who, time::now_ms())?;
                node::print_mutation(context, &mutation)
            }
        }
    }
}

fn open(context: &Context<'_>, store: &StoreFlag, access: Access) -> Result<Box<dyn Store>, CliError> {
    context::store(&context.config(&store.add_to(Flags::default()))?, access)
}

fn or_latest(rollouts: &dyn RolloutStore, id: Option<RolloutId>) -> Result<RolloutId, CliError> {
    if let Some(id) = id {
        return Ok(id);
    }
    let latest = rollouts.latest(None, 1)?.pop().map(|rollout| rollout.rollout_id);
    latest.ok_or_else(|| CliError::usage("there is no rollout yet: `autonomy rollout create` begins one"))
}

/// A rollback denies, so it is said of what.
fn which(rollouts: &dyn RolloutStore) -> Result<CliError, CliError> {
    let shown = |Rollout { rollout_id, phase, bundle, .. }| format!("`{rollout_id}` ({phase}, {bundle})");
    let latest: Vec<_> = rollouts.latest(None, 3)?.into_iter().map(shown).collect();
    Ok(CliError::usage(match latest.is_empty() {
        true => "there is no rollout to take back".to_owned(),
        false => format!(
            "say which rollout is taken back: the latest are {}; `autonomy rollout list` has the others",
            latest.join(", ")
        ),
    }))
}

impl Create {
    fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let Self { bundle, nodes, canary, wait, by, store, registry, trust } = self;
        let config = context.config(&store.add_to(trust.add_to(Flags::default())?))?;
        let who = by.name(&config)?;
        let store = context::store(&config, Access::Change)?;
        let rollouts = store.rollouts();
        let (artifact, tar) = progress::moving(registry.access()?, |access| oci::pull(&bundle, access))?;
        let bundle = Pinned::new(bundle, artifact.manifest);
        let declared = check(context, &config, &bundle, &tar)?;
        let order = Order { bundle, selector: nodes.into(), canary_percent: canary };
        if !may_pass(&*store, &order.selector, declared.as_ref())? {
            let declared = declared.as_ref().map_or("<none>", EnrollmentRef::as_str);
            return Err(CliError::usage(format!(
                "the bundle declares enrollment ref `{declared}`, and no node of `{:.80}` is enrolled with it: roll out the bundle of \
                 their ref, see `autonomy node list`",
                order.selector.to_string()
            )));
        }
        let rollout = rollouts.create(&order, &who, time::now_ms())?;
        let id = rollout.rollout_id.clone();
        let out = &mut context.out;
        if out.format() == Format::Text {
            let (canary, rest) = (rollout.canary.total(), rollout.rest.total());
            out.line(format_args!("rolling out {} to {} nodes", rollout.bundle, canary.saturating_add(rest)))?;
            out.line(format_args!("rollout {id}"))?;
            if canary > 0 {
                out.line(format_args!("{canary} go first"))?;
            }
            if wait.is_none() {
                out.note(format_args!("`autonomy rollout show {id}` says how far it has come"))?;
            }
            out.flush()?;
        }
        let Some(wait) = wait else {
            if out.format() == Format::Json {
                out.json(&rollout)?;
            }
            return Ok(Exit::Success);
        };
        let ended = watch(out, rollouts, rollout, wait)?;
        if out.format() == Format::Json {
            out.json(&ended)?;
        } else {
            out.line(format_args!("{}: {}", ended.phase, words(&both(&ended))))?;
        }
        let counts = both(&ended);
        if ended.phase == Phase::Finished && counts.active == counts.total() {
            return Ok(Exit::Success);
        }
        let message = match ended.phase {
            Phase::Running => format!(
                "rollout `{id}` is not done within {wait:?}, and goes on: {}; see `autonomy rollout show {id}`",
                words(&Counts { active: 0, ..counts })
            ),
            phase @ (Phase::Paused | Phase::Stopped | Phase::Finished | Phase::RolledBack) => format!(
                "rollout `{id}` is `{phase}` and not active everywhere: see `autonomy rollout show {id} --failed`"
            ),
        };
        Err(CliError::Failed { class: ErrorClass::Unavailable, message })
    }
}

/// What no runtime would take is not ordered. The enrollment ref that it declares.
fn check(
    context: &mut Context<'_>,
    config: &Config,
    bundle: &Pinned,
    tar: &[u8],
) -> Result<Option<EnrollmentRef>, CliError> {
    let source = PathBuf::from(bundle.to_string());
    let refused = |error| bundle::refused(&source, &error);
    if config.trusted_keys()?.is_empty() {
        let (checked, _) = Bundle::inspect(tar).map_err(refused)?;
        bundle::compile(&source, &checked)?;
        context.out.note("no keys are trusted here, so who signed the bundle is left to the nodes to check")?;
        return Ok(checked.manifest.declared_ref().cloned());
    }
    let keys = context::trusted_keys(config)?;
    let checked = Bundle::verify(tar, &keys).map_err(refused)?;
    bundle::compile(&source, &checked)?;
    Ok(checked.manifest.declared_ref().cloned())
}

/// Whether some node of these is enrolled with the ref, or they are for the store to refuse.
fn may_pass(store: &dyn Store, nodes: &Selector, declared: Option<&EnrollmentRef>) -> Result<bool, CliError> {
    let (mut any, mut passes) = (false, false);
    let mut look = |row: Enrollment| {
        let is_chosen = row.status == Status::Active
            && match nodes {
                Selector::All | Selector::Nodes(_) => true,
                Selector::EnrollmentRef(enrollment_ref) => row.enrollment_ref == *enrollment_ref,
                Selector::RolloutState(state) => row.rollout_state == *state,
            };
        any |= is_chosen;
        passes |= is_chosen && Some(&row.enrollment_ref) == declared;
        if passes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    match nodes {
        Selector::Nodes(ids) => {
            for id in ids {
                if let Some(row) = store.get(id)?
                    && look(row.enrollment).is_break()
                {
                    break;
                }
            }
        }
        Selector::All | Selector::EnrollmentRef(_) | Selector::RolloutState(_) => store.for_each(&mut look)?,
    }
    Ok(passes || !any)
}

/// Looks until the rollout has ended, or goes on only when somebody resumes it, or for so long. Whoever cannot be asked is asked
/// again.
fn watch(
    out: &mut Output,
    rollouts: &dyn RolloutStore,
    mut rollout: Rollout,
    wait: Duration,
) -> Result<Rollout, CliError> {
    let (begun, mut said) = (Instant::now(), String::new());
    let bar = progress::bar(both(&rollout).total(), "{bar:40} {pos}/{len} nodes {msg}");
    while rollout.phase == Phase::Running && begun.elapsed() < wait {
        let counts = both(&rollout);
        bar.set_position(counts.active.saturating_add(counts.failed));
        bar.set_message(words(&counts));
        thread::sleep(if said.is_empty() { LOOK } else { PAUSE });
        match rollouts.rollout(&rollout.rollout_id) {
            Ok(looked) => (rollout, said) = (looked, String::new()),
            Err(error) if error.class() == ErrorClass::Unavailable && begun.elapsed() < wait => {
                let error = error.to_string();
                if said != error {
                    bar.suspend(|| out.warning(format_args!("asking again: {error}")))?;
                    said = error;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    bar.finish_and_clear();
    Ok(rollout)
}

impl Change {
    fn run(self, context: &mut Context<'_>, rollout_id: Option<RolloutId>, verb: Verb) -> Result<Exit, CliError> {
        let Self { by, store } = self;
        let config = context.config(&store.add_to(Flags::default()))?;
        let who = by.name(&config)?;
        let store = context::store(&config, Access::Change)?;
        let rollouts = store.rollouts();
        let id = match (rollout_id, verb) {
            (Some(id), _) => id,
            (None, Verb::Pause | Verb::Resume) => or_latest(rollouts, None)?,
            (None, Verb::Rollback) => return Err(which(rollouts)?),
        };
        let rollout = rollouts.command(&id, verb, &who, time::now_ms())?;
        let out = &mut context.out;
        if out.format() == Format::Json {
            out.json(&rollout)?;
            return Ok(Exit::Success);
        }
        let Rollout { rollout_id, phase, .. } = &rollout;
        out.line(format_args!("rollout {rollout_id} is {phase}: {}", words(&both(&rollout))))?;
        if *phase == Phase::RolledBack && both(&rollout).rolled_back > 0 {
            out.warning(
                "nodes that run no later bundle are denied in `enforce` until they do: `autonomy rollout create`, or wait for \
                 the rollout that has them",
            )?;
        }
        Ok(Exit::Success)
    }
}

fn both(rollout: &Rollout) -> Counts {
    rollout.canary.clone() + rollout.rest.clone()
}

/// The counts that are not zero.
fn words(counts: &Counts) -> String {
    let words = counts.by_name().into_iter().filter(|(_, count)| *count > 0);
    words.map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}

fn print_list(context: &mut Context<'_>, rollouts: Vec<Rollout>, more: bool) -> Result<Exit, CliError> {
    let next_before = rollouts.last().filter(|_| more).map(|rollout| rollout.rollout_id.clone());
    let out = &mut context.out;
    if out.format() == Format::Json {
        out.json(&Listed { rollouts, next_before })?;
        return Ok(Exit::Success);
    }
    let now_ms = time::now_ms();
    let mut table = out.table(["ROLLOUT_ID", "PHASE", "BEGUN", "BY", "NODES", "BUNDLE"]);
    for rollout in &rollouts {
        let begun = rollout.history.first();
        table.row([
            Cell::new(&rollout.rollout_id),
            phase_cell(rollout.phase),
            Cell::or_none(begun.map(|change| time::with_age(change.at_ms, now_ms))),
            Cell::or_none(begun.map(|change| &change.who)),
            Cell::new(words(&both(rollout))),
            Cell::new(&rollout.bundle),
        ])?;
    }
    table.finish()?;
    if rollouts.is_empty() {
        out.note("there is none: `autonomy rollout create` begins one")?;
    }
    if let Some(last) = next_before {
        out.note(format_args!("there are more: continue with `--before {last}`"))?;
    }
    Ok(Exit::Success)
}

fn print_rollout(
    context: &mut Context<'_>,
    rollout: Rollout,
    directives: Vec<Directive>,
    more: bool,
) -> Result<Exit, CliError> {
    let next_after = directives.last().filter(|_| more).map(|directive| directive.node_id.clone());
    let out = &mut context.out;
    if out.format() == Format::Json {
        out.json(&Shown { rollout, directives, next_after })?;
        return Ok(Exit::Success);
    }
    let now_ms = time::now_ms();
    out.fields([
        ("ROLLOUT_ID", Cell::new(&rollout.rollout_id)),
        ("BUNDLE", Cell::new(&rollout.bundle)),
        ("SELECTOR", Cell::new(&rollout.selector)),
        ("PHASE", phase_cell(rollout.phase)),
        (
            "CANARY",
            Cell::or_none(rollout.canary_percent.map(|percent| format!("{percent}%: {}", words(&rollout.canary)))),
        ),
        ("REST", Cell::or_none(Some(words(&rollout.rest)).filter(|words| !words.is_empty()))),
    ])?;
    out.line("")?;
    let mut table = out.table(["AT", "BY", "PHASE", "DETAIL"]);
    for change in &rollout.history {
        table.row([
            Cell::new(time::with_age(change.at_ms, now_ms)),
            Cell::new(&change.who),
            phase_cell(change.phase),
            Cell::or_none(change.detail.as_ref()),
        ])?;
    }
    table.finish()?;
    out.line("")?;
    let mut table = out.table(["NODE_ID", "WAVE", "STATE", "UPDATED", "DETAIL"]);
    for directive in &directives {
        let state = node::rollout_cell(&directive.state);
        table.row([
            Cell::new(&directive.node_id),
            Cell::new(directive.wave),
            if directive.is_current { state } else { state.faint() },
            Cell::new(time::with_age(directive.updated_at_ms, now_ms)),
            match &directive.detail {
                Some(detail) => Cell::new(detail),
                None if directive.is_current => Cell::none(),
                None => Cell::new("no longer this rollout's").faint(),
            },
        ])?;
    }
    table.finish()?;
    if let Some(last) = next_after {
        out.note(format_args!("there are more: continue with `--after {last}`"))?;
    }
    Ok(Exit::Success)
}

fn phase_cell(phase: Phase) -> Cell {
    let cell = Cell::new(phase);
    match phase {
        Phase::Running | Phase::Finished => cell.good(),
        Phase::Paused => cell.warn(),
        Phase::Stopped | Phase::RolledBack => cell.bad(),
    }
}
