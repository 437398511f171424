//! Whom a client of ours believes, and how it shows who it is.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for this name and its key, in PEM.
fn issue(by: &Authority, name: &str) -> (String, String) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, by).unwrap().pem();
    (cert, key.serialize_pem())
}

/// Serves by a certificate for `localhost`, and answers whether the client showed one of
/// the authority, until the test's runtime ends. Gives back the port.
async fn serve(by: &Authority) -> u16 {
    let (cert, key) = issue(by, "localhost");
    let mut roots = RootCertStore::empty();
    roots.add(by.der().clone()).unwrap();
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // One that does not believe us leaves.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let known = stream.get_ref().1.peer_certificates().is_some();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let said = if known { "known" } else { "stranger" };
            let length = said.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{said}"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn h67_only_a_server_of_our_authority_by_its_own_name_is_believed() {
    let (ours, theirs) = (authority(), authority());
    let directory = tempfile::tempdir().unwrap();
    let ask = async |by: &Authority, host: &str| {
        let url = format!("https://{host}:{}", serve(by).await);
        let mut connection = connection(&[&url]);
        connection.ca_file = Some(write(directory.path(), "ca", &ours.pem()));
        get(&servers(&connection), 100).await
    };
    assert_eq!(ask(&ours, "localhost").await, Ok((200, b"stranger".into())));
    for (by, host) in [(&theirs, "localhost"), (&ours, "127.0.0.1")] {
        let error = ask(by, host).await.unwrap_err();
        assert!(error.contains("invalid peer certificate"), "{error}");
    }
    // Nor is it without a word on authorities.
    let url = format!("https://localhost:{}", serve(&ours).await);
    let error = get(&servers(&connection(&[&url])), 100).await.unwrap_err();
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn h67_new_authorities_and_certificates_of_ours_count_without_a_restart() {
    let (old, new) = (authority(), authority());
    let urls =
        [serve(&old).await, serve(&new).await].map(|port| format!("https://localhost:{port}"));
    let directory = tempfile::tempdir().unwrap();
    let put = |by: &Authority| {
        let (cert, key) = issue(by, "nodemend");
        (
            write(directory.path(), "cert", &cert),
            write(directory.path(), "key", &key),
            write(directory.path(), "ca", &by.pem()),
        )
    };
    let (cert, key, ca) = put(&old);
    let clients = urls.each_ref().map(|url| {
        let mut connection = connection(&[url]);
        connection.ca_file = Some(ca.clone());
        connection.identity = Some((cert.clone(), key.clone()));
        servers(&connection)
    });
    let known = || Ok((200, b"known".to_vec()));
    assert_eq!(get(&clients[0], 100).await, known());
    assert!(get(&clients[1], 100).await.is_err());
    put(&new);
    assert!(get(&clients[0], 100).await.is_err());
    assert_eq!(get(&clients[1], 100).await, known());
    write(directory.path(), "key", "secret");
    let error = get(&clients[1], 100).await.unwrap_err();
    assert!(
        error.contains("cannot be used") && !error.contains("secret"),
        "{error}"
    );
}
