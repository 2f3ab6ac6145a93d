//! Mistakes in a URL, and servers of another kind than it says: each gets a sentence that says what to write instead.

use std::error::Error as _;

use crate::{Error, ErrorKind};

/// What is wrong with `url`, which is not repeated: it may have a password.
///
/// Checked before a parser sees it, because a parser stops at the first character that it takes for the end of the
/// password and finds fault with what follows.
pub(super) fn mistake(url: &str) -> Option<String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Some("the URL has no scheme, write redis://HOST[:PORT] or unix:///PATH".to_owned());
    };
    let scheme = scheme.to_ascii_lowercase();
    let (base, kind) = scheme.split_once('+').unwrap_or((&scheme, ""));
    if base == "unix" || kind == "unix" {
        let relative = !rest.starts_with('/');
        return relative.then(|| "the path of a socket begins with /, write unix:///PATH".to_owned());
    }
    if !matches!(base, "redis" | "rediss" | "valkey" | "valkeys") || !matches!(kind, "" | "sentinel" | "cluster") {
        return Some(
            "the scheme of the URL is not known, write redis, rediss, unix, redis+sentinel or redis+cluster".to_owned(),
        );
    }
    // A password of the sentinels may have an @.
    let end = if kind == "sentinel" { rest.find("?sentinel_") } else { None }.unwrap_or(rest.len());
    let (login, from) = rest[..end].rfind('@').map_or(("", 0), |at| (&rest[..at], at + 1));
    in_login(login).or_else(|| after_login(kind, &rest[from..]))
}

/// What is wrong with user and password.
fn in_login(login: &str) -> Option<String> {
    for (character, code) in [('#', "%23"), ('/', "%2F"), ('?', "%3F")] {
        if login.contains(character) {
            return Some(format!("the user or password in the URL has a {character:?}, write {code} for it"));
        }
    }
    let is_code = |rest: &str| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit);
    if login.split('%').skip(1).any(|rest| !is_code(rest)) {
        return Some("the user or password in the URL has a '%', write %25 for it".to_owned());
    }
    None
}

/// What is wrong with hosts, database and options.
fn after_login(kind: &str, rest: &str) -> Option<String> {
    if rest.contains('#') {
        return Some(
            "the URL has a #: in a password write %23; certificates are always checked, there is no #insecure"
                .to_owned(),
        );
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let known: &[&str] = if kind == "sentinel" { &["sentinel_user", "sentinel_password"] } else { &[] };
    let option = url::form_urlencoded::parse(query.as_bytes()).map(|(key, _)| key).find(|key| !known.contains(&&**key));
    if let Some(option) = option {
        return Some(format!("the URL has an option {option:?} that is not known, leave away what follows the ?"));
    }
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    if kind.is_empty() && hosts.contains(',') {
        return Some(
            "the URL names several servers, write redis+sentinel://HOST,…/NAME or redis+cluster://HOST,…".to_owned(),
        );
    }
    for host in hosts.split(',') {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, Some(port)),
            _ => (host, None),
        };
        if name.is_empty() {
            return Some("the URL names no host, write redis://HOST[:PORT]".to_owned());
        }
        if port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port == 0) || port.parse::<u16>().is_err()) {
            return Some("the port in the URL is not a number from 1 to 65535, write HOST:PORT".to_owned());
        }
    }
    let db = match kind {
        "sentinel" => path.split_once('/').map_or("", |(_, db)| db),
        _ => path,
    };
    if !db.is_empty() && db.parse::<u32>().is_err() {
        return Some("what follows the last / of the URL is the number of a database, write /0".to_owned());
    }
    if kind == "cluster" && !matches!(db, "" | "0") {
        return Some("a cluster has no databases but 0, leave away what follows the /".to_owned());
    }
    None
}

/// What to write when a server of another kind gave the answer `detail` with `code`.
pub(super) fn other_kind(code: &str, detail: &str) -> Option<&'static str> {
    if code != "ERR" {
        return None;
    }
    let detail = detail.to_ascii_lowercase();
    if detail.contains("cluster support disabled") {
        return Some("the server is no node of a cluster, write redis:// instead of redis+cluster://");
    }
    let command = detail.strip_prefix("unknown command ")?.trim_start_matches(['\'', '`']);
    let is =
        |word: &str| command.strip_prefix(word).is_some_and(|rest| !rest.starts_with(|it: char| it.is_alphanumeric()));
    if is("sentinel") {
        Some("the server there is no sentinel, write redis://HOST[:PORT] for a server of its own")
    } else if is("cluster") {
        Some("the server there is no node of a cluster, write redis://HOST[:PORT] or redis+sentinel://HOST[:PORT]/NAME")
    } else {
        None
    }
}

