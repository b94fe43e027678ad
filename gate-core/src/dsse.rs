//! DSSE envelopes: the signature covers the payload's bytes as they are and says what they are.
//!
//! <https://github.com/secure-systems-lab/dsse>, protocol and envelope, version 1.0.

use alloc::{string::String, vec::Vec};

use crate::{
    base64, json,
    key::{KeyId, TrustedKeys},
    limits,
    text::{cut, decimal, display_text, fill, line, shown},
};

/// A payload with its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What the payload is.
    pub payload_type: String,
    /// The signed bytes.
    pub payload: Vec<u8>,
    /// The signatures, each with the id of its key.
    pub signatures: Vec<(KeyId, [u8; 64])>,
}

/// Why an envelope is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvelopeError {
    /// Not the JSON of an envelope.
    Malformed(String),
    /// JSON, but not written the one way an envelope is written.
    NotCanonical,
    /// The payload is something else.
    PayloadType {
        /// What was asked for.
        expected: &'static str,
        /// What the envelope says.
        found: String,
    },
    /// A signature's key id is not 64 lower-case hexadecimal digits.
    KeyId(String),
    /// A signature is not 64 bytes of base64.
    Signature(KeyId),
    /// More signatures than [`limits::SIGNATURES`].
    TooMany(usize),
    /// Two signatures by one key.
    Duplicate(KeyId),
    /// A trusted key's signature that does not hold.
    Forged(KeyId),
    /// Too few distinct trusted keys have signed.
    Threshold {
        /// How many must.
        needed: usize,
        /// How many have.
        trusted: usize,
        /// The ids in the envelope that are not trusted.
        untrusted: Vec<KeyId>,
    },
}

impl EnvelopeError {
    /// What is wrong, and what to do.
    pub fn text(&self) -> String {
        match self {
            Self::Malformed(why) => fill("envelope is not DSSE JSON: {}", &[why]),
            Self::NotCanonical => {
                "envelope is not in its canonical form: compact JSON with `payload`, `payloadType`, `signatures`".into()
            }
            Self::PayloadType { expected, found } => {
                fill("envelope holds a `{}`, not a `{}`", &[&shown(found), expected])
            }
            Self::KeyId(id) => fill(
                "envelope's key id `{}` is not the SHA-256 of a public key in lower-case hexadecimal",
                &[&shown(id)],
            ),
            Self::Signature(id) => fill("signature by key `{}` is not 64 bytes of base64", &[&id.text()]),
            Self::TooMany(count) => {
                let (count, most) = (decimal(*count as u64), decimal(limits::SIGNATURES as u64));
                fill("envelope has {} signatures: at most {} are read", &[&count, &most])
            }
            Self::Duplicate(id) => fill("key `{}` has signed twice: a threshold counts distinct keys", &[&id.text()]),
            Self::Forged(id) => fill(
                "signature by trusted key `{}` does not hold: the payload or the signature was changed",
                &[&id.text()],
            ),
            Self::Threshold { needed, trusted, untrusted } => {
                let (trusted, needed) = (decimal(*trusted as u64), decimal(*needed as u64));
                let found = fill("{} of {} needed trusted keys have signed", &[&trusted, &needed]);
                match untrusted.first() {
                    None => fill("{}: sign with `autonomy bundle sign`", &[&found]),
                    Some(id) => fill(
                        "{}; `{}` signed and is not trusted: add its public key, or sign with a trusted one",
                        &[&found, &id.text()],
                    ),
                }
            }
        }
    }
}

display_text!(EnvelopeError);

impl core::error::Error for EnvelopeError {}

struct WireEnvelope {
    payload: String,
    payload_type: String,
    signatures: Vec<WireSignature>,
}

struct WireSignature {
    keyid: String,
    sig: String,
}

crate::read_object!(WireEnvelope { payload, payload_type = "payloadType", signatures });
crate::read_object!(WireSignature { keyid, sig });

