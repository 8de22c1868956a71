//! Drawing: escaped text, scales with ticks, and an SVG that stands alone or inside of the page.

use crate::case::algorithms;
use core::fmt::{Display, Write};

/// Text as HTML and SVG want it. Control characters, which XML forbids, become blanks.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter if letter.is_control() => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

/// Three significant digits at most, without zeros at the end.
pub fn short(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let digits = match value.abs() {
        size if size >= 99.95 || size == 0.0 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        size => (2 - size.log10().floor() as i32).clamp(2, 12) as usize,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

/// From values to pixels.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    log: bool,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// From 0 (or less) to `high`.
    pub fn linear(low: f64, high: f64, [from, to]: [f64; 2]) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self { log: false, low, high, from, to }
    }

    /// Logarithmic; both ends are positive.
    pub fn log(low: f64, high: f64, [from, to]: [f64; 2]) -> Self {
        let low = low.max(1e-12);
        let high = if high > low * 1.01 { high } else { low * 2.0 };
        Self { log: true, low, high, from, to }
    }

    /// The pixel of a value; values outside are put on the edge.
    pub fn at(&self, value: f64) -> f64 {
        let part = match self.log {
            true => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        let part = if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) };
        self.from + part * (self.to - self.from)
    }

    /// Round values, at most about `most`.
    pub fn ticks(&self, most: usize) -> Vec<f64> {
        if self.log {
            for steps in [&[1.0, 2.0, 5.0][..], &[1.0, 3.0], &[1.0]] {
                let ticks = self.decades(steps);
                if ticks.len() <= most {
                    return ticks;
                }
            }
            let ticks = self.decades(&[1.0]);
            let stride = ticks.len().div_ceil(most.max(1));
            return ticks.into_iter().step_by(stride).collect();
        }
        let raw = (self.high - self.low) / most.max(1) as f64;
        let unit = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * unit).find(|step| *step >= raw * 0.999);
        let step = step.unwrap_or(10.0 * unit);
        let first = (self.low / step).ceil();
        (0..=most + 1).map(|i| (first + i as f64) * step).take_while(|t| *t <= self.high * 1.0001).collect()
    }

    fn decades(&self, steps: &[f64]) -> Vec<f64> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let all =
            (first..=last).flat_map(|exponent| steps.iter().map(move |step| step * 10f64.powi(exponent)));
        all.filter(|tick| (self.low * 0.999..=self.high * 1.001).contains(tick)).collect()
    }
}

/// Where a text stands.
#[derive(Clone, Copy, Debug)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

/// A drawing, in units that are pixels when it is shown at its own width.
#[derive(Clone, Debug)]
pub struct Svg {
    width: f64,
    height: f64,
    title: String,
    body: String,
}

/// Names of the colours, as variables of the page.
const NAMES: [&str; 13] =
    ["ink", "soft", "rule", "paper", "bad", "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7"];
/// On white. The hues of marks are those of Okabe and Ito, told apart with every common colour blindness; algorithms also differ by the shape of their mark.
const LIGHT: [&str; 13] = [
    "#1c2430", "#5b6675", "#dfe3e8", "#fff", "#c2410c", "#0072b2", "#d55e00", "#009e73", "#b0568c",
    "#c98a00", "#3a9bd6", "#6b7280", "#7c5cbf",
];
/// On black.
const DARK: [&str; 13] = [
    "#e6e9ee", "#9aa5b4", "#2e3642", "#14181f", "#ff8a4c", "#4fa8e8", "#ff8a3d", "#2fc79a", "#e08fc0",
    "#f0b429", "#8fd0ff", "#a1a9b5", "#b49cf0",
];
/// On paper, where marks are as on white.
const PRINT: [&str; 5] = ["#000", "#444", "#ccc", "#fff", "#b33a00"];

/// Colours and type of the drawings inside of a page, which is dark where the reader's screen is.
pub fn style() -> String {
    let print = [&PRINT, &LIGHT[PRINT.len()..]].concat();
    let [light, dark, print] = [&LIGHT[..], &DARK, &print].map(|colours| {
        let variables = NAMES.iter().zip(colours).map(|(name, colour)| format!("--{name}:{colour}"));
        format!(":root{{{}}}", join(variables, ";"))
    });
    format!("{light}@media(prefers-color-scheme:dark){{{dark}}}@media print{{{print}}}{RULES}")
}

