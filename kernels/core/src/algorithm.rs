//! A variant as a value: it refuses a problem with a sentence, or accepts it with an estimate and builds the thing that runs it.

use crate::machine::tensor_bytes;
use crate::{Geometry, Machine, Par, Pass, Tasks, Tiling, both};
use convolve_simd::Isa;
use core::fmt;

/// How far a result may be from the exact one. u = 2^-24; S = sum of |x||w| over the K products of one output.
///
/// ```
/// use convolve_core::Accuracy;
/// assert!(Accuracy::Strict < Accuracy::Standard);
/// assert_eq!(Accuracy::default(), Accuracy::Standard);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Accuracy {
    /// One accumulator per output in a fixed order: |error| <= K u S, the same bits on every instruction set with fused
    /// multiply-add.
    Strict,
    /// Also algorithms that transform their operands with small amplification, each with a published bound.
    #[default]
    Standard,
    /// Also those with a large one.
    Relaxed,
}

/// Sizes of the data caches that one thread can count on, in bytes.
///
/// ```
/// use convolve_core::Caches;
/// assert_eq!(Caches::default().l1, 32 * 1024);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caches {
    /// First level.
    pub l1: usize,
    /// Second level.
    pub l2: usize,
    /// Share of the last level.
    pub l3: usize,
}

impl Default for Caches {
    /// Small enough for every x86-64 of the last ten years: 32 KiB, 512 KiB, 4 MiB.
    fn default() -> Self {
        Self { l1: 32 << 10, l2: 512 << 10, l3: 4 << 20 }
    }
}

impl Caches {
    /// The last cache, in shares of one thread.
    const SHARES: usize = 8;

    /// Whether that many rows, so many bytes apart, crowd the first level: more of them than a set has ways then share each of its sets, and one that is
    /// read a step at a time beside the others is gone before its line is used up. What comes from a copy with another pitch does not.
    ///
    /// ```
    /// use convolve_core::Caches;
    /// let caches = Caches::default();         // 64 sets of 8 lines
    /// assert!(caches.crowded(14, 4096) && !caches.crowded(8, 4096) && !caches.crowded(14, 2048) && !caches.crowded(14, 4096 + 64));
    /// ```
    pub fn crowded(&self, rows: usize, bytes: usize) -> bool {
        /// Bytes of a way, where pages have 4 KiB and the set is found by the part of an address that no page table changes: x86-64. Where a way is larger,
        /// as on Apple's CPUs, this says no too often.
        const WAY: usize = 4096;
        // Multiples of `bytes` fall on so many places of a way: the largest power of two that divides both says how many.
        let places = WAY >> bytes.trailing_zeros().min(WAY.trailing_zeros());
        rows > places.saturating_mul((self.l1 / WAY).max(1))
    }

    /// Whether the last cache holds `src` and `dst` together. Where it does not, it pays to ask for them before they are used: what only asks goes by
    /// the caches of [`Problem::machine`], what chooses how sums are cut by [`Problem::caches`].
    ///
    /// ```
    /// use convolve_core::{Caches, Conv2d};
    /// let geometry = |batch| Conv2d::new(64, 64, 3).batch(batch).input(56).geometry();
    /// assert!(Caches::default().hold(&geometry(1)?) && !Caches::default().hold(&geometry(10_000)?));
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn hold(&self, geometry: &Geometry) -> bool {
        tensor_bytes(geometry) <= self.l3.saturating_mul(Self::SHARES)
    }
}

/// All that an algorithm may base its answer on.
///
/// ```
/// use convolve_core::{Accuracy, Conv2d, Machine, Problem};
/// let geometry = Conv2d::new(8, 8, 3).input(8).geometry()?;
/// let (isa, machine) = (convolve_simd::Isa::best(), Machine::native());
/// let problem =
///     Problem { geometry, isa, threads: 1, accuracy: Accuracy::Strict, caches: machine.caches, machine, rank: 0 };
/// assert_eq!(problem.geometry.macs(), 8 * 8 * 9 * 36);
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Problem {
    /// The checked convolution.
    pub geometry: Geometry,
    /// The instruction set to use.
    pub isa: Isa,
    /// Most threads that will run tasks at a time: it sizes the workspace and never changes a result.
    pub threads: usize,
    /// The accuracy class that must not be left.
    pub accuracy: Accuracy,
    /// What blocking is computed from.
    pub caches: Caches,
    /// Rates for estimates. They decide which algorithm is taken, and never a bit of what it computes.
    pub machine: Machine,
    /// Which [`Tiling`]: 0 is the one that an algorithm takes if it is not told, 1 another, and so on. Beyond the last it refuses
    /// ([`Unsupported::RANK`]). A rank may repeat an earlier tiling, and algorithms that cut in one way ignore it.
    pub rank: usize,
}

