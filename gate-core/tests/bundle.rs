//! Bundles: what is accepted, what is refused and how it says so, and that nobody else reads them differently.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it counted"
)]

mod support;

use gate_core::{
    Bundle, BundleError, Digest, PublicKey, TrustedKeys, limits,
    ustar::{self, TarFault},
};
use proptest::{collection, prelude::*, sample, test_runner::Config};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    process::{Command, Stdio},
    thread,
};
use support::{bundle, small_bundle, tar, trusted, unpack};

fn keys_of(corpus: &Value, case: &Value) -> TrustedKeys {
    let keys = case["keys"].as_array().unwrap().iter();
    let keys = keys.map(|name| PublicKey::from_pem(corpus["keys"][name.as_str().unwrap()].as_str().unwrap()).unwrap());
    TrustedKeys::new(keys, case["threshold"].as_u64().unwrap().try_into().unwrap()).unwrap()
}

fn described(bundle: &Bundle<'_>) -> Value {
    json!({
        "digest": bundle.digest,
        "enrollment_ref": bundle.manifest.declared_ref(),
        "policy_ref": bundle.manifest.policy_ref(),
        "schema_version": bundle.manifest.schema_version,
        "files": bundle.files.iter().map(|file| json!([file.path, Digest::of(file.data)])).collect::<Vec<_>>(),
        "signers": bundle.signers.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

#[test]
fn every_bundle_of_the_corpus_is_accepted_or_refused_with_its_own_message() {
    let corpus = support::corpus("bundles.json");
    let (mut wrong, mut accepted, mut refused) = (Vec::new(), 0, 0);
    for case in corpus["bundles"].as_array().unwrap() {
        let bytes = unpack(&case["tar"]);
        let answer = match Bundle::verify(&bytes, &keys_of(&corpus, case)) {
            Ok(bundle) => json!({ "accepted": described(&bundle) }),
            Err(error) => json!({ "refused": error.to_string() }),
        };
        let kind = if answer.get("accepted").is_some() { &mut accepted } else { &mut refused };
        *kind += 1;
        for member in ["accepted", "refused"] {
            if answer.get(member) != case.get(member) {
                wrong.push(format!(
                    "{}\n  {member} {:?}\n  but was {:?}",
                    case["name"],
                    case.get(member),
                    answer.get(member)
                ));
            }
        }
    }
    println!("{accepted} bundles accepted, {refused} refused");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((accepted, refused), (12, 192), "the corpus has changed its size: was that meant?");
}

/// Hands each of these bytes' places, with a copy of the bytes to spoil, to one of two threads.
fn at_every_place(bytes: &[u8], step: usize, spoil: impl Fn(usize, &mut Vec<u8>) + Sync) {
    thread::scope(|scope| {
        for half in 0..2 {
            let spoil = &spoil;
            scope.spawn(move || {
                let mut copy = bytes.to_vec();
                for at in (0..bytes.len()).skip(half * step).step_by(2 * step) {
                    spoil(at, &mut copy);
                    copy[at] = bytes[at];
                }
            });
        }
    });
}

#[test]
fn a_small_bundle_with_any_bit_flipped_is_refused() {
    let (sound, keys) = (small_bundle(Some("fleet-a")), trusted(&[1], 1));
    Bundle::verify(&sound, &keys).unwrap();
    at_every_place(&sound, 1, |at, copy| {
        for bit in 0..8 {
            copy[at] = sound[at] ^ (1 << bit);
            assert!(Bundle::verify(copy, &keys).is_err(), "bit {bit} of byte {at}");
        }
    });
    println!("{} flips refused", sound.len() * 8);
}

#[test]
fn a_small_bundle_with_any_other_byte_at_every_seventeenth_place_is_refused() {
    let (sound, keys) = (small_bundle(Some("fleet-a")), trusted(&[1], 1));
    at_every_place(&sound, 17, |at, copy| {
        for value in (0..=u8::MAX).filter(|value| *value != sound[at]) {
            copy[at] = value;
            assert!(Bundle::verify(copy, &keys).is_err(), "{value:#04x} at byte {at}");
        }
    });
}

#[test]
fn a_bundle_cut_anywhere_is_refused_and_says_how() {
    let (sound, keys) = (small_bundle(Some("fleet-a")), trusted(&[1], 1));
    let mut boundaries = vec![0];
    for entry in ustar::read(&sound).unwrap() {
        boundaries.push(boundaries[boundaries.len() - 1] + 512 + entry.data.len().next_multiple_of(512));
    }
    for len in 0..sound.len() {
        let Err(BundleError::Tar(error)) = Bundle::verify(&sound[..len], &keys) else {
            panic!("cut to {len} bytes");
        };
        let expected = match len {
            _ if boundaries.contains(&len) => TarFault::NoEnd,
            _ if len == sound.len() - 512 => TarFault::OneZeroBlock,
            _ => TarFault::Truncated,
        };
        assert_eq!(error.fault, expected, "cut to {len} bytes");
        assert_eq!(error.offset, *boundaries.iter().rfind(|start| **start <= len).unwrap(), "cut to {len} bytes");
    }
}

#[test]
fn a_tar_has_at_most_4096_entries() {
    let mut files: Vec<_> = (0..limits::BUNDLE_ENTRIES).map(|n| (format!("f{n}"), [])).collect();
    assert_eq!(ustar::read(&tar(&files)).unwrap().len(), 4096);
    files.push(("one-too-many".to_owned(), []));
    let message = ustar::read(&tar(&files)).unwrap_err().to_string();
    assert_eq!(message, "tar entry `one-too-many` at byte 2097152: more than 4096 entries");
}

#[test]
fn a_tar_of_exactly_64_mib_is_read_and_a_byte_more_is_not() {
    let data = vec![7; limits::BUNDLE_BYTES - 3 * 512];
    let mut large = tar(&[("f", data)]);
    assert_eq!(ustar::read(&large).unwrap()[0].data.len(), 64 * 1024 * 1024 - 1536);
    large.push(0);
    let message = ustar::read(&large).unwrap_err().to_string();
    assert_eq!(message, "tar at byte 0: 67108865 bytes are more than a bundle may have (67108864)");
}

#[test]
fn an_inspected_bundle_has_no_signers_and_is_refused_for_all_but_its_signatures() {
    let unsigned = bundle(None, &[("a", b"")], &[]);
    let (inspected, claimed) = Bundle::inspect(&unsigned).unwrap();
    assert!(inspected.signers.is_empty() && claimed.is_empty());
    let signed = bundle(None, &[("policies/a.rego", b"x"), ("policies/b.txt", b"y"), ("z.rego", b"z")], &[1, 2]);
    let (inspected, claimed) = Bundle::inspect(&signed).unwrap();
    assert!(inspected.signers.is_empty());
    assert_eq!(claimed, [support::public(1).id(), support::public(2).id()]);
    assert_eq!(inspected.policies().map(|file| file.path).collect::<Vec<_>>(), ["policies/a.rego"]);
    let changed: Vec<u8> = signed.iter().map(|byte| if *byte == b'x' { b'X' } else { *byte }).collect();
    assert!(Bundle::inspect(&changed).is_err());
}

/// The entries as the strict reader gives them.
type Files = Vec<(String, Vec<u8>)>;

fn strict(tar: &[u8]) -> Files {
    ustar::read(tar).unwrap().into_iter().map(|entry| (entry.path.to_owned(), entry.data.to_owned())).collect()
}

fn tar_crate(tar: &[u8]) -> Files {
    let mut archive = tar::Archive::new(tar);
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), data)
    };
    archive.entries().unwrap().map(read).collect()
}

