//! The reasons of the Go module.

use std::fmt::Write;

use super::{CLASSES, Reason, digest};

pub(super) fn constants(reasons: &[Reason]) -> String {
    let mut out = String::from(
        "// Code generated from gate-core/reasons.toml by `cargo xtask codegen`; DO NOT EDIT.\n\npackage autonomygate\n",
    );
    for (class, doc, ..) in CLASSES {
        let _ = write!(out, "\n// {doc}\nconst (\n");
        for reason in reasons.iter().filter(|reason| reason.class() == class) {
            let _ = writeln!(out, "\t// {}\n\tReason{} Reason = \"{}\"", reason.means, name(reason), reason.wire);
        }
        out += ")\n";
    }
    let _ = write!(
        out,
        "\n// ReasonsDigest is that of all reasons: a module that knows the same ones says the same.\n\
         const ReasonsDigest = \"{}\"\n\n// byNumber has each reason at its stable number.\nvar byNumber = [256]Reason{{\n",
        digest(reasons)
    );
    for reason in reasons {
        // gofmt aligns the values of a block.
        let _ = writeln!(out, "\t{:<4} Reason{},", format!("{}:", reason.number), name(reason));
    }
    out += "}\n\n// Number is the reason's stable number, and 0 for what is no reason.\n\
            func (r Reason) Number() int {\n\tswitch r {\n";
    for reason in reasons {
        let _ = writeln!(out, "\tcase Reason{}:\n\t\treturn {}", name(reason), reason.number);
    }
    out += "\t}\n\treturn 0\n}\n\n\
            // Remedy is what the operator does next, in a line; empty for what is no reason.\n\
            func (r Reason) Remedy() string {\n\tswitch r {\n";
    for reason in reasons {
        let _ = writeln!(out, "\tcase Reason{}:\n\t\treturn \"{}\"", name(reason), reason.remedy);
    }
    out += "\t}\n\treturn \"\"\n}\n";
    out
}

/// Go writes what is said letter by letter in capitals.
fn name(reason: &Reason) -> String {
    reason.variant().replace("NodeId", "NodeID").replace("Wal", "WAL")
}
