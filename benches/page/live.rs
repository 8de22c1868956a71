//! Where the rows of a page come from: files, the run itself, and a sweep for the heat map.

use super::{Ceilings, Sources, page};
use crate::args::from_where_cargo_was_called;
use crate::machine::Machine;
use crate::record::{self, Record, SWEEP};
use clap::Args;
use convolve::{Conv2d, NamedProblem};
use std::path::PathBuf;

/// Flags of the page.
#[derive(Clone, Debug, Default, Args)]
pub struct PageArgs {
    /// Writes the report as one self-contained page, report.html, and its figures as SVG
    #[arg(long, value_name = "DIR", value_parser = from_where_cargo_was_called)]
    pub html: Option<PathBuf>,
    /// Makes the page of rows in JSON files and measures nothing but bandwidths; may be repeated
    #[arg(long, value_name = "FILE", requires = "html", num_args = 1.., value_parser = from_where_cargo_was_called)]
    pub from: Vec<PathBuf>,
    /// Rows of the peers for the page; may be repeated
    #[arg(long, value_name = "FILE", requires = "html", num_args = 1.., value_parser = from_where_cargo_was_called)]
    pub peers: Vec<PathBuf>,
}

impl PageArgs {
    /// Rows of the files.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn rows(&self) -> Result<Vec<Record>, String> {
        read(&self.from)
    }

    /// Makes the page of those rows and says what was written; nothing without --html.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn write(&self, rows: &[Record]) -> Result<Option<String>, String> {
        let Some(dir) = &self.html else { return Ok(None) };
        let peers = read(&self.peers)?;
        // Bandwidths of this machine say nothing about another one.
        let here = Machine::detect().cpu;
        let same = rows.iter().all(|row| row.cpu.as_ref().is_none_or(|cpu| *cpu == here));
        let ceilings = (same && !rows.is_empty()).then(Ceilings::measure);
        let page = page(&Sources { rows, peers: &peers, ceilings: ceilings.as_ref() });
        let files = page.write(dir)?;
        let kib = page.html.len().div_ceil(1024);
        Ok(files.first().map(|file| {
            format!("Page: {} ({kib} KiB), and {} figures beside it", file.display(), files.len() - 1)
        }))
    }
}

fn read(files: &[PathBuf]) -> Result<Vec<Record>, String> {
    let rows: Result<Vec<_>, _> = files.iter().map(|file| record::read(file)).collect();
    Ok(rows?.concat())
}

/// Channels and images of the sweep.
const CHANNELS: [usize; 7] = [8, 16, 32, 64, 128, 256, 512];
const IMAGES: [usize; 6] = [7, 14, 28, 56, 112, 224];
/// Larger ones take longer than the map is worth: multiply-adds.
const LARGEST: u64 = 2_000_000_000;

/// Dense 3x3 convolutions, the cheapest first, so that a budget cuts off the dear ones.
pub fn sweep() -> Vec<NamedProblem> {
    let mut problems: Vec<(u64, NamedProblem)> = Vec::new();
    for channels in CHANNELS {
        for image in IMAGES {
            let conv = Conv2d::new(channels, channels, 3).input(image).padding(1);
            let macs = conv.geometry().map_or(u64::MAX, |geometry| geometry.macs());
            if macs <= LARGEST {
                problems
                    .push((macs, NamedProblem { name: Some(format!("{SWEEP}:c{channels}i{image}")), conv }));
            }
        }
    }
    problems.sort_by_key(|problem| problem.0);
    problems.into_iter().map(|(_, problem)| problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sweep_is_a_grid_of_valid_problems() {
        let sweep = sweep();
        assert!(sweep.len() > 35);
        assert!(sweep.iter().all(|problem| problem.conv.batch == 1 && problem.conv.geometry().is_ok()));
    }
}
