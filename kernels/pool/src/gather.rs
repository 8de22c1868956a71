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

use convolve_simd::{Rows, Simd};

/// What a pixel takes from a window.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Take {
    /// The gradient, where a byte says that the tap is the winner.
    Byte,
    /// The gradient, where a number says so.
    Number,
    /// The gradient, where a number is the pixel itself, or the pixel is NaN.
    Equal,
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

taken! { Byte Number Equal }

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
            let whole = runs.len / S::LANES * S::LANES;
            for i in 0..runs.count {
                let (from, start) = (i * runs.from_step, i * runs.to_step);
                let to = &mut to[start..][..runs.len];
                let own = if let Take::Equal = T::TAKE { &windows.own[start..][..runs.len] } else { &[] };
                for x in (0..whole).step_by(S::LANES) {
                    let before = if add { Some(s.load(&to[x..])) } else { None };
                    let sum = reached.sum::<S, T>(s, before, own, from, x, S::LANES);
                    s.store(sum, &mut to[x..]);
                }
                if whole < runs.len {
                    let before = if add { Some(s.load_first(&to[whole..])) } else { None };
                    let sum = reached.sum::<S, T>(s, before, own, from, whole, runs.len - whole);
                    s.store_first(sum, &mut to[whole..]);
                }
            }
        },
    );
}

/// Windows that reach neighbouring pixels.
struct Reached<'a, const N: usize> {
    gradients: Rows<'a, N>,
    bytes: Rows<'a, N, u8>,
    numbers: Rows<'a, N>,
    taps: [usize; N],
}

impl<'a, const N: usize> Reached<'a, N> {
    #[inline(always)]
    fn new<T: Taken>(windows: Windows<'a>, sources: &[Source; MOST]) -> Self {
        let gradients = core::array::from_fn(|n| sources[n].gradient);
        // What is not read starts anywhere.
        let [bytes, numbers] = match T::TAKE {
            Take::Byte => [true, false],
            Take::Number | Take::Equal => [false, true],
        };
        let winners = |read| core::array::from_fn(|n| if read { sources[n].winner } else { 0 });
        Self {
            gradients: Rows::starting_at(windows.gradient, &gradients),
            bytes: Rows::starting_at(windows.bytes, &winners(bytes)),
            numbers: Rows::starting_at(windows.numbers, &winners(numbers)),
            taps: core::array::from_fn(|n| sources[n].tap),
        }
    }

    /// What `len` pixels take from all of them, after what was there before; windows are read from `from + x` on.
    #[inline(always)]
    fn sum<S: Simd, T: Taken>(
        &self,
        s: S,
        before: Option<S::F32>,
        own: &[f32],
        from: usize,
        x: usize,
        len: usize,
    ) -> S::F32 {
        let (gradients, mut sum) = (self.gradients.at(from + x, len), before);
        for n in 0..N {
            let gradient = s.load_first(gradients.row(n));
            let hit = match T::TAKE {
                Take::Byte => Some(s.equal_byte(self.bytes.at(from + x, len).row(n), self.taps[n] as u8)),
                Take::Number => {
                    let number = s.load_first(self.numbers.at(from + x, len).row(n));
                    Some(s.equal(number, s.splat(self.taps[n] as f32)))
                }
                Take::Equal => {
                    let number = s.load_first(self.numbers.at(from + x, len).row(n));
                    let own = s.load_first(&own[x..x + len]);
                    Some(s.or(s.equal(number, own), s.not_equal(own, own)))
                }
            };
            // Not `map_or`: its closure would be a function of its own, without the instruction set.
            let part = match hit {
                Some(hit) => s.select(hit, gradient, s.splat(0.0)),
                None => gradient,
            };
            sum = Some(match sum {
                Some(sum) => s.add(sum, part),
                None => part,
            });
        }
        match sum {
            Some(sum) => sum,
            None => s.splat(0.0),
        }
    }
}
