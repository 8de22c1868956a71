//! Every algorithm that accepts a problem, in every pass, layout and instruction set, against the definition: on integers, exactly.

use crate::args::list;
use crate::session::progress_bar;
use clap::Args;
use convolve::{Conv2d, Isa, Layout, WeightLayout};
use convolve_testkit::{Algorithms, Direction, Scope, TINY, Tally, isas, problems};
use core::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What to compare with the definition.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Problems, suites, or files of problems [default: all of testkit/problems]
    #[arg(value_name = "PROBLEM|LIST")]
    pub lists: Vec<String>,
    /// Skips problems with more multiplications than that
    #[arg(long, value_name = "N")]
    pub max_macs: Option<u64>,
    /// Only this algorithm
    #[arg(long, value_name = "NAME")]
    pub algorithm: Option<String>,
    /// Only this pass: fwd, bwd_d, bwd_w
    #[arg(long)]
    pub pass: Option<Direction>,
    /// Only this instruction set
    #[arg(long)]
    pub isa: Option<Isa>,
    /// Only this layout: NCHW or NHWC
    #[arg(long, value_parser = layout)]
    pub layout: Option<Layout>,
    /// Only this layout of weights: OIHW, OHWI or HWIO; without it problems take turns
    #[arg(long, value_parser = weight_layout)]
    pub weight_layout: Option<WeightLayout>,
    /// Every layout of weights for every problem
    #[arg(long, conflicts_with = "weight_layout")]
    pub all_weight_layouts: bool,
    /// Threads of each run, 1 to 8
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub threads: u8,
    /// Plans for tiny caches, so that small problems take the loops of large ones
    #[arg(long)]
    pub tiny_caches: bool,
    /// Another way to cut the problem, for algorithms that know so many
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub rank: usize,
    /// Decides data, poison and alignment [default: a problem's place in the list]
    #[arg(long)]
    pub seed: Option<u64>,
}

fn layout(name: &str) -> Result<Layout, String> {
    Layout::ALL.into_iter().find(|x| x.to_string().eq_ignore_ascii_case(name)).ok_or("NCHW or NHWC".into())
}

fn weight_layout(name: &str) -> Result<WeightLayout, String> {
    WeightLayout::ALL
        .into_iter()
        .find(|x| x.to_string().eq_ignore_ascii_case(name))
        .ok_or("OIHW, OHWI or HWIO".into())
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// What was compared, what was refused, what is wrong.
    pub tally: Tally,
    /// Problems that were too large.
    pub skipped: usize,
    /// A sentence for each thing that is no problem.
    pub bad: Vec<String>,
    /// How long it took.
    pub time: Duration,
}

impl VerifyArgs {
    /// Compares, on as many threads as the machine has. What is wrong is said at once on standard error.
    ///
    /// # Errors
    /// An algorithm that does not exist.
    pub fn run(&self) -> Result<Verification, String> {
        let (scope, begin) = (self.scope()?, Instant::now());
        let (mut convs, bad) = self.read();
        bad.iter().for_each(|sentence| eprintln!("{sentence}"));
        let found = convs.len();
        convs.retain(|conv| {
            self.max_macs.is_none_or(|max| conv.geometry().is_ok_and(|geometry| geometry.macs() <= max))
        });
        let tally = self.check(&scope, &convs);
        Ok(Verification { tally, skipped: found - convs.len(), bad, time: begin.elapsed() })
    }

    /// The problems, and what is none.
    fn read(&self) -> (Vec<Conv2d>, Vec<String>) {
        let mut lists = self.lists.clone();
        if lists.is_empty() {
            let families = problems::families();
            lists.extend(
                families.iter().map(|family| problems::directory().join(family.file).display().to_string()),
            );
        }
        let (mut convs, mut bad) = (Vec::new(), Vec::new());
        for (at, problem) in lists.iter().flat_map(|name| list(name)) {
            // A string may parse and still be no convolution.
            let checked = problem.and_then(|problem| match problem.conv.geometry() {
                Ok(_) => Ok(problem.conv),
                Err(error) => Err(format!("{at}: {error}")),
            });
            match checked {
                Ok(conv) => convs.push(conv),
                Err(sentence) => bad.push(sentence),
            }
        }
        (convs, bad)
    }

    fn scope(&self) -> Result<Scope, String> {
        let algorithms = Algorithms::registered();
        if let Some(name) = &self.algorithm {
            crate::args::algorithm(name).map_err(|error| format!("`{name}`: {error}"))?;
        }
        let everything = Scope::of(algorithms);
        Ok(Scope {
            only: self.algorithm.clone(),
            directions: self.pass.map_or(everything.directions.clone(), |pass| vec![pass]),
            layouts: self.layout.map_or(everything.layouts.clone(), |layout| vec![layout]),
            isas: self.isa.map_or_else(isas, |isa| vec![isa]),
            threads: vec![self.threads.into()],
            ranks: vec![self.rank],
            caches: if self.tiny_caches { vec![TINY] } else { everything.caches.clone() },
            ..everything
        })
    }

