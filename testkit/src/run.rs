//! One way to run everything: an algorithm by name, on a problem, under conditions that are as hostile as a caller may make them.
//!
//! Result, workspace and packed weights start full of a poison, every slice starts at any offset from a cache line, and 16 floats
//! on either side of what may be written are checked afterwards.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use convolve::registry::Registered;
use convolve::{
    Accuracy, Algorithm, BackwardData, BackwardDataArgs, BackwardWeights, BackwardWeightsArgs, Caches,
    Conv2d, Epilogue, Error, Execute, Forward, ForwardArgs, Geometry, Isa, Layout, Machine, Operand, Par,
    Pass, Plan, Planner, Problem, Update, WeightLayout,
};

use crate::data::Random;

/// A pass, as a value. Its three tensors are `left`, `right` and `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// dst from src and weights.
    Forward,
    /// diff_src from diff_dst and weights.
    BackwardData,
    /// diff_weights from src and diff_dst.
    BackwardWeights,
}

impl Direction {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Forward, Self::BackwardData, Self::BackwardWeights];

    /// benchdnn's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => Forward::NAME,
            Self::BackwardData => BackwardData::NAME,
            Self::BackwardWeights => BackwardWeights::NAME,
        }
    }

    /// The first operand.
    pub fn left(self) -> Operand {
        if self == Self::BackwardData { Operand::Dst } else { Operand::Src }
    }

    /// The second operand.
    pub fn right(self) -> Operand {
        if self == Self::BackwardWeights { Operand::Dst } else { Operand::Weights }
    }

    /// The result.
    pub fn result(self) -> Operand {
        [Operand::Dst, Operand::Src, Operand::Weights][self as usize]
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Direction {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|d| d.name() == name)
            .ok_or(format!("`{name}` is no pass; there are: {known}"))
    }
}

/// One thing that can be run. Printed as arguments of `verify`.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The problem with its layouts.
    pub conv: Conv2d,
    /// The pass.
    pub direction: Direction,
    /// The name of the algorithm.
    pub algorithm: &'static str,
    /// The instruction set.
    pub isa: Isa,
    /// Threads planned for.
    pub threads: usize,
    /// Caches planned for; [`TINY`] ones make small problems take the loops of large ones.
    pub caches: Caches,
    /// The accuracy class.
    pub accuracy: Accuracy,
    /// Which way to cut the problem: 0 is the usual one.
    pub rank: usize,
}

/// Caches so small that every loop over blocks runs more than once.
pub const TINY: Caches = Caches { l1: 1 << 10, l2: 4 << 10, l3: 16 << 10 };

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { conv, direction, algorithm, isa, threads, caches, rank, .. } = self;
        let caches = if *caches == TINY { " --tiny-caches" } else { "" };
        let rank = if *rank > 0 { format!(" --rank {rank}") } else { String::new() };
        write!(
            f,
            "--algorithm {algorithm} --pass {direction} --layout {} --weight-layout {} --isa {isa} --threads {threads}{caches}{rank} {conv}",
            conv.layout, conv.weight_layout
        )
    }
}

/// The algorithms under test.
#[derive(Clone, Default)]
pub struct Algorithms {
    /// Of the forward pass.
    pub forward: Vec<&'static dyn Algorithm<Forward>>,
    /// Of the gradient of the input.
    pub backward_data: Vec<&'static dyn Algorithm<BackwardData>>,
    /// Of the gradient of the weights.
    pub backward_weights: Vec<&'static dyn Algorithm<BackwardWeights>>,
    /// Whether they are those of the registry, which are run as users run them: through planner and plan.
    registered: bool,
}

/// Why there is nothing to run.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// The algorithm's own sentence.
    Unsupported(String),
    /// Anything else; an error of the library.
    Error(String),
}

impl Algorithms {
    /// All that are registered.
    pub fn registered() -> Self {
        Self {
            forward: Forward::algorithms().to_vec(),
            backward_data: BackwardData::algorithms().to_vec(),
            backward_weights: BackwardWeights::algorithms().to_vec(),
            registered: true,
        }
    }

