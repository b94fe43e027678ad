//! `autonomy bundle`

use std::path::{Path, PathBuf};

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use gate_core::{
    Bundle, BundleError, Digest, EnrollmentRef,
    manifest::{Channel, Provenance},
};
use host_native::{
    bundle::{self, BuildError, Description, IfExists},
    gate,
    key::PrivateKey,
    oci::{self, Artifact, Reference},
    shell_word,
};
use serde::Serialize;

use crate::{
    args::{RegistryFlags, TrustFlags},
    context::{self, Context, Flags},
    error::{CliError, Exit},
    output::{Cell, Format},
    progress,
    time::parse_timestamp,
    usage::quoted,
};

/// Build, sign, look at and check bundles.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a bundle from a directory that holds `policies/*.rego`.
    #[command(after_help = "Examples:
  autonomy bundle build --source src --name fleet/policies --version 1.0.0 \\
    --enrollment-ref fleet-a --key release.pem --out bundle.tar
  autonomy bundle build --source src --name fleet/policies --version 1.1.0 \\
    --channel canary --enrollment-ref fleet-a --out unsigned.tar")]
    Build(Box<Build>),
    /// Add signatures to a bundle.
    #[command(after_help = "Examples:
  autonomy bundle sign --key release.pem unsigned.tar --out signed.tar
  autonomy bundle sign --key release.pem unsigned.tar")]
    Sign {
        /// A private key to sign with; repeat it for several.
        #[arg(long = "key", value_name = "FILE", required = true)]
        keys: Vec<PathBuf>,
        /// The bundle.
        bundle: PathBuf,
        /// Where the signed bundle goes [default: in place of the bundle].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Replace the file at `--out` if there is one.
        #[arg(long, requires = "out")]
        force: bool,
    },
    /// Show what a bundle says of itself, without asking who signed it.
    #[command(after_help = "Examples:
  autonomy bundle inspect bundle.tar
  autonomy bundle inspect bundle.tar --output json")]
    Inspect {
        /// The bundle.
        bundle: PathBuf,
    },
    /// Check a bundle as a runtime does: every byte accounted for, signed by enough trusted keys.
    #[command(after_help = "Examples:
  autonomy bundle verify bundle.tar
  autonomy bundle verify bundle.tar \\
    --trusted-key release.pem.pub --threshold 1")]
    Verify {
        /// The bundle.
        bundle: PathBuf,
        #[command(flatten)]
        trust: TrustFlags,
    },
    /// Put a bundle into a registry, or into an OCI image layout on disk.
    #[command(after_help = "Examples:
  autonomy bundle push bundle.tar registry.example/fleet/policies:1.0.0
  autonomy bundle push bundle.tar localhost:5000/fleet/policies:1.0.0 \\
    --allow-insecure-registry
  autonomy bundle push bundle.tar oci:layout:1.0.0")]
    Push {
        /// The bundle.
        bundle: PathBuf,
        /// Where it goes: `<host>[:<port>]/<repository>:<tag>`, or `oci:<directory>:<tag>`.
        reference: Reference,
        #[command(flatten)]
        registry: RegistryFlags,
    },
    /// Fetch a bundle. Nothing appears before it is verified as `bundle verify` does.
    #[command(after_help = "Examples:
  autonomy bundle pull registry.example/fleet/policies:1.0.0 pulled.tar
  autonomy bundle pull oci:layout:1.0.0 pulled.tar
  autonomy bundle pull oci:layout:1.0.0 pulled.tar --force \\
    --trusted-key release.pem.pub")]
    Pull {
        /// What to fetch: `<host>[:<port>]/<repository>:<tag>`, or `oci:<directory>[:<tag>]`; or `@sha256:<digest>` in
        /// the place of the tag.
        reference: Reference,
        /// Where it goes.
        out: PathBuf,
        /// Replace the file there if there is one.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        registry: RegistryFlags,
        #[command(flatten)]
        trust: TrustFlags,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The directory with `policies/` and whatever else the bundle carries.
    #[arg(long, value_name = "DIR")]
    source: PathBuf,
    /// The bundle's name: lower-case words, joined by `/`.
    #[arg(long)]
    name: String,
    /// The bundle's version (SemVer 2.0).
    #[arg(long)]
    version: String,
    /// How far it has come.
    #[arg(long, default_value = Channel::Dev.as_str(), value_parser = PossibleValuesParser::new(Channel::ALL.map(Channel::as_str)).map(channel))]
    channel: Channel,
    /// The version of its policies, as their authors count them [default: the bundle's version].
    #[arg(long, value_name = "VERSION")]
    policy_version: Option<String>,
    /// The enrollment that the bundle is for. Without it the gate denies every node.
    #[arg(long, value_name = "REF")]
    enrollment_ref: Option<EnrollmentRef>,
    /// The repository it is built from.
    #[arg(long, value_name = "URL", help_heading = "Provenance")]
    source_repo: Option<String>,
    /// The revision in that repository.
    #[arg(long, help_heading = "Provenance")]
    revision: Option<String>,
    /// When it is built (RFC 3339).
    #[arg(long, value_name = "TIME", help_heading = "Provenance", value_parser = rfc3339)]
    built_at: Option<String>,
    /// By what it is built.
    #[arg(long, help_heading = "Provenance")]
    builder: Option<String>,
    /// A private key to sign with; repeat it for several.
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Where the bundle goes.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace the file at `--out` if there is one.
    #[arg(long)]
    force: bool,
}

