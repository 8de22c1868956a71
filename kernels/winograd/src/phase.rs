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
//! - Tiles at the border read zeros from a row of zeros, and do not write outputs beyond the edge: no code of their own.
//! - Rows of V and M are an odd number of cache lines, and there is an odd number of them, so that the products of a tile, which are written
//!   together, lie in different sets of L1.
//! - While one panel of U is multiplied the next is on its way.

use crate::matrices::MAX_TILE;
use crate::transform::{Images, Outputs, TileAt, Transforms, WIDTH};
use convolve_core::{
    BlockMut, Caches, Cut, Direction, Estimate, Finish, LINE, Layout, Par, Phased, Problem, Sides, Stages,
    Update, lines,
};
use convolve_gemm::{Call, Init, Lhs, UNCLAMPED, Ukernel, Walk, ukernels};
use core::ops::Range;

/// Most tiles of a block.
const MAX_TILES: usize = 128;
/// Most floats of one lane of workspace: 4 MiB.
const MAX_LANE: usize = 1 << 20;

/// Phases of stride 1 that are ready to run.
pub(crate) struct PhaseRunner {
    sides: Sides,
    transforms: Box<dyn Transforms>,
    kernel: Box<dyn Ukernel>,
    blocks: Blocks,
    shape: Shape,
    threads: usize,
}

/// What follows from the size of a tile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Outputs of a tile.
    outputs: [usize; 2],
    /// Pixels that it reads.
    tile: [usize; 2],
    /// Products of a tile.
    products: usize,
    /// Tiles of an image.
    grid: [usize; 2],
}

/// The cut.
#[derive(Clone, Copy, Debug)]
struct Blocks {
    images: usize,
    /// Rows of tiles; all of them when there are several images.
    rows: usize,
    /// Output channels of a task.
    channels: usize,
    /// Tiles of a block.
    tiles: usize,
    /// Output channels of a slice, whole panels.
    slice: usize,
    /// Cycles of all tasks, and of the busiest thread.
    cycles: [f64; 3],
    /// What the first is made of: products and transforms, streams and copies, tasks.
    parts: [f64; 3],
}

/// An odd number of cache lines.
pub(crate) fn odd_lines(len: usize) -> usize {
    (len.div_ceil(LINE) | 1) * LINE
}

