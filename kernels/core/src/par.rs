//! Who does the work: the calling thread, the current rayon pool, or a pool that the caller names.
//!
//! Tasks are cut by the shape of the problem and never by the number of threads, and no result depends on which thread ran which
//! task: so the bits are the same for any number of threads. Never called inside a task: parallel regions do not nest.

/// Where tasks run.
///
/// ```
/// use convolve_core::Par;
/// use core::sync::atomic::{AtomicUsize, Ordering};
/// let sum = AtomicUsize::new(0);
/// Par::Current.for_each(10, &mut [], 0, &|task, _| {
///     sum.fetch_add(task, Ordering::Relaxed);
/// });
/// assert_eq!(sum.into_inner(), 45);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum Par<'p> {
    /// The calling thread alone: no pool is touched.
    Seq,
    /// The current rayon pool: that of [`rayon::ThreadPool::install`], or the global one. Serial without the `rayon` feature.
    #[default]
    Current,
    /// A pool of the caller's.
    #[cfg(feature = "rayon")]
    Pool(&'p rayon::ThreadPool),
    /// Only there without the `rayon` feature, so that `'p` is used; serial.
    #[cfg(not(feature = "rayon"))]
    #[doc(hidden)]
    Never(core::marker::PhantomData<&'p ()>),
}

impl Par<'_> {
    /// Threads that can work at a time.
    ///
    /// ```
    /// assert_eq!(convolve_core::Par::Seq.threads(), 1);
    /// ```
    pub fn threads(&self) -> usize {
        match self {
            #[cfg(feature = "rayon")]
            Self::Current => rayon::current_num_threads(),
            #[cfg(feature = "rayon")]
            Self::Pool(pool) => pool.current_num_threads(),
            _ => 1,
        }
    }

    /// Calls `f(task, lane)` exactly once for every task; `lane` is a part of `workspace` of `lane_len` elements that no other
    /// running task has, with garbage in it. At most `workspace.len() / lane_len` tasks run at a time (any number when
    /// `lane_len` is zero).
    ///
    /// # Panics
    /// When `workspace` does not hold one lane.
    pub fn for_each(
        &self,
        tasks: usize,
        workspace: &mut [f32],
        lane_len: usize,
        f: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) {
        assert!(lane_len <= workspace.len(), "the workspace does not hold one lane");
        #[cfg(feature = "rayon")]
        {
            let room = workspace.len().checked_div(lane_len).unwrap_or(usize::MAX);
            let lanes = self.threads().min(tasks).min(room);
            if lanes > 1 {
                let next = core::sync::atomic::AtomicUsize::new(0);
                let mut work = || fork(lanes, workspace, lane_len, &next, tasks, f);
                return match self {
                    Self::Pool(pool) => pool.install(work),
                    _ => work(),
                };
            }
        }
        let lane = &mut workspace[..lane_len];
        (0..tasks).for_each(|task| f(task, lane));
    }
}

/// Halves the lanes until each has one; a lane then takes tasks until there are none.
#[cfg(feature = "rayon")]
fn fork(
    lanes: usize,
    workspace: &mut [f32],
    lane_len: usize,
    next: &core::sync::atomic::AtomicUsize,
    tasks: usize,
    f: &(dyn Fn(usize, &mut [f32]) + Sync),
) {
    if lanes > 1 {
        let half = lanes / 2;
        let (left, right) = workspace.split_at_mut(half * lane_len);
        rayon::join(
            || fork(half, left, lane_len, next, tasks, f),
            || fork(lanes - half, right, lane_len, next, tasks, f),
        );
        return;
    }
    let lane = &mut workspace[..lane_len];
    loop {
        let task = next.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        if task >= tasks {
            return;
        }
        f(task, lane);
    }
}
