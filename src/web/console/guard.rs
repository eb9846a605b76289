//! Which requests are taken: those of the console's own pages, in the browser of who is logged in.
//!
//! - *Host*: without TLS anybody can have a name of theirs point to this daemon, and their page would
//!   then be of the same origin as the console (DNS rebinding). So the name has to be one that this
//!   daemon is known by. With TLS the certificate sees to that.
//! - *Origin* and *Sec-Fetch-Site*: what another site's page has the browser send is refused.
//! - A changing request has JSON for its body and a header with a token that only the console's own
//!   pages can read. The cookie goes to no request that begins at another site (SameSite=Strict).

use std::net::IpAddr;

use axum::http::header::{CONTENT_TYPE, COOKIE, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};

use super::Refusal;
use crate::data_dir::host_name;
use crate::web::port::Caller;

/// The header that has the token.
pub const CSRF: &str = "x-oribi-csrf";

/// Headers of proxies: the address that the connection comes from is not the browser's.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// Names that need no word.
#[derive(Debug)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// Beside this host's own name: the one it is advertised by, and those of a list with commas.
    pub fn new(advertised: Option<&str>, listed: &str) -> Self {
        let listed = listed.split(',').map(str::trim).filter(|name| !name.is_empty());
        let mut names: Vec<String> = listed.chain(advertised).map(str::to_lowercase).collect();
        names.extend(["localhost".to_owned(), host_name().to_lowercase()]);
        Self(names)
    }

    /// Whether a `Host` header names this daemon.
    pub fn know(&self, host: &str) -> bool {
        let name = without_port(host).to_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok() || self.0.contains(&name)
    }

    /// Refuses a request that comes from somebody else's page.
    pub fn check(&self, caller: &Caller, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = text(headers, HOST.as_str()).unwrap_or_default();
        if caller.tls.is_none() && !self.know(host) {
            let hint = "If browsers are to use that name, add it to the setting console.hosts.";
            let message = format!("this daemon is not known as \"{}\"", without_port(host));
            return Err(Refusal::new(StatusCode::FORBIDDEN, "28000", message).hint(hint));
        }
        let foreign = |what: &str| {
            let message = format!("the request comes from another site's page ({what})");
            Refusal::new(StatusCode::FORBIDDEN, "28000", message)
        };
        match text(headers, "sec-fetch-site") {
            None | Some("same-origin" | "none") => {}
            Some(site) => return Err(foreign(site)),
        }
        // A proxy may do the encryption, so only the rest has to be the same.
        match text(headers, ORIGIN.as_str()) {
            None => Ok(()),
            Some(origin) if origin.split_once("://").is_some_and(|(_, own)| own == host) => Ok(()),
            Some(origin) => Err(foreign(origin)),
        }
    }
}

/// Refuses what is not JSON: a page of another site can send that only if it is allowed to.
pub fn check_body(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = text(headers, CONTENT_TYPE.as_str()).unwrap_or_default();
    match kind.split(';').next().map(str::trim) {
        Some("application/json") => Ok(()),
        _ => {
            let message = "the body has to be application/json";
            Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "08P01", message))
        }
    }
}

/// Refuses a changing request without its token.
pub fn check_token(headers: &HeaderMap, expected: &str) -> Result<(), Refusal> {
    let given = text(headers, CSRF).unwrap_or_default();
    // Compared in full, so that the time tells nothing of where they differ.
    let pairs = given.bytes().zip(expected.bytes());
    let equal = given.len() == expected.len() && pairs.fold(0, |all, (a, b)| all | (a ^ b)) == 0;
    match equal {
        true => Ok(()),
        false => {
            let message = format!("the request has not the right token in its header {CSRF}");
            let hint = "Load the console anew.";
            Err(Refusal::new(StatusCode::FORBIDDEN, "28000", message).hint(hint))
        }
    }
}

/// Whether a request has come through a proxy.
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    FORWARDED.iter().any(|name| headers.contains_key(*name))
}

/// A cookie's value.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

pub fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (name.parse().expect("a header"), value.parse().expect("a value"))
        });
        pairs.collect()
    }

    fn taken(pairs: &[(&'static str, &str)]) -> bool {
        let here = SocketAddr::from(([127, 0, 0, 1], 8439));
        let caller = Caller { peer: here, server: here, tls: None };
        Hosts::new(Some("db1"), "console.example, b").check(&caller, &headers(pairs)).is_ok()
    }

    #[test]
    fn only_its_own_pages_may_ask() {
        for (expected, pairs) in [
            (true, &[("host", "127.0.0.1:8439")][..]),
            (true, &[("host", "[::1]:8439"), ("origin", "http://[::1]:8439")]),
            (true, &[("host", "LOCALHOST:8439")]),
            (true, &[("host", "db1:8439"), ("sec-fetch-site", "same-origin")]),
            (true, &[("host", "console.example"), ("origin", "https://console.example")]),
            (false, &[("host", "evil.example:8439"), ("origin", "http://evil.example:8439")]),
            (false, &[("host", "localhost:8439"), ("origin", "http://evil.example")]),
            (false, &[("host", "localhost:8439"), ("origin", "null")]),
            (false, &[("host", "localhost:8439"), ("origin", "http://localhost:80")]),
            (false, &[("host", "localhost:8439"), ("sec-fetch-site", "cross-site")]),
            (false, &[("host", "localhost:8439"), ("sec-fetch-site", "same-site")]),
            (false, &[]),
        ] {
            assert_eq!(taken(pairs), expected, "{pairs:?}");
        }
    }

    #[test]
    fn cookies_and_tokens_are_found() {
        let all = headers(&[("cookie", "a=1; oribi_8439=t; b=2"), (CSRF, "secret")]);
        assert_eq!((cookie(&all, "oribi_8439"), cookie(&all, "oribi")), (Some("t"), None));
        assert!(check_token(&all, "secret").is_ok() && check_token(&all, "secreT").is_err());
        assert!(check_token(&all, "").is_err() && check_token(&HeaderMap::new(), "a").is_err());
        let json = headers(&[("content-type", "application/json; charset=utf-8")]);
        assert!(check_body(&json).is_ok() && check_body(&all).is_err());
    }
}
