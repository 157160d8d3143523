//! Building and running the graph: time, credits, the checkpoint.

pub mod channels;
pub mod checkpoint;
pub mod credits;
pub mod directory;
pub mod failure;
pub mod graph;
pub mod progress;
pub mod run;
pub mod shared;
pub mod unprotected;
pub mod world;
