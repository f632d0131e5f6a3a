//! URLs for the eyes of people: without user names, passwords and tokens.

/// Words in the name of a query parameter that make its value a secret.
const SECRET_WORDS: [&str; 7] = ["pass", "pwd", "token", "secret", "key", "auth", "sign"];

/// The URL without credentials: what stands before the `@` of the host, and the values of query parameters that sound
/// like secrets, become `***`. Paths come back as they are. When in doubt too much is hidden rather than too little.
///
/// ```
/// use aits_media::redact;
/// assert_eq!(redact("rtsp://admin:12345@10.0.0.9/ch1"), "rtsp://***@10.0.0.9/ch1");
/// assert_eq!(redact("http://nvr/live.flv?ch=1&password=x"), "http://nvr/live.flv?ch=1&password=***");
/// assert_eq!(redact("/data/a@b.mp4"), "/data/a@b.mp4");
/// ```
pub fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let rest = hide_user(rest);
    let Some((path, query)) = rest.split_once('?') else { return format!("{scheme}://{rest}") };
    let query: Vec<String> = query.split('&').map(hide_value).collect();
    format!("{scheme}://{path}?{}", query.join("&"))
}

/// Cuts at the last `@`. People write passwords with `/`, `?` and `@` in them unescaped, so where the user part ends by
/// the grammar (RFC 3986) says too little; an `@` in a path is rare, and hides the path then.
fn hide_user(rest: &str) -> String {
    rest.rfind('@').map_or_else(|| rest.to_owned(), |at| format!("***{}", &rest[at..]))
}

fn hide_value(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if SECRET_WORDS.iter().any(|word| name.to_ascii_lowercase().contains(word)) => {
            format!("{name}=***")
        }
        _ => parameter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::redact;

    #[test]
    fn what_is_no_secret_stays() {
        for url in [
            "/data/clip.mp4",
            "clip@home.mp4",
            "rtsp://10.0.0.9:554/ch1",
            "rtsp://[::1]:554/ch1?profile=2",
            "rtsp://[fe80::1]/x",
        ] {
            assert_eq!(redact(url), url);
        }
    }

    #[test]
    fn tokens_in_the_query_go() {
        assert_eq!(redact("rtmp://h/a?user=u&Password=p&x=1"), "rtmp://h/a?user=u&Password=***&x=1");
        assert_eq!(redact("http://h/a?access_token=p"), "http://h/a?access_token=***");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// No password survives, whatever characters stand in it.
        #[test]
        fn no_password_survives(password in "[a-z0-9/?@:#&=]{0,6}QQ[a-z0-9/?@:#&=]{0,6}") {
            let shown = redact(&format!("rtsp://admin:{password}@host:554/ch1"));
            prop_assert!(!shown.contains("QQ"), "{} shows it", shown);
            prop_assert!(shown.ends_with("@host:554/ch1"), "{}", shown);
        }
    }
}
