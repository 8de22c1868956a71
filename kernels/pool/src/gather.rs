//! Backward as a gather: a pixel adds up what it gets from every window that has it, and is written once.
//!
//! ```text
//! max, First     diff_src[y, x] = sum over the windows that reach (y, x) of  diff_dst[window] where winner[window] is the tap that (y, x) is, else 0
//! max, All       ... of  diff_dst[window] where src[y, x] is the maximum of the window or NaN, else 0
//! ```
//!
//! Pixels of a segment (see `reach.rs`) are reached by the same taps, so that neighbours read neighbouring windows. Nothing is scattered,
//! nothing is cleared first, and no tap of the padding is ever asked. (A ring of lines that windows add to took 1.1 to 1.8 times
//! as long for maxima of 3 x 3 whose winners are found again.)

use crate::vector::{Vector, plus, vectors};
use convolve_simd::{Rows, RowsMut, Simd};

/// What a pixel takes from a window.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Take {
    /// The gradient, where a byte says that the tap is the winner.
    Byte,
    /// The gradient, where a number says so.
    Number,
    /// The gradient, where a number is the pixel itself, or the pixel is NaN.
    Equal,
    /// The gradient, always.
    Always,
}

/// [`Take`] as a type, so that a kernel has one of them only.
pub(crate) trait Taken {
    const TAKE: Take;
}

macro_rules! taken {
    ($($name:ident)+) => {
        $(
            pub(crate) enum $name {}

            impl Taken for $name {
                const TAKE: Take = Take::$name;
            }
        )+
    };
}

taken! { Byte Number Equal Always }

/// What is read of all windows: of the last three, what [`Take`] asks for.
#[derive(Clone, Copy)]
pub(crate) struct Windows<'a> {
    pub(crate) gradient: &'a [f32],
    pub(crate) bytes: &'a [u8],
    pub(crate) numbers: &'a [f32],
    /// The pixels themselves, as `to` lies.
    pub(crate) own: &'a [f32],
}

/// A window that reaches the first pixel.
#[derive(Clone, Copy, Default)]
pub(crate) struct Source {
    /// Where its gradient is.
    pub(crate) gradient: usize,
    /// Where its winner is.
    pub(crate) winner: usize,
    /// As which tap.
    pub(crate) tap: usize,
}

/// Runs of neighbouring numbers, and from one to the next in what is read and in what is written.
#[derive(Clone, Copy)]
pub(crate) struct Runs {
    pub(crate) count: usize,
    pub(crate) len: usize,
    pub(crate) from_step: usize,
    pub(crate) to_step: usize,
}

/// The most sources that are added up in one go.
pub(crate) const MOST: usize = 9;

/// Gathers from all sources; where there are many, from some at a time.
pub(crate) fn gather<S: Simd, T: Taken>(
    s: S,
    windows: Windows<'_>,
    mut sources: impl ExactSizeIterator<Item = Source>,
    runs: Runs,
    to: &mut [f32],
) {
    let mut add = false;
    let mut buffer = [Source::default(); MOST];
    while sources.len() > 0 || !add {
        let len = match sources.len() {
            len @ (0..=4 | 6 | 9) => len,
            _ => 4,
        };
        buffer.iter_mut().zip(sources.by_ref().take(len)).for_each(|(to, source)| *to = source);
        match len {
            0 => (0..runs.count).for_each(|i| to[i * runs.to_step..][..runs.len].fill(0.0)),
            1 => some::<S, T, 1>(s, windows, &buffer, runs, to, add),
            2 => some::<S, T, 2>(s, windows, &buffer, runs, to, add),
            3 => some::<S, T, 3>(s, windows, &buffer, runs, to, add),
            4 => some::<S, T, 4>(s, windows, &buffer, runs, to, add),
            6 => some::<S, T, 6>(s, windows, &buffer, runs, to, add),
            _ => some::<S, T, 9>(s, windows, &buffer, runs, to, add),
        }
        add = true;
    }
}

/// As many sources as that: one region each, lest LLVM inline all into one function and then no intrinsic into it.
fn some<S: Simd, T: Taken, const N: usize>(
    s: S,
    windows: Windows<'_>,
    sources: &[Source; MOST],
    runs: Runs,
    to: &mut [f32],
    add: bool,
) {
    s.vectorize(
        #[inline(always)]
        |s| {
            let reached = Reached::<N>::new::<T>(windows, sources);
            for i in 0..runs.count {
                let start = i * runs.to_step;
                let to = &mut to[start..][..runs.len];
                let own = if let Take::Equal = T::TAKE { &windows.own[start..][..runs.len] } else { &[] };
                let reached = reached.part::<T>(i * runs.from_step, runs.len);
                if add {
                    reached.write::<S, T, true>(s, own, to)
                } else {
                    reached.write::<S, T, false>(s, own, to)
                }
            }
        },
    );
}

