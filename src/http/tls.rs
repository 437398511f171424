//! TLS for the webhook. The files are read for each connection, so that a renewed
//! certificate or another authority counts at once; what cannot be used changes nothing.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use sha2::{Digest, Sha256};

/// A file is shorter than this, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that cannot be read.
    #[error("{0} cannot be read: {1}")]
    Read(PathBuf, std::io::Error),
    /// A file without what it should hold.
    #[error("{0} holds no {1} in PEM: {2}")]
    Pem(PathBuf, &'static str, pem::Error),
    /// The certificate and the key do not fit, or are of a kind that is not known.
    #[error("the certificate and the key cannot be used: {0}")]
    Pair(rustls::Error),
    /// An authority that is none.
    #[error("{0} holds what is no authority: {1}")]
    Authority(PathBuf, rustls::Error),
    /// The authorities cannot be used.
    #[error("the clients' authorities cannot be used: {0}")]
    Verifier(VerifierBuilderError),
}

/// Where keys and certificates are, in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Our chain, our own certificate first.
    pub cert: PathBuf,
    /// Our private key.
    pub key: PathBuf,
    /// Who may sign clients' certificates; without it clients are not asked for any.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is cut off.
    pub client_required: bool,
}

/// TLS 1.2 and 1.3 by files that may change.
pub struct Tls {
    files: TlsFiles,
    heard: Box<dyn Fn(bool) + Send + Sync>,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    /// The digest of the files as they last were, usable or not.
    seen: [u8; 32],
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files. `heard` is told of each later change, and whether it could be used.
    pub fn open<H>(files: TlsFiles, heard: H) -> Result<Self, Error>
    where
        H: Fn(bool) + Send + Sync + 'static,
    {
        let texts = Texts::read(&files)?;
        let state = State {
            config: texts.config(&files)?,
            seen: texts.digest(),
        };
        Ok(Self {
            files,
            heard: Box::new(heard),
            state: Mutex::new(state),
        })
    }

    /// What the next connection gets. A small blocking read of mounted files.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let texts = Texts::read(&self.files);
        // What cannot be read looks like one that is empty.
        let digest = texts.as_ref().map_or([0; 32], Texts::digest);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.seen != digest {
            state.seen = digest;
            let config = texts.and_then(|texts| texts.config(&self.files));
            (self.heard)(config.is_ok());
            match config {
                Ok(config) => {
                    tracing::info!("the webhook's certificates were read again");
                    state.config = config;
                }
                Err(error) => {
                    tracing::error!(%error, "the webhook's new certificates cannot be used, the old ones are kept");
                }
            }
        }
        Arc::clone(&state.config)
    }
}

/// The files' bytes.
struct Texts {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Texts {
    fn read(files: &TlsFiles) -> Result<Self, Error> {
        Ok(Self {
            cert: read(&files.cert)?,
            key: read(&files.key)?,
            client_ca: files.client_ca.as_deref().map(read).transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for text in [&self.cert, &self.key].into_iter().chain(&self.client_ca) {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        hash.finalize().into()
    }

    fn config(&self, files: &TlsFiles) -> Result<Arc<ServerConfig>, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3");
        let builder = match (&files.client_ca, &self.client_ca) {
            (Some(file), Some(text)) => {
                let roots = Arc::new(authorities(file, text)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = if files.client_required {
                    verifier
                } else {
                    verifier.allow_unauthenticated()
                };
                builder.with_client_cert_verifier(verifier.build().map_err(Error::Verifier)?)
            }
            _ => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| Error::Pem(files.key.clone(), "private key", error))?;
        let chain = certificates(&files.cert, &self.cert)?;
        let mut config = builder.with_single_cert(chain, key).map_err(Error::Pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A resumed session would outlive the certificate that let it in.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    std::fs::File::open(file)
        .and_then(|open| open.take(MAX_FILE).read_to_end(&mut text))
        .map_err(|error| Error::Read(file.to_owned(), error))?;
    Ok(text)
}

fn certificates(file: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let wrong = |error| Error::Pem(file.to_owned(), "certificate", error);
    let found: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(wrong)?;
    if found.is_empty() {
        return Err(wrong(pem::Error::NoItemsFound));
    }
    Ok(found)
}

fn authorities(file: &Path, text: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, text)? {
        roots
            .add(certificate)
            .map_err(|error| Error::Authority(file.to_owned(), error))?;
    }
    Ok(roots)
}

/// The DNS names and URIs of the certificate that a client proved to have.
#[derive(Clone, Debug)]
pub(super) struct ClientNames(pub(super) Arc<[String]>);

impl ClientNames {
    /// None if the client showed no certificate.
    pub(super) fn of(connection: &ServerConnection) -> Option<Self> {
        let leaf = connection.peer_certificates()?.first()?;
        let leaf = webpki::EndEntityCert::try_from(leaf).ok()?;
        let names = leaf.valid_dns_names().chain(leaf.valid_uri_names());
        Some(Self(names.map(str::to_owned).collect()))
    }
}
