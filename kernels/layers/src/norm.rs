//! Normalisation: every channel gets the mean 0 and the variance 1, and then a scale and a shift that are learned.
//!
//! ```text
//! x_hat = (x - mean) / sqrt(var + eps),    y = gamma[c] * x_hat + beta[c]
//! batch      mean and var over all images and pixels of a channel        (Ioffe and Szegedy, 2015)
//! instance   over the pixels of one channel of one image                 (Ulyanov, Vedaldi, Lempitsky, 2016)
//!
//! d beta[c] = sum of dy,    d gamma[c] = sum of dy * x_hat
//! dx = gamma / sqrt(var + eps) * (dy - mean(dy) - x_hat * mean(dy * x_hat))
//! ```
//!
//! The variance is that of all M values (divided by M), and is summed in a second pass over the differences to the mean, so that nothing
//! cancels. An image is cut into parts by its shape alone; the sum of a part runs in sixteen interleaved parts over pixels (NCHW) or pixel by
//! pixel (NHWC), and parts are added up one after the other, image by image: a fixed order, the same bits for any number of threads. The code is
//! generic in the number, so that gradients can be checked in f64; loops are plain and compiled for the instruction set that is asked for.

use convolve_core::{BlockMut, Cut, Error, LINE, Layout, Par, Update};
use convolve_simd::{Isa, Simd, dispatch};
use core::ops::{Add, Div, Mul, Range, Sub};

/// Numbers of a part, about: those of a task.
const PART: usize = 16 << 10;

/// f32 or f64.
///
/// ```
/// use convolve_layers::Real;
/// fn half<T: Real>(x: T) -> T { x / T::from_f64(2.0) }
/// assert_eq!((half(3.0f32), half(3.0f64)), (1.5, 1.5));
/// ```
pub trait Real:
    Copy
    + Default
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + 'static
{
    /// The nearest one.
    fn from_f64(x: f64) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
}

impl Real for f32 {
    fn from_f64(x: f64) -> Self {
        x as Self
    }
    fn sqrt(self) -> Self {
        self.sqrt()
    }
}

impl Real for f64 {
    fn from_f64(x: f64) -> Self {
        x
    }
    fn sqrt(self) -> Self {
        self.sqrt()
    }
}

/// What shares a mean and a variance.
///
/// ```
/// # use convolve_layers::Statistics;
/// assert_ne!(Statistics::Batch, Statistics::Instance);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Statistics {
    /// A channel of all images.
    Batch,
    /// A channel of one image.
    Instance,
}

/// A normalisation: plain data.
///
/// ```
/// use convolve_core::{Layout, Par, Update};
/// use convolve_layers::{Norm, Statistics};
/// use convolve_simd::Isa;
/// let norm = Norm { batch: 2, channels: 1, pixels: 2, layout: Layout::Nchw, statistics: Statistics::Batch, epsilon: 0.0 };
/// let (src, mut dst) = ([1.0f32, 1.0, 3.0, 3.0], [0.0; 4]);
/// let saved = norm.forward(&src, &[10.0], &[5.0], &mut dst, Isa::best(), Par::Seq)?;
/// assert_eq!(dst, [-5.0, -5.0, 15.0, 15.0]);
/// assert_eq!((saved.mean, saved.variance), (vec![2.0], vec![1.0]));
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// Images, N.
    pub batch: usize,
    /// Channels, C.
    pub channels: usize,
    /// Pixels of an image, H * W.
    pub pixels: usize,
    /// Order of `src` and `dst`.
    pub layout: Layout,
    /// What shares a mean.
    pub statistics: Statistics,
    /// What is added to a variance, at least 0. (With 0, values that are all equal become 0 / 0, NaN.)
    pub epsilon: f64,
}

/// What the backward pass needs, and what a running mean is made of: one number per channel, or per image and channel.
///
/// ```
/// # use convolve_layers::Saved;
/// let saved = Saved { mean: vec![0.0f32], variance: vec![1.0], count: 4 };
/// assert_eq!(saved.count, 4);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Saved<T> {
    /// Means.
    pub mean: Vec<T>,
    /// Variances (divided by the count).
    pub variance: Vec<T>,
    /// Values that share a mean.
    pub count: usize,
}

