//! 1x1 kernels in NCHW as the product they are: `out[n, oc, p] = sum over ic of w[oc, ic] * in[n, ic, p]`, pixels `p` as vectors.
//!
//! ```text
//! for each task: some output channels of one group, some panels of NR pixels of one image   (parallel; a box of the output)
//!     for each block of panels that stays in L2
//!         copy its pixels to panels [ic][NR], or leave them where they lie                   (rows of planes as they are: no transpose)
//!         for some output channels, for each panel: one call for all their tiles             (weights are the broadcast operand)
//! ```
//!
//! Forward and backward-data alike, where the stride is 1: then there is one phase, of one tap. `direct` transposes the image and the result
//! to have channels as vectors; with one tap each number that it transposes serves too few multiplications to pay for that.
//!
//! A panel that fits L1 is read where it lies, in rows a plane apart, unless these come from memory or crowd the sets of L1
//! ([`convolve_core::Caches::crowded`]); the pixels left of the last whole panel are copied. (64 -> 64 channels at 56x56: 81 -> 87 % of the peak, 32 -> 16
//! at 112x112: 67 -> 82; Zen 4.)
//!
//! What comes from memory is asked for: pixels of the next block while this one is multiplied, rows of the output before their sums are made. (16 images
//! of 56x56, 256 -> 64 channels, Zen 5: 10.5 -> 8.2 ms, with the pixels alone 9.5; in a cache asking for outputs costs up to 5 %.)

use convolve_core::{
    Algorithm, BackwardData, BlockMut, Cut, Direction, Estimate, Execute, Finish, Forward, LINE, Layout, Par,
    Phased, Problem, Ranked, Sides, Tasks, Tiling, Unsupported, Update, lines,
};
use convolve_gemm::{Ahead, Call, Init, Lhs, To, Ukernel, Walk, cut, first_row, ukernels};
use core::ops::Range;

/// 1x1 convolution in NCHW.
///
/// ```
/// use convolve_core::{Algorithm, Forward};
/// assert_eq!(Algorithm::<Forward>::name(&convolve_direct::Pointwise), "pointwise");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Pointwise;

macro_rules! pass {
    ($pass:ident) => {
        impl Algorithm<$pass> for Pointwise {
            fn name(&self) -> &'static str {
                "pointwise"
            }

            fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
                Ok(Runner::new(problem, Direction::$pass)?.estimate())
            }

            fn build(&self, problem: &Problem) -> Box<dyn Execute<$pass>> {
                Box::new(Runner::new(problem, Direction::$pass).expect("accepted by `estimate`"))
            }
        }
    };
}
pass!(Forward);
pass!(BackwardData);

/// As many tasks, at least, where there is work for several threads.
const TASKS: usize = 8;
const MACS: u64 = 1 << 20;
/// Bytes that stay in a first-level cache.
const L1: usize = 32 << 10;

struct Runner {
    sides: Sides,
    kernel: Box<dyn Ukernel>,
    /// The narrowest micro-kernel, for the last pixels.
    narrow: Box<dyn Ukernel>,
    /// Pixels that are copied at a time, in whole panels.
    block: usize,
    /// Whether operands come from memory.
    far: bool,
    /// Whether whole panels are read where they lie, unless they come from memory. (The estimate does not ask the machine.)
    in_place: bool,
    /// Pixels of a task, in whole panels, and its output channels.
    pixels: usize,
    channels: usize,
    /// Output channels of a call, whose weights stay in L2 while panels go by.
    rows: usize,
    threads: usize,
}

struct Task<'a> {
    input: &'a [f32],
    packed: &'a [f32],
    finish: Finish<'a>,
}

