//! Manifests that are signed, and refused.

use super::{HEAD, POLICY, POLICY_PATH, Table, listed, seal};
use crate::corpus::make::{digest, tar};

/// Manifests that a trusted key has signed and that are refused all the same.
pub(super) fn faults(t: &mut Table) {
    let policy: &[(&str, &[u8])] = &[(POLICY_PATH, POLICY.as_bytes())];
    let sound = format!("{HEAD}{}}}", listed(policy));
    let mut fault = |name: &str, from: &str, to: &str, message: &str| {
        let manifest = if from.is_empty() { to.to_owned() } else { sound.replacen(from, to, 1) };
        // A fault that changes nothing would prove nothing.
        let name = if manifest == sound { "?" } else { name };
        let tar = tar(&seal(&manifest, policy, &[&t.a]));
        t.refuse(name, &tar, &format!("manifest: {message}"));
    };
    let upper = digest(POLICY).to_uppercase().replace("SHA256", "sha256");
    let long = "p".repeat(101);
    let too_long = format!("files `{long}`: the path is longer than 100 bytes");
    let deep = format!(r#","x":{}1{}}}"#, "[".repeat(32), "]".repeat(32));
    let control = r#""fleet-a","source":"a\u0007b"}"#;
    let rules = [
        (
            "manifest: schema 2.0",
            r#""1.2""#,
            r#""2.0""#,
            "schema version `2.0` is not read: this version reads `1.x`; upgrade, or rebuild the bundle",
        ),
        (
            "manifest: schema 0.9",
            r#""1.2""#,
            r#""0.9""#,
            "schema version `0.9` is not read: this version reads `1.x`; upgrade, or rebuild the bundle",
        ),
        (
            "manifest: unknown field in schema 1.2",
            r#""kind""#,
            r#""sbom":[],"kind""#,
            "field `sbom` is not known in schema 1.2: remove it",
        ),
        (
            "manifest: unknown field of provenance in schema 1.2",
            r#"{"enr"#,
            r#"{"slsa":3,"enr"#,
            "field `provenance.slsa` is not known in schema 1.2: remove it",
        ),
        (
            "manifest: version that is not semantic",
            "1.4.0",
            "1.4",
            "version `1.4`: use a semantic version such as `1.4.0`",
        ),
        (
            "manifest: version with a leading zero",
            "1.4.0",
            "1.04.0",
            "version `1.04.0`: use a semantic version such as `1.4.0`",
        ),
        (
            "manifest: name in upper case",
            "fleet/patrol",
            "Fleet/patrol",
            "name `Fleet/patrol`: use 1 to 128 of `a-z 0-9 . _ - /`, each part starting with a letter or digit",
        ),
        (
            "manifest: name that climbs",
            "fleet/patrol",
            "fleet/../patrol",
            "name `fleet/../patrol`: use 1 to 128 of `a-z 0-9 . _ - /`, each part starting with a letter or digit",
        ),
        (
            "manifest: empty name",
            "fleet/patrol",
            "",
            "name ``: use 1 to 128 of `a-z 0-9 . _ - /`, each part starting with a letter or digit",
        ),
        (
            "manifest: policy version with a space",
            r#""7""#,
            r#""7 ""#,
            "policy_version `7 `: use 1 to 64 printable ASCII characters without spaces",
        ),
        (
            "manifest: empty policy version",
            r#""7""#,
            r#""""#,
            "policy_version ``: use 1 to 64 printable ASCII characters without spaces",
        ),
        (
            "manifest: enrollment ref with a trailing space",
            "fleet-a",
            "fleet-a ",
            "provenance.enrollment_ref `fleet-a `: enrollment ref `fleet-a ` starts or ends with a space: remove it",
        ),
        (
            "manifest: enrollment ref with a look-alike dash",
            "fleet-a",
            "fleet\u{2011}a",
            "provenance.enrollment_ref `fleet\u{2011}a`: enrollment ref `fleet\u{2011}a` holds `\u{2011}` (U+2011), which only looks like `-`: type a plain `-`",
        ),
        (
            "manifest: empty enrollment ref",
            "fleet-a",
            "",
            "provenance.enrollment_ref ``: enrollment ref is empty: use 1 to 256 printable ASCII characters without spaces",
        ),
        (
            "manifest: control character in provenance",
            r#""fleet-a"}"#,
            control,
            "provenance `a\\u{7}b`: use at most 1024 bytes without control and bidirectional formatting characters",
        ),
        (
            "manifest: text direction overridden in provenance",
            r#""fleet-a"}"#,
            "\"fleet-a\",\"source\":\"a\u{202e}b\"}",
            "provenance `a\\u{202e}b`: use at most 1024 bytes without control and bidirectional formatting characters",
        ),
        (
            "manifest: lists a path that climbs",
            POLICY_PATH,
            "../allow.rego",
            "files `../allow.rego`: the path holds `..`",
        ),
        ("manifest: lists an absolute path", POLICY_PATH, "/allow.rego", "files `/allow.rego`: the path is absolute"),
        ("manifest: lists a path of 101 bytes", POLICY_PATH, &long, &too_long),
        (
            "manifest: lists itself",
            POLICY_PATH,
            "manifest.json",
            "files `manifest.json`: the manifest and its envelope are not listed",
        ),
        (
            "manifest: lists its envelope in another case",
            POLICY_PATH,
            "Manifest.dsse.json",
            "files `Manifest.dsse.json`: the manifest and its envelope are not listed",
        ),
        // What follows is not the JSON of a manifest; the place is that of the JSON reader.
        ("manifest: a key twice", r#""kind""#, r#""name":"x","kind""#, "key `name` stands twice"),
        ("manifest: a key twice, once escaped", r#""kind""#, r#""n\u0061me":"x","kind""#, "key `name` stands twice"),
        (
            "manifest: a key twice in provenance",
            r#"{"enr"#,
            r#"{"enrollment_ref":"x","enr"#,
            "key `enrollment_ref` stands twice",
        ),
        (
            "manifest: a file twice",
            &format!(r#""{POLICY_PATH}""#),
            &format!(r#""policies\/allow.rego":"x","{POLICY_PATH}""#),
            "key `policies/allow.rego` stands twice",
        ),
        (
            "manifest: an unknown key twice in schema 1.3",
            r#"1.2""#,
            r#"1.3","x":{"y":1,"y":2}"#,
            "key `y` stands twice",
        ),
        (
            "manifest: schema 1.02",
            r#""1.2""#,
            r#""1.02""#,
            "`schema_version`: schema version `1.02` is not `<major>.<minor>`",
        ),
        ("manifest: schema 1", r#""1.2""#, r#""1""#, "`schema_version`: schema version `1` is not `<major>.<minor>`"),
        (
            "manifest: schema 1.2.0",
            r#""1.2""#,
            r#""1.2.0""#,
            "`schema_version`: schema version `1.2.0` is not `<major>.<minor>`",
        ),
        ("manifest: schema as a number", r#""1.2""#, "1.2", "`schema_version`: found a number, expected a string"),
        (
            "manifest: schema beyond 65535",
            r#""1.2""#,
            r#""1.65536""#,
            "`schema_version`: schema version `1.65536` is not `<major>.<minor>`",
        ),
        ("manifest: name is null", r#""fleet/patrol""#, "null", "`name`: found `null`, expected a string"),
        (
            "manifest: enrollment ref is null",
            r#""fleet-a""#,
            "null",
            "`provenance`: `enrollment_ref`: found `null`, expected a string",
        ),
        (
            "manifest: enrollment ref is a number",
            r#""fleet-a""#,
            "7",
            "`provenance`: `enrollment_ref`: found a number, expected a string",
        ),
        (
            "manifest: provenance is null",
            r#"{"enrollment_ref":"fleet-a"}"#,
            "null",
            "`provenance`: found `null`, expected an object",
        ),
        (
            "manifest: provenance is a list",
            r#"{"enrollment_ref":"fleet-a"}"#,
            r#"["fleet-a"]"#,
            "`provenance`: found a list, expected an object",
        ),
        ("manifest: kind of something else", r#""bundle""#, r#""lease""#, "`kind`: `lease` is not known: use `bundle`"),
        (
            "manifest: kind as an object",
            r#""bundle""#,
            r#"{"bundle":null}"#,
            "`kind`: found an object, expected a string",
        ),
        (
            "manifest: channel that is not known",
            r#""stable""#,
            r#""Stable""#,
            "`channel`: `Stable` is not known: use `dev`, `canary` or `stable`",
        ),
        (
            "manifest: channel as an object",
            r#""stable""#,
            r#"{"stable":null}"#,
            "`channel`: found an object, expected a string",
        ),
        (
            "manifest: digest in upper case",
            &digest(POLICY),
            &upper,
            "`files`: `policies/allow.rego`: `sha256:ADE43F03974EF38EC122AF7F36E7EA1601F811E14FC8B802B388FA6003D37AB0` is not a digest: write `sha256:` and 64 lower-case hexadecimal digits",
        ),
        (
            "manifest: digest of another kind",
            &digest(POLICY),
            "md5:00",
            "`files`: `policies/allow.rego`: `md5:00` is not a digest: write `sha256:` and 64 lower-case hexadecimal digits",
        ),
        ("manifest: no files member", r#""files""#, r#""file""#, "`files`: is missing, expected an object"),
        ("manifest: files is a list", &listed(policy), "[]", "`files`: found a list, expected an object"),
        (
            "manifest: nested too deep",
            r#""files""#,
            &format!("{}\"files\"", deep.trim_start_matches(',').trim_end_matches('}').to_owned() + ","),
            "nested deeper than 32 levels at byte 197",
        ),
        ("manifest: bytes behind it", r#"{"kind""#, r#"{}{"kind""#, "more text at byte 2, after the value"),
        ("manifest: byte order mark", r#"{"kind""#, "\u{feff}{\"kind\"", "no value at byte 0"),
        ("manifest: a lone surrogate", "fleet-a", r"\ud800", "no escape at byte 152"),
        ("manifest: empty", "", " ", "the text ends at byte 1, where a value is wanted"),
        ("manifest: a list", "", "[]", "found a list, expected an object"),
    ];
    for (name, from, to, message) in rules {
        fault(name, from, to, message);
    }
}
