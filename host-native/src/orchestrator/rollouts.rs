//! The routes of rollouts and directives.

use axum::{
    Extension,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
};
use http::StatusCode;

use super::{Answer, App, Caller, Refusal, body, cut, found, limit, limit_to, no_body, node, query};
use crate::{
    enrollment::{
        Store,
        rollout::{Command, Order, Report, RolloutError, RolloutId},
        wire::{Current, Directives, DirectivesQuery, ROLLOUTS, Rollouts, RolloutsQuery},
    },
    gate::now_ms,
};

/// What a refusal is answered with.
pub(super) fn status(error: &RolloutError) -> StatusCode {
    match error {
        RolloutError::NotFound { .. } | RolloutError::NoDirective { .. } => StatusCode::NOT_FOUND,
        RolloutError::NoNodes { .. }
        | RolloutError::Revoked { .. }
        | RolloutError::Superseded { .. }
        | RolloutError::Transition { .. }
        | RolloutError::Phase { .. } => StatusCode::CONFLICT,
        RolloutError::Id { .. }
        | RolloutError::Selector { .. }
        | RolloutError::Canary { .. }
        | RolloutError::NotReported { .. } => StatusCode::BAD_REQUEST,
    }
}

fn rollout_id(text: &str) -> Result<RolloutId, Refusal> {
    RolloutId::parse(text).map_err(|error| Refusal::bad(error.to_string()))
}

fn path<T>(path: Result<Path<T>, PathRejection>) -> Result<T, Refusal> {
    let Path(path) = path.map_err(|_| Refusal::bad("the path is not UTF-8: escape its bytes again"))?;
    Ok(path)
}

pub(super) async fn list(
    State(app): App,
    Extension(caller): Extension<Caller>,
    asked: Result<Query<RolloutsQuery>, QueryRejection>,
) -> Answer {
    caller.to_read_all()?;
    let RolloutsQuery { before, limit: asked } = query(asked)?;
    let limit = limit_to(ROLLOUTS, asked)?;
    let mut rollouts = app.ask(move |store| store.rollouts().latest(before.as_ref(), limit.saturating_add(1))).await?;
    let more = cut(&mut rollouts, limit);
    let next_before = rollouts.last().filter(|_| more).map(|rollout| rollout.rollout_id.clone());
    Ok(found(&Rollouts { rollouts, next_before }))
}

pub(super) async fn create(State(app): App, Extension(caller): Extension<Caller>, bytes: Bytes) -> Answer {
    caller.to_change()?;
    let order: Order = body(&bytes)?;
    app.change(move |store| store.rollouts().create(&order, &caller.name, now_ms())).await
}

pub(super) async fn show(
    State(app): App,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
    asked: Result<Query<DirectivesQuery>, QueryRejection>,
) -> Answer {
    caller.to_read_all()?;
    let id = rollout_id(&path(id)?)?;
    let DirectivesQuery { after, limit: asked } = query(asked)?;
    let limit = limit(asked)?;
    let page = move |store: &dyn Store| {
        let store = store.rollouts();
        Ok((store.rollout(&id)?, store.directives(&id, after.as_ref(), limit.saturating_add(1))?))
    };
    let (rollout, mut directives) = app.ask(page).await?;
    let more = cut(&mut directives, limit);
    let next_after = directives.last().filter(|_| more).map(|directive| directive.node_id.clone());
    Ok(found(&Directives { rollout, directives, next_after }))
}

pub(super) async fn command(
    State(app): App,
    Extension(caller): Extension<Caller>,
    asked: Result<Path<(String, String)>, PathRejection>,
    bytes: Bytes,
) -> Answer {
    caller.to_change()?;
    let (id, word) = path(asked)?;
    let id = rollout_id(&id)?;
    let Some(command) = Command::from_word(&word) else {
        let why = format!("`{}` is not known: use `pause`, `resume` or `rollback`", word.escape_debug());
        return Err(Refusal(StatusCode::NOT_FOUND, why));
    };
    no_body(&bytes, command.as_str())?;
    app.change(move |store| store.rollouts().command(&id, command, &caller.name, now_ms())).await
}

pub(super) async fn directive(
    State(app): App,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
) -> Answer {
    let node_id = node(path)?;
    caller.to_read(&node_id)?;
    let directive = app.ask(move |store| store.rollouts().directive(&node_id)).await?;
    Ok(found(&Current { directive }))
}

pub(super) async fn directive_of(
    State(app): App,
    Extension(caller): Extension<Caller>,
    asked: Result<Path<(String, String)>, PathRejection>,
) -> Answer {
    let (node_id, id) = path(asked)?;
    let (node_id, id) = (node(Ok(Path(node_id)))?, rollout_id(&id)?);
    caller.to_read(&node_id)?;
    let directive = app.ask(move |store| store.rollouts().directive_of(&node_id, &id)).await?;
    Ok(found(&Current { directive }))
}

pub(super) async fn report(
    State(app): App,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    bytes: Bytes,
) -> Answer {
    let node_id = node(path)?;
    caller.to_report(&node_id)?;
    let report: Report = body(&bytes)?;
    let report = move |store: &dyn Store| store.rollouts().report(&node_id, &report, &caller.name, now_ms());
    app.change_in_turn(&app.reports, report).await
}
