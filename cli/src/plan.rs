//! `plan`: every candidate's verdict on a problem.

use crate::Answer;
use clap::Args;
use convolve::{Error, Explanation, Isa, NamedProblem, Planner, Stages};
use convolve_benches::args::{Class, Layouts, Passes, problem};
use serde_json::{Value, json};

/// Limits of the planner, which `plan` and `tune` share.
#[derive(Clone, Debug, Args)]
pub(crate) struct Limits {
    /// Pass
    #[arg(long, value_enum, default_value = "all")]
    pub(crate) pass: Passes,
    /// Order of the activations; weights are OIHW with nchw, HWIO with nhwc
    #[arg(long, value_enum, default_value = "both")]
    pub(crate) layout: Layouts,
    /// Threads to plan for
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
    /// Instruction set: portable, neon, avx2, avx512 [default: CONVOLVE_ISA, or the best of this CPU]
    #[arg(long)]
    pub(crate) isa: Option<Isa>,
    /// Class of accuracy that no algorithm may leave
    #[arg(long, value_enum, default_value = "standard")]
    pub(crate) accuracy: Class,
    /// One JSON object per pass and layout, each on a line
    #[arg(long)]
    pub(crate) json: bool,
}

impl Limits {
    pub(crate) fn planner(&self) -> Planner {
        let planner = Planner::new().threads(self.threads.into()).accuracy(self.accuracy.class());
        match self.isa {
            Some(isa) => planner.isa(isa),
            None => planner,
        }
    }

    /// What `ask` says, in every pass and layout.
    pub(crate) fn each(
        &self,
        problems: &[NamedProblem],
        mut ask: impl FnMut(convolve_benches::case::AnyPass, convolve::Conv2d) -> Result<Explanation, Error>,
    ) -> Result<String, String> {
        let mut out = String::new();
        for problem in problems {
            for &pass in self.pass.list() {
                for &(layout, weights) in self.layout.list() {
                    let conv = problem.conv.layout(layout).weight_layout(weights);
                    let explanation = ask(pass, conv).map_err(|error| error.to_string())?;
                    match self.json {
                        true => out += &format!("{}\n", as_json(&explanation, problem.name.as_deref())),
                        false => out += &explanation.to_string(),
                    }
                }
            }
        }
        Ok(out)
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PlanArgs {
    /// Problems in oneDNN's benchdnn syntax, e.g. mb1ic64ih56oc64kh3ph1
    #[arg(required = true, value_name = "PROBLEM", value_parser = problem)]
    problems: Vec<NamedProblem>,
    #[command(flatten)]
    limits: Limits,
    /// Plans by what was measured, as a file of `tune` keeps it
    #[arg(long, value_name = "FILE")]
    cache: Option<std::path::PathBuf>,
}

impl PlanArgs {
    pub(crate) fn run(&self) -> Answer {
        let planner = self.limits.planner();
        let planner = match &self.cache {
            Some(path) => planner.with_cache(crate::tune::open(path)?),
            None => planner,
        };
        Ok((self.limits.each(&self.problems, |pass, conv| pass.explain(&planner, conv))?, 0))
    }
}

/// All that an explanation knows.
fn as_json(explanation: &Explanation, name: Option<&str>) -> Value {
    let Explanation { problem, pass, layout, weights, isa, threads, machine, accuracy, .. } = explanation;
    let verdicts: Vec<Value> = explanation
        .verdicts
        .iter()
        .map(|verdict| match verdict.answer {
            Ok(estimate) => json!({
                "stages_s": stages(estimate.stages),
                "algorithm": verdict.algorithm,
                "rank": verdict.rank,
                "tiling": estimate.tiling.to_string(),
                "chosen": verdict.chosen,
                "predicted_s": estimate.ns * 1e-9,
                "measured_s": verdict.measured.map(|ns| ns * 1e-9),
                "workspace_bytes": estimate.workspace * size_of::<f32>(),
                "packed_bytes": estimate.packed * size_of::<f32>(),
                "amplification": verdict.amplification,
            }),
            Err(reason) => {
                json!({ "algorithm": verdict.algorithm, "chosen": false, "refused": reason.to_string() })
            }
        })
        .collect();
    json!({
        "problem": problem, "name": name, "pass": pass, "layout": layout, "weights": weights, "isa": isa.name(), "threads": threads,
        "accuracy": format!("{accuracy:?}").to_lowercase(), "machine": machine,
        "algorithm": explanation.chosen().map(|verdict| verdict.algorithm),
        "why": explanation.why.map(|why| why.to_string()),
        "verdicts": verdicts,
    })
}

/// Where the predicted time goes, in seconds; null if the algorithm does not say.
fn stages(stages: Stages) -> Value {
    let Stages { compute, memory, calls, waiting } = stages;
    match stages.sum() > 0.0 {
        true => {
            json!({ "compute": compute * 1e-9, "memory": memory * 1e-9, "calls": calls * 1e-9, "waiting": waiting * 1e-9 })
        }
        false => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        plan: PlanArgs,
    }

    fn run(flags: &str) -> Answer {
        let words = ["plan"].into_iter().chain(flags.split_whitespace());
        Flags::try_parse_from(words).map_err(|error| error.to_string())?.plan.run()
    }

    #[test]
    fn every_candidate_has_its_verdict() {
        let (text, code) = run("mb1ic8ih9oc8kh3ph1 --isa portable").unwrap();
        assert_eq!((text.matches("<- chosen").count(), code), (6, 0), "{text}");
        assert!(text.contains("direct: ") && text.contains("because"), "{text}");
    }

    #[test]
    fn json_is_one_object_per_line() {
        let (text, _) = run("mb1ic8ih9oc8kh3ph1 --pass fwd --json --threads 2").unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        for line in lines {
            let chosen: Vec<_> = line["verdicts"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|verdict| verdict["chosen"] == true)
                .collect();
            let stages = chosen[0]["stages_s"].as_object().unwrap();
            let sum: f64 = stages.values().filter_map(Value::as_f64).sum();
            assert!((sum / chosen[0]["predicted_s"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{line}");
            assert_eq!(
                (chosen.len(), &chosen[0]["algorithm"], &line["threads"]),
                (1, &line["algorithm"], &json!(2))
            );
        }
    }

    #[test]
    fn nonsense_gets_a_sentence() {
        assert!(run("ic3").unwrap_err().contains("`oc` is missing"));
        assert!(run("mb1ic8ih9oc8kh3 --isa 3dnow").unwrap_err().contains("is no instruction set"));
        assert!(run("").is_err());
    }
}
