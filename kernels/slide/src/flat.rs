//! Backward-weights plane by plane: what every input plane gives to the weights of every output plane of its group.
//!
//! `diff_weights[oc, ic, k(t), k(u)] += sum over i, j of  src[ic, start + i*stride, start' + j*stride'] * diff_dst[oc, i + d(t), j + d(u)]`
//!
//! That is the gradient of the input with the parts of input and weights exchanged, so it has the same phases: pixels that are equal modulo
//! the stride are reached by the same taps.
//!
//! ```text
//! for each task: some output channels, all their weights                          (parallel; nobody shares a weight)
//!     for each block of these, of one group
//!         for each image                                                           (in order: the sum has one order)
//!             for each row of phases: take the pixels of the input planes apart by the stride, if there is one
//!                 for each input plane, for each output plane, for each block of taps: one call over the whole plane
//!         add the lanes of each sum, and write it in the order of the weights
//! ```
//!
//! Planes of NCHW are read where they lie if their rows have the common length, as both have with stride 1 and padding "same"; those at the ends of a
//! tensor, where a call would read beyond it, and all others are copied. Each lane has a sum of its own: more than one accumulator, so not for the class `Strict`.
//! A `src` that is not finite touches no weight but its own. Padding beside a row is multiplied, as zeros, by `diff_dst`.

use crate::deliver::{Sums, fold, for_each_box};
use crate::long_row::{Column, Flags, Flatten, Flattener, Row, cut_rows, flattener};
use crate::sweep::{RowCopy, Sweeper, sweeper};
use crate::{MACS, TASKS, WORKSPACE};
use convolve_core::phase::{AxisPhase, Phase};
use convolve_core::{
    Accuracy, Algorithm, BackwardWeights, BackwardWeightsArgs, Estimate, Execute, Geometry, Layout, Par,
    Problem, Tasks, Unsupported, lines,
};
use convolve_gemm::{Ukernel, ukernel};
use convolve_simd::Isa;
use core::ops::Range;

/// Backward-weights of single planes, each as one long row.
///
/// ```
/// use convolve_core::{Algorithm, BackwardWeights};
/// assert_eq!(Algorithm::<BackwardWeights>::name(&convolve_slide::Flat), "flat");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Flat;

impl Algorithm<BackwardWeights> for Flat {
    fn name(&self) -> &'static str {
        "flat"
    }

    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
        Ok(Runner::new(problem)?.estimate())
    }

    fn build(&self, problem: &Problem) -> Box<dyn Execute<BackwardWeights>> {
        Box::new(Runner::new(problem).expect("accepted by `estimate`").with_flags())
    }
}

/// Most floats of the sums of an output channel.
const SUMS: usize = 1 << 17;
/// Most bytes of flags: they are read beside the planes.
const FLAGS: usize = 1 << 15;
/// Floats of sums that stay in a first-level cache, and of planes that stay in a second-level one.
const L1: usize = 1 << 12;
const L2: usize = 1 << 16;

/// Input pixels whose rows are equal modulo the stride.
struct Class {
    /// First input row, and how many there are.
    first: usize,
    count: usize,
    rows: Vec<Row>,
    columns: Vec<Column>,
}

/// A plane with room on both sides, so that no call reads beyond it.
#[derive(Clone, Copy)]
struct Padded {
    /// Floats before position 0, and of all.
    before: usize,
    len: usize,
}

struct Runner {
    geometry: Geometry,
    isa: Isa,
    kernel: Box<dyn Flattener>,
    transpose: Box<dyn Ukernel>,
    sweeper: Box<dyn Sweeper>,
    classes: Vec<Class>,
    /// Of the columns of the image, those that are equal modulo the stride.
    residues: Vec<AxisPhase>,
    flags: Flags,
    /// Where the sums of an output channel have its weights: in their order.
    places: Vec<usize>,
    /// Floats from one row to the next, in both planes.
    pitch: usize,
    /// Kernel rows and columns of a call.
    block: [usize; 2],
    src: Padded,
    diff_dst: Padded,
    /// Output channels of a task, and of a block.
    channels: usize,
    together: usize,
    /// Whether the tensors do not fit the last cache.
    beyond: bool,
    threads: usize,
}

