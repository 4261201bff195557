//! `AdminService`: what operators call. No answer carries a secret or a token.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _};
use prost_types::Duration as ProtoDuration;
use tokencache_proto::v1::{
    self, CredentialState, EndpointState, admin_service_server::AdminService, invalidate_credentials_request::Target,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{audit, convert, ends_with, identified, status};
use crate::{
    audit::Rpc,
    cache::{
        history::AttemptRecord,
        inspect::{CredentialReport, EndpointReport, GrantReport, State, TokenReport},
    },
    error::{Error, ErrorKind, Result as ServiceResult},
    pipeline::{Identified, Pipeline},
    store::{Gate, Replica},
    time::{SharedClock, Timestamp},
    types::{CredentialName, ReplicaId},
};

/// The size of a page if the request does not say, and the largest (AIP-158).
const DEFAULT_PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

/// What `GetServerInfo` tells and does not change.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// The replica's identifier.
    pub replica: ReplicaId,
    /// When it started.
    pub started_at: Timestamp,
    /// The kind of store.
    pub store: &'static str,
    /// The kinds of provider.
    pub providers: Vec<String>,
    /// Whether it runs in dev mode.
    pub dev: bool,
}

/// Serves operators.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The service.
    pub pipeline: Arc<Pipeline>,
    /// What time it is.
    pub clock: SharedClock,
    /// What the replica is.
    pub facts: ServerFacts,
    /// Told when the replica drains: whoever follows its audit log then looks for another one.
    pub draining: CancellationToken,
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn list_credentials(
        &self,
        request: Request<v1::ListCredentialsRequest>,
    ) -> Result<Response<v1::ListCredentialsResponse>, Status> {
        let call = identified(&self.pipeline, &request, Rpc::ListCredentials).await?;
        let listed = async {
            let v1::ListCredentialsRequest { page_size, page_token } = request.into_inner();
            let after = self.checked(&call, Rpc::ListCredentials, page_start(&page_token))?;
            let size = size_of_page(page_size) as usize;
            // One more than asked for tells whether there is a next page.
            let mut reports = self.pipeline.list(&call, after.as_ref(), size + 1).await?;
            let more = reports.len() > size;
            reports.truncate(size);
            let next_page_token = reports.last().filter(|_| more).map(|last| last.name.clone()).unwrap_or_default();
            Ok(v1::ListCredentialsResponse { credentials: reports.iter().map(summary).collect(), next_page_token })
        };
        answer(listed.await)
    }

    async fn describe_credential(
        &self,
        request: Request<v1::DescribeCredentialRequest>,
    ) -> Result<Response<v1::DescribeCredentialResponse>, Status> {
        let call = identified(&self.pipeline, &request, Rpc::DescribeCredential).await?;
        let described = async {
            let name = self.checked(&call, Rpc::DescribeCredential, convert::name(&request.into_inner().name))?;
            let report = self.pipeline.describe(&call, name).await?;
            let now = self.clock.now();
            Ok(v1::DescribeCredentialResponse {
                credential: Some(summary(&report)),
                tokens: report.tokens.iter().map(|token| token_status(token, now)).collect(),
                grant: report.grant.as_ref().map(grant_status),
                endpoint: report.endpoint.as_ref().map(|endpoint| endpoint_status(endpoint, now)),
                explanation: report.explanation,
            })
        };
        answer(described.await)
    }

    async fn refresh_token(
        &self,
        request: Request<v1::RefreshTokenRequest>,
    ) -> Result<Response<v1::RefreshTokenResponse>, Status> {
        let call = identified(&self.pipeline, &request, Rpc::RefreshToken).await?;
        let refreshed = async {
            let v1::RefreshTokenRequest { credential, scopes, audience, resources } = request.into_inner();
            let selector = convert::selector(v1::TokenSelector { credential, scopes, audience, resources });
            let selector = self.checked(&call, Rpc::RefreshToken, selector)?;
            let report = self.pipeline.refresh(&call, selector).await?;
            Ok(v1::RefreshTokenResponse { token: Some(token_status(&report, self.clock.now())) })
        };
        answer(refreshed.await)
    }

    async fn invalidate_credentials(
        &self,
        request: Request<v1::InvalidateCredentialsRequest>,
    ) -> Result<Response<v1::InvalidateCredentialsResponse>, Status> {
        let call = identified(&self.pipeline, &request, Rpc::InvalidateCredentials).await?;
        let invalidated = async {
            let v1::InvalidateCredentialsRequest { target, dry_run } = request.into_inner();
            let target = self.checked(&call, Rpc::InvalidateCredentials, check_target(target))?;
            let selects = |name: &CredentialName, kind: &str| match &target {
                Target::Pattern(pattern) => matches(pattern, name.as_str()),
                Target::Provider(provider) => provider == kind,
            };
            let (names, token_count) = self.pipeline.invalidate_credentials(&call, selects, dry_run).await?;
            let credentials = names.iter().map(ToString::to_string).collect();
            Ok(v1::InvalidateCredentialsResponse { credentials, token_count })
        };
        answer(invalidated.await)
    }

    async fn list_replicas(
        &self,
        request: Request<v1::ListReplicasRequest>,
    ) -> Result<Response<v1::ListReplicasResponse>, Status> {
        let call = identified(&self.pipeline, &request, Rpc::ListReplicas).await?;
        let listed = self.pipeline.list_replicas(&call).await;
        let replica = |replica: Replica| v1::Replica {
            answering: replica.id == self.facts.replica,
            id: replica.id.to_string(),
            version: replica.version,
            started_at: Some(convert::timestamp(replica.started_at)),
            lease_remaining: ProtoDuration::try_from(replica.remaining).ok(),
            applied_event: replica.applied.through,
            missing_events: replica.applied.missing,
        };
        answer(listed.map(|all| v1::ListReplicasResponse { replicas: all.into_iter().map(replica).collect() }))
    }

    async fn rotate_encryption_key(
        &self,
        request: Request<v1::RotateEncryptionKeyRequest>,
    ) -> Result<Response<v1::RotateEncryptionKeyResponse>, Status> {
        let call = identified(&self.pipeline, &request, Rpc::RotateEncryptionKey).await?;
        let rotated = self.pipeline.rotate_key(&call, request.get_ref().dry_run).await;
        answer(rotated.map(|census| v1::RotateEncryptionKeyResponse {
            active: census.active,
            resealed_rows: census.resealed,
            current_rows: census.current,
            unreadable: row_counts(census.unreadable),
            remaining: row_counts(census.remaining),
        }))
    }

    async fn get_server_info(
        &self,
        request: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        let call = identified(&self.pipeline, &request, Rpc::GetServerInfo).await?;
        let told = async {
            self.pipeline.inspect_server(&call).await?;
            Ok(v1::GetServerInfoResponse {
                replica: self.facts.replica.to_string(),
                version: env!("CARGO_PKG_VERSION").into(),
                started_at: Some(convert::timestamp(self.facts.started_at)),
                store: self.facts.store.into(),
                providers: self.facts.providers.clone(),
                credential_count: u32::try_from(self.pipeline.catalog.len()).unwrap_or(u32::MAX),
                cached_token_count: self.pipeline.cache.len(),
                dev: self.facts.dev,
            })
        };
        answer(told.await)
    }

    async fn list_audit_events(
        &self,
        request: Request<v1::ListAuditEventsRequest>,
    ) -> Result<Response<v1::ListAuditEventsResponse>, Status> {
        let call = identified(&self.pipeline, &request, Rpc::ListAuditEvents).await?;
        let listed = async {
            let v1::ListAuditEventsRequest { filter, page_size, page_token } = request.into_inner();
            let filter = audit::filter(filter, Timestamp::MIN);
            let filter = self.checked(&call, Rpc::ListAuditEvents, filter)?;
            let after = self.checked(&call, Rpc::ListAuditEvents, audit_page_start(&page_token))?;
            let size = size_of_page(page_size);
            let (source, mut rows) = self.pipeline.list_audit(&call, after, &filter, size + 1).await?;
            let more = rows.len() > size as usize;
            rows.truncate(size as usize);
            let next_page_token = rows.last().filter(|_| more).map(|last| last.id.to_string()).unwrap_or_default();
            let events = rows.into_iter().map(audit::event).collect();
            Ok(v1::ListAuditEventsResponse { events, next_page_token, source: audit::source(source) })
        };
        answer(listed.await)
    }

    type TailAuditEventsStream = AuditEvents;

    async fn tail_audit_events(
        &self,
        request: Request<v1::TailAuditEventsRequest>,
    ) -> Result<Response<AuditEvents>, Status> {
        let call = identified(&self.pipeline, &request, Rpc::TailAuditEvents).await?;
        let followed = async {
            let filter = audit::filter(request.into_inner().filter, self.clock.now());
            let filter = self.checked(&call, Rpc::TailAuditEvents, filter)?;
            let (source, rows) = self.pipeline.tail_audit(&call, filter).await?;
            let source = audit::source(source);
            let response = move |row: ServiceResult<_>| match row {
                Ok(row) => Ok(v1::TailAuditEventsResponse { event: Some(audit::event(row)), source }),
                Err(error) => Err(status::to_status(&error)),
            };
            // A stream that does not end must not keep the replica from ending, nor outlive its caller's right to it.
            let (pipeline, reader) = (Arc::clone(&self.pipeline), call.clone());
            let lost = async move { pipeline.loses_audit(&reader).await };
            Ok(ends_with(rows.map(response).boxed(), lost, self.draining.clone()).boxed())
        };
        answer(followed.await)
    }
}

