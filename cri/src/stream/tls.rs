//! TLS for the streaming server. The files are read again when they have changed, so that certificates can be renewed
//! without a restart.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use super::Streaming;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file's metadata.
    #[error("look at {}", path.display())]
    Look {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file that is not PEM.
    #[error("read {}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// Key and certificate do not fit.
    #[error("use certificate {}", path.display())]
    Use {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
}

/// A certificate and its key.
pub(super) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    loaded: Mutex<Loaded>,
}

#[derive(Clone)]
struct Loaded {
    stamp: Stamp,
    config: Arc<ServerConfig>,
}

/// When the two files were changed last.
type Stamp = [SystemTime; 2];

impl Tls {
    /// Reads the files that the options name; none where they name none.
    pub(super) fn of(options: &Streaming) -> Result<Option<Self>, Error> {
        let (Some(certificate), Some(key)) = (&options.tls_cert, &options.tls_key) else { return Ok(None) };
        let loaded = Mutex::new(load(certificate, key)?);
        Ok(Some(Self { certificate: certificate.clone(), key: key.clone(), loaded }))
    }

    /// For the next connection. Files that cannot be used leave it as it was.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        // Nothing is left half done under this lock.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(&self.certificate, &self.key).ok();
        if let Some(now) = now.filter(|now| *now != loaded.stamp) {
            match load(&self.certificate, &self.key) {
                Ok(renewed) => {
                    info!("the streaming server has a new certificate");
                    *loaded = renewed;
                }
                Err(error) => {
                    warn!("renew the streaming server's certificate: {}", pod::chain(&error));
                    // Once for each change.
                    loaded.stamp = now;
                }
            }
        }
        TlsAcceptor::from(loaded.config.clone())
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

fn load(certificate: &Path, key: &Path) -> Result<Loaded, Error> {
    // Before the contents, so that a change meanwhile is read next time.
    let stamp = stamp(certificate, key)?;
    let pem = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Pem { path, source }
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).map_err(pem(certificate))?.collect();
    let chain = chain.map_err(pem(certificate))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(pem(key))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let unfit = |source| Error::Use { path: certificate.to_owned(), source };
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unfit)?;
    Ok(Loaded { stamp, config: Arc::new(config) })
}

fn stamp(certificate: &Path, key: &Path) -> Result<Stamp, Error> {
    let changed = |path: &Path| {
        fs::metadata(path)
            .and_then(|found| found.modified())
            .map_err(|source| Error::Look { path: path.to_owned(), source })
    };
    Ok([changed(certificate)?, changed(key)?])
}
