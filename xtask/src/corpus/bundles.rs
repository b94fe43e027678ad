//! Bundles, good and hostile, each with what a reader must say of it.

mod archive;
mod envelope;
mod manifest;

use serde_json::{Value, json};
use std::collections::BTreeSet;

use super::make::{MANIFEST_TYPE, Piece, Signer, digest, envelope, segments, tar};
use crate::Result;

const POLICY: &str = "package autonomy\ndefault allow := false\n";
const POLICY_PATH: &str = "policies/allow.rego";
/// What the good bundle's manifest says; its file follows.
const HEAD: &str = r#"{"kind":"bundle","schema_version":"1.2","name":"fleet/patrol","version":"1.4.0","channel":"stable","policy_version":"7","provenance":{"enrollment_ref":"fleet-a"},"files":"#;

struct Table {
    a: Signer,
    b: Signer,
    cases: Vec<Value>,
}

/// Who is trusted: the first letters of `ab`, and how many of them must have signed.
#[derive(Clone, Copy)]
struct Trust(&'static str, usize);

const ONE: Trust = Trust("a", 1);
const ONE_OF_TWO: Trust = Trust("ab", 1);
const BOTH: Trust = Trust("ab", 2);

impl Table {
    fn case(&mut self, name: &str, trust: Trust, tar: &[u8], expected: (&str, Value)) {
        let keys: Vec<_> = trust.0.chars().map(String::from).collect();
        self.cases.push(json!({
            "name": name, "keys": keys, "threshold": trust.1, "tar": segments(tar), expected.0: expected.1,
        }));
    }

    fn refuse(&mut self, name: &str, tar: &[u8], message: &str) {
        self.case(name, ONE, tar, ("refused", json!(message)));
    }

    fn accept(&mut self, name: &str, trust: Trust, manifest: &str, files: &[(&str, &[u8])], signers: &[&Signer]) {
        let parsed: Value = serde_json::from_str(manifest).unwrap_or_default();
        let declares = parsed["schema_version"] != "1.1";
        let trusted = trust.0.chars().map(|name| if name == 'a' { &self.a } else { &self.b });
        let trusted: Vec<_> = trusted.map(|signer| &signer.id).collect();
        let accepted = json!({
            "digest": digest(manifest),
            "enrollment_ref": if declares { parsed["provenance"]["enrollment_ref"].clone() } else { Value::Null },
            "policy_ref": format!("{}@{}", parsed["name"].as_str().unwrap_or_default(), parsed["version"].as_str().unwrap_or_default()),
            "schema_version": parsed["schema_version"],
            "files": files.iter().map(|(path, data)| json!([path, digest(data)])).collect::<Vec<_>>(),
            "signers": signers.iter().map(|signer| &signer.id).filter(|id| trusted.contains(id)).collect::<Vec<_>>(),
        });
        let tar = tar(&seal(manifest, files, signers));
        self.case(name, trust, &tar, ("accepted", accepted));
    }
}

/// A manifest, the envelope of these signers, and the files.
fn seal(manifest: &str, files: &[(&str, &[u8])], signers: &[&Signer]) -> Vec<Piece> {
    with_envelope(manifest, files, &envelope(MANIFEST_TYPE, manifest, signers))
}

fn with_envelope(manifest: &str, files: &[(&str, &[u8])], envelope: &str) -> Vec<Piece> {
    let mut pieces = vec![Piece::file("manifest.json", manifest), Piece::file("manifest.dsse.json", envelope)];
    pieces.extend(files.iter().map(|(path, data)| Piece::file(path, *data)));
    pieces
}

/// The `files` of a manifest.
fn listed(files: &[(&str, &[u8])]) -> String {
    let files: Vec<_> = files.iter().map(|(path, data)| format!(r#""{path}":"{}""#, digest(data))).collect();
    format!("{{{}}}", files.join(","))
}

/// The whole corpus as JSON, a bundle a line.
pub fn corpus() -> Result<String> {
    let [a, b] = ["a", "b"].map(Signer::named);
    let keys = json!({ "a": a.pem, "b": b.pem });
    let mut table = Table { a, b, cases: Vec::new() };
    good(&mut table);
    archive::headers(&mut table);
    archive::paths(&mut table);
    archive::layout(&mut table);
    archive::ends(&mut table);
    manifest::faults(&mut table);
    envelope::faults(&mut table);
    let names: BTreeSet<_> = table.cases.iter().map(|case| case["name"].as_str()).collect();
    if names.len() != table.cases.len() {
        return Err("two bundles of the corpus have the same name".into());
    }
    let cases: Vec<_> = table.cases.iter().map(Value::to_string).collect();
    Ok(format!(
        "{{\n\"format\":\"autonomy-bundle-corpus\",\"version\":1,\n\"keys\":{keys},\n\"bundles\":[\n{}\n]}}\n",
        cases.join(",\n")
    ))
}

fn good(t: &mut Table) {
    // Nobody trusts `c`.
    let [a, b, c] = ["a", "b", "c"].map(Signer::named);
    let policy: &[(&str, &[u8])] = &[(POLICY_PATH, POLICY.as_bytes())];
    let manifest = format!("{HEAD}{}}}", listed(policy));
    t.accept("good: one policy, one key", ONE, &manifest, policy, &[&a]);
    t.accept("good: two keys of two", BOTH, &manifest, policy, &[&a, &b]);
    t.accept("good: two keys of two, in the other order", BOTH, &manifest, policy, &[&b, &a]);
    t.accept("good: one key of two", ONE_OF_TWO, &manifest, policy, &[&b]);
    t.accept("good: a key that is not trusted signs too", ONE, &manifest, policy, &[&c, &a]);
    let without = manifest.replace(r#""enrollment_ref":"fleet-a""#, "");
    t.accept("good: no enrollment ref", ONE, &without, policy, &[&a]);
    let without = manifest.replace(r#""provenance":{"enrollment_ref":"fleet-a"},"#, "");
    t.accept("good: no provenance", ONE, &without, policy, &[&a]);
    t.accept(
        "good: schema 1.1, whose enrollment ref does not count",
        ONE,
        &manifest.replace("1.2", "1.1"),
        policy,
        &[&a],
    );
    let later =
        manifest.replace("1.2", "1.3").replace(r#""fleet-a"}"#, r#""fleet-a","slsa":{"level":3}},"sbom":[null]"#);
    t.accept("good: schema 1.3 with fields that a later version adds", ONE, &later, policy, &[&a]);
    let spaced = manifest.replace(',', " ,\r\n\t");
    t.accept("good: white space in the manifest", ONE, &spaced, policy, &[&a]);
    let empty = format!("{HEAD}{{}}}}");
    t.accept("good: no files", ONE, &empty, &[], &[&a]);
    let long = "p".repeat(100);
    let (one, two, three) = ([1_u8; 511], [2_u8; 512], [3_u8; 513]);
    let sizes: &[(&str, &[u8])] =
        &[("A", b""), ("a.b/_c-D", &one), ("data/512", &two), ("data/513", &three), (&long, b"\0")];
    t.accept(
        "good: files of 0, 511, 512 and 513 bytes, a path of 100",
        ONE,
        &format!("{HEAD}{}}}", listed(sizes)),
        sizes,
        &[&a],
    );
}
