//! A layer of settings as TOML: what the config file holds, and what is put into it.

use std::{fs, io, path::Path};

use toml_edit::{Array, DocumentMut, Item, Table, Value};

use super::{
    ConfigError, KEYS, Key,
    key::{PATH_SEPARATOR, Shape},
    settings::Settings,
};
use crate::file;

/// Settings with their comments. Each is of the form that its type has.
#[derive(Debug)]
pub(super) struct Document(DocumentMut);

impl Document {
    /// Reads the config file; one that may be absent is then empty.
    pub(super) fn read(path: &Path, must_exist: bool) -> Result<Self, ConfigError> {
        let text = match file::read_text(path, file::CONFIG_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => String::new(),
            Err(source) => return Err(ConfigError::File { path: path.to_owned(), source }),
        };
        let content = |why: String| ConfigError::Content { path: path.to_owned(), why };
        let document: DocumentMut =
            text.parse().map_err(|error: toml_edit::TomlError| content(one_line(&error.to_string())))?;
        typed(document.clone()).map_err(content)?;
        Ok(Self(document))
    }

    /// Relative paths in the config file are meant from where the file is.
    pub(super) fn anchor(&mut self, directory: &Path) {
        let joined = |path: &str| Value::from(directory.join(path).to_string_lossy().into_owned());
        for key in KEYS.iter().filter(|key| matches!(key.shape, Shape::Path | Shape::Paths)) {
            let (table, leaf) = key.place();
            match self.0.get_mut(table).and_then(Item::as_table_like_mut).and_then(|table| table.get_mut(leaf)) {
                Some(Item::Value(Value::Array(paths))) => {
                    for path in paths.iter_mut() {
                        *path = joined(path.as_str().unwrap_or_default());
                    }
                }
                Some(Item::Value(path)) => *path = joined(path.as_str().unwrap_or_default()),
                _ => {}
            }
        }
    }

    /// Sets one key from text, refusing what its type refuses.
    pub(super) fn put(&mut self, key: &Key, text: &str, origin: &str) -> Result<(), ConfigError> {
        let fail = |why: String| Err(ConfigError::Value { origin: origin.to_owned(), why });
        let list =
            |separator: &str| Value::Array(text.split(separator).filter(|part| !part.is_empty()).collect::<Array>());
        let mut value = match key.shape {
            Shape::Text | Shape::Path
                if text.is_empty() && key.name != "attestation.mode" && key.name != "identity.node_id" =>
            {
                return fail("is empty: give a value, or leave it out".into());
            }
            Shape::Text | Shape::Path => Value::from(text),
            Shape::Number(least) => match text.parse::<i64>() {
                Ok(number) if number >= least => Value::from(number),
                Ok(_) => {
                    return fail(format!("`{}` is too small: give a whole number from {least}", text.escape_debug()));
                }
                Err(_) => {
                    let text = text.escape_debug();
                    return fail(format!("`{text}` is not a whole number from {least} to {}: give one", i64::MAX));
                }
            },
            Shape::Paths => list(PATH_SEPARATOR),
            Shape::List => list(","),
        };
        let (table, leaf) = key.place();
        let mut alone = DocumentMut::new();
        alone.insert(table, Item::Table(Table::from_iter([(leaf, value.clone())])));
        if let Err(why) = typed(alone) {
            return fail(why.split(": in `").next().unwrap_or(&why).to_owned());
        }
        let entry = self.0.entry(table).or_insert_with(|| Item::Table(Table::new()));
        if let Some(table) = entry.as_table_like_mut() {
            if let Some(before) = table.get(leaf).and_then(Item::as_value) {
                // The comment behind it.
                *value.decor_mut() = before.decor().clone();
            }
            table.insert(leaf, Item::Value(value));
        }
        Ok(())
    }

    /// Takes one key out.
    pub(super) fn remove(&mut self, key: &Key) {
        let (table, leaf) = key.place();
        if let Some(table) = self.0.get_mut(table).and_then(Item::as_table_like_mut) {
            table.remove(leaf);
        }
    }

    pub(super) fn holds(&self, key: &Key) -> bool {
        let (table, leaf) = key.place();
        self.0.get(table).is_some_and(|table| table.get(leaf).is_some())
    }

    /// All of it as typed settings, or why it is none.
    pub(super) fn settings(self) -> Result<Settings, String> {
        typed(self.0)
    }

    /// Replaces the config file whole.
    pub(super) fn write(&self, path: &Path) -> Result<(), ConfigError> {
        fs::create_dir_all(file::directory_of(path))
            .and_then(|()| file::replace(path, self.0.to_string().as_bytes()))
            .map_err(|source| ConfigError::File { path: path.to_owned(), source })
    }
}

fn typed(document: DocumentMut) -> Result<Settings, String> {
    toml_edit::de::from_document(document).map_err(|error| in_our_words(one_line(&error.to_string())))
}

/// An unknown word and a number that is none, refused as everywhere else.
fn in_our_words(said: String) -> String {
    let unknown =
        said.split_once("unknown variant ").and_then(|(before, rest)| Some((before, rest.split_once(", expected ")?)));
    match unknown {
        Some((before, (word, known))) => format!("{before}{word} is not known: use {known}"),
        None => ["u64", "usize"]
            .iter()
            .fold(said, |said, number| said.replace(&format!("expected {number}"), "expected a whole number from 0")),
    }
}

/// Errors of the TOML reader draw the place over several lines. What stands there is not shown: it may be a password.
fn one_line(text: &str) -> String {
    let is_drawing = |line: &str| line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().starts_with('|');
    let parts: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty() && !is_drawing(line)).collect();
    parts.join(": ")
}
