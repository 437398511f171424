//! What leaves, what is taken of an answer, and what an error shows.

use std::sync::Arc;
use std::time::Duration;

use nodemend_core::config::{Connection, Credentials};
use nodemend_core::model::Span;
use nodemend_lab::{Double, Reply as Says};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::{Direct, Error, Reply, Server, Servers, Signer};

mod tls;

const PATIENCE: Span = Span::seconds(20);

fn connection(urls: &[&str]) -> Connection {
    Connection {
        urls: urls.iter().map(|url| (*url).to_owned()).collect(),
        timeout: PATIENCE,
        ..Connection::default()
    }
}

async fn answering(says: Says) -> Double {
    Double::start(move |_| says.clone()).await.unwrap()
}

fn servers(connection: &Connection) -> Servers {
    Servers::new("Prometheus", connection, None).unwrap()
}

fn refused(connection: &Connection) -> String {
    let error = Servers::new("Prometheus", connection, None).unwrap_err();
    error.to_string()
}

/// Status and body of the first answer to a GET.
async fn get(servers: &Servers, max: usize) -> Result<(u16, Vec<u8>), String> {
    let whole = |server: Server| async move {
        let reply: Reply = server.get(&["path"], &[]).await?;
        Ok::<_, Error>((reply.status(), reply.body(max).await?))
    };
    servers.first(whole).await
}

#[tokio::test]
async fn an_answer_has_a_deadline_and_no_more_bytes_than_are_taken() {
    let double = answering(Says::Answer(200, "12345".into())).await;
    let sound = servers(&connection(&[&double.url]));
    assert_eq!(get(&sound, 5).await, Ok((200, b"12345".to_vec())));
    let error = get(&sound, 4).await.unwrap_err();
    assert!(error.ends_with("an answer of more than 4 bytes"), "{error}");
    let silent = answering(Says::Hang).await;
    let hasty = Connection {
        timeout: "100ms".parse().unwrap(),
        ..connection(&[&silent.url])
    };
    let error = get(&servers(&hasty), 5).await.unwrap_err();
    assert!(error.ends_with("no answer: timed out"), "{error}");
}

#[tokio::test]
async fn h70_h22_redirects_are_answers() {
    let target = answering(Says::Answer(200, String::new())).await;
    let double = answering(Says::Redirect(target.url.clone())).await;
    let found = get(&servers(&connection(&[&double.url])), 0).await;
    assert_eq!(found, Ok((302, Vec::new())));
    let address: std::net::SocketAddr = double.url["http://".len()..].parse().unwrap();
    let direct = Direct::new(Duration::from_secs(20), Duration::from_secs(20)).unwrap();
    let found = direct.get(address.ip(), address.port(), "/").await;
    assert_eq!(found.unwrap().status(), 302);
    assert_eq!(target.sent(), [], "it was followed");
}

