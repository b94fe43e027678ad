//! Bundles, good and hostile, each with what a reader must say of it.

use serde_json::{Value, json};
use std::collections::BTreeSet;

use super::make::{MANIFEST_TYPE, Piece, Signer, base64, body, digest, envelope, envelope_of, segments, tar};
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
    headers(&mut table);
    paths(&mut table);
    layout(&mut table);
    ends(&mut table);
    manifests(&mut table);
    envelopes(&mut table);
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

/// A good bundle's pieces, for one fault to be put into them.
fn sound(t: &Table) -> Vec<Piece> {
    let policy: &[(&str, &[u8])] = &[(POLICY_PATH, POLICY.as_bytes())];
    seal(&format!("{HEAD}{}}}", listed(policy)), policy, &[&t.a])
}

fn size(pieces: &[Piece]) -> usize {
    pieces.iter().map(Piece::len).sum()
}

/// Faults of one header, put after the entries of a good bundle.
fn headers(t: &mut Table) {
    let sound = sound(t);
    let at = size(&sound);
    let mut fault = |name: &str, piece: Piece, message: &str| {
        let path: String =
            piece.header.iter().take(100).take_while(|byte| **byte != 0).map(|b| char::from(*b)).collect();
        let tar = tar(&[sound.as_slice(), &[piece]].concat());
        t.refuse(name, &tar, &format!("tar entry `{path}` at byte {at}: {message}"));
    };
    let regular = || Piece::file("policies/z.rego", POLICY);
    fault(
        "hard link",
        Piece::typed("policies/z.rego", b'1', "").with(157, POLICY_PATH.as_bytes()),
        "a hard link: only regular files are read",
    );
    fault(
        "symbolic link",
        Piece::typed("policies/z.rego", b'2', "").with(157, b"/etc/passwd"),
        "a symbolic link: only regular files are read",
    );
    fault("character device", Piece::typed("policies/z", b'3', ""), "a device: only regular files are read");
    fault("block device", Piece::typed("policies/z", b'4', ""), "a device: only regular files are read");
    fault("directory", Piece::typed("policies/", b'5', ""), "a directory: only regular files are read");
    fault("FIFO", Piece::typed("policies/z", b'6', ""), "a FIFO: only regular files are read");
    fault(
        "contiguous file",
        Piece::typed("policies/z.rego", b'7', POLICY),
        "entry type `7`: only regular files are read",
    );
    fault(
        "regular file of the old type, NUL",
        Piece::typed("policies/z.rego", 0, POLICY),
        r"entry type `\x00`: only regular files are read",
    );
    fault(
        "type that a vendor invents",
        Piece::typed("policies/z.rego", b'Z', POLICY),
        "entry type `Z`: only regular files are read",
    );
    fault(
        "PAX header",
        Piece::typed("PaxHeaders/z", b'x', "15 path=z.rego\n"),
        "a PAX extended header: only plain USTAR is read",
    );
    fault(
        "PAX header that gives the path twice",
        Piece::typed("PaxHeaders/z", b'x', "15 path=a.rego\n15 path=b.rego\n"),
        "a PAX extended header: only plain USTAR is read",
    );
    fault(
        "PAX header that gives the size",
        Piece::typed("PaxHeaders/z", b'x', "10 size=0\n"),
        "a PAX extended header: only plain USTAR is read",
    );
    fault(
        "global PAX header",
        Piece::typed("pax_global_header", b'g', "15 path=z.rego\n"),
        "a PAX global header: only plain USTAR is read",
    );
    fault(
        "Solaris PAX header",
        Piece::typed("PaxHeaders/z", b'X', "15 path=z.rego\n"),
        "entry type `X`: only regular files are read",
    );
    fault(
        "GNU long name",
        Piece::typed("././@LongLink", b'L', "policies/z.rego\0"),
        "a GNU long name: only plain USTAR is read",
    );
    fault(
        "GNU long link",
        Piece::typed("././@LongLink", b'K', "policies/z.rego\0"),
        "a GNU long link: only plain USTAR is read",
    );
    fault(
        "GNU sparse file",
        Piece::typed("policies/z.rego", b'S', POLICY),
        "a sparse file: only regular files are read",
    );
    fault(
        "GNU multi-volume",
        Piece::typed("policies/z.rego", b'M', POLICY),
        "entry type `M`: only regular files are read",
    );
    fault("GNU format", regular().with(257, b"ustar  \0"), "GNU tar format: only USTAR is read");
    fault(
        "GNU format with a sparse file",
        Piece::typed("policies/z.rego", b'S', POLICY).with(257, b"ustar  \0"),
        "GNU tar format: only USTAR is read",
    );
    fault("v7 format, no magic", regular().with(257, &[0; 8]), "not a USTAR header");
    fault("USTAR of another version", regular().with(257, b"ustar\x0001"), "not a USTAR header");
    fault(
        "size in base 256",
        regular().with(124, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 41]),
        "a binary (base-256) size: sizes are octal",
    );
    fault("negative size in base 256", regular().with(124, &[0xff; 12]), "a binary (base-256) size: sizes are octal");
    fault("size that is not octal", regular().with(124, b"00000000089\0"), "the size is not eleven octal digits");
    fault("size with leading spaces", regular().with(124, b"         51\0"), "the size is not eleven octal digits");
    fault("size with a sign", regular().with(124, b"+0000000051\0"), "the size is not eleven octal digits");
    fault(
        "size that ends in a space",
        regular().with(124, b"00000000051 "),
        "the header's size is not what a bundle's header holds",
    );
    fault(
        "size of twelve digits",
        regular().with(124, b"000000000510"),
        "the header's size is not what a bundle's header holds",
    );
    fault("size larger than the tar", regular().with(124, b"77777777777\0"), "the file is cut short");
    fault(
        "checksum that does not hold",
        regular().with_unsummed(148, b"0000000\0"),
        "the header's checksum does not hold",
    );
    let sum = regular().sum();
    fault(
        "checksum as six digits, NUL, space",
        regular().with_unsummed(148, format!("{sum:06o}\0 ").as_bytes()),
        "the header's checksum does not hold",
    );
    fault(
        "checksum with leading spaces",
        regular().with_unsummed(148, format!("{sum:7o}\0").as_bytes()),
        "the header's checksum does not hold",
    );
    fault(
        "checksum that ends in a space",
        regular().with_unsummed(148, format!("{sum:07o} ").as_bytes()),
        "the header's checksum is not what a bundle's header holds",
    );
    // A sum of signed bytes is another number.
    let high = regular().with(345, &[0xff; 150]);
    let signed = i64::from(high.sum()) - 150 * 256;
    fault(
        "checksum of signed bytes",
        high.with_unsummed(148, format!("{signed:07o}\0").as_bytes()),
        "the header's checksum does not hold",
    );
    for (name, place, bytes) in [
        ("mode", 100, b"0000755\0".as_slice()),
        ("owner", 108, b"0001750\0"),
        ("group", 116, b"0001750\0"),
        ("modification time", 136, b"14371573400\0"),
        ("link name", 157, b"z"),
        ("owner name", 265, b"root"),
        ("group name", 297, b"root"),
        ("device major", 329, b"0000000\0"),
        ("device minor", 337, b"0000000\0"),
        ("path prefix", 345, b"prefix"),
        ("unused end", 500, b"tar\0"),
    ] {
        let message = format!("the header's {name} is not what a bundle's header holds");
        fault(&format!("{name} in a header"), regular().with(place, bytes), &message);
    }
}

