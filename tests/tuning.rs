//! What tuning promises: it never crosses a limit, a file of winners survives anything, and no writer loses anything.

use convolve::{
    BackwardData, BackwardWeights, Budget, Conv2d, Cpu, Epilogue, Error, Exclusion, Forward, Ignored, Isa,
    Layout, Machine, Par, Plan, Planner, Tunable, TuningCache, WeightLayout, Why,
};
use proptest::prelude::*;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(1);

fn conv() -> Conv2d {
    Conv2d::new(8, 8, 3).input(10).padding(1)
}

/// A directory of one test, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("convolve-tuning-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    fn file(&self) -> PathBuf {
        self.0.join("tuning.jsonl")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A planner of one thread and the cache that it fills.
fn tuned(conv: Conv2d) -> (Planner, Arc<TuningCache>) {
    let cache = Arc::new(TuningCache::new());
    let planner = Planner::new().threads(1).with_cache(Arc::clone(&cache));
    planner.tune::<Forward>(conv, SHORT).unwrap();
    (planner, cache)
}

/// The line of a file that makes `algorithm` the winner of [`conv`].
fn line_with(algorithm: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let directory = Directory::new(&format!("line-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    let cache = Arc::new(TuningCache::open(directory.file()).unwrap());
    Planner::new().threads(1).with_cache(Arc::clone(&cache)).tune::<Forward>(conv(), SHORT).unwrap();
    cache.save().unwrap();
    let line = std::fs::read_to_string(directory.file()).unwrap();
    let (key, _) = line.split_once("\"algorithm\":").unwrap();
    format!("{key}\"algorithm\":\"{algorithm}\",\"ns\":5.0,\"measured\":[[\"{algorithm}\",5.0]]}}")
}

#[test]
fn every_pass_and_layout_is_tuned_and_planned_by_it() {
    fn check<P: Tunable>(conv: Conv2d) {
        let cache = Arc::new(TuningCache::new());
        let planner = Planner::new().threads(1).with_cache(Arc::clone(&cache));
        assert_ne!(planner.explain::<P>(conv).unwrap().why, Some(Why::Measured), "nothing is timed unasked");
        assert!(cache.is_empty());
        let explanation = planner.tune::<P>(conv, SHORT).unwrap();
        let winner = explanation.chosen().unwrap();
        let times: Vec<f64> = explanation.verdicts.iter().filter_map(|v| v.measured).collect();
        assert!((1..=9).contains(&times.len()), "{explanation}");
        assert!(times.iter().all(|&ns| winner.measured.unwrap() <= ns && ns > 0.0), "{explanation}");
        assert!(explanation.to_string().contains("measured"), "{explanation}");
        let again = planner.explain::<P>(conv).unwrap();
        assert_eq!(again.why, Some(Why::Measured));
        let plan = planner.plan::<P>(conv).unwrap();
        let tiling = winner.answer.unwrap().tiling;
        assert_eq!((plan.algorithm(), plan.estimate().tiling), (winner.algorithm, tiling));
        // What else the key holds is another question.
        let others = [
            planner.clone().threads(2).explain::<P>(conv),
            planner.clone().accuracy(convolve::Accuracy::Strict).explain::<P>(conv),
            planner.clone().forbid("im2col").explain::<P>(conv),
            planner.explain::<P>(conv.batch(3)),
            planner.explain::<P>(conv.weight_layout(WeightLayout::Ohwi)),
        ];
        assert!(others.into_iter().all(|other| other.unwrap().why != Some(Why::Measured)));
        assert_eq!(cache.len(), 1);
    }
    for conv in [conv(), conv().layout(Layout::Nhwc).weight_layout(WeightLayout::Hwio)] {
        check::<Forward>(conv);
        check::<BackwardData>(conv);
        check::<BackwardWeights>(conv);
    }
}

#[test]
fn tuning_obeys_limits_and_refuses_what_it_cannot_time() {
    let planner = Planner::new().threads(1);
    let all = planner.tune::<Forward>(conv(), Budget::from(SHORT).warm()).unwrap();
    let first = all.chosen().unwrap().algorithm;
    let cache = Arc::new(TuningCache::new());
    let limited = planner.clone().forbid(first).with_cache(Arc::clone(&cache));
    let second = limited.tune::<Forward>(conv(), SHORT).unwrap();
    assert_ne!(second.chosen().unwrap().algorithm, first);
    assert_eq!(cache.entries()[0].limits, format!("forbid={first}"));
    // What won within limits is no answer without them.
    let free = planner.clone().with_cache(cache).explain::<Forward>(conv()).unwrap();
    assert_ne!(free.why, Some(Why::Measured));

    let error = planner.tune::<Forward>(conv().batch(0), SHORT).unwrap_err();
    assert!(error.to_string().contains("nothing to time"), "{error}");
    let error = Planner::new().threads(1000).tune::<Forward>(conv(), SHORT).unwrap_err();
    assert!(matches!(error, Error::Parameter { parameter: "threads", .. }), "{error}");
    let nothing = all.verdicts.iter().fold(planner.clone(), |planner, v| planner.forbid(v.algorithm));
    assert!(matches!(nothing.tune::<Forward>(conv(), SHORT), Err(Error::Excluded { .. })));
    let results = planner.tune_all::<Forward>(&[conv(), conv().input(0), conv().batch(2)], SHORT);
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn a_file_from_another_cpu_is_refused_politely_and_left_alone() {
    let directory = Directory::new("foreign");
    let (here, there) = (Cpu::identified().to_string(), Cpu::named("Abacus", [6, 1, 2]).to_string());
    let foreign = line_with("direct").replace(&here, &there);
    std::fs::write(directory.file(), &foreign).unwrap();
    let cache = Arc::new(TuningCache::open(directory.file()).unwrap());
    assert!(cache.is_empty());
    let [note] = &cache.notes()[..] else { panic!("{:?}", cache.notes()) };
    assert_eq!(note.reason, Ignored::ForeignCpu { cpu: there.clone(), here });
    assert!(
        note.to_string().starts_with("line 1: ignored, but kept: it was measured on Abacus-6-1-2"),
        "{note}"
    );
    let planner = Planner::new().threads(1).with_cache(Arc::clone(&cache));
    assert!(matches!(planner.explain::<Forward>(conv()).unwrap().why, Some(Why::Estimate { .. })));
    // Tuned here as well, the file serves both.
    planner.tune::<Forward>(conv(), SHORT).unwrap();
    cache.save().unwrap();
    let text = std::fs::read_to_string(directory.file()).unwrap();
    assert!(text.starts_with(&foreign), "{text}");
    assert_eq!(TuningCache::open(directory.file()).unwrap().len(), 1);
}

#[test]
fn a_file_that_is_no_cache_is_not_overwritten() {
    let directory = Directory::new("notes");
    let text = "what I wrote yesterday\nand today\n";
    std::fs::write(directory.file(), text).unwrap();
    let error = TuningCache::open(directory.file()).unwrap().save().unwrap_err().to_string();
    assert!(error.contains("2 lines") && error.contains("name another file"), "{error}");
    assert_eq!(std::fs::read_to_string(directory.file()).unwrap(), text);
}

#[test]
fn stale_corrupt_and_newer_lines_are_noted_and_the_rest_is_used() {
    let directory = Directory::new("stale");
    let good = line_with("direct");
    let kernels = tuned(conv()).1.entries()[0].kernels.clone();
    let stale = good.replace(&kernels, "0.0.0-0123456789abcdef").replace("mb1", "mb2");
    let newer = r#"{"v":2,"who":"knows"}"#;
    let mut text = Vec::new();
    for line in [
        b"\xff\xfe",
        &b"{\"v\":1}"[..],
        newer.as_bytes(),
        stale.as_bytes(),
        b"",
        good.as_bytes(),
        &good.as_bytes()[..40],
    ] {
        text.extend(line);
        text.push(b'\n');
    }
    std::fs::write(directory.file(), text).unwrap();
    let cache = Arc::new(TuningCache::open(directory.file()).unwrap());
    let notes = cache.notes();
    let lines: Vec<_> = notes.iter().map(|note| note.line.unwrap()).collect();
    assert_eq!(lines, [1, 2, 3, 4, 7], "{notes:?}");
    assert!(matches!(&notes[2].reason, Ignored::Version { version: 2 }));
    assert!(matches!(&notes[3].reason, Ignored::StaleKernels { .. }), "{}", notes[3]);
    assert!([0, 1, 4].iter().all(|&i| matches!(&notes[i].reason, Ignored::Corrupt { .. })), "{notes:?}");
    let planner = Planner::new().threads(1).with_cache(Arc::clone(&cache));
    let explanation = planner.explain::<Forward>(conv()).unwrap();
    assert_eq!((explanation.chosen().unwrap().algorithm, explanation.why), ("direct", Some(Why::Measured)));
    cache.save().unwrap();
    assert_eq!(std::fs::read_to_string(directory.file()).unwrap(), format!("{newer}\n{stale}\n{good}\n"));
}

#[test]
fn versions_that_share_a_file_keep_each_others_entries() {
    let directory = Directory::new("versions");
    let kernels = tuned(conv()).1.entries()[0].kernels.clone();
    // Its own version would write the keys in another order, and one that is not known here: kept to the byte.
    let of = |generation: usize| {
        let line = line_with("direct").replace(&kernels, &format!("0.0.{generation}"));
        line.replace("{\"v\":1,", "{\"later\":[1, 2], \"v\":1,")
    };
    let (first, second) = (of(1), of(2));
    std::fs::write(directory.file(), format!("{first}\n{second}\n")).unwrap();
    let cache = Arc::new(TuningCache::open(directory.file()).unwrap());
    assert_eq!((cache.len(), cache.notes().len()), (0, 2));
    assert!(cache.notes()[0].to_string().contains("ignored, but kept: the kernels were 0.0.1"));
    let planner = Planner::new().threads(1).with_cache(Arc::clone(&cache));
    for _ in 0..3 {
        planner.tune::<Forward>(conv(), SHORT).unwrap();
        cache.save().unwrap();
        let text = std::fs::read_to_string(directory.file()).unwrap();
        assert!(text.starts_with(&format!("{first}\n{second}\n")), "{text}");
        assert_eq!(text.lines().count(), 3, "an entry with the same key replaces the one before: {text}");
    }
    // Of the same kernels the last counts, and of many kernels the last four.
    let many: Vec<String> = [1, 1, 2, 3, 4, 2, 5].map(of).into();
    std::fs::write(directory.file(), many.join("\n")).unwrap();
    cache.save().unwrap();
    let text = std::fs::read_to_string(directory.file()).unwrap();
    assert!(text.starts_with(&format!("{}\n{}\n{}\n{}\n", of(3), of(4), of(2), of(5))), "{text}");
    assert_eq!(text.lines().count(), 5, "{text}");
}

#[test]
fn an_entry_whose_winner_does_not_serve_is_not_followed() {
    // Forged: nothing stops a file from naming these.
    for (algorithm, part) in [("alchemy", "no algorithm has this name"), ("winograd-f2x5", "kernel")] {
        let cache = Arc::new(TuningCache::parse(line_with(algorithm).as_bytes()));
        assert_eq!(cache.len(), 1, "{:?}", cache.notes());
        let planner = Planner::new().threads(1).with_cache(Arc::clone(&cache));
        let explanation = planner.explain::<Forward>(conv()).unwrap();
        assert!(matches!(explanation.why, Some(Why::Estimate { .. })), "{explanation}");
        assert!(planner.plan::<Forward>(conv()).is_ok());
        let [note] = &cache.notes()[..] else { panic!("one note, however often: {:?}", cache.notes()) };
        assert!(
            matches!(&note.reason, Ignored::Refused { algorithm: name, reason, .. } if name == algorithm && reason.contains(part)),
            "{note}"
        );
    }
}

#[test]
fn an_accuracy_class_is_not_left_for_a_forged_entry() {
    let relaxed = line_with("winograd-f6x3");
    let cache = Arc::new(TuningCache::parse(relaxed.as_bytes()));
    assert_eq!(cache.len(), 1);
    let explanation = Planner::new().threads(1).with_cache(cache).explain::<Forward>(conv()).unwrap();
    let verdict = explanation.verdicts.iter().find(|v| v.algorithm == "winograd-f6x3").unwrap();
    assert_eq!((verdict.answer, verdict.chosen), (Err(Exclusion::Accuracy), false));
}

/// What won may be another way to cut the problem; it is taken only as long as the algorithm still cuts so.
#[test]
fn a_winner_that_cuts_otherwise_is_taken_or_refused() {
    let conv = Conv2d::new(64, 64, 3).input(20).padding(1);
    let planner = Planner::new().threads(1).only("direct");
    let explain = |rank| planner.clone().rank(rank).explain::<Forward>(conv).unwrap();
    let [usual, other] =
        [0, 1].map(|rank| explain(rank).chosen().unwrap().answer.unwrap().tiling.to_string());
    assert_ne!(usual, other);
    let directory = Directory::new("cuts");
    let file = Arc::new(TuningCache::open(directory.file()).unwrap());
    planner.clone().with_cache(Arc::clone(&file)).tune::<Forward>(conv, SHORT).unwrap();
    file.save().unwrap();
    let line = std::fs::read_to_string(directory.file()).unwrap();
    let (key, _) = line.split_once("\"algorithm\":").unwrap();
    let won = |rank: usize, tiling: &str| {
        let line = format!(
            "{key}\"algorithm\":\"direct\",\"rank\":{rank},\"tiling\":\"{tiling}\",\"ns\":5.0,\"measured\":[[\"direct: {tiling}\",5.0]]}}"
        );
        let cache = Arc::new(TuningCache::parse(line.as_bytes()));
        assert_eq!(cache.len(), 1, "{:?}", cache.notes());
        let explanation = planner.clone().with_cache(Arc::clone(&cache)).explain::<Forward>(conv).unwrap();
        let chosen = explanation.chosen().unwrap();
        (chosen.answer.unwrap().tiling.to_string(), explanation.why, cache.notes().pop())
    };
    let (tiling, why, note) = won(1, &other);
    assert_eq!((tiling, why, note), (other, Some(Why::Measured), None));
    let (tiling, why, note) = won(1, "tile 1x1");
    assert_eq!(tiling, usual);
    assert_ne!(why, Some(Why::Measured));
    assert!(note.unwrap().to_string().contains("does not cut the problem so any more (tile 1x1)"));
    assert!(won(1000, "tile 1x1").2.is_some());
}

/// A planner of a rank tunes that rank, and plans by it.
#[test]
fn what_was_tuned_at_a_rank_holds_there() {
    let planner = Planner::new().threads(1).rank(1).with_cache(Arc::new(TuningCache::new()));
    planner.tune::<Forward>(conv(), SHORT).unwrap();
    assert_eq!(planner.explain::<Forward>(conv()).unwrap().why, Some(Why::Measured));
    assert_ne!(planner.rank(0).explain::<Forward>(conv()).unwrap().why, Some(Why::Measured));
}

/// Tiles of another micro-kernel are packed in another order.
#[test]
fn weights_that_were_packed_for_another_cut_are_refused() {
    let conv = Conv2d::new(64, 64, 3).input(20).padding(1);
    let plan = |rank| Planner::new().threads(1).only("direct").rank(rank).plan::<Forward>(conv).ok();
    let tile = |plan: &Plan<Forward>| plan.estimate().tiling.tile;
    let usual = plan(0).unwrap();
    let other = (1..).map_while(plan).find(|other| tile(other) != tile(&usual)).unwrap();
    let plan = usual;
    let (weights, src) = (vec![0.0; 64 * 64 * 9], vec![0.0; 64 * 400]);
    let packed = other.pack(&weights).unwrap();
    let (mut dst, mut workspace) = (vec![0.0; 64 * 400], plan.workspace().unwrap());
    let error = plan.run(&packed, &src, &mut dst, Epilogue::NONE, &mut workspace, Par::Seq).unwrap_err();
    assert!(matches!(error, Error::Packed { .. }), "{error}");
}

#[test]
fn entries_that_make_no_sense_are_corrupt() {
    let good = line_with("direct");
    for (from, to) in [
        ("\"ns\":5.0", "\"ns\":-5.0"),
        ("\"ns\":5.0", "\"ns\":1e999"),
        ("\"ns\":5.0", "\"ns\":4.0"),
        ("[[\"direct\",5.0]]", "[[\"direct\",5.0],[\"im2col\",4.0]]"),
        ("[[\"direct\",5.0]]", "[]"),
        ("\"algorithm\":\"direct\"", "\"algorithm\":\"direct\",\"tiling\":\"tile 6x64\""),
        ("\"threads\":1", "\"threads\":0"),
        ("\"threads\":1", "\"threads\":99999999999999999999"),
        ("\"problem\":\"mb1", "\"problem\":\"zz1"),
        ("\"problem\":\"mb1", "\"problem\":\"_mb1"),
        ("\"v\":1", "\"v\":-1"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        let cache = TuningCache::parse(bad.as_bytes());
        assert!(cache.is_empty(), "{bad}");
        assert!(matches!(cache.notes()[0].reason, Ignored::Corrupt { .. }), "{bad}: {:?}", cache.notes());
    }
    assert_eq!(TuningCache::parse(good.as_bytes()).len(), 1);
}

/// Small problems that differ.
fn many(writer: usize) -> impl Iterator<Item = Conv2d> {
    (0..4).map(move |i| Conv2d::new(1, 1, 1).input([1 + writer, 1 + i]))
}

#[test]
fn threads_that_write_at_once_lose_nothing() {
    let directory = Directory::new("threads");
    std::thread::scope(|scope| {
        for writer in 0..6 {
            let path = directory.file();
            scope.spawn(move || {
                let cache = Arc::new(TuningCache::open(path).unwrap());
                let planner = Planner::new().threads(1).with_cache(Arc::clone(&cache));
                for conv in many(writer) {
                    planner.tune::<Forward>(conv, Duration::ZERO).unwrap();
                    cache.save().unwrap();
                }
            });
        }
    });
    let cache = TuningCache::open(directory.file()).unwrap();
    assert_eq!((cache.len(), cache.notes()), (6 * 4, vec![]));
    let left: Vec<_> =
        std::fs::read_dir(&directory.0).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the file and its lock, nothing temporary: {left:?}");
}

/// Milliseconds since 1970.
fn now() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
}

/// Not a test by itself: the writer that [`processes_that_write_at_once_lose_nothing`] starts several times.
#[test]
fn writer_process() {
    let Some(path) = std::env::var_os("CONVOLVE_TEST_TUNING_FILE") else { return };
    let writer = std::env::var("CONVOLVE_TEST_WRITER").unwrap().parse().unwrap();
    // All begin at the same moment, or none would meet another.
    let start: u128 = std::env::var("CONVOLVE_TEST_START").unwrap().parse().unwrap();
    while now() < start {
        std::hint::spin_loop();
    }
    let cache = Arc::new(TuningCache::open(path).unwrap());
    let planner = Planner::new().threads(1).with_cache(Arc::clone(&cache));
    for conv in many(writer) {
        planner.tune::<Forward>(conv, Duration::ZERO).unwrap();
        cache.save().unwrap();
    }
}

#[test]
fn processes_that_write_at_once_lose_nothing() {
    let directory = Directory::new("processes");
    let begin = (now() + 100).to_string();
    let start = |writer: usize| {
        Command::new(std::env::current_exe().unwrap())
            .args(["writer_process", "--exact", "--quiet"])
            .env("CONVOLVE_TEST_TUNING_FILE", directory.file())
            .env("CONVOLVE_TEST_WRITER", writer.to_string())
            .env("CONVOLVE_TEST_START", &begin)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let writers: Vec<_> = (0..4).map(start).collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    let cache = TuningCache::open(directory.file()).unwrap();
    assert_eq!((cache.len(), cache.notes()), (4 * 4, vec![]));
}

#[test]
fn the_last_writer_of_a_problem_wins_and_entries_of_a_lost_file_come_back() {
    let directory = Directory::new("merge");
    let open = || Arc::new(TuningCache::open(directory.file()).unwrap());
    let planner = |cache: &Arc<TuningCache>| Planner::new().threads(1).with_cache(Arc::clone(cache));
    let (a, b) = (open(), open());
    planner(&a).tune::<Forward>(conv(), SHORT).unwrap();
    a.save().unwrap();
    planner(&b).tune::<Forward>(conv(), SHORT).unwrap();
    b.save().unwrap();
    a.save().unwrap(); // has nothing new: takes over what b wrote
    assert_eq!(a.entries(), b.entries());
    assert_eq!(open().entries(), b.entries());
    std::fs::remove_file(directory.file()).unwrap();
    a.save().unwrap();
    assert_eq!(open().entries(), a.entries());
}

#[test]
fn paths_that_cannot_be_are_errors_and_not_panics() {
    let directory = Directory::new("paths");
    let nowhere = TuningCache::open(directory.0.join("no/such/directory/file")).unwrap();
    assert!(nowhere.is_empty() && nowhere.save().is_err());
    assert!(TuningCache::open(&directory.0).is_err(), "a directory");
    assert!(TuningCache::new().save().unwrap_err().to_string().contains("make it with `open`"));
    let file = std::fs::File::create(directory.file()).unwrap();
    file.set_len(65 << 20).unwrap();
    let cache = TuningCache::open(directory.file()).unwrap();
    assert!(matches!(cache.notes()[0].reason, Ignored::TooLarge { .. }));
    assert!(cache.save().is_err(), "what is no tuning file is not overwritten");
    assert_eq!(std::fs::metadata(directory.file()).unwrap().len(), 65 << 20);
}

#[test]
fn what_was_measured_is_not_forgotten_with_another_machine_or_other_caches() {
    // Neither is in the key: the CPU is, and constants are only an opinion of it.
    let (planner, _) = tuned(conv());
    let explanation = planner.machine(Machine::HASWELL).explain::<Forward>(conv()).unwrap();
    assert_eq!(explanation.why, Some(Why::Measured));
    if Isa::available().len() > 1 {
        let (planner, _) = tuned(conv());
        let portable = planner.isa(Isa::available()[0]).explain::<Forward>(conv()).unwrap();
        assert_ne!(portable.why, Some(Why::Measured));
    }
}

proptest! {
    #![proptest_config(convolve_testkit::strategy::config(256))]

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let cache = TuningCache::parse(&bytes);
        prop_assert!(cache.is_empty());
        let planner = Planner::new().threads(1).with_cache(Arc::new(cache));
        prop_assert!(planner.plan::<Forward>(conv()).is_ok());
    }

    /// Bytes of a good line changed: whatever is still an entry is obeyed only as far as it makes sense.
    #[test]
    fn a_damaged_line_never_breaks_planning(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        static GOOD: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        let mut bytes = GOOD.get_or_init(|| line_with("direct")).clone().into_bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut.index(2) == 0 {
            bytes.truncate(cut.index(bytes.len()));
        }
        let planner = Planner::new().threads(1).with_cache(Arc::new(TuningCache::parse(&bytes)));
        prop_assert!(planner.plan::<Forward>(conv()).is_ok());
    }
}
