//! What leaves the command: text for people, JSON for programs. Nothing else prints.

use std::{
    borrow::Cow,
    fmt::Display,
    io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _},
};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use gate_core::text::is_obeyed;
use host_native::ErrorClass;
use serde::Serialize;
use tracing_subscriber::filter::LevelFilter;

use crate::error::CliError;

/// Who reads the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// People.
    Text,
    /// Programs.
    Json,
}

/// When the output has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl From<Color> for clap::ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::Always,
            Color::Never => Self::Never,
        }
    }
}

impl From<Color> for ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::Always,
            Color::Never => Self::Never,
        }
    }
}

/// Has what the library says on the way written to standard error, a line each, as people or programs read it.
pub(crate) fn log_to_stderr(format: Format) {
    let log = tracing_subscriber::fmt().with_max_level(LevelFilter::INFO).with_target(false).with_writer(io::stderr);
    match format {
        Format::Text => log.init(),
        Format::Json => log.json().flatten_event(true).init(),
    }
}

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const WARN: Style = AnsiColor::Yellow.on_default();
const FAINT: Style = Style::new().dimmed();

/// What stands for something that is not there.
const ABSENT: &str = "<none>";

/// Standard output and standard error.
pub(crate) struct Output {
    format: Format,
    color: Color,
    stdout: BufWriter<AutoStream<StdoutLock<'static>>>,
    /// Past [`AutoStream`], which drops more than colours. At most one of the two holds something back.
    exact: BufWriter<StdoutLock<'static>>,
}

impl Output {
    pub(crate) fn new(format: Format, color: Color) -> Self {
        let stdout = AutoStream::new(io::stdout().lock(), color.into());
        Self { format, color, stdout: BufWriter::new(stdout), exact: BufWriter::new(io::stdout().lock()) }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// One line of text.
    pub(crate) fn line(&mut self, text: impl Display) -> Result<(), CliError> {
        writeln!(self.styled()?, "{text}").map_err(CliError::output)
    }

    /// Bytes that are not ours to change.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.exact()?.write_all(bytes).map_err(CliError::output)
    }

    /// One JSON document, on one line.
    pub(crate) fn json(&mut self, document: &impl Serialize) -> Result<(), CliError> {
        self.json_part(document)?;
        self.raw(b"\n")
    }

    /// A JSON value within a document.
    pub(crate) fn json_part(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let failed = |error: serde_json::Error| CliError::output(error.into());
        if self.is_watched() {
            let json = serde_json::to_string(value).map_err(failed)?;
            return self.raw(shown_json(&json).as_bytes());
        }
        serde_json::to_writer(self.exact()?, value).map_err(failed)
    }

    /// A line of JSON from a log, byte for byte; on a terminal with what that would obey escaped.
    pub(crate) fn frame(&mut self, json: &str) -> Result<(), CliError> {
        if self.is_watched() {
            self.raw(shown_json(json).as_bytes())?;
        } else {
            self.raw(json.as_bytes())?;
        }
        self.raw(b"\n")
    }

    /// A line beside the answer, for people: what to do next.
    pub(crate) fn note(&mut self, text: impl Display) -> Result<(), CliError> {
        self.aside("note:", AnsiColor::Cyan.on_default().bold(), text)
    }

    /// A line beside the answer, for people: what is not as it seems.
    pub(crate) fn warning(&mut self, text: impl Display) -> Result<(), CliError> {
        if self.format == Format::Json {
            let _ = writeln!(io::stderr(), "{}", serde_json::json!({ "warning": text.to_string() }));
        }
        self.aside("warning:", WARN.bold(), text)
    }

    fn aside(&mut self, label: &str, style: Style, text: impl Display) -> Result<(), CliError> {
        if self.format == Format::Text {
            self.flush()?;
            let mut stderr = AutoStream::new(io::stderr().lock(), self.color.into());
            // The answer counts; who cannot be told of it is not.
            let _ = writeln!(stderr, "{style}{label}{style:#} {text}");
        }
        Ok(())
    }

    /// Why the command failed, in one line.
    pub(crate) fn error(&self, class: ErrorClass, message: &str) {
        let mut stderr = AutoStream::new(io::stderr().lock(), self.color.into());
        let message = printable(message);
        // There is nowhere left to say that it cannot be said.
        let _ = match self.format {
            Format::Text => {
                let style = BAD.bold();
                writeln!(stderr, "{style}error:{style:#} {message}")
            }
            Format::Json => {
                let class = match class {
                    ErrorClass::Usage => "usage",
                    ErrorClass::Unavailable => "unavailable",
                    ErrorClass::Damaged => "damaged",
                };
                writeln!(stderr, "{}", serde_json::json!({ "error": message, "class": class }))
            }
        };
    }

    /// One value alone on its line.
    pub(crate) fn value(&mut self, Cell { text, style }: &Cell) -> Result<(), CliError> {
        self.line(format_args!("{style}{text}{style:#}"))
    }

    /// `name=value` on a line of its own.
    pub(crate) fn pair(&mut self, name: &str, Cell { text, style }: &Cell) -> Result<(), CliError> {
        self.line(format_args!("{name}={style}{text}{style:#}"))
    }

