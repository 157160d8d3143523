//! The TLS settings of a pipeline file, made into those of rustls.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use crate::error::{Error, Kind, Result};
use crate::pipeline::Tls;

/// How connections are made safe.
#[derive(Clone)]
pub(crate) struct Safety {
    connector: TlsConnector,
    /// The name that every server's certificate has to have, if it is not the host's.
    server_name: Option<ServerName<'static>>,
}

impl Safety {
    /// By the settings in `table` of the pipeline file. `protocols` are those to be spoken inside, the best first, if the
    /// server is to choose.
    ///
    /// Error: `PipelineFile`, if a file can't be read or used.
    pub(crate) fn new(tls: &Tls, table: &str, protocols: &[&[u8]]) -> Result<Safety> {
        let unusable = |cause: rustls::Error| {
            Error::new(Kind::PipelineFile, format!("the files in [{table}] can't be used")).caused_by(cause)
        };
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let given = tls.ca.as_deref().map(|path| certificates(table, "ca", path)).transpose()?;
        let builder = match given {
            None => builder.with_root_certificates(of_the_system()),
            Some(given) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Verifier::new(given, tls, table, provider)?)),
        };
        let mut config = match (&tls.cert, &tls.key) {
            (Some(cert), Some(key)) => {
                let key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|cause| unreadable(table, "key", key, cause))?;
                builder.with_client_auth_cert(certificates(table, "cert", cert)?, key).map_err(unusable)?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let server_name = match &tls.server_name {
            None => None,
            Some(name) => Some(ServerName::try_from(name.clone()).map_err(|_| {
                Error::new(Kind::PipelineFile, format!("server_name {name:?} in [{table}] is no name"))
                    .hint("write the DNS name or IP address that the server's certificate is for")
            })?),
        };
        Ok(Safety { connector: TlsConnector::from(Arc::new(config)), server_name })
    }

    /// Makes `socket`, which leads to `host`, safe.
    pub(crate) async fn connect<S>(&self, host: &str, socket: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                .map_err(|_| io::Error::other(format!("{host} is no name for TLS")))?,
        };
        self.connector.connect(name, socket).await
    }
}

fn of_the_system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // Some of a system's certificates may be unreadable; what is missing is told when a server has none of the rest.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Trusts the authorities of the system and those that are given; and of what is given also a server's own certificate,
/// whoever has signed it. Clients of Milvus are set up with either.
#[derive(Debug)]
struct Verifier {
    by_authority: Arc<WebPkiServerVerifier>,
    given: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn new(
        given: Vec<CertificateDer<'static>>,
        tls: &Tls,
        table: &str,
        provider: Arc<CryptoProvider>,
    ) -> Result<Verifier> {
        let unusable = || {
            let path = tls.ca.as_deref().unwrap_or(Path::new(""));
            Error::new(Kind::PipelineFile, format!("{} (ca in [{table}]) can't be used", path.display()))
        };
        let mut roots = of_the_system();
        for certificate in &given {
            roots.add(certificate.clone()).map_err(|cause| unusable().caused_by(cause))?;
        }
        let by_authority = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|cause| unusable().caused_by(cause))?;
        Ok(Verifier { by_authority, given })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.by_authority.verify_server_cert(certificate, intermediates, name, ocsp, now);
        match verified {
            // Its time has been looked at before its signature, but its name has not.
            Err(rustls::Error::InvalidCertificate(error))
                if is_about_who_signed(&error) && self.given.contains(certificate) =>
            {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_authority.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_authority.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

/// A certificate that signs itself often says that it is an authority, which a server's own must not be otherwise.
fn is_about_who_signed(error: &CertificateError) -> bool {
    match error {
        CertificateError::UnknownIssuer => true,
        CertificateError::Other(other) => format!("{:?}", other.0) == "CaUsedAsEndEntity",
        _ => false,
    }
}

fn certificates(table: &str, key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(unreadable(table, key, path, pem::Error::NoItemsFound)),
        Err(cause) => Err(unreadable(table, key, path, cause)),
    }
}

fn unreadable(table: &str, key: &str, path: &Path, cause: pem::Error) -> Error {
    let message = format!("{} ({key} in [{table}]) can't be read", path.display());
    Error::new(Kind::PipelineFile, message).caused_by(cause).hint("it has to be a PEM file")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(tls: &Tls) -> String {
        let error = Safety::new(tls, "target.tls", &[]).err().unwrap();
        assert_eq!(error.kind(), Kind::PipelineFile);
        error.report()
    }

    #[test]
    fn what_can_not_be_read_is_named() {
        let missing = Tls { ca: Some("/nowhere/ca.pem".into()), ..Tls::default() };
        assert!(refused(&missing).starts_with("/nowhere/ca.pem (ca in [target.tls]) can't be read"));
        let empty = tempfile::NamedTempFile::new().unwrap();
        let empty = Tls { ca: Some(empty.path().into()), ..Tls::default() };
        assert!(refused(&empty).contains("can't be read"));
        let name = Tls { server_name: Some("not a name".into()), ..Tls::default() };
        assert!(refused(&name).contains("server_name \"not a name\""));
        assert!(Safety::new(&Tls::default(), "target.tls", &[]).is_ok());
    }
}
