//! What is published as schemas holds: what a service answers is a status that its OpenAPI has for the path, with a body as its
//! schema says, whatever test asks by [`Service::connect`]; and so is every document of the module that the corpora come by.

use host_native::{
    enrollment::{LeaseLookup, OrchestratorClient, SqliteStore},
    host::{self, Enrollments, Host, Token},
    key::{self, PrivateKey},
    orchestrator::{self, Access, Orchestrator},
    serve::{Limits, Listener, Metrics},
    wal::{self, Wal},
    wasm::{Engine, Export, Instance, TimedExport, WasmError},
};
use jsonschema::Validator;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs,
    future::pending,
    net::TcpListener,
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, Instant},
};

use crate::{
    conformance::{Native, run},
    orchestrator::{authorization, fleet},
    service::{Connection, Service},
    support::{Home, root},
};

/// A published document with what is in it by name.
struct Published {
    document: Value,
    /// Each schema that was asked for, by its place.
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Published {
    fn read(path: &str) -> Self {
        let document = serde_json::from_slice(&fs::read(root().join("docs/src/spec").join(path)).unwrap()).unwrap();
        Self { document, validators: Mutex::default() }
    }

    /// Fails where a value is not as the schema at this place says.
    fn hold(&self, place: &str, value: &Value, what: &str) {
        let validator = Arc::clone(self.validators.lock().unwrap().entry(place.to_owned()).or_insert_with(|| {
            let mut schema = self.document.pointer(place).unwrap().clone();
            // What it refers to.
            for part in ["$defs", "components"] {
                if let Some(named) = self.document.get(part) {
                    schema[part] = named.clone();
                }
            }
            Arc::new(jsonschema::validator_for(&schema).unwrap())
        }));
        let wrong: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{what}: {wrong:?} at {place}: {value}");
    }
}

/// What a listener answers by itself, on any path.
const OWN: [u16; 7] = [400, 408, 413, 431, 501, 503, 504];

/// A service with a published contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contract {
    Host,
    Orchestrator,
}

static HOST: LazyLock<Published> = LazyLock::new(|| Published::read("host.openapi.json"));
static ORCHESTRATOR: LazyLock<Published> = LazyLock::new(|| Published::read("orchestrator.openapi.json"));
static MODULE: LazyLock<Published> = LazyLock::new(|| Published::read("gate.schema.json"));

impl Service {
    /// A connection whose answers are held to the contract, where there is one.
    pub(crate) fn connect(&self) -> Connection {
        let connection = Connection::open(&self.address).unwrap();
        match Contract::of(&self.line) {
            None => connection,
            Some(contract) => contract.over(connection),
        }
    }
}

impl Contract {
    /// That of the service which a command line starts.
    fn of(line: &str) -> Option<Self> {
        match line.split_whitespace().next() {
            Some("host") => Some(Self::Host),
            Some("orchestrator") => Some(Self::Orchestrator),
            _ => None,
        }
    }

    /// A connection whose answers are held to it.
    pub(crate) fn over(self, connection: Connection) -> Connection {
        connection.seen_by(Box::new(move |method, target, status, body| self.hold(method, target, status, body)))
    }

