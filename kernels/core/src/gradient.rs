//! From sums in the order in which kernels make them to the gradient in the order of the weights.

use crate::{BlockMut, Caches, Cut, Geometry, Par, Update, WeightLayout};
use core::ops::Range;

/// Sums of one task of backward-weights: `[tap][panel of NR input channels][output channel][NR]`.
///
/// ```
/// // One tap, one panel of 4 columns of which 2 are input channels, 2 output channels.
/// let lane = [1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 0.0, 0.0];
/// let sums = convolve_core::WeightSums { sums: 0..lane.len(), nr: 4 };
/// assert_eq!(sums.nr * 2, lane.len());
/// ```
#[derive(Clone, Debug)]
pub struct WeightSums {
    /// Where they are in the lane.
    pub sums: Range<usize>,
    /// Input channels of a panel.
    pub nr: usize,
}

/// Output channels (of all groups) and input channels (of their group) of one task.
///
/// ```
/// let task = convolve_core::WeightTask { oc: 0..8, ic: 0..3 };
/// assert_eq!(task.oc.len(), 8);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightTask {
    /// Output channels; they belong to one group.
    pub oc: Range<usize>,
    /// Input channels of the group.
    pub ic: Range<usize>,
}

impl WeightSums {
    /// Output and input channels of a task for tiles of `mr` output channels and panels of `nr` input channels: the sums of all taps take
    /// at most half of L2; at least eight tasks where there is work for them, so that a few threads share it evenly.
    ///
    /// ```
    /// use convolve_core::{Caches, Conv2d, WeightSums};
    /// let geometry = Conv2d::new(64, 64, 3).input(56).padding(1).geometry()?;
    /// let [oc, ic] = WeightSums::block(&geometry, &Caches::default(), 6, 16);
    /// assert!(oc * ic * 9 * 4 <= Caches::default().l2 / 2);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn block(geometry: &Geometry, caches: &Caches, mr: usize, nr: usize) -> [usize; 2] {
        const TASKS: usize = 8;
        const MACS: u64 = 1 << 20;
        let (group_out, group_in) = (geometry.group_out(), geometry.group_in());
        let mut ic = group_in.min(4 * nr);
        let budget = caches.l2 / 2 / size_of::<f32>() / geometry.taps() / ic.next_multiple_of(nr);
        let mut oc = budget.clamp(mr, 128).min(group_out);
        let tasks =
            |oc: usize, ic: usize| geometry.conv().groups * group_out.div_ceil(oc) * group_in.div_ceil(ic);
        // Blocks of one operand are copied once for each block of the other; with many taps a copy serves longer.
        let least = if geometry.taps() == 1 { 2 * nr } else { nr };
        while geometry.macs() >= MACS && tasks(oc, ic) < TASKS && (oc > 2 * mr || ic > nr) {
            if ic > least || (ic > nr && oc <= 4 * mr) {
                ic = ic.div_ceil(2).next_multiple_of(nr);
            } else {
                oc = oc.div_ceil(2).next_multiple_of(mr);
            }
        }
        [oc, ic]
    }

    /// Cuts the gradient into boxes of `block = [output channels, input channels]` with all taps, lets `reduce` make the sums of each in
    /// its lane, and writes them (or adds them) in the order of the weights.
    #[expect(clippy::too_many_arguments, reason = "what, how, where")]
    pub fn for_each_task(
        geometry: &Geometry,
        block: [usize; 2],
        gradient: &mut [f32],
        update: Update,
        par: Par<'_>,
        workspace: &mut [f32],
        lane_len: usize,
        transpose: &(dyn Transpose + Sync),
        reduce: &(dyn Fn(&WeightTask, &mut [f32]) -> Self + Sync),
    ) {
        let conv = geometry.conv();
        let (ic, taps) = (geometry.group_in(), geometry.taps());
        let oc_cut = Cut { unit: geometry.group_out(), block: block[0] };
        let ic_cut = Cut { unit: ic, block: block[1] };
        // All taps of an input channel are neighbours in OIHW, so one row of the box is one output channel.
        let all_taps = Cut { unit: ic_cut.unit * taps, block: ic_cut.block * taps };
        let (extent, cuts) = match conv.weight_layout {
            WeightLayout::Oihw => ([conv.out_channels, 1, ic * taps], [oc_cut, Cut::whole(1), all_taps]),
            WeightLayout::Ohwi => ([conv.out_channels, taps, ic], [oc_cut, Cut::whole(taps), ic_cut]),
            WeightLayout::Hwio => ([taps, ic, conv.out_channels], [Cut::whole(taps), ic_cut, oc_cut]),
        };
        let gradient = BlockMut::new(gradient, extent);
        gradient.for_each_piece(cuts, par, workspace, lane_len, &|[a, b, c], mut piece, lane| {
            let (oc, ic) = match conv.weight_layout {
                WeightLayout::Oihw => (a, c.start / taps..c.end / taps),
                WeightLayout::Ohwi => (a, c),
                WeightLayout::Hwio => (c, b),
            };
            let task = WeightTask { oc, ic };
            let sums = reduce(&task, lane);
            deliver(&sums, lane, taps, &task, conv.weight_layout, update, transpose, &mut piece);
        });
    }
}

