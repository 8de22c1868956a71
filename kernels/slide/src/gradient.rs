//! Backward-weights: `diff_weights[oc, ic, kh, kw] = sum over n, oh, ow of diff_dst[n, oc, oh, ow] * src[n, ic, ih, iw]`, by gathers.
//!
//! ```text
//! for each task: some output channels, all their weights                          (parallel; nobody shares a weight)
//!     for each image, for each block of output rows                                (in order: the sum has one order)
//!         lanes are pixels: prepare the input rows of the group (and in NHWC those of diff_dst) as planes
//!         for each vector of channels, or each output channel
//!             for each block of columns, for each four rows: one gather            (a run of positions in registers)
//!     add the lanes of each sum, where they are pixels, and write it in the order of the weights
//! ```
//!
//! Groups of several channels in NHWC are fanned out, as in [`channels`](crate::channels): for each vector, for each block of output rows.
//! Where lanes are pixels each lane has a sum of its own: more than one accumulator, so not for the class `Strict`.
//! Rows that are left over are taken one by one, and lanes beyond the last pixel are not read: a `src` that is not finite touches no weight but
//! its own. Padding is multiplied, as zeros, by `diff_dst`.

use crate::channels::{Fan, input_rows};
use crate::deliver::{Sums, fold, for_each_box, places};
use crate::gather::{Column, Gather, Gatherer, MAX_ROWS, R, blocks, gatherer};
use crate::prepared::{Prepared, prepare};
use crate::sweep::{Sweeper, sweeper};
use crate::window::{Window, is_near};
use crate::{MACS, Slide, TASKS, WORKSPACE};
use convolve_core::{
    Accuracy, Algorithm, BackwardWeights, BackwardWeightsArgs, BlockMut, Direction, Estimate, Execute,
    Geometry, Layout, Par, Problem, Sides, Tasks, Unsupported, Update, lines,
};
use convolve_gemm::{Ukernel, ukernel};
use convolve_simd::Isa;
use core::ops::Range;

impl Algorithm<BackwardWeights> for Slide {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
        Ok(Runner::new(problem)?.estimate())
    }

    fn build(&self, problem: &Problem) -> Box<dyn Execute<BackwardWeights>> {
        Box::new(Runner::new(problem).expect("accepted by `estimate`"))
    }
}

struct Runner {
    geometry: Geometry,
    isa: Isa,
    sides: Sides,
    gatherer: Box<dyn Gatherer>,
    sweeper: Box<dyn Sweeper>,
    transpose: Box<dyn Ukernel>,
    window: Window,
    columns: Vec<Column>,
    /// Where the sums `[column][K]` have the weight `[input channel][tap]`.
    places: Vec<usize>,
    /// How rows are prepared where lanes are pixels.
    planes: Option<Prepared>,
    /// Where lanes are channels, and groups have several: what they read.
    fan: Option<Fan>,
    /// Output rows whose input rows are fanned out together, and the most of these.
    block: usize,
    reach: usize,
    /// Output channels of a task.
    channels: usize,
    threads: usize,
}

/// Output rows whose input rows are prepared together.
const ROWS: usize = 4 * R;
/// Floats of rows that are read again for the next vector of channels: three quarters of a first-level cache.
const L1: usize = 6 << 10;
/// Most floats of the fanned rows of a block of output rows.
const FANNED: usize = 1 << 16;
/// Most floats of the sums of a task.
const SUMS: usize = 1 << 17;

impl Runner {
    /// Lanes are channels or pixels: what costs less, but for depthwise layers in NHWC, where channels always do.
    fn new(problem: &Problem) -> Result<Self, Unsupported> {
        let fits = |runner: &Self| runner.lane_len() <= WORKSPACE;
        let planes = || match Self::by_planes(problem)? {
            planes if fits(&planes) => Ok(planes),
            _ => Err(Unsupported("the rows of `diff_dst` that it copies take more than 2 MiB a thread")),
        };
        match Self::by_channels(problem).filter(fits) {
            None => planes(),
            Some(channels) if channels.fan.is_none() => Ok(channels),
            Some(channels) => match planes() {
                Ok(planes) if planes.estimate().ns < channels.estimate().ns => Ok(planes),
                _ => Ok(channels),
            },
        }
    }

