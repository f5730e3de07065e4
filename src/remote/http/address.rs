//! Which addresses a repository's URL must not reach: this machine and its link.
//!
//! Literal addresses are checked in the URL, names when they are looked up, so that a public name
//! with a local address does not slip through.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// Begins the error of a name that has no other address.
pub(super) const REFUSED: &str = "only addresses of this machine or its link";

/// What to do about a refused address.
pub(super) const HINT: &str =
    "name this remote in your own DVC configuration, or allow it for this registry";

/// Looks names up as the system does, and drops local addresses.
pub(super) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let all: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let public: Vec<SocketAddr> =
                all.into_iter().filter(|address| !is_local(address.ip())).collect();
            if public.is_empty() {
                return Err(format!("{REFUSED} for {}", name.as_str()).into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Whether a URL's host is literally a local address.
pub(super) fn names_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse().is_ok_and(is_local)
}

fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_local_v4(address),
        IpAddr::V6(address) => address.to_ipv4().map_or_else(|| is_local_v6(address), is_local_v4),
    }
}

fn is_local_v4(address: Ipv4Addr) -> bool {
    address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_multicast()
        || address.octets()[0] == 0
}

/// The metadata service of Amazon's machines has an address of its own.
fn is_local_v6(address: Ipv6Addr) -> bool {
    address.is_unicast_link_local()
        || address.is_multicast()
        || address.segments()[..2] == [0xfd00, 0x0ec2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_known_in_every_spelling() {
        for local in [
            "http://127.0.0.1/x",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0.0.0.0:80/",
            "http://169.254.1.1/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
        ] {
            assert!(names_local(&Url::parse(local).unwrap()), "{local}");
        }
        for public in ["http://192.0.2.1/", "http://[2001:db8::1]/", "http://127.0.0.1.example/"] {
            assert!(!names_local(&Url::parse(public).unwrap()), "{public}");
        }
    }

    #[tokio::test]
    async fn a_name_with_a_local_address_is_refused_when_looked_up() {
        let outcome = PublicOnly.resolve("localhost".parse().unwrap()).await;
        let error = outcome.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(REFUSED), "{error}");
    }
}
