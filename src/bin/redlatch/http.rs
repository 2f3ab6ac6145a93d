//! A small HTTP server for whoever can reach its port: whatever they send, or begin to send and never end, it goes on
//! answering and takes a bounded part of memory and descriptors.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{poll_fn, ready},
    time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use nix::sys::resource::{Resource, getrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The longest that one connection may last, from its first byte to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// How many connections may be open. One more ends the oldest: whoever asks and listens is served before that.
const CONNECTIONS: usize = 64;
/// How long a request line with all headers may be.
const HEAD_BYTES: usize = 8192;
/// How much of what follows an answer is read and thrown away, and for how long. A connection that is closed over unread
/// bytes is reset, and the answer may be lost with it.
const LINGER_BYTES: u64 = 65_536;
const LINGER: Duration = Duration::from_secs(1);
/// How long to wait when no connection can be accepted, for instance because there is no descriptor left.
const PAUSE: Duration = Duration::from_millis(50);

/// What is at a path.
pub type Page = (StatusCode, String);

/// Answers GET and HEAD for ever, one request a connection, with what `page` has for the path.
pub async fn serve(listener: TcpListener, page: impl Fn(&str) -> Page + Clone + Send + Sync + 'static) {
    let most = most_connections();
    let mut open: VecDeque<JoinHandle<_>> = VecDeque::new();
    loop {
        let accepted = listener.accept().await;
        open.retain(|connection| !connection.is_finished());
        let full = accepted.is_err() || open.len() >= most;
        if let Some(oldest) = full.then(|| open.pop_front()).flatten() {
            oldest.abort();
            // Its descriptor is free from here on.
            let _ = oldest.await;
        }
        match accepted {
            Ok((stream, _)) => {
                open.push_back(tokio::spawn(tokio::time::timeout(DEADLINE, converse(stream, page.clone()))));
            }
            Err(error) => {
                tracing::debug!(%error, "no connection can be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Strangers get a quarter of the descriptors at most: the watch needs the others for its servers.
fn most_connections() -> usize {
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    usize::try_from(descriptors / 4).unwrap_or(CONNECTIONS).clamp(1, CONNECTIONS)
}

async fn converse(stream: TcpStream, page: impl Fn(&str) -> Page) {
    let service = service_fn(|request| ready(Ok::<_, Infallible>(respond(&request, &page))));
    let mut connection = http1::Builder::new()
        .keep_alive(false)
        .half_close(true)
        .max_buf_size(HEAD_BYTES)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = poll_fn(|context| connection.poll_without_shutdown(context)).await {
        tracing::debug!(%error, "a request for metrics was not understood");
    }
    let mut stream = connection.into_parts().io.into_inner();
    if stream.shutdown().await.is_ok() {
        let rest = async { tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await };
        let _ = tokio::time::timeout(LINGER, rest).await;
    }
}

fn respond(request: &Request<Incoming>, page: impl Fn(&str) -> Page) -> Response<String> {
    let known = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, text) = if !known {
        (StatusCode::METHOD_NOT_ALLOWED, "there are GET and HEAD\n".to_owned())
    } else if !request.body().is_end_stream() {
        (StatusCode::PAYLOAD_TOO_LARGE, "a request has no body here\n".to_owned())
    } else {
        page(request.uri().path())
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    if !known {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}