/// Those of a drawing that stands alone: plain colours, as other programs than browsers know no variables.
fn plain_style() -> String {
    let plain =
        |rules: String, (name, colour): (&&str, &str)| rules.replace(&format!("var(--{name})"), colour);
    NAMES.iter().zip(LIGHT).fold(RULES.into(), plain)
}

const RULES: &str = "\
svg.plot{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;font-variant-numeric:tabular-nums}\
svg.plot text{fill:var(--ink);font-size:13px}svg.plot .s{fill:var(--soft);font-size:12px}svg.plot .b{font-weight:600}\
svg.plot .bad{fill:var(--bad)}svg.plot .grid{stroke:var(--rule);stroke-width:1}svg.plot .axis{stroke:var(--soft);stroke-width:1}\
svg.plot .ceil{stroke:var(--ink);stroke-width:1.6;fill:none}\
svg.plot .mean{stroke:var(--ink);stroke-width:2.4}svg.plot .lose{fill:var(--bad);opacity:.08}svg.plot .none{fill:var(--rule);opacity:.45}\
svg.plot .bar{fill:var(--a0)}svg.plot .badbar{fill:var(--bad)}svg.plot .m{stroke:var(--paper);stroke-width:.6}\
svg.plot .faint{opacity:.28}svg.plot .halo{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}\
svg.plot .k0{fill:var(--a0)}svg.plot .k1{fill:var(--a1)}svg.plot .k2{fill:var(--a2)}svg.plot .k3{fill:var(--a3)}\
svg.plot .k4{fill:var(--a4)}svg.plot .k5{fill:var(--a5)}svg.plot .k6{fill:var(--a6)}svg.plot .k7{fill:var(--a7)}svg.plot .kb{fill:var(--bad)}\
svg.plot .tiny{font-size:10px}svg.plot .onDark{fill:#fff}svg.plot .onLight{fill:#10151d}\
svg.plot .rim{stroke:#fff;stroke-width:5}svg.plot .border{stroke:#000;stroke-width:2.6;stroke-linecap:round}";