/// Parts of `len` that differ by at most one, none longer than `most`.
pub(crate) fn even(len: usize, most: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    let parts = len.div_ceil(most).max(1);
    (0..parts).map(move |i| i * len / parts..(i + 1) * len / parts)
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

impl PhaseRunner {
    pub(crate) fn new(
        problem: &Problem,
        direction: Direction,
        outputs: [usize; 2],
        transforms: Box<dyn Transforms>,
    ) -> Self {
        let sides = Sides::new(&problem.geometry, direction);
        let kernel = problem.geometry.conv().kernel;
        let tile = [0, 1].map(|a| outputs[a] + kernel[a] - 1);
        let shape = Shape {
            outputs,
            tile,
            products: tile[0] * tile[1],
            grid: [0, 1].map(|a| sides.output.size[a].div_ceil(outputs[a])),
        };
        let (kernel, blocks) = Blocks::new(&sides, problem, &shape);
        Self { sides, transforms, kernel, blocks, shape, threads: problem.threads }
    }

    fn depth(&self) -> usize {
        self.sides.input.channels
    }

    /// Panels of one group.
    fn panels(&self) -> usize {
        self.sides.output.channels.div_ceil(self.kernel.nr())
    }

    fn lens(&self) -> Lens {
        Lens::new(&self.sides, &self.shape, &self.blocks)
    }

    pub(crate) fn estimate(&self) -> Estimate {
        let ([cycles, _, share], [compute, memory, calls]) = (self.blocks.cycles, self.blocks.parts);
        let (ns, waiting) = (cycles * share / 3.5, (cycles * (share * self.threads as f64 - 1.0)).max(0.0));
        Estimate {
            ns,
            workspace: Phased::workspace_len(self),
            packed: Phased::packed_len(self),
            stages: Stages::split(ns, [compute, memory, calls, waiting]),
        }
    }

    fn task(&self, task: &Task<'_>, piece: &mut BlockMut<'_, f32>, lane: &mut [f32]) {
        let Lens { v, m, input, .. } = self.lens();
        let (vs, rest) = lane.split_at_mut(v.iter().product());
        let (ms, rest) = rest.split_at_mut(m.iter().product());
        let (copy, by_pixel) = rest.split_at_mut(input);
        let planes = [(&mut *vs, v), (&mut *ms, m)];
        match self.sides.layout {
            Layout::Nhwc => {
                let strides = self.sides.input.strides;
                let group = task.channels.start / self.sides.output.channels;
                let images = Images {
                    data: &task.input[task.images.start * strides.image + group * self.depth()..],
                    size: self.sides.input.size,
                    strides: [strides.image, strides.row, strides.column],
                    channels: self.depth(),
                };
                self.run_blocks(task, &images, 0, task.finish.update, planes, piece);
            }
            Layout::Nchw => {
                let (images, origin) = self.transpose_in(task, copy);
                let size =
                    [task.images.len(), task.rows.len() * self.sides.output.size[1], task.channels.len()];
                let by_pixel = &mut by_pixel[..size.iter().product()];
                let mut box_by_pixel = BlockMut::new(by_pixel, size);
                // Nothing to start from here: what is in the gradient already is added when this is transposed back.
                self.run_blocks(task, &images, origin, Update::Overwrite, planes, &mut box_by_pixel);
                for (i, by_pixel) in by_pixel.chunks_exact(size[1] * size[2]).enumerate() {
                    let update = task.finish.update;
                    self.kernel.transpose_into([size[1], size[2]], by_pixel, size[2], piece, [i, 0], update);
                }
            }
        }
        self.finish(task, piece);
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

    /// The first row that a tile reads, for its row of the grid.
    fn reads(&self, axis: usize, tile: usize) -> isize {
        (tile * self.shape.outputs[axis]) as isize + self.sides.phases[0].axes[axis].taps.first_d
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
            channels: depth.len(),
        };
        (images, rows.start)
    }

    /// Input rows that the tiles of some output rows read, as far as they exist.
    fn input_rows(&self, rows: &Range<usize>) -> Range<usize> {
        let [height, tile] = [self.sides.input.size[0], self.shape.tile[0]];
        let [first, last] = [rows.start, rows.end - 1].map(|row| self.reads(0, row / self.shape.outputs[0]));
        let clip = |row: isize| row.clamp(0, height as isize) as usize;
        clip(first)..clip(last + tile as isize)
    }

    /// Floats from one pixel to the next of the copy.
    fn pitch(&self) -> usize {
        pitch(&self.sides)
    }

    /// The tiles `block` of a task, counted by image, row, column.
    fn tiles(&self, task: &Task<'_>, block: Range<usize>, origin: usize, tiles: &mut [TileAt]) {
        let first = task.rows.start / self.shape.outputs[0];
        let columns = self.shape.grid[1];
        let rows = task.rows.len().div_ceil(self.shape.outputs[0]);
        for (index, tile) in block.zip(tiles) {
            let (image, row, column) = (index / (rows * columns), index / columns % rows, index % columns);
            *tile = TileAt {
                image,
                from: [self.reads(0, first + row) - origin as isize, self.reads(1, column)],
                to: [row * self.shape.outputs[0], column * self.shape.outputs[1]],
            };
        }
    }

    /// All blocks of tiles of a task, whose pixels are the rows of `dst`. Rows of `images` count from `origin`.
    fn run_blocks(
        &self,
        task: &Task<'_>,
        images: &Images<'_>,
        origin: usize,
        update: Update,
        [(v, v_shape), (m, m_shape)]: [(&mut [f32], [usize; 3]); 2],
        dst: &mut BlockMut<'_, f32>,
    ) {
        let epilogue = &task.finish.epilogue;
        let rows = task.rows.len().div_ceil(self.shape.outputs[0]);
        let count = task.images.len() * rows * self.shape.grid[1];
        let mut tiles = [TileAt::default(); MAX_TILES];
        for block in even(count, self.blocks.tiles) {
            let tiles = &mut tiles[..block.len()];
            self.tiles(task, block, origin, tiles);
            self.transforms.data(images, tiles, v, [v_shape[1] * v_shape[2], v_shape[2]]);
            for first in task.channels.clone().step_by(self.blocks.slice) {
                let slice = first..task.channels.end.min(first + self.blocks.slice);
                self.multiply(task.packed, tiles.len(), &slice, (v, v_shape), &mut BlockMut::new(m, m_shape));
                let outputs = Outputs {
                    bias: epilogue.bias.map(|bias| &bias[slice.clone()]),
                    clamp: epilogue.early_clamp(),
                    update,
                    size: [task.rows.len(), self.sides.output.size[1]],
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
        let (mut at, mut to, mut bounds) = ([0; MAX_TILES], [[0; 2]; MAX_TILES], [0; MAX_TILES + 1]);
        for row in 0..tiles {
            (at[row], to[row]) = (row * v_products * v_pitch, [0, row]);
        }
        let parts = tiles.div_ceil(self.kernel.mr());
        (1..=parts).for_each(|part| bounds[part] = part * tiles / parts);
        let [_, m_rows, m_pitch] = m.extent();
        for product in 0..self.shape.products {
            let lhs = &v[product * v_pitch..];
            let m = &mut m.block([product..product + 1, 0..m_rows, 0..m_pitch]);
            for p in 0..count {
                let rhs = panel(product, p);
                let mut ahead = if p + 1 < count { panel(product, p + 1) } else { panel(product + 1, 0) };
                for part in 0..parts {
                    let rows = bounds[part]..bounds[part + 1];
                    let call = Call {
                        lhs,
                        at: Lhs::Rows(&at[rows.clone()]),
                        rhs,
                        pitch: nr,
                        walk: Walk::run(depth),
                        init: Init::Zero,
                        clamp: UNCLAMPED,
                        to: &to[rows],
                        column: p * nr,
                        columns: nr,
                        fetch: false,
                        ahead,
                        ahead_pitch: LINE,
                    };
                    self.kernel.run(&call, m);
                    ahead = &ahead[ahead.len().min(depth * LINE)..];
                }
            }
        }
    }
}

/// Floats from one pixel to the next of a transposed copy: an odd number of lines, so that pixels do not share sets of L1.
fn pitch(sides: &Sides) -> usize {
    odd_lines(sides.input.channels)
}

/// Sizes of the parts of a lane.
struct Lens {
    /// `[tile][product][channel]`.
    v: [usize; 3],
    /// `[product][tile][channel of a slice]`.
    m: [usize; 3],
    /// Floats of the transposed input.
    input: usize,
    /// Floats of the outputs before they are transposed back.
    output: usize,
}

impl Lens {
    fn new(sides: &Sides, shape: &Shape, blocks: &Blocks) -> Self {
        let Blocks { images, rows, channels, tiles, slice, .. } = *blocks;
        let [_, width] = sides.input.size;
        let (mut input, mut output) = (0, 0);
        if sides.layout == Layout::Nchw {
            let reads = ((rows - 1) * shape.outputs[0] + shape.tile[0]).min(sides.input.size[0]);
            input = lines(images * reads * width * pitch(sides));
            let writes = (rows * shape.outputs[0]).min(sides.output.size[0]);
            output = lines(images * writes * sides.output.size[1] * channels);
        }
        Self {
            v: [tiles, shape.products | 1, odd_lines(sides.input.channels)],
            m: [shape.products, tiles | 1, odd_lines(slice)],
            input,
            output,
        }
    }

    fn total(&self) -> usize {
        self.v.iter().product::<usize>() + self.m.iter().product::<usize>() + self.input + self.output
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
        for (group, panel) in (0..self.sides.groups).flat_map(|g| (0..self.panels()).map(move |p| (g, p))) {
            for c in 0..depth {
                for j in (0..nr).step_by(WIDTH) {
                    let first = panel * nr + j;
                    let width = WIDTH.min(nr - j);
                    let valid = self.sides.output.channels.saturating_sub(first).min(width);
                    for (tap, g) in g[..taps].iter_mut().enumerate() {
                        let k = [rows.k(tap / columns.count), columns.k(tap % columns.count)];
                        let (start, [out_stride, in_stride]) = self.sides.weight(group, k);
                        *g = [0.0; WIDTH];
                        for lane in 0..valid {
                            g[lane] = weights[start + (first + lane) * out_stride + c * in_stride].into();
                        }
                    }
                    self.transforms.weights(&g[..taps], &mut u[..products]);
                    for (product, u) in u[..products].iter().enumerate() {
                        let at = ((group * products + product) * self.panels() + panel) * depth + c;
                        packed[at * nr + j..][..width].copy_from_slice(&u[..width]);
                    }
                }
            }
        }
    }

    fn workspace_len(&self) -> usize {
        lines(self.lens().total()).saturating_mul(self.threads)
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
        let (channels, pixels) = (self.sides.output.channels * self.sides.groups, height * width);
        let images = Cut { unit: self.sides.batch.max(1), block: self.blocks.images };
        let group = Cut { unit: self.sides.output.channels, block: self.blocks.channels };
        let rows = (self.blocks.rows * self.shape.outputs[0]).min(height);
        let space = Cut { unit: pixels, block: rows * width };
        let (extent, cuts) = match self.sides.layout {
            Layout::Nhwc => ([self.sides.batch, pixels, channels], [images, space, group]),
            Layout::Nchw => ([self.sides.batch, channels, pixels], [images, group, space]),
        };
        let lane_len = lines(self.lens().total());
        let output = BlockMut::new(output, extent);
        output.for_each_piece(cuts, par, workspace, lane_len, &|ranges, mut piece, lane| {
            let [images, a, b] = ranges;
            let (pixels, channels) = if self.sides.layout == Layout::Nhwc { (a, b) } else { (b, a) };
            let rows = pixels.start / width..pixels.end / width;
            self.task(&Task { input, packed, images, rows, channels, finish }, &mut piece, lane);
        });
    }
}

impl Blocks {
    /// Every candidate is priced in cycles with every micro-kernel, and the cheapest wins; how unevenly threads would share its tasks counts
    /// for a third.
    fn new(sides: &Sides, problem: &Problem, shape: &Shape) -> (Box<dyn Ukernel>, Self) {
        let mut best: Option<(f64, Box<dyn Ukernel>, Self)> = None;
        for kernel in ukernels(problem.isa) {
            let priced = Self::candidates(sides, shape, kernel.nr()).into_iter().map(|(blocks, lens)| {
                let (cycles, parts) = price(sides, problem, shape, kernel.as_ref(), &blocks, &lens);
                (cycles[0] * cycles[1], Self { cycles, parts, ..blocks })
            });
            let cheapest = priced.min_by(|(a, _), (b, _)| a.total_cmp(b));
            let (cost, blocks) = cheapest.expect("the smallest blocks are a candidate");
            if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
                best = Some((cost, kernel, blocks));
            }
        }
        let (_, kernel, blocks) = best.expect("an instruction set has micro-kernels");
        (kernel, blocks)
    }

    /// All cuts whose lane takes at most 4 MiB, and the smallest in any case.
    fn candidates(sides: &Sides, shape: &Shape, nr: usize) -> Vec<(Self, Lens)> {
        let (batch, all, [grid, row]) = (sides.batch.max(1), sides.output.channels, shape.grid);
        let mut candidates = Vec::new();
        for rows in distinct((1..=16).map(|n| grid.div_ceil(n)).chain([1])) {
            let most = if rows == grid { batch } else { 1 };
            for images in distinct([1, 2, 4, 8, 16, most].map(|n| most.div_ceil(n)).into_iter()) {
                let count = images * rows * row;
                for channels in
                    distinct([1, 2, 4, 8].map(|n| all.div_ceil(n).next_multiple_of(nr).min(all)).into_iter())
                {
                    for tiles in
                        distinct([64, 56, 42, 28, 21, 16, 14].map(|most| longest(count, most)).into_iter())
                    {
                        for slice in distinct(
                            [1, 2, 4, 8, 16].map(|n| channels.div_ceil(n).next_multiple_of(nr)).into_iter(),
                        ) {
                            let blocks = Self {
                                images,
                                rows,
                                channels,
                                tiles,
                                slice,
                                cycles: [0.0; 3],
                                parts: [0.0; 3],
                            };
                            let lens = Lens::new(sides, shape, &blocks);
                            let smallest = images * rows == 1 && tiles <= 14 && slice <= nr;
                            if smallest || lens.total() <= MAX_LANE {
                                candidates.push((blocks, lens));
                            }
                        }
                    }
                }
            }
        }
        candidates
    }
}

/// The longest of the parts that [`even`] makes.
pub(crate) fn longest(len: usize, most: usize) -> usize {
    len.div_ceil(len.div_ceil(most).max(1))
}

/// Cycles of all tasks on one core; the factor by which one, two and four threads wait, in the mean; the share of the busiest thread of the
/// problem. What does not fit twice L2 comes from L3, at some 5 bytes a cycle for weights, which are prefetched, and 16 for what is read again.
fn price(
    sides: &Sides,
    problem: &Problem,
    shape: &Shape,
    kernel: &dyn Ukernel,
    blocks: &Blocks,
    lens: &Lens,
) -> ([f64; 3], [f64; 3]) {
    let Caches { l2, .. } = problem.caches;
    let near = 2.0 * l2 as f64;
    let (depth, nr) = (sides.input.channels as f64, kernel.nr());
    let batch = sides.batch.max(1);
    let count = blocks.images * blocks.rows * shape.grid[1];
    let parts = count.div_ceil(blocks.tiles);
    let tiles = count as f64 / parts as f64;
    let calls = blocks.tiles.div_ceil(kernel.mr()) as f64;
    let panels = blocks.channels.div_ceil(nr) as f64;
    let rows = tiles / calls;
    let call = depth * kernel.step_cycles(rows) + 60.0 + 3.0 * rows * (nr / LINE) as f64;
    let gemm = shape.products as f64 * calls * panels * call;
    let weights = shape.products as f64 * depth * panels * nr as f64 * 4.0;
    let v = lens.v.iter().product::<usize>() as f64 * 4.0;
    let m = lens.m.iter().product::<usize>() as f64 * 4.0;
    let all_panels = sides.output.channels.div_ceil(nr) as f64;
    let stream = if weights / panels * all_panels + v + m > near { weights / 5.0 } else { 0.0 };
    let slices = blocks.channels.div_ceil(blocks.slice) as f64;
    let again = if v + m > near {
        v * slices + 2.0 * m * slices
    } else if stream > 0.0 {
        v * (slices - 1.0)
    } else {
        0.0
    } / 16.0;
    let lanes = problem.isa.lanes() as f64;
    let per_tile = shape.products as f64
        * ((depth / lanes).ceil() * if stream > 0.0 { 9.0 } else { 6.0 }
            + (blocks.channels as f64 / lanes).ceil() * 4.5);
    let block = gemm.max(stream) + 0.35 * stream.min(gemm) + again + tiles * (per_tile + 60.0);
    let mut task = block * parts as f64;
    if sides.layout == Layout::Nchw {
        let far = if lens.total() as f64 * 4.0 > near { 2.0 } else { 1.0 };
        task += far * (lens.input as f64 * 1.2 + lens.output as f64 * 1.5);
    }
    let last = shape.grid[0] % blocks.rows;
    let full = shape.grid[0] / blocks.rows;
    let channel_tasks = sides.groups * sides.output.channels.div_ceil(blocks.channels);
    let units = batch.div_ceil(blocks.images) * channel_tasks;
    let all = (full as f64 + last as f64 / blocks.rows as f64) * units as f64;
    let tasks = (full + usize::from(last > 0)) * units;
    let wait = |threads: usize| {
        if tasks >= 32 { 1.0 } else { (tasks.div_ceil(threads) * threads) as f64 / tasks as f64 }
    };
    let compute = (gemm + tiles * (per_tile + 60.0)) * parts as f64;
    let stages = [compute * all, (task - compute) * all, 1000.0 * all];
    let cycles = [
        (task + 1000.0) * all,
        (4.0 + wait(2) + wait(4)) / 6.0,
        wait(problem.threads) / problem.threads as f64,
    ];
    (cycles, stages)
}

/// Without repetitions, in order.
pub(crate) fn distinct(values: impl Iterator<Item = usize>) -> impl Iterator<Item = usize> {
    let mut last = None;
    values.filter(move |&value| last.replace(value) != Some(value))
}
