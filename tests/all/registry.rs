//! Bundles in registries: Debian's `docker-registry` with `skopeo` beside it, and one that does everything wrong.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    service::PATIENCE,
    support::{Home, autonomy, built_by_go, free_address, succeeded},
};

const BUNDLE: &str = "application/vnd.autonomy.bundle.v1+tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
/// `ops` with the password `secret`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "ops:$2b$05$u2yGeToqGmFx31lCv3yFpeABDx96zMcfcikt3KTW/n2WJcXYRhzpi\n";

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn auth_file(registry: &str, pair: &str) -> String {
    json!({"auths": {registry: {"auth": STANDARD.encode(pair)}}}).to_string()
}

/// A real registry with its data in the home, for as long as this lives.
pub(crate) struct Registry {
    child: Child,
    pub(crate) address: String,
}

impl Registry {
    pub(crate) fn start(home: &Home, address: String, settings: Value) -> Self {
        let mut config = json!({
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": home.path("registry")}},
            "http": {"addr": address},
        });
        for (name, value) in settings.as_object().unwrap() {
            match config[name].as_object_mut() {
                Some(part) => part.extend(value.as_object().unwrap().clone()),
                None => config[name] = value.clone(),
            }
        }
        // JSON is YAML.
        fs::write(home.path("registry.yml"), config.to_string()).unwrap();
        let log = fs::File::create(home.path("registry.log")).unwrap();
        let mut command = home.program("docker-registry");
        command.args(["serve", "registry.yml"]).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().expect("`docker-registry`: `cargo xtask test` installs it");
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(&address).is_err() {
            let log = || fs::read_to_string(home.path("registry.log")).unwrap();
            assert!(child.try_wait().unwrap().is_none() && Instant::now() < end, "it does not start: {}", log());
            thread::sleep(Duration::from_millis(20));
        }
        Self { child, address }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The one line of a run that fails with this code.
#[track_caller]
fn failed(code: i32, output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    let message = stderr.strip_prefix("error: ").unwrap_or_else(|| panic!("{stderr}"));
    assert_eq!(message.lines().count(), 1, "{message}");
    message.trim_end().to_owned()
}

/// Whether a text is the pattern, in which `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, rest)) => text
            .strip_prefix(before)
            .is_some_and(|text| (0..=text.len()).any(|at| text.is_char_boundary(at) && fits(rest, &text[at..]))),
    }
}

#[test]
fn oras_takes_what_was_pushed_and_pushes_what_can_be_pulled() {
    let Some(program) = built_by_go("oras/oras") else { return };
    let home = Home::ready();
    let registry = Registry::start(&home, free_address(), json!({}));
    let (at, bundle) = (format!("{}/fleet/policies", registry.address), fs::read(home.path("bundle.tar")).unwrap());
    let pushed = home.ok(&format!("bundle push bundle.tar {at}:1.0.0 --allow-insecure-registry --output json"));
    let pushed: Value = serde_json::from_str(&pushed).unwrap();
    let oras = |words: &str| succeeded(words, home.program(&program).args(words.split(' ')).output().unwrap());
    let pull = |reference: &str, out: &str| {
        home.ok(&format!("bundle pull {reference} {out} --allow-insecure-registry"));
        assert_eq!(fs::read(home.path(out)).unwrap(), bundle, "{reference}");
    };
    oras(&format!("pull --plain-http --output theirs {at}:1.0.0"));
    assert_eq!(fs::read(home.path("theirs/bundle.tar")).unwrap(), bundle);
    oras(&format!("copy --from-plain-http {at}:1.0.0 --to-oci-layout layout:1.0.0"));
    pull("oci:layout:1.0.0", "from-layout.tar");
    oras(&format!("copy --from-oci-layout layout:1.0.0 --to-plain-http {at}:copied"));
    let raw = oras(&format!("manifest fetch --plain-http {at}:copied"));
    assert_eq!(digest(raw.as_bytes()), pushed["manifest_digest"].as_str().unwrap());
    // One that it makes itself.
    oras(&format!("push --plain-http --artifact-type {BUNDLE} {at}:pushed bundle.tar:{BUNDLE}"));
    pull(&format!("{at}:pushed"), "pushed.tar");
}

