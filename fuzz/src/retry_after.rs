//! The wait that an upstream asks for: `Retry-After` (RFC 9110 section 10.2.3).

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER};
use tokencache_server::{error::ErrorKind, provider::http::Answer, time::Timestamp};

/// From the beginning of time to its end.
const NOWS: [i64; 6] = [i64::MIN, 0, 784_111_747_000, 1_800_000_000_000, 253_402_300_799_000, i64::MAX];

const STATUSES: [u16; 6] = [429, 503, 500, 302, 404, 408];

/// A byte for the time and the status, then the header's value.
pub fn check(input: &[u8]) {
    let Some((way, value)) = crate::way_of(input, 36) else { return };
    let Ok(value) = HeaderValue::from_bytes(value) else { return };
    let now = Timestamp::from_millis(NOWS[usize::from(way / 6)]);
    let status = StatusCode::from_u16(STATUSES[usize::from(way % 6)]).expect("a status");
    let headers = HeaderMap::from_iter([(RETRY_AFTER, value.clone())]);
    let answer = Answer { host: "idp.example".into(), status, headers, body: Default::default(), fault: None };

    let wait = answer.retry_after(now);
    assert!(wait.is_none_or(|wait| (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&wait)), "{wait:?}");
    if let Some(expected) = expected(value.as_bytes(), now) {
        assert_eq!(wait, Some(expected));
    }
    // Whoever asks later waits no longer, and whether there is a wait does not depend on when one asks.
    let later = answer.retry_after(now.after(Duration::from_secs(10)));
    assert!(later <= wait && later.is_some() == wait.is_some(), "{later:?} {wait:?}");

    let failure = answer.failure(now);
    assert_eq!(failure.retry_after(), wait);
    assert_eq!(failure.kind() == ErrorKind::UpstreamThrottled, status.as_u16() == 429);
    let shown = failure.to_string();
    assert!(shown.len() < 80 && shown.starts_with(&format!("idp.example answered {}", status.as_u16())), "{shown}");
    let shed = status.as_u16() == 503;
    assert_eq!(answer.is_ambiguous(), matches!(status.as_u16(), 500 | 408) && !shed);
}

/// Where it is a number or a date in the preferred form; the two obsolete forms are left to the broker.
fn expected(value: &[u8], now: Timestamp) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.is_ascii())?.trim_matches([' ', '\t']);
    let seconds = if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
        let digits = text.trim_start_matches('0');
        if digits.len() > 10 { u64::MAX } else { digits.parse().unwrap_or(0) }
    } else {
        let until = i128::from(date(text)?) * 1000 - i128::from(now.as_millis());
        return Some(Duration::from_millis(until.clamp(1000, 3_600_000).try_into().expect("an hour")));
    };
    Some(Duration::from_secs(seconds.clamp(1, 3600)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as seconds since 1970; none for what is earlier.
fn date(text: &str) -> Option<i64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    const DAYS: &str = "ThuFriSatSunMonTueWed";
    if text.len() != 29 || &text[3..5] != ", " || &text[25..] != " GMT" {
        return None;
    }
    let number = |from: usize, to: usize| {
        let digits = &text[from..to];
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<i64>().expect("digits"))
    };
    let month = MONTHS.find(&text[8..11]).filter(|at| at % 3 == 0)? as i64 / 3;
    let (day, year) = (number(5, 7)?, number(12, 16)?);
    let (hour, minute, second) = (number(17, 19)?, number(20, 22)?, number(23, 25)?);
    let separated = [7, 11, 16].iter().all(|at| text.as_bytes()[*at] == b' ')
        && [19, 22].iter().all(|at| text.as_bytes()[*at] == b':');
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let valid = (1..=lengths[month as usize]).contains(&day) && hour < 24 && minute < 60 && second < 60;
    if !separated || !valid || year < 1970 {
        return None;
    }
    let years: i64 = (1970..year).map(|y| if y % 4 == 0 && (y % 100 != 0 || y % 400 == 0) { 366 } else { 365 }).sum();
    let days = years + lengths[..month as usize].iter().sum::<i64>() + day - 1;
    let weekday = DAYS.find(&text[..3]).filter(|at| at % 3 == 0)? as i64 / 3;
    (days % 7 == weekday).then_some(((days * 24 + hour) * 60 + minute) * 60 + second)
}
