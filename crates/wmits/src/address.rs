//! Addresses of sources without the secrets in them, for logs and answers.

/// Names of query parameters whose values are secrets. Compared as parts of the lower-case name.
const SECRET_NAMES: [&str; 7] = ["pass", "pwd", "token", "key", "secret", "auth", "sign"];

/// The address without user, password and secret query values. Paths of files come back as they are.
///
/// ```
/// assert_eq!(aits_wmits::redacted("rtsp://admin:s3cret@cam/1?token=abc&fps=5"), "rtsp://***@cam/1?token=***&fps=5");
/// assert_eq!(aits_wmits::redacted("/videos/a@b.mp4"), "/videos/a@b.mp4");
/// ```
pub fn redacted(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let authority_len = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_len);
    // The last `@` ends the user part: a password may contain one by mistake.
    let host = authority.rsplit_once('@').map_or(authority.to_owned(), |(_, host)| format!("***@{host}"));
    let (path, query) = match tail.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (tail, None),
    };
    let query = query.map(|query| query.split('&').map(redacted_parameter).collect::<Vec<_>>().join("&"));
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{host}{path}{query}")
}

fn redacted_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}=***"),
        _ => parameter.to_owned(),
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|secret| name.contains(secret))
}

/// A sentence of somebody else in which the address may stand, without its secrets.
pub(crate) fn redacted_in(sentence: &str, address: &str) -> String {
    sentence.replace(address, &redacted(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        for (address, expected) in [
            ("rtsp://u:p@10.0.0.1:554/s", "rtsp://***@10.0.0.1:554/s"),
            ("rtsp://u:p@ss@host/s", "rtsp://***@host/s"),
            ("http://host/live.flv?Auth_Key=1&x=2", "http://host/live.flv?Auth_Key=***&x=2"),
            ("http://host/a@b", "http://host/a@b"),
            ("rtsp://host", "rtsp://host"),
            ("rtsp://u:p@host?x", "rtsp://***@host?x"),
            ("clip.mp4", "clip.mp4"),
        ] {
            assert_eq!(redacted(address), expected);
        }
        assert_eq!(
            redacted_in("no answer from rtsp://u:p@h/1.", "rtsp://u:p@h/1"),
            "no answer from rtsp://***@h/1."
        );
    }
}
