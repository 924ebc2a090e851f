//! Whom a streaming client trusts where the server streams over TLS: crictl's flags.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::stream::client::Io;

/// What a server and this client show each other.
#[derive(Debug, Clone, Args)]
pub(crate) struct Trust {
    /// The certificates that the server's must lead to, in PEM, where it streams over TLS
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// This client's certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The name that the server's certificate must have
    #[arg(long, alias = "tls-sni", value_name = "NAME", default_value = "localhost")]
    tls_server_name: String,
}

impl Trust {
    /// Begins TLS with the server that was connected to.
    pub(crate) async fn secure(&self, socket: TcpStream) -> anyhow::Result<Box<dyn Io>> {
        let name = ServerName::try_from(self.tls_server_name.clone())
            .with_context(|| format!("{} is no server's name", self.tls_server_name))?;
        let connector = TlsConnector::from(Arc::new(self.config()?));
        Ok(Box::new(connector.connect(name, socket).await.context("agree on TLS with the server")?))
    }

    fn config(&self) -> anyhow::Result<ClientConfig> {
        let authorities = self.tls_ca.as_ref().context(
            "the server streams over TLS: name the certificates that its own must lead to with --tls-ca",
        )?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(authorities)? {
            roots.add(certificate).with_context(|| format!("use {}", authorities.display()))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let (Some(own), Some(key)) = (&self.tls_cert, &self.tls_key) else {
            return Ok(config.with_no_client_auth());
        };
        let private = PrivateKeyDer::from_pem_file(key).with_context(|| format!("read {}", key.display()))?;
        config
            .with_client_auth_cert(certificates(own)?, private)
            .with_context(|| format!("use {}", own.display()))
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .with_context(|| format!("read {}", path.display()))
}
