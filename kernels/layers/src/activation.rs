//! Activations: `dst[i] = f(src[i])`, and back `diff_src[i] = f'(src[i]) * diff_dst[i]`.
//!
//! ```text
//! ReLU        max(0, x)                    1 where x > 0
//! ReLU6       min(6, max(0, x))            1 where 0 < x < 6
//! leaky ReLU  x > 0 ? x : slope x          x > 0 ? 1 : slope
//! sigmoid     s = 1 / (1 + e^-x)           s (1 - s)
//! tanh        t                            1 - t^2
//! SiLU        x s                          s + x s (1 - s)            (Hendrycks and Gimpel, 2016; also called swish)
//! GELU        x P(x)                       P(x) + x p(x)              (the same; P, p: the standard normal distribution and density)
//! ```

use crate::abreast::{Abreast, Ops};
use crate::math;
use convolve_core::{BlockMut, Cut, Error, Par, Update};
use convolve_simd::{Isa, Simd, dispatch};

/// An activation.
///
/// Largest errors, over all f32 between -86 and 88 (u = 2^-24, half a unit in the last place of a number next to 1; tests sweep them). What is below 2^-122 may be 0.
///
/// | function | value | derivative |
/// |---|---|---|
/// | ReLU, ReLU6, leaky ReLU | exact (leaky: rounded once) | exact |
/// | sigmoid | 4 u of itself | 6 u of itself |
/// | tanh | 3 u of itself | 6 u of itself |
/// | SiLU | 5 u of itself | 4 u |
/// | GELU | 4 u of \|x\| | 4 u |
///
/// NaN gives NaN, but for the derivatives of the first three, which are 0 or the slope there.
///
/// ```
/// use convolve_core::{Par, Update};
/// use convolve_layers::Function;
/// use convolve_simd::Isa;
/// let (src, mut dst, mut diff_src) = ([-2.0, 0.0, 3.0], [0.0; 3], [0.0; 3]);
/// Function::Relu.forward(&src, &mut dst, Isa::best(), Par::Seq)?;
/// assert_eq!(dst, [0.0, 0.0, 3.0]);
/// Function::Relu.backward(&src, &[1.0, 1.0, 5.0], &mut diff_src, Update::Overwrite, Isa::best(), Par::Seq)?;
/// assert_eq!(diff_src, [0.0, 0.0, 5.0]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Function {
    /// `max(0, x)`.
    Relu,
    /// `min(6, max(0, x))`.
    Relu6,
    /// `x` where it is positive, else `slope * x`.
    LeakyRelu {
        /// Factor of negative values.
        slope: f32,
    },
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// `x * sigmoid(x)`.
    Silu,
    /// `x` times the probability that a standard normal variable is less than `x`.
    Gelu,
}

/// Registers that are computed abreast.
const ABREAST: usize = 3;
/// Elements of a task.
const TASK: usize = 16 << 10;

impl Function {
    /// All of them, for loops over everything.
    pub const ALL: [Self; 7] = [
        Self::Relu,
        Self::Relu6,
        Self::LeakyRelu { slope: 0.01 },
        Self::Sigmoid,
        Self::Tanh,
        Self::Silu,
        Self::Gelu,
    ];

    /// `dst[i] = f(src[i])`. O(elements).
    ///
    /// # Errors
    /// Slices of different lengths.
    ///
    /// ```
    /// # use convolve_core::Par;
    /// # use convolve_layers::Function;
    /// # use convolve_simd::Isa;
    /// let mut dst = [0.0; 2];
    /// Function::Sigmoid.forward(&[0.0, 100.0], &mut dst, Isa::best(), Par::Seq)?;
    /// assert_eq!(dst, [0.5, 1.0]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn forward(self, src: &[f32], dst: &mut [f32], isa: Isa, par: Par<'_>) -> Result<(), Error> {
        same_length("dst", src.len(), dst.len())?;
        dispatch!(isa, s => forward(s, self, src, dst, par));
        Ok(())
    }

    /// `diff_src[i] = f'(src[i]) * diff_dst[i]`, where `src` is what went into the function. O(elements).
    ///
    /// # Errors
    /// Slices of different lengths.
    ///
    /// ```
    /// # use convolve_core::{Par, Update};
    /// # use convolve_layers::Function;
    /// # use convolve_simd::Isa;
    /// let mut diff_src = [1.0];
    /// Function::Tanh.backward(&[0.0], &[2.0], &mut diff_src, Update::Accumulate, Isa::best(), Par::Seq)?;
    /// assert_eq!(diff_src, [3.0]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn backward(
        self,
        src: &[f32],
        diff_dst: &[f32],
        diff_src: &mut [f32],
        update: Update,
        isa: Isa,
        par: Par<'_>,
    ) -> Result<(), Error> {
        same_length("diff_dst", src.len(), diff_dst.len())?;
        same_length("diff_src", src.len(), diff_src.len())?;
        dispatch!(isa, s => backward(s, self, src, Some(diff_dst), diff_src, update, par));
        Ok(())
    }

    /// `diff[i] *= f'(src[i])`: the same in place, where nobody needs the gradient behind the function any more. O(elements).
    ///
    /// For ReLU, `src` may be what went in or what came out: either is positive where the other is.
    ///
    /// # Errors
    /// Slices of different lengths.
    ///
    /// ```
    /// # use convolve_core::Par;
    /// # use convolve_layers::Function;
    /// # use convolve_simd::Isa;
    /// let mut diff = [7.0, 7.0];
    /// Function::Relu.backward_in_place(&[0.0, 2.0], &mut diff, Isa::best(), Par::Seq)?;
    /// assert_eq!(diff, [0.0, 7.0]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn backward_in_place(
        self,
        src: &[f32],
        diff: &mut [f32],
        isa: Isa,
        par: Par<'_>,
    ) -> Result<(), Error> {
        same_length("diff", src.len(), diff.len())?;
        dispatch!(isa, s => backward(s, self, src, None, diff, Update::Overwrite, par));
        Ok(())
    }
}

