//! The TLS settings of a pipeline file, made into those of rustls.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::error::{Error, Kind, Result};
use crate::pipeline::Tls;

/// How connections are made safe.
pub(super) struct Safety {
    pub(super) connector: TlsConnector,
    /// The name that every server's certificate has to have, if it is not the host's.
    pub(super) server_name: Option<ServerName<'static>>,
}

impl Safety {
    /// Error: `PipelineFile`, if a file can't be read or used.
    pub(super) fn new(tls: &Tls) -> Result<Safety> {
        let unusable = |cause: rustls::Error| {
            Error::new(Kind::PipelineFile, "the files in [source.mq.tls] can't be used").caused_by(cause)
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(roots(tls.ca.as_deref())?);
        let config = match (&tls.cert, &tls.key) {
            (Some(cert), Some(key)) => {
                let key = PrivateKeyDer::from_pem_file(key).map_err(|cause| unreadable("key", key, cause))?;
                builder.with_client_auth_cert(certificates("cert", cert)?, key).map_err(unusable)?
            }
            _ => builder.with_no_client_auth(),
        };
        let server_name = match &tls.server_name {
            None => None,
            Some(name) => Some(ServerName::try_from(name.clone()).map_err(|_| {
                Error::new(Kind::PipelineFile, format!("server_name {name:?} in [source.mq.tls] is no name"))
                    .hint("write the DNS name or IP address that the brokers' certificate is for")
            })?),
        };
        Ok(Safety { connector: TlsConnector::from(Arc::new(config)), server_name })
    }
}

/// Those of the system, and those of the file.
fn roots(ca: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    // Some of a system's certificates may be unreadable; what is missing is told when a server has none of the rest.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        for certificate in certificates("ca", path)? {
            roots.add(certificate).map_err(|cause| {
                let message = format!("{} (ca in [source.mq.tls]) can't be used", path.display());
                Error::new(Kind::PipelineFile, message).caused_by(cause)
            })?;
        }
    }
    Ok(roots)
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(unreadable(key, path, pem::Error::NoItemsFound)),
        Err(cause) => Err(unreadable(key, path, cause)),
    }
}

fn unreadable(key: &str, path: &Path, cause: pem::Error) -> Error {
    let message = format!("{} ({key} in [source.mq.tls]) can't be read", path.display());
    Error::new(Kind::PipelineFile, message).caused_by(cause).hint("it has to be a PEM file")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(tls: &Tls) -> String {
        let error = Safety::new(tls).err().unwrap();
        assert_eq!(error.kind(), Kind::PipelineFile);
        error.report()
    }

    #[test]
    fn what_can_not_be_read_is_named() {
        let missing = Tls { ca: Some("/nowhere/ca.pem".into()), ..Tls::default() };
        assert!(refused(&missing).starts_with("/nowhere/ca.pem (ca in [source.mq.tls]) can't be read"));
        let empty = tempfile::NamedTempFile::new().unwrap();
        let empty = Tls { ca: Some(empty.path().into()), ..Tls::default() };
        assert!(refused(&empty).contains("can't be read"));
        let name = Tls { server_name: Some("not a name".into()), ..Tls::default() };
        assert!(refused(&name).contains("server_name \"not a name\""));
        assert!(Safety::new(&Tls::default()).is_ok());
    }
}
