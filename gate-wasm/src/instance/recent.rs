//! Decisions that were written lately, as forms: with holes for what differs from call to call, which is the audit id, the tool
//! and the time. A call that is alike in all else is decided by filling them.
//!
//! Nothing that could have changed is believed: the facts are compared, and the verdict is asked again.

use alloc::vec::Vec;
use gate_core::{AuditId, Digest, Gate, ToolName, Verdict};

/// Most forms that are remembered: the answers of a node's policies, on a few facts.
const FORMS: usize = 1 << FORMS_BITS;
const FORMS_BITS: u32 = 5;

/// Longest text behind the tool: room for the longest names and a digest.
const REST_BYTES: usize = 1024;

/// What begins a call as every binding writes it, and what stands between its holes.
const CALL: [&[u8]; 3] = [b"{\"now_ms\":", b",\"audit_id\":\"", b"\",\"tool\":\""];

/// Some of the last forms of a gate, whose mode never changes.
#[derive(Debug, Default)]
pub(super) struct Recent {
    forms: Vec<Form>,
    /// Says which one goes when another comes. If it were the oldest, one form more than there is room for, in turn, and none
    /// would ever be found.
    chance: u32,
}

/// What was written of a call.
#[derive(Debug)]
struct Form {
    /// Of `rest`, so that few others have to be compared with it.
    hash: u64,
    /// The call, from behind its tool.
    rest: Vec<u8>,
    found: Found,
    /// The decision without what fills its holes.
    text: Vec<u8>,
    /// Where its holes are, in the order of [`Parts::fills`], again for each frame.
    holes: Vec<usize>,
}

/// What came of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// 0, or the number of the reason.
    pub(super) number: i32,
    /// What it was decided on.
    pub(super) facts: Digest,
    /// What the gate found, where it was asked.
    pub(super) verdict: Option<Verdict>,
}

/// A call's text in its parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    now_ms: u64,
    /// What fills the holes of a frame: its audit id, its tool and its time.
    fills: [&'a [u8]; 3],
    /// From behind the tool.
    rest: &'a [u8],
    hash: u64,
}

impl<'a> Parts<'a> {
    /// Of a text that begins as a call does. What comes behind the tool is for the reader to judge.
    pub(super) fn of(call: &'a [u8]) -> Option<Self> {
        let [start, before_audit_id, before_tool] = CALL;
        let (now, rest) = split(call.strip_prefix(start)?, b',')?;
        let (audit_id, rest) = split(rest.strip_prefix(before_audit_id)?, b'"')?;
        let (tool, rest) = split(rest.strip_prefix(before_tool)?, b'"')?;
        // A number has no zero in front, and nineteen digits are below 2^64.
        if !matches!(now, [b'1'..=b'9', ..]) || now.len() > 19 || rest.len() > REST_BYTES {
            return None;
        }
        let mut now_ms = 0;
        for digit in now {
            now_ms = now_ms * 10 + u64::from(digit.is_ascii_digit().then_some(digit & 15)?);
        }
        let (audit_id, tool) = (core::str::from_utf8(audit_id).ok()?, core::str::from_utf8(tool).ok()?);
        // A form would answer it.
        let traps = cfg!(feature = "inject-trap") && tool == "gate.trap";
        if !AuditId::is_one(audit_id) || !ToolName::is_one(tool) || traps {
            return None;
        }
        let fills = [audit_id.as_bytes(), tool.as_bytes(), now];
        Some(Self { now_ms, fills, rest, hash: hash(rest) })
    }
}

/// What stands before the first such byte, and all from there.
fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    text.split_at_checked(text.iter().position(|byte| *byte == at)?)
}

/// A number for a text. Two texts may have the same one: then they are compared for nothing.
fn hash(text: &[u8]) -> u64 {
    let (words, _) = text.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    words.fold(0, |hash: u64, word| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95))
}

impl Recent {
    /// Appends the decision on a call of a known form, and gives its number.
    pub(super) fn write_to(&self, out: &mut Vec<u8>, gate: &Gate, call: Parts<'_>) -> Option<i32> {
        let Form { found, text, holes, .. } =
            self.forms.iter().find(|form| form.hash == call.hash && form.rest == call.rest)?;
        if found.facts != gate.facts_id() || found.verdict.is_some_and(|verdict| gate.verdict(call.now_ms) != verdict) {
            return None;
        }
        let mut from = 0;
        for (at, hole) in holes.iter().enumerate() {
            out.extend_from_slice(text.get(from..*hole).unwrap_or_default());
            out.extend_from_slice(call.fills.get(at % call.fills.len()).copied().unwrap_or_default());
            from = *hole;
        }
        out.extend_from_slice(text.get(from..).unwrap_or_default());
        Some(found.number)
    }

