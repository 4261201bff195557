//! Whether a trace is recorded.

use std::cell::Cell;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use crate::metrics::thread_number;

/// What a `traceparent` says (W3C Trace Context section 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parent {
    /// The caller does not record its trace.
    Unsampled,
    /// It does.
    Sampled(SpanContext),
    /// It is not a `traceparent`.
    Invalid,
}

impl Parent {
    /// Reads a header; of one that is not sampled only what tells so.
    pub(super) fn read(header: &[u8]) -> Self {
        // 00-TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT-SSSSSSSSSSSSSSSS-FF; later versions may be longer.
        let fields = || {
            let text = str::from_utf8(header).ok()?;
            let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            let mut parts = text.split('-');
            let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
            let lengths = (version.len(), trace.len(), parent.len(), flags.len()) == (2, 32, 16, 2);
            let sound = lengths && version != "ff" && [version, trace, parent, flags].into_iter().all(is_hex);
            // The version that we know has no more fields than these.
            let whole = version != "00" || parts.next().is_none();
            (sound && whole).then_some((trace, parent, u8::from_str_radix(flags, 16).ok()?))
        };
        let Some((trace, parent, flags)) = fields() else { return Self::Invalid };
        if flags & TraceFlags::SAMPLED.to_u8() == 0 {
            return Self::Unsampled;
        }
        let (Ok(trace), Ok(parent)) = (TraceId::from_hex(trace), SpanId::from_hex(parent)) else {
            return Self::Invalid;
        };
        let context = SpanContext::new(trace, parent, TraceFlags::SAMPLED, true, TraceState::NONE);
        if context.is_valid() { Self::Sampled(context) } else { Self::Invalid }
    }
}

/// Picks a share of the traces that begin here.
#[derive(Debug)]
pub(super) struct Sampler {
    /// Numbers below it are picked; `None`: all are.
    below: Option<u64>,
    seed: u64,
}

impl Sampler {
    /// Picks this share, from 0 to 1.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "the product is from 0 to 2^64, and a cast of floats saturates"
    )]
    pub(super) fn new(ratio: f64, seed: u64) -> Self {
        Self { below: (ratio < 1.0).then_some((ratio.max(0.0) * u64::MAX as f64) as u64), seed }
    }

    /// Whether this one is picked. No lock, and nothing that threads share.
    pub(super) fn chance(&self) -> bool {
        thread_local! {
            static COUNT: Cell<u64> = const { Cell::new(0) };
        }
        let Some(below) = self.below else { return true };
        if below == 0 {
            return false;
        }
        let count = COUNT.with(|count| count.replace(count.get().wrapping_add(1)));
        mix(self.seed ^ mix(count ^ ((thread_number() as u64) << 48))) < below
    }
}

/// Splitmix64's finalizer (Steele, Lea, Flood 2014): every bit of the answer depends on every one of the question.
fn mix(mut number: u64) -> u64 {
    number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_parent_is_followed_as_its_flag_says() {
        let Parent::Sampled(context) = Parent::read(VALID.as_bytes()) else { panic!("it is sampled") };
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((context.span_id().to_string().as_str(), context.is_remote()), ("00f067aa0ba902b7", true));
        let with_flags = |flags| Parent::read(VALID.replace("-01", flags).as_bytes());
        assert_eq!(with_flags("-00"), Parent::Unsampled);
        assert_eq!(with_flags("-02"), Parent::Unsampled, "random, and not sampled");
        assert!(matches!(with_flags("-03"), Parent::Sampled(_)));
        assert!(matches!(Parent::read(format!("cc{}-what-comes", &VALID[2..]).as_bytes()), Parent::Sampled(_)));
    }

    #[test]
    fn what_is_not_a_parent_is_none() {
        let zero_trace = VALID.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let zero_span = VALID.replace("00f067aa0ba902b7", &"0".repeat(16));
        let bad = [
            "",
            "00",
            &VALID[3..],
            &VALID.to_uppercase(),
            &format!("ff{}", &VALID[2..]),
            &format!("{VALID}-00"),
            &VALID.replace("-01", "-1"),
            &VALID.replace("-01", "-0g"),
            &VALID.replace("a3ce", "a3c+"),
            &zero_trace,
            &zero_span,
        ];
        for bad in bad {
            assert_eq!(Parent::read(bad.as_bytes()), Parent::Invalid, "{bad}");
        }
        assert_eq!(Parent::read(b"\xff\xfe"), Parent::Invalid);
    }

    #[test]
    fn about_the_share_that_was_asked_for_is_picked() {
        let picked = |ratio, seed| {
            let sampler = Sampler::new(ratio, seed);
            (0..100_000).filter(|_| sampler.chance()).count()
        };
        for seed in 0..4 {
            assert_eq!((picked(0.0, seed), picked(1.0, seed)), (0, 100_000));
            assert!((700..1300).contains(&picked(0.01, seed)), "seed {seed}");
            assert!((49_000..51_000).contains(&picked(0.5, seed)), "seed {seed}");
        }
    }
}