    /// Each thread takes the next problem, so a giant holds up nobody.
    fn check(&self, scope: &Scope, convs: &[Conv2d]) -> Tally {
        let bar = progress_bar(convs.len());
        let (next, total) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
        let work = |_: rayon::BroadcastContext<'_>| loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(&conv) = convs.get(index) else { return };
            let seed = self.seed.unwrap_or(index as u64);
            let weight_layouts = match self.weight_layout {
                Some(layout) => vec![layout],
                None if self.all_weight_layouts => WeightLayout::ALL.to_vec(),
                None => vec![WeightLayout::ALL[index / 3 % 3]],
            };
            let tally = Scope { weight_layouts, ..scope.clone() }.check(conv, seed);
            bar.suspend(|| tally.mismatches.iter().for_each(|mismatch| eprintln!("WRONG: {mismatch}")));
            total.lock().expect("no thread panics with the lock").add(tally);
            bar.inc(1);
        };
        rayon::broadcast(work);
        bar.finish_and_clear();
        total.into_inner().expect("no thread panics with the lock")
    }
}

impl Verification {
    /// Exit code: 1 when a result is wrong, otherwise 2 when something was no problem or nothing was run, otherwise 0.
    pub fn code(&self) -> u8 {
        match (self.tally.mismatches.len(), self.bad.len(), self.tally.executions) {
            (0, 0, 1..) => 0,
            (0, ..) => 2,
            _ => 1,
        }
    }

    /// Lines of a word, a number, and more: `mismatches  0`.
    pub fn text(&self) -> String {
        let Self { tally, skipped, bad, time } = self;
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "problems    {:>9}  ({skipped} skipped by --max-macs, {} bad lines)",
            tally.problems,
            bad.len()
        );
        let _ = writeln!(out, "executions  {:>9}  ({:.1} s)", tally.executions, time.as_secs_f64());
        let _ = writeln!(out, "refused     {:>9}", tally.refused.values().sum::<u64>());
        for ((pass, algorithm, reason), count) in &tally.refused {
            let _ = writeln!(out, "            {count:>9}  {pass} {algorithm}: {reason}");
        }
        let _ = writeln!(out, "mismatches  {:>9}", tally.mismatches.len());
        out
    }

    /// As one JSON object.
    pub fn json(&self) -> serde_json::Value {
        let refused = self.tally.refused.iter().map(|((pass, algorithm, reason), count)| {
            serde_json::json!({ "pass": pass.name(), "algorithm": algorithm, "reason": reason, "count": count })
        });
        serde_json::json!({
            "problems": self.tally.problems, "skipped": self.skipped, "bad": self.bad,
            "executions": self.tally.executions, "seconds": self.time.as_secs_f64(),
            "refused": refused.collect::<Vec<_>>(),
            "mismatches": self.tally.mismatches,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        verify: VerifyArgs,
    }

    fn args(flags: &str) -> Result<VerifyArgs, String> {
        let words = ["verify"].into_iter().chain(flags.split_whitespace());
        Ok(Flags::try_parse_from(words).map_err(|error| error.to_string())?.verify)
    }

    #[test]
    fn every_case_says_how_to_run_it_again() {
        let scope = Scope::everything().serial();
        let conv = Conv2d::new(3, 4, 3).input(6).layout(Layout::Nhwc);
        scope.for_each(conv, Direction::BackwardData, |case, _| {
            let args = args(&case.to_string()).unwrap();
            assert_eq!((args.algorithm.as_deref(), args.pass), (Some(case.algorithm), Some(case.direction)));
            assert_eq!((args.layout, args.isa), (Some(Layout::Nhwc), Some(case.isa)));
            assert_eq!(args.read().0.len(), 1);
        });
    }

    #[test]
    fn without_a_list_it_is_every_family() {
        let (convs, bad) = args("").unwrap().read();
        assert!(convs.len() > 500 && bad.is_empty(), "{} {bad:?}", convs.len());
    }

    #[test]
    fn what_is_no_problem_is_said_and_the_rest_is_compared() {
        let verification = args(
            "--pass fwd --isa portable ic3 mb1ic3ih2oc3kh5 mb1ic3ih5oc2kh3 mb1ic3ih9oc2kh3 --max-macs 1000",
        )
        .unwrap()
        .run()
        .unwrap();
        assert_eq!((verification.tally.problems, verification.skipped, verification.code()), (1, 1, 2));
        assert!(verification.bad[0].contains("`oc` is missing"), "{:?}", verification.bad);
        assert!(verification.bad[1].contains("does not fit"), "{:?}", verification.bad);
    }

    #[test]
    fn the_exit_code_says_what_came_of_it() {
        let wrong = |mismatches: &[&str], bad: &[&str], executions| Verification {
            tally: Tally {
                mismatches: mismatches.iter().map(|text| (*text).into()).collect(),
                executions,
                ..Tally::default()
            },
            bad: bad.iter().map(|text| (*text).into()).collect(),
            ..Verification::default()
        };
        assert_eq!(wrong(&[], &[], 1).code(), 0);
        assert_eq!(wrong(&["2, expected 3"], &["no problem"], 1).code(), 1);
        assert_eq!(wrong(&[], &["no problem"], 1).code(), 2);
        assert_eq!(wrong(&[], &[], 0).code(), 2, "a check of nothing is no check");
        assert_eq!(wrong(&["2, expected 3"], &[], 1).json()["mismatches"][0], "2, expected 3");
        assert!(wrong(&["2, expected 3"], &[], 1).text().ends_with("mismatches          1\n"));
    }

    #[test]
    fn nonsense_gets_a_sentence() {
        assert!(args("--pass sideways").unwrap_err().contains("is no pass"));
        assert!(args("--layout CHWN").unwrap_err().contains("NCHW or NHWC"));
        assert!(
            args("--algorithm alchemy").unwrap().run().unwrap_err().contains("no algorithm has this name")
        );
    }
}
