//! Strips and the histogram: peers, threads, errors, regret.

use super::plot::{Anchor, Look, Scale, Svg, look, short};
use super::strip::{Frame, Strip, draw};
use super::{Figure, Sources};
use crate::record::{Record, finite, positive};
use crate::sample::median;
use crate::summary::geometric_mean;
use std::collections::BTreeMap;

const PLAIN: Look = Look { colour: '0', shape: 0, size: 4.2 };

fn hint(row: &Record) -> String {
    format!("{} {} {}", row.pass, row.layout, row.title())
}

/// `fwd` before the gradients.
fn order(pass: &str) -> usize {
    ["fwd", "bwd_d", "bwd_w"].iter().position(|other| *other == pass).unwrap_or(3)
}

/// Time of every peer over ours.
pub fn peers(sources: &Sources<'_>) -> Figure {
    let (id, title) = ("peers", "Beside other libraries");
    let mut groups: BTreeMap<(usize, &str, &str), Vec<&Record>> = BTreeMap::new();
    for row in sources.peers.iter().filter(|row| is_rival(row) && positive(row.ratio).is_some()) {
        groups.entry((order(&row.pass), &row.layout, &row.algorithm)).or_default().push(row);
    }
    if groups.is_empty() {
        let how = "Rows of the peers draw this figure: `cargo bench --bench peers -- --json PEERS.json`, then --peers PEERS.json.";
        return Figure::absent(id, title, how);
    }
    let mut losing = 0;
    let strips: Vec<Strip> = groups
        .iter()
        .map(|((_, layout, peer), rows)| {
            let ratios: Vec<f64> = rows.iter().filter_map(|row| positive(row.ratio)).collect();
            let lost = ratios.iter().filter(|ratio| **ratio < 1.0).count();
            losing += lost;
            let mean = geometric_mean(&ratios);
            Strip {
                label: format!("{} {layout} {}", rows[0].pass, peer_name(peer)),
                values: rows
                    .iter()
                    .filter_map(|row| {
                        Some((positive(row.ratio)?, format!("{}: {:.2}", hint(row), row.ratio?)))
                    })
                    .collect(),
                middle: Some(mean),
                note: format!("{mean:.2}x  {lost}/{}", ratios.len()),
                look: PLAIN,
            }
        })
        .collect();
    let frame = Frame {
        title: "Time of other libraries over ours",
        axis: "time of the peer over ours, logarithmic",
        notes: "mean, lost",
        log: true,
        range: [0.5, 2.0],
        reference: Some((1.0, "equal")),
        left_is_bad: true,
    };
    let caption = format!(
        "One mark per problem: right of the line this library is faster, left of it, in the shaded area and as diamonds, the peer is: {losing} of {} \
         rows. Bars are geometric means. Every row is in the table below, the losing ones first.",
        strips.iter().map(|strip| strip.values.len()).sum::<usize>(),
    );
    Figure::drawn(id, title, &caption, draw(&frame, &strips))
}

fn peer_name(peer: &str) -> String {
    peer.replace(" layout", "").replace("im2col-", "")
}

/// Rows of others: ours has no ratio but 1, and is called so.
pub fn is_rival(row: &Record) -> bool {
    row.algorithm != "convolve" && row.peer.as_deref() != Some("convolve")
}

/// Speed of more threads over one. Tuned and untuned choices may be of different algorithms, so each is compared with its like.
pub fn threads(sources: &Sources<'_>) -> Figure {
    let (id, title) = ("threads", "Scaling with threads");
    let chosen = || sources.rows.iter().filter(|row| row.chosen && positive(row.median_s).is_some());
    let key = |row: &Record| {
        let Record { problem, pass, layout, isa, accuracy, .. } = row.clone();
        (problem, pass, layout, isa, accuracy, row.tuned())
    };
    let one: BTreeMap<_, f64> =
        chosen().filter(|row| row.threads() == 1).filter_map(|row| Some((key(row), row.median_s?))).collect();
    type Values = Vec<(f64, String)>;
    let mut groups: BTreeMap<(usize, bool, usize, &str), Values> = BTreeMap::new();
    for row in chosen().filter(|row| row.threads() > 1) {
        let (Some(single), Some(median)) = (one.get(&key(row)), positive(row.median_s)) else { continue };
        let speed = single / median;
        let group = groups.entry((row.threads(), row.tuned(), order(&row.pass), &row.layout)).or_default();
        group.push((speed, format!("{}: {speed:.2} times as fast", hint(row))));
    }
    let Some(most) = groups.keys().map(|key| key.0).max() else {
        let how = "Rows of the same problems with one and with more threads draw this figure: run the report with --threads 1 and \
                   --threads 2, each with --json, and name both files with --from.";
        return Figure::absent(id, title, how);
    };
    let strips: Vec<Strip> = groups
        .into_iter()
        .map(|((threads, tuned, pass, layout), values)| {
            let mut speeds: Vec<f64> = values.iter().map(|value| value.0).collect();
            let middle = median(&mut speeds);
            let pass = ["fwd", "bwd_d", "bwd_w", "other"][pass];
            Strip {
                label: format!("{pass} {layout}, {threads} threads{}", if tuned { ", tuned" } else { "" }),
                values,
                middle,
                note: middle.map_or(String::new(), |middle| format!("{middle:.2}x")),
                look: PLAIN,
            }
        })
        .collect();
    let ideal = format!("{most} threads, ideal");
    let frame = Frame {
        title: "Speed with more threads over one",
        axis: "speed over that of one thread",
        notes: "median",
        log: false,
        range: [0.0, most as f64 * 1.1],
        reference: Some((most as f64, &ideal)),
        left_is_bad: false,
    };
    let caption = "One mark per problem, by the planner's choice for that many threads; bars are medians. What was tuned is compared with what \
                   was tuned, estimates with estimates.";
    Figure::drawn(id, title, caption, draw(&frame, &strips))
}