#[test]
fn a_bundle_goes_to_a_registry_and_comes_back_with_the_tools_of_others_too() {
    let home = Home::ready();
    let registry = Registry::start(&home, free_address(), json!({}));
    let (at, bundle) = (format!("{}/fleet/policies", registry.address), fs::read(home.path("bundle.tar")).unwrap());
    let pushed = home.ok(&format!("bundle push bundle.tar {at}:1.0.0 --allow-insecure-registry --output json"));
    let pushed: Value = serde_json::from_str(&pushed).unwrap();
    let manifest = pushed["manifest_digest"].as_str().unwrap();
    assert_eq!(pushed["layer_digest"], digest(&bundle));
    assert_eq!(
        home.ok(&format!("bundle push bundle.tar {at}:1.0.0 --allow-insecure-registry")),
        format!(
            "pushed {at}:1.0.0\n  manifest: {manifest}\n  layer:    {} ({} bytes)\n",
            digest(&bundle),
            bundle.len()
        )
    );

    let pull = |reference: &str, out: &str| {
        let pulled = home.ok(&format!("bundle pull {reference} {out} --allow-insecure-registry"));
        assert!(pulled.starts_with(&format!("verified {out}: 1 of 1 needed trusted keys signed\n")), "{pulled}");
        assert_eq!(fs::read(home.path(out)).unwrap(), bundle, "{reference}");
    };
    pull(&format!("{at}:1.0.0"), "by-tag.tar");
    pull(&format!("{at}@{manifest}"), "by-digest.tar");
    let taken = home.run(&format!("bundle pull {at}:1.0.0 by-tag.tar --allow-insecure-registry"));
    assert!(failed(2, &taken).starts_with("`by-tag.tar` exists: "));

    // There and back with skopeo, by way of layouts: the same manifest, byte for byte.
    let skopeo = |words: &str| succeeded(words, home.program("skopeo").args(words.split(' ')).output().unwrap());
    let raw = skopeo(&format!("inspect --raw --tls-verify=false docker://{at}:1.0.0"));
    assert_eq!(digest(raw.as_bytes()), manifest);
    skopeo(&format!("copy --quiet --src-tls-verify=false docker://{at}:1.0.0 oci:theirs:1.0.0"));
    pull("oci:theirs:1.0.0", "from-their-layout.tar");
    home.ok("bundle push bundle.tar oci:ours:1.0.0");
    skopeo(&format!("copy --quiet --dest-tls-verify=false oci:ours:1.0.0 docker://{at}:by-skopeo"));
    pull(&format!("{at}:by-skopeo"), "by-skopeo.tar");
    let raw = skopeo(&format!("inspect --raw --tls-verify=false docker://{at}:by-skopeo"));
    assert_eq!(digest(raw.as_bytes()), manifest);

    let missing = home.run(&format!("bundle pull {at}:2.0.0 no.tar --allow-insecure-registry"));
    assert_eq!(
        failed(2, &missing),
        format!(
            "registry `{}`, repository `fleet/policies`: there is no tag `2.0.0` (404, MANIFEST_UNKNOWN: manifest \
             unknown): correct the reference, or push the bundle first",
            registry.address
        )
    );
    let to_digest = home.run(&format!("bundle push bundle.tar {at}@{manifest} --allow-insecure-registry"));
    assert_eq!(failed(2, &to_digest), format!("cannot push to the digest `{manifest}`: push to a tag"));
    let in_clear = home.run(&format!("bundle pull {at}:1.0.0 no.tar"));
    assert!(failed(3, &in_clear).contains("tls handshake: "), "{in_clear:?}");
    let address = registry.address.clone();
    drop(registry);
    let gone = home.run(&format!("bundle pull {at}:1.0.0 no.tar --allow-insecure-registry"));
    let nobody = "*: cannot connect to `*`: Connection refused*: check the registry's name and port, and the network";
    assert!(fits(nobody, &failed(3, &gone)), "{address}: {gone:?}");
    assert!(!home.path("no.tar").exists());
}