    fn published(self) -> &'static Published {
        match self {
            Self::Host => &HOST,
            Self::Orchestrator => &ORCHESTRATOR,
        }
    }

    /// Fails where an answer is not of the contract.
    fn hold(self, method: &str, target: &str, status: u16, body: &Value) {
        let published = self.published();
        let what = format!("{method} {target} gave {status}");
        let path = target.split('?').next().unwrap();
        let paths = published.document["paths"].as_object().unwrap();
        let template = paths.keys().find(|template| fits(template, path));
        let operation = template.map(|template| (template, &paths[template][method.to_lowercase()]));
        let error = "/components/schemas/ErrorBody";
        match operation {
            // The listener says so before anybody looks at the path.
            None | Some((_, Value::Null)) if status == 431 => assert_eq!(body, "", "{what}"),
            None => {
                assert!(
                    matches!(status, 401 | 403 | 404 | 429) || OWN.contains(&status),
                    "{what}, and there is no such path"
                );
                published.hold(error, body, &what);
            }
            Some((_, Value::Null)) => {
                assert!(
                    matches!(status, 401 | 403 | 405 | 429) || OWN.contains(&status),
                    "{what}, and there is no such method"
                );
                published.hold(error, body, &what);
            }
            Some((template, operation)) => {
                let answer = &operation["responses"][status.to_string()];
                assert!(!answer.is_null(), "{what}, and has no such answer");
                let place = format!(
                    "/paths/{}/{}/responses/{status}/content/application~1json/schema",
                    template.replace('/', "~1"),
                    method.to_lowercase(),
                );
                let content = &answer["content"];
                if content.is_null() {
                    assert_eq!(body, "", "{what}");
                } else if content["application/json"].is_null() {
                    assert!(body.is_string(), "{what}: {body}");
                } else {
                    published.hold(&place, body, &what);
                }
            }
        }
    }
}

/// Whether a path is one of a template, as `/v1/leases/robot-7` is of `/v1/leases/{node_id}`.
fn fits(template: &str, path: &str) -> bool {
    let (wanted, found): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    wanted.len() == found.len()
        && wanted
            .iter()
            .zip(&found)
            .all(|(wanted, found)| wanted == found || wanted.starts_with('{') && !found.is_empty())
}

/// gate-core, with every document that goes in or comes out held to the schema.
struct Held;

struct HeldInstance(Box<dyn Instance>);

impl Engine for Held {
    fn instantiate(&self) -> Result<Box<dyn Instance>, WasmError> {
        Ok(Box::new(HeldInstance(Native.instantiate()?)))
    }
}

fn document(name: &str, bytes: &[u8]) {
    let value = serde_json::from_slice(bytes).unwrap();
    MODULE.hold(&format!("/$defs/{name}"), &value, name);
}

impl Instance for HeldInstance {
    fn abi_major(&mut self) -> Result<i32, WasmError> {
        self.0.abi_major()
    }

    fn call(&mut self, export: Export, input: &[u8]) -> Result<i32, WasmError> {
        let number = self.0.call(export, input)?;
        let (taken, said) = match export {
            Export::Configure => (Some("Configuration"), None),
            Export::SetEnrollment => (Some("Answer"), None),
            Export::LoadBundle => (None, Some("Bundle")),
            Export::Decide => (Some("Call"), Some("Decision")),
            Export::SetLease | Export::DecideBatch | Export::VerifySignature => (None, None),
        };
        if number < 0 {
            document("Error", self.0.output()?);
            return Ok(number);
        }
        if let Some(name) = taken {
            document(name, input);
        }
        if let Some(name) = said {
            document(name, self.0.output()?);
        }
        Ok(number)
    }

    fn call_at(&mut self, export: TimedExport, now_ms: f64) -> Result<i32, WasmError> {
        let number = self.0.call_at(export, now_ms)?;
        if export == TimedExport::Verdict && number >= 0 {
            self.0.call_at(TimedExport::Explain, now_ms)?;
            document("Explanation", self.0.output()?);
        }
        Ok(number)
    }

    fn output(&mut self) -> Result<&[u8], WasmError> {
        self.0.output()
    }
}

#[test]
fn every_document_of_the_corpora_is_as_the_published_schema_says() {
    run("native, held to the schema", &Held);
    let mut gate = gate_wasm::Instance::new();
    assert_eq!(gate.info(), 0);
    document("Info", gate.output());
}

