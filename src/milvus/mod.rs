//! Facts of Milvus: timestamps, names, schema, log messages, column data. No I/O.

pub mod access;
pub mod catalog;
pub mod change;
pub mod channel;
pub mod columns;
pub mod header;
pub mod position;
pub mod proto;
pub mod tso;
pub mod wire;
