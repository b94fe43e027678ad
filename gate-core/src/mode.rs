//! How far the gate is turned on.

use alloc::{borrow::ToOwned, string::String};
use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};

use crate::{
    json,
    text::{cut, display_text, fill, shown},
};

/// How far the gate is turned on across a fleet. The mode never touches the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Mode {
    /// The gate is not asked.
    Off,
    /// Answers do not change; every would-be deny is written down.
    Advisory,
    /// A call that fails the gate is denied.
    Enforce,
}

impl Mode {
    /// The three, in the order they are turned on.
    pub const ALL: [Self; 3] = [Self::Off, Self::Advisory, Self::Enforce];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Advisory => "advisory",
            Self::Enforce => "enforce",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is none of the three. The empty one too: only a mode that was never given means `off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseModeError(String);

impl ParseModeError {
    /// What is wrong, and what to do.
    pub fn text(&self) -> String {
        fill("mode `{}` is not known: use `off`, `advisory` or `enforce`", &[&shown(&self.0)])
    }
}

display_text!(ParseModeError);

impl From<ParseModeError> for json::Error {
    fn from(error: ParseModeError) -> Self {
        Self::new(error.text())
    }
}

impl core::error::Error for ParseModeError {}

impl FromStr for Mode {
    type Err = ParseModeError;
    fn from_str(word: &str) -> Result<Self, ParseModeError> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == word).ok_or_else(|| ParseModeError(cut(word, 80).to_owned()))
    }
}

impl json::Read for Mode {
    fn read(value: json::Value<'_>) -> Self {
        if value.is_absent() {
            return Self::Off;
        }
        value.parsed(str::parse).unwrap_or(Self::Enforce)
    }
}

impl TryFrom<String> for Mode {
    type Error = ParseModeError;
    fn try_from(word: String) -> Result<Self, ParseModeError> {
        word.parse()
    }
}

impl From<Mode> for &'static str {
    fn from(mode: Mode) -> Self {
        mode.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn exactly_three_words_are_modes() {
        for mode in Mode::ALL {
            assert_eq!(mode.as_str().parse(), Ok(mode));
        }
        for wrong in ["", "Off", "ENFORCE", "enforce ", "enforced", "on", "none", "advise"] {
            let message = wrong.parse::<Mode>().unwrap_err().to_string();
            assert_eq!(message, alloc::format!("mode `{wrong}` is not known: use `off`, `advisory` or `enforce`"));
        }
    }
}
