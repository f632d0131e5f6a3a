//! The page's files, embedded in the binary. No path of a request ever reaches the file system.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

/// A file of the page.
#[derive(Clone, Copy)]
pub struct Asset {
    pub path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! asset {
    ($path:literal, $file:literal, $type:literal) => {
        Asset {
            path: $path,
            content_type: $type,
            bytes: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../web/", $file)),
        }
    };
}

/// All of them.
pub const ASSETS: [Asset; 9] = [
    asset!("/", "index.html", "text/html; charset=utf-8"),
    asset!("/style.css", "style.css", "text/css; charset=utf-8"),
    asset!("/favicon.svg", "favicon.svg", "image/svg+xml"),
    asset!("/app.js", "app.js", "text/javascript; charset=utf-8"),
    asset!("/api.js", "api.js", "text/javascript; charset=utf-8"),
    asset!("/dom.js", "dom.js", "text/javascript; charset=utf-8"),
    asset!("/live.js", "live.js", "text/javascript; charset=utf-8"),
    asset!("/tasks.js", "tasks.js", "text/javascript; charset=utf-8"),
    asset!("/system.js", "system.js", "text/javascript; charset=utf-8"),
];

impl Asset {
    /// The file, or "you have it" when the browser's copy is this one. Browsers ask each time: an upgraded binary is
    /// seen at once.
    pub fn answer(self, request: &HeaderMap) -> Response {
        let tag = format!("\"{:016x}\"", fnv1a(self.bytes));
        let same = request.get(header::IF_NONE_MATCH).is_some_and(|have| have.as_bytes() == tag.as_bytes());
        let mut response = if same {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let kind = [(header::CONTENT_TYPE, self.content_type)];
            (kind, Bytes::from_static(self.bytes)).into_response()
        };
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(header::ETAG, tag);
        }
        response
    }
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo): tells versions of a file apart, nothing more.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
