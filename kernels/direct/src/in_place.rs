//! Backward-weights of NHWC images, the gradient in HWIO: `diff_weights[kh, kw, ic, oc] += src[n, ih, iw, ic] * diff_dst[n, oh, ow, oc]`.
//!
//! Here both operands and the gradient lie as the outer product over pixels wants them: a step broadcasts MR neighbouring input channels of the
//! pixel that the tap reads, in place, and multiplies them with NR neighbouring output channels; rows of accumulators are rows of the gradient.
//!
//! ```text
//! for each task: some input channels x some output channels of one group, all taps       (parallel; a box of the gradient)
//!     for each chunk of output pixels                                                     (in order: the sum has one order)
//!         copy diff_dst of the chunk to panels [pixel][NR]                                (once for all taps and input channels)
//!         for each panel, tap, tile of MR input channels: one call                        (writes the gradient itself)
//! ```
//!
//! Beside [`backward_weights`](crate::backward_weights), whose vectors are input channels: no padded copy of `src`, no other order of the
//! gradient, any stride alike. A panel is copied although it could be read in place: pixels that are a multiple of 1 KiB apart share few
//! sets of L1, and every panel is read `taps * ic / MR` times.

use crate::backward_weights::Blocks;
use convolve_core::phase::AxisPhase;
use convolve_core::{
    BackwardWeights, BackwardWeightsArgs, BlockMut, Estimate, Execute, Geometry, LINE, Layout, Par, Problem,
    Update, WeightCuts, WeightLayout, WeightTask, lines,
};
use convolve_gemm::{Call, Init, Lhs, UNCLAMPED, Ukernel, Walk, ukernels};
use core::ops::Range;

/// Most rows of any tile.
const MAX_MR: usize = 16;
/// Floats of a panel: it stays in L1 beside the pixels that pass.
const PANEL: usize = 6 << 10;

pub(crate) struct InPlace {
    geometry: Geometry,
    axes: [AxisPhase; 2],
    kernel: Box<dyn Ukernel>,
    blocks: Blocks,
    threads: usize,
}

/// Output pixels that are reduced together.
struct Chunk {
    images: Range<usize>,
    outputs: [Range<usize>; 2],
    /// Whether it is the first one of its part of the sum.
    first: bool,
}

/// What the next chunk will read, from its first pixel and channel on: it is brought near while this one is computed.
struct Ahead<'a> {
    /// `src` and `diff_dst`.
    data: [&'a [f32]; 2],
    /// From one pixel to the next.
    pitch: [usize; 2],
    /// Channels that are read.
    channels: [usize; 2],
}

impl<'a> Ahead<'a> {
    /// A cache line of every pixel: a share for one call.
    fn share(&self, call: usize) -> (&'a [f32], usize) {
        let lines = self.channels[0].div_ceil(LINE);
        let (side, line) = if call < lines { (0, call) } else { (1, call - lines) };
        match line * LINE < self.channels[side] {
            true => (self.data[side].get(line * LINE..).unwrap_or_default(), self.pitch[side]),
            false => (&[], 0),
        }
    }
}

impl InPlace {
    /// `None` where the gradient lies otherwise.
    pub(crate) fn new(problem: &Problem) -> Option<Self> {
        let geometry = problem.geometry;
        let conv = geometry.conv();
        if conv.layout != Layout::Nhwc || conv.weight_layout != WeightLayout::Hwio {
            return None;
        }
        let runner = |kernel: Box<dyn Ukernel>| {
            let tile = [kernel.nr(), kernel.mr()];
            let blocks = Blocks::new(&geometry, PANEL / kernel.nr(), |chunks| {
                WeightCuts::in_place(&geometry, problem.accuracy, &problem.caches, tile, chunks)
            });
            Self { geometry, axes: geometry.forward().axes, kernel, blocks, threads: problem.threads }
        };
        ukernels(problem.isa).into_iter().map(runner).min_by(|a, b| a.cycles().total_cmp(&b.cycles()))
    }

    fn pixels(&self) -> usize {
        self.blocks.chunk.iter().product()
    }

    fn lane_len(&self) -> usize {
        let [oc, _] = self.blocks.cuts.block;
        lines(self.pixels() * oc.next_multiple_of(self.kernel.nr()))
    }

