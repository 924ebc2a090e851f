//! A proxy for HTTP, and for tunnels through it: it leads hosts that do not exist to addresses that do.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;

use crate::Result;

/// The proxy; it ends with the process.
#[derive(Debug, Clone)]
pub struct Proxy {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

/// Where each `HOST:PORT` leads.
type Routes = HashMap<String, SocketAddr>;

impl Proxy {
    /// Starts one on the loopback interface. What is not in `routes` is not reached.
    pub fn start(routes: Routes) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen as a proxy")?;
        let proxy = Self { address: listener.local_addr()?, seen: Arc::default() };
        let seen = proxy.seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (routes, seen) = (routes.clone(), seen.clone());
                // A client that leaves early is no concern of the test's.
                std::thread::spawn(move || serve(&stream, &routes, &seen).ok());
            }
        });
        Ok(proxy)
    }

    /// Its address, as the environment has it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The method and the target of each request so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves one request, or one tunnel.
fn serve(mut client: &TcpStream, routes: &Routes, seen: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut reader = BufReader::new(client);
    let head = head(&mut reader)?;
    let mut words = head.first().map(String::as_str).unwrap_or_default().split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{method} {target}"));
    let rest = target.strip_prefix("http://").unwrap_or(target);
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let Some(address) = routes.get(&host) else {
        return write!(client, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let server = TcpStream::connect(address)?;
    if method == "CONNECT" {
        write!(client, "HTTP/1.1 200 Connected\r\n\r\n")?;
        return tunnel(reader, client, server);
    }
    write!(&server, "{method} {path} HTTP/1.1\r\n{}\r\n", head[1..].concat())?;
    answer(client, server)
}

/// The lines of a head, without the empty one that ends it.
fn head(from: &mut impl BufRead) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
            return Ok(lines);
        }
        lines.push(line);
    }
}

/// Hands one answer on, and says that it is the last on this connection.
fn answer(mut client: &TcpStream, server: TcpStream) -> io::Result<()> {
    let mut server = BufReader::new(server);
    let head = head(&mut server)?;
    let length = head.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    write!(client, "{}Connection: close\r\n\r\n", head.concat())?;
    io::copy(&mut server.take(length.unwrap_or(0)), &mut client)?;
    Ok(())
}

/// Copies in both directions until both ends have ended.
fn tunnel(mut from: impl Read, client: &TcpStream, mut server: TcpStream) -> io::Result<()> {
    let (mut answers, mut receiver) = (server.try_clone()?, client.try_clone()?);
    let back = std::thread::spawn(move || {
        io::copy(&mut answers, &mut receiver).ok();
        receiver.shutdown(Shutdown::Write).ok();
    });
    io::copy(&mut from, &mut server)?;
    server.shutdown(Shutdown::Write)?;
    back.join().ok();
    Ok(())
}
