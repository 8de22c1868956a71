//! One figure with everything that is needed to judge it: a line of the JSON file.

use crate::machine::Machine;
use crate::sample::Statistics;
use serde::Serialize;

/// One problem, pass and layout by one algorithm. Its fields are the keys of the JSON file.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The problem as a benchdnn string, without a name.
    pub problem: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// `fwd`, `bwd_d`, `bwd_w`.
    pub pass: &'static str,
    /// `NCHW`, `NHWC`.
    pub layout: String,
    /// Of the weights and their gradient: `OIHW`, `HWIO`.
    pub weights: String,
    /// Threads that compute.
    pub threads: usize,
    /// Instruction set.
    pub isa: &'static str,
    /// `strict`, `standard`, `relaxed`.
    pub accuracy: String,
    /// Who computes.
    pub algorithm: &'static str,
    /// How the plan cuts the problem.
    pub tiling: String,
    /// Whether the planner takes it when it has the choice.
    pub chosen: bool,
    /// Whether the planner chose by what it had timed, not by estimates.
    pub tuned: bool,
    /// Median time of a run in seconds.
    pub median_s: f64,
    /// Least time of a run in seconds.
    pub min_s: f64,
    /// Of the samples used: from the first to the third quartile, over the median.
    pub spread: f64,
    /// 1e9 floating-point operations per second in the median run: a multiplication and an addition per tap and output, also
    /// for taps in the padding, however the algorithm computes.
    pub gflops: f64,
    /// `gflops` over what `threads` times the peak of one core would be.
    pub peak_fraction: f64,
    /// Of the chosen algorithm: its median time over that of the fastest one, minus 1; unknown when not all were measured.
    pub regret: Option<f64>,
    /// What the algorithm estimates for a run, in seconds; unknown for those of others.
    pub predicted_s: Option<f64>,
    /// Worst |error| / (u S) of a sample of the result, u = 2^-24, S = the sum of the |products| of an element; unknown where it was not compared.
    pub error: Option<f64>,
    /// Memory that a run needs beside operands and packed weights.
    pub workspace_bytes: usize,
    /// Samples taken.
    pub samples: usize,
    /// Samples with a slow probe; they were dropped, unless the row is not `steady`.
    pub slow: usize,
    /// False when the machine was restless: nearly all samples were slow, so that all were used.
    pub steady: bool,
    /// The peak of one core by which `peak_fraction` was computed, in GFLOP/s.
    pub peak_gflops: f64,
    /// Where and from what.
    #[serde(flatten)]
    pub machine: Machine,
}

impl Row {
    /// Fills in what follows from the samples.
    pub fn measured(self, macs: u64, statistics: Statistics, peak: f64) -> Self {
        let Statistics { median, min, spread, taken, slow, steady } = statistics;
        let flops = 2.0 * macs as f64 / median;
        Self {
            median_s: median,
            min_s: min,
            spread,
            gflops: flops / 1e9,
            peak_fraction: flops / (peak * self.threads as f64),
            samples: taken,
            slow,
            steady,
            peak_gflops: peak / 1e9,
            ..self
        }
    }
}

/// Fills in the regret, given all rows of one problem, pass and layout.
pub fn regret(rows: &mut [Row]) {
    let best = rows.iter().map(|row| row.median_s).fold(f64::INFINITY, f64::min);
    for row in rows.iter_mut().filter(|row| row.chosen) {
        row.regret = Some(row.median_s / best - 1.0);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row(algorithm: &'static str, chosen: bool, median_s: f64) -> Row {
        let machine = Machine {
            cpu: "abacus".into(),
            cores: 2,
            rustc: "rustc 1.0.0",
            commit: None,
            date: "2024-01-01T00:00:00Z".into(),
        };
        let empty = Row {
            problem: "mb1ic1ih1iw1oc1oh1ow1kh1kw1sh1sw1ph0pw0dh0dw0".into(),
            name: None,
            pass: "fwd",
            layout: "NCHW".into(),
            weights: "OIHW".into(),
            threads: 2,
            isa: "portable",
            accuracy: "standard".into(),
            algorithm,
            tiling: String::new(),
            chosen,
            tuned: false,
            median_s: 0.0,
            min_s: 0.0,
            spread: 0.0,
            gflops: 0.0,
            peak_fraction: 0.0,
            regret: None,
            predicted_s: None,
            error: None,
            workspace_bytes: 1 << 19,
            samples: 0,
            slow: 0,
            steady: true,
            peak_gflops: 0.0,
            machine,
        };
        let statistics = Statistics {
            median: median_s,
            min: median_s / 2.0,
            spread: 0.25,
            taken: 7,
            slow: 1,
            steady: true,
        };
        empty.measured(1_000_000_000, statistics, 1e10)
    }

    #[test]
    fn rates_follow_from_the_median() {
        let row = row("direct", true, 0.5);
        assert_eq!((row.gflops, row.peak_fraction, row.min_s, row.slow), (4.0, 0.2, 0.25, 1));
    }

    #[test]
    fn regret_is_against_the_fastest() {
        let mut rows = [row("slow", false, 8.0), row("chosen", true, 3.0), row("fastest", false, 2.0)];
        regret(&mut rows);
        assert_eq!(rows.map(|row| row.regret), [None, Some(0.5), None]);
        let mut rows = [row("chosen", true, 1.0), row("slow", false, 8.0)];
        regret(&mut rows);
        assert_eq!(rows[0].regret, Some(0.0));
    }

    #[test]
    fn the_keys_of_the_json_file() {
        let json = serde_json::to_value(row("direct", true, 0.5)).unwrap();
        for key in [
            "problem",
            "name",
            "pass",
            "layout",
            "threads",
            "isa",
            "algorithm",
            "chosen",
            "median_s",
            "min_s",
            "spread",
            "steady",
            "tuned",
            "gflops",
            "peak_fraction",
            "regret",
            "predicted_s",
            "error",
            "workspace_bytes",
            "cpu",
            "rustc",
            "commit",
            "date",
        ] {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert!(json["name"].is_null() && json["chosen"].is_boolean() && json["cpu"].is_string());
    }
}
