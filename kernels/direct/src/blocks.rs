//! How the output of a pass of phases is cut into tasks, and what that costs: by the shape of the problem and the caches alone, never by
//! the number of threads.
//!
//! Candidates are cuts into rows and channels that fit L2. Each is priced in cycles (tiles of each zone, rounded up; runs; calls; in
//! NCHW the transposes, which each block of channels pays again), times how unevenly two and four threads would share its tasks. The
//! cheapest wins. So 14 rows are cut 7 + 7 where 4 + 4 + 4 + 2 would keep one of two threads waiting.

use convolve_core::{Caches, Cut, Layout, Problem, Sides, Tasks, Tiling, distinct, shares};
use convolve_gemm::Ukernel;

/// The cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks {
    pub(crate) images: usize,
    pub(crate) rows: usize,
    /// Pixels of a row; less than the row only when `rows` is 1.
    pub(crate) columns: usize,
    pub(crate) channels: usize,
    /// Output channels, in whole panels, whose weights are in L2 at a time.
    pub(crate) panels: usize,
    /// Most input pixels of a task, all images together.
    pub(crate) input_pixels: usize,
    /// Cycles of all tasks: multiply-adds, copies and streams, tasks.
    pub(crate) parts: [f64; 3],
}

/// Below this many multiplications a problem is one task: it takes less time than waking a thread.
const MACS: u64 = 1 << 20;
/// Pixels that a panel of weights should be swept over.
const PIXELS: usize = 192;
/// Most floats of a copy of the input.
const COPY: usize = 3 << 17;
/// Least pixels of a task of which a copy is made.
const FEW: usize = 16;
/// Floats of the outputs that wait to be transposed, where more than one panel of them does.
const BUFFER: usize = 1 << 14;
/// Most floats of the outputs that wait. Beside [`COPY`] that would be more than 2 MiB, but deep inputs have few pixels, so that both are never large.
const WAITING: usize = 7 << 15;

impl Blocks {
    /// Visits the cuts for a micro-kernel, each with its price: one at least.
    pub(crate) fn search(
        sides: &Sides,
        problem: &Problem,
        kernel: &dyn Ukernel,
        copies: bool,
        visit: &mut dyn FnMut(f64, Self),
    ) {
        let (Caches { l2, .. }, nr) = (problem.caches, kernel.nr());
        let Sides { input, output, phases, .. } = sides;
        let batch = sides.batch.max(1);
        let [height, width] = output.size;
        let reach = |outputs: usize, axis: usize| sides.reach(outputs, axis);
        // The input of a task takes at most half of L2, so that weights can stay in the other half while they are swept over it.
        let (most_channels, depth) = (output.channels, input.channels);
        let budget = l2 / 2 / size_of::<f32>() / depth;
        // Copies are workspace, of which a thread has 2 MiB: input pixels, and outputs that wait to be transposed, of one panel at least.
        // A kernel whose windows alone exceed that has what it needs, as this refuses nothing.
        let copied = if copies && room(sides, FEW) { COPY / depth } else { usize::MAX };
        let waiting = if sides.layout == Layout::Nchw { WAITING / nr } else { usize::MAX };
        let fits = |rows: usize| {
            let input = reach(rows, 0) * reach(width, 1);
            (input <= budget || rows * width <= PIXELS) && input <= copied && rows * width <= waiting
        };
        // The most rows that fit, by bisection: `fits` holds up to some number of rows.
        let (mut most, mut over) = (1, height + 1);
        while over - most > 1 {
            let middle = most + (over - most) / 2;
            if fits(middle) { most = middle } else { over = middle }
        }
        let mut columns = width;
        let too_wide = |columns: usize| {
            let input = reach(1, 0) * reach(columns, 1);
            input > copied || columns > PIXELS && (input > budget || columns > waiting)
        };
        while most == 1 && columns > FEW && too_wide(columns) {
            columns = columns.div_ceil(2);
        }
        let mut images = 1;
        if most == height {
            let image = reach(height, 0) * reach(width, 1);
            let wanted = (budget / image.max(1)).max(PIXELS / (height * width));
            images = wanted.min(copied / image.max(1)).min(waiting / (height * width)).clamp(1, batch);
            images = batch.div_ceil(batch.div_ceil(images));
        }
        let taps = phases.iter().map(|phase| phase.taps()).max().unwrap_or(0).max(1);
        let cut = |rows: usize, channels: usize| {
            let mut panels = (budget / taps).min(channels) / nr * nr;
            if sides.layout == Layout::Nchw {
                panels = panels.min(BUFFER / (images * rows * columns) / nr * nr);
            }
            let input_pixels = images * reach(rows, 0) * reach(columns, 1);
            let (panels, parts) = (panels.max(nr), [0.0; 3]);
            Self { images, rows, columns, channels, panels, input_pixels, parts }
        };
        if problem.geometry.macs() < MACS {
            return visit(0.0, cut(most, most_channels));
        }
        let model = Model::new(sides, problem, kernel, copies);
        for rows in distinct(shares(height).filter(|&rows| rows <= most).chain([most])) {
            let [compute, begun, far, copies] = model.cycles(&cut(rows, most_channels));
            for n in [1, 2, 4, 8, 16] {
                let channels = most_channels.div_ceil(n).next_multiple_of(nr).min(output.channels);
                let blocks = cut(rows, channels);
                let cycles = compute + begun + far + copies * model.copied(channels);
                let tasks = blocks.tasks(sides);
                let waiting = tasks.busiest(2) + 2.0 * tasks.busiest(4);
                visit((cycles + 600.0 * tasks.count() as f64) * waiting, blocks);
            }
        }
    }