fn same_length(operand: &'static str, expected: usize, got: usize) -> Result<(), Error> {
    if got == expected {
        return Ok(());
    }
    Err(Error::Length { operand, shape: "the shape of src".into(), expected, got, hint: String::new() })
}

/// A function and its derivative on registers.
trait Map {
    fn value<S: Ops>(&self, s: S, x: S::V) -> S::V;
    fn slope<S: Ops>(&self, s: S, x: S::V) -> S::V;
}

struct Relu;
struct Relu6;
struct Leaky {
    slope: f32,
}
struct Sigmoid;
struct Tanh;
struct Silu;
struct Gelu;

/// `map!(Name: |this, s, x| value, slope)`.
macro_rules! map {
    ($Map:ident: |$this:pat_param, $s:ident, $x:ident| $value:expr, $slope:expr) => {
        impl Map for $Map {
            #[inline(always)]
            fn value<S: Ops>(&self, $s: S, $x: S::V) -> S::V {
                let $this = self;
                $value
            }

            #[inline(always)]
            fn slope<S: Ops>(&self, $s: S, $x: S::V) -> S::V {
                let $this = self;
                $slope
            }
        }
    };
}

map!(Relu: |_, s, x|
    s.max(s.splat(0.0), x),
    s.select(s.less(s.splat(0.0), x), s.splat(1.0), s.splat(0.0)));
map!(Relu6: |_, s, x|
s.min(s.splat(6.0), s.max(s.splat(0.0), x)),
{
    let below = s.select(s.less(x, s.splat(6.0)), s.splat(1.0), s.splat(0.0));
    s.select(s.less(s.splat(0.0), x), below, s.splat(0.0))
});
map!(Leaky: |this, s, x|
    s.select(s.less(s.splat(0.0), x), x, s.mul(s.splat(this.slope), x)),
    s.select(s.less(s.splat(0.0), x), s.splat(1.0), s.splat(this.slope)));
map!(Sigmoid: |_, s, x| math::sigmoid(s, x), math::sigmoid_slope(s, x));
map!(Tanh: |_, s, x|
    math::tanh(s, x),
    // 1 - tanh(x)^2 = 4 s (1 - s) with s = sigmoid(2x).
    s.mul(s.splat(4.0), math::sigmoid_slope(s, s.add(x, x))));
map!(Silu: |_, s, x|
{
    // The factor at -inf is 0, and so is the product by right.
    s.mul(s.max(s.splat(-104.0), x), math::sigmoid(s, x))
},
{
    let inside = s.max(s.splat(-104.0), s.min(s.splat(104.0), x));
    let (value, slope) = math::sigmoid_and_slope(s, x);
    s.mul_add(inside, slope, value)
});
map!(Gelu: |_, s, x|
{
    let (probability, _) = math::normal(s, x);
    s.select(s.less(x, s.splat(-15.0)), s.splat(0.0), s.mul(x, probability))
},
{
    let inside = s.max(s.splat(-15.0), s.min(s.splat(15.0), x));
    let (probability, density) = math::normal(s, inside);
    s.mul_add(inside, density, probability)
});

fn forward<S: Simd>(s: S, function: Function, src: &[f32], dst: &mut [f32], par: Par<'_>) {
    let values = |dst: &mut [f32], from: usize| {
        let src = &src[from..][..dst.len()];
        match function {
            Function::Relu => values(s, &Relu, src, dst),
            Function::Relu6 => values(s, &Relu6, src, dst),
            Function::LeakyRelu { slope } => values(s, &Leaky { slope }, src, dst),
            Function::Sigmoid => values(s, &Sigmoid, src, dst),
            Function::Tanh => values(s, &Tanh, src, dst),
            Function::Silu => values(s, &Silu, src, dst),
            Function::Gelu => values(s, &Gelu, src, dst),
        }
    };
    each_part(dst, par, &values);
}

