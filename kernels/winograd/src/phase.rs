//! Forward and backward-data: one fused loop over blocks of tiles. A phase of stride 1 reads `in[i + d(t)]`, so the gradient with respect to the
//! input is the same pass over `diff_dst` with the taps in the order of the phase, and this file does not know which it is.
//!
//! ```text
//! for each task: rows of tiles of some images, some output channels of one group         (parallel; a box of the output)
//!     NCHW only: transpose the input rows of the task to [pixel][channel]
//!     for each block of tiles
//!         V[tile][product][C]   = B^T d B                                                 (in L2)
//!         for each slice of output channels
//!             M[product][tile][slice] = V * U[product][panel of NR][C][NR]                (one product per frequency; U streams past)
//!             dst = A^T M A, bias, clamp
//!     NCHW only: transpose back
//! ```
//!
//! - Where tasks differ in their output channels alone, V is made first, by tasks of its own, one for each row of tiles, and is read by all:
//!   a task that made its own would repeat what its neighbours do.
//! - Tiles at the border read zeros from a row of zeros, and do not write outputs beyond the edge: no code of their own.
//! - Rows of V and M are an odd number of cache lines, and there is an odd number of them, so that the products of a tile, which are written
//!   together, lie in different sets of L1.
//! - While one panel of U is multiplied the next is on its way.

use crate::blocks::{Blocks, Lens, MAX_TILES, even, pitch};
use crate::matrices::MAX_TILE;
use crate::shape::Shape;
use crate::transform::{Images, Outputs, TileAt, Transforms, WIDTH};
use convolve_core::{
    BlockMut, Cut, Direction, Estimate, Finish, LINE, Layout, Par, Phased, Problem, Sides, Tasks,
    Unsupported, Update,
};
use convolve_gemm::{Ahead, Call, Init, Lhs, To, UNCLAMPED, Ukernel, Walk};
use core::ops::Range;

/// Phases of stride 1 that are ready to run.
pub(crate) struct PhaseRunner {
    pub(crate) sides: Sides,
    transforms: Box<dyn Transforms>,
    pub(crate) kernel: Box<dyn Ukernel>,
    pub(crate) blocks: Blocks,
    pub(crate) shape: Shape,
    threads: usize,
}

struct Task<'a> {
    input: &'a [f32],
    packed: &'a [f32],
    images: Range<usize>,
    /// Pixel rows.
    rows: Range<usize>,
    channels: Range<usize>,
    finish: Finish<'a>,
}

/// Where the products of tiles come from.
enum Products<'a> {
    /// Made block by block, of these images, whose rows count from the number.
    Own(&'a mut [f32], Images<'a>, usize),
    /// Those of all tiles, made before.
    Shared(&'a [f32]),
}

impl PhaseRunner {
    pub(crate) fn new(
        problem: &Problem,
        direction: Direction,
        outputs: [usize; 2],
        transforms: Box<dyn Transforms>,
    ) -> Result<Self, Unsupported> {
        let sides = Sides::new(&problem.geometry, direction);
        let kernel = problem.geometry.conv().kernel;
        let shape = Shape::new(outputs, kernel, &sides.phases[0].axes);
        let (kernel, blocks) = Blocks::new(&sides, problem, &shape)?;
        Ok(Self { sides, transforms, kernel, blocks, shape, threads: problem.threads })
    }

    fn depth(&self) -> usize {
        self.sides.input.channels
    }

    /// Panels of one group.
    fn panels(&self) -> usize {
        self.sides.output.channels.div_ceil(self.kernel.nr())
    }

    /// Floats of the workspace of one task.
    fn lane_len(&self) -> usize {
        self.lens().split()[0]
    }

    fn lens(&self) -> Lens {
        Lens::new(&self.sides, &self.shape, &self.blocks)
    }

    pub(crate) fn estimate(&self) -> Estimate {
        let tasks = self.blocks.tasks(&self.sides, &self.shape);
        Estimate {
            exposed: crate::EXPOSED,
            workspace: Phased::workspace_len(self),
            packed: Phased::packed_len(self),
            tiling: self.blocks.tiling(self.kernel.as_ref(), &self.shape, &self.sides),
            ..Estimate::new(self.blocks.parts, &tasks, self.threads)
        }
    }

