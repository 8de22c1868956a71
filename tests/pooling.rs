//! Pooling with numbers that are not finite, and its adjointness: NaN and infinities stay in the windows that have them and change nothing
//! else, gradients are adjoint to the layer, and any numbers give a plan or a sentence.

use convolve::{Error, Isa, Layout, Padding, Par, Pool2d, Pooling, Reduction, Ties, Update, pool_definition};
use convolve_testkit::data::{Random, floats, inner, integers, small};
use convolve_testkit::pooling::{self, Window, windows};
use convolve_testkit::{Run, close, isas, pool, strategy};
use proptest::prelude::*;
use proptest::sample::select;

fn averages() -> impl Strategy<Value = Reduction> {
    (any::<bool>(), prop_oneof![3 => Just(None), 1 => (1usize..9).prop_map(Some)])
        .prop_map(|(count_include_pad, divisor)| Reduction::Average { count_include_pad, divisor })
}

fn maxima() -> impl Strategy<Value = Reduction> {
    select(vec![Reduction::Max { ties: Ties::First }, Reduction::Max { ties: Ties::All }])
}

/// Poolings of every kind. Half of the windows are those that step by their own size or by two, which have code of their own.
fn pools(reduction: impl Strategy<Value = Reduction>) -> impl Strategy<Value = Pool2d> {
    let taps = prop_oneof![
        2 => (1usize..5, 1usize..4, 1usize..3),
        1 => select(vec![(2, 2, 1), (3, 2, 1), (3, 3, 1), (2, 1, 1)]),
    ];
    let pair = prop_oneof![2 => taps.clone().prop_map(|taps| [taps, taps]), 1 => [taps.clone(), taps]];
    let sides = [0usize..4, 0usize..4, 0usize..4, 0usize..4];
    let channels = prop_oneof![2 => 1usize..6, 1 => 7usize..35];
    let sizes = (0usize..3, channels, [1usize..24, 1usize..40]);
    (sizes, pair, sides, 0u32..8, reduction, select(&Layout::ALL[..]), any::<bool>()).prop_filter_map(
        "the window does not fit",
        |(
            (batch, channels, input),
            [h, w],
            [top, bottom, left, right],
            kind,
            reduction,
            layout,
            ceil_mode,
        )| {
            let padding = match kind {
                0 => Padding::Same,
                1 => Padding::SameLower,
                2 | 3 => Padding::Valid,
                4 => Padding::from(1),
                _ => Padding::Explicit { top, bottom, left, right },
            };
            let (kernel, stride, dilation) = ([h.0, w.0], [h.1, w.1], [h.2, w.2]);
            let pool = Pool2d {
                batch,
                channels,
                input,
                kernel,
                stride,
                dilation,
                padding,
                ceil_mode,
                layout,
                reduction,
            };
            pool.geometry().ok().map(|_| pool)
        },
    )
}

/// Global averages and others that are read at once, and sizes of several tasks.
fn large() -> Vec<Pool2d> {
    let pools = [
        Pool2d::global_average(20, 7).batch(2),
        Pool2d::global_average(3, [33, 50]),
        Pool2d::average(5, 2).input([40, 90]),
        Pool2d::average(33, 3).input([40, 41]).stride(2).padding(1),
        Pool2d::average(2, 3).input([300, 201]).stride(1).padding(1).count_include_pad(true),
        Pool2d::average(9, 5).input([20, 38]).stride(2).padding(2).ceil_mode(true),
        Pool2d::max(33, 3).input([40, 41]).stride(2).padding(1),
        Pool2d::max(5, 2).input([40, 90]).ties(Ties::All),
        Pool2d::global_max(18, [9, 5]),
    ];
    pools.into_iter().flat_map(|pool| Layout::ALL.map(|layout| pool.layout(layout))).collect()
}

