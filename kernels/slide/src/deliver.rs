//! Where sums of a weight gradient go: into the box of the output channels that a task owns, in any order of the weights.

use crate::window::Window;
use convolve_core::{BlockMut, Cut, Geometry, Par, Update, WeightLayout};
use convolve_simd::{Isa, Simd, dispatch};
use core::ops::Range;

/// Adds up the lanes of each sum: `sums[i] = sum over l < LANES of sums[i*LANES + l]`.
pub(crate) fn fold(isa: Isa, sums: &mut [f32]) {
    dispatch!(isa, s => s.vectorize(
        #[inline(always)]
        |s| {
            fn lanes<S: Simd>(_: S) -> usize {
                S::LANES
            }
            let lanes = lanes(s);
            for i in 0..sums.len() / lanes {
                sums[i] = s.sum(s.load(&sums[i * lanes..]));
            }
        },
    ));
}

/// How the sums of a task lie in memory: `[group of output channels][place][channel of the group]`.
pub(crate) struct Sums<'a> {
    pub(crate) geometry: &'a Geometry,
    /// Output channels whose sums of one weight are neighbours, and the places that they have together.
    pub(crate) width: usize,
    pub(crate) panel: usize,
    /// The place of the weight `[input channel][tap]`.
    pub(crate) places: &'a [usize],
}

impl Sums<'_> {
    /// Writes or adds the sums of the output channels `channels` of a box of the gradient.
    pub(crate) fn deliver(
        &self,
        channels: Range<usize>,
        sums: &[f32],
        update: Update,
        piece: &mut BlockMut<'_, f32>,
    ) {
        let (taps, depth) = (self.geometry.taps(), self.geometry.group_in());
        let layout = self.geometry.conv().weight_layout;
        let put = |to: &mut f32, sum: &f32| *to = if update == Update::Accumulate { *to + sum } else { *sum };
        for (first, sums) in channels.clone().step_by(self.width).zip(sums.chunks_exact(self.panel)) {
            let outputs = first..channels.end.min(first + self.width);
            if layout == WeightLayout::Oihw {
                for o in outputs {
                    let to = piece.row(o, 0).iter_mut().zip(self.places);
                    to.for_each(|(to, place)| put(to, &sums[place * self.width + o - first]));
                }
                continue;
            }
            for (c, places) in self.places.chunks_exact(taps).enumerate().take(depth) {
                for (tap, place) in places.iter().enumerate() {
                    let sums = &sums[place * self.width..][..outputs.len()];
                    if layout == WeightLayout::Hwio {
                        let to = &mut piece.row(tap, c)[outputs.clone()];
                        to.iter_mut().zip(sums).for_each(|(to, sum)| put(to, sum));
                    } else {
                        outputs.clone().zip(sums).for_each(|(o, sum)| put(&mut piece.row(o, tap)[c], sum));
                    }
                }
            }
        }
    }
}

/// Where the sums `[column][K]` have the weight `[input channel][tap]`. Columns are `[input channel][piece][kernel column]` where lanes are pixels,
/// `[kernel column][input channel]` where they are channels.
pub(crate) fn places(window: &Window, [height, width]: [usize; 2], depth: usize, planes: bool) -> Vec<usize> {
    let k = window.chain.k;
    let column = |c: usize, y: usize, x: usize| match planes {
        true => (c * (height / k) + y / k) * width + x,
        false => x * depth + c,
    };
    let taps = (0..depth).flat_map(|c| (0..height * width).map(move |tap| (c, tap / width, tap % width)));
    taps.map(|(c, y, x)| column(c, y, x) * k + y % k).collect()
}

/// What a task does with its output channels, their box of the gradient, and its lane of workspace.
pub(crate) type Task<'f> = dyn for<'b> Fn(&Range<usize>, &mut BlockMut<'b, f32>, &mut [f32]) + Sync + 'f;

/// Hands boxes of up to `channels` output channels, with all their weights, to threads.
pub(crate) fn for_each_box(
    geometry: &Geometry,
    channels: usize,
    diff_weights: &mut [f32],
    workspace: &mut [f32],
    lane_len: usize,
    par: Par<'_>,
    task: &Task<'_>,
) {
    let (conv, taps, ic) = (geometry.conv(), geometry.taps(), geometry.group_in());
    let cut = Cut { unit: conv.out_channels, block: channels };
    let (extent, cuts) = match conv.weight_layout {
        WeightLayout::Oihw => {
            ([conv.out_channels, 1, ic * taps], [cut, Cut::whole(1), Cut::whole(ic * taps)])
        }
        WeightLayout::Ohwi => ([conv.out_channels, taps, ic], [cut, Cut::whole(taps), Cut::whole(ic)]),
        WeightLayout::Hwio => ([taps, ic, conv.out_channels], [Cut::whole(taps), Cut::whole(ic), cut]),
    };
    let gradient = BlockMut::new(diff_weights, extent);
    gradient.for_each_piece(cuts, par, workspace, lane_len, &|[a, _, c], mut piece, lane| {
        let channels = if conv.weight_layout == WeightLayout::Hwio { c } else { a };
        task(&channels, &mut piece, lane);
    });
}
