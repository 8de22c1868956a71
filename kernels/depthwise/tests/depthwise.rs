//! The three passes against the definition, exactly, on every instruction set of this CPU; and what was wrong once. (The oracle of the facade has more
//! problems; this is what the crate can say alone, in seconds.)

use convolve_core::{
    Accuracy, Algorithm, BackwardData, BackwardDataArgs, BackwardWeights, BackwardWeightsArgs, Conv2d,
    Epilogue, Execute, Forward, ForwardArgs, Geometry, Machine, Par, Problem, Update, Workspace, definition,
};
use convolve_depthwise::Depthwise;
use convolve_simd::Isa;

fn problem(geometry: Geometry, isa: Isa) -> Problem {
    let machine = Machine::native();
    let caches = machine.caches;
    Problem { geometry, isa, threads: 1, accuracy: Accuracy::Standard, caches, machine, rank: 0 }
}

/// Whole numbers from -3 to 3: all sums are exact.
fn integers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 31 + i / 7 + seed) % 7) as f32 - 3.0).collect()
}

fn forward(geometry: Geometry, isa: Isa, src: &[f32], weights: &[f32]) -> Vec<f32> {
    let run: Box<dyn Execute<Forward>> = Depthwise.build(&problem(geometry, isa));
    let (mut packed, mut dst) = (vec![f32::NAN; run.packed_len()], vec![f32::NAN; geometry.dst_len()]);
    run.pack(weights, &mut packed);
    let mut workspace = Workspace::new(run.workspace_len()).unwrap();
    workspace.fill(f32::NAN);
    let args = ForwardArgs { src, weights: &packed, dst: &mut dst, epilogue: Epilogue::NONE };
    run.run(args, &mut workspace, Par::Seq);
    dst
}

fn backward_data(
    geometry: Geometry,
    isa: Isa,
    diff_dst: &[f32],
    weights: &[f32],
    update: Update,
) -> Vec<f32> {
    let run: Box<dyn Execute<BackwardData>> = Depthwise.build(&problem(geometry, isa));
    let start = if update == Update::Accumulate { 1.0 } else { f32::NAN };
    let (mut packed, mut diff_src) = (vec![f32::NAN; run.packed_len()], vec![start; geometry.src_len()]);
    run.pack(weights, &mut packed);
    let mut workspace = Workspace::new(run.workspace_len()).unwrap();
    workspace.fill(f32::NAN);
    run.run(
        BackwardDataArgs { diff_dst, weights: &packed, diff_src: &mut diff_src, update },
        &mut workspace,
        Par::Seq,
    );
    diff_src
}

fn backward_weights(geometry: Geometry, isa: Isa, src: &[f32], diff_dst: &[f32], update: Update) -> Vec<f32> {
    let run: Box<dyn Execute<BackwardWeights>> = Depthwise.build(&problem(geometry, isa));
    let start = if update == Update::Accumulate { 1.0 } else { f32::NAN };
    let mut diff_weights = vec![start; geometry.weights_len()];
    let mut workspace = Workspace::new(run.workspace_len()).unwrap();
    workspace.fill(f32::NAN);
    let args = BackwardWeightsArgs { src, diff_dst, diff_weights: &mut diff_weights, update };
    run.run(args, &mut workspace, Par::Seq);
    diff_weights
}

/// Kernels, strides, paddings, multipliers and sizes around those of registers and tiles.
fn problems() -> impl Iterator<Item = Geometry> {
    let kernels = [[3, 3], [5, 5], [7, 7], [3, 1], [3, 8], [5, 2]];
    let sizes = [[1, 1], [4, 5], [7, 7], [9, 17], [15, 33], [31, 16], [16, 40]];
    kernels.into_iter().flat_map(move |kernel: [usize; 2]| {
        sizes.into_iter().flat_map(move |size| {
            [1, 2].into_iter().flat_map(move |stride| {
                [0, 1, kernel[0] / 2, kernel[0]].into_iter().enumerate().filter_map(move |(i, pad)| {
                    let multiplier = 1 + i % 2;
                    let conv = Conv2d::new(3, 3 * multiplier, kernel).groups(3).batch(1 + i % 3).input(size);
                    conv.stride(stride).padding(pad).geometry().ok()
                })
            })
        })
    })
}