/// Serial, or on three threads; buffers start as poison.
fn run(
    plan: &Pooling,
    to: usize,
    at: usize,
    go: impl Fn(&mut [f32], &mut [f32], Par<'_>) -> Result<(), Error> + Sync,
) -> Vec<f32> {
    let poison = Run::POISONS[at / 3];
    let (mut result, mut workspace) = (vec![poison; to], vec![poison; plan.workspace_len()]);
    match at {
        1 => go(&mut result, &mut workspace, Par::Seq).unwrap(),
        _ => pool(at).install(|| go(&mut result, &mut workspace, Par::Current).unwrap()),
    }
    result
}

fn forward(plan: &Pooling, src: &[f32], threads: usize) -> Vec<f32> {
    run(plan, plan.geometry().dst_len(), threads, |dst, workspace, par| {
        plan.forward(src, dst, workspace, par)
    })
}

fn backward(plan: &Pooling, src: &[f32], diff_dst: &[f32], threads: usize) -> Vec<f32> {
    run(plan, plan.geometry().src_len(), threads, |diff_src, workspace, par| {
        plan.backward(src, diff_dst, diff_src, Update::Overwrite, workspace, par)
    })
}

/// Every plan of a problem: each instruction set, for one and three threads.
fn plans(problem: Pool2d) -> impl Iterator<Item = (Isa, usize, Pooling)> {
    let each = isas().into_iter().flat_map(|isa| [1, 3].map(|threads| (isa, threads)));
    each.map(move |(isa, threads)| (isa, threads, problem.plan(isa, threads).unwrap()))
}

fn fail(problem: Pool2d, isa: Isa, what: &str, agree: Result<(), String>) -> Result<(), TestCaseError> {
    agree.map_err(|e| TestCaseError::fail(format!("{what} of {problem:?} on {isa}: {e}")))
}

/// Some elements become something else: which of them, and what, is chance; sometimes a single one.
fn with_specials(x: &[f32], specials: &[f32], seed: u64) -> Vec<f32> {
    let mut random = Random::new(!seed);
    let (every, mut x) = (1 + random.below(60), x.to_vec());
    if !x.is_empty() {
        let count = if seed.is_multiple_of(3) { 1 } else { x.len().div_ceil(every) };
        (0..count).for_each(|_| {
            let at = random.below(x.len());
            x[at] = specials[random.below(specials.len())];
        });
    }
    x
}

const SPECIALS: [f32; 4] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];

/// The quotient of the sum of a window: of small integers correctly rounded, since f64 has more than twice the bits.
fn average(window: &Window, src: &[f32]) -> f32 {
    // A sum of nothing is -0 in Rust.
    let sum = 0.0 + window.pixels.iter().map(|&i| f64::from(src[i])).sum::<f64>();
    (sum / window.divisor as f64) as f32
}

fn forward_keeps_to_its_windows(problem: Pool2d, seed: u64) -> Result<(), TestCaseError> {
    let geometry = problem.geometry().unwrap();
    let clean = floats(&small(geometry.src_len(), seed));
    let src = with_specials(&clean, &SPECIALS, seed);
    let mut expected = vec![0.0; geometry.dst_len()];
    for window in windows(&problem).unwrap() {
        expected[window.output] = average(&window, &src);
    }
    let shape = [1, 1, 1, expected.len()];
    for (isa, threads, plan) in plans(problem) {
        fail(problem, isa, "forward", close::same_bits(shape, &forward(&plan, &src, threads), &expected))?;
    }
    Ok(())
}

/// The windows whose gradient each pixel gets.
fn sources(problem: &Pool2d, src: &[f32]) -> Vec<Vec<usize>> {
    let mut sources = vec![Vec::new(); src.len()];
    for window in windows(problem).unwrap() {
        let greatest = window.pixels.iter().map(|&i| src[i]).fold(f32::NEG_INFINITY, f32::max);
        let won = |i: &&usize| src[**i] == greatest;
        let chosen: Vec<_> = match problem.reduction {
            Reduction::Average { .. } => window.pixels.iter().collect(),
            Reduction::Max { ties: Ties::First } => window.pixels.iter().find(won).into_iter().collect(),
            Reduction::Max { ties: Ties::All } => window.pixels.iter().filter(won).collect(),
        };
        chosen.into_iter().for_each(|&i| sources[i].push(window.output));
    }
    sources
}

