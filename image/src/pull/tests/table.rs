//! The table of faults: whatever a registry does wrong, a pull ends in the right image or in a clear error, soon, and
//! nothing is left of one that failed.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;

use super::*;

/// What is spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Token,
    Manifest,
    Config,
    Layer,
}
use At::{Config, Layer, Manifest, Token};

/// How a pull ends: well, or with the variant of this name.
type End = Result<(), &'static str>;
const GOOD: End = Ok(());
const UNAVAILABLE: End = Err("RegistryUnavailable");
const REFUSED: End = Err("Refused");
const UNAUTHORIZED: End = Err("Unauthorized");
const NOT_FOUND: End = Err("NotFound");
const DIGEST: End = Err("DigestMismatch");
const SIZE: End = Err("SizeMismatch");
const INVALID: End = Err("InvalidImage");
const UNSUPPORTED: End = Err("Unsupported");
const TOO_LARGE: End = Err("TooLarge");

/// Makes the bad answer from the good one.
type Spoil = fn(Reply, &Request) -> Reply;

/// When an answer is spoilt.
#[derive(Clone, Copy)]
enum When {
    Once,
    Always,
    /// The second time and ever after, so that a download goes on badly; the first answer is cut.
    GoingOn,
}
use When::{Always, GoingOn, Once};

