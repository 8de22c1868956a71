//! `plan`: every candidate's verdict on a problem.

use crate::Answer;
use clap::Args;
use convolve::{Conv2d, Error, Explanation, Isa, NamedProblem, Planner, Stages};
use convolve_benches::args::{Class, Layouts, Passes, algorithm, problem};
use convolve_benches::case::AnyPass;
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
    /// Allows only this algorithm
    #[arg(long, value_name = "ALG", value_parser = algorithm)]
    pub(crate) only: Option<String>,
    /// Never takes this algorithm; may be repeated
    #[arg(long, value_name = "ALG", value_parser = algorithm)]
    pub(crate) forbid: Vec<String>,
    /// Allows only plans whose workspace, for all threads, is at most that large: 4096, 64K, 8M, 1G
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) max_workspace: Option<usize>,
    /// One JSON object per pass and layout, each on a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// A number of bytes; K, M and G are powers of 1024.
fn bytes(text: &str) -> Result<usize, String> {
    let (number, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: Option<usize> = number.parse().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "a size is a number of bytes such as 4096, 64K, 8M or 1G".into())
}

impl Limits {
    pub(crate) fn planner(&self) -> Planner {
        let mut planner = Planner::new().threads(self.threads.into()).accuracy(self.accuracy.class());
        if let Some(isa) = self.isa {
            planner = planner.isa(isa);
        }
        if let Some(name) = &self.only {
            planner = planner.only(name);
        }
        if let Some(bytes) = self.max_workspace {
            planner = planner.max_workspace(bytes);
        }
        self.forbid.iter().fold(planner, Planner::forbid)
    }

    /// What `ask` says, in every pass and layout. An error of one does not stop the others; the code is 1 if there was one, or if nothing could be chosen.
    /// The error of `ask` itself does.
    pub(crate) fn each(
        &self,
        problems: &[NamedProblem],
        mut ask: impl FnMut(AnyPass, Conv2d) -> Result<Result<Explanation, Error>, String>,
    ) -> Answer {
        let (mut out, mut code) = (String::new(), 0);
        for problem in problems {
            let name = problem.name.as_deref();
            for &pass in self.pass.list() {
                for &(layout, weights) in self.layout.list() {
                    let conv = problem.conv.layout(layout).weight_layout(weights);
                    let answer = ask(pass, conv)?;
                    code |= u8::from(!answer.as_ref().is_ok_and(|answer| answer.chosen().is_some()));
                    out += &match (answer, self.json) {
                        (Ok(explanation), false) => explanation.to_string(),
                        (Ok(explanation), true) => format!("{}\n", as_json(&explanation, name)),
                        (Err(error), false) => {
                            format!("{} {conv} {layout} {weights}\n  error: {error}\n", pass.name())
                        }
                        (Err(error), true) => {
                            let (problem, pass) = (conv.to_string(), pass.name());
                            let (layout, weights, error) =
                                (layout.to_string(), weights.to_string(), error.to_string());
                            let object = json!({
                                "problem": problem, "name": name, "pass": pass, "layout": layout, "weights": weights,
                                "algorithm": null, "error": error,
                            });
                            format!("{object}\n")
                        }
                    };
                }
            }
        }
        Ok((out, code))
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
        self.limits.each(&self.problems, |pass, conv| Ok(pass.explain(&planner, conv)))
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
    fn limits_are_obeyed_and_named() {
        let one = "mb1ic64ih14oc64kh3ph1 --pass fwd --layout nchw";
        let (text, code) = run(&format!("{one} --only im2col")).unwrap();
        assert!(code == 0 && text.contains("im2col because nothing else is left"), "{text}");
        let (text, code) = run(&format!("{one} --forbid direct --forbid slide")).unwrap();
        assert_eq!((text.matches("no, it is forbidden").count(), code), (2, 0), "{text}");
        let (text, code) = run(&format!("{one} --only im2col --max-workspace 1K")).unwrap();
        assert!(code == 1 && text.contains("nothing can be chosen"), "{text}");
        assert!(text.contains("KiB of workspace, and the limit is 1 KiB"), "{text}");
        let (text, code) = run(&format!("{one} --only im2col --max-workspace 1K --json")).unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert!(code == 1 && answer["algorithm"].is_null(), "{text}");
        assert!(text.contains("the limit is 1 KiB"), "{text}");
    }

    #[test]
    fn a_pass_without_the_algorithm_does_not_stop_the_others() {
        let flags = "mb1ic8ih9oc8kh1 --only pointwise --layout nchw";
        let (text, code) = run(flags).unwrap();
        assert_eq!((text.matches("<- chosen").count(), code), (2, 1), "{text}");
        assert!(text.contains("bwd_w mb1ic8ih9") && text.contains("  error: "), "{text}");
        let (text, _) = run(&format!("{flags} --json")).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines[2]["error"].as_str().is_some_and(|error| error.contains("pointwise")), "{text}");
    }

    #[test]
    fn sizes_have_suffixes() {
        let sizes = ["0", "4096", "64K", "8m", "2G"].map(|text| bytes(text).unwrap());
        assert_eq!(sizes, [0, 4096, 64 << 10, 8 << 20, 2 << 30]);
        for text in ["", "K", "1.5M", "-1", "1T", "99999999999999G"] {
            assert!(bytes(text).unwrap_err().contains("64K"), "{text}");
        }
    }

    #[test]
    fn nonsense_gets_a_sentence() {
        assert!(run("mb1ic8ih9oc8kh3 --only alchemy").unwrap_err().contains("no algorithm has this name"));
        assert!(run("ic3").unwrap_err().contains("`oc` is missing"));
        assert!(run("mb1ic8ih9oc8kh3 --isa 3dnow").unwrap_err().contains("is no instruction set"));
        assert!(run("").is_err());
    }
}