fn backward_keeps_to_its_windows(problem: Pool2d, seed: u64) -> Result<(), TestCaseError> {
    let geometry = problem.geometry().unwrap();
    let src = floats(&small(geometry.src_len(), !seed));
    let clean = floats(&small(geometry.dst_len(), seed));
    let diff_dst = with_specials(&clean, &SPECIALS, seed);
    let sources = sources(&problem, &src);
    for (isa, threads, plan) in plans(problem) {
        // Pixels of other windows have the bits that they have without; sums of what is not finite depend on no order.
        let mut expected = backward(&plan, &src, &clean, threads);
        for (to, from) in expected.iter_mut().zip(&sources) {
            let sum: f32 = from.iter().map(|&i| diff_dst[i]).filter(|x| !x.is_finite()).sum();
            if sum != 0.0 {
                *to = sum;
            }
        }
        let (got, shape) = (backward(&plan, &src, &diff_dst, threads), [1, 1, 1, src.len()]);
        fail(problem, isa, "backward", close::same_bits(shape, &got, &expected))?;
        if let Reduction::Max { ties: Ties::First } = problem.reduction {
            let mut indices = vec![0; diff_dst.len()];
            forward_with_indices(&plan, &src, &mut indices);
            let got = run(&plan, src.len(), threads, |diff_src, workspace, par| {
                plan.backward_from_indices(&indices, &diff_dst, diff_src, Update::Overwrite, workspace, par)
            });
            fail(problem, isa, "backward from indices", close::same_bits(shape, &got, &expected))?;
        }
    }
    Ok(())
}

fn forward_with_indices(plan: &Pooling, src: &[f32], indices: &mut [u8]) -> Vec<f32> {
    let (mut dst, mut workspace) = (vec![f32::NAN; indices.len()], vec![f32::NAN; plan.workspace_len()]);
    plan.forward_with_indices(src, &mut dst, indices, &mut workspace, Par::Seq).unwrap();
    dst
}

/// <pool(x), y> = <x, backward(y)>.
fn averages_are_adjoint(problem: Pool2d, seed: u64) -> Result<(), TestCaseError> {
    let geometry = problem.geometry().unwrap();
    let x = small(geometry.src_len(), seed);
    let y = small(geometry.dst_len(), !seed);
    let windows = windows(&problem).unwrap();
    // Times a power of two that every divisor divides, results are integers; other divisors are rounded.
    let powers = windows.iter().all(|window| window.divisor.is_power_of_two());
    let scale = windows.iter().map(|window| window.divisor).max().unwrap_or(1) as i64;
    let [left, right] = [&x, &y].map(|x| floats(&x.iter().map(|x| x * scale).collect::<Vec<_>>()));
    let mut defined = [vec![0.0; y.len()], vec![0.0; x.len()]];
    let mut bounds = defined.clone();
    let reached = sources(&problem, &left);
    for Window { output, pixels, divisor } in windows {
        for i in pixels {
            let parts = [(output, left[i]), (i, right[output])];
            for (k, (at, x)) in parts.into_iter().enumerate() {
                let part = f64::from(x) / divisor as f64;
                defined[k][at] += part;
                // A quotient of an exact sum is rounded once. A part of a gradient is two reciprocals and two products, then added up.
                let roundings = if k == 0 { 1.0 } else { 4.0 + reached[i].len() as f64 };
                bounds[k][at] += if powers { 0.0 } else { 1.001 * roundings * 2f64.powi(-24) * part.abs() };
            }
        }
    }
    for (isa, threads, plan) in plans(problem) {
        let got = [forward(&plan, &left, threads), backward(&plan, &left, &right, threads)];
        for (k, name) in ["forward", "backward"].into_iter().enumerate() {
            fail(
                problem,
                isa,
                name,
                close::within([1, 1, 1, got[k].len()], &got[k], &defined[k], &bounds[k]),
            )?;
        }
        if powers {
            let [dst, diff_src] = got.each_ref().map(|x| integers(x).unwrap());
            prop_assert_eq!(inner(&dst, &y), inner(&x, &diff_src), "{:?} on {}", problem, isa);
        }
    }
    Ok(())
}

