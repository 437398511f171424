//! Asks Prometheus for a rule, one server after the other until one has a usable answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{OptionFuture, join};
use nodemend_core::config::{Connection, Rule};
use nodemend_core::evidence::Answer;
use nodemend_core::evidence::identity::{Labels, is_elsewhere};

use super::decode::{Sample, decode, refusal};
use super::{Error, MAX_SERIES, SERIES_PER_NODE, answer};
use crate::fetch::{self, Room, Server, Servers, Signer};

/// No answer to a sane rule is longer, in bytes.
const MAX_BODY: usize = 64 << 20;
/// Large answers that are read at one time are together no longer, in bytes: one rule that
/// asks for too much leaves room for others.
const ROOM: usize = 3 * MAX_BODY;

/// Some servers with the same data. Clones share which of them answered last, and how
/// many nodes there are.
#[derive(Clone, Debug)]
pub struct Client {
    servers: Servers,
    /// How long Prometheus may evaluate a query, as it writes durations.
    timeout: String,
    max_body: usize,
    max_series: usize,
    room: Room,
    nodes: Arc<AtomicUsize>,
    external: Labels,
}

impl Client {
    /// Base URLs, such as `http://prometheus:9090`; the timeout is for one query to one
    /// server.
    pub fn new(connection: &Connection, signer: Option<Signer>) -> Result<Self, fetch::Error> {
        Ok(Self {
            servers: Servers::new("Prometheus", connection, signer)?,
            timeout: connection.timeout.to_string(),
            max_body: MAX_BODY,
            max_series: MAX_SERIES,
            room: Room::new(ROOM),
            nodes: Arc::default(),
            external: Labels::new(),
        })
    }

    /// Series that contradict one of these labels show no presence: other clusters have nodes
    /// of the same names.
    #[must_use]
    pub fn within(self, external: Labels) -> Self {
        Self { external, ..self }
    }

    /// Says how many nodes an answer may be about.
    pub fn expect(&self, nodes: usize) {
        self.nodes.store(nodes, Ordering::Relaxed);
    }

    /// Asks for a rule's expression and its presence. Both answers are of the same
    /// server: what fires by one is not cleared by what another has.
    pub async fn ask(&self, rule: &Rule) -> Answer {
        // One that has data of no node, such as one that just started, may not be the only one.
        let blind = Mutex::new(None);
        let ask = async |server| match self.ask_at(server, rule).await {
            Answer::Failed(error) => Err(error),
            Answer::Series { firing, present } if present.as_ref().is_some_and(Vec::is_empty) => {
                let mut blind = blind.lock().unwrap_or_else(PoisonError::into_inner);
                blind.get_or_insert(Answer::Series { firing, present });
                Err("no data of any node".to_owned())
            }
            found @ Answer::Series { .. } => Ok(found),
        };
        match self.servers.first(ask).await {
            Ok(answer) => answer,
            Err(error) => {
                let blind = blind.into_inner().unwrap_or_else(PoisonError::into_inner);
                blind.unwrap_or(Answer::Failed(error))
            }
        }
    }

    async fn ask_at(&self, server: Server, rule: &Rule) -> Answer {
        // The line's end closes a comment that the selector may end with.
        let presence = rule
            .presence
            .as_ref()
            .map(|selector| format!("timestamp({selector}\n)"));
        let present = presence.as_ref().map(async |query| {
            let mut samples = self.query(&server, query).await?;
            samples.retain(|sample| !is_elsewhere(&sample.labels, &self.external));
            Ok(samples)
        });
        let (firing, present) =
            join(self.query(&server, &rule.expr), OptionFuture::from(present)).await;
        answer(firing, present)
    }