    fn by_channels(problem: &Problem) -> Option<Self> {
        let geometry = &problem.geometry;
        if geometry.conv().layout != Layout::Nhwc {
            return None;
        }
        let lanes = sweeper(problem.isa).lanes();
        let (sides, fan) = match Sides::depthwise(geometry, Direction::Forward) {
            Some(sides) => (sides, None),
            None => {
                let sides = Sides::new(geometry, Direction::Forward);
                let fan = Fan::new(&sides, lanes)?;
                (sides, Some(fan))
            }
        };
        let (pitch, count) = fan.as_ref().map_or((sides.input.channels, 1), |fan| (fan.pixel(), fan.count));
        if !is_near(&sides.phases[0], [sides.input.size[1].saturating_mul(pitch), pitch]) {
            return None;
        }
        let window = Window::channels(&sides.phases[0], pitch, lanes, count);
        let (mut block, row) = (sides.output.size[0].max(1), sides.input.size[1].saturating_mul(pitch));
        let least = R * window.chain.leap;
        if fan.is_some() {
            while block > least && sides.reach(block, 0).saturating_mul(row) > FANNED {
                block = (block / 2).next_multiple_of(least).min(block - 1);
            }
            if sides.reach(block, 0).saturating_mul(row) > 4 * FANNED {
                return None;
            }
        }
        let reach = if fan.is_some() { sides.reach(block, 0) } else { 0 };
        let runner = Self::with(problem, sides, window, None);
        let outputs = geometry.conv().out_channels;
        // Two vectors are a cache line on some instruction sets.
        let unit = if fan.is_some() { lanes } else { 2 * lanes };
        let channels = outputs.div_ceil(tasks(geometry)).next_multiple_of(unit).clamp(1, outputs);
        let runner = Self { fan, block, reach, channels, ..runner };
        (runner.window.chain.pieces == 1 && runner.sums_len() <= SUMS).then_some(runner)
    }

    fn by_planes(problem: &Problem) -> Result<Self, Unsupported> {
        if problem.accuracy == Accuracy::Strict {
            return Err(Unsupported("the order of its sums depends on the instruction set"));
        }
        let lanes = sweeper(problem.isa).lanes();
        let sides = Sides::new(&problem.geometry, Direction::Forward);
        let phase = &sides.phases[0];
        let chain = crate::window::Chain::new(&phase.axes[0]);
        let (group, outputs) = (sides.output.channels, problem.geometry.conv().out_channels);
        let share = outputs.div_ceil(tasks(&problem.geometry));
        let share = if group == 1 || share > group { share.next_multiple_of(group) } else { share };
        let channels = share.clamp(1, outputs);
        // Before anything is made whose size is that of the weights: most problems of many channels end here.
        let columns = sides.input.channels * chain.pieces * phase.axes[1].taps.count;
        if (channels * chain.k * lanes).saturating_mul(columns) > SUMS {
            return Err(Unsupported("the sums of a task do not fit a second-level cache"));
        }
        let planes = Prepared::new(&sides, lanes, ROWS.max(R * chain.leap))?;
        let window = Window::planes(phase, sides.input.channels, &planes.padded, planes.plane, lanes);
        Ok(Self { channels, ..Self::with(problem, sides, window, Some(planes)) })
    }

    fn with(problem: &Problem, sides: Sides, window: Window, planes: Option<Prepared>) -> Self {
        let geometry = problem.geometry;
        Self {
            columns: columns(&window, sides.output.size[1], planes.is_some()),
            places: places(&window, geometry.conv().kernel, geometry.group_in(), planes.is_some()),
            gatherer: gatherer(problem.isa),
            sweeper: sweeper(problem.isa),
            transpose: ukernel(problem.isa, [geometry.conv().out_channels, 1]),
            channels: 1,
            block: sides.output.size[0].max(1),
            reach: 0,
            fan: None,
            threads: problem.threads,
            isa: problem.isa,
            geometry,
            sides,
            window,
            planes,
        }
    }

    /// Floats of the sums of one output channel (or vector of them).
    fn panel(&self) -> usize {
        self.window.columns.len() * self.window.chain.k * self.sweeper.lanes()
    }

