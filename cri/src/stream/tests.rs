//! The whole server over its socket, with a node that has no containers: what clients are told before there is a
//! session.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pod::stream::{End, Session, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::async_trait;

use super::node::Node;
use super::*;

/// Commands that answer with what they are given, and a port that does.
#[derive(Debug)]
struct Echo;

#[async_trait]
impl Node for Echo {
    async fn exec(&self, _: &str, command: Vec<String>, _: Stdio) -> pod::Result<Session> {
        let (near, far) = tokio::io::duplex(1 << 10);
        let (stdout, stdin) = tokio::io::split(near);
        let end = async move {
            let (mut read, mut write) = tokio::io::split(far);
            let copied = tokio::io::copy(&mut read, &mut write).await;
            drop(write.shutdown().await);
            let code = command.first().and_then(|word| word.parse().ok()).unwrap_or_default();
            Ok(End::Exited(copied.map_or(99, |_| code)))
        };
        Ok(Session {
            stdin: Some(Box::new(stdin)),
            stdout: Some(Box::new(stdout)),
            stderr: None,
            terminal: None,
            end: Box::pin(end),
        })
    }

    async fn attach(&self, container: &str, _: Stdio) -> pod::Result<Session> {
        Err(pod::Error::NotFound { kind: "container", id: container.to_owned() })
    }

    async fn dial(&self, _: &str, port: u16) -> pod::Result<TcpStream> {
        let failed = |source: io::Error| pod::Error::File {
            operation: "dial",
            path: port.to_string().into(),
            source: Arc::new(source),
        };
        if port == 1 {
            return Err(failed(io::ErrorKind::ConnectionRefused.into()));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await?;
            let (mut read, mut write) = socket.split();
            tokio::io::copy(&mut read, &mut write).await
        });
        TcpStream::connect(address).await.map_err(failed)
    }
}

async fn serve(options: Streaming) -> Urls {
    let server = Server::bind(&options).await.unwrap();
    let urls = server.urls();
    tokio::spawn(server.serve(Arc::new(Echo)));
    urls
}

fn exec(code: &str) -> Request {
    let stdio = Stdio { stdin: true, stdout: true, stderr: false, tty: false };
    Request::Command(Command { container: "c".to_owned(), command: Some(vec![code.to_owned()]), stdio })
}

fn forward(ports: &[u16]) -> Request {
    Request::PortForward { pod: "p".to_owned(), ports: ports.into() }
}

const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SPDY: &str = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";

/// The head of the answer to a request, and what follows it.
async fn ask(method: &str, url: &str, headers: &str) -> (String, TcpStream) {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut socket = TcpStream::connect(host).await.unwrap();
    let request = format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    (String::from_utf8(head).unwrap().to_ascii_lowercase(), socket)
}

async fn status(method: &str, url: &str, headers: &str) -> u16 {
    ask(method, url, headers).await.0.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_token_is_for_one_request_of_one_kind() {
    let urls = serve(Streaming::default()).await;
    let spdy = format!("{SPDY}X-Stream-Protocol-Version: v4.channel.k8s.io\r\n");
    let url = urls.make(exec("0")).unwrap();
    assert_eq!(status("POST", &url, &spdy).await, 101);
    assert_eq!(status("POST", &url, &spdy).await, 404);
    let url = urls.make(exec("0")).unwrap();
    assert_eq!(status("POST", &url.replace("/exec/", "/attach/"), &spdy).await, 404);
    assert_eq!(status("POST", &url, &spdy).await, 404, "it was tried before");
    let url = urls.make(exec("0")).unwrap();
    for wrong in [format!("{url}/x"), format!("{url}0"), url.replace("/exec/", "/exec//")] {
        assert_eq!(status("POST", &wrong, &spdy).await, 404, "{wrong}");
    }
    assert_eq!(status("DELETE", &url, &spdy).await, 405);
    assert_eq!(status("GET", &url, &spdy).await, 101);
}

#[tokio::test]
async fn who_cannot_be_served_is_told_why() {
    let urls = serve(Streaming::default()).await;
    let check = async |request: Request, headers: &str, expected: u16| {
        assert_eq!(status("GET", &urls.make(request).unwrap(), headers).await, expected, "{headers}");
    };
    check(exec("0"), "", 400).await;
    check(exec("0"), SPDY, 400).await;
    check(exec("0"), &format!("{SPDY}X-Stream-Protocol-Version: portforward.k8s.io\r\n"), 403).await;
    check(forward(&[]), &format!("{SPDY}X-Stream-Protocol-Version: v4.channel.k8s.io\r\n"), 403).await;
    check(forward(&[]), &format!("{WEBSOCKET}Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n"), 400).await;
    check(exec("0"), &format!("{WEBSOCKET}Sec-WebSocket-Protocol: v6.channel.k8s.io\r\n"), 403).await;
    let (head, _) = ask("GET", &urls.make(exec("0")).unwrap(), WEBSOCKET).await;
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    assert!(!head.contains("sec-websocket-protocol"), "{head}");
    assert!(head.contains("connection: upgrade") && head.contains("upgrade: websocket"), "{head}");
}

/// A message of up to 125 bytes, masked with zeros.
async fn send(socket: &mut TcpStream, kind: u8, payload: &[u8]) {
    let length = u8::try_from(payload.len()).unwrap();
    socket.write_all(&[&[0x80 | kind, 0x80 | length, 0, 0, 0, 0], payload].concat()).await.unwrap();
}

/// All messages until the server says goodbye.
async fn messages(mut socket: TcpStream) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let [kind, length] = [socket.read_u8().await.unwrap(), socket.read_u8().await.unwrap()];
        let length = if length == 126 { socket.read_u16().await.unwrap() } else { length.into() };
        let mut payload = vec![0; length.into()];
        socket.read_exact(&mut payload).await.unwrap();
        if kind == 0x88 {
            assert_eq!(payload[..2], 1000_u16.to_be_bytes());
            return all;
        }
        all.push(payload);
    }
}

