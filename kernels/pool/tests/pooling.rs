//! Pooling is its definition: exact on maxima and on averages of small integers, for every instruction set, layout, window and number of
//! threads; gradients are those of the definition and adjoint to the forward pass.

use convolve_core::{Layout, Padding, Par, Update};
use convolve_pool::{Pool2d, Pooling, Reduction, Ties};
use convolve_simd::Isa;
use proptest::prelude::*;

/// The threads of a pool; without the feature `rayon`, the calling thread.
fn on(pool: &rayon::ThreadPool) -> Par<'_> {
    #[cfg(feature = "rayon")]
    return Par::Pool(pool);
    #[cfg(not(feature = "rayon"))]
    {
        let _ = pool;
        Par::Current
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) as u128 * n as u128) >> 64) as usize
    }

    fn integers(&mut self, len: usize, most: usize) -> Vec<f32> {
        (0..len).map(|_| self.below(2 * most + 1) as f32 - most as f32).collect()
    }
}

/// Where element `[n, c, y, x]` lies.
fn at(pool: &Pool2d, [height, width]: [usize; 2], [n, c, y, x]: [usize; 4]) -> usize {
    match pool.layout {
        Layout::Nchw => ((n * pool.channels + c) * height + y) * width + x,
        Layout::Nhwc => ((n * height + y) * width + x) * pool.channels + c,
    }
}

/// Every window: the place of its output, those of its taps in the image, row by row, and its divisor.
fn windows(pool: &Pool2d) -> Vec<(usize, Vec<usize>, f64)> {
    let geometry = pool.geometry().unwrap();
    let (output, padding) = (geometry.output(), geometry.padding());
    let mut windows = Vec::new();
    for n in 0..pool.batch {
        for (c, y, x) in (0..pool.channels)
            .flat_map(|c| (0..output[0]).flat_map(move |y| (0..output[1]).map(move |x| (c, y, x))))
        {
            let (mut taps, mut counted) = (Vec::new(), 0);
            for (i, j) in (0..pool.kernel[0]).flat_map(|i| (0..pool.kernel[1]).map(move |j| (i, j))) {
                let place = [(y, i, 0), (x, j, 1)].map(|(o, k, axis)| {
                    let q = o * pool.stride[axis] + k * pool.dilation[axis];
                    let [begin, end] = padding[axis];
                    let inside = (begin..begin + pool.input[axis]).contains(&q);
                    (q.wrapping_sub(begin), inside, q < begin + pool.input[axis] + end)
                });
                if place[0].1 && place[1].1 {
                    taps.push(at(pool, pool.input, [n, c, place[0].0, place[1].0]));
                }
                let counts = match pool.reduction {
                    Reduction::Average { count_include_pad: true, .. } => place[0].2 && place[1].2,
                    _ => place[0].1 && place[1].1,
                };
                counted += usize::from(counts);
            }
            let divisor = match pool.reduction {
                Reduction::Average { divisor: Some(divisor), .. } => divisor,
                _ => counted.max(1),
            };
            windows.push((at(pool, output, [n, c, y, x]), taps, divisor as f64));
        }
    }
    windows
}

fn greatest(taps: &[usize], src: &[f32]) -> f32 {
    taps.iter()
        .fold(f32::NEG_INFINITY, |max, &tap| if max.is_nan() || max > src[tap] { max } else { src[tap] })
}

fn defined_forward(pool: &Pool2d, src: &[f32]) -> Vec<f32> {
    let mut dst = vec![f32::NAN; pool.geometry().unwrap().dst_len()];
    for (to, taps, divisor) in windows(pool) {
        dst[to] = match pool.reduction {
            Reduction::Max { .. } => greatest(&taps, src),
            // The sum of small integers is exact in any order, the quotient is rounded once.
            Reduction::Average { .. } => taps.iter().map(|&tap| src[tap]).sum::<f32>() / divisor as f32,
        };
    }
    dst
}

