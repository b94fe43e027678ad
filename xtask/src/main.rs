//! Every developer command of the project: `cargo xtask help`.

mod codegen;
mod corpus;

use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const HELP: &str = "\
every developer command of the project

usage: cargo xtask <command>

  codegen   write what is generated from gate-core/reasons.toml
  corpus    write tests/corpus/*.json, what every implementation must answer; --check fails when one is stale
";

fn main() -> Result<()> {
    let root = root()?;
    let check = std::env::args().nth(2).as_deref() == Some("--check");
    match std::env::args().nth(1).as_deref() {
        Some("codegen") => codegen::write(&root),
        Some("codegen-check") => codegen::check_fresh(&root),
        Some("corpus") if check => corpus::check_fresh(&root),
        Some("corpus") => corpus::write(&root),
        Some("help" | "--help" | "-h") | None => {
            print!("{HELP}");
            Ok(())
        }
        Some(other) => Err(format!("`{other}` is not a command\n\n{HELP}").into()),
    }
}

fn root() -> Result<PathBuf> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("xtask lies outside the workspace")?.to_owned())
}
