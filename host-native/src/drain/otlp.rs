//! A frame as a record of OTLP, and records as a request.

use std::collections::BTreeMap;

use gate_core::{frame::Kind, identity::NodeId};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
};
use serde::{Deserialize, de::IgnoredAny};

use crate::wal::Record;

/// Longest member of a frame that is an attribute as well, in bytes. All of them are in the body.
const ATTRIBUTE_BYTES: usize = 1024;

/// `google.rpc.Status`: the body of an answer that is not 200. Fields that are not read are left out.
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

/// Records of one log, each with its node: a resource a node.
pub(super) fn request<'a>(
    records: impl IntoIterator<Item = (&'a Option<NodeId>, &'a LogRecord)>,
) -> ExportLogsServiceRequest {
    let mut nodes: BTreeMap<&Option<NodeId>, Vec<LogRecord>> = BTreeMap::new();
    for (node_id, record) in records {
        nodes.entry(node_id).or_default().push(record.clone());
    }
    let resource_logs = nodes.into_iter().map(|(node_id, log_records)| {
        let service = text("service.name", "autonomy-gate");
        let node = node_id.iter().map(|node_id| text("service.instance.id", node_id.as_str()));
        let attributes = [service].into_iter().chain(node).collect();
        let (name, version) = ("autonomy.wal".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        let scope = InstrumentationScope { name, version, ..InstrumentationScope::default() };
        ResourceLogs {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_logs: vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }
    });
    ExportLogsServiceRequest { resource_logs: resource_logs.collect() }
}

/// A frame: its body is the payload, byte for byte, so that the chain of hashes can be checked where it arrives.
pub(super) fn log_record(id: &str, record: &Record) -> LogRecord {
    // What is too deep to be read is in the body alone.
    let members: BTreeMap<String, Member> = serde_json::from_str(&record.attrs).unwrap_or_default();
    let is_deny = matches!(members.get("outcome"), Some(Member::Text(outcome)) if outcome == "deny");
    let (severity_number, severity_text) = match record.kind {
        Kind::Error => (SeverityNumber::Error, "ERROR"),
        Kind::Decision if is_deny => (SeverityNumber::Warn, "WARN"),
        Kind::Decision | Kind::Facts | Kind::Action | Kind::Lifecycle => (SeverityNumber::Info, "INFO"),
    };
    let own = [text("autonomy.id", id), text("autonomy.audit_id", record.audit_id.as_str())];
    let attributes = members.into_iter().filter_map(|(name, member)| {
        let value = match member {
            Member::Bool(value) => Value::BoolValue(value),
            Member::Integer(value) => Value::IntValue(value),
            Member::Float(value) => Value::DoubleValue(value),
            Member::Text(text) if text.len() <= ATTRIBUTE_BYTES => Value::StringValue(text),
            Member::Text(_) | Member::Other(_) => return None,
        };
        Some(attribute(format!("autonomy.attrs.{name}"), value))
    });
    LogRecord {
        time_unix_nano: record.unix_ns(),
        observed_time_unix_nano: record.unix_ns(),
        severity_number: severity_number.into(),
        severity_text: severity_text.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(record.payload.clone())) }),
        attributes: own.into_iter().chain(attributes).collect(),
        event_name: record.kind.as_str().to_owned(),
        ..LogRecord::default()
    }
}

fn text(key: &str, text: &str) -> KeyValue {
    attribute(key.to_owned(), Value::StringValue(text.to_owned()))
}

fn attribute(key: String, value: Value) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