    async fn query(&self, server: &Server, query: &str) -> Result<Vec<Sample>, Error> {
        let form = [("query", query), ("timeout", &self.timeout)];
        let reply = server.post(&["api", "v1", "query"], &form).await?;
        let status = reply.status();
        let (body, _place) = reply.body_in(&self.room, self.max_body).await?;
        if status == 200 {
            let fleet = self.nodes.load(Ordering::Relaxed);
            let most = fleet.saturating_mul(SERIES_PER_NODE).max(self.max_series);
            decode(&body, most)
        } else {
            Err(Error::Status(status, refusal(&body)))
        }
    }
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
        let mut client = Client::new(&double, None).unwrap();
        client.max_series = 2;
        check_failed(&client, "3 series, more than 2").await;
        // A large fleet has more.
        client.expect(1);
        let found = client.ask(&rule("up == 0", None)).await;
        assert!(matches!(found, Answer::Series { .. }), "{found:?}");
        client.max_body = 20;
        check_failed(&client, "more than 20 bytes").await;
    }

    #[tokio::test]
    async fn h20_large_answers_have_so_much_room_together_and_small_ones_their_own() {
        let padded = |length: usize| {
            let Reply::Answer(status, body) = vector(&["1000"]) else {
                panic!("it answers");
            };
            Reply::Answer(status, body + &" ".repeat(length))
        };
        let [small, large] = [padded(500_000), padded(2 << 20)];
        let [small, large] = [answering(small).await, answering(large).await];
        let both = [&small, &large].map(|double| connection(&[double], PATIENCE));
        let [mut small, mut large] = both.map(|one| Client::new(&one, None).unwrap());
        for (room, fits) in [(0, false), (1 << 20, false), (3 << 20, true)] {
            let room = Room::new(room);
            (small.room, large.room) = (room.clone(), room);
            // Room that was taken is given back.
            for _ in 0..2 {
                let asked = rule("up == 0", Some("up"));
                let found = small.ask(&asked).await;
                assert!(matches!(found, Answer::Series { .. }), "{found:?}");
                match large.ask(&asked).await {
                    Answer::Series { .. } if fits => {}
                    Answer::Failed(why) if !fits && why.contains("too many large answers") => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[tokio::test]
    async fn h10_series_of_another_cluster_show_no_presence() {
        let external = |value: &str| Labels::from([("cluster".to_owned(), value.to_owned())]);
        let reply = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"node":"a","cluster":"ours"},"value":[1000,"1000"]},
            {"metric":{"node":"b","cluster":"theirs"},"value":[1000,"1000"]},
            {"metric":{"node":"c"},"value":[1000,"1000"]}]}}"#;
        let double = answering(Reply::Answer(200, reply.into())).await;
        let node = |name: &str| Labels::from([("node".to_owned(), name.to_owned())]);
        for (external, expect) in [
            (Labels::new(), vec![node("a"), node("b"), node("c")]),
            (external("ours"), vec![node("a"), node("c")]),
        ] {
            let client = client(&[&double], PATIENCE).within(external);
            match client.ask(&rule("up == 0", Some("up"))).await {
                Answer::Series { present, .. } => assert_eq!(present, Some(expect)),
                other @ Answer::Failed(_) => panic!("{other:?}"),
            }
        }
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
            queries.push(request.body);
        }
        queries.sort();
        let expect = [
            "query=a%7Bb%3D%7E%22c%7Cd%26e%3D%25f%2B%C3%A9%22%7D+%23+%0A%3E+1&timeout=20s",
            "query=timestamp%28up+%23+all%0A%29&timeout=20s",
        ];
        assert_eq!(queries, expect);
    }

    #[tokio::test]
    async fn h19_a_server_without_data_of_any_node_does_not_hide_one_that_has_some() {
        let (empty, sees) = (
            answering(vector(&[])).await,
            answering(vector(&["1000"])).await,
        );
        let asked = rule("up == 0", Some("up"));
        let present = |answer: Answer| match answer {
            Answer::Series { present, .. } => present.map(|series| series.len()),
            Answer::Failed(_) => None,
        };
        let both = client(&[&empty, &sees], PATIENCE);
        assert_eq!(present(both.ask(&asked).await), Some(1));
        // If none has, that is the answer, and no failure.
        let broken = answering(Reply::Answer(503, String::new())).await;
        let neither = client(&[&empty, &broken], PATIENCE);
        assert_eq!(present(neither.ask(&asked).await), Some(0));
        // Where nobody asks for presence, nothing that fires is an answer.
        let first = client(&[&empty, &sees], PATIENCE);
        let found = first.ask(&rule("up == 0", None)).await;
        assert!(matches!(found, Answer::Series { firing, .. } if firing.is_empty()));
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
}
