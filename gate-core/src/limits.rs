//! Every limit in one place. A limit is a count (bytes, entries, depth), never a time, so that every engine agrees.

/// Longest node id, in bytes.
pub const NODE_ID_BYTES: usize = 128;
/// Longest enrollment ref, in bytes.
pub const ENROLLMENT_REF_BYTES: usize = 256;
/// Longest tool name, in bytes.
pub const TOOL_NAME_BYTES: usize = 128;
/// Longest audit id, in bytes.
pub const AUDIT_ID_BYTES: usize = 64;
/// Longest policy ref, in bytes: a bundle name, `@` and a version.
pub const POLICY_REF_BYTES: usize = 256;
/// Longest free text (`detail`, `why`) kept in a frame, in bytes; a longer one is cut at a character.
pub const DETAIL_BYTES: usize = 1024;

/// Largest bundle, in bytes.
pub const BUNDLE_BYTES: usize = 64 * 1024 * 1024;
/// Most entries in a bundle, the manifest and its envelope among them.
pub const BUNDLE_ENTRIES: usize = 4096;
/// Longest path in a bundle, in bytes: what a USTAR header holds without its prefix field.
pub const BUNDLE_PATH_BYTES: usize = 100;
/// Largest `manifest.json`, in bytes.
pub const MANIFEST_BYTES: usize = 1024 * 1024;
/// Largest envelope, in bytes: a manifest in base64 and its signatures.
pub const ENVELOPE_BYTES: usize = 2 * 1024 * 1024;
/// Deepest JSON nesting in a manifest.
pub const JSON_DEPTH: usize = 32;
/// Most members of a JSON object: those of a manifest's `files`, and room to spare.
pub const JSON_MEMBERS: usize = 2 * BUNDLE_ENTRIES;
/// Most signatures in an envelope.
pub const SIGNATURES: usize = 16;
/// Most trusted keys.
pub const TRUSTED_KEYS: usize = 64;

/// Largest frame payload of the write-ahead log, in bytes.
pub const FRAME_BYTES: usize = 1024 * 1024;
