//! Any numbers as a pooling: a plan or an `Err`, never a panic, and what is small enough to run is its definition, exactly.
#![no_main]

use convolve::{Isa, Layout, Padding, Par, Pool2d, Reduction, Ties, Update, pool_definition};
use convolve_testkit::data::{floats, small};
use convolve_testkit::{close, pooling};
use libfuzzer_sys::fuzz_target;

#[derive(arbitrary::Arbitrary, Debug)]
struct Input {
    sizes: [u8; 8],
    sides: [u8; 4],
    /// Added to the sizes, so that any number can come up; mostly nothing.
    huge: Option<(u8, usize)>,
    kind: u8,
    divisor: Option<usize>,
    flags: u8,
    isa: u8,
    seed: u64,
}

fuzz_target!(|input: Input| {
    let mut numbers = [0; 14];
    let most = [4, 24, 24, 5, 5, 5, 4, 4];
    for (i, number) in numbers[..8].iter_mut().enumerate() {
        *number = usize::from(input.sizes[i]) % most[i] + 1;
    }
    numbers[8] = usize::from(input.sizes[6] / 4) % 3 + 1;
    numbers[9] = usize::from(input.sizes[7] / 4) % 20 + 1;
    numbers[10..].copy_from_slice(&input.sides.map(|side| usize::from(side) % 5));
    if let Some((at, number)) = input.huge {
        numbers[usize::from(at) % 14] = number;
    }
    let [batch, ih, iw, kh, kw, sh, sw, dh, dw, channels, top, bottom, left, right] = numbers;
    let explicit = Padding::Explicit { top, bottom, left, right };
    let flag = |bit: u8| input.flags >> bit & 1 == 1;
    let pool = Pool2d {
        batch,
        channels,
        input: [ih, iw],
        kernel: [kh, kw],
        stride: [sh, sw],
        dilation: [dh, dw],
        padding: [Padding::Valid, Padding::Same, Padding::SameLower, explicit][usize::from(input.kind % 4)],
        ceil_mode: flag(0),
        layout: Layout::ALL[usize::from(flag(1))],
        reduction: match input.kind / 4 % 3 {
            0 => Reduction::Max { ties: Ties::First },
            1 => Reduction::Max { ties: Ties::All },
            _ => Reduction::Average { count_include_pad: flag(2), divisor: input.divisor },
        },
    };
    pooling::same_geometry(&pool).unwrap();
    let Ok(geometry) = pool.geometry() else { return };
    let all = |sizes: &[usize]| sizes.iter().fold(1, |product: usize, &x| product.saturating_mul(x.max(1)));
    let [oh, ow] = geometry.output();
    if all(&[batch, channels, oh, ow, kh, kw]).max(all(&[batch, channels, ih, iw])) > 1 << 16 {
        return;
    }
    let Ok(plan) = pool.plan(Isa::available()[usize::from(input.isa) % Isa::available().len()], 1) else {
        return;
    };
    if plan.workspace_len() > 1 << 20 {
        return;
    }
    let (x, y) = (small(geometry.src_len(), input.seed), small(geometry.dst_len(), !input.seed));
    let doubles = |x: &[i64]| x.iter().map(|&x| x as f64).collect::<Vec<_>>();
    let (src, mut dst) = (floats(&x), vec![f32::NAN; y.len()]);
    let mut workspace = vec![f32::NAN; plan.workspace_len()];
    plan.forward(&src, &mut dst, &mut workspace, Par::Seq).unwrap();
    // A quotient of integers in f64 has more than twice the bits: rounded again, it is the right one. Zeros have any sign.
    let zeroed = |x: f32| x + 0.0;
    let expected: Vec<f32> =
        pool_definition::forward(&geometry, &doubles(&x)).into_iter().map(|x| zeroed(x as f32)).collect();
    let dst: Vec<f32> = dst.into_iter().map(zeroed).collect();
    close::same_bits([1, 1, 1, dst.len()], &dst, &expected).unwrap_or_else(|e| panic!("{pool:?}: {e}"));
    if let Reduction::Max { .. } = pool.reduction {
        let mut diff_src = vec![f32::NAN; x.len()];
        plan.backward(&src, &floats(&y), &mut diff_src, Update::Overwrite, &mut workspace, Par::Seq).unwrap();
        let expected = pool_definition::backward(&geometry, &doubles(&x), &doubles(&y));
        let expected: Vec<i64> = expected.into_iter().map(|x| x as i64).collect();
        close::exact([1, 1, 1, x.len()], &diff_src, &expected).unwrap_or_else(|e| panic!("{pool:?}: {e}"));
    }
});