    fn sums_len(&self) -> usize {
        match self.planes {
            None => self.channels.div_ceil(self.sweeper.lanes()) * self.panel(),
            Some(_) => self.channels * self.panel(),
        }
    }

    /// Floats of an input row where lanes are channels.
    fn row_len(&self) -> usize {
        match (&self.planes, &self.fan) {
            (Some(_), _) => 0,
            (None, None) => self.sides.input.strides.row,
            (None, Some(fan)) => self.sides.input.size[1] * fan.pixel(),
        }
    }

    /// Whether `diff_dst` is copied to planes.
    fn copies(&self) -> bool {
        self.planes.is_some() && self.sides.layout == Layout::Nhwc
    }

    /// Floats of a row of `diff_dst` as it is read, and those of all copied ones.
    fn diffs(&self) -> (usize, usize) {
        match &self.planes {
            None => (self.sides.output.strides.row, 0),
            Some(planes) => {
                let row = self.sides.output.size[1];
                let rows = self.channels.min(self.sides.output.channels) * planes.block;
                (row, if self.copies() { rows * row } else { 0 })
            }
        }
    }

    fn prepared_len(&self) -> usize {
        let fanned = self.reach * self.row_len();
        self.planes.as_ref().map_or(fanned, |planes| planes.plane * self.sides.input.channels)
    }

    fn lane_len(&self) -> usize {
        lines(self.sums_len()) + lines(self.row_len()) + lines(self.prepared_len()) + lines(self.diffs().1)
    }

    /// The sums of some output channels: `[vector or channel][column][K][LANES]`.
    fn task(&self, src: &[f32], diff_dst: &[f32], channels: &Range<usize>, lane: &mut [f32]) {
        let (sums, lane) = lane.split_at_mut(lines(self.sums_len()));
        let (zeros, lane) = lane.split_at_mut(lines(self.row_len()));
        let (prepared, diffs) = lane.split_at_mut(lines(self.prepared_len()));
        sums.fill(0.0);
        zeros.fill(0.0);
        diffs.fill(0.0);
        if self.planes.is_some() {
            prepared.fill(0.0);
        }
        for image in 0..self.sides.batch {
            match &self.planes {
                None => self.reduce_channels(src, diff_dst, image, channels, zeros, prepared, sums),
                Some(planes) => {
                    let group = self.sides.output.channels;
                    let mut start = channels.start;
                    while start < channels.end {
                        let end = channels.end.min((start / group + 1) * group);
                        let sums = &mut sums[(start - channels.start) * self.panel()..];
                        self.reduce_planes(
                            src,
                            diff_dst,
                            planes,
                            image,
                            &(start..end),
                            prepared,
                            diffs,
                            sums,
                        );
                        start = end;
                    }
                }
            }
        }
    }

    /// Lanes are channels. Input rows are read in place, by all vectors in turn; or they are fanned out for one vector after the other.
    #[expect(clippy::too_many_arguments, reason = "what, and with which memory")]
    fn reduce_channels(
        &self,
        src: &[f32],
        diff_dst: &[f32],
        image: usize,
        channels: &Range<usize>,
        zeros: &[f32],
        fanned: &mut [f32],
        sums: &mut [f32],
    ) {
        let (from, to, lanes) = (self.sides.input.strides, self.sides.output.strides, self.sweeper.lanes());
        let (src, diff_dst) = (&src[image * from.image..], &diff_dst[image * to.image..]);
        let height = self.sides.output.size[0];
        let Some(fan) = &self.fan else {
            return self.gather_rows([src, diff_dst], 0, channels, &(0..height), zeros, sums);
        };
        for start in (0..height).step_by(self.block) {
            let block = start..height.min(start + self.block);
            let read = input_rows(core::iter::once(&self.window), &block);
            for (vector, sums) in channels.clone().step_by(lanes).zip(sums.chunks_exact_mut(self.panel())) {
                let sweeper = self.sweeper.as_ref();
                fan.rows(sweeper, &self.sides, src, vector / lanes, read.clone(), fanned);
                let channels = vector..channels.end.min(vector + lanes);
                self.gather_rows([fanned, diff_dst], read.start, &channels, &block, zeros, sums);
            }
        }
    }

