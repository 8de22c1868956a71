//! Arbitrary problems, most of them at an edge: sizes around the lanes and tiles of every instruction set, equal sizes on axes that
//! must not be confused, padding larger than the kernel, strides that do not divide, groups of every kind.

use convolve::{Conv2d, Isa, Layout, Padding, WeightLayout};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngSeed};

/// Most multiplications of a problem.
pub const WORK: u64 = 1 << 18;
/// Most elements of a tensor.
const ELEMENTS: usize = 1 << 16;

/// Every tile shape `[MR, NR]` of an instruction set: the kernels' own table, so that tests follow when it is tuned.
pub fn tiles_of(isa: Isa) -> Vec<[usize; 2]> {
    convolve_gemm::tiles(isa)
}

/// Every tile shape of every instruction set of this CPU.
pub fn tiles() -> Vec<[usize; 2]> {
    let mut tiles: Vec<_> = Isa::available().iter().flat_map(|&isa| tiles_of(isa)).collect();
    tiles.sort_unstable();
    tiles.dedup();
    tiles
}

/// Sizes at which a kernel can go wrong: small ones, and the neighbours of lanes and tiles. Ascending, so that failures shrink.
pub fn edges() -> Vec<usize> {
    let lanes = Isa::available().iter().map(|isa| isa.lanes());
    let mut sizes = vec![1, 2, 3];
    sizes.extend(lanes.flat_map(|v| [v - 1, v, v + 1, 2 * v - 1, 2 * v, 2 * v + 1]));
    sizes.extend(tiles().into_iter().flatten().flat_map(|n| [n - 1, n, n + 1]));
    sizes.retain(|&size| size > 0);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// A deterministic configuration: that many cases unless `PROPTEST_CASES` says otherwise, a fixed seed unless `PROPTEST_RNG_SEED`
/// does.
pub fn config(cases: u32) -> Config {
    let default = Config::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { cases };
    let seed = std::env::var_os("PROPTEST_RNG_SEED").is_some();
    let rng_seed = if seed { default.rng_seed } else { RngSeed::Fixed(0x00c0_4701) };
    Config { cases, rng_seed, failure_persistence: None, max_shrink_iters: 2000, ..default }
}

/// More channels than the widest tile has columns.
fn wide() -> Vec<usize> {
    let nr = tiles().into_iter().map(|[_, nr]| nr).max().expect("there are tiles");
    vec![nr + 1, nr + 2, 2 * nr, 2 * nr + 1]
}

fn edge() -> impl Strategy<Value = usize> {
    prop_oneof![3 => select(edges()), 2 => 1usize..=9, 1 => 1usize..=40]
}

/// Groups, and channels in and out of one group.
fn channels() -> impl Strategy<Value = [usize; 3]> {
    prop_oneof![
        5 => (edge(), edge()).prop_map(|(ic, oc)| [1, ic, oc]),
        1 => (1usize..=3, select(wide())).prop_map(|(ic, oc)| [1, ic, oc]),
        2 => edge().prop_map(|g| [g, 1, 1]),
        1 => (edge(), 1usize..=3).prop_map(|(g, oc)| [g, 1, oc]),
        1 => (edge(), 1usize..=3).prop_map(|(g, ic)| [g, ic, 1]),
        3 => (2usize..=4, edge(), edge()).prop_map(|(g, ic, oc)| [g, ic, oc]),
    ]
}

/// Kernel, stride and dilation of one axis.
fn taps() -> impl Strategy<Value = [usize; 3]> {
    let kernel = prop_oneof![4 => 1usize..=3, 2 => 4usize..=7, 1 => select(edges())];
    kernel.prop_flat_map(|k| {
        let stride = prop_oneof![3 => Just(1usize), 2 => Just(2), 2 => 1usize..=k + 3];
        let dilation = prop_oneof![3 => Just(1usize), 1 => 1usize..=4];
        (Just(k), stride, dilation).prop_map(|(k, s, d)| [k, s, d])
    })
}

fn side() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0usize), 3 => 0usize..=3, 1 => 0usize..=40]
}

