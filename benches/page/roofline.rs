//! The roofline: GFLOP/s over floating-point operations per byte, below the peak and the bandwidths.

use super::plot::{Anchor, Scale, Svg, legend, look, short};
use super::{Ceiling, Ceilings, Figure, Sources};
use crate::record::{Record, positive};

const WIDTH: f64 = 720.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 704.0;

/// What the name of a line takes beside it.
const NAME: f64 = 18.0;

/// Of more rows only the planner's choices are drawn.
const MOST: usize = 2500;

/// The fewest threads that there are rows of; with the ceilings of one core times as many.
pub fn figure(sources: &Sources<'_>) -> Figure {
    let id = "roofline";
    let title = "Roofline";
    let threads = sources.rows.iter().map(Record::threads).min().unwrap_or(1);
    let many = sources.rows.len() > MOST;
    let points: Vec<(f64, f64, &Record)> = sources
        .suites()
        .filter(|row| !many || row.chosen)
        .filter(|row| row.threads() == threads)
        .filter_map(|row| Some((row.intensity()?, positive(row.gflops)?, row)))
        .collect();
    if points.is_empty() {
        return Figure::absent(
            id,
            title,
            "Rows with a problem and GFLOP/s draw the roofline: run the report, or name a file of its rows with --from.",
        );
    }
    let svg = draw(&points, threads, sources.peak(), sources.ceilings);
    let bandwidths = match sources.ceilings {
        Some(_) if threads > 1 => {
            "The slanted lines are the bandwidths of copying within L1 and L2, bytes read plus bytes written, measured on one core when this page was made, times the threads; L3 and memory are shared."
        }
        Some(_) => {
            "The slanted lines are the bandwidths of copying within L1, L2, L3 and memory, bytes read plus bytes written, measured when this page was made."
        }
        None => {
            "The bandwidth ceilings are missing: they are measured when the page is made on the machine of the rows."
        }
    };
    let caption = format!(
        "Floating-point operations per second over operations per byte of the operands, each touched once; {threads} thread{}. \
         Full marks are the planner's choices, pale ones the other candidates. {bandwidths} \
         Transforms do fewer multiplications than are counted, so Winograd may pass the peak.",
        if threads == 1 { "" } else { "s" }
    );
    Figure::drawn(id, title, &caption, svg)
}

