//! Refused calls, so that a flood of them does not fill the disk: of equal ones the first is written, and once a second how
//! many more there were.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::event::{AuditEvent, Rpc};
use crate::error::ErrorKind;

/// How many distinct ones are told apart within a second. Those beyond are told by their error alone.
const MAX_KEYS: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    subject: String,
    rpc: Option<Rpc>,
    error: Option<ErrorKind>,
}

/// The refusals of the present second.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<Key, (AuditEvent, u64)>>);

impl Refusals {
    /// Takes note of a refusal. Returns it if it is the first of its kind.
    pub(super) fn note(&self, event: AuditEvent) -> Option<AuditEvent> {
        let subject = event.actor.as_ref().map(|actor| actor.subject().to_owned()).unwrap_or_default();
        let mut key = Key { subject, rpc: event.rpc, error: event.error };
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_KEYS && !seen.contains_key(&key) {
            key = Key { subject: String::new(), rpc: None, error: event.error };
        }
        match seen.get_mut(&key) {
            Some((_, more)) => {
                *more += 1;
                None
            }
            None => {
                let mut model = event.clone();
                if key.rpc.is_none() {
                    (model.actor, model.rpc) = (None, None);
                }
                // What differs among those that follow is not told of them.
                (model.credential, model.key, model.trace) = (None, None, None);
                seen.insert(key, (model, 0));
                Some(event)
            }
        }
    }

    /// Begins a new second: the refusals that were not returned, with their numbers.
    pub(super) fn sweep(&self) -> Vec<AuditEvent> {
        let seen = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let more = seen.into_values().filter(|(_, more)| *more > 0);
        more.map(|(model, more)| AuditEvent { count: Some(more), ..model }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{Actor, Kind},
        types::{Caller, Peer},
    };

    fn refusal(subject: &str, error: ErrorKind) -> AuditEvent {
        let actor = Some(Actor::new(Caller::new(subject), Peer::Unknown));
        AuditEvent { actor, error: Some(error), rpc: Some(Rpc::GetToken), ..AuditEvent::new(Kind::CallRefused) }
    }

    #[test]
    fn of_equal_refusals_the_first_and_their_number_are_told() {
        let refusals = Refusals::default();
        let told = (0..1000).filter_map(|_| refusals.note(refusal("a", ErrorKind::NotAllowed))).count();
        assert_eq!(told, 1);
        assert!(refusals.note(refusal("b", ErrorKind::NotAllowed)).is_some(), "somebody else");
        assert!(refusals.note(refusal("a", ErrorKind::BadName)).is_some(), "something else");
        let swept = refusals.sweep();
        assert_eq!(swept.iter().map(|event| event.count).collect::<Vec<_>>(), [Some(999)]);
        assert!(refusals.sweep().is_empty());
        assert!(refusals.note(refusal("a", ErrorKind::NotAllowed)).is_some(), "a second later");
    }

    #[test]
    fn a_flood_of_distinct_refusals_is_bounded_and_none_goes_uncounted() {
        let refusals = Refusals::default();
        let told = (0..100_000).filter_map(|i| refusals.note(refusal(&i.to_string(), ErrorKind::NotAllowed))).count();
        assert!(told <= MAX_KEYS + 1, "{told}");
        let counted: u64 = refusals.sweep().iter().filter_map(|event| event.count).sum();
        assert_eq!(counted + told as u64, 100_000);
    }
}