/// Faults of a path.
fn paths(t: &mut Table) {
    let sound = sound(t);
    let at = size(&sound);
    let path_fault = |t: &mut Table, name: &str, path: &[u8], shown: &str, message: &str| {
        let tar = tar(&[sound.as_slice(), &[Piece::file("", "").with(0, path)]].concat());
        t.refuse(name, &tar, &format!("tar entry `{shown}` at byte {at}: {message}"));
    };
    let character = "the path holds a character outside `A-Z a-z 0-9 . _ - /`";
    for (name, path, message) in [
        ("empty path", "", "the path is empty"),
        ("absolute path", "/etc/passwd", "the path is absolute"),
        ("path with `..`", "policies/../../etc/passwd", "the path holds `..`"),
        ("path that is `..`", "..", "the path holds `..`"),
        ("path with a `.` segment", "policies/./z.rego", "the path holds a `.` segment"),
        ("path that begins with `./`", "./policies/z.rego", "the path holds a `.` segment"),
        ("path with an empty segment", "policies//z.rego", "the path holds an empty segment"),
        ("path that ends in a slash", "policies/z.rego/", "the path holds an empty segment"),
        ("path with a space", "policies/z z.rego", character),
        ("path with a colon", "c:z.rego", character),
        ("path with a tilde", "~z", character),
    ] {
        path_fault(t, name, path.as_bytes(), path, message);
    }
    path_fault(t, "path with a backslash", br"policies\z.rego", r"policies\\z.rego", character);
    path_fault(t, "path with a line break", b"policies/z\n.rego", r"policies/z\n.rego", character);
    path_fault(
        t,
        "path that is not ASCII",
        "policies/\u{ff0e}rego".as_bytes(),
        r"policies/\xef\xbc\x8erego",
        character,
    );
    path_fault(t, "path that is not UTF-8", b"policies/\xff.rego", r"policies/\xff.rego", character);
    path_fault(
        t,
        "path with bytes behind its NUL",
        b"z\0/../etc",
        "z",
        "the header's path is not what a bundle's header holds",
    );
    let twin = |path: &str| tar(&[sound.as_slice(), &[Piece::file(path, POLICY)]].concat());
    t.refuse(
        "path twice",
        &twin(POLICY_PATH),
        &format!("tar entry `{POLICY_PATH}` at byte {at}: the path stands twice"),
    );
    t.refuse(
        "path that differs in case",
        &twin("policies/Allow.rego"),
        &format!("tar entry `policies/Allow.rego` at byte {at}: the path differs from `{POLICY_PATH}` only in upper and lower case"),
    );
    t.refuse(
        "manifest twice",
        &twin("manifest.json"),
        &format!("tar entry `manifest.json` at byte {at}: the path stands twice"),
    );
    for (name, path) in [
        ("file below a file", "policies/allow.rego/z"),
        ("file below a file, in another case", "Policies/ALLOW.rego/y/z"),
        ("file that is a directory", "policies"),
        ("file that is a directory, in another case", "Policies"),
    ] {
        let message =
            format!("tar entry `{path}` at byte {at}: with `{POLICY_PATH}`, one name is both a file and a directory");
        t.refuse(name, &twin(path), &message);
    }
    t.refuse(
        "manifest that differs in case",
        &twin("MANIFEST.json"),
        &format!(
            "tar entry `MANIFEST.json` at byte {at}: the path differs from `manifest.json` only in upper and lower case"
        ),
    );
}

