//! The winners, in memory and in a file: JSON lines, merged under a lock, replaced as a whole.
//!
//! # What a file may hold, and what becomes of it
//!
//! | line | used | when the file is next written |
//! |---|---|---|
//! | of this CPU and these kernels | yes | kept, or replaced by what was measured since |
//! | of another CPU | no, noted | kept: machines may share a file |
//! | of another version of the format | no, noted | kept: another version of the library wrote it |
//! | of other kernels | no, noted | kept: versions of the library may share a file |
//! | anything else | no, noted | dropped |
//!
//! What is kept is kept to the byte. So that a file does not grow with every change to a kernel, for one problem and CPU the last entries of four other
//! kernels stay.

use super::entry::{Ignored, Key, Note, TunedEntry, name, unusual};
use crate::{Explanation, Verdict, Why};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// More than any tuning file has: a hundred thousand entries.
const LARGEST: u64 = 64 << 20;
/// Entries of other kernels, for one problem and CPU, that stay in a file.
const GENERATIONS: usize = 4;
/// Notes that are kept.
const NOTES: usize = 1000;

/// What [`Planner::tune`](crate::Planner::tune) found, for planners that plan by it. Shared between threads by reference.
///
/// The file is the caller's: its path is given, and it is written only by [`save`](Self::save). Entries of other CPUs, of other kernels, of other
/// versions and what is no entry at all are ignored, each with a [`Note`]; all but the last stay in the file, so that machines and versions of the library
/// may share one (of other kernels, the last four entries for a problem).
///
/// Where a CPU does not say which it is (`Cpu::is_known`: Apple's), an entry of any CPU of that vendor counts as one of this machine: give each its own file.
///
/// ```
/// use convolve::{Conv2d, Forward, Planner, TuningCache};
/// use std::{sync::Arc, time::Duration};
/// # let directory = std::env::temp_dir().join(format!("convolve-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// # let path = directory.join("tuning.jsonl");
/// let cache = Arc::new(TuningCache::open(&path)?); // a file that is not there yet is an empty one
/// let planner = Planner::new().threads(1).with_cache(Arc::clone(&cache));
/// let conv = Conv2d::new(8, 8, 3).input(10);
/// println!("{}", planner.tune::<Forward>(conv, Duration::from_millis(5))?);
/// cache.save()?;
/// for note in TuningCache::open(&path)?.notes() {
///     eprintln!("{}: {note}", path.display());
/// }
/// # assert_eq!(TuningCache::open(&path)?.len(), 1);
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct TuningCache {
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Key, TunedEntry>,
    /// Measured since the file was read or written.
    fresh: BTreeSet<Key>,
    notes: Vec<Note>,
}

/// The lines of a file, sorted out.
#[derive(Default)]
struct Lines {
    entries: BTreeMap<Key, TunedEntry>,
    /// Those of other CPUs and kernels, and of other versions, which cannot be read.
    others: Vec<(Option<TunedEntry>, Vec<u8>)>,
    notes: Vec<Note>,
    /// Lines that are no entry of any version, CPU or time, and the others.
    corrupt: usize,
    known: usize,
}

impl Lines {
    fn read(text: &[u8]) -> Self {
        let mut this = Self::default();
        for (i, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let (other, reason) = match TunedEntry::read(line) {
                Ok(entry) => match entry.foreign() {
                    None => {
                        this.known += 1;
                        this.entries.insert(entry.key(), entry);
                        continue;
                    }
                    Some(reason) => (Some(entry), reason),
                },
                Err(reason) => (None, reason),
            };
            if matches!(reason, Ignored::Corrupt { .. }) {
                this.corrupt += 1;
            } else {
                this.known += 1;
                this.others.push((other, line.to_owned()));
            }
            this.notes.push(Note { line: Some(i + 1), reason });
        }
        this.notes.truncate(NOTES);
        this
    }