    /// Their names in one pass.
    pub fn names(&self, direction: Direction) -> Vec<&'static str> {
        match direction {
            Direction::Forward => self.forward.iter().map(|a| a.name()).collect(),
            Direction::BackwardData => self.backward_data.iter().map(|a| a.name()).collect(),
            Direction::BackwardWeights => self.backward_weights.iter().map(|a| a.name()).collect(),
        }
    }

    /// What the algorithm of a case says about its error.
    fn amplification(&self, case: &Case) -> f64 {
        fn of<P: Pass>(algorithms: &[&'static dyn Algorithm<P>], name: &str) -> f64 {
            algorithms.iter().find(|a| a.name() == name).map_or(1.0, |a| a.amplification())
        }
        match case.direction {
            Direction::Forward => of(&self.forward, case.algorithm),
            Direction::BackwardData => of(&self.backward_data, case.algorithm),
            Direction::BackwardWeights => of(&self.backward_weights, case.algorithm),
        }
    }

    /// Makes a case ready to run.
    ///
    /// # Errors
    /// The algorithm's reason, or whatever else goes wrong.
    pub fn ready(&self, case: Case) -> Result<Execution, Refusal> {
        let geometry = case.conv.geometry().map_err(|e| Refusal::Error(e.to_string()))?;
        let ready = match case.direction {
            Direction::Forward => self.make::<Forward>(&case, &self.forward, geometry)?,
            Direction::BackwardData => self.make::<BackwardData>(&case, &self.backward_data, geometry)?,
            Direction::BackwardWeights => {
                self.make::<BackwardWeights>(&case, &self.backward_weights, geometry)?
            }
        };
        Ok(Execution { case, geometry, amplification: self.amplification(&case), ready })
    }

    fn make<P: Registered>(
        &self,
        case: &Case,
        algorithms: &[&'static dyn Algorithm<P>],
        geometry: Geometry,
    ) -> Result<Box<dyn Ready>, Refusal>
    where
        Plan<P>: Ready,
        Raw<P>: Ready,
    {
        let Case { conv, algorithm, isa, threads, caches, accuracy, .. } = *case;
        let made = catch_unwind(AssertUnwindSafe(|| -> Result<Box<dyn Ready>, Refusal> {
            if self.registered {
                let planner = Planner::new().isa(isa).threads(threads).caches(caches).accuracy(accuracy);
                return match planner.only(algorithm).rank(case.rank).plan::<P>(conv) {
                    Ok(plan) => Ok(Box::new(plan)),
                    Err(Error::Unsupported { reason, .. }) => Err(Refusal::Unsupported(reason.to_owned())),
                    Err(error) => Err(Refusal::Error(error.to_string())),
                };
            }
            let algorithm = algorithms.iter().find(|a| a.name() == algorithm);
            let algorithm = algorithm.ok_or_else(|| Refusal::Error("no such algorithm".into()))?;
            let machine = Machine::native();
            let problem = Problem { geometry, isa, threads, accuracy, caches, machine, rank: case.rank };
            algorithm.estimate(&problem).map_err(|reason| Refusal::Unsupported(reason.0.to_owned()))?;
            Ok(Box::new(Raw(algorithm.build(&problem))))
        }));
        made.unwrap_or_else(|panic| Err(Refusal::Error(format!("planning panicked: {}", said(&*panic)))))
    }
}

/// What the result is made of besides the two operands.
#[derive(Clone, Copy, Debug, Default)]
pub struct How<'a> {
    /// Forward only.
    pub epilogue: Epilogue<'a>,
    /// Gradients only: what is there already and must be added to.
    pub initial: Option<&'a [f32]>,
}

/// Where tasks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// The calling thread.
    Seq,
    /// The pool that is current.
    Current,
    /// A [`pool`] of that many threads.
    Pool(usize),
}

/// The conditions of one run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// What fills result, workspace and packed weights before.
    pub poison: f32,
    /// Floats from a cache line to the start of left, right, result and workspace.
    pub offsets: [usize; 4],
    /// Where tasks run.
    pub at: Where,
}

impl Run {
    /// The poisons: a signalling NaN, and a number that no small change hides.
    pub const POISONS: [f32; 2] = [f32::from_bits(0x7fa0_dead), 1.234e30];

    /// Some conditions; a seed for each.
    pub fn new(at: Where, seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self { poison: Self::POISONS[random.below(2)], offsets: [0; 4].map(|_| random.below(16)), at }
    }
}

/// A plan of any pass, or an algorithm that is not registered.
trait Ready: Send + Sync {
    fn workspace_len(&self) -> usize;
    fn go(&self, tensors: Tensors<'_>, how: &How<'_>, poison: f32, par: Par<'_>) -> Result<(), Error>;
}

struct Tensors<'a> {
    left: &'a [f32],
    right: &'a [f32],
    result: &'a mut [f32],
    workspace: &'a mut [f32],
}

