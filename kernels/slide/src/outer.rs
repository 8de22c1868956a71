//! Backward-weights for few input channels: `diff_weights[oc, w] = sum over n, oh, ow of diff_dst[n, oc, oh, ow] * src[n, pixel(w, oh, ow)]`.
//!
//! The weights `w = (ic, kh, kw)` of an output channel are the rows of a product, pixels are its steps, output channels its columns. Row `w` is
//! where tap `(kh, kw)` of channel `ic` reads, and in a plane that is padded and taken apart by the stride, that is a run of neighbours: the
//! plane itself is the patch matrix. So tiles of MR weights are full however few channels there are, where `direct`, whose columns are input
//! channels, would leave most lanes empty.
//!
//! ```text
//! for each task: a part of the sum, some output channels of a group, all their weights      (parallel; parts are added in order)
//!     for each chunk of some hundred output pixels
//!         prepare the input rows as planes; copy diff_dst to panels [pixel][NR]
//!         for each panel: one call of the micro-kernel for all tiles of MR weights           (a reduction of the whole chunk)
//! write the sums: rows of HWIO as they are, OIHW and OHWI transposed                           (rows are in the order of the weights)
//! ```
//!
//! Padding is multiplied, as zeros, by `diff_dst`.

use crate::prepared::{Prepared, prepare};
use crate::sweep::{Sweeper, sweeper};
use crate::window::Window;
use crate::{MACS, TASKS, WORKSPACE};
use convolve_core::{
    Accuracy, Algorithm, BackwardWeights, BackwardWeightsArgs, BlockMut, Cut, Direction, Estimate, Execute,
    Geometry, Layout, Par, Parts, Problem, Sides, Tiling, Unsupported, Update, WeightCuts, WeightLayout,
    lines,
};
use convolve_gemm::{Ahead, Call, Init, Lhs, To, UNCLAMPED, Ukernel, Walk, ukernel_of_rank};
use core::ops::Range;

/// Rows of a product that are weights.
///
/// ```
/// use convolve_core::{Algorithm, BackwardWeights};
/// assert_eq!(Algorithm::<BackwardWeights>::name(&convolve_slide::Outer), "outer");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Outer;

impl Algorithm<BackwardWeights> for Outer {
    fn name(&self) -> &'static str {
        "outer"
    }

    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
        let runner = Runner::new(problem)?;
        let block = [runner.channels, runner.geometry.group_in()];
        let tasks = WeightCuts { block, parts: runner.parts }.tasks(&runner.geometry);
        let tiling = Tiling {
            tile: [runner.kernel.mr(), runner.kernel.nr()],
            task: [runner.parts, runner.channels, runner.sides.input.channels],
            near: PIXELS,
        };
        let workspace = runner.workspace_len();
        Ok(Estimate {
            exposed: EXPOSED,
            workspace,
            tiling,
            ..Estimate::new(runner.parts(), &tasks, problem.threads)
        })
    }

    fn build(&self, problem: &Problem) -> Box<dyn Execute<BackwardWeights>> {
        Box::new(Runner::new(problem).expect("accepted by `estimate`"))
    }
}

/// Of waiting for what has left the caches, what is not hidden; fitted on Zen 4.
const EXPOSED: f64 = 0.75;

/// Pixels of a chunk: long enough for the sums to stay in registers, short enough for a panel of `diff_dst` to stay in L1.
const PIXELS: usize = 192;
/// Most floats of the sums of a box, of the sums of all parts, and of the planes of a chunk.
const SUMS: usize = 1 << 16;
const PARTIAL: usize = 1 << 18;
const PLANES: usize = 1 << 17;

struct Runner {
    geometry: Geometry,
    sides: Sides,
    window: Window,
    planes: Prepared,
    kernel: Box<dyn Ukernel>,
    sweeper: Box<dyn Sweeper>,
    /// Where the row of each weight of an output channel starts in the planes, in the order of the weights.
    rows: Vec<usize>,
    /// Images of a chunk; several only when it has all their rows.
    images: usize,
    /// Output channels of a box, and parts of the sum.
    channels: usize,
    parts: usize,
    threads: usize,
}

/// Output rows of some images.
struct Chunk {
    images: Range<usize>,
    rows: Range<usize>,
}

