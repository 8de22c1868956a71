//! What the examples share, and the benchmark of training with them.

pub mod fetched;
pub mod folder;
pub mod font;
pub mod network;
