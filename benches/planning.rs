//! What planning costs, and what `Plan::run` adds to the kernel: `cargo bench -p convolve-benches --bench planning`.
//!
//! `run` is measured on the smallest problem there is, one multiplication, so that nearly all of it is overhead.

use convolve::registry::Registered;
use convolve::{
    BackwardData, BackwardWeights, Conv2d, Epilogue, Forward, Par, PlanCache, Planner, TuningCache,
};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

/// Large and small images, a first layer, a depthwise layer.
const PROBLEMS: [&str; 4] = [
    "mb1ic64ih56oc64kh3ph1",
    "mb16ic512ih7oc512kh3ph1",
    "mb1ic3ih224oc64oh112kh7sh2ph3",
    "g144mb1ic144ih56oc144kh3ph1",
];

fn plan<P: Registered>(criterion: &mut Criterion, conv: Conv2d) {
    let planner = Planner::new().threads(1);
    criterion.bench_function(&format!("plan/{}/{conv}", P::NAME), |bencher| {
        bencher.iter(|| planner.plan::<P>(black_box(conv)).expect("the problems above are valid"));
    });
    for algorithm in P::algorithms() {
        let only = planner.clone().only(algorithm.name());
        if only.plan::<P>(conv).is_ok() {
            criterion.bench_function(&format!("one/{}/{conv}/{}", P::NAME, algorithm.name()), |bencher| {
                bencher.iter(|| only.plan::<P>(black_box(conv)).expect("it accepted"));
            });
        }
    }
}

fn planning(criterion: &mut Criterion) {
    for problem in PROBLEMS {
        let conv: Conv2d = problem.parse().expect("the problems above are valid");
        plan::<Forward>(criterion, conv);
        plan::<BackwardData>(criterion, conv);
        plan::<BackwardWeights>(criterion, conv);
    }
    let conv: Conv2d = PROBLEMS[0].parse().expect("the problems above are valid");
    let plans = PlanCache::<Forward>::new(Planner::new().threads(1));
    criterion.bench_function("cached plan", |bencher| {
        bencher.iter(|| plans.get(black_box(conv)).expect("the problems above are valid"));
    });
    let tuned = Planner::new().threads(1).with_cache(Arc::new(TuningCache::new()));
    tuned.tune::<Forward>(conv, Duration::from_millis(5)).expect("the problems above are valid");
    criterion.bench_function("plan by a tuning cache", |bencher| {
        bencher.iter(|| tuned.plan::<Forward>(black_box(conv)).expect("the problems above are valid"));
    });
}

fn running(criterion: &mut Criterion) {
    let plan = Planner::new().threads(1).plan::<Forward>(Conv2d::new(1, 1, 1).input(1)).expect("valid");
    let (weights, mut workspace) = (plan.pack(&[2.0]).expect("one"), plan.workspace().expect("small"));
    let mut dst = [6.0];
    criterion.bench_function("run of one multiplication", |bencher| {
        bencher.iter(|| {
            let src = black_box([3.0]);
            plan.run(&weights, &src, &mut dst, Epilogue::NONE, &mut workspace, Par::Seq).expect("valid");
        });
    });
    assert_eq!(dst, [6.0]);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(150));
    targets = planning, running
}
criterion_main!(benches);