impl Runner {
    fn new(problem: &Problem) -> Result<Self, Unsupported> {
        let geometry = problem.geometry;
        let sides = Sides::new(&geometry, Direction::Forward);
        let kernel = ukernel_of_rank(problem.isa, [geometry.group_out(), PIXELS], problem.rank);
        let (kernel, sweeper) = (kernel.ok_or(Unsupported::RANK)?, sweeper(problem.isa));
        let ([height, width], batch) = (sides.output.size, sides.batch.max(1));
        let rows = PIXELS.div_ceil(width.max(1)).min(height.max(1));
        let planes =
            Prepared::of_rows(&sides, sweeper.lanes(), height.max(1).div_ceil(height.max(1).div_ceil(rows)));
        let depth = sides.input.channels;
        let weights = depth * geometry.taps();
        let image = planes.plane.saturating_mul(depth);
        if image > PLANES || !planes.is_near(&sides) {
            return Err(Unsupported("the input rows of one output row do not fit a second-level cache"));
        }
        let nr = kernel.nr();
        if weights.saturating_mul(nr) > SUMS {
            return Err(Unsupported(
                "the weights of a panel of output channels do not fit a second-level cache",
            ));
        }
        let window = Window::planes(&sides.phases[0], depth, &planes.padded, planes.plane, sweeper.lanes());
        let images = if planes.block < height { 1 } else { PIXELS / (height * width).max(1) };
        let images = images.clamp(1, batch).min(PLANES / image.max(1));
        let group = geometry.group_out();
        let channels = (SUMS / weights / nr * nr).min(group);
        let mut runner = Self {
            rows: Vec::with_capacity(weights),
            geometry,
            sides,
            window,
            planes,
            kernel,
            sweeper,
            images,
            channels,
            parts: 1,
            threads: problem.threads,
        };
        runner.place_rows();
        while runner.lane_len() > WORKSPACE && runner.channels > nr {
            runner.channels = (runner.channels / 2).next_multiple_of(nr);
        }
        if runner.lane_len() > WORKSPACE {
            return Err(Unsupported("the pixels of an output row take more than 2 MiB a thread"));
        }
        if geometry.macs() >= MACS && problem.accuracy != Accuracy::Strict {
            let all = runner.parts_of(1);
            let most = PARTIAL / (all.boxes * all.len).max(1);
            runner.parts = TASKS.div_ceil(all.boxes).min(most).min(runner.chunk_count()).max(1);
        }
        Ok(runner)
    }

    fn place_rows(&mut self) {
        let [vertical, horizontal] = self.window.phase.axes;
        let (padded, [kh, kw]) = (self.planes.padded, self.geometry.conv().kernel);
        let strides = self.geometry.weights();
        let depth = self.sides.input.channels;
        let taps = (0..depth).flat_map(|c| (0..kh).flat_map(move |y| (0..kw).map(move |x| (c, y, x))));
        let place = |(c, y, x): (usize, usize, usize)| {
            let offset = c * self.planes.plane + y * vertical.taps.step_d * padded.pitch;
            (strides.at(0, c, [y, x]), offset + padded.tap(&horizontal, x))
        };
        let mut rows: Vec<(usize, usize)> = taps.map(place).collect();
        rows.sort_unstable();
        self.rows = rows.into_iter().map(|(_, row)| row).collect();
    }

    /// Floats of the planes of one image.
    fn image_len(&self) -> usize {
        self.planes.plane * self.sides.input.channels
    }

    /// Floats of the sums, the planes and the panels of `diff_dst`.
    fn lens(&self) -> [usize; 3] {
        let (nr, width) = (self.kernel.nr(), self.sides.output.size[1]);
        let columns = self.channels.next_multiple_of(nr);
        let pixels = self.images * self.planes.block * width;
        [self.rows.len() * columns, self.images * self.image_len(), pixels * columns].map(lines)
    }

    fn lane_len(&self) -> usize {
        self.lens().iter().sum()
    }

    fn parts_of(&self, parts: usize) -> Parts {
        let boxes = self.sides.groups * self.geometry.group_out().div_ceil(self.channels);
        Parts { parts, boxes, len: self.lens()[0] }
    }

    fn blocks(&self) -> [usize; 2] {
        [self.sides.batch.div_ceil(self.images), self.sides.output.size[0].div_ceil(self.planes.block)]
    }

    fn chunk_count(&self) -> usize {
        self.blocks().iter().product()
    }