impl Runner {
    fn new(problem: &Problem) -> Result<Self, Unsupported> {
        let geometry = problem.geometry;
        let conv = geometry.conv();
        if conv.layout == Layout::Nhwc && geometry.group_out() == 1 && conv.groups > 1 {
            return Err(Unsupported("channels are neighbours, and each has its own plane"));
        }
        if problem.accuracy == Accuracy::Strict {
            return Err(Unsupported("the order of its sums depends on the instruction set"));
        }
        let (outputs, [height, width], stride) = (conv.out_channels, geometry.output(), conv.stride);
        let tasks = if geometry.macs() < MACS { 1 } else { TASKS };
        let channels = outputs.div_ceil(tasks).max(1);
        let kernel = flattener(problem.isa);
        let lanes = kernel.lanes();
        let panel = geometry.group_in().saturating_mul(geometry.taps()).saturating_mul(lanes);
        if panel > SUMS {
            return Err(Unsupported("the sums of an output channel do not fit a second-level cache"));
        }
        let phases = geometry.backward_data_with_taps();
        let count = |axis: usize| phases.iter().map(move |phase| phase.axes[axis].count).max().unwrap_or(0);
        let [rows, pitch] = [count(0), width.max(count(1)).max(1)];
        let reach = |axis: usize| {
            let taps = phases.iter().map(|phase| phase.axes[axis].taps);
            taps.flat_map(|taps| [taps.d(0), taps.d(taps.count - 1)])
                .map(isize::unsigned_abs)
                .max()
                .unwrap_or(0)
        };
        let floats = rows.max(height).saturating_mul(pitch);
        let (by_row, by_column) = (reach(0).saturating_mul(pitch), reach(1));
        if by_row.max(by_column).max(floats.saturating_mul(stride[1])) > WORKSPACE {
            return Err(Unsupported("a plane does not fit a second-level cache"));
        }
        let padded = |reach: usize| {
            let before = lines(reach);
            // A call may begin at the last position of the longer plane.
            Padded { before, len: lines(floats + lanes) + 2 * before }
        };
        let [src, diff_dst] = [padded(by_column), padded(by_row)];
        // Sums that stay in L1, and copied planes that stay in L2.
        let together =
            (L1 / panel.max(1)).min(L2 / diff_dst.len).clamp(1, channels.min(geometry.group_out()));
        // Phases of one row are neighbours, and all rows have the same by columns.
        let by_rows = || phases.chunk_by(|a, b| a.axes[0].start == b.axes[0].start);
        let residues: Vec<AxisPhase> = by_rows().take(1).flatten().map(|phase| phase.axes[1]).collect();
        let columns = residues.iter().map(|axis| axis.taps.count).sum();
        if Flags::len(lanes, pitch, columns) > FLAGS {
            return Err(Unsupported("rows are so wide that other ways waste little at their ends"));
        }
        let mut this = Self {
            geometry,
            isa: problem.isa,
            transpose: ukernel(problem.isa, [geometry.group_out(), 1]),
            sweeper: sweeper(problem.isa),
            classes: Vec::new(),
            residues,
            flags: Flags::default(),
            places: (0..geometry.group_in() * geometry.taps()).collect(),
            block: [1; 2],
            kernel,
            pitch,
            src,
            diff_dst,
            channels,
            together,
            beyond: !problem.caches.hold(&geometry),
            threads: problem.threads,
        };
        by_rows().for_each(|phases| this.class(phases));
        let most = |len: fn(&Class) -> usize| this.classes.iter().map(len).max().unwrap_or(1);
        this.block = this.kernel.most([most(|class| class.rows.len()), most(|class| class.columns.len())]);
        match this.lane_len() <= WORKSPACE {
            true => Ok(this),
            false => Err(Unsupported("the planes of a task do not fit a second-level cache")),
        }
    }

