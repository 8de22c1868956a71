//! The patch matrix of im2col, which never exists: row = output position of a phase, column = (tap, input channel); a tap in the padding
//! is zero. Blocks of it are copied in the order in which the micro-kernel reads them.

use convolve_core::Strides;
use convolve_core::phase::{AxisPhase, Phase};
use convolve_gemm::{Operand, Ukernel};
use core::ops::Range;

/// Patches of one image and group; `data` starts at the group's first channel of the image.
#[derive(Clone, Copy)]
pub(crate) struct Patches<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) strides: Strides,
    pub(crate) channels: usize,
    pub(crate) phase: &'a Phase,
    pub(crate) kernel: &'a dyn Ukernel,
}

/// Consecutive positions of one row whose tap is inside the image, or outside for all of them.
struct Piece {
    /// Positions, counted from the first of the block.
    at: Range<usize>,
    /// Offset of the first, if it is inside.
    from: Option<usize>,
}

impl Patches<'_> {
    /// Distance in memory from one position to the next.
    fn step(&self) -> usize {
        self.phase.axes[1].advance.wrapping_mul(self.strides.column)
    }

    /// The positions `outer` as seen through tap `[ty, tx]`: in order, without gaps.
    fn pieces(&self, outer: Range<usize>, [ty, tx]: [usize; 2]) -> impl Iterator<Item = Piece> {
        let [rows, columns] = self.phase.axes;
        let strides = self.strides;
        let (inside_y, inside_x) = (rows.positions_of(ty), columns.positions_of(tx));
        let offset = move |axis: &AxisPhase, i: usize, t: usize| {
            ((i * axis.advance) as isize + axis.taps.d(t)) as usize
        };
        let width = columns.count;
        let mut next = outer.start;
        core::iter::from_fn(move || {
            if next >= outer.end {
                return None;
            }
            let (y, x) = (next / width, next % width);
            let end = width.min(x + outer.end - next);
            let row_inside = inside_y.contains(&y);
            let (end, inside) = if !row_inside || x >= inside_x.end {
                (end, false)
            } else if x < inside_x.start {
                (end.min(inside_x.start), false)
            } else {
                (end.min(inside_x.end), true)
            };
            let from =
                inside.then(|| offset(&rows, y, ty) * strides.row + offset(&columns, x, tx) * strides.column);
            let at = next - outer.start..next - outer.start + end - x;
            next += end - x;
            Some(Piece { at, from })
        })
    }

    /// The part of `depth` in each tap: tap, channels, first column within the block.
    fn taps(&self, depth: Range<usize>) -> impl Iterator<Item = ([usize; 2], Range<usize>, usize)> {
        let (channels, width) = (self.channels, self.phase.axes[1].taps.count);
        let mut next = depth.start;
        core::iter::from_fn(move || {
            if next >= depth.end {
                return None;
            }
            let (tap, channel) = (next / channels, next % channels);
            let len = (channels - channel).min(depth.end - next);
            let column = next - depth.start;
            next += len;
            Some(([tap / width, tap % width], channel..channel + len, column))
        })
    }
}

impl Operand for Patches<'_> {
    fn pack_rows(&self, outer: Range<usize>, depth: Range<usize>, pitch: usize, to: &mut [f32]) {
        let step = self.step();
        for (tap, channels, column) in self.taps(depth) {
            for Piece { at, from } in self.pieces(outer.clone(), tap) {
                let Some(from) = from else {
                    for i in at {
                        to[i * pitch + column..][..channels.len()].fill(0.0);
                    }
                    continue;
                };
                let from = from + channels.start * self.strides.channel;
                if self.strides.channel == 1 {
                    for (n, i) in at.enumerate() {
                        to[i * pitch + column..][..channels.len()]
                            .copy_from_slice(&self.data[from + n * step..][..channels.len()]);
                    }
                } else if step == 1 {
                    let size = [channels.len(), at.len()];
                    let to = &mut to[at.start * pitch + column..];
                    self.kernel.transpose(size, &self.data[from..], self.strides.channel, to, pitch);
                } else {
                    for (n, i) in at.enumerate() {
                        for c in 0..channels.len() {
                            to[i * pitch + column + c] =
                                self.data[from + n * step + c * self.strides.channel];
                        }
                    }
                }
            }
        }
    }

    fn pack_panel(&self, outer: Range<usize>, depth: Range<usize>, width: usize, to: &mut [f32]) {
        match (width, self.step()) {
            (8, 1) => self.pack_wide::<8>(outer, depth, to),
            (16, 1) => self.pack_wide::<16>(outer, depth, to),
            (32, 1) => self.pack_wide::<32>(outer, depth, to),
            (_, step) => self.pack_each(outer, depth, width, step, to),
        }
    }
}

impl Patches<'_> {
    /// One by one, for any stride and width.
    fn pack_each(&self, outer: Range<usize>, depth: Range<usize>, width: usize, step: usize, to: &mut [f32]) {
        for (tap, channels, column) in self.taps(depth) {
            for Piece { at, from } in self.pieces(outer.clone(), tap) {
                for (c, channel) in channels.clone().enumerate() {
                    let to = &mut to[(column + c) * width..][at.clone()];
                    match from {
                        None => to.fill(0.0),
                        Some(from) => {
                            let from = &self.data[from + channel * self.strides.channel..];
                            to.iter_mut().enumerate().for_each(|(i, to)| *to = from[i * step]);
                        }
                    }
                }
            }
        }
    }

    /// Neighbouring pixels: every piece is one copy of W floats, whatever its length. What is too much is overwritten by the piece or the
    /// step behind it; `to` has W floats of room behind the last.
    fn pack_wide<const W: usize>(&self, outer: Range<usize>, depth: Range<usize>, to: &mut [f32]) {
        for (tap, channels, column) in self.taps(depth) {
            let mut pieces = [const { (0..0, None) }; W];
            let mut count = 0;
            for (piece, Piece { at, from }) in pieces.iter_mut().zip(self.pieces(outer.clone(), tap)) {
                *piece = (at, from);
                count += 1;
            }
            for (c, channel) in channels.enumerate() {
                let to = &mut to[(column + c) * W..];
                for (at, from) in &pieces[..count] {
                    let to = &mut to[at.start..];
                    let Some(from) = from else {
                        to[..at.len()].fill(0.0);
                        continue;
                    };
                    let from = &self.data[from + channel * self.strides.channel..];
                    match (to.first_chunk_mut::<W>(), from.first_chunk::<W>()) {
                        (Some(to), Some(from)) => *to = *from,
                        _ => to[..at.len()].copy_from_slice(&from[..at.len()]),
                    }
                }
            }
        }
    }
}