/// What GNU tar prints when it is given a tar.
fn gnu_tar(arguments: &[&str], tar: &[u8]) -> Vec<u8> {
    let child = Command::new("tar").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("GNU tar is needed: `apt-get install tar`");
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        // It may close its end before it has read every zero.
        scope.spawn(move || stdin.write_all(tar).ok());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        output.stdout
    })
}

fn assert_every_reader_agrees(tar: &[u8]) {
    let files = strict(tar);
    assert_eq!(tar_crate(tar), files);
    let names: String = files.iter().map(|(path, _)| format!("{path}\n")).collect();
    assert_eq!(String::from_utf8(gnu_tar(&["--list", "--file=-"], tar)).unwrap(), names);
    let contents: Vec<u8> = files.iter().flat_map(|(_, data)| data.clone()).collect();
    assert_eq!(gnu_tar(&["--extract", "--to-stdout", "--file=-"], tar), contents);
}

#[test]
fn what_is_accepted_reads_the_same_in_the_tar_crate_and_in_gnu_tar() {
    let version = String::from_utf8(gnu_tar(&["--version"], b"")).unwrap();
    assert!(version.contains("GNU tar"), "GNU tar is needed, `tar` is {version}");
    let corpus = support::corpus("bundles.json");
    let accepted = corpus["bundles"].as_array().unwrap().iter().filter(|case| case.get("accepted").is_some());
    for case in accepted {
        assert_every_reader_agrees(&unpack(&case["tar"]));
    }
}

