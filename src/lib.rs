//! migrans follows the change log of a Milvus cluster and applies it, each change exactly once, to a target.
//!
//! Read top down: [`pipeline`] (what to do), [`dataflow`] (the graph, time, checkpoints), [`ops`] (one operator a
//! file), [`sources`] and [`sinks`] (the outside world), [`milvus`] (facts of Milvus).

pub mod check;
pub mod cli;
pub mod clock;
pub mod dataflow;
pub mod error;
pub mod etcd;
pub mod failpoint;
pub mod logging;
pub mod metrics;
pub mod milvus;
pub mod ops;
pub mod ownership;
pub mod pipeline;
pub mod progress;
mod proxy;
pub mod remove;
pub mod server;
pub mod sinks;
pub mod sources;
pub mod tail;
mod tls;
pub mod verify;

pub use error::{Error, Kind, Result};
