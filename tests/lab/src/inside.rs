//! The parts that run inside the lab's own process, on a runtime of their own:
//! a test's runtime may be single-threaded, or block.

use std::net::{Ipv4Addr, TcpListener};

use crate::cloud::{Cuttable, Peer};
use anyhow::{Context, Result};
use axum::Router;
use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime that may also be dropped from asynchronous code.
#[derive(Debug)]
pub struct Inside(Option<Runtime>);

impl Inside {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("nodemend-lab")
            .enable_all()
            .build()
            .context("starting the lab's runtime")?;
        Ok(Self(Some(runtime)))
    }

    /// To spawn on it.
    pub fn handle(&self) -> &Handle {
        self.0
            .as_ref()
            .expect("the runtime is there until the drop")
            .handle()
    }

    /// Serves on a free loopback port; gives the address.
    pub fn serve(&self, router: Router) -> Result<String> {
        let (listener, url) = self.listen()?;
        // It ends with the runtime; until then accept errors are retried by axum.
        self.handle()
            .spawn(async move { axum::serve(listener, router).await });
        Ok(url)
    }

    /// The same, and handlers can cut a connection off.
    pub fn serve_cuttable(&self, router: Router) -> Result<String> {
        let (listener, url) = self.listen()?;
        let service = router.into_make_service_with_connect_info::<Peer>();
        self.handle()
            .spawn(async move { axum::serve(Cuttable(listener), service).await });
        Ok(url)
    }

    fn listen(&self) -> Result<(tokio::net::TcpListener, String)> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("binding a loopback port")?;
        let address = listener.local_addr().context("reading the bound port")?;
        listener
            .set_nonblocking(true)
            .context("preparing the listener")?;
        let _guard = self.handle().enter();
        let listener =
            tokio::net::TcpListener::from_std(listener).context("preparing the listener")?;
        Ok((listener, format!("http://{address}")))
    }
}

impl Inside {
    /// Ends what runs on it.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.stop();
    }
}
