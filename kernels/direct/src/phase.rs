//! Runs phases: `out[start + i*step] = sum over taps t, channels c of in[i*advance + d(t), c] * w[k(t), c]` for all images, groups and
//! output channels. Forward is one phase over `src`, backward-data several over `diff_dst`; this file does not know which.
//!
//! ```text
//! for each task: a few images or rows, some output channels of one group          (parallel; a box of the output)
//!     NCHW: transpose the input rows of the task to [pixel][channel], in L2; NHWC: copy them, if need be
//!     for each block of output channels                                            (whose weights stay in L2)
//!         for each phase, for each zone of pixels that share their valid taps
//!             for some tiles of MR pixels, for each panel of NR channels: one call (the whole sum stays in registers)
//!         NCHW only: transpose the block back
//! ```
//!
//! - The left operand is the image itself: MR pixels anywhere, one slice each. Nothing is packed; stride and dilation are addresses.
//! - A zone never reads padding, so padding is absent, and border taps cost nothing. A 7x7 image saves a fifth of the work.
//! - Where taps of a row follow each other without gaps (dilation 1, one group) a kernel row is one run of KW*C steps: this is what
//!   makes three-channel images fast.
//! - NCHW is the same code on a transposed copy of the rows that a task needs: the copy replaces a read that happens anyway.
//! - So is NHWC where the pixels of a tile are a multiple of 4 KiB apart and a copy has room for a fair number of them: they would share the
//!   lines of one set of L1, which has fewer ways than a tile has rows. (1x1, 14x14, Zen 4: 1024 -> 256 channels ran at 72 % of the peak, 1008
//!   and 1040 at 98.)

use crate::blocks::{Blocks, room};
use convolve_core::phase::{Phase, Segment};
use convolve_core::{
    BlockMut, Direction, Estimate, Finish, LINE, Layout, Par, Phased, Problem, Ranked, Sides, Tasks,
    Unsupported, Update, lines,
};
use convolve_gemm::{Ahead, Call, Init, Lhs, To, Ukernel, Walk, cut, first_row, ukernel, ukernels};
use core::ops::Range;

/// Most pixels of a call: their places are kept, and what they read should be near for the next panel.
const PIXELS: usize = 96;
/// Outputs that a copy in NHWC must serve at least: a wide dilation reads far more than it multiplies.
const ENOUGH: usize = 96;

/// Phases that are ready to run.
pub(crate) struct PhaseRunner {
    sides: Sides,
    blocks: Blocks,
    kernel: Box<dyn Ukernel>,
    threads: usize,
    /// Floats of half a first-level cache.
    half: usize,
    /// Whether operands come from memory.
    far: bool,
    /// Whether tasks read a copy of the input: transposed in NCHW, with another pitch in NHWC.
    copies: bool,
}

/// One box of the output: what one thread computes at a time.
#[derive(Clone)]
struct Task<'a> {
    input: &'a [f32],
    packed: &'a [f32],
    images: Range<usize>,
    pixels: Range<usize>,
    channels: Range<usize>,
    finish: Finish<'a>,
}

/// The output pixels `rows` x `columns` of some images, as one task sees them.
struct Window {
    images: Range<usize>,
    rows: Range<usize>,
    columns: Range<usize>,
}

/// Where a task reads: the tensor itself, or a copy of the rows that it needs.
#[derive(Clone, Copy)]
struct Source<'a> {
    data: &'a [f32],
    /// Of `[image, row, column]`, relative to `origin`.
    strides: [usize; 3],
    origin: [usize; 3],
}