/// In f64, and the sum of absolute values that its error is relative to.
fn defined_backward(pool: &Pool2d, src: &[f32], diff_dst: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let len = pool.geometry().unwrap().src_len();
    let (mut diff_src, mut scale) = (vec![0.0; len], vec![0.0; len]);
    for (from, taps, divisor) in windows(pool) {
        let gradient = f64::from(diff_dst[from]);
        let max = greatest(&taps, src);
        let hit = |tap: &&usize| src[**tap] == max || src[**tap].is_nan();
        let chosen: Vec<usize> = match pool.reduction {
            Reduction::Max { ties: Ties::First } => taps.iter().find(hit).copied().into_iter().collect(),
            Reduction::Max { ties: Ties::All } => taps.iter().filter(hit).copied().collect(),
            Reduction::Average { .. } => taps,
        };
        for tap in chosen {
            let part =
                if let Reduction::Average { .. } = pool.reduction { gradient / divisor } else { gradient };
            diff_src[tap] += part;
            scale[tap] += part.abs();
        }
    }
    (diff_src, scale)
}

fn run_forward(plan: &Pooling, src: &[f32], par: Par<'_>) -> Vec<f32> {
    let mut dst = vec![f32::NAN; plan.geometry().dst_len()];
    let mut workspace = vec![f32::NAN; plan.workspace_len()];
    plan.forward(src, &mut dst, &mut workspace, par).unwrap();
    dst
}

fn run_backward(plan: &Pooling, src: &[f32], diff_dst: &[f32], par: Par<'_>) -> Vec<f32> {
    let mut diff_src = vec![f32::NAN; plan.geometry().src_len()];
    let mut workspace = vec![f32::NAN; plan.workspace_len()];
    plan.backward(src, diff_dst, &mut diff_src, Update::Overwrite, &mut workspace, par).unwrap();
    diff_src
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
}

#[track_caller]
fn assert_same(what: &str, pool: &Pool2d, isa: Isa, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    let same = |a: f32, b: f32| a == b || a.is_nan() && b.is_nan();
    if let Some(i) = (0..got.len()).find(|&i| !same(got[i], expected[i])) {
        panic!("{what} of {pool:?} on {isa}: {} instead of {} at {i}", got[i], expected[i]);
    }
}

/// All laws of one problem on some data.
fn check(pool: Pool2d, src: &[f32], diff_dst: &[f32]) {
    let expected = defined_forward(&pool, src);
    let (gradient, scale) = defined_backward(&pool, src, diff_dst);
    let two = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    for &isa in Isa::available() {
        let [plan, shared] = [1, 2].map(|threads| pool.plan(isa, threads).unwrap());
        let dst = run_forward(&plan, src, Par::Seq);
        assert_same("forward", &pool, isa, &dst, &expected);
        assert!(same_bits(&dst, &run_forward(&shared, src, on(&two))), "threads: {pool:?} on {isa}");
        let diff_src = run_backward(&plan, src, diff_dst, Par::Seq);
        assert!(same_bits(&diff_src, &run_backward(&shared, src, diff_dst, on(&two))), "{pool:?} on {isa}");
        // Maxima: integers, exact. Averages: a quotient and at most 2^8 additions, each with a relative error of 2^-24.
        let bound = if let Reduction::Max { .. } = pool.reduction { 0.0 } else { 300.0 * 2f64.powi(-24) };
        for i in 0..diff_src.len() {
            let error = (f64::from(diff_src[i]) - gradient[i]).abs();
            let right = error <= bound * scale[i] || diff_src[i].is_nan() && gradient[i].is_nan();
            assert!(
                right,
                "backward of {pool:?} on {isa}: {} instead of {} at {i}",
                diff_src[i], gradient[i]
            );
        }
        let few = pool.kernel[0] * pool.kernel[1] <= 256;
        if few && pool.reduction == (Reduction::Max { ties: Ties::First }) {
            check_indices([&plan, &shared], src, diff_dst, [&dst, &diff_src], &two);
        }
        let mut sum = vec![1.0; diff_src.len()];
        plan.backward(src, diff_dst, &mut sum, Update::Accumulate, &mut plan.workspace().unwrap(), Par::Seq)
            .unwrap();
        let added: Vec<f32> = diff_src.iter().map(|x| x + 1.0).collect();
        assert!(same_bits(&sum, &added), "accumulate: {pool:?} on {isa}");
    }
}

