//! Winograd convolution: fewer multiplications than taps, in all three passes.
//!
//! # How Winograd works here
//!
//! Two outputs of a filter of three taps are `y0 = d0 g0 + d1 g1 + d2 g2` and `y1 = d1 g0 + d2 g1 + d3 g2`: six multiplications. Four do. With
//!
//! ```text
//! m0 = (d0 - d2) g0                       m1 = (d1 + d2) (g0 + g1 + g2) / 2
//! m3 = (d3 - d1) g2                       m2 = (d2 - d1) (g0 - g1 + g2) / 2
//! ```
//!
//! the sum `m1 + m2` is `d2 g0 + d1 g1 + d2 g2`, so adding `m0` leaves `y0`; the difference `m1 - m2` is `d1 g0 + d2 g1 + d1 g2`, so adding
//! `m3` leaves `y1`. The factors of g are made once, when weights are packed; those of d are four additions. This is F(2, 3).
//!
//! Where it comes from: the sums of products are coefficients of a product of polynomials, a polynomial is known from its values at enough
//! points, and the values multiply. Here the points are 0, 1, -1 and infinity: `g0`, `g0 + g1 + g2`, `g0 - g1 + g2` and `g2` are the values of
//! `g0 + g1 x + g2 x^2` there. Any m outputs of r taps take m + r - 1 products that way (Winograd 1980), and the three steps are matrices,
//! `y = A^T [(G g) . (B^T d)]` (`matrices.rs`). In two dimensions each is applied to rows and to columns (Lavin and Gray 2015), so F(4x4, 3x3) makes 16
//! outputs from 36 products where the definition takes 144: a quarter.
//!
//! The products of one frequency, over all tiles and channels, are a matrix product, and that is where the time is spent:
//!
//! ```text
//! V[tile][C] = B^T d B        M[tile][K] = V U        y = A^T M A        once for each of the 36 products
//! ```
//!
//! | pass | `d` | `g` | code |
//! |---|---|---|---|
//! | forward | tiles of `src` | weights, packed | `phase` |
//! | backward-data | tiles of `diff_dst` | weights turned around, packed | `phase` |
//! | backward-weights | tiles of `src` | tiles of `diff_dst`: F(3x3, 4x4) | `backward_weights` |
//!
//! All transforms are one nest over even and odd parts (`transform`), lanes are channels, and NCHW is transposed on the way in and out.
//!
//! # What it costs in accuracy
//!
//! A transform rounds, and what it rounds may be larger than what comes out. How much is computed from the matrices
//! ([`Winograd::amplification`]), and planners that ask for [`Accuracy::Strict`] are refused. Points matter more than anything else, and
//! cost no time: {0, 5/8, -5/8, 3/2, -3/2, infinity} halves the error of the textbook's {0, 1, -1, 2, -2, infinity}.
//!
//! Measured by the example `errors`, 28x28 images, 16 output channels, against f64: rms error over the rms of the output, in brackets the worst
//! error. Data is normal, or its positive part (ReLU); "one sum" is the definition in f32, each product rounded.
//!
//! | pass | channels | one sum | `winograd-f2x3` | `winograd-f4x3` | `winograd-f6x3` |
//! |---|---|---|---|---|---|
//! | forward, normal | 1 | 6.5e-8 (4.8e-7) | 9.8e-8 (7.7e-7) | 2.8e-7 (3.5e-6) | 1.2e-6 (2.2e-5) |
//! | forward, ReLU | 1 | 5.2e-8 (5.1e-7) | 8.2e-8 (7.5e-7) | 2.1e-7 (2.1e-6) | 9.2e-7 (1.5e-5) |
//! | forward, normal | 16 | 2.1e-7 (1.6e-6) | 1.5e-7 (8.4e-7) | 4.6e-7 (3.6e-6) | 1.9e-6 (1.9e-5) |
//! | forward, ReLU | 16 | 1.5e-7 (1.5e-6) | 1.3e-7 (7.1e-7) | 3.9e-7 (4.6e-6) | 1.5e-6 (1.4e-5) |
//! | forward, normal | 64 | 4.2e-7 (3.3e-6) | 2.6e-7 (1.1e-6) | 7.6e-7 (5.2e-6) | 3.2e-6 (3.1e-5) |
//! | forward, ReLU | 64 | 3.0e-7 (2.2e-6) | 2.2e-7 (1.1e-6) | 6.3e-7 (4.5e-6) | 2.7e-6 (3.2e-5) |
//! | forward, normal | 256 | 8.4e-7 (6.3e-6) | 5.0e-7 (3.0e-6) | 1.4e-6 (1.2e-5) | 5.9e-6 (6.1e-5) |
//! | forward, ReLU | 256 | 6.1e-7 (5.1e-6) | 4.1e-7 (2.0e-6) | 1.1e-6 (8.1e-6) | 4.5e-6 (4.3e-5) |
//! | forward, normal | 512 | 1.2e-6 (1.1e-5) | 6.8e-7 (3.6e-6) | 2.0e-6 (1.5e-5) | 8.4e-6 (1.1e-4) |
//! | forward, ReLU | 512 | 8.4e-7 (6.8e-6) | 5.8e-7 (3.7e-6) | 1.6e-6 (1.1e-5) | 6.6e-6 (7.5e-5) |
//! | backward-weights, normal | 1 | 4.3e-7 (1.5e-6) | 4.2e-7 (1.9e-6) | 6.7e-7 (2.1e-6) | 2.2e-6 (7.5e-6) |
//! | backward-weights, normal | 64 | 4.9e-7 (4.2e-6) | 3.1e-7 (1.7e-6) | 7.0e-7 (4.3e-6) | 2.3e-6 (1.2e-5) |
//! | backward-weights, normal | 512 | 4.9e-7 (4.3e-6) | 4.3e-7 (3.3e-6) | 6.8e-7 (6.0e-6) | 2.3e-6 (1.6e-5) |
//!
//! The bound that holds always is per output: the shadow, which is the same algorithm on absolute values with absolute matrices. |error| is at
//! most (C + 40) u times it, and on the data of the tests, which check every output, no more than
//! 2 sqrt(C) u times it. (On other data one product of F(4, 3) along one axis was off by 2.02 u.)
//!
//! | variant | amplification | class |
//! |---|---|---|
//! | F(2x2, 3x3) | 16 | Standard |
//! | F(4x4, 3x3), F(2x2, 5x5) | 175 | Standard |
//! | F(4, 3), one axis | 13 | Standard |
//! | F(4, 5), F(2, 7), one axis | 40 | Standard |
//! | F(6x6, 3x3), F(4x4, 5x5) | 1565 | Relaxed |
//!
//! Integers: F(2x2, 3x3) is exact while its numbers fit 24 bits; the others have denominators that are not powers of two. What is not finite
//! spreads to the tile that reads it and no further.
#![forbid(unsafe_code)]

