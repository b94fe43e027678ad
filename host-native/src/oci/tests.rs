use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
};

use gate_core::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Access, Artifact, BUNDLE_MEDIA_TYPE, OciError, Reference};
use crate::ErrorClass;

const EMPTY_DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn push(bundle: &[u8], reference: &Reference) -> Result<Artifact, OciError> {
    super::push(bundle, reference, &Access::default())
}

fn pull(reference: &Reference) -> Result<(Artifact, Vec<u8>), OciError> {
    super::pull(reference, &Access::default())
}

/// A layout with `one` under the tag `v1`.
struct Rig {
    dir: TempDir,
    pushed: Artifact,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pushed = push(b"one", &Self::at(&dir, ":v1")).unwrap();
        Self { dir, pushed }
    }

    fn at(dir: &TempDir, which: &str) -> Reference {
        Reference::parse(&format!("oci:{}{which}", dir.path().join("layout").display())).unwrap()
    }

    fn reference(&self, which: &str) -> Reference {
        Self::at(&self.dir, which)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("layout").join(name)
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.path("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
    }

    fn document(path: &Path) -> Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    fn change(path: &Path, change: impl FnOnce(&mut Value)) {
        let mut document = Self::document(path);
        change(&mut document);
        fs::write(path, serde_json::to_vec(&document).unwrap()).unwrap();
    }

    /// Changes the manifest under `v1`, with digests and sizes made right again.
    fn change_manifest(&self, change: impl FnOnce(&mut Value)) {
        let mut manifest = Self::document(&self.blob(&self.pushed.manifest.to_string()));
        change(&mut manifest);
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let digest = Digest::of(&bytes);
        fs::write(self.blob(&digest.to_string()), &bytes).unwrap();
        Self::change(&self.path("index.json"), |index| {
            index["manifests"][0]["digest"] = json!(digest.to_string());
            index["manifests"][0]["size"] = json!(bytes.len());
        });
    }

    fn pull(&self, which: &str) -> Result<Vec<u8>, OciError> {
        match pull(&self.reference(which)) {
            Ok((artifact, bytes)) => {
                assert_eq!(artifact.bundle, Digest::of(&bytes));
                assert_eq!(artifact.bundle_bytes, bytes.len() as u64);
                Ok(bytes)
            }
            Err(error) => {
                assert!(!error.to_string().contains('\n'), "{error}");
                Err(error)
            }
        }
    }

    #[track_caller]
    fn refuses(&self, which: &str, why: &str) -> OciError {
        let error = self.pull(which).unwrap_err();
        assert!(error.to_string().contains(why), "{error}\nshould say {why}");
        error
    }
}

mod reference {
    use super::*;