#[test]
fn a_long_transfer_shows_on_a_terminal_how_far_it_has_come() {
    let home = Home::ready();
    let noise: Vec<u8> = (0..2_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(home.path("src/noise.bin"), noise).unwrap();
    home.ok(
        "bundle build --source src --name fleet/policies --version 1.1.0 --key keys/bundle.pem --out large.tar --force",
    );
    let registry = Registry::start(&home, free_address(), json!({}));
    let at = format!("{}/fleet/policies:1.1.0", registry.address);
    for line in [format!("bundle push large.tar {at}"), format!("bundle pull {at} pulled.tar")] {
        let line = format!("autonomy {line} --allow-insecure-registry");
        let watched = home.program("script").args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").output().unwrap();
        let watched = succeeded(&line, watched);
        assert!(watched.contains("/7.63 MiB, "), "{watched:?}");
    }
    assert_eq!(fs::read(home.path("pulled.tar")).unwrap(), fs::read(home.path("large.tar")).unwrap());
}

/// A certificate of 127.0.0.1 and localhost, `cert.pem` with `cert.key`, by the authority in `ca.pem`.
fn certificate(home: &Home) {
    let script = "
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 3650 -subj /CN=authority
        openssl req -newkey rsa:2048 -nodes -keyout cert.key -out cert.csr -subj /CN=localhost
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > san
        openssl x509 -req -in cert.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile san -days 3650 -out cert.pem";
    succeeded("openssl", home.program("bash").args(["-ec", script]).output().unwrap());
}

#[test]
fn a_registry_with_tls_and_a_password_is_used_as_the_runbook_has_it() {
    let home = Home::ready();
    certificate(&home);
    fs::write(home.path("htpasswd"), HTPASSWD).unwrap();
    let settings = json!({
        "http": {"tls": {"certificate": home.path("cert.pem"), "key": home.path("cert.key")}},
        "auth": {"htpasswd": {"realm": "test", "path": home.path("htpasswd")}},
    });
    let registry = Registry::start(&home, free_address(), settings);
    let at = format!("{}/fleet/policies:1.0.0", registry.address);
    let fault = |code, line: &str| {
        let message = failed(code, &home.run(line));
        let prefix = format!("registry `{}`, repository `fleet/policies`: ", registry.address);
        message.strip_prefix(&prefix).unwrap_or_else(|| panic!("{message}")).to_owned()
    };
    let push = format!("bundle push bundle.tar {at}");
    let stranger = "tls handshake: invalid peer certificate: *: name its authority with `--registry-ca`, or \
                    allow plain http on this machine with `--allow-insecure-registry`";
    let other = Home::new();
    certificate(&other);
    let unknown = fault(3, &format!("{push} --registry-ca {}", other.path("ca.pem").display()));
    assert!(fits(stranger, &unknown), "{unknown}");
    let wanted = "it wants credentials (401): log in with `skopeo login`, or name an auth file with `--auth-file`; \
                  credential helpers are not asked";
    assert_eq!(fault(2, &format!("{push} --registry-ca ca.pem")), wanted);
    fs::write(home.path("wrong.json"), auth_file(&registry.address, "ops:wrong")).unwrap();
    assert_eq!(
        fault(2, &format!("{push} --registry-ca ca.pem --auth-file wrong.json")),
        "it refuses the credentials of `wrong.json` (401): log in again with `skopeo login`"
    );
    // As skopeo writes it.
    fs::create_dir(home.path("certificates")).unwrap();
    fs::copy(home.path("ca.pem"), home.path("certificates/ca.crt")).unwrap();
    let login = format!("login --authfile auth.json --cert-dir certificates -u ops -p secret {}", registry.address);
    succeeded("skopeo", home.program("skopeo").args(login.split(' ')).output().unwrap());
    home.ok(&format!("{push} --registry-ca ca.pem --auth-file auth.json"));
    let variable = home
        .program(autonomy())
        .args(push.split(' '))
        .args(["--registry-ca", "ca.pem"])
        .env("REGISTRY_AUTH_FILE", home.path("auth.json"))
        .output();
    succeeded("REGISTRY_AUTH_FILE", variable.unwrap());
    let kept_elsewhere = fault(2, &format!("{push} --registry-ca ca.pem"));
    assert_eq!(kept_elsewhere, wanted);

    // On a machine that trusts the authority, for somebody who has logged in: no flag at all.
    fs::create_dir(home.path(".docker")).unwrap();
    fs::copy(home.path("auth.json"), home.path(".docker/config.json")).unwrap();
    let pull = format!("bundle pull {at} {}", home.path("pulled.tar").display());
    let pulled = home.program(autonomy()).args(pull.split(' ')).env("SSL_CERT_FILE", home.path("ca.pem")).output();
    succeeded(&pull, pulled.unwrap());
    assert_eq!(fs::read(home.path("pulled.tar")).unwrap(), fs::read(home.path("bundle.tar")).unwrap());
}

/// What a client asked.
#[derive(Debug, Clone)]
struct Asked {
    /// Method and path, with a space between.
    line: String,
    authorization: Option<String>,
}

/// A server of the test on loopback; what it answers is the test's to say, and to be cut off in the middle of.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    fn start(
        host: &str,
        answer: impl Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), Arc::clone(&asked));
        // Both end with the process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream?);
                    let (mut head, mut length) = (Asked { line: String::new(), authorization: None }, 0);
                    reader.read_line(&mut head.line)?;
                    head.line = head.line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
                    loop {
                        let mut line = String::new();
                        reader.read_line(&mut line)?;
                        match line.trim_end().split_once(": ") {
                            Some(("authorization", value)) => head.authorization = Some(value.to_owned()),
                            Some(("content-length", value)) => length = value.parse().unwrap(),
                            Some(_) => {}
                            None => break,
                        }
                    }
                    reader.read_exact(&mut vec![0; length])?;
                    log.lock().unwrap().push(head.clone());
                    answer(&head, reader.get_mut())
                });
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// An answer with this status, these header lines and this body.
fn say(stream: &mut TcpStream, status: u16, headers: &str, body: &[u8]) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status} x\r\n{headers}content-length: {}\r\n\r\n", body.len())?;
    stream.write_all(body)
}

