//! A request's body on its way out.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll},
};

type Failed = Box<dyn Error + Send + Sync>;

/// Nearly all are whole, and cost no allocation.
#[derive(Debug)]
pub enum Outgoing {
    Whole(Full<Bytes>),
    /// Comes from elsewhere while it goes out. What fails there is among the sources of the request's error.
    Streamed(UnsyncBoxBody<Bytes, Failed>),
}

impl Outgoing {
    pub fn streamed<B>(body: B) -> Outgoing
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Failed>,
    {
        Outgoing::Streamed(body.map_err(Into::into).boxed_unsync())
    }
}

impl From<Full<Bytes>> for Outgoing {
    fn from(body: Full<Bytes>) -> Outgoing {
        Outgoing::Whole(body)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Failed;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        match self.get_mut() {
            Outgoing::Whole(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(|never| match never {}),
            Outgoing::Streamed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outgoing::Whole(body) => body.is_end_stream(),
            Outgoing::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Whole(body) => body.size_hint(),
            Outgoing::Streamed(body) => body.size_hint(),
        }
    }
}