/// Whether bytes are read, and numbers.
const fn read<T: Taken>() -> [bool; 2] {
    match T::TAKE {
        Take::Byte => [true, false],
        Take::Number | Take::Equal => [false, true],
        Take::Always => [false, false],
    }
}

/// Windows that reach neighbouring pixels.
pub(crate) struct Reached<'a, const N: usize> {
    pub(crate) gradients: Rows<'a, N>,
    bytes: Rows<'a, N, u8>,
    numbers: Rows<'a, N>,
    taps: [usize; N],
}

impl<'a, const N: usize> Reached<'a, N> {
    #[inline(always)]
    pub(crate) fn new<T: Taken>(windows: Windows<'a>, sources: &[Source]) -> Self {
        let gradients = core::array::from_fn(|n| sources[n].gradient);
        // What is not read starts anywhere.
        let [bytes, numbers] = read::<T>();
        let winners = |read| core::array::from_fn(|n| if read { sources[n].winner } else { 0 });
        Self {
            gradients: Rows::starting_at(windows.gradient, &gradients),
            bytes: Rows::starting_at(windows.bytes, &winners(bytes)),
            numbers: Rows::starting_at(windows.numbers, &winners(numbers)),
            taps: core::array::from_fn(|n| sources[n].tap),
        }
    }

    /// Those of a run of so many numbers.
    #[inline(always)]
    pub(crate) fn part<T: Taken>(&self, from: usize, len: usize) -> Self {
        let [bytes, numbers] = read::<T>();
        Self {
            gradients: self.gradients.part(from, len),
            bytes: if bytes { self.bytes.part(from, len) } else { self.bytes },
            numbers: if numbers { self.numbers.part(from, len) } else { self.numbers },
            taps: self.taps,
        }
    }

    /// What a run of pixels takes from all of them, after what was there before if that is asked for.
    #[inline(always)]
    fn write<S: Simd, T: Taken, const ADD: bool>(&self, s: S, own: &[f32], to: &mut [f32]) {
        let (own, len, mut to) = (Rows::<1>::new(&[own]), to.len(), RowsMut::new([to]));
        vectors::<S>(
            len,
            #[inline(always)]
            |at| self.vector::<S, T, ADD>(s, &own, at, at.of_mut::<S, 1>(&mut to, 0)),
        );
    }

    /// Gradients of some windows of source `n`, and their winners.
    #[inline(always)]
    pub(crate) fn load<S: Simd, T: Taken>(&self, s: S, n: usize, at: Vector) -> (S::F32, S::F32) {
        let winner = match T::TAKE {
            Take::Byte => s.load_bytes(at.of::<S, N, _>(&self.bytes).row(n)),
            Take::Number | Take::Equal => s.load_first(at.of::<S, N, _>(&self.numbers).row(n)),
            Take::Always => s.splat(0.0),
        };
        (s.load_first(at.of::<S, N, _>(&self.gradients).row(n)), winner)
    }

    /// What some pixels take from all of them.
    #[inline(always)]
    fn vector<S: Simd, T: Taken, const ADD: bool>(
        &self,
        s: S,
        own: &Rows<'_, 1>,
        at: Vector,
        to: &mut [f32],
    ) {
        let (mut sum, mut pixel) = (if ADD { Some(s.load_first(to)) } else { None }, s.splat(0.0));
        if let Take::Equal = T::TAKE {
            pixel = s.load_first(at.of::<S, 1, _>(own).row(0));
        }
        for n in 0..N {
            let (gradient, winner) = self.load::<S, T>(s, n, at);
            let share = share::<S, T>(s, gradient, winner, pixel, self.taps[n]);
            sum = plus(s, sum, share);
        }
        if let Some(sum) = sum {
            s.store_first(sum, to);
        }
    }
}

/// What a pixel, which is that tap of a window, takes of its gradient.
#[inline(always)]
pub(crate) fn share<S: Simd, T: Taken>(
    s: S,
    gradient: S::F32,
    winner: S::F32,
    pixel: S::F32,
    tap: usize,
) -> S::F32 {
    let hit = match T::TAKE {
        Take::Byte | Take::Number => s.equal(winner, s.splat(tap as f32)),
        Take::Equal => s.or(s.equal(winner, pixel), s.not_equal(pixel, pixel)),
        Take::Always => return gradient,
    };
    s.keep(hit, gradient)
}
