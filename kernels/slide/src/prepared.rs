//! Input rows of planes as sweeps and gathers read them: padded with zeros, their columns taken apart by the stride.
//!
//! `prepared[c][row][class][i] = input[c][first row + row][first pixel + class + i*advance]`, zeros beyond the image
//!
//! Planes that need none of that are [read as they are](reads_as_is).

use crate::sweep::{RowCopy, Sweeper};
use crate::window::{Chain, PaddedRow, Window, is_near};
use convolve_core::phase::Phase;
use convolve_core::{Layout, Sides, Unsupported};
use convolve_gemm::Ukernel;
use core::ops::Range;

/// Floats that the prepared rows of a block should take: half of a first-level cache.
const BLOCK: usize = 1 << 12;
/// Most columns of a window that is read in place.
const COLUMNS: usize = 1 << 14;
/// Floats that they may take when there are many input channels.
const MOST: usize = 1 << 18;

/// Prepared input rows: `[input channel][row][pitch]`.
pub(crate) struct Prepared {
    pub(crate) padded: PaddedRow,
    /// Positions (rows of a phase) that are prepared together, and the most input rows that they read.
    pub(crate) block: usize,
    pub(crate) reach: usize,
    /// Groups that are prepared together: several when a group has one output channel.
    pub(crate) groups: usize,
    /// Floats of one channel.
    pub(crate) plane: usize,
    /// Whether sweeps write the output itself.
    pub(crate) in_place: bool,
}

/// Whether rows need no preparation: the pixels that neighbouring outputs read are neighbours, and no other phase of the row reads them. (5x5 6 -> 1 channels
/// at 28x28: 29 % of the peak with copies, 45 in place; 3x3 64 -> 3 at 56x56 28 and 44; but 11x11 with stride 4 33 and 31; a Xeon, AVX-512.)
pub(crate) fn reads_as_is(sides: &Sides) -> bool {
    let phases = &sides.phases;
    let depth = sides.input.channels;
    let straight = |phase: &Phase| {
        let [vertical, horizontal] = &phase.axes;
        is_near(phase, [sides.input.strides.row, 1])
            // They are a list.
            && depth.saturating_mul(horizontal.taps.count) <= COLUMNS
            && horizontal.advance == 1
            && horizontal.step == 1
            && Chain::new(vertical).pieces == 1
    };
    sides.layout == Layout::Nchw && phases.iter().all(straight)
}

impl Prepared {
    /// Rows are read where they lie: as many planes in turn as fit the first-level cache.
    pub(crate) fn nothing(sides: &Sides, lanes: usize) -> Self {
        let rows = sides.phases.iter().map(|phase| phase.axes[0].count).max().unwrap_or(1).max(1);
        let plane = sides.input.strides.channel;
        let group = plane.saturating_mul(sides.input.channels).max(1);
        let groups = if sides.output.channels == 1 { (BLOCK / group).clamp(1, sides.groups) } else { 1 };
        Self { reach: 0, groups, plane, ..Self::of_rows(sides, lanes, rows) }
    }

    /// `least` rows of a block are prepared together, if they fit at all.
    pub(crate) fn new(sides: &Sides, lanes: usize, least: usize) -> Result<Self, Unsupported> {
        let len = |planes: &Self| planes.plane.saturating_mul(sides.input.channels);
        let mut block = sides.phases.iter().map(|phase| phase.axes[0].count).max().unwrap_or(1).max(1);
        let mut planes = Self::of_rows(sides, lanes, block);
        while block > 1 && len(&planes) > if block > least { BLOCK } else { MOST } {
            block = if block > least {
                block.div_ceil(2).next_multiple_of(least).min(block - 1)
            } else {
                block / 2
            };
            planes = Self::of_rows(sides, lanes, block);
        }
        if len(&planes) > MOST || !planes.is_near(sides) {
            return Err(Unsupported("the prepared rows of one output row do not fit a second-level cache"));
        }
        if sides.output.channels == 1 {
            planes.groups = (BLOCK / len(&planes).max(1)).clamp(1, sides.groups);
        }
        Ok(planes)
    }

