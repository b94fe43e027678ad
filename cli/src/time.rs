//! Times as people and programs read them. Everything inside is milliseconds since the Unix epoch.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// Now.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC, to the millisecond.
pub(crate) fn rfc3339(ms: u64) -> String {
    let timestamp = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    timestamp.map_or_else(|| format!("{ms} ms"), |timestamp| format!("{timestamp:.3}"))
}

/// `rfc3339`, and how long ago that was.
pub(crate) fn with_age(ms: u64, now_ms: u64) -> String {
    format!("{} ({})", rfc3339(ms), age(ms, now_ms))
}

fn age(ms: u64, now_ms: u64) -> String {
    let Some(seconds) = now_ms.checked_sub(ms).map(|ms| ms / 1000) else {
        return "in the future".to_owned();
    };
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..86_400 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_to_the_millisecond() {
        assert_eq!(rfc3339(1_706_688_000_000), "2024-01-31T08:00:00.000Z");
        assert_eq!(with_age(1_706_688_000_000, 1_706_688_061_000), "2024-01-31T08:00:00.000Z (1 min ago)");
        assert_eq!(age(2, 1), "in the future");
        assert_eq!(age(0, 86_400_000 * 3), "3 d ago");
    }
}
