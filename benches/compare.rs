//! Two files of rows, row by row: what became slower or faster, and whether the difference is more than noise.

use crate::record::{Record, positive};
use crate::{summary::geometric_mean, table};
use clap::Args;
use core::fmt::Write;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Compares two JSON files of the report; the exit code is 1 if something is slower than the threshold allows and than noise explains.
///
/// Of an algorithm with several cuts of one problem (the column `tiling`), the chosen one is compared, or else the first in the file.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// Rows from before
    #[arg(value_parser = crate::args::from_where_cargo_was_called)]
    pub old: PathBuf,
    /// Rows from now
    #[arg(value_parser = crate::args::from_where_cargo_was_called)]
    pub new: PathBuf,
    /// How much longer a row, or the geometric mean of all, may take
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent)]
    pub threshold: f64,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// `5%`, `5` or `2.5%` as a fraction.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value / 100.0),
        _ => Err("a threshold is a percentage such as 5% or 2.5%".into()),
    }
}

impl CompareArgs {
    /// Reads both files and compares.
    ///
    /// # Errors
    /// A file that cannot be read, or files without a row in common.
    pub fn run(&self) -> Result<Comparison, String> {
        compare(&crate::record::read(&self.old)?, &crate::record::read(&self.new)?, self.threshold)
    }
}

/// One row in both files.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Pass, layout, problem, threads, instruction set, algorithm.
    pub label: String,
    /// Median time now over that before.
    pub ratio: f64,
    /// What the ratio may be off by: what the median may be off by in each file, over itself; both added.
    pub noise: f64,
    /// Enough samples survived in both files. Otherwise the row counts in the mean alone.
    pub steady: bool,
}

impl Pair {
    /// Slower than the threshold allows, and by more than noise.
    pub fn slower(&self, threshold: f64) -> bool {
        self.steady && self.ratio > 1.0 + threshold && self.ratio > 1.0 + self.noise
    }

    /// Faster by more than the threshold and than noise.
    pub fn faster(&self, threshold: f64) -> bool {
        let inverse = 1.0 / self.ratio;
        self.steady && inverse > 1.0 + threshold && inverse > 1.0 + self.noise
    }
}

/// All rows that both files have.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Slowest first.
    pub pairs: Vec<Pair>,
    /// Rows that only one file has.
    pub left_out: [usize; 2],
    /// Rows of each file, among those in both, whose problem was tuned.
    pub tuned: [usize; 2],
    /// As a fraction.
    pub threshold: f64,
}

type Key = (String, String, String, usize, String, String, String);

fn key(row: &Record) -> Key {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (problem, pass, layout) = (row.problem.clone(), row.pass.clone(), row.layout.clone());
    (problem, pass, layout, row.threads(), text(&row.isa), text(&row.accuracy), row.algorithm.clone())
}

/// The least median of each key, among the rows of its preferred cut, and its noise.
fn best(rows: &[Record]) -> BTreeMap<Key, (f64, f64, &Record)> {
    let rows = || rows.iter().filter_map(|row| Some((key(row), positive(row.median_s)?, row)));
    let mut preferred: BTreeMap<Key, &Record> = BTreeMap::new();
    for (key, _, row) in rows() {
        let kept = preferred.entry(key).or_insert(row);
        if row.chosen && !kept.chosen {
            *kept = row;
        }
    }
    let mut best: BTreeMap<Key, (f64, f64, &Record)> = BTreeMap::new();
    for (key, median, row) in rows().filter(|(key, _, row)| preferred[key].tiling == row.tiling) {
        let value = (median, row.noise().unwrap_or(0.0), row);
        let kept = best.entry(key).or_insert(value);
        if median < kept.0 {
            *kept = value;
        }
    }
    best
}

