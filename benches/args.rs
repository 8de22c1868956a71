//! The flags of the report, and what they select.

use crate::case::{AnyPass, algorithms};
use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};
use convolve::{Accuracy, Isa, Layout, NamedProblem, WeightLayout};
use convolve_testkit::shapes::{self, SUITES};
use std::path::{Path, PathBuf};

/// Measures every algorithm on real problems: time, GFLOP/s and % of the FMA peak that the machine shows in the same run.
#[derive(Clone, Debug, Parser)]
#[command(name = "report", bin_name = "cargo bench --bench report --", version)]
pub struct Args {
    /// Layers of a network; may be repeated [default: resnet50, unless there is a --problem]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(SUITES))]
    pub suite: Vec<String>,
    /// A problem in oneDNN's benchdnn syntax, e.g. mb1ic64ih56oc64kh3ph1; may be repeated
    #[arg(long, value_name = "STRING", value_parser = problem)]
    pub problem: Vec<NamedProblem>,
    /// Pass
    #[arg(long, value_enum, default_value = "all")]
    pub pass: Passes,
    /// Order of the activations; weights and their gradient are OIHW with nchw, HWIO with nhwc
    #[arg(long, value_enum, default_value = "both")]
    pub layout: Layouts,
    /// Threads: a rayon pool of that many, or no pool at all for 1
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,
    /// Class of accuracy that no algorithm may leave
    #[arg(long, value_enum, default_value = "standard")]
    pub accuracy: Class,
    /// Instruction set: portable, neon, avx2, avx512 [default: CONVOLVE_ISA, or the best of this CPU]
    #[arg(long)]
    pub isa: Option<Isa>,
    /// Only the algorithm of that name; may be repeated
    #[arg(long, value_name = "NAME", value_parser = algorithm)]
    pub algorithm: Vec<String>,
    /// Tunes every problem before it is measured, with warm weights as the report's own: regret is then that of a tuned planner
    #[arg(long)]
    pub tuned: bool,
    /// Also measures so many further ways in which the chosen algorithm cuts a problem: regret is then against them as well
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub cuts: usize,
    /// Constants that estimates and block sizes are computed with
    #[arg(long, value_enum, default_value = "default")]
    pub machine: Constants,
    /// Fewer and shorter samples
    #[arg(long)]
    pub quick: bool,
    /// Also writes every row as one JSON object per line
    #[arg(long, value_name = "FILE", value_parser = from_where_cargo_was_called)]
    pub json: Option<PathBuf>,
    /// Leaves the measuring thread free to move (with --threads 1 it is pinned to a core)
    #[arg(long)]
    pub no_pin: bool,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// Which passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Passes {
    /// Forward
    Fwd,
    /// Gradient of the input
    #[value(name = "bwd_d")]
    BwdD,
    /// Gradient of the weights
    #[value(name = "bwd_w")]
    BwdW,
    /// All three
    All,
}

/// Which layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Layouts {
    /// PyTorch's and ONNX's
    Nchw,
    /// TensorFlow's, and a photograph's
    Nhwc,
    /// One after the other
    Both,
}

/// Whose constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Constants {
    /// What a planner takes that was told nothing
    Default,
    /// Those of no CPU in particular
    Generic,
    /// Those shipped for this CPU
    Native,
    /// Measured now
    Calibrated,
}

/// Class of accuracy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Class {
    /// One accumulator per output in a fixed order
    Strict,
    /// Also transforms with a small amplification
    Standard,
    /// Also those with a large one
    Relaxed,
}

impl Passes {
    /// As passes.
    pub fn list(self) -> &'static [AnyPass] {
        match self {
            Self::Fwd => &[AnyPass::Forward],
            Self::BwdD => &[AnyPass::BackwardData],
            Self::BwdW => &[AnyPass::BackwardWeights],
            Self::All => &AnyPass::ALL,
        }
    }
}

impl Layouts {
    /// As layouts, with that of the weights which goes with each.
    pub fn list(self) -> &'static [(Layout, WeightLayout)] {
        const BOTH: &[(Layout, WeightLayout)] =
            &[(Layout::Nchw, WeightLayout::Oihw), (Layout::Nhwc, WeightLayout::Hwio)];
        match self {
            Self::Nchw => &BOTH[..1],
            Self::Nhwc => &BOTH[1..],
            Self::Both => BOTH,
        }
    }
}

impl Class {
    /// As the planner's class.
    pub fn class(self) -> Accuracy {
        match self {
            Self::Strict => Accuracy::Strict,
            Self::Standard => Accuracy::Standard,
            Self::Relaxed => Accuracy::Relaxed,
        }
    }
}

impl Args {
    /// The problems, each once, in order; suites first.
    pub fn problems(&self) -> Vec<NamedProblem> {
        let mut suites: Vec<&str> = self.suite.iter().map(String::as_str).collect();
        if self.suite.is_empty() && self.problem.is_empty() {
            suites.push("resnet50");
        }
        let mut problems: Vec<NamedProblem> = Vec::new();
        for problem in suites.into_iter().flat_map(layers).chain(self.problem.iter().cloned()) {
            if problems.iter().all(|other| other.conv != problem.conv) {
                problems.push(problem);
            }
        }
        problems
    }

    /// The passes.
    pub fn passes(&self) -> &'static [AnyPass] {
        self.pass.list()
    }

    /// The layouts, with that of the weights which goes with each.
    pub fn layouts(&self) -> &'static [(Layout, WeightLayout)] {
        self.layout.list()
    }

    /// The class of accuracy.
    pub fn accuracy(&self) -> Accuracy {
        self.accuracy.class()
    }

    /// Whether an algorithm is to be measured.
    pub fn wants(&self, algorithm: &str) -> bool {
        self.algorithm.is_empty() || self.algorithm.iter().any(|name| name == algorithm)
    }
}

