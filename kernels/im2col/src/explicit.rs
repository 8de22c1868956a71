//! Textbook im2col: build the patch matrix, call a GEMM of another author. The independent cross-check of every other algorithm, the
//! baseline row of every report, and (in f64) what gradient checks use.
//!
//! With `P[(ic, kh, kw), (oh, ow)] = src[ic, oh*stride + kh*dilation - top, ow*stride + kw*dilation - left]` (zero in the padding), per image and group:
//!
//! ```text
//! forward            dst  = W P
//! backward-data      diff_src = col2im(W^T diff_dst)      (every column of the product is added back to the pixels it came from)
//! backward-weights   diff_W += diff_dst P^T
//! ```
//!
//! It shares nothing with the other algorithms: no phases (the scatter-add is a second opinion on them), no packing, no micro-kernel.

use convolve_core::{
    Algorithm, BackwardData, BackwardDataArgs, BackwardWeights, BackwardWeightsArgs, Epilogue, Estimate,
    Execute, Forward, ForwardArgs, Geometry, Layout, Par, Problem, Tasks, Unsupported, Update, WeightLayout,
    lines,
};
use core::ops::AddAssign;

/// A number that `matrixmultiply` multiplies: f32 or f64.
///
/// ```
/// use convolve_im2col::explicit::Element;
/// let mut c = [0.0f64];
/// f64::gemm([1, 2, 1], (&[1.0, 2.0], [2, 1]), (&[3.0, 4.0], [1, 1]), 0.0, (&mut c, [1, 1]));
/// assert_eq!(c, [11.0]);
/// ```
pub trait Element: Copy + Default + AddAssign + Send + Sync + 'static {
    /// `C = A B + beta C` for `[m, k, n]`; each matrix with its strides `[row, column]`.
    ///
    /// # Panics
    /// When a matrix does not fit its slice.
    fn gemm(
        size: [usize; 3],
        a: (&[Self], [usize; 2]),
        b: (&[Self], [usize; 2]),
        beta: Self,
        c: (&mut [Self], [usize; 2]),
    );
}

/// One past the last element of a matrix.
fn extent([rows, columns]: [usize; 2], strides: [usize; 2]) -> usize {
    if rows == 0 || columns == 0 { 0 } else { (rows - 1) * strides[0] + (columns - 1) * strides[1] + 1 }
}

macro_rules! element {
    ($number:ty, $gemm:path) => {
        impl Element for $number {
            #[allow(unsafe_code, reason = "the door to a crate whose interface is raw pointers")]
            fn gemm(
                [m, k, n]: [usize; 3],
                (a, sa): (&[Self], [usize; 2]),
                (b, sb): (&[Self], [usize; 2]),
                beta: Self,
                (c, sc): (&mut [Self], [usize; 2]),
            ) {
                assert!(extent([m, k], sa) <= a.len(), "A is outside its slice");
                assert!(extent([k, n], sb) <= b.len(), "B is outside its slice");
                assert!(extent([m, n], sc) <= c.len(), "C is outside its slice");
                assert!(
                    m <= 1 || n <= 1 || sc[0] >= extent([1, n], sc) || sc[1] >= extent([m, 1], sc),
                    "C overlaps itself"
                );
                let [rsa, csa, rsb, csb, rsc, csc] =
                    [sa[0], sa[1], sb[0], sb[1], sc[0], sc[1]].map(|stride| stride as isize);
                let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
                // SAFETY: all three matrices lie inside their slices and C does not overlap itself, as asserted; `c` is borrowed mutably.
                unsafe { $gemm(m, k, n, 1.0, a, rsa, csa, b, rsb, csb, beta, c, rsc, csc) };
            }
        }
    };
}
element!(f32, matrixmultiply::sgemm);
element!(f64, matrixmultiply::dgemm);

/// What the three passes share: the patch matrix of one image and group, and the strides of the other two matrices.
#[derive(Clone, Copy)]
struct Matrices {
    geometry: Geometry,
}

impl Matrices {
    fn depth(&self) -> usize {
        self.geometry.group_in() * self.geometry.taps()
    }

    fn pixels(&self) -> usize {
        self.geometry.output()[0] * self.geometry.output()[1]
    }

    fn patches_len(&self) -> usize {
        self.depth() * self.pixels()
    }

