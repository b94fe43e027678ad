//! Where modules come from, and what the evaluator's messages become: one line, bounded.

use std::{borrow::Cow, collections::BTreeSet, fs, path::Path};

use gate_core::{identity::PolicyRef, text::is_obeyed};
use sha2::{Digest, Sha256};

use super::{Error, limits};
use crate::file::{self, ReadError};

type Module = (String, String);

/// Counts and bounds modules before any of them is parsed.
pub(super) fn collect(modules: impl Iterator<Item = Module>) -> Result<Vec<Module>, Error> {
    let mut kept = Vec::new();
    let mut paths = BTreeSet::new();
    let mut bytes = 0_usize;
    for (path, text) in modules {
        if text.len() > limits::MODULE_BYTES {
            return Err(Error::TooLarge { what: format!("module `{path}`"), max: limits::MODULE_BYTES, unit: "bytes" });
        }
        bytes = bytes.saturating_add(text.len());
        if bytes > limits::SOURCE_BYTES {
            return Err(Error::TooLarge { what: "policy".to_owned(), max: limits::SOURCE_BYTES, unit: "bytes" });
        }
        if kept.len() == limits::MODULES {
            return Err(Error::TooLarge { what: "policy".to_owned(), max: limits::MODULES, unit: "modules" });
        }
        if !paths.insert(path.clone()) {
            return Err(Error::DuplicateModule(path));
        }
        kept.push((path, text));
    }
    if kept.is_empty() { Err(Error::NoModules) } else { Ok(kept) }
}

/// Every `*.rego` file below `root`, named relative to it with `/`, in byte order of the names.
pub(super) fn read_dir(root: &Path) -> Result<Vec<Module>, Error> {
    let mut modules = Vec::new();
    let mut entries = 0_usize;
    let mut bytes = 0_usize;
    let mut folders = vec![(root.to_owned(), String::new(), 0_usize)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        if depth > limits::FOLDER_DEPTH {
            return Err(Error::TooLarge { what: name(root), max: limits::FOLDER_DEPTH, unit: "levels of folders" });
        }
        for entry in fs::read_dir(&folder).map_err(|cause| read(&folder, cause))? {
            let entry = entry.map_err(|cause| read(&folder, cause))?;
            entries = entries.saturating_add(1);
            if entries > limits::FOLDER_ENTRIES {
                return Err(Error::TooLarge { what: name(root), max: limits::FOLDER_ENTRIES, unit: "entries" });
            }
            let path = entry.path();
            let Ok(file_name) = entry.file_name().into_string() else { return Err(Error::NotText(name(&path))) };
            let kind = entry.file_type().map_err(|cause| read(&path, cause))?;
            let relative = format!("{prefix}{file_name}");
            if kind.is_dir() {
                folders.push((path, format!("{relative}/"), depth.saturating_add(1)));
            } else if file_name.ends_with(".rego") {
                if !kind.is_file() {
                    return Err(Error::NotAFile(name(&path)));
                }
                if modules.len() == limits::MODULES {
                    return Err(Error::TooLarge { what: name(root), max: limits::MODULES, unit: "modules" });
                }
                let text = read_text(&path)?;
                bytes = bytes.saturating_add(text.len());
                if bytes > limits::SOURCE_BYTES {
                    return Err(Error::TooLarge { what: name(root), max: limits::SOURCE_BYTES, unit: "bytes" });
                }
                modules.push((relative, text));
            } else if kind.is_symlink() {
                // A link to a folder would hide modules from whoever reads the folder's listing.
                return Err(Error::NotAFile(name(&path)));
            }
        }
    }
    modules.sort();
    Ok(modules)
}

/// `dir@sha256:` and twelve hex digits over names and contents, each with its length before it.
pub(super) fn policy_ref(modules: &[Module]) -> Result<PolicyRef, Error> {
    let mut hash = Sha256::new();
    for text in modules.iter().flat_map(|(path, text)| [path, text]) {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    let digits: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    PolicyRef::parse(&format!("dir@sha256:{digits}")).map_err(|e| Error::Data(e.to_string()))
}

fn read_text(path: &Path) -> Result<String, Error> {
    let bytes = file::read(path, limits::MODULE_BYTES as u64).map_err(|error| match error {
        ReadError::TooLarge(_) => Error::TooLarge { what: name(path), max: limits::MODULE_BYTES, unit: "bytes" },
        ReadError::Io(_) | ReadError::NotRegular => read(path, error.into()),
    })?;
    String::from_utf8(bytes).map_err(|_| Error::NotText(name(path)))
}

fn read(path: &Path, cause: std::io::Error) -> Error {
    Error::Read { path: path.display().to_string(), cause }
}

fn name(path: &Path) -> String {
    format!("`{}`", path.display())
}

/// The evaluator's message is a small drawing: `--> file:line:column`, the line, a caret, `error: cause`.
pub(super) fn place_and_cause(message: &str) -> (Option<String>, String) {
    let place = message.lines().find_map(|line| line.trim().strip_prefix("--> ")).map(str::to_owned);
    let cause = message.find("error: ").and_then(|at| message.get(at..)).and_then(|rest| rest.strip_prefix("error: "));
    (place, one_line(cause.unwrap_or(message)))
}

/// `cause (file:line:column)`.
pub(super) fn failure(message: &str) -> String {
    match place_and_cause(message) {
        (Some(place), cause) => format!("{cause} ({place})"),
        (None, cause) => cause,
    }
}

/// White space folded, quoted values and the whole bounded, and nothing in it that a terminal obeys.
pub(super) fn one_line(text: &str) -> String {
    let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut line = String::new();
    for c in cut_value(&folded).chars() {
        if is_obeyed(c) {
            line.extend(c.escape_unicode());
        } else {
            line.push(c);
        }
    }
    line.truncate(line.floor_char_boundary(limits::DETAIL_BYTES));
    line
}

/// The evaluator repeats the value that a function does not take. That may be a caller's, with quotes of its own in
/// it, so that its end is nowhere to be found: what follows its beginning goes with it.
fn cut_value(message: &str) -> Cow<'_, str> {
    let starts = ["Got `", "got `", "for key `", "for node `"];
    let Some(start) = starts.iter().filter_map(|s| Some(message.find(s)?.saturating_add(s.len()))).min() else {
        return Cow::Borrowed(message);
    };
    let end = message.floor_char_boundary(start.saturating_add(limits::VALUE_BYTES));
    match message.get(..end) {
        Some(kept) if end < message.len() => Cow::Owned(format!("{kept}…")),
        _ => Cow::Borrowed(message),
    }
}
