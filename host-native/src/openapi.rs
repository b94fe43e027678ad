//! What the services' contracts for programs have in common: OpenAPI 3.1.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

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
            304 => json!({"description": means}),
            200 => json!({"description": means, "content": content(good)}),
            _ => json!({"description": means, "content": content("ErrorBody")}),
        };
        (status.to_string(), answer)
    };
    meanings.iter().filter(|(status, _)| statuses.contains(status)).map(answer).collect::<Map<_, _>>().into()
}
