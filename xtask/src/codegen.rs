//! Writes what is generated from `gate-core/reasons.toml`, so that each reason is defined once.

mod c;
mod go;
mod java;
mod markdown;
mod python;
mod rust;
mod typescript;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::{fs, path::Path};

use crate::{Result, ci};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reasons {
    reason: Vec<Reason>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    number: u8,
    wire: String,
    means: String,
    remedy: String,
    since: String,
}

impl Reason {
    fn class(&self) -> &str {
        self.wire.split(": ").next().unwrap_or_default()
    }

    fn word(&self) -> &str {
        self.wire.split(": ").nth(1).unwrap_or_default()
    }

    fn variant(&self) -> String {
        camel(self.word())
    }

    fn anchor(&self) -> String {
        format!("{}-{}", self.class(), self.word().replace('_', "-"))
    }
}

fn camel(words: &str) -> String {
    let capitalise = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
    };
    words.split('_').map(capitalise).collect()
}

/// The classes in the order of the list, each with the first and last number it may use.
const CLASSES: [(&str, &str, u8, u8); 3] = [
    ("attestation", "What the gate found wrong, in the order of the sub-checks.", 1, 99),
    ("policy", "What the policy answered.", 101, 199),
    ("audit", "Why a decision could not be recorded.", 201, 255),
];

/// Every generated file with its content.
fn outputs(root: &Path) -> Result<Vec<(&'static str, String)>> {
    let text = fs::read_to_string(root.join("gate-core/reasons.toml"))?;
    let reasons = toml::from_str::<Reasons>(&text)?.reason;
    check(&reasons)?;
    Ok(vec![
        ("gate-core/src/reason.rs", rust::enums(root, &reasons)?),
        ("docs/src/reasons.md", markdown::page(&reasons)),
        ("bindings/c/src/reasons.rs", c::table(&reasons)),
        ("bindings/js/src/reasons.ts", typescript::union(&reasons)),
        ("bindings/python/src/autonomy_gate/reasons.py", python::enumeration(&reasons)),
        ("bindings/go/reasons.go", go::constants(&reasons)),
        ("bindings/java/src/main/java/dev/autonomygate/Reason.java", java::reasons(&reasons)),
    ])
}

/// Writes the generated files, and those that come from the types of the code.
pub fn write(root: &Path) -> Result<()> {
    for (path, content) in outputs(root)? {
        if fs::read_to_string(root.join(path)).ok().as_deref() != Some(&content) {
            fs::write(root.join(path), content)?;
            println!("wrote {path}");
        }
    }
    let mut published = ci::cargo(root);
    published
        .args(["test", "--locked", "--quiet", "--package", "autonomy-tests", "published"])
        .env("AUTONOMY_WRITE", "1");
    ci::step("what is published", &mut published)
}

/// Fails when a generated file is not what the list says.
pub fn check_fresh(root: &Path) -> Result<()> {
    for (path, content) in outputs(root)? {
        if fs::read_to_string(root.join(path)).ok().as_deref() != Some(&content) {
            return Err(format!("`{path}` is stale: run `cargo xtask codegen` and commit it").into());
        }
    }
    Ok(())
}

fn check(reasons: &[Reason]) -> Result<()> {
    for pair in reasons.windows(2) {
        if let [a, b] = pair
            && a.number >= b.number
        {
            return Err(format!("reason {} does not come after {}: numbers only grow", b.number, a.number).into());
        }
    }
    for reason in reasons {
        let class = CLASSES.iter().find(|class| class.0 == reason.class());
        let Some((_, _, first, last)) = class else {
            return Err(format!("`{}` is of no known class", reason.wire).into());
        };
        if !(*first..=*last).contains(&reason.number) {
            return Err(format!("`{}` has number {}, outside {first} to {last}", reason.wire, reason.number).into());
        }
        if !reason.word().chars().all(|c| c.is_ascii_lowercase() || c == '_') || reason.word().is_empty() {
            return Err(format!("`{}`: use lower-case words joined by `_`", reason.wire).into());
        }
        if reason.means.contains('"') || reason.remedy.contains(['"', '\n']) {
            return Err(format!("`{}`: no double quotes or line breaks in its texts", reason.wire).into());
        }
    }
    Ok(())
}

/// `reasons` of `gate_info`: a module that knows these reasons gives the same.
fn digest(reasons: &[Reason]) -> String {
    let lines: String = reasons.iter().map(|reason| format!("{} {}\n", reason.number, reason.wire)).collect();
    let digest: String = Sha256::digest(lines).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digest}")
}
