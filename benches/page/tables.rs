//! The tables of the page: machine, summary, one per suite, peers.

use super::Sources;
use super::figures::is_rival;
use super::plot::{escape, join, short};
use crate::record::{Record, finite, positive};
use crate::sample::median;
use crate::summary::{geometric_mean, near};
use core::fmt::Write;
use std::collections::{BTreeMap, BTreeSet};

/// With more rows than that only the planner's choices are listed, so that the page stays small.
const MOST: usize = 2500;

/// Distinct values of a field, joined.
fn distinct<'a>(rows: impl Iterator<Item = &'a Record>, field: impl Fn(&Record) -> Option<String>) -> String {
    let values: BTreeSet<String> = rows.filter_map(field).collect();
    let many = values.len() > 3;
    let shown = join(values.into_iter().take(3), ", ");
    if many { shown + ", ..." } else { shown }
}

/// Who measured, where, with what.
pub(super) fn machine(sources: &Sources<'_>) -> String {
    let all = || sources.rows.iter().chain(sources.peers);
    let days = distinct(all(), |row| row.date.as_ref().map(|date| date.chars().take(10).collect()));
    let ceilings = sources.ceilings.map_or(String::new(), |ceilings| {
        join(ceilings.0.iter().map(|c| format!("{} {} GB/s", c.level, short(c.gbytes_per_second))), ", ")
    });
    let peak = sources.peak().map_or(String::new(), |peak| format!("{} GFLOP/s on one core", short(peak)));
    let facts = [
        ("CPU", distinct(all(), |row| row.cpu.clone())),
        ("Cores", distinct(all(), |row| row.cores.map(|cores| cores.to_string()))),
        ("FMA peak, measured", peak),
        ("Copying, measured", ceilings),
        ("Instruction set", distinct(all(), |row| row.isa.clone())),
        ("Threads", distinct(all(), |row| row.threads.map(|threads| threads.to_string()))),
        ("Compiler", distinct(all(), |row| row.rustc.clone())),
        ("Commit", distinct(all(), |row| row.commit.clone())),
        ("Measured on", days),
    ];
    let mut out = String::from("<dl class=\"facts\">");
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = write!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(value));
    }
    out + "</dl>"
}

/// The few numbers on top.
pub(super) fn headline(sources: &Sources<'_>) -> String {
    let mut tiles: Vec<(String, &str)> = Vec::new();
    let fractions: Vec<f64> = sources
        .chosen()
        .filter(|row| row.pass == "fwd")
        .filter_map(|row| positive(row.peak_fraction))
        .collect();
    if !fractions.is_empty() {
        tiles.push((
            format!("{:.0} %", 100.0 * geometric_mean(&fractions)),
            "of the FMA peak, forward, geometric mean of the planner's choices",
        ));
    }
    let labels = [
        "mean regret: how much longer the planner's choice takes than the best",
        "mean regret of a tuned planner",
    ];
    for (tuned, label) in [false, true].into_iter().zip(labels) {
        let regrets = sources.regrets(tuned);
        if !regrets.is_empty() {
            let mean = regrets.iter().sum::<f64>() / regrets.len() as f64;
            tiles.push((format!("{:.1} %", 100.0 * mean), label));
        }
    }
    let ratio = |row: &Record| Some(positive(row.predicted_s)? / positive(row.median_s)?);
    let ratios: Vec<f64> = sources.chosen().filter_map(ratio).collect();
    if !ratios.is_empty() {
        let label = "of the planner's choices predicted within a factor of 1.25 of their time";
        tiles.push((format!("{:.0} %", 100.0 * near(&ratios)), label));
    }
    let best: Vec<f64> = rivals_by_problem(sources).into_values().collect();
    if !best.is_empty() {
        tiles.push((
            format!("{:.2}x", geometric_mean(&best)),
            "time of the best peer over ours, problem by problem, geometric mean",
        ));
    }
    let problems: BTreeSet<&str> = sources.suites().map(|row| row.problem.as_str()).collect();
    if !problems.is_empty() {
        tiles.push((problems.len().to_string(), "problems"));
    }
    if tiles.is_empty() {
        return String::new();
    }
    let mut out = String::from("<div class=\"tiles\">");
    for (number, label) in tiles {
        let _ = write!(out, "<div><b>{}</b><span>{}</span></div>", escape(&number), escape(label));
    }
    out + "</div>"
}

/// The smallest ratio of each problem, pass and layout.
fn rivals_by_problem<'a>(sources: &Sources<'a>) -> BTreeMap<(&'a str, &'a str, &'a str, usize), f64> {
    let mut best = BTreeMap::new();
    for row in sources.peers.iter().filter(|row| is_rival(row)) {
        let Some(ratio) = positive(row.ratio) else { continue };
        let least = best
            .entry((row.problem.as_str(), row.pass.as_str(), row.layout.as_str(), row.threads()))
            .or_insert(ratio);
        *least = ratio.min(*least);
    }
    best
}

