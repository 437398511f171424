//! Plain HTTP to the lab's own components.

use std::time::Duration;

use anyhow::{Context, Result};

/// A client that goes straight to loopback, whatever proxy the machine has.
pub fn client() -> Result<reqwest::Client> {
    crate::crypto();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build()
        .context("building an HTTP client")
}

/// The same, but taking any certificate: for health checks of the lab's own processes.
pub fn loopback_client() -> Result<reqwest::Client> {
    crate::crypto();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(15))
        .tls_danger_accept_invalid_certs(true)
        .build()
        .context("building an HTTP client")
}

/// Whether a GET of this address gives a success.
pub async fn answers(client: &reqwest::Client, url: &str) -> Result<bool> {
    Ok(client.get(url).send().await?.status().is_success())
}
