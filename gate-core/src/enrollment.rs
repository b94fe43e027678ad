//! What a source of enrollments can say of a node.

use alloc::string::String;
use core::fmt;
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    identity::{EnrollmentRef, NodeId},
    json,
};

/// An open set of words: the named ones mean something, any other is kept as it came and is never good.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[cfg_attr(feature = "schema", schemars(into = "String"))]
        #[serde(from = "String")]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
            /// Any other word. Denies.
            Unknown(String),
        }

        impl $name {
            /// The named words, in order.
            pub const KNOWN: &'static [Self] = &[$(Self::$variant),+];

            /// Never fails: a word that is not named is `Unknown`, and denies.
            pub fn from_word(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)+
                    other => Self::Unknown(other.into()),
                }
            }

            /// The word on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Unknown(word) => word,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl json::Read for $name {
            fn read(value: json::Value<'_>) -> Self {
                Self::from_word(value.text())
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                Self::from_word(&word)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.as_str().into()
            }
        }
    };
}

words! {
    /// Whether the node is enrolled. Only `active` is good.
    Status {
        /// Enrolled.
        Active = "active",
        /// Enrolled once, withdrawn since.
        Revoked = "revoked",
    }
}

words! {
    /// Where the node's rollout stands.
    RolloutState {
        /// No rollout was ever ordered. Good.
        None = "<none>",
        /// Ordered, not yet seen by the node. Good.
        Pending = "pending",
        /// Seen by the node. Good.
        Acknowledged = "acknowledged",
        /// Running. Good.
        Active = "active",
        /// Taken back. Denies.
        RolledBack = "rolled_back",
        /// Did not come up. Denies.
        Failed = "failed",
    }
}

impl RolloutState {
    /// Whether a node in this state is healthy. Every state that is not named as good is bad.
    pub fn is_coherent(&self) -> bool {
        match self {
            Self::None | Self::Pending | Self::Acknowledged | Self::Active => true,
            Self::RolledBack | Self::Failed | Self::Unknown(_) => false,
        }
    }
}

/// A row of an enrollment source: the ref that a node was enrolled with and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Enrollment {
    /// The node.
    pub node_id: NodeId,
    /// The ref it was enrolled with.
    pub enrollment_ref: EnrollmentRef,
    /// Active or revoked.
    pub status: Status,
    /// Where its rollout stands.
    pub rollout_state: RolloutState,
    /// Grows with every change of the row; starts at 1.
    pub serial: u64,
}

/// What a source answered about one node. Times are milliseconds since the Unix epoch, by the observer's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "answer", rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// The source failed, timed out, or answered nonsense.
    Unavailable {
        /// What went wrong, for the frame's `detail`.
        why: String,
    },
    /// The source answered: no such node.
    NotEnrolled {
        /// When the source said so.
        observed_at_ms: u64,
    },
    /// The source answered with a row.
    Enrolled {
        /// The row.
        enrollment: Enrollment,
        /// When the source said so.
        observed_at_ms: u64,
    },
}

crate::read_object!(Enrollment { node_id, enrollment_ref, status, rollout_state, serial });

impl json::Read for Answer {
    fn read(value: json::Value<'_>) -> Self {
        value.object(|object| {
            let answer: String = object.take("answer");
            match answer.as_str() {
                "not_enrolled" => Self::NotEnrolled { observed_at_ms: object.take("observed_at_ms") },
                "enrolled" => Self::Enrolled {
                    enrollment: object.take("enrollment"),
                    observed_at_ms: object.take("observed_at_ms"),
                },
                _ => {
                    if answer != "unavailable" {
                        let expected = "`unavailable`, `not_enrolled` or `enrolled`";
                        object.fail(json::Error::unknown_word(&answer, expected));
                    }
                    Self::Unavailable { why: object.take("why") }
                }
            }
        })
    }
}
