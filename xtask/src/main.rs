//! Every developer command of the project: `cargo xtask help`.

mod bindings;
mod ci;
mod codegen;
mod corpus;
mod fuzz;
mod wasm;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const HELP: &str = "\
every developer command of the project

usage: cargo xtask <command>

  test              every test; installs what it needs
  test --quick      the decision's own tests, in well under a minute
  ci                formatting, lints, documentation, then every test
  test <language>   the package of one language of bindings/, held to docs/src/spec/conformance.md
  test together     a runtime in each language on one node, while half of the nodes are revoked and the host is killed
  bench             every benchmark, with ratios against its peers
  bench <language>  those of one language
  codegen           write what is generated from gate-core/reasons.toml and from the types of what is published;
                    --check fails when the former is stale, a test when the latter is
  corpus            write tests/corpus/*.json, what every implementation must answer; --check fails when one is stale
  c-header          write bindings/c/include/autonomy_gate.h; `test c` fails when it is stale
  fuzz <seconds>    look for inputs on which gate.wasm and gate-core differ; needs a nightly compiler
  package <language>
                    write the package of one language as its users get it, and say where
  wasm              write gate-wasm/gate.wasm; --check fails when it is stale
";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    let root = root()?;
    match arguments {
        ["test"] => ci::test(&root),
        ["test", "--quick"] => ci::quick(&root),
        ["ci"] => ci::ci(&root),
        ["bench"] => ci::bench(&root),
        ["codegen"] => codegen::write(&root),
        ["codegen", "--check"] => codegen::check_fresh(&root),
        ["corpus"] => corpus::write(&root),
        ["corpus", "--check"] => corpus::check_fresh(&root),
        ["bench", language] => bindings::bench(&root, language),
        ["c-header"] => bindings::header(&root),
        ["package", language] => bindings::package(&root, language),
        ["test", "together"] => bindings::test_together(&root),
        ["fuzz", seconds] => fuzz::run(&root, seconds),
        ["test", language] => bindings::test(&root, language),
        ["wasm"] => wasm::write(&root),
        ["wasm", "--check"] => wasm::check_fresh(&root),
        ["wasm", "--doctored"] => wasm::write_doctored(&root),
        ["help" | "--help" | "-h"] | [] => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(format!("`{}` is not a command\n\n{HELP}", other.join(" ")).into()),
    }
}

fn root() -> Result<PathBuf> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("xtask lies outside the workspace")?.to_owned())
}
