//! Calls that came lately. Most calls differ from one before in nothing but their time and their audit id: what is written of
//! them is what was written of that one, with these two in their places.
//!
//! Nothing that could have changed is believed: the facts are compared, and the verdict is asked again.

use alloc::vec::Vec;
use gate_core::{AuditId, Digest, Gate, Verdict};

/// Most that are remembered: what the tools of a node are called with, again and again.
const CALLS: usize = 1 << CALLS_BITS;
const CALLS_BITS: u32 = 5;

/// Longest text behind the audit id: room for the longest names and a digest.
const SHARED_BYTES: usize = 1024;

/// What begins a call as every binding writes it, and what stands between its time and its audit id.
const CALL: [&[u8]; 2] = [b"{\"now_ms\":", b",\"audit_id\":\""];

/// What begins the frames of a decision up to an audit id, unless the frame of the facts comes first.
const FRAMES: &[u8] = b"[{\"kind\":\"autonomy.decision\",\"audit_id\":\"";

/// What ends them, behind the time of the last one, unless it has a detail.
const END: &[u8] = b"}}]";

/// Some of the last calls of a gate, whose mode never changes.
#[derive(Debug, Default)]
pub(super) struct Recent {
    written: Vec<Written>,
    /// Says which one goes when another comes. If it were the oldest, one kind of call more than there is room for, in turn, and
    /// none would ever be found.
    chance: u32,
}

/// What was written of a call.
#[derive(Debug)]
struct Written {
    /// Of `shared`, so that few others have to be compared with it.
    hash: u64,
    /// The call, from behind its audit id.
    shared: Vec<u8>,
    found: Found,
    /// The decision up to its frames, and these from behind the audit id up to the time.
    parts: [Vec<u8>; 2],
}

/// What came of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// 0, or the number of the reason.
    pub(super) number: i32,
    /// What it was decided on.
    pub(super) facts: Digest,
    /// Whether the gate was asked. It found a pass, then: a decision that it has something against is not remembered.
    pub(super) asked: bool,
}

/// A call's text in its parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    now: &'a [u8],
    now_ms: u64,
    audit_id: &'a [u8],
    /// From behind the audit id.
    shared: &'a [u8],
    hash: u64,
}

impl<'a> Parts<'a> {
    /// Of a text that begins as a call does. What comes behind the audit id is for the reader to judge.
    pub(super) fn of(call: &'a [u8]) -> Option<Self> {
        let [start, between] = CALL;
        let (now, rest) = split(call.strip_prefix(start)?, b',')?;
        let (audit_id, shared) = split(rest.strip_prefix(between)?, b'"')?;
        // A number has no zero in front, and nineteen digits are below 2^64.
        let is_time = (1..20).contains(&now.len()) && now.first() != Some(&b'0') && now.iter().all(u8::is_ascii_digit);
        if !is_time || !AuditId::is_one(core::str::from_utf8(audit_id).ok()?) || shared.len() > SHARED_BYTES {
            return None;
        }
        let now_ms = now.iter().fold(0, |number, digit| number * 10 + u64::from(digit & 15));
        Some(Self { now, now_ms, audit_id, shared, hash: hash(shared) })
    }
}

/// What stands before the first such byte, and all from there.
fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    text.split_at_checked(text.iter().position(|byte| *byte == at)?)
}

/// A number for a text. Two texts may have the same one: then they are compared for nothing.
fn hash(text: &[u8]) -> u64 {
    let (words, rest) = text.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word)).chain(rest.iter().map(|byte| u64::from(*byte)));
    words.fold(0, |hash: u64, word| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95))
}

impl Recent {
    /// Appends the decision on a call like one before, and gives its number.
    pub(super) fn write_to(&self, out: &mut Vec<u8>, gate: &Gate, call: Parts<'_>) -> Option<i32> {
        let written = self.written.iter().find(|written| written.hash == call.hash && written.shared == call.shared)?;
        let Written { found, parts: [start, middle], .. } = written;
        if found.facts != gate.facts_id() || (found.asked && gate.verdict(call.now_ms) != Verdict::Pass) {
            return None;
        }
        for part in [start, FRAMES, call.audit_id, middle, call.now, END, b"}"] {
            out.extend_from_slice(part);
        }
        Some(found.number)
    }

