//! What lies beyond the caches is asked for, and may be written past them: the bits are the same, wherever the result begins.

use convolve::{
    Activation, BackwardData, Caches, Conv2d, Epilogue, Forward, Isa, Machine, Operand, Par, Planner, Update,
    Workspace,
};
use convolve_testkit::{Scope, reference};

/// Vectors that are lines and vectors that are not; windows of one stride and of two; an image that is no whole number of tiles.
const PROBLEMS: [&str; 5] = [
    "g48mb2ic48ih9oc48kh3ph1",
    "g40mb2ic40ih9oc40kh3ph1",
    "g32mb1ic32ih17oc32kh3sh2ph1",
    "g16mb2ic16ih11oc16kh5ph2",
    "mb1ic3ih12oc32kh3ph1",
];

/// Floats in a cache line.
const LINE: usize = 16;

/// `f` on a result that begins with a cache line, and on one that begins a float later, of a planner whose machine has caches, and of one whose machine has none.
fn check(len: usize, name: &str, f: impl Fn(&Planner, &mut [f32])) {
    let none = Caches { l1: 1, l2: 1, l3: 1 };
    let [expected, found] = [Machine::GENERIC.caches, none].map(|caches| {
        let machine = Machine { caches, ..Machine::GENERIC };
        let planner = Planner::new().threads(2).machine(machine).caches(Caches::default());
        [0, 1].map(|start| {
            let mut memory = Workspace::new(len + LINE).unwrap();
            memory.iter_mut().enumerate().for_each(|(i, x)| *x = (i % 7) as f32);
            f(&planner, &mut memory[start..][..len]);
            let around = [&memory[..start], &memory[start + len..]].concat();
            assert!(around.iter().all(|x| *x < 7.0), "{name}");
            memory[start..][..len].iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        })
    });
    assert_eq!(found, expected, "{name}");
}

#[test]
fn the_bits_do_not_depend_on_what_the_caches_hold() {
    let numbers = |len: usize, by: usize| (0..len).map(|i| (i * by % 13) as f32 - 6.0).collect::<Vec<_>>();
    let mut compared = 0;
    for (text, &isa) in
        PROBLEMS.into_iter().flat_map(|text| Isa::available().iter().map(move |isa| (text, isa)))
    {
        for conv in Scope::everything().layouts(text.parse::<Conv2d>().unwrap()) {
            let len = |operand| reference::len(&conv, operand);
            let [src, weights, dst] = [(Operand::Src, 5), (Operand::Weights, 3), (Operand::Dst, 7)]
                .map(|(o, by)| numbers(len(o), by));
            for algorithm in ["slide", "depthwise", "direct"] {
                let name = format!("{algorithm} {isa} {} {conv}", conv.layout);
                let leaky = Epilogue::NONE.residual(&dst).activation(Activation::LeakyRelu { slope: 0.5 });
                for epilogue in [Epilogue::NONE, Epilogue::NONE.relu(), leaky] {
                    if Planner::new().isa(isa).only(algorithm).plan::<Forward>(conv).is_ok() {
                        check(dst.len(), &name, |planner, dst| {
                            let plan =
                                planner.clone().isa(isa).only(algorithm).plan::<Forward>(conv).unwrap();
                            let (packed, mut workspace) =
                                (plan.pack(&weights).unwrap(), plan.workspace().unwrap());
                            plan.run(&packed, &src, dst, epilogue, &mut workspace, Par::Seq).unwrap();
                        });
                        compared += 1;
                    }
                }
                for update in [Update::Overwrite, Update::Accumulate] {
                    if Planner::new().isa(isa).only(algorithm).plan::<BackwardData>(conv).is_ok() {
                        check(src.len(), &name, |planner, diff_src| {
                            let plan =
                                planner.clone().isa(isa).only(algorithm).plan::<BackwardData>(conv).unwrap();
                            let (packed, mut workspace) =
                                (plan.pack(&weights).unwrap(), plan.workspace().unwrap());
                            plan.run(&packed, &dst, diff_src, update, &mut workspace, Par::Seq).unwrap();
                        });
                        compared += 1;
                    }
                }
            }
        }
    }
    assert!(compared >= 5 * 3 * Isa::available().len(), "{compared}");
    eprintln!("{compared} runs on {:?}", Isa::available());
}
