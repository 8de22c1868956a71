//! What the examples and the benchmark of training share.

pub mod network;
