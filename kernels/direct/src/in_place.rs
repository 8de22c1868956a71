//! Backward-weights where operands and gradient lie as an outer product over pixels wants them:
//! `diff_weights[row, column] += left[pixel, row] * right[pixel, column]`.
//!
//! A step broadcasts MR neighbouring channels of one operand, in place, and multiplies them with NR neighbouring channels of the other; rows of
//! accumulators are rows of the gradient, so that the tile itself writes it.
//!
//! | layout, gradient | rows: broadcast | columns: vectors |
//! |---|---|---|
//! | NHWC, HWIO | input channels of the pixel that the tap reads | output channels |
//! | NCHW, OIHW, 1x1 with stride 1 | output channels, pixels are neighbours | input channels, transposed on the way to their panels |
//!
//! ```text
//! for each task: some input channels x some output channels of one group, all taps       (parallel; a box of the gradient)
//!     for each chunk of output pixels                                                     (in order: the sum has one order)
//!         copy the right operand of the chunk to panels [pixel][NR]                       (once for all taps and rows)
//!         for each panel, tap: one call for all tiles of MR rows                          (writes the gradient itself)
//! ```
//!
//! Beside [`backward_weights`](crate::backward_weights), whose gradient may lie in any order: no padded copy of `src`, no sums in another order.
//! A panel is copied although in NHWC it could be read in place: pixels that are a multiple of 1 KiB apart share few sets of L1, and every
//! panel is read `taps * rows / MR` times. What the next chunk will read is asked for while this one is computed: no gain where operands stay in
//! L2, but 256 -> 64 channels at 56x56 with a batch of 16 takes 10.9 instead of 12.0 ms in NHWC, out of cache 11.1 instead of 16.3 (AVX-512, Xeon),
//! and in NCHW 9.2 instead of 11.7, 64 -> 256 channels 8.1 instead of 13.5 (Zen 5).

use crate::backward_weights::Blocks;
use convolve_core::phase::AxisPhase;
use convolve_core::{
    BackwardWeights, BackwardWeightsArgs, BlockMut, Estimate, Execute, Geometry, LINE, Layout, Par, Problem,
    Ranked, Strides, Update, WeightCuts, WeightLayout, WeightTask, lines,
};
use convolve_gemm::{Ahead, Call, Init, Lhs, To, UNCLAMPED, Ukernel, Walk, ukernels};
use core::ops::Range;

/// Floats of a panel: it stays in L1 beside the pixels that pass.
const PANEL: usize = 6 << 10;

pub(crate) struct InPlace {
    geometry: Geometry,
    axes: [AxisPhase; 2],
    kernel: Box<dyn Ukernel>,
    blocks: Blocks,
    /// Whether rows are output channels and the layout is NCHW.
    planes: bool,
    threads: usize,
}

/// Output pixels that are reduced together.
struct Chunk {
    images: Range<usize>,
    outputs: [Range<usize>; 2],
    /// Whether it is the first one of its part of the sum.
    first: bool,
}

impl Chunk {
    fn pixels(&self) -> usize {
        self.images.len() * self.outputs[0].len() * self.outputs[1].len()
    }

    /// Where its first output pixel lies.
    fn start(&self, strides: &Strides) -> usize {
        let [rows, columns] = &self.outputs;
        self.images.start * strides.image + rows.start * strides.row + columns.start * strides.column
    }
}

/// The operands of a task: the left one whole, the right one too, and the channels of each (of all groups).
struct Task<'a> {
    left: &'a [f32],
    right: &'a [f32],
    rows: Range<usize>,
    columns: Range<usize>,
}

/// What the next chunk will read: it is brought near while this one is computed.
struct Next<'a> {
    /// From its first pixel and channel on, left and right.
    data: [&'a [f32]; 2],
    /// From one item to the next: a pixel, or, in planes, a channel.
    pitch: [usize; 2],
    items: [usize; 2],
    /// Floats of an item.
    len: [usize; 2],
}

