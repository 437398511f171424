//! Asks Prometheus over HTTP, one server after the other until one has a usable answer.

use std::error::Error as _;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, OptionFuture, join};
use nodemend_core::config::{Connection, Credentials, Rule};
use nodemend_core::evidence::Answer;
use nodemend_core::model::digest;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Certificate, Identity, Request, Response, StatusCode, Url, redirect, retry};

use super::decode::{Sample, decode, refusal};
use super::{Error, MAX_SERIES, answer};

/// No answer to a sane rule is longer, in bytes.
const MAX_BODY: usize = 64 << 20;

/// Gives the headers that sign a POST of this form to this URL.
pub type Signer =
    Arc<dyn Fn(String, Vec<u8>) -> BoxFuture<'static, Result<SignedHeaders, String>> + Send + Sync>;
/// Names and values.
pub type SignedHeaders = Vec<(String, String)>;

/// Some servers with the same data. Clones share which of them answered last.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    urls: Vec<Url>,
    connection: Connection,
    signer: Option<Signer>,
    preferred: AtomicUsize,
    /// What was made of the certificates, and their digest.
    made: Mutex<Option<(String, Clients)>>,
    max_body: usize,
    max_series: usize,
}

/// One for each URL.
type Clients = Arc<[reqwest::Client]>;

/// Shows no secret, and no header that may be one.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<&str> = self.0.urls.iter().map(Url::as_str).collect();
        f.debug_struct("Client").field("urls", &urls).finish()
    }
}

impl Client {
    /// Base URLs, such as `http://prometheus:9090`; the timeout is for one query to one
    /// server. A URL with credentials is an error, and so are files that cannot be used
    /// now, and `SigV4` without a signer. Proxies are those of the environment, but
    /// never for loopback addresses.
    pub fn new(connection: &Connection, signer: Option<Signer>) -> Result<Self, Error> {
        Self::bounded(connection, signer, MAX_BODY, MAX_SERIES)
    }

    fn bounded(
        connection: &Connection,
        signer: Option<Signer>,
        max_body: usize,
        max_series: usize,
    ) -> Result<Self, Error> {
        let urls: Vec<Url> = connection
            .urls
            .iter()
            .map(|url| endpoint(url))
            .collect::<Result<_, _>>()?;
        if urls.is_empty() {
            return Err(Error::Setup("there is no Prometheus to ask".into()));
        }
        if matches!(connection.credentials, Credentials::SigV4 { .. }) && signer.is_none() {
            return Err(Error::Setup("nobody can sign requests by SigV4".into()));
        }
        let client = Self(Arc::new(Inner {
            urls,
            connection: connection.clone(),
            signer,
            preferred: AtomicUsize::default(),
            made: Mutex::default(),
            max_body,
            max_series,
        }));
        // Nothing is sent.
        client
            .0
            .request(&client.0.clients()?[0], &client.0.urls[0], "")?;
        Ok(client)
    }

    /// Asks for a rule's expression and its presence. Both answers are of the same
    /// server: what fires by one is not cleared by what another has.
    pub async fn ask(&self, rule: &Rule) -> Answer {
        let this = &*self.0;
        let clients = match this.clients() {
            Ok(clients) => clients,
            Err(error) => return Answer::Failed(error.to_string()),
        };
        let first = this.preferred.load(Ordering::Relaxed);
        let mut errors = Vec::new();
        for offset in 0..this.urls.len() {
            let index = (first + offset) % this.urls.len();
            match this.ask_at(&clients[index], &this.urls[index], rule).await {
                Answer::Failed(error) => {
                    errors.push(format!("{}: {error}", this.urls[index].authority()));
                }
                found @ Answer::Series { .. } => {
                    this.preferred.store(index, Ordering::Relaxed);
                    return found;
                }
            }
        }
        Answer::Failed(errors.join("; "))
    }
}

impl Inner {
    async fn ask_at(&self, http: &reqwest::Client, url: &Url, rule: &Rule) -> Answer {
        // The line's end closes a comment that the selector may end with.
        let presence = rule
            .presence
            .as_ref()
            .map(|selector| format!("timestamp({selector}\n)"));
        let present = presence.as_ref().map(|query| self.query(http, url, query));
        let (firing, present) = join(
            self.query(http, url, &rule.expr),
            OptionFuture::from(present),
        )
        .await;
        answer(firing, present)
    }

