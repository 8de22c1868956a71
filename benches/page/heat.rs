//! The heat map: % of peak over channels and image, with borders where the planner's choice changes.

use super::plot::{Anchor, Svg};
use super::{Figure, Sources};
use crate::record::{Record, SWEEP, finite};
use crate::sample::median;
use std::collections::{BTreeMap, BTreeSet};

/// Cividis, which looks the same with every common colour blindness, at ten places.
const COLOURS: [&str; 10] = [
    "#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55",
    "#fee838",
];

/// The most that has a colour of its own. F(4x4, 3x3) saves three of four multiplications; its transforms leave less than 300 % of that.
const MOST: f64 = 3.0;
/// Where the peak itself stands on the scale: what is below it gets more of the colours than what transforms save.
const PEAK_AT: f64 = 0.6;

/// The place on the scale, from 0 to 1.
fn place(fraction: f64) -> f64 {
    let beyond = ((fraction - 1.0) / (MOST - 1.0)).clamp(0.0, 1.0);
    PEAK_AT * fraction.clamp(0.0, 1.0) + (1.0 - PEAK_AT) * beyond
}

/// The colour at a place, mixed of its neighbours.
fn colour(place: f64) -> String {
    let at = place * (COLOURS.len() - 1) as f64;
    let low = (at as usize).min(COLOURS.len() - 2);
    let channels = [1, 3, 5].map(|i| {
        let of = |colour: &str| f64::from(u8::from_str_radix(&colour[i..i + 2], 16).unwrap_or(0));
        let [a, b] = [COLOURS[low], COLOURS[low + 1]].map(of);
        (a + (at - low as f64) * (b - a)).round() as u8
    });
    let [red, green, blue] = channels;
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Rows, columns, panels.
struct Panel<'a> {
    label: String,
    cells: BTreeMap<(usize, usize), (f64, &'a str)>,
}

/// Forward and backward of dense 3x3 convolutions with stride 1: of the sweep if there is one, else of the suites.
pub fn figure(sources: &Sources<'_>) -> Figure {
    let (id, title) = ("heat", "% of peak over channels and image");
    let how = "A live run with --html sweeps channels and images for a few seconds and draws this map; rows of dense 3x3 \
               convolutions with stride 1 draw a sparse one.";
    let threads = sources.rows.iter().map(Record::threads).min().unwrap_or(1);
    let of = |sweep: bool| {
        panels(sources.rows.iter().filter(|row| row.threads() == threads && (row.suite() == SWEEP) == sweep))
    };
    let (swept, panels) = match of(true) {
        panels if panels.is_empty() => (false, of(false)),
        panels => (true, panels),
    };
    if panels.is_empty() {
        return Figure::absent(id, title, how);
    }
    let caption = format!(
        "Dense 3x3 convolutions with stride 1, as many channels in as out (else the mean), batch 1 in the sweep; {threads} thread{}. A cell is the median of \
         its rows; the thick borders are where the planner changes its algorithm, whose name is in the cell, that of \
         Winograd's by its tiles alone.{}",
        if threads == 1 { "" } else { "s" },
        if swept {
            ""
        } else {
            " These are the suites' own layers; a live run with --html sweeps the whole grid."
        },
    );
    Figure::drawn(id, title, &caption, draw(&panels))
}

fn panels<'a>(rows: impl Iterator<Item = &'a Record>) -> Vec<Panel<'a>> {
    type Cells<'a> = BTreeMap<(usize, usize), Vec<(f64, &'a str)>>;
    let mut groups: BTreeMap<(u8, String), Cells<'a>> = BTreeMap::new();
    for row in rows.filter(|row| row.chosen) {
        let (Some(fraction), Some(geometry)) = (finite(row.peak_fraction), row.geometry()) else { continue };
        let conv = geometry.conv();
        if conv.kernel != [3, 3] || conv.stride != [1, 1] || conv.groups != 1 {
            continue;
        }
        let channels = ((conv.in_channels * conv.out_channels) as f64).sqrt().log2().round() as u32;
        let cell = (1usize << channels, conv.input[0]);
        let order = ["fwd", "bwd_d", "bwd_w"].iter().position(|pass| *pass == row.pass).unwrap_or(3) as u8;
        let label = format!("{} {}", row.layout, row.pass);
        groups
            .entry((order, label))
            .or_default()
            .entry(cell)
            .or_default()
            .push((fraction, row.algorithm.as_str()));
    }
    let panel = |((_, label), cells): ((u8, String), Cells<'a>)| {
        let cells = cells.into_iter().filter_map(|(cell, rows)| {
            let algorithm = rows[0].1;
            Some((cell, (median(&mut rows.iter().map(|row| row.0).collect::<Vec<_>>())?, algorithm)))
        });
        Panel { label, cells: cells.collect() }
    };
    groups.into_iter().map(panel).filter(|panel| !panel.cells.is_empty()).collect()
}