/// Why an algorithm does not serve a problem: a sentence.
///
/// ```
/// assert_eq!(convolve_core::Unsupported("the stride is not 1").to_string(), "the stride is not 1");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub &'static str);

impl Unsupported {
    /// What algorithms say that would leave the accuracy class: the planner tells it from their other reasons.
    pub const ACCURACY: Self = Self("its error bound is larger than the accuracy class allows");
    /// What they say when they are asked for one [`Tiling`] more than they have.
    pub const RANK: Self = Self("it knows no further way to cut the problem");
}

/// Why an algorithm is no candidate: its own reason, or the limit of the caller that excludes it.
///
/// ```
/// use convolve_core::Exclusion;
/// let exclusion = Exclusion::Workspace { needs: 3 << 20, limit: 1 << 20 };
/// assert_eq!(exclusion.to_string(), "it needs 3072 KiB of workspace, and the limit is 1024 KiB");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exclusion {
    /// It does not serve the problem, whatever the limits.
    Unsupported(Unsupported),
    /// It would leave the accuracy class.
    Accuracy,
    /// The caller forced another one.
    Forced,
    /// The caller forbade it.
    Forbidden,
    /// It needs more workspace than the caller allows; both in bytes.
    Workspace {
        /// What it needs.
        needs: usize,
        /// What it may have.
        limit: usize,
    },
}

impl Exclusion {
    /// Whether a limit of the caller is the reason, and not the algorithm.
    /// ```
    /// # use convolve_core::{Exclusion, Unsupported};
    /// assert!(Exclusion::Forbidden.is_limit() && !Exclusion::Unsupported(Unsupported("no")).is_limit());
    /// ```
    pub fn is_limit(self) -> bool {
        !matches!(self, Self::Unsupported(_))
    }
}

impl From<Unsupported> for Exclusion {
    fn from(reason: Unsupported) -> Self {
        if reason == Unsupported::ACCURACY { Self::Accuracy } else { Self::Unsupported(reason) }
    }
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(reason) => reason.fmt(f),
            Self::Accuracy => Unsupported::ACCURACY.fmt(f),
            Self::Forced => f.write_str("another algorithm was forced"),
            Self::Forbidden => f.write_str("it is forbidden"),
            Self::Workspace { needs, limit } => {
                let [needs, limit] = [needs, limit].map(|bytes| bytes.div_ceil(1 << 10));
                write!(f, "it needs {needs} KiB of workspace, and the limit is {limit} KiB")
            }
        }
    }
}

/// Where the time of an estimate goes, in nanoseconds.
///
/// ```
/// let stages = convolve_core::Stages { compute: 3.0, memory: 1.0, ..Default::default() };
/// assert_eq!(stages.sum(), 4.0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stages {
    /// Multiply-adds by the efficiency of the tile, and what is computed around them (transforms).
    pub compute: f64,
    /// Copies, and operands and results that do not come from L1 in time.
    pub memory: f64,
    /// Constants of calls, tiles and tasks, and loads beyond multiply-adds.
    pub calls: f64,
    /// Threads that are woken, and that wait for the last task, as the mean thread sees it.
    pub waiting: f64,
}

impl Stages {
    /// All of them.
    /// ```
    /// assert_eq!(convolve_core::Stages::default().sum(), 0.0);
    /// ```
    pub fn sum(&self) -> f64 {
        self.compute + self.memory + self.calls + self.waiting
    }
}