    fn chunk(&self, index: usize) -> Chunk {
        let [image, row] =
            [index / self.blocks()[1] * self.images, index % self.blocks()[1] * self.planes.block];
        let (batch, height) = (self.sides.batch, self.sides.output.size[0]);
        Chunk {
            images: image..batch.min(image + self.images),
            rows: row..height.min(row + self.planes.block),
        }
    }

    /// Output channels, of all groups, of a box.
    fn channels_of(&self, index: usize) -> Range<usize> {
        let group = self.geometry.group_out();
        Cut { unit: group, block: self.channels }.piece(index, group * self.sides.groups)
    }

    /// The sums of one part of one box, `[panel][weight][NR]`, at the start of the lane.
    fn reduce(&self, src: &[f32], diff_dst: &[f32], index: usize, part: usize, lane: &mut [f32]) -> usize {
        let (nr, channels) = (self.kernel.nr(), self.channels_of(index));
        let [sums_len, planes_len, _] = self.lens();
        let (sums, lane) = lane.split_at_mut(sums_len);
        let (prepared, panels) = lane.split_at_mut(planes_len);
        prepared.fill(0.0);
        let (count, all) = (channels.len().div_ceil(nr), self.chunk_count());
        let sums = &mut sums[..count * self.rows.len() * nr];
        let chunks = part * all / self.parts..(part + 1) * all / self.parts;
        if chunks.is_empty() {
            sums.fill(0.0);
        }
        let len = sums.len();
        let mut sums = BlockMut::new(sums, [count, self.rows.len(), nr]);
        let width = self.sides.output.size[1];
        for (nth, chunk) in chunks.map(|chunk| self.chunk(chunk)).enumerate() {
            self.prepare(src, channels.start / self.geometry.group_out(), &chunk, prepared);
            let pixels = chunk.rows.len() * width;
            let panel_len = chunk.images.len() * pixels * nr;
            self.copy(diff_dst, &channels, &chunk, &mut panels[..count * panel_len]);
            let walk = Walk {
                count: [chunk.images.len(), chunk.rows.len()],
                lhs: [self.image_len(), self.window.phase.axes[0].advance * self.planes.padded.pitch],
                rhs: [pixels * nr, width * nr],
                len: width,
            };
            for (panel, rhs) in panels[..count * panel_len].chunks_exact(panel_len.max(1)).enumerate() {
                let call = Call {
                    lhs: prepared,
                    at: Lhs::Rows(&self.rows),
                    rhs,
                    pitch: nr,
                    walk,
                    init: if nth == 0 { Init::Zero } else { Init::Dst },
                    clamp: UNCLAMPED,
                    to: To::Even { at: [panel, 0], step: [0, 1] },
                    column: 0,
                    columns: nr,
                    fetch: None,
                    ahead: Ahead::NONE,
                };
                self.kernel.run(&call, &mut sums);
            }
        }
        len
    }

    /// The input rows of a chunk as `[image][input channel][row][pitch]`.
    fn prepare(&self, src: &[f32], group: usize, chunk: &Chunk, prepared: &mut [f32]) {
        for (image, prepared) in chunk.images.clone().zip(prepared.chunks_exact_mut(self.image_len().max(1)))
        {
            prepare(
                &self.sides,
                &self.window,
                &self.planes,
                self.sweeper.as_ref(),
                self.kernel.as_ref(),
                src,
                image,
                &(group..group + 1),
                &chunk.rows,
                prepared,
            );
        }
    }

    /// `diff_dst` of a chunk as `[panel][image][pixel][NR]`, zeros beyond the last channel.
    fn copy(&self, diff_dst: &[f32], channels: &Range<usize>, chunk: &Chunk, panels: &mut [f32]) {
        let (nr, strides, width) = (self.kernel.nr(), self.sides.output.strides, self.sides.output.size[1]);
        let pixels = chunk.rows.len() * width;
        let panel_len = chunk.images.len() * pixels * nr;
        for (first, panel) in channels.clone().step_by(nr).zip(panels.chunks_exact_mut(panel_len.max(1))) {
            let valid = nr.min(channels.end - first);
            for (image, to) in chunk.images.clone().zip(panel.chunks_exact_mut(pixels * nr)) {
                let from = image * strides.image + first * strides.channel + chunk.rows.start * strides.row;
                match self.sides.layout {
                    Layout::Nhwc => {
                        self.kernel.copy(&diff_dst[from..], strides.column, [pixels, valid], to);
                    }
                    Layout::Nchw => {
                        if valid < nr {
                            to.fill(0.0);
                        }
                        self.kernel.transpose([valid, pixels], &diff_dst[from..], strides.channel, to, nr);
                    }
                }
            }
        }
    }