impl Norm {
    fn len(&self) -> Result<usize, Error> {
        for (parameter, value) in [("channels", self.channels), ("pixels", self.pixels)] {
            if value == 0 {
                return Err(Error::Parameter { parameter, value, reason: "it must be at least 1" });
            }
        }
        if !(self.epsilon >= 0.0 && self.epsilon.is_finite()) {
            let (value, reason) = (self.epsilon, "it must be a finite number from 0 on");
            return Err(Error::Number { parameter: "epsilon", value, reason });
        }
        let len = self.batch.max(1).checked_mul(self.channels).and_then(|len| len.checked_mul(self.pixels));
        let too_large = || Error::TooLarge { what: "src", problem: format!("{self:?}"), bits: usize::BITS };
        let len = len.filter(|&len| len <= isize::MAX as usize / 8).ok_or_else(too_large)?;
        Ok(if self.batch == 0 { 0 } else { len })
    }

    fn check(&self, operand: &'static str, expected: usize, got: usize) -> Result<(), Error> {
        if got == expected {
            return Ok(());
        }
        let shape = match (expected == self.channels, self.layout) {
            (true, _) => format!("[{}], one per channel,", self.channels),
            (_, Layout::Nchw) => format!("[{}, {}, {}] NCHW", self.batch, self.channels, self.pixels),
            (_, Layout::Nhwc) => format!("[{}, {}, {}] NHWC", self.batch, self.pixels, self.channels),
        };
        Err(Error::Length { operand, shape, expected, got, hint: String::new() })
    }

    /// Groups of values that share a mean, and values of one.
    fn groups(&self) -> (usize, usize) {
        match self.statistics {
            Statistics::Batch => (self.channels, self.batch * self.pixels),
            Statistics::Instance => (self.batch * self.channels, self.pixels),
        }
    }

    /// The group of channel `c` of image `n`.
    fn group(&self, n: usize, c: usize) -> usize {
        match self.statistics {
            Statistics::Batch => c,
            Statistics::Instance => n * self.channels + c,
        }
    }

    /// `dst = gamma * (src - mean) / sqrt(var + eps) + beta`, with the statistics of `src`: training. O(elements).
    ///
    /// # Errors
    /// No channels or pixels, or slices of the wrong length.
    pub fn forward<T: Real>(
        &self,
        src: &[T],
        gamma: &[T],
        beta: &[T],
        dst: &mut [T],
        isa: Isa,
        par: Par<'_>,
    ) -> Result<Saved<T>, Error> {
        self.check("src", self.len()?, src.len())?;
        self.check("dst", src.len(), dst.len())?;
        self.check("gamma", self.channels, gamma.len())?;
        self.check("beta", self.channels, beta.len())?;
        let (groups, count) = self.groups();
        let zeros = vec![T::default(); groups];
        let scale = T::from_f64(1.0 / count.max(1) as f64);
        let means = |[sums]: [Vec<T>; 1]| sums.into_iter().map(|sum| sum * scale).collect::<Vec<T>>();
        let mean = means(self.sums([src, src], &zeros, |x, _, _| [x], isa, par));
        let variance = means(self.sums([src, src], &mean, |x, _, mean| [(x - mean) * (x - mean)], isa, par));
        let saved = Saved { mean, variance, count };
        self.inference(src, gamma, beta, &saved, dst, isa, par)?;
        Ok(saved)
    }

    /// The same with statistics from elsewhere (for batches: running means): inference. O(elements).
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and statistics of another number of groups.
    ///
    /// ```
    /// use convolve_core::{Layout, Par};
    /// use convolve_layers::{Norm, Saved, Statistics};
    /// use convolve_simd::Isa;
    /// let norm = Norm { batch: 1, channels: 1, pixels: 2, layout: Layout::Nhwc, statistics: Statistics::Batch, epsilon: 1.0 };
    /// let running = Saved { mean: vec![1.0f32], variance: vec![3.0], count: 100 };
    /// let mut dst = [0.0; 2];
    /// norm.inference(&[1.0, 5.0], &[1.0], &[0.5], &running, &mut dst, Isa::best(), Par::Seq)?;
    /// assert_eq!(dst, [0.5, 2.5]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    #[expect(clippy::too_many_arguments, reason = "a pass has five inputs, an output, and who computes it")]
    pub fn inference<T: Real>(
        &self,
        src: &[T],
        gamma: &[T],
        beta: &[T],
        saved: &Saved<T>,
        dst: &mut [T],
        isa: Isa,
        par: Par<'_>,
    ) -> Result<(), Error> {
        self.check("src", self.len()?, src.len())?;
        self.check("dst", src.len(), dst.len())?;
        self.check("gamma", self.channels, gamma.len())?;
        self.check("beta", self.channels, beta.len())?;
        self.check_saved(saved)?;
        let factors = self.factors(gamma, saved);
        let shifts = self.by_group(beta);
        let of = [&saved.mean, &factors, &shifts, &shifts].map(Vec::as_slice);
        let value = |x, _, [mean, factor, shift, _]: [T; 4]| (x - mean) * factor + shift;
        self.map([src, src], dst, of, value, Update::Overwrite, isa, par);
        Ok(())
    }

