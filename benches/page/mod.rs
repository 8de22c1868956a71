//! The report as a page: one HTML file with everything in it, a pure function of rows.
//!
//! [`Sources`] are rows, those of peers, and ceilings; [`page`] makes a [`Page`] of them; [`Page::write`] puts it into a directory, its figures
//! beside it. A figure without data is a sentence that says how to get them.

pub mod ceilings;
pub mod figures;
pub mod heat;
pub mod live;
pub mod plot;
pub mod roofline;
pub mod strip;
mod tables;

use crate::record::{self, Record, finite, positive};
use core::fmt::Write;
use std::path::{Path, PathBuf};

pub use ceilings::{Ceiling, Ceilings};
use plot::{Svg, escape};

/// What a page is made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// Rows of the report.
    pub rows: &'a [Record],
    /// Rows of `peers`.
    pub peers: &'a [Record],
    /// Bandwidths of the machine of the rows.
    pub ceilings: Option<&'a Ceilings>,
}

impl<'a> Sources<'a> {
    /// The largest peak of one core that a row says, in GFLOP/s.
    pub fn peak(&self) -> Option<f64> {
        let peak =
            |rows: &'a [Record]| rows.iter().filter_map(|row| positive(row.peak_gflops)).reduce(f64::max);
        peak(self.rows).or_else(|| peak(self.peers))
    }

    /// Rows that are not of the sweep, which has its own figure.
    pub fn suites(&self) -> impl Iterator<Item = &'a Record> + use<'a> {
        self.rows.iter().filter(|row| row.suite() != record::SWEEP)
    }

    /// Regrets of the planner's choices, by estimates or by tuning.
    pub fn regrets(&self, tuned: bool) -> Vec<f64> {
        self.rows.iter().filter(|row| row.tuned() == tuned).filter_map(|row| finite(row.regret)).collect()
    }

    /// The planner's choices among them.
    pub fn chosen(&self) -> impl Iterator<Item = &'a Record> + use<'a> {
        self.suites().filter(|row| row.chosen)
    }
}

/// A drawing with its caption, or the sentence that stands in its place.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Anchor in the page, and name of its file.
    pub id: &'static str,
    title: &'static str,
    text: String,
    svg: Option<Svg>,
}

impl Figure {
    fn drawn(id: &'static str, title: &'static str, caption: &str, svg: Svg) -> Self {
        Self { id, title, text: caption.into(), svg: Some(svg) }
    }

    fn absent(id: &'static str, title: &'static str, how: &str) -> Self {
        Self { id, title, text: how.into(), svg: None }
    }

    fn html(&self) -> String {
        let (id, title, text) = (self.id, escape(self.title), escape(&self.text));
        match &self.svg {
            Some(svg) => format!(
                "<h2 id=\"{id}\">{title}</h2><figure><div class=\"scroll\">{}</div><figcaption>{text}</figcaption></figure>",
                svg.inline()
            ),
            None => format!("<h2 id=\"{id}\">{title}</h2><p class=\"absent\">{text}</p>"),
        }
    }
}

/// The whole.
#[derive(Clone, Debug)]
pub struct Page {
    /// The HTML file.
    pub html: String,
    /// Names and texts of the SVG files.
    pub svgs: Vec<(String, String)>,
}

/// Makes the page.
pub fn page(sources: &Sources<'_>) -> Page {
    let peers = figures::peers(sources);
    let figures = [
        roofline::figure(sources),
        heat::figure(sources),
        figures::threads(sources),
        figures::regret(sources),
        figures::errors(sources),
    ];
    let mut links = vec![("summary", "Summary")];
    links.extend(figures.iter().take(2).map(|figure| (figure.id, figure.title)));
    links.push((peers.id, peers.title));
    links.extend(figures.iter().skip(2).map(|figure| (figure.id, figure.title)));
    links.push(("suites", "Every row"));
    let mut html = String::from(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>convolve: performance report</title><style>",
    );
    html += &plot::style();
    html += include_str!("style.css");
    html += "</style></head><body><main><header><h1>convolve: performance report</h1>\
             <p class=\"lead\">Convolutions in f32 on one CPU: time, share of the measured FMA peak, error, and how well the planner chooses.</p>";
    html += &tables::headline(sources);
    html += &tables::machine(sources);
    html += "<nav>";
    for (id, title) in links {
        // Writing to a string does not fail.
        let _ = write!(html, "<a href=\"#{id}\">{}</a>", escape(title));
    }
    html += "</nav></header><h2 id=\"summary\">Summary</h2><p class=\"note\">What the planner chooses, per layout, pass and threads.</p>";
    html += &tables::summary(sources);
    figures.iter().take(2).for_each(|figure| html += &figure.html());
    html += &peers.html();
    html += &tables::peers(sources);
    figures.iter().skip(2).for_each(|figure| html += &figure.html());
    html += "<h2 id=\"suites\">Every row</h2><p class=\"note\">A click on a heading sorts. ✓ is the planner's choice; ~ marks times during which the core \
             was slow; spread is from the first to the third quartile of the samples; an operation is a multiplication or an addition, also those that a transform saves.</p>";
    html += &tables::suites(sources);
    html += "<footer>Made by <code>cargo bench --bench report -- --html DIR</code>.</footer></main><script>";
    html += include_str!("page.js");
    html += "</script></body></html>\n";
    let drawn = figures.iter().chain([&peers]);
    let svgs = drawn.filter_map(|figure| Some((format!("{}.svg", figure.id), figure.svg.as_ref()?.file())));
    Page { html, svgs: svgs.collect() }
}

impl Page {
    /// Writes `report.html` and the figures into a directory, which is made if need be; says what it wrote.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn write(&self, dir: &Path) -> Result<Vec<PathBuf>, String> {
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |error: std::io::Error| format!("cannot write `{path}`: {error}")
        };
        std::fs::create_dir_all(dir).map_err(failed(dir))?;
        let svgs = self.svgs.iter().map(|(name, text)| (name.as_str(), text));
        let files = [("report.html", &self.html)].into_iter().chain(svgs);
        files
            .map(|(name, text)| {
                let path = dir.join(name);
                std::fs::write(&path, text).map_err(failed(&path))?;
                Ok(path)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
