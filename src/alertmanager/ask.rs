//! Asks all members of an Alertmanager cluster which alerts fire, and which silences there
//! are. They share their silences, but not the alerts: Prometheus tells each of them, and
//! one that it does not reach lists none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::try_join3;
use jiff::Timestamp;
use nodemend_core::config::Connection;
use nodemend_core::evidence::Input;
use nodemend_core::evidence::silence::{Asked, AskedAlert, Matcher, Silence, WATCHDOG};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Capped, Labels};
use crate::fetch::{self, Server, Servers, Signer};

/// The longest list of alerts that is read, in bytes; the rest of an answer is shorter.
const MAX_BODY: usize = 32 << 20;
const MAX_SILENCES_BODY: usize = 8 << 20;
const MAX_STATUS_BODY: usize = 1 << 20;
/// The most alerts of an answer, those of others included.
const MAX_ALERTS: usize = 20_000;
/// The most silences, those that have expired included.
const MAX_SILENCES: usize = 10_000;
/// The most labels of an alert.
const MAX_LABELS: usize = 256;
/// Of the members that were not asked, so many are named.
const MAX_NAMED: usize = 3;
/// How often it is asked.
const INTERVAL: Duration = Duration::from_mins(1);
/// How soon it is asked again when no member answered.
const RETRY: Duration = Duration::from_secs(15);

/// Why there is no usable answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// It cannot be asked, or there is no whole answer.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// A status other than 200.
    #[error("HTTP status {0}")]
    Status(u16),
    /// It is not what Alertmanager answers.
    #[error("not an answer of Alertmanager: {0}")]
    Shape(String),
    /// Too many alerts, silences or labels.
    #[error("{0} {1}, more than {2}")]
    TooMany(usize, &'static str, usize),
}

/// The members of one cluster.
#[derive(Clone, Debug)]
pub struct Client {
    members: Servers,
    max_body: usize,
    receivers: Vec<String>,
}

impl Client {
    /// Base URLs, such as `http://alertmanager:9093`; the timeout is for one answer of one
    /// member. Of the alerts those count that are routed to one of these receivers; without
    /// any, all.
    pub fn new(
        connection: &Connection,
        receivers: Vec<String>,
        signer: Option<Signer>,
    ) -> Result<Self, fetch::Error> {
        Ok(Self {
            members: Servers::new("Alertmanager", connection, signer)?,
            max_body: MAX_BODY,
            receivers,
        })
    }

    /// Asks all members; `now` is the time before that.
    pub async fn ask(&self, now: impl Fn() -> Timestamp) -> Input {
        let answers = self.members.each(|member| self.ask_at(member, now())).await;
        let (mut together, mut missing) = (None, Vec::new());
        let (mut answered, mut peers) = (BTreeSet::new(), BTreeMap::new());
        for answer in answers {
            match answer {
                Ok((answer, cluster)) => {
                    together = Some(joined(together, answer));
                    answered.insert(cluster.name);
                    let all = cluster.peers.into_iter();
                    peers.extend(all.map(|peer| (peer.name, peer.address)));
                }
                Err(error) => missing.push(error),
            }
        }
        // Who did not answer may be one of them.
        if missing.is_empty() {
            let others = peers.iter().filter(|(name, _)| !answered.contains(*name));
            missing.extend(others.map(|(_, address)| {
                format!(
                    "{}: a member of the cluster that was not asked; write the URL of each member, not of one that stands for all",
                    fetch::quote(address)
                )
            }));
            missing.truncate(MAX_NAMED);
        }
        let missing = (!missing.is_empty()).then(|| missing.join("; "));
        match together {
            Some(asked) => Input::Asked(Asked { missing, ..asked }),
            None => Input::AskFailed(missing.unwrap_or_default()),
        }
    }

    async fn ask_at(&self, member: Server, at: Timestamp) -> Result<(Asked, Cluster), Error> {
        const STATES: [(&str, &str); 4] = [
            ("active", "true"),
            ("silenced", "true"),
            ("inhibited", "true"),
            ("unprocessed", "true"),
        ];
        let (status, alerts, silences) = try_join3(
            self.get::<Status>(&member, "status", &[], MAX_STATUS_BODY),
            self.get::<Alerts>(&member, "alerts", &STATES, MAX_BODY),
            self.get::<Silences>(&member, "silences", &[], MAX_SILENCES_BODY),
        )
        .await?;
        let alerts = all(alerts, "alerts")?.into_iter();
        let alerts = alerts.filter(|alert| self.is_ours(alert));
        let asked = Asked {
            at,
            running_since: status.uptime,
            missing: None,
            receivers: self.receivers.clone(),
            alerts: alerts.map(AskedAlert::try_from).collect::<Result<_, _>>()?,
            silences: all(silences, "silences")?
                .into_iter()
                .map(Silence::from)
                .collect(),
        };
        Ok((asked, status.cluster))
    }

