use super::*;

fn outgoing(bytes: usize) -> Outgoing {
    Outgoing { id: String::new(), kind: Kind::Decision, node_id: None, record: LogRecord::default(), bytes }
}

#[test]
fn a_window_is_cut_into_requests_that_hold_all_of_it_once_and_are_as_large_as_they_may_be() {
    let windows: [Vec<usize>; 7] = [
        vec![],
        vec![REQUEST_BYTES + 1],
        vec![10; WINDOW_FRAMES],
        vec![REQUEST_BYTES / 2; 5],
        vec![1, REQUEST_BYTES, 1, 1, REQUEST_BYTES + 1, 1],
        (0..REQUEST_RECORDS + 1).collect(),
        (0..900).map(|at| at * 37 % 9000).collect(),
    ];
    for sizes in windows {
        let window: Vec<_> = sizes.iter().map(|bytes| outgoing(*bytes)).collect();
        let requests = requests(&window);
        let held: Vec<_> = requests.iter().cloned().flatten().collect();
        assert_eq!(held, (0..window.len()).collect::<Vec<_>>());
        let bytes = |range: &Range<usize>| sizes[range.clone()].iter().sum::<usize>();
        for (at, request) in requests.iter().enumerate() {
            assert!(request.len() <= REQUEST_RECORDS && (request.len() == 1 || bytes(request) <= REQUEST_BYTES));
            if let Some(next) = requests.get(at + 1) {
                let is_full = request.len() == REQUEST_RECORDS || bytes(request) + sizes[next.start] > REQUEST_BYTES;
                assert!(is_full, "{request:?} of {sizes:?}");
            }
        }
    }
}

#[test]
fn pauses_double_up_to_a_minute_and_half_of_each_is_random() {
    for (tries, most_ms) in [(0, 500), (1, 1000), (2, 2000), (6, 32_000), (7, 60_000), (31, 60_000), (u32::MAX, 60_000)]
    {
        let most = Duration::from_millis(most_ms);
        let pauses: Vec<_> = (0..100).map(|_| back_off(tries)).collect();
        assert!(pauses.iter().all(|pause| most / 2 <= *pause && *pause <= most), "{tries}: {pauses:?}");
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{tries}");
    }
}

#[test]
fn errors_go_before_decisions_and_these_before_the_rest() {
    let mut kinds = Kind::ALL;
    kinds.sort_by_key(|kind| priority(*kind));
    assert_eq!(kinds, [Kind::Error, Kind::Decision, Kind::Facts, Kind::Action, Kind::Lifecycle]);
}
