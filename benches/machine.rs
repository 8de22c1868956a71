//! Where and from what a figure comes: CPU, compiler, commit, date.

use serde::Serialize;
use std::process::Command;
use std::time::SystemTime;

/// The machine and the program, as they stand in the header and in every row of the JSON file.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The CPU's own name.
    pub cpu: String,
    /// Physical cores, where the system tells; otherwise the threads that can run.
    pub cores: usize,
    /// The compiler that built this program.
    pub rustc: &'static str,
    /// The commit, with `-dirty` when files differ from it; nothing outside of a repository.
    pub commit: Option<String>,
    /// Now, UTC.
    pub date: String,
}

impl Machine {
    /// Asks the system.
    pub fn detect() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
        Self {
            cpu: cpu().unwrap_or_else(|| format!("unknown {}", std::env::consts::ARCH)),
            cores: sysinfo::System::physical_core_count().unwrap_or(threads),
            rustc: env!("REPORT_RUSTC"),
            commit: commit(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        }
    }
}

fn cpu() -> Option<String> {
    let cpus = sysinfo::RefreshKind::nothing().with_cpu(sysinfo::CpuRefreshKind::nothing());
    let system = sysinfo::System::new_with_specifics(cpus);
    let name = system.cpus().first()?.brand().trim().to_owned();
    (!name.is_empty()).then_some(name)
}

fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let clean = git(&["status", "--porcelain"]).is_some_and(|files| files.is_empty());
    Some(if clean { commit } else { commit + "-dirty" })
}

/// Pins the calling thread to the last core that it may use (the first one serves most interrupts), or, as one of several, to the one before it and so on;
/// says which.
pub fn pin(thread: usize) -> Option<usize> {
    let core = core_affinity::get_core_ids()?.into_iter().rev().nth(thread)?;
    core_affinity::set_for_current(core).then_some(core.id)
}
