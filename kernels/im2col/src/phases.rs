//! Forward and backward-data as one product per image, group and phase: `dst = weights x patches` (NCHW) or `patches x weights` (NHWC), so
//! that the unit stride of the output is the unit stride of the product.
//!
//! | layout | rows (broadcast) | columns (vectors) |
//! |---|---|---|
//! | NHWC | patches, copied row by row in L1 | output channels, packed once as panels |
//! | NCHW | output channels, packed once as rows | patches, packed as panels in L2 |
//!
//! A phase of backward-data with a stride writes every s-th pixel: in NHWC rows may go anywhere; in NCHW the product goes to a buffer and its
//! rows are spread from there.

use crate::patches::Patches;
use crate::{blocking, kernel};
use convolve_core::phase::Phase;
use convolve_core::{
    BlockMut, Cut, Direction, Estimate, Finish, Layout, Par, Phased, Problem, Sides, Tasks, Tiling,
    Unsupported, Update, lines,
};
use convolve_gemm::{Blocking, Dense, Init, Panels, Target, UNCLAMPED, Ukernel, product};
use core::ops::Range;

pub(crate) struct PatchRunner {
    sides: Sides,
    kernel: Box<dyn Ukernel>,
    blocking: Blocking,
    /// Output pixels and channels of a task.
    pixels: usize,
    channels: usize,
    threads: usize,
}

impl PatchRunner {
    pub(crate) fn new(problem: &Problem, direction: Direction) -> Result<Self, Unsupported> {
        let sides = Sides::new(&problem.geometry, direction);
        let [height, width] = sides.output.size;
        let depth = sides.phases.iter().map(Phase::taps).max().unwrap_or(0) * sides.input.channels;
        let columns = match sides.layout {
            Layout::Nhwc => sides.output.channels,
            Layout::Nchw => height * width,
        };
        let kernel = kernel(problem, [columns, depth])?;
        let (pixels, channels) = Self::cut(&sides, problem.geometry.macs(), kernel.as_ref());
        let size = match sides.layout {
            Layout::Nhwc => [pixels, channels, depth],
            Layout::Nchw => [channels, pixels, depth],
        };
        let blocking = blocking(problem, kernel.as_ref(), size);
        Ok(Self { sides, kernel, blocking, pixels, channels, threads: problem.threads })
    }

    /// Pixels and channels of a task: some hundred pixels, all channels, but some tasks where there is work for them, so that a few
    /// threads share it evenly. Whole rows where phases interleave.
    fn cut(sides: &Sides, macs: u64, kernel: &dyn Ukernel) -> (usize, usize) {
        const PIXELS: usize = 512;
        const TASKS: usize = 16;
        const MACS: u64 = 1 << 20;
        let [height, width] = sides.output.size;
        let (mut pixels, mut channels) = ((height * width).min(PIXELS), sides.output.channels);
        let tasks = |pixels: usize, channels: usize| {
            let per_group = (height * width).div_ceil(pixels) * sides.output.channels.div_ceil(channels);
            per_group * sides.groups * sides.batch.max(1)
        };
        if macs >= MACS {
            while tasks(pixels, channels) < TASKS && pixels > 64 {
                pixels = pixels.div_ceil(2);
            }
            while tasks(pixels, channels) < TASKS / 2 && channels > kernel.nr().max(kernel.mr()) {
                channels = channels.div_ceil(2).next_multiple_of(kernel.nr());
            }
        }
        let unit = if strided(sides) { width } else { kernel.nr() };
        (
            pixels.next_multiple_of(unit).min(height * width),
            channels.next_multiple_of(kernel.nr()).min(sides.output.channels),
        )
    }

    fn depth(&self, phase: &Phase) -> usize {
        phase.taps() * self.sides.input.channels
    }

    /// Output channels of a group as they are packed.
    fn padded_channels(&self) -> usize {
        match self.sides.layout {
            Layout::Nhwc => self.sides.output.channels.next_multiple_of(self.kernel.nr()),
            Layout::Nchw => self.sides.output.channels,
        }
    }

