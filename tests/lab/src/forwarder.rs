//! What a Service is to its pods: each connection goes to the next backend in turn. It
//! does not look whether they are well, so one that is dead costs connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What became of the connections so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// They were answered.
    pub answered: usize,
    /// No backend took them.
    pub refused: usize,
    /// A backend took them and gave no answer.
    pub broken: usize,
}

#[derive(Debug, Default)]
struct Counts {
    answered: AtomicUsize,
    refused: AtomicUsize,
    broken: AtomicUsize,
}

/// A round-robin of TCP connections, on a port of its own; it ends when this is dropped.
#[derive(Debug)]
pub struct Forwarder {
    /// Where it listens.
    pub address: SocketAddr,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Forwarder {
    /// Starts it before these.
    pub async fn start(backends: Vec<SocketAddr>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("binding a loopback port")?;
        let address = listener.local_addr()?;
        let counts = Arc::<Counts>::default();
        let task = tokio::spawn(serve(listener, backends, Arc::clone(&counts)));
        Ok(Self {
            address,
            counts,
            task,
        })
    }

    /// What became of the connections so far.
    pub fn forwarded(&self) -> Forwarded {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        Forwarded {
            answered: read(&self.counts.answered),
            refused: read(&self.counts.refused),
            broken: read(&self.counts.broken),
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, backends: Vec<SocketAddr>, counts: Arc<Counts>) {
    // They end with this.
    let mut connections = JoinSet::new();
    for backend in backends.into_iter().cycle() {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        connections.spawn(forward(stream, backend, Arc::clone(&counts)));
    }
}

async fn forward(mut client: TcpStream, backend: SocketAddr, counts: Arc<Counts>) {
    let Ok(mut server) = TcpStream::connect(backend).await else {
        counts.refused.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let outcome = match copy_bidirectional(&mut client, &mut server).await {
        Ok((_, answer)) if answer > 0 => &counts.answered,
        _ => &counts.broken,
    };
    outcome.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn connections_go_to_each_in_turn_be_it_there_or_not() {
        let here = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backends = [&here, &gone].map(|backend| backend.local_addr().unwrap());
        drop(gone);
        let forwarder = Forwarder::start(backends.to_vec()).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = here.accept().await {
                let mut said = [0; 4];
                stream.read_exact(&mut said).await.unwrap();
                stream.write_all(&said).await.unwrap();
            }
        });
        let mut heard = Vec::new();
        for _ in 0..4 {
            let mut stream = TcpStream::connect(forwarder.address).await.unwrap();
            let mut answer = Vec::new();
            // One that is refused may be closed before or after it is written to.
            let _ = stream.write_all(b"ping").await;
            let _ = stream.read_to_end(&mut answer).await;
            heard.push(answer == b"ping");
        }
        assert_eq!(heard, [true, false, true, false]);
        assert_eq!(forwarder.forwarded().refused, 2);
    }
}