    /// With what it costs.
    pub(crate) fn priced(self, sides: &Sides, problem: &Problem, kernel: &dyn Ukernel, copies: bool) -> Self {
        let model = Model::new(sides, problem, kernel, copies);
        let [compute, begun, far, copies] = model.cycles(&self);
        let (memory, tasks) = (far + copies * model.copied(self.channels), self.tasks(sides).count() as f64);
        Self { parts: [compute, memory, begun + 600.0 * tasks], ..self }
    }

    /// The tasks: some rows, or, where those are too wide, a part of one.
    pub(crate) fn tasks(&self, sides: &Sides) -> Tasks {
        let [height, width] = sides.output.size;
        let pixels = if self.columns < width {
            Cut { unit: width, block: self.columns }
        } else {
            Cut { unit: height * width, block: self.rows * width }
        };
        sides.tasks(self.images, pixels, self.channels)
    }

    pub(crate) fn tiling(&self, kernel: &dyn Ukernel) -> Tiling {
        let Self { images, rows, columns, channels, panels, .. } = *self;
        Tiling {
            tile: [kernel.mr(), kernel.nr()],
            task: [images, rows * columns, channels],
            near: panels.min(channels),
        }
    }
}

/// Whether a copy of what a window of about so many outputs reads is small enough.
pub(crate) fn room(sides: &Sides, outputs: usize) -> bool {
    let [height, width] = sides.output.size;
    let rows = (outputs / width.max(1)).clamp(1, height.max(1));
    let input = sides.reach(rows, 0).saturating_mul(sides.reach(width.min(outputs), 1));
    input.saturating_mul(sides.input.channels) <= COPY
}

/// Prices of a cut, in cycles of one core.
struct Model<'a> {
    sides: &'a Sides,
    mr: usize,
    nr: usize,
    kernel: &'a dyn Ukernel,
    /// Bytes of L2.
    l2: f64,
    /// Whether tasks copy what they read.
    copies: bool,
}

impl<'a> Model<'a> {
    fn new(sides: &'a Sides, problem: &Problem, kernel: &'a dyn Ukernel, copies: bool) -> Self {
        Self { sides, mr: kernel.mr(), nr: kernel.nr(), kernel, l2: problem.caches.l2 as f64, copies }
    }

    /// Cycles of all multiply-adds, of loads beyond them, tiles and runs that begin, of what streams past, and of the copies for one block of channels.
    fn cycles(&self, blocks: &Blocks) -> [f64; 4] {
        let Sides { batch, groups, input, output, phases, layout, .. } = self.sides;
        let [height, width] = output.size;
        let Blocks { images, rows, columns, .. } = *blocks;
        // A window in the middle stands for all of them; a part of a row for its row.
        let start = (height - rows) / 2;
        let depth = input.channels as f64;
        let [mut window, mut begun] = [0.0; 2];
        for phase in phases {
            let [ys, xs] = phase.axes;
            for y in ys.segments(ys.positions(start..start + rows)) {
                for x in xs.segments(0..xs.count) {
                    let pixels = images * y.positions.len() * x.positions.len();
                    let tiles = pixels.div_ceil(self.mr);
                    let steps = self.kernel.step_parts(pixels as f64 / tiles.max(1) as f64);
                    let (rows_of_taps, taps) = (y.taps.len(), y.taps.len() * x.taps.len());
                    let runs = if input.channels < 16 { rows_of_taps } else { taps };
                    let [multiply, load] = steps.map(|step| tiles as f64 * taps as f64 * depth * step);
                    window += multiply;
                    begun += load + tiles as f64 * (10.0 * runs as f64 + 30.0);
                }
            }
        }
        let windows = (height * (*batch).max(1)) as f64 / (rows * images) as f64 * *groups as f64;
        let panels = output.channels.div_ceil(self.nr) as f64;
        // A transpose takes more than twice the time of a copy.
        let float = match (self.copies, layout) {
            (false, _) => 0.0,
            (_, Layout::Nchw) => 0.7,
            (_, Layout::Nhwc) => 0.3,
        };
        let reads = (blocks.input_pixels * width.div_ceil(columns)) as f64 * depth;
        let copies = windows * reads * float;
        // Every window reads all weights: from L2 if they fit there beside the input, else from L3, which takes a cycle a float. That hides behind
        // the multiply-adds, if a panel is swept over enough pixels.
        let weights =
            phases.iter().map(|phase| phase.taps()).sum::<usize>() as f64 * depth * panels * self.nr as f64;
        let swept = (window + begun) * panels / weights.max(1.0);
        let stream = match weights * 4.0 / self.l2 {
            share if share > 4.0 => (1.0 - 0.35 * swept).max(0.06),
            share if share > 0.5 => 0.06,
            _ => 0.03,
        };
        let streams = windows * width.div_ceil(columns) as f64 * weights * stream;
        let writes = if *layout == Layout::Nchw { 0.8 } else { 0.1 };
        let outputs = (batch * groups * height * width * output.channels) as f64;
        let all = windows * panels;
        [window * all, begun * all, streams + outputs * writes, copies]
    }

    /// How often the input is copied when tasks have that many channels.
    fn copied(&self, channels: usize) -> f64 {
        self.sides.output.channels.div_ceil(channels) as f64
    }
}