fn channel(word: String) -> Channel {
    Channel::ALL.into_iter().find(|channel| channel.as_str() == word).unwrap_or(Channel::Dev)
}

/// A bundle as it is shown.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    path: &'a Path,
    bytes: usize,
    /// Whether enough trusted keys have signed. Where it is false, nothing else here is to be believed.
    verified: bool,
    digest: Digest,
    schema_version: String,
    name: &'a str,
    version: &'a str,
    channel: &'static str,
    policy_version: &'a str,
    provenance: &'a Provenance,
    signers: Vec<String>,
    files: Vec<File<'a>>,
}

#[derive(Debug, Serialize)]
struct File<'a> {
    path: &'a str,
    bytes: usize,
    digest: Digest,
}

impl Command {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        match self {
            Self::Build(build) => build.run(context),
            Self::Sign { keys, bundle: path, out, force } => {
                let tar = sign(&path, bundle::read(&path)?, &keys)?;
                let (target, if_exists) = match &out {
                    Some(out) => (out, if_exists(force)),
                    None => (&path, IfExists::Replace),
                };
                bundle::write(target, &tar, if_exists)?;
                show_unverified(context, target, &tar, "signed")
            }
            Self::Inspect { bundle: path } => {
                let tar = bundle::read(&path)?;
                show_unverified(context, &path, &tar, "inspected")
            }
            Self::Verify { bundle: path, trust } => {
                let config = context.config(&trust.add_to(Flags::default())?)?;
                let keys = context::trusted_keys(&config)?;
                let tar = bundle::read(&path)?;
                let bundle = Bundle::verify(&tar, &keys).map_err(|error| refused(&path, &error))?;
                compile(&path, &bundle)?;
                show_verified(context, &path, &tar, &bundle, keys.threshold())
            }
            Self::Push { bundle: path, reference, registry } => {
                let access = registry.access()?;
                let tar = bundle::read(&path)?;
                Bundle::inspect(&tar).map_err(|error| refused(&path, &error))?;
                let artifact = progress::moving(access, |access| oci::push(&tar, &reference, access))?;
                pushed(context, &reference, &artifact)
            }
            Self::Pull { reference, out, force, registry, trust } => {
                let (access, config) = (registry.access()?, context.config(&trust.add_to(Flags::default())?)?);
                let keys = context::trusted_keys(&config)?;
                if !force && out.symlink_metadata().is_ok() {
                    return Err(BuildError::Exists { path: out }.into());
                }
                let (_, tar) = progress::moving(access, |access| oci::pull(&reference, access))?;
                let source = PathBuf::from(reference.to_string());
                let bundle = Bundle::verify(&tar, &keys).map_err(|error| refused(&source, &error))?;
                compile(&source, &bundle)?;
                bundle::write(&out, &tar, if_exists(force))?;
                show_verified(context, &out, &tar, &bundle, keys.threshold())
            }
        }
    }
}

