//! Building and running the graph: time, credits, the checkpoint.

pub mod channels;
pub mod checkpoint;
pub mod credits;
pub mod directory;
pub mod failure;
pub mod graph;
pub mod host;
pub mod latency;
pub mod progress;
pub mod restart;
pub mod run;
pub mod shared;
pub mod tell;
pub mod unprotected;
pub mod world;
