//! Servers with the same data, asked one after the other until one has a usable answer:
//! their addresses, certificates, and who asks.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, join_all};
use nodemend_core::config::{Connection, Credentials};
use nodemend_core::model::digest;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Certificate, Identity, Request, RequestBuilder, Url};

use super::{Error, Reply, builder, cause, no_answer};

/// Gives the headers that sign a request of this method and body to this URL.
pub type Signer = Arc<
    dyn Fn(String, String, Vec<u8>) -> BoxFuture<'static, Result<SignedHeaders, String>>
        + Send
        + Sync,
>;
/// Names and values.
pub type SignedHeaders = Vec<(String, String)>;

/// Some servers with the same data. Clones share which of them answered last.
#[derive(Clone)]
pub struct Servers(Arc<Inner>);

struct Inner {
    urls: Vec<Url>,
    connection: Connection,
    signer: Option<Signer>,
    preferred: AtomicUsize,
    /// What was made of the certificates, and their digest.
    made: Mutex<Option<(String, Clients)>>,
}

/// One for each URL.
type Clients = Arc<[reqwest::Client]>;

/// Shows no secret, and no header that may be one.
impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<&str> = self.0.urls.iter().map(Url::as_str).collect();
        f.debug_struct("Servers").field("urls", &urls).finish()
    }
}

impl Servers {
    /// Base URLs, such as `http://prometheus:9090`, in order of preference; the timeout is
    /// for one answer of one server, `what` is how errors call them. A URL with credentials
    /// is an error, and so are files that cannot be used now, and `SigV4` without a signer.
    /// Proxies are those of the environment, but never for loopback addresses.
    pub fn new(what: &str, connection: &Connection, signer: Option<Signer>) -> Result<Self, Error> {
        let urls: Vec<Url> = connection
            .urls
            .iter()
            .map(|url| base(what, url))
            .collect::<Result<_, _>>()?;
        if urls.is_empty() {
            return Err(Error::Setup(format!("there is no {what} to ask")));
        }
        if matches!(connection.credentials, Credentials::SigV4 { .. }) && signer.is_none() {
            return Err(Error::Setup("nobody can sign requests by SigV4".into()));
        }
        let servers = Self(Arc::new(Inner {
            urls,
            connection: connection.clone(),
            signer,
            preferred: AtomicUsize::default(),
            made: Mutex::default(),
        }));
        // Nothing is sent.
        let first = servers.server(0, &servers.0.clients()?);
        first.finish(first.http.get(first.url().clone()))?;
        Ok(servers)
    }

    /// The first usable answer. The server that gave the last one is asked first; if none
    /// does, the error is what each of them said.
    pub async fn first<T, E, F>(&self, ask: impl Fn(Server) -> F) -> Result<T, String>
    where
        E: fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        let clients = self.0.clients().map_err(|error| error.to_string())?;
        let first = self.0.preferred.load(Ordering::Relaxed);
        let mut errors = Vec::new();
        for offset in 0..clients.len() {
            let index = (first + offset) % clients.len();
            match ask(self.server(index, &clients)).await {
                Ok(answer) => {
                    self.0.preferred.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) => errors.push(self.blamed(index, &error)),
            }
        }
        Err(errors.join("; "))
    }

    /// What each has to say, all asked at once: an answer, or its name and what is wrong.
    pub async fn each<T, E, F>(&self, ask: impl Fn(Server) -> F) -> Vec<Result<T, String>>
    where
        E: fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        let clients = match self.0.clients() {
            Ok(clients) => clients,
            Err(error) => return vec![Err(error.to_string())],
        };
        let asked = (0..clients.len()).map(|index| {
            let answer = ask(self.server(index, &clients));
            async move { answer.await.map_err(|error| self.blamed(index, &error)) }
        });
        join_all(asked).await
    }

    fn blamed(&self, index: usize, error: &impl fmt::Display) -> String {
        format!("{}: {error}", self.0.urls[index].authority())
    }

    fn server(&self, index: usize, clients: &Clients) -> Server {
        Server {
            servers: Arc::clone(&self.0),
            index,
            http: clients[index].clone(),
        }
    }
}

/// One of them.
#[derive(Clone)]
pub struct Server {
    servers: Arc<Inner>,
    index: usize,
    http: reqwest::Client,
}

impl Server {
    /// Asks for what is under these segments of a path.
    pub async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Reply, Error> {
        self.send(self.http.get(self.at(path)).query(query)).await
    }

    /// Asks by a form.
    pub async fn post(&self, path: &[&str], form: &[(&str, &str)]) -> Result<Reply, Error> {
        self.send(self.http.post(self.at(path)).form(form)).await
    }

    fn url(&self) -> &Url {
        &self.servers.urls[self.index]
    }

