//! The nine numbers of a first lecture: `dst[y, x] = sum over i, j of src[y + i, x + j] * filter[i][j]`, large where the picture changes the
//! way the filter looks.
//!
//! Filters are applied as they are printed (cross-correlation). The vertical ones answer with a positive number where the picture is bright
//! on the left and dark on the right, the horizontal ones where it is bright above; the mirror image gives the negative number. As weights
//! of a convolution they are `FILTER.as_flattened()`, one output channel of one input channel.
//!
//! ```
//! use convolve::{Conv2d, Epilogue, filters, forward};
//! // The lecture's picture: 6 x 6, the left half bright.
//! let picture: Vec<f32> = (0..36).map(|i| if i % 6 < 3 { 10.0 } else { 0.0 }).collect();
//! let mut edges = [0.0; 16];
//! let conv = Conv2d::new(1, 1, 3).input(6);
//! forward(conv, &picture, filters::VERTICAL.as_flattened(), &mut edges, Epilogue::NONE)?;
//! assert_eq!(edges, [0.0, 30.0, 30.0, 0.0].repeat(4)[..]);
//!
//! // Several filters are several output channels of one convolution.
//! let both = [filters::SOBEL_VERTICAL, filters::SOBEL_HORIZONTAL].concat();
//! let mut answers = [0.0; 32];
//! forward(Conv2d::new(1, 2, 3).input(6), &picture, both.as_flattened(), &mut answers, Epilogue::NONE)?;
//! assert_eq!((&answers[..4], &answers[16..]), (&[0.0, 40.0, 40.0, 0.0][..], &[0.0; 16][..]));
//! # Ok::<(), convolve::Error>(())
//! ```

/// Three rows of three weights.
pub type Filter = [[f32; 3]; 3];

/// The lecture's vertical edge filter: bright left, dark right.
///
/// ```
/// # use convolve::filters;
/// assert!(filters::VERTICAL.iter().all(|row| row.iter().sum::<f32>() == 0.0));
/// ```
#[rustfmt::skip]
pub const VERTICAL: Filter = [
    [1.0, 0.0, -1.0],
    [1.0, 0.0, -1.0],
    [1.0, 0.0, -1.0],
];

/// The lecture's horizontal edge filter: bright above, dark below.
///
/// ```
/// # use convolve::filters;
/// assert_eq!(filters::HORIZONTAL, filters::transposed(filters::VERTICAL));
/// ```
#[rustfmt::skip]
pub const HORIZONTAL: Filter = [
    [ 1.0,  1.0,  1.0],
    [ 0.0,  0.0,  0.0],
    [-1.0, -1.0, -1.0],
];

/// Prewitt (1970): another name of [`VERTICAL`].
///
/// ```
/// # use convolve::filters;
/// assert_eq!(filters::PREWITT_VERTICAL, filters::VERTICAL);
/// ```
pub const PREWITT_VERTICAL: Filter = VERTICAL;

/// Prewitt (1970): another name of [`HORIZONTAL`].
///
/// ```
/// # use convolve::filters;
/// assert_eq!(filters::PREWITT_HORIZONTAL, filters::HORIZONTAL);
/// ```
pub const PREWITT_HORIZONTAL: Filter = HORIZONTAL;

/// Sobel and Feldman (1968): more weight on the middle row, hence more robust.
///
/// ```
/// # use convolve::filters;
/// // A difference across, smoothed along by 1 2 1.
/// let separable = [1.0, 2.0, 1.0].map(|weight| [1.0, 0.0, -1.0].map(|x| weight * x));
/// assert_eq!(filters::SOBEL_VERTICAL, separable);
/// ```
#[rustfmt::skip]
pub const SOBEL_VERTICAL: Filter = [
    [1.0, 0.0, -1.0],
    [2.0, 0.0, -2.0],
    [1.0, 0.0, -1.0],
];

/// [`SOBEL_VERTICAL`], turned.
///
/// ```
/// # use convolve::filters;
/// assert_eq!(filters::SOBEL_HORIZONTAL, filters::transposed(filters::SOBEL_VERTICAL));
/// ```
#[rustfmt::skip]
pub const SOBEL_HORIZONTAL: Filter = [
    [ 1.0,  2.0,  1.0],
    [ 0.0,  0.0,  0.0],
    [-1.0, -2.0, -1.0],
];

/// Scharr (2000): weights chosen so that an edge of any direction gets nearly the same answer.
///
/// ```
/// # use convolve::filters;
/// let separable = [3.0, 10.0, 3.0].map(|weight| [1.0, 0.0, -1.0].map(|x| weight * x));
/// assert_eq!(filters::SCHARR_VERTICAL, separable);
/// ```
#[rustfmt::skip]
pub const SCHARR_VERTICAL: Filter = [
    [ 3.0, 0.0,  -3.0],
    [10.0, 0.0, -10.0],
    [ 3.0, 0.0,  -3.0],
];

/// [`SCHARR_VERTICAL`], turned.
///
/// ```
/// # use convolve::filters;
/// assert_eq!(filters::SCHARR_HORIZONTAL, filters::transposed(filters::SCHARR_VERTICAL));
/// ```
#[rustfmt::skip]
pub const SCHARR_HORIZONTAL: Filter = [
    [ 3.0,  10.0,  3.0],
    [ 0.0,   0.0,  0.0],
    [-3.0, -10.0, -3.0],
];

/// The Laplacian, second differences along both axes: large at edges and points of any direction.
///
/// ```
/// use convolve::{Conv2d, Epilogue, filters, forward};
/// // Of x^2 + y^2 it is 2 + 2, everywhere.
/// let picture: Vec<f32> = (0..25).map(|i| ((i / 5) * (i / 5) + (i % 5) * (i % 5)) as f32).collect();
/// let mut dst = [0.0; 9];
/// forward(Conv2d::new(1, 1, 3).input(5), &picture, filters::LAPLACIAN.as_flattened(), &mut dst, Epilogue::NONE)?;
/// assert_eq!(dst, [4.0; 9]);
/// # Ok::<(), convolve::Error>(())
/// ```
#[rustfmt::skip]
pub const LAPLACIAN: Filter = [
    [0.0,  1.0, 0.0],
    [1.0, -4.0, 1.0],
    [0.0,  1.0, 0.0],
];

/// The Laplacian with the diagonals.
///
/// ```
/// # use convolve::filters;
/// assert_eq!(filters::LAPLACIAN_8.as_flattened().iter().sum::<f32>(), 0.0);
/// ```
#[rustfmt::skip]
pub const LAPLACIAN_8: Filter = [
    [1.0,  1.0, 1.0],
    [1.0, -8.0, 1.0],
    [1.0,  1.0, 1.0],
];

/// Rows become columns: a filter for vertical edges becomes one for horizontal edges.
///
/// ```
/// # use convolve::filters;
/// assert_eq!(filters::transposed(filters::LAPLACIAN), filters::LAPLACIAN);
/// ```
pub const fn transposed(filter: Filter) -> Filter {
    let [[a, b, c], [d, e, f], [g, h, i]] = filter;
    [[a, d, g], [b, e, h], [c, f, i]]
}