impl PhaseRunner {
    /// The usual micro-kernel with the cheapest cut, or, by the rank of the problem, what follows by its price: other micro-kernels, and tasks of other
    /// channels. (A problem of one task has no price: there the others follow widest first.)
    pub(crate) fn new(problem: &Problem, direction: Direction) -> Result<Self, Unsupported> {
        let sides = Sides::new(&problem.geometry, direction);
        let taps = sides.phases.iter().map(Phase::taps).max().unwrap_or(0);
        let usual = ukernel(problem.isa, [sides.output.channels, taps * sides.input.channels]);
        let copies = |kernel: &dyn Ukernel| {
            // Pixels that a tile reads together, in the image and in a copy of it.
            let advance = sides.phases.iter().map(|phase| phase.axes[1].advance).max();
            let crowd = |pitch: usize| {
                let bytes = |advance: usize| advance.saturating_mul(pitch).saturating_mul(size_of::<f32>());
                advance.is_some_and(|advance| problem.caches.crowded(kernel.mr(), bytes(advance)))
            };
            let [image, copy] = [sides.input.strides.column, pitch(sides.input.channels)].map(crowd);
            sides.layout == Layout::Nchw || image && !copy && room(&sides, ENOUGH)
        };
        let kind = |kernel: &dyn Ukernel, blocks: &Blocks| (kernel.mr(), kernel.nr(), blocks.channels);
        let mut first = Ranked::new(0);
        let mut visit = |cost, blocks| first.offer(cost, (), blocks);
        Blocks::search(&sides, problem, usual.as_ref(), copies(usual.as_ref()), &mut visit);
        let first = first.take().expect("there is a cut");
        let (kernel, blocks) = match problem.rank.checked_sub(1) {
            None => (usual, first),
            Some(rank) => {
                let taken = kind(usual.as_ref(), &first);
                let (mut others, mut kernels) = (Ranked::new(rank), ukernels(problem.isa));
                for (i, kernel) in kernels.iter().map(AsRef::as_ref).enumerate() {
                    Blocks::search(&sides, problem, kernel, copies(kernel), &mut |cost, blocks| {
                        let kind = kind(kernel, &blocks);
                        if kind != taken {
                            others.offer(cost, kind, (i, blocks));
                        }
                    });
                }
                let (i, blocks) = others.take().ok_or(Unsupported::RANK)?;
                (kernels.swap_remove(i), blocks)
            }
        };
        let copies = copies(kernel.as_ref());
        let blocks = blocks.priced(&sides, problem, kernel.as_ref(), copies);
        Ok(Self {
            sides,
            blocks,
            kernel,
            threads: problem.threads,
            half: problem.caches.l1 / 2 / size_of::<f32>(),
            far: !problem.machine.caches.hold(&problem.geometry),
            copies,
        })
    }

    /// Steps of one tap: input channels of an output channel.
    fn depth(&self) -> usize {
        self.sides.input.channels
    }

    /// Floats of one panel of one phase.
    fn panel_len(&self, phase: &Phase) -> usize {
        phase.taps() * self.depth() * self.kernel.nr()
    }

    /// Panels of one group.
    fn panels(&self) -> usize {
        self.sides.output.channels.div_ceil(self.kernel.nr())
    }

    /// Floats of the copy of what a task reads.
    fn copy_len(&self) -> usize {
        if self.copies { lines(self.blocks.input_pixels * pitch(self.depth())) } else { 0 }
    }

    /// Floats of workspace of one task: the copy of its input, and in NCHW a block of outputs by pixel.
    fn lane_len(&self) -> usize {
        let Blocks { images, rows, columns, panels, .. } = self.blocks;
        self.copy_len()
            + match self.sides.layout {
                Layout::Nhwc => 0,
                Layout::Nchw => lines(images * rows * columns * panels),
            }
    }

    fn window(&self, images: Range<usize>, pixels: &Range<usize>) -> Window {
        let width = self.sides.output.size[1];
        let (first, last) = (pixels.start, pixels.end - 1);
        let rows = first / width..last / width + 1;
        let columns = if rows.len() == 1 { first % width..last % width + 1 } else { 0..width };
        Window { images, rows, columns }
    }

    fn nhwc_task(&self, task: &Task<'_>, piece: &mut BlockMut<'_, f32>, lane: &mut [f32]) {
        let Task { input, images, pixels, channels, finish, .. } = task;
        let window = self.window(images.clone(), pixels);
        let strides = self.sides.input.strides;
        let group = channels.start / self.sides.output.channels;
        if self.sides.gaps && finish.update == Update::Overwrite {
            piece.fill(0.0);
        }
        let source = match self.copies {
            true => self.copy_in(input, channels, &window, lane),
            false => Source {
                data: &input[group * self.sides.input.channels..],
                strides: [strides.image, strides.row, strides.column],
                origin: [0, 0, 0],
            },
        };
        for first in channels.clone().step_by(self.blocks.panels) {
            let block = first..channels.end.min(first + self.blocks.panels);
            self.block(task, &source, &window, &block, first - channels.start, piece);
        }
        if finish.epilogue.late() {
            let strides = self.sides.output.strides;
            for (i, image) in images.clone().enumerate() {
                for (j, pixel) in pixels.clone().enumerate() {
                    let offset = image * strides.image + pixel * strides.column + channels.start;
                    finish.epilogue.finish(piece.row(i, j), offset);
                }
            }
        }
    }

