//! Every output against f64, within a bound of its own: the *shadow*, the same algorithm on absolute values with the absolute values of its
//! matrices. What the transforms amplify is in it, so it neither hides a lost tap nor calls honest rounding a fault.

use crate::blocks::Blocks;
use crate::matrices::{Parts, points};
use crate::shape::Shape;
use crate::{ALL, F2X3, F4X3, Winograd};
use convolve_core::{
    Accuracy, Algorithm, BackwardData, BackwardDataArgs, BackwardWeights, BackwardWeightsArgs, Caches,
    Conv2d, Direction, Epilogue, Execute, Forward, ForwardArgs, Geometry, Layout, Machine, Par, Problem,
    Sides, Update, definition,
};
use convolve_gemm::{Ukernel, ukernels};
use convolve_simd::Isa;

const U: f64 = 1.0 / (1 << 24) as f64;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
    fn reals(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next() as f32 / (1u32 << 30) as f32 - 1.0).collect()
    }
    fn integers(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| (self.next() % 17) as f32 - 8.0).collect()
    }
}

fn problem(geometry: Geometry, isa: Isa) -> Problem {
    let (caches, machine) = (Caches::default(), Machine::GENERIC);
    Problem { geometry, isa, threads: 1, accuracy: Accuracy::Relaxed, caches, machine, rank: 0 }
}

/// The tensors of a pass: forward 0, backward-data 1, backward-weights 2.
fn run(winograd: &'static Winograd, problem: &Problem, pass: usize, left: &[f32], right: &[f32]) -> Vec<f32> {
    let dirty = |len: usize| vec![f32::NAN; len];
    match pass {
        0 => {
            let executor = Algorithm::<Forward>::build(winograd, problem);
            let (mut packed, mut workspace) = (dirty(executor.packed_len()), dirty(executor.workspace_len()));
            executor.pack(right, &mut packed);
            let mut dst = dirty(problem.geometry.dst_len());
            let args = ForwardArgs { src: left, weights: &packed, dst: &mut dst, epilogue: Epilogue::NONE };
            executor.run(args, &mut workspace, Par::Seq);
            dst
        }
        1 => {
            let executor = Algorithm::<BackwardData>::build(winograd, problem);
            let (mut packed, mut workspace) = (dirty(executor.packed_len()), dirty(executor.workspace_len()));
            executor.pack(right, &mut packed);
            let mut diff_src = dirty(problem.geometry.src_len());
            let update = Update::Overwrite;
            let args = BackwardDataArgs { diff_dst: left, weights: &packed, diff_src: &mut diff_src, update };
            executor.run(args, &mut workspace, Par::Seq);
            diff_src
        }
        _ => {
            let executor = Algorithm::<BackwardWeights>::build(winograd, problem);
            let mut workspace = dirty(executor.workspace_len());
            let mut diff_weights = dirty(problem.geometry.weights_len());
            let update = Update::Overwrite;
            let args =
                BackwardWeightsArgs { src: left, diff_dst: right, diff_weights: &mut diff_weights, update };
            executor.run(args, &mut workspace, Par::Seq);
            diff_weights
        }
    }
}

fn lens(geometry: &Geometry, pass: usize) -> [usize; 2] {
    let [src, weights, dst] = [geometry.src_len(), geometry.weights_len(), geometry.dst_len()];
    [[src, weights], [dst, weights], [src, dst]][pass]
}

fn exact(geometry: &Geometry, pass: usize, left: &[f64], right: &[f64]) -> Vec<f64> {
    match pass {
        0 => definition::forward(geometry, left, right),
        1 => definition::backward_data(geometry, left, right),
        _ => definition::backward_weights(geometry, left, right),
    }
}

/// |A|, |G|, |B| of one axis: `spread[o][e][i]` is the weight of pixel `i` times tap `e` in output `o`.
fn spread(m: usize, r: usize) -> Vec<Vec<Vec<f64>>> {
    let (n, parts) = (m + r - 1, Parts::new(points(m + r - 1)));
    let (at, g, bt) = (parts.at(m), parts.g(r), parts.bt());
    let of = |o: usize, k: usize, i: usize| (0..n).map(|f| (at[o][f] * g[f][k] * bt[f][i]).abs()).sum();
    (0..m).map(|o| (0..r).map(|k| (0..n).map(|i| of(o, k, i)).collect()).collect()).collect()
}