    /// Floats of the buffer of a strided phase in NCHW.
    fn buffer_len(&self) -> usize {
        let spread = self.sides.layout == Layout::Nchw && strided(&self.sides);
        if spread { lines(self.pixels * self.channels) } else { 0 }
    }

    fn lane_len(&self) -> usize {
        self.blocking.workspace_len(self.kernel.as_ref()) + self.buffer_len()
    }

    fn nhwc_task(
        &self,
        operands: (&[f32], &[f32]),
        ranges: &[Range<usize>; 3],
        piece: &mut BlockMut<'_, f32>,
        finish: Finish<'_>,
        lane: &mut [f32],
    ) {
        let [images, pixels, channels] = ranges;
        let init = match (finish.update, finish.epilogue.bias) {
            (Update::Accumulate, _) => Init::Dst,
            (_, Some(bias)) => Init::Bias(&bias[channels.clone()]),
            _ => Init::Zero,
        };
        if self.sides.gaps && finish.update == Update::Overwrite {
            piece.fill(0.0);
        }
        let clamp = finish.epilogue.early_clamp();
        let width = self.sides.output.size[1];
        for (i, image) in images.clone().enumerate() {
            self.for_each_phase(operands, image, channels.start, |phase, patches, weights| {
                let weights = Panels { data: weights, depth: self.depth(phase), width: self.kernel.nr() };
                let outer = positions(phase, pixels, width);
                let row = |r: usize| {
                    let (y, x) =
                        ((outer.start + r) / phase.axes[1].count, (outer.start + r) % phase.axes[1].count);
                    let [y, x] = [(0, y), (1, x)].map(|(a, p)| phase.axes[a].start + p * phase.axes[a].step);
                    [i, y * width + x - pixels.start]
                };
                let target = Target { row: &row, column: 0, init, clamp };
                let within = channels.start % self.sides.output.channels;
                let block = [outer.clone(), within..within + channels.len()];
                let depth = self.depth(phase);
                product(
                    self.kernel.as_ref(),
                    self.blocking,
                    &patches,
                    &weights,
                    block,
                    depth,
                    target,
                    piece,
                    lane,
                );
            });
            if finish.epilogue.late() {
                let strides = self.sides.output.strides;
                for (j, pixel) in pixels.clone().enumerate() {
                    let offset = image * strides.image + pixel * strides.column + channels.start;
                    finish.epilogue.finish(piece.row(i, j), offset);
                }
            }
        }
    }

    fn nchw_task(
        &self,
        operands: (&[f32], &[f32]),
        ranges: &[Range<usize>; 3],
        piece: &mut BlockMut<'_, f32>,
        finish: Finish<'_>,
        lane: &mut [f32],
    ) {
        let [images, channels, pixels] = ranges;
        if self.sides.gaps && finish.update == Update::Overwrite {
            piece.fill(0.0);
        }
        let (buffer, lane) = lane.split_at_mut(self.buffer_len());
        let clamp = finish.epilogue.early_clamp();
        let (width, strides) = (self.sides.output.size[1], self.sides.output.strides);
        for (i, image) in images.clone().enumerate() {
            // A bias is a number per row here: it is what the row starts from.
            let mut init = if finish.update == Update::Accumulate { Init::Dst } else { Init::Zero };
            if let Some(bias) = finish.epilogue.bias {
                (0..channels.len()).for_each(|c| piece.row(i, c).fill(bias[channels.start + c]));
                init = Init::Dst;
            }
            self.for_each_phase(operands, image, channels.start, |phase, patches, weights| {
                let depth = self.depth(phase);
                let weights = Dense { data: weights, strides: [depth, 1] };
                let outer = positions(phase, pixels, width);
                let within = channels.start % self.sides.output.channels;
                let block = [within..within + channels.len(), outer.clone()];
                let kernel = self.kernel.as_ref();
                if self.buffer_len() == 0 {
                    let target = Target { row: &|c| [i, c], column: 0, init, clamp };
                    product(kernel, self.blocking, &weights, &patches, block, depth, target, piece, lane);
                    return;
                }
                let target = Target { row: &|c| [0, c], column: 0, init: Init::Zero, clamp: UNCLAMPED };
                let buffer = &mut buffer[..channels.len() * outer.len()];
                let mut tile = BlockMut::new(buffer, [1, channels.len(), outer.len()]);
                product(kernel, self.blocking, &weights, &patches, block, depth, target, &mut tile, lane);
                for c in 0..channels.len() {
                    spread(
                        phase,
                        tile.row(0, c),
                        piece.row(i, c),
                        outer.start,
                        pixels.start,
                        width,
                        finish.update,
                    );
                }
            });
            for (c, channel) in channels.clone().enumerate() {
                let offset = image * strides.image + channel * strides.channel + pixels.start;
                finish.epilogue.finish(piece.row(i, c), offset);
            }
        }
    }

