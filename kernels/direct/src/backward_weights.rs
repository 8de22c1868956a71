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
//!         for each tap, panel: one call of the micro-kernel for all output channels      (a reduction of the whole chunk)
//!     write the accumulators in the order of the weights
//! ```
//!
//! Rows and columns of a chunk for which a tap lies in the padding are clipped, not multiplied by zero. Nobody shares a weight.
//! Where that makes too few tasks the sum is cut into parts, always the same ones, which are added in order: the bits are the same for any
//! number of threads. A chunk is long, so that accumulators travel
//! between registers and L1 once in some hundred steps; with one row at a time that traffic would take a third of the time.
//!
//! Tried and lost: reading these vectors, `src` of a 1x1 kernel, in place instead of packing them (NHWC 256->64 at 56x56: 67 -> 53 % of the peak, AVX2): steps a whole
//! pixel apart share few cache sets.

use crate::ACCEPTED;
use crate::Direct;
use crate::in_place::InPlace;
use convolve_core::phase::AxisPhase;
use convolve_core::{
    Algorithm, BackwardWeights, BackwardWeightsArgs, BlockMut, Estimate, Execute, Geometry, Layout, Par,
    Problem, Unsupported, WeightCuts, WeightTask, lines,
};
use convolve_gemm::{Ahead, Call, Init, Lhs, To, UNCLAMPED, Ukernel, Walk, ukernel_of_rank, ukernels};
use core::ops::Range;

/// Pixels of a chunk: long enough for the accumulators to stay in registers, short enough for L2.
const PIXELS: usize = 384;

impl Algorithm<BackwardWeights> for Direct {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
        Ok(choose(problem)?.estimate)
    }

    fn build(&self, problem: &Problem) -> Box<dyn Execute<BackwardWeights>> {
        choose(problem).expect(ACCEPTED).execute
    }
}

/// One way, with its price on one thread: what is chosen must not depend on how many there are.
struct Way {
    in_place: bool,
    estimate: Estimate,
    execute: Box<dyn Execute<BackwardWeights>>,
}