    /// Others may share the Alertmanager, with nodes of the same names. The alert that always
    /// fires is about no node, and often routed nowhere.
    fn is_ours(&self, alert: &Alert) -> bool {
        let mut receivers = alert.receivers.iter();
        self.receivers.is_empty()
            || alert.labels.get("alertname") == Some(WATCHDOG)
            || receivers.any(|receiver| self.receivers.contains(&receiver.name))
    }

    async fn get<T: DeserializeOwned>(
        &self,
        member: &Server,
        what: &str,
        query: &[(&str, &str)],
        most: usize,
    ) -> Result<T, Error> {
        let reply = member.get(&["api", "v2", what], query).await?;
        if reply.status() != 200 {
            return Err(Error::Status(reply.status()));
        }
        let body = reply.body(most.min(self.max_body)).await?;
        let shape = |error: serde_json::Error| Error::Shape(fetch::quote(&error.to_string()));
        serde_json::from_slice(&body).map_err(shape)
    }
}

/// A list that was not cut short.
fn all<T, const MOST: usize>(list: Capped<T, MOST>, what: &'static str) -> Result<Vec<T>, Error> {
    if list.more > 0 {
        return Err(Error::TooMany(list.items.len() + list.more, what, MOST));
    }
    Ok(list.items)
}

/// What two members say together: of one alert the later word, and of one silence the one
/// that holds longer.
fn joined(known: Option<Asked>, other: Asked) -> Asked {
    let Some(known) = known else { return other };
    let mut alerts: BTreeMap<String, AskedAlert> = BTreeMap::new();
    for alert in known.alerts.into_iter().chain(other.alerts) {
        match alerts.get(&alert.fingerprint) {
            Some(same) if same.updated_at >= alert.updated_at => {}
            _ => drop(alerts.insert(alert.fingerprint.clone(), alert)),
        }
    }
    let mut silences: BTreeMap<String, Silence> = BTreeMap::new();
    for silence in known.silences.into_iter().chain(other.silences) {
        let Some(same) = silences.get_mut(&silence.id) else {
            silences.insert(silence.id.clone(), silence);
            continue;
        };
        let holds = same.holds || silence.holds;
        if same.ends_at < silence.ends_at {
            *same = silence;
        }
        same.holds = holds;
    }
    Asked {
        at: known.at.min(other.at),
        running_since: known.running_since.max(other.running_since),
        missing: None,
        receivers: known.receivers,
        alerts: alerts.into_values().collect(),
        silences: silences.into_values().collect(),
    }
}

/// Asks at once, and again and again until it is dropped. `send` gets each answer; it must
/// not block.
pub async fn poll(client: Client, now: impl Fn() -> Timestamp, send: impl Fn(Input)) {
    loop {
        let input = client.ask(&now).await;
        let pause = match &input {
            Input::AskFailed(_) => RETRY,
            _ => INTERVAL,
        };
        send(input);
        tokio::time::sleep(pause).await;
    }
}

#[derive(Deserialize)]
struct Status {
    uptime: Timestamp,
    #[serde(default)]
    cluster: Cluster,
}

/// Empty where there is none.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Cluster {
    name: String,
    peers: Vec<Peer>,
}

#[derive(Deserialize)]
struct Peer {
    name: String,
    address: String,
}

type Alerts = Capped<Alert, MAX_ALERTS>;
type Silences = Capped<RawSilence, MAX_SILENCES>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    fingerprint: String,
    labels: Labels,
    starts_at: Timestamp,
    updated_at: Timestamp,
    #[serde(default)]
    receivers: Vec<Receiver>,
}

#[derive(Deserialize)]
struct Receiver {
    name: String,
}