    /// Remembers a decision: what was written of it up to its frames, these, and where what fills their holes ends in them.
    pub(super) fn remember(&mut self, call: Parts<'_>, found: Found, start: &[u8], frames: &[u8], ends: &[usize]) {
        let (mut text, mut holes) = (Vec::from(start), Vec::new());
        let mut from = 0;
        for (at, end) in ends.iter().enumerate() {
            let fill = call.fills.get(at % call.fills.len()).map_or(0, |fill| fill.len());
            text.extend_from_slice(frames.get(from..*end - fill).unwrap_or_default());
            holes.push(text.len());
            from = *end;
        }
        text.extend_from_slice(frames.get(from..).unwrap_or_default());
        text.push(b'}');
        // None has the same `rest`: it has the id of the facts in it, and on the same facts the one verdict that a form does not
        // have is that the answer is stale, which is never remembered.
        let form = Form { hash: call.hash, rest: call.rest.into(), found, text, holes };
        if self.forms.len() < FORMS {
            self.forms.push(form);
            return;
        }
        // Numerical Recipes, "An Even Quicker Generator": its highest bits are the best.
        self.chance = self.chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if let Some(other) = self.forms.get_mut((self.chance >> (u32::BITS - FORMS_BITS)) as usize) {
            *other = form;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Instance;
    use alloc::{borrow::ToOwned, format, string::String};

    /// A gate that was told nothing but its mode, and the id of what it decides on.
    fn gate(mode: &str) -> (Instance, Digest) {
        let mut instance = Instance::new();
        assert_eq!(instance.configure(format!(r#"{{"mode":"{mode}"}}"#).as_bytes()), 0);
        let facts = instance.gate.facts_id();
        (instance, facts)
    }

    fn is_known(instance: &Instance, call: &[u8]) -> bool {
        let parts = Parts::of(call);
        parts.is_some_and(|call| instance.recent.write_to(&mut Vec::new(), &instance.gate, call).is_some())
    }

    fn decide(instance: &mut Instance, call: &[u8]) -> (i32, String) {
        let number = instance.decide(call);
        (number, String::from_utf8(instance.output().to_owned()).unwrap())
    }

    #[test]
    fn a_call_is_answered_as_if_none_had_come_before_whatever_its_bytes() {
        let (mut alone, mut remembered) = (0, 0);
        for (mode, optional) in [
            ("off", ""),
            ("enforce", r#","policy_ref":"fleet@1.0.0""#),
            ("advisory", r#","policy_ref":"a\"b","policy_detail":"\u00e9""#),
        ] {
            let (mut warm, facts) = gate(mode);
            let call = format!(
                r#"{{"now_ms":120,"audit_id":"a-1","tool":"tool.echo","policy":"policy: allowed"{optional},"facts_logged":"{facts}"}}"#
            );
            for at in 0..=call.len() {
                let (before, after) = call.as_bytes().split_at(at);
                let bytes = b"0123456789eE+-.aZ_ \t\n\"\\/:,{}[]\x00\x1f\x7f\x80\xff";
                for inserted in bytes.chunks(1).chain([&[][..]]) {
                    for cut in [0, 1, 3, 7] {
                        let changed = [before, inserted, after.get(cut..).unwrap_or_default()].concat();
                        // So that the changed one differs from one that is remembered, if it differs from it at all.
                        decide(&mut warm, call.as_bytes());
                        let known = is_known(&warm, &changed);
                        let answered = decide(&mut warm, &changed);
                        warm.recent = Recent::default();
                        assert_eq!(answered, decide(&mut warm, &changed), "{}", String::from_utf8_lossy(&changed));
                        *(if known { &mut remembered } else { &mut alone }) += 1;
                    }
                }
            }
        }
        assert!(remembered > 400 && alone > 10_000, "{remembered} were remembered, {alone} were not");
    }

    #[test]
    fn no_more_forms_are_remembered_than_there_is_room_for_and_some_other_goes() {
        let (mut instance, facts) = gate("off");
        let call = |form: usize| {
            format!(
                r#"{{"now_ms":1,"audit_id":"a","tool":"t","policy":"policy: allowed","policy_ref":"p{form}","facts_logged":"{facts}"}}"#
            )
        };
        let is_known = |instance: &Instance, form| is_known(instance, call(form).as_bytes());
        for form in 0..3 * FORMS {
            assert!(!is_known(&instance, form));
            assert_eq!(instance.decide(call(form).as_bytes()), 0);
            assert!(is_known(&instance, form));
            let known = (0..3 * FORMS).filter(|form| is_known(&instance, *form)).count();
            assert_eq!(known, FORMS.min(form + 1));
        }
        // One form more than there is room for, in turn: with the oldest gone each time, none would ever be found.
        let mut found = 0;
        for at in 0..100 * (FORMS + 1) {
            found += usize::from(is_known(&instance, at % (FORMS + 1)));
            instance.decide(call(at % (FORMS + 1)).as_bytes());
        }
        assert!(found > 90 * FORMS, "{found} were found");
        assert_eq!(instance.configure(br#"{"mode":"enforce"}"#), 0);
        assert!((0..3 * FORMS).all(|form| !is_known(&instance, form)), "the mode is another");
    }
}
