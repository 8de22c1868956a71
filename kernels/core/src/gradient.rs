//! From sums in the order in which kernels make them to the gradient in the order of the weights.

use crate::{BlockMut, Caches, Cut, Geometry, Par, Update, WeightLayout, lines};
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

/// How backward-weights is cut: boxes of the gradient, and parts of what is summed.
///
/// ```
/// use convolve_core::{Caches, Conv2d, WeightCuts};
/// let geometry = Conv2d::new(64, 64, 3).input(56).padding(1).geometry()?;
/// let cuts = WeightCuts::new(&geometry, &Caches::default(), [6, 16], 56);
/// assert_eq!(cuts.boxes(&geometry) * cuts.parts, 8);
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightCuts {
    /// Output and input channels of a box, within one group; a box has all taps.
    pub block: [usize; 2],
    /// Parts of the sum over images and pixels. Each has its own sums, which are added in order when all are there: more tasks without
    /// a second copy of any operand.
    pub parts: usize,
}

impl WeightCuts {
    /// Cuts for tiles of `mr` output channels and panels of `nr` input channels: the sums of a box take at most half of L2. Where that makes
    /// fewer than eight tasks of a problem that is worth it, the `steps` of the sum are cut into parts, and, if the sums of the parts would be
    /// large, the boxes are made smaller. So the work is cut by the shape of the problem, never by the number of threads.
    ///
    /// ```
    /// use convolve_core::{Caches, Conv2d, WeightCuts};
    /// let geometry = Conv2d::new(512, 512, 3).input(7).padding(1).geometry()?;
    /// assert_eq!(WeightCuts::new(&geometry, &Caches::default(), [6, 16], 7).parts, 1);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn new(geometry: &Geometry, caches: &Caches, [mr, nr]: [usize; 2], steps: usize) -> Self {
        const TASKS: usize = 8;
        const MACS: u64 = 1 << 20;
        /// Most floats of the sums of all parts.
        const PARTIAL: usize = 1 << 18;
        let (group_out, group_in, taps) = (geometry.group_out(), geometry.group_in(), geometry.taps());
        let ic = group_in.min(4 * nr);
        let budget = caches.l2 / 2 / size_of::<f32>() / taps / ic.next_multiple_of(nr);
        let oc = budget.clamp(mr, 128).min(group_out);
        let mut cuts = Self { block: [oc, ic], parts: 1 };
        if geometry.macs() < MACS {
            return cuts;
        }
        let sums = geometry.conv().groups * group_out * group_in.next_multiple_of(nr) * taps;
        let parts = TASKS.div_ceil(cuts.boxes(geometry)).min(PARTIAL / sums).min(steps);
        if parts > 1 {
            cuts.parts = parts;
        }
        // Blocks of one operand are copied once for each block of the other; with many taps a copy serves longer.
        let least = if taps == 1 { 2 * nr } else { nr };
        while cuts.boxes(geometry) * cuts.parts < TASKS {
            let [oc, ic] = &mut cuts.block;
            if *ic > least || (*ic > nr && *oc <= 4 * mr) {
                *ic = ic.div_ceil(2).next_multiple_of(nr);
            } else if *oc > 2 * mr {
                *oc = oc.div_ceil(2).next_multiple_of(mr);
            } else {
                break;
            }
        }
        cuts
    }

    /// Boxes of the gradient, of all groups.
    /// ```
    /// let cuts = convolve_core::WeightCuts { block: [8, 4], parts: 1 };
    /// assert_eq!(cuts.boxes(&convolve_core::Conv2d::new(8, 16, 1).input(1).geometry()?), 4);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn boxes(&self, geometry: &Geometry) -> usize {
        let [oc, ic] = self.block;
        geometry.conv().groups * geometry.group_out().div_ceil(oc) * geometry.group_in().div_ceil(ic)
    }

    /// Number of a task's box.
    fn index(&self, geometry: &Geometry, task: &WeightTask) -> usize {
        let ([oc, ic], group) = (self.block, geometry.group_out());
        let row = task.oc.start / group * group.div_ceil(oc) + task.oc.start % group / oc;
        row * geometry.group_in().div_ceil(ic) + task.ic.start / ic
    }

    /// The box with that number.
    fn task(&self, geometry: &Geometry, index: usize) -> WeightTask {
        let ([oc, ic], [outputs, inputs]) = (self.block, [geometry.group_out(), geometry.group_in()]);
        let (row, column) = (index / inputs.div_ceil(ic), index % inputs.div_ceil(ic) * ic);
        let (group, start) = (row / outputs.div_ceil(oc), row % outputs.div_ceil(oc) * oc);
        let first = group * outputs + start;
        WeightTask { oc: first..first + oc.min(outputs - start), ic: column..inputs.min(column + ic) }
    }

    /// Floats of the sums of all parts, if there are several; `len` are those of a box.
    fn partial_len(&self, geometry: &Geometry, len: usize) -> usize {
        if self.parts > 1 { self.parts * self.boxes(geometry) * len } else { 0 }
    }

    /// Floats of workspace for lanes of `lane_len`, of which at most `len` are sums.
    /// ```
    /// let cuts = convolve_core::WeightCuts { block: [8, 4], parts: 1 };
    /// assert_eq!(cuts.workspace_len(&convolve_core::Conv2d::new(8, 16, 1).input(1).geometry()?, 2, 100, 32), 200);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn workspace_len(&self, geometry: &Geometry, threads: usize, lane_len: usize, len: usize) -> usize {
        lane_len.saturating_mul(threads).saturating_add(lines(self.partial_len(geometry, len)))
    }

    /// Cuts the gradient into boxes and the sum into parts, lets `reduce(task, part, lane)` make the sums of each in its lane (at most `len`
    /// floats), and writes them (or adds them) in the order of the weights.
    #[expect(clippy::too_many_arguments, reason = "what, how, where")]
    pub fn for_each_task(
        &self,
        geometry: &Geometry,
        gradient: &mut [f32],
        update: Update,
        par: Par<'_>,
        workspace: &mut [f32],
        [lane_len, len]: [usize; 2],
        transpose: &(dyn Transpose + Sync),
        reduce: &(dyn Fn(&WeightTask, usize, &mut [f32]) -> WeightSums + Sync),
    ) {
        let (conv, boxes) = (geometry.conv(), self.boxes(geometry));
        let (ic, taps) = (geometry.group_in(), geometry.taps());
        let (partial, lanes) = workspace.split_at_mut(lines(self.partial_len(geometry, len)));
        if self.parts > 1 {
            let one = Cut { unit: 1, block: 1 };
            let partial = BlockMut::new(&mut partial[..self.parts * boxes * len], [self.parts, boxes, len]);
            let cuts = [one, one, Cut::whole(len)];
            partial.for_each_piece(cuts, par, lanes, lane_len, &|[part, index, _], mut piece, lane| {
                let sums = reduce(&self.task(geometry, index.start), part.start, lane);
                piece.row(0, 0)[..sums.sums.len()].copy_from_slice(&lane[sums.sums]);
            });
        }
        let partial = &*partial;
        let oc_cut = Cut { unit: geometry.group_out(), block: self.block[0] };
        let ic_cut = Cut { unit: ic, block: self.block[1] };
        // All taps of an input channel are neighbours in OIHW, so one row of the box is one output channel.
        let all_taps = Cut { unit: ic_cut.unit * taps, block: ic_cut.block * taps };
        let (extent, cuts) = match conv.weight_layout {
            WeightLayout::Oihw => ([conv.out_channels, 1, ic * taps], [oc_cut, Cut::whole(1), all_taps]),
            WeightLayout::Ohwi => ([conv.out_channels, taps, ic], [oc_cut, Cut::whole(taps), ic_cut]),
            WeightLayout::Hwio => ([taps, ic, conv.out_channels], [Cut::whole(taps), ic_cut, oc_cut]),
        };
        let gradient = BlockMut::new(gradient, extent);
        gradient.for_each_piece(cuts, par, lanes, lane_len, &|[a, b, c], mut piece, lane| {
            let (oc, ic) = match conv.weight_layout {
                WeightLayout::Oihw => (a, c.start / taps..c.end / taps),
                WeightLayout::Ohwi => (a, c),
                WeightLayout::Hwio => (c, b),
            };
            let task = WeightTask { oc, ic };
            let sums = match self.parts {
                1 => reduce(&task, 0, lane),
                parts => {
                    let sums = WeightSums::of(&task, taps, transpose.panel());
                    let to = &mut lane[sums.sums.clone()];
                    to.fill(0.0);
                    for part in 0..parts {
                        let from = (part * boxes + self.index(geometry, &task)) * len;
                        to.iter_mut().zip(&partial[from..]).for_each(|(to, sum)| *to += sum);
                    }
                    sums
                }
            };
            deliver(&sums, lane, taps, &task, conv.weight_layout, update, transpose, &mut piece);
        });
    }
}

impl WeightSums {
    /// Sums of a task at the start of its lane.
    /// ```
    /// use convolve_core::{WeightSums, WeightTask};
    /// assert_eq!(WeightSums::of(&WeightTask { oc: 0..3, ic: 0..5 }, 9, 4).sums, 0..9 * 2 * 3 * 4);
    /// ```
    pub fn of(task: &WeightTask, taps: usize, nr: usize) -> Self {
        Self { sums: 0..taps * task.ic.len().div_ceil(nr) * task.oc.len() * nr, nr }
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
    /// Columns of a panel: what [`WeightSums::nr`] is for whole panels.
    fn panel(&self) -> usize;
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
