//! The server on a socket of its own, with a service that answers or hangs.

use std::os::unix::net::UnixListener as StdListener;

use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, async_trait};

use super::*;
use crate::wire::corten::pulls_client::PullsClient;
use crate::wire::corten::pulls_server::{self, PullsServer};
use crate::wire::corten::{PullProgress, WatchRequest};

/// A service that answers once, or never.
struct Fake;

#[async_trait]
impl pulls_server::Pulls for Fake {
    type WatchStream = futures_util::stream::Iter<std::vec::IntoIter<Result<PullProgress, Status>>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        match request.into_inner().reference.as_str() {
            "hang" => std::future::pending().await,
            _ => Ok(Response::new(futures_util::stream::iter(vec![Ok(PullProgress::default())]))),
        }
    }
}

fn routes() -> Routes {
    Routes::new(PullsServer::new(Fake).max_decoding_message_size(MESSAGE_BYTES))
}

async fn connect_to(path: &Path) -> PullsClient<Channel> {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap();
    PullsClient::new(channel)
}

async fn ask(client: &mut PullsClient<Channel>, reference: &str) -> Result<(), Status> {
    client.watch(WatchRequest { reference: reference.to_owned() }).await.map(drop)
}

#[tokio::test]
async fn it_serves_and_stops_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/corten.sock");
    let listener = Listener::bind(&path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o660, 0o711));
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(listener.serve(routes(), Telemetry::default(), async { drop(stopped.await) }));
    let mut client = connect_to(&path).await;
    ask(&mut client, "x").await.unwrap();
    let large = client.watch(WatchRequest { reference: "a".repeat(MESSAGE_BYTES + 1) }).await.unwrap_err();
    assert_eq!(large.code(), tonic::Code::OutOfRange);
    ask(&mut client, &"a".repeat(MESSAGE_BYTES - 100)).await.unwrap();
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_call_that_hangs_does_not_hold_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(
        Listener::bind(&path).unwrap().serve(routes(), Telemetry::default(), async { drop(stopped.await) }),
    );
    let mut client = connect_to(&path).await;
    let mut hanging = client.clone();
    let hanging = tokio::spawn(async move { ask(&mut hanging, "hang").await });
    ask(&mut client, "x").await.unwrap();
    stop.send(()).unwrap();
    // The call would hang for ever.
    server.await.unwrap().unwrap();
    hanging.abort();
}

#[tokio::test]
async fn only_a_dead_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(StdListener::bind(&path).unwrap());
    let living = Listener::bind(&path).unwrap();
    assert!(matches!(Listener::bind(&path), Err(Error::InUse { .. })));
    drop(living);
    Listener::bind(&path).unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Listener::bind(&file), Err(Error::NotASocket { .. })));
    assert_eq!(fs::read(&file).unwrap(), b"");
}

#[tokio::test]
async fn long_paths_fit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d".repeat(150)).join("s");
    let _first = Listener::bind(&path).unwrap();
    assert!(matches!(Listener::bind(&path), Err(Error::InUse { .. })));
}