#[test]
fn three_passes_are_those_of_the_definition() {
    let mut count = 0;
    for geometry in problems() {
        let (src, weights) = (integers(geometry.src_len(), 1), integers(geometry.weights_len(), 2));
        let diff_dst = integers(geometry.dst_len(), 3);
        let add = |sums: &[f32]| sums.iter().map(|x| x + 1.0).collect::<Vec<_>>();
        for &isa in Isa::available() {
            let (conv, problem) = (geometry.conv(), problem(geometry, isa));
            if Algorithm::<Forward>::estimate(&Depthwise, &problem).is_ok() {
                let expected = definition::forward(&geometry, &src, &weights);
                assert_eq!(forward(geometry, isa, &src, &weights), expected, "forward of {conv:?} on {isa}");
                count += 1;
            }
            if Algorithm::<BackwardData>::estimate(&Depthwise, &problem).is_ok() {
                let expected = definition::backward_data(&geometry, &diff_dst, &weights);
                for (update, expected) in
                    [(Update::Overwrite, &expected), (Update::Accumulate, &add(&expected))]
                {
                    let got = backward_data(geometry, isa, &diff_dst, &weights, update);
                    assert_eq!(&got, expected, "backward-data of {conv:?} on {isa}");
                }
                count += 1;
            }
            if Algorithm::<BackwardWeights>::estimate(&Depthwise, &problem).is_ok() {
                let expected = definition::backward_weights(&geometry, &src, &diff_dst);
                for (update, expected) in
                    [(Update::Overwrite, &expected), (Update::Accumulate, &add(&expected))]
                {
                    let got = backward_weights(geometry, isa, &src, &diff_dst, update);
                    assert_eq!(&got, expected, "backward-weights of {conv:?} on {isa}");
                }
                count += 1;
            }
        }
    }
    println!("{count} passes on {:?}", Isa::available());
    assert!(count > 600 * Isa::available().len(), "only {count} passes were accepted");
}

/// An odd number of kernel columns has a last one without a partner, behind which lie the weights of the next channel.
#[test]
fn a_stride_of_two_reads_no_weight_of_the_next_channel() {
    let geometry = Conv2d::new(2, 2, 3).groups(2).input(3).stride(2).geometry().unwrap();
    let weights: Vec<f32> = (0..18).map(|i| if i < 9 { 1.0 } else { f32::NAN }).collect();
    for &isa in Isa::available() {
        assert_eq!(forward(geometry, isa, &[1.0; 18], &weights)[0], 9.0, "{isa}");
    }
}

/// In the last register of a row, pixels behind the last output met zeros of `diff_dst`: and infinity times zero is NaN.
#[test]
fn pixels_that_a_weight_does_not_see_do_not_reach_it() {
    for (conv, place) in [
        (Conv2d::new(1, 1, 3).groups(1).input(5).padding(1), 4),
        (Conv2d::new(1, 1, 3).input([3, 20]).padding(1), 19),
        // No window reads the last column.
        (Conv2d::new(1, 1, 3).input([7, 10]).stride(2), 9),
        (Conv2d::new(1, 1, 5).input([9, 9]).stride(2).padding(2), 8),
    ] {
        let geometry = conv.geometry().unwrap();
        let (mut src, diff_dst) = (vec![1.0; geometry.src_len()], vec![1.0; geometry.dst_len()]);
        let clean = definition::backward_weights(&geometry, &src, &diff_dst);
        let mut mark = vec![0.0; src.len()];
        mark[place] = 1.0;
        let seen = definition::backward_weights(&geometry, &mark, &diff_dst);
        src[place] = f32::INFINITY;
        for &isa in Isa::available() {
            let got = backward_weights(geometry, isa, &src, &diff_dst, Update::Overwrite);
            for i in 0..got.len() {
                let right = if seen[i] > 0.0 { got[i] == f32::INFINITY } else { got[i] == clean[i] };
                assert!(right, "{conv:?} on {isa}: weight {i} is {}", got[i]);
            }
        }
    }
}

/// Lists of columns and sums of taps were made for kernels of any width: of 2^40 columns, which have a geometry, that is no memory.
#[test]
fn kernels_and_rows_that_are_too_wide_are_refused() {
    let wide = |columns: usize| {
        let padding = convolve_core::Padding::Explicit { top: 1, bottom: 1, left: 0, right: columns };
        Conv2d::new(1, 1, [3, columns]).input([4, 4]).padding(padding).geometry().unwrap()
    };
    let long = Conv2d::new(1, 1, 3).input([1, 1 << 20]).padding(1).geometry().unwrap();
    for geometry in [wide(1 << 40), wide(1 << 17), long] {
        for &isa in Isa::available() {
            let problem = problem(geometry, isa);
            assert!(Algorithm::<Forward>::estimate(&Depthwise, &problem).is_err());
            assert!(Algorithm::<BackwardData>::estimate(&Depthwise, &problem).is_err());
            assert!(Algorithm::<BackwardWeights>::estimate(&Depthwise, &problem).is_err());
        }
    }
}