/// What an algorithm expects to need.
///
/// ```
/// use convolve_core::{Estimate, Tasks};
/// let estimate = Estimate { workspace: 256, ..Estimate::new([7e6, 0.0, 0.0], &Tasks::line(8, 1), 2) };
/// assert_eq!((estimate.ns, estimate.busiest, estimate.packed), (2e6, 0.5, 0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Time of one run with packed weights, in nanoseconds. Algorithms answer for one core of [`Estimate::GHZ`]; [`on`](Self::on) converts
    /// that to the threads and the [`Machine`] of the problem.
    pub ns: f64,
    /// The same for one thread, whatever the problem has.
    pub alone: f64,
    /// The part of the work that the busiest thread does: [`Tasks::busiest`](crate::Tasks::busiest).
    pub busiest: f64,
    /// How unevenly threads would share it, however many there are: [`Tasks::wait`](crate::Tasks::wait).
    pub wait: f64,
    /// How many times it waits, while nothing is computed, for what has left the caches since the last run: 0 where asking and computing go side by side.
    pub exposed: f64,
    /// What goes to and from memory, where no cache holds its tensors, over their size.
    pub traffic: f64,
    /// Workspace, in floats, for all threads.
    pub workspace: usize,
    /// Packed weights, in floats.
    pub packed: usize,
    /// The parts of `ns`, as far as the algorithm says.
    pub stages: Stages,
    /// How the problem is cut.
    pub tiling: Tiling,
}

impl Default for Estimate {
    fn default() -> Self {
        Self::new([0.0; 3], &Tasks::line(1, 1), 1)
    }
}

impl Estimate {
    /// Of cycles of one core, to compute, for memory and for calls, in tasks that so many threads share.
    /// ```
    /// use convolve_core::{Estimate, Tasks};
    /// let estimate = Estimate::new([3.5e3, 7e3, 0.0], &Tasks::line(1, 1), 4);
    /// assert_eq!((estimate.ns, estimate.stages.memory, estimate.busiest), (3e3, 2e3, 1.0));
    /// ```
    pub fn new([compute, memory, calls]: [f64; 3], tasks: &Tasks, threads: usize) -> Self {
        let [compute, memory, calls] = [compute, memory, calls].map(|cycles| cycles / Self::GHZ);
        let stages = Stages { compute, memory, calls, waiting: 0.0 };
        let (ns, tiling) = (stages.sum(), Tiling::default());
        let (busiest, wait) = (tasks.busiest(threads), tasks.wait());
        Self {
            ns,
            alone: ns,
            busiest,
            wait,
            exposed: 0.0,
            traffic: Self::TRAFFIC,
            workspace: 0,
            packed: 0,
            stages,
            tiling,
        }
    }

    /// What is compared, of estimates that are [`on`](Self::on) a problem: the time of one thread, and a seventh of what threads would wait. So the choice
    /// does not depend on how many there are (each algorithm gives the same bits for any number, two algorithms do not), and of two that take as long
    /// alone the one is taken that threads can share.
    /// ```
    /// use convolve_core::{Estimate, Tasks};
    /// let [whole, shared] = [1, 8].map(|tasks| Estimate::new([1e3, 0.0, 0.0], &Tasks::line(tasks, 1), 1));
    /// assert!(whole.ns == shared.ns && whole.price() > shared.price());
    /// ```
    pub fn price(&self) -> f64 {
        self.alone * (1.0 + 0.15 * (self.wait - 1.0))
    }

    /// [`traffic`](Self::traffic) where a line is read before it is written, and memory that is read and written by turns is slower still (Zen 5: tensors of 58 MB at
    /// half the rate of reading alone).
    pub const TRAFFIC: f64 = 2.0;

    /// The clock of the core by which algorithms convert cycles to nanoseconds; it does two vectors of multiply-adds in a cycle.
    pub const GHZ: f64 = 3.5;