/// Entries that are not where they must be, or not what the manifest says.
fn layout(t: &mut Table) {
    let sound = sound(t);
    let [manifest, envelope, policy] = sound.as_slice() else { return };
    let pieces = |pieces: &[&Piece]| tar(&pieces.iter().map(|piece| (*piece).clone()).collect::<Vec<_>>());
    t.refuse("no entries", &tar(&[]), "tar ends where `manifest.json` must stand");
    t.refuse("manifest alone", &pieces(&[manifest]), "tar ends where `manifest.dsse.json` must stand");
    t.refuse(
        "manifest not first",
        &pieces(&[policy, manifest, envelope]),
        "tar entry `policies/allow.rego` stands where `manifest.json` must",
    );
    t.refuse(
        "envelope first",
        &pieces(&[envelope, manifest, policy]),
        "tar entry `manifest.dsse.json` stands where `manifest.json` must",
    );
    t.refuse(
        "envelope not second",
        &pieces(&[manifest, policy, envelope]),
        "tar entry `policies/allow.rego` stands where `manifest.dsse.json` must",
    );
    let dotted = manifest.clone().with(0, b"./manifest.json");
    t.refuse(
        "manifest as ./manifest.json",
        &pieces(&[&dotted, envelope, policy]),
        "tar entry `./manifest.json` at byte 0: the path holds a `.` segment",
    );
    t.refuse(
        "file missing",
        &pieces(&[manifest, envelope]),
        "file `policies/allow.rego` is listed in the manifest and missing in the tar",
    );
    let other = |path: &str| Piece::file(path, POLICY);
    t.refuse(
        "file extra, last",
        &pieces(&[manifest, envelope, policy, &other("z")]),
        "file `z` is not listed in the manifest",
    );
    t.refuse(
        "file extra, first",
        &pieces(&[manifest, envelope, &other("a"), policy]),
        "file `a` is not listed in the manifest",
    );
    t.refuse(
        "file renamed",
        &pieces(&[manifest, envelope, &other("policies/b.rego")]),
        "file `policies/allow.rego` is listed in the manifest and missing in the tar",
    );
    t.refuse(
        "files out of order",
        &pieces(&[manifest, envelope, policy, &other("a")]),
        "tar entry `a` stands where a path after `policies/allow.rego` must",
    );
    t.refuse(
        "file changed",
        &pieces(&[manifest, envelope, &Piece::file(POLICY_PATH, "package autonomy\nallow := true\n")]),
        &format!(
            "file `{POLICY_PATH}` has digest `{}`, the manifest says `{}`",
            digest("package autonomy\nallow := true\n"),
            digest(POLICY)
        ),
    );
    let large = Piece::file("manifest.json", vec![0; (1 << 20) + 1]);
    t.refuse(
        "manifest too large",
        &pieces(&[&large, envelope]),
        "`manifest.json` has 1048577 bytes: at most 1048576 are read",
    );
    let large = Piece::file("manifest.dsse.json", vec![0; (2 << 20) + 1]);
    t.refuse(
        "envelope too large",
        &pieces(&[manifest, &large]),
        "`manifest.dsse.json` has 2097153 bytes: at most 2097152 are read",
    );
}

