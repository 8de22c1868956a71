//! Winners: the maximum of every window of a row, and which tap it is.
//!
//! ```text
//! from the last tap to the first:   (max, winner) = (value, tap)   where value >= max or value is NaN
//! ```
//!
//! So the first of equal ones wins, and the first NaN, which no number is at least. Windows at an edge, which have other taps than their
//! neighbours, are a *span* of their own: what is not in the image is never compared.

use crate::backward::window_rows;
use crate::gather::Runs;
use crate::line::Line;
use crate::vector::vectors;
use crate::{PoolGeometry, Pooling, columns};
use convolve_simd::{Rows, RowsAt, Simd};
use core::ops::Range;

/// Neighbouring windows of a row that have the same taps in the image.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) windows: Range<usize>,
    pub(crate) taps: Range<usize>,
}

/// All windows along an axis.
pub(crate) fn spans(geometry: &PoolGeometry, axis: usize) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for o in 0..geometry.output()[axis] {
        let taps = geometry.taps(axis, o);
        match spans.last_mut() {
            Some(span) if span.taps == taps => span.windows.end = o + 1,
            _ => spans.push(Span { windows: o..o + 1, taps }),
        }
    }
    spans
}

/// Numbers of rows of an image that are sorted by phases together: half of L1.
const BLOCK: usize = 6 << 10;

/// Rows of windows that are found together, and rows of the image that they read.
fn block(geometry: &PoolGeometry, line: &Line) -> [usize; 2] {
    let (pool, extent) = (geometry.pool(), window_rows(geometry));
    let windows =
        ((BLOCK / line.len).saturating_sub(extent) / pool.stride[0]).max(4).min(geometry.output()[0]);
    [windows, ((windows - 1).saturating_mul(pool.stride[0]).saturating_add(extent)).min(pool.input[0])]
}

/// Numbers of workspace: none if rows are read where they lie.
pub(crate) fn workspace_len(plan: &Pooling) -> usize {
    let line = &plan.line;
    if line.in_order() || plan.columns.is_some() {
        return 0;
    }
    block(&plan.geometry, line)[1].saturating_mul(line.len)
}

/// Where rows of windows go; what is not asked for is empty.
pub(crate) struct Winners<'a> {
    pub(crate) max: &'a mut [f32],
    pub(crate) bytes: &'a mut [u8],
    pub(crate) numbers: &'a mut [f32],
}

/// The most taps that are read side by side.
const MOST: usize = 9;

/// Some rows of windows of an image.
pub(crate) fn rows<S: Simd>(
    s: S,
    plan: &Pooling,
    image: &[f32],
    workspace: &mut [f32],
    rows: Range<usize>,
    mut to: Winners<'_>,
) {
    let (line, dilation) = (&plan.line, plan.geometry.pool().dilation[0]);
    if plan.columns.is_some() {
        for down in &plan.spans[0] {
            let windows = down.windows.start.max(rows.start)..down.windows.end.min(rows.end);
            if !windows.is_empty() {
                let place = (windows.start - rows.start) * line.outputs();
                columns::winners(s, plan, image, &Span { windows, taps: down.taps.clone() }, place, &mut to);
            }
        }
        return;
    }
    let [most, _] = block(&plan.geometry, line);
    for start in rows.clone().step_by(most) {
        let block = start..(start + most).min(rows.end);
        let read = plan.windows[block.clone()].iter().filter(|window| window.taps > 0);
        let (first, end) = read.fold((usize::MAX, 0), |(first, end), window| {
            (first.min(window.first), end.max(window.first + (window.taps - 1) * dilation + 1))
        });
        let from = if line.in_order() {
            From { data: image, first: 0, pitch: plan.row_len() }
        } else {
            if first < end {
                sort(s, plan, &image[first * plan.row_len()..end * plan.row_len()], workspace);
            }
            From { data: workspace, first: first.min(end), pitch: line.len }
        };
        for down in &plan.spans[0] {
            let windows = down.windows.start.max(block.start)..down.windows.end.min(block.end);
            if !windows.is_empty() {
                let place = (windows.start - rows.start) * line.outputs();
                some_rows(s, plan, from, &Span { windows, taps: down.taps.clone() }, place, &mut to);
            }
        }
    }
}

/// Sorts rows by phases.
fn sort<S: Simd>(s: S, plan: &Pooling, rows: &[f32], to: &mut [f32]) {
    s.vectorize(
        #[inline(always)]
        |s| {
            for (row, to) in rows.chunks_exact(plan.row_len()).zip(to.chunks_exact_mut(plan.line.len)) {
                plan.line.fill(
                    s,
                    to,
                    #[inline(always)]
                    |x, n| s.load_first(&row[x..x + n]),
                );
            }
        },
    );
}

/// What windows read: the numbers, the row of the image that is first in them, and from one row to the next.
#[derive(Clone, Copy)]
struct From<'a> {
    data: &'a [f32],
    first: usize,
    pitch: usize,
}