fn draw(
    points: &[(f64, f64, &Record)],
    threads: usize,
    peak: Option<f64>,
    ceilings: Option<&Ceilings>,
) -> Svg {
    let extent = |f: fn(&(f64, f64, &Record)) -> f64| {
        points.iter().map(f).fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)))
    };
    let ((x0, x1), (y0, y1)) = (extent(|p| p.0), extent(|p| p.1));
    let peak = peak.map(|peak| peak * threads as f64);
    let mut names: Vec<&str> = points.iter().map(|(_, _, row)| row.algorithm.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let items: Vec<_> = names.iter().map(|name| (look(name), (*name).to_owned())).collect();
    let mut svg = Svg::new(WIDTH, 500.0, "Roofline of all measured algorithms");
    let top = legend(&mut svg, [LEFT, 14.0], RIGHT, &items) + 12.0;
    let bottom = 446.0;
    // A decade below nearly all points: single slow ones stand on the edge.
    let mut sorted: Vec<f64> = points.iter().map(|point| point.1).collect();
    sorted.sort_by(f64::total_cmp);
    let low = sorted[sorted.len() / 50].max(y0) / 1.5;
    let roof = peak.unwrap_or(y1 * 1.2);
    // So far to the left that every bandwidth meets the roof within the picture.
    let widest = ceilings.iter().flat_map(|ceilings| &ceilings.0);
    let widest = widest.filter_map(|ceiling| positive(Some(ceiling.gbytes_per_second))).fold(0.0, f64::max);
    let ridge = if widest > 0.0 { roof / (widest * threads as f64) } else { x0 };
    let (left, right) = ((x0 / 1.6).min(ridge / 8.0), x1 * 1.3);
    let x = Scale::log(left, right, [LEFT, RIGHT]);
    let y = Scale::log(low, y1.max(peak.unwrap_or(0.0)) * 1.45, [bottom, top]);
    svg.left_axis(&y, [LEFT, RIGHT], short);
    svg.bottom_axis(&x, [top, bottom], "FLOP per byte of the operands", short);
    svg.text([LEFT - 44.0, top - 6.0], Anchor::Start, "s", "GFLOP/s");
    for chosen in [false, true] {
        for (intensity, gflops, row) in points.iter().filter(|(_, _, row)| row.chosen == chosen) {
            let hint = format!(
                "{} {} {} by {}: {} GFLOP/s",
                row.pass,
                row.layout,
                row.title(),
                row.algorithm,
                short(*gflops)
            );
            let mut look = look(&row.algorithm);
            if !chosen {
                look.size *= 0.75;
            }
            svg.mark([x.at(*intensity), y.at(*gflops)], look, !chosen, &hint);
        }
    }
    if let Some(peak) = peak {
        svg.line([LEFT, y.at(peak)], [RIGHT, y.at(peak)], "ceil");
        let text = format!("FMA peak {} GFLOP/s", short(peak));
        svg.text([LEFT + 6.0, y.at(peak) - 8.0], Anchor::Start, "b halo", &text);
    }
    let reached = |ceiling: &Ceiling| {
        let cores = match ceiling.level {
            "L1" | "L2" => threads as f64,
            // Cores share it: one core says nothing of several.
            _ if threads > 1 => return None,
            _ => 1.0,
        };
        Some((ceiling.level.to_owned(), positive(Some(ceiling.gbytes_per_second * cores))?))
    };
    let mut lines: Vec<_> = ceilings.iter().flat_map(|ceilings| &ceilings.0).filter_map(reached).collect();
    // On a busy machine L2 may have been slower than L3.
    lines.sort_by(|a, b| b.1.total_cmp(&a.1));
    lines.dedup_by(|(next, gbytes), (names, before)| {
        // As fast as the one before: one line and one name for both.
        let same = *gbytes > 0.9 * *before;
        if same {
            *names = format!("{names}, {next}");
        }
        same
    });
    // From where each comes into the picture to where it meets the roof.
    let ends = |gbytes: f64| {
        let (begin, end) = ((low / gbytes).max(left), (roof / gbytes).min(right));
        (begin < end).then(|| [begin, end].map(|intensity| [x.at(intensity), y.at(intensity * gbytes)]))
    };
    let lines: Vec<_> =
        lines.into_iter().filter_map(|(names, gbytes)| Some((names, gbytes, ends(gbytes)?))).collect();
    lines.iter().for_each(|(.., ends)| svg.path(ends, "ceil"));
    // They are parallel, so a name along its line meets no other line where there is room beside it: above, else below.
    let (mut above, mut below) = (f64::INFINITY, false);
    for (i, (names, gbytes, [from, to])) in lines.iter().enumerate() {
        let slope = (to[1] - from[1]).atan2(to[0] - from[0]);
        let next = lines.get(i + 1).map_or(f64::INFINITY, |(.., [[x, y], _])| {
            ((x - from[0]) * slope.sin() - (y - from[1]) * slope.cos()).abs()
        });
        if below {
            above -= NAME;
        }
        below = above < NAME && next >= NAME;
        above = next;
        // Where there is no room on either side, it is at least not beside the name of its neighbour.
        let part = if i % 2 == 0 { 0.6 } else { 0.3 };
        let beside = if below { NAME - 4.0 } else { -5.0 };
        let at = [
            from[0] + part * (to[0] - from[0]) - beside * slope.sin(),
            from[1] + part * (to[1] - from[1]) + beside * slope.cos(),
        ];
        svg.text_turned(at, slope.to_degrees(), "s halo", &format!("{names} {} GB/s", short(*gbytes)));
    }
    svg
}
