//! Keys of tables with TLS settings.

use super::{BetweenRuns, Default, Key, Shape};

/// The keys of a table with TLS settings.
#[derive(Debug)]
pub struct TlsKeys {
    /// `ca`
    pub ca: Key,
    /// `cert`
    pub cert: Key,
    /// `key`
    pub key: Key,
    /// `server_name`
    pub server_name: Key,
}

pub(super) const fn tls_keys(table: &'static str, variants: &'static [&'static str]) -> TlsKeys {
    TlsKeys {
        ca: Key {
            table,
            variants,
            name: "ca",
            shape: Shape::Path,
            default: Default::Words("the certificates of the system alone"),
            meaning: "A PEM file with the certificates to trust, beside those of the system.",
            example: "\"ca.pem\"",
            between_runs: BetweenRuns::Free,
        },
        cert: Key {
            table,
            variants,
            name: "cert",
            shape: Shape::Path,
            default: Default::Words("none is shown"),
            meaning: "A PEM file with our own certificate. Goes with `key`.",
            example: "\"client.pem\"",
            between_runs: BetweenRuns::Free,
        },
        key: Key {
            table,
            variants,
            name: "key",
            shape: Shape::Path,
            default: Default::Words("none"),
            meaning: "A PEM file with the key of that certificate.",
            example: "\"client-key.pem\"",
            between_runs: BetweenRuns::Free,
        },
        server_name: Key {
            table,
            variants,
            name: "server_name",
            shape: Shape::Text,
            default: Default::Words("the host of the address"),
            meaning: "The name to expect in the server's certificate.",
            example: "\"milvus.example\"",
            between_runs: BetweenRuns::Free,
        },
    }
}