/// A run that keeps indices gives the same maxima, on any number of threads the same indices, and from them the same gradient.
fn check_indices(
    plans: [&Pooling; 2],
    src: &[f32],
    diff_dst: &[f32],
    [dst, diff_src]: [&[f32]; 2],
    two: &rayon::ThreadPool,
) {
    let (pool, isa) = (plans[0].geometry().pool(), plans[0].isa());
    let mut all = Vec::new();
    for (plan, par) in plans.into_iter().zip([Par::Seq, on(two)]) {
        let (mut to, mut indices) = (vec![f32::NAN; dst.len()], vec![77; dst.len()]);
        let mut workspace = vec![f32::NAN; plan.workspace_len()];
        plan.forward_with_indices(src, &mut to, &mut indices, &mut workspace, par).unwrap();
        assert_same("forward with indices", pool, isa, &to, dst);
        let (mut sum, mut gradient) = (vec![1.0; src.len()], vec![f32::NAN; src.len()]);
        for (to, update) in [(&mut gradient, Update::Overwrite), (&mut sum, Update::Accumulate)] {
            plan.backward_from_indices(&indices, diff_dst, to, update, &mut workspace, par).unwrap();
        }
        assert_same("backward from indices", pool, isa, &gradient, diff_src);
        let added: Vec<f32> = diff_src.iter().map(|x| x + 1.0).collect();
        assert_same("accumulated from indices", pool, isa, &sum, &added);
        all.push(indices);
    }
    assert_eq!(all[0], all[1], "threads: {pool:?} on {isa}");
}

fn pools() -> impl Strategy<Value = Pool2d> {
    let axis = || (1usize..40, 1usize..5, 1usize..4, 1usize..3, 0usize..4, 0usize..4);
    let kind = prop_oneof![
        Just(Reduction::Max { ties: Ties::First }),
        Just(Reduction::Max { ties: Ties::All }),
        (any::<bool>(), prop_oneof![Just(None), (1usize..9).prop_map(Some)])
            .prop_map(|(count_include_pad, divisor)| Reduction::Average { count_include_pad, divisor }),
    ];
    let channels = prop_oneof![1usize..6, 7usize..40];
    let layout = prop_oneof![Just(Layout::Nchw), Just(Layout::Nhwc)];
    (0usize..3, channels, axis(), axis(), kind, layout, any::<bool>(), 0u32..6).prop_filter_map(
        "the window does not fit",
        |(batch, channels, h, w, reduction, layout, ceil_mode, padding)| {
            let padding = match padding {
                0 => Padding::Same,
                1 => Padding::SameLower,
                2 => Padding::Valid,
                _ => Padding::Explicit { top: h.4, bottom: h.5, left: w.4, right: w.5 },
            };
            let pool = Pool2d {
                batch,
                channels,
                input: [h.0, w.0],
                kernel: [h.1, w.1],
                stride: [h.2, w.2],
                dilation: [h.3, w.3],
                padding,
                ceil_mode,
                layout,
                reduction,
            };
            pool.geometry().ok().map(|_| pool)
        },
    )
}

