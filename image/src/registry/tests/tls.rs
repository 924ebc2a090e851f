//! TLS: authorities, certificates of clients, and what errors say to do.
//!
//! The certificates in `pem` are for 127.0.0.1, by an authority whose key is gone.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::server::{Reply, Request};
use super::*;

const AUTHORITY: &str = include_str!("pem/ca.crt");
const CERTIFICATE: &str = include_str!("pem/server.crt");
const EXPIRED: &str = include_str!("pem/expired.crt");
const KEY: &str = include_str!("pem/server.key");

/// Whom a server lets in.
#[derive(PartialEq)]
enum Clients {
    All,
    Certified,
}

fn tls(certificate: &str, clients: Clients) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(AUTHORITY.as_bytes()).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = match clients {
        Clients::All => WebPkiClientVerifier::no_client_auth(),
        Clients::Certified => verifier.build().unwrap(),
    };
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    builder.with_client_cert_verifier(verifier).with_single_cert(vec![certificate], key).unwrap()
}

/// A node whose `certs_dir` has these files for the server.
async fn fetch(server: &Server, conf: &str, files: &[(&str, &str)]) -> Result<(), Error> {
    let (_dir, config) = registries(conf);
    let certs = config.certs_dir.join(server.host());
    for (name, text) in files {
        std::fs::create_dir_all(&certs).unwrap();
        std::fs::write(certs.join(name), text).unwrap();
    }
    let registries = Registries::open(&config, patience()).unwrap();
    let reference = format!("{}/app:1", server.host()).parse().unwrap();
    let hosts = registries.hosts(&reference, Some(&password("u", "canary"))).await.unwrap();
    hosts[0].manifest(&Wanted::Named).await.map(|_| ()).map_err(|failure| failure.error)
}

fn image() -> impl Fn(&Request) -> Reply {
    let content = Content::with_image("app", "1", &[b"layer"]);
    move |request| content.reply(request)
}

#[tokio::test]
async fn an_authority_of_the_host_is_trusted() {
    let server = Server::start_tls(tls(CERTIFICATE, Clients::All), image()).await;
    fetch(&server, "", &[("ca.crt", AUTHORITY)]).await.unwrap();
    let error = fetch(&server, "", &[]).await.unwrap_err();
    assert!(matches!(&error, Error::Tls { reason, .. } if reason.contains("/ca.crt")), "{error}");
    let error = fetch(&server, "", &[("ca.crt", "nonsense")]).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error}");
    let conf = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true", server.host());
    fetch(&server, &conf, &[]).await.unwrap();
}

#[tokio::test]
async fn an_expired_certificate_is_named() {
    let server = Server::start_tls(tls(EXPIRED, Clients::All), image()).await;
    let error = fetch(&server, "", &[("ca.crt", AUTHORITY)]).await.unwrap_err();
    assert!(matches!(&error, Error::Tls { reason, .. } if reason.contains("renew")), "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let server = Server::start_tls(tls(CERTIFICATE, Clients::Certified), image()).await;
    let error = fetch(&server, "", &[("ca.crt", AUTHORITY)]).await.unwrap_err();
    assert!(matches!(&error, Error::Tls { reason, .. } if reason.contains("client.cert")), "{error}");
    let files = [("ca.crt", AUTHORITY), ("client.cert", CERTIFICATE), ("client.key", KEY)];
    fetch(&server, "", &files).await.unwrap();
    let error = fetch(&server, "", &files[..2]).await.unwrap_err();
    assert!(error.to_string().contains("client.key"), "{error}");
}

#[tokio::test]
async fn tls_is_not_left_by_a_redirect_or_for_a_token() {
    let plain = Server::start(image()).await;
    let location = format!("http://{}/", plain.host());
    let redirect = move |_: &Request| Reply::new(307, "").header("Location", location.clone());
    let server = Server::start_tls(tls(CERTIFICATE, Clients::All), redirect).await;
    let error = fetch(&server, "", &[("ca.crt", AUTHORITY)]).await.unwrap_err();
    assert!(matches!(error, Error::Refused { status: 307, .. }), "{error}");

    let challenge = format!("Bearer realm=\"http://{}/token\"", plain.host());
    let ask = move |_: &Request| Reply::new(401, "").header("WWW-Authenticate", challenge.clone());
    let server = Server::start_tls(tls(CERTIFICATE, Clients::All), ask).await;
    let error = fetch(&server, "", &[("ca.crt", AUTHORITY)]).await.unwrap_err();
    assert!(error.to_string().contains("not reached by https"), "{error}");
    assert!(plain.seen().is_empty());
}

#[tokio::test]
async fn a_host_that_was_said_to_speak_tls_and_does_not() {
    let server = Server::start(image()).await;
    let error = fetch(&server, "", &[("ca.crt", AUTHORITY)]).await.unwrap_err();
    assert!(error.to_string().contains("insecure = true"), "{error}");
}
