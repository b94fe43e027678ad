//! Writes the corpora that every implementation runs: `tests/corpus/*.json`.
//!
//! They are an opinion of their own: nothing here uses gate-core. Format: `docs/src/spec/corpus.md`.

mod bundles;
mod decision;
mod make;
mod signatures;

use std::{fs, path::Path};

use crate::Result;

fn outputs() -> Result<[(&'static str, String); 3]> {
    Ok([
        ("tests/corpus/bundles.json", bundles::corpus()?),
        ("tests/corpus/decision.json", decision::corpus()?),
        ("tests/corpus/signatures.json", signatures::corpus()?),
    ])
}

/// Writes the corpora.
pub fn write(root: &Path) -> Result<()> {
    fs::create_dir_all(root.join("tests/corpus"))?;
    for (path, content) in outputs()? {
        if fs::read_to_string(root.join(path)).ok().as_deref() != Some(&content) {
            fs::write(root.join(path), content)?;
            println!("wrote {path}");
        }
    }
    Ok(())
}

/// Fails when a corpus is not what this program writes.
pub fn check_fresh(root: &Path) -> Result<()> {
    for (path, content) in outputs()? {
        if fs::read_to_string(root.join(path)).ok().as_deref() != Some(&content) {
            return Err(format!("`{path}` is stale: run `cargo xtask corpus` and commit it").into());
        }
    }
    Ok(())
}
