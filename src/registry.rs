//! The lists: one line per algorithm and pass. Planner, tests, benches and fuzzing read them and nothing else; a thing that is
//! not here does not exist.

use convolve_core::{Algorithm, BackwardData, BackwardWeights, Forward, Pass};

/// A pass that has a list of algorithms.
///
/// ```
/// use convolve::{Forward, registry::Registered};
/// let names: Vec<_> = Forward::algorithms().iter().map(|algorithm| algorithm.name()).collect();
/// assert!(names.contains(&"direct"));
/// ```
pub trait Registered: Pass {
    /// All of them, in no particular order; the planner takes the one with the least price.
    fn algorithms() -> &'static [&'static dyn Algorithm<Self>];
}

impl Registered for Forward {
    fn algorithms() -> &'static [&'static dyn Algorithm<Self>] {
        &[
            &convolve_direct::Direct,
            &convolve_direct::Pointwise,
            &convolve_slide::Slide,
            &convolve_depthwise::Depthwise,
            &convolve_winograd::F4X3,
            &convolve_winograd::F2X3,
            &convolve_winograd::F6X3,
            &convolve_winograd::F2X5,
            &convolve_winograd::F4X5,
            &convolve_winograd::F4X1X3,
            &convolve_winograd::F4X3X1,
            &convolve_winograd::F4X1X5,
            &convolve_winograd::F4X5X1,
            &convolve_winograd::F2X1X7,
            &convolve_winograd::F2X7X1,
            &convolve_im2col::Im2col,
            &convolve_im2col::Matrixmultiply,
        ]
    }
}

impl Registered for BackwardData {
    fn algorithms() -> &'static [&'static dyn Algorithm<Self>] {
        &[
            &convolve_direct::Direct,
            &convolve_direct::Pointwise,
            &convolve_slide::Slide,
            &convolve_depthwise::Depthwise,
            &convolve_winograd::F4X3,
            &convolve_winograd::F2X3,
            &convolve_winograd::F6X3,
            &convolve_winograd::F2X5,
            &convolve_winograd::F4X5,
            &convolve_winograd::F4X1X3,
            &convolve_winograd::F4X3X1,
            &convolve_winograd::F4X1X5,
            &convolve_winograd::F4X5X1,
            &convolve_winograd::F2X1X7,
            &convolve_winograd::F2X7X1,
            &convolve_im2col::Im2col,
            &convolve_im2col::Matrixmultiply,
        ]
    }
}

impl Registered for BackwardWeights {
    fn algorithms() -> &'static [&'static dyn Algorithm<Self>] {
        &[
            &convolve_direct::Direct,
            &convolve_slide::Slide,
            &convolve_depthwise::Depthwise,
            &convolve_slide::Outer,
            &convolve_slide::Flat,
            &convolve_winograd::F4X3,
            &convolve_winograd::F2X3,
            &convolve_winograd::F6X3,
            &convolve_winograd::F2X5,
            &convolve_winograd::F4X5,
            &convolve_winograd::F4X1X3,
            &convolve_winograd::F4X3X1,
            &convolve_winograd::F4X1X5,
            &convolve_winograd::F4X5X1,
            &convolve_winograd::F2X1X7,
            &convolve_winograd::F2X7X1,
            &convolve_im2col::Im2col,
            &convolve_im2col::Matrixmultiply,
        ]
    }
}