/// What is wrong with a certificate, in the words of rustls, and what to do about it.
const CERTIFICATES: [(&str, &str); 5] = [
    ("causedasendentity", "it shows the certificate of an authority: let that sign one for the server"),
    ("unknownissuer", "nobody who is trusted here signed its certificate: name the authority with --tls-ca or tls_ca"),
    ("valid for name", "its certificate is for another host: write a name that it is for"),
    ("expired", "its certificate is over: renew it"),
    ("certificaterequired", "it asks for a certificate: show one with --tls-cert and --tls-key or tls_cert"),
];

/// `error`, which kept `what` from being done, with what to write when the reason may be TLS.
pub(super) fn about_tls(error: Error, tls: bool) -> Error {
    if error.kind() != ErrorKind::Unavailable {
        return error;
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text} {cause}");
        source = cause.source();
    }
    text.make_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let advice = if let Some((_, advice)) = CERTIFICATES.iter().find(|(word, _)| tls && text.contains(word)) {
        advice
    } else if tls && has(&["took longer", "corrupt message", "invalidcontenttype", "eof", "reset"]) {
        "if it does not speak TLS, write redis:// instead of rediss://"
    } else if !tls && has(&["reset by peer", "broken pipe", "eof", "closed"]) {
        "if it speaks TLS, write rediss:// instead of redis://"
    } else {
        return error;
    };
    Error::new(ErrorKind::Unavailable, format!("{error}; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_says(url: &str, words: &str) {
        let said = mistake(url).unwrap_or_else(|| panic!("{url} is taken"));
        assert!(said.contains(words), "{url}: {said}");
        assert!(!said.contains("s3cret"), "{said}");
    }

    #[test]
    fn each_mistake_has_a_sentence_that_says_what_to_write() {
        for (url, words) in [
            ("s3cret", "write redis://HOST"),
            ("localhost:6379", "write redis://HOST"),
            ("http://:s3cret@h", "write redis, rediss"),
            ("redis+other://:s3cret@h", "write redis, rediss"),
            ("unix://tmp/redis.sock", "write unix:///PATH"),
            ("redis://:s3cret#1@h", "write %23"),
            ("redis://:s3cret/1@h", "write %2F"),
            ("redis://:s3cret?1@h", "write %3F"),
            ("redis://:s3cret%1@h", "write %25"),
            ("redis+sentinel://:s3cret/1@a,b/orders", "write %2F"),
            ("redis+cluster://:s3cret#@a,b", "write %23"),
            ("rediss://:s3cret@h#insecure", "always checked"),
            ("redis://h?x=s3cret", "\"x\""),
            ("redis://h/1?x=s3cret", "\"x\""),
            ("redis+sentinel://h/orders?password=s3cret", "\"password\""),
            ("redis+cluster://h?sentinel_user=s3cret", "\"sentinel_user\""),
            ("redis://a,b", "several servers"),
            ("redis://:s3cret@", "no host"),
            ("redis+cluster://a,", "no host"),
            ("redis://h:70000", "1 to 65535"),
            ("redis://h:0", "1 to 65535"),
            ("redis://h:", "1 to 65535"),
            ("redis+sentinel://a:x/orders", "1 to 65535"),
            ("redis://h/s3cret", "write /0"),
            ("redis+sentinel://h/orders/s3cret", "write /0"),
            ("redis+cluster://h/4", "no databases"),
        ] {
            assert_says(url, words);
        }
    }

    #[test]
    fn what_is_right_is_taken() {
        for url in [
            "redis://h",
            "REDIS://h",
            "redis://h/",
            "rediss://app:p%23%2F%3f%25@h:7000/3",
            "redis://app:p@ss@h",
            "redis://[::1]",
            "redis://[::1]:7000/1",
            "valkey://h",
            "unix:///run/redis.sock?db=1",
            "redis+unix:///run/redis.sock",
            "redis+sentinel://u:p@a,b:7,[::1]:8/orders/2?sentinel_user=w&sentinel_password=p@ss/",
            "rediss+cluster://u:p@a:1,b/0",
        ] {
            assert_eq!(mistake(url), None, "{url}");
        }
    }

    #[test]
    fn a_server_of_another_kind_is_recognized_by_what_it_does_not_know() {
        for (detail, words) in [
            ("unknown command 'SENTINEL', with args beginning with: 'x'", Some("no sentinel")),
            ("Unknown command `CLUSTER`, with args beginning with:", Some("redis+sentinel://")),
            ("This instance has cluster support disabled", Some("redis:// instead")),
            ("unknown command 'SCRIPTS'", None),
            ("syntax error", None),
        ] {
            let said = other_kind("ERR", detail);
            assert!(
                said.is_some() == words.is_some() && said.unwrap_or_default().contains(words.unwrap_or_default()),
                "{detail}"
            );
        }
        assert_eq!(other_kind("NOPERM", "unknown command 'SENTINEL'"), None);
    }
}