    async fn query(
        &self,
        http: &reqwest::Client,
        url: &Url,
        query: &str,
    ) -> Result<Vec<Sample>, Error> {
        let request = self.signed(self.request(http, url, query)?).await?;
        let response = http
            .execute(request)
            .await
            .map_err(|error| no_answer(&error))?;
        let status = response.status();
        let body = body(response, self.max_body).await?;
        if status == StatusCode::OK {
            decode(&body, self.max_series)
        } else {
            Err(Error::Status(status.as_u16(), refusal(&body)))
        }
    }

    async fn signed(&self, mut request: Request) -> Result<Request, Error> {
        if let Some(sign) = &self.signer {
            let form = request.body().and_then(Body::as_bytes).unwrap_or_default();
            let signed = sign(request.url().to_string(), form.to_vec())
                .await
                .map_err(|error| Error::Setup(format!("the request cannot be signed: {error}")))?;
            for (name, value) in signed {
                insert(request.headers_mut(), &name, &value)?;
            }
        }
        Ok(request)
    }

    /// With the connection's own headers, and who asks, from the files as they are now.
    fn request(&self, http: &reqwest::Client, url: &Url, query: &str) -> Result<Request, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.connection.headers {
            insert(&mut headers, name, value)?;
        }
        let timeout = self.connection.timeout.to_string();
        let request = http
            .post(url.clone())
            .headers(headers)
            .form(&[("query", query), ("timeout", &timeout)]);
        let request = match &self.connection.credentials {
            Credentials::None | Credentials::SigV4 { .. } => request,
            Credentials::BearerFile(file) => request.bearer_auth(secret(file)?),
            Credentials::Basic {
                username,
                password_file,
            } => request.basic_auth(username, Some(secret(password_file)?)),
        };
        request.build().map_err(|error| Error::Setup(cause(&error)))
    }

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
        let mut builder = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .timeout(self.connection.timeout.signed().unsigned_abs());
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

