//! `autonomy rollout`

use clap::{
    Subcommand,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use gate_core::{NodeId, RolloutState};

use crate::{
    args::StoreFlag,
    context::{self, Access, Context, Flags},
    error::{CliError, Exit},
    node::{self, By},
    time,
};

/// Say where a node's rollout stands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Set a node's rollout state. The node's very next decision sees it.
    ///
    /// `none`, `pending`, `acknowledged` and `active` are good; `rolled_back` and `failed` deny.
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

impl Command {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let Self::Set { node_id, state, by, store } = self;
        let config = context.config(&store.add_to(Flags::default()))?;
        let who = by.name(&config)?;
        let store = context::store(&config, Access::Change)?;
        let mutation = store.set_rollout(&node_id, &state, &who, time::now_ms())?;
        node::print_mutation(context, &mutation)
    }
}