fn draw(panels: &[Panel<'_>]) -> Svg {
    let axis = |f: fn(&(usize, usize)) -> usize| -> Vec<usize> {
        let values: BTreeSet<usize> = panels.iter().flat_map(|panel| panel.cells.keys().map(f)).collect();
        values.into_iter().collect()
    };
    let (channels, images) = (axis(|cell| cell.0), axis(|cell| cell.1));
    let per_row = if images.len() > 8 { 1 } else { 2.min(panels.len()) };
    let gap = 54.0;
    let room = (720.0 - gap * per_row as f64) / per_row as f64;
    let (w, h) = ((room / images.len() as f64).min(78.0), 38.0);
    let (panel_w, panel_h) = (gap + w * images.len() as f64, h * channels.len() as f64 + 76.0);
    let lines = panels.len().div_ceil(per_row);
    let mut svg =
        Svg::new(720.0, panel_h * lines as f64 + 40.0, "Heat map of % of peak over channels and image");
    for (i, panel) in panels.iter().enumerate() {
        let (left, top) = (gap + (i % per_row) as f64 * panel_w, 28.0 + (i / per_row) as f64 * panel_h);
        svg.text([left, top - 10.0], Anchor::Start, "b", &panel.label);
        svg.text([left - 8.0, top - 10.0], Anchor::End, "s", "chan.");
        // Few channels below, many above, as on any other axis.
        let corner = |r: usize, c: usize| [left + w * c as f64, top + h * (channels.len() - 1 - r) as f64];
        let cell = |r: usize, c: usize| panel.cells.get(&(*channels.get(r)?, *images.get(c)?)).copied();
        for (r, channel) in channels.iter().enumerate() {
            svg.text([left - 8.0, corner(r, 0)[1] + h / 2.0 + 4.0], Anchor::End, "s", &channel.to_string());
            for (c, image) in images.iter().enumerate() {
                let [x, y] = corner(r, c);
                let Some((fraction, algorithm)) = cell(r, c) else {
                    svg.rect([x + 1.0, y + 1.0], [w - 2.0, h - 2.0], "none", "", "");
                    continue;
                };
                let shade = place(fraction);
                let hint =
                    format!("{channel} channels, {image} pixels: {:.0} % by {algorithm}", 100.0 * fraction);
                svg.rect([x + 0.5, y + 0.5], [w - 1.0, h - 1.0], "", &colour(shade), &hint);
                let class = if shade < 0.5 { "b onDark" } else { "b onLight" };
                svg.text([x + w / 2.0, y + 17.0], Anchor::Middle, class, &format!("{:.0}", 100.0 * fraction));
                let class = if shade < 0.5 { "onDark" } else { "onLight" };
                svg.text_within(
                    [x + w / 2.0, y + 30.0],
                    w - 8.0,
                    class,
                    algorithm.trim_start_matches("winograd-"),
                );
            }
        }
        for r in 0..channels.len() {
            for c in 0..images.len() {
                let differ = |other: Option<(f64, &str)>| matches!((cell(r, c), other), (Some(a), Some(b)) if a.1 != b.1);
                let [x, y] = corner(r, c);
                if differ(cell(r, c + 1)) {
                    svg.line([x + w, y], [x + w, y + h], "rim");
                    svg.line([x + w, y], [x + w, y + h], "border");
                }
                if differ(cell(r + 1, c)) {
                    svg.line([x, y], [x + w, y], "rim");
                    svg.line([x, y], [x + w, y], "border");
                }
            }
        }
        let bottom = top + h * channels.len() as f64;
        for (c, image) in images.iter().enumerate() {
            svg.text([corner(0, c)[0] + w / 2.0, bottom + 17.0], Anchor::Middle, "s", &image.to_string());
        }
        svg.text(
            [left + w * images.len() as f64 / 2.0, bottom + 34.0],
            Anchor::Middle,
            "s",
            "image, pixels on a side",
        );
    }
    let y = panel_h * lines as f64 + 4.0;
    let (width, steps) = (420.0, 60);
    for i in 0..steps {
        let shade = (f64::from(i) + 0.5) / f64::from(steps);
        // Neighbours overlap, so that no gap shows between them.
        svg.rect(
            [gap + width * f64::from(i) / f64::from(steps), y],
            [width / f64::from(steps) + 1.0, 10.0],
            "",
            &colour(shade),
            "",
        );
    }
    for fraction in [0.0, 0.5, 1.0, 2.0, MOST] {
        let x = gap + width * place(fraction);
        svg.line([x, y + 10.0], [x, y + 14.0], "axis");
        svg.text([x, y + 27.0], Anchor::Middle, "s", &format!("{:.0} %", 100.0 * fraction));
    }
    svg.text([gap + width + 26.0, y + 10.0], Anchor::Start, "s", "of peak; transforms save");
    svg.text([gap + width + 26.0, y + 25.0], Anchor::Start, "s", "work that is counted");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_reaches_beyond_the_peak() {
        let shades = [-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 99.0].map(place);
        assert_eq!(shades.map(|shade| (100.0 * shade).round()), [0.0, 0.0, 30.0, 60.0, 80.0, 100.0, 100.0]);
        assert_eq!([0.0, 1.0].map(colour), [COLOURS[0], COLOURS[9]]);
        assert_eq!(colour(place(f64::NAN)).len(), 7);
    }
}