    /// What only a run needs.
    fn with_flags(mut self) -> Self {
        let columns =
            self.residues.iter().flat_map(|axis| (0..axis.taps.count).map(|t| (axis.count, axis.taps.d(t))));
        let (columns, width): (Vec<(usize, isize)>, _) = (columns.collect(), self.geometry.output()[1]);
        self.flags = Flags::new(self.kernel.lanes(), self.pitch, columns.len(), &|column, j| {
            let (count, d) = columns[column];
            j < width && (0..count as isize).contains(&(j as isize - d))
        });
        self
    }

    /// The phases of one row.
    fn class(&mut self, phases: &[Phase]) {
        let (height, pitch) = (self.geometry.output()[0], self.pitch);
        let axis = phases[0].axes[0];
        let rows = (0..axis.taps.count).map(|t| {
            // Rows i of the class for which row i + d of `diff_dst` exists.
            let d = axis.taps.d(t);
            let row = |end: usize| (end as isize - d).clamp(0, axis.count as isize) as usize * pitch;
            let offset = d.wrapping_mul(pitch as isize) as usize;
            Row { offset, positions: row(0)..row(height), index: axis.taps.k(t) }
        });
        let places = phases.iter().enumerate().flat_map(|(residue, phase)| {
            let taps = phase.axes[1].taps;
            (0..taps.count).map(move |t| (residue, taps.d(t), taps.k(t)))
        });
        let columns = places.map(|(residue, d, index)| Column {
            offset: (residue * self.src.len).wrapping_add_signed(d.wrapping_neg()),
            index,
        });
        let columns = columns.collect();
        let rows: Vec<Row> = rows.filter(|row| !row.positions.is_empty()).collect();
        self.classes.push(Class { first: axis.start, count: axis.count, rows, columns });
    }

    /// Whether planes of `src` lie in memory as planes, and those of `diff_dst`.
    fn planes(&self) -> [bool; 2] {
        [self.geometry.src(), self.geometry.dst()].map(|strides| strides.column == 1)
    }

    /// Whether they are read where they lie, if they are not at an end of the tensor.
    fn in_place(&self) -> [bool; 2] {
        let (conv, [src, dst]) = (self.geometry.conv(), self.planes());
        let same =
            [conv.stride == [1, 1] && conv.input[1] == self.pitch, self.geometry.output()[1] == self.pitch];
        [src && same[0], dst && same[1]]
    }

    /// Floats of the sums of a block, of the copied input planes of a class and of the copied planes of `diff_dst`.
    fn lens(&self) -> [usize; 3] {
        let (panel, depth) = (self.places.len() * self.kernel.lanes(), self.geometry.group_in());
        let copies = [depth * self.residues.len(), self.together];
        [panel * self.together, self.src.len * copies[0], self.diff_dst.len * copies[1]].map(lines)
    }

    fn lane_len(&self) -> usize {
        self.lens().iter().fold(0, |all, len| all.saturating_add(*len))
    }

