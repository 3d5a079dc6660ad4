//! TLS with libpq's meaning of `sslmode`: PostgreSQL documentation, "SSL Support" (libpq-ssl).

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Error, Result};

/// `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::postgres) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    pub(super) fn parse(text: &str) -> Result<SslMode> {
        Ok(match text {
            "disable" => SslMode::Disable,
            "allow" => SslMode::Allow,
            "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            other => {
                return Err(Error::usage(format!("`{other}` is not an sslmode"))
                    .hint("use `disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`"));
            }
        })
    }

    pub(in crate::postgres) fn as_str(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Allow => "allow",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        }
    }
}

/// The files that TLS works with.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    /// `sslrootcert`, or `~/.postgresql/root.crt` when that is there.
    pub(super) root: Option<PathBuf>,
    /// `sslcert`, or `~/.postgresql/postgresql.crt` when that is there.
    pub(super) certificate: Option<PathBuf>,
    /// `sslkey`, or `~/.postgresql/postgresql.key` when that is there.
    pub(super) key: Option<PathBuf>,
}

/// Builds a connector. A certificate authority that is given is always checked, whatever the mode, as
/// libpq does; without one, only the `verify-` modes insist.
pub(super) fn connector(mode: SslMode, files: &Files) -> Result<MakeRustlsConnect> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match roots(mode, files)? {
        Some(roots) => {
            let pinned = roots.1;
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots.0), Arc::clone(&provider))
                .build()
                .map_err(|error| Error::failed("the certificate authorities cannot be used").because(error))?;
            Arc::new(Authority { inner, pinned, check_name: mode == SslMode::VerifyFull })
        }
        None => Arc::new(Anyone(Arc::clone(&provider))),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::failed("TLS cannot be set up").because(error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match (&files.certificate, &files.key) {
        (Some(certificate), Some(key)) => {
            check_private(key)?;
            let key_der = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| Error::failed(format!("the key `{}` cannot be read", key.display())).because(error))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, key_der)
                .map_err(|error| Error::failed("the client's certificate and key cannot be used").because(error))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(Error::usage("`sslcert` and `sslkey` are needed together")),
    };
    Ok(MakeRustlsConnect::new(config))
}

type Roots = (RootCertStore, Vec<CertificateDer<'static>>);

fn roots(mode: SslMode, files: &Files) -> Result<Option<Roots>> {
    let mut store = RootCertStore::empty();
    let given = match &files.root {
        Some(path) if path == Path::new("system") => {
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
            if store.is_empty() {
                return Err(Error::failed("the system has no certificate authorities")
                    .hint("install the package `ca-certificates`, or set `sslrootcert` to a file"));
            }
            return Ok(Some((store, Vec::new())));
        }
        Some(path) => certificates(path)?,
        None if matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull) => {
            return Err(Error::usage(format!("sslmode `{}` needs a certificate authority", mode.as_str()))
                .hint("set `sslrootcert` to a file, or to `system` for the system's own authorities"));
        }
        None => return Ok(None),
    };
    for certificate in &given {
        // One that cannot be an authority can still be the server's own.
        let _ = store.add(certificate.clone());
    }
    if store.is_empty() {
        return Err(Error::failed("the file that `sslrootcert` names holds no certificate that can be used"));
    }
    Ok(Some((store, given)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |error: &dyn std::fmt::Display| {
        Error::failed(format!("the certificates in `{}` cannot be read", path.display())).because(error)
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| wrong(&error))?
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| wrong(&error))?;
    if found.is_empty() { Err(wrong(&"the file holds none")) } else { Ok(found) }
}

/// libpq's rule: nobody else may read the key, but root's may be read by a group.
fn check_private(key: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(key)
        .map_err(|error| Error::failed(format!("the key `{}` cannot be read", key.display())).because(error))?;
    let allowed = if metadata.uid() == 0 { 0o640 } else { 0o600 };
    if metadata.permissions().mode() & 0o777 & !allowed & 0o077 != 0 {
        return Err(Error::failed(format!("the key `{}` can be read by others", key.display()))
            .hint(format!("chmod 600 {}", key.display())));
    }
    Ok(())
}

/// Trusts what an authority signed; the name counts for `verify-full` alone.
#[derive(Debug)]
struct Authority {
    inner: Arc<WebPkiServerVerifier>,
    /// Certificates of the file: a self-signed server certificate is named there itself, which libpq
    /// accepts and webpki does not when it is marked as an authority.
    pinned: Vec<CertificateDer<'static>>,
    check_name: bool,
}

impl ServerCertVerifier for Authority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if self.pinned.iter().any(|pinned| pinned == end_entity) {
            if self.check_name {
                let parsed = ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&parsed, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The chain has been checked before the name.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.check_name => Ok(ServerCertVerified::assertion()),
            answer => answer,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Trusts any certificate: what `prefer` and `require` mean without an authority. The handshake's
/// signature is checked all the same, since SCRAM's channel binding builds on it.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
