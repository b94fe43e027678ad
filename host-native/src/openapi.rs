//! What the services' contracts for programs have in common: OpenAPI 3.1.

use std::collections::BTreeMap;

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::serve::{LIVE, METRICS, OWN_ANSWERS, READY, Route};

/// Where the types go whose schemas are asked for.
pub(crate) fn types() -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12();
    settings.with(|settings| settings.definitions_path = "/components/schemas".into()).into_generator()
}

/// A type, by its name.
pub(crate) fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A body that is a type.
pub(crate) fn content(name: &str) -> Value {
    json!({"application/json": {"schema": schema(name)}})
}

/// What is answered with these statuses, as they are meant, and with those of the listener itself; `good` with 200.
pub(crate) fn answers(meanings: &[(u16, &str)], good: Value, statuses: &[u16]) -> Value {
    let mut means: BTreeMap<u16, String> =
        OWN_ANSWERS.iter().map(|own| (own.status.as_u16(), own.means.to_owned())).collect();
    for (status, meaning) in meanings.iter().filter(|(status, _)| statuses.contains(status)) {
        let own = means.get(status).map(|own| format!("; or {own}")).unwrap_or_default();
        means.insert(*status, format!("{meaning}{own}"));
    }
    let answer = |(status, means)| {
        let answer = match status {
            // Without a body.
            304 | 431 => json!({"description": means}),
            200 => json!({"description": means, "content": good}),
            _ => json!({"description": means, "content": content("ErrorBody")}),
        };
        (status.to_string(), answer)
    };
    means.into_iter().map(answer).collect::<Map<_, _>>().into()
}

/// The paths of a contract, from the routes that serve them and what is said of each.
pub(crate) fn paths<S>(routes: impl IntoIterator<Item = (Route<S>, Value)>) -> Map<String, Value> {
    let mut paths = Map::new();
    for (Route { path, method, .. }, operation) in routes {
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[method] = operation;
    }
    paths
}

/// The paths of the contract, and those that every service has for an operator's tools: nobody has to say there who they are.
pub(crate) fn with_health(mut paths: Map<String, Value>) -> Value {
    let get = |id: &str, summary: &str, good: &str, statuses: &[u16]| {
        let text = json!({"text/plain": {"schema": {"type": "string"}}});
        let meanings = [(200, good), (405, "another method"), (503, "it should not, and why")];
        let answers = answers(&meanings, text, statuses);
        json!({"get": {"operationId": id, "summary": summary, "security": [], "responses": answers}})
    };
    let health = [
        (LIVE, get("live", "whether the process answers", "it does", &[200, 405])),
        (READY, get("ready", "whether it should be asked", "it should", &[200, 405, 503])),
        (METRICS, get("metrics", "what it has done, for Prometheus", "the metrics", &[200, 405])),
    ];
    paths.extend(health.map(|(path, methods)| (path.to_owned(), methods)));
    paths.into()
}
