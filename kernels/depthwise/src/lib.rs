//! Depthwise convolution in NCHW: every output plane is a window that slides over one input plane. Forward and backward-data here, backward-weights
//! in `gradient.rs`.
//!
//! ```text
//! for each task: some planes, or some rows of one
//!     for each row of phases: forward has one; with a stride of two, backward-data one for even and one for odd rows
//!         for each tile of up to 14 output rows: rows of windows from left to right (see `stencil.rs`)
//! ```
//!
//! Planes are read and written where they lie, once, in the order of memory; the workspace is one row of zeros. Squares of 3, 5 and 7 and all kernels
//! of as many rows, strides of one and two, no dilation.
//!
//! Zeros stand for padding, so a weight that is not finite makes NaN at the border.
#![forbid(unsafe_code)]

mod gradient;
#[expect(clippy::needless_range_loop, reason = "sums must be indexed by constants of unrolled loops")]
mod moments;
#[expect(clippy::needless_range_loop, reason = "sums must be indexed by constants of unrolled loops")]
mod stencil;

use convolve_core::phase::AxisPhase;
use convolve_core::{
    Algorithm, BackwardData, BlockMut, Cut, Direction, Estimate, Execute, Finish, Forward, Layout, Par,
    Phased, Problem, Sides, Tasks, Unsupported, Update, lines,
};
use core::ops::Range;
use stencil::{Column, Mode, Shape, Stencil, Tile, stencil};

/// Tasks of a problem, at least, so that a few threads share them evenly.
const TASKS: usize = 8;
/// Below this many multiplications a problem is one task: it takes less time than waking a thread.
const MACS: u64 = 1 << 20;
/// Floats of planes that are computed tile by tile: they stay in L1.
const L1: usize = 1 << 12;
/// Bytes of both tensors that a second-level cache may hold.
const L2: f64 = 1e6;
/// Most pixels of padding before a row, and most columns of a kernel: lists of them stay small, and no place overflows.
const MOST: usize = 1 << 16;
/// Most floats of workspace that a thread has: 2 MiB.
const WORKSPACE: usize = 1 << 19;

/// Depthwise convolution in NCHW.
///
/// ```
/// use convolve_core::{Algorithm, Forward};
/// assert_eq!(Algorithm::<Forward>::name(&convolve_depthwise::Depthwise), "depthwise");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Depthwise;

impl Depthwise {
    const NAME: &'static str = "depthwise";
}

macro_rules! pass {
    ($pass:ident) => {
        impl Algorithm<$pass> for Depthwise {
            fn name(&self) -> &'static str {
                Self::NAME
            }

            fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
                Ok(Planes::new(problem, Direction::$pass)?.estimate())
            }

            fn build(&self, problem: &Problem) -> Box<dyn Execute<$pass>> {
                Box::new(Planes::new(problem, Direction::$pass).expect("accepted by `estimate`"))
            }
        }
    };
}
pass!(Forward);
pass!(BackwardData);

/// Whether windows are read as here: their pixels side by side, and near.
fn check(axes: &[AxisPhase; 2]) -> Result<(), Unsupported> {
    // Of a single tap the distance to the next means nothing.
    if axes.iter().any(|axis| axis.taps.step_d != 1 && axis.taps.count > 1) {
        return Err(Unsupported("windows are dilated"));
    }
    if axes.iter().any(|axis| axis.taps.d(0).unsigned_abs() > MOST || axis.taps.count > MOST) {
        return Err(Unsupported("the padding or the kernel is wider than 2^16 pixels"));
    }
    Ok(())
}

/// Whether a thread may have that many floats.
fn fits(lane_len: usize) -> Result<(), Unsupported> {
    match lane_len <= WORKSPACE {
        true => Ok(()),
        false => Err(Unsupported("a row of zeros and the sums take more than 2 MiB a thread")),
    }
}

/// Phases of the same output rows.
struct Row {
    axis: AxisPhase,
    shape: Shape,
    columns: Vec<Column>,
    /// Their weights within those of an output channel.
    weights: Range<usize>,
}

struct Planes {
    sides: Sides,
    stencil: Box<dyn Stencil>,
    rows: Vec<Row>,
    /// Weights of an output channel.
    panel: usize,
    /// Output planes and rows of a task.
    block: [usize; 2],
    /// Whether the tensors do not fit the last cache.
    far: bool,
    threads: usize,
}