/// The header that a host writes with the `tar` crate.
fn tar_crate_header(path: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_path(path).unwrap();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}

#[test]
fn a_host_that_leaves_a_field_to_the_tar_crate_is_told_which() {
    let message = |header: tar::Header| {
        let mut tar = header.as_bytes().to_vec();
        tar.resize(1_536, 0);
        ustar::read(&tar).unwrap_err().to_string()
    };
    let mut header = tar::Header::new_ustar();
    header.set_path("a").unwrap();
    header.set_size(0);
    header.set_mode(0o644);
    header.set_cksum();
    assert_eq!(message(header.clone()), r"tar entry `a` at byte 0: entry type `\x00`: only regular files are read");
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    assert_eq!(
        message(header.clone()),
        "tar entry `a` at byte 0: the header's owner is not what a bundle's header holds"
    );
    header.set_uid(0);
    header.set_cksum();
    assert_eq!(
        message(header.clone()),
        "tar entry `a` at byte 0: the header's group is not what a bundle's header holds"
    );
    header.set_gid(0);
    header.set_cksum();
    assert_eq!(header.as_bytes(), &ustar::header("a", 0));
}

fn path() -> impl Strategy<Value = String> {
    let segment = "[A-Za-z0-9._-]{1,12}".prop_filter("`.` and `..` are no names", |name| name != "." && name != "..");
    collection::vec(segment, 1..5).prop_map(|segments| segments.join("/"))
}

/// Files whose paths differ in more than case, none below another.
fn files() -> impl Strategy<Value = BTreeMap<String, (String, Vec<u8>)>> {
    let file = (path(), collection::vec(any::<u8>(), 0..1200));
    collection::vec(file, 0..8)
        .prop_map(|files| files.into_iter().map(|(path, data)| (path.to_ascii_lowercase(), (path, data))).collect())
        .prop_filter("a file has nothing below it", |files: &BTreeMap<String, _>| {
            let is_below = |path: &String| files.keys().any(|other| path.starts_with(&format!("{other}/")));
            !files.keys().any(is_below)
        })
}

proptest! {
    #[test]
    fn the_header_is_byte_for_byte_what_the_tar_crate_writes(path in path(), size in 0_u32..) {
        let written = tar_crate_header(&path, size.into());
        prop_assert_eq!(&ustar::header(&path, usize::try_from(size).unwrap()), written.as_bytes());
    }

    #[test]
    fn a_tar_that_is_read_encodes_to_the_same_bytes_as_the_tar_crate_writes_it(files in files()) {
        let files: Files = files.into_values().collect();
        let mut builder = tar::Builder::new(Vec::new());
        for (path, data) in &files {
            builder.append(&tar_crate_header(path, data.len().try_into().unwrap()), data.as_slice()).unwrap();
        }
        let written = builder.into_inner().unwrap();
        prop_assert_eq!(&strict(&written), &files);
        prop_assert_eq!(&tar(&strict(&written)), &written);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in collection::vec(any::<u8>(), 0..2048)) {
        prop_assert!(Bundle::verify(&bytes, &trusted(&[1], 1)).is_err());
    }
}

proptest! {
    #![proptest_config(Config::with_cases(8192))]
    /// Whatever is done to a header, its checksum put right: it is refused, or it is the one encoding of what is read.
    #[test]
    fn nothing_hides_in_a_header(
        at in 0_usize..512,
        bytes in collection::vec(prop_oneof![any::<u8>(), sample::select(b"\0 0123456789/.".to_vec())], 1..16),
    ) {
        let mut spoilt = tar(&[("policies/a.rego", b"package autonomy"), ("z.rego", b"package autonomy")]);
        for (to, from) in spoilt[at..512].iter_mut().zip(&bytes) {
            *to = *from;
        }
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(&spoilt[..512]);
        header.set_cksum();
        spoilt[..512].copy_from_slice(header.as_bytes());
        if let Ok(entries) = ustar::read(&spoilt) {
            let files: Vec<_> = entries.iter().map(|entry| (entry.path, entry.data)).collect();
            prop_assert_eq!(tar(&files), spoilt);
        }
    }
}

proptest! {
    #![proptest_config(Config::with_cases(24))]
    #[test]
    fn any_files_read_the_same_in_the_tar_crate_and_in_gnu_tar(files in files()) {
        assert_every_reader_agrees(&tar(&files.into_values().collect::<Vec<_>>()));
    }
}