fn update(how: &How<'_>) -> Update {
    if how.initial.is_some() { Update::Accumulate } else { Update::Overwrite }
}

/// Packs twice: what other weights left behind must not show.
macro_rules! packed {
    ($plan:expr, $weights:expr) => {{
        let mut packed = $plan.pack(&vec![f32::NAN; $weights.len()])?;
        $plan.pack_again($weights, &mut packed)?;
        packed
    }};
}

impl Ready for Plan<Forward> {
    fn workspace_len(&self) -> usize {
        Plan::workspace_len(self)
    }
    fn go(&self, t: Tensors<'_>, how: &How<'_>, _: f32, par: Par<'_>) -> Result<(), Error> {
        self.run(&packed!(self, t.right), t.left, t.result, how.epilogue, t.workspace, par)
    }
}

impl Ready for Plan<BackwardData> {
    fn workspace_len(&self) -> usize {
        Plan::workspace_len(self)
    }
    fn go(&self, t: Tensors<'_>, how: &How<'_>, _: f32, par: Par<'_>) -> Result<(), Error> {
        self.run(&packed!(self, t.right), t.left, t.result, update(how), t.workspace, par)
    }
}

impl Ready for Plan<BackwardWeights> {
    fn workspace_len(&self) -> usize {
        Plan::workspace_len(self)
    }
    fn go(&self, t: Tensors<'_>, how: &How<'_>, _: f32, par: Par<'_>) -> Result<(), Error> {
        self.run(t.left, t.right, Some(t.result), None, update(how), t.workspace, par)
    }
}

/// An algorithm without a plan.
struct Raw<P: Pass>(Box<dyn Execute<P>>);

impl<P: Pass> Raw<P> {
    fn packed(&self, weights: &[f32], poison: f32) -> Vec<f32> {
        let mut packed = vec![poison; self.0.packed_len()];
        self.0.pack(weights, &mut packed);
        packed
    }
}

impl Ready for Raw<Forward> {
    fn workspace_len(&self) -> usize {
        self.0.workspace_len()
    }
    fn go(&self, t: Tensors<'_>, how: &How<'_>, poison: f32, par: Par<'_>) -> Result<(), Error> {
        let weights = &self.packed(t.right, poison);
        let args = ForwardArgs { src: t.left, weights, dst: t.result, epilogue: how.epilogue };
        self.0.run(args, t.workspace, par);
        Ok(())
    }
}

impl Ready for Raw<BackwardData> {
    fn workspace_len(&self) -> usize {
        self.0.workspace_len()
    }
    fn go(&self, t: Tensors<'_>, how: &How<'_>, poison: f32, par: Par<'_>) -> Result<(), Error> {
        let weights = &self.packed(t.right, poison);
        let args = BackwardDataArgs { diff_dst: t.left, weights, diff_src: t.result, update: update(how) };
        self.0.run(args, t.workspace, par);
        Ok(())
    }
}

impl Ready for Raw<BackwardWeights> {
    fn workspace_len(&self) -> usize {
        self.0.workspace_len()
    }
    fn go(&self, t: Tensors<'_>, how: &How<'_>, _: f32, par: Par<'_>) -> Result<(), Error> {
        let args = BackwardWeightsArgs {
            src: t.left,
            diff_dst: t.right,
            diff_weights: t.result,
            update: update(how),
        };
        self.0.run(args, t.workspace, par);
        Ok(())
    }
}

/// A case that is ready to run, any number of times, from any number of threads.
pub struct Execution {
    /// What it is.
    pub case: Case,
    /// The checked problem.
    pub geometry: Geometry,
    /// What its algorithm says about its error.
    pub amplification: f64,
    ready: Box<dyn Ready>,
}

impl Execution {
    /// Shape of the result, in the order of memory.
    pub fn shape(&self) -> [usize; 4] {
        match self.case.direction.result() {
            Operand::Dst => self.geometry.dst_shape(),
            Operand::Src => self.geometry.src_shape(),
            _ => self.geometry.weights_shape(),
        }
    }

    /// Threads as planned.
    pub fn planned(&self) -> Where {
        if self.case.threads == 1 { Where::Seq } else { Where::Pool(self.case.threads) }
    }

