//! The catalog in etcd.
