//! What the parser of the command line refuses, in the one line that every other error has.

use std::{error::Error as _, ffi::OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The longest word of somebody else's that a line repeats, in characters.
const WORD_CHARS: usize = 80;

/// What was wrong, with what value, and what to do.
pub(crate) fn message(error: &clap::Error, arguments: &[OsString]) -> String {
    let refusal = Refusal(error);
    match error.kind() {
        ErrorKind::UnknownArgument => refusal.unknown_argument(),
        ErrorKind::InvalidSubcommand => refusal.unknown_command(),
        ErrorKind::MissingSubcommand => refusal.missing_command(),
        ErrorKind::InvalidValue if refusal.word(ContextKind::InvalidValue).is_empty() => refusal.missing_value(),
        ErrorKind::InvalidValue => refusal.unknown_value(),
        ErrorKind::ValueValidation => refusal.refused_value(),
        ErrorKind::MissingRequiredArgument => refusal.missing_arguments(),
        ErrorKind::ArgumentConflict => refusal.conflict(),
        ErrorKind::TooManyValues => refusal.too_many_values(),
        ErrorKind::InvalidUtf8 => refusal.not_utf8(arguments),
        // What no command here can give today: clap's own words.
        ErrorKind::NoEquals
        | ErrorKind::TooFewValues
        | ErrorKind::WrongNumberOfValues
        | ErrorKind::DisplayHelp
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        | ErrorKind::DisplayVersion
        | ErrorKind::Io
        | ErrorKind::Format
        | _ => refusal.in_its_own_words(),
    }
}

/// Reads a count that is at least `least`.
pub(crate) fn whole_number(least: u32) -> impl Fn(&str) -> Result<u32, String> + Clone {
    move |word| {
        let number = word.parse().ok().filter(|number| *number >= least);
        number.ok_or_else(|| format!("{} is not a whole number from {least} to {}: give one", quoted(word), u32::MAX))
    }
}

/// Somebody else's word: escaped, cut, and in backticks.
pub(crate) fn quoted(word: &str) -> String {
    match word.char_indices().nth(WORD_CHARS) {
        Some((end, _)) => format!("`{}…`", word.get(..end).unwrap_or(word).escape_debug()),
        None => format!("`{}`", word.escape_debug()),
    }
}

struct Refusal<'a>(&'a clap::Error);