impl WireEnvelope {
    /// In its one form. Of what is written none needs escaping: base64, hexadecimal digits, and a media type.
    fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        json::put(
            &mut out,
            &["{\"payload\":\"", &self.payload, "\",\"payloadType\":\"", &self.payload_type, "\",\"signatures\":["],
        );
        for (at, WireSignature { keyid, sig }) in self.signatures.iter().enumerate() {
            let start = if at == 0 { "{\"keyid\":\"" } else { ",{\"keyid\":\"" };
            json::put(&mut out, &[start, keyid, "\",\"sig\":\"", sig, "\"}"]);
        }
        json::put(&mut out, &["]}"]);
        out
    }
}

/// The bytes that are signed: DSSE's pre-authentication encoding of a payload and its type.
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let (type_bytes, payload_bytes) = (decimal(payload_type.len() as u64), decimal(payload.len() as u64));
    let head = fill("DSSEv1 {} {} {} ", &[&type_bytes, payload_type, &payload_bytes]);
    let mut message = head.into_bytes();
    message.extend_from_slice(payload);
    message
}

impl Envelope {
    /// Reads an envelope in its canonical form, so that no byte of it can change unseen.
    ///
    /// # Errors
    /// What is malformed. Nothing is verified yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > limits::ENVELOPE_BYTES {
            return Err(EnvelopeError::Malformed("it is too large to be one".into()));
        }
        let wire: WireEnvelope = json::read(bytes).map_err(|error| EnvelopeError::Malformed(line(&error.text())))?;
        let payload = base64::decode(wire.payload.as_bytes())
            .ok_or_else(|| EnvelopeError::Malformed("`payload` is not padded standard base64".into()))?;
        // Compact JSON of these members in this order; base64 that decodes at all has one form. A text that stands there with
        // an escape is longer than it is here, so that nothing with one is the same.
        if wire.to_json() != bytes {
            return Err(EnvelopeError::NotCanonical);
        }
        if wire.signatures.len() > limits::SIGNATURES {
            return Err(EnvelopeError::TooMany(wire.signatures.len()));
        }
        let mut signatures = Vec::with_capacity(wire.signatures.len());
        for WireSignature { keyid, sig } in wire.signatures {
            let id = KeyId::from_hex(&keyid).ok_or_else(|| EnvelopeError::KeyId(cut(&keyid, 80).into()))?;
            let signature = base64::decode(sig.as_bytes()).and_then(|bytes| bytes.try_into().ok());
            signatures.push((id, signature.ok_or(EnvelopeError::Signature(id))?));
        }
        Ok(Self { payload_type: wire.payload_type, payload, signatures })
    }

    /// The envelope in its canonical form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let wire = WireEnvelope {
            payload: base64::encode(&self.payload),
            payload_type: self.payload_type.clone(),
            signatures: self
                .signatures
                .iter()
                .map(|(id, signature)| WireSignature { keyid: id.text(), sig: base64::encode(signature) })
                .collect(),
        };
        wire.to_json()
    }

    /// Checks the payload's type and that enough distinct trusted keys have signed; gives their ids.
    ///
    /// A signature by a key that is not trusted counts for nothing; one by a trusted key that does not hold refuses
    /// the envelope, whatever the others say.
    ///
    /// # Errors
    /// Which of these does not hold.
    pub fn verify(&self, payload_type: &'static str, keys: &TrustedKeys) -> Result<Vec<KeyId>, EnvelopeError> {
        if self.payload_type != payload_type {
            let found = cut(&self.payload_type, 80).into();
            return Err(EnvelopeError::PayloadType { expected: payload_type, found });
        }
        let message = pre_authentication_encoding(payload_type, &self.payload);
        let (mut trusted, mut untrusted) = (Vec::new(), Vec::new());
        for (id, signature) in &self.signatures {
            if trusted.contains(id) || untrusted.contains(id) {
                return Err(EnvelopeError::Duplicate(*id));
            }
            match keys.find(*id) {
                None => untrusted.push(*id),
                Some(key) if key.verifies(&message, signature) => trusted.push(*id),
                Some(_) => return Err(EnvelopeError::Forged(*id)),
            }
        }
        if trusted.len() < keys.threshold() {
            return Err(EnvelopeError::Threshold { needed: keys.threshold(), trusted: trusted.len(), untrusted });
        }
        Ok(trusted)
    }
}
