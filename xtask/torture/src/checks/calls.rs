//! What clients may be told: I1, I2, I3, and that who reports a token does not get it back.

use std::collections::HashMap;

use super::Findings;
use crate::history::{Answer, Event, Get, Record, Report};

/// For how long a replica may not know of a newer generation and still call its own verified: the freshness lease and
/// the poll of events. Microseconds.
const MAY_LAG: u64 = 3_000_000;

/// Checks every call of a history. With `acknowledged`, an answered `InvalidateToken` binds all replicas.
pub(crate) fn check_calls(records: &[Record], acknowledged: bool, findings: &mut Findings) {
    let mut gets = Vec::new();
    let mut reports = Vec::new();
    let mut streams = HashMap::new();
    for record in records {
        match &record.event {
            Event::Get(get) => gets.push(get),
            Event::Report(report) => reports.push(report),
            Event::Watched { stream, replica, credential, generation } => {
                findings.count("tokens told to watchers", 1);
                let seen: &mut u64 = streams.entry((*stream, credential)).or_default();
                if generation < seen {
                    let text = format!("watch {stream} of r{replica}: {credential} went from {seen} to {generation}");
                    findings.violation("I1 within a watch", text);
                }
                *seen = (*seen).max(*generation);
            }
            Event::Use { client, credential, generation, status, claimed_expiry, expiry } => {
                findings.count(if *status == 200 { "uses that succeeded" } else { "uses that were refused (401)" }, 1);
                if claimed_expiry > expiry && *expiry > 0 {
                    let more = claimed_expiry - expiry;
                    let text = format!("client {client}: {credential} {generation} is said to last {more} ms longer");
                    findings.violation("I3 an expiry later than the upstream's", text);
                }
            }
            Event::Fault { deed, .. } if deed == "revoke access tokens" => findings.count(deed, 1),
            _ => {}
        }
    }
    gets.sort_by_key(|get| get.ended);
    for get in &gets {
        check_answer(get, findings);
    }
    check_order(&gets, acknowledged, findings);
    check_reports(&gets, &reports, acknowledged, findings);
}

/// What one answer shows by itself.
fn check_answer(get: &Get, findings: &mut Findings) {
    findings.count("calls of GetToken", 1);
    match &get.answer {
        Answer::Token { generation, verified, expires_at, server_time } => {
            findings.count("calls that brought a token", 1);
            findings.count("answers that were degraded", usize::from(!verified));
            let left = expires_at - server_time;
            if left <= 0 || left < get.min_validity_ms {
                findings.violation("I3 a token with less validity than asked", format!("{left} ms left: {get:?}"));
            }
            if get.rejected > 0 && *generation <= get.rejected {
                findings.violation("a reported generation came back to who reported it", format!("{get:?}"));
            }
        }
        Answer::NotModified { verified } => {
            findings.count("calls that brought a token", 1);
            findings.count("answers that were degraded", usize::from(!verified));
        }
        Answer::Failed { code, reason } => {
            findings.count(&format!("calls that failed: {code} {reason}"), 1);
            if reason == "BUG" {
                findings.violation("an internal error", format!("{get:?}"));
            }
        }
    }
}

/// I1, for each client and credential: at one replica always; at another one within what it may lag.
fn check_order(gets: &[&Get], acknowledged: bool, findings: &mut Findings) {
    let mut at_replica: HashMap<(u32, usize, &str), u64> = HashMap::new();
    // The newest generation of a client, and since when it has it.
    let mut anywhere: HashMap<(u32, &str), (u64, u64)> = HashMap::new();
    // The same of what was verified: one that was served before it could be stored may be known to its replica alone.
    let mut verified_anywhere: HashMap<(u32, &str), u64> = HashMap::new();
    for get in gets {
        let Some((generation, verified)) = get.generation() else { continue };
        let newest = at_replica.entry((get.client, get.replica, &get.credential)).or_default();
        if generation < *newest {
            findings.violation("I1 at one replica", format!("generation {newest} was seen before: {get:?}"));
        }
        *newest = generation.max(*newest);

        let (newest, since) = anywhere.entry((get.client, &get.credential)).or_insert((generation, get.ended));
        if generation < *newest {
            findings.count("I1 gone back at another replica", 1);
            let known = verified_anywhere.get(&(get.client, get.credential.as_str())).copied().unwrap_or_default();
            if get.held > generation {
                findings.count("I1 gone back although the client said what it holds", 1);
                if verified && known >= get.held {
                    let text = format!("the client said that it holds {}: {get:?}", get.held);
                    findings.violation("I1 gone back although the client said what it holds", text);
                }
            }
            let lag = get.begun.saturating_sub(*since);
            if verified && lag > MAY_LAG {
                findings.count("I1 gone back by more than a replica may lag", 1);
                if acknowledged {
                    let text = format!("{lag} us after generation {newest} was seen: {get:?}");
                    findings.violation("I1 at another replica, after longer than it may lag", text);
                }
            }
        } else if generation > *newest {
            (*newest, *since) = (generation, get.ended);
        }
        if verified {
            let known = verified_anywhere.entry((get.client, &get.credential)).or_default();
            *known = generation.max(*known);
        }
    }
}

/// I2: a call that was begun after an acknowledged rejection brings nothing older as verified.
fn check_reports(gets: &[&Get], reports: &[&Report], acknowledged: bool, findings: &mut Findings) {
    // By credential: when which lowest generation was acknowledged, in the order of time, each higher than the last.
    let mut floors: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
    let mut sorted: Vec<_> =
        reports.iter().filter_map(|report| Some((report.ended, report, report.acknowledged?))).collect();
    sorted.sort_by_key(|(ended, ..)| *ended);
    findings.count("calls of InvalidateToken", reports.len());
    findings.count("rejections acknowledged", sorted.len());
    for (ended, report, answer) in sorted {
        // Whether it was this report that took the token out of service or an earlier one, it is dead for who is told so.
        if answer.min_generation > report.generation {
            let steps = floors.entry(&report.credential).or_default();
            let floor = report.generation + 1;
            if steps.last().is_none_or(|(_, last)| *last < floor) {
                steps.push((ended, floor));
            }
        }
    }
    for get in gets {
        let Some((generation, verified)) = get.generation() else { continue };
        let steps = floors.get(get.credential.as_str()).map_or(&[][..], Vec::as_slice);
        let known = steps.partition_point(|(at, _)| *at < get.begun);
        let Some((at, floor)) = known.checked_sub(1).map(|last| steps[last]) else { continue };
        if verified && generation < floor {
            findings.count("I2 rejected tokens served as verified", 1);
            if acknowledged {
                let after = get.begun - at;
                let text = format!("floor {floor} was acknowledged {after} us before: {get:?}");
                findings.violation("I2 a rejected token as verified", text);
            }
        }
    }
}