fn padding() -> impl Strategy<Value = Padding> {
    prop_oneof![
        1 => Just(Padding::Valid),
        1 => Just(Padding::Same),
        1 => Just(Padding::SameLower),
        1 => (0usize..=4).prop_map(Padding::from),
        4 => [side(), side(), side(), side()]
            .prop_map(|[top, bottom, left, right]| Padding::Explicit { top, bottom, left, right }),
    ]
}

/// Any problem that has a geometry and is small enough to be computed many times.
pub fn convs() -> impl Strategy<Value = Conv2d> {
    let batch = prop_oneof![6 => Just(1usize), 3 => 2usize..=3, 1 => Just(0usize)];
    let layout = (select(&Layout::ALL[..]), select(&WeightLayout::ALL[..]));
    let equal = prop_oneof![2 => Just(0u8), 1 => 1u8..8];
    (batch, channels(), [edge(), edge()], [taps(), taps()], padding(), layout, equal).prop_map(
        |(batch, [groups, ic, oc], input, [h, w], padding, (layout, weight_layout), equal)| {
            let conv = Conv2d {
                batch,
                in_channels: groups * ic,
                out_channels: groups * oc,
                groups,
                input,
                kernel: [h[0], w[0]],
                stride: [h[1], w[1]],
                dilation: [h[2], w[2]],
                padding,
                layout,
                weight_layout,
            };
            fitted(equalised(conv, equal))
        },
    )
}

/// Some sizes made equal: C = H = W, KH = KW = C, IC = OC, a square of everything.
fn equalised(mut conv: Conv2d, how: u8) -> Conv2d {
    if how & 1 != 0 {
        conv.input = [conv.in_channels; 2];
    }
    if how & 2 != 0 {
        conv.out_channels = conv.in_channels;
    }
    if how & 4 != 0 {
        conv.kernel = [(conv.in_channels / conv.groups).min(7); 2];
    }
    conv
}

/// The nearest problem that has a geometry and is small.
fn fitted(mut conv: Conv2d) -> Conv2d {
    loop {
        match conv.geometry() {
            Ok(g) if g.macs() <= WORK && g.src_len().max(g.weights_len()).max(g.dst_len()) <= ELEMENTS => {
                return conv;
            }
            // Too large: halve what is largest.
            Ok(geometry) => {
                let per_group = [conv.in_channels, conv.out_channels].map(|c| c / conv.groups);
                let sizes = [conv.groups, per_group[0], per_group[1], conv.input[0], conv.input[1]];
                let largest = (0..5).max_by_key(|&i| sizes[i]).unwrap_or(0);
                if sizes[largest] <= 4 {
                    let [oh, ow] = geometry.output();
                    conv.padding = if oh.max(ow) > 16 { Padding::Valid } else { conv.padding };
                    conv.kernel = conv.kernel.map(|k| k.div_ceil(2));
                    continue;
                }
                let [mut groups, mut ic, mut oc] = [conv.groups, per_group[0], per_group[1]];
                match largest {
                    0 => groups /= 2,
                    1 => ic /= 2,
                    2 => oc /= 2,
                    axis => conv.input[axis - 3] /= 2,
                }
                conv = Conv2d { groups, in_channels: groups * ic, out_channels: groups * oc, ..conv };
            }
            // The kernel does not fit: a denser, then a smaller one.
            Err(_) if conv.dilation != [1, 1] => conv.dilation = [1, 1],
            Err(_) => conv.kernel = [0, 1].map(|i| conv.kernel[i].min(conv.input[i])),
        }
    }
}

