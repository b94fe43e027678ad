//! Files that somebody names: regular ones alone, and never more of them than is expected.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::Path,
};

use tempfile::NamedTempFile;

/// A path as a word of a shell's command, for whoever takes a remedy from a message.
pub fn shell_word(path: &Path) -> String {
    // `-x` would be taken for an option.
    let here = if path.as_os_str().as_encoded_bytes().starts_with(b"-") { "./" } else { "" };
    let word = format!("{here}{}", path.display());
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Largest key file, in bytes.
pub(crate) const KEY_BYTES: u64 = 64 * 1024;
/// Largest config file, in bytes.
pub(crate) const CONFIG_BYTES: u64 = 1024 * 1024;

/// What helps against what the operating system says, where that says it; else `otherwise`.
pub(crate) fn remedy(error: &io::Error, otherwise: &'static str) -> &'static str {
    use io::ErrorKind::{
        FileTooLarge, InvalidFilename, InvalidInput, IsADirectory, NotADirectory, QuotaExceeded, StorageFull,
    };
    let kind = error.kind();
    if matches!(kind, StorageFull | QuotaExceeded) {
        "free space on its disk, then do it again"
    } else if kind == FileTooLarge {
        "raise the limit on the size of files (`ulimit -f`), then do it again"
    } else if matches!(kind, NotADirectory | IsADirectory | InvalidFilename | InvalidInput) {
        "give another path"
    } else {
        otherwise
    }
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is not a regular file")]
    NotRegular,
    #[error("it has more than {0} bytes")]
    TooLarge(u64),
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => error,
            ReadError::NotRegular | ReadError::TooLarge(_) => wrong(error.to_string()),
        }
    }
}

/// That a file is not what it must be.
pub(crate) fn wrong(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// Opens a regular file: opening a pipe would wait for its other end, and a device may have no end.
pub(crate) fn open(path: &Path) -> Result<File, ReadError> {
    if !fs::metadata(path)?.is_file() {
        return Err(ReadError::NotRegular);
    }
    Ok(File::open(path)?)
}

/// A whole regular file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let bytes = read_beyond(path, limit)?;
    if u64::try_from(bytes.len()).is_ok_and(|found| found <= limit) {
        Ok(bytes)
    } else {
        Err(ReadError::TooLarge(limit))
    }
}

/// A whole regular file, and of one that has more than `limit` bytes one byte more than these: it tells whoever knows the limit, even
/// where the file grows while it is read.
pub(crate) fn read_beyond(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let (file, most) = (open(path)?, limit.saturating_add(1));
    let mut bytes = Vec::with_capacity(usize::try_from(file.metadata()?.len().min(most)).unwrap_or_default());
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// [`read`], for text.
pub(crate) fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let bytes = read(path, limit)?;
    String::from_utf8(bytes).map_err(|_| wrong("it is not utf-8 text"))
}

/// The permission bits of a regular file that others can read or write.
pub(crate) fn exposed(path: &Path) -> io::Result<Option<u32>> {
    let found = fs::metadata(path)?;
    if !found.is_file() {
        return Err(ReadError::NotRegular.into());
    }
    let mode = found.permissions().mode() & 0o777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

/// Makes a directory and those above it.
pub(crate) fn create_directory(path: &Path, mode: u32) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    builder.mode(mode);
    if path.as_os_str().is_empty() { Ok(()) } else { builder.create(path) }
}

/// What to do with a file that is where another is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// Leaves it, and fails.
    Refuse,
    /// Replaces it, all at once, if it is a regular file.
    Replace,
}

/// How the files begin that are being written.
pub(crate) const TEMP_PREFIX: &str = ".autonomy-";

/// Writes a file that others may read, as far as the umask lets them. It gets its name only once its bytes are on disk, and
/// then the name is on disk as well; where that fails, nothing of it is left.
pub(crate) fn publish(path: &Path, bytes: &[u8], if_exists: IfExists) -> io::Result<()> {
    write_whole(beside(path, 0o644)?, path, bytes, if_exists)
}

