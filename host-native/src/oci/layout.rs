//! The image layout on disk: `oci-layout`, `index.json`, `blobs/sha256/<digest>`.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use gate_core::Digest;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Artifact, BUNDLE_BYTES, BUNDLE_MEDIA_TYPE, DOCUMENT_BYTES, OciError, check_bundle_bytes,
    document::{
        Descriptor, EMPTY, Index, LAYOUT_VERSION, LayoutFile, MANIFEST_MEDIA_TYPE, Manifest, check_content, check_word,
    },
    reference::Name,
};
use crate::file::{self, IfExists, ReadError, TEMP_PREFIX, directory_of};

pub(super) fn push(bundle: &[u8], dir: &Path, tag: Option<&str>) -> Result<Artifact, OciError> {
    let layout = Layout::create(dir)?;
    let manifest = json(&Manifest::of(bundle), &layout.dir)?;
    // Blobs first: whoever reads the index finds all that it names.
    for content in [bundle, EMPTY, &manifest] {
        layout.write_blob(content)?;
    }
    let descriptor = Descriptor::new(MANIFEST_MEDIA_TYPE, &manifest).with_artifact_type(BUNDLE_MEDIA_TYPE);
    let artifact = Artifact::new(descriptor.digest, bundle);
    layout.change_index(|index| index.put(descriptor, tag))?;
    Ok(artifact)
}

pub(super) fn pull(dir: &Path, name: Option<&Name>) -> Result<(Artifact, Vec<u8>), OciError> {
    let layout = Layout::open(dir)?;
    let digest = layout.find(name)?;
    let path = layout.blob(&digest);
    let manifest: Manifest = parse(&layout.read_blob(&digest, None, DOCUMENT_BYTES)?, &path)?;
    let bundle = manifest.bundle().map_err(|why| OciError::Refused { path, why })?;
    check_bundle_bytes(bundle.size)?;
    layout.read_blob(&manifest.config.digest, Some(manifest.config.size), DOCUMENT_BYTES)?;
    let bytes = layout.read_blob(&bundle.digest, Some(bundle.size), BUNDLE_BYTES)?;
    Ok((Artifact::new(digest, &bytes), bytes))
}

struct Layout {
    dir: PathBuf,
}

impl Layout {
    fn open(dir: &Path) -> Result<Self, OciError> {
        let layout = Self { dir: dir.to_owned() };
        let path = layout.layout_file();
        let bytes = match read(&path, DOCUMENT_BYTES) {
            Err(OciError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let why = "it has no file `oci-layout`".to_owned();
                return Err(OciError::NotALayout { path: layout.dir, why });
            }
            read => read?,
        };
        let LayoutFile { image_layout_version } = parse(&bytes, &path)?;
        check_word("imageLayoutVersion", &image_layout_version, LAYOUT_VERSION)
            .map_err(|why| OciError::NotALayout { path: layout.dir.clone(), why })?;
        Ok(layout)
    }

