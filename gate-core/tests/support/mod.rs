//! Keys, bundles and leases for the tests.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(unreachable_pub, reason = "a module of several test binaries")]

use ed25519_dalek::{Signer as _, SigningKey};
use gate_core::{
    Digest, EnrollmentRef, NodeId, PublicKey, TrustedKeys,
    dsse::{Envelope, pre_authentication_encoding},
    lease::{self, Lease},
    manifest::{self, Channel, Manifest, Provenance},
    ustar,
};
use serde_json::Value;

/// A signing key that is the same in every run.
pub fn key(name: u8) -> SigningKey {
    SigningKey::from_bytes(&[name; 32])
}

/// Its public half.
pub fn public(name: u8) -> PublicKey {
    PublicKey::from_bytes(key(name).verifying_key().as_bytes()).unwrap()
}

/// The keys of these names, `threshold` of which must have signed.
pub fn trusted(names: &[u8], threshold: usize) -> TrustedKeys {
    TrustedKeys::new(names.iter().map(|name| public(*name)), threshold).unwrap()
}

/// An envelope that these keys have signed.
pub fn envelope(payload_type: &str, payload: &[u8], signers: &[u8]) -> Vec<u8> {
    let message = pre_authentication_encoding(payload_type, payload);
    let signatures = signers.iter().map(|name| (public(*name).id(), key(*name).sign(&message).to_bytes())).collect();
    Envelope { payload_type: payload_type.to_owned(), payload: payload.to_owned(), signatures }.to_bytes()
}

/// The one tar of these files.
pub fn tar<P: AsRef<str>, D: AsRef<[u8]>>(files: &[(P, D)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (path, data) in files {
        tar.extend(ustar::header(path.as_ref(), data.as_ref().len()));
        tar.extend(data.as_ref());
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// A bundle of these files, in the order of their paths, that these keys have signed.
pub fn bundle(enrollment_ref: Option<&str>, files: &[(&str, &[u8])], signers: &[u8]) -> Vec<u8> {
    let provenance = Provenance {
        enrollment_ref: enrollment_ref.map(|text| EnrollmentRef::parse(text).unwrap()),
        ..Provenance::default()
    };
    let listed = files.iter().map(|(path, data)| ((*path).to_owned(), Digest::of(data))).collect();
    let manifest = Manifest::new("fleet".into(), "1.0.0".into(), Channel::Dev, "1".into(), provenance, listed);
    let manifest = serde_json::to_vec_pretty(&manifest.unwrap()).unwrap();
    let envelope = envelope(manifest::PAYLOAD_TYPE, &manifest, signers);
    let mut entries: Vec<(&str, &[u8])> =
        vec![(manifest::MANIFEST_PATH, &manifest), (manifest::ENVELOPE_PATH, &envelope)];
    entries.extend(files);
    tar(&entries)
}

/// A bundle with one small policy.
pub fn small_bundle(enrollment_ref: Option<&str>) -> Vec<u8> {
    bundle(enrollment_ref, &[("policies/a.rego", b"package autonomy\n")], &[1])
}

/// A lease for a node, from 1,000 ms to 2,000 ms.
pub fn lease(node_id: &str, serial: u64) -> Lease {
    Lease {
        node_id: NodeId::parse(node_id).unwrap(),
        enrollment_ref: EnrollmentRef::parse("fleet-a").unwrap(),
        status: "active".to_owned().into(),
        rollout_state: "active".to_owned().into(),
        serial,
        issued_at_ms: 1_000,
        expires_at_ms: 2_000,
    }
}

/// A lease that the key has signed.
pub fn signed_lease(lease: &Lease, signer: u8) -> Vec<u8> {
    envelope(lease::PAYLOAD_TYPE, &serde_json::to_vec(lease).unwrap(), &[signer])
}

/// A file of `tests/corpus/`.
pub fn corpus(name: &str) -> Value {
    let path = format!("{}/../tests/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

/// The bytes that a corpus describes: base64 texts, and counts of zeros.
pub fn unpack(segments: &Value) -> Vec<u8> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let bytes = |segment: &Value| match segment.as_u64() {
        Some(zeros) => vec![0; usize::try_from(zeros).unwrap()],
        None => STANDARD.decode(segment.as_str().unwrap()).unwrap(),
    };
    segments.as_array().unwrap().iter().map(bytes).collect::<Vec<_>>().concat()
}
