//! Whether a request went over a connection that was kept: one that fails there says nothing of the upstream, which may have
//! closed the connection just before.

use std::cell::Cell;

use reqwest::ClientBuilder;
use tokio::task_local;
use tower::util::MapRequestLayer;

task_local! {
    static OPENING: Cell<bool>;
}

/// Has the client's requests tell when they begin to open a connection.
pub(super) fn watched(builder: ClientBuilder) -> ClientBuilder {
    builder.connector_layer(MapRequestLayer::new(note))
}

fn note<T>(request: T) -> T {
    // A connection that is opened in the background belongs to no request.
    let _ = OPENING.try_with(|opening| opening.set(true));
    request
}

/// Makes a request of such a client, and says whether it certainly went over a connection that was kept: that none was begun
/// to be opened for it.
pub(super) async fn over_kept<T>(request: impl Future<Output = T>) -> (T, bool) {
    let watched = async { (request.await, OPENING.with(|opening| !opening.get())) };
    OPENING.scope(Cell::new(false), watched).await
}