    /// The sums of some output channels of a group: `[channel][input channel][tap]`, after those of their lanes were added up.
    fn sums<'a>(
        &self,
        src: &[f32],
        diff_dst: &[f32],
        channels: &Range<usize>,
        lane: &'a mut [f32],
    ) -> &'a [f32] {
        let [sums_len, src_len, _] = self.lens();
        let (sums, lane) = lane.split_at_mut(sums_len);
        let (planes, diffs) = lane.split_at_mut(src_len);
        let (depth, conv, taps) = (self.geometry.group_in(), self.geometry.conv(), self.geometry.taps());
        let sums = &mut sums[..channels.len() * depth * taps * self.kernel.lanes()];
        sums.fill(0.0);
        let group = channels.start / self.geometry.group_out();
        for image in 0..conv.batch {
            self.copy_diffs(diff_dst, image, channels, diffs);
            for class in &self.classes {
                self.copy_src(class, src, image, group * depth, planes);
                for ((i, c), sums) in (0..channels.len())
                    .flat_map(|i| (0..depth).map(move |c| (i, c)))
                    .zip(sums.chunks_exact_mut(taps * self.kernel.lanes()))
                {
                    let at = self.plane(0, src, image, group * depth + c);
                    let src = at.unwrap_or_else(|| &planes[c * self.residues.len() * self.src.len..]);
                    let at = self.plane(1, diff_dst, image, channels.start + i);
                    let diffs = at.unwrap_or_else(|| &diffs[i * self.diff_dst.len..]);
                    self.calls(class, [src, diffs], sums);
                }
            }
        }
        fold(self.isa, sums);
        &sums[..channels.len() * depth * taps]
    }

    /// A plane of `src` (0) or of `diff_dst` (1), from its padding on, if it is read where it lies.
    fn plane<'a>(&self, side: usize, data: &'a [f32], image: usize, channel: usize) -> Option<&'a [f32]> {
        let strides = [self.geometry.src(), self.geometry.dst()][side];
        let Padded { before, len } = [self.src, self.diff_dst][side];
        let start = (image * strides.image + channel * strides.channel).checked_sub(before)?;
        if self.in_place()[side] { data.get(start..start + len) } else { None }
    }

    /// Copies what is not read where it lies of the input planes from channel `first` on: the rows of `class`, by residues of their columns.
    fn copy_src(&self, class: &Class, src: &[f32], image: usize, first: usize, planes: &mut [f32]) {
        let (conv, strides, depth) = (self.geometry.conv(), self.geometry.src(), self.geometry.group_in());
        let Padded { before, len } = self.src;
        for (i, residue) in self.residues.iter().enumerate() {
            let start = image * strides.image + class.first * strides.row + residue.start * strides.column;
            if !self.planes()[0] {
                let (from, step) =
                    (&src[start + first * strides.channel..], conv.stride[0].saturating_mul(strides.row));
                for row in 0..class.count {
                    let to = &mut planes[i * len + before + row * self.pitch..];
                    let (size, pitch) = ([residue.count, depth], conv.stride[1] * strides.column);
                    self.transpose.transpose(size, &from[row * step..], pitch, to, self.residues.len() * len);
                }
                continue;
            }
            let copy = RowCopy {
                rows: class.count,
                by: conv.stride[1],
                len: residue.count,
                from_len: (residue.count - 1) * conv.stride[1] + 1,
                // Of a single row it may be any number.
                from_pitch: conv.stride[0].saturating_mul(strides.row),
                to_pitch: self.pitch,
            };
            for c in (0..depth).filter(|c| self.plane(0, src, image, first + c).is_none()) {
                let to = &mut planes[(c * self.residues.len() + i) * len + before..];
                self.sweeper.copy_rows(&copy, &src[start + (first + c) * strides.channel..], to);
            }
        }
    }

    /// Copies what is not read where it lies of the planes `channels` of `diff_dst`.
    fn copy_diffs(&self, diff_dst: &[f32], image: usize, channels: &Range<usize>, planes: &mut [f32]) {
        let ([height, width], strides) = (self.geometry.output(), self.geometry.dst());
        let Padded { before, len } = self.diff_dst;
        let start = image * strides.image + channels.start * strides.channel;
        if !self.planes()[1] {
            // Rows without a gap are one.
            let [rows, len_of_row] = if self.pitch == width { [1, height * width] } else { [height, width] };
            for row in 0..rows {
                let (from, to) =
                    (&diff_dst[start + row * strides.row..], &mut planes[before + row * self.pitch..]);
                self.transpose.transpose([len_of_row, channels.len()], from, strides.column, to, len);
            }
            return;
        }
        let copy = RowCopy {
            rows: height,
            by: 1,
            len: width,
            from_len: width,
            from_pitch: strides.row,
            to_pitch: self.pitch,
        };
        for i in (0..channels.len()).filter(|i| self.plane(1, diff_dst, image, channels.start + i).is_none())
        {
            let from = &diff_dst[start + i * strides.channel..];
            self.sweeper.copy_rows(&copy, from, &mut planes[i * len + before..]);
        }
    }

    /// All taps of a class, in blocks that fit the registers.
    fn calls(&self, class: &Class, planes: [&[f32]; 2], sums: &mut [f32]) {
        for rows in cut_rows(self.block[0], class.rows.len()) {
            for (block, columns) in class.columns.chunks(self.block[1]).enumerate() {
                let call = Flatten {
                    planes,
                    origins: [self.src.before, self.diff_dst.before],
                    rows: &class.rows[rows.clone()],
                    columns,
                    flags: &self.flags,
                    first_flag: block * self.block[1] * self.kernel.lanes(),
                    len: class.count * self.pitch,
                    width: self.geometry.conv().kernel[1],
                };
                self.kernel.add(&call, sums);
            }
        }
    }

    fn estimate(&self) -> Estimate {
        let (conv, lanes) = (self.geometry.conv(), self.kernel.lanes() as f64);
        let [mut compute, mut calls, mut far] = [0.0; 3];
        let in_place = self.in_place();
        for class in &self.classes {
            let vectors = (class.count * self.pitch) as f64 / lanes;
            for rows in cut_rows(self.block[0], class.rows.len()) {
                for columns in class.columns.chunks(self.block[1]) {
                    let [k, b] = [rows.len() as f64, columns.len() as f64];
                    // A sum waits four cycles for its last addition; vectors that begin anywhere cross two lines.
                    compute += vectors.ceil() * (0.5 * k * b).max(4.0).max(1.25 * (k + b));
                    // Planes that do not fit L1 come from L2 for every call: 10 cycles a vector of 3x3 become 14 (a Xeon).
                    far += if self.diff_dst.len > L1 { 4.0 * vectors.ceil() } else { 0.0 };
                    calls += 140.0 + 3.0 * k * b + 2.0 * vectors.ceil();
                }
            }
            // Rows that are copied, taken apart or transposed, for each pair of planes.
            let src = class.count as f64 * self.residues.len() as f64 / self.together as f64;
            let diffs =
                self.geometry.output()[0] as f64 / (self.classes.len() * self.geometry.group_in()) as f64;
            // Every second pixel takes longer than a copy. (Six of seven strided shapes still take 1.2 to 2.3 times as long as is said; Zen 4.)
            let copied = [if conv.stride[1] == 1 { 2.0 } else { 6.5 }, 2.0];
            for (side, rows) in [src, diffs].into_iter().enumerate().filter(|(side, _)| !in_place[*side]) {
                let vector = if self.planes()[side] { copied[side] } else { 10.0 };
                far += rows * (5.0 + vector * self.pitch as f64 / lanes);
            }
        }
        let pairs = (conv.batch * conv.out_channels * self.geometry.group_in()) as f64;
        let fold = 4.0 * pairs / conv.batch.max(1) as f64 * self.geometry.taps() as f64;
        // Planes beyond the last cache are waited for.
        let floats = self.geometry.src_len() + self.geometry.dst_len();
        let memory = if self.beyond { (floats * size_of::<f32>()) as f64 / 16.0 } else { 0.0 };
        let parts = [compute * pairs, far * pairs + memory, calls * pairs + fold];
        let tasks = Tasks::line(conv.out_channels, self.channels);
        Estimate { workspace: self.workspace_len(), ..Estimate::new(parts, &tasks, self.threads) }
    }
}

impl Execute<BackwardWeights> for Runner {
    fn workspace_len(&self) -> usize {
        self.lane_len().saturating_mul(self.threads)
    }

    fn run(&self, args: BackwardWeightsArgs<'_>, workspace: &mut [f32], par: Par<'_>) {
        let BackwardWeightsArgs { src, diff_dst, diff_weights, update } = args;
        let (geometry, lane_len) = (&self.geometry, self.lane_len());
        let panel = self.places.len();
        for_each_box(
            geometry,
            self.channels,
            diff_weights,
            workspace,
            lane_len,
            par,
            &|channels, piece, lane| {
                // Copies are made again, but what is beside them is never written.
                lane[self.lens()[0]..].fill(0.0);
                let (mut start, group) = (channels.start, geometry.group_out());
                while start < channels.end {
                    let end = channels.end.min(start + self.together).min((start / group + 1) * group);
                    let sums = self.sums(src, diff_dst, &(start..end), lane);
                    let sheet = Sums { geometry, width: 1, panel, places: &self.places };
                    sheet.deliver(start - channels.start..end - channels.start, sums, update, piece);
                    start = end;
                }
            },
        );
    }
}
