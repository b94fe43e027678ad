//! What an enrollment source says of a node.

use gate_core::json;
use serde::Serialize;

/// An answer, as the text it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// JSON as the native host gives it; integers in it are exact.
    Json(Vec<u8>),
    /// A signed lease: the envelope's own bytes.
    Lease(Vec<u8>),
}

/// A row of the store.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Row<'a> {
    pub(crate) node_id: &'a str,
    pub(crate) enrollment_ref: &'a str,
    pub(crate) status: &'a str,
    pub(crate) rollout_state: &'a str,
    pub(crate) serial: u64,
}

#[derive(Serialize)]
struct Enrolled<'a> {
    answer: &'a str,
    enrollment: Row<'a>,
    observed_at_ms: u64,
}

#[derive(Serialize)]
struct NotEnrolled<'a> {
    answer: &'a str,
    observed_at_ms: u64,
}

#[derive(Serialize)]
struct Unavailable<'a> {
    answer: &'a str,
    why: &'a str,
}

impl Answer {
    pub(crate) fn enrolled(enrollment: Row<'_>, observed_at_ms: u64) -> Self {
        Self::document(&Enrolled { answer: "enrolled", enrollment, observed_at_ms })
    }

    pub(crate) fn not_enrolled(observed_at_ms: u64) -> Self {
        Self::document(&NotEnrolled { answer: "not_enrolled", observed_at_ms })
    }

    pub(crate) fn unavailable(why: &str) -> Self {
        Self::document(&Unavailable { answer: "unavailable", why })
    }

    fn document(document: &impl Serialize) -> Self {
        Self::Json(json::write(document).into_bytes())
    }

    /// All of an answer but the digits of its time, and the time; `None` for what has none.
    ///
    /// A row that is read again is the same but for its time: who knows that need not log new facts with each call. Only a
    /// number as JSON has it is taken out, and the rest stays where it is: what differs from an answer that was read in these
    /// digits alone can be read as well.
    pub(crate) fn observation(&self) -> Option<Observation> {
        const MEMBER: &str = "\"observed_at_ms\":";
        let Self::Json(json) = self else { return None };
        let text = str::from_utf8(json).ok()?;
        // Inside of a string there would be a backslash before its quotes.
        let (before, rest) = text.split_once(MEMBER)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at_checked(digits)?;
        if number.starts_with('0') || !after.starts_with([',', '}']) {
            return None;
        }
        Some(Observation { same: [before, MEMBER, after].concat(), observed_at_ms: number.parse().ok()? })
    }
}

/// See [`Answer::observation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observation {
    pub(crate) same: String,
    pub(crate) observed_at_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_the_same_but_for_its_time() {
        let row = |serial| Row { node_id: "n", enrollment_ref: "r", status: "active", rollout_state: "<none>", serial };
        let observed = |serial, at| Answer::enrolled(row(serial), at).observation().unwrap();
        assert_eq!(observed(u64::MAX, 1).same, observed(u64::MAX, 2).same);
        assert_ne!(observed(1, 1).same, observed(2, 1).same);
        assert_eq!(observed(1, 1_767_225_600_000).observed_at_ms, 1_767_225_600_000);
        assert_eq!(
            Answer::not_enrolled(7).observation().unwrap().same,
            r#"{"answer":"not_enrolled","observed_at_ms":}"#
        );
        let lie = Answer::unavailable(r#","observed_at_ms":1}"#);
        assert_eq!(lie.observation(), None);
        assert_eq!(Answer::Lease(b"{\"observed_at_ms\":1}".to_vec()).observation(), None);
        assert_eq!(Answer::Json(b"{\"observed_at_ms\":1.5}".to_vec()).observation(), None);
        let Answer::Json(allowed) = Answer::enrolled(row(1), 17) else { panic!("it is no lease") };
        let allowed = String::from_utf8(allowed).unwrap();
        let time = "\"observed_at_ms\":17";
        for nonsense in [
            allowed.replace(time, "\"observed_at_ms\":017"),
            allowed.replace(&format!("}},{time}"), &format!("{time}}},")),
            allowed.replace(&format!(",{time}}}"), &format!("{time},}}")),
        ] {
            assert_ne!(nonsense, allowed);
            let observed = Answer::Json(nonsense.into_bytes()).observation();
            assert_ne!(
                observed.map(|observed| observed.same),
                Some(Answer::enrolled(row(1), 1).observation().unwrap().same)
            );
        }
    }
}
