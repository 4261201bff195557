//! What `serve --dev` prints: what is listening, and the commands of a walk through the broker.

use std::net::SocketAddr;

/// The tour. `listen` serves the client API and the admin API; all commands can be pasted as they are.
#[must_use]
pub fn tour(listen: SocketAddr, metrics: SocketAddr, upstream: SocketAddr) -> String {
    let addr = if listen.to_string() == DEFAULT_LISTEN { String::new() } else { format!(" --addr http://{listen}") };
    format!(
        r#"tokencached runs in dev mode: loopback only, no authentication, everything in {directory}/

  http://{listen}   client API, admin API, health, reflection (gRPC)
  http://{metrics}    metrics and health (HTTP)
  http://{upstream}   demo upstream: an OAuth2 server, a log-in and a protected API (HTTP)

A tour, for a second terminal. From a clone of the repository, say this first:

  tokencache() {{ cargo run --release --quiet --locked --bin tokencache -- "$@"; }}

1. Get a token, and call the demo API with it:

  tokencache{addr} get demo
  curl -i -H "$(tokencache{addr} get demo --output header)" http://{upstream}/api/hello

2. Watch it being replaced, well before its 60 seconds are over (ctrl-c ends the watch):

  tokencache{addr} watch demo

3. Keep a copy, as a client would. A fingerprint, the start of a SHA-256, names it where it must not be shown:

  TOKEN=$(tokencache{addr} get demo)
  FINGERPRINT=$(printf %s "$TOKEN" | sha256sum | cut -c1-16)

4. Revoke it upstream, behind the broker's back, and see the 401:

  curl -X POST "http://{upstream}/demo/revoke?fingerprint=$FINGERPRINT"
  curl -i -H "Authorization: Bearer $TOKEN" http://{upstream}/api/hello

5. Report it, and see the new one work:

  tokencache{addr} invalidate demo --fingerprint "$FINGERPRINT" --http-status 401 --error invalid_token
  curl -i -H "$(tokencache{addr} get demo --output header)" http://{upstream}/api/hello

6. Inspect the broker, with and without its own command line:

  tokencache{addr} list
  tokencache{addr} describe demo
  grpcurl -plaintext {listen} list
  grpcurl -plaintext -d '{{"name":"demo"}}' {listen} tokencache.v1.AdminService/DescribeCredential

Two more credentials: demo-rotating, whose refresh token changes at every use, and demo-session, a log-in with a
password. Stop the broker and start it again: the tokens are still there. rm -r {directory} begins anew.
"#,
        directory = super::DIRECTORY,
    )
}

/// Where the command line looks unless told otherwise.
const DEFAULT_LISTEN: &str = "127.0.0.1:50051";

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn the_tour_names_what_listens_and_has_no_line_too_wide_to_paste() {
        let tour = tour(at(50051), at(9464), at(50053));
        for address in ["http://127.0.0.1:50051 ", "http://127.0.0.1:9464 ", "http://127.0.0.1:50053/api/hello"] {
            assert!(tour.contains(address), "{address}");
        }
        assert!(tour.contains("\n  tokencache get demo\n"));
        assert!(tour.contains(r#"-d '{"name":"demo"}' 127.0.0.1:50051 tokencache.v1.AdminService/DescribeCredential"#));
        assert!(tour.lines().all(|line| line.len() <= 120));
    }

    #[test]
    fn another_port_stands_in_every_command() {
        let tour = tour(at(7), at(9464), at(50053));
        let calls =
            |call: &str| tour.matches(&format!("  {call}")).count() + tour.matches(&format!("$({call}")).count();
        assert_eq!(calls("tokencache "), 8);
        assert_eq!(calls("tokencache --addr http://127.0.0.1:7 "), 8);
        assert!(tour.contains("grpcurl -plaintext 127.0.0.1:7 list"));
    }
}