    fn nchw_task(&self, task: &Task<'_>, piece: &mut BlockMut<'_, f32>, lane: &mut [f32]) {
        let Task { input, images, pixels, channels, finish, .. } = task;
        let window = self.window(images.clone(), pixels);
        let (copy, lane) = lane.split_at_mut(self.copy_len());
        let source = self.copy_in(input, channels, &window, copy);
        let (count, strides) = (pixels.len(), self.sides.output.strides);
        // Nothing to start from here: what is in `diff_src` is added at the end.
        let fresh = Task { finish: Finish { update: Update::Overwrite, ..*finish }, ..task.clone() };
        for first in channels.clone().step_by(self.blocks.panels) {
            let block = first..channels.end.min(first + self.blocks.panels);
            let by_pixel = &mut lane[..images.len() * count * block.len()];
            let mut tile = BlockMut::new(by_pixel, [images.len(), count, block.len()]);
            if self.sides.gaps {
                tile.fill(0.0);
            }
            self.block(&fresh, &source, &window, &block, 0, &mut tile);
            for (i, by_pixel) in by_pixel.chunks_exact(count * block.len()).enumerate() {
                let (size, at) = ([count, block.len()], [i, first - channels.start]);
                self.kernel.transpose_into(size, by_pixel, block.len(), piece, at, finish.update);
            }
        }
        if finish.epilogue.late() {
            for (i, image) in images.clone().enumerate() {
                for (c, channel) in channels.clone().enumerate() {
                    let offset = image * strides.image + channel * strides.channel + pixels.start;
                    finish.epilogue.finish(piece.row(i, c), offset);
                }
            }
        }
    }

