//! The enum of autonomy-gate for Python.

use std::fmt::Write;

use super::{CLASSES, Reason, camel, digest};

pub(super) fn enumeration(reasons: &[Reason]) -> String {
    let mut out = String::from(
        "# Generated from gate-core/reasons.toml by `cargo xtask codegen`; do not edit.\n\
         \"\"\"Every reason: what the wire, the log and the metrics say, byte for byte.\"\"\"\n\n\
         from __future__ import annotations\n\n\
         from enum import Enum\n\
         from typing import Final, Literal\n\n\n\
         class Reason(str, Enum):\n    \"\"\"A reason. It is a string: its text.\"\"\"\n\n",
    );
    for reason in reasons {
        let _ = writeln!(out, "    {} = \"{}\"\n    \"\"\"{}\"\"\"", name(reason), reason.wire, reason.means);
    }
    out += "
    def __str__(self) -> str:
        return self.value

    @property
    def number(self) -> int:
        \"\"\"The stable number.\"\"\"
        return _NUMBERS[self]

    @property
    def remedy(self) -> str:
        \"\"\"What the operator does next, in a line.\"\"\"
        return _REMEDIES[self]

";
    for (class, doc, ..) in CLASSES {
        let names: Vec<_> = reasons.iter().filter(|reason| reason.class() == class).map(name).collect();
        // As ruff formats it: one stands in the line.
        let list = match names.as_slice() {
            [name] => format!("Reason.{name}"),
            names => names.iter().fold("\n".to_owned(), |list, name| list + "    Reason." + name + ",\n"),
        };
        let _ = writeln!(out, "\n{}Reason = Literal[{list}]\n\"\"\"{doc}\"\"\"", camel(class));
    }
    out += "\n_NUMBERS: Final[dict[Reason, int]] = {\n";
    for reason in reasons {
        let _ = writeln!(out, "    Reason.{}: {},", name(reason), reason.number);
    }
    out += "}\n\n_REMEDIES: Final[dict[Reason, str]] = {\n";
    for reason in reasons {
        let _ = writeln!(out, "    Reason.{}: \"{}\",", name(reason), reason.remedy);
    }
    let digest = digest(reasons);
    let _ = write!(
        out,
        "}}\n\n\
         REASONS: Final[dict[int, Reason]] = {{number: reason for reason, number in _NUMBERS.items()}}\n\
         \"\"\"The reason of a number.\"\"\"\n\n\
         REASONS_DIGEST: Final = \"{digest}\"\n\
         \"\"\"Of all reasons: `reasons` of a module that knows the same ones.\"\"\"\n"
    );
    out
}

fn name(reason: &Reason) -> String {
    reason.word().to_uppercase()
}
