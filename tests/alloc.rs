//! `run` takes its memory from the caller: with [`Par::Seq`] it allocates nothing, whatever the algorithm and the pass, and neither does a whole step of
//! training.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use convolve::registry::Registered;
use convolve::{
    Activation, Adam, BackwardData, BackwardWeights, Conv2d, Epilogue, Error, Forward, Function, Isa, Linear,
    Operand, Par, Planner, Pool2d, Sgd, Update, WeightLayout, cross_entropy, softmax,
};
use convolve_testkit::{Scope, reference};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts what the current thread asks for.
struct Counting;

// SAFETY: every call is the system allocator's; the counter is a thread-local without a destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller promises what the system allocator asks.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; the pointer came from `alloc` or `realloc`, which are the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Asserts that `f` allocates nothing.
#[track_caller]
fn nothing(what: &str, f: impl FnOnce()) {
    let before = ALLOCATIONS.get();
    f();
    let count = ALLOCATIONS.get() - before;
    // Another crate's GEMM, there to be compared with; it takes its packing buffer from the system in each call.
    if !what.contains(" im2col-matrixmultiply ") {
        assert_eq!(count, 0, "{what} allocates");
    }
}

const PROBLEMS: [&str; 7] = [
    "mb2ic20ih9oc35kh3ph1",
    "mb1ic33ih9oc17kh3ph1sh2",
    "g3mb2ic9ih7oc12kh3ph2dh1",
    "g17mb1ic17ih8oc17kh3ph1",
    "mb2ic40ih5oc50kh1",
    "mb1ic3ih20oc18kh7sh2ph3",
    "mb1ic9iw50oc12kw9pw4",
];

#[test]
fn the_counter_counts() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(vec![1u8; 100]));
    assert!(ALLOCATIONS.get() > before);
}

#[test]
fn run_allocates_nothing() {
    for text in PROBLEMS {
        for conv in Scope::everything().layouts(text.parse().unwrap()) {
            for &isa in Isa::available() {
                check(conv, isa);
            }
        }
    }
}

fn check(conv: Conv2d, isa: Isa) {
    let ones = |operand| vec![1.0f32; reference::len(&conv, operand)];
    let [src, weights, dst, bias] = [Operand::Src, Operand::Weights, Operand::Dst, Operand::Bias].map(ones);
    let planner = |name: &str| Planner::new().isa(isa).threads(2).only(name);
    let name = |pass: &str, algorithm: &str| format!("{pass} {algorithm} {isa} {} {conv}", conv.layout);
    for algorithm in Forward::algorithms() {
        let Ok(plan) = planner(algorithm.name()).plan::<Forward>(conv) else { continue };
        let (mut packed, mut workspace) = (plan.pack(&weights).unwrap(), plan.workspace().unwrap());
        let mut out = vec![0.0; dst.len()];
        let leaky = Epilogue::bias(&bias).residual(&dst).activation(Activation::LeakyRelu { slope: 0.5 });
        for epilogue in [Epilogue::NONE, Epilogue::bias(&bias).relu(), leaky] {
            nothing(&name("fwd", algorithm.name()), || {
                plan.run(&packed, &src, &mut out, epilogue, &mut workspace, Par::Seq).unwrap();
            });
        }
        nothing(&name("fwd pack_again", algorithm.name()), || {
            plan.pack_again(&weights, &mut packed).unwrap()
        });
    }
    for algorithm in BackwardData::algorithms() {
        let Ok(plan) = planner(algorithm.name()).plan::<BackwardData>(conv) else { continue };
        let (mut packed, mut workspace) = (plan.pack(&weights).unwrap(), plan.workspace().unwrap());
        let mut out = vec![0.0; src.len()];
        for update in [Update::Overwrite, Update::Accumulate] {
            nothing(&name("bwd_d", algorithm.name()), || {
                plan.run(&packed, &dst, &mut out, update, &mut workspace, Par::Seq).unwrap();
            });
        }
        nothing(&name("bwd_d pack_again", algorithm.name()), || {
            plan.pack_again(&weights, &mut packed).unwrap()
        });
    }
    for algorithm in BackwardWeights::algorithms() {
        let Ok(plan) = planner(algorithm.name()).plan::<BackwardWeights>(conv) else { continue };
        let mut workspace = plan.workspace().unwrap();
        let (mut out, mut diff_bias) = (vec![0.0; weights.len()], vec![0.0; bias.len()]);
        for update in [Update::Overwrite, Update::Accumulate] {
            nothing(&name("bwd_w", algorithm.name()), || {
                let gradients = (Some(&mut out[..]), Some(&mut diff_bias[..]));
                plan.run(&src, &dst, gradients.0, gradients.1, update, &mut workspace, Par::Seq).unwrap();
            });
        }
    }
}

/// Convolution, ReLU, max-pooling, a linear layer, softmax and cross-entropy, all gradients, momentum or Adam, weights packed again: with the memory
/// of the step before.
#[test]
fn a_step_of_training_allocates_nothing() {
    for layout in convolve::Layout::ALL {
        for &isa in Isa::available() {
            step(layout, isa).unwrap();
        }
    }
}

