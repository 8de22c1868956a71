//! The end of the report: how near to the peak, how good the choices, how quiet the machine.

use crate::row::Row;
use crate::sample::median;
use crate::table;
use core::fmt::Write;
use std::collections::BTreeMap;

/// All rows in a few lines.
pub fn summary(rows: &[Row]) -> String {
    let mut groups: BTreeMap<(&str, &str), Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.chosen) {
        groups.entry((row.layout.as_str(), row.pass)).or_default().push(row);
    }
    let mut out = String::new();
    if !groups.is_empty() {
        let mut table = table::new(&[
            "chosen by the planner",
            "problems",
            "% of peak, geometric mean",
            "median",
            "least",
        ]);
        for ((layout, pass), rows) in groups {
            let mut fractions: Vec<f64> = rows.iter().map(|row| row.peak_fraction).collect();
            let mean = geometric_mean(&fractions);
            let middle = median(&mut fractions).unwrap_or(f64::NAN);
            let least = fractions.iter().copied().fold(f64::INFINITY, f64::min);
            let mut cells = vec![format!("{layout} {pass}"), rows.len().to_string()];
            cells.extend([mean, middle, least].map(|fraction| format!("{:.1}", 100.0 * fraction)));
            table.add_row(cells);
        }
        out = format!("{table}\n\n");
    }
    // Writing to a string does not fail.
    let chosen: Vec<&Row> = rows.iter().filter(|row| row.chosen).collect();
    let steady: Vec<&Row> = chosen.iter().copied().filter(|row| row.steady).collect();
    let _ = writeln!(out, "{}", regrets(&chosen));
    if let Some(line) = predictions(&chosen) {
        let _ = writeln!(out, "{line}");
    }
    if steady.len() < chosen.len() {
        let _ = writeln!(
            out,
            "Of these {} plans {} have steady rows. Of them alone:",
            chosen.len(),
            steady.len()
        );
        let _ = writeln!(out, "  {}", regrets(&steady));
        if let Some(line) = predictions(&steady) {
            let _ = writeln!(out, "  {line}");
        }
    }
    let _ = writeln!(out, "{}", quiet(rows));
    out
}

/// Predicted over measured time of the chosen plans.
fn predictions(chosen: &[&Row]) -> Option<String> {
    let ratio = |row: &&Row| Some(row.predicted_s? / row.median_s);
    let mut ratios: Vec<f64> = chosen.iter().filter_map(ratio).collect();
    let middle = median(&mut ratios)?;
    let share = 100.0 * near(&ratios);
    Some(format!(
        "Predicted / measured time of the chosen plans: median {middle:.2}, within a factor of {NEAR} for {share:.0} % of them."
    ))
}

fn regrets(chosen: &[&Row]) -> String {
    let mut regrets: Vec<f64> = chosen.iter().filter_map(|row| row.regret).collect();
    let Some(middle) = median(&mut regrets) else {
        return "Regret: unknown, as not all algorithms were measured.".into();
    };
    let mean = regrets.iter().sum::<f64>() / regrets.len() as f64;
    let by_regret = |a: &&&Row, b: &&&Row| a.regret.unwrap_or(0.0).total_cmp(&b.regret.unwrap_or(0.0));
    let Some(worst) = chosen.iter().filter(|row| row.regret.is_some()).max_by(by_regret) else {
        unreachable!()
    };
    format!(
        "Regret: median {:.1} %, mean {:.1} %, worst {:.1} % ({} {} {} by {}).",
        100.0 * middle,
        100.0 * mean,
        100.0 * worst.regret.unwrap_or(0.0),
        worst.pass,
        worst.layout,
        worst.name.as_ref().unwrap_or(&worst.problem),
        worst.algorithm,
    )
}

fn quiet(rows: &[Row]) -> String {
    let sum = |count: fn(&Row) -> usize| rows.iter().map(count).sum::<usize>();
    let (samples, slow) = (sum(|row| row.samples), sum(|row| row.slow));
    let used = sum(|row| if row.steady { 0 } else { row.slow });
    let unsteady = rows.iter().filter(|row| !row.steady).count();
    let mut out = format!(
        "Samples: {samples}, of which {} were dropped because a probe beside them was more than {:.0} % below the best.",
        slow - used,
        100.0 * crate::sample::SLOW,
    );
    if unsteady > 0 {
        let _ = write!(
            out,
            "\nIn {unsteady} of {} rows nearly all samples were slow: all were used, and the rows are marked with ~. \
             Do not rely on them.",
            rows.len()
        );
    }
    out
}

/// How near a prediction is to be: a factor.
pub const NEAR: f64 = 1.25;

/// The share of ratios within [`NEAR`].
pub fn near(ratios: &[f64]) -> f64 {
    ratios.iter().filter(|&&ratio| (1.0 / NEAR..=NEAR).contains(&ratio)).count() as f64 / ratios.len() as f64
}

/// The n-th root of the product.
pub fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::row;

    #[test]
    fn means() {
        assert!((geometric_mean(&[0.5, 2.0, 8.0]) - 2.0).abs() < 1e-12);
        assert_eq!(near(&[0.79, 0.8, 1.0, 1.25, 1.26, f64::NAN]), 0.5);
    }

    #[test]
    fn it_counts() {
        let mut rows = [row("a", true, 0.5), row("b", false, 0.25), row("c", false, 1.0)];
        crate::row::regret(&mut rows);
        rows[0].predicted_s = Some(0.6);
        rows[2].steady = false;
        let text = summary(&rows);
        for part in [
            "| NCHW fwd",
            " 20.0 |",
            "Regret: median 100.0 %, mean 100.0 %, worst 100.0 % (fwd NCHW mb1ic1",
            "by a)",
            "measured time of the chosen plans: median 1.20, within a factor of 1.25 for 100 %",
            "Samples: 21, of which 2 were dropped",
            "In 1 of 3 rows",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn steady_rows_are_summed_up_apart() {
        let mut rows =
            [row("a", true, 0.5), row("b", false, 0.25), row("c", true, 1.0), row("d", false, 1.0)];
        rows[0].steady = false;
        for pair in rows.chunks_mut(2) {
            crate::row::regret(pair);
        }
        let text = summary(&rows);
        for part in ["Regret: median 50.0 %", "Of these 2 plans 1 have steady rows", "  Regret: median 0.0 %"]
        {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn no_rows_no_panic() {
        assert!(summary(&[]).starts_with("Regret: unknown"));
    }
}