/// Joins by problem, pass, layout, threads, instruction set, accuracy and algorithm. Of several cuts of one problem by one algorithm, the one that it
/// prefers is compared, in each file: that of the row that is chosen, else that of the first row. How it cuts is no part of the key, as a better cut is
/// what many a change is about. Of rows that a file has twice, with the same cut, the fastest counts.
///
/// # Errors
/// Nothing in common.
pub fn compare(old: &[Record], new: &[Record], threshold: f64) -> Result<Comparison, String> {
    let (before, now) = (best(old), best(new));
    let (mut pairs, mut tuned) = (Vec::new(), [0; 2]);
    for (key, &(after, after_noise, row)) in &now {
        let Some(&(median, noise, old)) = before.get(key) else { continue };
        tuned[0] += usize::from(old.tuned());
        tuned[1] += usize::from(row.tuned());
        let (threads, isa) = (row.threads(), row.isa.as_deref().unwrap_or("?"));
        pairs.push(Pair {
            label: format!("{} {} {} {isa} x{threads} {}", row.pass, row.layout, row.title(), row.algorithm),
            ratio: after / median,
            noise: noise + after_noise,
            steady: !row.unsteady() && !old.unsteady(),
        });
    }
    if pairs.is_empty() {
        return Err("the files have no row in common: rows are joined by problem, pass, layout, threads, \
                    instruction set, accuracy and algorithm"
            .into());
    }
    pairs.sort_by(|a, b| b.ratio.total_cmp(&a.ratio));
    let left_out = [before.len() - pairs.len(), now.len() - pairs.len()];
    Ok(Comparison { pairs, left_out, tuned, threshold })
}

/// Half the width of a bar, in characters, and the factor that it stands for.
const HALF: i32 = 12;
const FACTOR: f64 = 1.5;

/// The ratio as a point between its noise bars: `|` is 1, the ends are factors of 1.5.
fn bar(pair: &Pair) -> String {
    let place = |ratio: f64| {
        let at = ratio.max(1e-9).ln() / FACTOR.ln() * f64::from(HALF);
        (HALF + at.round().clamp(f64::from(-HALF), f64::from(HALF)) as i32) as usize
    };
    let mut cells = vec![' '; 2 * HALF as usize + 1];
    let (low, high) = (place(pair.ratio / (1.0 + pair.noise)), place(pair.ratio * (1.0 + pair.noise)));
    cells[low..=high].fill('-');
    cells[HALF as usize] = '|';
    cells[place(pair.ratio)] = 'o';
    cells.into_iter().collect()
}

impl Comparison {
    /// The geometric mean of all ratios as a pair. Rows err independently of each other: its noise is the root of the sum of their squares, over
    /// their number.
    pub fn mean(&self) -> Pair {
        let ratios: Vec<f64> = self.pairs.iter().map(|pair| pair.ratio).collect();
        let squares: f64 = self.pairs.iter().map(|pair| pair.noise * pair.noise).sum();
        let noise = squares.sqrt() / self.pairs.len() as f64;
        Pair { label: "geometric mean".into(), ratio: geometric_mean(&ratios), noise, steady: true }
    }

    /// Whether a row, or the mean, is slower than the threshold and noise allow.
    pub fn fails(&self) -> bool {
        self.pairs.iter().any(|pair| pair.slower(self.threshold)) || self.mean().slower(self.threshold)
    }

