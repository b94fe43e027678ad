//! How the gate decides, what it refuses, and which test proves it.
//!
//! # How it decides
//!
//! 1. The host tells a [`Gate`](crate::Gate) its bundle, and what the enrollment source answered about its node.
//! 2. [`Facts::verdict`](crate::Facts::verdict) walks the ten sub-checks in their order; the first that fails is the
//!    reason. It looks at the facts and the time, never at the mode.
//! 3. [`Effect::of`](crate::Effect::of) turns the mode, the policy's answer and the verdict into what the caller gets.
//!    It never looks at the facts.
//! 4. [`Gate::decide`](crate::Gate::decide) hands back the frames. Nothing counts before they are durable: that is the
//!    host's promise, and the reason why a decision and its frames come as one value.
//!
//! # What it withstands
//!
//! | attack | what stops it | proved by |
//! | --- | --- | --- |
//! | a tar that two readers read differently (links, PAX, GNU names, sparse, base-256 sizes, twins, a file that is a directory, too) | one encoding per list of files: a header that is not byte for byte the expected one is refused | `tests/bundle.rs` |
//! | a byte of a bundle changed anywhere | the manifest is signed, the files are named by digest, the tar and the envelope are canonical | `tests/bundle.rs`, every bit flipped, and other values at every 17th byte |
//! | a signature that only lenient verifiers accept | `verify_strict`; keys of small order and non-canonical keys are refused | `tests/signatures.rs` |
//! | one key signing twice to reach a threshold | distinct key ids are counted, a key listed twice is refused | `tests/bundle.rs` |
//! | a key that two JSON readers resolve differently | duplicate keys are refused at any depth | `src/json.rs` |
//! | a bundle or lease that is too large or too deep | counts in [`limits`](crate::limits), checked before anything is kept | `tests/bundle.rs` |
//! | a state that a later version invents | every state that is not named as good denies | the decision corpus |
//! | an old lease replayed, or another node's | serials only grow; the node id is compared | `tests/gate.rs` |
//! | a clock that steps back | an answer from the future is stale | the decision corpus |
//! | words that a terminal obeys, in what is refused | messages are one bounded line, escaped | `tests/bundle.rs`, `src/identity.rs` |
//! | a look-alike name | names are ASCII, compared byte for byte, never normalised | `src/identity.rs` |
//!
//! # What it does not do
//!
//! It does not ask the policy, read the enrollment, write the frames or keep the time; a host that lies to it is
//! believed. It keeps no secret, so there is nothing to leak through time or memory.
