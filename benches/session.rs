//! What every measuring program does around its measurements: pins the thread, opens the probe, prints who measures where, keeps the rows.

use crate::args::{Args, Constants};
use crate::case::AnyPass;
use crate::machine::{self, Machine};
use crate::probe::Probe;
use crate::row::Row;
use crate::sample::Effort;
use clap::CommandFactory;
use convolve::{Isa, NamedProblem, Par, Planner};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::fs::File;
use std::io::{self, IsTerminal, Write};

/// One run of a measuring program.
pub struct Session<'a> {
    /// The flags.
    pub args: &'a Args,
    /// The instruction set.
    pub isa: Isa,
    /// Where tasks run.
    pub par: Par<'a>,
    /// The peak, and whether the core is slow now.
    pub probe: Probe,
    pinned: Option<usize>,
    constants: Option<convolve::Machine>,
    machine: Machine,
    json: Option<File>,
    written: usize,
}

/// Runs a measuring program with those flags: in a pool of the threads asked for, or pinned and without a pool.
///
/// # Errors
/// What writing to standard output gives.
pub fn run(args: &Args, program: impl FnOnce(Session<'_>) -> io::Result<()> + Send) -> io::Result<()> {
    let isa = args.isa.map_or_else(Isa::from_env, Ok).unwrap_or_else(|error| refuse(&error.to_string()));
    let json = args.json.as_ref().map(|path| {
        let file = File::create(path);
        file.unwrap_or_else(|error| refuse(&format!("cannot write `{}`: {error}", path.display())))
    });
    let pinned = (args.threads == 1 && !args.no_pin).then(|| machine::pin(0)).flatten();
    let run = |par| {
        let (machine, probe) = (Machine::detect(), Probe::open(isa));
        let constants = match args.machine {
            Constants::Default => None,
            Constants::Generic => Some(convolve::Machine::GENERIC),
            Constants::Native => Some(convolve::Machine::native()),
            Constants::Calibrated => Some(convolve::Machine::calibrate()),
        };
        program(Session { args, isa, par, probe, pinned, constants, machine, json, written: 0 })
    };
    let result = match args.threads {
        1 => run(Par::Seq),
        threads => {
            // A thread for which there is no core is not pinned.
            let no_pin = args.no_pin;
            let pin = move |thread| _ = (!no_pin).then(|| machine::pin(thread));
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into()).start_handler(pin).build();
            let pool =
                pool.unwrap_or_else(|error| refuse(&format!("cannot start {threads} threads: {error}")));
            pool.install(|| run(Par::Current))
        }
    };
    match result {
        // Whoever reads, `head` say, has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Ends the program as clap does for a flag that it does not know.
pub fn refuse(sentence: &str) -> ! {
    Args::command().error(clap::error::ErrorKind::ValueValidation, sentence).exit()
}

impl Session<'_> {
    /// Who measures, where, how.
    ///
    /// # Errors
    /// What writing gives.
    pub fn header(&self) -> io::Result<()> {
        let Machine { cpu, cores, rustc, commit, date } = &self.machine;
        let isas: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
        let threads = self.args.threads;
        let pinned = match self.pinned {
            Some(core) => format!("pinned to core {core}"),
            None if threads > 1 && !self.args.no_pin => {
                "each on a core of its own, as far as there are cores".into()
            }
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
        if let Some(constants) = &self.constants {
            let convolve::Machine { name, ghz, fma, caches, bandwidth, fork_ns, task_ns } = constants;
            let [l1, l2, l3] = [caches.l1, caches.l2, caches.l3].map(|bytes| bytes >> 10);
            writeln!(
                out,
                "Planned:  by constants of {name}: {ghz:.2} GHz, multiply-adds a cycle {fma:.1?}, caches of {l1}, {l2}, {l3} KiB, \
                 {bandwidth:.0?} bytes a nanosecond, {fork_ns:.0} ns to fork, {task_ns:.0} ns a task"
            )?;
        }
        writeln!(out, "Built by: {rustc}, commit {}", commit.as_deref().unwrap_or("unknown"))?;
        writeln!(out, "Date:     {date}")?;
        writeln!(out, "Timed:    single runs, weights packed before, all memory allocated and warm")?;
        out.flush()
    }

    /// Where and from what.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// How long to sample.
    pub fn effort(&self) -> Effort {
        if self.args.quick { Effort::QUICK } else { Effort::FULL }
    }

    /// A planner within the limits of the flags.
    pub fn planner(&self) -> Planner {
        let planner =
            Planner::new().isa(self.isa).threads(self.args.threads.into()).accuracy(self.args.accuracy());
        match self.constants {
            Some(constants) => planner.machine(constants),
            None => planner,
        }
    }

    /// Calls `f` for every problem and pass of the flags, in each layout one after the other.
    ///
    /// # Errors
    /// What `f` gives.
    pub fn for_each(
        &mut self,
        mut f: impl FnMut(&mut Self, &[NamedProblem], AnyPass) -> io::Result<()>,
    ) -> io::Result<()> {
        let args = self.args;
        let problems = args.problems();
        let bar = progress_bar(problems.len() * args.passes().len());
        for problem in &problems {
            let layouts: Vec<NamedProblem> = args
                .layouts()
                .iter()
                .map(|&(layout, weights)| NamedProblem {
                    conv: problem.conv.layout(layout).weight_layout(weights),
                    name: problem.name.clone(),
                })
                .collect();
            for &pass in args.passes() {
                bar.set_message(format!("{} {problem}", pass.name()));
                bar.suspend(|| f(self, &layouts, pass))?;
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// A row in which nothing is measured yet.
    pub fn row(&self, problem: &NamedProblem, pass: AnyPass, algorithm: &'static str, chosen: bool) -> Row {
        Row {
            problem: problem.conv.to_string(),
            name: problem.name.clone(),
            pass: pass.name(),
            layout: problem.conv.layout.to_string(),
            weights: problem.conv.weight_layout.to_string(),
            threads: self.args.threads.into(),
            isa: self.isa.name(),
            accuracy: format!("{:?}", self.args.accuracy).to_lowercase(),
            algorithm,
            tiling: String::new(),
            chosen,
            tuned: false,
            median_s: f64::NAN,
            min_s: f64::NAN,
            spread: f64::NAN,
            gflops: f64::NAN,
            peak_fraction: f64::NAN,
            regret: None,
            predicted_s: None,
            error: None,
            workspace_bytes: 0,
            samples: 0,
            slow: 0,
            steady: false,
            peak_gflops: f64::NAN,
            machine: self.machine.clone(),
        }
    }

    /// The line above the rows of a problem and pass.
    pub fn title(problem: &NamedProblem, pass: AnyPass) -> String {
        let mflop = 2e-6 * problem.conv.geometry().map_or(0.0, |geometry| geometry.macs() as f64);
        format!("\n{} {problem} ({mflop:.3} MFLOP)", pass.name())
    }

    /// Writes a row into the JSON file, if there is one.
    ///
    /// # Errors
    /// What writing gives.
    pub fn write(&mut self, row: &impl Serialize) -> io::Result<()> {
        if let Some(json) = &mut self.json {
            writeln!(json, "{}", serde_json::to_string(row)?)?;
            self.written += 1;
        }
        Ok(())
    }

    /// The end: the summary, the peak again, where the rows are.
    ///
    /// # Errors
    /// What writing gives.
    pub fn footer(&self, summary: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "\n{}", summary.trim_end())?;
        writeln!(out, "Peak of one core at the end: {:.1} GFLOP/s.", self.probe.peak() / 1e9)?;
        if let Some(path) = &self.args.json {
            writeln!(out, "Rows: {} in {}", self.written, path.display())?;
        }
        out.flush()
    }
}

/// Only on a terminal; drawn between measurements and never during one.
pub fn progress_bar(len: usize) -> ProgressBar {
    if !(io::stdout().is_terminal() && io::stderr().is_terminal()) {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} (left: {eta}) {wide_msg}");
    ProgressBar::new(len as u64).with_style(style.expect("the template is valid"))
}
