//! A token server such as Docker Hub and Harbor have: it gives tokens that docker-registry believes, to whom it knows.
//!
//! Follows the distribution project's `token/jwt.md`. A thread for each connection, so that it lives apart from the
//! runtime of the test that uses it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::Result;
use crate::distribution::{PASSWORD, USER, pem};

/// The identity token that it exchanges.
pub const IDENTITY_TOKEN: &str = "an identity token";

/// How it treats people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Anyone may pull; the answer has both names for the token, and how long it is good.
    DockerHub,
    /// Only whom it knows; the token has one name.
    Harbor,
}

/// The server; it ends with the process.
#[derive(Debug)]
pub struct TokenServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

struct Signer {
    key: EcdsaKeyPair,
    manner: Manner,
}

impl TokenServer {
    /// Starts one on the loopback interface.
    pub fn start(manner: Manner) -> Result<Self> {
        let text = std::fs::read_to_string(pem("server.key")).context("read the key")?;
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &BASE64_STANDARD.decode(body)?)
            .map_err(|e| anyhow!("use the key: {e}"))?;
        let listener = TcpListener::bind("127.0.0.1:0").context("listen as a token server")?;
        let server = Self { address: listener.local_addr()?, requests: Arc::default() };
        let (signer, requests) = (Arc::new(Signer { key, manner }), Arc::clone(&server.requests));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (signer, requests) = (Arc::clone(&signer), Arc::clone(&requests));
                // A client that leaves early is no concern of the test's.
                std::thread::spawn(move || serve(&stream, &signer, &requests).ok());
            }
        });
        Ok(server)
    }

    /// Where it gives tokens.
    pub fn realm(&self) -> String {
        format!("http://{}/service/token", self.address)
    }

    /// The lines of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(mut stream: &TcpStream, signer: &Signer, requests: &Mutex<Vec<String>>) -> Result {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let (mut authorization, mut length) = (None, 0);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "authorization" => authorization = Some(value.trim().to_owned()),
                "content-length" => length = value.trim().parse()?,
                _ => {}
            }
        }
        let mut form = vec![0; length];
        reader.read_exact(&mut form)?;
        let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
        requests.lock().unwrap_or_else(PoisonError::into_inner).push(line.trim().to_owned());
        let query = if form.is_empty() {
            target.split('?').nth(1).unwrap_or_default().to_owned()
        } else {
            String::from_utf8_lossy(&form).into_owned()
        };
        let body = signer.answer(&query, authorization.as_deref())?;
        let status = if body.is_some() { "200 OK" } else { "401 Unauthorized" };
        let body =
            body.unwrap_or_else(|| json!({"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]}));
        let body = body.to_string();
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    }
}

impl Signer {
    fn answer(&self, query: &str, authorization: Option<&str>) -> Result<Option<serde_json::Value>> {
        let parameter = |name: &str| {
            let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            pair.map(|text| text.replace("%3A", ":").replace("%2F", "/").replace('+', " "))
                .unwrap_or_default()
        };
        let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}")));
        let known = match authorization {
            Some(sent) => sent == basic,
            None if !parameter("refresh_token").is_empty() => parameter("refresh_token") == IDENTITY_TOKEN,
            None => self.manner == Manner::DockerHub,
        };
        if !known || parameter("service") != "tests" {
            return Ok(None);
        }
        let token = self.token(&parameter("scope"))?;
        Ok(Some(match self.manner {
            Manner::DockerHub => json!({"token": token, "access_token": token, "expires_in": 300}),
            Manner::Harbor => json!({"token": token}),
        }))
    }

    /// Makes a token for a scope such as `repository:NAME:pull`.
    fn token(&self, scope: &str) -> Result<String> {
        let mut parts = scope.splitn(3, ':');
        let (kind, name, actions) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "iss": "tests", "sub": USER, "aud": "tests", "exp": now + 300, "nbf": now - 10, "iat": now, "jti": "1",
            "access": [{"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}],
        });
        let header = json!({"typ": "JWT", "alg": "ES256", "kid": self.key_id()?});
        let encode = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.map_err(|e| anyhow!("sign a token: {e}"))?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }

    /// The key's name as docker-registry has it: 240 bits of its digest in base 32, in groups of four.
    fn key_id(&self) -> Result<String> {
        const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let der: PublicKeyX509Der<'_> =
            self.key.public_key().as_der().map_err(|e| anyhow!("write the public key: {e}"))?;
        let digest = Sha256::digest(der.as_ref());
        let bits: Vec<u8> =
            digest[..30].iter().flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1)).collect();
        let letters: Vec<u8> = bits
            .chunks(5)
            .map(|five| ALPHABET[usize::from(five.iter().fold(0_u8, |value, bit| value << 1 | bit))])
            .collect();
        let groups = letters.chunks(4).map(|four| String::from_utf8_lossy(four).into_owned());
        Ok(groups.collect::<Vec<_>>().join(":"))
    }
}
