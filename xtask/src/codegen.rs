//! Writes what is generated from `gate-core/reasons.toml`, so that each reason is defined once.

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::{fmt::Write, fs, path::Path, process::Command};

use crate::Result;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reasons {
    reason: Vec<Reason>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    number: u8,
    wire: String,
    means: String,
    remedy: String,
    since: String,
}

impl Reason {
    fn class(&self) -> &str {
        self.wire.split(": ").next().unwrap_or_default()
    }

    fn word(&self) -> &str {
        self.wire.split(": ").nth(1).unwrap_or_default()
    }

    fn variant(&self) -> String {
        camel(self.word())
    }

    fn anchor(&self) -> String {
        format!("{}-{}", self.class(), self.word().replace('_', "-"))
    }
}

fn camel(words: &str) -> String {
    let capitalise = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
    };
    words.split('_').map(capitalise).collect()
}

/// The classes in the order of the list, each with the first and last number it may use.
const CLASSES: [(&str, &str, u8, u8); 3] = [
    ("attestation", "What the gate found wrong, in the order of the sub-checks.", 1, 99),
    ("policy", "What the policy answered.", 101, 199),
    ("audit", "Why a decision could not be recorded.", 201, 255),
];

/// Every generated file with its content.
fn outputs(root: &Path) -> Result<Vec<(&'static str, String)>> {
    let text = fs::read_to_string(root.join("gate-core/reasons.toml"))?;
    let reasons = toml::from_str::<Reasons>(&text)?.reason;
    check(&reasons)?;
    Ok(vec![
        ("gate-core/src/reason.rs", rustfmt(root, &rust(&reasons))?),
        ("docs/src/reasons.md", markdown(&reasons)),
        ("bindings/js/src/reasons.ts", typescript(&reasons)),
    ])
}

/// Writes the generated files.
pub fn write(root: &Path) -> Result<()> {
    for (path, content) in outputs(root)? {
        if fs::read_to_string(root.join(path)).ok().as_deref() != Some(&content) {
            fs::write(root.join(path), content)?;
            println!("wrote {path}");
        }
    }
    Ok(())
}

/// Fails when a generated file is not what the list says.
pub fn check_fresh(root: &Path) -> Result<()> {
    for (path, content) in outputs(root)? {
        if fs::read_to_string(root.join(path)).ok().as_deref() != Some(&content) {
            return Err(format!("`{path}` is stale: run `cargo xtask codegen` and commit it").into());
        }
    }
    Ok(())
}

fn check(reasons: &[Reason]) -> Result<()> {
    for pair in reasons.windows(2) {
        if let [a, b] = pair
            && a.number >= b.number
        {
            return Err(format!("reason {} does not come after {}: numbers only grow", b.number, a.number).into());
        }
    }
    for reason in reasons {
        let class = CLASSES.iter().find(|class| class.0 == reason.class());
        let Some((_, _, first, last)) = class else {
            return Err(format!("`{}` is of no known class", reason.wire).into());
        };
        if !(*first..=*last).contains(&reason.number) {
            return Err(format!("`{}` has number {}, outside {first} to {last}", reason.wire, reason.number).into());
        }
        if !reason.word().chars().all(|c| c.is_ascii_lowercase() || c == '_') || reason.word().is_empty() {
            return Err(format!("`{}`: use lower-case words joined by `_`", reason.wire).into());
        }
        if reason.means.contains('"') || reason.remedy.contains(['"', '\n']) {
            return Err(format!("`{}`: no double quotes or line breaks in its texts", reason.wire).into());
        }
    }
    Ok(())
}

fn rust(reasons: &[Reason]) -> String {
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
            impl fmt::Display for UnknownReason { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(\"not a reason: `autonomy attestation explain` lists them\") } }\n\n\
            impl core::error::Error for UnknownReason {}\n\n\
            impl FromStr for Reason { type Err = UnknownReason; fn from_str(text: &str) -> Result<Self, UnknownReason> { Self::ALL.iter().copied().find(|reason| reason.as_str() == text).ok_or(UnknownReason) } }\n\n\
            impl json::Read for Reason { fn read(value: json::Value<'_>) -> Result<Self, json::Error> { value.parsed(str::parse) } }\n\n\
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

fn markdown(reasons: &[Reason]) -> String {
    let mut out = String::from(
        "<!-- Generated from gate-core/reasons.toml by `cargo xtask codegen`; do not edit. -->\n\n# Reasons\n\n\
         Every answer carries one of these texts, byte for byte the same on the wire, in the log and in the metrics. \
         `autonomy attestation explain <reason>` prints the same on a terminal.\n",
    );
    for (class, doc, ..) in CLASSES {
        let _ = write!(out, "\n## {}\n\n{doc}\n", camel(class));
        for reason in reasons.iter().filter(|reason| reason.class() == class) {
            let _ = write!(
                out,
                "\n### `{}` {{#{}}}\n\n{}\n\n- **What to do**: {}\n- **Number**: {}\n- **Since**: {}\n",
                reason.wire,
                reason.anchor(),
                reason.means,
                reason.remedy,
                reason.number,
                reason.since
            );
        }
    }
    out
}

fn typescript(reasons: &[Reason]) -> String {
    let mut out = String::from(
        "// Generated from gate-core/reasons.toml by `cargo xtask codegen`; do not edit.\n\n\
         /** Every reason: what the wire, the log and the metrics say, byte for byte. */\nexport const Reason = {\n",
    );
    for reason in reasons {
        let _ = writeln!(out, "  /** {} */\n  {}: \"{}\",", reason.means, reason.variant(), reason.wire);
    }
    out += "} as const;\n";
    let mut classes = Vec::new();
    for (class, doc, ..) in CLASSES {
        let name = format!("{}Reason", camel(class));
        let _ = write!(out, "\n/** {doc} */\nexport type {name} =");
        for reason in reasons.iter().filter(|reason| reason.class() == class) {
            let _ = write!(out, "\n  | \"{}\"", reason.wire);
        }
        out += ";\n";
        classes.push(name);
    }
    let _ = writeln!(out, "\n/** A reason. */\nexport type Reason = {};", classes.join(" | "));
    out += "\n/** The text of a reason, by its stable number. */\n\
            export const REASON_TEXTS: Readonly<Record<number, Reason>> = {\n";
    for reason in reasons {
        let _ = writeln!(out, "  {}: \"{}\",", reason.number, reason.wire);
    }
    out += "};\n\n/** The stable number of a reason. */\nexport const REASON_NUMBERS: Readonly<Record<Reason, number>> = {\n";
    for reason in reasons {
        let _ = writeln!(out, "  \"{}\": {},", reason.wire, reason.number);
    }
    out += "};\n\n/** What the operator does next, in a line. */\nexport const REMEDIES: Readonly<Record<Reason, string>> = {\n";
    for reason in reasons {
        let _ = writeln!(out, "  \"{}\":\n    \"{}\",", reason.wire, reason.remedy);
    }
    let lines: String = reasons.iter().map(|reason| format!("{} {}\n", reason.number, reason.wire)).collect();
    let digest: String = Sha256::digest(lines).iter().map(|byte| format!("{byte:02x}")).collect();
    let _ = write!(
        out,
        "}};\n\n/** Of all reasons: `reasons` of a module that knows the same ones. */\n\
         export const REASONS_DIGEST = \"sha256:{digest}\";\n"
    );
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
