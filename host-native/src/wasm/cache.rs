//! Compiled modules on disk.
//!
//! A file is named by what it was compiled from and by what: the module, the version of the runtime, the features of the
//! processor. It begins with the SHA-256 of the rest. What does not hold is compiled again and nobody is told: the cache is there
//! to save time. What is compiled is code that runs, so a cache that others can write to is not looked at.

use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, Metadata},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};
use wasmtime::{Engine, Module};

use crate::file;

/// Largest file that is read, in bytes; the compiled module has less than one.
const FILE_BYTES: u64 = 64 * 1024 * 1024;

const DIGEST_BYTES: usize = 32;

/// The compiled module, if it is there and whole.
pub(super) fn read(directory: &Path, engine: &Engine, module: &[u8]) -> Option<Module> {
    let path = place(directory, engine, module);
    if !is_ours_alone(&fs::metadata(directory).ok()?) || !is_ours_alone(&fs::symlink_metadata(&path).ok()?) {
        tracing::warn!(
            "`{}` can be written by others: the module is compiled again at each start",
            directory.display()
        );
        return None;
    }
    let bytes = file::read(&path, FILE_BYTES).ok()?;
    let (digest, compiled) = bytes.split_first_chunk::<DIGEST_BYTES>()?;
    if Sha256::digest(compiled).as_slice() != digest {
        return None;
    }
    #[expect(unsafe_code, reason = "compiled code is believed: wasmtime has no other way to take it")]
    // SAFETY: the file is this user's alone and was written by `write` below, from the same module by the same engine: that is
    // its name, and its digest holds.
    let module = unsafe { Module::deserialize(engine, compiled) };
    module.ok()
}

/// Keeps a compiled module. A cache that cannot be written only costs the next start some time.
pub(super) fn write(directory: &Path, engine: &Engine, module: &[u8], compiled: &Module) {
    let written = compiled.serialize().map_err(io::Error::other).and_then(|compiled| {
        file::create_directory(directory, 0o700)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&Sha256::digest(&compiled))?;
        file.write_all(&compiled)?;
        file.persist(place(directory, engine, module)).map_err(|error| error.error)
    });
    if let Err(error) = written {
        tracing::debug!("the compiled module is not kept in `{}`: {error}", directory.display());
    }
}

pub(super) fn place(directory: &Path, engine: &Engine, module: &[u8]) -> PathBuf {
    let mut compatibility = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut compatibility);
    let digest: String = Sha256::digest(module).iter().map(|byte| format!("{byte:02x}")).collect();
    directory.join(format!("{digest}-{:016x}.cwasm", compatibility.finish()))
}

fn is_ours_alone(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
}