fn layers(suite: &str) -> Vec<NamedProblem> {
    shapes::suite(suite).expect("clap lets only known names pass")
}

/// A problem in which there is something to compute.
///
/// # Errors
/// A sentence.
pub fn problem(text: &str) -> Result<NamedProblem, String> {
    let problem: NamedProblem = text.parse().map_err(|error: convolve::Error| error.to_string())?;
    let geometry = problem.conv.geometry().map_err(|error| error.to_string())?;
    match geometry.macs() {
        0 => Err(format!("problem `{text}`: there is nothing to compute in a batch of 0; use mb1")),
        _ => Ok(problem),
    }
}

/// The problems of a suite, of a file (# begins a comment), or of a string; each with where it stands, or a sentence that says why it is none.
pub fn list(name: &str) -> Vec<(String, Result<NamedProblem, String>)> {
    if let Some(suite) = shapes::suite(name) {
        return suite.into_iter().map(|problem| (problem.to_string(), Ok(problem))).collect();
    }
    if !Path::new(name).exists() {
        let problem = name.parse::<NamedProblem>();
        let sentence = |error| format!("`{name}` is no file, no suite, and no problem: {error}");
        return vec![(format!("`{name}`"), problem.map_err(sentence))];
    }
    let text = match std::fs::read_to_string(name) {
        Ok(text) => text,
        Err(error) => return vec![(format!("`{name}`"), Err(format!("cannot read `{name}`: {error}")))],
    };
    convolve::problems(&text)
        .map(|(line, problem)| {
            let at = format!("`{name}`, line {line}");
            let problem = problem.map_err(|error| format!("{at}: {error}"));
            (at, problem)
        })
        .collect()
}

/// The name of an algorithm of any pass.
///
/// # Errors
/// A sentence with the names that there are.
pub fn algorithm(name: &str) -> Result<String, String> {
    let known = algorithms();
    match known.contains(&name) {
        true => Ok(name.to_owned()),
        false => Err(format!("no algorithm has this name; there are: {}", known.join(", "))),
    }
}

/// A path as the user means it. Cargo runs a benchmark in the directory of its package, but a relative path means where the user stands: the shell's `PWD`.
///
/// # Errors
/// None.
pub fn from_where_cargo_was_called(path: &str) -> Result<PathBuf, std::convert::Infallible> {
    let cargo = std::env::var_os("CARGO").is_some();
    let user = std::env::var_os("PWD").filter(|_| cargo).unwrap_or_default();
    Ok(Path::new(&user).join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(flags: &str) -> Result<Args, String> {
        let words = ["report"].into_iter().chain(flags.split_whitespace());
        Args::try_parse_from(words).map_err(|error| error.to_string())
    }

    #[test]
    fn without_flags_it_is_resnet50_in_all_passes_and_layouts() {
        let args = args("--bench").unwrap();
        assert_eq!(args.problems(), layers("resnet50"));
        assert_eq!((args.passes().len(), args.layouts().len(), args.threads), (3, 2, 1));
    }

    #[test]
    fn problems_replace_the_default_suite_and_are_measured_once() {
        let args = args("--problem ic3ih8oc4kh3 --problem mb2ic3ih8oc4kh3n\"again\" --problem ic1ih8oc4kh3")
            .unwrap();
        assert_eq!(args.problems().len(), 2);
    }

    #[test]
    fn every_suite_has_problems_that_compute_something() {
        for layers in SUITES.map(layers) {
            assert!(!layers.is_empty());
            assert!(
                layers.iter().all(|layer| layer.conv.geometry().is_ok_and(|geometry| geometry.macs() > 0))
            );
        }
    }

    #[test]
    fn a_list_is_a_suite_a_file_or_a_problem() {
        let problems =
            |name| list(name).into_iter().map(|(_, problem)| problem).collect::<Result<Vec<_>, _>>();
        assert_eq!(problems("resnet50").unwrap(), layers("resnet50"));
        assert_eq!(problems("mb1ic4ih5oc4kh1").unwrap().len(), 1);
        assert!(problems("lenet99").unwrap_err().contains("no file, no suite, and no problem"));
        let file = std::env::temp_dir().join(format!("convolve-list-{}", std::process::id()));
        std::fs::write(&file, "# two\nmb1ic8ih9oc8kh3ph1\n\nic\n").unwrap();
        let [(at, first), (_, second)] = &list(file.to_str().unwrap())[..] else { panic!("two lines") };
        assert!(first.is_ok() && at.ends_with(", line 2"), "{at}");
        assert!(second.as_ref().unwrap_err().contains(", line 4: "), "{second:?}");
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn nonsense_gets_a_sentence() {
        for (flags, sentence) in [
            ("--problem ic3", "`oc` is missing"),
            ("--problem ic3ih2oc3kh5", "does not fit"),
            ("--problem mb0ic3ih8oc3kh5", "nothing to compute"),
            ("--algorithm alchemy", "no algorithm has this name"),
            ("--isa 3dnow", "is no instruction set"),
            ("--suite lenet99", "possible values: resnet50, vgg16, mobilenet, course, all"),
            ("--threads 0", "0 is not in 1..=1024"),
            ("--pass sideways", "possible values: fwd, bwd_d, bwd_w, all"),
        ] {
            let error = args(flags).unwrap_err();
            assert!(error.contains(sentence), "{error}");
        }
    }
}