type AuditEvents = Pin<Box<dyn Stream<Item = Result<v1::TailAuditEventsResponse, Status>> + Send>>;

impl Admin {
    /// Records the call if its request is invalid.
    fn checked<T>(&self, call: &Identified, rpc: Rpc, read: ServiceResult<T>) -> ServiceResult<T> {
        read.map_err(|error| self.pipeline.turn_away(call, rpc, error))
    }
}

fn size_of_page(asked: u32) -> u32 {
    if asked == 0 { DEFAULT_PAGE } else { asked.min(MAX_PAGE) }
}

/// A page token is the place of the last event of the page before.
fn audit_page_start(page_token: &str) -> ServiceResult<u64> {
    if page_token.is_empty() {
        return Ok(0);
    }
    let mut check = convert::Check::default();
    let place = page_token.parse().ok();
    if place.is_none() {
        check.add("page_token", "not a next_page_token that was returned before");
    }
    check.finish(place.unwrap_or(0))
}

fn row_counts<N: Into<String>>(counts: impl IntoIterator<Item = (N, u64)>) -> Vec<v1::RowCount> {
    counts.into_iter().map(|(name, rows)| v1::RowCount { name: name.into(), rows }).collect()
}

fn answer<T>(result: ServiceResult<T>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| status::to_status(&error))
}

