//! Backward-weights: `diff_weights[oc, ic, kh, kw] = sum over n, oh, ow of diff_dst[n, oc, oh, ow] * src[n, ic, ih, iw]`.
//!
//! A sum of outer products over pixels: each step takes MR numbers of `diff_dst` (neighbouring output channels of one pixel) and
//! NR numbers of `src` (neighbouring input channels of the pixel that the tap reads).
//!
//! ```text
//! for each task: some output channels x some input channels of one group, all taps      (parallel; a box of diff_weights)
//!     for each chunk of a few hundred output pixels                                      (in order: the sum has one order)
//!         pack the input pixels of the chunk as panels [row][column][NR]
//!         copy the chunk of diff_dst to [pixel][channel], where it cannot be read in place
//!         for each tap, panel, tile of MR output channels: one call of the micro-kernel  (a reduction of the whole chunk)
//!     write the accumulators in the order of the weights
//! ```
//!
//! Rows and columns of a chunk for which a tap lies in the padding are clipped, not multiplied by zero. Nobody shares a weight, so
//! there are no partial sums: the bits are the same for any number of threads. A chunk is long, so that accumulators travel
//! between registers and L1 once in some hundred steps; with one row at a time that traffic would take a third of the time.
//!
//! Tried and lost: reading `src` of a 1x1 kernel in place instead of packing it (NHWC 256->64 at 56x56: 67 -> 53 % of the peak, AVX2): steps a whole
//! pixel apart share few cache sets.

use crate::Direct;
use convolve_core::phase::AxisPhase;
use convolve_core::{
    Algorithm, BackwardWeights, BackwardWeightsArgs, BlockMut, Caches, Estimate, Execute, Geometry, Layout,
    Par, Problem, Unsupported, WeightSums, WeightTask, lines,
};
use convolve_gemm::{Call, Init, Lhs, UNCLAMPED, Ukernel, Walk, ukernel};
use core::ops::Range;

/// Most rows of any tile.
const MAX_MR: usize = 16;

impl Algorithm<BackwardWeights> for Direct {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
        let runner = Runner::new(problem);
        Ok(Estimate { ns: runner.nanoseconds(problem), workspace: runner.workspace_len(), packed: 0 })
    }

    fn build(&self, problem: &Problem) -> Box<dyn Execute<BackwardWeights>> {
        Box::new(Runner::new(problem))
    }
}

struct Runner {
    geometry: Geometry,
    axes: [AxisPhase; 2],
    kernel: Box<dyn Ukernel>,
    blocks: Blocks,
    threads: usize,
}

/// Sizes of tasks and chunks: by the shape of the problem alone.
#[derive(Clone, Copy, Debug)]
struct Blocks {
    /// Output and input channels of a task.
    oc: usize,
    ic: usize,
    /// Output images, rows and columns of a chunk; several images only when all rows, several rows only when all columns.
    chunk: [usize; 3],
    /// Most input rows and columns of a chunk.
    reach: [usize; 2],
}

/// Output pixels that are reduced together, and the input pixels that they read.
struct Chunk {
    images: Range<usize>,
    outputs: [Range<usize>; 2],
    inputs: [Range<usize>; 2],
}

/// `diff_dst` as one chunk of a task sees it: the image itself, or a transposed copy.
struct Left<'a> {
    /// From the first pixel of the chunk and the first channel of the task on.
    data: &'a [f32],
    /// Distances of images, rows and columns.
    steps: [usize; 3],
    /// Distance of channels: 1, or a whole plane.
    channel: usize,
}

/// Floats of a lane: accumulators, panels of `src`, transposed `diff_dst`.
struct Lane {
    accumulators: usize,
    panels: usize,
    diff_dst: usize,
}

impl Runner {
    fn new(problem: &Problem) -> Self {
        let geometry = problem.geometry;
        let kernel = ukernel(problem.isa, geometry.group_in());
        let blocks = Blocks::new(&geometry, &problem.caches, kernel.as_ref());
        Self { geometry, axes: geometry.forward().axes, kernel, blocks, threads: problem.threads }
    }

