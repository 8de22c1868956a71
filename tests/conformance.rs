//! Every registered algorithm computes the convolution: each pass, layout, weight layout, instruction set and number of threads,
//! on integers, with tolerance 0 against a reference that shares nothing with the library.

use convolve::{Caches, Conv2d, Isa, Padding};
use convolve_testkit::{Scope, TINY, Tally, problems, strategy};
use proptest::prelude::*;

/// Everything, in caches of both kinds by turns, and every other time in another way to cut the problem as well.
fn everything(turn: u64) -> Scope {
    let caches = if turn.is_multiple_of(2) { Caches::default() } else { TINY };
    let ranks = if (turn / 2).is_multiple_of(2) { vec![0] } else { vec![0, 1 + (turn / 4 % 7) as usize] };
    Scope { caches: vec![caches], ranks, ..Scope::everything() }
}

proptest! {
    #![proptest_config(strategy::config(512))]

    #[test]
    fn every_algorithm_is_exact_on_any_problem(conv in strategy::convs(), seed in any::<u64>()) {
        let tally = everything(seed).check(conv, seed);
        prop_assert!(tally.mismatches.is_empty(), "{}", tally);
    }
}

/// Every combination of sizes on one axis.
fn axis() -> Vec<[usize; 6]> {
    let mut all = Vec::new();
    for input in 1..=9 {
        for kernel in 1..=5 {
            for stride in 1..=3 {
                for dilation in 1..=3 {
                    for begin in 0..=5 {
                        for end in [0, begin, 5 - begin] {
                            if input + begin + end > dilation * (kernel - 1) {
                                all.push([input, kernel, stride, dilation, begin, end]);
                            }
                        }
                    }
                }
            }
        }
    }
    all
}

#[test]
fn every_algorithm_is_exact_on_every_small_problem() {
    let (axis, mut tally) = (axis(), Tally::default());
    for (turn, h) in axis.iter().enumerate() {
        // Each with another axis far away in the list, and with itself.
        let w = if turn % 5 == 0 { h } else { &axis[turn * 7919 % axis.len()] };
        let channels = [[1, 1, 1], [1, 2, 3], [2, 2, 4], [3, 3, 3]][turn % 4];
        let conv = Conv2d {
            groups: channels[0],
            in_channels: channels[1],
            out_channels: channels[2],
            input: [h[0], w[0]],
            kernel: [h[1], w[1]],
            stride: [h[2], w[2]],
            dilation: [h[3], w[3]],
            padding: Padding::Explicit { top: h[4], bottom: h[5], left: w[4], right: w[5] },
            ..Conv2d::new(1, 1, 1)
        };
        // Two threads find what three would; the pools cost more than these problems.
        let threads = if turn % 16 == 0 { vec![1, 2, 3] } else { vec![1] };
        let layout = everything(0).weight_layouts[turn % 3];
        let scope = Scope { threads, weight_layouts: vec![layout], ..everything(turn as u64 / 3) };
        tally.add(scope.check(conv, turn as u64));
    }
    println!("{tally}");
    tally.assert_clean();
}

/// Widths and channels 1..=2 * tile + 1 on each instruction set, of its own tiles.
#[test]
fn every_algorithm_is_exact_at_every_tail_of_every_tile() {
    let mut tally = Tally::default();
    for &isa in Isa::available() {
        let tiles = strategy::tiles_of(isa);
        let rows = 2 * tiles.iter().map(|tile| tile[0]).max().unwrap() + 1;
        let columns = 2 * tiles.iter().map(|tile| tile[1]).max().unwrap() + 1;
        let mut problems = Vec::new();
        for n in 1..=rows {
            problems.push(Conv2d::new(5, 9, 3).input([2, n]).padding(1));
            problems.push(Conv2d::new(4, 6, [1, 3]).input([2, 2 * n + 1]).stride([1, 2]));
            problems.push(Conv2d::new(9, 5, 1).input([1, n]));
            problems.push(Conv2d::new(3, 3, 3).groups(3).input([3, n]).padding(1));
        }
        for n in 1..=columns {
            for kernel in [1, 3] {
                problems.push(Conv2d::new(3, n, kernel).input([3, 4]).padding(kernel / 2));
                problems.push(Conv2d::new(n, 3, kernel).input([3, 4]).padding(kernel / 2));
                problems.push(Conv2d::new(n, n, kernel).groups(n).input([3, 4]).padding(kernel / 2));
            }
            problems.push(Conv2d::new(2 * n, 6, [2, 1]).groups(2).input([4, 3]).stride(2).padding(1));
        }
        // Both at once, around each tile.
        for [mr, nr] in &tiles {
            for (width, oc) in
                [(mr - 1, nr - 1), (mr + 1, nr + 1), (2 * mr, nr - 1), (mr - 1, 2 * nr), (*mr, *nr)]
            {
                problems.push(Conv2d::new(7, oc, 3).input([3, width.max(1)]).padding(1));
                problems.push(Conv2d::new(oc, 7, 3).input([3, width.max(1)]).padding(1).batch(2));
            }
        }
        for (turn, conv) in problems.into_iter().enumerate() {
            tally.add(Scope { isas: vec![isa], ..everything(turn as u64) }.check(conv, turn as u64));
        }
    }
    println!("{tally}");
    tally.assert_clean();
}

#[test]
fn every_algorithm_is_exact_on_the_smoke_problems() {
    let mut tally = Tally::default();
    let files = problems::files();
    let (_, smoke) = files.last().unwrap();
    for (turn, (_, problem)) in convolve::problems(smoke).enumerate() {
        tally.add(everything(turn as u64).serial().check(problem.unwrap().conv, turn as u64));
    }
    println!("{tally}");
    tally.assert_clean();
}

/// Long sums: more terms than any block holds, so that every loop over K runs again.
#[test]
fn every_algorithm_is_exact_on_long_sums() {
    let mut tally = Tally::default();
    for (turn, text) in [
        "mb1ic2049ih3oc3kh3ph1",
        "mb1ic3ih3oc2049kh3ph1",
        "mb2ic5ih70oc6kh3ph1",
        "mb1ic700ih2oc700kh1",
        "g2mb1ic1030ih4oc34kh2",
        "mb1ic1ih40oc1kh33ph16",
        "mb3ic17ih33oc33kh5sh2ph2",
        "mb1ic8iw3000oc8kw9pw4",
    ]
    .into_iter()
    .enumerate()
    {
        let conv: Conv2d = text.parse().unwrap();
        for seed in 0..3 {
            let scope =
                Scope { threads: vec![1, 2], caches: vec![Caches::default(), TINY], ..Scope::everything() };
            let weight_layouts = vec![scope.weight_layouts[(turn + seed as usize) % 3]];
            tally.add(Scope { weight_layouts, ..scope }.check(conv, seed));
        }
    }
    println!("{tally}");
    tally.assert_clean();
}