impl Build {
    fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let Self { source, name, version, channel, policy_version, enrollment_ref, keys, out, force, .. } = self;
        let description = Description {
            policy_version: policy_version.unwrap_or_else(|| version.clone()),
            name,
            version,
            channel,
            provenance: Provenance {
                enrollment_ref,
                source: self.source_repo,
                revision: self.revision,
                built_at: self.built_at,
                builder: self.builder,
            },
        };
        let tar = sign(&source, bundle::build(description, &bundle::read_files(&source)?)?, &keys)?;
        let (bundle, _) = Bundle::inspect(&tar).map_err(|error| refused(&out, &error))?;
        compile(&source, &bundle)?;
        bundle::write(&out, &tar, if_exists(force))?;
        show_unverified(context, &out, &tar, "built")
    }
}

fn sign(path: &Path, tar: Vec<u8>, keys: &[PathBuf]) -> Result<Vec<u8>, CliError> {
    // Every key is read before the first signature is made.
    let keys = keys.iter().map(|path| PrivateKey::read(path)).collect::<Result<Vec<_>, _>>()?;
    keys.iter().try_fold(tar, |tar, key| {
        bundle::sign(&tar, key)
            .map_err(|error| if let BuildError::Bundle(error) = &error { refused(path, error) } else { error.into() })
    })
}

pub(crate) fn refused(path: &Path, error: &BundleError) -> CliError {
    CliError::usage(format!("bundle `{}` is refused: {}", path.display(), bundle::refusal(error)))
}

/// Policies that no runtime could compile are not shipped, and not called good.
pub(crate) fn compile(path: &Path, bundle: &Bundle<'_>) -> Result<(), CliError> {
    match gate::compile(bundle) {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(CliError::usage(format!("bundle `{}` has policies that do not compile: {error}", path.display())))
        }
    }
}

fn rfc3339(text: &str) -> Result<String, String> {
    match parse_timestamp(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("{} is no time: write RFC 3339, such as `2026-01-31T12:00:00Z`", quoted(text))),
    }
}

fn if_exists(force: bool) -> IfExists {
    if force { IfExists::Replace } else { IfExists::Refuse }
}

#[derive(Debug, Serialize)]
struct Pushed {
    reference: String,
    manifest_digest: String,
    layer_digest: String,
    bytes: u64,
}

fn pushed(context: &mut Context<'_>, reference: &Reference, artifact: &Artifact) -> Result<Exit, CliError> {
    let out = &mut context.out;
    let (manifest, bundle) = (&artifact.manifest, &artifact.bundle);
    match out.format() {
        Format::Json => out.json(&Pushed {
            reference: reference.to_string(),
            manifest_digest: manifest.to_string(),
            layer_digest: bundle.to_string(),
            bytes: artifact.bundle_bytes,
        })?,
        Format::Text => {
            out.line(format_args!("pushed {reference}"))?;
            out.line(format_args!("  manifest: {manifest}"))?;
            out.line(format_args!("  layer:    {bundle} ({} bytes)", artifact.bundle_bytes))?;
        }
    }
    Ok(Exit::Success)
}