    /// Floats of the largest box.
    fn box_len(&self) -> usize {
        self.geometry.taps() * self.blocks.cuts.block.iter().product::<usize>()
    }

    /// The sums of a part of the pixels, in their box `[tap][input channel][output channel]`.
    fn task(
        &self,
        [src, diff_dst]: [&[f32]; 2],
        task: &WeightTask,
        part: usize,
        update: Update,
        sums: &mut BlockMut<'_, f32>,
        lane: &mut [f32],
    ) {
        let strides = self.geometry.dst();
        let chunks = self.blocks.chunks_of(&self.geometry, part);
        if chunks.is_empty() && update == Update::Overwrite {
            sums.fill(0.0);
        }
        let mut chunks = self.blocks.chunks(&self.geometry, chunks).enumerate().peekable();
        while let Some((index, (images, outputs))) = chunks.next() {
            let ahead = chunks.peek().map(|(_, (images, outputs))| {
                self.ahead([src, diff_dst], task, images.start, [0, 1].map(|a| outputs[a].start))
            });
            let [rows, columns] = &outputs;
            let pixels = images.len() * rows.len() * columns.len();
            let panels = &mut lane[..pixels * task.oc.len().next_multiple_of(self.kernel.nr())];
            // Pixels of whole rows, and of whole images, follow each other without a gap.
            let from =
                images.start * strides.image + rows.start * strides.row + columns.start * strides.column;
            let from = &diff_dst[from + task.oc.start..];
            self.kernel.copy(from, strides.column, [pixels, task.oc.len()], panels);
            let first = index == 0 && update == Update::Overwrite;
            self.reduce(src, &Chunk { images, outputs, first }, task, panels, ahead.as_ref(), sums);
        }
    }

