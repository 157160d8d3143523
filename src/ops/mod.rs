//! The operators of the dataflow, one a file.