/// Faults behind the last entry, and tars that are cut.
fn ends(t: &mut Table) {
    let sound = sound(t);
    let at = size(&sound);
    let body = body(&sound);
    let followed_by = |zeros: usize, more: &[u8]| [body.as_slice(), &vec![0; zeros], more].concat();
    t.refuse("no bytes", &[], "tar at byte 0: the file ends without the two zero blocks of a complete tar");
    t.refuse(
        "no end",
        &body,
        &format!("tar at byte {at}: the file ends without the two zero blocks of a complete tar"),
    );
    t.refuse(
        "one zero block",
        &followed_by(512, &[]),
        &format!("tar at byte {at}: a zero block stands alone where two must end the tar"),
    );
    t.refuse("one zero block and a half", &followed_by(768, &[]), &format!("tar at byte {at}: the file is cut short"));
    t.refuse("half a zero block", &followed_by(256, &[]), &format!("tar at byte {at}: the file is cut short"));
    t.refuse(
        "three zero blocks",
        &followed_by(1536, &[]),
        &format!("tar at byte {at}: 512 bytes follow the end of the tar"),
    );
    t.refuse(
        "zeros to a record of 10240 bytes",
        &followed_by(10240 - at, &[]),
        &format!("tar at byte {at}: {} bytes follow the end of the tar", 10240 - at - 1024),
    );
    t.refuse(
        "one byte behind the end",
        &followed_by(1024, b"!"),
        &format!("tar at byte {at}: 1 bytes follow the end of the tar"),
    );
    let hidden = tar(&[Piece::file("policies/z.rego", POLICY)]);
    t.refuse(
        "entries behind the end",
        &followed_by(1024, &hidden),
        &format!("tar at byte {at}: {} bytes follow the end of the tar", hidden.len()),
    );
    t.refuse(
        "entries behind one zero block",
        &followed_by(512, &hidden),
        &format!("tar at byte {at}: a zero block stands alone where two must end the tar"),
    );
    let last = at - 1024;
    let cut = |bytes: usize| body.iter().copied().take(bytes).collect::<Vec<_>>();
    t.refuse("cut in a header", &cut(last + 100), &format!("tar at byte {last}: the file is cut short"));
    t.refuse(
        "cut in a file",
        &cut(last + 512 + 10),
        &format!("tar entry `{POLICY_PATH}` at byte {last}: the file is cut short"),
    );
    t.refuse(
        "cut in the padding",
        &cut(at - 1),
        &format!("tar entry `{POLICY_PATH}` at byte {last}: the file is cut short"),
    );
    let mut padded = tar(&sound);
    if let Some(byte) = padded.get_mut(at - 1) {
        *byte = 1;
    }
    t.refuse(
        "padding that is not zero",
        &padded,
        &format!("tar entry `{POLICY_PATH}` at byte {last}: the padding after the file is not zero"),
    );
    t.refuse("gzip", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], "tar at byte 0: the file is cut short");
    t.refuse(
        "too large",
        &vec![0; (64 << 20) + 1],
        "tar at byte 0: 67108865 bytes are more than a bundle may have (67108864)",
    );
}