    /// What a chunk reads that starts there, about: its first pixel through the first tap that is not in the padding.
    fn ahead<'a>(
        &self,
        data: [&'a [f32]; 2],
        task: &WeightTask,
        image: usize,
        first: [usize; 2],
    ) -> Ahead<'a> {
        let (from, to) = (self.geometry.src(), self.geometry.dst());
        let group = task.oc.start / self.geometry.group_out();
        let [row, column] = [0, 1].map(|a| {
            let axis = &self.axes[a];
            ((first[a] * axis.advance) as isize + axis.taps.d(0)).max(0) as usize
        });
        let channel = group * self.geometry.group_in() + task.ic.start;
        let src = image * from.image + row * from.row + column * from.column + channel;
        let dst = image * to.image + first[0] * to.row + first[1] * to.column + task.oc.start;
        Ahead {
            data: [data[0].get(src..).unwrap_or_default(), data[1].get(dst..).unwrap_or_default()],
            pitch: [self.axes[1].advance.wrapping_mul(from.column), to.column],
            channels: [task.ic.len(), task.oc.len()],
        }
    }

    /// Adds a chunk to the gradient; the first one overwrites it.
    fn reduce(
        &self,
        src: &[f32],
        chunk: &Chunk,
        task: &WeightTask,
        panels: &[f32],
        ahead: Option<&Ahead<'_>>,
        sums: &mut BlockMut<'_, f32>,
    ) {
        let (nr, strides, [vertical, horizontal]) = (self.kernel.nr(), self.geometry.src(), &self.axes);
        let group = task.oc.start / self.geometry.group_out();
        let channel = group * self.geometry.group_in() + task.ic.start;
        let (depth, tiles) = (task.ic.len(), task.ic.len().div_ceil(self.kernel.mr()));
        let [height, width] = chunk.outputs.clone().map(|range| range.len());
        let (row_len, pitch) = (width * nr, horizontal.advance.wrapping_mul(strides.column));
        let ([kh, kw], mut call) = (self.geometry.conv().kernel, 0);
        for (panel, rhs) in panels.chunks_exact(chunk.images.len() * height * row_len).enumerate() {
            let column = panel * nr;
            let columns_stored = nr.min(task.oc.len() - column);
            for (tap, [y, x]) in (0..kh).flat_map(|y| (0..kw).map(move |x| [y, x])).enumerate() {
                let [rows, columns] = [0, 1].map(|a| {
                    let (valid, outputs) = (self.axes[a].positions_of([y, x][a]), &chunk.outputs[a]);
                    valid.start.max(outputs.start)..valid.end.min(outputs.end)
                });
                if rows.is_empty() || columns.is_empty() {
                    let absent = if chunk.first { 0..depth } else { 0..0 };
                    absent.for_each(|c| sums.row(tap, c)[column..column + columns_stored].fill(0.0));
                    continue;
                }
                // The input pixel that the first output pixel reads through this tap.
                let row = ((rows.start * vertical.advance) as isize + vertical.taps.d(y)) as usize;
                let pixel = ((columns.start * horizontal.advance) as isize + horizontal.taps.d(x)) as usize;
                let start = chunk.images.start * strides.image + row * strides.row + pixel * strides.column;
                let src = &src[start + channel..];
                let walk = Walk {
                    count: [chunk.images.len(), rows.len()],
                    lhs: [strides.image, vertical.advance.wrapping_mul(strides.row)],
                    rhs: [height * row_len, row_len],
                    len: columns.len(),
                };
                let walk = walk.joined(pitch, nr);
                let [rows_before, columns_before] =
                    [rows.start - chunk.outputs[0].start, columns.start - chunk.outputs[1].start];
                let rhs = &rhs[rows_before * row_len + columns_before * nr..];
                for tile in 0..tiles {
                    let (ahead, ahead_pitch) = ahead.map_or((&[][..], 0), |ahead| ahead.share(call));
                    call += 1;
                    let channels = tile * depth / tiles..(tile + 1) * depth / tiles;
                    let mut to = [[0; 2]; MAX_MR];
                    channels.clone().enumerate().for_each(|(m, channel)| to[m] = [tap, channel]);
                    let operands = Call {
                        lhs: src,
                        at: Lhs::Columns { start: channels.start, rows: channels.len(), pitch },
                        rhs,
                        pitch: nr,
                        walk,
                        init: if chunk.first { Init::Zero } else { Init::Dst },
                        clamp: UNCLAMPED,
                        to: &to[..channels.len()],
                        column,
                        columns: columns_stored,
                        ahead,
                        ahead_pitch,
                    };
                    self.kernel.run(&operands, sums);
                }
            }
        }
    }

    /// Cycles of the multiply-adds by tile efficiency, plus runs, calls and the copy of `diff_dst`.
    fn cycles(&self) -> f64 {
        let (geometry, conv) = (&self.geometry, self.geometry.conv());
        let [oc, ic] = self.blocks.cuts.block;
        let panels = oc.div_ceil(self.kernel.nr()) * geometry.group_out().div_ceil(oc);
        let tiles = ic.div_ceil(self.kernel.mr()) * geometry.group_in().div_ceil(ic);
        let [height, width] = geometry.output();
        let rows = (conv.batch * height) as f64;
        let step = self.kernel.step_cycles(geometry.group_in() as f64 / tiles as f64);
        let chunks = (self.blocks.chunk_count(geometry)) as f64;
        let runs = if geometry.taps() == 1 { chunks } else { rows };
        let stored = (self.kernel.mr() * self.kernel.nr()) as f64 / 16.0;
        let tile = rows * width as f64 * step + runs * 12.0 + chunks * (80.0 + 3.0 * stored);
        let copies = geometry.dst_len() as f64 * geometry.group_in().div_ceil(ic) as f64 * 0.2;
        tile * (tiles * panels * geometry.taps() * conv.groups) as f64 + copies
    }

    pub(crate) fn estimate(&self) -> Estimate {
        let parallel =
            self.threads.min(self.blocks.cuts.boxes(&self.geometry) * self.blocks.cuts.parts) as f64;
        Estimate { ns: self.cycles() / 3.5 / parallel, workspace: self.workspace_len(), packed: 0 }
    }
}

impl Execute<BackwardWeights> for InPlace {
    fn workspace_len(&self) -> usize {
        self.blocks.cuts.workspace_len(&self.geometry, self.threads, self.lane_len(), self.box_len())
    }

    fn run(&self, args: BackwardWeightsArgs<'_>, workspace: &mut [f32], par: Par<'_>) {
        let BackwardWeightsArgs { src, diff_dst, diff_weights, update } = args;
        self.blocks.cuts.for_each_box_in_place(
            &self.geometry,
            diff_weights,
            update,
            par,
            workspace,
            self.lane_len(),
            &|task, part, update, sums, lane| self.task([src, diff_dst], task, part, update, sums, lane),
        );
    }
}
