use super::*;
use crate::record::parse;

fn record(problem: &str, algorithm: &str, chosen: bool, seconds: f64) -> Record {
    let mut record = Record {
        problem: problem.into(),
        algorithm: algorithm.into(),
        pass: "fwd".into(),
        layout: "NCHW".into(),
        chosen,
        median_s: Some(seconds),
        peak_gflops: Some(100.0),
        peak_fraction: Some(0.1 / seconds),
        gflops: Some(10.0 / seconds),
        error: Some(1.5),
        regret: chosen.then_some(0.03),
        ..Record::default()
    };
    record.name = Some(format!("course:{problem}"));
    record
}

const PROBLEMS: [&str; 3] =
    ["mb1ic8ih14oc8oh14kh3ph1", "mb1ic64ih14oc64oh14kh3ph1", "mb1ic64ih56oc64oh56kh3ph1"];

fn rows() -> Vec<Record> {
    let one = PROBLEMS.iter().zip(["direct", "slide", "direct"]);
    let mut rows: Vec<Record> =
        one.map(|(problem, algorithm)| record(problem, algorithm, true, 0.25)).collect();
    rows.push(record(PROBLEMS[0], "im2col", false, 0.5));
    rows.push(Record { threads: Some(2), ..record(PROBLEMS[1], "slide", true, 0.14) });
    rows
}

fn rivals() -> Vec<Record> {
    let row = |ratio| Record {
        ratio: Some(ratio),
        peer: Some("oneDNN".into()),
        ..record(PROBLEMS[0], "oneDNN best layout", false, 0.2)
    };
    vec![
        Record {
            peer: Some("convolve".into()),
            ratio: Some(1.0),
            ..record(PROBLEMS[0], "convolve", true, 0.25)
        },
        row(0.8),
    ]
}

#[test]
fn what_was_tuned_is_told_apart() {
    let mut rows = rows();
    rows[0] = Record { tuned: Some(true), regret: Some(0.001), spread: Some(0.0625), ..rows[0].clone() };
    let page = page(&Sources { rows: &rows, ..Sources::default() });
    sound(&page);
    for part in [
        "<td>tuning</td>",
        "<td>estimates</td>",
        "✓ tuned",
        "0.1 %</b><span>mean regret of a tuned",
        ">6.2</td>",
        "which is not drawn, over 1 choices",
    ] {
        assert!(page.html.contains(part), "{part}");
    }
}

fn ceilings() -> Ceilings {
    Ceilings(vec![
        Ceiling { level: "L1", gbytes_per_second: 200.0 },
        Ceiling { level: "L2", gbytes_per_second: 195.0 },
        Ceiling { level: "memory", gbytes_per_second: 10.0 },
    ])
}

/// A page asks nobody for anything, and its elements are closed.
fn sound(page: &Page) {
    let html = page.html.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for forbidden in
        ["http:", "https:", "url(", "@import", "<link", "src=", "<img", "<iframe", "NaN", "inf\"", "fetch("]
    {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    for element in ["svg", "table", "tr", "td", "text", "details", "figure", "div", "main", "script"] {
        let opened =
            html.matches(&format!("<{element}>")).count() + html.matches(&format!("<{element} ")).count();
        assert_eq!(opened, html.matches(&format!("</{element}>")).count(), "{element}");
    }
    for (name, svg) in &page.svgs {
        assert!(svg.starts_with("<svg ") && svg.contains("xmlns=") && !svg.contains("NaN"), "{name}");
        assert!(!svg.contains("var("), "{name}: other programs know no variables");
    }
}

#[test]
fn everything_is_drawn_and_every_problem_appears() {
    let (rows, peers, ceilings) = (rows(), rivals(), ceilings());
    let page = page(&Sources { rows: &rows, peers: &peers, ceilings: Some(&ceilings) });
    sound(&page);
    for row in rows.iter().chain(&peers) {
        assert!(page.html.contains(&format!("title=\"{}\"", row.problem)), "{}", row.problem);
    }
    assert!(!page.html.contains("class=\"absent\""));
    let names: Vec<&str> = page.svgs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["roofline.svg", "heat.svg", "threads.svg", "regret.svg", "errors.svg", "peers.svg"]);
    for part in [
        "FMA peak 100 GFLOP/s",
        "memory 10 GB/s",
        "L1, L2 200 GB/s",
        "▼ 0.80",
        "class=\"losing\"",
        "1.79x",
        "class=\"border\"",
    ] {
        assert!(page.html.contains(part), "{part}");
    }
}

