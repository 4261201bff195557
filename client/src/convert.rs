//! Protobuf's times as the standard library's.

use std::time::{Duration, SystemTime};

/// `None` for a time that is absent or that `SystemTime` cannot hold.
pub(crate) fn time(timestamp: Option<prost_types::Timestamp>) -> Option<SystemTime> {
    SystemTime::try_from(timestamp?).ok()
}

/// Zero for a duration that is absent or negative.
pub(crate) fn duration(duration: Option<prost_types::Duration>) -> Duration {
    duration.and_then(|duration| Duration::try_from(duration).ok()).unwrap_or_default()
}

/// At most the longest duration that protobuf allows: 10,000 years.
pub(crate) fn to_proto(duration: Duration) -> prost_types::Duration {
    const LONGEST: Duration = Duration::from_secs(315_576_000_000);
    let duration = duration.min(LONGEST);
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).expect("the longest duration fits"),
        nanos: i32::try_from(duration.subsec_nanos()).expect("a second has fewer nanoseconds than i32::MAX"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_duration_becomes_the_longest_that_protobuf_allows() {
        assert_eq!(to_proto(Duration::MAX).seconds, 315_576_000_000);
        assert_eq!(to_proto(Duration::from_millis(1500)), prost_types::Duration { seconds: 1, nanos: 500_000_000 });
    }

    #[test]
    fn a_negative_duration_is_zero() {
        assert_eq!(duration(Some(prost_types::Duration { seconds: -1, nanos: 0 })), Duration::ZERO);
    }
}