/// What was done to the bundle that is shown.
enum Shows {
    /// Something that says nothing of whether to trust it.
    Unverified(&'static str),
    /// Checked against so many needed keys.
    Verified(usize),
}

fn show_unverified(context: &mut Context<'_>, path: &Path, tar: &[u8], done: &'static str) -> Result<Exit, CliError> {
    let (bundle, claimed) = Bundle::inspect(tar).map_err(|error| refused(path, &error))?;
    let signers = claimed.iter().map(ToString::to_string).collect();
    show(context, path, tar, &bundle, signers, Shows::Unverified(done))
}

fn show_verified(
    context: &mut Context<'_>,
    path: &Path,
    tar: &[u8],
    bundle: &Bundle<'_>,
    threshold: usize,
) -> Result<Exit, CliError> {
    let signers = bundle.signers.iter().map(ToString::to_string).collect();
    show(context, path, tar, bundle, signers, Shows::Verified(threshold))
}

fn show(
    context: &mut Context<'_>,
    path: &Path,
    tar: &[u8],
    bundle: &Bundle<'_>,
    signers: Vec<String>,
    shows: Shows,
) -> Result<Exit, CliError> {
    let out = &mut context.out;
    let manifest = &bundle.manifest;
    let file = |file: &gate_core::ustar::Entry<'_>| (file.path.to_owned(), file.data.len());
    if out.format() == Format::Json {
        out.json(&Shown {
            path,
            bytes: tar.len(),
            verified: matches!(shows, Shows::Verified(_)),
            digest: bundle.digest,
            schema_version: manifest.schema_version.to_string(),
            name: &manifest.name,
            version: &manifest.version,
            channel: manifest.channel.as_str(),
            policy_version: &manifest.policy_version,
            provenance: &manifest.provenance,
            signers,
            files: bundle
                .files
                .iter()
                .filter_map(|file| {
                    Some(File { path: file.path, bytes: file.data.len(), digest: manifest.files.digest(file.path)? })
                })
                .collect(),
        })?;
        return Ok(Exit::Success);
    }
    match &shows {
        Shows::Unverified(done) => out.line(format_args!("{done} {}", path.display()))?,
        Shows::Verified(threshold) => {
            out.line(format_args!(
                "verified {}: {} of {threshold} needed trusted keys signed",
                path.display(),
                signers.len()
            ))?;
        }
    }
    let provenance = &manifest.provenance;
    out.fields([
        ("BUNDLE", Cell::new(format_args!("{}@{}", manifest.name, manifest.version))),
        ("DIGEST", Cell::new(bundle.digest)),
        ("CHANNEL", Cell::new(manifest.channel.as_str())),
        ("POLICY_VERSION", Cell::new(&manifest.policy_version)),
        ("SCHEMA_VERSION", Cell::new(manifest.schema_version)),
        ("ENROLLMENT_REF", Cell::or_none(provenance.enrollment_ref.as_ref())),
        ("SOURCE", Cell::or_none(provenance.source.as_ref())),
        ("REVISION", Cell::or_none(provenance.revision.as_ref())),
        ("BUILT_AT", Cell::or_none(provenance.built_at.as_ref())),
        ("BUILDER", Cell::or_none(provenance.builder.as_ref())),
        ("SIGNED_BY", Cell::or_none(Some(signers.join(" ")).filter(|ids| !ids.is_empty()))),
    ])?;
    out.line("")?;
    let mut table = out.table(["FILE", "BYTES"]);
    for (path, bytes) in bundle.files.iter().map(file) {
        table.row([Cell::new(path), Cell::new(bytes)])?;
    }
    table.finish()?;
    match shows {
        Shows::Verified(_) => {}
        Shows::Unverified(_) if signers.is_empty() => {
            out.note(format_args!("nobody has signed it: run `autonomy bundle sign --key FILE {}`", shell_word(path)))?;
        }
        Shows::Unverified(_) => {
            out.note(format_args!("not verified: `autonomy bundle verify {}` asks who signed it", shell_word(path)))?;
        }
    }
    if provenance.enrollment_ref.is_none() {
        out.warning(
            "it declares no enrollment ref: the gate fails every node that runs it; build it with `--enrollment-ref`",
        )?;
    }
    Ok(Exit::Success)
}