    #[test]
    fn the_notation_is_that_of_skopeo() {
        let digest = format!("@sha256:{}", "a".repeat(64));
        for text in ["oci:/a/b", "oci:dir", "oci:a@b:v1", "oci:.:_x", "oci:dir:1.0.0-rc.1", &format!("oci:d{digest}")] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_registry_is_named_as_everywhere() {
        let digest = format!("registry.example/p@sha256:{}", "a".repeat(64));
        for text in [
            "localhost/p:v1",
            "registry:5000/p:v1",
            "127.0.0.1:5000/fleet/policies:1.0.0",
            "[::1]:5000/p:v1",
            "registry.example/a/b__c/d.e/f--g:_x",
            &format!("registry.example/{}:v1", "x".repeat(255)),
            &digest,
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn each_malformed_part_is_named() {
        let cases = [
            ("oci:", "has no directory"),
            ("oci::v1", "has no directory"),
            ("oci:dir:", "has a tag that is not"),
            ("oci:dir:.v1", "has a tag that is not"),
            ("oci:dir:-v1", "has a tag that is not"),
            ("oci:dir:v 1", "has a tag that is not"),
            ("oci:dir:v1:v2", "has a tag that is not"),
            ("oci:dir:v1\n", "has a tag that is not"),
            ("oci:dir@sha256:abc", "has a digest without 64 digits"),
            ("oci:di\0r", "has a directory with"),
            ("", "is neither in a registry nor an image layout"),
            ("bundle.tar", "is neither in a registry nor an image layout"),
            ("OCI:dir", "is neither in a registry nor an image layout"),
            ("docker://ghcr.io/x:y", "begins with a scheme: leave it out"),
            ("https://ghcr.io/x:y", "begins with a scheme: leave it out"),
            ("fleet/policies:1", "has no registry: begin with its host"),
            ("/policies:1", "has no registry"),
            ("Registry.example/p:1", "has no registry"),
            ("user@registry.example/p:1", "has no registry"),
            ("registry..example/p:1", "has no registry"),
            ("registry.example:/p:1", "has no registry"),
            ("registry.example:0/p:1", "has no registry"),
            ("registry.example:+5/p:1", "has no registry"),
            ("registry.example:65536/p:1", "has no registry"),
            ("[::1/p:1", "has no registry"),
            ("[::g]:5/p:1", "has no registry"),
            ("registry.example/p", "has no tag and no digest"),
            ("registry.example/:1", "has a repository that is not"),
            ("registry.example/P:1", "has a repository that is not"),
            ("registry.example/a//b:1", "has a repository that is not"),
            ("registry.example/../v2:1", "has a repository that is not"),
            ("registry.example/a_.b:1", "has a repository that is not"),
            ("registry.example/a/:1", "has a repository that is not"),
            ("registry.example/a?b:1", "has a repository that is not"),
            ("registry.example/p:", "has a tag that is not"),
            ("registry.example/p:1/2", "has a tag that is not"),
            ("registry.example/p@sha256:abc", "has a digest without 64 digits"),
        ];
        for (text, rule) in cases {
            let error = Reference::parse(text).unwrap_err();
            assert!(error.to_string().contains(rule), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
        for (text, shown) in [
            ("me:se/cret@registry.example/p:1", "`***@registry.example/p:1`"),
            ("https://me:se@cret@registry.example/p:1", "`https://***@registry.example/p:1`"),
            ("me:secret@registry.example/p@sha256:abc", "`***@registry.example/p@sha256:abc`"),
            ("registry.example/p@sha256:abc", "`registry.example/p@sha256:abc`"),
        ] {
            let error = Reference::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("reference {shown} ")), "{error}");
        }
        for hex in ["A".repeat(64), "a".repeat(63), "a".repeat(65), "g".repeat(64)] {
            Reference::parse(&format!("oci:dir@sha256:{hex}")).unwrap_err();
        }
        Reference::parse(&format!("oci:dir:v1@sha256:{}", "a".repeat(64))).unwrap_err();
        Reference::parse(&format!("registry.example/{}:v1", "x".repeat(256))).unwrap_err();
        Reference::parse(&format!("oci:dir:{}", "x".repeat(128))).unwrap();
        Reference::parse(&format!("oci:dir:{}", "x".repeat(129))).unwrap_err();
    }
}

mod push {
    use super::*;

    #[test]
    fn makes_the_layout_of_the_specification() {
        let rig = Rig::new();
        assert_eq!(fs::read_to_string(rig.path("oci-layout")).unwrap(), r#"{"imageLayoutVersion":"1.0.0"}"#);
        let manifest = fs::read(rig.blob(&rig.pushed.manifest.to_string())).unwrap();
        assert_eq!(
            Rig::document(&rig.path("index.json")),
            json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": [{
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": rig.pushed.manifest.to_string(),
                    "size": manifest.len(),
                    "artifactType": "application/vnd.autonomy.bundle.v1+tar",
                    "annotations": {"org.opencontainers.image.ref.name": "v1"},
                }],
            })
        );
        assert_eq!(
            serde_json::from_slice::<Value>(&manifest).unwrap(),
            json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "artifactType": "application/vnd.autonomy.bundle.v1+tar",
                "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY_DIGEST, "size": 2},
                "layers": [{
                    "mediaType": "application/vnd.autonomy.bundle.v1+tar",
                    // printf one | sha256sum
                    "digest": "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
                    "size": 3,
                    "annotations": {"org.opencontainers.image.title": "bundle.tar"},
                }],
            })
        );
        assert_eq!(fs::read(rig.blob(EMPTY_DIGEST)).unwrap(), b"{}");
        let names: BTreeSet<_> = fs::read_dir(rig.path(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names, ["blobs", "index.json", "oci-layout"].map(str::to_owned).into());
        for blob in fs::read_dir(rig.path("blobs/sha256")).unwrap() {
            let blob = blob.unwrap();
            let digest = Digest::of(&fs::read(blob.path()).unwrap());
            assert_eq!(digest.to_string(), format!("sha256:{}", blob.file_name().to_str().unwrap()));
            assert_eq!(blob.metadata().unwrap().permissions().mode() & 0o700, 0o600);
        }
    }

    #[test]
    fn the_same_bytes_make_the_same_layout() {
        let (one, two) = (Rig::new(), Rig::new());
        assert_eq!(one.pushed, two.pushed);
        assert_eq!(fs::read(one.path("index.json")).unwrap(), fs::read(two.path("index.json")).unwrap());
        push(b"one", &one.reference(":v1")).unwrap();
        assert_eq!(fs::read(one.path("index.json")).unwrap(), fs::read(two.path("index.json")).unwrap());
    }

    #[test]
    fn moves_the_tag_and_keeps_the_others() {
        let rig = Rig::new();
        Rig::change(&rig.path("index.json"), |index| {
            index["annotations"] = json!({"a": "b"});
            index["manifests"][0]["platform"] = json!({"os": "linux"});
        });
        push(b"two", &rig.reference(":v2")).unwrap();
        push(b"three", &rig.reference(":v2")).unwrap();
        assert_eq!(rig.pull(":v1").unwrap(), b"one");
        assert_eq!(rig.pull(":v2").unwrap(), b"three");
        let index = Rig::document(&rig.path("index.json"));
        assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
        assert_eq!(index["annotations"], json!({"a": "b"}), "what others wrote stays");
        assert_eq!(index["manifests"][0]["platform"], json!({"os": "linux"}));
    }

    #[test]
    fn without_a_tag_the_bundle_is_there_once() {
        let dir = tempfile::tempdir().unwrap();
        let pushed = push(b"one", &Rig::at(&dir, "")).unwrap();
        push(b"one", &Rig::at(&dir, "")).unwrap();
        let rig = Rig { dir, pushed };
        assert_eq!(Rig::document(&rig.path("index.json"))["manifests"].as_array().unwrap().len(), 1);
        assert_eq!(rig.pull("").unwrap(), b"one");
    }

    #[test]
    fn a_damaged_blob_is_replaced() {
        let rig = Rig::new();
        fs::write(rig.blob(&rig.pushed.bundle.to_string()), b"bad").unwrap();
        rig.refuses(":v1", "its digest is");
        push(b"one", &rig.reference(":v1")).unwrap();
        assert_eq!(rig.pull(":v1").unwrap(), b"one");
    }

    #[test]
    fn concurrent_pushes_lose_no_tag() {
        let dir = tempfile::tempdir().unwrap();
        thread::scope(|scope| {
            for worker in 0..8 {
                let dir = &dir;
                scope.spawn(move || {
                    for round in 0..4 {
                        push(format!("{worker}").as_bytes(), &Rig::at(dir, &format!(":w{worker}-{round}"))).unwrap();
                    }
                });
            }
        });
        let index = Rig::document(&dir.path().join("layout/index.json"));
        assert_eq!(index["manifests"].as_array().unwrap().len(), 32);
    }

    #[test]
    fn refuses_what_it_must() {
        let rig = Rig::new();
        let digest = format!("@{}", rig.pushed.manifest);
        let error = push(b"two", &rig.reference(&digest)).unwrap_err();
        assert!(matches!(error, OciError::PushToDigest { .. }), "{error}");
        let large = vec![0; gate_core::limits::BUNDLE_BYTES + 1];
        let error = push(&large, &rig.reference(":v2")).unwrap_err();
        assert!(matches!(error, OciError::BundleTooLarge { .. }), "{error}");

        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("letter.txt"), "dear").unwrap();
        let reference = Reference::parse(&format!("oci:{}:v1", other.path().display())).unwrap();
        let error = push(b"one", &reference).unwrap_err();
        assert!(error.to_string().contains("is not an OCI layout (it holds something else)"), "{error}");
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);

        fs::write(rig.path("index.json"), "{").unwrap();
        push(b"two", &rig.reference(":v2")).unwrap_err();
        assert_eq!(fs::read(rig.path("index.json")).unwrap(), b"{", "a damaged index is not overwritten");
    }
}