/// A page token is the last name of the page before: stable while credentials come and go.
fn page_start(page_token: &str) -> ServiceResult<Option<CredentialName>> {
    if page_token.is_empty() {
        return Ok(None);
    }
    let mut check = convert::Check::default();
    let name = CredentialName::parse(page_token).ok();
    if name.is_none() {
        check.add("page_token", "not a next_page_token that was returned before");
    }
    check.finish(name)
}

fn check_target(target: Option<Target>) -> ServiceResult<Target> {
    let mut check = convert::Check::default();
    match target {
        Some(Target::Pattern(text) | Target::Provider(text)) if text.is_empty() => {
            check.add("target", "a pattern or a provider that is not empty; the pattern \"*\" stands for all");
        }
        Some(target) => return Ok(target),
        None => check.add("target", "a pattern or a provider"),
    }
    check.finish(()).and(Err(Error::new(ErrorKind::BadRequest, "no target")))
}

/// Whether `*` in the pattern can stand for something so that it is the name.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        // The earliest place leaves the most for the parts behind.
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn state(state: State) -> CredentialState {
    match state {
        State::Idle => CredentialState::Idle,
        State::Valid => CredentialState::Valid,
        State::RefreshFailing => CredentialState::RefreshFailing,
        State::Unavailable => CredentialState::Unavailable,
        State::UpstreamRejects => CredentialState::UpstreamRejects,
        State::Misconfigured => CredentialState::Misconfigured,
        State::NeedsReauth => CredentialState::NeedsReauth,
    }
}