#[tokio::test]
async fn a_command_over_websocket_sees_the_end_of_its_input() {
    let urls = serve(Streaming::default()).await;
    let headers = format!("{WEBSOCKET}Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n");
    let (_, mut socket) = ask("GET", &urls.make(exec("7")).unwrap(), &headers).await;
    send(&mut socket, 2, b"\0hello").await;
    send(&mut socket, 2, &[255, 0]).await;
    let messages = messages(socket).await;
    assert_eq!(messages[..2], [b"\x01".to_vec(), b"\x01hello".to_vec()]);
    let error = String::from_utf8(messages[2].clone()).unwrap();
    assert!(error.starts_with('\x03') && error.contains("NonZeroExitCode"), "{error}");
}

#[tokio::test]
async fn text_carries_bytes_as_base64() {
    let urls = serve(Streaming::default()).await;
    let headers = format!("{WEBSOCKET}Sec-WebSocket-Protocol: v4.base64.channel.k8s.io\r\n");
    let (_, mut socket) = ask("GET", &urls.make(exec("0")).unwrap(), &headers).await;
    send(&mut socket, 1, b"0aGVsbG8=").await;
    let mut first = [0; 2 + 1 + 2 + 9];
    socket.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"\x81\x011\x81\x091aGVsbG8=");
}

#[tokio::test]
async fn a_command_that_cannot_be_run_is_told_on_the_error_channel() {
    let urls = serve(Streaming::default()).await;
    let stdio = Stdio { stdin: false, stdout: true, stderr: true, tty: false };
    let attach = Request::Command(Command { container: "gone".to_owned(), command: None, stdio });
    let headers = format!("{WEBSOCKET}Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n");
    let (_, socket) = ask("GET", &urls.make(attach).unwrap(), &headers).await;
    let messages = messages(socket).await;
    let error = String::from_utf8(messages.last().unwrap().clone()).unwrap();
    assert!(error.contains("error attaching to container: container \\\"gone\\\""), "{error}");
}

#[tokio::test]
async fn ports_of_the_request_are_channels_of_old_clients() {
    let urls = serve(Streaming::default()).await;
    let headers = format!("{WEBSOCKET}Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n");
    let (_, mut socket) = ask("GET", &urls.make(forward(&[80, 1])).unwrap(), &headers).await;
    send(&mut socket, 2, b"\0hi").await;
    let mut found = Vec::new();
    while found.len() < 6 {
        let [_, length] = [socket.read_u8().await.unwrap(), socket.read_u8().await.unwrap()];
        let mut payload = vec![0; length.into()];
        socket.read_exact(&mut payload).await.unwrap();
        found.push(payload);
    }
    for expected in [vec![0, 80, 0], vec![1, 80, 0], vec![2, 1, 0], vec![3, 1, 0], b"\0hi".to_vec()] {
        assert!(found.contains(&expected), "{expected:?} is not in {found:?}");
    }
    let error = found.iter().find(|message| message.len() > 3 && message[0] == 3).unwrap();
    assert!(error[1..].starts_with(b"error forwarding port 1 to pod p"), "{error:?}");
}

#[tokio::test]
async fn a_silent_session_is_ended() {
    let idle_timeout = "1s".parse().unwrap();
    let urls = serve(Streaming { idle_timeout, ..Streaming::default() }).await;
    let headers = format!("{WEBSOCKET}Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n");
    let (_, mut socket) = ask("GET", &urls.make(exec("0")).unwrap(), &headers).await;
    let mut all = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut all)).await;
    read.expect("it ends").unwrap();
    assert_eq!(all, [0x82, 1, 1]);
}
