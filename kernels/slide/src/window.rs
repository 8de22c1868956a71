//! A phase as sweeps see it: which output rows share input rows, and the list of columns of the window.

use crate::sweep::{KERNELS, Shape, Span};
use convolve_core::phase::{AxisPhase, Phase, gcd};
use core::ops::Range;

/// Output rows that one sweep can take together.
///
/// Position `i` of an axis reads `i*advance + d(0) + t*step_d`. Two positions share input rows when they are a multiple of
/// `leap = step_d / gcd(advance, step_d)` apart; counted in units of `step_d`, neighbours of such a chain are then
/// `advance / gcd` rows apart, if that is at most 2. So a dilated window is an ordinary window on every `leap`-th row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Positions from one row of a tile to the next.
    pub(crate) leap: usize,
    /// Input rows from one row of a sweep to the next.
    pub(crate) unit: usize,
    /// Rows of a sweep from one output row to the next: 1 or 2.
    pub(crate) stride: usize,
    /// The kernel rows, cut into pieces of equal height.
    pub(crate) pieces: usize,
    /// Height of a piece, one of [`KERNELS`].
    pub(crate) k: usize,
}

impl Chain {
    pub(crate) fn new(axis: &AxisPhase) -> Self {
        let count = axis.taps.count;
        let k = *KERNELS.iter().rev().find(|k| count.is_multiple_of(**k)).unwrap_or(&1);
        let pieces = count / k;
        let (advance, unit) = (axis.advance, axis.taps.step_d);
        let divisor = gcd(advance, unit);
        match advance / divisor {
            stride @ 1..=2 if k > 1 => Self { leap: unit / divisor, unit, stride, pieces, k },
            // Windows that hardly overlap: row by row of the window.
            _ => Self { leap: 1, unit: advance, stride: 1, pieces: count, k: 1 },
        }
    }

    /// Where a sweep over `rows` output rows from position `first` on reads: its first input row, and which of its rows exist.
    pub(crate) fn present(&self, axis: &AxisPhase, first: usize, rows: usize) -> (isize, Range<usize>) {
        let start = (first * axis.advance) as isize + axis.taps.d(0);
        let before =
            |end: isize| (end - start).max(0).unsigned_abs().div_ceil(self.unit).min(self.rows(rows));
        (start, before(0)..before(axis.size as isize))
    }

    /// Input rows of a sweep over `rows` output rows.
    pub(crate) fn rows(&self, rows: usize) -> usize {
        (rows - 1) * self.stride + self.k
    }
}

/// Whether all that a window reads, and the next position, lie so near that no place in memory overflows: `pitch` floats from one row to the
/// next, and from one pixel to the next.
pub(crate) fn is_near(phase: &Phase, pitch: [usize; 2]) -> bool {
    phase.axes.iter().zip(pitch).all(|(axis, pitch)| {
        let ends = [axis.taps.d(0), axis.taps.d(axis.taps.count.max(1) - 1)].map(isize::unsigned_abs);
        ends.into_iter().chain([axis.advance]).all(|distance| distance.saturating_mul(pitch) < 1 << 48)
    })
}

/// One phase, ready to be swept.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) phase: Phase,
    pub(crate) chain: Chain,
    pub(crate) shape: Shape,
    /// Where each column reads, relative to the position: in its row, and in which plane.
    pub(crate) columns: Vec<[usize; 2]>,
    pub(crate) spans: Vec<Span>,
    /// Floats from one position to the next in an input row.
    pub(crate) advance: usize,
    /// Where the packed weights of this phase start, and how many floats a vector (or an output channel) has.
    pub(crate) weights: usize,
    pub(crate) panel: usize,
}