#[test]
fn the_published_schema_refuses_what_the_module_refuses() {
    let call = json!({"now_ms": 1, "audit_id": "a", "tool": "t", "policy": "policy: allowed"});
    let changes: [fn(&mut Value); 6] = [
        |call| call["mode"] = json!("off"),
        |call| call["now_ms"] = json!("1"),
        |call| call["now_ms"] = json!(-1),
        |call| call["tool"] = json!(1),
        |call| drop(call.as_object_mut().unwrap().remove("audit_id")),
        |call| *call = json!([call.clone()]),
    ];
    MODULE.hold("/$defs/Call", &call, "Call");
    let validator = Arc::clone(&MODULE.validators.lock().unwrap()["/$defs/Call"]);
    for change in changes {
        let mut changed = call.clone();
        change(&mut changed);
        assert!(!validator.is_valid(&changed), "{changed}");
        assert!(gate_wasm::Instance::new().decide(changed.to_string().as_bytes()) < 0, "{changed}");
    }
}

#[test]
fn a_query_that_the_contract_does_not_have_is_refused_by_name_with_what_there_is() {
    let home = fleet();
    let line = "orchestrator serve --listen 127.0.0.1:0 --store fleet.sqlite --signing-key lease.pem";
    let (service, operator) = (Service::start(&home, line), authorization(&home, "operator.token"));
    let mut tried = 0;
    for (template, operations) in ORCHESTRATOR.document["paths"].as_object().unwrap() {
        let path = template.replace("{node_id}", "robot-7");
        let path = path.replace("{rollout_id}", "0196a3b2-7c1d-7e4f-8a9b-0c1d2e3f4a5b");
        for parameter in operations["get"]["parameters"].as_array().into_iter().flatten() {
            let (name, schema) = (parameter["name"].as_str().unwrap(), &parameter["schema"]);
            let words = schema["enum"].as_array().into_iter().flatten();
            let words: Vec<_> = words.map(|word| word.as_str().unwrap()).collect();
            let beyond = [("minimum", -1), ("maximum", 1)]
                .into_iter()
                .filter_map(|(bound, step)| Some((schema[bound].as_i64()? + step).to_string()));
            let wrong = words.iter().flat_map(|word| [word.to_uppercase(), format!("{word}x"), String::new()]);
            for value in wrong.chain(beyond) {
                let target = format!("{path}?{name}={value}");
                let (status, answer) = service.connect().exchange("GET", &target, &operator, "").unwrap();
                let error = answer["error"].as_str().unwrap_or_default();
                assert_eq!(status, 400, "{target}: {answer}");
                assert!(error.contains(name), "{target}: {error}");
                assert!(words.iter().all(|word| error.contains(&format!("`{word}`"))), "{target}: {error}");
                tried += 1;
            }
        }
    }
    assert!(tried >= 20, "{tried}");
}

#[test]
fn what_the_listener_itself_answers_is_of_the_contract_too() {
    let home = fleet();
    home.ok("host token");
    for line in [
        "host serve --listen 127.0.0.1:0",
        "orchestrator serve --listen 127.0.0.1:0 --store fleet.sqlite --signing-key lease.pem",
    ] {
        let service = Service::start(&home, line);
        let ask =
            |method: &str, path: &str, headers: &str| service.connect().exchange(method, path, headers, "").unwrap();
        let many: String = (0..200).map(|at| format!("x-{at}: 1\r\n")).collect();
        for path in ["/v1/enrollments/robot-7", "/healthz", "/v2/enrollments"] {
            assert_eq!(ask("GET", path, &many), (431, json!("")), "{line}");
        }
        assert_eq!(ask("GET", "/healthz", "").0, 200);
        // It starts as not ready.
        let begun = Instant::now();
        while ask("GET", "/readyz", "").0 != 200 {
            assert!(begun.elapsed() < Duration::from_secs(10), "{line}: {:?}", ask("GET", "/readyz", ""));
        }
        assert_eq!(ask("GET", "/metrics", "").0, 200);
        assert_eq!(ask("GET", "/v2/enrollments", "").0, 404);
        assert_eq!(ask("PATCH", "/v1/enrollments/robot-7", "").0, 405);
    }
}

/// A service in this process that is not patient, until it is dropped.
struct Impatient {
    address: String,
    /// Ends with it what runs there.
    _executor: tokio::runtime::Runtime,
}

