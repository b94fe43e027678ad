//! What others read without us: the log by ten lines of Python, a bundle's envelope by a DSSE library and by OpenSSL.

use std::{fs, path::PathBuf, process::Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{Home, autonomy, blocks, page, root, succeeded};

/// A log with a repair, a denied call, a would-be deny and an allowed one in it.
fn home_with_log() -> Home {
    let home = Home::ready();
    let log = home.path("wal/telemetry.wal");
    for (mode, calls) in [("advisory", 3), ("enforce", 40)] {
        let address = crate::support::free_address();
        let mut start = home.program(autonomy());
        start.args(["runtime", "start", "--bundle", "bundle.tar", "--node-id", "robot-7", "--mode", mode]);
        let mut runtime = start.args(["--listen", &address]).stdout(Stdio::null()).spawn().unwrap();
        for call in 0..calls {
            let mut curl = home.program("curl");
            curl.args(["--silent", "--retry", "100", "--retry-delay", "1", "--retry-connrefused"]);
            let kind = ["tool.echo", "tool.shell"][call % 2];
            curl.args(["-d", &json!({"kind": kind, "params": {"text": "ü\n\u{1f916}"}}).to_string()]);
            succeeded("curl", curl.arg(format!("http://{address}/v1/tool")).output().unwrap());
        }
        home.ok("rollout set --node-id robot-7 --state failed");
        // Killed, then repaired by the second; that one closes the log.
        let signal = if mode == "enforce" { Signal::TERM } else { Signal::KILL };
        kill_process(Pid::from_child(&runtime), signal).unwrap();
        runtime.wait().unwrap();
        // As a power cut leaves it.
        let mut torn = fs::read(&log).unwrap();
        torn.extend([0, 0, 1]);
        fs::write(&log, torn).unwrap();
    }
    home
}

/// The script of the log's page.
fn reader() -> String {
    let blocks = blocks(&page("docs/src/spec/wal.md"));
    let scripts: Vec<_> = blocks.into_iter().filter(|block| block.language == "python").collect();
    assert_eq!(scripts.len(), 1);
    assert!(scripts[0].text.lines().count() <= 10, "ten lines were promised");
    scripts[0].text.clone()
}

fn python(home: &Home, script: &str, argument: &str) -> String {
    let mut python = home.program("python3");
    succeeded("python3", python.env("PYTHONIOENCODING", "utf-8").args(["-c", script, argument]).output().unwrap())
}

#[test]
fn ten_lines_of_python_read_a_real_log() {
    let home = home_with_log();
    let inspected = home.ok("wal inspect");
    let frames: Vec<Value> = inspected.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected: String = frames
        .iter()
        .map(|frame| {
            let reason = frame["attrs"]["reason"].as_str().unwrap_or("None");
            format!("{} {} {reason}\n", frame["seq"], frame["kind"].as_str().unwrap())
        })
        .collect();
    assert_eq!(python(&home, &reader(), "wal/telemetry.wal"), expected);
    assert!(inspected.contains(r#""event":"wal_repaired""#));
    for part in ["autonomy.lifecycle", "autonomy.facts", "policy: denied", "autonomy.action"] {
        assert!(expected.contains(part), "{part} is not in this log");
    }

    // The same reader, but for what it prints: each payload as it is.
    let last = reader().lines().last().unwrap().trim().to_owned();
    assert!(last.starts_with("print("), "{last}");
    let whole = reader().replace(&last, "sys.stdout.write(payload.decode() + '\\n')");
    assert_eq!(python(&home, &whole, "wal/telemetry.wal"), inspected);

    // An unfinished write is no frame.
    let log = fs::read(home.path("wal/telemetry.wal")).unwrap();
    let last = frames.last().map(|frame| frame["seq"].clone()).unwrap();
    fs::write(home.path("cut.wal"), &log[..log.len() - 3 - 40]).unwrap();
    let cut = python(&home, &reader(), "cut.wal");
    assert_eq!(cut.lines().count(), frames.len() - 1, "all but frame {last}");
    println!("{} frames read", frames.len());
}

/// `bundle.tar` signed by a key of ours and by one of OpenSSL's, their public halves and ids, and the envelope.
fn signed_by_two() -> (Home, Vec<(String, String)>, Value) {
    let home = Home::ready();
    let openssl = |line: &str| {
        succeeded(line, home.program("openssl").args(line.split_whitespace()).output().unwrap());
    };
    openssl("genpkey -algorithm ed25519 -out openssl.pem");
    succeeded("chmod", home.program("chmod").args(["600", "openssl.pem"]).output().unwrap());
    openssl("pkey -in openssl.pem -pubout -out openssl.pem.pub");
    home.ok("bundle sign bundle.tar --key openssl.pem");
    fs::rename(home.path("keys/bundle.pem"), home.path("ours.pem")).unwrap();
    fs::rename(home.path("keys/bundle.pem.pub"), home.path("ours.pem.pub")).unwrap();
    let mut tar = home.program("tar");
    let envelope = succeeded("tar", tar.args(["-xOf", "bundle.tar", "manifest.dsse.json"]).output().unwrap());
    // The command line of the bundle's page, for each key.
    let pages = blocks(&page("docs/src/spec/bundle.md"));
    let to_id: Vec<_> = pages.iter().filter(|block| block.language == "sh").collect();
    assert_eq!(to_id.len(), 1);
    let id = |name: &str| {
        let line = to_id[0].text.replace("release.pem.pub", &format!("{name}.pem.pub"));
        let printed = succeeded(&line, home.program("bash").args(["-c", &line]).output().unwrap());
        (name.to_owned(), printed.split(' ').next().unwrap().to_owned())
    };
    let keys = vec![id("ours"), id("openssl")];
    (home, keys, serde_json::from_str(&envelope).unwrap())
}

#[test]
fn a_key_made_by_openssl_signs_and_is_trusted() {
    let (home, keys, envelope) = signed_by_two();
    let signers: Vec<_> = envelope["signatures"].as_array().unwrap().iter().map(|one| &one["keyid"]).collect();
    assert_eq!(signers, [&json!(keys[0].1), &json!(keys[1].1)]);
    let verified = |keys: &str, threshold: usize| {
        let run = home.run(&format!("bundle verify bundle.tar {keys} --threshold {threshold} --output json"));
        (run.status.code().unwrap(), String::from_utf8(run.stdout).unwrap())
    };
    let (code, shown) = verified("--trusted-key openssl.pem.pub", 1);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((code, &shown["verified"], &shown["signers"]), (0, &json!(true), &json!([keys[1].1])));
    assert_eq!(verified("--trusted-key openssl.pem.pub --trusted-key ours.pem.pub", 2).0, 0);
    home.program("openssl").args(["genpkey", "-algorithm", "ed25519", "-out", "other.pem"]).output().unwrap();
    home.program("openssl").args(["pkey", "-in", "other.pem", "-pubout", "-out", "other.pub"]).output().unwrap();
    assert_eq!(verified("--trusted-key other.pub", 1), (2, String::new()), "it has not signed");
}

/// Signatures are the bytes that OpenSSL itself makes and accepts over the pre-authentication encoding.
#[test]
fn openssl_makes_and_accepts_the_same_signatures() {
    let (home, keys, envelope) = signed_by_two();
    let text = |member: &str| envelope[member].as_str().unwrap().to_owned();
    let encode = "import base64, sys
kind, payload = sys.argv[1].encode(), base64.b64decode(sys.argv[2])
sys.stdout.buffer.write(b' '.join([b'DSSEv1', b'%d' % len(kind), kind, b'%d' % len(payload), payload]))";
    let mut python = home.program("python3");
    let pae = python.args(["-c", encode, &text("payloadType"), &text("payload")]).output().unwrap();
    assert!(pae.status.success(), "{pae:?}");
    fs::write(home.path("pae"), &pae.stdout).unwrap();
    for ((name, _), signature) in keys.iter().zip(envelope["signatures"].as_array().unwrap()) {
        let script = format!(
            "set -e
            printf %s '{}' | openssl base64 -d -A > sig
            openssl pkeyutl -verify -rawin -pubin -inkey {name}.pem.pub -sigfile sig -in pae
            openssl pkeyutl -sign -rawin -inkey {name}.pem -in pae | cmp - sig
            printf x >> pae
            ! openssl pkeyutl -verify -rawin -pubin -inkey {name}.pem.pub -sigfile sig -in pae
            truncate -s -1 pae",
            signature["sig"].as_str().unwrap()
        );
        let printed = succeeded(name, home.program("bash").args(["-c", &script]).output().unwrap());
        assert_eq!(printed.lines().next(), Some("Signature Verified Successfully"), "{printed}");
    }
}

/// Arguments: the envelope, then public keys. Prints who signed, and how each broken twin is refused.
const WITH_SECURESYSTEMSLIB: &str = r#"
import copy, hashlib, json, sys
from cryptography.hazmat.primitives import serialization as s
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

document, keys = json.load(open(sys.argv[1])), []
for path in sys.argv[2:]:
    public = s.load_pem_public_key(open(path, "rb").read())
    spki = public.public_bytes(s.Encoding.DER, s.PublicFormat.SubjectPublicKeyInfo)
    keys.append(SSlibKey.from_crypto(public, keyid=hashlib.sha256(spki).hexdigest()))

envelope = Envelope.from_dict(copy.deepcopy(document))
assert envelope.to_dict() == document, "it would write another envelope"
print(*envelope.verify(keys, threshold=len(keys)))
print(json.loads(envelope.payload)["provenance"]["enrollment_ref"])

def refused(change):
    twin = Envelope.from_dict(copy.deepcopy(document))
    change(twin)
    try:
        twin.verify(keys, threshold=len(keys))
    except VerificationError:
        return True

print(refused(lambda e: setattr(e, "payload", e.payload.replace(b"fleet-a", b"fleet-b"))))
print(refused(lambda e: setattr(e, "payload_type", "application/json")))
print(refused(lambda e: e.signatures.popitem()))
"#;

#[test]
fn an_independent_dsse_library_verifies_the_envelope() {
    let python: PathBuf = root().join("target/python/bin/python3");
    assert!(python.exists(), "`{}` is missing: run `cargo xtask test`, which makes it", python.display());
    let (home, keys, envelope) = signed_by_two();
    fs::write(home.path("envelope.json"), envelope.to_string()).unwrap();
    let mut run = home.program(python);
    run.args(["-c", WITH_SECURESYSTEMSLIB, "envelope.json", "ours.pem.pub", "openssl.pem.pub"]);
    let printed = succeeded("securesystemslib", run.output().unwrap());
    assert_eq!(printed, format!("{} {}\nfleet-a\nTrue\nTrue\nTrue\n", keys[0].1, keys[1].1));
}