const FAULTS: &[Fault] = &[
    (Token, "hangs", Always, |_, _| Reply::Silent(Vec::new()), UNAVAILABLE),
    (Token, "hangs", Once, |_, _| Reply::Silent(Vec::new()), GOOD),
    (Token, "500", Once, |_, _| Reply::new(500, ""), GOOD),
    (Token, "500", Always, |_, _| Reply::new(500, ""), UNAVAILABLE),
    (Token, "429", Once, |_, _| Reply::new(429, "").header("Retry-After", "3600"), GOOD),
    (Token, "401", Always, |_, _| Reply::new(401, ""), UNAUTHORIZED),
    (Token, "no JSON", Always, |_, _| Reply::new(200, "<html>"), UNAVAILABLE),
    (Token, "no token in it", Always, |_, _| Reply::new(200, "{}"), UNAVAILABLE),
    (Token, "huge body", Always, |_, _| Reply::new(200, vec![b' '; 2 << 20]), TOO_LARGE),
    (Token, "redirect loop", Always, |_, request| to(&request.path), REFUSED),
    (Token, "reset", Once, |_, _| Reply::Reset(Vec::new()), GOOD),
    (Token, "a token that is not taken", Always, |_, _| Reply::new(200, "{\"token\":\"bad\"}"), UNAUTHORIZED),
    (Manifest, "hangs before the head", Always, |_, _| Reply::Silent(Vec::new()), UNAVAILABLE),
    (Manifest, "hangs before the head", Once, |_, _| Reply::Silent(Vec::new()), GOOD),
    (
        Manifest,
        "hangs in the head",
        Always,
        |_, _| Reply::Silent(b"HTTP/1.1 200 X\r\nCont".to_vec()),
        UNAVAILABLE,
    ),
    (Manifest, "hangs in the body", Always, |good, _| Reply::Silent(bytes_of(good, 20)), UNAVAILABLE),
    (Manifest, "drips", Always, drip, UNAVAILABLE),
    (Manifest, "cut", Once, |good, _| good.cut(20), GOOD),
    (Manifest, "cut", Always, |good, _| good.cut(20), UNAVAILABLE),
    (Manifest, "reset", Once, |_, _| Reply::Reset(Vec::new()), GOOD),
    (Manifest, "reset in the body", Always, |good, _| Reply::Reset(bytes_of(good, 20)), UNAVAILABLE),
    (Manifest, "no HTTP", Always, |_, _| Reply::Broken(b"SSH-2.0-OpenSSH\r\n".to_vec()), UNAVAILABLE),
    (Manifest, "400", Always, |_, _| Reply::new(400, ""), REFUSED),
    (Manifest, "401 without a challenge", Always, |_, _| Reply::new(401, ""), UNAUTHORIZED),
    (Manifest, "403", Always, |_, _| Reply::new(403, ""), UNAUTHORIZED),
    (Manifest, "404", Always, |_, _| Reply::new(404, ""), NOT_FOUND),
    (Manifest, "418", Always, |_, _| Reply::new(418, ""), REFUSED),
    (Manifest, "429", Once, |_, _| Reply::new(429, "").header("Retry-After", "3600"), GOOD),
    (Manifest, "429", Always, |_, _| Reply::new(429, ""), UNAVAILABLE),
    (Manifest, "500", Once, |_, _| Reply::new(500, ""), GOOD),
    (Manifest, "503", Always, |_, _| Reply::new(503, ""), UNAVAILABLE),
    (Manifest, "204", Always, |_, _| Reply::new(204, ""), REFUSED),
    (Manifest, "empty", Always, |_, _| Reply::new(200, ""), INVALID),
    (Manifest, "no JSON", Always, |_, _| Reply::new(200, "<html>"), INVALID),
    (Manifest, "deep JSON", Always, |_, _| Reply::new(200, "[".repeat(100_000)), INVALID),
    (Manifest, "no manifest's type", Always, |good, _| retyped(good, "text/html"), INVALID),
    (
        Manifest,
        "an index's type",
        Always,
        |good, _| retyped(good, "application/vnd.oci.image.index.v1+json"),
        INVALID,
    ),
    (Manifest, "schema 1", Always, |_, _| Reply::new(200, r#"{"schemaVersion":1}"#), UNSUPPORTED),
    (Manifest, "a digest of something else", Always, |good, _| announced(good), DIGEST),
    (Manifest, "huge body", Always, |_, _| Reply::new(200, vec![b' '; 5 << 20]), TOO_LARGE),
    (Manifest, "huge head", Always, |good, _| good.header("X", "x".repeat(2 << 20)), UNAVAILABLE),
    (Manifest, "many headers", Always, many_headers, UNAVAILABLE),
    (Manifest, "redirect loop", Always, |_, request| to(&request.path), REFUSED),
    (Manifest, "redirect to nowhere", Always, |_, _| Reply::new(302, ""), REFUSED),
    (Manifest, "redirect to the metadata service", Always, |_, _| to("http://169.254.169.254/"), UNAVAILABLE),
    (Config, "hangs", Always, |_, _| Reply::Silent(Vec::new()), UNAVAILABLE),
    (Config, "cut", Once, |good, _| good.cut(5), GOOD),
    (Config, "404", Always, |_, _| Reply::new(404, ""), NOT_FOUND),
    (Config, "other bytes", Always, |good, _| Reply::new(200, flipped(good, 5)), DIGEST),
    (Config, "too short", Always, |good, _| Reply::new(200, body_of(good)[1..].to_vec()), SIZE),
    (Config, "too long", Always, |good, _| unmeasured([body_of(good), vec![0]].concat()), SIZE),
    (Layer, "hangs before the head", Always, |_, _| Reply::Silent(Vec::new()), UNAVAILABLE),
    (Layer, "hangs before the head", Once, |_, _| Reply::Silent(Vec::new()), GOOD),
    (Layer, "hangs in the body", Once, |good, _| Reply::Silent(bytes_of(good, 30_000)), GOOD),
    (Layer, "drips", Always, drip, UNAVAILABLE),
    (Layer, "drips", Once, drip, GOOD),
    (Layer, "cut", Once, |good, _| good.cut(30_000), GOOD),
    (Layer, "cut at nothing", Always, |good, _| good.cut(0), UNAVAILABLE),
    (Layer, "reset", Once, |good, _| Reply::Reset(bytes_of(good, 30_000)), GOOD),
    (Layer, "reset", Always, |_, _| Reply::Reset(Vec::new()), UNAVAILABLE),
    (Layer, "ends early without a length", Once, |good, _| unmeasured(body_of(good)[..100].to_vec()), GOOD),
    (Layer, "ends early without a length", Always, |_, _| unmeasured(Vec::new()), SIZE),
    (Layer, "a wrong length", Always, |good, _| Reply::new(200, body_of(good)[1..].to_vec()), SIZE),
    (Layer, "too long", Always, |good, _| unmeasured([body_of(good), vec![0]].concat()), SIZE),
    (Layer, "other bytes", Always, |good, _| Reply::new(200, flipped(good, 40_000)), DIGEST),
    (Layer, "nonsense", Always, |good, _| Reply::new(200, vec![0xff; body_of(good).len()]), DIGEST),
    (Layer, "a broken chunk", Always, |_, _| broken_chunk(), UNAVAILABLE),
    (Layer, "a range nobody asked for", Always, |good, _| ranged(good, 7), UNAVAILABLE),
    (Layer, "ranges are not known", GoingOn, |good, _| Reply::new(200, whole(&good)), GOOD),
    (Layer, "another range", GoingOn, |good, _| ranged(good, 7), UNAVAILABLE),
    (Layer, "416", GoingOn, |_, _| Reply::new(416, ""), REFUSED),
    (Layer, "500", GoingOn, |_, _| Reply::new(500, ""), UNAVAILABLE),
    (Layer, "401 in the middle", Once, |_, _| Reply::new(401, ""), UNAUTHORIZED),
    (Layer, "403", Always, |_, _| Reply::new(403, ""), UNAUTHORIZED),
    (Layer, "404", Always, |_, _| Reply::new(404, ""), NOT_FOUND),
    (Layer, "429", Once, |_, _| Reply::new(429, "").header("Retry-After", "1"), GOOD),
    (Layer, "503", Once, |_, _| Reply::new(503, "").header("Retry-After", "x"), GOOD),
    (Layer, "503", Always, |_, _| Reply::new(503, ""), UNAVAILABLE),
    (Layer, "redirect loop", Always, |_, request| to(&request.path), REFUSED),
    (Layer, "redirect to a file", Always, |_, _| to("file:///etc/passwd"), REFUSED),
];

/// What, where, when, how, and what comes of it.
type Fault = (At, &'static str, When, Spoil, End);

#[tokio::test]
async fn every_fault_ends_well_or_clearly() {
    assert!(FAULTS.len() >= 40);
    let ends: Vec<_> = stream::iter(FAULTS).map(judge).buffer_unordered(16).collect().await;
    let wrong: Vec<_> = ends.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), FAULTS.len(), wrong.join("\n"));
}

/// Says what is wrong about how a pull ends.
async fn judge((at, name, when, spoil, end): &Fault) -> Option<String> {
    let begun = Instant::now();
    let found = pull_through(*at, *when, *spoil).await.map_err(|error| format!("{error:?}"));
    let right = match (&found, end) {
        (Ok(()), Ok(())) => true,
        (Err(found), Err(variant)) => found.starts_with(variant),
        _ => false,
    };
    let took = begun.elapsed();
    let soon = took < Duration::from_secs(60);
    (!right || !soon).then(|| format!("{at:?} {name}: {found:?} instead of {end:?} in {took:?}"))
}

/// Pulls an image and checks what it is, or that nothing is left.
async fn pull_through(at: At, when: When, spoil: Spoil) -> Result<(), Error> {
    let text: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
    let archive = layer("file", &text);
    let content = Content::with_image("app", "1", &[&archive]);
    let server = Server::start_later().await;
    let counts: Mutex<HashMap<At, usize>> = Mutex::default();
    let host = server.host();
    server.serve(move |request| {
        let (asked, good) = if request.path.starts_with("/token") {
            (Token, Reply::new(200, "{\"token\":\"good\"}"))
        } else if request.header("authorization") != Some("Bearer good") {
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
            return Reply::new(401, "").header("WWW-Authenticate", challenge);
        } else if request.path.contains("/manifests/") {
            (Manifest, content.reply(request))
        } else if is_layer(request, &archive) {
            (Layer, content.reply(request))
        } else {
            (Config, content.reply(request))
        };
        let count = {
            let mut counts = counts.lock().unwrap();
            let count = counts.entry(asked).or_default();
            *count += 1;
            *count
        };
        match when {
            _ if asked != at => good,
            Once if count > 1 => good,
            GoingOn if count == 1 => good.cut(30_000),
            _ => spoil(good, request),
        }
    });
    let node = Node::new("").await;
    let name = format!("{}/app:1", server.host());
    let end = match node.pull(&name).await {
        Ok(id) => {
            assert_eq!(node.images.read_file(&id, "file", 1 << 20).await.unwrap().unwrap(), text);
            Ok(())
        }
        Err(error) => {
            assert!(node.images.list().is_empty());
            let text = error.to_string();
            if text.len() > 2000 || !text.contains("127.0.0.1") {
                return Err(Error::InvalidImage { what: "the error names no host".to_owned(), reason: text });
            }
            Err(error)
        }
    };
    assert!(node.images.pulls().is_empty());
    node.clean().await;
    end
}

fn to(location: &str) -> Reply {
    Reply::new(307, "").header("Location", location)
}

fn body_of(reply: Reply) -> Vec<u8> {
    let Reply::Answer { body, .. } = reply else { panic!("{reply:?}") };
    body.to_vec()
}

/// The whole body that an answer to a range is of.
fn whole(reply: &Reply) -> Vec<u8> {
    let text: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
    let archive = layer("file", &text);
    assert!(archive.ends_with(&body_of(reply.clone())));
    archive
}

/// The head, and so many bytes of the body.
fn bytes_of(reply: Reply, bytes: usize) -> Vec<u8> {
    let Reply::Broken(bytes) = reply.cut(bytes) else { panic!("it is cut") };
    bytes
}

fn drip(good: Reply, _: &Request) -> Reply {
    let rest = body_of(good.clone())[..200].to_vec();
    Reply::Drip(bytes_of(good, 0), rest)
}

/// An answer without a length, which ends with the connection.
fn unmeasured(body: Vec<u8>) -> Reply {
    Reply::Broken([b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n".to_vec(), body].concat())
}

fn broken_chunk() -> Reply {
    Reply::Broken(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n".to_vec())
}

fn flipped(good: Reply, at: usize) -> Vec<u8> {
    let mut bytes = body_of(good);
    bytes[at] ^= 1;
    bytes
}

fn retyped(good: Reply, media_type: &str) -> Reply {
    Reply::new(200, body_of(good)).header("Content-Type", media_type)
}

fn announced(good: Reply) -> Reply {
    Reply::new(200, body_of(good)).header("Docker-Content-Digest", Digest::sha256(b"else").to_string())
}

fn many_headers(good: Reply, _: &Request) -> Reply {
    (0..1000).fold(good, |reply, number| reply.header(&format!("X-{number}"), "x"))
}

/// A part that begins elsewhere.
fn ranged(good: Reply, from: usize) -> Reply {
    let body = body_of(good);
    let length = body.len();
    Reply::new(206, body)
        .header("Content-Range", format!("bytes {from}-{}/{}", from + length - 1, from + length))
}
