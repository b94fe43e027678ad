//! The OpenTelemetry Collector.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::Home;

/// A real Collector, built from its own modules.
pub(super) struct Otelcol {
    child: Child,
    file: PathBuf,
}

impl Otelcol {
    pub(super) fn start(program: &Path, home: &Home, address: &str) -> Self {
        let file = home.path("collected.jsonl");
        let config = format!(
            "receivers:\n  otlp:\n    protocols:\n      http:\n        endpoint: {address}\nexporters:\n  file:\n    path: {}\n\
             service:\n  telemetry:\n    metrics:\n      level: none\n    logs:\n      level: error\n  pipelines:\n    logs:\n      \
             receivers: [otlp]\n      exporters: [file]\n",
            file.display()
        );
        fs::write(home.path("collector.yaml"), config).unwrap();
        let mut command = home.program(program);
        command.arg(format!("--config=file:{}", home.path("collector.yaml").display()));
        Self { child: command.spawn().unwrap(), file }
    }

    /// Every record that it wrote, with its resource, once it has ended in order.
    pub(super) fn collected(mut self) -> Vec<(Value, Value)> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        let lines = fs::read_to_string(&self.file).unwrap();
        let mut records = Vec::new();
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            for resource_logs in line["resourceLogs"].as_array().unwrap() {
                for scope_logs in resource_logs["scopeLogs"].as_array().unwrap() {
                    let logs = scope_logs["logRecords"].as_array().unwrap();
                    records.extend(logs.iter().map(|record| (named(&resource_logs["resource"]), record.clone())));
                }
            }
        }
        records
    }
}

impl Drop for Otelcol {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Attributes by their names.
pub(super) fn named(holder: &Value) -> Value {
    let pairs = holder["attributes"].as_array().unwrap().iter();
    pairs
        .map(|pair| (pair["key"].as_str().unwrap().to_owned(), pair["value"].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