#[test]
fn a_token_is_had_from_the_service_that_is_named_and_from_no_other() {
    let home = Home::ready();
    certificate(&home);
    let address = free_address();
    let (ca, audience) = (fs::read_to_string(home.path("ca.pem")).unwrap(), address.clone());
    let key = home.path("ca.key");
    let service = Server::start("127.0.0.1", move |asked, stream| {
        let basic = format!("Basic {}", STANDARD.encode("ops:secret"));
        let push = "GET /token?service=registry%20of%20the%20test&scope=repository:fleet/policies:pull,push";
        let actions = match asked.authorization.as_deref() {
            Some(authorization) if authorization == basic && asked.line == push => json!(["pull", "push"]),
            // Whoever they are may read.
            None => json!(["pull"]),
            Some(_) => return say(stream, 401, "", b""),
        };
        // The certificate in the header is the one that the registry trusts.
        let der: String = ca.lines().filter(|line| !line.starts_with('-')).collect();
        let head = json!({"typ": "JWT", "alg": "RS256", "x5c": [der]});
        let claims = json!({
            "iss": "test", "sub": "ops", "aud": "registry of the test", "nbf": 0, "iat": 0, "exp": 4_102_444_800_u64, "jti": audience,
            "access": [{"type": "repository", "name": "fleet/policies", "actions": actions}],
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&head), part(&claims));
        let mut openssl = Command::new("openssl");
        openssl.args(["dgst", "-sha256", "-sign"]).arg(&key).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut openssl = openssl.spawn().unwrap();
        openssl.stdin.take().unwrap().write_all(signed.as_bytes()).unwrap();
        let signature = URL_SAFE_NO_PAD.encode(openssl.wait_with_output().unwrap().stdout);
        say(stream, 200, "", json!({"token": format!("{signed}.{signature}")}).to_string().as_bytes())
    });
    let token = json!({
        "realm": format!("http://{}/token", service.address), "service": "registry of the test", "issuer": "test",
        "rootcertbundle": home.path("ca.pem"),
    });
    let registry = Registry::start(&home, address, json!({"auth": {"token": token}}));
    fs::write(home.path("auth.json"), auth_file(&format!("{}/fleet", registry.address), "ops:secret")).unwrap();
    let at = format!("{}/fleet/policies:1.0.0 --allow-insecure-registry", registry.address);

    let elsewhere = home.run(&format!("bundle push bundle.tar {at} --auth-file auth.json"));
    assert_eq!(
        failed(2, &elsewhere),
        format!(
            "registry `{}`, repository `fleet/policies`: it sends for a token to `{1}`, which is not the registry: if that \
             may have your credentials, say so with `--token-host {1}`",
            registry.address, service.address
        )
    );
    assert_eq!(service.asked().len(), 0, "it was not asked");
    let named = format!("{at} --token-host {}", service.address);
    let anonymous = failed(2, &home.run(&format!("bundle push bundle.tar {named}")));
    assert!(anonymous.contains(": it wants credentials (401, UNAUTHORIZED: "), "{anonymous}");
    home.ok(&format!("bundle push bundle.tar {named} --auth-file auth.json"));
    let names =
        format!("bundle pull {} pulled.tar {}", at.split_once(' ').unwrap().0, named.split_once(' ').unwrap().1);
    home.ok(&names);
    assert_eq!(fs::read(home.path("pulled.tar")).unwrap(), fs::read(home.path("bundle.tar")).unwrap());
    fs::write(home.path("auth.json"), auth_file(&registry.address, "ops:wrong")).unwrap();
    let refused = failed(2, &home.run(&format!("bundle push bundle.tar {named} --auth-file auth.json")));
    assert!(
        refused.ends_with("it refuses the credentials of `auth.json` (401): log in again with `skopeo login`"),
        "{refused}"
    );
}

/// What a registry has that does nothing wrong.
struct Shelf {
    bundle: Vec<u8>,
    manifest: Value,
}

impl Shelf {
    fn of(home: &Home) -> Self {
        let bundle = fs::read(home.path("bundle.tar")).unwrap();
        let layer = json!({"mediaType": BUNDLE, "digest": digest(&bundle), "size": bundle.len()});
        let config = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY, "size": 2});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE, "config": config, "layers": [layer],
        });
        Self { bundle, manifest }
    }

    fn serve(&self, asked: &Asked, stream: &mut TcpStream) -> std::io::Result<()> {
        if asked.is_for_a_blob() {
            return say(stream, 200, "", &self.bundle);
        }
        say(stream, 200, &format!("content-type: {MANIFEST}\r\n"), self.manifest.to_string().as_bytes())
    }
}

impl Asked {
    fn is_for_a_blob(&self) -> bool {
        self.line.contains("/blobs/")
    }
}

