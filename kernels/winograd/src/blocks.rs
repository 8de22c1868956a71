//! How forward and backward-data are cut: candidates from the shape of the problem and the cache sizes, priced in cycles.

use crate::shape::Shape;
use convolve_core::{
    Cut, LINE, Layout, Problem, Ranked, Sides, Tasks, Tiling, Unsupported, both, distinct, lines, shares,
};
use convolve_gemm::{Ukernel, ukernels};
use core::ops::Range;

/// Most tiles of a block.
pub(crate) const MAX_TILES: usize = 128;
/// Most floats of one lane of workspace: 4 MiB.
pub(crate) const MAX_LANE: usize = 1 << 20;

/// The cut.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// Cycles of all tasks: products and transforms, streams and copies, tasks.
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
            let reads = shape.reads(read).min(sides.input.size[0]);
            input = lines(copied * reads * width * pitch(sides));
            let writes = (rows * shape.rows()).min(sides.output.size[0]);
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
    /// The cheapest of all cuts with all micro-kernels, priced in cycles; how unevenly threads would share its tasks counts for a third. By the rank of
    /// the problem the next ones: another micro-kernel, or tasks of other channels.
    pub(crate) fn new(
        sides: &Sides,
        problem: &Problem,
        shape: &Shape,
    ) -> Result<(Box<dyn Ukernel>, Self), Unsupported> {
        let (mut ranked, mut kernels) = (Ranked::new(problem.rank), ukernels(problem.isa));
        for (i, kernel) in kernels.iter().enumerate() {
            Self::search(sides, problem, shape, kernel.as_ref(), &mut |cost, blocks| {
                let wanted = ranked.wants(cost);
                if wanted && let Some(blocks) = blocks {
                    ranked.offer(cost, (i, blocks.channels), (i, blocks));
                }
                wanted
            });
        }
        let (i, blocks) = ranked.take().ok_or(Unsupported::RANK)?;
        Ok((kernels.swap_remove(i), blocks))
    }

    pub(crate) fn tiling(&self, kernel: &dyn Ukernel, shape: &Shape, sides: &Sides) -> Tiling {
        let pixels = (self.rows * shape.rows()).min(sides.output.size[0]) * sides.output.size[1];
        let tile = [kernel.mr(), kernel.nr()];
        Tiling { tile, task: [self.images, pixels, self.channels], near: self.tiles }
    }

    /// The tasks: some rows of tiles.
    pub(crate) fn tasks(&self, sides: &Sides, shape: &Shape) -> Tasks {
        let [height, width] = sides.output.size;
        let rows = (self.rows * shape.rows()).min(height);
        sides.tasks(self.images, Cut { unit: height * width, block: rows * width }, self.channels)
    }

    /// Visits all cuts whose lane takes at most 4 MiB, and the smallest in any case, each with its price. Before the loops over tiles and slices it
    /// visits a price that none of them beats: if the answer is no, they are left out.
    pub(crate) fn search(
        sides: &Sides,
        problem: &Problem,
        shape: &Shape,
        kernel: &dyn Ukernel,
        visit: &mut impl FnMut(f64, Option<Self>) -> bool,
    ) {
        let (nr, l2) = (kernel.nr(), problem.caches.l2);
        let (batch, all, [grid, row]) = (sides.batch.max(1), sides.output.channels, shape.grid);
        let tile_bytes = (shape.products | 1) * odd_lines(sides.input.channels) * size_of::<f32>();
        let steps = kernel.step_cycles(kernel.mr() as f64);
        let widths = [1, 2, 4, 8].map(|n| all.div_ceil(n).next_multiple_of(nr).min(all));
        for rows in distinct(shares(grid).chain([1])) {
            let most = if rows == grid { batch } else { 1 };
            for images in distinct([1, 2, 4, 8, 16, most].map(|n| most.div_ceil(n)).into_iter()) {
                let count = images * rows * row;
                let lengths = [64, 56, 42, 28, 21, 16, 14].map(|most| longest(count, most));
                for channels in distinct(widths.into_iter()) {
                    // Tasks of all tiles that differ in their channels alone; a V beyond L2 is made again sooner than read.
                    let together = images * rows == batch * grid && channels < all;
                    let shared =
                        together && count <= MAX_TILES && sides.groups == 1 && count * tile_bytes <= l2;
                    let parts = [0.0; 3];
                    let task = Self { images, rows, channels, tiles: 0, slice: nr, shared, parts };
                    let mut price = Price::new(sides, problem, shape, kernel, &task);
                    if !visit(price.least(steps), None) {
                        continue;
                    }
                    price.wait = task.tasks(sides, shape).wait();
                    for tiles in distinct(lengths.into_iter()) {
                        let narrow = Self { tiles, ..task };
                        let block = price.block(tiles);
                        // No slice is narrower than a panel, and none has less than one: the price grows with both.
                        let lens = Lens::new(sides, shape, &narrow);
                        if !visit(price.cost(&block, &lens, 1).0, None) {
                            continue;
                        }
                        for slice in distinct(
                            [1, 2, 4, 8, 16].map(|n| channels.div_ceil(n).next_multiple_of(nr)).into_iter(),
                        ) {
                            let blocks = Self { slice, ..narrow };
                            let lens = Lens::new(sides, shape, &blocks);
                            let smallest = images * rows == 1 && tiles <= 14 && slice <= nr;
                            if smallest || lens.total() <= MAX_LANE {
                                let (cost, parts) = price.cost(&block, &lens, channels.div_ceil(slice));
                                visit(cost, Some(Self { parts, ..blocks }));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Cycles in which a call of the micro-kernel begins, and the transforms of a tile on the way out and in.
const BEGIN: f64 = 110.0;
const WRITE: f64 = 110.0;
const READ: f64 = 40.0;

/// The longest of the parts that [`even`] makes.
pub(crate) fn longest(len: usize, most: usize) -> usize {
    len.div_ceil(len.div_ceil(most).max(1))
}

/// What the tasks of a cut cost, before their tiles are cut into blocks.
struct Price<'a> {
    sides: &'a Sides,
    shape: &'a Shape,
    kernel: &'a dyn Ukernel,
    task: &'a Blocks,
    /// What does not fit twice L2 comes from L3.
    near: f64,
    /// Weights that do not fit thrice the share of L3 come slower.
    last: f64,
    /// Vectors of the input channels.
    vectors: f64,
    /// Tiles of a task.
    count: usize,
    /// Panels of a task, and of the problem.
    panels: [f64; 2],
    /// Cycles that write a tile.
    writing: f64,
    /// Tasks; one that has less than its rows counts as less.
    all: f64,
    /// The factor by which one, two and four threads wait, in the mean.
    wait: f64,
}

/// A block of a task.
struct Block {
    /// Blocks of a task.
    parts: f64,
    /// Tiles of a block, in the mean.
    tiles: f64,
    /// Cycles of its products.
    gemm: f64,
    /// Those of them in which calls begin.
    begun: f64,
}

impl<'a> Price<'a> {
    fn new(
        sides: &'a Sides,
        problem: &Problem,
        shape: &'a Shape,
        kernel: &'a dyn Ukernel,
        task: &'a Blocks,
    ) -> Self {
        let (lanes, nr) = (problem.isa.lanes(), kernel.nr());
        let [last, full] = [shape.grid[0] % task.rows, shape.grid[0] / task.rows];
        let channel_tasks = sides.groups * sides.output.channels.div_ceil(task.channels);
        let units = sides.batch.max(1).div_ceil(task.images) * channel_tasks;
        Self {
            sides,
            shape,
            kernel,
            task,
            near: 2.0 * problem.caches.l2 as f64,
            last: 3.0 * problem.caches.l3 as f64,
            vectors: sides.input.channels.div_ceil(lanes) as f64,
            count: task.images * task.rows * shape.grid[1],
            panels: [task.channels, sides.output.channels].map(|channels| channels.div_ceil(nr) as f64),
            writing: (shape.products * task.channels.div_ceil(lanes)) as f64 * 5.5 + WRITE,
            all: (full as f64 + last as f64 / task.rows as f64) * units as f64,
            wait: 1.0,
        }
    }

    /// No cut of these tasks costs less: a tile costs least in a full call, whose steps take so many cycles.
    fn least(&self, steps: f64) -> f64 {
        let products = self.shape.products as f64 * self.panels[0];
        let tile = products * self.call(self.kernel.mr() as f64, steps) / self.kernel.mr() as f64;
        self.count as f64 * (tile + self.writing) * self.all
    }

    /// Cycles of a call of the micro-kernel, whose steps take so many.
    fn call(&self, rows: f64, steps: f64) -> f64 {
        self.sides.input.channels as f64 * steps + BEGIN + 3.0 * rows * (self.kernel.nr() / LINE) as f64
    }

    fn block(&self, most: usize) -> Block {
        let parts = self.count.div_ceil(most);
        let tiles = self.count as f64 / parts as f64;
        let calls = most.div_ceil(self.kernel.mr()) as f64;
        let rows = tiles / calls;
        let call = self.call(rows, self.kernel.step_cycles(rows));
        let calls = self.shape.products as f64 * calls * self.panels[0];
        Block { parts: parts as f64, tiles, gemm: calls * call, begun: calls * BEGIN }
    }

    /// What is compared, and the cycles of all tasks on one core. What does not fit twice L2 comes
    /// from L3: weights, which are prefetched, at 17 to 21 bytes a cycle, slower in wide panels and where all are more than three shares of L3, and what is read
    /// again at 64. Products and the stream of weights hide each other, but not where both take as long. Grows with `lens` and `slices`. (Constants fitted to
    /// 1500 cuts of 24 problems, Zen 5: standard deviation of predicted over measured 11 %, the cut that is taken 5 % slower than the best in the mean.)
    fn cost(&self, block: &Block, lens: &Lens, slices: usize) -> (f64, [f64; 3]) {
        let &Block { parts, tiles, gemm, begun } = block;
        let &Self { sides, shape, task, near, writing, all, wait, .. } = self;
        let products = shape.products as f64;
        // Of a task, and all.
        let panel = products * (sides.input.channels * self.kernel.nr()) as f64 * 4.0;
        let [weights, all_weights] = self.panels.map(|panels| panel * panels);
        let [v, m] = [lens.v, lens.m].map(|extent| extent.iter().product::<usize>() as f64 * 4.0);
        let vectors = (self.kernel.nr() / LINE) as f64;
        let deep = if all_weights > self.last { 1.7 } else { 1.0 };
        let stream =
            if all_weights + v + m > near { weights * (0.044 + 0.0033 * vectors) * deep } else { 0.0 };
        let slices = slices as f64;
        let again = if v + m > near {
            v * slices + 2.0 * m * slices
        } else if stream > 0.0 {
            v * (slices - 1.0)
        } else {
            0.0
        } / 64.0;
        let reading = products * self.vectors * 4.2 + READ;
        let mut cycles = (both::<3>(gemm, stream) + again + tiles * writing) * parts;
        let mut first = tiles * reading * parts;
        if sides.layout == Layout::Nchw {
            let copies = if task.shared { task.images * task.rows } else { 1 };
            first += (lens.input * copies) as f64 * 0.42;
            cycles += lens.output as f64 * 0.45;
        }
        // Once for all tasks, or for each.
        let once = if task.shared { first + 500.0 * (task.images * task.rows) as f64 } else { 0.0 };
        if !task.shared {
            cycles += first;
        }
        let compute = (gemm + tiles * writing) * parts * all
            + if task.shared { once } else { tiles * reading * parts * all };
        let total = (cycles + 1000.0) * all + once;
        let reads = tiles * READ * parts * if task.shared { 1.0 } else { all };
        let begun = (begun + tiles * WRITE) * parts * all + reads;
        (total * wait, [compute - begun, cycles * all + once - compute, 1000.0 * all + begun])
    }
}