    /// Strides of W as `[oc, (row of P)]`. Rows of P are in the order of the weights, so they have one stride.
    fn weights(&self) -> [usize; 2] {
        let strides = self.geometry.weights();
        match self.geometry.conv().weight_layout {
            WeightLayout::Oihw | WeightLayout::Ohwi => [strides.oc, 1],
            WeightLayout::Hwio => [1, strides.ic],
        }
    }

    /// Strides of dst as `[oc, pixel]`.
    fn dst(&self) -> [usize; 2] {
        [self.geometry.dst().channel, self.geometry.dst().column]
    }

    /// First weight, and first element of dst, of a group of an image.
    fn starts(&self, image: usize, group: usize) -> [usize; 2] {
        let channel = group * self.geometry.group_out();
        let dst = self.geometry.dst();
        [self.geometry.weights().oc * channel, image * dst.image + channel * dst.channel]
    }

    /// Visits P: `(row of P, first column, offsets of src for consecutive columns)`; a column in the padding is not visited.
    fn for_each_patch(&self, image: usize, group: usize, mut visit: impl FnMut(usize, usize)) {
        let conv = self.geometry.conv();
        let (src, [[top, _], [left, _]]) = (self.geometry.src(), self.geometry.padding());
        let ([kh, kw], [oh, ow]) = (conv.kernel, self.geometry.output());
        let channels = self.geometry.group_in();
        let inside = |o: usize, k: usize, axis: usize, before: usize| {
            (o * conv.stride[axis] + k * conv.dilation[axis])
                .checked_sub(before)
                .filter(|&i| i < conv.input[axis])
        };
        for (c, (ky, kx)) in
            (0..channels).flat_map(|c| (0..kh).flat_map(move |y| (0..kw).map(move |x| (c, (y, x)))))
        {
            let row = match conv.weight_layout {
                WeightLayout::Oihw => (c * kh + ky) * kw + kx,
                WeightLayout::Ohwi | WeightLayout::Hwio => (ky * kw + kx) * channels + c,
            };
            let start = image * src.image + (group * channels + c) * src.channel;
            for y in 0..oh {
                let Some(iy) = inside(y, ky, 0, top) else { continue };
                for x in 0..ow {
                    let Some(ix) = inside(x, kx, 1, left) else { continue };
                    visit(row * self.pixels() + y * ow + x, start + iy * src.row + ix * src.column);
                }
            }
        }
    }

    fn fill<T: Element>(&self, src: &[T], image: usize, group: usize, patches: &mut [T]) {
        patches.fill(T::default());
        self.for_each_patch(image, group, |at, from| patches[at] = src[from]);
    }

    fn for_each(&self, mut f: impl FnMut(usize, usize)) {
        let conv = self.geometry.conv();
        (0..conv.batch).for_each(|image| (0..conv.groups).for_each(|group| f(image, group)));
    }

    fn forward<T: Element>(&self, src: &[T], weights: &[T], dst: &mut [T], patches: &mut [T]) {
        self.for_each(|image, group| {
            self.fill(src, image, group, patches);
            let [w, d] = self.starts(image, group);
            let size = [self.geometry.group_out(), self.depth(), self.pixels()];
            let patches = (&*patches, [self.pixels(), 1]);
            T::gemm(
                size,
                (&weights[w..], self.weights()),
                patches,
                T::default(),
                (&mut dst[d..], self.dst()),
            );
        });
    }

    /// Adds to `diff_src`.
    fn backward_data<T: Element>(
        &self,
        diff_dst: &[T],
        weights: &[T],
        diff_src: &mut [T],
        patches: &mut [T],
    ) {
        self.for_each(|image, group| {
            let [w, d] = self.starts(image, group);
            let size = [self.depth(), self.geometry.group_out(), self.pixels()];
            let [oc, row] = self.weights();
            let product = (&mut *patches, [self.pixels(), 1]);
            T::gemm(size, (&weights[w..], [row, oc]), (&diff_dst[d..], self.dst()), T::default(), product);
            self.for_each_patch(image, group, |at, to| diff_src[to] += patches[at]);
        });
    }