    fn lane(&self) -> Lane {
        let (nr, Blocks { oc, ic, chunk, reach }) = (self.kernel.nr(), self.blocks);
        let ic = ic.next_multiple_of(nr);
        // A run reads whole steps of the pitch, so up to a stride of pixels behind the last one.
        let panel = (chunk[0] * reach[0] * reach[1] + self.column_step()) * nr;
        let diff_dst = if self.copies() { chunk.iter().product::<usize>() * oc } else { 0 };
        Lane {
            accumulators: lines(self.geometry.taps() * oc * ic),
            panels: lines(panel * ic / nr),
            diff_dst: lines(diff_dst),
        }
    }

    fn lane_len(&self) -> usize {
        let Lane { accumulators, panels, diff_dst } = self.lane();
        accumulators + panels + diff_dst
    }

    /// Whether `diff_dst` is copied to `[pixel][channel of the task]`. In NHWC that pays when many taps read it and the task has only some of
    /// the channels (else steps are a long way apart and share few cache sets); 1x1 is 10 % faster in place. In NCHW rows of a tile run
    /// along planes in place, if the other operand has no gaps between its steps.
    fn copies(&self) -> bool {
        match self.geometry.conv().layout {
            Layout::Nhwc => self.geometry.taps() > 2 && self.blocks.oc < self.geometry.conv().out_channels,
            Layout::Nchw => self.column_step() > 1,
        }
    }

    /// Input columns from one output column to the next; 1 when there is no next.
    fn column_step(&self) -> usize {
        if self.geometry.output()[1] == 1 { 1 } else { self.geometry.conv().stride[1] }
    }

    /// The sums of one box of the gradient.
    fn task(&self, src: &[f32], diff_dst: &[f32], task: &WeightTask, lane: &mut [f32]) -> WeightSums {
        let WeightTask { oc, ic } = task;
        let (nr, taps) = (self.kernel.nr(), self.geometry.taps());
        let sizes = self.lane();
        let (accumulators, lane) = lane.split_at_mut(sizes.accumulators);
        let (panels, copy) = lane.split_at_mut(sizes.panels);
        let count = ic.len().div_ceil(nr);
        let accumulators = &mut accumulators[..taps * count * oc.len() * nr];
        if self.geometry.conv().batch == 0 {
            accumulators.fill(0.0);
        }
        let mut sums = BlockMut::new(accumulators, [taps * count, oc.len(), nr]);
        for (index, chunk) in self.chunks().enumerate() {
            let panels = &mut panels[..self.panel_len(&chunk) * count];
            self.pack_src(src, &chunk, oc.start / self.geometry.group_out(), ic, panels);
            let strides = self.geometry.dst();
            let left = if self.copies() {
                let steps = self.copy_diff_dst(diff_dst, &chunk, oc, copy);
                Left { data: copy, steps, channel: 1 }
            } else {
                let steps = [strides.image, strides.row, strides.column];
                let first = [chunk.images.start, chunk.outputs[0].start, chunk.outputs[1].start];
                let origin: usize = first.iter().zip(steps).map(|(at, step)| at * step).sum();
                Left {
                    data: &diff_dst[origin + oc.start * strides.channel..],
                    steps,
                    channel: strides.channel,
                }
            };
            self.reduce(&chunk, index == 0, panels, &left, &mut sums);
        }
        WeightSums { sums: 0..taps * count * oc.len() * nr, nr }
    }

