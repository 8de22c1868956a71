//! How an algorithm cuts a problem, as data: part of what a plan is, of what the planner tells, and of what tuning tries.

use core::fmt;

/// The sizes into which an algorithm cuts a problem. It prices some, and takes the cheapest; [`Problem::rank`](crate::Problem::rank) asks for another.
///
/// Zeros: the algorithm has no such size. Two plans by one algorithm that differ in this alone may add up in another order, and pack weights for another tile.
///
/// ```
/// let tiling = convolve_core::Tiling { tile: [6, 64], task: [1, 784, 128], near: 64 };
/// assert_eq!(tiling.to_string(), "tile 6x64, tasks 1x784x128, 64 near");
/// assert_eq!(convolve_core::Tiling::default().to_string(), "");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tiling {
    /// The tile of the micro-kernel, MR x NR: rows that are broadcast, and lanes of the panel.
    pub tile: [usize; 2],
    /// What a task computes. Forward and backward-data: images, pixels and channels of the output. Backward-weights: parts of the sum, output and input
    /// channels of the gradient.
    pub task: [usize; 3],
    /// How many terms, pixels, channels or tiles, whatever the algorithm counts, are kept near at a time: KC of a GEMM, a block of tiles of Winograd.
    pub near: usize,
}

impl fmt::Display for Tiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tile: [mr, nr], task: [a, b, c], near } = *self;
        let parts = [
            (mr > 0).then(|| format!("tile {mr}x{nr}")),
            (a > 0).then(|| format!("tasks {a}x{b}x{c}")),
            (near > 0).then(|| format!("{near} near")),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}

/// Without repetitions of neighbours, in order.
///
/// ```
/// assert_eq!(convolve_core::distinct([7, 7, 4, 4, 2].into_iter()).collect::<Vec<_>>(), [7, 4, 2]);
/// ```
pub fn distinct(values: impl Iterator<Item = usize>) -> impl Iterator<Item = usize> {
    let mut last = None;
    values.filter(move |&value| last.replace(value) != Some(value))
}

/// The sizes of a task that are tried along an axis, from the whole to a sixteenth.
///
/// ```
/// assert_eq!(convolve_core::shares(28).collect::<Vec<_>>(), [28, 14, 10, 7, 5, 4, 3, 2]);
/// ```
pub fn shares(len: usize) -> impl Iterator<Item = usize> {
    distinct([1, 2, 3, 4, 6, 8, 12, 16].map(|n| len.div_ceil(n)).into_iter())
}

/// How long two things take of which each hides behind the other: the longer, and a little more the nearer they are. The norm `(a^N + b^N)^(1/N)` for N = 3 and 6, by two terms
/// of its series that meet it at both ends, as prices are asked for by the thousand: at most 0.4 % off.
///
/// ```
/// use convolve_core::both;
/// assert_eq!(both::<3>(7.0, 0.0), 7.0);
/// for (a, b) in [(1.0f64, 1.0f64), (1.0, 0.8), (3.0, 1.0)] {
///     let exact = (a.powi(3) + b.powi(3)).cbrt();
///     assert!((both::<3>(a, b) / exact - 1.0).abs() < 0.004 && both::<3>(a, b) == both::<3>(b, a));
/// }
/// ```
pub fn both<const N: i32>(a: f64, b: f64) -> f64 {
    let (most, least) = (a.max(b), a.min(b));
    if least <= 0.0 {
        return most;
    }
    let (share, first) = ((least / most).powi(N), 1.0 / f64::from(N));
    // Where both are equal the norm is 2^(1/N).
    let end = const { if N == 3 { 1.259_921_049_894_873_2 } else { 1.122_462_048_309_373 } };
    const { assert!(N == 3 || N == 6, "the ends of these two series are known") };
    most * (1.0 + share * (first - (1.0 + first - end) * share))
}

/// The cheapest of what is offered, or the next ones: of each kind the cheapest, sorted by price, and of these the one of a rank.
///
/// ```
/// let mut ranked = convolve_core::Ranked::new(1);
/// for (cost, kind) in [(3.0, "wide"), (2.0, "narrow"), (1.0, "narrow")] {
///     ranked.offer(cost, kind, kind.len());
/// }
/// assert_eq!(ranked.take(), Some(4), "the cheapest is narrow, the next kind wide");
/// ```
#[derive(Clone, Debug)]
pub struct Ranked<K, T> {
    rank: usize,
    offers: Vec<(f64, K, T)>,
}

impl<K: PartialEq, T> Ranked<K, T> {
    /// For the kind of that rank: 0 is the cheapest.
    pub fn new(rank: usize) -> Self {
        Self { rank, offers: Vec::new() }
    }

    /// Whether an offer at that price can still matter.
    pub fn wants(&self, cost: f64) -> bool {
        self.rank > 0 || self.offers.first().is_none_or(|(least, ..)| cost.total_cmp(least).is_lt())
    }

    /// Offers something; of equals the first stays.
    pub fn offer(&mut self, cost: f64, kind: K, value: T) {
        let found = self.offers.iter_mut().find(|(_, other, _)| self.rank == 0 || *other == kind);
        match found {
            Some(other) if cost.total_cmp(&other.0).is_lt() => *other = (cost, kind, value),
            Some(_) => (),
            None => self.offers.push((cost, kind, value)),
        }
    }

    /// The one of the rank, if there are so many kinds.
    pub fn take(mut self) -> Option<T> {
        self.offers.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.offers.into_iter().nth(self.rank).map(|(.., value)| value)
    }
}
