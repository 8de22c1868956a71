//! The broadcast x vector micro-kernel family, and a GEMM whose operands need not exist.
//!
//! - [`Ukernel`]: a tile of accumulators in registers, any instruction set; the table of tile shapes is data ([`tiles`]).
//! - [`Operand`]: a matrix that can be viewed, or packed block by block: a dense one, prepacked panels, the patches of an image.
//! - [`product`]: the loops around the micro-kernel, blocked for the caches.
//!
//! No word of convolution here: pixels, taps and channels are rows, columns and depth.
#![forbid(unsafe_code)]

mod call;
mod gemm;
mod operand;
#[expect(clippy::needless_range_loop, reason = "accumulators must be indexed by constants of unrolled loops")]
mod tile;
mod transpose;

pub use call::{Ahead, Call, Init, Lhs, To, UNCLAMPED, Walk, cut, first_row};
pub use gemm::{Blocking, Target, product};
pub use operand::{Dense, Operand, Panels, Transposed};
pub use tile::{Ukernel, tiles, ukernel, ukernel_of_rank, ukernels};
