//! A bundle on its way into a gate: verified, and its policies compiled.

use gate_core::{Bundle, BundleError, EnrollmentRef, TrustedKeys, ustar::Entry};

use super::OpenError;
use crate::policy::{self, Policy};

/// A bundle that verifies, with its policies compiled.
pub(crate) struct Prepared {
    pub(super) tar: Vec<u8>,
    pub(super) policy: Policy,
    /// The enrollment that it declares to be for.
    pub(crate) enrollment_ref: Option<EnrollmentRef>,
}

impl Prepared {
    pub(super) fn new(tar: Vec<u8>, keys: Option<&TrustedKeys>) -> Result<Self, OpenError> {
        let keys = keys.ok_or(OpenError::Bundle(BundleError::NoTrustedKeys))?;
        let (policy, enrollment_ref) = {
            let bundle = Bundle::verify(&tar, keys).map_err(OpenError::Bundle)?;
            (compile(&bundle)?, bundle.manifest.declared_ref().cloned())
        };
        Ok(Self { tar, policy, enrollment_ref })
    }

    /// Its bytes.
    pub(crate) fn tar(&self) -> &[u8] {
        &self.tar
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// The policies of a bundle: `policies/*.rego`, and `data.json` where it has one.
///
/// # Errors
/// Why they do not compile.
pub fn compile(bundle: &Bundle<'_>) -> Result<Policy, OpenError> {
    let manifest = &bundle.manifest;
    let policy_ref = manifest
        .policy_ref()
        .ok_or_else(|| OpenError::PolicyRef { name: manifest.name.clone(), version: manifest.version.clone() })?;
    let text = |file: &Entry<'_>| match str::from_utf8(file.data) {
        Ok(text) => Ok((file.path.to_owned(), text.to_owned())),
        Err(_) => Err(policy::Error::NotText(format!("`{}`", file.path))),
    };
    let modules = bundle.policies().map(text).collect::<Result<Vec<_>, _>>()?;
    let data = bundle.files.iter().find(|file| file.path == "data.json").map(text).transpose()?;
    Ok(Policy::compile(policy_ref, modules, data.as_ref().map(|(_, text)| text.as_str()))?)
}