    /// Adds what the output rows `block` give to the sums of some vectors; `src` starts with the input row `origin`.
    fn gather_rows(
        &self,
        [src, diff_dst]: [&[f32]; 2],
        origin: usize,
        channels: &Range<usize>,
        block: &Range<usize>,
        zeros: &[f32],
        sums: &mut [f32],
    ) {
        let (to, lanes, row_len) = (self.sides.output.strides, self.sweeper.lanes(), self.row_len());
        let all = self.sides.output.channels * self.sides.groups;
        let height = self.sides.input.size[0];
        let (window, chain, axis) = (&self.window, &self.window.chain, &self.window.phase.axes[0]);
        let input = |first: usize, i: usize| {
            let row = (first * axis.advance + i * chain.unit) as isize + axis.taps.d(0);
            (0..height as isize).contains(&row).then(|| (row as usize - origin) * row_len)
        };
        let inside = |first: usize| input(first, 0).is_some() && input(first, chain.rows(R) - 1).is_some();
        // Vectors of channels that share cache lines follow each other while the lines are still in L1.
        let line = 2 * lanes * self.sides.output.size[1] * (R + chain.rows(R));
        let most = (L1 / line).max(1);
        for_each_rows(chain.leap, block.clone(), most, &inside, &mut |Rows { first, count, groups }| {
            let read = chain.rows(count);
            for (vector, sums) in channels.clone().step_by(lanes).zip(sums.chunks_exact_mut(self.panel())) {
                // A fanned pixel has the vector alone.
                let within = if self.fan.is_some() { 0 } else { vector };
                let mut inputs = [zeros; MAX_ROWS];
                for (i, to) in inputs[..read].iter_mut().enumerate() {
                    *to = match input(first, i) {
                        Some(row) => &src[row + within..],
                        None => &zeros[within..row_len],
                    };
                }
                let mut diffs = [diff_dst; R];
                for (r, row) in diffs[..count].iter_mut().enumerate() {
                    *row = &diff_dst[(first + r * chain.leap) * to.row + vector..];
                }
                let step = R * chain.leap;
                for columns in blocks(chain.k, self.columns.len()) {
                    let call = Gather {
                        rows: &inputs[..read],
                        diffs: &diffs[..count],
                        columns: &self.columns[columns.clone()],
                        positions: 0..self.sides.output.size[1],
                        steps: [window.advance, to.column],
                        groups,
                        group_steps: [step * axis.advance * row_len, step * to.row],
                        lanes: lanes.min(all - vector),
                    };
                    self.gatherer.gather(
                        chain.k,
                        chain.stride,
                        &call,
                        &mut sums[columns.start * chain.k * lanes..],
                    );
                }
            }
        });
    }