/// What is answered in the place of what is on the shelf.
type Evil = Box<dyn Fn(&Shelf, &Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync>;

fn blob(answer: impl Fn(&[u8], &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Evil {
    Box::new(move |shelf, asked, stream| match asked.is_for_a_blob() {
        true => answer(&shelf.bundle, stream),
        false => shelf.serve(asked, stream),
    })
}

fn manifest(change: fn(&mut Value)) -> Evil {
    Box::new(move |shelf, asked, stream| {
        let mut manifest = shelf.manifest.clone();
        change(&mut manifest);
        Shelf { bundle: shelf.bundle.clone(), manifest }.serve(asked, stream)
    })
}

fn always(status: u16, headers: &'static str, body: impl Into<Vec<u8>>) -> Evil {
    let body = body.into();
    Box::new(move |_, _, stream| say(stream, status, headers, &body))
}

/// Bytes for as long as somebody takes them.
fn endless(stream: &mut TcpStream, head: &str) -> std::io::Result<()> {
    write!(stream, "{head}transfer-encoding: chunked\r\n\r\n")?;
    let part = vec![b' '; 0x1_0000];
    loop {
        stream.write_all(b"10000\r\n")?;
        stream.write_all(&part)?;
        stream.write_all(b"\r\n")?;
    }
}

/// A byte now and then.
fn slowly(stream: &mut TcpStream, head: &str) -> std::io::Result<()> {
    stream.write_all(head.as_bytes())?;
    loop {
        stream.write_all(b"x")?;
        thread::sleep(Duration::from_millis(50));
    }
}

/// A pull from a registry at this address. Where it fails, nothing is where the bundle would be, nor beside it.
fn pull(home: &Home, address: &str, which: &str, flags: &str) -> Output {
    let out = home.path("out");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir(&out).unwrap();
    let output = home.run(&format!("bundle pull {address}/p{which} out/bundle.tar --allow-insecure-registry {flags}"));
    let left: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let wanted: &[&str] = if output.status.success() { &["bundle.tar"] } else { &[] };
    assert_eq!(left, wanted, "{output:?}");
    output
}

#[test]
fn whatever_a_registry_does_wrong_is_named_and_leaves_nothing_behind() {
    const AGAIN: &str = "push the bundle again, or pull another";
    let home = Home::ready();
    let refused = |what: &str, why: &str| format!("its {what} is refused ({why}): {AGAIN}");
    let (m, b) = (|why: &str| refused("manifest", why), |why: &str| refused("bundle", why));
    let head = "HTTP/1.1 200 OK\r\n";
    let cases: Vec<(&str, Evil, String)> = vec![
        // The bytes of the bundle.
        ("wrong digest", blob(|good, s| say(s, 200, "", &[b"x", &good[1..]].concat())), b("its digest is `sha256:*`, not `sha256:*`")),
        ("too long, and says so", blob(|good, s| say(s, 200, "", &[good, b"x"].concat())), b("it has more bytes, not 4608")),
        ("too short", blob(|good, s| say(s, 200, "", &good[1..])), b("it has 4607 bytes, not 4608")),
        ("endless", blob(|_, s| endless(s, "HTTP/1.1 200 OK\r\n")), b("it has more bytes, not 4608")),
        ("slow body", blob(|_, s| slowly(s, "HTTP/1.1 200 OK\r\n\r\n")), "not done within 2s: run the same line again, or allow more with `--timeout`".into()),
        ("cut off", blob(|good, s| {
            write!(s, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", good.len())?;
            s.write_all(&good[..100])
        }), "the answer broke off (*): run the same line again".into()),
        ("gzip", blob(|good, s| say(s, 200, "content-encoding: gzip\r\n", good)), "its answer is refused (it comes with content-encoding `gzip`): push the bundle again, or pull another".into()),
        ("no blob", blob(|_, s| say(s, 404, "", b"")), "there is no blob of the bundle, which its manifest names (404): correct the reference, or push the bundle first".into()),
        // The manifest.
        ("endless manifest", Box::new(move |_, _, s| endless(s, &format!("{head}content-type: {MANIFEST}\r\n"))), m("it has more than 4194304 bytes")),
        ("large manifest", Box::new(move |_, _, s| write!(s, "{head}content-type: {MANIFEST}\r\ncontent-length: 4194305\r\n\r\n")), m("it has more than 4194304 bytes")),
        ("slow head", Box::new(move |_, _, s| slowly(s, "HTTP/1.1 200 OK\r\nx: ")), "not done within 2s: *".into()),
        ("index", always(200, "content-type: application/vnd.oci.image.index.v1+json; a=b\r\n", "{}"), m("it is an index of other manifests: name one of them by its digest")),
        ("index as manifest", Box::new(move |_, _, s| {
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"mediaType": INDEX, "digest": EMPTY, "size": 2}]});
            say(s, 200, &format!("content-type: {MANIFEST}\r\n"), index.to_string().as_bytes())
        }), m("missing field `config`*")),
        ("content-type", always(200, "content-type: text/html\r\n", "<html>"), m("content-type is `text/html`, not `application/vnd.oci.image.manifest.v1+json`")),
        ("no content-type", always(200, "", "{}"), m("content-type is ``, not `application/vnd.oci.image.manifest.v1+json`")),
        ("other digest", Box::new(|shelf, _, s| {
            let headers = format!("content-type: {MANIFEST}\r\ndocker-content-digest: {EMPTY}\r\n");
            say(s, 200, &headers, shelf.manifest.to_string().as_bytes())
        }), m("its digest is `sha256:*`, and it comes as \"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\"")),
        ("no json", Box::new(|_, _, s| say(s, 200, &format!("content-type: {MANIFEST}\r\n"), b"nonsense")), m("expected ident at line 1 column 2")),
        ("deep json", Box::new(|_, _, s| say(s, 200, &format!("content-type: {MANIFEST}\r\n"), format!("{{\"a\":{}", "[".repeat(1_000_000)).as_bytes())), m("EOF while parsing*")),
        ("media type", manifest(|m| m["mediaType"] = INDEX.into()), m("mediaType is `application/vnd.oci.image.index.v1+json`, not `application/vnd.oci.image.manifest.v1+json`")),
        ("artifact type", manifest(|m| m["artifactType"] = "application/x".into()), m("artifactType is `application/x`, not `application/vnd.autonomy.bundle.v1+tar`")),
        ("no artifact type", manifest(|m| m["artifactType"] = Value::Null), m("artifactType is ``, not `application/vnd.autonomy.bundle.v1+tar`")),
        ("config", manifest(|m| m["config"]["digest"] = m["layers"][0]["digest"].clone()), m("config is not the empty descriptor")),
        ("no layer", manifest(|m| m["layers"] = json!([])), m("it has 0 layers, not 1")),
        ("two layers", manifest(|m| m["layers"] = json!([m["layers"][0], m["layers"][0]])), m("it has 2 layers, not 1")),
        ("layer type", manifest(|m| m["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip".into()), m("layers[0].mediaType is `application/vnd.oci.image.layer.v1.tar+gzip`, not `application/vnd.autonomy.bundle.v1+tar`")),
        ("layer path", manifest(|m| m["layers"][0]["digest"] = "sha256:../../../v2/q/manifests/1".into()), m("`sha256:../../../v2/q/manifests/1` is not a digest*")),
        ("huge layer", manifest(|m| m["layers"][0]["size"] = 67_108_865.into()), m("its layer has 67108865 bytes, and 67108864 are allowed")),
        // Other answers.
        ("redirect loop", always(302, "location: /v2/p/manifests/again\r\n", ""), "it redirects more than 5 times: ask who operates it".into()),
        ("redirect nowhere", always(307, "", ""), "it does not answer as a registry does (a redirect that leads nowhere): check that it is one".into()),
        ("redirect to a file", always(307, "location: file:///etc/passwd\r\n", ""), "it does not answer as a registry does (a redirect that leads nowhere): check that it is one".into()),
        ("redirect in clear", always(307, "location: http://registry.example/blob\r\n", ""), "it sends on to `http://registry.example`, over plain http: ask who operates it".into()),
        ("token in clear", always(401, "www-authenticate: Bearer realm=\"http://registry.example/token\"\r\n", ""), "it sends on to `http://registry.example`, over plain http: ask who operates it".into()),
        ("challenge", always(401, "www-authenticate: Negotiate\r\n", ""), "it does not answer as a registry does (401 without a challenge that is `Basic` or `Bearer`): check that it is one".into()),
        ("password", always(401, "www-authenticate: Basic realm=\"x\"\r\n", ""), "it wants credentials (401): log in with `skopeo login`, or name an auth file with `--auth-file`; credential helpers are not asked".into()),
        ("forbidden", always(403, "", r#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#), "this is forbidden (403, DENIED: not yours): ask its owner for the right, or log in as somebody else".into()),
        ("endless refusal", Box::new(|_, _, s| endless(s, "HTTP/1.1 403 x\r\n")), "this is forbidden (403): *".into()),
        ("hostile words", always(404, "", format!("{{\"errors\":[{{\"code\":\"\\u001b[2J\\n\",\"message\":\"{}\"}}]}}", "x".repeat(9999))), format!("there is no tag `1` (404, \\u{{1b}}[2J\\n: {}): *", "x".repeat(193))),
        ("too many", always(429, "retry-after: 60\r\n", ""), "it has had too many requests (429, retry-after 60): wait, then run the same line again".into()),
        ("failed", always(503, "", "down"), "it failed (503): run the same line again later, or ask who operates it".into()),
        ("strange", always(418, "", ""), "it answers 418 where a registry does not: check that it is one, and that it takes OCI artifacts".into()),
        ("no answer", Box::new(|_, _, _| Ok(())), "the answer broke off (no answer: *): run the same line again".into()),
        ("no http", Box::new(|_, _, s| s.write_all(b"SSH-2.0-OpenSSH_9.2\r\n")), "the answer broke off (no answer: *): run the same line again".into()),
    ];
    let count = cases.len();
    for (name, evil, wanted) in cases {
        let shelf = Shelf::of(&home);
        let server = Server::start("127.0.0.1", move |asked, stream| evil(&shelf, asked, stream));
        let flags = if name.starts_with("slow") { "--timeout 2s" } else { "" };
        let output = pull(&home, &server.address, ":1", flags);
        let code = if ["password", "forbidden", "endless refusal", "hostile words", "no blob"].contains(&name) {
            2
        } else {
            3
        };
        let message = failed(code, &output);
        let wanted = format!("registry `{}`, repository `p`: {wanted}", server.address);
        assert!(fits(&wanted, &message), "{name}:\n{message}\nshould be\n{wanted}");
    }
    println!("{count} ways to do it wrong");

    // And with nothing wrong but who signed it, or which was asked for.
    let shelf = Shelf::of(&home);
    let right = digest(shelf.manifest.to_string().as_bytes());
    let good = Server::start("127.0.0.1", move |asked, stream| shelf.serve(asked, stream));
    assert!(pull(&home, &good.address, ":1", "").status.success());
    assert!(pull(&home, &good.address, &format!("@{right}"), "").status.success());
    let another = failed(3, &pull(&home, &good.address, &format!("@{EMPTY}"), ""));
    assert!(fits(&format!("*: {}", m(&format!("its digest is `{right}`, not `{EMPTY}`"))), &another), "{another}");
    home.ok("key generate --out stranger.pem");
    let unsigned = failed(2, &pull(&home, &good.address, ":1", "--trusted-key stranger.pem.pub"));
    assert!(unsigned.contains("/p:1` is refused: 0 of 1 needed trusted keys have signed"), "{unsigned}");

    // Five redirects are followed, and not six.
    for hops in [5, 6] {
        let shelf = Shelf::of(&home);
        let chain = Server::start("127.0.0.1", move |asked, stream| {
            let path = asked.line.split(' ').nth(1).unwrap();
            let hop = path.strip_prefix("/hop-").and_then(|rest| rest.split_once('/'));
            let (hop, rest) = hop.map_or((0, &path[1..]), |(hop, rest)| (hop.parse().unwrap(), rest));
            match hop == hops {
                true => shelf.serve(asked, stream),
                false => say(stream, 307, &format!("location: /hop-{}/{rest}\r\n", hop + 1), b""),
            }
        });
        let output = pull(&home, &chain.address, ":1", "");
        assert_eq!(output.status.success(), hops == 5, "{output:?}");
        assert!(hops == 5 || failed(3, &output).contains("it redirects more than 5 times"), "{output:?}");
    }
}

#[test]
fn a_push_goes_to_the_registry_or_says_why_not() {
    let home = Home::ready();
    let elsewhere = Server::start("127.0.0.2", |_, stream| say(stream, 201, "", b""));
    let other = elsewhere.address.clone();
    let uploads = |location: &str| format!("location: {location}\r\n");
    // What the registry answers to the start of an upload, to its end, and to the manifest.
    let cases: Vec<(u16, String, u16, u16, String, String)> = vec![
        (202, uploads("/v2/p/blobs/uploads/1?state=a"), 201, 201, String::new(), String::new()),
        (
            202,
            uploads(&format!("http://{other}/v2/p/blobs/uploads/1")),
            201,
            201,
            String::new(),
            format!("it sends an upload to `{other}`, which is not the registry: ask who operates it"),
        ),
        (
            307,
            uploads(&format!("http://{other}/v2/p/blobs/uploads/")),
            201,
            201,
            String::new(),
            "it answers 307 where a registry does not: check that it is one, and that it takes OCI artifacts".into(),
        ),
        (
            202,
            String::new(),
            201,
            201,
            String::new(),
            "it does not answer as a registry does (an upload without a place for it): check that it is one".into(),
        ),
        (
            202,
            uploads("/u"),
            413,
            201,
            String::new(),
            "it answers 413 where a registry does not: check that it is one, and that it takes OCI artifacts".into(),
        ),
        (
            202,
            uploads("/u"),
            201,
            404,
            String::new(),
            "there is no such repository (404): correct the reference, or push the bundle first".into(),
        ),
        (
            202,
            uploads("/u"),
            201,
            201,
            format!("docker-content-digest: {EMPTY}\r\n"),
            format!("it says that it has stored `{EMPTY}`, which was not pushed: push again"),
        ),
    ];
    for (started, location, ended, stored, headers, wanted) in cases {
        let registry = Server::start("127.0.0.1", move |asked, stream| match asked.line.split_once(' ').unwrap() {
            ("HEAD", _) => stream.write_all(b"HTTP/1.1 404 x\r\n\r\n"),
            ("POST", _) => say(stream, started, &location, b""),
            ("PUT", path) if path.contains("/manifests/") => say(stream, stored, &headers, b""),
            ("PUT", path) => {
                let is_whole = path.contains("digest=sha256:") && (path.contains("/u?") || path.contains("?state=a&"));
                say(stream, if is_whole { ended } else { 400 }, "", b"")
            }
            (_, _) => say(stream, 500, "", b""),
        });
        let output = home.run(&format!("bundle push bundle.tar {}/p:1 --allow-insecure-registry", registry.address));
        if wanted.is_empty() {
            succeeded("push", output);
            continue;
        }
        let code = if stored == 404 { 2 } else { 3 };
        assert_eq!(failed(code, &output), format!("registry `{}`, repository `p`: {wanted}", registry.address));
    }
    assert_eq!(elsewhere.asked().len(), 0);
}

#[test]
fn a_pull_that_is_killed_leaves_nothing_behind() {
    let home = Home::ready();
    let shelf = Shelf::of(&home);
    let server = Server::start("127.0.0.1", move |asked, stream| match asked.is_for_a_blob() {
        true => slowly(stream, "HTTP/1.1 200 OK\r\n\r\n"),
        false => shelf.serve(asked, stream),
    });
    fs::create_dir(home.path("out")).unwrap();
    let line = format!("bundle pull {}/p:1 out/bundle.tar --allow-insecure-registry", server.address);
    let mut pull = home.program(autonomy()).args(line.split(' ')).stderr(Stdio::null()).spawn().unwrap();
    let end = Instant::now() + PATIENCE;
    while server.asked().len() < 2 {
        assert!(Instant::now() < end && pull.try_wait().unwrap().is_none());
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(200));
    pull.kill().unwrap();
    pull.wait().unwrap();
    assert_eq!(fs::read_dir(home.path("out")).unwrap().count(), 0);
}

#[test]
fn credentials_are_the_registrys_alone() {
    let home = Home::ready();
    let (shelf, stranger) = (Shelf::of(&home), Shelf::of(&home));
    let basic = format!("Basic {}", STANDARD.encode("ops:secret"));
    // Another host of this machine: it has the blobs, and would have the password too.
    let elsewhere = Server::start("127.0.0.2", move |asked, stream| match asked.line.contains("/asks/") {
        true => say(stream, 401, "www-authenticate: Basic realm=\"elsewhere\"\r\n", b""),
        false => stranger.serve(asked, stream),
    });
    let (other, known) = (elsewhere.address.clone(), basic.clone());
    let registry = Server::start("127.0.0.1", move |asked, stream| {
        if asked.authorization.as_ref() != Some(&known) {
            return say(stream, 401, "www-authenticate: Basic realm=\"registry\"\r\n", b"");
        }
        match asked.line.split_once("/blobs/") {
            Some((_, digest)) => say(stream, 307, &format!("location: http://{other}/cdn/blobs/{digest}\r\n"), b""),
            None if asked.line.ends_with("/asks") => {
                say(stream, 307, &format!("location: http://{other}/asks/manifest\r\n"), b"")
            }
            None => shelf.serve(asked, stream),
        }
    });
    fs::write(home.path("auth.json"), auth_file(&registry.address, "ops:secret")).unwrap();
    let flags = "--auth-file auth.json";
    let pulled = pull(&home, &registry.address, ":1", flags);
    assert!(pulled.status.success(), "{pulled:?}");
    let asks = failed(3, &pull(&home, &registry.address, ":asks", flags));
    assert_eq!(
        asks,
        format!(
            "registry `{}`, repository `p`: it redirects to `{}`, which answers 401: run the same line again, or ask who \
             operates it",
            registry.address, elsewhere.address
        )
    );
    let (mine, theirs) = (registry.asked(), elsewhere.asked());
    assert_eq!((mine.len(), theirs.len()), (5, 2), "{mine:?} {theirs:?}");
    assert!(mine.iter().all(|asked| asked.authorization.as_ref().is_none_or(|sent| *sent == basic)));
    assert!(theirs.iter().all(|asked| asked.authorization.is_none()), "{theirs:?}");

    // A registry that is not this machine gets no password that everybody can read.
    let wide = Server::start("0.0.0.0", |_, stream| say(stream, 401, "www-authenticate: Basic realm=\"x\"\r\n", b""));
    let name = &wide.address;
    fs::write(home.path("auth.json"), auth_file(name, "ops:secret")).unwrap();
    let line = format!("bundle pull {name}/p:1 no.tar --auth-file auth.json --allow-insecure-registry={name}");
    let in_clear = failed(2, &home.run(&line));
    assert!(
        in_clear.ends_with(
            "credentials are not sent over plain http to another machine: use https, or a registry that asks for none"
        ),
        "{in_clear}"
    );
    assert_eq!(wide.asked().len(), 1);
    assert_eq!(wide.asked()[0].authorization, None);
}