    /// Adds to `diff_weights`.
    fn backward_weights<T: Element>(
        &self,
        src: &[T],
        diff_dst: &[T],
        one: T,
        diff_weights: &mut [T],
        patches: &mut [T],
    ) {
        self.for_each(|image, group| {
            self.fill(src, image, group, patches);
            let [w, d] = self.starts(image, group);
            let size = [self.geometry.group_out(), self.pixels(), self.depth()];
            let transposed = (&*patches, [1, self.pixels()]);
            let gradient = (&mut diff_weights[w..], self.weights());
            T::gemm(size, (&diff_dst[d..], self.dst()), transposed, one, gradient);
        });
    }
}

/// Forward in f32 or f64: `dst = src * weights`. Allocates the patch matrix of one image.
///
/// # Panics
/// When a slice does not have the length of its tensor.
///
/// ```
/// use convolve_core::Conv2d;
/// let geometry = Conv2d::new(1, 1, [1, 2]).input([1, 3]).geometry()?;
/// assert_eq!(convolve_im2col::explicit::forward(&geometry, &[1.0f64, 2.0, 5.0], &[-1.0, 1.0]), [1.0, 3.0]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
pub fn forward<T: Element>(geometry: &Geometry, src: &[T], weights: &[T]) -> Vec<T> {
    assert_eq!((src.len(), weights.len()), (geometry.src_len(), geometry.weights_len()));
    let matrices = Matrices { geometry: *geometry };
    let mut dst = vec![T::default(); geometry.dst_len()];
    matrices.forward(src, weights, &mut dst, &mut vec![T::default(); matrices.patches_len()]);
    dst
}

/// Backward-data in f32 or f64, by scatter-add (col2im).
///
/// # Panics
/// When a slice does not have the length of its tensor.
///
/// ```
/// use convolve_core::Conv2d;
/// let geometry = Conv2d::new(1, 1, [1, 2]).input([1, 3]).geometry()?;
/// assert_eq!(convolve_im2col::explicit::backward_data(&geometry, &[1.0f64, 10.0], &[-1.0, 1.0]), [-1.0, -9.0, 10.0]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
pub fn backward_data<T: Element>(geometry: &Geometry, diff_dst: &[T], weights: &[T]) -> Vec<T> {
    assert_eq!((diff_dst.len(), weights.len()), (geometry.dst_len(), geometry.weights_len()));
    let matrices = Matrices { geometry: *geometry };
    let mut diff_src = vec![T::default(); geometry.src_len()];
    matrices.backward_data(diff_dst, weights, &mut diff_src, &mut vec![T::default(); matrices.patches_len()]);
    diff_src
}

/// Backward-weights in f32 or f64.
///
/// # Panics
/// When a slice does not have the length of its tensor.
///
/// ```
/// use convolve_core::Conv2d;
/// let geometry = Conv2d::new(1, 1, [1, 2]).input([1, 3]).geometry()?;
/// assert_eq!(convolve_im2col::explicit::backward_weights(&geometry, &[1.0f64, 2.0, 5.0], &[1.0, 10.0]), [21.0, 52.0]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
pub fn backward_weights<T: Element + From<u8>>(geometry: &Geometry, src: &[T], diff_dst: &[T]) -> Vec<T> {
    assert_eq!((src.len(), diff_dst.len()), (geometry.src_len(), geometry.dst_len()));
    let matrices = Matrices { geometry: *geometry };
    let mut gradient = vec![T::default(); geometry.weights_len()];
    let patches = &mut vec![T::default(); matrices.patches_len()];
    matrices.backward_weights(src, diff_dst, T::from(1), &mut gradient, patches);
    gradient
}

/// Explicit im2col on the crate `matrixmultiply`; serial.
///
/// ```
/// use convolve_core::{Algorithm, Forward};
/// assert_eq!(Algorithm::<Forward>::name(&convolve_im2col::Matrixmultiply), "im2col-matrixmultiply");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Matrixmultiply;

impl Matrixmultiply {
    const NAME: &'static str = "im2col-matrixmultiply";