    /// The lines of others that stay, in their order. Who writes puts its own behind them, so the last are the newest.
    fn kept(others: Vec<(Option<TunedEntry>, Vec<u8>)>) -> Vec<Vec<u8>> {
        let mut seen: BTreeMap<(String, Key), BTreeSet<String>> = BTreeMap::new();
        let mut stays = |entry: &TunedEntry| {
            let kernels = seen.entry((entry.cpu.clone(), entry.key())).or_default();
            kernels.len() < GENERATIONS && kernels.insert(entry.kernels.clone())
        };
        let newest_first = others.into_iter().rev();
        let mut kept: Vec<_> = newest_first
            .filter(|(entry, _)| entry.as_ref().is_none_or(&mut stays))
            .map(|(_, line)| line)
            .collect();
        kept.reverse();
        kept
    }
}

impl TuningCache {
    /// An empty one without a file.
    /// ```
    /// assert!(convolve::TuningCache::new().save().is_err()); // where to?
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// What a file holds for this machine. A file that is not there is an empty one; nothing is created before [`save`](Self::save).
    ///
    /// # Errors
    /// What reading gives, if the file is there. What it holds is no error: see [`notes`](Self::notes).
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let this = match read(path)? {
            Ok(text) => Self::parse(&text),
            Err(bytes) => {
                let state = State { notes: vec![too_large(bytes)], ..State::default() };
                Self { state: Mutex::new(state), ..Self::default() }
            }
        };
        Ok(Self { path: Some(path.to_owned()), ..this })
    }

    /// What the text of a file holds for this machine, such as one that `include_bytes!` put into the program. Any bytes will do.
    /// ```
    /// let cache = convolve::TuningCache::parse(&[0xff, b'\n', b'{', b'\n']);
    /// assert_eq!((cache.len(), cache.notes().len()), (0, 2));
    /// ```
    pub fn parse(text: &[u8]) -> Self {
        let Lines { entries, notes, .. } = Lines::read(text);
        Self { path: None, state: Mutex::new(State { entries, notes, ..State::default() }) }
    }

    /// Problems that were tuned for this machine.
    /// ```
    /// assert_eq!(convolve::TuningCache::new().len(), 0);
    /// ```
    pub fn len(&self) -> usize {
        self.state().entries.len()
    }

    /// Whether there are none.
    /// ```
    /// assert!(convolve::TuningCache::new().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, sorted by problem.
    pub fn entries(&self) -> Vec<TunedEntry> {
        self.state().entries.values().cloned().collect()
    }

    /// What was ignored so far, in the file and in use; at most a thousand notes.
    pub fn notes(&self) -> Vec<Note> {
        self.state().notes.clone()
    }

    /// Brings the file up to date: under a lock, what others wrote meanwhile is read, what was measured here since is put over it, and the
    /// whole is written to a temporary file beside it that then takes its name. So a reader sees the old file or the new one, and of
    /// writers at the same time none loses anything. For one problem the last writer wins.
    ///
    /// The lock is a file of its own, with `.lock` added to the name, and stays there.
    /// A file of which no line is an entry, of whatever version or CPU, is no tuning cache: it is left as it is, and the error says so.
    ///
    /// # Errors
    /// What the system gives; a cache without a file; a file that is too large to be a tuning file. The file is then as it was.
    pub fn save(&self) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "this tuning cache has no file: make it with `open`",
            ));
        };
        let lock = File::options().create(true).append(true).open(with_suffix(path, ".lock"))?;
        lock.lock()?;
        // The guard is taken after the lock of the file, by every writer, so no two wait for each other.
        let mut state = self.state();
        let text = read(path)?.map_err(|bytes| {
            io::Error::new(ErrorKind::InvalidData, format!("`{}`: {}", path.display(), too_large(bytes)))
        })?;
        let Lines { entries: theirs, others, known, corrupt, .. } = Lines::read(&text);
        if known == 0 && corrupt > 0 {
            let what = format!(
                "`{}` has {corrupt} lines and none is an entry of a tuning cache: it is left as it is; name another file, or empty this one",
                path.display()
            );
            return Err(io::Error::new(ErrorKind::InvalidData, what));
        }
        let mut entries = state.entries.clone();
        entries.extend(theirs.into_iter().filter(|(key, _)| !state.fresh.contains(key)));
        let lines =
            Lines::kept(others).into_iter().chain(entries.values().map(|entry| entry.line().into_bytes()));
        let mut text = Vec::new();
        for line in lines {
            text.extend(line);
            text.push(b'\n');
        }
        replace(path, &text)?;
        state.entries = entries;
        state.fresh.clear();
        Ok(())
    }

    /// Puts an entry in the place of an older one.
    pub(crate) fn insert(&self, entry: TunedEntry) {
        let mut state = self.state();
        let key = entry.key();
        state.fresh.insert(key.clone());
        state.entries.insert(key, entry);
    }

    /// Lets what was measured decide, if the winner is still a candidate. `other` says what an algorithm, of which this verdict is known, answers for
    /// another rank.
    pub(crate) fn apply(
        &self,
        explanation: &mut Explanation,
        limits: &str,
        other: impl Fn(&[Verdict], usize) -> Option<Verdict>,
    ) {
        let mut state = self.state();
        let Some(entry) = state.entries.get(&Key::new(explanation, limits)) else { return };
        let usual = explanation.verdicts.iter().position(|verdict| verdict.algorithm == entry.algorithm);
        let same = |verdict: &Verdict| verdict.rank == entry.rank && unusual(verdict) == entry.tiling;
        // The one that is there, also where it is refused; else that of its rank, if it still cuts so.
        let mut winner = usual.filter(|&usual| {
            let verdict = &explanation.verdicts[usual];
            verdict.answer.is_err() || same(verdict)
        });
        if let (Some(first), None) = (usual, winner) {
            let found = other(&explanation.verdicts[first..=first], entry.rank).filter(same);
            winner = found.map(|verdict| explanation.verdicts.insert(first + 1, verdict)).map(|()| first + 1);
        }
        for verdict in &mut explanation.verdicts {
            let called = name(verdict.algorithm, &unusual(verdict));
            verdict.measured = entry.measured.iter().find(|(name, _)| *name == called).map(|&(_, ns)| ns);
        }
        let reason = match (winner.map(|winner| (winner, &explanation.verdicts[winner].answer)), usual) {
            (Some((winner, Ok(_))), _) => return explanation.choose(winner, Why::Measured),
            (Some((_, Err(reason))), _) => reason.to_string(),
            (None, Some(_)) => format!("it does not cut the problem so any more ({})", entry.tiling),
            (None, None) => "no algorithm has this name".to_owned(),
        };
        let problem = format!("{} {} {}", explanation.pass, explanation.problem, explanation.layout);
        let reason = Ignored::Refused { problem, algorithm: entry.algorithm.clone(), reason };
        let note = Note { line: None, reason };
        if state.notes.len() < NOTES && !state.notes.contains(&note) {
            state.notes.push(note);
        }
    }

    /// A panic elsewhere leaves whole entries behind.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_large(bytes: u64) -> Note {
    Note { line: None, reason: Ignored::TooLarge { bytes } }
}

/// All bytes of a file; none if it is not there; how many it has if they are too many.
fn read(path: &Path) -> io::Result<Result<Vec<u8>, u64>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Ok(Vec::new())),
        file => file?,
    };
    let bytes = file.metadata()?.len();
    if bytes > LARGEST {
        return Ok(Err(bytes));
    }
    let mut text = Vec::new();
    // It may grow meanwhile, or be a device that never ends.
    file.take(LARGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LARGEST { Ok(Err(text.len() as u64)) } else { Ok(Ok(text)) }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Writes a temporary file beside `path` and gives it that name.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = with_suffix(path, &format!(".{}.{count}.tmp", std::process::id()));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(text)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    })
}