fn backward<S: Simd>(
    s: S,
    function: Function,
    src: &[f32],
    diff_dst: Option<&[f32]>,
    diff_src: &mut [f32],
    update: Update,
    par: Par<'_>,
) {
    let slopes = |to: &mut [f32], from: usize| {
        let part = from..from + to.len();
        let from = (&src[part.clone()], diff_dst.map(|diff_dst| &diff_dst[part]));
        match function {
            Function::Relu => slopes(s, &Relu, from, to, update),
            Function::Relu6 => slopes(s, &Relu6, from, to, update),
            Function::LeakyRelu { slope } => slopes(s, &Leaky { slope }, from, to, update),
            Function::Sigmoid => slopes(s, &Sigmoid, from, to, update),
            Function::Tanh => slopes(s, &Tanh, from, to, update),
            Function::Silu => slopes(s, &Silu, from, to, update),
            Function::Gelu => slopes(s, &Gelu, from, to, update),
        }
    };
    each_part(diff_src, par, &slopes);
}

/// Hands out parts of a slice, with where they start.
fn each_part(data: &mut [f32], par: Par<'_>, f: &(dyn Fn(&mut [f32], usize) + Sync)) {
    let len = data.len();
    let cuts = [Cut::whole(1), Cut::whole(1), Cut { unit: len.max(1), block: TASK }];
    BlockMut::new(data, [1, 1, len]).for_each_piece(cuts, par, &mut [], 0, &|[_, _, range], mut piece, _| {
        f(piece.row(0, 0), range.start)
    });
}

/// The next registers of a slice.
#[inline(always)]
fn load<S: Simd>(s: S, from: &[f32]) -> [S::F32; ABREAST] {
    let mut all = [s.load(from); ABREAST];
    for i in 1..ABREAST {
        all[i] = s.load(&from[i * S::LANES..]);
    }
    all
}

fn values<S: Simd>(s: S, map: &impl Map, src: &[f32], dst: &mut [f32]) {
    s.vectorize(
        #[inline(always)]
        |s| {
            let step = ABREAST * S::LANES;
            let (vectors, rest) = dst.split_at_mut(dst.len() / step * step);
            let (from, tail) = src.split_at(vectors.len());
            for (src, dst) in from.chunks_exact(step).zip(vectors.chunks_exact_mut(step)) {
                let value = map.value(Abreast::<S, ABREAST>(s), load(s, src));
                for i in 0..ABREAST {
                    s.store(value[i], &mut dst[i * S::LANES..]);
                }
            }
            for (src, dst) in tail.chunks(S::LANES).zip(rest.chunks_mut(S::LANES)) {
                s.store_first(map.value(s, s.load_first(src)), dst);
            }
        },
    );
}

/// Without `diff_dst`, `to` is both gradients.
fn slopes<S: Simd>(
    s: S,
    map: &impl Map,
    (src, diff_dst): (&[f32], Option<&[f32]>),
    to: &mut [f32],
    update: Update,
) {
    match (diff_dst, update) {
        (Some(diff_dst), Update::Overwrite) => slopes_by(
            s,
            map,
            src,
            Some(diff_dst),
            to,
            #[inline(always)]
            |_, _, gradient| gradient,
        ),
        (Some(diff_dst), Update::Accumulate) => slopes_by(
            s,
            map,
            src,
            Some(diff_dst),
            to,
            #[inline(always)]
            |s, before, gradient| Simd::add(s, before, gradient),
        ),
        (None, _) => slopes_by(
            s,
            map,
            src,
            None,
            to,
            #[inline(always)]
            |s, before, slope| Simd::mul(s, slope, before),
        ),
    }
}

/// `to[i] = joined(to[i], f'(src[i]) * diff_dst[i])`, without the factor if there is none.
#[inline(always)]
fn slopes_by<S: Simd>(
    s: S,
    map: &impl Map,
    src: &[f32],
    diff_dst: Option<&[f32]>,
    to: &mut [f32],
    joined: impl Fn(S, S::F32, S::F32) -> S::F32,
) {
    s.vectorize(
        #[inline(always)]
        |s| {
            // Never read where there is no gradient.
            let (diff, times) = (diff_dst.unwrap_or(src), diff_dst.is_some());
            let step = ABREAST * S::LANES;
            let (vectors, rest) = to.split_at_mut(to.len() / step * step);
            let ((src, src_tail), (diff, diff_tail)) =
                (src.split_at(vectors.len()), diff.split_at(vectors.len()));
            let parts = src.chunks_exact(step).zip(diff.chunks_exact(step));
            for ((src, diff), to) in parts.zip(vectors.chunks_exact_mut(step)) {
                let slope = map.slope(Abreast::<S, ABREAST>(s), load(s, src));
                for i in 0..ABREAST {
                    let (diff, to) = (&diff[i * S::LANES..], &mut to[i * S::LANES..]);
                    let gradient = if times { Simd::mul(s, slope[i], s.load(diff)) } else { slope[i] };
                    s.store(joined(s, s.load(to), gradient), to);
                }
            }
            let parts = src_tail.chunks(S::LANES).zip(diff_tail.chunks(S::LANES));
            for ((src, diff), to) in parts.zip(rest.chunks_mut(S::LANES)) {
                let slope = map.slope(s, s.load_first(src));
                let gradient = if times { Simd::mul(s, slope, s.load_first(diff)) } else { slope };
                s.store_first(joined(s, s.load_first(to), gradient), to);
            }
        },
    );
}
