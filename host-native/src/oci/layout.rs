//! The image layout on disk: `oci-layout`, `index.json`, `blobs/sha256/<digest>`.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use gate_core::limits::BUNDLE_BYTES;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::{
    Artifact, BUNDLE_MEDIA_TYPE, Digest, IfPresent, OciError, Reference,
    document::{
        Descriptor, EMPTY, EMPTY_MEDIA_TYPE, Index, LAYOUT_VERSION, LayoutFile, MANIFEST_MEDIA_TYPE, Manifest,
        check_word,
    },
    reference::Which,
};
use crate::file::{self, ReadError};

/// Largest manifest, as registries have it, and largest `index.json` and `oci-layout`.
const DOCUMENT_BYTES: u64 = 4 * 1024 * 1024;
const BUNDLE_BYTES_U64: u64 = BUNDLE_BYTES as u64;

pub(super) fn push(bundle: &[u8], reference: &Reference) -> Result<Artifact, OciError> {
    let bundle_bytes = u64::try_from(bundle.len()).unwrap_or(u64::MAX);
    if bundle_bytes > BUNDLE_BYTES_U64 {
        return Err(OciError::BundleTooLarge { bytes: bundle_bytes, limit: BUNDLE_BYTES_U64 });
    }
    let tag = match &reference.which {
        Which::Only => None,
        Which::Tag(tag) => Some(tag.as_str()),
        Which::Digest(digest) => return Err(OciError::PushToDigest { digest: digest.clone() }),
    };
    let layout = Layout::create(&reference.layout)?;
    let manifest = json(&Manifest::of(bundle), &layout.dir)?;
    // Blobs first: whoever reads the index finds all that it names.
    for content in [bundle, EMPTY, &manifest] {
        layout.write_blob(content)?;
    }
    let descriptor = Descriptor::new(MANIFEST_MEDIA_TYPE, &manifest).with_artifact_type(BUNDLE_MEDIA_TYPE);
    let artifact = Artifact { manifest: descriptor.digest.clone(), bundle: Digest::of(bundle), bundle_bytes };
    layout.change_index(|index| index.put(descriptor, tag))?;
    Ok(artifact)
}

pub(super) fn pull(reference: &Reference, output: &Path, if_present: IfPresent) -> Result<Artifact, OciError> {
    if if_present == IfPresent::Refuse && output.symlink_metadata().is_ok() {
        return Err(OciError::OutputPresent { path: output.to_owned() });
    }
    let layout = Layout::open(&reference.layout)?;
    let digest = layout.find(&reference.which)?;
    let path = layout.blob(&digest);
    let bytes = layout.read_blob(&digest, None)?;
    let manifest: Manifest = parse(&bytes, &path)?;
    let refused = |why: String| OciError::Refused { path: path.clone(), why };
    let bundle = manifest.bundle().map_err(refused)?;
    if bundle.size > BUNDLE_BYTES_U64 {
        return Err(OciError::BundleTooLarge { bytes: bundle.size, limit: BUNDLE_BYTES_U64 });
    }
    let config = Descriptor::new(EMPTY_MEDIA_TYPE, EMPTY);
    if (manifest.config.size, &manifest.config.digest) != (config.size, &config.digest) {
        return Err(refused("config is not the empty descriptor".to_owned()));
    }
    layout.read_blob(&config.digest, Some(config.size))?;
    let temp = layout.copy_blob(bundle, beside(output))?;
    persist(temp, output, if_present)?;
    Ok(Artifact { manifest: digest, bundle: bundle.digest.clone(), bundle_bytes: bundle.size })
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
        match write(&layout.layout_file(), &file, IfPresent::Refuse) {
            // Somebody else made it in this instant.
            Ok(()) | Err(OciError::OutputPresent { .. }) => Self::open(dir),
            Err(error) => Err(error),
        }
    }

    fn layout_file(&self) -> PathBuf {
        self.dir.join("oci-layout")
    }

    fn index_file(&self) -> PathBuf {
        self.dir.join("index.json")
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join("sha256").join(digest.hex())
    }

    fn read_index(&self) -> Result<Index, OciError> {
        let path = self.index_file();
        let index: Index = parse(&read(&path, DOCUMENT_BYTES)?, &path)?;
        index.check().map_err(|why| OciError::Refused { path, why })?;
        Ok(index)
    }

    /// The manifest's digest. A digest names its blob whether or not a tag still points to it.
    fn find(&self, which: &Which) -> Result<Digest, OciError> {
        let index = match which {
            Which::Digest(digest) => return Ok(digest.clone()),
            Which::Only | Which::Tag(_) => self.read_index()?,
        };
        let tag = match which {
            Which::Tag(tag) => Some(tag.as_str()),
            Which::Only | Which::Digest(_) => None,
        };
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
        self.read_blob(&descriptor.digest, Some(descriptor.size))?;
        Ok(descriptor.digest.clone())
    }

    /// A small blob, checked.
    fn read_blob(&self, digest: &Digest, size: Option<u64>) -> Result<Vec<u8>, OciError> {
        let path = self.blob(digest);
        let bytes = read(&path, DOCUMENT_BYTES)?;
        let found = Descriptor::new("", &bytes);
        check_blob(&path, (digest, size.unwrap_or(found.size)), (&found.digest, found.size))?;
        Ok(bytes)
    }

    /// A large blob, copied to a file that is removed unless it is kept.
    fn copy_blob(&self, blob: &Descriptor, dir: &Path) -> Result<NamedTempFile, OciError> {
        let path = self.blob(&blob.digest);
        let mut from = open(&path)?.take(blob.size.saturating_add(1));
        let mut temp = temp_in(dir)?;
        let mut hasher = Sha256::new();
        let mut size = 0_u64;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = from.read(&mut buffer).map_err(io_error("read", &path))?;
            let bytes = buffer.get(..count).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            hasher.update(bytes);
            temp.write_all(bytes).map_err(io_error("write in", dir))?;
            size = size.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        }
        check_blob(&path, (&blob.digest, blob.size), (&Digest::finish(hasher), size))?;
        Ok(temp)
    }

    /// A blob that is there and whole stays; a damaged one is replaced.
    fn write_blob(&self, content: &[u8]) -> Result<(), OciError> {
        let path = self.blob(&Digest::of(content));
        if read(&path, BUNDLE_BYTES_U64).is_ok_and(|there| there == content) {
            return Ok(());
        }
        fs::create_dir_all(beside(&path)).map_err(io_error("create", beside(&path)))?;
        write(&path, content, IfPresent::Replace)
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
        write(&path, &json(&index, &path)?, IfPresent::Replace)
    }
}