    /// The gradients: `diff_src` is replaced or added to, and so are `diff_gamma` and `diff_beta`. `saved` is what
    /// [`forward`](Self::forward) gave. O(elements).
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    ///
    /// ```
    /// use convolve_core::{Layout, Par, Update};
    /// use convolve_layers::{Norm, Statistics};
    /// use convolve_simd::Isa;
    /// let norm = Norm { batch: 2, channels: 1, pixels: 2, layout: Layout::Nchw, statistics: Statistics::Batch, epsilon: 0.0 };
    /// let (src, mut dst) = ([1.0f64, 1.0, 3.0, 3.0], [0.0; 4]);
    /// let saved = norm.forward(&src, &[10.0], &[5.0], &mut dst, Isa::best(), Par::Seq)?;
    /// let (mut diff_src, mut diff_gamma, mut diff_beta) = ([0.0; 4], [0.0], [0.0]);
    /// let gradients = [&mut diff_src[..], &mut diff_gamma, &mut diff_beta];
    /// norm.backward(&src, &[1.0, 0.0, 0.0, 0.0], &[10.0], &saved, gradients, Update::Overwrite, Isa::best(), Par::Seq)?;
    /// assert_eq!((diff_src, diff_gamma, diff_beta), ([5.0, -5.0, 0.0, 0.0], [-1.0], [1.0]));
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    #[expect(
        clippy::too_many_arguments,
        reason = "a pass has four inputs, three outputs, and what to do with them"
    )]
    pub fn backward<T: Real>(
        &self,
        src: &[T],
        diff_dst: &[T],
        gamma: &[T],
        saved: &Saved<T>,
        [diff_src, diff_gamma, diff_beta]: [&mut [T]; 3],
        update: Update,
        isa: Isa,
        par: Par<'_>,
    ) -> Result<(), Error> {
        self.check("src", self.len()?, src.len())?;
        self.check("diff_dst", src.len(), diff_dst.len())?;
        self.check("diff_src", src.len(), diff_src.len())?;
        self.check("gamma", self.channels, gamma.len())?;
        self.check("diff_gamma", self.channels, diff_gamma.len())?;
        self.check("diff_beta", self.channels, diff_beta.len())?;
        self.check_saved(saved)?;
        let factors = self.factors(gamma, saved);
        let inverse: Vec<T> = saved.variance.iter().map(|&variance| self.inverse(variance)).collect();
        let [mut of_dy, mut of_product] =
            self.sums([src, diff_dst], &saved.mean, |x, dy, mean| [dy, dy * (x - mean)], isa, par);
        if update == Update::Overwrite {
            diff_gamma.fill(T::default());
            diff_beta.fill(T::default());
        }
        let scale = T::from_f64(1.0 / saved.count.max(1) as f64);
        for g in 0..of_dy.len() {
            let c = g % self.channels;
            diff_beta[c] = diff_beta[c] + of_dy[g];
            diff_gamma[c] = diff_gamma[c] + of_product[g] * inverse[g];
            of_dy[g] = of_dy[g] * scale;
            // x_hat * mean(dy * x_hat) = (x - mean) * this
            of_product[g] = of_product[g] * scale * inverse[g] * inverse[g];
        }
        let of = [&saved.mean, &factors, &of_dy, &of_product].map(Vec::as_slice);
        let gradient = |x, dy, [mean, factor, of_dy, of_product]: [T; 4]| {
            factor * (dy - of_dy - (x - mean) * of_product)
        };
        self.map([src, diff_dst], diff_src, of, gradient, update, isa, par);
        Ok(())
    }

    fn check_saved<T>(&self, saved: &Saved<T>) -> Result<(), Error> {
        let (expected, _) = self.groups();
        for (operand, got) in [("saved.mean", saved.mean.len()), ("saved.variance", saved.variance.len())] {
            if got != expected {
                let shape = format!("{:?} normalisation of {self:?}", self.statistics);
                return Err(Error::Length { operand, shape, expected, got, hint: String::new() });
            }
        }
        Ok(())
    }

    /// `1 / sqrt(var + eps)`.
    fn inverse<T: Real>(&self, variance: T) -> T {
        T::from_f64(1.0) / (variance + T::from_f64(self.epsilon)).sqrt()
    }

    /// `gamma / sqrt(var + eps)` per group.
    fn factors<T: Real>(&self, gamma: &[T], saved: &Saved<T>) -> Vec<T> {
        saved
            .variance
            .iter()
            .enumerate()
            .map(|(g, &var)| gamma[g % self.channels] * self.inverse(var))
            .collect()
    }

    /// What every channel has, for every group.
    fn by_group<T: Real>(&self, of_channel: &[T]) -> Vec<T> {
        (0..self.groups().0).map(|g| of_channel[g % self.channels]).collect()
    }

    /// Numbers that lie together: those of a channel of an image, or of an image; and of a part of them, whole pixels.
    fn parts(&self) -> (usize, usize) {
        match self.layout {
            Layout::Nchw => (self.pixels, PART.min(self.pixels)),
            Layout::Nhwc => {
                let pixels = (PART / self.channels).max(LINE).min(self.pixels);
                (self.pixels * self.channels, pixels * self.channels)
            }
        }
    }

    /// The groups that such numbers are of.
    fn groups_of(&self, unit: usize) -> Range<usize> {
        match self.layout {
            Layout::Nchw => {
                let g = self.group(unit / self.channels, unit % self.channels);
                g..g + 1
            }
            Layout::Nhwc => self.group(unit, 0)..self.group(unit, 0) + self.channels,
        }
    }

    /// `to[i] = f(a[i], b[i], of[..][group])`, or that is added.
    #[expect(clippy::too_many_arguments, reason = "what is mapped, how, and who does it")]
    fn map<T: Real>(
        &self,
        [a, b]: [&[T]; 2],
        to: &mut [T],
        of: [&[T]; 4],
        f: impl Fn(T, T, [T; 4]) -> T + Sync,
        update: Update,
        isa: Isa,
        par: Par<'_>,
    ) {
        let (unit, part) = self.parts();
        let units = to.len() / unit;
        let cuts = [
            Cut { unit: units.max(1), block: (PART / unit).max(1) },
            Cut::whole(1),
            Cut { unit, block: part },
        ];
        BlockMut::new(to, [units, 1, unit]).for_each_piece(
            cuts,
            par,
            &mut [],
            0,
            &|[units, _, numbers], mut to, _| {
                for (i, at) in units.enumerate() {
                    let place = at * unit + numbers.start..at * unit + numbers.end;
                    let (operands, to) = ([&a[place.clone()], &b[place]], to.row(i, 0));
                    let of = of.map(|of| &of[self.groups_of(at)]);
                    match update {
                        Update::Overwrite => dispatch!(isa, s => s.vectorize(#[inline(always)] |_| {
                            mapped(operands, to, of, #[inline(always)] |_, a, b, of| f(a, b, of));
                        })),
                        Update::Accumulate => dispatch!(isa, s => s.vectorize(#[inline(always)] |_| {
                            mapped(operands, to, of, #[inline(always)] |to, a, b, of| to + f(a, b, of));
                        })),
                    }
                }
            },
        );
    }

    /// K sums per group of `f(a, b, of the group)`.
    fn sums<T: Real, const K: usize>(
        &self,
        [a, b]: [&[T]; 2],
        of: &[T],
        f: impl Fn(T, T, T) -> [T; K] + Sync,
        isa: Isa,
        par: Par<'_>,
    ) -> [Vec<T>; K] {
        let (unit, part) = self.parts();
        let (units, parts) = (a.len() / unit, unit.div_ceil(part));
        let channels = if self.layout == Layout::Nchw { 1 } else { self.channels };
        let mut of_parts = vec![[T::default(); K]; units * parts * channels];
        let cuts = [
            Cut { unit: units.max(1), block: (PART / unit).max(1) },
            Cut { unit: parts, block: 1 },
            Cut::whole(channels),
        ];
        let block = BlockMut::new(&mut of_parts, [units, parts, channels]);
        block.for_each_piece(cuts, par, &mut [], 0, &|[units, parts, _], mut sums, _| {
            for (i, at) in units.enumerate() {
                for (j, k) in parts.clone().enumerate() {
                    let place = at * unit + k * part..at * unit + ((k + 1) * part).min(unit);
                    let (a, b, of) = (&a[place.clone()], &b[place], &of[self.groups_of(at)]);
                    let sums = sums.row(i, j);
                    if channels == 1 {
                        dispatch!(isa, s => s.vectorize(#[inline(always)] |_| {
                            sums[0] = interleaved(a, b, of[0], &f);
                        }));
                    } else {
                        dispatch!(isa, s => s.vectorize(#[inline(always)] |_| {
                            by_pixel(a, b, of, sums, &f);
                        }));
                    }
                }
            }
        });
        let mut sums: [Vec<T>; K] = core::array::from_fn(|_| vec![T::default(); self.groups().0]);
        for (at, of_unit) in of_parts.chunks_exact(parts * channels).enumerate() {
            for of_part in of_unit.chunks_exact(channels) {
                for (g, of_group) in self.groups_of(at).zip(of_part) {
                    sums.iter_mut().zip(of_group).for_each(|(sums, &x)| sums[g] = sums[g] + x);
                }
            }
        }
        sums
    }
}

