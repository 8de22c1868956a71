//! How a plan computes, in one line: `max 3x3 / 2 of [1, 64, 112, 112] NHWC on avx2: forward by pixels, backward by cells, 40.2 KiB of workspace`.

use crate::{Pooling, Reduction};
use core::fmt;

/// ```
/// use convolve_pool::Pool2d;
/// let plan = Pool2d::max(64, 2).input(112).plan(convolve_simd::Isa::best(), 1)?;
/// assert!(plan.to_string().starts_with("max 2x2 / 2x2 of [1, 64, 112, 112] NCHW on "), "{plan}");
/// # Ok::<(), convolve_core::Error>(())
/// ```
impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pool, isa) = (self.geometry.pool(), self.isa());
        let (name, max) = match pool.reduction {
            Reduction::Max { .. } => ("max", true),
            Reduction::Average { .. } => ("average", false),
        };
        let ([kh, kw], [sh, sw], [height, width]) = (pool.kernel, pool.stride, pool.input);
        let shape = [pool.batch, pool.channels, height, width];
        let forward = match self {
            _ if self.whole_image => "whole images",
            _ if self.whole_pixel => "whole pixels",
            _ if self.pairs => "pairs",
            _ if self.pixels.is_some() => "pixels",
            _ => "lines",
        };
        let backward = match self {
            _ if max && self.squares => "squares",
            _ if self.cells.is_some() => "cells",
            _ if max => "gathers",
            _ => "spreads",
        };
        let kib = self.workspace_len() as f64 * size_of::<f32>() as f64 / 1024.0;
        write!(f, "{name} {kh}x{kw} / {sh}x{sw} of {shape:?} {} on {isa}: ", pool.layout)?;
        write!(f, "forward by {forward}, backward by {backward}, {kib:.1} KiB of workspace")
    }
}