impl Window {
    /// Lanes are channels, pixels lie `pitch` floats apart; at each pixel there are `fan` vectors to read, next to each other.
    pub(crate) fn channels(phase: &Phase, pitch: usize, lanes: usize, fan: usize) -> Self {
        let (chain, axis) = (Chain::new(&phase.axes[0]), &phase.axes[1]);
        let pixels = (0..axis.taps.count).map(|t| (axis.taps.d(t) as usize).wrapping_mul(pitch));
        let columns: Vec<[usize; 2]> =
            pixels.flat_map(|at| (0..fan).map(move |j| [at.wrapping_add(j * lanes), 0])).collect();
        let spans = axis.segments(0..axis.count).map(|s| Span {
            positions: s.positions,
            columns: s.taps.start * fan..s.taps.end * fan,
            across: false,
        });
        Self {
            phase: *phase,
            chain,
            shape: Shape { splat: false, k: chain.k, stride: chain.stride, planes: 1 },
            spans: spans.collect(),
            advance: axis.advance * pitch,
            weights: 0,
            panel: columns.len() * chain.k * lanes,
            columns,
        }
    }

    /// Lanes are pixels of planes that were prepared as `rows` says; `depth` planes are summed.
    pub(crate) fn planes(phase: &Phase, depth: usize, rows: &PaddedRow, plane: usize, lanes: usize) -> Self {
        let (chain, axis) = (Chain::new(&phase.axes[0]), &phase.axes[1]);
        let list = (0..depth).flat_map(|c| (0..chain.pieces).map(move |piece| (c, piece)));
        let places = list.flat_map(|(c, piece)| (0..axis.taps.count).map(move |t| (c, piece, t)));
        let columns = places.map(|(c, piece, t)| {
            let row = piece * chain.k * phase.axes[0].taps.step_d * rows.pitch;
            [row + rows.tap(axis, t), c * plane]
        });
        Self::of_pixels(phase, columns.collect(), lanes, 0..axis.count.div_ceil(lanes))
    }

    /// Lanes are neighbouring pixels of planes as they lie; `depth` planes are summed.
    pub(crate) fn in_place(phase: &Phase, depth: usize, plane: usize, lanes: usize) -> Self {
        let axis = &phase.axes[1];
        let taps = || (0..axis.taps.count).map(|t| axis.taps.d(t) as usize);
        let columns = (0..depth).flat_map(|c| taps().map(move |column| [column, c * plane])).collect();
        let [first, last] = [axis.taps.d(0), axis.taps.d(axis.taps.count - 1)];
        let inside = (axis.size as isize - last).max(0) as usize / lanes;
        Self::of_pixels(phase, columns, lanes, first.min(0).unsigned_abs().div_ceil(lanes)..inside)
    }

    /// Lanes are pixels; at the positions `inside` all of them find all columns inside their row.
    fn of_pixels(phase: &Phase, columns: Vec<[usize; 2]>, lanes: usize, inside: Range<usize>) -> Self {
        let (chain, positions) = (Chain::new(&phase.axes[0]), phase.axes[1].count.div_ceil(lanes));
        let [start, end] = [inside.start, inside.end].map(|position| position.min(positions));
        // Without a position inside, all are one span.
        let (start, end) = if start < end { (start, end) } else { (positions, positions) };
        let spans = [(0..start, true), (start..end, false), (end..positions, true)];
        let spans = spans.map(|(positions, across)| Span { positions, columns: 0..columns.len(), across });
        Self {
            phase: *phase,
            chain,
            shape: Shape { splat: true, k: chain.k, stride: chain.stride, planes: 1 },
            spans: spans.into_iter().filter(|span| !span.positions.is_empty()).collect(),
            advance: lanes,
            weights: 0,
            panel: columns.len() * chain.k,
            columns,
        }
    }
}

/// A row of a plane, padded with zeros and taken apart by its stride, so that the taps of neighbouring output pixels are neighbours:
/// class `r` holds the pixels `first + r + i*advance`. Phases whose pixels are neighbours already (backward-data) share one such row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PaddedRow {
    /// Displacement of the first pixel.
    pub(crate) first: isize,
    pub(crate) classes: usize,
    /// Floats of a class.
    pub(crate) len: usize,
    /// Floats of a row.
    pub(crate) pitch: usize,
}