impl Runner {
    fn new(problem: &Problem, direction: Direction) -> Result<Self, Unsupported> {
        let conv = problem.geometry.conv();
        if conv.layout != Layout::Nchw {
            return Err(Unsupported("the layout is not NCHW"));
        }
        if conv.kernel != [1, 1] {
            return Err(Unsupported("the kernel is not 1x1"));
        }
        if conv.stride != [1, 1] {
            return Err(Unsupported("the stride is not 1"));
        }
        if problem.geometry.padding() != [[0; 2]; 2] {
            return Err(Unsupported("the image is padded"));
        }
        let sides = Sides::new(&problem.geometry, direction);
        let all = sides.output.size[0] * sides.output.size[1];
        let (depth, outputs) = (sides.input.channels, sides.output.channels);
        // The shape that wastes least, of rows and of columns; between equals the one with fewest loads.
        let cost = |kernel: &dyn Ukernel| {
            let calls = outputs.div_ceil(kernel.mr()) * all.div_ceil(kernel.nr());
            let rows = outputs as f64 / outputs.div_ceil(kernel.mr()) as f64;
            calls as f64 * (kernel.step_cycles(rows) * depth as f64 + 25.0 + kernel.nr() as f64 / 8.0)
        };
        let mut ranked = Ranked::new(problem.rank);
        for kernel in ukernels(problem.isa) {
            ranked.offer(cost(kernel.as_ref()), kernel.nr(), kernel);
        }
        let kernel = ranked.take().ok_or(Unsupported::RANK)?;
        let (mr, nr) = (kernel.mr(), kernel.nr());
        let tile = outputs.div_ceil(outputs.div_ceil(kernel.mr()));
        // The panels of a block take at most a quarter of L2, so that the channels of all calls find them there.
        let panel = depth.max(1) * nr * size_of::<f32>();
        let block = (problem.caches.l2 / 4 / panel).max(1);
        let panels = all.div_ceil(nr);
        let tasks = if problem.geometry.macs() < MACS { 1 } else { TASKS };
        let shares = tasks.div_ceil(sides.batch.max(1) * sides.groups);
        let pixels = panels.div_ceil(shares.min(panels.div_ceil(4)).max(1)).max(1);
        let splits = shares.div_ceil(panels.div_ceil(pixels).max(1)).min(outputs.div_ceil(4 * tile)).max(1);
        let channels = outputs.div_ceil(splits).next_multiple_of(tile).min(outputs);
        let blocks = pixels.div_ceil(block);
        let block = pixels.div_ceil(blocks) * nr;
        let pixels = pixels * nr;
        let narrow = ukernels(problem.isa).pop().expect("there are kernels");
        let far = !problem.machine.caches.hold(&problem.geometry);
        let apart = sides.input.strides.channel.saturating_mul(size_of::<f32>());
        let in_place = 4 * panel <= 3 * problem.caches.l1 && !problem.caches.crowded(depth, apart);
        Ok(Self {
            sides,
            kernel,
            narrow,
            block,
            far,
            in_place,
            pixels: pixels.clamp(1, all.max(1)),
            channels,
            rows: (problem.caches.l2 / 4 / depth.max(1).saturating_mul(size_of::<f32>()) / mr).max(1) * mr,
            threads: problem.threads,
        })
    }

    fn lane_len(&self) -> usize {
        lines(self.sides.input.channels * self.block)
    }

    /// The micro-kernel for a panel of `columns` pixels.
    fn kernel(&self, columns: usize) -> &dyn Ukernel {
        if columns <= self.narrow.nr() { self.narrow.as_ref() } else { self.kernel.as_ref() }
    }

    fn tiles(&self) -> usize {
        self.sides.output.channels.div_ceil(self.kernel.mr())
    }

    /// Output channels `channels` (of all groups) and pixels of one image.
    fn task(
        &self,
        task: &Task<'_>,
        image: usize,
        channels: &Range<usize>,
        pixels: &Range<usize>,
        piece: &mut BlockMut<'_, f32>,
        panels: &mut [f32],
    ) {
        let depth = self.sides.input.channels;
        let (nr, outputs) = (self.kernel.nr(), self.sides.output.channels);
        let (from, to) = (self.sides.input.strides, self.sides.output.strides);
        let group = channels.start / outputs;
        let input = &task.input[image * from.image + group * depth * from.channel..];
        let weights = &task.packed[channels.start * depth..];
        let bias = task.finish.epilogue.bias.map(|bias| &bias[channels.clone()]);
        for block in pixels.clone().step_by(self.block) {
            let block = block..pixels.end.min(block + self.block);
            let rest = block.len() % nr;
            let narrow = if rest <= self.narrow.nr() { rest } else { 0 };
            let whole = block.len() - narrow;
            let viewed = if self.in_place && !self.far { block.len() - rest } else { 0 };
            let (copied, to) = (&input[block.start + viewed..], &mut panels[depth * viewed..]);
            self.kernel.copy(copied, from.channel, [depth, whole - viewed], to);
            if narrow > 0 {
                let (input, panel) = (&input[block.start + whole..], &mut panels[depth * whole..]);
                self.narrow.copy(input, from.channel, [depth, narrow], panel);
            }
            for first in (0..channels.len()).step_by(self.rows) {
                let some = first..channels.len().min(first + self.rows);
                let bias = bias.map(|bias| &bias[some.clone()]);
                for (column, panel) in block.clone().step_by(nr).zip(panels.chunks_exact(depth * nr)) {
                    let columns = nr.min(block.end - column);
                    let kernel = self.kernel(columns);
                    let (rhs, pitch) = match column - block.start < viewed {
                        true => (&input[column..], from.channel),
                        false => (panel, kernel.nr()),
                    };
                    // This panel's place in the next block, of every channel: each tile asks for a line of it.
                    let next = column + self.block;
                    let ahead = match self.far && first == 0 && next < pixels.end {
                        true => Ahead {
                            data: &input[next..],
                            steps: depth,
                            step: from.channel,
                            tile: LINE,
                            tiles: nr.div_ceil(LINE),
                        },
                        false => Ahead::NONE,
                    };
                    let call = Call {
                        lhs: &weights[first * depth..],
                        at: Lhs::Packed { rows: some.len(), mr: self.kernel.mr() },
                        rhs,
                        pitch,
                        walk: Walk::run(depth),
                        init: match (task.finish.update, bias) {
                            (Update::Accumulate, _) => Init::Dst,
                            (_, Some(bias)) => Init::Rows(bias),
                            _ => Init::Zero,
                        },
                        clamp: task.finish.epilogue.early_clamp(),
                        to: To::Even { at: [0, first], step: [0, 1] },
                        column: column - pixels.start,
                        columns,
                        fetch: self.far.then_some(0),
                        ahead,
                    };
                    kernel.run(&call, piece);
                }
            }
        }
        if task.finish.epilogue.late() {
            for (i, channel) in channels.clone().enumerate() {
                let offset = image * to.image + channel * to.channel + pixels.start;
                task.finish.epilogue.finish(piece.row(0, i), offset);
            }
        }
    }

