//! Which services stand on which listener.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokencache_proto::{
    FILE_DESCRIPTOR_SET,
    v1::{admin_service_server::AdminServiceServer, token_service_server::TokenServiceServer},
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{admin_service::Admin, front::Offer, guard::Guarded, http, token_service::Tokens};
use crate::{
    lifecycle::{Phase, Readiness},
    pipeline::Pipeline,
};

/// The largest request, in bytes: a watch of as many tokens as one may have, with long scopes.
pub(super) const MAX_REQUEST: usize = 1024 * 1024;

/// The services of the replica.
#[derive(Debug)]
pub struct Services {
    /// What clients call.
    pub tokens: Tokens,
    /// What operators call.
    pub admin: Admin,
    /// Finds out who calls what knows nothing of callers.
    pub pipeline: Arc<Pipeline>,
    /// Whether the client listener has reflection, too.
    pub client_reflection: bool,
    /// What is counted.
    pub registry: Arc<Registry>,
    /// What the replica says of itself.
    pub readiness: Readiness,
}

/// What each listener serves, and who keeps the health services true.
#[derive(Debug)]
pub struct Listeners {
    /// The client API; in dev mode everything.
    pub client: Offer,
    /// The admin API. `None` in dev mode.
    pub admin: Option<Offer>,
    /// Metrics and health over HTTP.
    pub metrics: Offer,
    /// Tells the phase to the health services.
    pub health: HealthTeller,
}

impl Services {
    /// Distributes the services; with `dev` one listener has them all.
    ///
    /// # Panics
    ///
    /// Never: the descriptors are those that this program was built with.
    #[must_use]
    pub fn distribute(self, dev: bool) -> Listeners {
        let shortcut = Some(self.tokens.clone());
        let tokens = TokenServiceServer::new(self.tokens).max_decoding_message_size(MAX_REQUEST);
        let admin = AdminServiceServer::new(self.admin).max_decoding_message_size(MAX_REQUEST);
        let (reporter, health) = tonic_health::server::health_reporter();
        let http = http::routes(self.registry, self.readiness.clone());
        let teller = HealthTeller { reporter, readiness: self.readiness };
        let metrics = Offer { routes: Routes::from(http.clone()), tokens: None };
        if dev {
            let all = with_reflection(Routes::new(tokens).add_service(admin).add_service(health), &self.pipeline);
            let all = Routes::from(all.into_axum_router().merge(http));
            let client = Offer { routes: all.prepare(), tokens: shortcut };
            return Listeners { client, admin: None, metrics, health: teller };
        }
        let client = Routes::new(tokens).add_service(health.clone());
        let client = if self.client_reflection { with_reflection(client, &self.pipeline) } else { client }.prepare();
        let admin = with_reflection(Routes::new(admin).add_service(health), &self.pipeline).prepare();
        let client = Offer { routes: client, tokens: shortcut };
        Listeners { client, admin: Some(Offer { routes: admin, tokens: None }), metrics, health: teller }
    }
}

/// Adds both versions of the reflection service, for not every client speaks the newer one; behind authentication.
fn with_reflection(routes: Routes, pipeline: &Arc<Pipeline>) -> Routes {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            // The details of errors are of its types: without them a reflection client cannot show an error.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = builder().build_v1().expect("the descriptors that this program was built with are valid");
    let v1alpha = builder().build_v1alpha().expect("the descriptors that this program was built with are valid");
    let (v1, v1alpha) = (Guarded::new(v1, Arc::clone(pipeline)), Guarded::new(v1alpha, Arc::clone(pipeline)));
    routes.add_service(v1).add_service(v1alpha)
}

/// Keeps the health services true. A worker.
#[derive(Debug)]
pub struct HealthTeller {
    reporter: HealthReporter,
    readiness: Readiness,
}

impl HealthTeller {
    /// The services that have a status of their own; the empty name is the replica's.
    const NAMES: [&str; 3] = ["", "tokencache.v1.TokenService", "tokencache.v1.AdminService"];

    /// Runs until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut phases = self.readiness.watch();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = phases.changed() => if changed.is_err() { return },
            }
            let phase = *phases.borrow_and_update();
            let status = match phase {
                Phase::Serving => ServingStatus::Serving,
                Phase::Starting | Phase::Draining => ServingStatus::NotServing,
            };
            for name in Self::NAMES {
                self.reporter.set_service_status(name, status).await;
            }
        }
    }
}