/// The same for maxima, which are linear where winners do not change: all values differ, so that there are no ties. Windows of nothing but
/// padding have no value, and their y is 0.
fn maxima_are_adjoint(problem: Pool2d, seed: u64) -> Result<(), TestCaseError> {
    let geometry = problem.geometry().unwrap();
    let mut random = Random::new(seed);
    let mut x: Vec<i64> = (0..geometry.src_len() as i64).map(|i| 2 * i - geometry.src_len() as i64).collect();
    (1..x.len()).for_each(|i| x.swap(i, random.below(i + 1)));
    let (mut y, src) = (small(geometry.dst_len(), !seed), floats(&x));
    let windows = windows(&problem).unwrap();
    let empty = |window: &&Window| window.pixels.is_empty();
    windows.iter().filter(empty).for_each(|window| y[window.output] = 0);
    let reached = sources(&problem, &src);
    let expected: Vec<i64> = reached.iter().map(|from| from.iter().map(|&i| y[i]).sum()).collect();
    for (isa, threads, plan) in plans(problem) {
        let mut dst = forward(&plan, &src, threads);
        windows.iter().filter(empty).for_each(|window| dst[window.output] = 0.0);
        let diff_src = integers(&backward(&plan, &src, &floats(&y), threads)).unwrap();
        let dst = integers(&dst).unwrap();
        prop_assert_eq!(inner(&dst, &y), inner(&x, &diff_src), "{:?} on {}", problem, isa);
        // Nobody gets what he did not win: the gradient is that of the selected pixels, one by one.
        fail(problem, isa, "backward", close::exact([1, 1, 1, src.len()], &floats(&diff_src), &expected))?;
    }
    Ok(())
}

/// A problem of numbers that may be anything.
fn anything() -> impl Strategy<Value = Pool2d> {
    let number = || {
        prop_oneof![
            12 => 1usize..=9,
            1 => (0u32..usize::BITS).prop_map(|log| 1usize << log),
            1 => (0u32..usize::BITS).prop_map(|log| (1usize << log).wrapping_sub(1)),
            1 => Just(usize::MAX),
        ]
    };
    let pair = move || [number(), number()];
    let padding = prop_oneof![
        1 => select(vec![Padding::Valid, Padding::Same, Padding::SameLower]),
        1 => [number(), number(), number(), number()]
            .prop_map(|[top, bottom, left, right]| Padding::Explicit { top, bottom, left, right }),
    ];
    let reduction = prop_oneof![
        maxima(),
        averages(),
        number().prop_map(|divisor| Reduction::Average { count_include_pad: true, divisor: Some(divisor) }),
    ];
    let shape = ([number(), number()], pair(), pair(), pair(), pair());
    (shape, padding, any::<bool>(), select(&Layout::ALL[..]), reduction).prop_map(
        |(([batch, channels], input, kernel, stride, dilation), padding, ceil_mode, layout, reduction)| {
            Pool2d { batch, channels, input, kernel, stride, dilation, padding, ceil_mode, layout, reduction }
        },
    )
}

proptest! {
    #![proptest_config(strategy::config(500))]

    #[test]
    fn what_is_not_finite_stays_in_the_averages_that_have_it(problem in pools(averages()), seed in any::<u64>()) {
        forward_keeps_to_its_windows(problem, seed)?;
    }

    #[test]
    fn a_gradient_that_is_not_finite_stays_with_the_pixels_it_reaches(
        problem in pools(prop_oneof![averages(), maxima()]), seed in any::<u64>()
    ) {
        backward_keeps_to_its_windows(problem, seed)?;
    }

    #[test]
    fn averages_are_adjoint_to_their_gradient(problem in pools(averages()), seed in any::<u64>()) {
        averages_are_adjoint(problem, seed)?;
    }

    #[test]
    fn maxima_are_adjoint_to_their_gradient(problem in pools(maxima()), seed in any::<u64>()) {
        maxima_are_adjoint(problem, seed)?;
    }
}