impl Impatient {
    fn start<F: Future<Output = ()> + Send + 'static>(
        mut limits: Limits,
        serve: impl FnOnce(Listener, Limits) -> F + Send + 'static,
    ) -> Self {
        limits.max_connections = 2;
        limits.body_timeout = Duration::from_millis(300);
        limits.handler_timeout = Duration::from_millis(500);
        let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let listener = executor.block_on(Listener::tcp(([127, 0, 0, 1], 0).into())).unwrap();
        let address = listener.address().unwrap().to_string();
        executor.spawn(serve(listener, limits));
        Self { address, _executor: executor }
    }

    fn host(home: &Home, orchestrator: &str) -> Self {
        let client = OrchestratorClient::new(orchestrator, None, None, None).unwrap();
        let keys = key::read_trusted(&[home.path("lease.pem.pub")], 1).unwrap();
        let enrollments = Enrollments::Remote(LeaseLookup::new(client, keys, 0, home.path("leases")));
        let (wal, _) = Wal::open(home.path("wal"), wal::Options::default()).unwrap();
        let token = Token::read(&home.path("host.token")).unwrap();
        let metrics = Arc::new(Metrics::new("host", "0"));
        Self::start(host::limits(), move |listener, limits| async move {
            let host = Arc::new(Host::open(enrollments, Arc::new(wal), token, metrics).await.unwrap());
            host::run(listener, host, limits, pending()).await.unwrap();
        })
    }

    fn orchestrator(home: &Home) -> Self {
        let store = Arc::new(SqliteStore::open(home.path("fleet.sqlite")).unwrap());
        let access = Access::open(home.path("orchestrator.tokens"), 1000).unwrap();
        let key = PrivateKey::read(&home.path("lease.pem")).unwrap();
        let metrics = Arc::new(Metrics::new("orchestrator", "0"));
        let orchestrator = Arc::new(Orchestrator::new(store, key, 60_000, access, metrics));
        Self::start(orchestrator::limits(), move |listener, limits| async move {
            orchestrator::run(listener, orchestrator, limits, pending()).await;
        })
    }
}

#[test]
fn each_answer_of_the_listener_itself_is_given_and_is_of_every_operation() {
    let home = fleet();
    home.ok("host token");
    // It takes connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = Impatient::host(&home, &format!("http://{}", silent.local_addr().unwrap()));
    let orchestrator = Impatient::orchestrator(&home);
    for (contract, service, token, path) in [
        (Contract::Host, host, "host.token", "/v1/enrollments/robot-7"),
        // It waits so long for a change.
        (Contract::Orchestrator, orchestrator, "operator.token", "/v1/changes?after=0&wait_ms=9000"),
    ] {
        let token = authorization(&home, token);
        let connect = || contract.over(Connection::open(&service.address).unwrap());
        let large = format!("{token}content-length: 1000000000\r\n");
        let many: String = (0..200).map(|at| format!("x-{at}: 1\r\n")).collect();
        for (status, headers) in [
            (400, token.clone()),
            (408, format!("host: a\r\n{token}content-length: 9\r\n")),
            (413, format!("host: a\r\n{large}")),
            (431, format!("host: a\r\n{many}")),
            (501, format!("host: a\r\n{token}transfer-encoding: gzip, chunked\r\n")),
            (504, format!("host: a\r\n{token}")),
        ] {
            let request = format!("GET {path} HTTP/1.1\r\n{headers}\r\n");
            let answered = || connect().exchange_raw("GET", path, &request).unwrap().0;
            // The connections of the answers before may not have ended.
            let answered = (0..100).map(|_| answered()).find(|answered| *answered != 503);
            assert_eq!(answered, Some(status), "{contract:?}");
        }
        let (_first, _second) = (connect(), connect());
        assert_eq!(connect().exchange_raw("GET", path, "").unwrap().0, 503, "{contract:?}");

        for (path, methods) in contract.published().document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                for status in OWN {
                    let answer = &operation["responses"][status.to_string()];
                    assert!(!answer.is_null(), "{contract:?}: {method} {path} has no {status}");
                }
            }
        }
    }
}