#[test]
fn what_was_tuned_scales_by_itself() {
    let with = |threads, tuned, seconds| Record {
        threads: Some(threads),
        tuned: Some(tuned),
        ..record(PROBLEMS[1], "slide", true, seconds)
    };
    let mut rows = vec![with(1, false, 0.6), with(1, true, 0.5), with(2, true, 0.2), with(2, false, 0.4)];
    let page_of = |rows: &[Record]| page(&Sources { rows, ..Sources::default() });
    let page = page_of(&rows);
    for part in ["fwd NCHW, 2 threads</text>", "fwd NCHW, 2 threads, tuned</text>", "1.50x", "2.50x"] {
        assert!(page.html.contains(part), "{part}");
    }
    rows.truncate(3);
    rows.remove(1);
    assert!(!page_of(&rows).svgs.iter().any(|(name, _)| name == "threads.svg"), "nothing is alike");
}

#[test]
fn names_of_bandwidths_keep_off_each_other() {
    let rows = rows();
    // As measured; three beside each other; L2 slower than L3.
    for rates in [[207.0, 110.0, 96.7, 18.6], [150.0, 125.0, 105.0, 20.0], [193.0, 63.0, 99.1, 14.3]] {
        let levels = ["L1", "L2", "L3", "memory"].into_iter().zip(rates);
        let ceilings =
            levels.map(|(level, gbytes_per_second)| Ceiling { level, gbytes_per_second }).collect();
        let page = page(&Sources { rows: &rows, peers: &[], ceilings: Some(&Ceilings(ceilings)) });
        let (_, svg) = page.svgs.iter().find(|(name, _)| name == "roofline.svg").unwrap();
        // Along the lines, and across them.
        let places: Vec<[f64; 2]> = svg
            .split("<text ")
            .filter(|text| text.contains(" GB/s<"))
            .map(|text| {
                let after = |key: &str| text.split_once(key).unwrap().1;
                let number = |key| after(key).split(['"', ' ']).next().unwrap().parse::<f64>().unwrap();
                let (sin, cos) = number("rotate(").to_radians().sin_cos();
                let (x, y) = (number("x=\""), number("y=\""));
                [x * cos + y * sin, y * cos - x * sin]
            })
            .collect();
        assert_eq!(places.len(), 4, "{svg}");
        for (i, a) in places.iter().enumerate() {
            for b in &places[..i] {
                assert!((a[0] - b[0]).abs() > 75.0 || (a[1] - b[1]).abs() > 11.0, "{rates:?}: {places:?}");
            }
        }
    }
}

#[test]
fn nothing_gives_sentences() {
    let page = page(&Sources::default());
    sound(&page);
    assert_eq!(page.svgs.len(), 0);
    assert_eq!(page.html.matches("class=\"absent\"").count(), 8);
    for how in ["--from", "--peers PEERS.json", "--threads 2", "sweeps channels"] {
        assert!(page.html.contains(how), "{how}");
    }
}

#[test]
fn figures_that_are_no_numbers_do_no_harm() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.0, 1e300, 1e-300] {
        let mut rows = rows();
        let mut peers = rivals();
        for row in rows[1..].iter_mut().chain(&mut peers) {
            for field in [
                &mut row.median_s,
                &mut row.gflops,
                &mut row.peak_fraction,
                &mut row.error,
                &mut row.regret,
                &mut row.ratio,
                &mut row.peak_gflops,
                &mut row.workspace_bytes,
            ] {
                *field = Some(bad);
            }
        }
        let ceilings = Ceilings(vec![Ceiling { level: "L1", gbytes_per_second: bad }]);
        let page = page(&Sources { rows: &rows, peers: &peers, ceilings: Some(&ceilings) });
        sound(&page);
        assert!(PROBLEMS.iter().all(|problem| page.html.contains(problem)), "{bad}");
    }
    let rows = parse("{\"problem\":\"?\",\"algorithm\":\"a\",\"chosen\":true,\"median_s\":null}").unwrap();
    sound(&page(&Sources { rows: &rows, peers: &rows, ceilings: None }));
}

#[test]
fn text_is_escaped() {
    let evil = "</script><b>&\"'";
    let mut row = record(PROBLEMS[0], evil, true, 0.5);
    (row.name, row.cpu, row.layout, row.pass) =
        (Some(evil.into()), Some(evil.into()), evil.into(), evil.into());
    (row.ratio, row.commit, row.isa) = (Some(0.5), Some(evil.into()), Some(evil.into()));
    let rows = [row];
    let page = page(&Sources { rows: &rows, peers: &rows, ceilings: None });
    sound(&page);
    assert!(!page.html.contains("<b>&") && page.html.contains("&lt;/script&gt;&lt;b&gt;&amp;&quot;&#39;"));
}

#[test]
fn many_rows_stay_below_two_megabytes() {
    let rows: Vec<Record> =
        (0..12_000).map(|i| record(PROBLEMS[i % 3], "direct", i % 4 == 0, 0.25)).collect();
    let page = page(&Sources { rows: &rows, peers: &[], ceilings: None });
    assert!(page.html.len() < 2 << 20, "{}", page.html.len());
    assert!(
        page.html.contains("only the planner&#39;s choices")
            || page.html.contains("only the planner's choices")
    );
}