mod pull {
    use super::*;

    #[test]
    fn brings_back_the_same_bytes() {
        let rig = Rig::new();
        assert_eq!(rig.pull("").unwrap(), b"one");
        let bundle: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let pushed = push(&bundle, &rig.reference(":large")).unwrap();
        assert_eq!(rig.pull(":large").unwrap(), bundle);
        push(b"", &rig.reference(":large")).unwrap();
        assert_eq!(rig.pull(":large").unwrap(), b"");
        // The tag has moved on; the digest still names the bundle.
        assert_eq!(rig.pull(&format!("@{}", pushed.manifest)).unwrap(), bundle);
    }

    #[test]
    fn says_which_bundles_there_are() {
        let rig = Rig::new();
        let error = rig.refuses(":v9", "has no tag `v9`: it has `v1`");
        assert_eq!(error.class(), ErrorClass::Usage);
        push(b"two", &rig.reference(":v2")).unwrap();
        rig.refuses("", "holds 2 manifests: name one, it has `v1`, `v2`");
        for tag in 3..20 {
            push(b"two", &rig.reference(&format!(":v{tag}"))).unwrap();
        }
        rig.refuses(":v99", "`v8`, …");
        let missing = format!("@sha256:{}", "0".repeat(64));
        rig.refuses(&missing, "cannot read `");
    }

