//! One line of a tuning file: who won, for what, on which machine. JSON, flat, with a version.

use crate::{Explanation, Verdict};
use convolve_core::Conv2d;
use convolve_simd::Cpu;
use core::fmt;
use serde::{Deserialize, Serialize};

/// The version of the lines that are written, and the only one that is read.
const VERSION: u64 = 1;
/// A line longer than that is not one of ours.
const LONGEST: usize = 1 << 16;

/// The kernels of this program: the version, and in a checkout a hash of their sources.
pub(crate) fn kernels() -> &'static str {
    concat!(env!("CARGO_PKG_VERSION"), env!("CONVOLVE_KERNELS"))
}

/// What an entry holds for. Two are the same if all of this is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    problem: String,
    pass: String,
    layout: String,
    weights: String,
    threads: usize,
    isa: String,
    accuracy: String,
    limits: String,
}

impl Key {
    pub(crate) fn new(explanation: &Explanation, limits: &str) -> Self {
        let Explanation { problem, pass, layout, weights, isa, threads, accuracy, .. } = explanation;
        Self {
            problem: problem.clone(),
            pass: (*pass).to_owned(),
            layout: layout.clone(),
            weights: weights.clone(),
            threads: *threads,
            isa: isa.name().to_owned(),
            accuracy: format!("{accuracy:?}").to_lowercase(),
            limits: limits.to_owned(),
        }
    }
}

/// What was found for one problem, as it stands in a line of the file.
///
/// ```
/// use convolve::TuningCache;
/// assert_eq!(TuningCache::new().entries().len(), 0);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TunedEntry {
    /// Version of the line.
    pub v: u64,
    /// The CPU it was measured on, as [`Cpu`] prints.
    pub cpu: String,
    /// Version and hash of the kernels that were measured.
    pub kernels: String,
    /// The problem as a benchdnn string.
    pub problem: String,
    /// `fwd`, `bwd_d`, `bwd_w`.
    pub pass: String,
    /// `NCHW` or `NHWC`.
    pub layout: String,
    /// `OIHW`, `OHWI` or `HWIO`.
    pub weights: String,
    /// Threads that worked.
    pub threads: usize,
    /// The instruction set.
    pub isa: String,
    /// `strict`, `standard`, `relaxed`.
    pub accuracy: String,
    /// The limits within which it won; empty if there were none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub limits: String,
    /// Whether weights came from beyond L2, as they do in a network.
    pub cold: bool,
    /// The winner.
    pub algorithm: String,
    /// Which of its ways to cut the problem won, as in [`Planner::rank`](crate::Planner::rank); left out if it is the usual one.
    #[serde(default, skip_serializing_if = "usual")]
    pub rank: usize,
    /// How that cuts, as [`Tiling`](crate::Tiling) prints: it holds only as long as that rank still cuts so. Left out with the rank.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tiling: String,
    /// Median nanoseconds of a run of the winner.
    pub ns: f64,
    /// All that were timed, each with its median in nanoseconds. Behind the name of an algorithm stands how it cut the problem, if that is not the usual
    /// way.
    pub measured: Vec<(String, f64)>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn usual(rank: &usize) -> bool {
    *rank == 0
}

/// How [`TunedEntry::measured`] names a plan.
pub(crate) fn name(algorithm: &str, tiling: &str) -> String {
    if tiling.is_empty() { algorithm.to_owned() } else { format!("{algorithm}: {tiling}") }
}

/// How a verdict cuts, if that is not the usual way.
pub(crate) fn unusual(verdict: &Verdict) -> String {
    let tiling = verdict.answer.map_or_else(|_| String::new(), |estimate| estimate.tiling.to_string());
    if verdict.rank == 0 { String::new() } else { tiling }
}

impl TunedEntry {
    /// From the winner and all that were timed; nothing if the winner was not.
    pub(crate) fn new(key: &Key, cold: bool, winner: &Verdict, timed: &[&Verdict]) -> Option<Self> {
        // Tenths: no clock is better, and short decimals are read back as the same number.
        let tenths = |verdict: &Verdict| Some((verdict.measured? * 10.0).round() / 10.0);
        let measured = timed
            .iter()
            .filter_map(|verdict| Some((name(verdict.algorithm, &unusual(verdict)), tenths(verdict)?)))
            .collect();
        let (algorithm, rank, tiling, ns) =
            (winner.algorithm.to_owned(), winner.rank, unusual(winner), tenths(winner)?);
        let Key { problem, pass, layout, weights, threads, isa, accuracy, limits } = key.clone();
        let (v, cpu, kernels) = (VERSION, Cpu::identified().to_string(), kernels().to_owned());
        let entry = Self {
            v,
            cpu,
            kernels,
            problem,
            pass,
            layout,
            weights,
            threads,
            isa,
            accuracy,
            limits,
            cold,
            algorithm,
            rank,
            tiling,
            ns,
            measured,
        };
        Some(entry)
    }

    pub(crate) fn key(&self) -> Key {
        let Self { problem, pass, layout, weights, threads, isa, accuracy, limits, .. } = self.clone();
        Key { problem, pass, layout, weights, threads, isa, accuracy, limits }
    }

