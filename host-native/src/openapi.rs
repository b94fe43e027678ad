//! What the services' contracts for programs have in common: OpenAPI 3.1.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::serve::{LIVE, METRICS, READY};

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

/// What is answered with these statuses, out of those that have a meaning; `good` with 200.
pub(crate) fn answers(meanings: &[(u16, &str)], good: &str, statuses: &[u16]) -> Value {
    let answer = |(status, means): &(u16, &str)| {
        let answer = match status {
            // Without a body; the listener itself answers 431.
            304 | 431 => json!({"description": means}),
            200 => json!({"description": means, "content": content(good)}),
            _ => json!({"description": means, "content": content("ErrorBody")}),
        };
        (status.to_string(), answer)
    };
    meanings.iter().filter(|(status, _)| statuses.contains(status)).map(answer).collect::<Map<_, _>>().into()
}

/// The paths of the contract, and those that every service has for an operator's tools: nobody has to say there who they are.
pub(crate) fn with_health(mut paths: Value) -> Value {
    let refused = |means: &str| json!({"description": means, "content": content("ErrorBody")});
    let get = |id: &str, summary: &str, good: &str, unavailable: &str| {
        let text = json!({"description": good, "content": {"text/plain": {"schema": {"type": "string"}}}});
        let answers = json!({
            "200": text,
            "405": refused("another method"),
            "431": {"description": "the head is too large"},
            "503": refused(unavailable),
        });
        json!({"get": {"operationId": id, "summary": summary, "security": [], "responses": answers}})
    };
    let many = "there are too many connections";
    let health = json!({
        LIVE: get("live", "whether the process answers", "it does", many),
        READY: get("ready", "whether it should be asked", "it should", "it should not, and why"),
        METRICS: get("metrics", "what it has done, for Prometheus", "the metrics", many),
    });
    if let (Value::Object(paths), Value::Object(health)) = (&mut paths, health) {
        paths.extend(health);
    }
    paths
}
