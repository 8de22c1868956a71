//! A line of a JSON file of the report or of `peers`, read back: what the page and the comparison are made of.

use crate::row::Row;
use convolve::{Geometry, NamedProblem};
use convolve_testkit::shapes;
use serde::Deserialize;
use std::path::Path;

/// What [`Row`] says, and what `peers` adds. A figure that is absent, null or not finite is `None`; unknown keys are ignored, so that
/// files of older and newer programs can be read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(
    missing_docs,
    reason = "the fields are those of `Row` and of a row of `peers`, and documented there"
)]
pub struct Record {
    pub problem: String,
    pub name: Option<String>,
    pub pass: String,
    pub layout: String,
    pub threads: Option<usize>,
    pub isa: Option<String>,
    pub accuracy: Option<String>,
    pub algorithm: String,
    pub tiling: Option<String>,
    pub chosen: bool,
    pub tuned: Option<bool>,
    pub median_s: Option<f64>,
    pub min_s: Option<f64>,
    pub spread: Option<f64>,
    pub gflops: Option<f64>,
    pub peak_fraction: Option<f64>,
    pub regret: Option<f64>,
    pub predicted_s: Option<f64>,
    pub error: Option<f64>,
    pub workspace_bytes: Option<f64>,
    pub steady: Option<bool>,
    pub peak_gflops: Option<f64>,
    pub cpu: Option<String>,
    pub cores: Option<usize>,
    pub rustc: Option<String>,
    pub commit: Option<String>,
    pub date: Option<String>,
    pub peer: Option<String>,
    pub implementation: Option<String>,
    pub ratio: Option<f64>,
}

/// The suite of the grid over channels and image.
pub const SWEEP: &str = "sweep";

impl Record {
    /// The name, or the problem if it has none.
    pub fn title(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.problem)
    }

    /// Threads; 1 if the row does not say.
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or(1)
    }

    /// Whether the row says that nearly all its samples were slow.
    pub fn unsteady(&self) -> bool {
        self.steady == Some(false)
    }

    /// Whether the planner chose by what it had timed; rows that do not say were planned by estimates.
    pub fn tuned(&self) -> bool {
        self.tuned == Some(true)
    }

    /// What the median may be off by, over itself: the spread of its samples, or its distance from the minimum if that is more. Of two runs of one
    /// program 13 % of the rows then differ by more than 5 % and than the noise of both, with the minimum alone 17 %.
    pub fn noise(&self) -> Option<f64> {
        let median = positive(self.median_s)?;
        let above = 1.0 - positive(self.min_s).unwrap_or(median).min(median) / median;
        Some(finite(self.spread).unwrap_or(0.0).max(above))
    }

    /// The suite: what stands before the colon of the name.
    pub fn suite(&self) -> &str {
        let all = || shapes::ALL.contains(&format!("n\"{}\"", self.title()));
        match self.name.as_deref().and_then(|name| name.split_once(':')) {
            Some((suite, _)) => suite,
            None if self.name.is_some() && all() => "all",
            None => "other problems",
        }
    }

    /// The problem, checked; nothing if the string is none.
    pub fn geometry(&self) -> Option<Geometry> {
        let problem: NamedProblem = self.problem.parse().ok()?;
        problem.conv.geometry().ok()
    }

    /// Floating-point operations per byte of the operands, each touched once.
    pub fn intensity(&self) -> Option<f64> {
        let geometry = self.geometry()?;
        let floats = [geometry.src_len(), geometry.weights_len(), geometry.dst_len()];
        let bytes: f64 = floats.iter().map(|&len| 4.0 * len as f64).sum();
        positive(Some(2.0 * geometry.macs() as f64 / bytes))
    }
}

impl From<&Row> for Record {
    fn from(row: &Row) -> Self {
        // A row is written as JSON objects are, and every key of a record has the type that the row writes.
        let value = serde_json::to_value(row).unwrap_or_default();
        serde_json::from_value(value).unwrap_or_default()
    }
}

/// A value that a logarithm can be taken of.
pub fn positive(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite() && *value > 0.0)
}

/// A finite value.
pub fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite())
}

/// All rows of a file of JSON lines.
///
/// # Errors
/// A sentence that names the file, and the line if that is no row.
pub fn read(path: &Path) -> Result<Vec<Record>, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    parse(&text).map_err(|error| format!("`{}`, {error}", path.display()))
}

/// All rows of JSON lines; blank lines are skipped.
///
/// # Errors
/// The number of a line that is no row, and why.
pub fn parse(text: &str) -> Result<Vec<Record>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let rows = lines.map(|(i, line)| {
        let row: Record = serde_json::from_str(line).map_err(|error| format!("line {}: {error}", i + 1))?;
        match row.problem.is_empty() || row.algorithm.is_empty() {
            true => Err(format!("line {}: a row has a `problem` and an `algorithm`", i + 1)),
            false => Ok(row),
        }
    });
    rows.collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::row::tests::row;

    #[test]
    fn what_the_report_writes_can_be_read() {
        let mut written = row("direct", true, 0.5);
        written.gflops = f64::NAN;
        let text = serde_json::to_string(&written).unwrap();
        let read = parse(&format!("{text}\n\n{text}\n")).unwrap();
        assert_eq!(read, [Record::from(&written), Record::from(&written)]);
        assert_eq!((read[0].median_s, read[0].gflops, read[0].threads()), (Some(0.5), None, 2));
    }

    #[test]
    fn rows_of_older_programs_can_be_read() {
        let old = "{\"problem\":\"ic1ih1oc1kh1\",\"algorithm\":\"direct\",\"chosen\":true,\"median_s\":0.5,\"min_s\":0.4,\
                   \"samples\":7,\"slow\":1,\"steady\":false,\"a key of the future\":[1]}";
        let row = &parse(old).unwrap()[0];
        assert_eq!((row.tuned, row.tuned(), row.spread, row.unsteady()), (None, false, None, true));
        assert!((row.noise().unwrap() - 0.2).abs() < 1e-12, "from the minimum, as the spread is not there");
    }

    #[test]
    fn a_line_that_is_no_row_is_named() {
        assert!(parse("{}").unwrap_err().starts_with("line 1: a row has"));
        assert!(parse("\n{\"problem\": 3}").unwrap_err().starts_with("line 2: "));
        assert!(read(Path::new("/nowhere/at/all")).unwrap_err().starts_with("cannot read `/nowhere"));
    }

    #[test]
    fn suites_and_intensity() {
        let named = |name: &str| Record { name: Some(name.into()), ..Record::default() };
        assert_eq!(named("vgg16:conv1_1").suite(), "vgg16");
        assert_eq!(named("rn50_conv1_7x7s2").suite(), "all");
        assert_eq!(named("mine").suite(), "other problems");
        assert_eq!(named("mine").intensity(), None);
        let one = Record { problem: "mb1ic1ih1oc1oh1kh1".into(), ..Record::default() };
        assert_eq!(one.intensity(), Some(2.0 / 12.0));
    }
}