    /// `weights`: nanoseconds per weight and image.
    fn estimate(problem: &Problem, weights: f64) -> Result<Estimate, Unsupported> {
        let matrices = Matrices { geometry: problem.geometry };
        let bytes =
            matrices.depth().checked_mul(matrices.pixels()).and_then(|len| len.checked_mul(size_of::<f64>()));
        if bytes.is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(Unsupported("the patch matrix does not fit the address space"));
        }
        let (macs, patches) = (problem.geometry.macs() as f64, matrices.patches_len() as f64);
        let images = (problem.geometry.conv().batch * problem.geometry.conv().groups) as f64;
        // About 0.6 of the peak of AVX2 at 3.5 GHz for the product, two cycles for each element of P and for each weight that is
        // packed again for each image, each call some hundreds.
        let weights = weights * problem.geometry.weights_len() as f64 * problem.geometry.conv().batch as f64;
        let ns = macs / 34.0 + images * (patches * 0.5 + 300.0) + weights + 100.0;
        Ok(Estimate {
            workspace: lines(matrices.patches_len()),
            packed: problem.geometry.weights_len(),
            ..Estimate::new([ns * Estimate::GHZ, 0.0, 0.0], &Tasks::line(1, 1), 1)
        })
    }
}

struct Runner(Matrices);

macro_rules! algorithm {
    ($pass:ident, $weights:literal) => {
        impl Algorithm<$pass> for Matrixmultiply {
            fn name(&self) -> &'static str {
                Self::NAME
            }
            fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
                Self::estimate(problem, $weights)
            }
            fn build(&self, problem: &Problem) -> Box<dyn Execute<$pass>> {
                Box::new(Runner(Matrices { geometry: problem.geometry }))
            }
        }
    };
}
algorithm!(Forward, 0.6);
algorithm!(BackwardData, 0.6);
algorithm!(BackwardWeights, 0.1);

impl Execute<Forward> for Runner {
    fn packed_len(&self) -> usize {
        self.0.geometry.weights_len()
    }

    fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        packed.copy_from_slice(weights);
    }

    fn workspace_len(&self) -> usize {
        lines(self.0.patches_len())
    }

    fn run(&self, args: ForwardArgs<'_>, workspace: &mut [f32], _: Par<'_>) {
        let ForwardArgs { src, weights, dst, epilogue } = args;
        self.0.forward(src, weights, dst, &mut workspace[..self.0.patches_len()]);
        finish(&self.0.geometry, dst, epilogue);
    }
}

impl Execute<BackwardData> for Runner {
    fn packed_len(&self) -> usize {
        self.0.geometry.weights_len()
    }

    fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        packed.copy_from_slice(weights);
    }

    fn workspace_len(&self) -> usize {
        lines(self.0.patches_len())
    }

    fn run(&self, args: BackwardDataArgs<'_>, workspace: &mut [f32], _: Par<'_>) {
        let BackwardDataArgs { diff_dst, weights, diff_src, update } = args;
        if update == Update::Overwrite {
            diff_src.fill(0.0);
        }
        self.0.backward_data(diff_dst, weights, diff_src, &mut workspace[..self.0.patches_len()]);
    }
}

impl Execute<BackwardWeights> for Runner {
    fn workspace_len(&self) -> usize {
        lines(self.0.patches_len())
    }

    fn run(&self, args: BackwardWeightsArgs<'_>, workspace: &mut [f32], _: Par<'_>) {
        let BackwardWeightsArgs { src, diff_dst, diff_weights, update } = args;
        if update == Update::Overwrite {
            diff_weights.fill(0.0);
        }
        self.0.backward_weights(src, diff_dst, 1.0, diff_weights, &mut workspace[..self.0.patches_len()]);
    }
}

/// The epilogue as a pass of its own.
fn finish(geometry: &Geometry, dst: &mut [f32], epilogue: Epilogue<'_>) {
    let channels = geometry.conv().out_channels;
    let row = match geometry.conv().layout {
        Layout::Nchw => geometry.output()[0] * geometry.output()[1],
        Layout::Nhwc => channels,
    };
    let [min, max] = epilogue.early_clamp();
    let clamp = Epilogue::NONE.activation(convolve_core::Activation::Clamp { min, max }).activation;
    for (i, row) in dst.chunks_exact_mut(row).enumerate() {
        for (j, x) in row.iter_mut().enumerate() {
            let channel = if geometry.conv().layout == Layout::Nhwc { j } else { i % channels };
            *x = clamp.apply(*x + epilogue.bias.map_or(0.0, |bias| bias[channel]));
        }
        epilogue.finish(row, i * row.len());
    }
}