impl PaddedRow {
    /// For all of `axes`, which have the same advance.
    pub(crate) fn new<'a>(axes: impl Iterator<Item = &'a AxisPhase> + Clone, lanes: usize) -> Self {
        let first = axes.clone().map(|axis| axis.taps.d(0)).min().unwrap_or(0);
        let last = axes.clone().map(|axis| axis.taps.d(axis.taps.count - 1)).max().unwrap_or(0);
        let advance = axes.clone().map(|axis| axis.advance).max().unwrap_or(1);
        let span = (last - first) as usize;
        let classes = advance.min(span + 1);
        let count = axes.map(|axis| axis.count).max().unwrap_or(0);
        let len = count.next_multiple_of(lanes) + span / advance;
        Self { first, classes, len, pitch: (classes * len).next_multiple_of(lanes) }
    }

    /// Where output pixel 0 finds tap `t`.
    pub(crate) fn tap(&self, axis: &AxisPhase, t: usize) -> usize {
        let distance = (axis.taps.d(t) - self.first) as usize;
        distance % axis.advance * self.len + distance / axis.advance
    }

    /// Where class `class` lies in the input row: its first pixel there, and the part of the class that is not padding.
    pub(crate) fn inside(&self, axis: &AxisPhase, class: usize) -> (usize, Range<usize>) {
        let first = self.first + class as isize;
        let at_or_after = |pixel: isize| {
            if pixel <= first { 0 } else { ((pixel - first) as usize).div_ceil(axis.advance).min(self.len) }
        };
        let end = at_or_after(axis.size as isize);
        let start = at_or_after(0).min(end);
        ((first + (start * axis.advance) as isize).max(0) as usize, start..end)
    }
}

/// Calls `f(rows, first position)` for tiles that cover `positions`, chain by chain, since only every `leap`-th shares input rows. Tiles have
/// one of `sizes` rows.
pub(crate) fn for_each_tile(
    chain: &Chain,
    sizes: &[usize],
    positions: Range<usize>,
    f: &mut dyn FnMut(usize, usize),
) {
    for start in positions.start..positions.end.min(positions.start + chain.leap) {
        let rows = (positions.end - start).div_ceil(chain.leap);
        // A tile costs about as much as three rows more than it has, and not less than one of four.
        let cost = |sizes: &&[usize]| tiles(sizes, rows).map(|tile| tile.max(4) + 3).sum::<usize>();
        // This is asked again for every plane; tiles of a few rows are worth a look for a few rows only.
        let few = sizes.iter().take_while(|size| **size < rows.min(4)).count().min(sizes.len() - 1);
        let sizes = (few + 1..=sizes.len()).rev().map(|count| &sizes[..count]).min_by_key(cost);
        let mut done = 0;
        for tile in tiles(sizes.expect("there are tiles"), rows) {
            f(tile, start + done * chain.leap);
            done += tile;
        }
    }
}

/// Cuts rows into tiles: as few as possible of the two largest sizes if these are neighbours, else the largest first.
fn tiles(sizes: &[usize], rows: usize) -> impl Iterator<Item = usize> {
    let [.., most] = *sizes else { unreachable!("there are tiles") };
    let count = rows.div_ceil(most);
    let even = rows > most && count * most - rows <= count && sizes.contains(&(most - 1));
    let mut left = rows;
    core::iter::from_fn(move || {
        let fits = sizes.iter().rev().find(|size| **size <= left)?;
        let tile = match even {
            true if left.is_multiple_of(most - 1) && left / (most - 1) <= left.div_ceil(most) => most - 1,
            true => most,
            false => *fits,
        };
        left -= tile;
        Some(tile)
    })
}
