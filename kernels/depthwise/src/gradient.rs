//! Backward-weights: `diff_weights[oc, kh, kw] = sum over n, oh, ow of src[n, ic, oh*stride + kh - top, ow*stride + kw - left] * diff_dst[n, oc, oh, ow]`.
//!
//! ```text
//! for each task: some output channels                                   (parallel; nobody shares a weight)
//!     for each image, in order: all rows of the two planes, for some columns of the kernel at a time (see `moments.rs`)
//!     add the lanes of each sum
//! ```
//!
//! Each lane has a sum of its own: more than one accumulator, so not for the class `Strict`.

use crate::moments::{Moments, Pair, Shape, moments};
use crate::stencil::WINDOWS;
use crate::{Depthwise, L2, MACS, TASKS, check, fits, for_each_tile};
use convolve_core::phase::AxisPhase;
use convolve_core::{
    Accuracy, Algorithm, BackwardWeights, BackwardWeightsArgs, BlockMut, Cut, Estimate, Execute, Geometry,
    Layout, Par, Problem, Tasks, Unsupported, Update, lines,
};
use core::ops::Range;

impl Algorithm<BackwardWeights> for Depthwise {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
        Ok(Gradient::new(problem)?.estimate())
    }

    fn build(&self, problem: &Problem) -> Box<dyn Execute<BackwardWeights>> {
        Box::new(Gradient::new(problem).expect("accepted by `estimate`"))
    }
}

struct Gradient {
    geometry: Geometry,
    moments: Box<dyn Moments>,
    shape: Shape,
    rows: AxisPhase,
    /// Where the columns of the kernel read, relative to the output.
    columns: Vec<isize>,
    /// Output channels of a task.
    channels: usize,
    threads: usize,
}

impl Gradient {
    fn new(problem: &Problem) -> Result<Self, Unsupported> {
        let geometry = problem.geometry;
        let conv = geometry.conv();
        if conv.layout != Layout::Nchw {
            return Err(Unsupported("the layout is not NCHW"));
        }
        if geometry.group_in() != 1 {
            return Err(Unsupported("an output channel reads more than one input channel"));
        }
        if problem.accuracy == Accuracy::Strict {
            return Err(Unsupported("the order of its sums depends on the instruction set"));
        }
        let [rows, columns] = geometry.forward().axes;
        let split = match [rows.advance, columns.advance] {
            [1, 1] => false,
            [2, 2] => true,
            _ => return Err(Unsupported("strides are not one or two along both axes")),
        };
        check(&[rows, columns])?;
        if !WINDOWS.contains(&rows.taps.count) {
            return Err(Unsupported("kernels have other than 3, 5 or 7 rows"));
        }
        // With one input channel the order of kernel rows, columns and that channel is one of two.
        let weights = geometry.weights();
        if weights.tap != [columns.taps.count, 1] || weights.oc != geometry.taps() {
            return Err(Unsupported("the weights of an output channel are not neighbours"));
        }
        let tasks = if geometry.macs() < MACS { 1 } else { TASKS };
        let this = Self {
            moments: moments(problem.isa),
            shape: Shape { split, k: rows.taps.count },
            rows,
            columns: (0..columns.taps.count).map(|t| columns.taps.d(t)).collect(),
            channels: conv.out_channels.div_ceil(tasks).max(1),
            threads: problem.threads,
            geometry,
        };
        fits(this.lane_len())?;
        Ok(this)
    }

    /// Floats of a row of zeros, of the sums of an output channel, and of its weights.
    fn lens(&self) -> [usize; 3] {
        let taps = self.geometry.taps();
        [self.geometry.conv().input[1], taps.saturating_mul(self.moments.lanes()), taps].map(lines)
    }

    fn lane_len(&self) -> usize {
        self.lens().iter().fold(0, |all, len| all.saturating_add(*len))
    }

    /// The columns of each call.
    fn calls(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let most = self.moments.most(self.shape);
        (0..self.columns.len()).step_by(most).map(move |first| first..self.columns.len().min(first + most))
    }

    /// The sums of one output channel: `[column][K][LANES]`.
    fn sums(&self, [src, diff_dst]: [&[f32]; 2], channel: usize, zeros: &[f32], sums: &mut [f32]) {
        sums.fill(0.0);
        let (conv, outputs) = (self.geometry.conv(), self.geometry.output());
        let strides = [self.geometry.src(), self.geometry.dst()];
        let sizes = [conv.input, outputs];
        let channels = [channel / self.geometry.group_out(), channel];
        for image in 0..conv.batch {
            let plane = |side: usize| {
                let start = image * strides[side].image + channels[side] * strides[side].channel;
                start..start + sizes[side][0] * sizes[side][1]
            };
            let planes = [&src[plane(0)], &diff_dst[plane(1)]];
            for some in self.calls() {
                let columns = &self.columns[some.clone()];
                let sums = &mut sums[some.start * self.shape.k * self.moments.lanes()..];
                let sizes_of_tiles = self.moments.rows(self.shape, columns.len());
                for_each_run(sizes_of_tiles, 0..outputs[0], |rows, row, tiles| {
                    let first = (row * self.rows.advance) as isize + self.rows.taps.d(0);
                    let pair = Pair { planes, sizes, row, first, tiles, zeros, columns };
                    self.moments.add(self.shape, rows, &pair, sums);
                });
            }
        }
    }