    /// Input images of a task as they lie in memory, of NHWC.
    fn images<'a>(&self, task: &Task<'a>) -> Images<'a> {
        let strides = self.sides.input.strides;
        let group = task.channels.start / self.sides.output.channels;
        Images {
            data: &task.input[task.images.start * strides.image + group * self.depth()..],
            size: self.sides.input.size,
            strides: [strides.image, strides.row, strides.column],
            step: self.shape.step,
            channels: self.depth(),
        }
    }

    fn task(&self, task: &Task<'_>, shared: &[f32], piece: &mut BlockMut<'_, f32>, lane: &mut [f32]) {
        let lens = self.lens();
        let (vs, rest) = lane.split_at_mut(if self.blocks.shared { 0 } else { lens.v_len() });
        let (ms, rest) = rest.split_at_mut(lens.m.iter().product());
        let (copy, by_pixel) = rest.split_at_mut(lens.input);
        let source = if self.blocks.shared {
            Products::Shared(shared)
        } else {
            let (images, origin) = match self.sides.layout {
                Layout::Nhwc => (self.images(task), 0),
                Layout::Nchw => self.transpose_in(task, copy),
            };
            Products::Own(vs, images, origin)
        };
        match self.sides.layout {
            Layout::Nhwc => self.run_blocks(task, source, ms, task.finish.update, piece),
            Layout::Nchw => {
                let size =
                    [task.images.len(), task.rows.len() * self.sides.output.size[1], task.channels.len()];
                let by_pixel = &mut by_pixel[..size.iter().product()];
                let mut box_by_pixel = BlockMut::new(by_pixel, size);
                // Nothing to start from here: what is in the gradient already is added when this is transposed back.
                self.run_blocks(task, source, ms, Update::Overwrite, &mut box_by_pixel);
                for (i, by_pixel) in by_pixel.chunks_exact(size[1] * size[2]).enumerate() {
                    let update = task.finish.update;
                    self.kernel.transpose_into([size[1], size[2]], by_pixel, size[2], piece, [i, 0], update);
                }
            }
        }
        self.finish(task, piece);
    }

    /// The products of all tiles of all images, a row of tiles at a time.
    fn make_shared(&self, whole: &Task<'_>, v: &mut [f32], lanes: &mut [f32], par: Par<'_>) {
        let (lens, [rows, columns]) = (self.lens(), self.shape.grid);
        let extent = [self.sides.batch * rows, columns, lens.v[1] * lens.v[2]];
        let cuts = [Cut { unit: extent[0].max(1), block: 1 }, Cut::whole(columns), Cut::whole(extent[2])];
        let v = BlockMut::new(v, extent);
        v.for_each_piece(cuts, par, lanes, self.lane_len(), &|[row, _, _], mut piece, lane| {
            let (image, first) = (row.start / rows, row.start % rows * self.shape.rows());
            let last = (first + self.shape.rows()).min(self.sides.output.size[0]);
            let task = Task {
                images: image..image + 1,
                rows: first..last,
                channels: whole.channels.clone(),
                ..*whole
            };
            let (images, origin) = match self.sides.layout {
                Layout::Nhwc => (self.images(&task), 0),
                Layout::Nchw => self.transpose_in(&task, &mut lane[..lens.input]),
            };
            let mut tiles = [TileAt::default(); MAX_TILES];
            self.tiles(&task, 0..columns, origin, &mut tiles);
            for (column, tile) in tiles[..columns].iter().enumerate() {
                let v = piece.row(0, column);
                self.transforms.data(&images, core::slice::from_ref(tile), v, [extent[2], lens.v[2]]);
            }
        });
    }

    /// Residual, and activations that are no clamp.
    fn finish(&self, task: &Task<'_>, piece: &mut BlockMut<'_, f32>) {
        let epilogue = &task.finish.epilogue;
        if !epilogue.late() {
            return;
        }
        let (strides, width) = (self.sides.output.strides, self.sides.output.size[1]);
        let [_, rows, _] = piece.extent();
        for (i, image) in task.images.clone().enumerate() {
            for j in 0..rows {
                let (pixel, channel) = match self.sides.layout {
                    Layout::Nhwc => (task.rows.start * width + j, task.channels.start),
                    Layout::Nchw => (task.rows.start * width, task.channels.start + j),
                };
                let offset = image * strides.image + channel * strides.channel + pixel * strides.column;
                epilogue.finish(piece.row(i, j), offset);
            }
        }
    }

    /// Copies the rows that a task reads to `[image][row][column][channel]`; also the row of the image that is the first.
    fn transpose_in<'a>(&self, task: &Task<'_>, copy: &'a mut [f32]) -> (Images<'a>, usize) {
        let ([height, width], strides, pitch) =
            (self.sides.input.size, self.sides.input.strides, self.pitch());
        let [rows, depth] = [self.input_rows(&task.rows), 0..self.depth()];
        let rows = rows.start.min(height)..rows.end.min(height);
        let group = task.channels.start / self.sides.output.channels;
        let image_len = rows.len() * width * pitch;
        for (i, image) in task.images.clone().enumerate() {
            let start = image * strides.image + group * depth.len() * strides.channel + rows.start * width;
            let (size, to) = ([depth.len(), rows.len() * width], &mut copy[i * image_len..][..image_len]);
            if image_len > 0 {
                self.kernel.transpose(size, &task.input[start..], strides.channel, to, pitch);
            }
        }
        let images = Images {
            data: copy,
            size: [rows.len(), width],
            strides: [image_len, width * pitch, pitch],
            step: self.shape.step,
            channels: depth.len(),
        };
        (images, rows.start)
    }

    /// Input rows that the tiles of some output rows read, as far as they exist.
    fn input_rows(&self, rows: &Range<usize>) -> Range<usize> {
        let (height, shape) = (self.sides.input.size[0], &self.shape);
        let [first, last] = [rows.start, rows.end - 1].map(|row| shape.top(row / shape.rows()));
        let clip = |row: isize| row.clamp(0, height as isize) as usize;
        clip(first)..clip(last + shape.reads(1) as isize)
    }

    /// Floats from one pixel to the next of the copy.
    fn pitch(&self) -> usize {
        pitch(&self.sides)
    }

    /// The tiles `block` of a task, counted by image, row, column.
    fn tiles(&self, task: &Task<'_>, block: Range<usize>, origin: usize, tiles: &mut [TileAt]) {
        let first = task.rows.start / self.shape.rows();
        let columns = self.shape.grid[1];
        let rows = task.rows.len().div_ceil(self.shape.rows());
        for (index, tile) in block.zip(tiles) {
            let (image, row, column) = (index / (rows * columns), index / columns % rows, index % columns);
            let [y, x] = self.shape.from(first + row, column);
            *tile = TileAt { image, from: [y - origin as isize, x], to: self.shape.to(row, column) };
        }
    }

    /// All blocks of tiles of a task, whose pixels are the rows of `dst`.
    fn run_blocks(
        &self,
        task: &Task<'_>,
        mut source: Products<'_>,
        m: &mut [f32],
        update: Update,
        dst: &mut BlockMut<'_, f32>,
    ) {
        let epilogue = &task.finish.epilogue;
        let Lens { v: v_shape, m: m_shape, .. } = self.lens();
        let tile_len = v_shape[1] * v_shape[2];
        let rows = task.rows.len().div_ceil(self.shape.rows());
        let count = task.images.len() * rows * self.shape.grid[1];
        let mut tiles = [TileAt::default(); MAX_TILES];
        for block in even(count, self.blocks.tiles) {
            let (start, tiles) = (block.start, &mut tiles[..block.len()]);
            let origin = if let Products::Own(_, _, origin) = source { origin } else { 0 };
            self.tiles(task, block, origin, tiles);
            let v = match &mut source {
                Products::Own(v, images, _) => {
                    self.transforms.data(images, tiles, v, [tile_len, v_shape[2]]);
                    &**v
                }
                Products::Shared(v) => &v[start * tile_len..],
            };
            for first in task.channels.clone().step_by(self.blocks.slice) {
                let slice = first..task.channels.end.min(first + self.blocks.slice);
                self.multiply(task.packed, tiles.len(), &slice, (v, v_shape), &mut BlockMut::new(m, m_shape));
                let outputs = Outputs {
                    bias: epilogue.bias.map(|bias| &bias[slice.clone()]),
                    clamp: epilogue.early_clamp(),
                    update,
                    size: [task.rows.len(), self.sides.output.size[1]],
                    step: self.shape.step,
                    columns: [slice.start - task.channels.start, slice.len()],
                };
                self.transforms.interpolate(m, [m_shape[1], m_shape[2]], tiles, outputs, dst);
            }
        }
    }

    /// `M = V * U` for every product of some output channels.
    fn multiply(
        &self,
        packed: &[f32],
        tiles: usize,
        slice: &Range<usize>,
        (v, [_, v_products, v_pitch]): (&[f32], [usize; 3]),
        m: &mut BlockMut<'_, f32>,
    ) {
        let (nr, depth) = (self.kernel.nr(), self.depth());
        let (group, within) =
            (slice.start / self.sides.output.channels, slice.start % self.sides.output.channels);
        let (panel_len, count) = (depth * nr, slice.len().div_ceil(nr));
        let panel = |product: usize, panel: usize| {
            let index = (group * self.shape.products + product) * self.panels() + within / nr + panel;
            packed.get(index * panel_len..(index + 1) * panel_len).unwrap_or_default()
        };
        let [_, m_rows, m_pitch] = m.extent();
        for product in 0..self.shape.products {
            let m = &mut m.block([product..product + 1, 0..m_rows, 0..m_pitch]);
            for p in 0..count {
                let next = if p + 1 < count { panel(product, p + 1) } else { panel(product + 1, 0) };
                let call = Call {
                    lhs: &v[product * v_pitch..],
                    at: Lhs::Even { start: 0, rows: tiles, pitch: v_products * v_pitch },
                    rhs: panel(product, p),
                    pitch: nr,
                    walk: Walk::run(depth),
                    init: Init::Zero,
                    clamp: UNCLAMPED,
                    to: To::Even { at: [0, 0], step: [0, 1] },
                    column: p * nr,
                    columns: nr,
                    fetch: None,
                    ahead: Ahead::run(next, depth, LINE),
                };
                self.kernel.run(&call, m);
            }
        }
    }
}

