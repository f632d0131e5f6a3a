//! What every request must pass and every answer carries.
//!
//! The door has no passwords yet, so it must make sure that a request comes from its own page or from a program of the
//! user, not from a foreign page in the user's browser:
//! * a `Host` that is neither an address nor a known name is refused: another site whose name was made to point here
//!   (DNS rebinding) cannot read anything;
//! * an `Origin` other than the `Host` may not change anything: another site cannot send orders. (Bodies must be
//!   `application/json` too, which a foreign page cannot send without asking first.)

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::{Door, Problem};

/// Only what the door itself serves may be loaded by the page; nothing may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Names under which the door may be asked.
#[derive(Clone, Debug, Default)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// Loopback names and all addresses, the host of `listen`, and `names`.
    pub fn new(listen: &str, names: &[String]) -> Self {
        let own = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
        let names = names.iter().map(String::as_str).chain([own, "localhost"]);
        Self(names.map(str::to_ascii_lowercase).collect())
    }

    /// Whether a `Host` header names this door. An address cannot be made to point elsewhere, so it always may.
    fn allows(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        name.parse::<IpAddr>().is_ok() || self.0.contains(&name)
    }
}

/// The middleware around all routes.
pub async fn guard(State(door): State<Door>, request: Request, next: Next) -> Response {
    let mut response = match check(door.hosts(), &request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn check(hosts: &Hosts, request: &Request) -> Result<(), Problem> {
    let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or(""));
    let host = text(header::HOST).unwrap_or("");
    if !hosts.allows(host) {
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "unknown_host",
            format!("this door is not called {host:?}; use its address, or start it with --host NAME"),
        ));
    }
    let reading = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let foreign = |origin: &str| origin.split_once("://").is_none_or(|(_, authority)| authority != host);
    if !reading && text(header::ORIGIN).is_some_and(foreign) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "foreign_origin",
            "orders are taken from the page of this door only, not from another site",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_known_names_are_ours() {
        let hosts = Hosts::new("127.0.0.1:8080", &["Traffic.example".into()]);
        for ours in
            ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "192.0.2.7", "traffic.example:80"]
        {
            assert!(hosts.allows(ours), "{ours}");
        }
        for other in
            ["", "evil.example", "127.0.0.1.evil.example:8080", "local host", "localhost.evil.example"]
        {
            assert!(!hosts.allows(other), "{other}");
        }
    }
}
