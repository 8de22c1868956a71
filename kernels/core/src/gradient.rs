//! From sums in the order in which kernels make them to the gradient in the order of the weights.

use crate::{BlockMut, Caches, Cut, Geometry, Par, Update, WeightLayout};
use core::ops::Range;

/// Sums of one task of backward-weights: `[tap][panel of NR input channels][output channel][NR]`.
///
/// ```
/// use convolve_core::{Conv2d, Par, Update, WeightSums};
/// let geometry = Conv2d::new(2, 2, 1).input(1).geometry()?;
/// let mut gradient = [0.0; 4];
/// WeightSums::for_each_task(&geometry, [2, 2], &mut gradient, Update::Overwrite, Par::Seq, &mut [0.0; 8], 8, &|task, lane| {
///     assert_eq!((task.oc, task.ic), (0..2, 0..2));
///     lane.copy_from_slice(&[1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 0.0, 0.0]);
///     WeightSums { sums: 0..8, nr: 4 }
/// });
/// assert_eq!(gradient, [1.0, 2.0, 3.0, 4.0]);
/// # Ok::<(), convolve_core::Error>(())
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
            let Self { sums, nr } = reduce(&task, lane);
            deliver(&lane[sums], nr, taps, &task, conv.weight_layout, update, &mut piece);
        });
    }
}

/// Writes the sums of a task in the order of the weights.
fn deliver(
    sums: &[f32],
    nr: usize,
    taps: usize,
    task: &WeightTask,
    layout: WeightLayout,
    update: Update,
    piece: &mut BlockMut<'_, f32>,
) {
    let put = |to: &mut f32, value: f32| match update {
        Update::Overwrite => *to = value,
        Update::Accumulate => *to += value,
    };
    let (oc, ic) = (task.oc.len(), task.ic.len());
    for (plane, sums) in sums.chunks_exact(oc * nr).enumerate() {
        let (tap, first) = (plane / ic.div_ceil(nr), plane % ic.div_ceil(nr) * nr);
        let valid = nr.min(ic - first);
        match layout {
            WeightLayout::Oihw => {
                for (o, sums) in sums.chunks_exact(nr).enumerate() {
                    let to = piece.row(o, 0)[first * taps + tap..].iter_mut().step_by(taps);
                    to.zip(&sums[..valid]).for_each(|(to, sum)| put(to, *sum));
                }
            }
            WeightLayout::Ohwi => {
                for (o, sums) in sums.chunks_exact(nr).enumerate() {
                    let to = &mut piece.row(o, tap)[first..first + valid];
                    to.iter_mut().zip(sums).for_each(|(to, sum)| put(to, *sum));
                }
            }
            WeightLayout::Hwio => {
                for i in 0..valid {
                    let to = piece.row(tap, first + i).iter_mut();
                    to.zip(sums[i..].iter().step_by(nr)).for_each(|(to, sum)| put(to, *sum));
                }
            }
        }
    }
}
