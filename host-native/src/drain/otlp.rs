//! The messages of OTLP that a log is sent in, and a frame as one of its records.
//!
//! Written out from `opentelemetry/proto/{collector/logs,logs,resource,common}/v1` 1.x: the crate of that name brings
//! tonic and an SDK with it. Fields that are never sent are left out.

use std::collections::BTreeMap;

use gate_core::{frame::Kind, identity::NodeId};
use serde::{Deserialize, de::IgnoredAny};

use crate::wal::Record;

/// Longest member of a frame that is an attribute as well, in bytes. All of them are in the body.
const ATTRIBUTE_BYTES: usize = 1024;

/// `ExportLogsServiceRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Request {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_logs: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeLogs {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    log_records: Vec<LogRecord>,
}

/// `InstrumentationScope`.
#[derive(Clone, PartialEq, prost::Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LogRecord {
    #[prost(fixed64, tag = "1")]
    time_unix_nano: u64,
    #[prost(int32, tag = "2")]
    severity_number: i32,
    #[prost(string, tag = "3")]
    severity_text: String,
    #[prost(message, optional, tag = "5")]
    body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    attributes: Vec<KeyValue>,
    #[prost(fixed64, tag = "11")]
    observed_time_unix_nano: u64,
    #[prost(string, tag = "12")]
    event_name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Integer(i64),
    #[prost(double, tag = "4")]
    Float(f64),
}

/// `ExportLogsServiceResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Response {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

/// `ExportLogsPartialSuccess`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_log_records: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

/// `google.rpc.Status`: the body of an answer that is not 200.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Status {
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

/// A member of a frame's `attrs`, where it is a single value.
#[derive(Deserialize)]
#[serde(untagged)]
enum Member {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Other(IgnoredAny),
}

impl Request {
    /// Records of one log, each with its node: a resource a node.
    pub(super) fn of<'a>(records: impl IntoIterator<Item = (&'a Option<NodeId>, &'a LogRecord)>) -> Self {
        let mut nodes: BTreeMap<&Option<NodeId>, Vec<LogRecord>> = BTreeMap::new();
        for (node_id, record) in records {
            nodes.entry(node_id).or_default().push(record.clone());
        }
        let resource_logs = nodes.into_iter().map(|(node_id, log_records)| {
            let service = KeyValue::text("service.name", "autonomy-gate");
            let node = node_id.iter().map(|node_id| KeyValue::text("service.instance.id", node_id.as_str()));
            let scope = Scope { name: "autonomy.wal".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
            ResourceLogs {
                resource: Some(Resource { attributes: [service].into_iter().chain(node).collect() }),
                scope_logs: vec![ScopeLogs { scope: Some(scope), log_records }],
            }
        });
        Self { resource_logs: resource_logs.collect() }
    }
}

impl LogRecord {
    /// A frame: its body is the payload, byte for byte, so that the chain of hashes can be checked where it arrives.
    pub(super) fn of(id: &str, record: &Record) -> Self {
        // What is too deep to be read is in the body alone.
        let members: BTreeMap<String, Member> = serde_json::from_str(&record.attrs).unwrap_or_default();
        let is_deny = matches!(members.get("outcome"), Some(Member::Text(outcome)) if outcome == "deny");
        let (severity_number, severity_text) = match record.kind {
            Kind::Error => (17, "ERROR"),
            Kind::Decision if is_deny => (13, "WARN"),
            Kind::Decision | Kind::Facts | Kind::Action | Kind::Lifecycle => (9, "INFO"),
        };
        let own = [KeyValue::text("autonomy.id", id), KeyValue::text("autonomy.audit_id", record.audit_id.as_str())];
        let attributes = members.into_iter().filter_map(|(name, member)| {
            let value = match member {
                Member::Bool(value) => Value::Bool(value),
                Member::Integer(value) => Value::Integer(value),
                Member::Float(value) => Value::Float(value),
                Member::Text(text) if text.len() <= ATTRIBUTE_BYTES => Value::Text(text),
                Member::Text(_) | Member::Other(_) => return None,
            };
            Some(KeyValue::new(format!("autonomy.attrs.{name}"), value))
        });
        Self {
            time_unix_nano: record.unix_ns(),
            severity_number,
            severity_text: severity_text.to_owned(),
            body: Some(AnyValue { value: Some(Value::Text(record.payload.clone())) }),
            attributes: own.into_iter().chain(attributes).collect(),
            observed_time_unix_nano: record.unix_ns(),
            event_name: record.kind.as_str().to_owned(),
        }
    }
}

impl KeyValue {
    fn new(key: String, value: Value) -> Self {
        Self { key, value: Some(AnyValue { value: Some(value) }) }
    }

    fn text(key: &str, text: &str) -> Self {
        Self::new(key.to_owned(), Value::Text(text.to_owned()))
    }
}