    fn at(&self, path: &[&str]) -> Url {
        let mut url = self.url().clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    async fn send(&self, request: RequestBuilder) -> Result<Reply, Error> {
        let request = self.signed(self.finish(request)?).await?;
        let sent = self.http.execute(request).await;
        sent.map(Reply).map_err(|error| no_answer(&error))
    }

    /// With the connection's own headers, and who asks, from the files as they are now.
    fn finish(&self, request: RequestBuilder) -> Result<Request, Error> {
        let connection = &self.servers.connection;
        let mut headers = HeaderMap::new();
        for (name, value) in &connection.headers {
            insert(&mut headers, name, value)?;
        }
        let request = request.headers(headers);
        let request = match &connection.credentials {
            Credentials::None | Credentials::SigV4 { .. } => request,
            Credentials::BearerFile(file) => request.bearer_auth(secret(file)?),
            Credentials::Basic {
                username,
                password_file,
            } => request.basic_auth(username, Some(secret(password_file)?)),
        };
        request.build().map_err(|error| Error::Setup(cause(&error)))
    }

    async fn signed(&self, mut request: Request) -> Result<Request, Error> {
        if let Some(sign) = &self.servers.signer {
            let body = request.body().and_then(Body::as_bytes).unwrap_or_default();
            let (method, url) = (request.method().to_string(), request.url().to_string());
            let signed = sign(method, url, body.to_vec())
                .await
                .map_err(|error| Error::Setup(format!("the request cannot be signed: {error}")))?;
            for (name, value) in signed {
                insert(request.headers_mut(), &name, &value)?;
            }
        }
        Ok(request)
    }
}

impl Inner {
    /// Made anew when a certificate or key has changed.
    fn clients(&self) -> Result<Clients, Error> {
        let (ca, identity) = (&self.connection.ca_file, &self.connection.identity);
        let ca = ca.as_deref().map(content).transpose()?;
        let identity = identity
            .as_ref()
            .map(|(cert, key)| Ok::<_, Error>(content(cert)? + "\n" + &content(key)?))
            .transpose()?;
        let now = digest(
            &[
                ca.as_deref().unwrap_or_default(),
                identity.as_deref().unwrap_or_default(),
            ],
            64,
        );
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = made.as_ref().filter(|(then, _)| *then == now) {
            return Ok(Arc::clone(known));
        }
        let clients: Clients = self
            .urls
            .iter()
            .map(|url| self.client(url, ca.as_deref(), identity.as_deref()))
            .collect::<Result<_, _>>()?;
        *made = Some((now, Arc::clone(&clients)));
        Ok(clients)
    }

    fn client(
        &self,
        url: &Url,
        ca: Option<&str>,
        identity: Option<&str>,
    ) -> Result<reqwest::Client, Error> {
        let unusable = |what: &str, error: &reqwest::Error| {
            Error::Setup(format!("tls: {what} cannot be used: {}", cause(error)))
        };
        let mut builder = builder(self.connection.timeout.signed().unsigned_abs());
        if loopback(url) {
            builder = builder.no_proxy();
        }
        if let Some(pem) = ca {
            let certificates = Certificate::from_pem_bundle(pem.as_bytes())
                .map_err(|error| unusable("caFile", &error))?;
            if certificates.is_empty() {
                return Err(Error::Setup("tls: caFile has no certificate".into()));
            }
            builder = builder.tls_certs_only(certificates);
        }
        if let Some(pem) = identity {
            let identity = Identity::from_pem(pem.as_bytes())
                .map_err(|error| unusable("certFile with keyFile", &error))?;
            builder = builder.identity(identity);
        }
        builder
            .build()
            .map_err(|error| unusable("what is given", &error))
    }
}

/// Never shows the URL: it may hold a password.
fn base(what: &str, text: &str) -> Result<Url, Error> {
    let wrong = |why: &str| Error::Setup(format!("a URL of {what} {why}"));
    let url = Url::parse(text).map_err(|error| wrong(&format!("is none: {error}")))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(wrong("is not an http or https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("holds credentials"));
    }
    Ok(url)
}

/// An error does not show the value.
fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Error> {
    let wrong = || Error::Setup(format!("header {name} has a value that cannot be sent"));
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
    let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

/// The text of a file that holds one secret.
fn secret(file: &str) -> Result<String, Error> {
    let text = content(file)?;
    match text.trim() {
        "" => Err(Error::Setup(format!("{file} is empty"))),
        secret => Ok(secret.to_owned()),
    }
}

fn content(file: &str) -> Result<String, Error> {
    std::fs::read_to_string(file)
        .map_err(|error| Error::Setup(format!("{file} cannot be read: {error}")))
}

/// A proxy's own loopback is another one.
fn loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || ip.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_what_a_proxy_may_reach() {
        for (url, expect) in [
            ("http://localhost:9090", true),
            ("http://127.0.0.5", true),
            ("http://[::1]:9090", true),
            ("http://127.0.0.1.example", false),
            ("http://prometheus", false),
        ] {
            assert_eq!(loopback(&Url::parse(url).unwrap()), expect, "{url}");
        }
    }
}
