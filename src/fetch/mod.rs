//! Requests over HTTP to whom we ask: one deadline for all of an answer, no redirect, no
//! repetition, no more bytes than the asker takes, and nothing secret in an error.

mod direct;
mod servers;

use std::error::Error as _;
use std::io;
use std::iter::successors;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{ClientBuilder, Response, redirect, retry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use direct::Direct;
pub use servers::{Server, Servers, SignedHeaders, Signer};

/// The longest text of an answer that a message repeats, in characters.
const MAX_QUOTE: usize = 200;

/// A body takes this many bytes without asking for room.
const SMALL: usize = 1 << 20;
/// Room is given out in pieces of this many bytes.
const PIECE: usize = 1024;

/// Why there is no whole answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Nothing can be asked at all.
    #[error("{0}")]
    Setup(String),
    /// Nobody is there: the connection was refused, or none was made in time.
    #[error("no answer: {0}")]
    NobodyThere(String),
    /// Nothing came back, or only a part, or too late.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// A body longer than this many bytes.
    #[error("an answer of more than {0} bytes")]
    TooLong(usize),
    /// Other answers take the memory that there is for large ones.
    #[error("too many large answers at once")]
    NoRoom,
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
        self.read(max, |_| Ok(())).await
    }

    /// The same, and the room that it takes until that is dropped. Nothing is waited for, so
    /// that one server that stalls holds up no answer of another.
    pub async fn body_in(mut self, room: &Room, max: usize) -> Result<(Vec<u8>, Place), Error> {
        let mut place = Place(None);
        let body = self.read(max, |length| place.grow(room, length)).await?;
        Ok((body, place))
    }

    async fn read(
        &mut self,
        max: usize,
        mut grow: impl FnMut(usize) -> Result<(), Error>,
    ) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = self.0.chunk().await.map_err(|error| no_answer(&error))? {
            let length = body.len() + chunk.len();
            if length > max {
                return Err(Error::TooLong(max));
            }
            grow(length)?;
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// Room for large bodies that are in memory at one time. Clones share it.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

impl Room {
    /// So many bytes, beside `SMALL` for each body.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / PIECE)))
    }
}

/// What a body takes of a room.
#[derive(Debug)]
pub struct Place(Option<OwnedSemaphorePermit>);

impl Place {
    fn grow(&mut self, room: &Room, length: usize) -> Result<(), Error> {
        let wanted = length.saturating_sub(SMALL).div_ceil(PIECE);
        let held = self.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = u32::try_from(wanted.saturating_sub(held)).map_err(|_| Error::NoRoom)?;
        if missing == 0 {
            return Ok(());
        }
        let more = Arc::clone(&room.0).try_acquire_many_owned(missing);
        let more = more.map_err(|_| Error::NoRoom)?;
        match &mut self.0 {
            Some(place) => place.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

/// What all our requests have in common.
fn builder(deadline: Duration) -> ClientBuilder {
    reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .timeout(deadline)
}

/// As much of a text from elsewhere as a message repeats.
pub fn quote(text: &str) -> String {
    text.chars().take(MAX_QUOTE).collect()
}

fn no_answer(error: &reqwest::Error) -> Error {
    // That our own network fails, or a proxy's, says nothing of who was asked.
    if error.is_connect() && error.is_timeout() {
        Error::NobodyThere("connecting timed out".into())
    } else if error.is_connect() && refused(error) {
        Error::NobodyThere(cause(error))
    } else if error.is_timeout() {
        Error::NoAnswer("timed out".into())
    } else {
        Error::NoAnswer(cause(error))
    }
}

fn refused(error: &reqwest::Error) -> bool {
    let mut sources = successors(error.source(), |error| (*error).source());
    sources.any(|source| {
        let source = source.downcast_ref::<io::Error>();
        source.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
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
