//! The union of autonomy-gate for npm.

use std::fmt::Write;

use super::{CLASSES, Reason, camel, digest};

pub(super) fn union(reasons: &[Reason]) -> String {
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
    let digest = digest(reasons);
    let _ = write!(
        out,
        "}};\n\n/** Of all reasons: `reasons` of a module that knows the same ones. */\n\
         export const REASONS_DIGEST = \"{digest}\";\n"
    );
    out
}