fn step(layout: convolve::Layout, isa: Isa) -> Result<(), Error> {
    let (batch, classes, par) = (4, 5, Par::Seq);
    let planner = Planner::new().isa(isa).threads(1).forbid("im2col-matrixmultiply");
    let weight_layout = WeightLayout::Oihw;
    let conv =
        Conv2d::new(3, 12, 3).batch(batch).input(14).padding(1).layout(layout).weight_layout(weight_layout);
    let forward = planner.plan::<Forward>(conv)?;
    let data = planner.plan::<BackwardData>(conv)?;
    let weights = planner.plan::<BackwardWeights>(conv)?;
    let pool = planner.pool(Pool2d::max(12, 2).batch(batch).input(14).layout(layout))?;
    let mean = planner.pool(Pool2d::average(12, 2).batch(batch).input(14).layout(layout))?;
    let linear = planner.linear(Linear::new(12 * 7 * 7, classes).batch(batch))?;

    let numbers =
        |len: usize| -> Vec<f32> { (0..len).map(|i| (i * 7919 % 101) as f32 / 505.0 - 0.1).collect() };
    let zeros = |len: usize| vec![0.0f32; len];
    let (image, labels) = (numbers(batch * 3 * 14 * 14), [0, 4, 2, 2]);
    let lens = [12 * 3 * 9, 12, 12 * 7 * 7 * classes, classes];
    let mut parameters = lens.map(numbers);
    let (mut gradients, mut first, mut second) = (lens.map(zeros), lens.map(zeros), lens.map(zeros));
    let [mut packed, mut packed_for_data] = [forward.pack(&parameters[0])?, data.pack(&parameters[0])?];
    let (mut matrix, mut matrix_for_data) =
        (linear.pack(&parameters[2])?, linear.pack_for_data(&parameters[2])?);
    let [mut a1, mut da1] = [zeros(batch * 12 * 14 * 14), zeros(batch * 12 * 14 * 14)];
    let [mut a2, mut da2] = [zeros(batch * 12 * 7 * 7), zeros(batch * 12 * 7 * 7)];
    let [mut logits, mut probabilities, mut dlogits] = [0; 3].map(|_| zeros(batch * classes));
    let (mut dimage, mut indices) = (zeros(image.len()), vec![0; a2.len()]);
    let mut workspace = forward.workspace()?;
    let mut data_workspace = data.workspace()?;
    let mut weights_workspace = weights.workspace()?;
    let mut pool_workspace = pool.workspace()?;
    let mut mean_workspace = mean.workspace()?;
    let mut linear_workspace = linear.workspace()?;

    let mut losses = [0.0; 12];
    for (i, loss) in losses.iter_mut().enumerate() {
        let by_indices = i % 2 == 0;
        let mut all = || -> Result<f64, Error> {
            let bias = Epilogue::bias(&parameters[1]).relu();
            forward.run(&packed, &image, &mut a1, bias, &mut workspace, par)?;
            if by_indices {
                pool.forward_with_indices(&a1, &mut a2, &mut indices, &mut pool_workspace, par)?;
            } else {
                pool.forward(&a1, &mut a2, &mut pool_workspace, par)?;
            }
            let bias = Epilogue::bias(&parameters[3]);
            linear.forward(&matrix, &a2, &mut logits, bias, &mut linear_workspace, par)?;
            softmax(&logits, classes, &mut probabilities, isa, par)?;
            let validation = cross_entropy(&logits, classes, &labels, None, Update::Overwrite, isa, par)?;
            let to = Some(&mut dlogits[..]);
            let loss = cross_entropy(&logits, classes, &labels, to, Update::Overwrite, isa, par)?;
            assert_eq!(loss, validation);

            let [dw1, db1, dw2, db2] = &mut gradients;
            let update = Update::Overwrite;
            linear.backward_weights(&a2, &dlogits, dw2, Some(db2), update, &mut linear_workspace, par)?;
            linear.backward_data(&matrix_for_data, &dlogits, &mut da2, update, &mut linear_workspace, par)?;
            if by_indices {
                pool.backward_from_indices(&indices, &da2, &mut da1, update, &mut pool_workspace, par)?;
            } else {
                pool.backward(&a1, &da2, &mut da1, update, &mut pool_workspace, par)?;
            }
            Function::Relu.backward_in_place(&a1, &mut da1, isa, par)?;
            weights.run(&image, &da1, Some(dw1), Some(db1), update, &mut weights_workspace, par)?;
            data.run(&packed_for_data, &da1, &mut dimage, update, &mut data_workspace, par)?;

            for (((w, g), m), v) in parameters.iter_mut().zip(&gradients).zip(&mut first).zip(&mut second) {
                if i < 8 {
                    Sgd { rate: 0.05, momentum: 0.5 }.step(w, g, m, isa)?;
                } else {
                    Adam::default().step(w, g, [m, v], i - 7, isa)?;
                }
            }
            forward.pack_again(&parameters[0], &mut packed)?;
            data.pack_again(&parameters[0], &mut packed_for_data)?;
            linear.pack_again(&parameters[2], &mut matrix)?;
            linear.pack_again(&parameters[2], &mut matrix_for_data)?;
            Ok(loss)
        };
        nothing(&format!("step {i} on {isa} {layout}"), || *loss = all().unwrap());
    }
    assert!(losses[7] < losses[0], "it learns nothing: {losses:?}");

    nothing(&format!("what a step may have instead, on {isa} {layout}"), || {
        mean.forward(&a1, &mut a2, &mut mean_workspace, par).unwrap();
        mean.backward(&[], &da2, &mut da1, Update::Accumulate, &mut mean_workspace, par).unwrap();
        Function::Gelu.forward(&a1, &mut da1, isa, par).unwrap();
        cross_entropy(&logits, classes, &labels, Some(&mut dlogits), Update::Accumulate, isa, par).unwrap();
    });
    Ok(())
}