    /// Output channels of one group.
    #[expect(clippy::too_many_arguments, reason = "what, and with which memory")]
    fn reduce_planes(
        &self,
        src: &[f32],
        diff_dst: &[f32],
        planes: &Prepared,
        image: usize,
        channels: &Range<usize>,
        prepared: &mut [f32],
        diffs: &mut [f32],
        sums: &mut [f32],
    ) {
        let (to, lanes, [height, width]) =
            (self.sides.output.strides, self.sweeper.lanes(), self.sides.output.size);
        let (window, chain, axis) = (&self.window, &self.window.chain, &self.window.phase.axes[0]);
        let group = channels.start / self.sides.output.channels;
        let (pitch, diff_dst) = (planes.padded.pitch, &diff_dst[image * to.image..]);
        let diff_row = self.diffs().0;
        for start in (0..height).step_by(planes.block) {
            let block = start..height.min(start + planes.block);
            let sides = &self.sides;
            let (sweeper, transpose) = (self.sweeper.as_ref(), self.transpose.as_ref());
            prepare(
                sides,
                window,
                planes,
                sweeper,
                transpose,
                src,
                image,
                &(group..group + 1),
                &block,
                prepared,
            );
            for (i, row) in block.clone().enumerate().filter(|_| sides.layout == Layout::Nhwc) {
                let from = &diff_dst[row * to.row + channels.start..];
                let size = [width, channels.len()];
                transpose.transpose(
                    size,
                    from,
                    to.column,
                    &mut diffs[i * diff_row..],
                    planes.block * diff_row,
                );
            }
            let step = R * chain.leap;
            for_each_rows(
                chain.leap,
                block.clone(),
                usize::MAX,
                &|_| true,
                &mut |Rows { first, count, groups }| {
                    let position = first - block.start;
                    let mut inputs = [&*prepared; MAX_ROWS];
                    for (i, to) in inputs[..chain.rows(count)].iter_mut().enumerate() {
                        *to = &prepared[(position * axis.advance + i * chain.unit) * pitch..];
                    }
                    for (channel, sums) in channels.clone().zip(sums.chunks_exact_mut(self.panel())) {
                        let (data, start, row) = match self.copies() {
                            true => (&*diffs, (channel - channels.start) * planes.block * diff_row, diff_row),
                            false => (diff_dst, channel * to.channel + block.start * to.row, to.row),
                        };
                        let mut rows = [data; R];
                        for (r, to) in rows[..count].iter_mut().enumerate() {
                            *to = &data[start + (position + r * chain.leap) * row..];
                        }
                        for columns in blocks(chain.k, self.columns.len()) {
                            let sums = &mut sums[columns.start * chain.k * lanes..];
                            // Whole vectors of pixels, then what is left of a row.
                            let whole = width / lanes;
                            for (positions, lanes_read) in
                                [(0..whole, lanes), (whole..width.div_ceil(lanes), width % lanes)]
                            {
                                let call = Gather {
                                    rows: &inputs[..chain.rows(count)],
                                    diffs: &rows[..count],
                                    columns: &self.columns[columns.clone()],
                                    positions,
                                    steps: [lanes, lanes],
                                    groups,
                                    group_steps: [step * axis.advance * pitch, step * row],
                                    lanes: lanes_read,
                                };
                                self.gatherer.gather(chain.k, chain.stride, &call, sums);
                            }
                        }
                    }
                },
            );
        }
    }

    /// Writes or adds the sums of a task to its box of the gradient.
    fn deliver(
        &self,
        channels: &Range<usize>,
        sums: &mut [f32],
        update: Update,
        piece: &mut BlockMut<'_, f32>,
    ) {
        let (lanes, k) = (self.sweeper.lanes(), self.window.chain.k);
        let sums = &mut sums[..self.sums_len()];
        if self.planes.is_some() {
            fold(self.isa, sums);
        }
        // Sums of one weight for neighbouring output channels: those of a vector lie side by side.
        let (width, panel) = match self.planes {
            None => (lanes, self.panel()),
            Some(_) => (1, k * self.columns.len()),
        };
        let places = &self.places;
        Sums { geometry: &self.geometry, width, panel, places }.deliver(
            0..channels.len(),
            sums,
            update,
            piece,
        );
    }