    /// Input rows and columns that a window reads.
    fn reach(&self, window: &Window) -> [Range<usize>; 2] {
        [0, 1].map(|a| {
            let outputs = [&window.rows, &window.columns][a].clone();
            let axes = self.sides.phases.iter().map(|phase| phase.axes[a]);
            let reads = axes.flat_map(|axis| {
                axis.segments(axis.positions(outputs.clone())).filter(|segment| !segment.taps.is_empty()).map(
                    move |Segment { positions, taps }| {
                        let first = (positions.start * axis.advance) as isize + axis.taps.d(taps.start);
                        let last = ((positions.end - 1) * axis.advance) as isize + axis.taps.d(taps.end - 1);
                        first as usize..last as usize + 1
                    },
                )
            });
            reads.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0)
        })
    }

    /// Copies what a window reads for some output channels to `[image][row][column][channel]`: their group, or the channels themselves.
    fn copy_in<'a>(
        &self,
        input: &[f32],
        channels: &Range<usize>,
        window: &Window,
        copy: &'a mut [f32],
    ) -> Source<'a> {
        let [rows, columns] = self.reach(window);
        let (strides, width, pitch) =
            (self.sides.input.strides, self.sides.input.size[1], pitch(self.depth()));
        let depth = self.depth();
        let first = channels.start / self.sides.output.channels * depth;
        let image_len = rows.len() * columns.len() * pitch;
        if image_len > 0 {
            for (image, to) in window.images.clone().zip(copy.chunks_exact_mut(image_len)) {
                if self.sides.layout == Layout::Nhwc {
                    let pixels = rows.clone().flat_map(|y| columns.clone().map(move |x| y * width + x));
                    for (pixel, to) in pixels.zip(to.chunks_exact_mut(pitch)) {
                        let from = image * strides.image + pixel * strides.column + first;
                        to[..depth].copy_from_slice(&input[from..][..depth]);
                    }
                    continue;
                }
                let start = image * strides.image + first * strides.channel + rows.start * width;
                if columns.len() == width {
                    let size = [depth, rows.len() * width];
                    self.kernel.transpose(size, &input[start..], strides.channel, to, pitch);
                } else {
                    for (row, to) in to.chunks_exact_mut(columns.len() * pitch).enumerate() {
                        let from = &input[start + row * width + columns.start..];
                        self.kernel.transpose([depth, columns.len()], from, strides.channel, to, pitch);
                    }
                }
            }
        }
        Source {
            data: copy,
            strides: [image_len, columns.len() * pitch, pitch],
            origin: [window.images.start, rows.start, columns.start],
        }
    }

    /// All phases of one window for a block of output channels, which are the columns from `column` on of `dst`; its rows are the
    /// window's pixels.
    fn block(
        &self,
        task: &Task<'_>,
        source: &Source<'_>,
        window: &Window,
        block: &Range<usize>,
        column: usize,
        dst: &mut BlockMut<'_, f32>,
    ) {
        let mut packed = task.packed;
        for phase in &self.sides.phases {
            let panel_len = self.panel_len(phase);
            let (head, tail) = packed.split_at(self.sides.groups * self.panels() * panel_len);
            packed = tail;
            let (group, within) =
                (block.start / self.sides.output.channels, block.start % self.sides.output.channels);
            let first = group * self.panels() + within / self.kernel.nr();
            let (weights, count) = (&head[first * panel_len..], block.len().div_ceil(self.kernel.nr()));
            let mut ahead = &weights[count * panel_len..];
            ahead = &ahead[..ahead.len().min(count * panel_len)];
            let [rows, columns] = phase.axes;
            for y in rows.segments(rows.positions(window.rows.clone())) {
                for x in columns.segments(columns.positions(window.columns.clone())) {
                    let (taps, positions) = ([y.taps.clone(), x.taps], [y.positions.clone(), x.positions]);
                    let zone = Zone { phase, taps, positions, weights, panel_len };
                    self.zone(&zone, task, source, window, block, column, &mut ahead, dst);
                }
            }
        }
    }

    /// All tiles of one zone. `ahead` are the weights of the next block: while this one is computed they are on their way to L2.
    #[expect(clippy::too_many_arguments, reason = "what, where, and of which channels")]
    fn zone(
        &self,
        zone: &Zone<'_>,
        task: &Task<'_>,
        source: &Source<'_>,
        window: &Window,
        block: &Range<usize>,
        column: usize,
        ahead: &mut &[f32],
        dst: &mut BlockMut<'_, f32>,
    ) {
        let [rows, cols] = zone.phase.axes;
        let clamp = task.finish.epilogue.early_clamp();
        let [ty, tx] = &zone.taps;
        let (depth, nr) = (self.depth(), self.kernel.nr());
        let [image_stride, row_stride, column_stride] = source.strides;
        // Modulo 2^64: with a single valid tap, or position, they may be any number.
        let (lhs_y, lhs_x) =
            (rows.taps.step_d.wrapping_mul(row_stride), cols.taps.step_d.wrapping_mul(column_stride));
        let (rhs_y, rhs_x) = (cols.taps.count * depth * nr, depth * nr);
        let walk = if lhs_x == depth {
            Walk { count: [1, ty.len()], lhs: [0, lhs_y], rhs: [0, rhs_y], len: tx.len() * depth }
        } else {
            Walk { count: [ty.len(), tx.len()], lhs: [lhs_y, lhs_x], rhs: [rhs_y, rhs_x], len: depth }
        };
        let no_taps = ty.is_empty() || tx.is_empty();
        let walk = if no_taps { Walk::run(0) } else { walk };
        let rhs_start = if no_taps { 0 } else { ty.start * rhs_y + tx.start * rhs_x };
        // Input pixel of position (0, 0) at the first valid tap, relative to the source; may lie before it.
        let first = |axis: usize| {
            let axis_phase = &zone.phase.axes[axis];
            let displacement = if no_taps { 0 } else { axis_phase.taps.d(zone.taps[axis].start) };
            displacement - source.origin[axis + 1] as isize
        };
        let [ys, xs] = &zone.positions;
        // Where position x = 0 of a row reads, modulo 2^64 as that may lie before the image, and where it goes.
        let row_at = |image: usize, y: usize| {
            let from = [(y * rows.advance) as isize + first(0), first(1)].map(|pixel| pixel as usize);
            let from = from[0].wrapping_mul(row_stride).wrapping_add(from[1].wrapping_mul(column_stride));
            let to = (rows.start + y * rows.step - window.rows.start) * window.columns.len();
            let to = (to + cols.start).wrapping_sub(window.columns.start);
            let at = if no_taps { 0 } else { ((image - source.origin[0]) * image_stride).wrapping_add(from) };
            (at, [image - window.images.start, to])
        };
        let advance = if no_taps { 0 } else { cols.advance.wrapping_mul(column_stride) };
        // Rows that follow each other without a gap, in and out, are one row.
        let joined = xs.len().wrapping_mul(advance)
            == if no_taps { 0 } else { rows.advance.wrapping_mul(row_stride) }
            && xs.len().wrapping_mul(cols.step) == rows.step.wrapping_mul(window.columns.len());
        let [height, width] = if joined { [1, ys.len() * xs.len()] } else { [ys.len(), xs.len()] };
        let pixels = window.images.len() * height * width;
        let tiling = cut(pixels, self.kernel.mr());
        let tiles = tiling[0];
        // Some tiles for each panel, while it is in L1; if it is too large for that, as many as stay there with what they read, for all panels.
        let (mr, half) = (self.kernel.mr(), self.half);
        let few = half / (mr * depth * ty.len()).max(1);
        let most = if walk.steps() * nr <= half || block.len() <= nr { PIXELS } else { PIXELS.min(few * mr) };
        let chunks = tiles.div_ceil((most / mr).max(1));
        // Where a chunk ends: after whole tiles.
        let end_of = |chunk: usize| first_row(tiling, chunk * tiles / chunks.max(1));
        // From a row of outputs to the one in its place in the next tile.
        let beyond = pixels
            .div_ceil(tiles.max(1))
            .saturating_mul(cols.step.saturating_mul(self.sides.output.strides.column))
            .min(1 << 40);
        let (mut at, mut to) = ([0; PIXELS], [[0; 2]; PIXELS]);
        for pixels in (0..chunks).map(|chunk| end_of(chunk)..end_of(chunk + 1)) {
            let place = |pixel: usize| {
                let (row, x) = (pixel / width, pixel % width);
                let (from, to) = row_at(window.images.start + row / height, ys.start + row % height);
                let from = from.wrapping_add((xs.start + x).wrapping_mul(advance));
                (from, [to[0], to[1].wrapping_add((xs.start + x) * cols.step)])
            };
            let (start, first) = place(pixels.start);
            // Pixels of one row are evenly spaced, others are listed.
            let even = pixels.start / width == (pixels.end - 1) / width;
            if !even {
                let mut filled = 0;
                while filled < pixels.len() {
                    let pixel = pixels.start + filled;
                    let run = (width - pixel % width).min(pixels.len() - filled);
                    let (from, row) = place(pixel);
                    for (n, (at, to)) in at[filled..].iter_mut().zip(&mut to[filled..]).take(run).enumerate()
                    {
                        *at = from.wrapping_add(n.wrapping_mul(advance));
                        *to = [row[0], row[1] + n * cols.step];
                    }
                    filled += run;
                }
            }
            let [tiles, size, _] = cut(pixels.len(), self.kernel.mr());
            let tile = size.wrapping_mul(advance);
            for (panel, first_channel) in block.clone().step_by(nr).enumerate() {
                let channels = first_channel..block.end.min(first_channel + nr);
                let call = Call {
                    lhs: source.data,
                    at: match even {
                        true => Lhs::Even { start, rows: pixels.len(), pitch: advance },
                        false => Lhs::Rows(&at[..pixels.len()]),
                    },
                    rhs: &zone.weights[panel * zone.panel_len + rhs_start..],
                    pitch: nr,
                    walk,
                    init: match (task.finish.update, task.finish.epilogue.bias) {
                        (Update::Accumulate, _) => Init::Dst,
                        (_, Some(bias)) => Init::Bias(&bias[channels.clone()]),
                        _ => Init::Zero,
                    },
                    clamp,
                    to: match even {
                        true => To::Even { at: first, step: [0, cols.step] },
                        false => To::Rows(&to[..pixels.len()]),
                    },
                    column: column + panel * nr,
                    columns: channels.len(),
                    // With one tap the line of each step goes to the next pixels; with several the outputs are what is far. (One tap, 16
                    // images of 56x56, 256 -> 64 channels: 73 -> 87 % of the peak; in a cache up to 2 % slower.)
                    fetch: (self.sides.layout == Layout::Nhwc && (walk.count != [1, 1] || self.far))
                        .then_some(beyond),
                    // With one tap a tile asks for what the next one reads: that follows it.
                    ahead: match ahead.is_empty() {
                        false => Ahead::run(ahead, walk.steps(), LINE),
                        true if walk.count == [1, 1] && panel == 0 => Ahead {
                            data: source.data.get(start.wrapping_add(tile)..).unwrap_or_default(),
                            steps: depth,
                            step: (tile / depth).min(LINE),
                            tile,
                            tiles: usize::MAX,
                        },
                        true => Ahead::NONE,
                    },
                };
                self.kernel.run(&call, dst);
                *ahead = &ahead[ahead.len().min(tiles * walk.steps() * LINE)..];
            }
        }
    }

    pub(crate) fn estimate(&self) -> Estimate {
        let tasks = self.blocks.tasks(&self.sides);
        Estimate {
            exposed: crate::EXPOSED,
            workspace: self.workspace_len(),
            packed: self.packed_len(),
            tiling: self.blocks.tiling(self.kernel.as_ref()),
            ..Estimate::new(self.blocks.parts, &tasks, self.threads)
        }
    }
}

