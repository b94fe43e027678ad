//! Makes keys, tars and envelopes by the book (POSIX ustar, RFC 8410, DSSE), good ones and bad ones.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What a bundle's envelope holds.
pub const MANIFEST_TYPE: &str = "application/vnd.autonomy.bundle.manifest.v1+json";
/// What a lease's envelope holds.
pub const LEASE_TYPE: &str = "application/vnd.autonomy.enrollment.lease.v1+json";

/// A signing key that is the same in every run.
pub struct Signer {
    key: SigningKey,
    /// The SHA-256 of its SPKI.
    pub id: String,
    /// Its public half.
    pub pem: String,
}

impl Signer {
    /// The key of this name. Its seed is no secret: it is the name's digest.
    pub fn named(name: &str) -> Self {
        let seed: [u8; 32] = Sha256::digest(format!("autonomy gate, corpus key {name}")).into();
        let key = SigningKey::from_bytes(&seed);
        let mut spki = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        spki.extend(key.verifying_key().as_bytes());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", base64(&spki));
        Self { key, id: hex(&Sha256::digest(&spki)), pem }
    }

    /// Its signature over these very bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// Its entry in the envelope of a payload.
    pub fn signature(&self, payload_type: &str, payload: &[u8]) -> (String, String) {
        (self.id.clone(), base64(&self.sign(&pae(payload_type, payload))))
    }
}

/// DSSE's pre-authentication encoding.
fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// An envelope with these signatures, in its canonical form.
pub fn envelope_of(payload_type: &str, payload: &str, signatures: &[(String, String)]) -> String {
    let signatures: Vec<_> =
        signatures.iter().map(|(id, sig)| format!(r#"{{"keyid":"{id}","sig":"{sig}"}}"#)).collect();
    let payload = base64(payload.as_bytes());
    format!(r#"{{"payload":"{payload}","payloadType":"{payload_type}","signatures":[{}]}}"#, signatures.join(","))
}

/// An envelope that these keys have signed.
pub fn envelope(payload_type: &str, payload: &str, signers: &[&Signer]) -> String {
    let signatures: Vec<_> = signers.iter().map(|signer| signer.signature(payload_type, payload.as_bytes())).collect();
    envelope_of(payload_type, payload, &signatures)
}

/// One entry of a tar: its header block, and the bytes that follow it.
#[derive(Clone)]
pub struct Piece {
    pub header: [u8; 512],
    pub data: Vec<u8>,
}

impl Piece {
    /// A regular file.
    pub fn file(path: &str, data: impl Into<Vec<u8>>) -> Self {
        let data = data.into();
        let mut piece = Self { header: [0; 512], data };
        piece.put(0, path.as_bytes());
        piece.put(100, b"0000644\0");
        piece.put(108, b"0000000\0");
        piece.put(116, b"0000000\0");
        piece.put(124, format!("{:011o}\0", piece.data.len()).as_bytes());
        piece.put(136, b"00000000000\0");
        piece.put(156, b"0");
        piece.put(257, b"ustar\x0000");
        piece.summed()
    }

    /// An entry of another type.
    pub fn typed(path: &str, flag: u8, data: impl Into<Vec<u8>>) -> Self {
        Self::file(path, data).with(156, &[flag])
    }

    /// The same with other bytes at a place of its header, and a checksum that holds.
    pub fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.put(at, bytes);
        self.summed()
    }

    /// The same with other bytes at a place of its header, whatever its checksum says.
    pub fn with_unsummed(mut self, at: usize, bytes: &[u8]) -> Self {
        self.put(at, bytes);
        self
    }

    /// The sum of its header, its checksum counted as spaces.
    pub fn sum(&self) -> u32 {
        self.header
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum()
    }

    /// How many bytes it takes in a tar.
    pub fn len(&self) -> usize {
        512 + self.data.len().next_multiple_of(512)
    }

    fn summed(mut self) -> Self {
        let sum = format!("{:07o}\0", self.sum());
        self.put(148, sum.as_bytes());
        self
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (to, from) in self.header.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }
}

/// The pieces one after the other, each padded to a whole block.
pub fn body(pieces: &[Piece]) -> Vec<u8> {
    let mut tar = Vec::new();
    for piece in pieces {
        tar.extend(piece.header);
        tar.extend(&piece.data);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar
}

/// The pieces and the two zero blocks that end a tar.
pub fn tar(pieces: &[Piece]) -> Vec<u8> {
    let mut tar = body(pieces);
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// `sha256:<hex>` of some bytes.
pub fn digest(bytes: impl AsRef<[u8]>) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// Standard base64 with its padding.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Two lower-case hexadecimal digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes as the corpora hold them: a list of base64 texts and, where more than a hundred zeros stand, of their counts.
pub fn segments(bytes: &[u8]) -> Value {
    const RUN: usize = 100;
    let mut segments = Vec::new();
    let (mut text, mut zeros) = (Vec::new(), 0);
    for byte in bytes {
        if *byte == 0 {
            zeros += 1;
            continue;
        }
        if zeros > RUN {
            flush(&mut segments, &mut text);
            segments.push(json!(zeros));
        } else {
            text.resize(text.len() + zeros, 0);
        }
        zeros = 0;
        text.push(*byte);
    }
    if zeros <= RUN {
        text.resize(text.len() + zeros, 0);
        zeros = 0;
    }
    flush(&mut segments, &mut text);
    if zeros > 0 {
        segments.push(json!(zeros));
    }
    Value::Array(segments)
}

fn flush(segments: &mut Vec<Value>, text: &mut Vec<u8>) {
    if !text.is_empty() {
        segments.push(json!(base64(text)));
        text.clear();
    }
}
