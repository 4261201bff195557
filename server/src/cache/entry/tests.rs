use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;
use crate::types::{Fingerprint, Generation, Secret, Terms};

const DAY: u64 = 86_400;

fn token(issued_at: i64, lifetime: Duration, window: Option<Duration>, seed: u64) -> Token {
    token_of(Mint::Ahead, issued_at, lifetime, window, seed)
}

fn token_of(mint: Mint, issued_at: i64, lifetime: Duration, window: Option<Duration>, seed: u64) -> Token {
    let issued_at = Timestamp::from_millis(issued_at);
    let expires_at = issued_at.after(lifetime);
    let access_token = Secret::from("t");
    Token {
        fingerprint: Fingerprint::of(&access_token),
        access_token,
        terms: Terms::new("Bearer".into(), vec![], BTreeMap::new()),
        issued_at,
        expires_at,
        refresh_at: refresh_at(issued_at, expires_at, window, mint, &mut StdRng::seed_from_u64(seed)),
        generation: Generation::new(1),
    }
}

fn lifetimes() -> impl Strategy<Value = Duration> {
    (1_000..=30 * DAY * 1_000).prop_map(Duration::from_millis)
}

fn windows() -> impl Strategy<Value = Option<Duration>> {
    proptest::option::of((0..=60 * DAY).prop_map(Duration::from_secs))
}

proptest! {
    #[test]
    fn a_new_token_is_fresh_and_replaced_in_its_second_half_or_a_tenth_sooner_where_many_are_minted(
        issued in -1_000_000_000_000i64..4_000_000_000_000, lifetime in lifetimes(), window in windows(), seed: u64,
        mint in prop_oneof![Just(Mint::Ahead), Just(Mint::Needed)],
    ) {
        let token = token_of(mint, issued, lifetime, window, seed);
        prop_assert_eq!(freshness(&token, token.issued_at, Duration::ZERO), Freshness::Fresh);
        let first = if mint == Mint::Needed { lifetime * 2 / 5 } else { lifetime / 2 };
        prop_assert!(token.refresh_at >= token.issued_at.after(first));
        prop_assert!(token.refresh_at <= token.expires_at);
    }

    #[test]
    fn jitter_only_makes_a_refresh_earlier_and_by_a_tenth_of_the_lifetime_at_most(
        lifetime in lifetimes(), window in windows(), seed: u64,
    ) {
        let token = token(0, lifetime, window, seed);
        let latest = token.expires_at.before(window.map_or(lifetime / 3, |w| w.min(lifetime / 3)));
        if window.is_some() {
            prop_assert!(token.refresh_at <= latest);
            prop_assert!(latest.since(token.refresh_at) <= lifetime / 10 + Duration::from_millis(1));
        } else {
            prop_assert!(token.refresh_at <= token.expires_at.before((lifetime / 3).min(Duration::from_secs(300))));
        }
    }

    #[test]
    fn freshness_only_ever_gets_worse(
        lifetime in lifetimes(), window in windows(), seed: u64, min_validity in 0u64..DAY, times in proptest::collection::vec(0.0f64..1.2, 2..20),
    ) {
        let rank = |f| match f { Freshness::Fresh => 0, Freshness::RefreshDue => 1, Freshness::Urgent => 2, Freshness::Expired => 3 };
        let token = token(0, lifetime, window, seed);
        let mut times = times;
        times.sort_by(f64::total_cmp);
        let ranks: Vec<_> = times.iter()
            .map(|t| rank(freshness(&token, Timestamp::from_millis(0).after(lifetime.mul_f64(*t)), Duration::from_secs(min_validity))))
            .collect();
        prop_assert!(ranks.is_sorted(), "{:?}", ranks);
    }

    #[test]
    fn what_is_served_without_waiting_lasts_as_long_as_asked(
        lifetime in lifetimes(), window in windows(), seed: u64, min_validity in 0u64..DAY, at in 0.0f64..1.5,
    ) {
        let token = token(0, lifetime, window, seed);
        let now = token.issued_at.after(lifetime.mul_f64(at));
        let min_validity = Duration::from_secs(min_validity);
        if matches!(freshness(&token, now, min_validity), Freshness::Fresh | Freshness::RefreshDue) {
            prop_assert!(is_servable(&token, now, min_validity));
            prop_assert!(token.expires_at > now && token.expires_at.since(now) >= min_validity);
        }
    }

    #[test]
    fn an_expired_token_is_never_servable(lifetime in lifetimes(), seed: u64, late in 0u64..DAY) {
        let token = token(0, lifetime, None, seed);
        let now = token.expires_at.after(Duration::from_secs(late));
        prop_assert_eq!(freshness(&token, now, Duration::ZERO), Freshness::Expired);
        prop_assert!(!is_servable(&token, now, Duration::ZERO));
    }

    #[test]
    fn backoff_stays_between_a_second_and_its_ceiling(count in 1u32..1_000, seed: u64) {
        let error = Error::new(ErrorKind::UpstreamDown, "down");
        let delay = retry_delay(&error, count, &mut StdRng::seed_from_u64(seed));
        let ceiling = Duration::from_secs(5 * (1 << (count - 1).min(10))).min(Duration::from_secs(300));
        prop_assert!(delay >= MIN_SPACING && delay <= ceiling, "{:?}", delay);
    }

    #[test]
    fn a_retry_after_is_honoured_within_its_bounds(asked in 0u64..100_000, seed: u64) {
        let error = Error::new(ErrorKind::UpstreamThrottled, "slow down").with_retry_after(Duration::from_secs(asked));
        let delay = retry_delay(&error, 1, &mut StdRng::seed_from_u64(seed));
        prop_assert_eq!(delay, Duration::from_secs(asked.clamp(1, 3600)));
    }
}

#[test]
fn the_refresh_window_follows_the_tiers_of_the_lifetime() {
    let window = |minutes: u64| {
        let lifetime = Duration::from_secs(60 * minutes);
        let token = token(0, lifetime, None, 1);
        let jitter_max = lifetime / 10;
        let before = token.expires_at.since(token.refresh_at);
        (before - jitter_max.min(before), before)
    };
    for (minutes, tier) in [(20, 5), (60, 15), (89, 15), (180, 60), (1440, 60)] {
        let (low, high) = window(minutes);
        let tier = Duration::from_secs(60 * tier);
        assert!(low <= tier && tier <= high, "{minutes} min: {low:?} to {high:?}");
    }
}

#[test]
fn the_last_stretch_is_a_tenth_of_the_lifetime_and_at_most_a_minute() {
    for (lifetime, stretch) in [(10, 1), (100, 10), (600, 60), (36_000, 60)] {
        let token = token(0, Duration::from_secs(lifetime), None, 1);
        let at = |left: u64| freshness(&token, token.expires_at.before(Duration::from_millis(left)), Duration::ZERO);
        assert_eq!(at(stretch * 1000), Freshness::RefreshDue, "{lifetime}");
        assert_eq!(at(stretch * 1000 - 1), Freshness::Urgent, "{lifetime}");
    }
}
