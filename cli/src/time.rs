//! Times as people and programs read them. Everything inside is milliseconds since the Unix epoch.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::usage::quoted;

pub(crate) use host_native::gate::now_ms;

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

/// Reads RFC 3339, from 1970 on.
pub(crate) fn parse_timestamp(text: &str) -> Option<u64> {
    text.parse::<Timestamp>().ok().and_then(|timestamp| u64::try_from(timestamp.as_millisecond()).ok())
}

/// Reads a point in time: RFC 3339, or how long ago (`90s`, `15m`, `2h`, `7d`).
pub(crate) fn parse_since(text: &str) -> Result<u64, String> {
    if let Some(ms) = parse_timestamp(text) {
        return Ok(ms);
    }
    match duration(text).and_then(|duration| u64::try_from(duration.as_millis()).ok()) {
        Some(ms) => Ok(now_ms().saturating_sub(ms)),
        None => Err(format!(
            "time {} is not known: use one such as `2026-01-31T08:00:00Z`, or an age such as `15m`, `2h` or `7d`",
            quoted(text)
        )),
    }
}

/// Days have no fixed length in general; here one is 24 hours.
fn duration(text: &str) -> Option<Duration> {
    let duration = match text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok()) {
        Some(days) => Some(SignedDuration::from_hours(i64::from(days).saturating_mul(24))),
        None => text.parse::<SignedDuration>().ok(),
    };
    duration.and_then(|duration| Duration::try_from(duration).ok())
}

/// Reads how long something may take.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("time {} is not known: use one such as `30s`, `5m` or `1h`", quoted(text)))
}

/// So long from now.
pub(crate) fn from_now(duration: Duration) -> u64 {
    now_ms().saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_to_the_millisecond_and_read_back() {
        assert_eq!(rfc3339(1_706_688_000_000), "2024-01-31T08:00:00.000Z");
        assert_eq!(parse_since("2024-01-31T08:00:00Z"), Ok(1_706_688_000_000));
        assert_eq!(parse_since("2024-01-31T09:00:00.5+01:00"), Ok(1_706_688_000_500));
        assert_eq!(with_age(1_706_688_000_000, 1_706_688_061_000), "2024-01-31T08:00:00.000Z (1 min ago)");
        assert_eq!(age(2, 1), "in the future");
        assert_eq!(age(0, 86_400_000 * 3), "3 d ago");
    }

    #[test]
    fn an_age_counts_back_from_now() {
        for (text, ms) in [("90s", 90_000), ("15m", 900_000), ("2h", 7_200_000), ("7d", 604_800_000)] {
            let expected = now_ms() - ms;
            assert!(parse_since(text).unwrap().abs_diff(expected) < 5_000, "{text}");
        }
        for wrong in ["", "soon", "15", "-5m", "2024-01-31"] {
            let refusal = format!("time `{wrong}` is not known: use one such as `2026-01-31T08:00:00Z`, ");
            assert!(parse_since(wrong).unwrap_err().starts_with(&refusal), "{wrong}");
        }
    }
}
