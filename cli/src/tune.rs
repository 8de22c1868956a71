//! `tune`: times candidates on this machine and keeps the winners in a file.

use crate::Answer;
use crate::plan::Limits;
use clap::Args;
use convolve::{Budget, TuningCache};
use convolve_benches::args::list;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, Args)]
pub(crate) struct TuneArgs {
    /// A file of problems (# begins a comment), a suite (resnet50, vgg16, mobilenet, course, all), or a problem
    #[arg(required = true, value_name = "LIST")]
    lists: Vec<String>,
    /// The tuning file; its entries for other problems and machines are kept
    #[arg(long, value_name = "FILE")]
    cache: PathBuf,
    /// Time for each problem, pass and layout
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = humantime::parse_duration)]
    budget: Duration,
    /// Weights stay in the cache between runs, as in a loop over one layer
    #[arg(long)]
    warm: bool,
    #[command(flatten)]
    limits: Limits,
}

impl TuneArgs {
    pub(crate) fn run(&self) -> Answer {
        let problems = self.lists.iter().flat_map(|name| list(name)).map(|(_, problem)| problem);
        let (problems, cache) = (problems.collect::<Result<Vec<_>, _>>()?, open(&self.cache)?);
        let planner = self.limits.planner().with_cache(cache.clone());
        let budget = Budget { cold: !self.warm, ..Budget::from(self.budget) };
        let tune = || {
            self.limits
                .each(&problems, |pass, conv| keep(&cache, &self.cache, || pass.tune(&planner, conv, budget)))
        };
        let answer = match self.limits.threads {
            1 => tune(),
            threads => rayon::ThreadPoolBuilder::new()
                .num_threads(threads.into())
                .build()
                .map_err(|error| format!("cannot start {threads} threads: {error}"))?
                .install(tune),
        };
        eprintln!("{}: {} entries for this machine", self.cache.display(), cache.len());
        answer
    }
}

/// What `tune` says, and saves what it found at once, so that an interrupt loses nothing.
fn keep<T>(cache: &TuningCache, path: &Path, tune: impl FnOnce() -> T) -> Result<T, String> {
    let answer = tune();
    cache.save().map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
    Ok(answer)
}

/// A tuning file; what is ignored in it is said on standard error.
pub(crate) fn open(path: &Path) -> Result<Arc<TuningCache>, String> {
    let cache =
        TuningCache::open(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    for note in cache.notes() {
        eprintln!("{}, {note}", path.display());
    }
    Ok(Arc::new(cache))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use convolve_benches::case::AnyPass;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        tune: TuneArgs,
    }

    #[test]
    fn what_was_tuned_is_kept() {
        let dir = std::env::temp_dir().join(format!("convolve-cli-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (list, file) = (dir.join("list"), dir.join("cache"));
        std::fs::write(&list, "# two\nmb1ic8ih9oc8kh3ph1\n\nmb1ic4ih5oc4kh1\n").unwrap();
        let words = [
            "tune",
            list.to_str().unwrap(),
            "--cache",
            file.to_str().unwrap(),
            "--budget",
            "2ms",
            "--pass",
            "fwd",
        ];
        let (text, _) = Flags::try_parse_from(words).unwrap().tune.run().unwrap();
        assert_eq!(text.matches("<- chosen").count(), 4, "{text}");
        assert_eq!(open(&file).unwrap().len(), 4);
        std::fs::write(&list, "mb0ic8ih9oc8kh3ph1\nmb1ic2ih7oc2kh3ph1\n").unwrap();
        let (text, code) = Flags::try_parse_from(words).unwrap().tune.run().unwrap();
        assert_eq!(
            (text.matches("empty problem").count(), text.matches("<- chosen").count(), code),
            (2, 2, 1)
        );
        assert_eq!(open(&file).unwrap().len(), 6, "the two after the error");
        std::fs::write(&list, "mb1ic8ih9oc8kh3ph1\nic\n").unwrap();
        let error = Flags::try_parse_from(words).unwrap().tune.run().unwrap_err();
        assert!(error.contains("line 2"), "{error}");
        let limited = ["tune", "mb1ic8ih9oc8kh3ph1", "--cache", file.to_str().unwrap(), "--only", "im2col"];
        let limited =
            limited.into_iter().chain(["--max-workspace", "1", "--pass", "fwd", "--layout", "nchw"]);
        let (text, code) = Flags::try_parse_from(limited).unwrap().tune.run().unwrap();
        assert!(code == 1 && text.contains("KiB of workspace, and the limit is 1 KiB"), "{text}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn every_answer_is_in_the_file_at_once() {
        let dir = std::env::temp_dir().join(format!("convolve-cli-once-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("cache");
        let words = ["tune", "mb1ic4ih5oc4kh1", "--cache", file.to_str().unwrap(), "--budget", "1ms"];
        let TuneArgs { limits, .. } = Flags::try_parse_from(words).unwrap().tune;
        let cache = open(&file).unwrap();
        let planner = limits.planner().with_cache(cache.clone());
        let mut kept = Vec::new();
        let ask = |pass: AnyPass, conv| {
            kept.push(open(&file)?.len());
            keep(&cache, &file, || pass.tune(&planner, conv, Budget::from(Duration::ZERO)))
        };
        limits.each(&["mb1ic4ih5oc4kh1".parse().unwrap()], ask).unwrap();
        assert_eq!(kept, [0, 1, 2, 3, 4, 5]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