    /// The chunks, in the order of the sum.
    fn chunks(&self) -> impl Iterator<Item = Chunk> {
        let cut = |len: usize, block: usize| (0..len).step_by(block).map(move |at| at..len.min(at + block));
        let [height, width] = self.geometry.output();
        let [images, rows, columns] = self.blocks.chunk;
        let grid = cut(self.geometry.conv().batch, images).flat_map(move |images| {
            cut(height, rows).flat_map(move |rows| {
                let images = images.clone();
                cut(width, columns).map(move |columns| (images.clone(), [rows.clone(), columns]))
            })
        });
        grid.map(|(images, outputs)| {
            let inputs = [0, 1].map(|a| {
                let (axis, outputs) = (&self.axes[a], &outputs[a]);
                let first = (outputs.start * axis.advance) as isize + axis.taps.d(0);
                let last = ((outputs.end - 1) * axis.advance) as isize + axis.taps.d(axis.taps.count - 1);
                let end = ((last + 1).max(0) as usize).min(axis.size);
                (first.max(0) as usize).min(end)..end
            });
            Chunk { images, outputs, inputs }
        })
    }

    /// Floats of one panel of a chunk.
    fn panel_len(&self, chunk: &Chunk) -> usize {
        let pixels = chunk.images.len() * chunk.inputs[0].len() * chunk.inputs[1].len();
        (pixels + self.column_step()) * self.kernel.nr()
    }

    /// Input pixels of a chunk as `[panel][image][row][column][NR]`, zeros beyond the last channel.
    fn pack_src(&self, src: &[f32], chunk: &Chunk, group: usize, ic: &Range<usize>, panels: &mut [f32]) {
        let (nr, strides, layout) = (self.kernel.nr(), self.geometry.src(), self.geometry.conv().layout);
        let [rows, columns] = &chunk.inputs;
        let row_len = columns.len() * nr;
        if row_len == 0 {
            return;
        }
        for (panel, to) in panels.chunks_exact_mut(self.panel_len(chunk)).enumerate() {
            let first = ic.start + panel * nr;
            let valid = nr.min(ic.end - first);
            let channel = group * self.geometry.group_in() + first;
            let mut to = to.chunks_exact_mut(row_len);
            for (image, row) in
                chunk.images.clone().flat_map(|image| rows.clone().map(move |row| (image, row)))
            {
                let to = to.next().expect("a panel holds all rows of its chunk");
                let from = image * strides.image
                    + channel * strides.channel
                    + row * strides.row
                    + columns.start * strides.column;
                match layout {
                    Layout::Nhwc => {
                        let from = src[from..].chunks(strides.column);
                        match nr {
                            8 if valid == nr => copy_each::<8>(from, to),
                            16 if valid == nr => copy_each::<16>(from, to),
                            32 if valid == nr => copy_each::<32>(from, to),
                            _ => {
                                for (to, from) in to.chunks_exact_mut(nr).zip(from) {
                                    to[..valid].copy_from_slice(&from[..valid]);
                                    to[valid..].fill(0.0);
                                }
                            }
                        }
                    }
                    Layout::Nchw => {
                        if valid < nr {
                            to.fill(0.0);
                        }
                        self.kernel.transpose([valid, columns.len()], &src[from..], strides.channel, to, nr);
                    }
                }
            }
        }
    }

    /// Copies `diff_dst` of a chunk to `[image][row][column][channel]`; gives the strides of image, row and column.
    fn copy_diff_dst(
        &self,
        diff_dst: &[f32],
        chunk: &Chunk,
        oc: &Range<usize>,
        to: &mut [f32],
    ) -> [usize; 3] {
        let strides = self.geometry.dst();
        let [rows, columns] = &chunk.outputs;
        let row_len = columns.len() * oc.len();
        let pixels = chunk.images.clone().flat_map(|image| rows.clone().map(move |row| (image, row)));
        for ((image, row), to) in pixels.zip(to.chunks_exact_mut(row_len)) {
            let from = image * strides.image
                + oc.start * strides.channel
                + row * strides.row
                + columns.start * strides.column;
            match self.geometry.conv().layout {
                Layout::Nhwc => {
                    let pixels = diff_dst[from..].chunks(strides.column);
                    let to = to.chunks_exact_mut(oc.len());
                    to.zip(pixels).for_each(|(to, pixel)| to.copy_from_slice(&pixel[..oc.len()]));
                }
                Layout::Nchw => {
                    let size = [oc.len(), columns.len()];
                    self.kernel.transpose(size, &diff_dst[from..], strides.channel, to, oc.len());
                }
            }
        }
        [rows.len() * row_len, row_len, oc.len()]
    }

