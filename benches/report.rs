//! The performance report: `cargo bench --bench report -- --help`.

use clap::{CommandFactory, Parser};
use convolve::{Error, Isa, NamedProblem, Par, Planner};
use convolve_benches::args::Args;
use convolve_benches::case::{AnyPass, Case, Operands};
use convolve_benches::machine::{self, Machine};
use convolve_benches::probe::Probe;
use convolve_benches::row::{self, Row};
use convolve_benches::sample::{Effort, interleave};
use convolve_benches::{summary, table};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use std::io::{self, IsTerminal, Write};

fn main() -> io::Result<()> {
    let args = Args::parse();
    let isa = args.isa.map_or_else(Isa::from_env, Ok).unwrap_or_else(|error| refuse(&error.to_string()));
    let json = args.json.as_ref().map(|path| {
        let file = File::create(path);
        file.unwrap_or_else(|error| refuse(&format!("cannot write `{}`: {error}", path.display())))
    });
    let pinned = (args.threads == 1 && !args.no_pin).then(machine::pin).flatten();
    let report = |par| {
        let (machine, probe) = (Machine::detect(), Probe::open(isa));
        Report { args: &args, isa, par, pinned, machine, probe, json, rows: Vec::new() }.run()
    };
    let result = match args.threads {
        1 => report(Par::Seq),
        threads => {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build();
            let pool =
                pool.unwrap_or_else(|error| refuse(&format!("cannot start {threads} threads: {error}")));
            pool.install(|| report(Par::Current))
        }
    };
    match result {
        // Whoever reads, `head` say, has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Ends the program as clap does for a flag that it does not know.
fn refuse(sentence: &str) -> ! {
    Args::command().error(clap::error::ErrorKind::ValueValidation, sentence).exit()
}

struct Report<'a> {
    args: &'a Args,
    isa: Isa,
    par: Par<'a>,
    pinned: Option<usize>,
    machine: Machine,
    probe: Probe,
    json: Option<File>,
    rows: Vec<Row>,
}

impl Report<'_> {
    fn run(mut self) -> io::Result<()> {
        self.header()?;
        let problems = self.args.problems();
        let bar = progress_bar(problems.len() * self.args.passes().len());
        for problem in &problems {
            for &pass in self.args.passes() {
                bar.set_message(format!("{} {problem}", pass.name()));
                let rows = self.measure(problem, pass);
                bar.suspend(|| self.show(problem, pass, rows))?;
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        self.footer()
    }

    fn header(&self) -> io::Result<()> {
        let Machine { cpu, cores, rustc, commit, date } = &self.machine;
        let isas: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
        let threads = self.args.threads;
        let pinned = match self.pinned {
            Some(core) => format!("pinned to core {core}"),
            None => "not pinned".into(),
        };
        let peak = [self.probe.peak(), self.probe.opening()].map(|flops| flops / 1e9);
        let mut out = io::stdout().lock();
        writeln!(out, "CPU:      {cpu}, {cores} cores")?;
        writeln!(out, "ISA:      {} (available: {})", self.isa, isas.join(", "))?;
        writeln!(
            out,
            "Peak:     {:.1} GFLOP/s on one core, measured (median window {:.1})",
            peak[0], peak[1]
        )?;
        writeln!(out, "Threads:  {threads}, {pinned}")?;
        writeln!(out, "Built by: {rustc}, commit {}", commit.as_deref().unwrap_or("unknown"))?;
        writeln!(out, "Date:     {date}")?;
        writeln!(out, "Timed:    single runs, weights packed before, all memory allocated and warm")?;
        out.flush()
    }

    /// All rows of a problem and pass; a problem that does not fit the memory ends the program.
    fn measure(&mut self, problem: &NamedProblem, pass: AnyPass) -> Vec<Row> {
        let mut rows = Vec::new();
        for &(layout, weights) in self.args.layouts() {
            let problem = NamedProblem {
                conv: problem.conv.layout(layout).weight_layout(weights),
                name: problem.name.clone(),
            };
            match self.measure_layout(&problem, pass) {
                Ok(more) => rows.extend(more),
                Err(error) => refuse(&format!("{problem}: {error}")),
            }
        }
        rows
    }

    fn measure_layout(&mut self, problem: &NamedProblem, pass: AnyPass) -> Result<Vec<Row>, Error> {
        let threads = self.args.threads.into();
        let planner = Planner::new().isa(self.isa).threads(threads).accuracy(self.args.accuracy());
        let verdicts = pass.verdicts(&planner, problem.conv)?;
        let wanted =
            verdicts.iter().filter(|verdict| verdict.answer.is_ok() && self.args.wants(verdict.algorithm));
        let (operands, macs) = (Operands::new(problem.conv)?, problem.conv.geometry()?.macs());
        let (mut rows, mut runs) = (Vec::new(), Vec::new());
        for verdict in wanted {
            let planner = planner.clone().only(verdict.algorithm);
            let Case { workspace_bytes, run } = pass.prepare(&planner, &operands, self.par)?;
            runs.push(run);
            rows.push(Row {
                problem: problem.conv.to_string(),
                name: problem.name.clone(),
                pass: pass.name(),
                layout: problem.conv.layout.to_string(),
                weights: problem.conv.weight_layout.to_string(),
                threads,
                isa: self.isa.name(),
                accuracy: format!("{:?}", self.args.accuracy).to_lowercase(),
                algorithm: verdict.algorithm,
                chosen: verdict.chosen,
                median_s: f64::NAN,
                min_s: f64::NAN,
                gflops: f64::NAN,
                peak_fraction: f64::NAN,
                regret: None,
                workspace_bytes,
                samples: 0,
                slow: 0,
                steady: false,
                peak_gflops: f64::NAN,
                machine: self.machine.clone(),
            });
        }
        let effort = if self.args.quick { Effort::QUICK } else { Effort::FULL };
        let series = interleave(&mut runs, &mut self.probe, effort);
        let peak = self.probe.peak();
        let measured = rows.into_iter().zip(series).map(|(row, series)| {
            row.measured(macs, series.statistics(peak).expect("at least one sample is taken"), peak)
        });
        let mut rows: Vec<Row> = measured.collect();
        if self.args.algorithm.is_empty() {
            row::regret(&mut rows);
        }
        Ok(rows)
    }

    fn show(&mut self, problem: &NamedProblem, pass: AnyPass, rows: Vec<Row>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let mflop = 2e-6 * problem.conv.geometry().map_or(0.0, |geometry| geometry.macs() as f64);
        writeln!(out, "\n{} {problem} ({mflop:.3} MFLOP)", pass.name())?;
        match rows.is_empty() {
            true => writeln!(out, "no algorithm to measure")?,
            false => writeln!(out, "{}", table::rows(&rows))?,
        }
        out.flush()?;
        if let Some(json) = &mut self.json {
            for row in &rows {
                writeln!(json, "{}", serde_json::to_string(row)?)?;
            }
        }
        self.rows.extend(rows);
        Ok(())
    }

    fn footer(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "\n{}", summary::summary(&self.rows).trim_end())?;
        writeln!(out, "Peak of one core at the end: {:.1} GFLOP/s.", self.probe.peak() / 1e9)?;
        if let Some(path) = &self.args.json {
            writeln!(out, "Rows: {} in {}", self.rows.len(), path.display())?;
        }
        out.flush()
    }
}

/// Only on a terminal; drawn between measurements and never during one.
fn progress_bar(len: usize) -> ProgressBar {
    if !(io::stdout().is_terminal() && io::stderr().is_terminal()) {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} (left: {eta}) {wide_msg}");
    ProgressBar::new(len as u64).with_style(style.expect("the template is valid"))
}