    #[test]
    fn refuses_a_layout_that_is_none() {
        let rig = Rig::new();
        fs::write(rig.path("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
        rig.refuses(":v1", "imageLayoutVersion is `2.0.0`, not `1.0.0`");
        fs::write(rig.path("oci-layout"), "{}").unwrap();
        rig.refuses(":v1", "missing field `imageLayoutVersion`");
        fs::remove_file(rig.path("oci-layout")).unwrap();
        let error = rig.refuses(":v1", "is not an OCI layout (it has no file `oci-layout`)");
        assert_eq!(error.class(), ErrorClass::Unavailable);
        fs::create_dir(rig.path("oci-layout")).unwrap();
        rig.refuses(":v1", "it is not a regular file");
    }

    #[test]
    fn refuses_an_index_that_does_not_hold() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 10] = [
            (|index| index["schemaVersion"] = json!(1), "schemaVersion is 1, not 2"),
            (|index| index["mediaType"] = json!("x"), "mediaType is `x`, not"),
            (|index| index["manifests"] = json!({}), "invalid type"),
            (
                |index| index["manifests"][0]["mediaType"] = json!("application/vnd.oci.image.index.v1+json"),
                "mediaType",
            ),
            (
                |index| index["manifests"][0]["digest"] = json!("sha512:00"),
                "is not a digest: write `sha256:` and 64 lower-case hexadecimal digits",
            ),
            (
                |index| index["manifests"][0]["digest"] = json!("sha256:../../x"),
                "is not a digest: write `sha256:` and 64 lower-case hexadecimal digits",
            ),
            (|index| index["manifests"][0]["size"] = json!(1), "it has more bytes, not 1"),
            (|index| index["manifests"][0]["size"] = json!(-1), "invalid value"),
            (|index| index["manifests"][0]["size"] = json!(99_999), "bytes, not 99999"),
            (
                |index| {
                    let twice = index["manifests"][0].clone();
                    index["manifests"].as_array_mut().unwrap().push(twice);
                },
                "tag `v1` is there 2 times",
            ),
        ];
        for (change, why) in cases {
            let rig = Rig::new();
            Rig::change(&rig.path("index.json"), change);
            rig.refuses(":v1", why);
        }
        let rig = Rig::new();
        fs::write(rig.path("index.json"), r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#).unwrap();
        rig.refuses(":v1", "duplicate field `manifests`");
        fs::write(rig.path("index.json"), " ".repeat(4 * 1024 * 1024 + 1)).unwrap();
        rig.refuses(":v1", "it has more than 4194304 bytes");
        fs::remove_file(rig.path("index.json")).unwrap();
        rig.refuses(":v1", "cannot read `");
    }

    #[test]
    fn refuses_a_manifest_that_is_not_a_bundles() {
        type Change = fn(&mut Value);
        let limit = gate_core::limits::BUNDLE_BYTES + 1;
        let cases: [(Change, &str); 13] = [
            (|it| it["schemaVersion"] = json!(1), "schemaVersion is 1, not 2"),
            (|it| it["mediaType"] = json!("x"), "mediaType is `x`, not"),
            (|it| it["artifactType"] = json!("application/x"), "artifactType is `application/x`, not"),
            (|it| it["artifactType"] = Value::Null, "artifactType is ``, not"),
            (|it| it["config"]["mediaType"] = json!("application/x"), "config.mediaType is `application/x`, not"),
            (|it| it["config"]["size"] = json!(3), "config is not the empty descriptor"),
            (|it| it["config"]["digest"] = it["layers"][0]["digest"].clone(), "config is not the empty descriptor"),
            (|it| it["layers"] = json!([]), "it has 0 layers, not 1"),
            (|it| it["layers"] = json!([it["layers"][0], it["layers"][0]]), "it has 2 layers, not 1"),
            (|it| it["layers"][0]["mediaType"] = json!("application/x"), "layers[0].mediaType is `application/x`, not"),
            (|it| it["layers"][0]["size"] = json!(2), "it has more bytes, not 2"),
            (|it| it["layers"][0]["size"] = json!(4), "it has 3 bytes, not 4"),
            (
                |it| it["layers"][0]["digest"] = json!("sha256:/etc/passwd"),
                "is not a digest: write `sha256:` and 64 lower-case hexadecimal digits",
            ),
        ];
        for (change, why) in cases {
            let rig = Rig::new();
            rig.change_manifest(change);
            rig.refuses(":v1", why);
        }
        let rig = Rig::new();
        rig.change_manifest(|it| it["layers"][0]["size"] = json!(limit));
        let error = rig.refuses(":v1", "and 67108864 are allowed");
        assert_eq!(error.class(), ErrorClass::Usage);
        rig.change_manifest(|it| it["padding"] = json!(" ".repeat(4 * 1024 * 1024)));
        rig.refuses(":v1", "it has more than 4194304 bytes");
    }

    #[test]
    fn ignores_what_the_specification_lets_others_add() {
        let rig = Rig::new();
        rig.change_manifest(|it| {
            it["annotations"] = json!({"org.opencontainers.image.created": "2026-01-01T00:00:00Z"});
            it["subject"] = json!({"any": "thing"});
            it["config"]["data"] = json!("e30=");
            it["layers"][0]["urls"] = json!(["https://example.com"]);
        });
        assert_eq!(rig.pull(":v1").unwrap(), b"one");
        // Other writers leave the optional media type of the index out.
        Rig::change(&rig.path("index.json"), |index| {
            index.as_object_mut().unwrap().remove("mediaType");
        });
        assert_eq!(rig.pull(":v1").unwrap(), b"one");
    }

    #[test]
    fn refuses_blobs_that_are_not_what_their_names_say() {
        let rig = Rig::new();
        let (manifest, bundle) = (rig.pushed.manifest.to_string(), rig.pushed.bundle.to_string());
        for digest in [manifest.as_str(), bundle.as_str(), EMPTY_DIGEST] {
            let rig = Rig::new();
            let path = rig.blob(digest);
            let good = fs::read(&path).unwrap();
            for index in 0..good.len() {
                let mut flipped = good.clone();
                flipped[index] ^= 1;
                fs::write(&path, flipped).unwrap();
                rig.refuses(":v1", "its digest is `sha256:");
            }
            fs::write(&path, &good[..good.len() - 1]).unwrap();
            rig.refuses(":v1", "bytes, not");
            fs::write(&path, [good.as_slice(), b"x"].concat()).unwrap();
            rig.refuses(":v1", "it has more bytes, not");
            fs::remove_file(&path).unwrap();
            rig.refuses(":v1", "cannot read `");
            fs::create_dir(&path).unwrap();
            rig.refuses(":v1", "it is not a regular file");
        }
        // By digest alone, where no index says the size.
        fs::write(rig.blob(&manifest), b"{}").unwrap();
        rig.refuses(&format!("@{manifest}"), "its digest is `sha256:");
        assert_eq!(BUNDLE_MEDIA_TYPE, "application/vnd.autonomy.bundle.v1+tar");
    }
}

mod registry {
    use super::*;
    use crate::oci::PlainHttp;

