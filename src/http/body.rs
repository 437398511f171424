//! The body of a delivery, plain or gzip: inflated as it arrives, and bounded by what it
//! has become, so that a small body cannot take much memory.

use std::io::{self, Write};

use axum::body::{Body, Bytes};
use flate2::write::GzDecoder;
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::webhook::Refusal;

/// Memory is given out in pieces of this many bytes.
pub(super) const PIECE: usize = 1024;

/// What a body may take.
#[derive(Clone, Copy)]
pub(super) struct Bounds<'a> {
    /// The most bytes of it, before and after it is inflated.
    pub(super) most: usize,
    /// So many pieces each body has for itself …
    pub(super) own: usize,
    /// … and what is beyond comes from here, as it arrives, not as it is announced.
    pub(super) shared: &'a Semaphore,
}

/// Reads a body. What it takes is held as long as the text is in use.
pub(super) async fn read(
    mut body: Body,
    gzip: bool,
    bounds: Bounds<'_>,
) -> Result<(Vec<u8>, Option<SemaphorePermit<'_>>), Refusal> {
    let text = Text {
        bytes: Vec::new(),
        bounds,
        place: None,
        refused: None,
    };
    let mut sink = if gzip {
        Sink::Gzip(Box::new(GzDecoder::new(text)))
    } else {
        Sink::Plain(text)
    };
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        let data = frame.map_err(|_| Refusal::BodyBroken)?.into_data();
        let data: Bytes = data.unwrap_or_default();
        received += data.len();
        if received > bounds.most {
            return Err(Refusal::BodyTooLarge);
        }
        sink.write(&data)?;
    }
    let text = sink.finish()?;
    Ok((text.bytes, text.place))
}

enum Sink<'a> {
    Plain(Text<'a>),
    Gzip(Box<GzDecoder<Text<'a>>>),
}

impl<'a> Sink<'a> {
    fn write(&mut self, data: &[u8]) -> Result<(), Refusal> {
        let (done, text) = match self {
            Self::Plain(text) => (text.write_all(data), text),
            Self::Gzip(decoder) => (decoder.write_all(data), decoder.get_mut()),
        };
        done.map_err(|_| text.refused.unwrap_or(Refusal::BodyBroken))
    }

    fn finish(self) -> Result<Text<'a>, Refusal> {
        match self {
            Self::Plain(text) => Ok(text),
            Self::Gzip(mut decoder) => {
                let done = decoder.try_finish();
                let refused = decoder.get_ref().refused.unwrap_or(Refusal::BodyBroken);
                done.and_then(|()| decoder.finish()).map_err(|_| refused)
            }
        }
    }
}

/// What was read so far.
struct Text<'a> {
    bytes: Vec<u8>,
    bounds: Bounds<'a>,
    place: Option<SemaphorePermit<'a>>,
    refused: Option<Refusal>,
}

impl Text<'_> {
    fn grow(&mut self, more: usize) -> Result<(), Refusal> {
        let Bounds { most, own, shared } = self.bounds;
        let length = self.bytes.len() + more;
        if length > most {
            return Err(Refusal::BodyTooLarge);
        }
        let held = own + self.place.as_ref().map_or(0, SemaphorePermit::num_permits);
        let missing = length.div_ceil(PIECE).saturating_sub(held);
        if missing > 0 {
            let missing = u32::try_from(missing).map_err(|_| Refusal::BodyTooLarge)?;
            let more = shared.try_acquire_many(missing);
            let more = more.map_err(|_| Refusal::Overloaded)?;
            match &mut self.place {
                Some(place) => place.merge(more),
                none => *none = Some(more),
            }
        }
        Ok(())
    }
}

impl Write for Text<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if let Err(refused) = self.grow(data.len()) {
            self.refused = Some(refused);
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
