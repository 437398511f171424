//! TLS over sockets: who is let in by certificate, and files that change meanwhile.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
struct Pair {
    cert: String,
    key: String,
}

fn issue(by: &Authority, names: &[&str]) -> Pair {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names
        .iter()
        .map(|name| {
            if name.contains("://") {
                SanType::URI((*name).try_into().unwrap())
            } else {
                SanType::DnsName((*name).try_into().unwrap())
            }
        })
        .collect();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate().unwrap();
    Pair {
        cert: params.signed_by(&key, by).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

/// A server's files, and how often a change of them was heard of: usable, not usable.
struct Site {
    home: tempfile::TempDir,
    heard: Arc<[AtomicUsize; 2]>,
}

impl Site {
    fn new(ours: &Pair, clients: Option<&Authority>) -> Self {
        let site = Self {
            home: tempfile::tempdir().unwrap(),
            heard: Arc::default(),
        };
        site.write(ours);
        if let Some(clients) = clients {
            std::fs::write(site.path("ca"), clients.pem()).unwrap();
        }
        site
    }
    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
    fn write(&self, ours: &Pair) {
        std::fs::write(self.path("cert"), &ours.cert).unwrap();
        std::fs::write(self.path("key"), &ours.key).unwrap();
    }
    fn tls(&self, client_required: bool) -> Tls {
        let ca = self.path("ca");
        let files = TlsFiles {
            cert: self.path("cert"),
            key: self.path("key"),
            client_ca: ca.exists().then_some(ca),
            client_required,
        };
        let heard = Arc::clone(&self.heard);
        Tls::open(files, move |usable| {
            heard[usize::from(!usable)].fetch_add(1, Ordering::Relaxed);
        })
        .unwrap()
    }
    fn heard(&self) -> [usize; 2] {
        [0, 1].map(|of| self.heard[of].load(Ordering::Relaxed))
    }
}

/// Serves until the test's runtime ends.
async fn serve_tls(tls: Tls, hook: &Hook, bounds: Bounds) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::clone(&hook.seen);
    let socket = Socket::new(listener, Some(tls), move |refusal| {
        seen.lock().unwrap().push(Err(refusal));
    });
    tokio::spawn(serve(
        socket,
        hook.router.clone(),
        bounds,
        std::future::pending(),
    ));
    address
}

fn client(
    trusts: &Authority,
    shows: Option<&Pair>,
    versions: &[&'static SupportedProtocolVersion],
) -> TlsConnector {
    TlsConnector::from(Arc::new(client_config(trusts, shows, versions)))
}

fn client_config(
    trusts: &Authority,
    shows: Option<&Pair>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusts.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(default_provider().into())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    match shows {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = CertificateDer::pem_slice_iter(pair.cert.as_bytes());
            let chain = chain.collect::<Result<_, _>>().unwrap();
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

/// Delivers once; the status, or none if the connection did not get that far.
async fn deliver_by(client: TlsConnector, to: SocketAddr, headers: &str) -> Option<u16> {
    let stream = TcpStream::connect(to).await.unwrap();
    let name = ServerName::try_from("nodemend.example").unwrap();
    let mut stream = client.connect(name, stream).await.ok()?;
    let body = firing();
    let request = format!(
        "POST /webhook/alertmanager HTTP/1.1\r\nhost: x\r\n{headers}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    answer.strip_prefix("HTTP/1.1 ")?[..3].parse().ok()
}

fn by_certificate(names: &[&str]) -> Method {
    Method::Certificate(names.iter().map(|name| (*name).to_owned()).collect())
}

#[tokio::test]
async fn h67_only_a_certificate_of_our_authority_with_a_wanted_name_gets_in() {
    let (ours, theirs) = (authority(), authority());
    let server = issue(&ours, &["nodemend.example"]);
    let site = Site::new(&server, Some(&ours));
    let wanted = by_certificate(&["am.example", "spiffe://example/am"]);
    let hook = hook(Auth::AnyOf(vec![wanted]), LIMITS);
    let address = serve_tls(site.tls(true), &hook, Bounds::default()).await;
    for versions in [&[&version::TLS12], &[&version::TLS13]] {
        let send = |shows: Option<&Pair>| deliver_by(client(&ours, shows, versions), address, "");
        for names in [&["am.example", "x"], &["spiffe://example/am", "y"]] {
            assert_eq!(send(Some(&issue(&ours, names))).await, Some(200));
        }
        hook.seen();
        for names in [
            &["other.example"][..],
            &["sub.am.example"],
            &["*.example"],
            &[],
        ] {
            assert_eq!(
                send(Some(&issue(&ours, names))).await,
                Some(401),
                "{names:?}"
            );
            assert_eq!(hook.seen(), [Err(Refusal::Certificate)]);
        }
        let stranger = issue(&theirs, &["am.example"]);
        for shows in [Some(&stranger), None] {
            assert_eq!(send(shows).await, None);
            assert_eq!(hook.seen(), [Err(Refusal::Handshake)]);
        }
    }
    let mut senders: Vec<String> = hook
        .store
        .specs()
        .into_iter()
        .map(|group| group.sender)
        .collect();
    senders.sort();
    assert_eq!(
        senders,
        ["certificate/am.example", "certificate/spiffe://example/am"]
    );
}

#[tokio::test]
async fn h67_beside_another_way_a_certificate_is_optional_but_never_a_wrong_one() {
    let (ours, theirs) = (authority(), authority());
    let site = Site::new(&issue(&ours, &["nodemend.example"]), Some(&ours));
    let token = token_file("token");
    let methods = vec![
        by_certificate(&["am.example"]),
        Method::TokenFile(token.path().into()),
    ];
    let hook = hook(Auth::AnyOf(methods), LIMITS);
    let address = serve_tls(site.tls(false), &hook, Bounds::default()).await;
    let send = |shows: Option<&Pair>, header: &'static str| {
        deliver_by(client(&ours, shows, rustls::ALL_VERSIONS), address, header)
    };
    let bearer = "authorization: Bearer token\r\n";
    let (good, other) = (
        issue(&ours, &["am.example"]),
        issue(&ours, &["other.example"]),
    );
    assert_eq!(send(Some(&good), "").await, Some(200));
    assert_eq!(send(None, bearer).await, Some(200));
    assert_eq!(send(Some(&other), bearer).await, Some(200));
    assert_eq!(send(Some(&other), "").await, Some(401));
    assert_eq!(send(None, "").await, Some(401));
    let stranger = issue(&theirs, &["am.example"]);
    assert_eq!(send(Some(&stranger), bearer).await, None);
}

#[tokio::test]
async fn h67_new_certificates_and_authorities_count_without_a_restart() {
    let (old, new) = (authority(), authority());
    let site = Site::new(&issue(&old, &["nodemend.example"]), Some(&old));
    let hook = hook(Auth::AnyOf(vec![by_certificate(&["am.example"])]), LIMITS);
    let address = serve_tls(site.tls(true), &hook, Bounds::default()).await;
    let (before, after) = (issue(&old, &["am.example"]), issue(&new, &["am.example"]));
    let send = |trusts, shows| {
        deliver_by(
            client(trusts, Some(shows), rustls::ALL_VERSIONS),
            address,
            "",
        )
    };
    assert_eq!(send(&old, &before).await, Some(200));
    assert_eq!(send(&old, &after).await, None);
    // The clients' authority changes alone, then our own certificate.
    std::fs::write(site.path("ca"), new.pem()).unwrap();
    assert_eq!(send(&old, &before).await, None);
    assert_eq!(send(&old, &after).await, Some(200));
    assert_eq!(site.heard(), [1, 0]);
    site.write(&issue(&new, &["nodemend.example"]));
    assert_eq!(send(&old, &after).await, None);
    assert_eq!(send(&new, &after).await, Some(200));
    assert_eq!(site.heard(), [2, 0]);
    // What cannot be used is told once, and changes nothing.
    let key = std::fs::read_to_string(site.path("key")).unwrap();
    for wrong in [issue(&new, &[]).key.as_str(), "", "no key"] {
        std::fs::write(site.path("key"), wrong).unwrap();
        assert_eq!(send(&new, &after).await, Some(200));
        assert_eq!(send(&new, &after).await, Some(200));
    }
    assert_eq!(site.heard(), [2, 3]);
    std::fs::remove_file(site.path("ca")).unwrap();
    assert_eq!(
        send(&new, &before).await,
        None,
        "closed without the authority's file, too"
    );
    assert_eq!(send(&new, &after).await, Some(200));
    std::fs::write(site.path("ca"), new.pem()).unwrap();
    std::fs::write(site.path("key"), key).unwrap();
    assert_eq!(send(&new, &after).await, Some(200));
    assert_eq!(site.heard(), [3, 4]);
}

#[tokio::test]
async fn h67_who_was_let_in_before_is_verified_anew() {
    let ours = authority();
    let site = Site::new(&issue(&ours, &["nodemend.example"]), Some(&ours));
    let hook = hook(Auth::AnyOf(vec![by_certificate(&["am.example"])]), LIMITS);
    let address = serve_tls(site.tls(true), &hook, Bounds::default()).await;
    for versions in [&[&version::TLS12], &[&version::TLS13]] {
        // It would resume its session.
        let known = client(&ours, Some(&issue(&ours, &["am.example"])), versions);
        for _ in 0..2 {
            let stream = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("nodemend.example").unwrap();
            let mut stream = known.connect(name, stream).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
            let kind = stream.get_ref().1.handshake_kind();
            assert!(
                matches!(
                    kind,
                    Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)
                ),
                "{kind:?}"
            );
        }
    }
}

#[tokio::test]
async fn h68_a_slow_handshake_is_cut_off_and_plain_http_refused() {
    let ours = authority();
    let site = Site::new(&issue(&ours, &["nodemend.example"]), None);
    let hook = hook(Auth::Anonymous, LIMITS);
    let bounds = Bounds {
        head: std::time::Duration::from_millis(100),
        ..Bounds::default()
    };
    let address = serve_tls(site.tls(false), &hook, bounds).await;
    for text in ["", "\u{16}\u{3}\u{1}", "POST / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"));
        assert_eq!(hook.seen(), [Err(Refusal::Handshake)], "{text:?}");
    }
    let client = client(&ours, None, rustls::ALL_VERSIONS);
    assert_eq!(deliver_by(client, address, "").await, Some(200));
}

#[tokio::test]
async fn h68_nobody_gets_to_speak_http_2() {
    let ours = authority();
    let site = Site::new(&issue(&ours, &["nodemend.example"]), None);
    let hook = hook(Auth::Anonymous, LIMITS);
    let address = serve_tls(site.tls(false), &hook, Bounds::default()).await;
    let mut config = client_config(&ours, None, rustls::ALL_VERSIONS);
    for (offers, expect) in [(&["h2"][..], None), (&["h2", "http/1.1"], Some(200))] {
        config.alpn_protocols = offers.iter().map(|name| name.as_bytes().into()).collect();
        let client = TlsConnector::from(Arc::new(config.clone()));
        assert_eq!(deliver_by(client, address, "").await, expect, "{offers:?}");
    }
}

#[test]
fn files_that_cannot_be_used_say_so() {
    let ours = authority();
    let pair = issue(&ours, &["nodemend.example"]);
    let check = |change: &dyn Fn(&Site), expect: &str| {
        let site = Site::new(&pair, Some(&ours));
        change(&site);
        let files = TlsFiles {
            cert: site.path("cert"),
            key: site.path("key"),
            client_ca: Some(site.path("ca")),
            client_required: true,
        };
        let error = Tls::open(files, |_| ()).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
        assert!(!error.contains("PRIVATE"), "{error}");
    };
    let write = |site: &Site, name: &str, text: &str| {
        std::fs::write(site.path(name), text).unwrap();
    };
    let remove = |path: &Path| std::fs::remove_file(path).unwrap();
    check(&|site| remove(&site.path("cert")), "cert cannot be read");
    check(&|site| write(site, "cert", ""), "cert holds no certificate");
    check(
        &|site| write(site, "cert", &pair.key),
        "cert holds no certificate",
    );
    check(
        &|site| write(site, "key", &pair.cert),
        "key holds no private key",
    );
    check(
        &|site| write(site, "key", &issue(&ours, &[]).key),
        "cannot be used",
    );
    check(&|site| remove(&site.path("ca")), "ca cannot be read");
    check(&|site| write(site, "ca", "\n"), "ca holds no certificate");
}
