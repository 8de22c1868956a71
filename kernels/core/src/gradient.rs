//! From sums in the order in which kernels make them to the gradient in the order of the weights.

use crate::{Accuracy, BlockMut, Caches, Cut, Geometry, Par, Tasks, Update, WeightLayout, lines};
use core::ops::Range;

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

impl WeightTask {
    /// The task of a box of the gradient.
    fn of(geometry: &Geometry, [a, b, c]: &[Range<usize>; 3]) -> Self {
        let taps = geometry.taps();
        match geometry.conv().weight_layout {
            WeightLayout::Oihw => Self { oc: a.clone(), ic: c.start / taps..c.end / taps },
            WeightLayout::Ohwi => Self { oc: a.clone(), ic: c.clone() },
            WeightLayout::Hwio => Self { oc: c.clone(), ic: b.clone() },
        }
    }

    /// Extent of its box of the gradient.
    fn extent(&self, geometry: &Geometry) -> [usize; 3] {
        let ([oc, ic], taps) = ([self.oc.len(), self.ic.len()], geometry.taps());
        extent(geometry.conv().weight_layout, oc, ic, taps)
    }
}

/// The weights as a three-dimensional array. All taps of an input channel are neighbours in OIHW.
fn extent(layout: WeightLayout, oc: usize, ic: usize, taps: usize) -> [usize; 3] {
    match layout {
        WeightLayout::Oihw => [oc, 1, ic * taps],
        WeightLayout::Ohwi => [oc, taps, ic],
        WeightLayout::Hwio => [taps, ic, oc],
    }
}

/// How backward-weights is cut: boxes of the gradient, and parts of what is summed.
///
/// ```
/// use convolve_core::{Accuracy, Caches, Conv2d, WeightCuts};
/// let geometry = Conv2d::new(64, 64, 3).input(56).padding(1).geometry()?;
/// let cuts = WeightCuts::new(&geometry, Accuracy::Standard, &Caches::default(), [6, 16], 56);
/// assert_eq!(cuts.boxes(&geometry) * cuts.parts, 6);
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

/// Fewer tasks are not worth a second copy of an operand.
const ENOUGH: usize = 6;