impl Planes {
    fn new(problem: &Problem, direction: Direction) -> Result<Self, Unsupported> {
        let geometry = &problem.geometry;
        let sides = Sides::new(geometry, direction);
        if sides.layout != Layout::Nchw {
            return Err(Unsupported("the layout is not NCHW"));
        }
        if sides.input.channels != 1 {
            return Err(Unsupported("an output channel reads more than one input channel"));
        }
        if sides.gaps {
            return Err(Unsupported("some outputs read nothing"));
        }
        let stencil = stencil(problem.isa);
        let (mut rows, mut panel): (Vec<Row>, usize) = (Vec::new(), 0);
        for phase in &sides.phases {
            let [vertical, horizontal] = phase.axes;
            let mode = match (
                direction,
                vertical.advance.max(vertical.step),
                horizontal.advance.max(horizontal.step),
            ) {
                (_, 1, 1) => Mode::Plain,
                (Direction::Forward, 2, 2) => Mode::Split,
                (Direction::BackwardData, 2, 2) => Mode::Join,
                _ => return Err(Unsupported("strides are not one or two along both axes")),
            };
            check(&phase.axes)?;
            let taps = horizontal.taps;
            let shape = Shape { mode, k: vertical.taps.count };
            if stencil.rows(shape).is_empty() {
                return Err(Unsupported("kernels have other than 3, 5 or 7 rows"));
            }
            let together = if mode == Mode::Split { 2 } else { 1 };
            let columns = (0..taps.count).step_by(together).map(|t| Column {
                d: taps.d(t),
                which: if mode == Mode::Split { together.min(taps.count - t) } else { horizontal.start },
            });
            let weights = taps.count * shape.k;
            match rows.last_mut().filter(|row| row.axis.start == vertical.start) {
                Some(row) => {
                    row.columns.extend(columns);
                    row.weights.end += weights;
                }
                None => rows.push(Row {
                    axis: vertical,
                    shape,
                    columns: columns.collect(),
                    weights: panel..panel + weights,
                }),
            }
            panel += weights;
        }
        let (height, all) = (sides.output.size[0], sides.output.channels * sides.groups);
        let tasks = if geometry.macs() < MACS { 1 } else { TASKS.div_ceil(sides.batch.max(1)) };
        let planes = all.div_ceil(tasks).next_multiple_of(sides.output.channels.max(1)).clamp(1, all.max(1));
        let parts = tasks.div_ceil(all.max(1).div_ceil(planes));
        let tile =
            rows.iter().flat_map(|row| stencil.rows(row.shape).last().map(|most| most * row.axis.step)).max();
        let band = height.div_ceil(parts).next_multiple_of(tile.unwrap_or(1)).clamp(1, height.max(1));
        let far = !problem.machine.caches.hold(geometry);
        let this = Self { sides, stencil, rows, panel, block: [planes, band], far, threads: problem.threads };
        fits(this.lane_len())?;
        Ok(this)
    }

    fn lane_len(&self) -> usize {
        lines(self.sides.input.size[1])
    }

    /// The positions of all phases in the output rows `rows`, a large tile of each by turns: they share what they read, and lines that they write.
    fn in_turn(&self, rows: &Range<usize>) -> impl Iterator<Item = (&Row, Range<usize>)> {
        let positions = |row: &Row| row.axis.positions(rows.clone());
        let end = self.rows.iter().map(|row| positions(row).end).max().unwrap_or(0);
        let start = self.rows.iter().map(|row| positions(row).start).min().unwrap_or(0);
        (start..end).step_by(stencil::MOST).flat_map(move |start| {
            self.rows.iter().map(move |row| {
                let Range { start: first, end } = positions(row);
                (row, start.max(first)..(start + stencil::MOST).min(end))
            })
        })
    }

    /// The output rows `rows` of the planes `planes` of all images and channels.
    fn task(
        &self,
        [input, packed]: [&[f32]; 2],
        finish: &Finish<'_>,
        [planes, rows]: [&Range<usize>; 2],
        piece: &mut BlockMut<'_, f32>,
        zeros: &[f32],
    ) {
        let (channels, size) = (self.sides.output.channels, self.sides.input.size);
        let (plane, all) = (size[0] * size[1], channels * self.sides.groups);
        // Planes of a group read the same input; else as many as stay in L1 are computed tile by tile.
        let together = if channels > 1 { channels } else { (L1 / plane.max(1)).max(1) };
        let mut start = planes.start;
        while start < planes.end {
            let count = (together - start % channels).min(planes.end - start);
            let channel = start % all;
            for (row, band) in self.in_turn(rows) {
                let weights = &packed[channel * self.panel..][row.weights.start..];
                for_each_tile(self.stencil.rows(row.shape), band, |tile, position| {
                    let tile_of = Tile {
                        src: &input[start / channels * plane..],
                        size,
                        first: (position * row.axis.advance) as isize + row.axis.taps.d(0),
                        zeros,
                        columns: &row.columns,
                        weights,
                        taps: row.weights.len(),
                        planes: count,
                        steps: [if channels > 1 { 0 } else { plane }, self.panel],
                        bias: finish.epilogue.bias.map(|bias| &bias[channel..]),
                        clamp: finish.epilogue.early_clamp(),
                        add: finish.update == Update::Accumulate,
                        far: self.far,
                        to: [start - planes.start, row.axis.start + position * row.axis.step - rows.start],
                        step: row.axis.step,
                    };
                    self.stencil.run(row.shape, tile, &tile_of, piece);
                });
            }
            start += count;
        }
        if finish.epilogue.late() {
            let strides = self.sides.output.strides;
            for (i, plane) in planes.clone().enumerate() {
                for (j, row) in rows.clone().enumerate() {
                    finish.epilogue.finish(piece.row(i, j), plane * strides.channel + row * strides.row);
                }
            }
        }
    }