    fn estimate(&self) -> Estimate {
        let (window, chain) = (&self.window, &self.window.chain);
        let lanes = self.sweeper.lanes() as f64;
        let [height, width] = self.sides.output.size;
        let outputs = (self.geometry.conv().out_channels * self.sides.batch) as f64;
        let groups = height.div_ceil(R) as f64;
        let inputs = chain.rows(R) as f64;
        let (steps, loads) = ((R * chain.k) as f64 * 0.5, 0.6 * inputs + 1.0);
        let column = steps.max(loads);
        let turn = (1.1 * steps).max(loads) - column;
        let runs = window.columns.len().div_ceil(crate::gather::COLUMNS[chain.k - 1]) as f64;
        let [cycles, calls] = match &self.planes {
            None => {
                // Fanned rows come from L2.
                let far = if self.fan.is_some() { 1.7 } else { 1.0 };
                let columns = width as f64 * window.columns.len() as f64;
                let run = columns * column * far;
                let fanned = match &self.fan {
                    None => 0.0,
                    Some(fan) => {
                        let rows = height as f64 / self.block as f64 * self.reach as f64;
                        rows * self.sides.input.size[1] as f64 * (2.0 + 1.5 * fan.count as f64)
                    }
                };
                let begun = runs * window.spans.len() as f64 * 60.0 + columns * turn * far;
                [groups * run + fanned, groups * begun].map(|cycles| (outputs / lanes).max(1.0) * cycles)
            }
            Some(planes) => {
                let vectors = (width as f64 / lanes).ceil();
                let parts = if (width as f64 / lanes).fract() > 0.0 { 2.0 } else { 1.0 };
                let columns = vectors * window.columns.len() as f64;
                let run = columns * column * 1.6;
                let tasks = outputs / self.channels.min(self.sides.output.channels) as f64;
                let blocks = height.div_ceil(planes.block) as f64;
                let copies = self.sides.input.channels as f64
                    * planes.reach as f64
                    * (planes.padded.pitch as f64 / lanes)
                    * if self.sides.layout == Layout::Nhwc {
                        12.0
                    } else {
                        1.5 * self.geometry.conv().stride[1].min(4) as f64
                    };
                let diffs = if self.sides.layout == Layout::Nhwc {
                    (height * width) as f64 / lanes * 12.0
                } else {
                    0.0
                };
                let begun = runs * parts * (40.0 + 2.0 * (chain.k * 3) as f64) + columns * turn * 1.6;
                [outputs * (groups * run + diffs) + tasks * blocks * copies, outputs * groups * begun]
            }
        };
        let tasks = Tasks::line(self.geometry.conv().out_channels, self.channels);
        Estimate {
            exposed: if self.planes.is_some() { crate::COPIED } else { crate::EXPOSED },
            workspace: self.workspace_len(),
            ..Estimate::new([cycles, 0.0, calls], &tasks, self.threads)
        }
    }
}

fn tasks(geometry: &Geometry) -> usize {
    if geometry.macs() < MACS { 1 } else { TASKS }
}

/// The columns of a window with the positions at which each lies inside the image: all, where the image is padded.
fn columns(window: &Window, width: usize, padded: bool) -> Vec<Column> {
    let axis = &window.phase.axes[1];
    let fan = window.columns.len() / axis.taps.count.max(1);
    let column = |(i, [offset, plane]): (usize, &[usize; 2])| {
        let inside = if padded { 0..width } else { axis.positions_of(i / fan) };
        Column { offset: offset.wrapping_add(*plane), first: inside.start, count: inside.len() }
    };
    window.columns.iter().enumerate().map(column).collect()
}

/// Output rows that go together: `groups` times `count` rows, all `leap` apart, from `first` on.
struct Rows {
    first: usize,
    count: usize,
    groups: usize,
}

/// Covers `rows` with groups of R rows, `leap` apart; up to `most` that are `plain` go together. Fewer than R are taken one by one.
fn for_each_rows(
    leap: usize,
    rows: Range<usize>,
    most: usize,
    plain: &dyn Fn(usize) -> bool,
    f: &mut dyn FnMut(Rows),
) {
    for start in rows.start..rows.end.min(rows.start + leap) {
        let (chain, step) = ((rows.end - start).div_ceil(leap), R * leap);
        let mut group = 0;
        while group < chain / R {
            let first = start + group * step;
            let more = (group..chain / R).take(most).take_while(|group| plain(start + group * step)).count();
            let groups = more.max(1);
            f(Rows { first, count: R, groups });
            group += groups;
        }
        for row in chain / R * R..chain {
            f(Rows { first: start + row * leap, count: 1, groups: 1 });
        }
    }
}

impl Execute<BackwardWeights> for Runner {
    fn workspace_len(&self) -> usize {
        self.lane_len().saturating_mul(self.threads)
    }

    fn run(&self, args: BackwardWeightsArgs<'_>, workspace: &mut [f32], par: Par<'_>) {
        let BackwardWeightsArgs { src, diff_dst, diff_weights, update } = args;
        let (geometry, lane_len) = (&self.geometry, self.lane_len());
        for_each_box(
            geometry,
            self.channels,
            diff_weights,
            workspace,
            lane_len,
            par,
            &|channels, piece, lane| {
                self.task(src, diff_dst, channels, lane);
                self.deliver(channels, lane, update, piece);
            },
        );
    }
}
