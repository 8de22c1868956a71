//! Forward and backward-data where lanes are channels: NHWC, depthwise and groups of few channels, by sweeps.
//!
//! ```text
//! for each task: some rows of one image
//!     groups of several channels: for each vector of output channels, fan the input rows out
//!     for each phase, for each tile of up to 8 output rows that share input rows
//!         for each pixel, for each vector of channels: one sweep
//! ```
//!
//! A group of several input channels is as many depthwise convolutions, added up: number `j` reads, in every lane, input channel `j` of the
//! lane's own group. [`Fan`] makes these vectors once for all taps, next to each other; to the sweep they are more columns of the window.
//!
//! Rows and columns beyond the image are skipped: a weight that is not finite touches only outputs whose tap lies in the image.

use crate::sweep::{Init, Source, Sweep, Sweeper, sweeper};
use crate::window::{Window, for_each_tile, is_near};
use crate::{MACS, TASKS};
use convolve_core::{
    BlockMut, Cut, Direction, Estimate, Finish, LINE, Layout, Par, Phased, Problem, Sides, Tasks,
    Unsupported, Update, lines,
};
use core::ops::Range;

/// Floats that are read again and again while a window slides over rows: half of a first-level cache.
const L1: usize = 1 << 12;
/// Most floats of the fanned rows of a block of output rows: they stay in a second-level cache.
const FANNED: usize = 1 << 16;

/// Positions ahead that a sweep asks for, where both operands together do not fit the last cache. Measured on Zen 5, 16 images of 56x56 with 144
/// channels: 4.9 ms without, 3.6 with 3 or 4, 4.4 with 8; in a cache it costs 1 to 5 %. Asking for the rows of the next tile instead takes 4 to 8 % longer.
/// On Zen 4, where outputs are written past the caches then and not asked for: 4.3 ms with 3, 4.6 with 6, 5.4 with 10, 4.8 without; 8.0 when they were asked for and
/// stored. With a stride of two, 96 channels of 112x112, backward-data 4.9 ms instead of 13; forward, which writes little, 12 as before.
const AHEAD: usize = 3;
/// [`Estimate::traffic`] where outputs go past the caches, and are not read before (Zen 4).
const PAST: f64 = 1.2;

/// What the lanes of a vector of output channels read: input channel `j` of their own group, for each `j`.
pub(crate) struct Fan {
    /// Vectors of a pixel: input channels of a group.
    pub(crate) count: usize,
    /// For each of them, the channel of every lane, counted from the first one that the vector's groups have.
    orders: Vec<u32>,
    /// Input channels of the groups of a vector.
    span: usize,
}

impl Fan {
    /// `None` where a vector would read more than a vector of input channels, or half a group.
    pub(crate) fn new(sides: &Sides, lanes: usize) -> Option<Self> {
        let (inputs, outputs) = (sides.input.channels, sides.output.channels);
        if outputs == 0 || !lanes.is_multiple_of(outputs) || inputs > outputs {
            return None;
        }
        let order = |j: usize| (0..lanes).map(move |lane| (lane / outputs * inputs + j) as u32);
        Some(Self {
            count: inputs,
            orders: (0..inputs).flat_map(order).collect(),
            span: lanes / outputs * inputs,
        })
    }

    /// Floats of a fanned pixel.
    pub(crate) fn pixel(&self) -> usize {
        self.orders.len()
    }

    /// Fans the input rows `rows` of an image out for that vector: `[row][pixel][j][LANES]`.
    pub(crate) fn rows(
        &self,
        sweeper: &dyn Sweeper,
        sides: &Sides,
        image: &[f32],
        vector: usize,
        rows: Range<usize>,
        to: &mut [f32],
    ) {
        let (strides, width) = (sides.input.strides, sides.input.size[1]);
        for (row, to) in rows.zip(to.chunks_exact_mut(width * self.pixel())) {
            let from = &image[row * strides.row + vector * self.span..];
            sweeper.fan(from, strides.column, &self.orders, to);
        }
    }
}