    /// Adds a chunk to the accumulators `[tap * panels + panel][output channel][NR]`; the first one overwrites them.
    fn reduce(
        &self,
        chunk: &Chunk,
        first: bool,
        panels: &[f32],
        left: &Left<'_>,
        sums: &mut BlockMut<'_, f32>,
    ) {
        let (nr, panel_len) = (self.kernel.nr(), self.panel_len(chunk));
        let (count, oc) = (panels.len() / panel_len, sums.extent()[1]);
        let tiles = oc.div_ceil(self.kernel.mr());
        let row_len = chunk.inputs[1].len() * nr;
        let [kh, kw] = self.geometry.conv().kernel;
        for (tap, [y, x]) in (0..kh).flat_map(|y| (0..kw).map(move |x| [y, x])).enumerate() {
            let [rows, columns] = [0, 1].map(|a| {
                let (valid, outputs) = (self.axes[a].positions_of([y, x][a]), &chunk.outputs[a]);
                valid.start.max(outputs.start)..valid.end.min(outputs.end)
            });
            if rows.is_empty() || columns.is_empty() {
                let planes = if first { tap * count..(tap + 1) * count } else { 0..0 };
                for plane in planes {
                    (0..oc).for_each(|o| sums.row(plane, o).fill(0.0));
                }
                continue;
            }
            // The input pixel that the first output pixel reads through this tap, within the chunk.
            let [first_row, first_column] = [0, 1].map(|a| {
                let (axis, first) = (&self.axes[a], [&rows, &columns][a].start);
                ((first * axis.advance) as isize + axis.taps.d([y, x][a])) as usize - chunk.inputs[a].start
            });
            let walk = Walk {
                count: [chunk.images.len(), rows.len()],
                lhs: [left.steps[0], left.steps[1]],
                rhs: [chunk.inputs[0].len() * row_len, self.axes[0].advance.wrapping_mul(row_len)],
                len: columns.len(),
            };
            let walk = walk.joined(left.steps[2], self.column_step() * nr);
            let lhs_start = (rows.start - chunk.outputs[0].start) * left.steps[1]
                + (columns.start - chunk.outputs[1].start) * left.steps[2];
            for (panel, rhs) in panels.chunks_exact(panel_len).enumerate() {
                let rhs = &rhs[first_row * row_len + first_column * nr..];
                for tile in 0..tiles {
                    let channels = tile * oc / tiles..(tile + 1) * oc / tiles;
                    let at: [usize; MAX_MR] =
                        core::array::from_fn(|m| lhs_start + (channels.start + m) * left.channel);
                    let to: [[usize; 2]; MAX_MR] =
                        core::array::from_fn(|m| [tap * count + panel, channels.start + m]);
                    let call = Call {
                        lhs: left.data,
                        at: if left.channel == 1 {
                            Lhs::Columns { start: at[0], rows: channels.len(), pitch: left.steps[2] }
                        } else {
                            Lhs::Rows(&at[..channels.len()])
                        },
                        rhs,
                        pitch: self.column_step() * nr,
                        walk,
                        init: if first { Init::Zero } else { Init::Dst },
                        clamp: UNCLAMPED,
                        to: &to[..channels.len()],
                        column: 0,
                        columns: nr,
                    };
                    self.kernel.run(&call, sums);
                }
            }
        }
    }

