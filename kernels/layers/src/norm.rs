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
//! cancels. Sums run in sixteen interleaved parts over pixels (NCHW) or pixel by pixel (NHWC), image by image: a fixed order. The code is
//! generic in the number, so that gradients can be checked in f64; loops are plain and compiled for the instruction set that is asked for.

use convolve_core::{Error, LINE, Layout, Update};
use convolve_simd::{Isa, Simd, dispatch};
use core::ops::{Add, Div, Mul, Sub};

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
/// use convolve_core::{Layout, Update};
/// use convolve_layers::{Norm, Statistics};
/// use convolve_simd::Isa;
/// let norm = Norm { batch: 2, channels: 1, pixels: 2, layout: Layout::Nchw, statistics: Statistics::Batch, epsilon: 0.0 };
/// let (src, mut dst) = ([1.0f32, 1.0, 3.0, 3.0], [0.0; 4]);
/// let saved = norm.forward(&src, &[10.0], &[5.0], &mut dst, Isa::best())?;
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
    /// What is added to a variance.
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
    ) -> Result<Saved<T>, Error> {
        self.check("src", self.len()?, src.len())?;
        self.check("dst", src.len(), dst.len())?;
        let (groups, count) = self.groups();
        let zeros = vec![T::default(); groups];
        let scale = T::from_f64(1.0 / count.max(1) as f64);
        let means = |sums: Vec<T>| sums.into_iter().map(|sum| sum * scale).collect::<Vec<T>>();
        let [sums, _] = self.sums(isa, [src, src], &zeros, |x, _, _| [x, x]);
        let mean = means(sums);
        let [sums, _] = self.sums(isa, [src, src], &mean, |x, _, mean| [(x - mean) * (x - mean), x]);
        let saved = Saved { mean, variance: means(sums), count };
        self.inference(src, gamma, beta, &saved, dst, isa)?;
        Ok(saved)
    }

    /// The same with statistics from elsewhere (for batches: running means): inference. O(elements).
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and statistics of another number of groups.
    ///
    /// ```
    /// use convolve_core::Layout;
    /// use convolve_layers::{Norm, Saved, Statistics};
    /// use convolve_simd::Isa;
    /// let norm = Norm { batch: 1, channels: 1, pixels: 2, layout: Layout::Nhwc, statistics: Statistics::Batch, epsilon: 1.0 };
    /// let running = Saved { mean: vec![1.0f32], variance: vec![3.0], count: 100 };
    /// let mut dst = [0.0; 2];
    /// norm.inference(&[1.0, 5.0], &[1.0], &[0.5], &running, &mut dst, Isa::best())?;
    /// assert_eq!(dst, [0.5, 2.5]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn inference<T: Real>(
        &self,
        src: &[T],
        gamma: &[T],
        beta: &[T],
        saved: &Saved<T>,
        dst: &mut [T],
        isa: Isa,
    ) -> Result<(), Error> {
        self.check("src", self.len()?, src.len())?;
        self.check("dst", src.len(), dst.len())?;
        self.check("gamma", self.channels, gamma.len())?;
        self.check("beta", self.channels, beta.len())?;
        self.check_saved(saved)?;
        let factors = self.factors(gamma, saved);
        // y = (x - mean) * factor + beta
        self.map(isa, [src, src], dst, |x, _, g, c| (x - saved.mean[g]) * factors[g] + beta[c]);
        Ok(())
    }

    /// The gradients: `diff_src` is replaced or added to, and so are `diff_gamma` and `diff_beta`. `saved` is what
    /// [`forward`](Self::forward) gave. O(elements).
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    ///
    /// ```
    /// use convolve_core::{Layout, Update};
    /// use convolve_layers::{Norm, Statistics};
    /// use convolve_simd::Isa;
    /// let norm = Norm { batch: 2, channels: 1, pixels: 2, layout: Layout::Nchw, statistics: Statistics::Batch, epsilon: 0.0 };
    /// let (src, mut dst) = ([1.0f64, 1.0, 3.0, 3.0], [0.0; 4]);
    /// let saved = norm.forward(&src, &[10.0], &[5.0], &mut dst, Isa::best())?;
    /// let (mut diff_src, mut diff_gamma, mut diff_beta) = ([0.0; 4], [0.0], [0.0]);
    /// let gradients = [&mut diff_src[..], &mut diff_gamma, &mut diff_beta];
    /// norm.backward(&src, &[1.0, 0.0, 0.0, 0.0], &[10.0], &saved, gradients, Update::Overwrite, Isa::best())?;
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
            self.sums(isa, [src, diff_dst], &saved.mean, |x, dy, mean| [dy, dy * (x - mean)]);
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
        let gradient =
            |x: T, dy: T, g: usize| factors[g] * (dy - of_dy[g] - (x - saved.mean[g]) * of_product[g]);
        match update {
            Update::Overwrite => self.map(isa, [src, diff_dst], diff_src, |x, dy, g, _| gradient(x, dy, g)),
            Update::Accumulate => {
                let mut fresh = vec![T::default(); diff_src.len()];
                self.map(isa, [src, diff_dst], &mut fresh, |x, dy, g, _| gradient(x, dy, g));
                diff_src.iter_mut().zip(fresh).for_each(|(to, x)| *to = *to + x);
            }
        }
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

    /// `to[i] = f(a[i], b[i], group, channel)`.
    fn map<T: Real>(&self, isa: Isa, [a, b]: [&[T]; 2], to: &mut [T], f: impl Fn(T, T, usize, usize) -> T) {
        let run = self.run();
        let operands = a.chunks_exact(run).zip(b.chunks_exact(run));
        for (i, ((a, b), to)) in operands.zip(to.chunks_exact_mut(run)).enumerate() {
            match self.layout {
                Layout::Nchw => {
                    let (g, c) = (self.group(i / self.channels, i % self.channels), i % self.channels);
                    dispatch!(isa, s => s.vectorize(#[inline(always)] |_| {
                        a.iter().zip(b).zip(to).for_each(|((a, b), to)| *to = f(*a, *b, g, c));
                    }));
                }
                Layout::Nhwc => {
                    let first = self.group(i / self.pixels, 0);
                    dispatch!(isa, s => s.vectorize(#[inline(always)] |_| {
                        a.iter().zip(b).zip(to).enumerate().for_each(|(c, ((a, b), to))| *to = f(*a, *b, first + c, c));
                    }));
                }
            }
        }
    }

    /// Two sums per group of `f(a, b, of the group)`.
    fn sums<T: Real>(
        &self,
        isa: Isa,
        [a, b]: [&[T]; 2],
        of: &[T],
        f: impl Fn(T, T, T) -> [T; 2],
    ) -> [Vec<T>; 2] {
        let (groups, _) = self.groups();
        let mut sums = [vec![T::default(); groups], vec![T::default(); groups]];
        let run = self.run();
        for (i, (a, b)) in a.chunks_exact(run).zip(b.chunks_exact(run)).enumerate() {
            let [first, second] = &mut sums;
            match self.layout {
                Layout::Nchw => {
                    let g = self.group(i / self.channels, i % self.channels);
                    let sum =
                        dispatch!(isa, s => s.vectorize(#[inline(always)] |_| interleaved(a, b, of[g], &f)));
                    (first[g], second[g]) = (first[g] + sum[0], second[g] + sum[1]);
                }
                Layout::Nhwc => {
                    let groups =
                        self.group(i / self.pixels, 0)..self.group(i / self.pixels, 0) + self.channels;
                    let (first, second) = (&mut first[groups.clone()], &mut second[groups.clone()]);
                    let of = &of[groups];
                    dispatch!(isa, s => s.vectorize(#[inline(always)] |_| {
                        for ((((a, b), of), first), second) in a.iter().zip(b).zip(of).zip(first).zip(second) {
                            let [x, y] = f(*a, *b, *of);
                            (*first, *second) = (*first + x, *second + y);
                        }
                    }));
                }
            }
        }
        sums
    }

    /// Neighbours that are looked at together: the pixels of a channel, or the channels of a pixel.
    fn run(&self) -> usize {
        if self.layout == Layout::Nchw { self.pixels } else { self.channels }
    }
}

/// Both sums in [`LINE`] interleaved parts, which are then added one after the other.
#[inline(always)]
fn interleaved<T: Real>(a: &[T], b: &[T], of: T, f: &impl Fn(T, T, T) -> [T; 2]) -> [T; 2] {
    let mut parts = [[T::default(); LINE]; 2];
    let ((lines_a, rest_a), (lines_b, rest_b)) = (a.as_chunks::<LINE>(), b.as_chunks::<LINE>());
    for (a, b) in lines_a.iter().zip(lines_b) {
        for i in 0..LINE {
            let [x, y] = f(a[i], b[i], of);
            (parts[0][i], parts[1][i]) = (parts[0][i] + x, parts[1][i] + y);
        }
    }
    for (i, (a, b)) in rest_a.iter().zip(rest_b).enumerate() {
        let [x, y] = f(*a, *b, of);
        (parts[0][i], parts[1][i]) = (parts[0][i] + x, parts[1][i] + y);
    }
    parts.map(|parts| parts.into_iter().fold(T::default(), |sum, part| sum + part))
}
