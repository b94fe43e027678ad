//! What becomes of a command whose orchestrator does not simply answer.

use crate::{
    orchestrator::{certificates, fleet},
    service::Service,
    support::Home,
};

fn orchestrator(home: &Home, flags: &str) -> Service {
    let serve = "orchestrator serve --store fleet.sqlite --signing-key lease.pem --listen 127.0.0.1:0";
    Service::start(home, &format!("{serve} {flags}"))
}

#[test]
fn a_command_that_asks_for_more_than_its_token_may_in_a_second_waits_and_asks_again() {
    let home = fleet();
    let running = orchestrator(&home, "--requests-per-second 5");
    let asks = format!("--orchestrator-url http://{} --orchestrator-token-file operator.token", running.address);
    let nodes: String = (1..=12).map(|at| format!("--node-id robot-{at} ")).collect();
    let judged = home.run(&format!("attestation eval --bundle bundle.tar {nodes} {asks}"));
    let printed = String::from_utf8(judged.stdout).unwrap();
    assert!(printed.contains("attestation: not_enrolled  12"), "{printed} {:?}", judged.stderr);
    let (_, metrics) = running.connect().exchange("GET", "/metrics", "", "").unwrap();
    assert!(metrics.as_str().unwrap().contains("status=\"429\""), "{metrics}");
}

#[test]
fn who_is_refused_for_the_certificate_that_it_does_not_show_is_told_so() {
    let home = fleet();
    certificates(&home);
    let running = orchestrator(&home, "--tls-cert server.pem --tls-key server.key --tls-client-ca ca.pem");
    let asks = format!(
        "--orchestrator-url https://{} --orchestrator-ca ca.pem --orchestrator-token-file operator.token",
        running.address
    );
    // It is told before it has asked, or after.
    for _ in 0..5 {
        let refused = home.run(&format!("node list {asks}"));
        let error = String::from_utf8(refused.stderr).unwrap();
        let remedy = "CertificateRequired; check that it runs, `orchestrator.url`, `orchestrator.ca` and `orchestrator.client_cert`\n";
        assert!(error.contains("received fatal alert: ") && error.ends_with(remedy), "{error}");
        assert_eq!((refused.status.code(), error.lines().count()), (Some(3), 1), "{error}");
    }
    home.ok(&format!("node list {asks} --orchestrator-client-cert client.pem --orchestrator-client-key client.key"));
}
