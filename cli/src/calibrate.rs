//! `calibrate`: the constants of this machine as they are measured, beside those that are shipped for it.

use crate::Answer;
use clap::Args;
use convolve::{Isa, Machine};
use convolve_benches::table;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

#[derive(Clone, Debug, Args)]
pub(crate) struct CalibrateArgs {
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

impl CalibrateArgs {
    pub(crate) fn run(&self) -> Answer {
        let begin = Instant::now();
        let measured = Machine::calibrate();
        let took = begin.elapsed();
        let say = if self.json { as_json } else { text };
        Ok((say(&Machine::native(), &measured, took), 0))
    }
}

/// Key, name with unit, and value of every constant, and the peaks that follow from them.
fn constants(machine: &Machine) -> Vec<(String, String, f64)> {
    let mut all = vec![("ghz".to_owned(), "clock, GHz".to_owned(), machine.ghz)];
    for &isa in Isa::available() {
        let name = isa.name();
        let fma = format!("multiply-adds of {name}, vectors a cycle");
        all.push((format!("fma_{name}"), fma, machine.fma(isa)));
        all.push((format!("peak_gflops_{name}"), format!("peak of {name}, GFLOP/s"), machine.peak(isa)));
    }
    let convolve::Caches { l1, l2, l3 } = machine.caches;
    for (level, bytes) in [("L1", l1), ("L2", l2), ("L3", l3)] {
        all.push((format!("{}_bytes", level.to_lowercase()), format!("{level}, bytes"), bytes as f64));
    }
    for (level, rate) in ["L1", "L2", "L3", "memory"].into_iter().zip(machine.bandwidth) {
        let key = format!("{}_bytes_per_ns", level.to_lowercase());
        all.push((key, format!("read from {level}, GB/s"), rate));
    }
    all.push(("fork_ns".into(), "waking the threads, ns".into(), machine.fork_ns));
    all.push(("task_ns".into(), "one more task, ns".into(), machine.task_ns));
    all
}

fn text(shipped: &Machine, measured: &Machine, took: Duration) -> String {
    let mut table = table::new(&["constant", "shipped", "measured", "measured / shipped"]);
    for ((_, name, before), (.., now)) in constants(shipped).into_iter().zip(constants(measured)) {
        let ratio = if before > 0.0 { format!("{:.2}", now / before) } else { "-".into() };
        table.add_row([name, number(before), number(now), ratio]);
    }
    let seconds = took.as_secs_f64();
    format!("{}: shipped constants, and measured in {seconds:.1} s\n\n{table}\n", shipped.name)
}

/// Whole if it is large.
fn number(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn as_json(shipped: &Machine, measured: &Machine, took: Duration) -> String {
    let object = |machine| -> Map<String, Value> {
        constants(machine).into_iter().map(|(key, _, value)| (key, json!(value))).collect()
    };
    let (shipped, measured, name) = (object(shipped), object(measured), shipped.name);
    format!(
        "{}\n",
        json!({ "machine": name, "seconds": took.as_secs_f64(), "shipped": shipped, "measured": measured })
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Machine = Machine { ghz: 1.75, ..Machine::GENERIC };

    #[test]
    fn constants_stand_beside_each_other() {
        let text = text(&Machine::GENERIC, &SLOW, Duration::from_millis(1234));
        assert!(text.starts_with("generic: shipped constants, and measured in 1.2 s\n"), "{text}");
        let row = |name: &str| {
            let line = text.lines().find(|line| line.contains(name)).unwrap();
            line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(row("clock")[2..5], ["3.50", "1.75", "0.50"]);
        assert_eq!(row("peak of portable")[2..5], ["28.00", "14.00", "0.50"]);
        assert_eq!(row("L2, bytes")[2..5], ["524288", "524288", "1.00"]);
    }

    #[test]
    fn json_has_the_same_keys_twice() {
        let text = as_json(&Machine::GENERIC, &SLOW, Duration::from_millis(1500));
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&answer["machine"], &answer["seconds"]), (&json!("generic"), &json!(1.5)));
        assert_eq!((&answer["shipped"]["ghz"], &answer["measured"]["ghz"]), (&json!(3.5), &json!(1.75)));
        let keys = |which: &str| answer[which].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys("shipped"), keys("measured"));
    }

    #[test]
    fn this_machine_is_calibrated() {
        let (text, code) = CalibrateArgs { json: false }.run().unwrap();
        assert!(
            code == 0 && text.contains(Machine::native().name) && text.contains("memory, GB/s"),
            "{text}"
        );
    }
}
