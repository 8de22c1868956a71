//! A problem, and how its plan computes, in a line each: `max 3x3 / 2x2 of [1, 64, 112, 112] NHWC`, and then `forward by pixels, backward by cells`.

use crate::{Pool2d, Pooling, Reduction};
use core::fmt;

/// ```
/// use convolve_pool::Pool2d;
/// assert_eq!(Pool2d::max(64, 2).input(112).to_string(), "max 2x2 / 2x2 of [1, 64, 112, 112] NCHW");
/// ```
impl fmt::Display for Pool2d {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.reduction {
            Reduction::Max { .. } => "max",
            Reduction::Average { .. } => "average",
        };
        let ([kh, kw], [sh, sw], [height, width]) = (self.kernel, self.stride, self.input);
        let shape = [self.batch, self.channels, height, width];
        write!(f, "{name} {kh}x{kw} / {sh}x{sw} of {shape:?} {}", self.layout)
    }
}

/// ```
/// use convolve_pool::Pool2d;
/// let plan = Pool2d::max(64, 2).input(112).plan(convolve_simd::Isa::best(), 1)?;
/// assert!(plan.to_string().contains(": forward by columns, backward by squares, "), "{plan}");
/// // A stride of three takes more apart than even and odd columns.
/// let plan = Pool2d::max(64, 3).input(112).stride(3).plan(convolve_simd::Isa::best(), 1)?;
/// assert!(plan.to_string().contains(": forward by lines, "), "{plan}");
/// # Ok::<(), convolve_core::Error>(())
/// ```
impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let forward = match self {
            _ if self.whole_image => "whole images",
            _ if self.whole_pixel => "whole pixels",
            _ if self.columns.is_some() => "columns",
            _ if self.pixels.is_some() => "pixels",
            _ => "lines",
        };
        let max = matches!(self.geometry.pool().reduction, Reduction::Max { .. });
        let backward = match self {
            _ if max && self.squares => "squares",
            _ if self.cells.is_some() => "cells",
            _ if max => "gathers",
            _ => "spreads",
        };
        let kib = self.workspace_len() as f64 * size_of::<f32>() as f64 / 1024.0;
        write!(f, "{} on {}: ", self.geometry.pool(), self.isa())?;
        write!(f, "forward by {forward}, backward by {backward}, {kib:.1} KiB of workspace")
    }
}
