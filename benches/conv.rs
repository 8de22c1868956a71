//! Criterion over the registry: `cargo bench --bench conv -- FILTER`, where `pass/layout/problem/algorithm` contains the filter.
//!
//! One thread, on the instruction set that `CONVOLVE_ISA` says. An element of its throughput is a floating-point operation.

use convolve::{Conv2d, Isa, Layout, Par, Planner, WeightLayout};
use convolve_benches::case::{AnyPass, Operands};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;

/// The first layer, a 3x3 body, a 1x1, a step of 2 and a depthwise layer.
const PROBLEMS: [&str; 5] = [
    "mb1ic3ih224oc64oh112kh7sh2ph3",
    "mb1ic256ih14oc256kh3ph1",
    "mb1ic64ih56oc256kh1",
    "mb1ic128ih56oc128oh28kh3sh2ph1",
    "g144mb1ic144ih56oc144kh3ph1",
];

fn registry(criterion: &mut Criterion) {
    let isa = Isa::from_env().unwrap_or_else(|error| {
        eprintln!("error: {error}");
        std::process::exit(2)
    });
    for pass in AnyPass::ALL {
        for (layout, weights) in [(Layout::Nchw, WeightLayout::Oihw), (Layout::Nhwc, WeightLayout::Hwio)] {
            for problem in PROBLEMS {
                let conv: Conv2d = problem.parse().expect("the problems above are valid");
                algorithms(criterion, pass, conv.layout(layout).weight_layout(weights), isa);
            }
        }
    }
}

/// Every algorithm that accepts; memory is filled only for those that the filter lets pass.
fn algorithms(criterion: &mut Criterion, pass: AnyPass, conv: Conv2d, isa: Isa) {
    let planner = Planner::new().isa(isa).threads(1);
    let mut group = criterion.benchmark_group(format!("{}/{}/{conv}", pass.name(), conv.layout));
    let geometry = conv.geometry().expect("the problems above are valid");
    group.throughput(Throughput::Elements(2 * geometry.macs()));
    let mut operands = None;
    for verdict in pass.verdicts(&planner, conv).expect("the problems above are valid") {
        if verdict.answer.is_err() {
            continue;
        }
        let planner = planner.clone().only(verdict.algorithm);
        group.bench_function(verdict.algorithm, |bencher| {
            let operands =
                &*operands.get_or_insert_with(|| Operands::new(conv).expect("they fit the memory"));
            let mut case = pass.prepare(&planner, operands, Par::Seq).expect("the algorithm accepted");
            bencher.iter(&mut case.run);
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = registry
}
criterion_main!(benches);