    #[test]
    fn plain_http_is_not_spoken_with_whom_it_is_not_allowed() {
        for (plain_http, reference) in [
            (PlainHttp::Loopback, "registry.example/p:1"),
            (PlainHttp::Only("registry.example:5000".to_owned()), "registry.example:5001/p:1"),
        ] {
            let reference = Reference::parse(reference).unwrap();
            let mut access = Access::default();
            access.plain_http = plain_http;
            let error = super::super::pull(&reference, &access).unwrap_err();
            let name = reference.to_string().replace("/p:1", "");
            assert_eq!(
                error.to_string(),
                format!(
                    "registry `{name}`, repository `p`: plain http is not allowed with it: leave `--allow-insecure-registry` \
                     out, or name it with `--allow-insecure-registry={name}`"
                )
            );
            assert_eq!(error.class(), ErrorClass::Usage);
        }
    }

    /// It blocks, and does not start a runtime within the one of its caller, which would be a panic.
    #[tokio::test]
    async fn a_caller_within_a_runtime_is_served() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let reference = Reference::parse(&format!("127.0.0.1:{port}/p:1")).unwrap();
        let mut access = Access::default();
        access.plain_http = PlainHttp::Loopback;
        let error = super::super::pull(&reference, &access).unwrap_err();
        assert!(error.to_string().contains("Connection refused"), "{error}");
        assert_eq!(error.class(), ErrorClass::Unavailable);
    }
}