impl Svg {
    /// An empty one; `title` is for those who do not see it.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        Self { width, height, title: title.into(), body: String::new() }
    }

    // Writing to a string does not fail.
    fn push(&mut self, args: core::fmt::Arguments<'_>) {
        let _ = self.body.write_fmt(args);
    }

    /// A line of text.
    pub fn text(&mut self, at: [f64; 2], anchor: Anchor, class: &str, text: &str) {
        self.text_with(at, anchor, class, "", text);
    }

    fn text_with(&mut self, [x, y]: [f64; 2], anchor: Anchor, class: &str, attributes: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\"{attributes}>{text}</text>"
        ));
    }

    /// A line of text in small letters that is not wider than `room`, whatever the font: squeezed, and of what is much too long the beginning.
    pub fn text_within(&mut self, at: [f64; 2], room: f64, class: &str, text: &str) {
        // What letters of ten pixels take, of a wide font and of most; and how far they can be squeezed.
        const WIDE: f64 = 6.6;
        const USUAL: f64 = 5.4;
        const NARROW: f64 = 4.2;
        let (letters, most) = (text.chars().count(), (room / NARROW) as usize);
        let shown = match letters > most {
            true => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
            false => text.to_owned(),
        };
        let letters = letters.min(most) as f64;
        let squeezed =
            format!(" textLength=\"{:.1}\" lengthAdjust=\"spacingAndGlyphs\"", room.min(USUAL * letters));
        let attributes = if letters * WIDE > room { squeezed.as_str() } else { "" };
        self.text_with(at, Anchor::Middle, &format!("tiny {class}"), attributes, &shown);
    }

    /// A line of text around a point, turned clockwise by so many degrees.
    pub fn text_turned(&mut self, [x, y]: [f64; 2], degrees: f64, class: &str, text: &str) {
        let turn = format!(" transform=\"rotate({degrees:.1} {x:.1} {y:.1})\"");
        self.text_with([x, y], Anchor::Middle, class, &turn, text);
    }

    /// A straight line.
    pub fn line(&mut self, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], class: &str) {
        self.push(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"
        ));
    }

    /// A rectangle with what a pointer over it shows, and then with round corners; `fill` is a colour, or empty for that of the class.
    pub fn rect(&mut self, [x, y]: [f64; 2], [w, h]: [f64; 2], class: &str, fill: &str, hint: &str) {
        let fill = if fill.is_empty() { String::new() } else { format!(" style=\"fill:{fill}\"") };
        let hint = if hint.is_empty() { String::new() } else { format!("<title>{}</title>", escape(hint)) };
        let (w, h, round) = (w.max(0.0), h.max(0.0), if hint.is_empty() { "" } else { " rx=\"1.5\"" });
        self.push(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\"{round} class=\"{class}\"{fill}>{hint}</rect>"
        ));
    }

    /// A mark whose shape tells as much as its colour.
    pub fn mark(&mut self, [x, y]: [f64; 2], look: Look, faint: bool, hint: &str) {
        let Look { colour, shape, size: r } = look;
        let class = format!("m k{colour}{}", if faint { " faint" } else { "" });
        let hint = if hint.is_empty() { String::new() } else { format!("<title>{}</title>", escape(hint)) };
        let path = match shape {
            0 => {
                self.push(format_args!(
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r}\" class=\"{class}\">{hint}</circle>"
                ));
                return;
            }
            1 => polygon(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)], x, y, r),
            2 => polygon(&[(0.0, -1.15), (1.1, 0.85), (-1.1, 0.85)], x, y, r),
            3 => polygon(&[(0.0, -1.3), (1.15, 0.0), (0.0, 1.3), (-1.15, 0.0)], x, y, r),
            4 => polygon(&[(0.0, 1.15), (1.1, -0.85), (-1.1, -0.85)], x, y, r),
            _ => polygon(&PLUS, x, y, r),
        };
        self.push(format_args!("<path d=\"{path}\" class=\"{class}\">{hint}</path>"));
    }

    /// A path of straight lines.
    pub fn path(&mut self, points: &[[f64; 2]], class: &str) {
        let mut d = String::new();
        for (i, [x, y]) in points.iter().enumerate() {
            let _ = write!(d, "{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' });
        }
        self.push(format_args!("<path d=\"{d}\" class=\"{class}\"/>"));
    }

    /// Vertical grid lines with their values below, and the name of the axis.
    pub fn bottom_axis(
        &mut self,
        scale: &Scale,
        [top, bottom]: [f64; 2],
        name: &str,
        label: impl Fn(f64) -> String,
    ) {
        for tick in scale.ticks(9) {
            let x = scale.at(tick);
            self.line([x, top], [x, bottom], "grid");
            self.text([x, bottom + 18.0], Anchor::Middle, "s", &label(tick));
        }
        self.line([scale.from, bottom], [scale.to, bottom], "axis");
        self.text([(scale.from + scale.to) / 2.0, bottom + 38.0], Anchor::Middle, "s", name);
    }

    /// Horizontal grid lines with their values on the left.
    pub fn left_axis(&mut self, scale: &Scale, [left, right]: [f64; 2], label: impl Fn(f64) -> String) {
        for tick in scale.ticks(8) {
            let y = scale.at(tick);
            self.line([left, y], [right, y], "grid");
            self.text([left - 8.0, y + 4.0], Anchor::End, "s", &label(tick));
        }
    }

    /// As part of a page.
    pub fn inline(&self) -> String {
        self.open("")
    }

    /// As a file.
    pub fn file(&self) -> String {
        let (w, h, style) = (self.width, self.height, plain_style());
        let paper = LIGHT[3];
        let first = format!("><style>{style}</style><rect width=\"{w}\" height=\"{h}\" fill=\"{paper}\"/>");
        self.open(&format!(" xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\""))
            .replacen('>', &first, 1)
    }

    fn open(&self, attributes: &str) -> String {
        let (w, h, title) = (self.width, self.height, escape(&self.title));
        format!(
            "<svg class=\"plot\"{attributes} viewBox=\"0 0 {w} {h}\" role=\"img\" aria-label=\"{title}\">{}</svg>",
            self.body
        )
    }
}

const PLUS: [(f64, f64); 12] = [
    (-0.4, -1.1),
    (0.4, -1.1),
    (0.4, -0.4),
    (1.1, -0.4),
    (1.1, 0.4),
    (0.4, 0.4),
    (0.4, 1.1),
    (-0.4, 1.1),
    (-0.4, 0.4),
    (-1.1, 0.4),
    (-1.1, -0.4),
    (-0.4, -0.4),
];

fn polygon(points: &[(f64, f64)], x: f64, y: f64, r: f64) -> String {
    let mut d = String::new();
    for (i, (dx, dy)) in points.iter().enumerate() {
        let _ = write!(d, "{}{:.1} {:.1}", if i == 0 { 'M' } else { 'L' }, x + r * dx, y + r * dy);
    }
    d + "Z"
}

