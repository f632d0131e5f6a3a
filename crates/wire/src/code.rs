//! The codes of error answers. They are part of the protocol: added to, never changed.

/// The body is not UTF-8. The connection goes on.
pub const BAD_UTF8: &str = "bad_utf8";
/// The body is not JSON. The connection goes on.
pub const BAD_JSON: &str = "bad_json";
/// The JSON has no text member `in`, or has it twice. The connection goes on.
pub const BAD_REQUEST: &str = "bad_request";
/// No such method. The connection goes on.
pub const UNKNOWN_METHOD: &str = "unknown_method";
/// `params` does not fit the method. The connection goes on.
pub const INVALID_PARAMS: &str = "invalid_params";
/// The JSON is nested too deeply. The connection goes on.
pub const TOO_DEEP: &str = "too_deep";
/// The announced frame is over the limit. The connection closes: the next boundary is unknown.
pub const TOO_LARGE: &str = "too_large";
/// The answer would be over the limit and is not sent. The connection goes on.
pub const ANSWER_TOO_LARGE: &str = "answer_too_large";
/// The method failed in a way that is the server's fault. The connection goes on.
pub const INTERNAL: &str = "internal";
/// The method took longer than the server allows, or a frame stayed unfinished (then the connection closes).
pub const TIMEOUT: &str = "timeout";
/// The method ran and says no. The connection goes on.
pub const FAILED: &str = "failed";
/// The server has as many connections as it takes. The connection closes.
pub const BUSY: &str = "busy";
/// The server has as many requests, or the connection as many subscriptions, as it takes. The connection goes on.
pub const OVERLOADED: &str = "overloaded";
/// The caller has cancelled the request. The connection goes on.
pub const CANCELLED: &str = "cancelled";
/// The server is about to close the connection; a subscription ends early. Subscribe again on a new one.
pub const STOPPING: &str = "stopping";
