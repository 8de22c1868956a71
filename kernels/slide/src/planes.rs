//! Forward and backward-data where lanes are pixels, by sweeps: forward is one phase over `src`, backward-data several over `diff_dst`.
//!
//! ```text
//! for each task: some rows of some output channels of one group
//!     for each row of phases, for each block of output rows
//!         prepare the input rows of the group, unless they are read as they are
//!         for each tile of output rows, for each output channel: one sweep over all input channels of the group
//!         where phases write every second pixel, or the layout is NHWC: put the results in their places
//! ```
//!
//! Zeros stand for padding beside a row, so a weight that is not finite makes NaN at the border.

use crate::prepared::{Prepared, prepare, reads_as_is};
use crate::sweep::{Init, Shape, Source, Sweep, Sweeper, sweeper};
use crate::window::{Window, for_each_tile};
use crate::{MACS, TASKS};
use convolve_core::{
    BlockMut, Cut, Direction, Estimate, Finish, Layout, Par, Phased, Problem, Sides, Tasks, Unsupported,
    Update, lines,
};
use convolve_gemm::{Ukernel, ukernel};
use core::ops::Range;

/// Floats that are read again and again while a window slides over rows: half of a first-level cache.
const L1: usize = 1 << 12;

pub(crate) struct Planes {
    sides: Sides,
    sweeper: Box<dyn Sweeper>,
    transpose: Box<dyn Ukernel>,
    windows: Vec<Window>,
    /// How input rows are prepared; or they are read where they lie.
    planes: Prepared,
    as_is: bool,
    /// Output rows and groups of a task (all groups in NHWC).
    rows: usize,
    groups: usize,
    threads: usize,
}

struct Task<'a> {
    input: &'a [f32],
    packed: &'a [f32],
    finish: Finish<'a>,
}

impl Planes {
    pub(crate) fn new(problem: &Problem, direction: Direction) -> Result<Self, Unsupported> {
        let geometry = &problem.geometry;
        let sweeper = sweeper(problem.isa);
        let transpose = ukernel(problem.isa, [geometry.group_out(), 1]);
        let lanes = sweeper.lanes();
        let sides = Sides::new(geometry, direction);
        let as_is = reads_as_is(&sides);
        let planes = if as_is { Prepared::nothing(&sides, lanes) } else { Prepared::new(&sides, lanes, 8)? };
        let windows = sides.phases.iter().map(|phase| match as_is {
            true => Window::in_place(phase, sides.input.channels, planes.plane, lanes),
            false => Window::planes(phase, sides.input.channels, &planes.padded, planes.plane, lanes),
        });
        let mut windows: Vec<Window> = windows.collect();
        let mut start = 0;
        for window in &mut windows {
            window.weights = start;
            start += sides.output.channels * sides.groups * window.panel;
        }
        let tile =
            windows.iter().filter_map(|window| sweeper.rows(window.shape).last().copied()).max().unwrap_or(1);
        let (height, small) = (sides.output.size[0], geometry.macs() < MACS);
        let tasks = if small { 1 } else { TASKS.div_ceil(sides.batch.max(1)) };
        let share = sides.groups.div_ceil(tasks).next_multiple_of(planes.groups).min(sides.groups);
        let groups = if sides.layout == Layout::Nhwc { sides.groups } else { share };
        let step = sides.phases.iter().map(|phase| phase.axes[0].step).max().unwrap_or(1).min(height.max(1));
        let parts = tasks.div_ceil(sides.groups.div_ceil(groups));
        let rows = height.div_ceil(parts).next_multiple_of(tile * step);
        let rows = rows.clamp(1, height.max(1));
        Ok(Self { sides, sweeper, transpose, windows, planes, as_is, rows, groups, threads: problem.threads })
    }

    /// Floats of the prepared rows of one task, which all phases of a row of phases read.
    fn prepared_len(&self) -> usize {
        let planes = &self.planes;
        if self.as_is { 0 } else { planes.plane * self.sides.input.channels * planes.groups }
    }

    /// Floats of workspace of one task.
    fn lane_len(&self) -> usize {
        lines(self.prepared_len()) + lines(self.results_len())
    }