    /// Cycles of multiply-adds or loads, whichever are more, and of calls; and what comes from beyond L2. Fitted on Zen 5.
    fn estimate(&self) -> Estimate {
        let (conv, outputs) = (self.geometry.conv(), self.geometry.output());
        let (k, lanes) = (self.shape.k, self.moments.lanes());
        let [mut cycles, mut calls] = [0.0; 2];
        let (stride, loads) = if self.shape.split { (2, 2.9) } else { (1, 0.65) };
        for columns in self.calls() {
            for_each_run(self.moments.rows(self.shape, columns.len()), 0..outputs[0], |rows, _, tiles| {
                let inputs = ((rows - 1) * stride + k) as f64;
                let column = (0.5 * (rows * k) as f64).max(loads * inputs);
                let vectors = (tiles * outputs[1].div_ceil(lanes)) as f64;
                cycles += vectors * columns.len() as f64 * column;
                calls += vectors * (2.0 * columns.len() as f64 + 1.5 * rows as f64);
                calls += 30.0 + 2.0 * (columns.len() * k) as f64 + tiles as f64 * inputs;
            });
        }
        let planes = (conv.batch * conv.out_channels) as f64;
        let fold = conv.out_channels as f64 * (50.0 + 8.0 * self.geometry.taps() as f64);
        let bytes = ((self.geometry.src_len() + self.geometry.dst_len()) * size_of::<f32>()) as f64;
        let far = if bytes > L2 { bytes / 64.0 } else { 0.0 };
        let parts = [cycles * planes, far, (0.1 * cycles + 1.1 * calls) * planes + fold];
        let tasks = Tasks::line(conv.out_channels, self.channels);
        Estimate { workspace: self.workspace_len(), ..Estimate::new(parts, &tasks, self.threads) }
    }
}

/// Calls `f(rows, first position, tiles)` for runs of tiles of equal height that cover `positions`.
fn for_each_run(sizes: &[usize], positions: Range<usize>, mut f: impl FnMut(usize, usize, usize)) {
    let mut run = (0, positions.start, 0);
    for_each_tile(sizes, positions, |rows, position| {
        if rows != run.0 {
            if run.2 > 0 {
                f(run.0, run.1, run.2);
            }
            run = (rows, position, 0);
        }
        run.2 += 1;
    });
    if run.2 > 0 {
        f(run.0, run.1, run.2);
    }
}

impl Execute<BackwardWeights> for Gradient {
    fn workspace_len(&self) -> usize {
        self.lane_len().saturating_mul(self.threads)
    }

    fn run(&self, args: BackwardWeightsArgs<'_>, workspace: &mut [f32], par: Par<'_>) {
        let BackwardWeightsArgs { src, diff_dst, diff_weights, update } = args;
        let (taps, channels) = (self.geometry.taps(), self.geometry.conv().out_channels);
        let block = Cut { unit: channels.max(1), block: self.channels };
        BlockMut::new(diff_weights, [1, channels, taps]).for_each_piece(
            [Cut::whole(1), block, Cut::whole(taps)],
            par,
            workspace,
            self.lane_len(),
            &|[_, channels, _], mut piece, lane| {
                let [zeros_len, sums_len, _] = self.lens();
                let (zeros, lane) = lane.split_at_mut(zeros_len);
                let (sums, folded) = lane.split_at_mut(sums_len);
                let zeros = &mut zeros[..self.geometry.conv().input[1]];
                let sums = &mut sums[..taps * self.moments.lanes()];
                zeros.fill(0.0);
                for (i, channel) in channels.enumerate() {
                    self.sums([src, diff_dst], channel, zeros, sums);
                    self.moments.fold(sums, folded);
                    // Sums are `[column][K]`, weights `[K][column]`.
                    let (k, columns) = (self.shape.k, self.columns.len());
                    for (at, to) in piece.row(0, i).iter_mut().enumerate() {
                        let sum = folded[at % columns * k + at / columns];
                        *to = if update == Update::Accumulate { *to + sum } else { sum };
                    }
                }
            },
        );
    }
}
