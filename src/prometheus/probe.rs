//! Asks a node's own exporter for one metric, by the exposition text. A text of which
//! the parser dropped or bent a line is not used at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use nodemend_core::config::Confirm;
use nodemend_core::evidence::probe::Reading;
use nodemend_core::model::NodeView;
use prometheus_parse::{Scrape, Value};

use crate::exec::Probes;
use crate::fetch::{self, Direct};

/// How long a connection to an exporter takes at most: less than the system needs to find
/// that there is no such machine, which could as well be our own network's fault.
const CONNECTING: Duration = Duration::from_secs(2);
/// How long a probe takes at most.
const DEADLINE: Duration = Duration::from_secs(5);
/// No exporter's text is longer, in bytes.
const MAX_TEXT: usize = 16 << 20;

/// Asks exporters at the addresses that node objects give.
#[derive(Clone, Debug)]
pub struct Prober {
    exporters: Direct,
    loopback: bool,
}

impl Prober {
    /// `loopback` allows addresses at which, but in a test, only this machine would answer.
    pub fn new(loopback: bool) -> Result<Self, fetch::Error> {
        let exporters = Direct::new(CONNECTING, DEADLINE)?;
        Ok(Self {
            exporters,
            loopback,
        })
    }

    async fn read(&self, node: &NodeView, confirm: &Confirm) -> Reading {
        let Some(ip) = self.address(node) else {
            return Reading::Unusable("the node has no address that may be probed".into());
        };
        let asked = self.exporters.get(ip, confirm.port, &confirm.path).await;
        let reply = match asked {
            Ok(reply) if reply.status() == 200 => reply,
            Ok(reply) => return Reading::Unusable(format!("HTTP status {}", reply.status())),
            Err(error @ fetch::Error::NobodyThere(_)) => {
                return Reading::Unreachable(error.to_string());
            }
            Err(error) => return Reading::Unusable(error.to_string()),
        };
        let text = reply
            .body(MAX_TEXT)
            .await
            .map_err(|error| error.to_string())
            .and_then(|bytes| String::from_utf8(bytes).map_err(|error| error.to_string()));
        text.and_then(|text| samples(&text, &confirm.metric))
            .map_or_else(Reading::Unusable, Reading::Samples)
    }

    fn address(&self, node: &NodeView) -> Option<IpAddr> {
        let mut ips = node.ips.iter().map(IpAddr::to_canonical);
        ips.find(|ip| permitted(*ip, self.loopback))
    }
}

impl Probes for Prober {
    async fn probe(&self, node: &NodeView, confirm: &Confirm) -> Reading {
        let reading = self.read(node, confirm).await;
        // Not every sample: there may be very many.
        let said = match &reading {
            Reading::Samples(values) => {
                let highest = values.iter().copied().reduce(f64::max);
                format!("{} samples, the highest {highest:?}", values.len())
            }
            other => format!("{other:?}"),
        };
        let (node, metric) = (&node.name, &confirm.metric);
        tracing::info!(node, metric, said, "node probed");
        reading
    }
}

/// Not where clouds answer with credentials, nor where many or none would answer.
fn permitted(ip: IpAddr, loopback: bool) -> bool {
    match ip {
        _ if ip.is_loopback() => loopback,
        _ if ip.is_unspecified() || ip.is_multicast() => false,
        IpAddr::V4(ip) => {
            // Alibaba's and Azure's metadata are outside the link-local range.
            let metadata = [
                Ipv4Addr::new(100, 100, 100, 200),
                Ipv4Addr::new(168, 63, 129, 16),
            ];
            !ip.is_link_local() && !ip.is_broadcast() && !metadata.contains(&ip)
        }
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !metadata(ip),
    }
}

/// `fd00:ec2::/32` of AWS and `fd20:ce::/32` of Google.
fn metadata(ip: Ipv6Addr) -> bool {
    matches!(ip.segments(), [0xfd00, 0x0ec2, ..] | [0xfd20, 0x00ce, ..])
}