    /// Floats of the results of a block that cannot go to their places directly: `[column phase][output channel][row][pixel]`.
    fn results_len(&self) -> usize {
        let planes = &self.planes;
        if planes.in_place {
            return 0;
        }
        let mut widths = self.windows.iter().map(|window| window.phase.axes[1]);
        let first = widths.next().map_or(0, |axis| axis.count);
        let columns = self.columns_of(0).len();
        columns
            * self.sides.output.channels
            * planes.groups
            * planes.block
            * widths.map(|axis| axis.count).fold(first, usize::max)
    }

    /// Windows that share the rows of window `first`: phases of one row, by columns.
    fn columns_of(&self, first: usize) -> Range<usize> {
        let Some(window) = self.windows.get(first) else { return 0..0 };
        let row = window.phase.axes[0].start;
        let end = self.windows[first..].iter().position(|window| window.phase.axes[0].start != row);
        first..end.map_or(self.windows.len(), |len| first + len)
    }

    /// The rows `rows` and the output channels `channels` of one image; `first` is the first channel of the box.
    #[expect(clippy::too_many_arguments, reason = "what, where and with which memory")]
    fn by_planes(
        &self,
        task: &Task<'_>,
        image: usize,
        channels: &Range<usize>,
        first: usize,
        rows: &Range<usize>,
        piece: &mut BlockMut<'_, f32>,
        lane: &mut [f32],
    ) {
        let (planes, outputs) = (&self.planes, self.sides.output.channels);
        let (prepared, results) = lane.split_at_mut(lines(self.prepared_len()));
        let prepared = &mut prepared[..self.prepared_len()];
        prepared.fill(0.0);
        let mut start = 0;
        while start < self.windows.len() {
            let together = self.columns_of(start);
            start = together.end;
            let axis = self.windows[together.start].phase.axes[0];
            let positions = axis.positions(rows.clone());
            for first_row in positions.clone().step_by(planes.block) {
                let block = first_row..positions.end.min(first_row + planes.block);
                for batch in channels.clone().step_by(outputs * planes.groups) {
                    let batch = batch..channels.end.min(batch + outputs * planes.groups);
                    let groups = batch.start / outputs..batch.end / outputs;
                    let window = &self.windows[together.start];
                    let (sweeper, transpose) = (self.sweeper.as_ref(), self.transpose.as_ref());
                    if !self.as_is {
                        prepare(
                            &self.sides,
                            window,
                            planes,
                            sweeper,
                            transpose,
                            task.input,
                            image,
                            &groups,
                            &block,
                            prepared,
                        );
                    }
                    let mut rest = &mut *results;
                    for index in together.clone() {
                        let width = self.windows[index].phase.axes[1].count;
                        if planes.in_place {
                            let row = axis.start + block.start * axis.step - rows.start;
                            let place = [batch.start - first, row, axis.step];
                            self.sweeps(task, index, image, &batch, &block, prepared, place, piece);
                        } else {
                            let (head, tail) = rest.split_at_mut(batch.len() * block.len() * width);
                            rest = tail;
                            let mut head = BlockMut::new(head, [batch.len(), block.len(), width]);
                            self.sweeps(task, index, image, &batch, &block, prepared, [0, 0, 1], &mut head);
                        }
                    }
                    if !planes.in_place {
                        self.place(
                            &together,
                            &batch,
                            first,
                            &block,
                            rows,
                            task.finish.update,
                            results,
                            piece,
                        );
                    }
                }
            }
        }
    }