/// The shadow of each result.
fn shadow(winograd: &Winograd, geometry: &Geometry, pass: usize, left: &[f64], right: &[f64]) -> Vec<f64> {
    let ([my, mx], [ry, rx]) = (winograd.outputs, winograd.kernel);
    let direction = if pass == 1 { Direction::BackwardData } else { Direction::Forward };
    let sides = Sides::new(geometry, direction);
    let [sy, sx] = [spread(my, ry), spread(mx, rx)];
    let taps = sides.phases[0].axes.map(|axis| axis.taps);
    let (input, output) = (sides.input, sides.output);
    let len = [geometry.dst_len(), geometry.src_len(), geometry.weights_len()][pass];
    let mut shadow = vec![0.0; len];
    let weights = geometry.weights();
    let pixel = |n: usize, c: usize, y: isize, x: isize| {
        let inside = (0..input.size[0] as isize).contains(&y) && (0..input.size[1] as isize).contains(&x);
        let at = n * input.strides.image + c * input.strides.channel;
        inside.then(|| at + y as usize * input.strides.row + x as usize * input.strides.column)
    };
    // The weight of pixel `i` of the tile times tap `k` in the output at `at`, and where that pixel is: with dilation a tile is in a lattice.
    let see = |axis: usize, at: usize, m: usize, k: usize, i: usize| {
        let step = if taps[axis].count > 1 { taps[axis].step_d } else { 1 };
        let (lattice, at) = (at % step, at / step);
        let factor = [&sy, &sx][axis][at % m][k][i];
        (factor, ((at / m * m + i) * step + lattice) as isize + taps[axis].first_d)
    };
    for n in 0..sides.batch {
        for oc in 0..output.channels * sides.groups {
            let group = oc / output.channels;
            for ic in 0..input.channels {
                for (y, x) in (0..output.size[0]).flat_map(|y| (0..output.size[1]).map(move |x| (y, x))) {
                    let at = n * output.strides.image + oc * output.strides.channel;
                    let to = at + y * output.strides.row + x * output.strides.column;
                    for (k, l) in (0..ry).flat_map(|k| (0..rx).map(move |l| (k, l))) {
                        let (start, [o, i]) = sides.weight(group, [taps[0].k(k), taps[1].k(l)]);
                        let weight = start + oc % output.channels * o + ic * i;
                        for (i, j) in (0..my + ry - 1).flat_map(|i| (0..mx + rx - 1).map(move |j| (i, j))) {
                            let (factor_y, row) = see(0, y, my, k, i);
                            let (factor_x, column) = see(1, x, mx, l, j);
                            let factor = factor_y * factor_x;
                            let Some(from) = pixel(n, group * input.channels + ic, row, column) else {
                                continue;
                            };
                            match pass {
                                // A and G change places: the tap is the output, the output the tap.
                                2 => {
                                    shadow[weights.at(oc, ic, [k, l])] +=
                                        factor * left[from].abs() * right[to].abs()
                                }
                                _ => shadow[to] += factor * left[from].abs() * right[weight].abs(),
                            }
                        }
                    }
                }
            }
        }
    }
    shadow
}