/// Rows of windows that have the same taps.
fn some_rows<S: Simd>(s: S, plan: &Pooling, from: From<'_>, down: &Span, place: usize, to: &mut Winners<'_>) {
    let (line, pool) = (&plan.line, plan.geometry.pool());
    let (row_step, first) =
        (pool.stride[0].saturating_mul(from.pitch), plan.windows[down.windows.start].first);
    for across in &plan.spans[1] {
        let column = |kw: usize| match line.in_order() {
            true => line.start(across.windows.start) + line.tap(kw) - line.left * line.channels,
            false => line.tap(kw) + across.windows.start,
        };
        let (count, columns) = (down.taps.len() * across.taps.len(), across.taps.len());
        let read = |n: usize| {
            let (y, kw) = (n / columns, across.taps.start + n % columns);
            let row = (first + y * pool.dilation[0] - from.first) * from.pitch;
            (row + column(kw), (down.taps.start + y) * pool.kernel[1] + kw)
        };
        let mut reads = [(0, 0); MOST];
        reads.iter_mut().zip((0..count).map(read)).for_each(|(to, read)| *to = read);
        let place = place + across.windows.start * line.channels;
        let mut found = |i: usize, runs: Runs| {
            let (data, place) = (from.data.get(i * row_step..).unwrap_or(&[]), place + i * line.outputs());
            match count {
                1 => some::<S, 1>(s, data, &reads, runs, place, to),
                2 => some::<S, 2>(s, data, &reads, runs, place, to),
                3 => some::<S, 3>(s, data, &reads, runs, place, to),
                4 => some::<S, 4>(s, data, &reads, runs, place, to),
                6 => some::<S, 6>(s, data, &reads, runs, place, to),
                9 => some::<S, 9>(s, data, &reads, runs, place, to),
                _ => s.vectorize(
                    #[inline(always)]
                    |s| {
                        for i in 0..runs.count {
                            let mut to = to.run(place + i * runs.to_step, runs.len);
                            for x in (0..runs.len).step_by(S::LANES) {
                                let n = S::LANES.min(runs.len - x);
                                to.put(s, x..x + n, any(s, data, count, read, i * runs.from_step + x, n));
                            }
                        }
                    },
                ),
            }
        };
        let (rows, windows) = (down.windows.len(), across.windows.len());
        if line.runs == 1 {
            let (len, to_step) = (windows * line.channels, line.outputs());
            found(0, Runs { count: rows, len, from_step: row_step, to_step });
        } else {
            let (len, from_step) = (line.channels, line.start(1));
            (0..rows).for_each(|i| found(i, Runs { count: windows, len, from_step, to_step: len }));
        }
    }
}

/// The best of any number of taps.
#[inline(always)]
fn any<S: Simd>(
    s: S,
    data: &[f32],
    count: usize,
    read: impl Fn(usize) -> (usize, usize),
    x: usize,
    len: usize,
) -> (S::F32, S::F32) {
    let mut best = (s.splat(f32::NEG_INFINITY), s.splat(0.0));
    for n in (0..count).rev() {
        let (at, tap) = read(n);
        best = better(s, best, (s.load_first(&data[at + x..at + x + len]), s.splat(tap as f32)));
    }
    best
}

/// As many taps as that.
fn some<S: Simd, const N: usize>(
    s: S,
    data: &[f32],
    reads: &[(usize, usize); MOST],
    runs: Runs,
    start: usize,
    to: &mut Winners<'_>,
) {
    s.vectorize(
        #[inline(always)]
        |s| {
            let offsets: [usize; N] = core::array::from_fn(|n| reads[n].0);
            let rows = Rows::<N>::starting_at(data, &offsets);
            let mut taps = [0.0; N];
            taps.iter_mut().zip(reads).for_each(|(to, read)| *to = read.1 as f32);
            for i in 0..runs.count {
                let rows = rows.part(i * runs.from_step, runs.len);
                let mut to = to.run(start + i * runs.to_step, runs.len);
                vectors::<S>(
                    runs.len,
                    #[inline(always)]
                    |at| to.put(s, at.range::<S>(), best(s, at.of::<S, N, _>(&rows), &taps)),
                );
            }
        },
    );
}

/// The best of `N` taps, by threes: those of one do not wait for those of another.
#[inline(always)]
fn best<S: Simd, const N: usize>(s: S, at: RowsAt<'_, '_, N>, taps: &[f32; N]) -> (S::F32, S::F32) {
    let mut best = None;
    for three in (0..N.div_ceil(3)).rev() {
        let last = (3 * three + 2).min(N - 1);
        let mut found = (s.load_first(at.row(last)), s.splat(taps[last]));
        for n in (3 * three..last).rev() {
            found = better(s, found, (s.load_first(at.row(n)), s.splat(taps[n])));
        }
        best = Some(match best {
            Some(best) => better(s, best, found),
            None => found,
        });
    }
    match best {
        Some(best) => best,
        None => (s.splat(f32::NEG_INFINITY), s.splat(0.0)),
    }
}

/// The better of the best so far and an earlier one.
#[inline(always)]
pub(crate) fn better<S: Simd>(
    s: S,
    (max, winner): (S::F32, S::F32),
    (value, tap): (S::F32, S::F32),
) -> (S::F32, S::F32) {
    let hit = s.or(s.at_least(value, max), s.not_equal(value, value));
    (s.select(hit, value, max), s.select(hit, tap, winner))
}

impl Winners<'_> {
    /// Those of some windows.
    #[inline(always)]
    pub(crate) fn run(&mut self, start: usize, len: usize) -> Winners<'_> {
        fn some<T>(of: &mut [T], start: usize, len: usize) -> &mut [T] {
            if of.is_empty() { of } else { &mut of[start..start + len] }
        }
        Winners {
            max: some(self.max, start, len),
            bytes: some(self.bytes, start, len),
            numbers: some(self.numbers, start, len),
        }
    }

    /// Writes the maxima and the winners of neighbouring windows.
    #[inline(always)]
    pub(crate) fn put<S: Simd>(&mut self, s: S, at: Range<usize>, (max, winner): (S::F32, S::F32)) {
        if !self.max.is_empty() {
            s.store_first(max, &mut self.max[at.clone()]);
        }
        if !self.bytes.is_empty() {
            s.store_bytes(winner, &mut self.bytes[at.clone()]);
        }
        if !self.numbers.is_empty() {
            s.store_first(winner, &mut self.numbers[at]);
        }
    }
}
