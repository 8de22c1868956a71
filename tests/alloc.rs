//! `run` takes its memory from the caller: with [`Par::Seq`] it allocates nothing, whatever the algorithm and the pass.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use convolve::registry::Registered;
use convolve::{
    Activation, BackwardData, BackwardWeights, Conv2d, Epilogue, Forward, Isa, Operand, Par, Planner, Update,
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