/// Writes the sums of a task in the order of the weights.
#[expect(clippy::too_many_arguments, reason = "what, from where, how, to where")]
fn deliver(
    sums: &WeightSums,
    lane: &[f32],
    taps: usize,
    task: &WeightTask,
    layout: WeightLayout,
    update: Update,
    transpose: &dyn Transpose,
    piece: &mut BlockMut<'_, f32>,
) {
    let nr = sums.nr;
    let (sums, oc, ic) = (&lane[sums.sums.clone()], task.oc.len(), task.ic.len());
    let panels = ic.div_ceil(nr);
    for (panel, first) in (0..ic).step_by(nr).enumerate() {
        let valid = nr.min(ic - first);
        let start = |tap: usize, o: usize| ((tap * panels + panel) * oc + o) * nr;
        match (layout, update) {
            (WeightLayout::Oihw, Update::Overwrite) if taps > 1 => {
                for o in 0..oc {
                    let to = &mut piece.row(o, 0)[first * taps..][..valid * taps];
                    transpose.transpose([taps, valid], &sums[start(0, o)..], panels * oc * nr, to, taps);
                }
            }
            (WeightLayout::Oihw, Update::Accumulate) if taps > 1 => {
                for (o, tap) in (0..oc).flat_map(|o| (0..taps).map(move |tap| (o, tap))) {
                    let to = piece.row(o, 0)[first * taps + tap..].iter_mut().step_by(taps);
                    to.zip(&sums[start(tap, o)..][..valid]).for_each(|(to, sum)| *to += sum);
                }
            }
            // With one tap OIHW is OHWI.
            (WeightLayout::Oihw | WeightLayout::Ohwi, _) => {
                for (o, tap) in (0..oc).flat_map(|o| (0..taps).map(move |tap| (o, tap))) {
                    let (to, from) =
                        (&mut piece.row(o, tap)[first..][..valid], &sums[start(tap, o)..][..valid]);
                    match update {
                        Update::Overwrite => to.copy_from_slice(from),
                        Update::Accumulate => to.iter_mut().zip(from).for_each(|(to, sum)| *to += sum),
                    }
                }
            }
            (WeightLayout::Hwio, _) => {
                for tap in 0..taps {
                    transpose.transpose_into(
                        [oc, valid],
                        &sums[start(tap, 0)..],
                        nr,
                        piece,
                        [tap, first],
                        update,
                    );
                }
            }
        }
    }
}

/// Transposition by vectors, which this crate has none of: the micro-kernels of a product have it.
pub trait Transpose {
    /// Transposes `rows` x `columns` floats: `to[j * to_pitch + i] = from[i * pitch + j]`.
    fn transpose(&self, size: [usize; 2], from: &[f32], pitch: usize, to: &mut [f32], to_pitch: usize);
    /// The same into consecutive rows `[at[0], at[1] + j]` of a box, which are replaced or added to.
    fn transpose_into(
        &self,
        size: [usize; 2],
        from: &[f32],
        pitch: usize,
        to: &mut BlockMut<'_, f32>,
        at: [usize; 2],
        update: Update,
    );
}