#[test]
fn urls_are_checked_and_never_shown() {
    for (urls, expect) in [
        (&[][..], "there is no Prometheus to ask"),
        (&["prometheus"], "is none"),
        (&["ftp://prometheus"], "not an http"),
        (&["http://user:secret@prometheus"], "holds credentials"),
    ] {
        let error = refused(&connection(urls));
        assert!(
            error.contains(expect) && !error.contains("secret"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn secrets_are_read_again_and_never_shown() {
    let double = answering(Says::Answer(200, String::new())).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    let path = file.display().to_string();
    let mut connection = connection(&[&double.url]);
    connection.credentials = Credentials::BearerFile(path.clone());
    assert!(refused(&connection).contains("cannot be read"));
    std::fs::write(&file, " \n").unwrap();
    assert!(refused(&connection).contains("is empty"));
    std::fs::write(&file, "se\ncret").unwrap();
    let error = refused(&connection);
    assert!(!error.contains("cret"), "{error}");
    std::fs::write(&file, "first-secret\n").unwrap();
    connection.headers = [("x-scope-orgid".to_owned(), "team-secret".to_owned())].into();
    let bearer = servers(&connection);
    get(&bearer, 0).await.unwrap();
    std::fs::write(&file, "second-secret").unwrap();
    get(&bearer, 0).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    let error = get(&bearer, 0).await.unwrap_err();
    assert!(error.contains("cannot be read"), "{error}");
    std::fs::write(&file, "pass word").unwrap();
    connection.credentials = Credentials::Basic {
        username: "me".into(),
        password_file: path,
    };
    let basic = servers(&connection);
    get(&basic, 0).await.unwrap();
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
    let double = answering(Says::Answer(200, String::new())).await;
    let mut connection = connection(&[&double.url]);
    connection.credentials = Credentials::SigV4 { region: "r".into() };
    assert!(refused(&connection).contains("nobody can sign"));
    let sign: Signer = Arc::new(|method, url, body| {
        let body = String::from_utf8(body).unwrap();
        let signed = vec![(
            "authorization".to_owned(),
            format!("{method} {url} <{body}>"),
        )];
        Box::pin(std::future::ready(Ok(signed)))
    });
    let signing = Servers::new("Prometheus", &connection, Some(sign)).unwrap();
    let both = |server: Server| async move {
        server.get(&["a"], &[("b", "c d")]).await?;
        server.post(&["a"], &[("b", "c d")]).await
    };
    signing.first(both).await.unwrap();
    let signed = |index: usize| double.sent()[index].headers["authorization"].clone();
    assert_eq!(signed(0), format!("GET {}/a?b=c+d <>", double.url));
    assert_eq!(signed(1), format!("POST {}/a <b=c+d>", double.url));
    let mute: Signer = Arc::new(|_, _, _| Box::pin(std::future::ready(Err("no role".into()))));
    let mute = Servers::new("Prometheus", &connection, Some(mute)).unwrap();
    let error = get(&mute, 0).await.unwrap_err();
    assert!(error.contains("cannot be signed: no role"), "{error}");
    assert_eq!(double.sent().len(), 2);
}

#[test]
fn certificates_that_cannot_be_used_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let mut connection = connection(&["https://p"]);
    connection.ca_file = Some(file("ca", "not PEM"));
    assert_eq!(refused(&connection), "tls: caFile has no certificate");
    connection.ca_file = None;
    connection.identity = Some((file("cert", "secret"), file("key", "secret")));
    let error = refused(&connection);
    assert!(error.starts_with("tls: certFile with keyFile"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

/// What the one below finds out, in a process whose environment has a proxy.
#[tokio::test]
async fn h70_proxies_of_the_environment_see_neither_probes_nor_loopback() {
    let proxy = answering(Says::Answer(200, "by proxy".into())).await;
    let here = std::env::current_exe().unwrap();
    let under_test = tokio::process::Command::new(here)
        .args(["--exact", "fetch::tests::behind_a_proxy", "--ignored"])
        .env("http_proxy", &proxy.url)
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&under_test.stdout);
    assert!(said.contains("1 passed"), "{said}");
    let lines: Vec<String> = proxy.sent().into_iter().map(|sent| sent.line).collect();
    assert_eq!(lines, ["GET http://prometheus.invalid/path"]);
}

#[tokio::test]
#[ignore = "needs a proxy in the environment: the one above gives it"]
async fn behind_a_proxy() {
    let far = servers(&connection(&["http://prometheus.invalid"]));
    assert_eq!(get(&far, 8).await, Ok((200, b"by proxy".to_vec())));
    let near = answering(Says::Answer(200, "near".into())).await;
    let found = get(&servers(&connection(&[&near.url])), 4).await;
    assert_eq!(found, Ok((200, b"near".to_vec())));
    let address: std::net::SocketAddr = near.url["http://".len()..].parse().unwrap();
    let direct = Direct::new(Duration::from_secs(20), Duration::from_secs(20)).unwrap();
    let found = direct.get(address.ip(), address.port(), "/").await;
    assert_eq!(found.unwrap().body(4).await, Ok(b"near".to_vec()));
}

#[tokio::test]
async fn only_who_refuses_or_never_takes_a_connection_is_nobody() {
    let ask = |port: u16, connecting: u64, deadline: u64| async move {
        let [connecting, deadline] = [connecting, deadline].map(Duration::from_millis);
        let direct = Direct::new(connecting, deadline).unwrap();
        let reply = match direct.get([127, 0, 0, 1].into(), port, "/").await {
            Ok(reply) => reply.body(100).await,
            Err(error) => Err(error),
        };
        reply.unwrap_err()
    };
    let socket = || {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket
    };
    let closed = socket().local_addr().unwrap().port();
    let error = ask(closed, 20_000, 20_000).await;
    assert!(matches!(error, Error::NobodyThere(_)), "{error:?}");
    // A queue of connections that is full: more of them are not answered.
    let full = socket().listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    let patience = Duration::from_millis(300);
    while let Ok(stream) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    let error = ask(address.port(), 100, 20_000).await;
    assert!(matches!(error, Error::NobodyThere(_)), "{error:?}");
    // Whoever takes it is there, whatever comes then.
    for (says, expect) in [
        (Some(""), ""),
        (Some("garbage\r\n\r\n"), ""),
        (
            Some("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort"),
            "",
        ),
        (None, "timed out"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            match says {
                Some(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                None => std::future::pending().await,
            }
        });
        let error = ask(port, 20_000, if says.is_some() { 20_000 } else { 200 }).await;
        server.abort();
        let text = error.to_string();
        assert!(
            matches!(error, Error::NoAnswer(_)) && text.ends_with(expect),
            "{says:?}: {text}"
        );
    }
}
