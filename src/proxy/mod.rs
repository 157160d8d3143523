//! The proxy of a Milvus, by gRPC: the connection, its calls, and what the answers mean. The target is written through
//! it; `verify` asks both sides through it.
//!
//! [`client`] connects and makes calls, [`status`] sorts the answers, [`version`] knows what a server can hold;
//! [`ask`] has the questions that more than one part of migrans asks, [`query`] reads rows.

mod ask;
mod client;
mod connector;
pub(crate) mod expression;
pub(crate) mod query;
pub(crate) mod rope;
pub(crate) mod status;
mod version;

pub(crate) use ask::none_if_missing;
pub(crate) use client::{Client, MAX_REQUEST, Role, RowCall, answer, request};
pub(crate) use version::Version;