/// At most `max` bytes of an answer.
pub(super) async fn body(mut response: Response, max: usize) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| no_answer(&error))? {
        if body.len() + chunk.len() > max {
            return Err(Error::TooLong(max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Never shows the URL: it may hold a password.
fn endpoint(base: &str) -> Result<Url, Error> {
    let wrong = |why: &str| Error::Setup(format!("a URL of Prometheus {why}"));
    let mut url = Url::parse(base).map_err(|error| wrong(&format!("is none: {error}")))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(wrong("is not an http or https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("holds credentials"));
    }
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(["api", "v1", "query"]);
    }
    Ok(url)
}

pub(super) fn no_answer(error: &reqwest::Error) -> Error {
    Error::NoAnswer(if error.is_timeout() {
        "timed out".into()
    } else {
        cause(error)
    })
}

/// The innermost cause: reqwest's own text has the URL in it, and little else.
pub(super) fn cause(error: &reqwest::Error) -> String {
    let Some(mut inner) = error.source() else {
        return "the request failed".into();
    };
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodemend_core::model::Span;
    use nodemend_lab::{Double, Reply};

    const PATIENCE: Span = Span::seconds(20);

    fn rule(expr: &str, presence: Option<&str>) -> Rule {
        Rule {
            name: "R".into(),
            expr: expr.into(),
            for_: Span::default(),
            keep_firing_for: Span::default(),
            presence: presence.map(str::to_owned),
            interval: Span::minutes(1),
            labels: std::collections::BTreeMap::new(),
        }
    }

    fn vector(samples: &[&str]) -> Reply {
        let samples: Vec<String> = samples
            .iter()
            .map(|value| format!(r#"{{"metric":{{"node":"a"}},"value":[1000,"{value}"]}}"#))
            .collect();
        let samples = samples.join(",");
        Reply::Answer(
            200,
            format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{samples}]}}}}"#
            ),
        )
    }

    fn connection(doubles: &[&Double], timeout: Span) -> Connection {
        Connection {
            urls: doubles.iter().map(|double| double.url.clone()).collect(),
            timeout,
            ..Connection::default()
        }
    }

    fn client(doubles: &[&Double], timeout: Span) -> Client {
        Client::new(&connection(doubles, timeout), None).unwrap()
    }

    async fn answering(reply: Reply) -> Double {
        Double::start(move |_| reply.clone()).await.unwrap()
    }

    async fn check_failed(client: &Client, expect: &str) {
        match client.ask(&rule("up == 0", Some("up"))).await {
            Answer::Failed(message) if message.contains(expect) => {}
            other => panic!("{other:?}, not {expect}"),
        }
    }

    async fn check_reply(reply: Reply, expect: &str) {
        let double = answering(reply).await;
        check_failed(&client(&[&double], PATIENCE), expect).await;
    }

    #[tokio::test]
    async fn h14_what_fails_is_failed() {
        let error = r#"{"status":"error","errorType":"execution","error":"too hard"}"#;
        for status in [400, 422, 500, 503] {
            let expect = format!("HTTP status {status}: too hard");
            check_reply(Reply::Answer(status, error.into()), &expect).await;
        }
        let closed = connection(&[&answering(Reply::Hang).await], PATIENCE);
        let closed = Client::new(&closed, None).unwrap();
        check_failed(&closed, "no answer: ").await;
        let silent = answering(Reply::Hang).await;
        let hasty = client(&[&silent], "100ms".parse().unwrap());
        check_failed(&hasty, "no answer: timed out").await;
    }

    #[tokio::test]
    async fn h22_pages_redirects_and_logins_are_failed() {
        let page = || "<html>log in</html>".to_owned();
        check_reply(Reply::Answer(200, page()), "not an answer").await;
        check_reply(Reply::Answer(401, page()), "HTTP status 401: ").await;
        check_reply(Reply::Answer(204, String::new()), "HTTP status 204: ").await;
        let target = answering(vector(&["1000"])).await;
        check_reply(Reply::Redirect(target.url.clone()), "HTTP status 302: ").await;
        assert_eq!(target.sent(), [], "it was followed");
    }

    #[tokio::test]
    async fn h20_too_many_series_or_bytes_are_failed() {
        let double = answering(vector(&["1000"; 3])).await;
        let double = connection(&[&double], PATIENCE);
        let few = Client::bounded(&double, None, MAX_BODY, 2).unwrap();
        check_failed(&few, "3 series, more than 2").await;
        let short = Client::bounded(&double, None, 20, MAX_SERIES).unwrap();
        check_failed(&short, "more than 20 bytes").await;
    }

    #[tokio::test]
    async fn queries_arrive_as_they_are_written() {
        let double = answering(vector(&["1000"])).await;
        let odd = "a{b=~\"c|d&e=%f+é\"} # \n> 1";
        let mut connection = connection(&[&double], PATIENCE);
        connection.urls[0] += "/base/";
        let client = Client::new(&connection, None).unwrap();
        let found = client.ask(&rule(odd, Some("up # all"))).await;
        assert!(matches!(found, Answer::Series { .. }), "{found:?}");
        let mut queries = Vec::new();
        for request in double.sent() {
            assert_eq!(request.line, "POST /base/api/v1/query");
            assert_eq!(request.content_type, "application/x-www-form-urlencoded");
            let url = format!("http://form/?{}", request.body);
            let url = Url::parse(&url).unwrap();
            let fields: Vec<(String, String)> = url.query_pairs().into_owned().collect();
            assert_eq!(fields[1], ("timeout".into(), "20s".into()));
            queries.push(fields[0].clone());
        }
        queries.sort();
        let query = |text: &str| ("query".to_owned(), text.to_owned());
        assert_eq!(queries, [query(odd), query("timestamp(up # all\n)")]);
    }

    #[tokio::test]
    async fn the_next_server_is_asked_and_remembered() {
        let broken = answering(Reply::Answer(503, String::new())).await;
        let sound = answering(vector(&["1000"])).await;
        let client = client(&[&broken, &sound], PATIENCE);
        for _ in 0..2 {
            let found = client.clone().ask(&rule("up == 0", None)).await;
            assert!(matches!(found, Answer::Series { .. }), "{found:?}");
        }
        assert_eq!((broken.sent().len(), sound.sent().len()), (1, 2));
    }

    #[tokio::test]
    async fn both_answers_are_of_one_server() {
        // This one has lost its data: nothing fires, and it cannot say who is present.
        let halved = Double::start(|request| {
            if request.body.contains("timestamp") {
                Reply::Answer(503, String::new())
            } else {
                vector(&[])
            }
        })
        .await
        .unwrap();
        let sound = answering(vector(&["1000"])).await;
        let client = client(&[&halved, &sound], PATIENCE);
        match client.ask(&rule("up == 0", Some("up"))).await {
            Answer::Series { firing, present } => {
                assert_eq!((firing.len(), present.map(|all| all.len())), (1, Some(1)));
            }
            failed @ Answer::Failed(_) => panic!("{failed:?}"),
        }
        assert_eq!(sound.sent().len(), 2);
    }

    #[test]
    fn urls_are_checked_and_never_shown() {
        for (urls, expect) in [
            (vec![], "no Prometheus"),
            (vec!["prometheus"], "is none"),
            (vec!["ftp://prometheus"], "not an http"),
            (vec!["http://user:secret@prometheus"], "holds credentials"),
        ] {
            let mut connection = connection(&[], PATIENCE);
            connection.urls = urls.into_iter().map(str::to_owned).collect();
            let error = Client::new(&connection, None).unwrap_err().to_string();
            assert!(
                error.contains(expect) && !error.contains("secret"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn secrets_are_read_again_and_never_shown() {
        let double = answering(vector(&["1000"])).await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        let path = file.display().to_string();
        let mut connection = connection(&[&double], PATIENCE);
        connection.credentials = Credentials::BearerFile(path.clone());
        let refused = |connection: &Connection| Client::new(connection, None).unwrap_err();
        assert!(refused(&connection).to_string().contains("cannot be read"));
        std::fs::write(&file, " \n").unwrap();
        assert!(refused(&connection).to_string().contains("is empty"));
        std::fs::write(&file, "se\ncret").unwrap();
        let error = refused(&connection).to_string();
        assert!(!error.contains("cret"), "{error}");
        std::fs::write(&file, "first-secret\n").unwrap();
        connection.headers = [("x-scope-orgid".to_owned(), "team-secret".to_owned())].into();
        let bearer = Client::new(&connection, None).unwrap();
        let rule = rule("up == 0", None);
        bearer.ask(&rule).await;
        std::fs::write(&file, "second-secret").unwrap();
        bearer.ask(&rule).await;
        std::fs::remove_file(&file).unwrap();
        check_failed(&bearer, "cannot be read").await;
        std::fs::write(&file, "pass word").unwrap();
        connection.credentials = Credentials::Basic {
            username: "me".into(),
            password_file: path,
        };
        let basic = Client::new(&connection, None).unwrap();
        basic.ask(&rule).await;
        let sent: Vec<String> = double
            .sent()
            .iter()
            .map(|sent| {
                assert_eq!(sent.headers["x-scope-orgid"], "team-secret");
                sent.headers["authorization"].clone()
            })
            .collect();
        let expect = [
            "Bearer first-secret",
            "Bearer second-secret",
            "Basic bWU6cGFzcyB3b3Jk",
        ];
        assert_eq!(sent, expect);
        let shown = format!("{bearer:?} {basic:?}");
        assert!(
            !shown.contains("secret") && !shown.contains("word"),
            "{shown}"
        );
    }

    #[tokio::test]
    async fn what_is_signed_is_what_is_sent() {
        let double = answering(vector(&["1000"])).await;
        let mut connection = connection(&[&double], PATIENCE);
        connection.credentials = Credentials::SigV4 { region: "r".into() };
        assert!(Client::new(&connection, None).is_err());
        let sign: Signer = Arc::new(|url, form| {
            let form = String::from_utf8(form).unwrap();
            let signed = vec![("authorization".to_owned(), format!("{url} {form}"))];
            Box::pin(std::future::ready(Ok(signed)))
        });
        let signing = Client::new(&connection, Some(sign)).unwrap();
        signing.ask(&rule("a b", None)).await;
        let sent = &double.sent()[0];
        let expect = format!("{}/api/v1/query {}", double.url, sent.body);
        assert_eq!(sent.headers["authorization"], expect);
        let mute: Signer = Arc::new(|_, _| Box::pin(std::future::ready(Err("no role".into()))));
        let mute = Client::new(&connection, Some(mute)).unwrap();
        check_failed(&mute, "cannot be signed: no role").await;
        assert_eq!(double.sent().len(), 1);
    }

    #[test]
    fn certificates_that_cannot_be_used_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let mut connection = Connection {
            urls: vec!["https://p".into()],
            timeout: PATIENCE,
            ..Connection::default()
        };
        let refused = |connection: &Connection| {
            let error = Client::new(connection, None).unwrap_err();
            error.to_string()
        };
        connection.ca_file = Some(file("ca", "not PEM"));
        assert_eq!(refused(&connection), "tls: caFile has no certificate");
        connection.ca_file = None;
        connection.identity = Some((file("cert", "secret"), file("key", "secret")));
        let error = refused(&connection);
        assert!(error.starts_with("tls: certFile with keyFile"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

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