/// The same for one that may be there already, or be linked to: whose it is and who may read it stays. A new one is its owner's alone.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let file = beside(path, 0o600)?;
    if let Ok(before) = fs::metadata(path) {
        let new = file.as_file();
        new.set_permissions(before.permissions())?;
        // Whoever replaces it as another user leaves it to those it was for, or not replaced.
        if (before.uid(), before.gid()) != (new.metadata()?.uid(), new.metadata()?.gid()) {
            fchown(new, Some(before.uid()), Some(before.gid()))?;
        }
    }
    write_whole(file, path, bytes, IfExists::Replace)
}

/// A file without a name of its own yet, on the same disk.
fn beside(path: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMP_PREFIX).permissions(fs::Permissions::from_mode(mode)).tempfile_in(directory_of(path))
}

fn write_whole(mut file: NamedTempFile, path: &Path, bytes: &[u8], if_exists: IfExists) -> io::Result<()> {
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    match if_exists {
        IfExists::Refuse => file.persist_noclobber(path)?,
        // A link, a pipe or a device is more than the bytes that are read from it.
        IfExists::Replace if fs::symlink_metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) => {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "what is there is not a regular file"));
        }
        IfExists::Replace => file.persist(path)?,
    };
    File::open(directory_of(path))?.sync_all()
}

