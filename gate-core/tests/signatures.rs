//! Signatures: every published vector, keys that are refused, and what OpenSSL makes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it counted"
)]

mod support;

use curve25519_dalek::{
    EdwardsPoint, Scalar,
    constants::{ED25519_BASEPOINT_POINT as B, EIGHT_TORSION},
    edwards::CompressedEdwardsY,
    traits::Identity as _,
};
use gate_core::{
    PublicKey, TrustedKeys,
    dsse::{Envelope, pre_authentication_encoding},
    key::KeyError,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// As envelopes do: a signature that does not have 64 bytes is none.
fn verifies(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (<[u8; 32]>::try_from(key), <[u8; 64]>::try_from(signature)) else {
        return false;
    };
    PublicKey::from_bytes(&key).is_ok_and(|key| key.verifies(message, &signature))
}

#[test]
fn every_published_vector_is_answered_as_it_is_labelled() {
    let corpus = support::corpus("signatures.json");
    let cases = corpus["cases"].as_array().unwrap();
    let (mut valid, mut refused) = (0, 0);
    for case in cases {
        let [key, message, signature] =
            ["key", "message", "signature"].map(|member| bytes(case[member].as_str().unwrap()));
        let expected = case["valid"].as_bool().unwrap();
        assert_eq!(verifies(&key, &message, &signature), expected, "{}", case["name"]);
        *(if expected { &mut valid } else { &mut refused }) += 1;
    }
    println!("{valid} vectors verify, {refused} are refused");
    // Wycheproof: 88 and 63. "Taming the Many EdDSAs": 1 and 11.
    assert_eq!((valid, refused), (89, 74));
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn keys_of_small_order_are_weak() {
    for point in EIGHT_TORSION {
        assert_eq!(PublicKey::from_bytes(&point.compress().to_bytes()), Err(KeyError::Weak));
    }
    // Mixed order is not small: the discrete logarithm is as hard as ever.
    let mixed = B * Scalar::from(7_u8) + EIGHT_TORSION[1];
    assert!(PublicKey::from_bytes(&mixed.compress().to_bytes()).is_ok());
}

#[test]
fn keys_that_are_not_canonical_are_refused() {
    let mut points = 0;
    for low in 0xed..=0xff_u8 {
        for high in [0x7f, 0xff] {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (low, high);
            points += usize::from(CompressedEdwardsY(bytes).decompress().is_some());
            assert_eq!(PublicKey::from_bytes(&bytes), Err(KeyError::NotAPoint), "{bytes:02x?}");
        }
    }
    // x = 0 has no sign.
    for low in [0x01, 0xec] {
        let mut bytes = if low == 1 { [0; 32] } else { [0xff; 32] };
        bytes[0] = low;
        bytes[31] |= 0x80;
        points += usize::from(CompressedEdwardsY(bytes).decompress().is_some());
        assert_eq!(PublicKey::from_bytes(&bytes), Err(KeyError::NotAPoint), "{bytes:02x?}");
    }
    println!("{points} of them are points of the curve to a lenient reader");
    assert!(points > 20);
}

/// A directory of this test's own, empty.
fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    drop(fs::remove_dir_all(&dir));
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn openssl(dir: &Path, arguments: &str) -> String {
    let output = Command::new("openssl").current_dir(dir).args(arguments.split(' ')).output();
    let output = output.expect("OpenSSL 3 is needed: `apt-get install openssl`");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn openssl_makes_keys_and_signatures_that_verify_and_verifies_ours() {
    let dir = scratch("openssl-signs");
    openssl(&dir, "genpkey -algorithm ed25519 -out private.pem");
    let pem = openssl(&dir, "pkey -in private.pem -pubout");
    let key = PublicKey::from_pem(&pem).unwrap();
    assert_eq!(key.to_pem(), pem);
    openssl(&dir, "pkey -in private.pem -pubout -outform DER -out public.der");
    let id = openssl(&dir, "dgst -sha256 -r public.der");
    assert_eq!(id.split(' ').next().unwrap(), key.id().to_string());

    let (kind, payload) = ("text/plain", b"{\"any\": \"payload\"}".to_vec());
    fs::write(dir.join("message"), pre_authentication_encoding(kind, &payload)).unwrap();
    openssl(&dir, "pkeyutl -sign -rawin -inkey private.pem -in message -out signature");
    let signature = fs::read(dir.join("signature")).unwrap().try_into().unwrap();
    let keys = TrustedKeys::new([key.clone()], 1).unwrap();
    let envelope = Envelope { payload_type: kind.into(), payload, signatures: vec![(key.id(), signature)] };
    assert_eq!(Envelope::parse(&envelope.to_bytes()).unwrap().verify(kind, &keys), Ok(vec![key.id()]));

    let ours = support::envelope(kind, b"payload", &[1]);
    fs::write(dir.join("message"), pre_authentication_encoding(kind, b"payload")).unwrap();
    fs::write(dir.join("signature"), Envelope::parse(&ours).unwrap().signatures[0].1).unwrap();
    fs::write(dir.join("public.pem"), support::public(1).to_pem()).unwrap();
    openssl(&dir, "pkeyutl -verify -rawin -pubin -inkey public.pem -in message -sigfile signature");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_pem_is_an_ed25519_public_key_or_says_what_else_it_is() {
    let dir = scratch("openssl-pem");
    openssl(&dir, "genpkey -algorithm ed25519 -out private.pem");
    openssl(&dir, "genpkey -algorithm x25519 -out x25519.pem");
    openssl(&dir, "genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:2048 -out rsa.pem");
    openssl(&dir, "genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-256 -out ec.pem");
    openssl(&dir, "req -x509 -new -key private.pem -subj /CN=x -out certificate.pem");
    let pem = openssl(&dir, "pkey -in private.pem -pubout");
    let public_of = |name: &str| openssl(&dir, &format!("pkey -in {name}.pem -pubout"));
    let file = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let id = PublicKey::from_pem(&pem).unwrap().id();
    for accepted in
        [pem.clone(), pem.replace('\n', "\r\n"), pem.trim().to_owned(), format!("\n{pem}\n"), pem.replace('\n', " \n")]
    {
        assert_eq!(PublicKey::from_pem(&accepted).unwrap().id(), id, "{accepted:?}");
    }

    let not_pem =
        "not the PEM of a public key: `openssl pkey -in <private> -pubout` or `autonomy key generate` makes one";
    let other = "not an Ed25519 key: make one with `openssl genpkey -algorithm ed25519`";
    let label = |label: &str| format!("PEM of a `{label}`, not of a public key: give its public half");
    let weak = support::public(1).to_pem();
    let body = weak.lines().nth(1).unwrap().to_owned();
    let with_body = |body: &str| format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    let spki = |key: [u8; 32]| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let der = [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], key.as_slice()].concat();
        with_body(&STANDARD.encode(&der))
    };
    let table = [
        ("private key", file("private.pem"), label("PRIVATE KEY")),
        ("certificate", file("certificate.pem"), label("CERTIFICATE")),
        ("RSA key", public_of("rsa"), other.to_owned()),
        ("P-256 key", public_of("ec"), other.to_owned()),
        ("X25519 key", public_of("x25519"), other.to_owned()),
        ("two keys", format!("{pem}{weak}"), "more than one key in one PEM: give each key on its own".to_owned()),
        (
            "key and private key",
            format!("{pem}{}", file("private.pem")),
            "more than one key in one PEM: give each key on its own".to_owned(),
        ),
        ("empty", String::new(), not_pem.to_owned()),
        ("garbage", "ssh-ed25519 AAAAC3Nza".to_owned(), not_pem.to_owned()),
        ("base64 without armour", body.clone(), not_pem.to_owned()),
        ("cut before its end", pem.lines().take(2).collect::<Vec<_>>().join("\n"), not_pem.to_owned()),
        ("cut in its body", with_body(&body[..40]), other.to_owned()),
        ("no body", with_body(""), other.to_owned()),
        ("body without padding", with_body(&body[..59]), not_pem.to_owned()),
        (
            "body in url-safe letters",
            with_body(&body.replace(['/', '+'], "_").replacen('A', "-", 1)),
            not_pem.to_owned(),
        ),
        ("text before it", format!("subject=x\n{pem}"), not_pem.to_owned()),
        (
            "key of small order",
            spki(EdwardsPoint::identity().compress().to_bytes()),
            "a key of small order, under which anybody can sign: make one with `autonomy key generate`".to_owned(),
        ),
        (
            "key that is no point",
            spki([0xff; 32]),
            "not a point of the Ed25519 curve in its canonical form: make a key with `autonomy key generate`"
                .to_owned(),
        ),
    ];
    for (name, text, message) in table {
        assert_eq!(PublicKey::from_pem(&text).unwrap_err().to_string(), message, "{name}: {text}");
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_set_of_trusted_keys_can_always_be_met_and_never_by_nobody() {
    let keys = |names: &[u8]| names.iter().map(|name| support::public(*name)).collect::<Vec<_>>();
    let message = |names: &[u8], threshold| TrustedKeys::new(keys(names), threshold).unwrap_err().to_string();
    assert_eq!(message(&[], 0), "threshold `0` does not fit 0 trusted keys: give at least one key");
    assert_eq!(message(&[1, 2], 0), "threshold `0` does not fit 2 trusted keys: use 1 to 2");
    assert_eq!(message(&[1, 2], 3), "threshold `3` does not fit 2 trusted keys: use 1 to 2");
    let twice = format!("key `{}` is given twice: give each key once", support::public(1).id());
    assert_eq!(message(&[1, 2, 1], 1), twice);
    assert_eq!(message(&(0..65).collect::<Vec<_>>(), 1), "more than 64 trusted keys: give fewer");
    assert_eq!(TrustedKeys::new(keys(&(0..64).collect::<Vec<_>>()), 64).unwrap().threshold(), 64);
}
