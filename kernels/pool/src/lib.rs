//! Pooling: each channel by itself, the greatest or the mean value of every window.
//!
//! ```text
//! max      dst[n, c, oh, ow] = max  over kh, kw of  src[n, c, oh*stride_h + kh*dilation_h - top, ow*stride_w + kw*dilation_w - left]
//! average  dst[n, c, oh, ow] = sum of the same / number of them
//! ```
//!
//! Taps outside of the image are absent. [`Pool2d`] is the problem, [`Pool2d::plan`] checks it, [`Pooling`] runs it forward and backward.
//! [`unpool`] puts maxima back to where they were.
//!
//! # One nest for both layouts
//!
//! A window is separable, so each output row is two passes. *Down*: the rows of the window are joined to one *line* of the
//! width of the image, in L1. *Across*: the taps of the line are joined. In NHWC a pixel is a run of channels, so a tap is an offset into the
//! line. In NCHW the line is laid out by its phases modulo the stride, all even pixels and then all odd ones for stride 2, after which
//! neighbouring outputs read neighbouring numbers and a tap is again an offset. `K_h + K_w` operations per output instead of
//! `K_h * K_w`, and any stride, dilation and padding by the same code. In NCHW, windows of two or three columns that step by two need no line:
//! registers are taken apart where they are.
//!
//! Backward is a gather: a pixel adds up what it gets from the windows that reach it, and is written once; where windows of 2 x 2 or
//! 3 x 3 step by two, four pixels together. Who won a window is read from the
//! [indices](Pooling::forward_with_indices) that a forward run kept, a byte each, or found again from `src`.
//!
//! # Promises
//!
//! NaN in a window gives NaN, and its gradient goes to the (first) NaN. A window of nothing but -inf gives -inf, and its gradient goes to a
//! pixel of the image, never to padding. Averages are the correctly rounded quotient of a sum in a fixed order: down, then across; of a whole
//! image by eight pixels (NHWC) or by lanes (NCHW). The bits
//! depend neither on the number of threads nor on what the workspace held.
#![forbid(unsafe_code)]

mod backward;
mod cells;
mod columns;
pub mod definition;
mod explain;
mod forward;
mod gather;
mod line;
mod plan;
mod planes;
mod pool2d;
mod reach;
mod spread;
mod squares;
mod unpool;
mod vector;
mod winners;

pub use plan::Pooling;
pub use pool2d::{Pool2d, PoolGeometry, Reduction, Ties};
pub use unpool::unpool;