/// The problems that networks have, global ones and large windows.
fn known() -> Vec<Pool2d> {
    let mut pools = Vec::new();
    for layout in Layout::ALL {
        for pool in [
            Pool2d::max(6, 2).input(24),
            Pool2d::max(16, 2).input([8, 10]),
            Pool2d::max(19, 2).input([9, 71]).batch(2),
            Pool2d::max(3, 2).input([500, 201]),
            Pool2d::max(17, 2).input([3, 3]).ties(Ties::All),
            Pool2d::max(64, 3).input(33).stride(2).padding(1),
            Pool2d::max(64, 3).input(32).stride(2).ceil_mode(true),
            Pool2d::max(5, [13, 9]).input([13, 20]).stride(1).padding([6, 4]),
            Pool2d::max(3, 2).input(71).stride(5),
            Pool2d::max(3, 2).input([70, 1]).stride([70, 1]).ceil_mode(true).padding(1),
            // Windows from far outside.
            Pool2d::max(1, [3, 1]).input(1).stride([3, 1]).dilation([2, 1]).padding([3, 0]),
            Pool2d::global_max(20, [7, 9]),
            Pool2d::global_max(2, [40, 70]),
            Pool2d::average(6, 2).input(24),
            Pool2d::average(32, 3).input(17).stride(1).padding(1),
            Pool2d::average(32, 3).input(17).stride(2).padding(1).count_include_pad(true).ceil_mode(true),
            Pool2d::global_average(20, 7),
            Pool2d::global_average(2, [33, 50]),
            Pool2d::max(2, [1, 3]).input([300, 300]).stride(1),
            Pool2d::average(40, 3).input([64, 64]).stride(1).batch(3),
            Pool2d::average(3, 3).input([40, 41]).stride(2).padding(1),
            Pool2d::average(3, 3).input([40, 42]).stride(2),
            Pool2d::average(9, 5).input([20, 38]).stride(2).padding(2),
            Pool2d::average(9, 4).input([20, 31]).stride(3).padding(1),
            Pool2d::average(2, 1).input([5, 50]).stride(2),
            // Steps of two in bands that begin in the middle of one.
            Pool2d::max(40, 3).input([70, 45]).stride(2).padding(1),
            Pool2d::max(40, 3).input([70, 45]).stride(2).padding(1).ties(Ties::All),
            Pool2d::average(40, 3).input([71, 44]).stride(2).padding(1),
            Pool2d::average(24, 2).input([61, 63]).stride(2).padding(1),
            Pool2d::max(2, 3).input([400, 201]).stride(2).padding(1),
            Pool2d::max(2, 3).input([401, 200]).stride(2).padding(1).ties(Ties::All),
            Pool2d::average(2, 3).input([400, 201]).stride(2).padding(1),
            Pool2d::average(1, 3).input([70, 3000]).stride(2).padding(1),
            Pool2d::global_average(200, [3, 5]),
            Pool2d::global_max(36, [4, 4]),
        ] {
            pools.push(pool.layout(layout));
        }
    }
    pools
}

fn data(pool: &Pool2d, seed: u64) -> (Vec<f32>, Vec<f32>) {
    let geometry = pool.geometry().unwrap();
    let mut random = Random(seed);
    (random.integers(geometry.src_len(), 8), random.integers(geometry.dst_len(), 50))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_pooling_is_its_definition(pool in pools(), seed: u64) {
        let (src, diff_dst) = data(&pool, seed);
        check(pool, &src, &diff_dst);
    }

    #[test]
    fn nan_and_infinities_are_what_the_definition_says(pool in pools(), seed: u64) {
        let (mut src, diff_dst) = data(&pool, seed);
        let mut random = Random(!seed);
        let special = [f32::NEG_INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY, f32::NAN, f32::INFINITY, -0.0, 0.0, 1.0];
        let some = if seed % 2 == 0 { 5 } else { 3 };
        src.iter_mut().for_each(|x| *x = special[random.below(some)]);
        if let Reduction::Max { .. } = pool.reduction {
            check(pool, &src, &diff_dst);
        }
    }

    #[test]
    fn average_backward_is_the_adjoint_of_forward(pool in pools(), seed: u64) {
        // With divisors that are powers of two everything is exact: <forward(x), y> = <x, backward(y)>.
        let pool = Pool2d { reduction: Reduction::Average { count_include_pad: false, divisor: Some(4) }, ..pool };
        let (x, y) = data(&pool, seed);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        for &isa in Isa::available() {
            let plan = pool.plan(isa, 1).unwrap();
            let (forward, backward) = (run_forward(&plan, &x, Par::Seq), run_backward(&plan, &[], &y, Par::Seq));
            assert_eq!(dot(&forward, &y), dot(&x, &backward), "{pool:?} on {isa}");
        }
    }
}

#[test]
fn known_poolings_are_their_definition() {
    for (seed, pool) in known().into_iter().enumerate() {
        let (src, diff_dst) = data(&pool, seed as u64);
        check(pool, &src, &diff_dst);
        check(pool, &vec![f32::NEG_INFINITY; src.len()], &diff_dst);
        let twice = pool.batch(2 * pool.batch);
        check(twice, &src.repeat(2), &diff_dst.repeat(2));
    }
}