/// Input rows that the output rows `rows` read, of those there are.
pub(crate) fn input_rows<'a>(windows: impl Iterator<Item = &'a Window>, rows: &Range<usize>) -> Range<usize> {
    let (mut start, mut end) = (usize::MAX, 0);
    for axis in windows.map(|window| &window.phase.axes[0]) {
        let positions = axis.positions(rows.clone());
        if positions.is_empty() {
            continue;
        }
        let first = (positions.start * axis.advance) as isize + axis.taps.d(0);
        let last = ((positions.end - 1) * axis.advance) as isize + axis.taps.d(axis.taps.count - 1);
        let inside = |row: isize| row.clamp(0, axis.size as isize) as usize;
        (start, end) = (start.min(inside(first)), end.max(inside(last + 1)));
    }
    start.min(end)..end
}

pub(crate) struct Channels {
    sides: Sides,
    sweeper: Box<dyn Sweeper>,
    windows: Vec<Window>,
    /// Output channels of all groups.
    outputs: usize,
    fan: Option<Fan>,
    /// Output rows of a task, and those whose input rows are fanned out together, and the most of these.
    rows: usize,
    block: usize,
    reach: usize,
    /// Positions ahead that are asked for.
    ahead: usize,
    threads: usize,
}

impl Channels {
    pub(crate) fn new(problem: &Problem, direction: Direction) -> Result<Self, Unsupported> {
        let geometry = &problem.geometry;
        if geometry.conv().layout != Layout::Nhwc {
            return Err(Unsupported("the layout is not NHWC"));
        }
        let (sweeper, depthwise) = (sweeper(problem.isa), Sides::depthwise(geometry, direction));
        let lanes = sweeper.lanes();
        let (sides, fan) = match depthwise {
            Some(sides) => (sides, None),
            None => {
                let sides = Sides::new(geometry, direction);
                let fan = Fan::new(&sides, lanes).ok_or(Unsupported("groups do not divide a vector"))?;
                (sides, Some(fan))
            }
        };
        let outputs = sides.output.channels * sides.groups;
        let (pitch, count) = match &fan {
            None => (sides.input.channels, 1),
            Some(fan) => (fan.pixel(), fan.count),
        };
        let mut start = 0;
        let mut windows = Vec::with_capacity(sides.phases.len());
        for phase in &sides.phases {
            if !is_near(phase, [sides.input.size[1].saturating_mul(pitch), pitch]) {
                return Err(Unsupported("a window is wider than memory"));
            }
            let window = Window { weights: start, ..Window::channels(phase, pitch, lanes, count) };
            if window.chain.pieces > 1 {
                return Err(Unsupported("the kernel is too high"));
            }
            start += outputs.div_ceil(lanes) * window.panel;
            windows.push(window);
        }
        let tile = windows.iter().filter_map(|window| sweeper.rows(window.shape).last().copied()).max();
        let (height, tile) = (sides.output.size[0], tile.unwrap_or(1));
        let tasks = if geometry.macs() < MACS { 1 } else { TASKS.div_ceil(sides.batch.max(1)) };
        let rows = height.div_ceil(tasks).next_multiple_of(tile).clamp(1, height.max(1));
        let (mut block, row) = (rows, sides.input.size[1].saturating_mul(pitch));
        let reach = |block: usize| sides.reach(block, 0);
        while block > 1 && fan.is_some() && reach(block).saturating_mul(row) > FANNED {
            block = (block / 2).next_multiple_of(tile.min(block / 2));
        }
        if fan.is_some() && reach(block).saturating_mul(row) > 4 * FANNED {
            return Err(Unsupported("the rows of a window do not fit a second-level cache"));
        }
        let reach = if fan.is_some() { reach(block) } else { 0 };
        let far = fan.is_none() && !problem.machine.caches.hold(geometry);
        let (ahead, threads) = (if far { AHEAD } else { 0 }, problem.threads);
        Ok(Self { sides, sweeper, windows, outputs, fan, rows, block, reach, ahead, threads })
    }

    /// Whether every output channel reads its own input channel, in place.
    pub(crate) fn is_depthwise(&self) -> bool {
        self.fan.is_none()
    }

    /// Floats of an input row as it is read.
    fn row_len(&self) -> usize {
        self.sides.input.size[1] * self.fan.as_ref().map_or(self.sides.input.channels, Fan::pixel)
    }

