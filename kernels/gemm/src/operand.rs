//! Operands of a product: matrices that need not exist. An operand can answer "here is a view" or copy a block of itself in the order
//! in which the micro-kernel reads it.

use core::ops::Range;

/// A matrix of `outer` x `depth`, where `depth` is summed over. The left operand is packed by rows, the right one by panels.
pub trait Operand: Sync {
    /// Copies a block row by row: `to[i * pitch + k]` for the i-th of `outer` and the k-th of `depth`.
    fn pack_rows(&self, outer: Range<usize>, depth: Range<usize>, pitch: usize, to: &mut [f32]);

    /// Copies a block as a panel: `to[k * width + i]`, with anything finite (or garbage) beyond the last of `outer`.
    fn pack_panel(&self, outer: Range<usize>, depth: Range<usize>, width: usize, to: &mut [f32]);

    /// Where the rows are, if each has its depth next to each other: `(data, offset of row 0, distance of rows)`.
    fn view_rows(&self) -> Option<(&[f32], usize, usize)> {
        None
    }

    /// Where the panels of that width are, if they are packed already: `(data, distance of panels)`, each `[depth][width]`.
    fn view_panels(&self, width: usize) -> Option<(&[f32], usize)> {
        let _ = width;
        None
    }
}

/// A matrix in memory: element `(i, k)` at `i * strides[0] + k * strides[1]`.
///
/// ```
/// use convolve_gemm::{Dense, Operand};
/// let mut panel = [0.0; 4];
/// Dense { data: &[1.0, 2.0, 3.0, 4.0], strides: [2, 1] }.pack_panel(0..2, 0..2, 2, &mut panel);
/// assert_eq!(panel, [1.0, 3.0, 2.0, 4.0]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Dense<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// From one `outer` to the next, and from one `depth` to the next.
    pub strides: [usize; 2],
}

impl Operand for Dense<'_> {
    fn pack_rows(&self, outer: Range<usize>, depth: Range<usize>, pitch: usize, to: &mut [f32]) {
        for (row, to) in outer.zip(to.chunks_mut(pitch)) {
            if self.strides[1] == 1 && !depth.is_empty() {
                to[..depth.len()].copy_from_slice(&self.data[row * self.strides[0]..][depth.clone()]);
                continue;
            }
            for (k, to) in depth.clone().zip(to) {
                *to = self.data[row * self.strides[0] + k * self.strides[1]];
            }
        }
    }

    fn pack_panel(&self, outer: Range<usize>, depth: Range<usize>, width: usize, to: &mut [f32]) {
        for (k, to) in depth.zip(to.chunks_exact_mut(width)) {
            to.fill(0.0);
            for (row, to) in outer.clone().zip(to) {
                *to = self.data[row * self.strides[0] + k * self.strides[1]];
            }
        }
    }

    fn view_rows(&self) -> Option<(&[f32], usize, usize)> {
        (self.strides[1] == 1).then_some((self.data, 0, self.strides[0]))
    }
}

/// A right operand that lies in panels `[panel][depth][width]` already.
///
/// ```
/// use convolve_gemm::{Operand, Panels};
/// let panels = Panels { data: &[1.0, 2.0, 3.0, 4.0], depth: 1, width: 2 };
/// assert_eq!(panels.view_panels(2).unwrap().1, 2);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Panels<'a> {
    /// The panels, one behind the other.
    pub data: &'a [f32],
    /// Steps of a panel.
    pub depth: usize,
    /// Columns of a panel.
    pub width: usize,
}

impl Operand for Panels<'_> {
    fn pack_rows(&self, outer: Range<usize>, depth: Range<usize>, pitch: usize, to: &mut [f32]) {
        for (i, to) in outer.zip(to.chunks_mut(pitch)) {
            for (k, to) in depth.clone().zip(to) {
                *to = self.data[(i / self.width * self.depth + k) * self.width + i % self.width];
            }
        }
    }

    fn pack_panel(&self, outer: Range<usize>, depth: Range<usize>, width: usize, to: &mut [f32]) {
        for (k, to) in depth.zip(to.chunks_exact_mut(width)) {
            for (i, to) in outer.clone().zip(to) {
                *to = self.data[(i / self.width * self.depth + k) * self.width + i % self.width];
            }
        }
    }

    fn view_panels(&self, width: usize) -> Option<(&[f32], usize)> {
        (self.width == width).then_some((self.data, self.depth * width))
    }
}

/// The transpose of an operand: rows become panels and panels become rows.
///
/// ```
/// use convolve_gemm::{Dense, Operand, Transposed};
/// let mut rows = [0.0; 4];
/// let matrix = Dense { data: &[1.0, 2.0, 3.0, 4.0], strides: [2, 1] };
/// Transposed(matrix).pack_rows(0..2, 0..2, 2, &mut rows);
/// assert_eq!(rows, [1.0, 3.0, 2.0, 4.0]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Transposed<T>(pub T);

impl<T: Operand> Operand for Transposed<T> {
    fn pack_rows(&self, outer: Range<usize>, depth: Range<usize>, pitch: usize, to: &mut [f32]) {
        self.0.pack_panel(depth, outer, pitch, to);
    }

    fn pack_panel(&self, outer: Range<usize>, depth: Range<usize>, width: usize, to: &mut [f32]) {
        self.0.pack_rows(depth, outer, width, to);
    }
}
