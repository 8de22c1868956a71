//! The broadcast x vector micro-kernel family and the GEMM on top of it.
#![forbid(unsafe_code)]

mod tile;

pub use tile::{Call, Init, Lhs, UNCLAMPED, Ukernel, Walk, tiles, ukernel};
