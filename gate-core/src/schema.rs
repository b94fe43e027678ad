//! The words and names as JSON Schema: what their parsers take.

use alloc::{borrow::Cow, vec::Vec};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{
    AuditId, Digest, EnrollmentRef, Mode, NodeId, PolicyRef, Reason, ToolName, limits, manifest::SchemaVersion,
    reason::Attestation,
};

macro_rules! texts {
    ($($name:ident, $pattern:literal, $max_bytes:expr;)+) => {$(
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": $pattern, "maxLength": $max_bytes})
            }
        }
    )+};
}

texts! {
    NodeId, "^[A-Za-z0-9_-][A-Za-z0-9._-]*$", limits::NODE_ID_BYTES;
    EnrollmentRef, "^[!-~]+$", limits::ENROLLMENT_REF_BYTES;
    ToolName, "^[A-Za-z0-9._:/][A-Za-z0-9._:/-]*$", limits::TOOL_NAME_BYTES;
    AuditId, "^[A-Za-z0-9][A-Za-z0-9-]*$", limits::AUDIT_ID_BYTES;
    PolicyRef, "^[!-,.-~][!-~]*$", limits::POLICY_REF_BYTES;
    Digest, "^sha256:[0-9a-f]{64}$", 71;
    SchemaVersion, "^(0|[1-9][0-9]*)[.](0|[1-9][0-9]*)$", 21;
}

macro_rules! words {
    ($($name:ident),+) => {$(
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let words: Vec<_> = $name::ALL.iter().map(|word| word.as_str()).collect();
                json_schema!({"type": "string", "enum": words})
            }
        }
    )+};
}

words!(Mode, Reason, Attestation);