#[test]
fn nonsense_is_refused_with_a_sentence() {
    let refuse = |pool: Pool2d| pool.plan(Isa::best(), 1).unwrap_err().to_string();
    assert_eq!(refuse(Pool2d::max(0, 2).input(4)), "channels = 0: it must be at least 1");
    assert_eq!(
        refuse(Pool2d::max(1, 2)),
        "input height = 0: it must be at least 1; set it with `.input([height, width])`"
    );
    assert!(refuse(Pool2d::max(1, 2).input(4).stride(0)).starts_with("stride height = 0"));
    assert!(refuse(Pool2d::max(1, 2).input(4).dilation(0)).contains("1 is dense"));
    assert!(refuse(Pool2d::average(1, 2).input(4).divisor(0)).starts_with("divisor = 0"));
    assert!(refuse(Pool2d::max(1, 5).input(4)).contains("pad by at least 1 more"));
    assert!(refuse(Pool2d::max(1, 2).input(4).padding(1 << 25)).starts_with("padding = 33554432"));
    let wide = Pool2d::max(1 << 41, [1, 2]).input(1).stride([1, 1 << 23]).padding([0, 1 << 24]);
    assert!(refuse(wide.layout(Layout::Nhwc)).starts_with("a row with its padding"));
    for most in [usize::MAX, usize::MAX / 2, usize::MAX / 4, 1 << 40] {
        assert!(Pool2d::max(most, 2).input(4).batch(most).plan(Isa::best(), 1).is_err());
        assert!(Pool2d::max(1, most).input(most).plan(Isa::best(), 1).is_err());
        assert!(Pool2d::max(1, most).input(4).padding(most).plan(Isa::best(), 1).is_err());
        assert!(
            Pool2d::max(1, 2).input(4).dilation(most).padding(Padding::Same).plan(Isa::best(), 1).is_err()
        );
    }
    let indices = |pool: Pool2d| {
        let plan = pool.plan(Isa::best(), 1).unwrap();
        let (mut src, dst) = (vec![0.0; plan.geometry().src_len()], vec![0.0; plan.geometry().dst_len()]);
        let (indices, mut workspace) = (vec![0; dst.len()], plan.workspace().unwrap());
        plan.backward_from_indices(&indices, &dst, &mut src, Update::Overwrite, &mut workspace, Par::Seq)
    };
    assert!(indices(Pool2d::max(1, 16).input(16)).is_ok());
    let error = indices(Pool2d::max(1, [1, 257]).input([1, 300])).unwrap_err().to_string();
    assert!(error.starts_with("kernel = 257: it must be at most 256 taps"), "{error}");
    for pool in [Pool2d::average(1, 2).input(4), Pool2d::max(1, 2).input(4).ties(Ties::All)] {
        let error = indices(pool).unwrap_err().to_string();
        assert_eq!(
            error,
            "indices = 4: indices tell the first maximum of a window, and no other reduction or ties"
        );
    }
    let plan = Pool2d::max(2, 2).input(4).plan(Isa::best(), 1).unwrap();
    let mut workspace = plan.workspace().unwrap();
    let error = plan.forward(&[0.0; 32], &mut [0.0; 7], &mut workspace, Par::Seq).unwrap_err();
    assert_eq!(error.to_string(), "dst has 7 elements, but [1, 2, 2, 2] NCHW needs 8");
    assert!(plan.forward(&[0.0; 32], &mut [0.0; 8], &mut [], Par::Seq).is_err());
    assert!(
        plan.backward(&[], &[0.0; 8], &mut [0.0; 32], Update::Overwrite, &mut workspace, Par::Seq).is_err()
    );
}

/// Found by a property test: the step from row to row overflowed where there is none.
#[test]
fn a_single_tap_has_no_dilation() {
    for layout in Layout::ALL {
        for pool in [Pool2d::max(1, 1), Pool2d::average(1, 1)] {
            let pool = pool.input([2, 2]).dilation([usize::MAX, usize::MAX]).layout(layout);
            let plan = pool.plan(Isa::best(), 1).unwrap();
            let (src, mut dst, mut workspace) = ([1.0, 2.0, 3.0, 4.0], [0.0; 4], plan.workspace().unwrap());
            plan.forward(&src, &mut dst, &mut workspace, Par::Seq).unwrap();
            assert_eq!(dst, src);
            plan.backward(&src, &src, &mut dst, Update::Accumulate, &mut workspace, Par::Seq).unwrap();
            assert_eq!(dst, [2.0, 4.0, 6.0, 8.0]);
        }
    }
}