    /// Opens the layout, or makes one where there is nothing.
    fn create(dir: &Path) -> Result<Self, OciError> {
        let layout = Self { dir: dir.to_owned() };
        if layout.layout_file().exists() {
            return Self::open(dir);
        }
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let foreign = fs::read_dir(dir)
            .map_err(io_error("read", dir))?
            .filter_map(Result::ok)
            .any(|entry| !is_part_of_a_layout(&entry.file_name().to_string_lossy()));
        if foreign {
            let why = "it holds something else".to_owned();
            return Err(OciError::NotALayout { path: layout.dir, why });
        }
        let file = json(&LayoutFile { image_layout_version: LAYOUT_VERSION.to_owned() }, dir)?;
        match file::publish(&layout.layout_file(), &file, IfExists::Refuse) {
            // Somebody else made it in this instant.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(io_error("write", &layout.layout_file())(error))
            }
            Ok(()) | Err(_) => Self::open(dir),
        }
    }

    fn layout_file(&self) -> PathBuf {
        self.dir.join("oci-layout")
    }

    fn index_file(&self) -> PathBuf {
        self.dir.join("index.json")
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join("sha256").join(digest.to_hex())
    }

    fn read_index(&self) -> Result<Index, OciError> {
        let path = self.index_file();
        let index: Index = parse(&read(&path, DOCUMENT_BYTES)?, &path)?;
        index.check().map_err(|why| OciError::Refused { path, why })?;
        Ok(index)
    }

    /// The manifest's digest. A digest names its blob whether or not a tag still points to it.
    fn find(&self, name: Option<&Name>) -> Result<Digest, OciError> {
        let tag = match name {
            Some(Name::Digest(digest)) => return Ok(*digest),
            Some(Name::Tag(tag)) => Some(tag.as_str()),
            None => None,
        };
        let index = self.read_index()?;
        let found: Vec<&Descriptor> =
            index.manifests.iter().filter(|there| tag.is_none() || there.tag() == tag).collect();
        let refused = |why| OciError::Refused { path: self.index_file(), why };
        let descriptor = match (found.as_slice(), tag) {
            ([descriptor], _) => descriptor,
            ([], Some(tag)) => {
                return Err(OciError::NoSuchTag { layout: self.dir.clone(), tag: tag.to_owned(), tags: index.tags() });
            }
            (_, Some(tag)) => return Err(refused(format!("tag `{tag}` is there {} times", found.len()))),
            (_, None) => {
                return Err(OciError::WhichOne { layout: self.dir.clone(), count: found.len(), tags: index.tags() });
            }
        };
        check_word("mediaType", &descriptor.media_type, MANIFEST_MEDIA_TYPE).map_err(refused)?;
        self.read_blob(&descriptor.digest, Some(descriptor.size), DOCUMENT_BYTES)?;
        Ok(descriptor.digest)
    }

    /// A blob of at most `limit` bytes, checked.
    fn read_blob(&self, digest: &Digest, size: Option<u64>, limit: u64) -> Result<Vec<u8>, OciError> {
        let path = self.blob(digest);
        let bytes = read(&path, limit)?;
        check_content(&bytes, digest, size).map_err(|why| OciError::Refused { path, why })?;
        Ok(bytes)
    }

    /// A blob that is there and whole stays; a damaged one is replaced.
    fn write_blob(&self, content: &[u8]) -> Result<(), OciError> {
        let path = self.blob(&Digest::of(content));
        if read(&path, BUNDLE_BYTES).is_ok_and(|there| there == content) {
            return Ok(());
        }
        fs::create_dir_all(directory_of(&path)).map_err(io_error("create", directory_of(&path)))?;
        replace(&path, content)
    }

    /// Reads, changes and writes the index, while no other push does.
    fn change_index(&self, change: impl FnOnce(&mut Index)) -> Result<(), OciError> {
        // The one file that never changes; the lock goes with the descriptor.
        let lock = self.layout_file();
        let held = File::open(&lock).map_err(io_error("open", &lock))?;
        held.lock().map_err(io_error("lock", &lock))?;
        let path = self.index_file();
        let mut index = if path.exists() { self.read_index()? } else { Index::empty() };
        change(&mut index);
        replace(&path, &json(&index, &path)?)
    }
}

fn is_part_of_a_layout(name: &str) -> bool {
    name == "oci-layout" || name == "index.json" || name == "blobs" || name.starts_with(TEMP_PREFIX)
}

/// A whole file of at most `limit` bytes.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, OciError> {
    file::read(path, limit).map_err(|error| match error {
        ReadError::Io(source) => io_error("read", path)(source),
        ReadError::NotRegular | ReadError::TooLarge(_) => {
            OciError::Refused { path: path.to_owned(), why: error.to_string() }
        }
    })
}

fn replace(path: &Path, content: &[u8]) -> Result<(), OciError> {
    file::publish(path, content, IfExists::Replace).map_err(io_error("write", path))
}

fn parse<T: DeserializeOwned>(bytes: &[u8], path: &Path) -> Result<T, OciError> {
    serde_json::from_slice(bytes).map_err(|error| OciError::Refused { path: path.to_owned(), why: error.to_string() })
}

fn json(document: &impl Serialize, path: &Path) -> Result<Vec<u8>, OciError> {
    serde_json::to_vec(document).map_err(|error| io_error("write", path)(error.into()))
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OciError {
    let path = path.to_owned();
    move |source| OciError::Io { doing, path, source }
}