    /// All tiles of the positions `block` of one window.
    #[expect(clippy::too_many_arguments, reason = "what, from where, to where")]
    fn sweeps(
        &self,
        task: &Task<'_>,
        index: usize,
        image: usize,
        channels: &Range<usize>,
        block: &Range<usize>,
        prepared: &[f32],
        [plane, row, step]: [usize; 3],
        dst: &mut BlockMut<'_, f32>,
    ) {
        let (planes, window) = (&self.planes, &self.windows[index]);
        let ([vertical, horizontal], chain) = (&window.phase.axes, &window.chain);
        let (pitch, input) = (planes.padded.pitch, self.sides.input.strides);
        let group = channels.start / self.sides.output.channels;
        let data = &task.input[image * input.image + group * self.sides.input.channels * input.channel..];
        // Groups of one output channel are planes next to each other; else all channels of a group read the same ones.
        let next = if planes.groups > 1 { planes.plane * self.sides.input.channels } else { 0 };
        // Prepared that read the same input are swept together, as many at a time as fit the registers; one may be left.
        let most = if planes.groups > 1 { 1 } else { self.sweeper.planes() };
        let pairs = channels.len() / most * most;
        let sizes = self.sweeper.rows(Shape { planes: most.min(channels.len()), ..window.shape });
        for_each_tile(chain, sizes, block.clone(), &mut |tile, first| {
            let position = first - block.start;
            let source = match self.as_is {
                true => {
                    let (row, present) = chain.present(vertical, first, tile);
                    let start = row * input.row as isize;
                    Source {
                        data,
                        start,
                        pitch: chain.unit * input.row,
                        present,
                        len: self.sides.input.size[1],
                    }
                }
                false => {
                    let start = (position * vertical.advance * pitch) as isize;
                    let present = 0..chain.rows(tile);
                    Source { data: prepared, start, pitch: chain.unit * pitch, present, len: usize::MAX }
                }
            };
            for (some, together) in [(0..pairs, most), (pairs..channels.len(), 1)] {
                if some.is_empty() {
                    continue;
                }
                let first = channels.start + some.start;
                let sweep = Sweep {
                    source: source.clone(),
                    weights: &task.packed[window.weights + first * window.panel..],
                    columns: &window.columns,
                    spans: &window.spans,
                    advance: window.advance,
                    planes: some.len(),
                    plane_steps: [next, window.panel],
                    block: usize::MAX,
                    init: match (task.finish.update, task.finish.epilogue.bias) {
                        (Update::Accumulate, _) if planes.in_place => Init::Dst,
                        (_, Some(bias)) => Init::Bias(&bias[first..][..some.len()]),
                        _ => Init::Zero,
                    },
                    clamp: task.finish.epilogue.early_clamp(),
                    to: [plane + some.start, row + position * step, 0],
                    steps: [chain.leap * step, window.advance],
                    width: horizontal.count,
                    ahead: 0,
                    past: false,
                };
                let shape = Shape { planes: together, ..window.shape };
                self.sweeper.sweep(shape, tile, &sweep, dst);
            }
        });
    }
}

