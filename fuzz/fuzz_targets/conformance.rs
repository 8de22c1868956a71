//! Any small problem, any data: every algorithm, layout and instruction set computes it exactly or refuses it.
#![no_main]

use convolve::{Caches, Conv2d, Layout, Padding, WeightLayout};
use convolve_testkit::{Scope, TINY};
use libfuzzer_sys::fuzz_target;

#[derive(arbitrary::Arbitrary, Debug)]
struct Input {
    sizes: [u8; 12],
    sides: [u8; 4],
    layouts: u8,
    threads: u8,
    tiny: bool,
    seed: u64,
}

fuzz_target!(|input: Input| {
    // Every byte means something, so that no mutation is lost.
    let most = [3, 4, 40, 40, 20, 40, 7, 7, 9, 9, 4, 4];
    let size = |i: usize| usize::from(input.sizes[i]) % most[i] + 1;
    let [top, bottom, left, right] = input.sides.map(|side| usize::from(side) % 20);
    let conv = Conv2d {
        batch: size(0) - 1,
        groups: size(1),
        ..Conv2d::new(size(1) * size(2), size(1) * size(3), [size(6), size(7)])
    }
    .input([size(4), size(5)])
    .stride([size(8), size(9)])
    .dilation([size(10), size(11)])
    .padding(Padding::Explicit { top, bottom, left, right });
    if conv.geometry().is_ok_and(|geometry| geometry.macs() <= 1 << 16) {
        let scope = Scope {
            layouts: vec![Layout::ALL[usize::from(input.layouts % 2)]],
            weight_layouts: vec![WeightLayout::ALL[usize::from(input.layouts / 2 % 3)]],
            threads: vec![1 + usize::from(input.threads % 3)],
            caches: vec![if input.tiny { TINY } else { Caches::default() }],
            ..Scope::everything()
        };
        let tally = scope.check(conv, input.seed);
        assert!(tally.mismatches.is_empty(), "{tally}");
    }
});