    /// Calls `f` with every phase, its patches of one image, and the packed weights of the group that `channel` belongs to.
    fn for_each_phase(
        &self,
        (input, packed): (&[f32], &[f32]),
        image: usize,
        channel: usize,
        mut f: impl FnMut(&Phase, Patches<'_>, &[f32]),
    ) {
        let group = channel / self.sides.output.channels;
        let strides = self.sides.input.strides;
        let start = image * strides.image + group * self.sides.input.channels * strides.channel;
        let mut packed = packed;
        for phase in &self.sides.phases {
            let len = self.depth(phase) * self.padded_channels();
            let (head, tail) = packed.split_at(len * self.sides.groups);
            packed = tail;
            let data = &input[start..];
            let channels = self.sides.input.channels;
            let patches = Patches { data, strides, channels, phase, kernel: self.kernel.as_ref() };
            f(phase, patches, &head[group * len..][..len]);
        }
    }

    pub(crate) fn estimate(&self) -> Estimate {
        let (workspace, packed) = (Phased::workspace_len(self), Phased::packed_len(self));
        let images = (self.sides.groups * self.sides.batch) as f64;
        let parts = self.parts().map(|cycles| cycles * images);
        let tiling = Tiling {
            tile: [self.kernel.mr(), self.kernel.nr()],
            task: [1, self.pixels, self.channels],
            near: self.blocking.kc,
        };
        Estimate { workspace, packed, tiling, ..Estimate::new(parts, &self.tasks(), self.threads) }
    }

    fn tasks(&self) -> Tasks {
        let [height, width] = self.sides.output.size;
        self.sides.tasks(1, Cut { unit: height * width, block: self.pixels }, self.channels)
    }

    /// Cycles of the multiply-adds by tile efficiency, packing, calls, for one image and group.
    fn parts(&self) -> [f64; 3] {
        let (nr, mr) = (self.kernel.nr(), self.kernel.mr());
        let per_step = self.kernel.step_cycles(mr as f64);
        let [mut compute, mut memory, mut begun] = [0.0; 3];
        for phase in &self.sides.phases {
            let positions = phase.axes[0].count * phase.axes[1].count;
            let depth = self.depth(phase);
            let [rows, columns] = match self.sides.layout {
                Layout::Nhwc => [positions, self.sides.output.channels],
                Layout::Nchw => [self.sides.output.channels, positions],
            };
            let calls = (rows.div_ceil(mr) * columns.div_ceil(nr)) as f64;
            let blocks = depth.div_ceil(self.blocking.kc).max(1) as f64;
            // Copies are priced by the piece: a run of channels (NHWC), a run of pixels of a channel (NCHW).
            let taps = phase.taps() as f64;
            let (width, channels) = (phase.axes[1].count as f64, self.sides.input.channels as f64);
            let packs = match self.sides.layout {
                Layout::Nhwc => taps * (12.0 + 0.4 * channels),
                Layout::Nchw if phase.axes[1].advance == 1 => {
                    taps * channels * 40.0 * (1.0 / nr as f64 + 1.0 / width)
                }
                Layout::Nchw => taps * channels * 1.8,
            };
            let repeats = self.sides.output.channels.div_ceil(self.channels) as f64;
            let tasks = positions.div_ceil(self.pixels) as f64 * repeats;
            compute += calls * depth as f64 * per_step * 1.15;
            memory += positions as f64 * packs * repeats;
            begun += calls * 200.0 * blocks + 1000.0 * tasks;
        }
        [compute, memory, begun]
    }
}

/// Whether phases write every s-th pixel.
fn strided(sides: &Sides) -> bool {
    sides.phases.iter().any(|phase| phase.axes.iter().any(|axis| axis.step > 1))
}

/// Positions of a phase whose output pixel is in `pixels`: whole rows where a phase has a step, anything where it has none.
fn positions(phase: &Phase, pixels: &Range<usize>, width: usize) -> Range<usize> {
    if phase.axes.iter().all(|axis| axis.step == 1) {
        return pixels.clone();
    }
    let rows = phase.axes[0].positions(pixels.start / width..pixels.end / width);
    rows.start * phase.axes[1].count..rows.end * phase.axes[1].count
}

/// Writes consecutive positions of a phase, from position `first` on, to their pixels.
fn spread(
    phase: &Phase,
    values: &[f32],
    to: &mut [f32],
    first: usize,
    first_pixel: usize,
    width: usize,
    update: Update,
) {
    let [rows, columns] = phase.axes;
    for (y, values) in values.chunks_exact(columns.count).enumerate() {
        let row = rows.start + (first / columns.count + y) * rows.step;
        let to = &mut to[row * width + columns.start - first_pixel..];
        for (to, value) in to.iter_mut().step_by(columns.step).zip(values) {
            *to = if update == Update::Accumulate { *to + value } else { *value };
        }
    }
}

impl Phased for PatchRunner {
    fn packed_len(&self) -> usize {
        let depth: usize = self.sides.phases.iter().map(|phase| self.depth(phase)).sum();
        depth * self.padded_channels() * self.sides.groups
    }