    fn lane_len(&self) -> usize {
        lines(self.reach * self.row_len())
    }

    /// The output rows `rows` of one image.
    fn task(
        &self,
        input: &[f32],
        packed: &[f32],
        finish: &Finish<'_>,
        rows: &Range<usize>,
        piece: &mut BlockMut<'_, f32>,
        fanned: &mut [f32],
    ) {
        match &self.fan {
            None => {
                self.sweeps(input, 0, packed, finish, rows, rows, 0..self.outputs, piece);
            }
            Some(fan) => {
                let lanes = self.sweeper.lanes();
                for start in rows.clone().step_by(self.block) {
                    let block = start..rows.end.min(start + self.block);
                    let read = input_rows(self.windows.iter(), &block);
                    for first in (0..self.outputs).step_by(lanes) {
                        let sweeper = self.sweeper.as_ref();
                        fan.rows(sweeper, &self.sides, input, first / lanes, read.clone(), fanned);
                        let channels = first..self.outputs.min(first + lanes);
                        self.sweeps(fanned, read.start, packed, finish, rows, &block, channels, piece);
                    }
                }
            }
        }
    }

    /// All tiles of the rows `block` of a piece that starts with the first of `rows`; `input` starts with the input row `origin`.
    #[expect(clippy::too_many_arguments, reason = "what, from where, to where")]
    fn sweeps(
        &self,
        input: &[f32],
        origin: usize,
        packed: &[f32],
        finish: &Finish<'_>,
        rows: &Range<usize>,
        block: &Range<usize>,
        channels: Range<usize>,
        piece: &mut BlockMut<'_, f32>,
    ) {
        let (out, lanes, pitch) = (self.sides.output.strides, self.sweeper.lanes(), self.row_len());
        for window in &self.windows {
            let ([axis, columns], chain) = (&window.phase.axes, &window.chain);
            let positions = axis.positions(block.clone());
            for_each_tile(chain, self.sweeper.rows(window.shape), positions, &mut |tile, first| {
                let count = chain.rows(tile);
                let (row, present) = chain.present(axis, first, tile);
                let start = (row - origin as isize) * pitch as isize;
                let source = Source { data: input, start, pitch: chain.unit * pitch, present, len: 0 };
                let sweep = Sweep {
                    source,
                    weights: &packed[window.weights + channels.start / lanes * window.panel..],
                    columns: &window.columns,
                    spans: &window.spans,
                    advance: window.advance,
                    planes: 1,
                    plane_steps: [0, 0],
                    block: (L1 / (count * window.columns.len() * lanes)).max(2),
                    init: match (finish.update, finish.epilogue.bias) {
                        (Update::Accumulate, _) => Init::Dst,
                        (_, Some(bias)) => Init::Bias(&bias[channels.start..]),
                        _ => Init::Zero,
                    },
                    clamp: finish.epilogue.early_clamp(),
                    to: [
                        0,
                        axis.start + first * axis.step - rows.start,
                        columns.start * out.column + channels.start,
                    ],
                    steps: [chain.leap * axis.step, columns.step * out.column],
                    width: channels.len(),
                    ahead: self.ahead,
                    past: self.ahead > 0
                        && self.whole_lines()
                        && finish.update == Update::Overwrite
                        && !finish.epilogue.late(),
                };
                self.sweeper.sweep(window.shape, tile, &sweep, piece);
            });
        }
    }

    /// Whether outputs may go past the caches: in one place, without copies, in vectors that are lines. (If `dst` begins with a line as well, as a
    /// [`Workspace`](convolve_core::Workspace) does; a large `Vec` of glibc's does not, and is stored as ever.)
    fn whole_lines(&self) -> bool {
        self.fan.is_none() && self.sweeper.lanes() == LINE && self.outputs.is_multiple_of(LINE)
    }