/// Header cells; those of numbers sort downwards first.
fn head(out: &mut String, columns: &[(&str, bool)]) {
    out.push_str("<thead><tr>");
    for (name, number) in columns {
        let class = if *number { " class=\"n\"" } else { "" };
        let _ =
            write!(out, "<th scope=\"col\"{class}><button type=\"button\">{}</button></th>", escape(name));
    }
    out.push_str("</tr></thead>");
}

/// A number: what it sorts by, and what is shown.
fn number(out: &mut String, value: Option<f64>, shown: impl Fn(f64) -> String) {
    match finite(value) {
        Some(value) => {
            let _ = write!(out, "<td class=\"n\">{}</td>", escape(&shown(value)));
        }
        None => out.push_str("<td class=\"n\">–</td>"),
    }
}

/// A share of the peak with a bar behind it.
fn share(out: &mut String, value: Option<f64>) {
    match finite(value) {
        Some(value) => {
            let percent = 100.0 * value;
            let _ = write!(
                out,
                "<td class=\"n p\"><i style=\"width:{:.0}%\"></i><span>{percent:.1}</span></td>",
                percent.clamp(0.0, 100.0)
            );
        }
        None => out.push_str("<td class=\"n\">–</td>"),
    }
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.4}", 1e3 * seconds)
}

/// The planner's choices per layout, pass and threads.
pub(super) fn summary(sources: &Sources<'_>) -> String {
    let mut groups: BTreeMap<(bool, usize, &str, &str), Vec<&Record>> = BTreeMap::new();
    for row in sources.chosen() {
        groups.entry((row.tuned(), row.threads(), &row.layout, &row.pass)).or_default().push(row);
    }
    if groups.is_empty() {
        return "<p class=\"absent\">No row is the planner's choice, so there is nothing to sum up.</p>"
            .into();
    }
    let mut out = String::from("<div class=\"scroll\"><table class=\"sort\">");
    let columns = [
        ("Layout, pass", false),
        ("Planned by", false),
        ("Threads", true),
        ("Problems", true),
        ("% of peak, geometric mean", true),
        ("Median", true),
        ("Least", true),
        ("Mean regret %", true),
        ("Worst regret %", true),
    ];
    head(&mut out, &columns);
    out.push_str("<tbody>");
    for ((tuned, threads, layout, pass), rows) in groups {
        let mut fractions: Vec<f64> = rows.iter().filter_map(|row| positive(row.peak_fraction)).collect();
        let regrets: Vec<f64> = rows.iter().filter_map(|row| finite(row.regret)).collect();
        let some = !fractions.is_empty();
        let by = if tuned { "tuning" } else { "estimates" };
        let _ = write!(out, "<tr><th scope=\"row\">{} {}</th><td>{by}</td>", escape(layout), escape(pass));
        number(&mut out, Some(threads as f64), |value| format!("{value:.0}"));
        number(&mut out, Some(rows.len() as f64), |value| format!("{value:.0}"));
        share(&mut out, some.then(|| geometric_mean(&fractions)));
        share(&mut out, median(&mut fractions));
        share(&mut out, fractions.first().copied());
        let mean = (!regrets.is_empty()).then(|| regrets.iter().sum::<f64>() / regrets.len() as f64);
        number(&mut out, mean, |value| format!("{:.1}", 100.0 * value));
        number(&mut out, regrets.iter().copied().reduce(f64::max), |value| format!("{:.1}", 100.0 * value));
        out.push_str("</tr>");
    }
    out + "</tbody></table></div>"
}

/// One table per suite, with every problem.
pub(super) fn suites(sources: &Sources<'_>) -> String {
    if sources.rows.is_empty() {
        return "<p class=\"absent\">There are no rows: run <code>cargo bench --bench report -- --html DIR</code>, or name a file of rows with <code>--from</code>.</p>".into();
    }
    let all = sources.rows.len() <= MOST;
    let mut suites: Vec<(&str, Vec<&Record>)> = Vec::new();
    for row in sources.rows {
        match suites.iter_mut().find(|(name, _)| *name == row.suite()) {
            Some((_, rows)) => rows.push(row),
            None => suites.push((row.suite(), vec![row])),
        }
    }
    let mut out = String::new();
    if !all {
        let _ = write!(
            out,
            "<p class=\"absent\">Of {} rows only the planner's choices are listed, to keep the page small.</p>",
            sources.rows.len()
        );
    }
    for (i, (suite, rows)) in suites.iter().enumerate() {
        let problems: BTreeSet<&str> = rows.iter().map(|row| row.problem.as_str()).collect();
        let open = if i == 0 { " open" } else { "" };
        let _ = write!(
            out,
            "<details{open}><summary><h3>{}</h3><span>{} problems, {} rows</span></summary>",
            escape(suite),
            problems.len(),
            rows.len()
        );
        let chosen: BTreeSet<&str> =
            rows.iter().filter(|row| row.chosen).map(|row| row.problem.as_str()).collect();
        if chosen.len() == problems.len() && all {
            out.push_str(
                "<label class=\"only\"><input type=\"checkbox\" checked> only the planner's choices</label>",
            );
        }
        table(
            &mut out,
            rows.iter().copied().filter(|row| all || row.chosen || !chosen.contains(row.problem.as_str())),
        );
        out.push_str("</details>");
    }
    out
}

