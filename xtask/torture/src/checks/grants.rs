//! What must hold of refresh tokens: I4, I5, and that no loss is silent.

use super::Findings;
use crate::{
    clock::micros,
    database::Kept,
    history::{Event, Record},
    scene::{GRACE, Mode},
    truth::{Call, Death, Family, Truth},
};

/// How long before a call a stop may have begun that still held it up. Microseconds.
const LONGEST_STOP: u64 = 9_000_000;

/// Checks what the upstream knows against what is in the tables, after all replicas have ended.
pub(crate) fn check_grants(truth: &Truth, kept: &[Kept], records: &[Record], findings: &mut Findings) {
    for overlap in truth.overlaps() {
        findings.violation("I4 two live calls with one refresh token", overlap);
    }
    let calls = truth.calls();
    findings.count("upstream calls", calls.len());
    findings.count("upstream calls that were answered in vain", calls.iter().filter(|call| !call.delivered).count());
    findings.count("upstream calls beside one that nobody waited for", usize::try_from(truth.zombies()).unwrap_or(0));
    for (number, credential) in truth.credentials().iter().enumerate() {
        let families = truth.families(number);
        for family in &families {
            findings.count("rotations", if credential.mode.rotates() { family.rotations() } else { 0 });
            check_loss(&credential.name, credential.mode, family, records, findings);
        }
        let current = families.last().and_then(Family::current).filter(|_| credential.mode.rotates());
        let Some(current) = current else { continue };
        let mut own = kept.iter().filter(|kept| kept.credential == credential.name);
        match own.find(|kept| kept.refresh == current) {
            None => {
                let text = format!("{}: {current} is in no table", credential.name);
                findings.violation("I5 a live refresh token is not stored", text);
            }
            Some(kept) if !kept.current => {
                let text = format!("{}: {current} is stored, but another one would be used", credential.name);
                findings.violation("I5 a live refresh token is not the one in use", text);
            }
            Some(_) => findings.count("live refresh tokens found in the tables", 1),
        }
    }
}

/// A family that ended: whether it may have, whether that was reported, and what explains it.
fn check_loss(name: &str, mode: Mode, family: &Family, records: &[Record], findings: &mut Findings) {
    let Some(death) = &family.death else { return };
    let words = format!("{name}, logged in at {} us, {}", family.planted, describe(death));
    if !mode.may_be_lost() {
        let lapsed = death.at - death.first.received > micros(GRACE);
        let late = "a lenient family was lost, for its grace had lapsed before any replica could replay";
        findings.violation(if lapsed { late } else { "a family was lost although the upstream is lenient" }, words);
        return;
    }
    findings.count("strict families lost", 1);
    match &family.reported {
        None => findings.violation("a strict family was lost in silence", words.clone()),
        Some(said) if !said.contains("in doubt") => {
            findings.violation("a strict family's loss was not said to be in doubt", format!("{words}; said: {said}"));
        }
        Some(_) => {}
    }
    match explain(death, records) {
        Some(cause) => findings.count(cause, 1),
        None => findings.violation("a strict family was lost and nothing that was done explains it", words),
    }
}

/// What was done to the two calls that ended a strict family.
fn explain(death: &Death, records: &[Record]) -> Option<&'static str> {
    let struck = |deed: &str, call: &Call| {
        let target = format!("r{} ", call.replica);
        let span = call.received.saturating_sub(LONGEST_STOP)..=death.at;
        records.iter().filter(|record| span.contains(&record.at)).any(|record| {
            matches!(&record.event, Event::Fault { deed: done, target: whom }
                if done.starts_with(deed) && whom.starts_with(&target))
        })
    };
    if struck("upstream network", &death.first) {
        return Some("strict families lost: the network to the upstream failed");
    }
    if !death.first.delivered {
        return Some("strict families lost: the answer of the first call was not taken");
    }
    if struck("kill", &death.first) {
        return Some("strict families lost: the replica that had the answer was killed");
    }
    if struck("stop", &death.first) {
        return Some("strict families lost: the replica that had the answer was stopped");
    }
    struck("stop", &death.replay).then_some("strict families lost: a stopped replica woke and sent an old token")
}

fn describe(death: &Death) -> String {
    let Death { at, first, replay, behind } = death;
    let taken = if first.delivered { "taken" } else { "not taken" };
    format!(
        "ended at {at} us: call {} of r{} redeemed at {} us (answer {taken}), call {} of r{} sent the same again, {behind} behind",
        first.id, first.replica, first.received, replay.id, replay.replica
    )
}