mod backward_weights;
mod blocks;
mod matrices;
mod phase;
mod shape;
#[cfg(test)]
mod tests;
#[expect(
    clippy::needless_range_loop,
    reason = "values in registers must be indexed by constants of unrolled loops"
)]
mod transform;

use backward_weights::GradientRunner;
use convolve_core::{
    Accuracy, Algorithm, BackwardData, BackwardWeights, Direction, Estimate, Execute, Forward, Problem,
    Unsupported,
};
use convolve_simd::{Isa, Simd, dispatch};
use matrices::{Cook, Parts, Scheme, points};
use phase::PhaseRunner;
use transform::{Kernel, Transforms};

/// Nothing hides the wait for what has left the caches ([`Estimate::exposed`]; more than once, as tiles overlap): a block of tiles is read, multiplied and written,
/// one after the other. Fitted on Zen 4. (Asking for the pixels of the next block between products, and for those that will be written: 0.96 to 1.04 of the speed.)
const EXPOSED: f64 = 1.5;

/// Winograd convolution with one size of tile.
///
/// ```
/// use convolve_core::{Algorithm, Forward};
/// assert_eq!(Algorithm::<Forward>::name(&convolve_winograd::F4X3), "winograd-f4x3");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Winograd {
    name: &'static str,
    class: Accuracy,
    /// Outputs of a tile, height and width.
    outputs: [usize; 2],
    /// Taps.
    kernel: [usize; 2],
    refusal: &'static str,
    transforms: fn(Isa) -> Box<dyn Transforms>,
}

