//! Asks an address itself: no proxy, no name to resolve, no credentials.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::Url;

use super::{Error, Reply, builder, cause, no_answer};

/// A client that any address can be asked by.
#[derive(Clone, Debug)]
pub struct Direct(reqwest::Client);

impl Direct {
    /// The deadlines are for a connection, and for one answer with that.
    pub fn new(connecting: Duration, deadline: Duration) -> Result<Self, Error> {
        let builder = builder(deadline).connect_timeout(connecting);
        let http = builder.no_proxy().build();
        let unusable = |error: reqwest::Error| Error::Setup(cause(&error));
        http.map(Self).map_err(unusable)
    }

    /// Asks for a path, which may have a query.
    pub async fn get(&self, ip: IpAddr, port: u16, path: &str) -> Result<Reply, Error> {
        let url = url(ip, port, path)
            .ok_or_else(|| Error::Setup(format!("there is no URL of {ip}, port {port}")))?;
        let sent = self.0.get(url).send().await;
        sent.map(Reply).map_err(|error| no_answer(&error))
    }
}

/// Made of an address and numbers, so that nothing in the path can lead elsewhere.
fn url(ip: IpAddr, port: u16, path: &str) -> Option<Url> {
    let mut url = Url::parse("http://node/").ok()?;
    url.set_ip_host(ip).ok()?;
    url.set_port(Some(port)).ok()?;
    let (path, query) = path
        .split_once('?')
        .map_or((path, None), |(path, query)| (path, Some(query)));
    url.set_path(path);
    url.set_query(query);
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h70_a_path_leads_to_no_other_host() {
        for (ip, path, expect) in [
            ("10.0.0.1", "/metrics", "http://10.0.0.1:9100/metrics"),
            ("10.0.0.1", "//evil/x", "http://10.0.0.1:9100//evil/x"),
            ("10.0.0.1", "/@evil", "http://10.0.0.1:9100/@evil"),
            ("10.0.0.1", "@evil/", "http://10.0.0.1:9100/@evil/"),
            ("10.0.0.1", ".evil", "http://10.0.0.1:9100/.evil"),
            ("10.0.0.1", "/m?a[]=b", "http://10.0.0.1:9100/m?a[]=b"),
            ("2001:db8::1", "/", "http://[2001:db8::1]:9100/"),
        ] {
            let url = url(ip.parse().unwrap(), 9100, path).unwrap();
            assert_eq!(url.as_str(), expect);
        }
    }
}