proptest! {
    #![proptest_config(strategy::config(20_000))]

    /// Nothing panics, sizes are those of 128-bit arithmetic, and what is small enough to run is its definition.
    #[test]
    fn any_numbers_give_a_plan_or_a_sentence(problem in anything(), seed in any::<u64>()) {
        pooling::same_geometry(&problem).map_err(TestCaseError::fail)?;
        let Ok(geometry) = problem.geometry() else { return Ok(()) };
        let all = |sizes: &[usize]| sizes.iter().fold(1, |product: usize, &x| product.saturating_mul(x.max(1)));
        let ([h, w], [kh, kw], images) = (geometry.output(), problem.kernel, all(&[problem.batch, problem.channels]));
        if all(&[images, h, w, kh, kw]).max(all(&[images, all(&problem.input)])) > 1 << 14 {
            return Ok(());
        }
        let isa = isas()[seed as usize % isas().len()];
        let Ok(plan) = problem.plan(isa, 1) else { return Ok(()) };
        if plan.workspace_len() > 1 << 22 {
            return Ok(());
        }
        let (x, y) = (small(geometry.src_len(), seed), small(geometry.dst_len(), !seed));
        let [src, diff_dst] = [&x, &y].map(|x| floats(x));
        let doubles = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let expected: Vec<f32> =
            pool_definition::forward(&geometry, &doubles(&src)).into_iter().map(|x| x as f32).collect();
        let got = forward(&plan, &src, 1);
        let same = |a: &f32, b: &f32| a.to_bits() == b.to_bits() || *a == 0.0 && *b == 0.0;
        prop_assert!(got.iter().zip(&expected).all(|(a, b)| same(a, b)), "{:?}: {:?}, {:?}", problem, got, expected);
        let [expected, scale] = [false, true].map(|absolute| {
            let y = y.iter().map(|&y| if absolute { y.abs() as f64 } else { y as f64 }).collect::<Vec<_>>();
            pool_definition::backward(&geometry, &doubles(&src), &y)
        });
        // Maxima are exact; parts of an average are rounded four times and added up.
        let average = matches!(problem.reduction, Reduction::Average { .. });
        let roundings = if average { 1.001 * (4 + kh * kw) as f64 * 2f64.powi(-24) } else { 0.0 };
        let bound: Vec<f64> = scale.iter().map(|x| roundings * x).collect();
        let got = backward(&plan, &src, &diff_dst, 1);
        close::within([1, 1, 1, got.len()], &got, &expected, &bound).map_err(TestCaseError::fail)?;
    }
}

#[test]
fn large_poolings_keep_to_their_windows_and_are_adjoint() {
    for (problem, seed) in large().into_iter().zip(0..) {
        backward_keeps_to_its_windows(problem, seed).unwrap();
        if let Reduction::Max { .. } = problem.reduction {
            maxima_are_adjoint(problem, seed).unwrap();
        } else {
            forward_keeps_to_its_windows(problem, seed).unwrap();
            averages_are_adjoint(problem, seed).unwrap();
        }
    }
}

/// One NaN at each place in turn, seen from every window: the whole map of what reaches what.
#[test]
fn a_single_nan_reaches_its_windows_and_no_other() {
    for layout in Layout::ALL {
        for problem in [
            Pool2d::average(2, 3).input([5, 9]).stride(2).padding(1),
            Pool2d::average(2, 2).input([5, 9]).stride(1),
            Pool2d::average(3, 2).input([4, 6]).ceil_mode(true),
            Pool2d::average(1, [2, 3]).input([6, 8]).dilation([2, 1]).padding(1).count_include_pad(true),
            Pool2d::global_average(3, [3, 4]),
            Pool2d::average(2, 1).input(4).stride(2),
        ] {
            let problem = problem.layout(layout);
            let (geometry, windows) = (problem.geometry().unwrap(), windows(&problem).unwrap());
            let [src, diff_dst] = [geometry.src_len(), geometry.dst_len()].map(|len| floats(&small(len, 3)));
            for (isa, threads, plan) in plans(problem) {
                for at in 0..src.len() {
                    let mut src = src.clone();
                    src[at] = f32::NAN;
                    let dst = forward(&plan, &src, threads);
                    let right = windows.iter().all(|w| dst[w.output].is_nan() == w.pixels.contains(&at));
                    assert!(right, "{problem:?} on {isa}: NaN at {at} gives {dst:?}");
                }
                for at in &windows {
                    let mut diff_dst = diff_dst.clone();
                    diff_dst[at.output] = f32::NAN;
                    let diff_src = backward(&plan, &src, &diff_dst, threads);
                    let right = (0..src.len()).all(|i| diff_src[i].is_nan() == at.pixels.contains(&i));
                    assert!(right, "{problem:?} on {isa}: NaN at {} gives {diff_src:?}", at.output);
                }
            }
        }
    }
}
