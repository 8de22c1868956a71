//! The definition: every window as a list of pixels, and both passes in a few lines of f64. Slow, exact to rounding, and independent of the
//! kernels; what a notebook computes.

use crate::{PoolGeometry, Reduction, Ties};
use convolve_core::Layout;

/// Calls `visit(output, pixels)` for every window, with offsets into `dst` and `src`; pixels row by row, those in the padding left out.
///
/// ```
/// use convolve_pool::{Pool2d, definition::for_each_window};
/// let geometry = Pool2d::max(1, 2).input(3).padding(1).geometry()?;
/// let mut windows = Vec::new();
/// for_each_window(&geometry, |output, pixels| windows.push((output, pixels.to_vec())));
/// assert_eq!(windows, [(0, vec![0]), (1, vec![1, 2]), (2, vec![3, 6]), (3, vec![4, 5, 7, 8])]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
pub fn for_each_window(geometry: &PoolGeometry, mut visit: impl FnMut(usize, &[usize])) {
    let (pool, output) = (geometry.pool(), geometry.output());
    let at = |[height, width]: [usize; 2], n: usize, c: usize, y: usize, x: usize| match pool.layout {
        Layout::Nchw => ((n * pool.channels + c) * height + y) * width + x,
        Layout::Nhwc => ((n * height + y) * width + x) * pool.channels + c,
    };
    let mut pixels = Vec::new();
    for n in 0..pool.batch {
        for c in 0..pool.channels {
            for oh in 0..output[0] {
                for ow in 0..output[1] {
                    pixels.clear();
                    for kh in geometry.taps(0, oh) {
                        for kw in geometry.taps(1, ow) {
                            let (y, x) = (geometry.pixel(0, oh, kh), geometry.pixel(1, ow, kw));
                            pixels.push(at(pool.input, n, c, y, x));
                        }
                    }
                    visit(at(output, n, c, oh, ow), &pixels);
                }
            }
        }
    }
}

/// The divisor of each output, in the order of `dst`.
fn divisors(geometry: &PoolGeometry) -> Vec<f64> {
    let (pool, [height, width]) = (geometry.pool(), geometry.output());
    let mut divisors = vec![0.0; geometry.dst_len()];
    for (i, divisor) in divisors.iter_mut().enumerate() {
        let (oh, ow) = match pool.layout {
            Layout::Nchw => (i / width % height, i % width),
            Layout::Nhwc => (i / pool.channels / width % height, i / pool.channels % width),
        };
        *divisor = f64::from(geometry.count(0, oh)) * f64::from(geometry.count(1, ow));
    }
    divisors
}

/// The greatest, or NaN.
fn greatest(src: &[f64], pixels: &[usize]) -> f64 {
    pixels.iter().fold(f64::NEG_INFINITY, |max, &i| if max.is_nan() || max > src[i] { max } else { src[i] })
}

/// Forward.
///
/// ```
/// use convolve_pool::{Pool2d, definition};
/// let geometry = Pool2d::average(1, [1, 2]).input([1, 4]).geometry()?;
/// assert_eq!(definition::forward(&geometry, &[1.0, 2.0, 3.0, 5.0]), [1.5, 4.0]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
///
/// # Panics
/// When `src` is too short.
pub fn forward(geometry: &PoolGeometry, src: &[f64]) -> Vec<f64> {
    let (mut dst, divisors) = (vec![0.0; geometry.dst_len()], divisors(geometry));
    for_each_window(geometry, |output, pixels| {
        dst[output] = match geometry.pool().reduction {
            Reduction::Max { .. } => greatest(src, pixels),
            Reduction::Average { .. } => pixels.iter().map(|&i| src[i]).sum::<f64>() / divisors[output],
        };
    });
    dst
}

/// Backward: the gradient of `src`.
///
/// ```
/// use convolve_pool::{Pool2d, definition};
/// let geometry = Pool2d::max(1, [1, 2]).input([1, 4]).geometry()?;
/// assert_eq!(definition::backward(&geometry, &[1.0, 2.0, 9.0, 5.0], &[10.0, 20.0]), [0.0, 10.0, 20.0, 0.0]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
///
/// # Panics
/// When a slice is too short.
pub fn backward(geometry: &PoolGeometry, src: &[f64], diff_dst: &[f64]) -> Vec<f64> {
    let (mut diff_src, divisors) = (vec![0.0; geometry.src_len()], divisors(geometry));
    for_each_window(geometry, |output, pixels| match geometry.pool().reduction {
        Reduction::Average { .. } => {
            pixels.iter().for_each(|&i| diff_src[i] += diff_dst[output] / divisors[output]);
        }
        Reduction::Max { ties } => {
            let max = greatest(src, pixels);
            let hits = pixels.iter().filter(|&&i| src[i] == max || src[i].is_nan());
            let all = if ties == Ties::All { usize::MAX } else { 1 };
            hits.take(all).for_each(|&i| diff_src[i] += diff_dst[output]);
        }
    });
    diff_src
}