/// Colour and shape of a mark.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// Of the eight of the palette, or `b` for what is bad.
    pub colour: char,
    /// Circle, square, triangle, diamond, triangle upside down, plus.
    pub shape: u8,
    /// Half its width.
    pub size: f64,
}

const COLOURS: usize = 8;
const SHAPES: usize = 6;

/// How an algorithm looks, in every figure: by its place among the registered ones; others share what is left.
pub fn look(algorithm: &str) -> Look {
    let known = algorithms();
    let other = || known.len() + algorithm.bytes().map(usize::from).sum::<usize>();
    let place = known.iter().position(|name| *name == algorithm).unwrap_or_else(other);
    // Colour and shape change at every place; after all 24 pairs of equal parity come the others.
    let (colour, shape) = (place % COLOURS, (place + place / 24) % SHAPES);
    Look { colour: char::from(b'0' + colour as u8), shape: shape as u8, size: 4.2 }
}

/// Marks with their names in a row, as wide as they need; returns where the next row would stand.
pub fn legend(svg: &mut Svg, [left, y]: [f64; 2], right: f64, items: &[(Look, String)]) -> f64 {
    let (mut x, mut y) = (left, y);
    for (look, name) in items {
        let width = 30.0 + 7.6 * name.chars().count() as f64;
        if x + width > right && x > left {
            (x, y) = (left, y + 20.0);
        }
        svg.mark([x + 5.0, y], Look { size: 5.0, ..*look }, false, "");
        svg.text([x + 15.0, y + 4.5], Anchor::Start, "", name);
        x += width;
    }
    y + 20.0
}

/// Joins things with a separator.
pub fn join<T: Display>(items: impl IntoIterator<Item = T>, separator: &str) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_end_an_element() {
        assert_eq!(escape("<b a=\"1\" c='2'>&\u{7}"), "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp; ");
    }

    #[test]
    fn no_two_algorithms_look_alike() {
        let looks: Vec<Look> = algorithms().into_iter().map(look).collect();
        assert!(looks.len() > 10);
        for (i, one) in looks.iter().enumerate() {
            assert!(!looks[..i].contains(one), "{}: {one:?}", algorithms()[i]);
        }
        assert_eq!(look("alchemy"), look("alchemy"));
    }

    #[test]
    fn a_file_has_plain_colours() {
        let mut svg = Svg::new(10.0, 20.0, "a > b");
        svg.text([1.0, 2.0], Anchor::Start, "s", "c");
        assert!(style().contains("--a7:#7c5cbf}") && style().contains("fill:var(--a7)"));
        let file = svg.file();
        assert!(file.contains("svg.plot .k7{fill:#7c5cbf}") && !file.contains("var("), "{file}");
        assert!(file.contains("</style><rect width=\"10\" height=\"20\" fill=\"#fff\"/><text "), "{file}");
    }

    #[test]
    fn text_stays_within_its_room() {
        let shown = |text| {
            let mut svg = Svg::new(10.0, 10.0, "");
            svg.text_within([0.0, 0.0], 42.0, "", text);
            svg.body
        };
        assert!(shown("direct").contains(">direct<") && !shown("direct").contains("textLength"));
        assert!(
            shown("pointwise").contains("textLength=\"42.0\"") && shown("pointwise").contains(">pointwise<")
        );
        assert!(shown("im2col-matrixmultiply").contains(">im2col-ma…<"));
    }

    #[test]
    fn short_numbers() {
        let texts = [0.0, 0.000123, 0.5, 1.0, 12.34, 99.99, 123.4, 20000.0, f64::NAN].map(short);
        assert_eq!(texts, ["0", "0.000123", "0.5", "1", "12.3", "100", "123", "20000", "–"]);
    }

    #[test]
    fn scales_keep_everything_inside() {
        for scale in [
            Scale::log(1.0, 100.0, [10.0, 20.0]),
            Scale::linear(0.0, 100.0, [10.0, 20.0]),
            Scale::log(0.0, 0.0, [10.0, 20.0]),
            Scale::linear(0.0, 0.0, [10.0, 20.0]),
        ] {
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.0, 1e300, 5.0] {
                assert!((10.0..=20.0).contains(&scale.at(value)), "{scale:?} {value}");
            }
            assert!(scale.ticks(9).len() <= 11, "{scale:?}");
        }
        assert_eq!(Scale::log(1.0, 100.0, [10.0, 20.0]).at(10.0), 15.0);
        assert_eq!(Scale::linear(0.0, 100.0, [0.0, 1.0]).ticks(5), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(Scale::log(1.0, 100.0, [0.0, 1.0]).ticks(9), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
    }
}
