//! Writes the corpora that every implementation runs: `tests/corpus/*.json`.
//!
//! They are an opinion of their own: nothing here uses gate-core. Format: `docs/src/spec/corpus.md`.

mod bundles;
mod decision;
mod make;
mod signatures;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;
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

/// The bytes of a tar that a corpus holds in segments: base64, or a count of zeros.
pub fn unpack(segments: &Value) -> Result<Vec<u8>> {
    let mut tar = Vec::new();
    for segment in segments.as_array().into_iter().flatten() {
        match segment.as_str() {
            Some(text) => tar.extend(BASE64_STANDARD.decode(text).map_err(|error| error.to_string())?),
            None => tar.resize(tar.len() + usize::try_from(segment.as_u64().unwrap_or_default())?, 0),
        }
    }
    Ok(tar)
}
