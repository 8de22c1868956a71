//! One candidate, ready to be run again and again, and the clock.

use crate::registry::Registered;
use crate::{PackedWeights, Plan};
use convolve_core::{
    BackwardData, BackwardWeights, Epilogue, Error, Forward, Geometry, Machine, Par, Update, Workspace,
};
use std::time::{Duration, Instant};

/// A sample takes at least that long: short problems are run several times.
const LEAST: Duration = Duration::from_micros(100);
/// Samples that are enough.
const ENOUGH: usize = 31;
/// After that many samples a candidate that is slower than the best by more than [`HOPELESS`] is dropped.
const FIRST: usize = 3;
const HOPELESS: f64 = 1.3;

/// What every candidate reads: numbers between -1 and 1, none subnormal.
pub(crate) struct Operands {
    src: Workspace,
    weights: Workspace,
    dst: Workspace,
}

impl Operands {
    pub(crate) fn new(geometry: &Geometry) -> Result<Self, Error> {
        let numbers = |len| -> Result<Workspace, Error> {
            let mut numbers = Workspace::new(len)?;
            let mut state = 1u32;
            numbers.iter_mut().for_each(|number| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *number = ((state >> 16) as f32 - 32767.5) / 32768.0;
            });
            Ok(numbers)
        };
        let [src, weights, dst] =
            [geometry.src_len(), geometry.weights_len(), geometry.dst_len()].map(numbers);
        Ok(Self { src: src?, weights: weights?, dst: dst? })
    }
}

/// Runs a candidate once.
pub(crate) type Run<'a> = Box<dyn FnMut() + 'a>;

/// A pass that can be timed: all of them.
pub trait Tunable: Registered + Sized {
    #[doc(hidden)]
    #[expect(private_interfaces, reason = "callers only name the trait")]
    fn run<'a>(plan: Plan<Self>, operands: &'a Operands, cold: bool, par: Par<'a>) -> Result<Run<'a>, Error>;
}

/// Packed weights that a run takes turn by turn. As a layer of a network does not find its weights in L2 when its turn comes again, there are
/// copies enough to fill the machine's L2 twice (of which algorithms take a part for their blocks); where they would not matter (weights below an eighth
/// of L2) there is one.
fn copies(machine: &Machine, packed: usize, cold: bool) -> usize {
    let (bytes, l2) = (packed * size_of::<f32>(), machine.caches.l2);
    if cold && bytes >= l2 / 8 { (2 * l2).div_ceil(bytes.max(1)).clamp(1, 16) } else { 1 }
}

const CHECKED: &str = "every length was taken from the plan";

macro_rules! with_weights {
    ($pass:ident, $read:ident, $written:ident, $finish:expr) => {
        impl Tunable for $pass {
            #[expect(private_interfaces, reason = "callers only name the trait")]
            fn run<'a>(
                plan: Plan<Self>,
                operands: &'a Operands,
                cold: bool,
                par: Par<'a>,
            ) -> Result<Run<'a>, Error> {
                let copies = copies(&plan.problem().machine, plan.estimate().packed, cold);
                let packed: Result<Vec<PackedWeights>, Error> =
                    (0..copies.max(1)).map(|_| plan.pack(&operands.weights)).collect();
                let (packed, mut workspace) = (packed?, plan.workspace()?);
                let mut result = Workspace::new(operands.$written.len())?;
                let mut turn = 0;
                Ok(Box::new(move || {
                    turn = (turn + 1) % packed.len();
                    let weights = &packed[turn];
                    plan.run(weights, &operands.$read, &mut result, $finish, &mut workspace, par)
                        .expect(CHECKED);
                }))
            }
        }
    };
}
with_weights!(Forward, src, dst, Epilogue::NONE);
with_weights!(BackwardData, dst, src, Update::Overwrite);

impl Tunable for BackwardWeights {
    #[expect(private_interfaces, reason = "callers only name the trait")]
    fn run<'a>(plan: Plan<Self>, operands: &'a Operands, _: bool, par: Par<'a>) -> Result<Run<'a>, Error> {
        let mut workspace = plan.workspace()?;
        let mut result = Workspace::new(operands.weights.len())?;
        Ok(Box::new(move || {
            let (src, dst, update) = (&operands.src, &operands.dst, Update::Overwrite);
            plan.run(src, dst, Some(&mut result), None, update, &mut workspace, par).expect(CHECKED);
        }))
    }
}

/// Median nanoseconds of a run of each, sampled in turn, A B C A B C, until the time is spent; at least one sample of each.
pub(crate) fn interleave(runs: &mut [Run<'_>], budget: Duration) -> Vec<f64> {
    let begin = Instant::now();
    let batches: Vec<usize> = runs.iter_mut().map(batch).collect();
    let mut samples = vec![Vec::new(); runs.len()];
    let mut active: Vec<usize> = (0..runs.len()).collect();
    for round in 1..=ENOUGH {
        for &i in &active {
            samples[i].push(time(&mut runs[i], batches[i]).as_nanos() as f64 / batches[i] as f64);
        }
        if begin.elapsed() >= budget {
            break;
        }
        if round == FIRST {
            let least = |i: usize| samples[i].iter().copied().fold(f64::INFINITY, f64::min);
            let best = active.iter().map(|&i| least(i)).fold(f64::INFINITY, f64::min);
            active.retain(|&i| least(i) <= HOPELESS * best);
        }
    }
    samples.into_iter().map(median).collect()
}

/// How many runs make a sample. The first run is not timed.
fn batch(run: &mut Run<'_>) -> usize {
    run();
    let mut batch = 1;
    loop {
        let time = time(run, batch);
        if time >= LEAST {
            return batch;
        }
        let factor = 1.2 * LEAST.as_secs_f64() / time.as_secs_f64().max(1e-9);
        batch = ((batch as f64 * factor.clamp(1.0, 100.0)).ceil() as usize).max(batch + 1);
    }
}

fn time(run: &mut Run<'_>, batch: usize) -> Duration {
    let begin = Instant::now();
    (0..batch).for_each(|_| run());
    begin.elapsed()
}

/// At least a nanosecond, so that it is a time.
fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2].max(1.0)
}
