//! Building and running the graph: time, credits, the checkpoint.

pub mod checkpoint;
pub mod credits;