/// The values of a metric's samples, if every line of the text was read as it is written.
/// The parser leaves out what it cannot read, and misreads braces in a label's value.
pub fn samples(text: &str, metric: &str) -> Result<Vec<f64>, String> {
    if !text.ends_with('\n') {
        return Err("the text has no end".into());
    }
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    if lines.iter().any(|line| bent(line)) {
        return Err("a label's value has a brace or no end, and would be misread".into());
    }
    let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned())))
        .map_err(|error| error.to_string())?;
    let parts = |value: &Value| match value {
        Value::Histogram(parts) => parts.len(),
        Value::Summary(parts) => parts.len(),
        Value::Counter(_) | Value::Gauge(_) | Value::Untyped(_) => 1,
    };
    let parsed: usize = scrape.samples.iter().map(|one| parts(&one.value)).sum();
    if parsed != lines.len() {
        let message = format!("of {} samples {parsed} could be read", lines.len());
        return Err(message);
    }
    let compound = || format!("{metric} is of a histogram or a summary");
    let samples = scrape.samples.iter();
    let values: Vec<f64> = samples
        .filter(|sample| sample.metric == metric)
        .map(|sample| match sample.value {
            Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => Ok(value),
            Value::Histogram(_) | Value::Summary(_) => Err(compound()),
        })
        .collect::<Result<_, _>>()?;
    // The parser puts a histogram's buckets under the name of the whole.
    if values.len() != lines.iter().filter(|line| name(line) == metric).count() {
        return Err(compound());
    }
    Ok(values)
}

fn name(line: &str) -> &str {
    let end = line.find(|c: char| c == '{' || c.is_whitespace());
    &line[..end.unwrap_or(line.len())]
}

/// Whether a line has braces other than those around its labels, or a quote that stays open.
fn bent(line: &str) -> bool {
    match line.matches(['{', '}']).count() {
        0 => false,
        2 => {
            let labels = line
                .split_once('{')
                .and_then(|(_, rest)| rest.split_once('}'));
            labels.is_none_or(|(labels, _)| stays_open(labels))
        }
        _ => true,
    }
}