impl WeightCuts {
    /// Cuts for tiles of `mr` output channels and panels of `nr` input channels: the sums of a box take at most half of L2. Where that makes
    /// few tasks of a problem that is worth it, the `steps` of the sum are cut into parts (not in the class
    /// [`Strict`](crate::Accuracy::Strict), whose sums have one accumulator), and, if the sums of the parts would be large, the boxes are made
    /// smaller. So the work is cut by the shape of the problem, never by the number of threads.
    ///
    /// ```
    /// use convolve_core::{Accuracy, Caches, Conv2d, WeightCuts};
    /// let geometry = Conv2d::new(512, 512, 3).input(7).padding(1).geometry()?;
    /// assert_eq!(WeightCuts::new(&geometry, Accuracy::Standard, &Caches::default(), [6, 16], 7).parts, 1);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn new(
        geometry: &Geometry,
        accuracy: Accuracy,
        caches: &Caches,
        [mr, nr]: [usize; 2],
        steps: usize,
    ) -> Self {
        let (group_out, group_in, taps) = (geometry.group_out(), geometry.group_in(), geometry.taps());
        let ic = group_in.min(4 * nr);
        let budget = caches.l2 / 2 / size_of::<f32>() / taps / ic.next_multiple_of(nr);
        let oc = budget.clamp(mr, 128).min(group_out);
        let mut cuts = Self { block: [oc, ic], parts: 1 };
        if !cuts.cut_sum(geometry, accuracy, group_in.next_multiple_of(nr), steps) {
            return cuts;
        }
        // Blocks of one operand are copied once for each block of the other; with many taps a copy serves longer.
        let least = if taps == 1 { 2 * nr } else { nr };
        while cuts.boxes(geometry) * cuts.parts < ENOUGH {
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

    /// The same for kernels that read `src` where it is, for tiles of `tile` output and input channels: of the boxes whose sums take at most half of
    /// L2, those for which operands are read least often.
    ///
    /// ```
    /// use convolve_core::{Accuracy, Caches, Conv2d, WeightCuts};
    /// let geometry = Conv2d::new(256, 64, 1).input(56).geometry()?;
    /// let cuts = WeightCuts::in_place(&geometry, Accuracy::Standard, &Caches::default(), [32, 14], 16);
    /// assert_eq!((cuts.block, cuts.parts), ([64, 256], 8));
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn in_place(
        geometry: &Geometry,
        accuracy: Accuracy,
        caches: &Caches,
        tile: [usize; 2],
        steps: usize,
    ) -> Self {
        let sizes = [geometry.group_out(), geometry.group_in()];
        let budget = caches.l2 / 2 / size_of::<f32>() / geometry.taps();
        let traffic = |[oc, ic]: [usize; 2]| {
            let [oc_blocks, ic_blocks] = [sizes[0].div_ceil(oc), sizes[1].div_ceil(ic)];
            geometry.src_len().saturating_mul(2 * oc_blocks)
                + geometry.dst_len().saturating_mul(3 * ic_blocks)
        };
        // Half as large along either axis, in whole tiles, if that is smaller.
        let halves = |block: [usize; 2]| {
            let half = move |axis: usize| {
                let mut half = block;
                half[axis] = half[axis].div_ceil(2).next_multiple_of(tile[axis]);
                (half[axis] < block[axis]).then_some(half)
            };
            [0, 1].into_iter().filter_map(half).min_by_key(|block| traffic(*block))
        };
        let mut cuts = Self { block: sizes, parts: 1 };
        while cuts.block.iter().product::<usize>() > budget
            && let Some(half) = halves(cuts.block)
        {
            cuts.block = half;
        }
        if cuts.cut_sum(geometry, accuracy, sizes[1], steps) {
            while cuts.boxes(geometry) * cuts.parts < ENOUGH
                && let Some(half) = halves(cuts.block)
            {
                cuts.block = half;
            }
        }
        cuts
    }

    /// Cuts the sum into parts where there are few boxes of a problem that is worth it. False where it is not worth more tasks.
    fn cut_sum(&mut self, geometry: &Geometry, accuracy: Accuracy, ic: usize, steps: usize) -> bool {
        const TASKS: usize = 8;
        const MACS: u64 = 1 << 20;
        /// Most floats of the sums of all parts.
        const PARTIAL: usize = 1 << 18;
        if geometry.macs() < MACS {
            return false;
        }
        let sums = geometry.conv().out_channels * ic * geometry.taps();
        let parts = TASKS.div_ceil(self.boxes(geometry)).min(PARTIAL / sums).min(steps);
        if parts > 1 && accuracy != Accuracy::Strict {
            // An even number is shared evenly by two threads.
            self.parts = (parts / 2 * 2).max(1);
        }
        true
    }

    /// As it is told: with the tile of the micro-kernel, and how many terms of the sums are near at a time.
    /// ```
    /// let cuts = convolve_core::WeightCuts { block: [8, 4], parts: 2 };
    /// assert_eq!(cuts.tiling([6, 16], 192).to_string(), "tile 6x16, tasks 2x8x4, 192 near");
    /// ```
    pub fn tiling(&self, tile: [usize; 2], near: usize) -> crate::Tiling {
        let Self { block: [oc, ic], parts } = *self;
        crate::Tiling { tile, task: [parts, oc, ic], near }
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

    /// The tasks of a run: all parts of all boxes.
    /// ```
    /// let geometry = convolve_core::Conv2d::new(8, 16, 1).input(1).geometry()?;
    /// assert_eq!(convolve_core::WeightCuts { block: [8, 4], parts: 3 }.tasks(&geometry).count(), 12);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn tasks(&self, geometry: &Geometry) -> Tasks {
        let ([oc, ic], one) = (self.block, Cut { unit: 1, block: 1 });
        let oc_cut = Cut { unit: geometry.group_out(), block: oc };
        let ic_cut = Cut { unit: geometry.group_in(), block: ic };
        let extent = [self.parts, geometry.conv().out_channels, geometry.group_in()];
        Tasks { extent, cuts: [one, oc_cut, ic_cut] }
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

    /// Output channels of a piece of the gradient when parts are added: where there are parts, there are few boxes, and no thread is to wait for the one
    /// that adds up.
    fn added(&self) -> usize {
        let block = self.block[0];
        let pieces = (1..=8).rev().find(|&n| block.is_multiple_of(n) && block / n >= 16);
        block / pieces.unwrap_or(1)
    }

    /// The gradient as an array, and its pieces of that many output channels: those of a box, or fewer that divide them.
    fn grid(&self, geometry: &Geometry, oc: usize) -> ([usize; 3], [Cut; 3]) {
        let (conv, ic, taps) = (geometry.conv(), geometry.group_in(), geometry.taps());
        let oc_cut = Cut { unit: geometry.group_out(), block: oc };
        let ic_cut = Cut { unit: ic, block: self.block[1] };
        let all_taps = Cut { unit: ic_cut.unit * taps, block: ic_cut.block * taps };
        let cuts = match conv.weight_layout {
            WeightLayout::Oihw => [oc_cut, Cut::whole(1), all_taps],
            WeightLayout::Ohwi => [oc_cut, Cut::whole(taps), ic_cut],
            WeightLayout::Hwio => [Cut::whole(taps), ic_cut, oc_cut],
        };
        (extent(conv.weight_layout, conv.out_channels, ic, taps), cuts)
    }

    fn parts(&self, geometry: &Geometry, len: usize) -> Parts {
        Parts { parts: self.parts, boxes: self.boxes(geometry), len }
    }

    /// Floats of workspace for lanes of `lane_len`, of which at most `len` are sums.
    /// ```
    /// let cuts = convolve_core::WeightCuts { block: [8, 4], parts: 1 };
    /// assert_eq!(cuts.workspace_len(&convolve_core::Conv2d::new(8, 16, 1).input(1).geometry()?, 2, 100, 32), 200);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn workspace_len(&self, geometry: &Geometry, threads: usize, lane_len: usize, len: usize) -> usize {
        self.parts(geometry, len).workspace_len(threads, lane_len)
    }

    /// Cuts the gradient into boxes and the sum into parts, lets `reduce(task, part, lane)` make the sums of each at the start of its lane, as
    /// `[tap][panel of input channels][output channel][panel]`, and return how many they are (at most `len`), and writes them (or adds them)
    /// in the order of the weights. Without a `panel` it is as wide as the box.
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
        panel: Option<usize>,
        reduce: &(dyn Fn(&WeightTask, usize, &mut [f32]) -> usize + Sync),
    ) {
        let (layout, taps) = (geometry.conv().weight_layout, geometry.taps());
        let sums = self.parts(geometry, len);
        let reduce =
            |index: usize, part: usize, lane: &mut [f32]| reduce(&self.task(geometry, index), part, lane);
        let (partial, lanes) = workspace.split_at_mut(lines(sums.partial_len()));
        let partial = sums.make(partial, par, lanes, lane_len, &reduce);
        let (extent, cuts) = self.grid(geometry, if self.parts > 1 { self.added() } else { self.block[0] });
        BlockMut::new(gradient, extent).for_each_piece(
            cuts,
            par,
            lanes,
            lane_len,
            &|ranges, mut piece, lane| {
                let task = WeightTask::of(geometry, &ranges);
                let index = self.index(geometry, &task);
                let nr = panel.unwrap_or(task.ic.len());
                let count = if self.parts == 1 {
                    reduce(index, 0, lane)
                } else {
                    let whole = self.task(geometry, index);
                    let (rows, at) = (taps * task.ic.len().div_ceil(nr), task.oc.start - whole.oc.start);
                    for row in 0..rows {
                        let to = &mut lane[row * task.oc.len() * nr..][..task.oc.len() * nr];
                        sums.add(partial, index, (row * whole.oc.len() + at) * nr, to);
                    }
                    rows * task.oc.len() * nr
                };
                deliver(&lane[..count], nr, taps, &task, layout, update, transpose, &mut piece);
            },
        );
    }

    /// As [`for_each_task`](Self::for_each_task) for kernels that make sums in the order of the weights: `sums(task, part, update, box, lane)`
    /// gets the box of the gradient itself, or, where there are several parts, one of their own for each.
    ///
    /// ```
    /// use convolve_core::{Conv2d, Par, Update, WeightCuts};
    /// let geometry = Conv2d::new(2, 3, 1).input(1).geometry()?;
    /// let (cuts, mut gradient) = (WeightCuts { block: [3, 2], parts: 1 }, [1.0; 6]);
    /// cuts.for_each_box_in_place(&geometry, &mut gradient, Update::Overwrite, Par::Seq, &mut [], 0, &|task, _, _, sums, _| {
    ///     sums.row(0, 0)[task.ic.start] = 5.0;
    /// });
    /// assert_eq!(gradient, [5.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    #[expect(clippy::too_many_arguments, reason = "what, how, where")]
    pub fn for_each_box_in_place(
        &self,
        geometry: &Geometry,
        gradient: &mut [f32],
        update: Update,
        par: Par<'_>,
        workspace: &mut [f32],
        lane_len: usize,
        sums: &SumsFn<'_>,
    ) {
        let (extent, cuts) = self.grid(geometry, self.block[0]);
        let gradient = BlockMut::new(gradient, extent);
        if self.parts == 1 {
            return gradient.for_each_piece(cuts, par, workspace, lane_len, &|ranges, mut piece, lane| {
                sums(&WeightTask::of(geometry, &ranges), 0, update, &mut piece, lane);
            });
        }
        let len = geometry.taps() * self.block.iter().product::<usize>();
        let (partial, lanes) = workspace.split_at_mut(lines(self.parts(geometry, len).partial_len()));
        let boxes = self.boxes(geometry);
        let one = Cut { unit: 1, block: 1 };
        let partial = &mut partial[..self.parts * boxes * len];
        BlockMut::new(partial, [self.parts, boxes, len]).for_each_piece(
            [one, one, Cut::whole(len)],
            par,
            lanes,
            lane_len,
            &|[part, index, _], mut piece, lane| {
                let task = self.task(geometry, index.start);
                let extent = task.extent(geometry);
                let own = &mut piece.row(0, 0)[..extent.iter().product()];
                sums(&task, part.start, Update::Overwrite, &mut BlockMut::new(own, extent), lane);
            },
        );
        let partial = &*partial;
        let (_, cuts) = self.grid(geometry, self.added());
        gradient.for_each_piece(cuts, par, &mut [], 0, &|ranges, mut piece, _| {
            let task = WeightTask::of(geometry, &ranges);
            let index = self.index(geometry, &task);
            let (whole, own) = (self.task(geometry, index), task.extent(geometry));
            let [_, all_rows, all_columns] = whole.extent(geometry);
            // Where the first output channel is in the box.
            let axis = if geometry.conv().weight_layout == WeightLayout::Hwio { 2 } else { 0 };
            let mut first = [0; 3];
            first[axis] = task.oc.start - whole.oc.start;
            for (i, j) in (0..own[0]).flat_map(|i| (0..own[1]).map(move |j| (i, j))) {
                let to = piece.row(i, j);
                if update == Update::Overwrite {
                    to.fill(0.0);
                }
                let at = ((first[0] + i) * all_rows + first[1] + j) * all_columns + first[2];
                for part in 0..self.parts {
                    let from = &partial[(part * boxes + index) * len + at..][..own[2]];
                    to.iter_mut().zip(from).for_each(|(to, sum)| *to += sum);
                }
            }
        });
    }
}

