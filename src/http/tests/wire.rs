//! Over sockets: bounds on connections.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use super::*;

/// Serves a webhook on a socket, hands its address to `client`, and shuts down after.
async fn over_tcp<F: Future<Output = ()>>(
    bounds: Bounds,
    client: impl FnOnce(SocketAddr, Hook) -> F,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hook = hook(Auth::Anonymous, LIMITS);
    let seen = Arc::clone(&hook.seen);
    let socket = Socket::new(listener, None, move |refusal| {
        seen.lock().unwrap().push(Err(refusal));
    });
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async move {
        let _ = stopped.await;
    };
    let server = tokio::spawn(serve(socket, hook.router.clone(), bounds, shutdown));
    client(address, hook).await;
    stop.send(()).unwrap();
    server.await.unwrap();
}

/// Whoever is not cut off within this time is not cut off.
const PATIENCE: Duration = Duration::from_secs(20);

async fn talk(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let answer = timeout(PATIENCE, to_end(stream)).await;
    answer.expect("it is answered or cut off")
}

async fn to_end(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

/// Connects from an address of the loopback network.
async fn from(source: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::new(source.parse().unwrap(), 0))
        .unwrap();
    socket.connect(to).await.unwrap()
}

fn head(length: usize) -> String {
    format!(
        "POST /webhook/alertmanager HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

fn delivery() -> String {
    head(firing().len()) + &firing()
}

#[tokio::test]
async fn over_a_socket_each_connection_carries_one_request() {
    over_tcp(Bounds::default(), |address, hook| async move {
        let answer = talk(address, &delivery().repeat(2)).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1);
        assert_eq!(hook.store.writes(), 1);
    })
    .await;
}

#[tokio::test]
async fn h68_slow_heads_slow_bodies_and_idle_clients_are_cut_off() {
    let bounds = Bounds {
        head: Duration::from_millis(100),
        request: Duration::from_millis(50),
        connection: Duration::from_mins(1),
        connections: 4,
    };
    over_tcp(bounds, |address, hook| async move {
        let body = firing();
        for text in ["", "POST /webhook/alertmanager HT"] {
            let answer = talk(address, text).await;
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
                "{answer}"
            );
            assert_eq!(hook.seen(), [Err(Refusal::Head)]);
        }
        let slow = talk(address, &(head(body.len()) + &body[..10])).await;
        assert!(slow.starts_with("HTTP/1.1 503"), "{slow}");
        assert_eq!(hook.seen(), [Err(Refusal::Aborted)]);
    })
    .await;
    // Whatever a connection does, it ends.
    let bounds = Bounds {
        head: Duration::from_hours(1),
        request: Duration::from_hours(1),
        connection: Duration::from_millis(100),
        connections: 4,
    };
    over_tcp(bounds, |address, hook| async move {
        assert_eq!(talk(address, "POST").await, "");
        assert_eq!(hook.seen(), [Err(Refusal::Head)]);
    })
    .await;
}

#[tokio::test]
async fn h68_what_is_no_head_of_http_1_is_refused() {
    over_tcp(Bounds::default(), |address, hook| async move {
        let long = format!("POST / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(64 << 10));
        let many = format!("POST / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(1000));
        // No HTTP/2, so no rapid resets.
        let http2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        for text in [&long, &many, http2, "\u{16}\u{3}\u{1}\r\n\r\n"] {
            let answer = talk(address, text).await;
            assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
            assert_eq!(hook.seen(), [Err(Refusal::Head)], "{answer}");
        }
        assert_eq!(hook.store.writes(), 0);
    })
    .await;
}

#[tokio::test]
async fn h68_a_flood_of_stuck_clients_does_not_delay_a_delivery() {
    let bounds = Bounds {
        connections: 8,
        ..Bounds::default()
    };
    over_tcp(bounds, |address, hook| async move {
        // Another sender is slower than it could be, but alone at its address.
        let mut patient = from("127.0.0.3", address).await;
        patient
            .write_all(&delivery().as_bytes()[..20])
            .await
            .unwrap();
        for text in ["", "POST /webhook/alertmanager HTTP/1.1\r\nx: "] {
            let stuck = join_all((0..40).map(|_| async {
                let mut stream = from("127.0.0.2", address).await;
                let _ = stream.write_all(text.as_bytes()).await;
                stream
            }))
            .await;
            let mut prompt = from("127.0.0.1", address).await;
            prompt.write_all(delivery().as_bytes()).await.unwrap();
            let answer = timeout(Duration::from_secs(1), to_end(prompt)).await;
            let answer = answer.expect("prompt");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            drop(stuck);
        }
        patient
            .write_all(&delivery().as_bytes()[20..])
            .await
            .unwrap();
        let answer = to_end(patient).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(hook.seen().contains(&Err(Refusal::Displaced)));
    })
    .await;
}

#[tokio::test]
async fn h3_where_every_place_is_at_work_a_newcomer_is_turned_away() {
    let bounds = Bounds {
        connections: 1,
        ..Bounds::default()
    };
    over_tcp(bounds, |address, hook| async move {
        let expect = "\r\nexpect: 100-continue\r\n\r\n";
        let head = head(firing().len()).replace("\r\n\r\n", expect);
        let mut at_work = TcpStream::connect(address).await.unwrap();
        at_work.write_all(head.as_bytes()).await.unwrap();
        // This is written once the body is asked for: the request has begun.
        let mut go_on = [0; 25];
        at_work.read_exact(&mut go_on).await.unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
        let answer = talk(address, "").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert_eq!(hook.seen(), [Err(Refusal::Overloaded)]);
        at_work.write_all(firing().as_bytes()).await.unwrap();
        let answer = to_end(at_work).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn h68_senders_that_announce_much_and_trickle_hold_up_no_other() {
    over_tcp(Bounds::default(), |address, hook| async move {
        let most = LIMITS.max_body;
        let announced = head(most).replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
        let chunked = announced.replace(
            &format!("content-length: {most}"),
            "transfer-encoding: chunked",
        );
        let mut slow = Vec::new();
        for text in [&announced, &chunked].into_iter().cycle().take(8) {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            // This is written once the body is asked for: the request has begun.
            let mut go_on = [0; 25];
            let read = timeout(PATIENCE, stream.read_exact(&mut go_on)).await;
            read.expect("in time").unwrap();
            assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
            slow.push(stream);
        }
        let answer = talk(address, &delivery()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(hook.seen().len(), 1, "the others are still under way");
        // One of them may still send all of it.
        let mut whole = slow.swap_remove(0);
        whole.write_all(&vec![b' '; most]).await.unwrap();
        let answer = timeout(PATIENCE, to_end(whole)).await.expect("in time");
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert_eq!(hook.seen(), [Err(Refusal::NotJson)]);
    })
    .await;
}
