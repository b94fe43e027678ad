//! What is generated from the types of the code and published: the documents of gate.wasm as JSON Schema, and the native
//! host and the
//! orchestrator as OpenAPI. `cargo xtask codegen` writes the files by running this with `AUTONOMY_WRITE=1`.

use serde_json::Value;
use std::{env, fs};

use crate::support::root;

/// The file holds the document, or is made to.
pub(crate) fn is_published(path: &str, document: &Value) {
    let text = format!("{}\n", serde_json::to_string_pretty(document).unwrap());
    let file = root().join(path);
    if env::var_os("AUTONOMY_WRITE").is_some() {
        fs::write(file, text).unwrap();
        return;
    }
    let found = fs::read_to_string(file).unwrap_or_default();
    assert!(found == text, "`{path}` is stale: run `cargo xtask codegen` and commit it");
}

#[test]
fn published_documents_of_the_module() {
    is_published("docs/src/spec/gate.schema.json", gate_wasm::schema::schema().as_value());
}

#[test]
fn published_contract_of_the_native_host() {
    is_published("docs/src/spec/host.openapi.json", &host_native::host::openapi());
}

#[test]
fn published_contract_of_the_orchestrator() {
    is_published("docs/src/spec/orchestrator.openapi.json", &host_native::orchestrator::openapi());
}