    /// Whether no place in these rows overflows.
    pub(crate) fn is_near(&self, sides: &Sides) -> bool {
        let [row, pixel] = [self.padded.pitch, sides.input.strides.column];
        sides.phases.iter().all(|phase| is_near(phase, [row, pixel]))
    }

    /// `block` rows are prepared together.
    pub(crate) fn of_rows(sides: &Sides, lanes: usize, block: usize) -> Self {
        let padded = PaddedRow::new(sides.phases.iter().map(|phase| &phase.axes[1]), lanes);
        let axes = sides.phases.iter().map(|phase| phase.axes[0]);
        let reach =
            axes.map(|axis| (block - 1) * axis.advance + (axis.taps.count - 1) * axis.taps.step_d + 1);
        let reach = reach.max().unwrap_or(0);
        let in_place =
            sides.layout == Layout::Nchw && sides.phases.iter().all(|phase| phase.axes[1].step == 1);
        Self { padded, block, reach, groups: 1, plane: reach.saturating_mul(padded.pitch), in_place }
    }
}

/// Fills `[group][input channel][row][pitch]` with the rows that the positions `block` of a window read. Rows that do not exist are cleared; what is
/// beside a row is never written, and zero already. (To clear everything for each block took 13 % of a gradient with respect to an image.)
#[expect(clippy::too_many_arguments, reason = "what, from where, to where")]
pub(crate) fn prepare(
    sides: &Sides,
    window: &Window,
    planes: &Prepared,
    sweeper: &dyn Sweeper,
    transpose: &dyn Ukernel,
    input: &[f32],
    image: usize,
    groups: &Range<usize>,
    block: &Range<usize>,
    prepared: &mut [f32],
) {
    let (strides, padded) = (sides.input.strides, &planes.padded);
    let [vertical, horizontal] = &window.phase.axes;
    let depth = sides.input.channels;
    let first = (block.start * vertical.advance) as isize + vertical.taps.d(0);
    let last = ((block.end - 1) * vertical.advance) as isize + vertical.taps.d(vertical.taps.count - 1);
    let from = first.clamp(0, vertical.size as isize);
    let rows = from as usize..(last + 1).clamp(from, vertical.size as isize) as usize;
    let (skipped, count) = ((rows.start as isize - first) as usize, (last + 1 - first) as usize);
    for c in 0..groups.len() * depth {
        for absent in [0..skipped.min(count), (skipped + rows.len()).min(count)..count] {
            prepared[c * planes.plane..][absent.start * padded.pitch..absent.end * padded.pitch].fill(0.0);
        }
    }
    if rows.is_empty() {
        return;
    }
    let input = &input[image * strides.image + groups.start * depth * strides.channel..];
    for class in 0..padded.classes {
        let (pixel, valid) = padded.inside(horizontal, class);
        if valid.is_empty() {
            continue;
        }
        let from = &input[rows.start * strides.row + pixel * strides.column..];
        let to = &mut prepared[skipped * padded.pitch + class * padded.len + valid.start..];
        match sides.layout {
            Layout::Nchw => {
                let copy = RowCopy {
                    rows: rows.len(),
                    by: horizontal.advance,
                    len: valid.len(),
                    from_len: (valid.len() - 1) * horizontal.advance + 1,
                    from_pitch: strides.row,
                    to_pitch: padded.pitch,
                };
                for c in 0..groups.len() * depth {
                    sweeper.copy_rows(&copy, &from[c * strides.channel..], &mut to[c * planes.plane..]);
                }
            }
            Layout::Nhwc => {
                let size = [valid.len(), groups.len() * depth];
                let pitch = horizontal.advance * strides.column;
                for row in 0..rows.len() {
                    let (from, to) = (&from[row * strides.row..], &mut to[row * padded.pitch..]);
                    transpose.transpose(size, from, pitch, to, planes.plane);
                }
            }
        }
    }
}