impl<'a> Next<'a> {
    /// A share for one call of `tiles` tiles: each asks for a cache line of `steps` items, and the next tile for the next line.
    fn share(&self, mut call: usize, tiles: usize, steps: usize) -> Ahead<'a> {
        for side in [0, 1] {
            let rounds = self.items[side].div_ceil(steps);
            let (line, round) = (call / rounds * tiles, call % rounds);
            if line * LINE < self.len[side] {
                let from = (round * steps).wrapping_mul(self.pitch[side]).wrapping_add(line * LINE);
                let items = (self.items[side] - round * steps).min(steps);
                let data = self.data[side].get(from..).unwrap_or_default();
                let tiles = (self.len[side] - line * LINE).div_ceil(LINE);
                return Ahead { data, steps: items, step: self.pitch[side], tile: LINE, tiles };
            }
            call -= self.len[side].div_ceil(tiles * LINE) * rounds;
        }
        Ahead::NONE
    }
}

impl InPlace {
    /// `None` where the gradient lies otherwise.
    pub(crate) fn new(problem: &Problem) -> Option<Self> {
        let geometry = problem.geometry;
        let conv = geometry.conv();
        let pointwise = conv.kernel == [1, 1] && conv.stride == [1, 1] && geometry.padding() == [[0; 2]; 2];
        let planes = match (conv.layout, conv.weight_layout) {
            (Layout::Nhwc, WeightLayout::Hwio) => false,
            (Layout::Nchw, WeightLayout::Oihw | WeightLayout::Ohwi) if pointwise => true,
            _ => return None,
        };
        let runner = |kernel: Box<dyn Ukernel>| {
            let tile = if planes { [kernel.mr(), kernel.nr()] } else { [kernel.nr(), kernel.mr()] };
            let blocks = Blocks::new(&geometry, PANEL / kernel.nr(), |chunks| {
                WeightCuts::in_place(&geometry, problem.accuracy, &problem.caches, tile, chunks)
            });
            Self { geometry, axes: geometry.forward().axes, kernel, blocks, planes, threads: problem.threads }
        };
        let mut ranked = Ranked::new(problem.rank);
        for runner in ukernels(problem.isa).into_iter().map(runner) {
            ranked.offer(runner.parts().iter().sum(), runner.kernel.nr(), runner);
        }
        ranked.take()
    }

    /// `[rows, columns]` from a pair of output and input channels.
    fn roles<T: Copy>(&self, [oc, ic]: [T; 2]) -> [T; 2] {
        if self.planes { [oc, ic] } else { [ic, oc] }
    }

    /// Distances in the left and in the right operand.
    fn strides(&self) -> [Strides; 2] {
        self.roles([self.geometry.dst(), self.geometry.src()])
    }

    fn lane_len(&self) -> usize {
        let [_, columns] = self.roles(self.blocks.cuts.block);
        let pixels: usize = self.blocks.chunk.iter().product();
        lines(pixels * columns.next_multiple_of(self.kernel.nr()))
    }

    /// Floats of the largest box.
    fn box_len(&self) -> usize {
        self.geometry.taps() * self.blocks.cuts.block.iter().product::<usize>()
    }

    /// The sums of a part of the pixels, in their box of the gradient.
    fn task(
        &self,
        task: &Task<'_>,
        part: usize,
        update: Update,
        sums: &mut BlockMut<'_, f32>,
        lane: &mut [f32],
    ) {
        let chunks = self.blocks.chunks_of(&self.geometry, part);
        if chunks.is_empty() && update == Update::Overwrite {
            sums.fill(0.0);
        }
        let chunks =
            self.blocks.chunks(&self.geometry, chunks).enumerate().map(|(index, (images, outputs))| Chunk {
                images,
                outputs,
                first: index == 0 && update == Update::Overwrite,
            });
        let mut chunks = chunks.peekable();
        while let Some(chunk) = chunks.next() {
            let ahead = chunks.peek().map(|next| self.ahead(task, next));
            let panels = &mut lane[..chunk.pixels() * task.columns.len().next_multiple_of(self.kernel.nr())];
            self.pack(task, &chunk, panels);
            self.reduce(task, &chunk, panels, ahead.as_ref(), sums);
        }
    }

