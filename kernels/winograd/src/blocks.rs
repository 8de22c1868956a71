//! How forward and backward-data are cut: candidates from the shape of the problem and the cache sizes, priced in cycles.

use convolve_core::{Caches, LINE, Layout, Problem, Sides, lines};
use convolve_gemm::{Ukernel, ukernels};
use core::ops::Range;

/// Most tiles of a block.
pub(crate) const MAX_TILES: usize = 128;
/// Most floats of one lane of workspace: 4 MiB.
pub(crate) const MAX_LANE: usize = 1 << 20;

/// What follows from the size of a tile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Outputs of a tile.
    pub(crate) outputs: [usize; 2],
    /// Pixels that it reads.
    pub(crate) tile: [usize; 2],
    /// Products of a tile.
    pub(crate) products: usize,
    /// Tiles of an image.
    pub(crate) grid: [usize; 2],
}

/// The cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks {
    pub(crate) images: usize,
    /// Rows of tiles; all of them when there are several images.
    pub(crate) rows: usize,
    /// Output channels of a task.
    pub(crate) channels: usize,
    /// Tiles of a block.
    pub(crate) tiles: usize,
    /// Output channels of a slice, whole panels.
    pub(crate) slice: usize,
    /// All tasks read one V.
    pub(crate) shared: bool,
    /// Cycles of all tasks, and of the busiest thread.
    pub(crate) cycles: [f64; 3],
    /// What the first is made of: products and transforms, streams and copies, tasks.
    pub(crate) parts: [f64; 3],
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

/// Floats from one pixel to the next of a transposed copy: an odd number of lines, so that pixels do not share sets of L1.
pub(crate) fn pitch(sides: &Sides) -> usize {
    odd_lines(sides.input.channels)
}

/// Sizes of the parts of a lane.
pub(crate) struct Lens {
    /// `[tile][product][channel]`; of all tiles, and in front of the lanes, where it is shared.
    pub(crate) v: [usize; 3],
    /// `[product][tile][channel of a slice]`.
    pub(crate) m: [usize; 3],
    /// Floats of the transposed input.
    pub(crate) input: usize,
    /// Floats of the outputs before they are transposed back.
    pub(crate) output: usize,
    /// V is not in the lane.
    pub(crate) shared: bool,
}

impl Lens {
    pub(crate) fn new(sides: &Sides, shape: &Shape, blocks: &Blocks) -> Self {
        let Blocks { images, rows, channels, tiles, slice, shared, .. } = *blocks;
        let [_, width] = sides.input.size;
        let (mut input, mut output) = (0, 0);
        if sides.layout == Layout::Nchw {
            let [copied, read] = if shared { [1, 1] } else { [images, rows] };
            let reads = ((read - 1) * shape.outputs[0] + shape.tile[0]).min(sides.input.size[0]);
            input = lines(copied * reads * width * pitch(sides));
            let writes = (rows * shape.outputs[0]).min(sides.output.size[0]);
            output = lines(images * writes * sides.output.size[1] * channels);
        }
        let kept = if shared { images * rows * shape.grid[1] } else { tiles };
        Self {
            v: [kept, shape.products | 1, odd_lines(sides.input.channels)],
            m: [shape.products, tiles | 1, odd_lines(slice)],
            input,
            output,
            shared,
        }
    }

    pub(crate) fn v_len(&self) -> usize {
        self.v.iter().product()
    }

    /// Floats of a lane, and of what all share.
    pub(crate) fn split(&self) -> [usize; 2] {
        let rest = self.m.iter().product::<usize>() + self.input + self.output;
        if self.shared { [lines(rest), lines(self.v_len())] } else { [lines(rest + self.v_len()), 0] }
    }

    pub(crate) fn total(&self) -> usize {
        self.split().iter().sum()
    }
}

impl Blocks {
    /// Every candidate is priced in cycles with every micro-kernel, and the cheapest wins; how unevenly threads would share its tasks counts
    /// for a third.
    pub(crate) fn new(sides: &Sides, problem: &Problem, shape: &Shape) -> (Box<dyn Ukernel>, Self) {
        let mut best: Option<(f64, Box<dyn Ukernel>, Self)> = None;
        for kernel in ukernels(problem.isa) {
            let priced = Self::candidates(sides, shape, kernel.nr(), problem.caches.l2).into_iter().map(
                |(blocks, lens)| {
                    let (cycles, parts) = price(sides, problem, shape, kernel.as_ref(), &blocks, &lens);
                    (cycles[0] * cycles[1], Self { cycles, parts, ..blocks })
                },
            );
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
    pub(crate) fn candidates(sides: &Sides, shape: &Shape, nr: usize, l2: usize) -> Vec<(Self, Lens)> {
        let (batch, all, [grid, row]) = (sides.batch.max(1), sides.output.channels, shape.grid);
        let tile_bytes = (shape.products | 1) * odd_lines(sides.input.channels) * size_of::<f32>();
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
                            // Tasks of all tiles that differ in their channels alone; a V beyond L2 is made again sooner than read.
                            let together = images * rows == batch * grid && channels < all;
                            let shared = together
                                && count <= MAX_TILES
                                && sides.groups == 1
                                && count * tile_bytes <= l2;
                            let (cycles, parts) = ([0.0; 3], [0.0; 3]);
                            let blocks = Self { images, rows, channels, tiles, slice, shared, cycles, parts };
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
    let reading =
        shape.products as f64 * (depth / lanes).ceil() * if stream > 0.0 { 9.0 } else { 6.0 } + 30.0;
    let writing = shape.products as f64 * (blocks.channels as f64 / lanes).ceil() * 4.5 + 30.0;
    let block = gemm.max(stream) + 0.35 * stream.min(gemm) + again + tiles * writing;
    let mut task = block * parts as f64;
    let mut first = tiles * reading * parts as f64;
    if sides.layout == Layout::Nchw {
        let far = if lens.total() as f64 * 4.0 > near { 2.0 } else { 1.0 };
        let copies = if blocks.shared { blocks.images * blocks.rows } else { 1 };
        first += far * (lens.input * copies) as f64 * 1.2;
        task += far * lens.output as f64 * 1.5;
    }
    // Once for all tasks, or for each.
    let once = if blocks.shared { first + 500.0 * (blocks.images * blocks.rows) as f64 } else { 0.0 };
    if !blocks.shared {
        task += first;
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
    let compute = (gemm + tiles * writing) * parts as f64 * all
        + if blocks.shared { once } else { tiles * reading * parts as f64 * all };
    let stages = [compute, task * all + once - compute, 1000.0 * all];
    let cycles = [
        (task + 1000.0) * all + once,
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