fn is_part_of_a_layout(name: &str) -> bool {
    name == "oci-layout" || name == "index.json" || name == "blobs" || name.starts_with(TEMP_PREFIX)
}

fn check_blob(path: &Path, expected: (&Digest, u64), found: (&Digest, u64)) -> Result<(), OciError> {
    let why = if found.1 != expected.1 {
        // One byte more than expected is all that is read of a longer one.
        let many = if found.1 > expected.1 { "more".to_owned() } else { found.1.to_string() };
        format!("it has {many} bytes, not {}", expected.1)
    } else if found.0 != expected.0 {
        format!("its digest is `{}`", found.0)
    } else {
        return Ok(());
    };
    Err(OciError::Refused { path: path.to_owned(), why })
}

fn open(path: &Path) -> Result<File, OciError> {
    file::open(path).map_err(refused(path))
}

/// A whole file of at most `limit` bytes.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, OciError> {
    file::read(path, limit).map_err(refused(path))
}

fn refused(path: &Path) -> impl FnOnce(ReadError) -> OciError {
    let path = path.to_owned();
    move |error| match error {
        ReadError::Io(source) => OciError::Io { doing: "read", path, source },
        ReadError::NotRegular | ReadError::TooLarge(_) => OciError::Refused { path, why: error.to_string() },
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8], path: &Path) -> Result<T, OciError> {
    serde_json::from_slice(bytes).map_err(|error| OciError::Refused { path: path.to_owned(), why: error.to_string() })
}

fn json(document: &impl Serialize, path: &Path) -> Result<Vec<u8>, OciError> {
    serde_json::to_vec(document).map_err(|error| io_error("write", path)(error.into()))
}

const TEMP_PREFIX: &str = ".autonomy-";

fn temp_in(dir: &Path) -> Result<NamedTempFile, OciError> {
    // Others may read it, as far as the process's umask has it: a bundle is signed, not secret.
    tempfile::Builder::new()
        .prefix(TEMP_PREFIX)
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(dir)
        .map_err(io_error("create a file in", dir))
}

fn write(path: &Path, content: &[u8], if_present: IfPresent) -> Result<(), OciError> {
    let mut temp = temp_in(beside(path))?;
    temp.write_all(content).map_err(io_error("write", path))?;
    persist(temp, path, if_present)
}

/// The file gets its name only once its bytes are on disk, and then the name is on disk as well.
fn persist(temp: NamedTempFile, path: &Path, if_present: IfPresent) -> Result<(), OciError> {
    temp.as_file().sync_all().map_err(io_error("sync", path))?;
    let persisted = match if_present {
        IfPresent::Refuse => temp.persist_noclobber(path),
        IfPresent::Replace => temp.persist(path),
    };
    match persisted {
        Ok(_) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(OciError::OutputPresent { path: path.to_owned() });
        }
        Err(error) => return Err(io_error("write", path)(error.error)),
    }
    let dir = beside(path);
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
}

/// The directory that a file is in.
fn beside(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OciError {
    let path = path.to_owned();
    move |source| OciError::Io { doing, path, source }
}
