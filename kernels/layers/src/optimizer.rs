//! Optimisers: what a step of training does to the weights, once their gradient is there.
//!
//! ```text
//! momentum   v = momentum v + g,    w -= rate v                                               (Polyak, 1964; Sutskever et al., 2013)
//! Adam       m = a m + (1 - a) g,   v = b v + (1 - b) g^2                                      (Kingma and Ba, 2015)
//!            w -= rate sqrt(1 - b^t) / (1 - a^t) * m / (sqrt(v) + eps)        in step t = 1, 2, ..
//! ```
//!
//! Every weight by itself, in one pass over memory that is compiled for the instruction set asked for; no multiply-add is fused, so that the bits
//! are those of the formula in any instruction set. Threads: cut the slices where you like.

use convolve_core::Error;
use convolve_simd::{Isa, Simd, dispatch};

/// Gradient descent with momentum.
///
/// ```
/// use convolve_layers::Sgd;
/// use convolve_simd::Isa;
/// let (mut weights, mut velocity) = ([1.0], [4.0]);
/// Sgd { rate: 0.5, momentum: 0.25 }.step(&mut weights, &[2.0], &mut velocity, Isa::best())?;
/// assert_eq!((weights, velocity), ([-0.5], [3.0]));
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// The learning rate.
    pub rate: f32,
    /// What remains of the velocity from step to step; 0 is plain gradient descent.
    pub momentum: f32,
}

impl Sgd {
    /// One step; `velocity` starts as zeros. O(weights).
    ///
    /// # Errors
    /// Slices of different lengths.
    pub fn step(
        self,
        weights: &mut [f32],
        gradient: &[f32],
        velocity: &mut [f32],
        isa: Isa,
    ) -> Result<(), Error> {
        same_length("gradient", weights.len(), gradient.len())?;
        same_length("velocity", weights.len(), velocity.len())?;
        dispatch!(isa, s => s.vectorize(#[inline(always)] |_| {
            for ((w, g), v) in weights.iter_mut().zip(gradient).zip(velocity) {
                *v = self.momentum * *v + g;
                *w -= self.rate * *v;
            }
        }));
        Ok(())
    }
}

/// Adam: a step of its own for every weight.
///
/// ```
/// use convolve_layers::Adam;
/// use convolve_simd::Isa;
/// let (mut weights, mut first, mut second) = ([1.0], [0.0], [0.0]);
/// let adam = Adam { rate: 0.125, ..Adam::default() };
/// adam.step(&mut weights, &[1e6], [&mut first, &mut second], 1, Isa::best())?;
/// assert!((weights[0] - 0.875).abs() < 1e-6);                      // the first step is as long as the rate, whatever the gradient
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// The learning rate.
    pub rate: f64,
    /// What remains of the two moments from step to step.
    pub decay: [f32; 2],
    /// Added to the root, so that nothing is divided by 0.
    pub epsilon: f32,
}

impl Default for Adam {
    /// The numbers of the paper.
    fn default() -> Self {
        Self { rate: 1e-3, decay: [0.9, 0.999], epsilon: 1e-8 }
    }
}

impl Adam {
    /// Step number `time`, from 1; the moments start as zeros. O(weights).
    ///
    /// # Errors
    /// Slices of different lengths; step 0.
    pub fn step(
        self,
        weights: &mut [f32],
        gradient: &[f32],
        [first, second]: [&mut [f32]; 2],
        time: usize,
        isa: Isa,
    ) -> Result<(), Error> {
        same_length("gradient", weights.len(), gradient.len())?;
        same_length("the first moment", weights.len(), first.len())?;
        same_length("the second moment", weights.len(), second.len())?;
        if time == 0 {
            return Err(Error::Parameter { parameter: "time", value: 0, reason: "steps count from 1" });
        }
        let correction = self.decay.map(|decay| 1.0 - f64::from(decay).powf(time as f64));
        let step = (self.rate * correction[1].sqrt() / correction[0]) as f32;
        let ([a, b], epsilon) = (self.decay, self.epsilon);
        dispatch!(isa, s => s.vectorize(#[inline(always)] |_| {
            for (((w, &g), m), v) in weights.iter_mut().zip(gradient).zip(first).zip(second) {
                *m = a * *m + (1.0 - a) * g;
                *v = b * *v + (1.0 - b) * g * g;
                *w -= step * *m / (v.sqrt() + epsilon);
            }
        }));
        Ok(())
    }
}

fn same_length(operand: &'static str, expected: usize, got: usize) -> Result<(), Error> {
    if got == expected {
        return Ok(());
    }
    Err(Error::Length { operand, shape: "the shape of weights".into(), expected, got, hint: String::new() })
}
