//! Errors as the client sees them: problem documents (RFC 9457) with a stable `code`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use baton_rpc::CallError;
use serde::Serialize;

/// An error answer: status, a code for programs that never changes, one sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// Stable, in snake case.
    pub code: &'static str,
    /// What is wrong and what to do.
    pub detail: String,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
}

impl Problem {
    /// A problem of this status and code.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into() }
    }

    /// 404 for a task that is not there.
    pub fn unknown_task(id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown_task",
            format!("there is no task {id:?}; GET /api/tasks lists them"),
        )
    }

    /// 404 for a stream that is not there.
    pub fn unknown_stream(id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown_stream",
            format!("there is no stream {id:?}; GET /api/tasks tells the stream of each task"),
        )
    }

    /// 503 for a service that does not answer now.
    pub fn away(service: &'static str, error: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            format!("{service} does not answer at the moment; try again in a second ({error})"),
        )
    }

    /// 503 for too many of something.
    pub fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
    }

    /// What another service answered, or that it did not. `missing` is the answer to "no such thing".
    pub fn from_call(service: &'static str, error: CallError, missing: impl FnOnce() -> Self) -> Self {
        let CallError::Remote(remote) = &error else { return Self::away(service, error) };
        let detail = remote.message.clone();
        match &*remote.code {
            "no_such_task" | "no_such_stream" => missing(),
            "invalid_params" => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail),
            "task_exists" => Self::new(StatusCode::CONFLICT, "conflict", detail),
            "busy" | "too_many_watchers" => Self::busy(detail),
            "unavailable" | "timeout" => Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail),
            _ => Self::new(StatusCode::BAD_GATEWAY, "failed", format!("{service} says: {detail}")),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            r#type: format!("urn:aits:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
        };
        let mut response = (self.status, axum::Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