/// Makes the sums of a part of a box in the order of the weights: `f(task, part, update, sums, lane)`.
pub type SumsFn<'f> =
    dyn for<'b> Fn(&WeightTask, usize, Update, &mut BlockMut<'b, f32>, &mut [f32]) + Sync + 'f;

/// Writes the sums of a box, whose number is given, to its piece of the gradient.
pub type DeliverFn<'f> = dyn Fn(usize, &[f32], &mut BlockMut<'_, f32>) + Sync + 'f;

/// Sums that are made in several parts, each over a part of what is summed; parts are added in order. So there are enough tasks also where
/// the gradient is small, and the bits depend on no thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Parts of a sum.
    pub parts: usize,
    /// Boxes of the gradient.
    pub boxes: usize,
    /// Most floats of the sums of a box.
    pub len: usize,
}

impl Parts {
    /// Floats of the sums of all parts, if there are several.
    fn partial_len(&self) -> usize {
        if self.parts > 1 { self.parts * self.boxes * self.len } else { 0 }
    }

    /// Floats of workspace for `threads` lanes of `lane_len`.
    /// ```
    /// assert_eq!(convolve_core::Parts { parts: 2, boxes: 3, len: 16 }.workspace_len(2, 100), 96 + 200);
    /// ```
    pub fn workspace_len(&self, threads: usize, lane_len: usize) -> usize {
        lane_len.saturating_mul(threads).saturating_add(lines(self.partial_len()))
    }