    /// Writes or adds sums `[panel][weight][NR]` to a box: `[1, weight, channel]` of HWIO, else `[1, channel, weight]`.
    fn deliver(&self, sums: &[f32], update: Update, piece: &mut BlockMut<'_, f32>) {
        let (nr, rows) = (self.kernel.nr(), self.rows.len());
        let by_rows = self.geometry.conv().weight_layout == WeightLayout::Hwio;
        let channels = piece.extent()[if by_rows { 2 } else { 1 }];
        for (first, sums) in (0..channels).step_by(nr).zip(sums.chunks_exact(rows * nr)) {
            let valid = nr.min(channels - first);
            if !by_rows {
                self.kernel.transpose_into([rows, valid], sums, nr, piece, [0, first], update);
                continue;
            }
            for (row, sums) in sums.chunks_exact(nr).enumerate() {
                let to = &mut piece.row(0, row)[first..first + valid];
                match update {
                    Update::Overwrite => to.copy_from_slice(&sums[..valid]),
                    Update::Accumulate => to.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum),
                }
            }
        }
    }

    /// Cycles of the multiply-adds by tile efficiency, plus runs, calls and copies.
    fn parts(&self) -> [f64; 3] {
        let [height, width] = self.sides.output.size;
        let (images, group) = (self.sides.batch as f64, self.geometry.group_out());
        let panels = (self.sides.groups * group.div_ceil(self.kernel.nr())) as f64;
        let pixels = images * (height * width) as f64;
        let tiles = self.rows.len().div_ceil(self.kernel.mr()) as f64;
        let steps = self.kernel.step_parts(self.rows.len() as f64 / tiles);
        let calls = tiles * panels * self.chunk_count() as f64;
        let runs = tiles * panels * images * height as f64;
        let boxes = (self.sides.groups * group.div_ceil(self.channels)) as f64;
        // Copies of `src` and of `diff_dst`; pixels that are taken apart go one by one.
        let advance = self.window.phase.axes[1].advance.min(6) as f64;
        let apart = if advance > 1.0 { 3.0 } else { 1.0 };
        // Of pixels, whose channels are neighbours, a group reads a part of each line.
        let parts = if self.sides.groups > 1 { 6.0 / self.sides.input.channels as f64 } else { 0.0 };
        let per_float = if self.sides.layout == Layout::Nhwc {
            [0.75 * advance + parts, 0.4]
        } else {
            [0.4 * apart, 0.6]
        };
        let src = boxes * (self.chunk_count() * self.images * self.image_len()) as f64 * per_float[0];
        let dst = pixels * panels * self.kernel.nr() as f64 * per_float[1];
        let [multiply, load] = steps.map(|step| 1.03 * tiles * panels * pixels * step);
        [multiply, src + dst, load + calls * 80.0 + runs * 6.0]
    }
}

impl Execute<BackwardWeights> for Runner {
    fn workspace_len(&self) -> usize {
        self.parts_of(self.parts).workspace_len(self.threads, self.lane_len())
    }

    fn run(&self, args: BackwardWeightsArgs<'_>, workspace: &mut [f32], par: Par<'_>) {
        let BackwardWeightsArgs { src, diff_dst, diff_weights, update } = args;
        let (conv, rows) = (self.geometry.conv(), self.rows.len());
        let (one, cut) = (Cut::whole(1), Cut { unit: self.geometry.group_out(), block: self.channels });
        let by_rows = conv.weight_layout == WeightLayout::Hwio;
        let (extent, cuts) = match by_rows {
            true => ([1, rows, conv.out_channels], [one, Cut::whole(rows), cut]),
            false => ([1, conv.out_channels, rows], [one, cut, Cut::whole(rows)]),
        };
        let per_group = self.geometry.group_out().div_ceil(self.channels);
        let index = |ranges: &[Range<usize>; 3]| {
            let first = ranges[if by_rows { 2 } else { 1 }].start;
            let group = self.geometry.group_out();
            first / group * per_group + first % group / self.channels
        };
        self.parts_of(self.parts).for_each_box(
            BlockMut::new(diff_weights, extent),
            cuts,
            par,
            workspace,
            self.lane_len(),
            &index,
            &|index, part, lane| self.reduce(src, diff_dst, index, part, lane),
            &|_, sums, piece| self.deliver(sums, update, piece),
        );
    }
}