    /// The result, from operands in the order of memory.
    ///
    /// # Errors
    /// A panic, an `Err` of the library, or a write beyond the end: the case and a sentence.
    pub fn run(&self, left: &[f32], right: &[f32], how: &How<'_>, run: Run) -> Result<Vec<f32>, String> {
        let Run { poison, offsets, at } = run;
        let len = self.shape().iter().product();
        let copy = |slice: &[f32], offset| {
            let mut copy = Guarded::new(slice.len(), offset, poison);
            copy.slice().copy_from_slice(slice);
            copy
        };
        let (mut left, mut right) = (copy(left, offsets[0]), copy(right, offsets[1]));
        let mut result = match how.initial {
            Some(initial) => copy(initial, offsets[2]),
            None => Guarded::new(len, offsets[2], poison),
        };
        let mut workspace = Guarded::new(self.ready.workspace_len(), offsets[3], poison);
        let mut go = |par: Par<'_>| {
            let (left, right) = (left.slice(), right.slice());
            let tensors = Tensors { left, right, result: result.slice(), workspace: workspace.slice() };
            self.ready.go(tensors, how, poison, par)
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| match at {
            Where::Seq => go(Par::Seq),
            Where::Current => go(Par::Current),
            Where::Pool(threads) => pool(threads).install(|| go(Par::Current)),
        }));
        match outcome {
            Err(panic) => return Err(format!("{}: panicked: {}", self.case, said(&*panic))),
            Ok(Err(error)) => return Err(format!("{}: {error}", self.case)),
            Ok(Ok(())) => {}
        }
        for (name, buffer) in [("result", &result), ("workspace", &workspace)] {
            buffer.intact().map_err(|place| format!("{}: wrote {place} the {name}", self.case))?;
        }
        Ok(result.slice().to_vec())
    }
}

/// The message of a panic.
fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("not a text")
}

/// A slice somewhere in a buffer, between guards.
struct Guarded {
    buffer: Vec<f32>,
    start: usize,
    len: usize,
}

impl Guarded {
    const GUARD: f32 = f32::from_bits(0x7fa5_a5a5);
    const LINE: usize = 16;

    fn new(len: usize, offset: usize, poison: f32) -> Self {
        let mut buffer = vec![Self::GUARD; len + 4 * Self::LINE];
        let start = buffer.as_ptr().align_offset(64).min(Self::LINE) + Self::LINE + offset % Self::LINE;
        buffer[start..start + len].fill(poison);
        Self { buffer, start, len }
    }

    fn slice(&mut self) -> &mut [f32] {
        &mut self.buffer[self.start..][..self.len]
    }

    fn intact(&self) -> Result<(), &'static str> {
        let whole = |part: &[f32]| part.iter().all(|x| x.to_bits() == Self::GUARD.to_bits());
        match (whole(&self.buffer[..self.start]), whole(&self.buffer[self.start + self.len..])) {
            (false, _) => Err("before"),
            (_, false) => Err("beyond"),
            _ => Ok(()),
        }
    }
}

/// A pool of 1 to 8 threads; made once.
///
/// # Panics
/// For other numbers, and when the system gives no threads.
pub fn pool(threads: usize) -> &'static rayon::ThreadPool {
    static POOLS: [OnceLock<rayon::ThreadPool>; 8] = [const { OnceLock::new() }; 8];
    POOLS[threads - 1].get_or_init(|| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("the system gives threads")
    })
}