    /// As a table, and the verdict in a sentence.
    pub fn text(&self) -> String {
        let mut table =
            table::new(&["row", "new / old", "noise", "slower: right of |, noise: ---", "verdict"]);
        for pair in self.pairs.iter().chain([&self.mean()]) {
            let verdict = match (pair.slower(self.threshold), pair.faster(self.threshold)) {
                (true, _) => "slower",
                (_, true) => "faster",
                _ if !pair.steady => "(restless)",
                _ => "",
            };
            table.add_row([
                pair.label.clone(),
                format!("{:.3}", pair.ratio),
                format!("+-{:.1} %", 100.0 * pair.noise),
                bar(pair),
                verdict.into(),
            ]);
        }
        let count =
            |f: fn(&Pair, f64) -> bool| self.pairs.iter().filter(|pair| f(pair, self.threshold)).count();
        let (slower, faster) = (count(Pair::slower), count(Pair::faster));
        let mut out = format!("{table}\n\n");
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{} rows: geometric mean of new / old {:.3}; {slower} slower and {faster} faster by more than {:.1} % and than noise.",
            self.pairs.len(),
            self.mean().ratio,
            100.0 * self.threshold,
        );
        let restless = self.pairs.iter().filter(|pair| !pair.steady).count();
        if restless > 0 {
            let _ = writeln!(
                out,
                "{restless} rows are restless: nearly all their samples were beside a slow probe. They count in the mean alone."
            );
        }
        if self.tuned[0] != self.tuned[1] {
            let [old, new] = self.tuned;
            let _ = writeln!(
                out,
                "Tuned: {old} rows in the old file, {new} in the new one. That decides which algorithm is chosen, not how long one takes."
            );
        }
        if self.left_out != [0, 0] {
            let [old, new] = self.left_out;
            let _ = writeln!(out, "Left out: {old} rows that only the old file has, {new} of the new one.");
        }
        out
    }

    /// As one JSON object.
    pub fn json(&self) -> serde_json::Value {
        let row = |pair: &Pair| {
            serde_json::json!({
                "row": pair.label, "ratio": pair.ratio, "noise": pair.noise,
                "steady": pair.steady, "slower": pair.slower(self.threshold), "faster": pair.faster(self.threshold),
            })
        };
        serde_json::json!({
            "rows": self.pairs.iter().map(row).collect::<Vec<_>>(),
            "mean": row(&self.mean()),
            "threshold": self.threshold,
            "tuned": { "old": self.tuned[0], "new": self.tuned[1] },
            "left_out": { "old": self.left_out[0], "new": self.left_out[1] },
            "fails": self.fails(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(problem: &str, median_s: f64, min_s: f64) -> Record {
        Record {
            problem: problem.into(),
            algorithm: "direct".into(),
            median_s: Some(median_s),
            min_s: Some(min_s),
            ..Record::default()
        }
    }

    fn ratio(old: (f64, f64), new: (f64, f64)) -> Comparison {
        compare(&[record("a", old.0, old.1)], &[record("a", new.0, new.1)], 0.05).unwrap()
    }

    #[test]
    fn it_fails_past_the_threshold_and_past_noise_only() {
        assert!(ratio((1.0, 0.99), (1.2, 1.19)).fails());
        assert!(!ratio((1.0, 0.99), (1.04, 1.04)).fails(), "within the threshold");
        assert!(!ratio((1.0, 0.80), (1.2, 1.10)).fails(), "within noise");
        assert!(!ratio((1.2, 1.19), (1.0, 0.99)).fails(), "faster");
        assert!(ratio((1.2, 1.19), (1.0, 0.99)).pairs[0].faster(0.05));
    }

    #[test]
    fn rows_are_joined_by_all_that_names_them() {
        let old =
            [record("a", 1.0, 1.0), record("b", 2.0, 2.0), record("b", 1.0, 1.0), record("d", 0.0, 0.0)];
        let threads = Record { threads: Some(2), ..record("a", 9.0, 9.0) };
        let avx2 = Record { isa: Some("avx2".into()), ..record("a", 9.0, 9.0) };
        let new = [threads, avx2, record("a", 1.0, 1.0), record("b", 1.0, 1.0), record("c", 1.0, 1.0)];
        let comparison = compare(&old, &new, 0.05).unwrap();
        assert_eq!(comparison.pairs.len(), 2);
        assert!(comparison.pairs.iter().all(|pair| pair.ratio == 1.0), "of b the fastest counts");
        assert_eq!(comparison.left_out, [0, 3]);
        assert!(compare(&old[..1], &new[1..2], 0.05).unwrap_err().contains("no row in common"));
    }

    #[test]
    fn the_preferred_cuts_are_compared() {
        let cut = |tiling: &str, chosen, seconds| Record {
            tiling: Some(tiling.into()),
            chosen,
            ..record("a", seconds, seconds)
        };
        let ratio = |old: &[Record], new: &[Record]| {
            let comparison = compare(old, new, 0.05).unwrap();
            assert_eq!((comparison.pairs.len(), comparison.left_out), (1, [0, 0]));
            comparison.pairs[0].ratio
        };
        let old = [cut("wide", false, 3.0), cut("tall", true, 2.0), cut("flat", false, 1.0)];
        assert_eq!(ratio(&old, &[cut("deep", false, 1.0), cut("thin", true, 4.0)]), 2.0, "the chosen ones");
        assert_eq!(ratio(&old, &[cut("deep", false, 1.0), cut("thin", false, 0.1)]), 0.5, "else the first");
        assert_eq!(
            ratio(&old, &[cut("tall", true, 9.0), cut("tall", true, 6.0)]),
            3.0,
            "the fastest of equals"
        );
    }

    #[test]
    fn the_mean_is_judged_too() {
        let old: Vec<_> = ["a", "b"].map(|problem| record(problem, 1.0, 1.0)).into();
        let new = [record("a", 2.0, 2.0), record("b", 0.5, 0.5)];
        let comparison = compare(&old, &new, 0.05).unwrap();
        assert!((comparison.mean().ratio - 1.0).abs() < 1e-12);
        let text = comparison.text();
        assert!(text.contains("1 slower and 1 faster by more than 5.0 %"), "{text}");
        assert_eq!(comparison.json()["fails"], true);
    }

    #[test]
    fn restless_rows_decide_in_the_mean_only() {
        let many = |seconds: f64| -> Vec<Record> {
            (0..100)
                .map(|i| Record { steady: Some(false), ..record(&i.to_string(), seconds, 0.9 * seconds) })
                .collect()
        };
        let mut new = many(1.0);
        new[7].median_s = Some(3.0);
        assert!(!compare(&many(1.0), &new, 0.05).unwrap().fails(), "one outlier");
        assert!(compare(&many(1.0), &many(1.1), 0.05).unwrap().fails(), "all of them");
    }

    #[test]
    fn the_spread_of_the_samples_is_the_noise() {
        let row = |seconds, spread| Record { spread: Some(spread), ..record("a", seconds, seconds) };
        let noise = |spread| compare(&[row(1.0, spread)], &[row(1.2, spread)], 0.05).unwrap();
        assert!(noise(0.01).fails() && !noise(0.15).fails());
        assert!((noise(0.15).pairs[0].noise - 0.3).abs() < 1e-12);
    }

    #[test]
    fn it_says_which_file_was_tuned() {
        let tuned = [Record { tuned: Some(true), ..record("a", 1.0, 1.0) }];
        let text = compare(&[record("a", 1.0, 1.0)], &tuned, 0.05).unwrap().text();
        assert!(text.contains("Tuned: 0 rows in the old file, 1 in the new one."), "{text}");
        assert!(!compare(&tuned, &tuned, 0.05).unwrap().text().contains("Tuned"));
    }

    #[test]
    fn bars_stay_within_their_width() {
        for ratio in [1e-9, 0.5, 1.0, 1.1, 1e9] {
            for noise in [0.0, 0.1, 1e9] {
                let bar = bar(&Pair { label: String::new(), ratio, noise, steady: true });
                assert_eq!((bar.len(), bar.matches('o').count()), (25, 1), "{bar}");
            }
        }
    }

    #[test]
    fn thresholds() {
        assert_eq!((percent("5%"), percent("2.5")), (Ok(0.05), Ok(0.025)));
        assert!(percent("-1%").is_err() && percent("nan").is_err() && percent("much").is_err());
    }
}