    /// Names and their values, one a line.
    pub(crate) fn fields<const N: usize>(&mut self, fields: [(&str, Cell); N]) -> Result<(), CliError> {
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        fields.iter().try_for_each(|(name, Cell { text, style })| {
            writeln!(self.styled()?, "{name:width$}  {style}{text}{style:#}").map_err(CliError::output)
        })
    }

    /// A table with this header.
    pub(crate) fn table<const N: usize>(&mut self, header: [&'static str; N]) -> Table<'_, N> {
        Table { out: self, widths: header.map(str::len), header: Some(header), pending: Vec::new() }
    }

    /// Whether somebody sees each line as it comes.
    pub(crate) fn is_watched(&self) -> bool {
        io::stdout().is_terminal()
    }

    pub(crate) fn flush(&mut self) -> Result<(), CliError> {
        self.stdout.flush().and_then(|()| self.exact.flush()).map_err(CliError::output)
    }

    fn styled(&mut self) -> Result<&mut impl io::Write, CliError> {
        if !self.exact.buffer().is_empty() {
            self.exact.flush().map_err(CliError::output)?;
        }
        Ok(&mut self.stdout)
    }

    fn exact(&mut self) -> Result<&mut impl io::Write, CliError> {
        if !self.stdout.buffer().is_empty() {
            self.stdout.flush().map_err(CliError::output)?;
        }
        Ok(&mut self.exact)
    }
}

/// One value of a table.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(crate) fn new(value: impl Display) -> Self {
        Self { text: printable(&value.to_string()), style: Style::new() }
    }

    /// The value, or `<none>`.
    pub(crate) fn or_none(value: Option<impl Display>) -> Self {
        value.map_or_else(Self::none, Self::new)
    }

    /// `<none>`.
    pub(crate) fn none() -> Self {
        Self { text: ABSENT.to_owned(), style: FAINT }
    }

    /// In the colour of what is well.
    pub(crate) fn good(self) -> Self {
        Self { style: GOOD, ..self }
    }

    /// As a heading.
    pub(crate) fn strong(self) -> Self {
        Self { style: Style::new().bold(), ..self }
    }

    /// In the colour of what is not.
    pub(crate) fn bad(self) -> Self {
        Self { style: BAD, ..self }
    }

    /// In the colour of what will not be well.
    pub(crate) fn warn(self) -> Self {
        Self { style: WARN, ..self }
    }

    /// In the colour of what matters less.
    pub(crate) fn faint(self) -> Self {
        Self { style: FAINT, ..self }
    }
}

/// Text of unknown origin in one line that a terminal only shows.
fn printable(text: &str) -> String {
    if !text.contains(is_obeyed) {
        return text.to_owned();
    }
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        match c {
            '\n' => line.push_str("; "),
            c if is_obeyed(c) => line.extend(c.escape_debug()),
            c => line.push(c),
        }
        line
    })
}

/// JSON that says the same, without characters that a terminal obeys. They stand in its strings alone, all of them below
/// U+10000.
fn shown_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_obeyed) {
        return Cow::Borrowed(json);
    }
    Cow::Owned(json.chars().fold(String::with_capacity(json.len()), |mut shown, c| {
        if is_obeyed(c) {
            shown.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            shown.push(c);
        }
        shown
    }))
}

/// Rows below an upper-case header. The widths come from the first rows and only grow, so that any number of rows
/// takes the memory of a few.
pub(crate) struct Table<'a, const N: usize> {
    out: &'a mut Output,
    header: Option<[&'static str; N]>,
    widths: [usize; N],
    pending: Vec<[Cell; N]>,
}

/// Rows that the widths are taken from before any is printed.
const PENDING_ROWS: usize = 1024;

impl<'a, const N: usize> Table<'a, N> {
    pub(crate) fn row(&mut self, cells: [Cell; N]) -> Result<(), CliError> {
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.text.chars().count());
        }
        self.pending.push(cells);
        if self.pending.len() == PENDING_ROWS { self.print() } else { Ok(()) }
    }

    /// Prints what is left, and hands the output back.
    pub(crate) fn finish(mut self) -> Result<&'a mut Output, CliError> {
        self.print()?;
        Ok(self.out)
    }

    /// Whether somebody sees each row as it comes.
    pub(crate) fn is_watched(&self) -> bool {
        self.out.is_watched()
    }

    fn print(&mut self) -> Result<(), CliError> {
        if let Some(header) = self.header.take() {
            let header = header.map(|name| Cell { text: name.to_owned(), style: Style::new().bold() });
            self.print_row(&header)?;
        }
        let rows = std::mem::take(&mut self.pending);
        rows.iter().try_for_each(|row| self.print_row(row))
    }

    fn print_row(&mut self, cells: &[Cell; N]) -> Result<(), CliError> {
        let mut line = String::new();
        for (at, (Cell { text, style }, width)) in cells.iter().zip(self.widths).enumerate() {
            let last = at + 1 == N;
            let padding = if last { 0 } else { (width + 2).saturating_sub(text.chars().count()) };
            line.push_str(&format!("{style}{text}{style:#}{:padding$}", ""));
        }
        self.out.line(line)
    }
}
