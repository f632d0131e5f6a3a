//! `/api/streams`: pictures and results of one stream.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use aits_frame::StreamId;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::watch;

use crate::feeds::Picture;
use crate::multipart::{self, Part};
use crate::{Door, Problem};

/// How soon a page asks again when its event stream broke.
const RECONNECT: Duration = Duration::from_millis(500);
/// How long a snapshot waits for a picture to come.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(3);
/// A picture that came longer ago is not "now": preview sends even a still one again every second.
const FRESH: Duration = Duration::from_secs(4);

/// What may stand behind `?`.
#[derive(serde::Deserialize, Default)]
pub struct Variant {
    annotated: Option<String>,
}

impl Variant {
    fn annotated(&self, default: bool) -> Result<bool, Problem> {
        match self.annotated.as_deref() {
            None => Ok(default),
            Some("1" | "true") => Ok(true),
            Some("0" | "false") => Ok(false),
            Some(_) => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "bad_query",
                "write `annotated=1` or `annotated=0`",
            )),
        }
    }
}

fn stream_id(id: &str) -> Result<StreamId, Problem> {
    id.parse().map(StreamId).map_err(|_| Problem::unknown_stream(id))
}

/// `GET /api/streams/{id}/snapshot.jpg`: the newest picture; clean unless `annotated=1`.
pub async fn snapshot(
    State(door): State<Door>,
    Path(id): Path<String>,
    Query(variant): Query<Variant>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let annotated = variant.annotated(false)?;
    let mut pictures = door.feeds().pictures(stream_id(&id)?, annotated).await?;
    let fresh = |picture: &Option<Picture>| picture.as_ref().is_some_and(|p| p.at.elapsed() < FRESH);
    let found = match tokio::time::timeout(SNAPSHOT_PATIENCE, pictures.wait_for(fresh)).await {
        Ok(Ok(picture)) => picture.clone(),
        Ok(Err(_)) => return Err(Problem::unknown_stream(&id)),
        Err(_) => None,
    };
    let Some(picture) = found else {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no_picture",
            format!("stream {id} has shown no picture yet; GET /api/tasks says how its task goes"),
        ));
    };
    let tag = format!("\"{}-{}\"", picture.header.sequence.0, u8::from(annotated));
    let same = headers.get(header::IF_NONE_MATCH).is_some_and(|have| have.as_bytes() == tag.as_bytes());
    let mut response = if same {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "image/jpeg")], Body::from(picture.file)).into_response()
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// `GET /api/streams/{id}/live.mjpeg`: pictures as they come; with boxes unless `annotated=0`.
pub async fn live(
    State(door): State<Door>,
    Path(id): Path<String>,
    Query(variant): Query<Variant>,
) -> Result<Response, Problem> {
    let annotated = variant.annotated(true)?;
    let seat = door.seat()?;
    let mut pictures = door.feeds().pictures(stream_id(&id)?, annotated).await?;
    pictures.mark_changed();
    let closing = Box::pin(door.closing());
    let viewer = Viewer { waiting: VecDeque::from([multipart::OPENING]), pictures, closing, _seat: seat };
    let body = Body::from_stream(stream::unfold(viewer, Viewer::next));
    let headers =
        [(header::CONTENT_TYPE, multipart::CONTENT_TYPE), (header::CACHE_CONTROL, "no-store, no-transform")];
    Ok((headers, body).into_response())
}

/// One who watches: takes the newest picture whenever the socket has room again.
struct Viewer<C> {
    waiting: VecDeque<Bytes>,
    pictures: watch::Receiver<Option<Picture>>,
    closing: C,
    _seat: tokio::sync::OwnedSemaphorePermit,
}

impl<C: Future<Output = ()> + Unpin> Viewer<C> {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            if let Some(chunk) = self.waiting.pop_front() {
                return Some((Ok(chunk), self));
            }
            let part = {
                let picture = tokio::select! {
                    picture = next_value(&mut self.pictures) => picture?,
                    () = &mut self.closing => return None,
                };
                Part::new(&picture)
            };
            self.waiting.extend(part.into_chunks());
        }
    }
}

/// The next value that this reader has not seen; `None` when no more will come. A fresh receiver counts the current value
/// as seen: whoever wants that one too calls `mark_changed` first.
async fn next_value<T: Clone>(values: &mut watch::Receiver<Option<T>>) -> Option<T> {
    loop {
        values.changed().await.ok()?;
        if let Some(value) = values.borrow_and_update().clone() {
            return Some(value);
        }
    }
}

/// `GET /api/streams/{id}/results`: results as Server-Sent Events named `result`.
pub async fn results(
    State(door): State<Door>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let seat = door.seat()?;
    let mut values = door.feeds().results(stream_id(&id)?).await?;
    values.mark_changed();
    let state = (values, Box::pin(door.closing()), seat);
    let events = stream::unfold(state, |(mut values, mut closing, seat)| async move {
        let value = tokio::select! {
            value = next_value(&mut values) => value?,
            () = &mut closing => return None,
        };
        let event = Event::default()
            .retry(RECONNECT)
            .event("result")
            .id(value.version.to_string())
            .data(&*value.json);
        Some((Ok(event), (values, closing, seat)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(5))))
}