/// Anything at all: zeros, sizes that overflow, groups that do not divide.
pub fn anything() -> impl Strategy<Value = Conv2d> {
    let number = || {
        prop_oneof![
            6 => 0usize..=9,
            1 => (0u32..usize::BITS).prop_map(|log| 1usize << log),
            1 => (0u32..usize::BITS).prop_map(|log| (1usize << log).wrapping_sub(1)),
            1 => Just(usize::MAX),
        ]
    };
    let pair = move || [number(), number()];
    let padding = prop_oneof![
        1 => Just(Padding::Valid),
        1 => Just(Padding::Same),
        1 => Just(Padding::SameLower),
        3 => [number(), number(), number(), number()]
            .prop_map(|[top, bottom, left, right]| Padding::Explicit { top, bottom, left, right }),
    ];
    let layout = (select(&Layout::ALL[..]), select(&WeightLayout::ALL[..]));
    ([number(), number(), number(), number()], pair(), pair(), pair(), pair(), padding, layout).prop_map(
        |([batch, in_channels, out_channels, groups], input, kernel, stride, dilation, padding, layouts)| {
            Conv2d {
                batch,
                in_channels,
                out_channels,
                groups,
                input,
                kernel,
                stride,
                dilation,
                padding,
                layout: layouts.0,
                weight_layout: layouts.1,
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    fn sample(n: usize) -> Vec<Conv2d> {
        let mut runner = TestRunner::new(config(1));
        (0..n).map(|_| convs().new_tree(&mut runner).unwrap().current()).collect()
    }

    #[test]
    fn every_problem_has_a_geometry_and_is_small() {
        for conv in sample(3000) {
            let geometry = conv.geometry().unwrap();
            assert!(geometry.macs() <= WORK, "{conv}");
        }
    }

    #[test]
    fn every_kind_of_edge_comes_up_often() {
        let convs = sample(3000);
        let often = |what: &str, least: usize, holds: &dyn Fn(&Conv2d) -> bool| {
            let count = convs.iter().filter(|conv| holds(conv)).count();
            assert!(count >= least, "{what}: {count} of 3000");
        };
        let sides = |c: &Conv2d| c.geometry().unwrap().padding();
        often("no batch", 100, &|c| c.batch == 0);
        often("C = H = W", 200, &|c| c.input == [c.in_channels; 2]);
        often("IC = OC", 200, &|c| c.in_channels == c.out_channels);
        often("depthwise", 200, &|c| c.groups > 1 && c.groups == c.in_channels && c.groups == c.out_channels);
        often("multiplier", 50, &|c| c.groups > 1 && c.groups == c.in_channels && c.groups < c.out_channels);
        often("groups", 200, &|c| c.groups > 1 && c.groups < c.in_channels && c.groups < c.out_channels);
        often("stride > kernel", 200, &|c| (0..2).any(|i| c.stride[i] > c.kernel[i]));
        often("padding >= kernel", 200, &|c| (0..2).any(|i| sides(c)[i][0] >= c.kernel[i]));
        often("asymmetric", 500, &|c| sides(c).iter().any(|[a, b]| a != b));
        often("dilation", 300, &|c| (0..2).any(|i| c.dilation[i] > 1 && c.kernel[i] > 1));
        often("1x1", 50, &|c| c.kernel == [1, 1]);
        let nr = tiles().into_iter().map(|[_, nr]| nr).max().unwrap();
        often("more than a tile", 100, &|c| c.out_channels / c.groups > nr);
        let rows = |c: &Conv2d, k| {
            (0..2).any(|i| {
                let room =
                    c.input[i] + sides(c)[i][0] + sides(c)[i][1] - c.dilation[i] * (c.kernel[i] - 1) - 1;
                c.stride[i] > 1 && room.is_multiple_of(c.stride[i]) != k
            })
        };
        often("strides that leave a rest", 200, &|c| rows(c, true));
    }

    #[test]
    fn a_failure_shrinks_to_something_small() {
        let mut runner = TestRunner::new(config(200));
        let failed = runner.run(&convs(), |conv| {
            prop_assert!(conv.out_channels < 5 || conv.stride[1] < 2);
            Ok(())
        });
        let Err(proptest::test_runner::TestError::Fail(_, conv)) = failed else { panic!("{failed:?}") };
        assert!(conv.geometry().unwrap().macs() <= 500, "{conv}");
    }

    #[test]
    fn the_seed_is_fixed() {
        assert_eq!(sample(20), sample(20));
    }
}