    /// `[phase][group]`, then panels `[panel][tap][channel][NR]` (NHWC) or rows `[output channel][tap][channel]` (NCHW).
    fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        let (nr, channels) = (self.kernel.nr(), self.sides.input.channels);
        packed.fill(0.0);
        let mut start = 0;
        for phase in &self.sides.phases {
            let (depth, [rows, columns]) = (self.depth(phase), phase.axes.map(|axis| axis.taps));
            for group in 0..self.sides.groups {
                for (tap, [ty, tx]) in
                    (0..rows.count).flat_map(|y| (0..columns.count).map(move |x| [y, x])).enumerate()
                {
                    let (from, [out_stride, in_stride]) =
                        self.sides.weight(group, [rows.k(ty), columns.k(tx)]);
                    for o in 0..self.sides.output.channels {
                        let (to, step) = match self.sides.layout {
                            Layout::Nhwc => ((o / nr * depth + tap * channels) * nr + o % nr, nr),
                            Layout::Nchw => (o * depth + tap * channels, 1),
                        };
                        for c in 0..channels {
                            packed[start + to + c * step] = weights[from + o * out_stride + c * in_stride];
                        }
                    }
                }
                start += depth * self.padded_channels();
            }
        }
    }

    fn workspace_len(&self) -> usize {
        self.lane_len().saturating_mul(self.threads)
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
        let Tasks { extent, cuts } = self.tasks();
        let output = BlockMut::new(output, extent);
        output.for_each_piece(cuts, par, workspace, self.lane_len(), &|ranges, mut piece, lane| match self
            .sides
            .layout
        {
            Layout::Nhwc => self.nhwc_task((input, packed), &ranges, &mut piece, finish, lane),
            Layout::Nchw => self.nchw_task((input, packed), &ranges, &mut piece, finish, lane),
        });
    }
}