    /// The right operand of a chunk, as `[panel][pixel][NR]`. Pixels of whole rows, and of whole images, follow each other without a gap.
    fn pack(&self, task: &Task<'_>, chunk: &Chunk, panels: &mut [f32]) {
        let ([_, strides], nr) = (self.strides(), self.kernel.nr());
        let from = &task.right[chunk.start(&strides) + task.columns.start * strides.channel..];
        if !self.planes {
            let size = [chunk.pixels(), task.columns.len()];
            return self.kernel.copy(from, strides.column, size, panels);
        }
        let pixels = chunk.pixels() / chunk.images.len();
        for (panel, to) in panels.chunks_exact_mut(chunk.pixels() * nr).enumerate() {
            let rows = nr.min(task.columns.len() - panel * nr);
            for (image, to) in to.chunks_exact_mut(pixels * nr).enumerate() {
                let from = &from[image * strides.image + panel * nr * strides.channel..];
                self.kernel.transpose([rows, pixels], from, strides.channel, to, nr);
            }
        }
    }

    /// What a chunk reads, about: from its first pixel through the first tap that is not in the padding.
    fn ahead<'a>(&self, task: &Task<'a>, chunk: &Chunk) -> Next<'a> {
        let [left, right] = self.strides();
        let [row, column] = [0, 1].map(|a| {
            let axis = &self.axes[a];
            ((chunk.outputs[a].start * axis.advance) as isize + axis.taps.d(0)).max(0) as usize
        });
        let start = chunk.images.start * left.image + row * left.row + column * left.column;
        let data = [
            task.left.get(start + task.rows.start * left.channel..).unwrap_or_default(),
            task.right.get(chunk.start(&right) + task.columns.start * right.channel..).unwrap_or_default(),
        ];
        let (channels, pixels) =
            ([task.rows.len(), task.columns.len()], [chunk.pixels() / chunk.images.len(); 2]);
        match self.planes {
            true => Next { data, pitch: [left.channel, right.channel], items: channels, len: pixels },
            false => {
                let pitch = [self.axes[1].advance.wrapping_mul(left.column), right.column];
                Next { data, pitch, items: pixels, len: channels }
            }
        }
    }

    /// Adds a chunk to the gradient; the first one overwrites it.
    fn reduce(
        &self,
        task: &Task<'_>,
        chunk: &Chunk,
        panels: &[f32],
        ahead: Option<&Next<'_>>,
        sums: &mut BlockMut<'_, f32>,
    ) {
        let (nr, [strides, _], [vertical, horizontal]) = (self.kernel.nr(), self.strides(), &self.axes);
        let (depth, tiles) = (task.rows.len(), task.rows.len().div_ceil(self.kernel.mr()));
        let [height, width] = chunk.outputs.clone().map(|range| range.len());
        let (row_len, pitch) = (width * nr, horizontal.advance.wrapping_mul(strides.column));
        let ([kh, kw], mut calls) = (self.geometry.conv().kernel, 0);
        let place = |tap: usize, row: usize| if self.planes { [row, tap] } else { [tap, row] };
        for (panel, rhs) in panels.chunks_exact(chunk.images.len() * height * row_len).enumerate() {
            let column = panel * nr;
            let stored = nr.min(task.columns.len() - column);
            for (tap, [y, x]) in (0..kh).flat_map(|y| (0..kw).map(move |x| [y, x])).enumerate() {
                let [rows, columns] = [0, 1].map(|a| {
                    let (valid, outputs) = (self.axes[a].positions_of([y, x][a]), &chunk.outputs[a]);
                    valid.start.max(outputs.start)..valid.end.min(outputs.end)
                });
                if rows.is_empty() || columns.is_empty() {
                    let absent = if chunk.first { 0..depth } else { 0..0 };
                    for [i, j] in absent.map(|row| place(tap, row)) {
                        sums.row(i, j)[column..column + stored].fill(0.0);
                    }
                    continue;
                }
                // The pixel of the left operand that goes with the first output pixel of this tap.
                let row = ((rows.start * vertical.advance) as isize + vertical.taps.d(y)) as usize;
                let pixel = ((columns.start * horizontal.advance) as isize + horizontal.taps.d(x)) as usize;
                let start = chunk.images.start * strides.image + row * strides.row + pixel * strides.column;
                let lhs = &task.left[start + task.rows.start * strides.channel..];
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
                let call = Call {
                    lhs,
                    at: match self.planes {
                        true => Lhs::Even { start: 0, rows: depth, pitch: strides.channel },
                        false => Lhs::Columns { start: 0, rows: depth, pitch },
                    },
                    rhs,
                    pitch: nr,
                    walk,
                    init: if chunk.first { Init::Zero } else { Init::Dst },
                    clamp: UNCLAMPED,
                    to: To::Even { at: place(tap, 0), step: place(0, 1) },
                    column,
                    columns: stored,
                    fetch: chunk.first.then_some(0),
                    ahead: ahead.map_or(Ahead::NONE, |next| next.share(calls, tiles, chunk.pixels())),
                };
                self.kernel.run(&call, sums);
                calls += 1;
            }
        }
    }

    /// Cycles of the multiply-adds by tile efficiency, plus runs, calls and the copy of the right operand.
    fn parts(&self) -> [f64; 3] {
        let (geometry, conv) = (&self.geometry, self.geometry.conv());
        let [rows, columns] = self.roles([geometry.group_out(), geometry.group_in()]);
        let [row_block, column_block] = self.roles(self.blocks.cuts.block);
        let panels = column_block.div_ceil(self.kernel.nr()) * columns.div_ceil(column_block);
        let tiles = row_block.div_ceil(self.kernel.mr()) * rows.div_ceil(row_block);
        let [height, width] = geometry.output();
        let lines = (conv.batch * height) as f64;
        let step = self.kernel.step_parts(rows as f64 / tiles as f64);
        let chunks = self.blocks.chunk_count(geometry) as f64;
        let runs = if geometry.taps() == 1 { chunks } else { lines };
        // Rows of the gradient are often a multiple of 2 KiB apart: many of them crowd a few sets of L1, a few wide ones do not.
        let (mr, nr) = (self.kernel.mr() as f64, self.kernel.nr() as f64);
        let stored = 8.0 * mr + 3.0 * mr * nr / 16.0;
        let [steps, loads] = step.map(|step| lines * width as f64 * step);
        let begun = loads + runs * 12.0 + chunks * (40.0 + stored);
        let [_, copied] = self.roles([geometry.dst_len(), geometry.src_len()]);
        let copies = (copied * rows.div_ceil(row_block)) as f64 * if self.planes { 0.4 } else { 0.2 };
        let times = (tiles * panels * geometry.taps() * conv.groups) as f64;
        [steps * times, copies, begun * times]
    }

    pub(crate) fn estimate(&self) -> Estimate {
        let tasks = self.blocks.cuts.tasks(&self.geometry);
        let pixels = self.blocks.chunk.iter().product();
        let tiling = self.blocks.cuts.tiling([self.kernel.mr(), self.kernel.nr()], pixels);
        Estimate {
            exposed: crate::EXPOSED,
            workspace: self.workspace_len(),
            tiling,
            ..Estimate::new(self.parts(), &tasks, self.threads)
        }
    }
}

impl Execute<BackwardWeights> for InPlace {
    fn workspace_len(&self) -> usize {
        self.blocks.cuts.workspace_len(&self.geometry, self.threads, self.lane_len(), self.box_len())
    }

    fn run(&self, args: BackwardWeightsArgs<'_>, workspace: &mut [f32], par: Par<'_>) {
        let BackwardWeightsArgs { src, diff_dst, diff_weights, update } = args;
        let [left, right] = self.roles([diff_dst, src]);
        let sums = |boxed: &WeightTask, part, update, sums: &mut BlockMut<'_, f32>, lane: &mut [f32]| {
            let WeightTask { oc, ic } = boxed;
            let first = oc.start / self.geometry.group_out() * self.geometry.group_in();
            let ic = first + ic.start..first + ic.end;
            let [rows, columns] = if self.planes { [oc.clone(), ic] } else { [ic, oc.clone()] };
            self.task(&Task { left, right, rows, columns }, part, update, sums, lane);
        };
        self.blocks.cuts.for_each_box_in_place(
            &self.geometry,
            diff_weights,
            update,
            par,
            workspace,
            self.lane_len(),
            &sums,
        );
    }
}