impl Refusal<'_> {
    fn unknown_argument(&self) -> String {
        let word = self.word(ContextKind::InvalidArg);
        let what = if word.starts_with('-') { "flag" } else { "argument" };
        let remedy = match (self.word(ContextKind::SuggestedArg), self.words(ContextKind::Suggested)) {
            (close, _) if !close.is_empty() => format!("did you mean `{close}`?"),
            _ if word.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit()) => {
                "where it is a flag's value, put `=` between the two".to_owned()
            }
            (_, tips) if !tips.is_empty() => format!("{}{}", tips.join(", ").replace('\'', "`"), self.or_see_help()),
            _ => format!("leave it out{}", self.or_see_help()),
        };
        format!("{what} {} is not known: {remedy}", quoted(&word))
    }

    fn unknown_command(&self) -> String {
        let (group, word) = (self.command(), self.word(ContextKind::InvalidSubcommand));
        let remedy = match self.words(ContextKind::SuggestedSubcommand).first() {
            Some(close) => format!("did you mean `{group} {close}`?"),
            None => format!("see `{group} --help`"),
        };
        format!("command {} is not known: {remedy}", quoted(&format!("{group} {word}")))
    }

    fn missing_command(&self) -> String {
        let group = self.word(ContextKind::InvalidSubcommand);
        format!("`{group}` is no command by itself: add {}", alternatives(&self.words(ContextKind::ValidSubcommand)))
    }

    fn missing_value(&self) -> String {
        let argument = self.word(ContextKind::InvalidArg);
        let remedy = match self.words(ContextKind::ValidValue) {
            values if values.is_empty() => format!("write `{argument}`"),
            values => format!("use {}", alternatives(&values)),
        };
        format!("{} has no value: {remedy}", named(&argument))
    }

    fn unknown_value(&self) -> String {
        let remedy = match self.word(ContextKind::SuggestedValue) {
            // Close to `done`, and far from what it may mean.
            close if ["", "none", "<none>"].contains(&close.as_str()) => {
                format!("use {}", alternatives(&self.words(ContextKind::ValidValue)))
            }
            close => format!("did you mean `{close}`?"),
        };
        let (argument, value) = (self.word(ContextKind::InvalidArg), self.word(ContextKind::InvalidValue));
        format!("{}: {} is not known: {remedy}", named(&argument), quoted(&value))
    }

    /// The types of this workspace say it as it must be said.
    fn refused_value(&self) -> String {
        let why = self.0.source().map(ToString::to_string).unwrap_or_default();
        format!("{}: {why}", named(&self.word(ContextKind::InvalidArg)))
    }

    fn missing_arguments(&self) -> String {
        let missing = self.words(ContextKind::InvalidArg);
        let (verb, them) = if missing.len() == 1 { ("is", "it") } else { ("are", "them") };
        format!("{} {verb} missing: give {them}{}", joined(&missing, "and"), self.or_see_help())
    }

    fn conflict(&self) -> String {
        let (argument, others) = (self.word(ContextKind::InvalidArg), self.words(ContextKind::PriorArg));
        if others.first() == Some(&argument) {
            return format!("`{argument}` is given more than once: give it once");
        }
        format!("`{argument}` does not go with {}: leave one of them out", alternatives(&others))
    }

    fn too_many_values(&self) -> String {
        let (argument, value) = (self.word(ContextKind::InvalidArg), self.word(ContextKind::InvalidValue));
        format!("{}: {} is one value too many: leave it out{}", named(&argument), quoted(&value), self.or_see_help())
    }

    /// Which word it is the parser does not say. A path may be any bytes, so that there may be others.
    fn not_utf8(&self, arguments: &[OsString]) -> String {
        let words = arguments.iter().filter(|word| word.to_str().is_none());
        let words: Vec<_> = words.map(|word| format!("{word:?}").trim_matches('"').to_owned()).collect();
        format!("{} is not UTF-8: write it in UTF-8{}", alternatives(&words), self.or_see_help())
    }

    fn in_its_own_words(&self) -> String {
        let text = self.0.render().to_string();
        let cause = text.lines().take_while(|line| !["Usage:", "For more"].iter().any(|end| line.starts_with(end)));
        let parts: Vec<_> = cause.map(str::trim).filter(|line| !line.is_empty()).collect();
        parts.join("; ").trim_start_matches("error: ").to_owned()
    }

    fn or_see_help(&self) -> String {
        format!(", or see `{} --help`", self.command())
    }

    /// The command that was being read, which only its usage tells.
    fn command(&self) -> String {
        let usage = self.word(ContextKind::Usage);
        let words = usage.split_whitespace().skip_while(|word| *word == "Usage:");
        let words: Vec<_> = words.take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase())).collect();
        if words.is_empty() { "autonomy".to_owned() } else { words.join(" ") }
    }

    /// The context's only word; empty where there is none.
    fn word(&self, kind: ContextKind) -> String {
        self.words(kind).into_iter().next().unwrap_or_default()
    }

    fn words(&self, kind: ContextKind) -> Vec<String> {
        match self.0.get(kind) {
            Some(ContextValue::String(word)) => vec![word.clone()],
            Some(ContextValue::Strings(words)) => words.clone(),
            Some(ContextValue::StyledStr(text)) => vec![text.to_string()],
            Some(ContextValue::StyledStrs(texts)) => texts.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        }
    }
}

/// An argument as the other errors name it: a flag without what it takes, or the place of a word without a flag.
fn named(argument: &str) -> String {
    match argument.split(' ').next() {
        Some(flag) if flag.starts_with('-') => format!("flag `{flag}`"),
        _ => format!("argument `{argument}`"),
    }
}

fn alternatives(words: &[String]) -> String {
    joined(words, "or")
}

fn joined(words: &[String], last: &str) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [first @ .., second_last, end] => {
            let first: String = first.iter().map(|word| format!("{word}, ")).collect();
            format!("{first}{second_last} {last} {end}")
        }
        words => words.concat(),
    }
}
