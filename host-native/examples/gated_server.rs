//! A tool server of its own behind the gate: `cargo run -p host-native --example gated_server -- <bundle> <public key>`
//! then `curl -X POST 127.0.0.1:8080/arm/move`.

use axum::{Router, routing::post};
use gate_core::{Config, Freshness, Mode, NodeId, ToolName};
use host_native::{AttestationLayer, Gate, Policies, enrollment::LocalSource, key, serve, wal};
use std::{env, fs, sync::Arc};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(bundle), Some(public_key)) = (arguments.next(), arguments.next()) else {
        return Err("usage: gated_server <bundle.tar> <trusted key.pub>".into());
    };
    let node_id = NodeId::parse("robot-1")?;
    let source = LocalSource::new("enrollment.sqlite", node_id.clone(), 15_000)?;
    let config = Config {
        mode: Mode::Enforce,
        node_id: Some(node_id),
        bundle_keys: Some(key::read_trusted(&[public_key.into()], 1)?),
        lease_keys: None,
        freshness: Freshness::default(),
    };
    let (wal, _) = wal::Wal::open("wal", wal::Options::default())?;
    let gate = Gate::open(config, Policies::Bundle(fs::read(bundle)?), Some(Box::new(source)), Arc::new(wal)).await?;

    let gated = AttestationLayer::new(Arc::new(gate), ToolName::parse("arm.move")?);
    let router = Router::new().route("/arm/move", post(async || "moved\n")).layer(gated);
    let listener = serve::Listener::tcp(([127, 0, 0, 1], 8080).into()).await?;
    let metrics = Arc::new(serve::Metrics::new("gated_server", "1"));
    let ctrl_c = async { drop(tokio::signal::ctrl_c().await) };
    serve::serve(listener, router, serve::Limits::default(), metrics, ctrl_c).await;
    Ok(())
}
