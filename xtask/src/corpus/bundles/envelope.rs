//! Signatures that do not count.

use serde_json::json;

use super::{BOTH, HEAD, ONE, ONE_OF_TWO, POLICY, POLICY_PATH, Table, Trust, listed, with_envelope};
use crate::corpus::make::{MANIFEST_TYPE, Signer, base64, envelope, envelope_of, tar};

/// Envelopes that do not hold.
pub(super) fn faults(t: &mut Table) {
    // Nobody trusts `c`.
    let [a, b, c] = ["a", "b", "c"].map(Signer::named);
    let policy: &[(&str, &[u8])] = &[(POLICY_PATH, POLICY.as_bytes())];
    let manifest = format!("{HEAD}{}}}", listed(policy));
    let sound = envelope(MANIFEST_TYPE, &manifest, &[&a]);
    let mut fault = |name: &str, trust: Trust, envelope: &str, message: &str| {
        let tar = tar(&with_envelope(&manifest, policy, envelope));
        t.case(name, trust, &tar, ("refused", json!(message)));
    };
    let canonical = "envelope is not in its canonical form: compact JSON with `payload`, `payloadType`, `signatures`";
    fault("envelope: white space", ONE, &sound.replace(",", ", "), canonical);
    fault("envelope: line break at its end", ONE, &format!("{sound}\n"), canonical);
    fault("envelope: an escaped slash", ONE, &sound.replace("application/", r"application\/"), canonical);
    fault("envelope: escaped letters", ONE, &sound.replace("keyid", r"key\u0069d"), canonical);
    let (payload, kind) = (base64(manifest.as_bytes()), format!(r#""payloadType":"{MANIFEST_TYPE}""#));
    let swapped =
        sound.replace(&format!(r#""payload":"{payload}",{kind}"#), &format!(r#"{kind},"payload":"{payload}""#));
    fault("envelope: members in another order", ONE, &swapped, canonical);
    let list = format!(r#"["{payload}","{MANIFEST_TYPE}",[]]"#);
    fault("envelope: as a list", ONE, &list, "envelope is not DSSE JSON: found a list, expected an object");
    fault(
        "envelope: unknown member",
        ONE,
        &sound.replacen('{', r#"{"x":1,"#, 1),
        "envelope is not DSSE JSON: member `x` is not known",
    );
    let clears = sound.replacen('{', r#"{"\u001b[2J\n":1,"#, 1);
    let message = r"envelope is not DSSE JSON: member `\u{1b}[2J\n` is not known";
    fault("envelope: unknown member that clears a terminal", ONE, &clears, message);
    let endless = sound.replacen('{', &format!(r#"{{"{}":1,"#, "x".repeat(5_000)), 1);
    let message = format!("envelope is not DSSE JSON: member `{}", "x".repeat(292));
    fault("envelope: unknown member of 5000 bytes", ONE, &endless, &message);
    fault(
        "envelope: a key twice",
        ONE,
        &sound.replacen('{', r#"{"payload":"","#, 1),
        "envelope is not DSSE JSON: key `payload` stands twice",
    );
    fault("envelope: not JSON", ONE, "DSSEv1", "envelope is not DSSE JSON: no value at byte 0");
    fault(
        "envelope: no signatures member",
        ONE,
        &format!(r#"{{"payload":"{payload}",{kind}}}"#),
        "envelope is not DSSE JSON: `signatures`: is missing, expected a list",
    );

    let lease = "application/vnd.autonomy.enrollment.lease.v1+json";
    fault(
        "envelope: payload type of a lease",
        ONE,
        &envelope(lease, &manifest, &[&a]),
        &format!("envelope holds a `{lease}`, not a `{MANIFEST_TYPE}`"),
    );
    fault(
        "envelope: payload type in upper case",
        ONE,
        &envelope(&MANIFEST_TYPE.to_uppercase(), &manifest, &[&a]),
        &format!("envelope holds a `{}`, not a `{MANIFEST_TYPE}`", MANIFEST_TYPE.to_uppercase()),
    );
    fault(
        "envelope: another manifest",
        ONE,
        &envelope(MANIFEST_TYPE, &manifest.replace("1.4.0", "1.4.1"), &[&a]),
        "`manifest.dsse.json` signs another manifest than the tar's `manifest.json`: sign the bundle again",
    );
    fault(
        "envelope: empty payload",
        ONE,
        &envelope(MANIFEST_TYPE, "", &[&a]),
        "`manifest.dsse.json` signs another manifest than the tar's `manifest.json`: sign the bundle again",
    );
    for (name, broken) in [
        ("envelope: payload without padding", payload.trim_end_matches('=').to_owned()),
        ("envelope: payload with a line break", format!(r"{payload}\n")),
    ] {
        fault(
            name,
            ONE,
            &sound.replace(&format!(r#""{payload}""#), &format!(r#""{broken}""#)),
            "envelope is not DSSE JSON: `payload` is not padded standard base64",
        );
    }

    let (of_a, of_b, of_c) = (
        a.signature(MANIFEST_TYPE, manifest.as_bytes()),
        b.signature(MANIFEST_TYPE, manifest.as_bytes()),
        c.signature(MANIFEST_TYPE, manifest.as_bytes()),
    );
    let signed = |signatures: &[(String, String)]| envelope_of(MANIFEST_TYPE, &manifest, signatures);
    let short = |trusted: usize, needed: usize, stranger: bool| {
        let rest = if stranger {
            format!("; `{}` signed and is not trusted: add its public key, or sign with a trusted one", c.id)
        } else {
            ": sign with `autonomy bundle sign`".to_owned()
        };
        format!("{trusted} of {needed} needed trusted keys have signed{rest}")
    };
    fault("envelope: no signatures", ONE, &signed(&[]), &short(0, 1, false));
    fault("envelope: only a key that is not trusted", ONE, &signed(std::slice::from_ref(&of_c)), &short(0, 1, true));
    fault("envelope: one trusted key of two needed", BOTH, &signed(std::slice::from_ref(&of_a)), &short(1, 2, false));
    fault(
        "envelope: one trusted key of two needed, and a stranger",
        BOTH,
        &signed(&[of_c.clone(), of_a.clone()]),
        &short(1, 2, true),
    );
    let twice = |id: &str| format!("key `{id}` has signed twice: a threshold counts distinct keys");
    fault("envelope: a key signs twice", ONE, &signed(&[of_a.clone(), of_a.clone()]), &twice(&a.id));
    fault(
        "envelope: a key signs twice for a threshold of two",
        BOTH,
        &signed(&[of_a.clone(), of_a.clone()]),
        &twice(&a.id),
    );
    fault("envelope: a stranger signs twice", ONE, &signed(&[of_a.clone(), of_c.clone(), of_c.clone()]), &twice(&c.id));
    let forged =
        |id: &str| format!("signature by trusted key `{id}` does not hold: the payload or the signature was changed");
    let claims_a = (a.id.clone(), of_b.1.clone());
    let claims_b = (b.id.clone(), of_a.1.clone());
    fault("envelope: another key's signature", ONE, &signed(std::slice::from_ref(&claims_a)), &forged(&a.id));
    fault(
        "envelope: a forged signature behind a good threshold",
        ONE_OF_TWO,
        &signed(&[of_a.clone(), claims_b.clone()]),
        &forged(&b.id),
    );
    fault(
        "envelope: a forged signature before a good threshold",
        ONE_OF_TWO,
        &signed(&[claims_b, of_a.clone()]),
        &forged(&b.id),
    );
    let bare = (a.id.clone(), base64(&a.sign(manifest.as_bytes())));
    fault("envelope: signature over the bare payload", ONE, &signed(&[bare]), &forged(&a.id));
    let of_lease = a.signature(lease, manifest.as_bytes());
    fault("envelope: signature over another payload type", ONE, &signed(&[of_lease]), &forged(&a.id));
    let crowd: Vec<_> =
        (0..17).map(|n| Signer::named(&format!("crowd {n}")).signature(MANIFEST_TYPE, manifest.as_bytes())).collect();
    fault("envelope: seventeen signatures", ONE, &signed(&crowd), "envelope has 17 signatures: at most 16 are read");

    let bytes = a.sign(b"any");
    let not_a_signature = format!("signature by key `{}` is not 64 bytes of base64", a.id);
    let first = |n: usize| bytes.iter().copied().take(n).collect::<Vec<_>>();
    let letters = |text: &str| (a.id.clone(), text.to_owned());
    let mut last_bits = of_a.1.clone();
    last_bits.truncate(85);
    // The 86th letter holds two bits of the last byte, and four that must be zero.
    let letter = of_a.1.chars().nth(85).and_then(|letter| char::from_u32(u32::from(letter) + 1)).unwrap_or('?');
    last_bits.push(letter);
    last_bits += "==";
    let url_safe = {
        // A signature that needs a letter in which the two alphabets differ.
        let text = base64(&[0xfb; 64]);
        text.replace('+', "-").replace('/', "_")
    };
    for (name, sig) in [
        ("envelope: signature of 63 bytes", base64(&first(63))),
        ("envelope: signature of 65 bytes", base64(&[bytes.as_slice(), &[0]].concat())),
        ("envelope: empty signature", String::new()),
        ("envelope: signature in url-safe base64", url_safe),
        ("envelope: signature without padding", of_a.1.trim_end_matches('=').to_owned()),
        ("envelope: signature with stray bits", last_bits),
        ("envelope: signature with a space", format!(" {}", of_a.1)),
        ("envelope: signature in hexadecimal", "00".repeat(64)),
    ] {
        fault(name, ONE, &signed(&[letters(&sig)]), &not_a_signature);
    }
    for (name, id) in [
        ("envelope: key id in upper case", a.id.to_uppercase()),
        ("envelope: key id with its kind", format!("sha256:{}", a.id)),
        ("envelope: empty key id", String::new()),
    ] {
        let message = format!("envelope's key id `{id}` is not the SHA-256 of a public key in lower-case hexadecimal");
        fault(name, ONE, &signed(&[(id, of_a.1.clone())]), &message);
    }
}