/// Manifests that a trusted key has signed and that are refused all the same.
fn manifests(t: &mut Table) {
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

/// Envelopes that do not hold.
fn envelopes(t: &mut Table) {
    // Nobody trusts `c`.
    let [a, b, c] = ["a", "b", "c"].map(Signer::named);
    let policy: &[(&str, &[u8])] = &[(POLICY_PATH, POLICY.as_bytes())];
    let manifest = format!("{HEAD}{}}}", listed(policy));
    let sound = envelope(MANIFEST_TYPE, &manifest, &[&a]);
    let mut fault = |name: &str, trust: Trust, envelope: &str, message: &str| {
        let tar = tar(&with_envelope(&manifest, policy, envelope));
        t.case(name, trust, &tar, ("refused", json!(message)));
    };
    let canonical = "envelope is not in its canonical form: compact JSON with `payload`, `payloadType`, `signatures`";
    fault("envelope: white space", ONE, &sound.replace(",", ", "), canonical);
    fault("envelope: line break at its end", ONE, &format!("{sound}\n"), canonical);
    fault("envelope: an escaped slash", ONE, &sound.replace("application/", r"application\/"), canonical);
    fault("envelope: escaped letters", ONE, &sound.replace("keyid", r"key\u0069d"), canonical);
    let (payload, kind) = (base64(manifest.as_bytes()), format!(r#""payloadType":"{MANIFEST_TYPE}""#));
    let swapped =
        sound.replace(&format!(r#""payload":"{payload}",{kind}"#), &format!(r#"{kind},"payload":"{payload}""#));
    fault("envelope: members in another order", ONE, &swapped, canonical);
    let list = format!(r#"["{payload}","{MANIFEST_TYPE}",[]]"#);
    fault("envelope: as a list", ONE, &list, "envelope is not DSSE JSON: found a list, expected an object");
    fault(
        "envelope: unknown member",
        ONE,
        &sound.replacen('{', r#"{"x":1,"#, 1),
        "envelope is not DSSE JSON: member `x` is not known",
    );
    let clears = sound.replacen('{', r#"{"\u001b[2J\n":1,"#, 1);
    let message = r"envelope is not DSSE JSON: member `\u{1b}[2J\n` is not known";
    fault("envelope: unknown member that clears a terminal", ONE, &clears, message);
    let endless = sound.replacen('{', &format!(r#"{{"{}":1,"#, "x".repeat(5_000)), 1);
    let message = format!("envelope is not DSSE JSON: member `{}", "x".repeat(292));
    fault("envelope: unknown member of 5000 bytes", ONE, &endless, &message);
    fault(
        "envelope: a key twice",
        ONE,
        &sound.replacen('{', r#"{"payload":"","#, 1),
        "envelope is not DSSE JSON: key `payload` stands twice",
    );
    fault("envelope: not JSON", ONE, "DSSEv1", "envelope is not DSSE JSON: no value at byte 0");
    fault(
        "envelope: no signatures member",
        ONE,
        &format!(r#"{{"payload":"{payload}",{kind}}}"#),
        "envelope is not DSSE JSON: `signatures`: is missing, expected a list",
    );

    let lease = "application/vnd.autonomy.enrollment.lease.v1+json";
    fault(
        "envelope: payload type of a lease",
        ONE,
        &envelope(lease, &manifest, &[&a]),
        &format!("envelope holds a `{lease}`, not a `{MANIFEST_TYPE}`"),
    );
    fault(
        "envelope: payload type in upper case",
        ONE,
        &envelope(&MANIFEST_TYPE.to_uppercase(), &manifest, &[&a]),
        &format!("envelope holds a `{}`, not a `{MANIFEST_TYPE}`", MANIFEST_TYPE.to_uppercase()),
    );
    fault(
        "envelope: another manifest",
        ONE,
        &envelope(MANIFEST_TYPE, &manifest.replace("1.4.0", "1.4.1"), &[&a]),
        "`manifest.dsse.json` signs another manifest than the tar's `manifest.json`: sign the bundle again",
    );
    fault(
        "envelope: empty payload",
        ONE,
        &envelope(MANIFEST_TYPE, "", &[&a]),
        "`manifest.dsse.json` signs another manifest than the tar's `manifest.json`: sign the bundle again",
    );
    for (name, broken) in [
        ("envelope: payload without padding", payload.trim_end_matches('=').to_owned()),
        ("envelope: payload with a line break", format!(r"{payload}\n")),
    ] {
        fault(
            name,
            ONE,
            &sound.replace(&format!(r#""{payload}""#), &format!(r#""{broken}""#)),
            "envelope is not DSSE JSON: `payload` is not padded standard base64",
        );
    }

    let (of_a, of_b, of_c) = (
        a.signature(MANIFEST_TYPE, manifest.as_bytes()),
        b.signature(MANIFEST_TYPE, manifest.as_bytes()),
        c.signature(MANIFEST_TYPE, manifest.as_bytes()),
    );
    let signed = |signatures: &[(String, String)]| envelope_of(MANIFEST_TYPE, &manifest, signatures);
    let short = |trusted: usize, needed: usize, stranger: bool| {
        let rest = if stranger {
            format!("; `{}` signed and is not trusted: add its public key, or sign with a trusted one", c.id)
        } else {
            ": sign with `autonomy bundle sign`".to_owned()
        };
        format!("{trusted} of {needed} needed trusted keys have signed{rest}")
    };
    fault("envelope: no signatures", ONE, &signed(&[]), &short(0, 1, false));
    fault("envelope: only a key that is not trusted", ONE, &signed(std::slice::from_ref(&of_c)), &short(0, 1, true));
    fault("envelope: one trusted key of two needed", BOTH, &signed(std::slice::from_ref(&of_a)), &short(1, 2, false));
    fault(
        "envelope: one trusted key of two needed, and a stranger",
        BOTH,
        &signed(&[of_c.clone(), of_a.clone()]),
        &short(1, 2, true),
    );
    let twice = |id: &str| format!("key `{id}` has signed twice: a threshold counts distinct keys");
    fault("envelope: a key signs twice", ONE, &signed(&[of_a.clone(), of_a.clone()]), &twice(&a.id));
    fault(
        "envelope: a key signs twice for a threshold of two",
        BOTH,
        &signed(&[of_a.clone(), of_a.clone()]),
        &twice(&a.id),
    );
    fault("envelope: a stranger signs twice", ONE, &signed(&[of_a.clone(), of_c.clone(), of_c.clone()]), &twice(&c.id));
    let forged =
        |id: &str| format!("signature by trusted key `{id}` does not hold: the payload or the signature was changed");
    let claims_a = (a.id.clone(), of_b.1.clone());
    let claims_b = (b.id.clone(), of_a.1.clone());
    fault("envelope: another key's signature", ONE, &signed(std::slice::from_ref(&claims_a)), &forged(&a.id));
    fault(
        "envelope: a forged signature behind a good threshold",
        ONE_OF_TWO,
        &signed(&[of_a.clone(), claims_b.clone()]),
        &forged(&b.id),
    );
    fault(
        "envelope: a forged signature before a good threshold",
        ONE_OF_TWO,
        &signed(&[claims_b, of_a.clone()]),
        &forged(&b.id),
    );
    let bare = (a.id.clone(), base64(&a.sign(manifest.as_bytes())));
    fault("envelope: signature over the bare payload", ONE, &signed(&[bare]), &forged(&a.id));
    let of_lease = a.signature(lease, manifest.as_bytes());
    fault("envelope: signature over another payload type", ONE, &signed(&[of_lease]), &forged(&a.id));
    let crowd: Vec<_> =
        (0..17).map(|n| Signer::named(&format!("crowd {n}")).signature(MANIFEST_TYPE, manifest.as_bytes())).collect();
    fault("envelope: seventeen signatures", ONE, &signed(&crowd), "envelope has 17 signatures: at most 16 are read");

    let bytes = a.sign(b"any");
    let not_a_signature = format!("signature by key `{}` is not 64 bytes of base64", a.id);
    let first = |n: usize| bytes.iter().copied().take(n).collect::<Vec<_>>();
    let letters = |text: &str| (a.id.clone(), text.to_owned());
    let mut last_bits = of_a.1.clone();
    last_bits.truncate(85);
    // The 86th letter holds two bits of the last byte, and four that must be zero.
    let letter = of_a.1.chars().nth(85).and_then(|letter| char::from_u32(u32::from(letter) + 1)).unwrap_or('?');
    last_bits.push(letter);
    last_bits += "==";
    let url_safe = {
        // A signature that needs a letter in which the two alphabets differ.
        let text = base64(&[0xfb; 64]);
        text.replace('+', "-").replace('/', "_")
    };
    for (name, sig) in [
        ("envelope: signature of 63 bytes", base64(&first(63))),
        ("envelope: signature of 65 bytes", base64(&[bytes.as_slice(), &[0]].concat())),
        ("envelope: empty signature", String::new()),
        ("envelope: signature in url-safe base64", url_safe),
        ("envelope: signature without padding", of_a.1.trim_end_matches('=').to_owned()),
        ("envelope: signature with stray bits", last_bits),
        ("envelope: signature with a space", format!(" {}", of_a.1)),
        ("envelope: signature in hexadecimal", "00".repeat(64)),
    ] {
        fault(name, ONE, &signed(&[letters(&sig)]), &not_a_signature);
    }
    for (name, id) in [
        ("envelope: key id in upper case", a.id.to_uppercase()),
        ("envelope: key id with its kind", format!("sha256:{}", a.id)),
        ("envelope: empty key id", String::new()),
    ] {
        let message = format!("envelope's key id `{id}` is not the SHA-256 of a public key in lower-case hexadecimal");
        fault(name, ONE, &signed(&[(id, of_a.1.clone())]), &message);
    }
}