    /// Remembers a decision with one frame that ends with its time. One that fails ends with a detail, and that of a new fact
    /// comes once.
    pub(super) fn remember(&mut self, call: Parts<'_>, found: Found, start: &[u8], frames: &[u8]) {
        let after = frames.strip_prefix(FRAMES).and_then(|rest| rest.strip_prefix(call.audit_id));
        let middle = after.and_then(|rest| rest.strip_suffix(END)?.strip_suffix(call.now));
        let Some(middle) = middle else { return };
        // None has the same text: it would have been found, or it was written on other facts, whose id is in the text.
        let written =
            Written { hash: call.hash, shared: call.shared.into(), found, parts: [start.into(), middle.into()] };
        if self.written.len() < CALLS {
            self.written.push(written);
            return;
        }
        // Numerical Recipes, "An Even Quicker Generator": its highest bits are the best.
        self.chance = self.chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if let Some(other) = self.written.get_mut((self.chance >> (u32::BITS - CALLS_BITS)) as usize) {
            *other = written;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Instance;
    use alloc::{borrow::ToOwned, format, string::String};

    /// A gate in `off` that was told nothing, and the id of what it decides on.
    fn gate() -> (Instance, Digest) {
        let mut instance = Instance::new();
        assert_eq!(instance.configure(br#"{"mode":"off"}"#), 0);
        let facts = instance.gate.facts_id();
        (instance, facts)
    }

    fn decide(instance: &mut Instance, call: &[u8]) -> (i32, String) {
        let number = instance.decide(call);
        (number, String::from_utf8(instance.output().to_owned()).unwrap())
    }

    #[test]
    fn a_call_is_answered_as_if_none_had_come_before_whatever_its_bytes() {
        let (mut warm, facts) = gate();
        let (mut alone, mut remembered) = (0, 0);
        for optional in ["", r#","policy_ref":"fleet@1.0.0""#, r#","policy_ref":"a\"b","policy_detail":"\u00e9""#] {
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
                        let known = Parts::of(&changed)
                            .is_some_and(|call| warm.recent.write_to(&mut Vec::new(), &warm.gate, call).is_some());
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
    fn no_more_calls_are_remembered_than_there_is_room_for_and_some_other_goes() {
        let (mut instance, facts) = gate();
        let call = |tool: usize| {
            format!(
                r#"{{"now_ms":1,"audit_id":"a","tool":"t{tool}","policy":"policy: allowed","facts_logged":"{facts}"}}"#
            )
        };
        let is_known = |instance: &Instance, tool| {
            let call = call(tool);
            let parts = Parts::of(call.as_bytes()).unwrap();
            instance.recent.write_to(&mut Vec::new(), &instance.gate, parts).is_some()
        };
        for tool in 0..3 * CALLS {
            assert!(!is_known(&instance, tool));
            assert_eq!(instance.decide(call(tool).as_bytes()), 0);
            assert!(is_known(&instance, tool));
            let known = (0..3 * CALLS).filter(|tool| is_known(&instance, *tool)).count();
            assert_eq!(known, CALLS.min(tool + 1));
        }
        // One kind more than there is room for, in turn: with the oldest gone each time, none would ever be found.
        let mut found = 0;
        for at in 0..100 * (CALLS + 1) {
            found += usize::from(is_known(&instance, at % (CALLS + 1)));
            instance.decide(call(at % (CALLS + 1)).as_bytes());
        }
        assert!(found > 90 * CALLS, "{found} were found");
        assert_eq!(instance.configure(br#"{"mode":"enforce"}"#), 0);
        assert!((0..3 * CALLS).all(|tool| !is_known(&instance, tool)), "the mode is another");
    }
}
