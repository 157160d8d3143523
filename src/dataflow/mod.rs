//! Building and running the graph: time, credits, the checkpoint.

pub mod credits;
