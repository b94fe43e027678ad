//! The enum and the texts of libautonomy_gate. cbindgen takes the enum on into `autonomy_gate.h`.

use std::fmt::Write;

use super::{Reason, digest};

pub(super) fn table(reasons: &[Reason]) -> String {
    let mut out = String::from(
        "//! Every reason, for C. Generated from `gate-core/reasons.toml` by `cargo xtask codegen`; do not edit.\n\n\
         use std::ffi::CStr;\n\n\
         /// Why a call was answered as it was: stable numbers, 0 where there is no reason.\n\
         #[derive(Debug, Clone, Copy, PartialEq, Eq)]\n#[repr(i32)]\npub enum ag_reason {\n    \
         /// None: the call is allowed, or the gate passes.\n    AG_REASON_NONE = 0,\n",
    );
    for reason in reasons {
        let _ =
            writeln!(out, "    /// `{}`: {}\n    {} = {},", reason.wire, reason.means, constant(reason), reason.number);
    }
    out += "}\n\n/// A reason's number, its text on the wire, and what the operator does next.\n\
            pub type Row = (ag_reason, &'static CStr, &'static CStr);\n\n\
            /// Every reason, by number.\n#[rustfmt::skip]\npub const REASONS: &[Row] = &[\n";
    for reason in reasons {
        let _ = writeln!(out, "    (ag_reason::{}, c\"{}\", c\"{}\"),", constant(reason), reason.wire, reason.remedy);
    }
    let _ = write!(
        out,
        "];\n\n/// The SHA-256 of all of them: `reasons` of a gate that knows the same ones.\n\
         pub const REASONS_DIGEST: &str = \"{}\";\n",
        digest(reasons)
    );
    out
}

fn constant(reason: &Reason) -> String {
    format!("AG_{}_{}", reason.class(), reason.word()).to_uppercase()
}