impl Phased for PhaseRunner {
    fn packed_len(&self) -> usize {
        self.sides.groups * self.shape.products * self.panels() * self.depth() * self.kernel.nr()
    }

    /// `[group][product][panel][input channel][NR]`, zeros beyond the last output channel.
    fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        let (nr, depth, products) = (self.kernel.nr(), self.depth(), self.shape.products);
        let [rows, columns] = self.sides.phases[0].axes.map(|axis| axis.taps);
        let taps = rows.count * columns.count;
        let mut g = [[0.0; WIDTH]; MAX_TILE * MAX_TILE];
        let mut u = [[0.0; WIDTH]; MAX_TILE * MAX_TILE];
        let mut starts = [0; MAX_TILE * MAX_TILE];
        for (group, panel) in (0..self.sides.groups).flat_map(|g| (0..self.panels()).map(move |p| (g, p))) {
            let mut strides = [0; 2];
            for (tap, start) in starts[..taps].iter_mut().enumerate() {
                let k = [rows.k(tap / columns.count), columns.k(tap % columns.count)];
                (*start, strides) = self.sides.weight(group, k);
            }
            let [out_stride, in_stride] = strides;
            for c in 0..depth {
                for j in (0..nr).step_by(WIDTH) {
                    let first = panel * nr + j;
                    let width = WIDTH.min(nr - j);
                    let valid = self.sides.output.channels.saturating_sub(first).min(width);
                    for (g, start) in g[..taps].iter_mut().zip(&starts) {
                        *g = [0.0; WIDTH];
                        let column = weights.get(start + first * out_stride + c * in_stride..);
                        let column = column.unwrap_or_default().iter().step_by(out_stride).take(valid);
                        g.iter_mut().zip(column).for_each(|(g, w)| *g = f64::from(*w));
                    }
                    self.transforms.weights(&g[..taps], &mut u[..products]);
                    for (product, u) in u[..products].iter().enumerate() {
                        let at = ((group * products + product) * self.panels() + panel) * depth + c;
                        let to = &mut packed[at * nr + j..];
                        // Of a constant length this is a store, else a call.
                        match to.first_chunk_mut() {
                            Some(to) if width == WIDTH => *to = *u,
                            _ => to[..width].copy_from_slice(&u[..width]),
                        }
                    }
                }
            }
        }
    }

    fn workspace_len(&self) -> usize {
        let [lane, shared] = self.lens().split();
        lane.saturating_mul(self.threads).saturating_add(shared)
    }

    fn run(
        &self,
        input: &[f32],
        packed: &[f32],
        output: &mut [f32],
        finish: Finish<'_>,
        workspace: &mut [f32],
        par: Par<'_>,
    ) {
        let [height, width] = self.sides.output.size;
        let channels = self.sides.output.channels * self.sides.groups;
        let Tasks { extent, cuts } = self.blocks.tasks(&self.sides, &self.shape);
        let [lane_len, shared_len] = self.lens().split();
        let (shared, lanes) = workspace.split_at_mut(shared_len);
        if self.blocks.shared && self.sides.batch > 0 {
            let all = [0..self.sides.batch, 0..height, 0..channels];
            let [images, rows, channels] = all;
            let whole = Task { input, packed, images, rows, channels, finish };
            self.make_shared(&whole, &mut shared[..self.lens().v_len()], lanes, par);
        }
        let shared = &*shared;
        let output = BlockMut::new(output, extent);
        output.for_each_piece(cuts, par, lanes, lane_len, &|ranges, mut piece, lane| {
            let [images, a, b] = ranges;
            let (pixels, channels) = if self.sides.layout == Layout::Nhwc { (a, b) } else { (b, a) };
            let rows = pixels.start / width..pixels.end / width;
            let task = Task { input, packed, images, rows, channels, finish };
            self.task(&task, shared, &mut piece, lane);
        });
    }
}