    /// Cycles of the multiply-adds by tile efficiency, plus calls, runs, packing and delivery, at 3.5 GHz.
    fn nanoseconds(&self, problem: &Problem) -> f64 {
        let (geometry, conv) = (&self.geometry, self.geometry.conv());
        let (nr, mr) = (self.kernel.nr() as f64, self.kernel.mr() as f64);
        let lanes = problem.isa.lanes() as f64;
        let per_step = (nr / lanes * mr).max(nr / lanes + mr) / if lanes < 16.0 { 2.0 } else { 1.0 };
        let panels = geometry.group_in().div_ceil(self.kernel.nr()) as f64;
        let tiles = geometry.group_out().div_ceil(self.kernel.mr()) as f64;
        let [height, width] = geometry.output();
        let runs = (conv.batch * height) as f64;
        let calls = runs / (self.blocks.chunk[0] * self.blocks.chunk[1]) as f64;
        let steps = runs * (width as f64 * per_step + 12.0) + calls * 80.0;
        let tasks = [(geometry.group_out(), self.blocks.oc), (geometry.group_in(), self.blocks.ic)];
        let [oc_tasks, ic_tasks] = tasks.map(|(len, block)| len.div_ceil(block) as f64);
        let copied = if self.copies() { geometry.dst_len() as f64 * ic_tasks * 0.5 } else { 0.0 };
        let cycles = steps * panels * tiles * (geometry.taps() * conv.groups) as f64
            + geometry.src_len() as f64 * oc_tasks * 0.4
            + copied
            + geometry.weights_len() as f64 * 2.0;
        let parallel = problem.threads.min((oc_tasks * ic_tasks) as usize * conv.groups) as f64;
        cycles / 3.5 / parallel
    }
}

/// The first N floats of each, one behind the other: a copy of a constant size needs no call.
fn copy_each<'a, const N: usize>(from: impl Iterator<Item = &'a [f32]>, to: &mut [f32]) {
    for (to, from) in to.as_chunks_mut::<N>().0.iter_mut().zip(from) {
        to.copy_from_slice(&from[..N]);
    }
}

impl Execute<BackwardWeights> for Runner {
    fn workspace_len(&self) -> usize {
        self.lane_len().saturating_mul(self.threads)
    }

    fn run(&self, args: BackwardWeightsArgs<'_>, workspace: &mut [f32], par: Par<'_>) {
        let BackwardWeightsArgs { src, diff_dst, diff_weights, update } = args;
        let (block, lane_len) = ([self.blocks.oc, self.blocks.ic], self.lane_len());
        let reduce = |task: &WeightTask, lane: &mut [f32]| self.task(src, diff_dst, task, lane);
        WeightSums::for_each_task(
            &self.geometry,
            block,
            diff_weights,
            update,
            par,
            workspace,
            lane_len,
            self.kernel.as_ref(),
            &reduce,
        );
    }
}

impl Blocks {
    /// A chunk has some hundred pixels: long enough for the accumulators to stay in registers, short enough for L2.
    fn new(geometry: &Geometry, caches: &Caches, kernel: &dyn Ukernel) -> Self {
        const PIXELS: usize = 256;
        let conv = geometry.conv();
        let [oc, ic] = WeightSums::block(geometry, caches, kernel.mr(), kernel.nr());
        let even = |len: usize, block: usize| len.div_ceil(len.div_ceil(block.max(1)));
        let [height, width] = geometry.output();
        let columns = if width > 2 * PIXELS { even(width, PIXELS) } else { width };
        let rows = if columns < width { 1 } else { even(height, PIXELS.div_ceil(width)) };
        let images = if rows < height { 1 } else { (PIXELS / (height * width)).clamp(1, conv.batch.max(1)) };
        let reach = [0, 1].map(|a| {
            let outputs = [rows, columns][a];
            ((outputs - 1) * conv.stride[a] + (conv.kernel[a] - 1) * conv.dilation[a] + 1).min(conv.input[a])
        });
        Self { oc, ic, chunk: [images, rows, columns], reach }
    }
}