/// Fails when a result is further from f64 than its shadow allows; the greatest error in units of sqrt(terms) u shadow.
fn check(winograd: &'static Winograd, conv: Conv2d, isa: Isa, random: &mut Random) -> f64 {
    let geometry = conv.geometry().unwrap();
    let problem = problem(geometry, isa);
    let mut worst = 0.0f64;
    for pass in 0..3 {
        let [left, right] = lens(&geometry, pass).map(|len| random.reals(len));
        let [l, r] = [&left, &right].map(|x| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
        let (exact, shadow) = (exact(&geometry, pass, &l, &r), shadow(winograd, &geometry, pass, &l, &r));
        let terms = match pass {
            0 => geometry.group_in(),
            1 => geometry.group_out(),
            _ => conv.batch * geometry.output()[0] * geometry.output()[1],
        };
        for (i, y) in run(winograd, &problem, pass, &left, &right).into_iter().enumerate() {
            let error = (f64::from(y) - exact[i]).abs();
            let allowed = 2.0 * (terms as f64).sqrt() * U * shadow[i];
            assert!(
                error <= allowed,
                "{} {conv} {isa} pass {pass}: {i} is off by {error}, {allowed}",
                winograd.name
            );
            worst = worst.max(error / (allowed / 2.0).max(f64::MIN_POSITIVE));
        }
    }
    worst
}

fn sized(winograd: &Winograd, ic: usize, oc: usize, input: [usize; 2]) -> Conv2d {
    Conv2d::new(ic, oc, winograd.kernel).input(input)
}

#[test]
fn every_result_is_within_its_shadow() {
    let (mut random, mut lattices) = (Random(1), Random(2));
    for &winograd in ALL {
        let mut worst = 0.0f64;
        for &isa in Isa::available() {
            for (turn, (ic, oc, input)) in [
                (1, 1, [9, 9]),
                (3, 5, [7, 12]),
                (17, 4, [6, 5]),
                (5, 33, [8, 7]),
                (16, 16, [13, 6]),
                (8, 6, [17, 9]),
            ]
            .into_iter()
            .enumerate()
            {
                let layout = Layout::ALL[turn % 2];
                let conv =
                    sized(winograd, ic, oc, input).layout(layout).padding(turn % 3).batch(1 + turn % 2);
                worst = worst.max(check(winograd, conv, isa, &mut random));
            }
            let groups = sized(winograd, 6, 4, [7, 8]).groups(2).padding(1);
            worst = worst.max(check(winograd, groups, isa, &mut random));
            // On lattices that tiles do not fill.
            let padding = winograd.kernel.map(|taps| taps / 2 * 2);
            let dilated = sized(winograd, 2, 3, [13, 14]).padding(padding).dilation(2);
            worst = worst.max(check(winograd, dilated, isa, &mut lattices));
        }
        println!(
            "{}: worst error {worst:.2} sqrt(C) u shadow, amplification {:.0}",
            winograd.name,
            winograd.amplification()
        );
    }
}

/// Convolution is bilinear, so all pairs of basis vectors, over an image with inner, edge and corner tiles, prove its structure.
#[test]
fn all_pairs_of_basis_vectors() {
    for &winograd in ALL {
        // The least size with a tile at each border and one at none.
        let sides = winograd.kernel.map(|taps| taps / 2);
        // A tile that begins inside has as many before it as there are outputs beside the middle tap.
        let before = |a: usize| sides[a].div_ceil(winograd.outputs[a]).max(1);
        let input = [0, 1].map(|a| (before(a) + 1) * winograd.outputs[a] + sides[a]);
        for (a, side) in sides.into_iter().enumerate().filter(|(_, side)| *side > 0) {
            let (outputs, tile) = (winograd.outputs[a], winograd.outputs[a] + 2 * side);
            let classes: Vec<[bool; 2]> = (0..input[a].div_ceil(outputs))
                .map(|i| [i * outputs < side, i * outputs + tile > input[a] + side])
                .collect();
            for class in [[true, false], [false, false], [false, true]] {
                assert!(classes.contains(&class), "{}: no tile of class {class:?}", winograd.name);
            }
        }
        let conv = sized(winograd, 1, 1, input).padding(sides);
        let geometry = conv.geometry().unwrap();
        let problem = problem(geometry, Isa::best());
        for pass in 0..3 {
            let [left_len, right_len] = lens(&geometry, pass);
            // One product, added up over tiles in weight gradients; never more than a thousandth.
            let terms = if pass == 2 { input[0] * input[1] } else { 1 };
            let bound = (winograd.amplification() * (terms + 40) as f64 * 2.0f64.powi(-24)).min(1e-3);
            for (i, j) in (0..left_len).flat_map(|i| (0..right_len).map(move |j| (i, j))) {
                let (mut left, mut right) = (vec![0.0; left_len], vec![0.0; right_len]);
                (left[i], right[j]) = (1.0, 1.0);
                let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
                let exact = exact(&geometry, pass, &wide(&left), &wide(&right));
                let got = run(winograd, &problem, pass, &left, &right);
                let good = got.iter().zip(&exact).all(|(y, x)| (f64::from(*y) - x).abs() <= bound);
                assert!(good, "{} pass {pass}: basis vectors {i}, {j}", winograd.name);
            }
        }
    }
}

/// With points 0, 1, -1 every step is exact while the numbers fit 24 bits.
#[test]
fn f2x3_is_exact_on_integers() {
    let mut random = Random(2);
    for (ic, oc, input, padding) in [(16, 20, [9, 10], 1), (70, 3, [5, 5], 2), (1, 1, [4, 4], 0)] {
        let conv = Conv2d::new(ic, oc, 3).input(input).padding(padding);
        let geometry = conv.geometry().unwrap();
        for pass in 0..3 {
            let [left, right] = lens(&geometry, pass).map(|len| random.integers(len));
            let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let exact = exact(&geometry, pass, &wide(&left), &wide(&right));
            let got = run(&F2X3, &problem(geometry, Isa::best()), pass, &left, &right);
            assert!(got.iter().zip(&exact).all(|(y, x)| f64::from(*y) == *x), "pass {pass} of {conv}");
        }
    }
}

/// A number that is not finite stays in the outputs of the tiles that read it; all others keep their bits.
#[test]
fn nan_and_infinity_stay_inside_the_touched_tiles() {
    let mut random = Random(3);
    for &winograd in ALL {
        let ([my, mx], [ry, rx]) = (winograd.outputs, winograd.kernel);
        let conv = sized(winograd, 3, 5, [3 * my + 1, 3 * mx + 2]);
        let geometry = conv.geometry().unwrap();
        let problem = problem(geometry, Isa::best());
        let [mut src, weights] = lens(&geometry, 0).map(|len| random.reals(len));
        let clean = run(winograd, &problem, 0, &src, &weights);
        let [height, width] = geometry.output();
        let (row, column) = (my + 1, 2 * mx);
        for bad in [f32::NAN, f32::INFINITY] {
            src[(conv.input[0] + row) * conv.input[1] + column] = bad;
            let got = run(winograd, &problem, 0, &src, &weights);
            for (i, (got, clean)) in got.iter().zip(&clean).enumerate() {
                let (y, x) = (i / width % height, i % width);
                let sees = |o: usize, r: usize, at: usize| o <= at && at < o + r;
                let touches = |o: usize, m: usize, r: usize, at: usize| sees(o / m * m, m + r - 1, at);
                if sees(y, ry, row) && sees(x, rx, column) {
                    assert!(!got.is_finite(), "{}: {bad} is lost at {y}, {x}", winograd.name);
                } else if !(touches(y, my, ry, row) && touches(x, mx, rx, column)) {
                    assert_eq!(got.to_bits(), clean.to_bits(), "{}: {bad} leaks to {y}, {x}", winograd.name);
                }
            }
        }
    }
}

/// Every cut with its price; none is left out.
fn all_cuts(sides: &Sides, shape: &Shape, problem: &Problem, kernel: &dyn Ukernel) -> Vec<(f64, Blocks)> {
    let mut cuts = Vec::new();
    Blocks::search(sides, problem, shape, kernel, &mut |cost, blocks| {
        cuts.extend(blocks.map(|blocks| (cost, blocks)));
        true
    });
    cuts
}

/// A cut decides where numbers are computed and never which: also where V is made once for tasks that differ in their channels.
#[test]
fn no_cut_changes_a_bit() {
    let mut random = Random(4);
    for layout in Layout::ALL {
        let conv = Conv2d::new(5, 150, 3).input([9, 14]).padding(1).batch(2).layout(layout);
        let geometry = conv.geometry().unwrap();
        let problem = problem(geometry, Isa::best());
        let [src, weights] = lens(&geometry, 0).map(|len| random.reals(len));
        let expected = run(&F4X3, &problem, 0, &src, &weights);
        let mut runner = F4X3.phases(&problem, Direction::Forward).unwrap();
        let candidates = all_cuts(&runner.sides, &runner.shape, &problem, runner.kernel.as_ref());
        assert!(
            [false, true].iter().all(|shared| candidates.iter().any(|(_, blocks)| blocks.shared == *shared))
        );
        for (_, blocks) in candidates {
            runner.blocks = blocks;
            let executor: &dyn Execute<Forward> = &runner;
            let mut packed = vec![f32::NAN; executor.packed_len()];
            executor.pack(&weights, &mut packed);
            let mut workspace = vec![f32::NAN; executor.workspace_len()];
            let mut dst = vec![f32::NAN; geometry.dst_len()];
            let args = ForwardArgs { src: &src, weights: &packed, dst: &mut dst, epilogue: Epilogue::NONE };
            executor.run(args, &mut workspace, Par::Seq);
            let same = dst.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{conv}: {blocks:?}");
        }
    }
}

#[test]
fn strict_is_refused_with_a_sentence() {
    let geometry = Conv2d::new(64, 64, 3).input(28).padding(1).geometry().unwrap();
    let problem = Problem { accuracy: Accuracy::Strict, ..problem(geometry, Isa::best()) };
    let refusal = Algorithm::<Forward>::estimate(&F2X3, &problem).unwrap_err();
    assert_eq!(refusal.to_string(), "its error bound is larger than the accuracy class allows");
}

/// Lanes of at most 4 MiB wherever channels are not in thousands.
#[test]
fn a_lane_takes_at_most_four_mebibytes() {
    for (ic, oc, size, batch) in [(64, 64, 224, 1), (512, 512, 28, 1), (512, 512, 7, 16), (1024, 1024, 14, 1)]
    {
        for layout in Layout::ALL {
            let conv = Conv2d::new(ic, oc, 3).input(size).padding(1).batch(batch).layout(layout);
            let problem = problem(conv.geometry().unwrap(), Isa::best());
            for winograd in ALL.iter().filter(|winograd| winograd.kernel == [3, 3]) {
                let forward = Algorithm::<Forward>::estimate(*winograd, &problem).unwrap().workspace;
                assert!(forward <= 1 << 20, "{} {conv}: {forward}", winograd.name);
                // Weight gradients also have the sums of their parts, of at most 1 MiB.
                let gradient = Algorithm::<BackwardWeights>::estimate(*winograd, &problem).unwrap().workspace;
                assert!(gradient <= 5 << 18, "{} {conv}: {gradient}", winograd.name);
            }
        }
    }
}

/// Left out is only what costs no less.
#[test]
fn no_cut_that_is_left_out_is_better() {
    for (name, conv) in problem_files() {
        for layout in Layout::ALL {
            let Ok(geometry) = conv.layout(layout).geometry() else { continue };
            for threads in [1, 4] {
                let problem = Problem { threads, ..problem(geometry, Isa::best()) };
                for winograd in ALL {
                    let Ok(runner) = winograd.phases(&problem, Direction::Forward) else { continue };
                    let kernels = ukernels(problem.isa);
                    let all = kernels
                        .iter()
                        .flat_map(|kernel| all_cuts(&runner.sides, &runner.shape, &problem, kernel.as_ref()));
                    let (_, best) = all.min_by(|(a, _), (b, _)| a.total_cmp(b)).unwrap();
                    assert_eq!(runner.blocks, best, "{name} {layout} {}", winograd.name);
                }
            }
        }
    }
}

/// The convolutions of the problem files.
fn problem_files() -> Vec<(String, Conv2d)> {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testkit/problems")).unwrap();
    let mut convs = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        convs.extend(
            convolve_core::problems(&text).flat_map(|(_, p)| p).map(|p| (p.conv.to_string(), p.conv)),
        );
    }
    convs
}