fn stays_open(labels: &str) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for c in labels.chars() {
        escaped = match c {
            _ if escaped => false,
            '"' => {
                quoted = !quoted;
                false
            }
            c => c == '\\' && quoted,
        };
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodemend_core::api::OnUnreachable;
    use nodemend_core::evidence::probe::Opinion;
    use nodemend_lab::{Double, Reply};

    const TEXT: &str = "\
# HELP m Some help, with {braces} and \"quotes\".
# TYPE m gauge
m{a=\"x,y\",b=\"c=d\"} 0
m{a=\"/\"} 1 1700000000000

# TYPE h histogram
h_bucket{le=\"1\"} 1
h_bucket{le=\"+Inf\"} 2
h_sum 3
h_count 2
# TYPE s summary
s{quantile=\"0.5\"} NaN
n 2.5e-01
";

    #[test]
    fn h87_a_text_of_which_a_line_is_lost_or_bent_is_not_used() {
        let check = |text: &str, expect: &Result<Vec<f64>, &str>| {
            let found = samples(text, "m");
            match (&found, expect) {
                (Ok(found), Ok(expect)) => assert_eq!(found, expect, "{text}"),
                (Err(message), Err(part)) if message.contains(part) => {}
                _ => panic!("{text}: {found:?}, not {expect:?}"),
            }
        };
        check(TEXT, &Ok(vec![0.0, 1.0]));
        check("n 1\n", &Ok(vec![]));
        check("", &Err("no end"));
        for (line, expect) in [
            ("m{} 1", "of 9 samples 8"),
            ("m {a=\"b\"} 1", "could be read"),
            ("m{a=\"b\"}1", "could be read"),
            ("m one", "could be read"),
            ("m{a=\"}\"} 1", "brace"),
            ("m{a=\"} 5 \"} 1", "brace"),
            ("m{a=\"{} 5 \"} 1", "brace"),
            ("m{a=\"{b\"} 1", "brace"),
            ("m 1 # {trace=\"}\"} 1", "brace"),
            ("m{a=\"b} 5", "no end"),
            ("m{a=\"b\\\"} 5", "no end"),
            ("m} {5", "no end"),
            ("<html>", "could be read"),
        ] {
            check(&format!("{TEXT}{line}\n"), &Err(expect));
        }
        check(TEXT.trim_end(), &Err("no end"));
        for metric in ["h", "h_bucket", "s"] {
            assert!(samples(TEXT, metric).is_err_and(|error| error.contains("histogram")));
        }
        assert_eq!(samples(TEXT, "h_sum"), Ok(vec![3.0]));
    }

    #[test]
    fn h70_metadata_and_special_addresses_are_not_probed() {
        for (address, expect) in [
            ("10.0.0.1", true),
            ("192.0.2.1", true),
            ("2001:db8::1", true),
            ("fd12::1", true),
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("169.254.170.2", false),
            ("fe80::1", false),
            ("fd00:ec2::254", false),
            ("fd20:ce::254", false),
            ("100.100.100.200", false),
            ("168.63.129.16", false),
            ("0.0.0.0", false),
            ("::", false),
            ("224.0.0.1", false),
            ("ff02::1", false),
            ("255.255.255.255", false),
            ("127.0.0.1", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
        ] {
            let ip: IpAddr = address.parse().unwrap();
            assert_eq!(permitted(ip.to_canonical(), false), expect, "{address}");
        }
        assert!(permitted(Ipv4Addr::LOCALHOST.into(), true));
    }

    fn confirm(port: u16, path: &str) -> Confirm {
        Confirm {
            port,
            path: path.into(),
            metric: "m".into(),
            above: 0.0,
            on_unreachable: OnUnreachable::Refute,
        }
    }

    fn node(ips: &[&str]) -> NodeView {
        NodeView {
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            // What is no address is never asked for.
            addresses: vec!["127.0.0.1".into()],
            ..NodeView::default()
        }
    }

    #[test]
    fn h70_the_first_permitted_address_of_a_node_is_probed() {
        let prober = Prober::new(false).unwrap();
        let address = |ips: &[&str]| prober.address(&node(ips)).map(|ip| ip.to_string());
        let found = address(&[
            "127.0.0.1",
            "::ffff:169.254.169.254",
            "10.0.0.1",
            "10.0.0.2",
        ]);
        assert_eq!(found.as_deref(), Some("10.0.0.1"));
        let v6 = address(&["2001:db8::1"]);
        assert_eq!(v6.as_deref(), Some("2001:db8::1"));
        assert_eq!(address(&["127.0.0.1", "169.254.169.254"]), None);
        assert_eq!(address(&[]), None);
    }

    async fn reading(reply: Reply) -> Reading {
        let double = Double::start(move |_| reply.clone()).await.unwrap();
        let (_, port) = double.url.rsplit_once(':').unwrap();
        let reading = Prober::new(true)
            .unwrap()
            .probe(
                &node(&["127.0.0.1"]),
                &confirm(port.parse().unwrap(), "/metrics"),
            )
            .await;
        assert_eq!(double.sent()[0].line, "GET /metrics");
        reading
    }

    #[tokio::test]
    async fn h70_h22_redirects_logins_and_pages_are_not_used() {
        let target = Double::start(|_| Reply::Answer(200, TEXT.into()))
            .await
            .unwrap();
        for reply in [
            Reply::Redirect(format!("{}/metrics", target.url)),
            Reply::Redirect("http://169.254.169.254/latest/meta-data".into()),
            Reply::Answer(401, TEXT.into()),
            Reply::Answer(200, "<html></html>\n".into()),
            Reply::Answer(503, String::new()),
        ] {
            let found = reading(reply).await;
            assert!(matches!(found, Reading::Unusable(_)), "{found:?}");
        }
        assert_eq!(target.sent(), [], "it was followed");
        let sound = reading(Reply::Answer(200, TEXT.into())).await;
        assert_eq!(sound, Reading::Samples(vec![0.0, 1.0]));
    }

    #[tokio::test]
    async fn h22_garbage_or_a_connection_that_breaks_is_not_nobody_there() {
        use tokio::io::AsyncWriteExt as _;
        for says in ["", "garbage\r\n\r\n", "\u{16}\u{3}\u{1}"] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(says.as_bytes()).await.unwrap();
            });
            let asked = Confirm {
                on_unreachable: OnUnreachable::Confirm,
                ..confirm(port, "/metrics")
            };
            let prober = Prober::new(true).unwrap();
            let found = prober.probe(&node(&["127.0.0.1"]), &asked).await;
            server.await.unwrap();
            assert!(matches!(found, Reading::Unusable(_)), "{says}: {found:?}");
            assert_eq!(Opinion::of(&found, &asked), Opinion::Unknown);
        }
    }

    #[tokio::test]
    async fn nobody_there_is_unreachable() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let asked = confirm(port, "/metrics");
        let prober = Prober::new(true).unwrap();
        let found = prober.probe(&node(&["127.0.0.1"]), &asked).await;
        assert!(matches!(found, Reading::Unreachable(_)), "{found:?}");
        assert_eq!(Opinion::of(&found, &asked), Opinion::Refuted);
        let closed = Prober::new(false).unwrap();
        let found = closed.probe(&node(&["127.0.0.1"]), &asked).await;
        assert_eq!(Opinion::of(&found, &asked), Opinion::Unknown);
    }
}