fn summary(report: &CredentialReport) -> v1::CredentialSummary {
    let next_expiry = report.tokens.iter().filter_map(|token| Some(token.token?.expires_at)).min();
    v1::CredentialSummary {
        name: report.name.clone(),
        provider: report.provider.into(),
        state: state(report.state).into(),
        token_count: u32::try_from(report.tokens.len()).unwrap_or(u32::MAX),
        next_expiry: next_expiry.map(convert::timestamp),
    }
}

fn token_status(report: &TokenReport, now: Timestamp) -> v1::TokenStatus {
    let facts = report.token.as_ref();
    let lease = report.lease.as_ref().map(|holder| v1::Lease {
        owner: holder.owner.clone(),
        expires_at: Some(convert::timestamp(now.after(holder.remaining))),
    });
    v1::TokenStatus {
        selector: Some(convert::selector_message(report.key.selector())),
        state: state(report.state).into(),
        generation: report.generation.get(),
        min_generation: report.min_generation.get(),
        fingerprint: facts.map(|facts| facts.fingerprint.to_string()).unwrap_or_default(),
        issued_at: facts.map(|facts| convert::timestamp(facts.issued_at)),
        expires_at: facts.map(|facts| convert::timestamp(facts.expires_at)),
        refresh_at: facts.map(|facts| convert::timestamp(facts.refresh_at)),
        next_attempt_at: report.failures.as_ref().map(|failures| convert::timestamp(failures.next_attempt_at)),
        consecutive_failures: report.failures.as_ref().map_or(0, |failures| failures.count),
        lease,
        attempts: report.attempts.iter().map(attempt).collect(),
        last_used_at: Some(convert::timestamp(report.last_used_at)),
        watchers: u32::try_from(report.watchers).unwrap_or(u32::MAX),
    }
}

fn attempt(record: &AttemptRecord) -> v1::Attempt {
    v1::Attempt {
        time: Some(convert::timestamp(record.at)),
        duration: ProtoDuration::try_from(record.duration).ok(),
        replica: record.replica.to_string(),
        status: Some(record.error.as_ref().map(status::to_message).unwrap_or_default()),
        reason: record.error.as_ref().map(|error| error.kind().reason().to_owned()).unwrap_or_default(),
    }
}

fn grant_status(grant: &GrantReport) -> v1::GrantStatus {
    v1::GrantStatus {
        version: grant.version,
        fingerprint: grant.fingerprint.to_string(),
        updated_at: Some(convert::timestamp(grant.updated_at)),
        needs_reauth_reason: grant.needs_reauth.clone().unwrap_or_default(),
    }
}

fn endpoint_status(report: &EndpointReport, now: Timestamp) -> v1::EndpointStatus {
    let state = &report.view.state;
    let shown = match (state.gate(), &state.open_for) {
        _ if !state.wait.is_zero() => EndpointState::Paused,
        (Gate::Free, _) => EndpointState::Closed,
        (_, Some(left)) if left.is_zero() => EndpointState::HalfOpen,
        _ => EndpointState::Open,
    };
    let left = state.wait.max(state.open_for.unwrap_or_default());
    v1::EndpointStatus {
        endpoint: report.endpoint.origin.to_string(),
        state: shown.into(),
        consecutive_failures: state.failures,
        next_attempt_at: (!left.is_zero()).then(|| convert::timestamp(now.after(left))),
        calls: report.view.calls,
        max_concurrent: report.endpoint.rules.max_concurrent,
        prober: state.probe.as_ref().filter(|_| state.is_probed()).map(|p| p.owner.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, name) in
            [("*", "a"), ("a*", "a/b"), ("*b", "a/b"), ("a*c*e", "abcde"), ("a", "a"), ("*a*a", "aa")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("", "a"), ("a", "ab"), ("b*", "ab"), ("*a", "ab"), ("a*b*c", "acb"), ("ab*ba", "aba")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
