//! A strip per group: one mark per value, the middle of them, and a line that values are compared with.

use super::plot::{Anchor, Look, Scale, Svg};

/// A group.
#[derive(Clone, Debug)]
pub struct Strip {
    /// What it is of.
    pub label: String,
    /// Values with what a pointer over them shows.
    pub values: Vec<(f64, String)>,
    /// Where the bar stands.
    pub middle: Option<f64>,
    /// What stands on the right.
    pub note: String,
    /// Marks of the values.
    pub look: Look,
}

/// What all strips share.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    /// For those who do not see it.
    pub title: &'a str,
    /// Below the axis.
    pub axis: &'a str,
    /// Above the notes.
    pub notes: &'a str,
    /// Whether the axis is logarithmic.
    pub log: bool,
    /// The axis reaches at least from there to there.
    pub range: [f64; 2],
    /// A line, and its name.
    pub reference: Option<(f64, &'a str)>,
    /// Whether what is left of the line is bad: shaded, and its marks are of another colour and shape.
    pub left_is_bad: bool,
}

const WIDTH: f64 = 720.0;
const LEFT: f64 = 236.0;
const RIGHT: f64 = 612.0;
const ROW: f64 = 26.0;

/// Marks of a strip, at most: more cannot be told apart.
const MARKS: usize = 240;

/// The finite values; of too many, every n-th in order, and both ends.
fn thin(values: &[(f64, String)]) -> Vec<&(f64, String)> {
    let mut finite: Vec<_> = values.iter().filter(|(value, _)| value.is_finite()).collect();
    finite.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (step, last) = (finite.len().div_ceil(MARKS).max(1), finite.len().saturating_sub(1));
    finite
        .into_iter()
        .enumerate()
        .filter(|(i, _)| i % step == 0 || *i == last)
        .map(|(_, value)| value)
        .collect()
}

/// Draws them. Values that are not finite are left out; on a logarithmic axis, zero stands at the left end.
pub fn draw(frame: &Frame<'_>, strips: &[Strip]) -> Svg {
    let all = || strips.iter().flat_map(|strip| &strip.values).map(|(value, _)| *value);
    let kept = all().filter(|value| value.is_finite() && (!frame.log || *value > 0.0));
    let (low, high) =
        kept.fold((frame.range[0], frame.range[1]), |(low, high), value| (low.min(value), high.max(value)));
    let top = 34.0;
    let bottom = top + ROW * strips.len() as f64 + 4.0;
    let x = match frame.log {
        true => Scale::log(low / 1.04, high * 1.04, [LEFT, RIGHT]),
        false => Scale::linear(low, high * 1.02, [LEFT, RIGHT]),
    };
    let mut svg = Svg::new(WIDTH, bottom + 48.0, frame.title);
    if let (true, Some((at, _))) = (frame.left_is_bad, frame.reference) {
        svg.rect([LEFT, top], [x.at(at) - LEFT, bottom - top], "lose", "", "");
    }
    svg.bottom_axis(&x, [top, bottom], frame.axis, super::plot::short);
    if let Some((at, name)) = frame.reference {
        svg.line([x.at(at), top - 6.0], [x.at(at), bottom], "ceil");
        svg.text([x.at(at), top - 12.0], Anchor::Middle, "s", name);
    }
    svg.text([WIDTH - 4.0, top - 12.0], Anchor::End, "s", frame.notes);
    for (i, strip) in strips.iter().enumerate() {
        let y = top + ROW * (i as f64 + 0.5) + 2.0;
        svg.text([LEFT - 12.0, y + 4.5], Anchor::End, "", &strip.label);
        for (j, (value, hint)) in thin(&strip.values).into_iter().enumerate() {
            let bad = frame.left_is_bad && frame.reference.is_some_and(|(at, _)| *value < at);
            let look = if bad { Look { colour: 'b', shape: 3, size: 4.4 } } else { strip.look };
            // Marks of equal values do not hide each other: a fixed pattern of small offsets.
            let lift = [0.0, -4.0, 4.0, -7.0, 7.0, -2.0, 2.0][j % 7];
            svg.mark([x.at(*value), y + lift], Look { size: look.size * 0.85, ..look }, false, hint);
        }
        if let Some(middle) = strip.middle.filter(|middle| middle.is_finite()) {
            svg.line([x.at(middle), y - 11.0], [x.at(middle), y + 11.0], "mean");
        }
        svg.text([WIDTH - 4.0, y + 4.5], Anchor::End, "b", &strip.note);
    }
    svg
}