impl Planes {
    /// Puts the results of a block where they belong: every second pixel of a row, or channels next to each other.
    #[expect(clippy::too_many_arguments, reason = "what, from where, to where")]
    fn place(
        &self,
        together: &Range<usize>,
        channels: &Range<usize>,
        first: usize,
        block: &Range<usize>,
        rows: &Range<usize>,
        update: Update,
        results: &[f32],
        piece: &mut BlockMut<'_, f32>,
    ) {
        let windows = &self.windows[together.clone()];
        let (vertical, pixel) = (&windows[0].phase.axes[0], self.sides.output.strides.column);
        let sizes = windows.iter().map(|window| channels.len() * block.len() * window.phase.axes[1].count);
        let mut starts = [0; 2];
        if let [first, _] = windows {
            starts[1] = channels.len() * block.len() * first.phase.axes[1].count;
        }
        let turns = windows.len() == 2
            && windows.iter().enumerate().all(|(i, window)| {
                let axis = window.phase.axes[1];
                (axis.start, axis.step) == (i, 2)
            });
        for (i, position) in block.clone().enumerate() {
            let row = vertical.start + position * vertical.step - rows.start;
            if turns && self.sides.layout == Layout::Nchw && update == Update::Overwrite {
                for c in 0..channels.len() {
                    let [even, odd] = [0, 1].map(|index: usize| {
                        let width = windows[index].phase.axes[1].count;
                        &results[starts[index] + (c * block.len() + i) * width..][..width]
                    });
                    self.sweeper.by_turns(even, odd, piece.row(channels.start - first + c, row));
                }
                continue;
            }
            let mut start = 0;
            for (window, size) in windows.iter().zip(sizes.clone()) {
                let axis = &window.phase.axes[1];
                let (width, pitch) = (axis.count, block.len() * axis.count);
                let from = &results[start + i * width..start + size];
                start += size;
                match self.sides.layout {
                    Layout::Nchw => {
                        for (c, from) in from.chunks(pitch).enumerate() {
                            let to = piece.row(channels.start - first + c, row)[axis.start..]
                                .iter_mut()
                                .step_by(axis.step);
                            put(update, to, &from[..width]);
                        }
                    }
                    Layout::Nhwc => {
                        let to = &mut piece.row(0, row)[axis.start * pixel + channels.start..];
                        match update {
                            Update::Overwrite => {
                                let size = [channels.len(), width];
                                self.transpose.transpose(size, from, pitch, to, axis.step * pixel);
                            }
                            Update::Accumulate => {
                                for (c, from) in from.chunks(pitch).enumerate() {
                                    put(
                                        update,
                                        to[c..].iter_mut().step_by(axis.step * pixel),
                                        &from[..width],
                                    );
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn task(
        &self,
        task: &Task<'_>,
        [a, rows]: [&Range<usize>; 2],
        piece: &mut BlockMut<'_, f32>,
        lane: &mut [f32],
    ) {
        let (finish, strides) = (&task.finish, self.sides.output.strides);
        if self.sides.gaps && finish.update == Update::Overwrite {
            piece.fill(0.0);
        }
        let all = self.sides.groups * self.sides.output.channels;
        let per_image = match self.sides.layout {
            Layout::Nhwc => 1,
            Layout::Nchw => all,
        };
        let image = a.start / per_image;
        match self.sides.layout {
            Layout::Nchw => {
                let channels = a.start - image * all..a.end - image * all;
                self.by_planes(task, image, &channels, channels.start, rows, piece, lane);
            }
            Layout::Nhwc => self.by_planes(task, image, &(0..all), 0, rows, piece, lane),
        }
        if finish.epilogue.late() {
            for (i, plane) in a.clone().enumerate() {
                let plane = match self.sides.layout {
                    Layout::Nhwc => plane * strides.image,
                    Layout::Nchw => plane * strides.channel,
                };
                for (j, row) in rows.clone().enumerate() {
                    finish.epilogue.finish(piece.row(i, j), plane + row * strides.row);
                }
            }
        }
    }

    /// The tensor that is written as `[planes, rows, floats of a row]`, and how tasks cut it.
    fn cuts(&self) -> ([usize; 3], [Cut; 3]) {
        let ([height, width], channels) = (self.sides.output.size, self.sides.output.channels);
        let all = channels * self.sides.groups;
        let (planes, unit, row) = match self.sides.layout {
            Layout::Nhwc => (self.sides.batch, Cut { unit: 1, block: 1 }, width * all),
            Layout::Nchw => (self.sides.batch * all, Cut { unit: all, block: self.groups * channels }, width),
        };
        let rows = Cut { unit: height, block: self.rows };
        ([planes, height, row], [unit, rows, Cut::whole(row)])
    }

    pub(crate) fn estimate(&self) -> Estimate {
        let lanes = self.sweeper.lanes() as f64;
        let [mut cycles, mut copies, mut calls] = [0.0; 3];
        for window in &self.windows {
            let ([vertical, horizontal], chain) = (&window.phase.axes, &window.chain);
            let [mut tile_cycles, mut tile_waits, mut tile_calls] = [0.0; 3];
            for_each_tile(chain, self.sweeper.rows(window.shape), 0..vertical.count, &mut |tile, _| {
                let (steps, inputs) = ((tile * chain.k) as f64, chain.rows(tile));
                // Input rows of a tile that do not stay in L1 come from L2 again for every output channel.
                let far = self.sides.output.channels > 1
                    && self.sides.input.channels * inputs * self.planes.padded.pitch > 2 * L1;
                let waits = if far { 0.3 * inputs as f64 } else { 0.0 };
                let loads = 0.65 * inputs as f64 + 0.5 * chain.k as f64;
                let columns = window.columns.len() as f64;
                let multiply = (0.55 * steps).max(loads);
                tile_cycles += columns * multiply;
                tile_waits += columns * waits;
                tile_calls += columns * ((0.6 * steps).max(loads) - multiply + 2.0) + 20.0;
            });
            let outputs = (self.sides.output.channels * self.sides.groups * self.sides.batch) as f64;
            let vectors = horizontal.count.div_ceil(lanes as usize) as f64 * outputs;
            // Ends of rows, which are masked, weigh more where no second plane shares them (Zen 5: 1.45 to 1.8).
            let ends = if self.as_is && self.sides.output.channels == 1 { 1.6 } else { 1.0 };
            cycles += 0.9 * vectors * tile_cycles;
            calls += 0.9 * vectors * (tile_calls + (ends - 1.0) * (tile_cycles + tile_calls));
            copies += 0.9 * vectors * tile_waits;
            let planes = &self.planes;
            let padded = &planes.padded;
            let inputs = (self.sides.input.channels * self.sides.groups * self.sides.batch) as f64;
            let blocks =
                vertical.count.div_ceil(planes.block) as f64 / self.columns_of(0).len().max(1) as f64;
            let per_vector = match self.sides.layout {
                // Rows that are taken apart by columns.
                Layout::Nchw if horizontal.advance > 1 => 5.5 * horizontal.advance.min(4) as f64,
                Layout::Nchw => 1.5,
                Layout::Nhwc => 4.0,
            };
            copies += inputs * blocks * planes.reach as f64 * (padded.pitch as f64 / lanes) * per_vector;
            if !planes.in_place {
                // Two phases of a row are joined by vectors, more of them pixel by pixel.
                let per_float = if horizontal.step > 2 { 1.5 } else { 4.0 / lanes };
                copies += outputs * (vertical.count * horizontal.count) as f64 * per_float;
            }
        }
        let (extent, cuts) = self.cuts();
        let tasks = Tasks { extent, cuts };
        Estimate {
            exposed: crate::COPIED,
            workspace: Phased::workspace_len(self),
            packed: Phased::packed_len(self),
            ..Estimate::new([cycles, copies, calls], &tasks, self.threads)
        }
    }
}

fn put<'a>(update: Update, to: impl Iterator<Item = &'a mut f32>, from: &[f32]) {
    match update {
        Update::Overwrite => to.zip(from).for_each(|(to, x)| *to = *x),
        Update::Accumulate => to.zip(from).for_each(|(to, x)| *to += x),
    }
}

impl Phased for Planes {
    fn packed_len(&self) -> usize {
        self.windows.last().map_or(0, |window| {
            let panels = self.sides.output.channels * self.sides.groups;
            window.weights + panels * window.panel
        })
    }

    /// `[phase][output channel][input channel][piece][column][K]`.
    fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        let (outputs, depth) = (self.sides.output.channels, self.sides.input.channels);
        for window in &self.windows {
            let [rows, columns] = window.phase.axes.map(|axis| axis.taps);
            let (k, packed) = (window.chain.k, &mut packed[window.weights..]);
            for (row, column) in
                (0..rows.count).flat_map(|row| (0..columns.count).map(move |column| (row, column)))
            {
                let place = [rows.k(row), columns.k(column)];
                for group in 0..self.sides.groups {
                    let (start, [out, input]) = self.sides.weight(group, place);
                    for o in 0..outputs {
                        let to = &mut packed[(group * outputs + o) * window.panel..][..window.panel];
                        for c in 0..depth {
                            let piece = c * window.chain.pieces + row / k;
                            to[(piece * columns.count + column) * k + row % k] =
                                weights[start + o * out + c * input];
                        }
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
        let task = Task { input, packed, finish };
        let output = BlockMut::new(output, extent);
        output.for_each_piece(cuts, par, workspace, self.lane_len(), &|[a, rows, _], mut piece, lane| {
            self.task(&task, [&a, &rows], &mut piece, lane);
        });
    }
}
