//! Winograd convolution: fewer multiplications than taps.
#![forbid(unsafe_code)]

mod backward_weights;
mod matrices;
mod phase;
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
    /// F(4x4, 3x3).
    F4X3 = "winograd-f4x3", Standard, [4, 4] of [3, 3]
}
winograd! {
    /// F(2x2, 3x3).
    F2X3 = "winograd-f2x3", Standard, [2, 2] of [3, 3]
}

/// All of them.
pub const ALL: &[&Winograd] = &[&F4X3, &F2X3];

impl Winograd {
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
        if problem.accuracy < self.class {
            return Err(Unsupported("its error bound is larger than the accuracy class allows"));
        }
        if conv.kernel != self.kernel {
            return Err(Unsupported(self.refusal));
        }
        if conv.stride != [1, 1] {
            return Err(Unsupported("the stride is not 1"));
        }
        if (0..2).any(|axis| conv.kernel[axis] > 1 && conv.dilation[axis] != 1) {
            return Err(Unsupported("the dilation is not 1"));
        }
        if problem.geometry.group_in().max(problem.geometry.group_out()) > transform::MAX_CHANNELS {
            return Err(Unsupported("a group has more than 16384 channels"));
        }
        Ok(())
    }

    fn phases(&self, problem: &Problem, direction: Direction) -> Result<PhaseRunner, Unsupported> {
        self.refusal(problem)?;
        Ok(PhaseRunner::new(problem, direction, self.outputs, (self.transforms)(problem.isa)))
    }

    fn gradient(&self, problem: &Problem) -> Result<GradientRunner, Unsupported> {
        self.refusal(problem)?;
        Ok(GradientRunner::new(problem, self.outputs, (self.transforms)(problem.isa)))
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