    /// The same work on the machine of the problem. Its clock scales calls; its multiply-adds in a cycle as well what is computed; its bandwidths scale
    /// what is moved, and say what its tensors take at least that do not fit its caches, and what it [waits](Self::exposed) for those that others have put out. More
    /// threads than one have to be woken, and wait for the busiest.
    /// ```
    /// use convolve_core::{Accuracy, Conv2d, Estimate, Machine, Problem, Tasks};
    /// let (geometry, isa) = (Conv2d::new(8, 8, 3).input(8).geometry()?, convolve_simd::Isa::available()[0]);
    /// let machine = Machine { ghz: Estimate::GHZ / 2.0, fma: [1.0; 4], bandwidth: [1e3, 28.0, 14.0, 1.0], fork_ns: 7.0, ..Machine::GENERIC };
    /// let caches = machine.caches;
    /// let problem = Problem { geometry, isa, threads: 2, accuracy: Accuracy::Strict, caches, machine, rank: 0 };
    /// let estimate = Estimate::new([8.0, 2.0, 1.0].map(|ns| ns * Estimate::GHZ), &Tasks::line(4, 3), 2).on(&problem);
    /// let [compute, memory, calls] = [8.0 * 2.0 * 2.0, 2.0 * (2.0 + 4.0) / 2.0, 1.0 * 2.0]; // GENERIC reads 112 and 56 bytes a nanosecond
    /// assert!((estimate.alone - (compute + memory + calls)).abs() < 1e-9);
    /// assert!((estimate.ns - (estimate.alone * 0.75 + 7.0)).abs() < 1e-9);
    /// assert!((estimate.stages.compute - compute / 2.0).abs() < 1e-9, "as the mean thread sees it");
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn on(self, problem: &Problem) -> Self {
        let Problem { machine, geometry, threads, .. } = problem;
        let clock = Self::GHZ / machine.ghz;
        let fma = machine.fma(problem.isa);
        let compute = clock * if fma > 0.0 { 2.0 / fma } else { 1.0 };
        let one = Stages {
            compute: self.stages.compute * compute,
            memory: self.stages.memory * machine.moving(problem.isa.lanes()),
            calls: self.stages.calls * clock,
            waiting: 0.0,
        };
        // No algorithm is faster than its tensors can be moved, and where both take as long they do not quite hide each other. Some hide less.
        let with_moved = |ns: f64, threads: usize| {
            let hidden = match machine.moved_ns(geometry, threads, self.traffic) {
                moved if moved > 0.0 => both::<3>(ns, moved),
                _ => ns,
            };
            hidden + self.exposed * machine.far_ns(geometry, threads, hidden)
        };
        let alone = with_moved(one.sum(), 1);
        let (ns, mean) = if *threads > 1 && self.busiest < 1.0 {
            (with_moved(one.sum() * self.busiest, *threads) + machine.fork_ns, 1.0 / *threads as f64)
        } else {
            (alone, 1.0)
        };
        let [compute, calls] = [one.compute, one.calls].map(|part| part * mean);
        let waiting = if mean < 1.0 { one.sum() * (self.busiest - mean) + machine.fork_ns } else { 0.0 };
        let stages = Stages { compute, calls, waiting, memory: ns - compute - calls - waiting };
        Self { ns, alone, stages, ..self }
    }
}

/// A way to compute one pass. Registered as a value in one list that planner, tests, benches and fuzzing all read.
pub trait Algorithm<P: Pass>: Sync {
    /// Its name: `direct`, `im2col`, `winograd-f4x3`.
    fn name(&self) -> &'static str;

    /// How far it may be from the exact result. Of an algorithm that adds up products, 1: |error| <= K u S.
    ///
    /// An algorithm that transforms its operands says a greater number `a`, computed from its matrices: |error| <= a (T + 40) u B, where T is
    /// how many terms are added after the transform (input channels of a group; output channels in backward-data; tiles in
    /// backward-weights), and B is the sum, over channels or images, of the greatest |left| of the plane times the sum of |right| over taps
    /// or pixels. [`Accuracy::Strict`] wants 1.
    fn amplification(&self) -> f64 {
        1.0
    }

    /// What it would cost.
    ///
    /// # Errors
    /// The reason why it does not serve this problem.
    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported>;

    /// Everything that can be decided before the data is there. Only called when [`estimate`](Self::estimate) accepted.
    fn build(&self, problem: &Problem) -> Box<dyn Execute<P>>;
}

/// An algorithm that is ready for one problem. Holds no buffers, so one value serves any number of threads at a time.
pub trait Execute<P: Pass>: Send + Sync {
    /// Floats that [`pack`](Self::pack) writes.
    fn packed_len(&self) -> usize {
        0
    }

    /// Puts weights into the order in which [`run`](Self::run) reads them: once for inference, each step for training.
    fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        let _ = (weights, packed);
    }

    /// Floats of workspace that [`run`](Self::run) needs.
    fn workspace_len(&self) -> usize {
        0
    }

    /// Computes. Cannot fail and does not allocate; the workspace holds garbage before and after.
    fn run(&self, operands: P::Operands<'_>, workspace: &mut [f32], par: Par<'_>);
}