/// The worst error of each row by algorithm.
pub fn errors(sources: &Sources<'_>) -> Figure {
    let (id, title) = ("errors", "Error by algorithm");
    let mut groups: BTreeMap<&str, Vec<(f64, String)>> = BTreeMap::new();
    for row in sources.rows {
        let Some(error) = finite(row.error) else { continue };
        groups.entry(&row.algorithm).or_default().push((error, format!("{}: {}", hint(row), short(error))));
    }
    if groups.is_empty() {
        let how =
            "Rows with an error draw this figure: the report compares a sample of every result with f64.";
        return Figure::absent(id, title, how);
    }
    let strips: Vec<Strip> = groups
        .into_iter()
        .map(|(algorithm, values)| {
            let worst = values.iter().map(|value| value.0).fold(0.0, f64::max);
            Strip {
                label: algorithm.into(),
                middle: median(&mut values.iter().map(|value| value.0).collect::<Vec<_>>()),
                values,
                note: short(worst),
                look: look(algorithm),
            }
        })
        .collect();
    let frame = Frame {
        title: "Error of each algorithm",
        axis: "worst |error| / (u S) of a row, logarithmic",
        notes: "worst",
        log: true,
        range: [0.5, 10.0],
        reference: Some((1.0, "1 u S")),
        left_is_bad: false,
    };
    let caption = "u = 2^-24 is half a unit in the last place of 1, S the sum of the absolute products of an element: 1 is the error of \
                   rounding once at the size of S. One mark per row; bars are medians, zero stands at the left end.";
    Figure::drawn(id, title, caption, draw(&frame, &strips))
}

/// Upper ends of the bins, in per cent.
const BINS: [f64; 8] = [0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, f64::INFINITY];
const NAMES: [&str; 8] = ["best", "< 1 %", "1–2 %", "2–5 %", "5–10 %", "10–20 %", "20–50 %", "> 50 %"];

/// How often the planner was how wrong.
pub fn regret(sources: &Sources<'_>) -> Figure {
    let (id, title) = ("regret", "Regret of the planner");
    let [mut regrets, mut tuned] = [false, true].map(|tuned| sources.regrets(tuned));
    if regrets.is_empty() {
        core::mem::swap(&mut regrets, &mut tuned);
    }
    let Some(said) = spoken(&mut regrets) else {
        let how = "Rows with a regret draw this figure: run the report without --algorithm, so that every algorithm is measured.";
        return Figure::absent(id, title, how);
    };
    let mut counts = [0usize; BINS.len()];
    for regret in &regrets {
        counts[BINS.iter().position(|bin| 100.0 * regret <= *bin).unwrap_or(0)] += 1;
    }
    let mut svg = Svg::new(720.0, 300.0, "Histogram of the regret of the planner's choices");
    let (left, right, top, bottom) = (52.0, 704.0, 34.0, 252.0);
    let most = counts.iter().max().copied().unwrap_or(1).max(1) as f64;
    let y = Scale::linear(0.0, most * 1.1, [bottom, top]);
    svg.left_axis(&y, [left, right], short);
    svg.text([left - 44.0, top - 14.0], Anchor::Start, "s", "choices");
    let step = (right - left) / counts.len() as f64;
    for (i, (&count, name)) in counts.iter().zip(NAMES).enumerate() {
        let (x, h) = (left + step * i as f64, bottom - y.at(count as f64));
        let class = if BINS[i] > 20.0 { "badbar" } else { "bar" };
        svg.rect([x + 7.0, bottom - h], [step - 14.0, h], class, "", &format!("{name}: {count}"));
        if count > 0 {
            let share = format!("{count} ({:.0} %)", 100.0 * count as f64 / regrets.len() as f64);
            svg.text([x + step / 2.0, bottom - h - 6.0], Anchor::Middle, "b halo", &share);
        }
        svg.text([x + step / 2.0, bottom + 18.0], Anchor::Middle, "s", name);
    }
    svg.line([left, bottom], [right, bottom], "axis");
    svg.text([(left + right) / 2.0, bottom + 40.0], Anchor::Middle, "s", "longer than the fastest algorithm");
    let caption = format!(
        "How much longer the planner's choice takes than the fastest algorithm in the table, over {said}.{}",
        spoken(&mut tuned)
            .map_or(String::new(), |said| format!(" Of a tuned planner, which is not drawn, over {said}.")),
    );
    Figure::drawn(id, title, &caption, svg)
}

/// How many regrets, and how large.
fn spoken(regrets: &mut [f64]) -> Option<String> {
    let middle = median(regrets)?;
    let mean = regrets.iter().sum::<f64>() / regrets.len() as f64;
    let worst = regrets.last().copied().unwrap_or(0.0);
    let [middle, mean, worst] = [middle, mean, worst].map(|regret| 100.0 * regret);
    Some(format!("{} choices: median {middle:.1} %, mean {mean:.1} %, worst {worst:.1} %", regrets.len()))
}
