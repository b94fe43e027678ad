//! The enums of gate-core.

use std::{fmt::Write, fs, path::Path, process::Command};

use super::{CLASSES, Reason, camel};
use crate::Result;

pub(super) fn enums(root: &Path, reasons: &[Reason]) -> Result<String> {
    rustfmt(root, &source(reasons))
}

fn source(reasons: &[Reason]) -> String {
    let mut out = String::from(
        "//! Why a call was answered as it was. Generated from `reasons.toml` by `cargo xtask codegen`; do not edit.\n\n\
         use alloc::string::String;\nuse core::{fmt, str::FromStr};\nuse serde::{Deserialize, Serialize};\n\n\
         use crate::json;\n\n",
    );
    out += "/// A reason: what the wire, the log and the metrics say, byte for byte.\n\
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]\n\
            #[serde(try_from = \"String\", into = \"&'static str\")]\npub enum Reason {\n";
    for (class, doc, ..) in CLASSES {
        let name = camel(class);
        let _ = writeln!(out, "/// {doc}\n{name}({name}),");
    }
    out += "}\n\nimpl Reason {\n/// Every reason, by number.\npub const ALL: &'static [Self] = &[\n";
    for reason in reasons {
        let class = camel(reason.class());
        let _ = writeln!(out, "Self::{class}({class}::{}),", reason.variant());
    }
    out += "];\n\n";
    for (doc, name, ty) in [
        ("Its stable number.", "number", "u8"),
        ("The canonical text.", "as_str", "&'static str"),
        ("When it is given, in a sentence.", "meaning", "&'static str"),
        ("What the operator does next, in a line.", "remedy", "&'static str"),
        ("Where the book explains it: an anchor of its reasons page.", "anchor", "&'static str"),
        ("The version that first gave it.", "since", "&'static str"),
    ] {
        let _ = writeln!(out, "/// {doc}\npub const fn {name}(self) -> {ty} {{ match self {{");
        for (class, ..) in CLASSES {
            let class = camel(class);
            let _ = writeln!(out, "Self::{class}(reason) => reason.{name}(),");
        }
        out += "} }\n\n";
    }
    out += "/// The reason with this number.\npub fn from_number(number: u8) -> Option<Self> { Self::ALL.iter().copied().find(|reason| reason.number() == number) }\n}\n\n";
    out += "impl fmt::Display for Reason { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(self.as_str()) } }\n\n\
            /// A text that is no reason's.\n#[derive(Debug, Clone, Copy, PartialEq, Eq)]\npub struct UnknownReason;\n\n\
            impl UnknownReason { /// What is wrong, and what to do.\npub fn text(&self) -> String { \"not a reason: `autonomy attestation explain` lists them\".into() } }\n\n\
            crate::text::display_text!(UnknownReason);\n\n\
            impl From<UnknownReason> for json::Error { fn from(error: UnknownReason) -> Self { Self::new(error.text()) } }\n\n\
            impl core::error::Error for UnknownReason {}\n\n\
            impl FromStr for Reason { type Err = UnknownReason; fn from_str(text: &str) -> Result<Self, UnknownReason> { Self::ALL.iter().copied().find(|reason| reason.as_str() == text).ok_or(UnknownReason) } }\n\n\
            impl json::Read for Reason { fn read(value: json::Value<'_>) -> Self { value.parsed(str::parse).unwrap_or(Self::Audit(Audit::WalUnavailable)) } }\n\n\
            impl TryFrom<String> for Reason { type Error = UnknownReason; fn try_from(text: String) -> Result<Self, UnknownReason> { text.parse() } }\n\n\
            impl From<Reason> for &'static str { fn from(reason: Reason) -> Self { reason.as_str() } }\n\n";
    for (class, doc, ..) in CLASSES {
        let name = camel(class);
        let members = || reasons.iter().filter(|reason| reason.class() == class);
        let _ = writeln!(
            out,
            "/// {doc}\n#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]\n#[repr(u8)]\npub enum {name} {{"
        );
        for reason in members() {
            let _ = writeln!(out, "/// {}\n{} = {},", reason.means, reason.variant(), reason.number);
        }
        let _ = writeln!(out, "}}\n\nimpl {name} {{\n/// Every one, by number.\npub const ALL: &'static [Self] = &[");
        for reason in members() {
            let _ = writeln!(out, "Self::{},", reason.variant());
        }
        out += "];\n\n/// Its stable number.\npub const fn number(self) -> u8 { self as u8 }\n\n";
        type Text = fn(&Reason) -> String;
        let texts: [(&str, &str, Text); 5] = [
            ("The canonical text.", "as_str", |reason| reason.wire.clone()),
            ("When it is given, in a sentence.", "meaning", |reason| reason.means.clone()),
            ("What the operator does next, in a line.", "remedy", |reason| reason.remedy.clone()),
            ("Where the book explains it: an anchor of its reasons page.", "anchor", Reason::anchor),
            ("The version that first gave it.", "since", |reason| reason.since.clone()),
        ];
        for (doc, function, text) in texts {
            let _ = writeln!(out, "/// {doc}\npub const fn {function}(self) -> &'static str {{ match self {{");
            for reason in members() {
                let _ = writeln!(out, "Self::{} => \"{}\",", reason.variant(), text(reason));
            }
            out += "} }\n\n";
        }
        let _ = writeln!(
            out,
            "}}\n\nimpl From<{name}> for Reason {{ fn from(reason: {name}) -> Self {{ Self::{name}(reason) }} }}\n\n\
             impl fmt::Display for {name} {{ fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {{ f.pad(self.as_str()) }} }}\n"
        );
    }
    out
}

fn rustfmt(root: &Path, source: &str) -> Result<String> {
    let file = std::env::temp_dir().join(format!("autonomy-codegen-{}.rs", std::process::id()));
    fs::write(&file, source)?;
    let status = Command::new("rustfmt").args(["--edition", "2024", "--config-path"]).arg(root).arg(&file).status()?;
    let formatted = fs::read_to_string(&file)?;
    fs::remove_file(&file)?;
    if status.success() { Ok(formatted) } else { Err("rustfmt refused the generated code".into()) }
}