fn table<'a>(out: &mut String, rows: impl Iterator<Item = &'a Record>) {
    let columns = [
        ("Problem", false),
        ("Pass", false),
        ("Layout", false),
        ("Threads", true),
        ("Algorithm", false),
        ("Median ms", true),
        ("Spread %", true),
        ("GFLOP/s", true),
        ("% of peak", true),
        ("Error / u S", true),
        ("Workspace MiB", true),
        ("Regret %", true),
    ];
    out.push_str("<div class=\"scroll\"><table class=\"sort\">");
    head(out, &columns);
    out.push_str("<tbody>");
    for row in rows {
        let class = if row.chosen { "" } else { " class=\"other\"" };
        let name = row.title().split_once(':').map_or(row.title(), |(_, layer)| layer);
        let _ = write!(
            out,
            "<tr{class}><th scope=\"row\" title=\"{}\">{}</th><td>{}</td><td>{}</td>",
            escape(&row.problem),
            escape(name),
            escape(&row.pass),
            escape(&row.layout),
        );
        number(out, Some(row.threads() as f64), |value| format!("{value:.0}"));
        let _ = write!(
            out,
            "<td>{}{}</td>",
            escape(&row.algorithm),
            match (row.chosen, row.tuned()) {
                (true, true) => "<b class=\"tick\" title=\"the choice of the tuned planner\"> ✓ tuned</b>",
                (true, false) => "<b class=\"tick\" title=\"the planner's choice\"> ✓</b>",
                (false, _) => "",
            }
        );
        let unsteady = if row.unsteady() { "~" } else { "" };
        number(out, row.median_s, |seconds| format!("{unsteady}{}", milliseconds(seconds)));
        number(out, row.spread, |value| format!("{:.1}", 100.0 * value));
        number(out, row.gflops, |value| format!("{value:.1}"));
        share(out, row.peak_fraction);
        number(out, row.error, |value| format!("{value:.1}"));
        number(out, row.workspace_bytes, |bytes| format!("{:.2}", bytes / f64::from(1 << 20)));
        number(out, row.regret, |value| format!("{:.1}", 100.0 * value));
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
}

/// Problem by problem: ours and every peer, the rows that are lost first.
pub(super) fn peers(sources: &Sources<'_>) -> String {
    type Key<'a> = (&'a str, &'a str, &'a str, usize);
    let mut groups: BTreeMap<Key<'_>, Vec<&Record>> = BTreeMap::new();
    for row in sources.peers {
        groups.entry((&row.problem, &row.pass, &row.layout, row.threads())).or_default().push(row);
    }
    let names: BTreeSet<&str> =
        sources.peers.iter().filter(|row| is_rival(row)).map(|row| row.algorithm.as_str()).collect();
    if names.is_empty() {
        return String::new();
    }
    let least = rivals_by_problem(sources);
    let of = |key: &Key<'_>| least.get(key).copied().unwrap_or(f64::INFINITY);
    let mut order: Vec<_> = groups.iter().collect();
    order.sort_by(|a, b| of(a.0).total_cmp(&of(b.0)));
    let lost = order.iter().filter(|(key, _)| of(key) < 1.0).count();
    let mut out = format!(
        "<details><summary><h3>Peers, problem by problem</h3><span>{} comparisons, {lost} lost to some peer</span></summary>\
         <p class=\"note\">Time of the peer over ours; <b class=\"lost\">▼ below 1</b> the peer is faster.</p><div class=\"scroll\"><table class=\"sort\">",
        order.len()
    );
    let mut columns =
        vec![("Problem", false), ("Pass", false), ("Layout", false), ("Ours, ms", true), ("% of peak", true)];
    columns.extend(names.iter().map(|name| (*name, true)));
    head(&mut out, &columns);
    out.push_str("<tbody>");
    for (key, rows) in order {
        let ours = rows.iter().find(|row| !is_rival(row));
        let class = if of(key) < 1.0 { " class=\"losing\"" } else { "" };
        let _ = write!(
            out,
            "<tr{class}><th scope=\"row\" title=\"{}\">{}</th><td>{}</td><td>{}</td>",
            escape(key.0),
            escape(rows[0].title()),
            escape(key.1),
            escape(key.2),
        );
        number(&mut out, ours.and_then(|row| row.median_s), milliseconds);
        share(&mut out, ours.and_then(|row| row.peak_fraction));
        for name in &names {
            let ratio = rows.iter().find(|row| row.algorithm == *name).and_then(|row| positive(row.ratio));
            match ratio {
                Some(ratio) if ratio < 1.0 => {
                    let _ = write!(out, "<td class=\"n lost\">▼ {ratio:.2}</td>");
                }
                ratio => number(&mut out, ratio, |ratio| format!("{ratio:.2}")),
            }
        }
        out.push_str("</tr>");
    }
    out + "</tbody></table></div></details>"
}
