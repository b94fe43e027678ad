//! `autonomy key`

use std::{fs, path::PathBuf};

use clap::Subcommand;
use host_native::{
    key::{self, PrivateKey},
    shell_word,
};
use serde::Serialize;

use crate::{
    context::{Context, Flags},
    error::{CliError, Exit},
    output::Format,
};

/// Make the keys that sign bundles, leases and checkpoints.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an Ed25519 key: the private half for you, the public half for those who trust you.
    ///
    /// Writes FILE (PKCS#8 PEM, readable by you alone) and FILE.pub (SPKI PEM). Existing files are never overwritten.
    #[command(after_help = "Examples:
  autonomy key generate --trust
  autonomy key generate --out release.pem --trust
  autonomy key generate --out lease.pem

A key made by `openssl genpkey -algorithm ed25519` serves as well.")]
    Generate {
        /// Where the private key goes [default: keys/bundle.pem among the data].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Trust the key on this machine: bundles that it signs verify here.
        #[arg(long)]
        trust: bool,
        /// The directory whose keys are trusted (else `AUTONOMY_ATTESTATION_TRUST_DIR`, else `attestation.trust_dir`).
        #[arg(long, value_name = "DIR", requires = "trust")]
        trust_dir: Option<String>,
    },
}

#[derive(Debug, Serialize)]
struct Generated {
    key_id: String,
    private_key: PathBuf,
    public_key: PathBuf,
    trusted_as: Option<PathBuf>,
}

impl Command {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let Self::Generate { out, trust, trust_dir } = self;
        let config = context.config(&Flags::default().set("attestation.trust_dir", trust_dir.as_ref()))?;
        let private_key = out.unwrap_or_else(|| config.bundle_signing_key());
        let key = PrivateKey::generate()?;
        let public_key = key.write(&private_key)?;
        let trusted_as = trust.then(|| key::trust(key.public(), &config.trust_dir())).transpose();
        let trusted_as = trusted_as.inspect_err(|_| {
            // The next try may have the same name.
            let _ = [&private_key, &public_key].map(fs::remove_file);
        })?;
        let made = Generated { key_id: key.id().to_string(), private_key, public_key, trusted_as };
        let out = &mut context.out;
        if out.format() == Format::Json {
            out.json(&made)?;
            return Ok(Exit::Success);
        }
        let Generated { key_id, private_key, public_key, trusted_as } = made;
        let public_key = public_key.display();
        out.line(format_args!("made key {key_id}"))?;
        out.line(format_args!("  private: {} (keep it secret)", private_key.display()))?;
        out.line(format_args!("  public:  {public_key}"))?;
        match trusted_as {
            Some(path) => {
                out.line(format_args!("  trusted: {}", path.display()))?;
                out.note(format_args!(
                    "sign with `autonomy bundle build … --key {}` or `autonomy bundle sign`",
                    shell_word(&private_key)
                ))?;
            }
            None => out.note(format_args!(
                "nobody trusts it yet: give each node `{public_key}` as `--trusted-key` where it signs bundles, as `--lease-key` where it signs leases; who checks a log gives it as `--checkpoint-key`; a key has one use"
            ))?,
        }
        Ok(Exit::Success)
    }
}