/// Runs something that might hang; aborts the process with the name after a minute.
///
/// # Panics
/// When it does.
pub fn watchdog(name: &str, f: impl FnOnce() + Send + 'static) {
    let (done, wait) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        f();
        let _ = done.send(());
    });
    if wait.recv_timeout(Duration::from_secs(60)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        eprintln!("{name}: no answer for 60 seconds");
        std::process::abort();
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The names that an instruction set can have.
pub const NAMES: [&str; 4] = ["portable", "neon", "avx2", "avx512"];

/// The instruction sets of this CPU. Says so, once, on standard error; `CONVOLVE_REQUIRE_ISAS=avx2,avx512` makes the absence of one
/// a failure.
///
/// # Panics
/// When a required one is absent.
pub fn isas() -> Vec<Isa> {
    static SAID: OnceLock<()> = OnceLock::new();
    let here = Isa::available();
    SAID.get_or_init(|| {
        let names: Vec<_> = here.iter().map(|isa| isa.name()).collect();
        let absent: Vec<_> = NAMES.into_iter().filter(|name| !names.contains(name)).collect();
        let absent = if absent.is_empty() { "none".to_owned() } else { absent.join(", ") };
        eprintln!("ISAs that ran: {}; not on this CPU: {absent}", names.join(", "));
        let required = std::env::var("CONVOLVE_REQUIRE_ISAS").unwrap_or_default();
        for name in required.split(',').filter(|name| !name.is_empty()) {
            assert!(
                names.contains(&name),
                "CONVOLVE_REQUIRE_ISAS asks for `{name}`, which this CPU does not have"
            );
        }
    });
    here.to_vec()
}

/// What to run of each problem.
#[derive(Clone)]
pub struct Scope {
    /// The algorithms.
    pub algorithms: Algorithms,
    /// Only the one of that name.
    pub only: Option<String>,
    /// The passes.
    pub directions: Vec<Direction>,
    /// The layouts of activations.
    pub layouts: Vec<Layout>,
    /// The layouts of weights.
    pub weight_layouts: Vec<WeightLayout>,
    /// The instruction sets.
    pub isas: Vec<Isa>,
    /// Threads.
    pub threads: Vec<usize>,
    /// Caches.
    pub caches: Vec<Caches>,
    /// The accuracy class.
    pub accuracy: Accuracy,
    /// Ways to cut a problem, as [`Planner::rank`] counts them; an algorithm that has fewer refuses the others, and one that has one ignores them.
    pub ranks: Vec<usize>,
}

impl Scope {
    /// Everything of these algorithms, on threads 1, 2 and 3.
    pub fn of(algorithms: Algorithms) -> Self {
        Self {
            algorithms,
            only: None,
            directions: Direction::ALL.to_vec(),
            layouts: Layout::ALL.to_vec(),
            weight_layouts: WeightLayout::ALL.to_vec(),
            isas: isas(),
            threads: vec![1, 2, 3],
            caches: vec![Caches::default()],
            accuracy: Accuracy::Relaxed,
            ranks: vec![0],
        }
    }

    /// Everything that is registered.
    ///
    /// # Panics
    /// When nothing is: a test of nothing is no test.
    pub fn everything() -> Self {
        let this = Self::of(Algorithms::registered());
        for direction in Direction::ALL {
            assert!(
                !this.algorithms.names(direction).is_empty(),
                "no algorithm is registered for {direction}"
            );
        }
        this
    }

    /// Everything that promises the strict bound.
    pub fn strict() -> Self {
        Self { accuracy: Accuracy::Strict, ..Self::everything() }
    }

    /// The same on one thread.
    pub fn serial(self) -> Self {
        Self { threads: vec![1], ..self }
    }

    /// The same for one pass.
    pub fn only(self, direction: Direction) -> Self {
        Self { directions: vec![direction], ..self }
    }

    /// The problem in each layout and weight layout.
    pub fn layouts(&self, conv: Conv2d) -> impl Iterator<Item = Conv2d> {
        self.layouts.iter().flat_map(move |&layout| {
            self.weight_layouts.iter().map(move |&weights| conv.layout(layout).weight_layout(weights))
        })
    }

    /// Calls `f` for each case of a pass of a problem as it is laid out: what is ready to run, or why it is not.
    pub fn for_each(
        &self,
        conv: Conv2d,
        direction: Direction,
        mut f: impl FnMut(Case, Result<Execution, Refusal>),
    ) {
        let wanted = |name: &&str| self.only.as_deref().is_none_or(|only| only == *name);
        for algorithm in self.algorithms.names(direction).into_iter().filter(wanted) {
            for (&isa, &threads) in self.isas.iter().flat_map(|i| self.threads.iter().map(move |t| (i, t))) {
                for (&caches, &rank) in
                    self.caches.iter().flat_map(|c| self.ranks.iter().map(move |r| (c, r)))
                {
                    let accuracy = self.accuracy;
                    let case = Case { conv, direction, algorithm, isa, threads, caches, accuracy, rank };
                    f(case, self.algorithms.ready(case));
                }
            }
        }
    }

    /// Calls `f` with everything that runs a problem: each pass, layout, weight layout, algorithm, instruction set, number of
    /// threads.
    ///
    /// # Panics
    /// When the library fails with anything but an algorithm's reason.
    pub fn for_each_execution(&self, conv: Conv2d, mut f: impl FnMut(&Execution)) {
        for &direction in &self.directions {
            for conv in self.layouts(conv) {
                self.for_each(conv, direction, |case, ready| match ready {
                    Ok(execution) => f(&execution),
                    Err(Refusal::Unsupported(_)) => {}
                    Err(Refusal::Error(error)) => panic!("{case}: {error}"),
                });
            }
        }
    }
}