    /// The line, without its end.
    pub(crate) fn line(&self) -> String {
        serde_json::to_string(self).expect("text and finite numbers are JSON")
    }

    /// Reads a line, whatever machine and kernels it is for.
    pub(crate) fn read(line: &[u8]) -> Result<Self, Ignored> {
        #[derive(Deserialize)]
        struct Head {
            v: u64,
        }
        let corrupt = |reason: &str| Ignored::Corrupt { reason: reason.to_owned() };
        if line.len() > LONGEST {
            return Err(corrupt("it is longer than any entry"));
        }
        let text = str::from_utf8(line).map_err(|_| corrupt("it is not UTF-8"))?;
        let head: Head = serde_json::from_str(text).map_err(|error| corrupt(&error.to_string()))?;
        if head.v != VERSION {
            return Err(Ignored::Version { version: head.v });
        }
        let entry: Self = serde_json::from_str(text).map_err(|error| corrupt(&error.to_string()))?;
        entry.makes_sense().map_err(corrupt)?;
        Ok(entry)
    }

    /// Why it does not hold here; nothing if it is for this machine and these kernels.
    pub(crate) fn foreign(&self) -> Option<Ignored> {
        let here = Cpu::identified().to_string();
        if self.cpu != here {
            return Some(Ignored::ForeignCpu { cpu: self.cpu.clone(), here });
        }
        (self.kernels != kernels()).then(|| Ignored::StaleKernels { kernels: self.kernels.clone() })
    }

    fn makes_sense(&self) -> Result<(), &'static str> {
        let positive = |ns: f64| ns.is_finite() && ns > 0.0;
        let conv = self.problem.parse::<Conv2d>().map_err(|_| "`problem` is no problem string")?;
        if conv.to_string() != self.problem || conv.geometry().is_err() {
            return Err("`problem` is not in the form in which it is written");
        }
        if !positive(self.ns) || !self.measured.iter().all(|&(_, ns)| positive(ns)) {
            return Err("a time is not positive");
        }
        if !self
            .measured
            .iter()
            .any(|(timed, ns)| *timed == name(&self.algorithm, &self.tiling) && *ns == self.ns)
        {
            return Err("the winner is not among those that were measured");
        }
        if self.measured.iter().any(|&(_, ns)| ns < self.ns) {
            return Err("the winner is not the fastest");
        }
        if self.rank == 0 && !self.tiling.is_empty() {
            return Err("`tiling` is that of a `rank`, and there is none");
        }
        if !(1..=1024).contains(&self.threads) {
            return Err("`threads` is not between 1 and 1024");
        }
        Ok(())
    }
}

/// Why a line or an entry was not used.
///
/// ```
/// use convolve::{Ignored, TuningCache};
/// let cache = TuningCache::parse(b"not JSON\n{\"v\":7}\n");
/// let notes = cache.notes();
/// assert!(matches!(notes[0].reason, Ignored::Corrupt { .. }));
/// assert_eq!(notes[1].reason, Ignored::Version { version: 7 });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ignored {
    /// The line cannot be read. Dropped when the file is next written.
    Corrupt {
        /// What is wrong.
        reason: String,
    },
    /// The line has another version, written by another version of the library. Kept in the file.
    Version {
        /// Its version.
        version: u64,
    },
    /// It was measured on another CPU. Kept in the file, which several machines may share.
    ForeignCpu {
        /// That CPU.
        cpu: String,
        /// This one.
        here: String,
    },
    /// Other kernels were measured, on this CPU. Kept in the file, which several versions of the library may share.
    StaleKernels {
        /// Version and hash of those kernels.
        kernels: String,
    },
    /// The file is larger than any tuning file. Not read, and never overwritten.
    TooLarge {
        /// Its bytes.
        bytes: u64,
    },
    /// The winner cannot be taken: the planner went by estimates.
    Refused {
        /// Problem and pass.
        problem: String,
        /// The winner.
        algorithm: String,
        /// Why it cannot be taken.
        reason: String,
    },
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt { reason } => write!(f, "ignored, and dropped when the file is written: {reason}"),
            Self::Version { version } => {
                write!(f, "ignored, but kept: its version is {version}, and this library reads {VERSION}")
            }
            Self::ForeignCpu { cpu, here } => {
                write!(f, "ignored, but kept: it was measured on {cpu}, and this CPU is {here}")
            }
            Self::StaleKernels { kernels: was } => {
                let now = kernels();
                write!(f, "ignored, but kept: the kernels were {was}, and are {now}; tune again")
            }
            Self::TooLarge { bytes } => {
                write!(f, "not read: {bytes} bytes are more than any tuning file has")
            }
            Self::Refused { problem, algorithm, reason } => {
                write!(f, "ignored: {algorithm} won for {problem}, but {reason}; tune again")
            }
        }
    }
}

/// Something that was ignored, and where.
///
/// ```
/// let cache = convolve::TuningCache::parse(b"\nnot JSON");
/// assert!(cache.notes()[0].to_string().starts_with("line 2: ignored"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The line of the file, counted from 1; nothing if it is not about a line.
    pub line: Option<usize>,
    /// What it is.
    pub reason: Ignored,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = &self.reason;
        match self.line {
            Some(line) => write!(f, "line {line}: {reason}"),
            None => reason.fmt(f),
        }
    }
}
