//! What the examples share, and the benchmark of training with them.

pub mod fetched;
pub mod network;