/// Vectors of input channels, or, where operands and gradient lie right for them, of output channels: what costs less. By the rank of the problem what
/// other micro-kernels cost.
fn choose(problem: &Problem) -> Result<Way, Unsupported> {
    let ways = |rank: usize| {
        let problem = Problem { rank, ..*problem };
        let packed = Runner::new(&problem).map(|runner| Way {
            in_place: false,
            estimate: runner.estimate(&problem),
            execute: Box::new(runner),
        });
        let in_place = InPlace::new(&problem).map(|runner| Way {
            in_place: true,
            estimate: runner.estimate(),
            execute: Box::new(runner),
        });
        [packed, in_place].into_iter().flatten()
    };
    // By the time of one thread: which sums are made must not depend on the threads.
    let cheaper = |a: &Way, b: &Way| a.estimate.ns.total_cmp(&b.estimate.ns);
    let first = ways(0).min_by(cheaper).ok_or(Unsupported::RANK)?;
    let Some(rank) = problem.rank.checked_sub(1) else { return Ok(first) };
    let mut others: Vec<_> = (0..ukernels(problem.isa).len()).flat_map(ways).collect();
    let kind = |way: &Way| (way.in_place, way.estimate.tiling.tile);
    others.retain(|way| kind(way) != kind(&first));
    others.sort_by(cheaper);
    others.into_iter().nth(rank).ok_or(Unsupported::RANK)
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
pub(crate) struct Blocks {
    /// Boxes of the gradient and parts of the sum.
    pub(crate) cuts: WeightCuts,
    /// Output images, rows and columns of a chunk; several images only when all rows, several rows only when all columns.
    pub(crate) chunk: [usize; 3],
    /// Most input rows of a chunk.
    rows: usize,
}

/// Output pixels that are reduced together, and the input pixels that they read.
struct Chunk {
    images: Range<usize>,
    outputs: [Range<usize>; 2],
    /// Input rows that are read.
    rows: Range<usize>,
    /// The input pixel that the first output pixel reads through the first tap; maybe beyond the image.
    origin: [isize; 2],
    /// Floats of a packed input row.
    row_len: usize,
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

/// Floats of a lane: accumulators, panels of `src`, transposed `diff_dst`, a transposed row of `src`.
struct Lane {
    accumulators: usize,
    panels: usize,
    diff_dst: usize,
    pixels: usize,
}

impl Runner {
    fn new(problem: &Problem) -> Option<Self> {
        let geometry = problem.geometry;
        let kernel = ukernel_of_rank(problem.isa, [geometry.group_in(), PIXELS], problem.rank)?;
        let tile = [kernel.mr(), kernel.nr()];
        let blocks = Blocks::new(&geometry, PIXELS, |chunks| {
            WeightCuts::new(&geometry, problem.accuracy, &problem.caches, tile, chunks)
        });
        Some(Self { geometry, axes: geometry.forward().axes, kernel, blocks, threads: problem.threads })
    }

    fn lane(&self) -> Lane {
        let (nr, Blocks { cuts, chunk, rows }) = (self.kernel.nr(), self.blocks);
        let [oc, ic] = cuts.block;
        let ic = ic.next_multiple_of(nr);
        // Beyond any memory where taps are: the plan exists, and its workspace cannot be had.
        let sizes = [chunk[0], rows, self.classes(), self.class_len(chunk[2]), nr];
        let panel = sizes.into_iter().fold(1, usize::saturating_mul).min(1 << 56);
        let apart = self.geometry.conv().layout == Layout::Nchw && self.axes[1].advance > 1;
        let diff_dst = if self.copies() { chunk.iter().product::<usize>() * oc } else { 0 };
        Lane {
            accumulators: lines(self.geometry.taps() * oc * ic),
            panels: lines(panel.saturating_mul(ic).min(1 << 60) / nr),
            diff_dst: lines(diff_dst),
            pixels: if apart { lines(self.axes[1].size * nr) } else { 0 },
        }
    }

    fn lane_len(&self) -> usize {
        let Lane { accumulators, panels, diff_dst, pixels } = self.lane();
        accumulators + panels + diff_dst + pixels
    }

    /// Whether `diff_dst` is transposed, so that rows of a tile run along pixels as they do in NCHW. That pays where several taps read it and its
    /// pixels, multiples of 2 KiB apart, would share a few sets of L1; elsewhere reading it in place is 5 to 15 % faster (AVX-512).
    fn copies(&self) -> bool {
        let crowded = (self.geometry.dst().column * size_of::<f32>()).is_multiple_of(2048);
        self.geometry.conv().layout == Layout::Nhwc && self.geometry.taps() > 2 && crowded
    }

    /// The sums of one box of the gradient.
    fn task(&self, src: &[f32], diff_dst: &[f32], task: &WeightTask, part: usize, lane: &mut [f32]) -> usize {
        let WeightTask { oc, ic } = task;
        let (nr, taps) = (self.kernel.nr(), self.geometry.taps());
        let sizes = self.lane();
        let (accumulators, lane) = lane.split_at_mut(sizes.accumulators);
        let (panels, lane) = lane.split_at_mut(sizes.panels);
        let (copy, pixels) = lane.split_at_mut(sizes.diff_dst);
        let count = ic.len().div_ceil(nr);
        let accumulators = &mut accumulators[..taps * count * oc.len() * nr];
        let chunks = self.blocks.chunks_of(&self.geometry, part);
        if chunks.is_empty() {
            accumulators.fill(0.0);
        }
        let mut sums = BlockMut::new(accumulators, [taps * count, oc.len(), nr]);
        for (index, chunk) in self.chunks(chunks).enumerate() {
            let panels = &mut panels[..self.panel_len(&chunk) * count];
            self.pack_src(src, &chunk, oc.start / self.geometry.group_out(), ic, panels, pixels);
            let strides = self.geometry.dst();
            let left = if self.copies() {
                self.copy_diff_dst(diff_dst, &chunk, oc, copy)
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
        taps * count * oc.len() * nr
    }

    /// The chunks, in the order of the sum.
    fn chunks(&self, chunks: Range<usize>) -> impl Iterator<Item = Chunk> {
        self.blocks.chunks(&self.geometry, chunks).map(|(images, outputs)| {
            let origin =
                [0, 1].map(|a| (outputs[a].start * self.axes[a].advance) as isize + self.axes[a].taps.d(0));
            let axis = &self.axes[0];
            let reach = (outputs[0].len() - 1) * axis.advance + span(axis) + 1;
            let end = ((origin[0] + reach as isize).max(0) as usize).min(axis.size);
            let rows = (origin[0].max(0) as usize).min(end)..end;
            let row_len = self.classes() * self.class_len(outputs[1].len()) * self.kernel.nr();
            Chunk { images, outputs, rows, origin, row_len }
        })
    }

    /// Floats of one panel of a chunk.
    fn panel_len(&self, chunk: &Chunk) -> usize {
        chunk.images.len() * chunk.rows.len() * chunk.row_len
    }

    /// A packed input row is taken apart by the stride, so that the pixels that a tap reads for neighbouring outputs are neighbours: class `c`
    /// holds the columns `origin + c + i*stride`.
    fn classes(&self) -> usize {
        self.axes[1].advance.min(span(&self.axes[1]) + 1)
    }

    /// Pixels of a class for a row of `width` outputs.
    fn class_len(&self, width: usize) -> usize {
        width + span(&self.axes[1]) / self.axes[1].advance
    }

    /// Input pixels of a chunk as `[panel][image][row][class][column][NR]`, garbage in the padding, which no clipped run reads.
    fn pack_src(
        &self,
        src: &[f32],
        chunk: &Chunk,
        group: usize,
        ic: &Range<usize>,
        panels: &mut [f32],
        pixels: &mut [f32],
    ) {
        let (nr, strides, layout) = (self.kernel.nr(), self.geometry.src(), self.geometry.conv().layout);
        let (panel_len, [axis, columns]) = (self.panel_len(chunk), &self.axes);
        let (step, len) = (columns.advance, self.class_len(chunk.outputs[1].len()));
        let used = |row: usize| (row as isize - chunk.origin[0]) as usize % axis.advance <= span(axis);
        let images = chunk.images.clone().flat_map(|image| chunk.rows.clone().map(move |row| (image, row)));
        for (index, (image, row)) in images.enumerate().filter(|(_, (_, row))| used(*row)) {
            let from = image * strides.image
                + (group * self.geometry.group_in() + ic.start) * strides.channel
                + row * strides.row;
            for (panel, first) in (0..ic.len()).step_by(nr).enumerate() {
                let valid = nr.min(ic.len() - first);
                let from = &src[from + first * strides.channel..];
                let to = &mut panels[panel * panel_len + index * chunk.row_len..][..chunk.row_len];
                if layout == Layout::Nchw && step > 1 {
                    self.kernel.transpose([valid, columns.size], from, strides.channel, pixels, nr);
                }
                for (class, to) in to.chunks_exact_mut(len * nr).enumerate() {
                    let inside = inside(chunk.origin[1] + class as isize, step, columns.size, len);
                    let column = (chunk.origin[1] + (class + inside.start * step) as isize) as usize;
                    let to = &mut to[inside.start * nr..inside.end * nr];
                    match layout {
                        _ if inside.is_empty() => {}
                        Layout::Nhwc => {
                            let from = &from[column * strides.column..];
                            // Of a single pixel the step may be any number.
                            let pitch = step.wrapping_mul(strides.column);
                            self.kernel.copy(from, pitch, [inside.len(), valid], to);
                        }
                        Layout::Nchw if step > 1 => {
                            let pitch = step.wrapping_mul(nr);
                            self.kernel.copy(&pixels[column * nr..], pitch, [inside.len(), nr], to);
                        }
                        Layout::Nchw => {
                            let size = [valid, inside.len()];
                            self.kernel.transpose(size, &from[column..], strides.channel, to, nr);
                        }
                    }
                }
            }
        }
    }

    /// Copies `diff_dst` of a chunk from `[pixel][channel]` to `[channel][image][row][column]`.
    fn copy_diff_dst<'a>(
        &self,
        diff_dst: &[f32],
        chunk: &Chunk,
        oc: &Range<usize>,
        to: &'a mut [f32],
    ) -> Left<'a> {
        let (strides, [rows, columns]) = (self.geometry.dst(), &chunk.outputs);
        let pixels = chunk.images.len() * rows.len() * columns.len();
        let lines = chunk.images.clone().flat_map(|image| rows.clone().map(move |row| (image, row)));
        for (line, (image, row)) in lines.enumerate() {
            let from = image * strides.image + row * strides.row + columns.start * strides.column + oc.start;
            let (size, to) = ([columns.len(), oc.len()], &mut to[line * columns.len()..]);
            self.kernel.transpose(size, &diff_dst[from..], strides.column, to, pixels);
        }
        Left { data: to, steps: [rows.len() * columns.len(), columns.len(), 1], channel: pixels }
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
        let (count, oc) = (sums.extent()[0] / self.geometry.taps(), sums.extent()[1]);
        let row_len = chunk.row_len;
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
            let [vertical, horizontal] = &self.axes;
            let first_row =
                ((rows.start * vertical.advance) as isize + vertical.taps.d(y)) as usize - chunk.rows.start;
            let (distance, step) = (x * horizontal.taps.step_d, horizontal.advance);
            let class = distance % step * self.class_len(chunk.outputs[1].len());
            let first_column = class + distance / step + columns.start - chunk.outputs[1].start;
            let walk = Walk {
                count: [chunk.images.len(), rows.len()],
                lhs: [left.steps[0], left.steps[1]],
                rhs: [chunk.rows.len() * row_len, vertical.advance.wrapping_mul(row_len)],
                len: columns.len(),
            };
            let walk = walk.joined(left.steps[2], nr);
            let lhs_start = (rows.start - chunk.outputs[0].start) * left.steps[1]
                + (columns.start - chunk.outputs[1].start) * left.steps[2];
            for (panel, rhs) in panels.chunks_exact(panel_len).enumerate() {
                let rhs = &rhs[first_row * row_len + first_column * nr..];
                let call = Call {
                    lhs: left.data,
                    at: if left.channel == 1 {
                        Lhs::Columns { start: lhs_start, rows: oc, pitch: left.steps[2] }
                    } else {
                        Lhs::Even { start: lhs_start, rows: oc, pitch: left.channel }
                    },
                    rhs,
                    pitch: nr,
                    walk,
                    init: if first { Init::Zero } else { Init::Dst },
                    clamp: UNCLAMPED,
                    to: To::Even { at: [tap * count + panel, 0], step: [0, 1] },
                    column: 0,
                    columns: nr,
                    fetch: None,
                    ahead: Ahead::NONE,
                };
                self.kernel.run(&call, sums);
            }
        }
    }

    /// Cycles of the multiply-adds by tile efficiency, plus calls, runs, packing and delivery, at 3.5 GHz.
    fn estimate(&self, problem: &Problem) -> Estimate {
        let (geometry, conv) = (&self.geometry, self.geometry.conv());
        let panels = geometry.group_in().div_ceil(self.kernel.nr()) as f64;
        let tiles = geometry.group_out().div_ceil(self.kernel.mr()) as f64;
        let per_step = self.kernel.step_parts(geometry.group_out() as f64 / tiles);
        let [height, width] = geometry.output();
        let runs = (conv.batch * height) as f64;
        let calls = runs / (self.blocks.chunk[0] * self.blocks.chunk[1]) as f64;
        let [steps, loads] = per_step.map(|step| runs * width as f64 * step);
        let begun = loads + runs * 12.0 + calls * 80.0;
        let tasks = [
            (geometry.group_out(), self.blocks.cuts.block[0]),
            (geometry.group_in(), self.blocks.cuts.block[1]),
        ];
        let [oc_tasks, ic_tasks] = tasks.map(|(len, block)| len.div_ceil(block) as f64);
        let copied = if self.copies() { geometry.dst_len() as f64 * ic_tasks * 0.5 } else { 0.0 };
        let times = panels * tiles * (geometry.taps() * conv.groups) as f64;
        // Nothing is asked for here: what comes from memory is waited for. Not by the caches of the machine: this chooses how sums are cut.
        let far = if problem.caches.hold(geometry) { 0.0 } else { 1.2 };
        let memory = geometry.src_len() as f64 * oc_tasks * (0.4 + far)
            + geometry.dst_len() as f64 * ic_tasks * far
            + copied
            + geometry.weights_len() as f64 * 1.5;
        let tasks = self.blocks.cuts.tasks(geometry);
        let pixels = self.blocks.chunk.iter().product();
        let tiling = self.blocks.cuts.tiling([self.kernel.mr(), self.kernel.nr()], pixels);
        let parts = [steps * times, memory, begun * times];
        let workspace = self.workspace_len();
        Estimate {
            exposed: crate::EXPOSED,
            workspace,
            tiling,
            ..Estimate::new(parts, &tasks, problem.threads)
        }
    }
}

/// Distance from the first to the last tap.
fn span(axis: &AxisPhase) -> usize {
    (axis.taps.count - 1) * axis.taps.step_d
}

/// Those `i < len` for which `first + i*step` lies in `0..size`.
fn inside(first: isize, step: usize, size: usize, len: usize) -> Range<usize> {
    let at_or_after =
        |pixel: isize| if pixel <= first { 0 } else { ((pixel - first) as usize).div_ceil(step).min(len) };
    let end = at_or_after(size as isize);
    at_or_after(0).min(end)..end
}

impl Execute<BackwardWeights> for Runner {
    fn workspace_len(&self) -> usize {
        let lane = self.lane();
        self.blocks.cuts.workspace_len(&self.geometry, self.threads, self.lane_len(), lane.accumulators)
    }

    fn run(&self, args: BackwardWeightsArgs<'_>, workspace: &mut [f32], par: Par<'_>) {
        let BackwardWeightsArgs { src, diff_dst, diff_weights, update } = args;
        let lens = [self.lane_len(), self.lane().accumulators];
        let reduce =
            |task: &WeightTask, part: usize, lane: &mut [f32]| self.task(src, diff_dst, task, part, lane);
        self.blocks.cuts.for_each_task(
            &self.geometry,
            diff_weights,
            update,
            par,
            workspace,
            lens,
            self.kernel.as_ref(),
            Some(self.kernel.nr()),
            &reduce,
        );
    }
}

impl Blocks {
    /// Chunks of about that many pixels, and cuts of a sum of so many chunks.
    pub(crate) fn new(geometry: &Geometry, pixels: usize, cuts: impl Fn(usize) -> WeightCuts) -> Self {
        let conv = geometry.conv();
        let even = |len: usize, block: usize| len.div_ceil(len.div_ceil(block.max(1)));
        let [height, width] = geometry.output();
        let columns = if width > 2 * pixels { even(width, pixels) } else { width };
        let rows = if columns < width { 1 } else { even(height, pixels.div_ceil(width)) };
        let images = if rows < height { 1 } else { (pixels / (height * width)).clamp(1, conv.batch.max(1)) };
        let reach = (rows - 1) * conv.stride[0] + (conv.kernel[0] - 1) * conv.dilation[0] + 1;
        let chunk = [images, rows, columns];
        Self { cuts: cuts(chunk_count(geometry, chunk)), chunk, rows: reach.min(conv.input[0]) }
    }

    /// Chunks of the sum.
    pub(crate) fn chunk_count(&self, geometry: &Geometry) -> usize {
        chunk_count(geometry, self.chunk)
    }

    /// The chunks of a part of the sum.
    pub(crate) fn chunks_of(&self, geometry: &Geometry, part: usize) -> Range<usize> {
        let (all, parts) = (self.chunk_count(geometry), self.cuts.parts);
        part * all / parts..(part + 1) * all / parts
    }

    /// Images, and output rows and columns, of those chunks, in the order of the sum.
    pub(crate) fn chunks(
        &self,
        geometry: &Geometry,
        chunks: Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, [Range<usize>; 2])> {
        let cut = |len: usize, block: usize| (0..len).step_by(block).map(move |at| at..len.min(at + block));
        let ([height, width], [images, rows, columns]) = (geometry.output(), self.chunk);
        let grid = cut(geometry.conv().batch, images).flat_map(move |images| {
            cut(height, rows).flat_map(move |rows| {
                let images = images.clone();
                cut(width, columns).map(move |columns| (images.clone(), [rows.clone(), columns]))
            })
        });
        grid.skip(chunks.start).take(chunks.len())
    }
}

fn chunk_count(geometry: &Geometry, chunk: [usize; 3]) -> usize {
    let [height, width] = geometry.output();
    let sizes = [geometry.conv().batch, height, width];
    sizes.iter().zip(chunk).map(|(len, block)| len.div_ceil(block)).product()
}