/// `to = f(to, a, b, of)`: of one group, or pixel by pixel of as many groups as channels.
#[inline(always)]
fn mapped<T: Real>([a, b]: [&[T]; 2], to: &mut [T], of: [&[T]; 4], f: impl Fn(T, T, T, [T; 4]) -> T) {
    let channels = of[0].len();
    if channels == 1 {
        let of = of.map(|of| of[0]);
        for ((a, b), to) in a.iter().zip(b).zip(to) {
            *to = f(*to, *a, *b, of);
        }
        return;
    }
    let [first, second, third, fourth] = of.map(|of| &of[..channels]);
    let pixels = a.chunks_exact(channels).zip(b.chunks_exact(channels)).zip(to.chunks_exact_mut(channels));
    for ((a, b), to) in pixels {
        for c in 0..channels {
            to[c] = f(to[c], a[c], b[c], [first[c], second[c], third[c], fourth[c]]);
        }
    }
}

/// K sums for every channel, pixel by pixel.
#[inline(always)]
fn by_pixel<T: Real, const K: usize>(
    a: &[T],
    b: &[T],
    of: &[T],
    sums: &mut [[T; K]],
    f: &impl Fn(T, T, T) -> [T; K],
) {
    sums.fill([T::default(); K]);
    let channels = sums.len();
    for (a, b) in a.chunks_exact(channels).zip(b.chunks_exact(channels)) {
        for (((a, b), of), sums) in a.iter().zip(b).zip(of).zip(&mut *sums) {
            let x = f(*a, *b, *of);
            for k in 0..K {
                sums[k] = sums[k] + x[k];
            }
        }
    }
}

/// K sums in [`LINE`] interleaved parts, which are then added one after the other.
#[inline(always)]
fn interleaved<T: Real, const K: usize>(a: &[T], b: &[T], of: T, f: &impl Fn(T, T, T) -> [T; K]) -> [T; K] {
    let mut parts = [[T::default(); LINE]; K];
    let ((lines_a, rest_a), (lines_b, rest_b)) = (a.as_chunks::<LINE>(), b.as_chunks::<LINE>());
    for (a, b) in lines_a.iter().zip(lines_b) {
        for i in 0..LINE {
            let x = f(a[i], b[i], of);
            for k in 0..K {
                parts[k][i] = parts[k][i] + x[k];
            }
        }
    }
    for (i, (a, b)) in rest_a.iter().zip(rest_b).enumerate() {
        let x = f(*a, *b, of);
        for k in 0..K {
            parts[k][i] = parts[k][i] + x[k];
        }
    }
    parts.map(|parts| parts.into_iter().fold(T::default(), |sum, part| sum + part))
}
