//! Requests over HTTP to whom we ask: one deadline for all of an answer, no redirect, no
//! repetition, no more bytes than the asker takes, and nothing secret in an error.

mod direct;
mod servers;

use std::error::Error as _;
use std::time::Duration;

use reqwest::{ClientBuilder, Response, redirect, retry};

pub use direct::Direct;
pub use servers::{Server, Servers, SignedHeaders, Signer};

/// Why there is no whole answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Nothing can be asked at all.
    #[error("{0}")]
    Setup(String),
    /// Nothing came back, or only a part, or too late.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// A body longer than this many bytes.
    #[error("an answer of more than {0} bytes")]
    TooLong(usize),
}

/// An answer of which the status has come.
#[derive(Debug)]
pub struct Reply(Response);

impl Reply {
    /// The status; 200 is the only one that brings what was asked for.
    pub fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    /// The body, of at most `max` bytes.
    pub async fn body(mut self, max: usize) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = self.0.chunk().await.map_err(|error| no_answer(&error))? {
            if body.len() + chunk.len() > max {
                return Err(Error::TooLong(max));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// What all our requests have in common.
fn builder(deadline: Duration) -> ClientBuilder {
    reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .timeout(deadline)
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
mod tests;
