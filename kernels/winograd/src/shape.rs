//! Where the tiles of an image lie: a grid of m x m outputs, or, with dilation, such a grid on each lattice.
//!
//! With dilation d an output sees only pixels that are d apart: the image is d x d lattices that know nothing of each other, and on each the convolution has
//! no dilation. So tiles of a lattice are tiles whose pixels are d apart, and nothing is copied. A *row* of the grid is a row of tiles of every lattice:
//! together they fill `m d` neighbouring rows of the output.
//!
//! ```text
//! d = 2, F(2, 3), one axis     pixel     0 1 2 3 4 5 6 7
//!                              lattice   0 1 0 1 0 1 0 1
//!                              tile      a b a b c d c d
//! ```

use convolve_core::phase::AxisPhase;

/// What follows from the size of a tile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Outputs of a tile.
    pub(crate) outputs: [usize; 2],
    /// Pixels that it reads.
    pub(crate) tile: [usize; 2],
    /// Products of a tile.
    pub(crate) products: usize,
    /// Rows of tiles of an image, and tiles of a row.
    pub(crate) grid: [usize; 2],
    /// From one pixel of a tile to the next.
    pub(crate) step: [usize; 2],
    /// The first pixel that the first tile reads.
    first: [isize; 2],
    /// Tiles of a lattice along a row.
    along: usize,
}

impl Shape {
    /// Tiles of so many outputs, of a convolution of that kernel.
    pub(crate) fn new(outputs: [usize; 2], kernel: [usize; 2], axes: &[AxisPhase; 2]) -> Self {
        let tile = [0, 1].map(|a| outputs[a] + kernel[a] - 1);
        let step = axes.each_ref().map(|axis| if axis.taps.count > 1 { axis.taps.step_d } else { 1 });
        let [rows, along] = [0, 1].map(|a| axes[a].count.div_ceil(outputs[a] * step[a]));
        let first = axes.each_ref().map(|axis| axis.taps.first_d);
        let grid = [rows, step[0] * step[1] * along];
        Self { outputs, tile, products: tile[0] * tile[1], grid, step, first, along }
    }

    /// Output rows of a row of tiles.
    pub(crate) fn rows(&self) -> usize {
        self.outputs[0] * self.step[0]
    }

    /// Input rows that some rows of tiles read, from the first that they read on.
    pub(crate) fn reads(&self, rows: usize) -> usize {
        (rows - 1) * self.rows() + self.tile[0] * self.step[0]
    }

    /// The first input row that a row of tiles reads; it may not exist.
    pub(crate) fn top(&self, row: usize) -> isize {
        (row * self.rows()) as isize + self.first[0]
    }

    /// The first output of a tile of the grid. It may lie outside: not every lattice has a pixel in the last tiles.
    pub(crate) fn to(&self, row: usize, tile: usize) -> [usize; 2] {
        let (lattice, x) = (tile / self.along, tile % self.along);
        let [y, from] = [lattice / self.step[1], lattice % self.step[1]];
        [row * self.rows() + y, x * self.outputs[1] * self.step[1] + from]
    }

    /// The first pixel that it reads.
    pub(crate) fn from(&self, row: usize, tile: usize) -> [isize; 2] {
        let to = self.to(row, tile);
        [0, 1].map(|a| to[a] as isize + self.first[a])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use convolve_core::Conv2d;

    /// Every output belongs to one tile.
    #[test]
    fn tiles_cover_an_image_once() {
        for (size, dilation) in [([7, 9], 1), ([8, 13], 2), ([5, 11], 3), ([2, 3], 2)] {
            let conv = Conv2d::new(1, 1, 3).input(size).padding(dilation).dilation(dilation);
            let geometry = conv.geometry().unwrap();
            let shape = Shape::new([2, 4], [3, 3], &geometry.forward().axes);
            let mut seen = vec![0; size[0] * size[1]];
            for (row, tile) in (0..shape.grid[0]).flat_map(|row| (0..shape.grid[1]).map(move |t| (row, t))) {
                let [y, x] = shape.to(row, tile);
                assert_eq!(shape.from(row, tile), [y, x].map(|at| at as isize - dilation as isize));
                for (i, j) in (0..2).flat_map(|i| (0..4).map(move |j| (i, j))) {
                    let [y, x] = [y + i * dilation, x + j * dilation];
                    if y < size[0] && x < size[1] {
                        seen[y * size[1] + x] += 1;
                    }
                }
            }
            assert_eq!(seen, vec![1; size[0] * size[1]], "{size:?} dilation {dilation}");
        }
    }
}