    /// Cycles of the sweeps by loads and multiply-adds, and of fanning out.
    pub(crate) fn estimate(&self) -> Estimate {
        let lanes = self.sweeper.lanes() as f64;
        let vectors = (self.outputs * self.sides.batch) as f64 / lanes;
        let [mut cycles, mut calls] = [0.0; 2];
        for window in &self.windows {
            let ([vertical, horizontal], chain) = (&window.phase.axes, &window.chain);
            let [mut tile_cycles, mut tile_calls] = [0.0; 2];
            for_each_tile(chain, self.sweeper.rows(window.shape), 0..vertical.count, &mut |tile, _| {
                let (steps, inputs) = ((tile * chain.k) as f64, chain.rows(tile) as f64);
                let loads = 0.65 * inputs + 0.5 * chain.k as f64;
                let columns = window.columns.len() as f64;
                let multiply = (0.55 * steps).max(loads);
                tile_cycles += columns * multiply;
                tile_calls += columns * ((0.6 * steps).max(loads) - multiply + 2.0) + 20.0;
            });
            let all = 0.9 * horizontal.count as f64 * vectors;
            cycles += all * tile_cycles;
            calls += all * tile_calls;
        }
        let mut fanned = 0.0;
        if let Some(fan) = &self.fan {
            let [height, width] = [self.sides.output.size[0], self.sides.input.size[1]];
            let rows = height as f64 / self.block as f64 * self.reach as f64;
            fanned += vectors.max(1.0) * rows * width as f64 * (2.0 + 1.5 * fan.count as f64);
        }
        let (extent, cuts) = self.cuts();
        let tasks = Tasks { extent, cuts };
        Estimate {
            exposed: crate::EXPOSED,
            traffic: if self.whole_lines() { PAST } else { Estimate::TRAFFIC },
            workspace: Phased::workspace_len(self),
            packed: Phased::packed_len(self),
            ..Estimate::new([cycles, fanned, calls], &tasks, self.threads)
        }
    }

    /// The tensor that is written as `[image, row, floats of a row]`, and how tasks cut it.
    fn cuts(&self) -> ([usize; 3], [Cut; 3]) {
        let [height, width] = self.sides.output.size;
        let (row, rows) = (width * self.outputs, Cut { unit: height, block: self.rows });
        ([self.sides.batch, height, row], [Cut { unit: 1, block: 1 }, rows, Cut::whole(row)])
    }
}

impl Phased for Channels {
    fn packed_len(&self) -> usize {
        let panels = self.outputs.div_ceil(self.sweeper.lanes());
        self.windows.last().map_or(0, |window| window.weights + panels * window.panel)
    }

    /// `[phase][vector][column][K][LANES]`, a column for each kernel column and input channel of the group.
    fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        let (lanes, group) = (self.sweeper.lanes(), self.sides.output.channels);
        let fan = self.fan.as_ref().map_or(1, |fan| fan.count);
        for window in &self.windows {
            let [rows, columns] = window.phase.axes.map(|axis| axis.taps);
            let panels = packed[window.weights..].chunks_mut(window.panel);
            for (vector, panel) in panels.take(self.outputs.div_ceil(lanes)).enumerate() {
                for (index, to) in panel.chunks_exact_mut(lanes).enumerate() {
                    let (column, row) = (index / window.chain.k, index % window.chain.k);
                    let place = [rows.k(row), columns.k(column / fan)];
                    for (lane, to) in to.iter_mut().enumerate() {
                        let channel = vector * lanes + lane;
                        *to = if channel < self.outputs {
                            let (start, [out, input]) = self.sides.weight(channel / group, place);
                            weights[start + channel % group * out + column % fan * input]
                        } else {
                            0.0
                        };
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
        let (extent, cuts) = self.cuts();
        let (from, to) = (self.sides.input.strides, self.sides.output.strides);
        let output = BlockMut::new(output, extent);
        output.for_each_piece(cuts, par, workspace, self.lane_len(), &|[image, rows, _], mut piece, lane| {
            if self.sides.gaps && finish.update == Update::Overwrite {
                piece.fill(0.0);
            }
            let image = image.start;
            self.task(&input[image * from.image..], packed, &finish, &rows, &mut piece, lane);
            if finish.epilogue.late() {
                for (j, row) in rows.clone().enumerate() {
                    finish.epilogue.finish(piece.row(0, j), image * to.image + row * to.row);
                }
            }
        });
    }
}