macro_rules! winograd {
    ($(#[$doc:meta])* $id:ident = $name:literal, $class:ident, [$my:literal, $mx:literal] of [$ry:literal, $rx:literal]) => {
        $(#[$doc])*
        pub const $id: Winograd = Winograd {
            name: $name,
            class: Accuracy::$class,
            outputs: [$my, $mx],
            kernel: [$ry, $rx],
            refusal: concat!("the kernel is not ", $ry, "x", $rx),
            transforms: |isa| dispatch!(isa, s => transforms::<_, Cook<$my, $ry>, Cook<$mx, $rx>, { $my + $ry - 1 }, { $mx + $rx - 1 }, $my, $mx, $ry, $rx>(s)),
        };
    };
}

fn transforms<
    S: Simd,
    Y: Scheme<NY>,
    X: Scheme<NX>,
    const NY: usize,
    const NX: usize,
    const MY: usize,
    const MX: usize,
    const RY: usize,
    const RX: usize,
>(
    s: S,
) -> Box<dyn Transforms> {
    Box::new(Kernel::<S, Y, X, NY, NX, MY, MX, RY, RX> { s, schemes: core::marker::PhantomData })
}

winograd! {
    /// F(4x4, 3x3), and F(3x3, 4x4) for weight gradients: 36 products where the definition takes 144.
    F4X3 = "winograd-f4x3", Standard, [4, 4] of [3, 3]
}
winograd! {
    /// F(2x2, 3x3): 16 products instead of 36, and errors no larger than those of plain sums.
    F2X3 = "winograd-f2x3", Standard, [2, 2] of [3, 3]
}
winograd! {
    /// F(6x6, 3x3): 64 products instead of 324, with errors some five times as large.
    F6X3 = "winograd-f6x3", Relaxed, [6, 6] of [3, 3]
}
winograd! {
    /// F(2x2, 5x5): 36 products instead of 100.
    F2X5 = "winograd-f2x5", Standard, [2, 2] of [5, 5]
}
winograd! {
    /// F(4x4, 5x5): 64 products instead of 400.
    F4X5 = "winograd-f4x5", Relaxed, [4, 4] of [5, 5]
}
winograd! {
    /// F(4, 3) along rows, for kernels of one row: 6 products instead of 12.
    F4X1X3 = "winograd-f4-1x3", Standard, [1, 4] of [1, 3]
}
winograd! {
    /// F(4, 3) along columns, for kernels of one column.
    F4X3X1 = "winograd-f4-3x1", Standard, [4, 1] of [3, 1]
}
winograd! {
    /// F(4, 5) along rows: 8 products instead of 20.
    F4X1X5 = "winograd-f4-1x5", Standard, [1, 4] of [1, 5]
}
winograd! {
    /// F(4, 5) along columns.
    F4X5X1 = "winograd-f4-5x1", Standard, [4, 1] of [5, 1]
}
winograd! {
    /// F(2, 7) along rows: 8 products instead of 14.
    F2X1X7 = "winograd-f2-1x7", Standard, [1, 2] of [1, 7]
}
winograd! {
    /// F(2, 7) along columns.
    F2X7X1 = "winograd-f2-7x1", Standard, [2, 1] of [7, 1]
}

/// All of them.
///
/// ```
/// assert!(convolve_winograd::ALL.iter().any(|winograd| winograd.name() == "winograd-f2x5"));
/// ```
pub const ALL: &[&Winograd] =
    &[&F4X3, &F2X3, &F6X3, &F2X5, &F4X5, &F4X1X3, &F4X3X1, &F4X1X5, &F4X5X1, &F2X1X7, &F2X7X1];

impl Winograd {
    /// As [`Algorithm::name`], of any pass.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How much rounding errors grow: |A|^T (|G| . |B| 1) of both axes. See [`Algorithm::amplification`].
    ///
    /// ```
    /// use convolve_winograd::{F2X3, F4X3};
    /// assert!(F2X3.amplification() < F4X3.amplification());
    /// ```
    pub fn amplification(&self) -> f64 {
        let axis = |a: usize| {
            let [m, r] = [self.outputs[a], self.kernel[a]];
            Parts::new(points(m + r - 1)).amplification(m, r)
        };
        axis(0) * axis(1)
    }

    /// The sentence with which it declines.
    fn refusal(&self, problem: &Problem) -> Result<(), Unsupported> {
        let conv = problem.geometry.conv();
        if conv.kernel != self.kernel {
            return Err(Unsupported(self.refusal));
        }
        if conv.stride != [1, 1] {
            return Err(Unsupported("the stride is not 1"));
        }
        // With dilation a tile has the pixels of one lattice, and each lattice its own tiles (see `shape`). One that does not fill a tile is not worth it:
        // where `direct` leaves out the taps outside of the image, tiles multiply them all.
        let output = problem.geometry.output();
        let empty = |axis: usize| {
            let step = conv.dilation[axis];
            conv.kernel[axis] > 1 && step > 1 && step.saturating_mul(self.outputs[axis]) > output[axis]
        };
        if (0..2).any(empty) {
            return Err(Unsupported("the dilation is so large that a tile would reach beyond the image"));
        }
        if problem.geometry.group_in().max(problem.geometry.group_out()) > transform::MAX_CHANNELS {
            return Err(Unsupported("a group has more than 16384 channels"));
        }
        // Last: a limit of the caller is the reason only where nothing else is.
        if problem.accuracy < self.class {
            return Err(Unsupported::ACCURACY);
        }
        Ok(())
    }

    fn phases(&self, problem: &Problem, direction: Direction) -> Result<PhaseRunner, Unsupported> {
        self.refusal(problem)?;
        PhaseRunner::new(problem, direction, self.outputs, (self.transforms)(problem.isa))
    }

    fn gradient(&self, problem: &Problem) -> Result<GradientRunner, Unsupported> {
        self.refusal(problem)?;
        GradientRunner::new(problem, self.outputs, (self.transforms)(problem.isa))
    }
}

macro_rules! phases {
    ($pass:ident) => {
        impl Algorithm<$pass> for Winograd {
            fn name(&self) -> &'static str {
                self.name
            }
            fn amplification(&self) -> f64 {
                Winograd::amplification(self)
            }
            fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
                Ok(self.phases(problem, Direction::$pass)?.estimate())
            }
            fn build(&self, problem: &Problem) -> Box<dyn Execute<$pass>> {
                Box::new(self.phases(problem, Direction::$pass).expect("`estimate` accepted"))
            }
        }
    };
}
phases!(Forward);
phases!(BackwardData);

impl Algorithm<BackwardWeights> for Winograd {
    fn name(&self) -> &'static str {
        self.name
    }
    fn amplification(&self) -> f64 {
        Winograd::amplification(self)
    }
    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
        Ok(self.gradient(problem)?.estimate())
    }
    fn build(&self, problem: &Problem) -> Box<dyn Execute<BackwardWeights>> {
        Box::new(self.gradient(problem).expect("`estimate` accepted"))
    }
}