    /// Calls `reduce(box, part, lane)` for all of them, which leaves the sums at the start of the lane and says how many they are; adds the parts
    /// and calls `deliver(box, sums, piece)`. The boxes are the pieces of `gradient` along `cuts`; `index(ranges)` numbers them.
    #[expect(clippy::too_many_arguments, reason = "what, how, where")]
    pub fn for_each_box(
        &self,
        gradient: BlockMut<'_, f32>,
        cuts: [Cut; 3],
        par: Par<'_>,
        workspace: &mut [f32],
        lane_len: usize,
        index: &(dyn Fn(&[Range<usize>; 3]) -> usize + Sync),
        reduce: &(dyn Fn(usize, usize, &mut [f32]) -> usize + Sync),
        deliver: &DeliverFn<'_>,
    ) {
        let (partial, lanes) = workspace.split_at_mut(lines(self.partial_len()));
        let partial = self.make(partial, par, lanes, lane_len, reduce);
        gradient.for_each_piece(cuts, par, lanes, lane_len, &|ranges, mut piece, lane| {
            let index = index(&ranges);
            let count = if self.parts == 1 { reduce(index, 0, lane) } else { self.len };
            if self.parts > 1 {
                self.add(partial, index, 0, &mut lane[..count]);
            }
            deliver(index, &lane[..count], &mut piece);
        });
    }

