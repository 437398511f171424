//! Asks Prometheus over HTTP, one server after the other until one has a usable answer.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{OptionFuture, join};
use nodemend_core::config::Rule;
use nodemend_core::evidence::Answer;
use nodemend_core::model::Span;
use reqwest::{Response, StatusCode, Url, redirect, retry};

use super::decode::{Sample, decode, refusal};
use super::{Error, MAX_SERIES, answer};

/// No answer to a sane rule is longer, in bytes.
const MAX_BODY: usize = 64 << 20;

/// Some servers with the same data. Clones share which of them answered last.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    urls: Arc<[Url]>,
    preferred: Arc<AtomicUsize>,
    timeout: Span,
    max_body: usize,
    max_series: usize,
}

impl Client {
    /// Base URLs, such as `http://prometheus:9090`, in order of preference; `timeout`
    /// is for one query to one server. A URL with credentials is an error.
    pub fn new(urls: &[String], timeout: Span) -> Result<Self, Error> {
        let urls: Vec<Url> = urls
            .iter()
            .map(|url| endpoint(url))
            .collect::<Result<_, _>>()?;
        if urls.is_empty() {
            return Err(Error::Setup("there is no Prometheus to ask".into()));
        }
        let http = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .timeout(timeout.signed().unsigned_abs())
            .build()
            .map_err(|error| Error::Setup(cause(&error)))?;
        Ok(Self {
            http,
            urls: urls.into(),
            preferred: Arc::default(),
            timeout,
            max_body: MAX_BODY,
            max_series: MAX_SERIES,
        })
    }

    /// Asks for a rule's expression and its presence. Both answers are of the same
    /// server: what fires by one is not cleared by what another has.
    pub async fn ask(&self, rule: &Rule) -> Answer {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut errors = Vec::new();
        for offset in 0..self.urls.len() {
            let index = (first + offset) % self.urls.len();
            match self.ask_at(&self.urls[index], rule).await {
                Answer::Failed(error) => {
                    errors.push(format!("{}: {error}", self.urls[index].authority()));
                }
                found @ Answer::Series { .. } => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return found;
                }
            }
        }
        Answer::Failed(errors.join("; "))
    }

    async fn ask_at(&self, url: &Url, rule: &Rule) -> Answer {
        // The line's end closes a comment that the selector may end with.
        let presence = rule
            .presence
            .as_ref()
            .map(|selector| format!("timestamp({selector}\n)"));
        let present = presence.as_ref().map(|query| self.query(url, query));
        let (firing, present) =
            join(self.query(url, &rule.expr), OptionFuture::from(present)).await;
        answer(firing, present)
    }

    async fn query(&self, url: &Url, query: &str) -> Result<Vec<Sample>, Error> {
        let timeout = self.timeout.to_string();
        let response = self
            .http
            .post(url.clone())
            .form(&[("query", query), ("timeout", &timeout)])
            .send()
            .await
            .map_err(|error| no_answer(&error))?;
        let status = response.status();
        let body = self.body(response).await?;
        if status == StatusCode::OK {
            decode(&body, self.max_series)
        } else {
            Err(Error::Status(status.as_u16(), refusal(&body)))
        }
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| no_answer(&error))? {
            if body.len() + chunk.len() > self.max_body {
                return Err(Error::TooLong(self.max_body));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
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

fn no_answer(error: &reqwest::Error) -> Error {
    Error::NoAnswer(if error.is_timeout() {
        "timed out".into()
    } else {
        cause(error)
    })
}

/// The innermost cause: reqwest's own text has the URL in it, and little else.
fn cause(error: &reqwest::Error) -> String {
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

    fn client(doubles: &[&Double], timeout: Span) -> Client {
        let urls: Vec<String> = doubles.iter().map(|double| double.url.clone()).collect();
        Client::new(&urls, timeout).unwrap()
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
        let closed = answering(Reply::Hang).await.url.clone();
        let closed = Client::new(&[closed], PATIENCE).unwrap();
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
        let mut few = client(&[&double], PATIENCE);
        few.max_series = 2;
        check_failed(&few, "3 series, more than 2").await;
        let mut short = client(&[&double], PATIENCE);
        short.max_body = 20;
        check_failed(&short, "more than 20 bytes").await;
    }

    #[tokio::test]
    async fn queries_arrive_as_they_are_written() {
        let double = answering(vector(&["1000"])).await;
        let odd = "a{b=~\"c|d&e=%f+é\"} # \n> 1";
        let urls = [format!("{}/base/", double.url)];
        let client = Client::new(&urls, PATIENCE).unwrap();
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
            let urls: Vec<String> = urls.into_iter().map(str::to_owned).collect();
            let error = Client::new(&urls, PATIENCE).unwrap_err().to_string();
            assert!(
                error.contains(expect) && !error.contains("secret"),
                "{error}"
            );
        }
    }
}