    fn tasks(&self) -> Tasks {
        let [height, width] = self.sides.output.size;
        self.sides.tasks(1, Cut { unit: height * width, block: self.pixels }, self.channels)
    }

    /// Cycles of the multiply-adds by tile efficiency, plus calls and copies.
    fn estimate(&self) -> Estimate {
        let Sides { batch, groups, input, output, .. } = &self.sides;
        let (all, nr) = (output.size[0] * output.size[1], self.kernel.nr());
        let calls = (batch * groups * self.tiles() * all.div_ceil(nr)) as f64;
        let rows = output.channels as f64 / self.tiles() as f64;
        let copy = if self.in_place { 0.0 } else { 0.15 };
        let copies = output.channels.div_ceil(self.channels) as f64 * copy + 0.1;
        let copied = (batch * groups * input.channels * all.next_multiple_of(nr)) as f64 * copies;
        let written = (batch * groups * output.channels * all) as f64 * 0.1;
        // A panel that does not stay in L1 is streamed from L2 for every tile.
        let far = if input.channels * nr * size_of::<f32>() > L1 { 1.12 } else { 1.0 };
        let steps = self.kernel.step_cycles(rows) * far * input.channels as f64;
        let parts = [calls * steps, copied + written, calls * 30.0];
        Estimate {
            exposed: crate::EXPOSED,
            workspace: Phased::workspace_len(self),
            packed: Phased::packed_len(self),
            tiling: Tiling {
                tile: [self.kernel.mr(), nr],
                task: [1, self.pixels, self.channels],
                near: self.block,
            },
            ..Estimate::new(parts, &self.tasks(), self.threads)
        }
    }
}

impl Phased for Runner {
    fn packed_len(&self) -> usize {
        self.sides.groups * self.sides.output.channels * self.sides.input.channels
    }

    /// `[group][task][call][tile][input channel][output channel of the tile]`, tiles of a call as the micro-kernel cuts them.
    fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        let (depth, outputs) = (self.sides.input.channels, self.sides.output.channels);
        let mut rest = packed;
        for group in 0..self.sides.groups {
            let (start, [out_stride, in_stride]) = self.sides.weight(group, [0, 0]);
            for task in (0..outputs).step_by(self.channels) {
                let end = outputs.min(task + self.channels);
                for call in (task..end).step_by(self.rows) {
                    let tiles = cut(self.rows.min(end - call), self.kernel.mr());
                    for tile in 0..tiles[0] {
                        let rows = call + first_row(tiles, tile)..call + first_row(tiles, tile + 1);
                        let (to, others) = rest.split_at_mut(rows.len() * depth);
                        for (c, step) in to.chunks_exact_mut(rows.len()).enumerate() {
                            for (w, o) in step.iter_mut().zip(rows.clone()) {
                                *w = weights[start + o * out_stride + c * in_stride];
                            }
                        }
                        rest = others;
                    }
                }
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
        let task = Task { input, packed, finish };
        let output = BlockMut::new(output, extent);
        output.for_each_piece(
            cuts,
            par,
            workspace,
            self.lane_len(),
            &|[image, channels, pixels], mut piece, lane| {
                self.task(&task, image.start, &channels, &pixels, &mut piece, lane);
            },
        );
    }
}