    /// The sums of all parts, where there are several.
    fn make<'w>(
        &self,
        partial: &'w mut [f32],
        par: Par<'_>,
        lanes: &mut [f32],
        lane_len: usize,
        reduce: &(dyn Fn(usize, usize, &mut [f32]) -> usize + Sync),
    ) -> &'w [f32] {
        let (one, extent) = (Cut { unit: 1, block: 1 }, [self.parts, self.boxes, self.len]);
        if self.parts > 1 {
            let partial = BlockMut::new(&mut partial[..extent.iter().product()], extent);
            let cuts = [one, one, Cut::whole(self.len)];
            partial.for_each_piece(cuts, par, lanes, lane_len, &|[part, index, _], mut piece, lane| {
                let count = reduce(index.start, part.start, lane);
                let (sums, rest) = piece.row(0, 0).split_at_mut(count);
                sums.copy_from_slice(&lane[..count]);
                rest.fill(0.0);
            });
        }
        partial
    }

    /// Adds the parts of some sums of a box, from `at` on, in the order of the parts.
    fn add(&self, partial: &[f32], index: usize, at: usize, to: &mut [f32]) {
        let len = to.len();
        let part = |part: usize| &partial[(part * self.boxes + index) * self.len + at..][..len];
        to.copy_from_slice(part(0));
        (1..self.parts).for_each(|i| to.iter_mut().zip(part(i)).for_each(|(to, sum)| *to += sum));
    }
}

/// Writes the sums of a task, `[tap][panel of NR input channels][output channel][NR]`, in the order of the weights.
#[expect(clippy::too_many_arguments, reason = "what, from where, how, to where")]
fn deliver(
    sums: &[f32],
    nr: usize,
    taps: usize,
    task: &WeightTask,
    layout: WeightLayout,
    update: Update,
    transpose: &dyn Transpose,
    piece: &mut BlockMut<'_, f32>,
) {
    let (oc, ic) = (task.oc.len(), task.ic.len());
    let panels = ic.div_ceil(nr);
    let start = |tap: usize, panel: usize, o: usize| ((tap * panels + panel) * oc + o) * nr;
    if layout == WeightLayout::Oihw && update == Update::Overwrite && taps > 1 {
        // A row of the gradient is written from its first float to its last.
        for (o, (panel, first)) in
            (0..oc).flat_map(|o| (0..ic).step_by(nr).enumerate().map(move |at| (o, at)))
        {
            let valid = nr.min(ic - first);
            let to = &mut piece.row(o, 0)[first * taps..][..valid * taps];
            transpose.transpose([taps, valid], &sums[start(0, panel, o)..], panels * oc * nr, to, taps);
        }
        return;
    }
    for (panel, first) in (0..ic).step_by(nr).enumerate() {
        let valid = nr.min(ic - first);
        let start = |tap: usize, o: usize| start(tap, panel, o);
        match (layout, update) {
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