impl Phased for PhaseRunner {
    fn packed_len(&self) -> usize {
        self.sides.phases.iter().map(|phase| self.sides.groups * self.panels() * self.panel_len(phase)).sum()
    }

    /// `[phase][group][panel][tap][input channel][NR]`, zeros beyond the last output channel.
    fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        let (nr, depth) = (self.kernel.nr(), self.depth());
        let mut rest = packed;
        for phase in &self.sides.phases {
            let panel_len = self.panel_len(phase);
            let [rows, columns] = phase.axes.map(|axis| axis.taps);
            for (group, panel) in (0..self.sides.groups).flat_map(|g| (0..self.panels()).map(move |p| (g, p)))
            {
                let (panel_data, tail) = rest.split_at_mut(panel_len);
                rest = tail;
                let first = panel * nr;
                let valid = nr.min(self.sides.output.channels - first);
                let mut steps = panel_data.chunks_exact_mut(nr);
                for (row, column) in (0..rows.count).flat_map(|r| (0..columns.count).map(move |c| (r, c))) {
                    let (start, [out_stride, in_stride]) =
                        self.sides.weight(group, [rows.k(row), columns.k(column)]);
                    for (c, step) in steps.by_ref().take(depth).enumerate() {
                        let from = &weights[start + first * out_stride + c * in_stride..];
                        for (j, w) in step[..valid].iter_mut().enumerate() {
                            *w = from[j * out_stride];
                        }
                        step[valid..].fill(0.0);
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
        let Tasks { extent, cuts } = self.blocks.tasks(&self.sides);
        let output = BlockMut::new(output, extent);
        output.for_each_piece(cuts, par, workspace, self.lane_len(), &|ranges, mut piece, lane| {
            let [images, a, b] = ranges;
            let (pixels, channels) = if self.sides.layout == Layout::Nhwc { (a, b) } else { (b, a) };
            let task = Task { input, packed, images, pixels, channels, finish };
            match self.sides.layout {
                Layout::Nhwc => self.nhwc_task(&task, &mut piece, lane),
                Layout::Nchw => self.nchw_task(&task, &mut piece, lane),
            }
        });
    }
}

/// Floats from one pixel to the next of a copy. A line more where channels are a multiple of 512 bytes, or the pixels that are
/// written together would share a few sets of L1 (1024 channels: 1.4 cycles a float instead of 0.7).
fn pitch(depth: usize) -> usize {
    if depth.is_multiple_of(128) { depth + LINE } else { depth }
}

/// Positions of a phase that share their valid taps, per axis.
struct Zone<'a> {
    phase: &'a Phase,
    taps: [Range<usize>; 2],
    positions: [Range<usize>; 2],
    /// Panels of the phase, from the first of the block on.
    weights: &'a [f32],
    panel_len: usize,
}
