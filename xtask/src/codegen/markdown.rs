//! The book's page.

use std::fmt::Write;

use super::{CLASSES, Reason, camel};

pub(super) fn page(reasons: &[Reason]) -> String {
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