impl TryFrom<Alert> for AskedAlert {
    type Error = Error;
    fn try_from(raw: Alert) -> Result<Self, Error> {
        let Labels { pairs, more } = raw.labels;
        if more > 0 {
            return Err(Error::TooMany(pairs.len() + more, "labels", MAX_LABELS));
        }
        Ok(Self {
            fingerprint: raw.fingerprint,
            labels: pairs.into_iter().collect(),
            starts_at: raw.starts_at,
            updated_at: raw.updated_at,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSilence {
    id: String,
    #[serde(default)]
    created_by: String,
    starts_at: Timestamp,
    ends_at: Timestamp,
    status: RawStatus,
    matchers: Vec<RawMatcher>,
}

#[derive(Deserialize)]
struct RawStatus {
    state: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMatcher {
    name: String,
    value: String,
    is_regex: bool,
    /// Versions before 0.22 do not know of it.
    #[serde(default = "yes")]
    is_equal: bool,
}

fn yes() -> bool {
    true
}

impl From<RawSilence> for Silence {
    fn from(raw: RawSilence) -> Self {
        let matcher =
            |raw: &RawMatcher| Matcher::new(&raw.name, &raw.value, raw.is_regex, raw.is_equal);
        Self {
            id: raw.id,
            created_by: raw.created_by,
            starts_at: raw.starts_at,
            ends_at: raw.ends_at,
            holds: raw.status.state == "active",
            matchers: raw.matchers.iter().map(matcher).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodemend_core::config::Credentials;
    use nodemend_lab::{Double, Reply};

    const STATUS: &str = r#"{"uptime":"2026-11-24T09:00:00.000Z","versionInfo":{},"cluster":{}}"#;
    const ALERTS: &str = r#"[{"annotations":{},"endsAt":"2026-11-24T10:04:00Z","fingerprint":"f","receivers":[{"name":"r"}],
        "startsAt":"2026-11-24T09:30:00Z","updatedAt":"2026-11-24T10:00:00Z","generatorURL":"",
        "status":{"inhibitedBy":["e"],"mutedBy":[],"silencedBy":["s"],"state":"suppressed"},
        "labels":{"alertname":"A","node":"a"}}]"#;
    const SILENCES: &str = r#"[{"id":"s","status":{"state":"active"},"updatedAt":"2026-11-24T09:00:00Z","comment":"c","createdBy":"ann",
        "startsAt":"2026-11-24T09:00:00Z","endsAt":"2026-11-24T11:00:00Z",
        "matchers":[{"isEqual":false,"isRegex":true,"name":"node","value":"b.*"},{"isRegex":false,"name":"alertname","value":"A"}]}]"#;

    fn sound(line: &str) -> Reply {
        let body = match line {
            line if line.contains("/alerts") => ALERTS,
            line if line.contains("/silences") => SILENCES,
            _ => STATUS,
        };
        Reply::Answer(200, body.into())
    }

    fn at() -> Timestamp {
        "2026-11-24T10:00:30Z".parse().unwrap()
    }

    fn connection(doubles: &[&Double]) -> Connection {
        Connection {
            urls: doubles.iter().map(|double| double.url.clone()).collect(),
            timeout: "20s".parse().unwrap(),
            ..Connection::default()
        }
    }

    fn client(doubles: &[&Double]) -> Client {
        Client::new(&connection(doubles), Vec::new(), None).unwrap()
    }

    async fn answering(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Double {
        Double::start(move |sent| reply(&sent.line)).await.unwrap()
    }

    async fn check_failed(client: &Client, expect: &str) {
        match client.ask(at).await {
            Input::AskFailed(message) if message.contains(expect) => {}
            other => panic!("{other:?}, not {expect}"),
        }
    }

    #[tokio::test]
    async fn h85_alerts_of_every_state_are_asked_for_and_inhibited_ones_fire() {
        let double = answering(sound).await;
        let Input::Asked(asked) = client(&[&double]).ask(at).await else {
            panic!("it answers");
        };
        assert_eq!(asked.at, at());
        assert_eq!(asked.running_since, "2026-11-24T09:00:00Z".parse().unwrap());
        let [alert] = &asked.alerts[..] else {
            panic!("one alert");
        };
        assert_eq!(
            (alert.fingerprint.as_str(), alert.labels["node"].as_str()),
            ("f", "a")
        );
        assert_eq!(alert.updated_at, "2026-11-24T10:00:00Z".parse().unwrap());
        let expect = Silence {
            id: "s".into(),
            created_by: "ann".into(),
            starts_at: "2026-11-24T09:00:00Z".parse().unwrap(),
            ends_at: "2026-11-24T11:00:00Z".parse().unwrap(),
            holds: true,
            matchers: vec![
                Matcher::new("node", "b.*", true, false),
                Matcher::new("alertname", "A", false, true),
            ],
        };
        assert_eq!(asked.silences, [expect]);
        let mut lines: Vec<String> = double.sent().into_iter().map(|sent| sent.line).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "GET /api/v2/alerts?active=true&silenced=true&inhibited=true&unprocessed=true",
                "GET /api/v2/silences",
                "GET /api/v2/status",
            ]
        );
    }

    #[tokio::test]
    async fn h71_alerts_that_are_routed_to_others_do_not_count_their_silences_do() {
        let double = answering(sound).await;
        for (receivers, expect) in [(&[][..], 1), (&["r", "x"], 1), (&["x"], 0)] {
            let receivers = receivers.iter().map(|&name| name.to_owned()).collect();
            let client = Client::new(&connection(&[&double]), receivers, None).unwrap();
            let Input::Asked(asked) = client.ask(at).await else {
                panic!("it answers");
            };
            assert_eq!((asked.alerts.len(), asked.silences.len()), (expect, 1));
        }
        // But for the one that says that Prometheus lives.
        let watchdog = ALERTS.replace(r#""alertname":"A","node":"a""#, r#""alertname":"Watchdog""#);
        let double = answering(move |line| match sound(line) {
            Reply::Answer(200, body) if body == ALERTS => Reply::Answer(200, watchdog.clone()),
            reply => reply,
        })
        .await;
        let client = Client::new(&connection(&[&double]), vec!["x".into()], None).unwrap();
        let Input::Asked(asked) = client.ask(at).await else {
            panic!("it answers");
        };
        assert_eq!(asked.alerts.len(), 1);
    }

    #[tokio::test]
    async fn all_members_are_asked_and_what_any_of_them_lists_counts() {
        // The other has been told of the same alert later, of another one, and of no silence.
        let later = ALERTS.replace("10:00:00Z", "10:00:20Z");
        let another = ALERTS.replace(r#""fingerprint":"f""#, r#""fingerprint":"g""#);
        let both = format!("{},{}", later.trim_end_matches(']'), &another[1..]);
        let other = answering(move |line| match sound(line) {
            Reply::Answer(200, _) if line.contains("/alerts") => Reply::Answer(200, both.clone()),
            Reply::Answer(200, _) if line.contains("/silences") => Reply::Answer(200, "[]".into()),
            reply => reply,
        });
        let (one, other) = (answering(sound).await, other.await);
        let broken = answering(|_| Reply::Answer(503, String::new())).await;
        for (members, missing) in [
            (vec![&one, &other], None),
            (vec![&other, &one], None),
            (vec![&broken, &one, &other], Some("HTTP status 503")),
        ] {
            let Input::Asked(asked) = client(&members).ask(at).await else {
                panic!("two answer");
            };
            let alerts: Vec<(&str, String)> = asked
                .alerts
                .iter()
                .map(|alert| (alert.fingerprint.as_str(), alert.updated_at.to_string()))
                .collect();
            let expect = [("f", "2026-11-24T10:00:20Z"), ("g", "2026-11-24T10:00:00Z")];
            assert_eq!(alerts, expect.map(|(id, at)| (id, at.to_owned())));
            assert_eq!(asked.silences.len(), 1);
            assert_eq!(asked.missing.is_some(), missing.is_some());
            assert!(
                asked
                    .missing
                    .unwrap_or_default()
                    .contains(missing.unwrap_or_default())
            );
        }
    }

    #[tokio::test]
    async fn h71_a_member_of_the_cluster_that_was_not_asked_is_missing() {
        let member = |name: &str, peers: &[&str]| {
            let peers: Vec<String> = peers
                .iter()
                .map(|peer| format!(r#"{{"name":"{peer}","address":"10.0.0.1:{peer}"}}"#))
                .collect();
            let peers = peers.join(",");
            let cluster = format!(r#""cluster":{{"name":"{name}","peers":[{peers}]}}"#);
            let status = STATUS.replace(r#""cluster":{}"#, &cluster);
            answering(move |line| match sound(line) {
                Reply::Answer(200, body) if body == STATUS => Reply::Answer(200, status.clone()),
                reply => reply,
            })
        };
        let [alone, one, two] = [
            member("1", &["1"]).await,
            member("1", &["1", "2", "3"]).await,
            member("2", &["2", "1"]).await,
        ];
        let three = member("3", &["1", "2", "3"]).await;
        let broken = answering(|_| Reply::Answer(503, String::new())).await;
        for (members, expect) in [
            (vec![&alone], None),
            (vec![&alone, &alone], None),
            (vec![&one, &two, &three], None),
            (vec![&two, &one], Some("10.0.0.1:3: a member")),
            (vec![&one, &one], Some("10.0.0.1:2: a member")),
            (vec![&two, &broken], Some("HTTP status 503")),
        ] {
            let Input::Asked(asked) = client(&members).ask(at).await else {
                panic!("one answers");
            };
            let missing = asked.missing.unwrap_or_default();
            let right = match expect {
                Some(expect) => missing.contains(expect),
                None => missing.is_empty(),
            };
            assert!(right, "{missing}, not {expect:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_whole_answer_is_failed() {
        for (reply, expect) in [
            (Reply::Answer(500, String::new()), "HTTP status 500"),
            (
                Reply::Answer(200, "<html>log in</html>".into()),
                "not an answer",
            ),
            (Reply::Answer(200, "[{}]".into()), "not an answer"),
            (
                Reply::Redirect("http://127.0.0.1:1".into()),
                "HTTP status 302",
            ),
        ] {
            // One of the three is enough.
            for part in ["/status", "/alerts", "/silences"] {
                let reply = reply.clone();
                let double = answering(move |line| {
                    if line.contains(part) {
                        reply.clone()
                    } else {
                        sound(line)
                    }
                });
                check_failed(&client(&[&double.await]), expect).await;
            }
        }
        let double = answering(sound).await;
        let mut short = client(&[&double]);
        short.max_body = 20;
        check_failed(&short, "more than 20 bytes").await;
        let silent = answering(|_| Reply::Hang).await;
        let hasty = Connection {
            timeout: "100ms".parse().unwrap(),
            ..connection(&[&silent])
        };
        check_failed(
            &Client::new(&hasty, Vec::new(), None).unwrap(),
            "no answer: timed out",
        )
        .await;
    }

    #[test]
    fn h20_nothing_is_built_beyond_the_most_that_is_taken() {
        let alert = ALERTS.trim_matches(['[', ']']);
        // What is not built is not even looked at.
        let text = format!("[{alert},{alert},7,{{}},{alert}]");
        let list: Capped<Alert, 2> = serde_json::from_str(&text).unwrap();
        assert_eq!((list.items.len(), list.more), (2, 3));
        let told = all(list, "alerts").err().map(|error| error.to_string());
        assert_eq!(told.as_deref(), Some("5 alerts, more than 2"));
        let labels: Labels<String, 2> = serde_json::from_str(r#"{"a":"","b":"","c":7}"#).unwrap();
        assert_eq!((labels.pairs.len(), labels.more), (2, 1));
    }

    #[tokio::test]
    async fn h20_an_answer_of_too_many_alerts_silences_or_labels_is_failed() {
        let many = |list: &str, count: usize| {
            let one = list.trim_matches(['[', ']']);
            format!("[{}]", vec![one; count].join(","))
        };
        let labels: Vec<String> = (0..MAX_LABELS)
            .map(|at| format!(r#""l{at}":"x""#))
            .collect();
        let labels = labels.join(",");
        let labelled = ALERTS.replace(r#""node":"a""#, &labels);
        for (part, body, expect) in [
            ("/alerts", many(ALERTS, MAX_ALERTS), None),
            (
                "/alerts",
                many(ALERTS, MAX_ALERTS + 1),
                Some("20001 alerts, more than 20000"),
            ),
            ("/alerts", labelled, Some("257 labels, more than 256")),
            (
                "/silences",
                many(SILENCES, MAX_SILENCES + 1),
                Some("10001 silences, more than 10000"),
            ),
        ] {
            let double = answering(move |line| match sound(line) {
                Reply::Answer(..) if line.contains(part) => Reply::Answer(200, body.clone()),
                reply => reply,
            });
            let double = double.await;
            let client = client(&[&double]);
            match expect {
                Some(expect) => check_failed(&client, expect).await,
                None => match client.ask(at).await {
                    Input::Asked(_) => {}
                    other => panic!("{other:?}"),
                },
            }
        }
    }

    #[tokio::test]
    async fn it_is_asked_at_once() {
        let closed = client(&[&answering(|_| Reply::Hang).await]);
        let (send, mut heard) = tokio::sync::mpsc::unbounded_channel();
        tokio::select! {
            () = poll(closed, at, |input| send.send(input).unwrap()) => panic!("it ended"),
            input = heard.recv() => assert!(matches!(input, Some(Input::AskFailed(_)))),
        }
    }

    #[tokio::test]
    async fn each_question_says_who_asks() {
        let double = answering(sound).await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, "secret").unwrap();
        let mut connection = connection(&[&double]);
        connection.urls[0] += "/base/";
        connection.credentials = Credentials::BearerFile(file.display().to_string());
        let asked = Client::new(&connection, Vec::new(), None)
            .unwrap()
            .ask(at)
            .await;
        assert!(matches!(asked, Input::Asked(_)), "{asked:?}");
        assert_eq!(double.sent().len(), 3);
        for sent in double.sent() {
            assert!(sent.line.starts_with("GET /base/api/v2/"), "{}", sent.line);
            assert_eq!(sent.headers["authorization"], "Bearer secret");
        }
    }
}
