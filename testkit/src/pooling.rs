//! Pooling from the fields of a [`Pool2d`] alone: output sizes, windows and divisors, computed a second time in 128 bits.
//!
//! A window is the list of its pixels, and a pass a loop over windows.

use crate::reference::room;
use convolve::{Layout, Padding, Pool2d, Reduction};

/// One window: where its output lies, where its pixels do (row by row, those of the padding left out), and what a sum is divided by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// An offset into `dst`.
    pub output: usize,
    /// Offsets into `src`.
    pub pixels: Vec<usize>,
    /// At least 1.
    pub divisor: usize,
}

/// Output size and padding (before, after) of one axis; none when there is no such pooling.
pub fn axis(pool: &Pool2d, axis: usize) -> Option<(i128, [i128; 2])> {
    let sizes = [pool.input, pool.kernel, pool.stride, pool.dilation];
    let (room, [begin, end]) = room(sizes, pool.padding, axis)?;
    let [input, stride] = [pool.input, pool.stride].map(|pair| pair[axis] as i128);
    let up = if pool.ceil_mode { stride - 1 } else { 0 };
    let output = (room + up) / stride + 1;
    // A window that hangs over starts in the image or before it.
    let starts_late = pool.ceil_mode && (output - 1) * stride >= input + begin;
    Some((output - i128::from(starts_late), [begin, end]))
}

/// Taps of one window of an axis: the pixels they are on, and how many count with the padding.
fn taps(pool: &Pool2d, index: usize, output: usize, [begin, end]: [i128; 2]) -> (Vec<usize>, usize) {
    let input = pool.input[index] as i128;
    let places = (0..pool.kernel[index])
        .map(|k| (output * pool.stride[index] + k * pool.dilation[index]) as i128 - begin);
    let inside = places.clone().filter(|place| (0..input).contains(place));
    (inside.map(|place| place as usize).collect(), places.filter(|place| *place < input + end).count())
}

/// Every window; none when there is no such pooling. For small ones.
pub fn windows(pool: &Pool2d) -> Option<Vec<Window>> {
    let axes = [axis(pool, 0)?, axis(pool, 1)?];
    let output = axes.map(|(output, _)| output as usize);
    let at = |[height, width]: [usize; 2], [n, c, y, x]: [usize; 4]| match pool.layout {
        Layout::Nchw => ((n * pool.channels + c) * height + y) * width + x,
        Layout::Nhwc => ((n * height + y) * width + x) * pool.channels + c,
    };
    let [rows, columns] = [0, 1].map(|axis| {
        let all = (0..output[axis]).map(|o| taps(pool, axis, o, axes[axis].1));
        all.collect::<Vec<_>>()
    });
    let mut windows = Vec::new();
    for (n, c) in (0..pool.batch).flat_map(|n| (0..pool.channels).map(move |c| (n, c))) {
        for (oh, (ys, counted_down)) in rows.iter().enumerate() {
            for (ow, (xs, counted_across)) in columns.iter().enumerate() {
                let pixels = ys.iter().flat_map(|&y| xs.iter().map(move |&x| [n, c, y, x]));
                let divisor = match pool.reduction {
                    Reduction::Average { divisor: Some(divisor), .. } => divisor,
                    Reduction::Average { count_include_pad: true, .. } => counted_down * counted_across,
                    _ => ys.len() * xs.len(),
                };
                windows.push(Window {
                    output: at(output, [n, c, oh, ow]),
                    pixels: pixels.map(|index| at(pool.input, index)).collect(),
                    divisor: divisor.max(1),
                });
            }
        }
    }
    Some(windows)
}

/// Whether the library's geometry is this one: the same sizes and padding, or both refuse. For numbers that are not near the end of the
/// address space, where the library may refuse more.
///
/// # Errors
/// The difference, as a sentence.
pub fn same_geometry(pool: &Pool2d) -> Result<(), String> {
    let expected = [0, 1].map(|index| axis(pool, index));
    match (pool.geometry(), expected) {
        (Ok(geometry), [Some(h), Some(w)]) => {
            let got = [0, 1].map(|axis| {
                (geometry.output()[axis] as i128, geometry.padding()[axis].map(|side| side as i128))
            });
            if got == [h, w] { Ok(()) } else { Err(format!("{pool:?}: {got:?}, expected {h:?} {w:?}")) }
        }
        (Ok(_), _) => Err(format!("{pool:?}: accepted, but there is no such pooling")),
        (Err(error), [Some(_), Some(_)]) => {
            let sizes = [pool.input, pool.kernel, pool.stride, pool.dilation].concat();
            let sides = match pool.padding {
                Padding::Explicit { top, bottom, left, right } => vec![top, bottom, left, right],
                _ => Vec::new(),
            };
            let numbers = sizes.into_iter().chain(sides).chain([pool.batch, pool.channels]);
            let large = numbers.fold(1u128, |product, x| product.saturating_mul(x.max(1) as u128)) >> 40 != 0;
            let divisor = matches!(pool.reduction, Reduction::Average { divisor: Some(d), .. } if !(1..=1 << 24).contains(&d));
            if large || divisor || pool.channels == 0 {
                return Ok(());
            }
            Err(format!("{pool:?}: refused ({error}), but it is a pooling"))
        }
        (Err(_), _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counted by hand: 3 of 2 on 4 with one pixel of padding, rounded up.
    #[test]
    fn windows_are_those_on_paper() {
        let pool = Pool2d::average(1, [1, 3]).input([1, 4]).stride([1, 2]).padding([0, 1]).ceil_mode(true);
        let of = |pool: Pool2d| {
            let windows = windows(&pool).unwrap();
            windows.into_iter().map(|w| (w.output, w.pixels, w.divisor)).collect::<Vec<_>>()
        };
        assert_eq!(of(pool), [(0, vec![0, 1], 2), (1, vec![1, 2, 3], 3), (2, vec![3], 1)]);
        let counted = of(pool.count_include_pad(true));
        // The last window has a pixel, one of padding, and one of nothing.
        assert_eq!(counted.iter().map(|window| window.2).collect::<Vec<_>>(), [3, 3, 2]);
        assert_eq!(of(pool.divisor(7)).iter().map(|window| window.2).collect::<Vec<_>>(), [7; 3]);
        // The last would start in the padding.
        assert_eq!(axis(&Pool2d::max(1, 1).input(2).stride(3).padding(2).ceil_mode(true), 0).unwrap().0, 2);
        assert!(windows(&Pool2d::max(1, 5).input(4)).is_none());
    }
}
