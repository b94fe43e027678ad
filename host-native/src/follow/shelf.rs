use std::{
    fs, io,
    path::{Path, PathBuf},
};

use gate_core::{Digest, limits};
use serde::{Deserialize, Serialize};

use crate::{
    enrollment::rollout::RolloutId,
    file::{self, IfExists},
};

/// The bundles of a node that follows directives: the one that runs, the one before it, and which is which.
///
/// `current.json` names both and changes at once, by a rename, after the bundles that it names are on disk.
#[derive(Debug)]
pub struct Shelf {
    directory: PathBuf,
    kept: Option<Kept>,
}

/// What is in `current.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    current: Entry,
    previous: Option<Entry>,
}

/// One bundle on the shelf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The rollout that it came by; none for the one that the node began with.
    pub rollout_id: Option<RolloutId>,
    /// The digest of its bytes.
    digest: Digest,
}

/// Why a shelf cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use `{}` ({source}): {}", path.display(), remedy(source, directory))]
pub struct ShelfError {
    path: PathBuf,
    directory: PathBuf,
    source: io::Error,
}

fn remedy(source: &io::Error, directory: &Path) -> String {
    match file::remedy(source, "") {
        "" => format!(
            "correct who may read and write it, or remove `{}` to begin with `--bundle` again",
            directory.display()
        ),
        helps => helps.to_owned(),
    }
}

/// Largest `current.json`, in bytes.
const INDEX_BYTES: u64 = 4096;

impl Shelf {
    /// Opens the shelf of a directory, which need not be there yet.
    ///
    /// # Errors
    /// It cannot be read, or says something else than a shelf does.
    pub fn open(directory: PathBuf) -> Result<Self, ShelfError> {
        let shelf = Self { directory, kept: None };
        let path = shelf.index();
        let kept = match file::read(&path, INDEX_BYTES).map_err(io::Error::from) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(|error| shelf.failed(&path, error.into()))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(shelf.failed(&path, error)),
        };
        Ok(Self { kept, ..shelf })
    }

    /// Writes a bundle down. It does not count before it is [`Self::put`].
    pub(super) fn keep(&self, rollout_id: Option<&RolloutId>, tar: &[u8]) -> Result<Entry, ShelfError> {
        let entry = Entry { rollout_id: rollout_id.cloned(), digest: Digest::of(tar) };
        let path = self.path(&entry);
        file::create_directory(&self.directory, 0o700)
            .and_then(|()| file::publish(&path, tar, IfExists::Replace))
            .map_err(|error| self.failed(&path, error))?;
        Ok(entry)
    }

    /// From now on, and after a restart, this is the bundle that runs, once `activate` has gone well; else what was so before is so
    /// again. What is not named any more is removed.
    pub(super) fn put<E: From<ShelfError>>(
        &mut self,
        current: Entry,
        previous: Option<Entry>,
        activate: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let before = self.kept.replace(Kept { current, previous });
        if let Err(error) = self.write_index().map_err(E::from).and_then(|()| activate()) {
            self.kept = before;
            if let Err(undone) = self.write_index() {
                tracing::error!("the bundle that does not run is the next start's: {undone}");
            }
            return Err(error);
        }
        self.remove_stale();
        Ok(())
    }

    fn write_index(&self) -> Result<(), ShelfError> {
        let path = self.index();
        let written = match &self.kept {
            Some(kept) => serde_json::to_vec(kept)
                .map_err(io::Error::from)
                .and_then(|json| file::publish(&path, &json, IfExists::Replace)),
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            },
        };
        written.map_err(|error| self.failed(&path, error))
    }

    /// What stays is removed the next time.
    fn remove_stale(&self) {
        let named = self.kept.iter().flat_map(|kept| kept.previous.iter().chain([&kept.current]));
        let named: Vec<_> = named.map(|entry| self.path(entry)).chain([self.index()]).collect();
        for entry in fs::read_dir(&self.directory).into_iter().flatten().filter_map(Result::ok) {
            let stale = entry.path();
            if !named.contains(&stale) {
                let _ = fs::remove_file(stale);
            }
        }
    }

    /// What runs, where that came by a rollout or was taken back to.
    pub fn current(&self) -> Option<&Entry> {
        self.kept.as_ref().map(|kept| &kept.current)
    }

    /// The bytes of a bundle.
    ///
    /// # Errors
    /// They cannot be read, or are not those that were written.
    pub fn read(&self, entry: &Entry) -> Result<Vec<u8>, ShelfError> {
        let path = self.path(entry);
        let failed = |error| self.failed(&path, error);
        let tar = file::read(&path, limits::BUNDLE_BYTES as u64).map_err(|error| failed(error.into()))?;
        if Digest::of(&tar) != entry.digest {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "it was changed")));
        }
        Ok(tar)
    }

    pub(super) fn previous(&self) -> Result<Option<(Entry, Vec<u8>)>, ShelfError> {
        let Some(entry) = self.kept.as_ref().and_then(|kept| kept.previous.as_ref()) else { return Ok(None) };
        Ok(Some((entry.clone(), self.read(entry)?)))
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn index(&self) -> PathBuf {
        self.directory.join("current.json")
    }

    fn path(&self, entry: &Entry) -> PathBuf {
        self.directory.join(format!("{}.tar", entry.digest.to_hex()))
    }

    fn failed(&self, path: &Path, source: io::Error) -> ShelfError {
        ShelfError { path: path.to_owned(), directory: self.directory.clone(), source }
    }
}
