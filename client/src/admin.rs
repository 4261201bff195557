//! The admin API: what the operators of the broker see and do.

use tokencache_proto::v1::{self, admin_service_client::AdminServiceClient};

use crate::{
    AuditEvents, AuditFilter, AuditPage, Builder, BulkInvalidation, CredentialDescription, CredentialPage,
    ReplicaStatus, Result, Selector, ServerInfo, Target, TokenStatus, connection::Connection, token::nonsense,
};

/// A client of the admin API. Cheap to clone; clones share a connection.
#[derive(Clone, Debug)]
pub struct AdminClient {
    connection: Connection,
}

impl AdminClient {
    /// Begins to build a client; end with [`Builder::build_admin`].
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// A page of the configured credentials, by name. `page_size` 0: as many as the broker likes; an empty
    /// `page_token`: the first page.
    ///
    /// # Errors
    ///
    /// Whatever [`Error`](crate::Error) says, here and below; what only reads is tried on another replica, once.
    pub async fn list_credentials(&self, page_size: u32, page_token: &str) -> Result<CredentialPage> {
        let request = v1::ListCredentialsRequest { page_size, page_token: page_token.into() };
        let call = |channel, request| async move { AdminServiceClient::new(channel).list_credentials(request).await };
        self.connection.call(request, call).await.map(Into::into)
    }

    /// Explains one credential.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if there is none of this name.
    pub async fn describe_credential(&self, name: &str) -> Result<CredentialDescription> {
        let request = v1::DescribeCredentialRequest { name: name.into() };
        let call =
            |channel, request| async move { AdminServiceClient::new(channel).describe_credential(request).await };
        CredentialDescription::from_proto(self.connection.call(request, call).await?)
    }

    /// Replaces a token now, and returns what is known of the new one.
    ///
    /// # Errors
    ///
    /// Why the upstream gave none.
    pub async fn refresh_token(&self, selector: impl Into<Selector>) -> Result<TokenStatus> {
        let request = selector.into().into_refresh();
        let call = |channel, request| async move { AdminServiceClient::new(channel).refresh_token(request).await };
        let response = self.connection.call_once(request, call).await?;
        Ok(response.token.ok_or_else(|| nonsense("an answer without a token"))?.into())
    }

    /// Invalidates every token of the matching credentials, or with `dry_run` only tells which.
    ///
    /// # Errors
    ///
    /// Whatever [`Error`](crate::Error) says.
    pub async fn invalidate_credentials(&self, target: Target, dry_run: bool) -> Result<BulkInvalidation> {
        let request = v1::InvalidateCredentialsRequest { target: Some(target.into()), dry_run };
        let call =
            |channel, request| async move { AdminServiceClient::new(channel).invalidate_credentials(request).await };
        self.connection.call_once(request, call).await.map(Into::into)
    }

    /// Tells which replica answers, and what it runs.
    ///
    /// # Errors
    ///
    /// Whatever [`Error`](crate::Error) says.
    pub async fn server_info(&self) -> Result<ServerInfo> {
        let call = |channel, request| async move { AdminServiceClient::new(channel).get_server_info(request).await };
        self.connection.call(v1::GetServerInfoRequest {}, call).await.map(Into::into)
    }

    /// The replicas that share the store, by their identifiers.
    ///
    /// # Errors
    ///
    /// Whatever [`Error`](crate::Error) says.
    pub async fn list_replicas(&self) -> Result<Vec<ReplicaStatus>> {
        let call = |channel, request| async move { AdminServiceClient::new(channel).list_replicas(request).await };
        let response = self.connection.call(v1::ListReplicasRequest {}, call).await?;
        Ok(response.replicas.into_iter().map(Into::into).collect())
    }

    /// A page of what the broker has recorded, the oldest first. `page_size` 0: as many as the broker likes; an empty
    /// `page_token`: the first page.
    ///
    /// # Errors
    ///
    /// Whatever [`Error`](crate::Error) says.
    pub async fn list_audit_events(&self, filter: AuditFilter, page_size: u32, page_token: &str) -> Result<AuditPage> {
        let filter = Some(filter.into_proto()?);
        let request = v1::ListAuditEventsRequest { filter, page_size, page_token: page_token.into() };
        let call = |channel, request| async move { AdminServiceClient::new(channel).list_audit_events(request).await };
        self.connection.call(request, call).await.map(Into::into)
    }

    /// What the broker records from now on, or from `filter.since`.
    ///
    /// # Errors
    ///
    /// If it cannot be begun; later errors come with the stream.
    pub async fn tail_audit_events(&self, filter: AuditFilter) -> Result<AuditEvents> {
        let request = v1::TailAuditEventsRequest { filter: Some(filter.into_proto()?) };
        let call = |channel, request| async move { AdminServiceClient::new(channel).tail_audit_events(request).await };
        let (_, stream) = self.connection.open(request, call).await?;
        Ok(AuditEvents::new(stream))
    }
}
