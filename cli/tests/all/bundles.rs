//! Keys and bundles.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use crate::harness::{BINARY, Home, Run};

#[test]
fn a_key_is_made_once_and_trusted_when_asked() {
    let home = Home::new();
    let (code, made) = home.json("key generate");
    assert_eq!((code, &made["trusted_as"]), (0, &serde_json::Value::Null));
    assert_eq!(made["private_key"], home.path("keys/bundle.pem").to_str().unwrap());
    assert!(fs::read_to_string(home.path("keys/bundle.pem.pub")).unwrap().starts_with("-----BEGIN PUBLIC KEY-----"));
    let again = home.fails(2, "key generate");
    assert!(again.ends_with("bundle.pem` exists, and keys are never overwritten: choose another `--out`"), "{again}");

    let text = home.ok("key generate --out other.pem --trust");
    let id = text.lines().next().unwrap().strip_prefix("made key ").unwrap();
    assert!(home.path(&format!("trusted-keys/{id}.pub")).exists());
    // The public half may lie there under its own name as well: one key is one signer.
    fs::copy(home.path("other.pem.pub"), home.path("trusted-keys/other.pub")).unwrap();
    let alone = home.fails(2, "bundle verify no.tar --threshold 2");
    assert!(alone.contains("threshold `2` does not fit 1 trusted keys"), "{alone}");
    // A key is not shown where a bundle is wanted.
    let pem = home.fails(2, "bundle verify other.pem");
    assert_eq!(pem, "`other.pem` is a PEM file, not a bundle: give the tar that `autonomy bundle build` wrote");
    assert_eq!(fs::metadata(home.path("other.pem")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_bundle_is_built_signed_inspected_and_verified() {
    let home = Home::with_bundle();
    let (code, verified) = home.json("bundle verify bundle.tar");
    assert_eq!((code, &verified["verified"], &verified["name"]), (0, &true.into(), &"fleet/policies".into()));
    assert_eq!(verified["provenance"]["enrollment_ref"], "fleet-a");
    assert_eq!(verified["files"][0]["path"], "policies/main.rego");
    assert!(
        home.ok("bundle verify bundle.tar").starts_with("verified bundle.tar: 1 of 1 needed trusted keys signed\n")
    );

    let inspect = home.run("bundle inspect bundle.tar");
    assert!(inspect.stdout.contains("BUNDLE          fleet/policies@1.0.0\n"), "{inspect:?}");
    assert_eq!(inspect.stderr, "note: not verified: `autonomy bundle verify bundle.tar` asks who signed it\n");
    assert_eq!(home.json("bundle inspect bundle.tar").1["verified"], false);

    let build = "bundle build --source src --name fleet/policies --version 1.1.0 --enrollment-ref fleet-a \
                 --channel stable --policy-version 7 --source-repo https://example.com/p --revision 1a2b \
                 --built-at 2026-01-31T08:00:00Z --builder ci";
    let unsigned = home.run(&format!("{build} --out unsigned.tar"));
    assert_eq!(unsigned.stderr, "note: nobody has signed it: run `autonomy bundle sign --key FILE unsigned.tar`\n");
    assert_eq!(
        home.fails(2, "bundle verify unsigned.tar"),
        "bundle `unsigned.tar` is refused: 0 of 1 needed trusted keys have signed: sign with `autonomy bundle sign`"
    );
    home.ok("bundle sign --key keys/bundle.pem unsigned.tar --out signed.tar");
    home.ok("bundle sign --key keys/bundle.pem unsigned.tar");
    assert_eq!(fs::read(home.path("signed.tar")).unwrap(), fs::read(home.path("unsigned.tar")).unwrap());
    let (_, signed) = home.json("bundle verify signed.tar");
    assert_eq!((&signed["channel"], &signed["policy_version"]), (&"stable".into(), &"7".into()));
    assert_eq!((&signed["provenance"]["revision"], &signed["provenance"]["builder"]), (&"1a2b".into(), &"ci".into()));
}

#[test]
fn nothing_is_overwritten_unless_forced() {
    let home = Home::with_bundle();
    let before = fs::read(home.path("bundle.tar")).unwrap();
    let build = "bundle build --source src --name fleet/policies --version 2.0.0 --out bundle.tar";
    assert_eq!(home.fails(2, build), "`bundle.tar` exists: choose another name, or replace it with `--force`");
    let twice = home.fails(2, "bundle sign --key keys/bundle.pem bundle.tar");
    assert!(
        twice.starts_with("key `") && twice.ends_with("` has already signed this bundle: sign with another key"),
        "{twice}"
    );
    home.ok("key generate --out other.pem");
    let taken = home.fails(2, "bundle sign --key other.pem bundle.tar --out bundle.tar");
    assert_eq!(taken, "`bundle.tar` exists: choose another name, or replace it with `--force`");
    assert_eq!(fs::read(home.path("bundle.tar")).unwrap(), before);
    let forced = home.run(&format!("{build} --force"));
    assert_eq!(forced.code, 0);
    assert!(forced.stderr.contains("warning: it declares no enrollment ref: the gate fails every node"), "{forced:?}");
    assert_ne!(fs::read(home.path("bundle.tar")).unwrap(), before);
}

#[test]
fn a_bundle_travels_through_a_layout_and_only_a_verified_one_appears() {
    let home = Home::with_bundle();
    let (_, pushed) = home.json("bundle push bundle.tar oci:layout:1.0.0");
    assert!(pushed["manifest_digest"].as_str().unwrap().starts_with("sha256:"));
    assert!(home.ok("bundle push bundle.tar oci:layout:1.0.0").starts_with("pushed oci:layout:1.0.0\n"));
    let pulled = home.ok("bundle pull oci:layout:1.0.0 pulled.tar");
    assert!(pulled.starts_with("verified pulled.tar: 1 of 1"), "{pulled}");
    assert_eq!(fs::read(home.path("pulled.tar")).unwrap(), fs::read(home.path("bundle.tar")).unwrap());
    let refused = home.fails(2, "bundle pull oci:layout:1.0.0 pulled.tar");
    assert!(refused.starts_with("`pulled.tar` exists"), "{refused}");
    assert_eq!(home.json("bundle pull oci:layout:1.0.0 pulled.tar --force").1["verified"], true);

    home.ok("key generate --out stranger.pem");
    let stranger = home.fails(2, "bundle pull oci:layout:1.0.0 no.tar --trusted-key stranger.pem.pub");
    assert!(stranger.contains("is refused: 0 of 1 needed trusted keys have signed; `"), "{stranger}");
    fs::remove_dir_all(home.path("trusted-keys")).unwrap();
    let untrusting = home.fails(2, "bundle pull oci:layout:1.0.0 no.tar");
    assert!(
        untrusting.starts_with("no keys are trusted: put the public key that signs bundles into `"),
        "{untrusting}"
    );
    let nowhere = home.fails(3, "bundle pull oci:nowhere:1 no.tar --trusted-key stranger.pem.pub");
    assert!(nowhere.contains("`nowhere`"), "{nowhere}");
    let neither = home.fails(2, "bundle pull policies:1 no.tar --trusted-key stranger.pem.pub");
    assert_eq!(
        neither,
        "argument `<REFERENCE>`: reference `policies:1` is neither in a registry nor an image layout: use \
         `<host>[:<port>]/<repository>:<tag>`, or `oci:<directory>[:<tag>]`, or `@sha256:<digest>` in the place of the tag"
    );
    assert!(!home.path("no.tar").exists());
    let left: Vec<_> = fs::read_dir(home.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_str().unwrap().starts_with('.')), "{left:?}");
}

#[test]
fn unreadable_files_are_named() {
    let home = Home::with_bundle();
    for line in ["bundle verify gone.tar", "bundle inspect gone.tar", "bundle push gone.tar oci:layout:1"] {
        let error = home.fails(3, line);
        assert!(error.starts_with("cannot read `gone.tar` (") && error.contains("correct the path"), "{error}");
    }
    let error = home.fails(3, "bundle verify bundle.tar --trusted-key gone.pub");
    assert!(error.starts_with("cannot read key `gone.pub` ("), "{error}");
    let error = home.fails(3, "bundle sign --key gone.pem bundle.tar");
    assert!(error.starts_with("cannot read key `gone.pem` ("), "{error}");
    let error = home.fails(2, "bundle sign --key keys/bundle.pem.pub bundle.tar");
    assert_eq!(
        error,
        "`keys/bundle.pem.pub` is a public key: give the private one, which has the same name without `.pub`"
    );
    fs::set_permissions(home.path("keys/bundle.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = home.fails(2, "bundle sign --key keys/bundle.pem bundle.tar");
    assert!(error.contains("can be read by others (mode 644): run `chmod 600"), "{error}");
    let error = home.fails(3, "bundle build --source gone --name a --version 1.0.0 --out a.tar");
    assert!(error.starts_with("cannot read `gone` ("), "{error}");
    fs::write(home.path("not.tar"), "not a tar").unwrap();
    let error = home.fails(2, "bundle inspect not.tar");
    assert!(error.starts_with("bundle `not.tar` is refused: "), "{error}");
}

#[test]
fn policies_that_no_runtime_could_compile_are_not_built() {
    let home = Home::with_source();
    fs::write(home.path("src/policies/broken.rego"), "package autonomy\nallow if {\n").unwrap();
    let run = home.run("bundle build --source src --name n --version 1.0.0 --out broken.tar");
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("policies that do not compile"), "{run:?}");
    assert!(!home.path("broken.tar").exists());
}

#[test]
fn a_bundle_that_cannot_be_signed_or_built_or_put_somewhere_is_named_with_what_helps() {
    let home = Home::with_bundle();
    let mut flipped = fs::read(home.path("bundle.tar")).unwrap();
    flipped[600] ^= 0x80;
    fs::write(home.path("flipped.tar"), flipped).unwrap();
    let error = home.fails(2, "bundle sign flipped.tar --key keys/bundle.pem");
    assert!(error.starts_with("bundle `flipped.tar` is refused: "), "{error}");
    fs::write(home.path("src/policies/Main.rego"), "package autonomy\n").unwrap();
    let build = "bundle build --source src --name a --version 1.0.0 --out";
    let twins = home.fails(2, &format!("{build} twins.tar"));
    assert!(twins.ends_with("; change that in the source, and build again"), "{twins}");
    fs::remove_file(home.path("src/policies/Main.rego")).unwrap();
    assert!(Command::new("mkfifo").arg(home.path("pipe")).status().unwrap().success());
    let pipe = home.fails(2, &format!("{build} pipe --force"));
    assert_eq!(pipe, "cannot write `pipe` (what is there is not a regular file): give another path");
}

#[test]
fn the_limit_on_the_size_of_files_is_an_error_and_leaves_no_half_of_a_file() {
    let home = Home::new();
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"ulimit -f 0; exec "$0" key generate --out small.pem"#, BINARY]);
    let run = Run::from(shell.current_dir(home.path("")).env("AUTONOMY_HOME", home.path("")).output().unwrap());
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.stderr.contains("): raise the limit on the size of files (`ulimit -f`), then do it again"), "{run:?}");
    assert!(!home.path("small.pem").exists() && !home.path("small.pem.pub").exists());
}
