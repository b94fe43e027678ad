//! The recovery table: every combination, exactly one row.

use crate::wal::{
    recovery::{Action, Conditions, Failure, Later, Log, Mark, Reach, Start, TABLE},
    scan::Tail,
};

fn all() -> Vec<Conditions> {
    let tails = [Tail::Clean, Tail::Torn, Tail::Short, Tail::Zeros, Tail::Bad, Tail::Misplaced];
    let mut all = Vec::new();
    for mark in [Mark::Absent, Mark::Malformed, Mark::Zero, Mark::Positive] {
        for log in tails.into_iter().map(Log::Present).chain([Log::Absent, Log::Sealed, Log::Broken]) {
            for later in [Later::None, Later::Valid] {
                for reach in [Reach::Below, Reach::Enough] {
                    for start in [Start::Known, Start::Unknown] {
                        all.push(Conditions { mark, log, later, reach, start });
                    }
                }
            }
        }
    }
    all
}

#[test]
fn exactly_one_row_fires_for_every_combination() {
    let all = all();
    assert_eq!(all.len(), 4 * 9 * 2 * 2 * 2);
    for found in &all {
        let firing: Vec<_> = TABLE.iter().filter(|row| row.fires(found)).map(|row| row.name).collect();
        assert_eq!(firing.len(), 1, "{found:?}: {firing:?}");
    }
    for row in TABLE {
        assert!(all.iter().any(|found| row.fires(found)), "row `{}` never fires", row.name);
    }
}

#[test]
fn the_log_is_touched_only_where_nothing_committed_can_be_lost() {
    for found in all() {
        let action = TABLE.iter().find(|row| row.fires(&found)).unwrap().action;
        let knows_the_bound = matches!(found.mark, Mark::Zero | Mark::Positive);
        match action {
            Action::Repair => {
                assert!(knows_the_bound && found.reach == Reach::Enough && found.later == Later::None, "{found:?}");
                let in_the_live_file =
                    matches!(found.log, Log::Present(tail) if tail != Tail::Misplaced && tail != Tail::Clean);
                assert!(in_the_live_file && found.start == Start::Known, "{found:?}");
            }
            Action::Open => {
                assert!(knows_the_bound && found.reach == Reach::Enough, "{found:?}");
                assert!(matches!(found.log, Log::Present(Tail::Clean) | Log::Sealed), "{found:?}");
                assert_eq!(found.start, Start::Known, "{found:?}");
            }
            Action::Init => {
                assert!(matches!(found.mark, Mark::Absent | Mark::Zero) && found.log == Log::Absent, "{found:?}");
            }
            Action::Fail(failure) => {
                assert_eq!(failure == Failure::LogLost, found.log == Log::Absent && found.mark == Mark::Positive);
            }
        }
    }
}