/// The directory that a file is in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file that must not be there yet.
pub(crate) fn create_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    options.mode(mode);
    let mut file = options.open(path)?;
    let directory = || File::open(directory_of(path))?.sync_all();
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| directory());
    if written.is_err() {
        // Half of it would be taken for the whole.
        let _ = fs::remove_file(path);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ErrorClass, config,
        enrollment::{self, Source as _},
        key,
    };
    use std::{path::PathBuf, process::Command, sync::mpsc, thread, time::Duration};

    fn pipe(path: &Path) {
        let mode = fs::Permissions::from_mode(0o600);
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        fs::set_permissions(path, mode).unwrap();
    }

    /// What `read` says about the file, unless it waits for ever.
    fn in_time(read: fn(&Path) -> Result<(), String>, path: &Path) -> String {
        let (send, receive) = mpsc::channel();
        let path = path.to_owned();
        thread::spawn(move || send.send(read(&path)));
        receive.recv_timeout(Duration::from_secs(20)).expect("it waits").unwrap_err()
    }

    fn as_text<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<(), String> {
        result.map(drop).map_err(|error| error.to_string())
    }

    type Reader = fn(&Path) -> Result<(), String>;

    const READERS: [(&str, Reader); 5] = [
        ("config", |path| {
            as_text(config::Config::load(
                &config::Variables::default().with("AUTONOMY_HOME", "/nowhere"),
                Some(path.to_owned()),
                &[],
            ))
        }),
        ("trusted", |path| as_text(key::read_trusted(&[path.to_owned()], 1))),
        ("private", |path| as_text(key::PrivateKey::read(path))),
        ("bundle", |path| as_text(crate::bundle::read(path))),
        ("store", |path| as_text(enrollment::SqliteStore::open(path))),
    ];

    #[test]
    fn a_shell_reads_a_path_out_of_a_remedy_as_it_is() {
        for path in ["/a/b-1.pem", "a b", "it's", "$(x) `y` \"z\"", "*", "~", "ä", "a\\b", "a;b", ""] {
            let output =
                Command::new("sh").arg("-c").arg(format!("printf %s {}", shell_word(Path::new(path)))).output();
            assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap(), path);
        }
        assert_eq!(shell_word(Path::new("/a/b-1.pem")), "/a/b-1.pem");
    }

    #[test]
    fn a_path_is_one_word_of_a_shell_and_never_an_option() {
        for (path, word) in [
            ("keys/fleet-a.pem", "keys/fleet-a.pem"),
            ("-rf", "./-rf"),
            ("my keys/$HOME", "'my keys/$HOME'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(Path::new(path)), word);
        }
    }

    #[test]
    fn pipes_and_devices_are_refused_by_name_instead_of_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        pipe(&fifo);
        for path in [fifo, PathBuf::from("/dev/zero"), directory.path().to_owned()] {
            for (what, read) in READERS {
                let message = in_time(read, &path);
                assert!(message.contains("not a regular file"), "{what}: {message}");
                assert!(message.contains(&*path.to_string_lossy()), "{what}: {message}");
            }
        }
    }

    #[test]
    fn a_pipe_beside_a_database_is_refused_as_well() {
        for suffix in ["-wal", "-shm"] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("enrollment.sqlite");
            drop(enrollment::SqliteStore::open(&path).unwrap());
            pipe(&directory.path().join(format!("enrollment.sqlite{suffix}")));
            let message = in_time(|path| as_text(enrollment::SqliteStore::open_read_only(path)), &path);
            assert!(message.contains(&format!("{suffix}` is not a regular file")), "{message}");
        }
    }

    #[test]
    fn a_pipe_put_in_the_place_of_the_database_is_no_answer_instead_of_none_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("enrollment.sqlite");
        drop(enrollment::SqliteStore::open(&path).unwrap());
        let message = in_time(
            |path| {
                let node = gate_core::NodeId::parse("n").unwrap();
                let mut source = enrollment::LocalSource::new(path, node, 1).map_err(|error| error.to_string())?;
                let first = format!("{:?}", source.observe(1));
                fs::remove_file(path).unwrap();
                pipe(path);
                Err(format!("{first} then {:?}", source.observe(2)))
            },
            &path,
        );
        let (_, then) = message.split_once(" then ").unwrap();
        assert!(then.contains("Unavailable") && then.contains("is not a regular file"), "{message}");
    }

    #[test]
    fn a_file_that_is_replaced_keeps_who_may_read_it_and_a_new_one_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        replace(&path, b"one").unwrap();
        assert_eq!(mode(), 0o600);
        // More than the umask would let a new one have.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!((mode(), fs::read(&path).unwrap()), (0o666, b"two".to_vec()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let link = directory.path().join("link.toml");
        std::os::unix::fs::symlink("config.toml", &link).unwrap();
        replace(&link, b"three").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "what it leads to is replaced");
        assert_eq!((mode(), fs::read(&path).unwrap()), (0o666, b"three".to_vec()));
    }

    #[test]
    fn only_a_regular_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let [file, link, fifo] = ["file", "link", "fifo"].map(|name| directory.path().join(name));
        fs::write(&file, b"before").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        pipe(&fifo);
        for path in [&link, &fifo] {
            let error = publish(path, b"after", IfExists::Replace).unwrap_err();
            assert_eq!(error.to_string(), "what is there is not a regular file");
            assert_eq!(ErrorClass::of(&error), ErrorClass::Usage);
            assert!(!fs::symlink_metadata(path).unwrap().is_file());
        }
        assert_eq!(fs::read(&file).unwrap(), b"before");
        publish(&file, b"after", IfExists::Replace).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"after");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3, "nothing else is left");
    }

    #[test]
    fn a_file_too_large_to_be_what_it_should_is_refused_and_not_kept_in_memory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sparse");
        let file = File::create(&path).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
        file.set_len(1 << 40).unwrap();
        for (what, limit) in [("config", CONFIG_BYTES), ("trusted", KEY_BYTES), ("private", KEY_BYTES)] {
            let read = READERS.iter().find(|(name, _)| *name == what).unwrap().1;
            let message = in_time(read, &path);
            assert!(message.contains(&format!("it has more than {limit} bytes")), "{what}: {message}");
        }
        file.set_len(KEY_BYTES).unwrap();
        assert_eq!(read(&path, KEY_BYTES).unwrap().len(), 64 * 1024);
    }
}