    /// The tensor that is written as `[planes, rows, pixels]`, and how tasks cut it.
    fn cuts(&self) -> ([usize; 3], [Cut; 3]) {
        let ([height, width], all) = (self.sides.output.size, self.sides.output.channels * self.sides.groups);
        let [planes, rows] = self.block;
        let cuts = [Cut { unit: all, block: planes }, Cut { unit: height, block: rows }, Cut::whole(width)];
        ([self.sides.batch * all, height, width], cuts)
    }

    /// Cycles of multiply-adds or loads, whichever are more, and of calls; and what comes from beyond L2. Fitted on Zen 5.
    fn estimate(&self) -> Estimate {
        let Sides { input, output, groups, batch, .. } = &self.sides;
        let (lanes, outputs) = (self.stencil.lanes(), output.channels * groups * batch);
        let [mut cycles, mut calls] = [0.0; 2];
        for row in &self.rows {
            let Shape { mode, k } = row.shape;
            let (stride, pixels, loads) = match mode {
                Mode::Plain => (1, output.size[1], 0.65),
                Mode::Split => (2, output.size[1], 1.5),
                Mode::Join => (1, output.size[1].div_ceil(2), 0.65),
            };
            for_each_tile(self.stencil.rows(row.shape), 0..row.axis.count, |tile, _| {
                let (taps, inputs) = ((row.weights.len() / k) as f64, ((tile - 1) * stride + k) as f64);
                let column = (0.5 * (tile * k) as f64).max(loads * inputs);
                // Planes that share their input read it one after the other.
                let shared = if output.channels > 1 { 1.1 } else { 1.0 };
                let vectors = shared * pixels.div_ceil(lanes) as f64;
                cycles += vectors * (taps * column + tile as f64);
                calls += vectors * taps * 2.0 + 20.0 + inputs;
            });
        }
        let plane = |size: [usize; 2]| (size[0] * size[1] * size_of::<f32>()) as f64;
        let bytes = plane(input.size) * (groups * batch) as f64 + plane(output.size) * outputs as f64;
        let far = if bytes > L2 { bytes / 32.0 } else { 0.0 };
        let (extent, cuts) = self.cuts();
        let parts = [cycles * outputs as f64, far, calls * outputs as f64];
        Estimate {
            workspace: Phased::workspace_len(self),
            packed: Phased::packed_len(self),
            ..Estimate::new(parts, &Tasks { extent, cuts }, self.threads)
        }
    }
}

/// Calls `f(rows, first position)` for tiles that cover `positions`, the largest first.
fn for_each_tile(sizes: &[usize], positions: Range<usize>, mut f: impl FnMut(usize, usize)) {
    let mut position = positions.start;
    while position < positions.end {
        let left = positions.end - position;
        let tile = *sizes.iter().rev().find(|size| **size <= left).expect("there are tiles of one row");
        f(tile, position);
        position += tile;
    }
}

impl Phased for Planes {
    fn packed_len(&self) -> usize {
        self.sides.output.channels * self.sides.groups * self.panel
    }

    /// `[output channel][phase][column][K]`.
    fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        if self.panel == 0 {
            return;
        }
        for (channel, packed) in packed.chunks_exact_mut(self.panel).enumerate() {
            let (group, out) = (channel / self.sides.output.channels, channel % self.sides.output.channels);
            let mut to = packed.iter_mut();
            for phase in &self.sides.phases {
                let [rows, columns] = phase.axes.map(|axis| axis.taps);
                for column in 0..columns.count {
                    for row in 0..rows.count {
                        let (start, [step, _]) = self.sides.weight(group, [rows.k(row), columns.k(column)]);
                        *to.next().expect("there is a place for every weight") = weights[start + out * step];
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
        BlockMut::new(output, extent).for_each_piece(
            cuts,
            par,
            workspace,
            self.lane_len(),
            &|[planes, rows, _], mut piece, lane| {
                let zeros = &mut lane[..self.sides.input.size[1]];
                zeros.fill(0.0);
                self.task([input, packed], &finish, [&planes, &rows], &mut piece, zeros);
            },
        );
    }
}
