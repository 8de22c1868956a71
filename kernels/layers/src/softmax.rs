//! Softmax and the cross-entropy loss on it, stable: the greatest logit is taken from all others first.
//!
//! ```text
//! p[k] = e^(x[k] - m) / sum over j of e^(x[j] - m),    m = max over j of x[j]
//! loss = -log p[label] = log(sum over j of e^(x[j] - m)) + m - x[label]
//! d loss / d x[k] = p[k] - (1 if k is the label)
//! ```
//!
//! Rows are independent, and tasks are some of them. Losses are added up row by row in at most [`BLOCKS`] parts, cut by the number of rows, and
//! then part by part: the same bits for any number of threads, and no memory that grows.

use crate::math;
use convolve_core::{BlockMut, Cut, Error, LINE, Par, Update};
use convolve_simd::{Isa, Simd, dispatch};
use core::sync::atomic::{AtomicU64, Ordering};

/// Logits that make a task worth while.
const TASK: usize = 4 << 10;
/// Most parts of a sum of losses.
const BLOCKS: usize = 64;

/// `dst[n, k] = e^src[n, k] / sum over j of e^src[n, j]`: rows of `classes` numbers become probabilities. O(elements).
///
/// A logit of -inf has probability 0. A row with NaN or +inf, or of nothing but -inf, becomes NaN.
///
/// # Errors
/// No classes, a length that is not a number of rows, or slices of different lengths.
///
/// ```
/// use convolve_core::Par;
/// use convolve_layers::softmax;
/// use convolve_simd::Isa;
/// let mut dst = [0.0; 4];
/// softmax(&[1000.0, 1000.0, 0.0, f32::NEG_INFINITY], 2, &mut dst, Isa::best(), Par::Seq)?;
/// assert_eq!(dst, [0.5, 0.5, 1.0, 0.0]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
pub fn softmax(src: &[f32], classes: usize, dst: &mut [f32], isa: Isa, par: Par<'_>) -> Result<(), Error> {
    rows("src", src.len(), classes)?;
    length("dst", src.len(), classes, dst.len())?;
    let rows = src.len() / classes;
    let cuts = [Cut::whole(1), Cut { unit: rows.max(1), block: TASK.div_ceil(classes) }, Cut::whole(classes)];
    BlockMut::new(dst, [1, rows, classes]).for_each_piece(
        cuts,
        par,
        &mut [],
        0,
        &|[_, rows, _], mut dst, _| {
            for (j, src) in src[rows.start * classes..rows.end * classes].chunks_exact(classes).enumerate() {
                dispatch!(isa, s => row(s, src, dst.row(0, j)));
            }
        },
    );
    Ok(())
}

/// The mean cross-entropy of rows of `classes` logits, and its gradient: `diff_src = (softmax(src) - one hot label) / rows`. O(elements).
///
/// Losses are summed in f64 in a fixed order; nothing is allocated. Of no rows the loss is 0.
///
/// # Errors
/// As [`softmax`]; not one label per row, or a label that is no class.
///
/// ```
/// use convolve_core::{Par, Update};
/// use convolve_layers::cross_entropy;
/// use convolve_simd::Isa;
/// let (src, mut diff_src) = ([0.0, 0.0, 100.0, 0.0], [0.0; 4]);
/// let loss = cross_entropy(&src, 2, &[1, 0], Some(&mut diff_src), Update::Overwrite, Isa::best(), Par::Seq)?;
/// assert_eq!((loss, diff_src), (0.5 * std::f64::consts::LN_2, [0.25, -0.25, 0.0, 0.0]));
/// # Ok::<(), convolve_core::Error>(())
/// ```
pub fn cross_entropy(
    src: &[f32],
    classes: usize,
    labels: &[usize],
    diff_src: Option<&mut [f32]>,
    update: Update,
    isa: Isa,
    par: Par<'_>,
) -> Result<f64, Error> {
    rows("src", src.len(), classes)?;
    let expected = src.len() / classes;
    if labels.len() != expected {
        let shape = format!("[{expected}], one per row of src,");
        return Err(Error::Length {
            operand: "labels",
            shape,
            expected,
            got: labels.len(),
            hint: String::new(),
        });
    }
    if let Some(&value) = labels.iter().find(|&&label| label >= classes) {
        return Err(Error::Parameter {
            parameter: "label",
            value,
            reason: "it must be less than the classes",
        });
    }
    diff_src.as_ref().map_or(Ok(()), |diff| length("diff_src", src.len(), classes, diff.len()))?;
    let rows = labels.len();
    let scale = 1.0 / rows.max(1) as f64;
    let block = TASK.div_ceil(classes).max(rows.div_ceil(BLOCKS));
    let losses = [const { AtomicU64::new(0) }; BLOCKS];
    let store = |first: usize, loss: f64| losses[first / block].store(loss.to_bits(), Ordering::Relaxed);
    let loss = |i: usize, [total, max]: [f32; 2]| {
        f64::from(total).ln() + (f64::from(max) - f64::from(src[i * classes + labels[i]]))
    };
    match diff_src {
        Some(diff_src) => {
            let cuts = [Cut::whole(1), Cut { unit: rows.max(1), block }, Cut::whole(classes)];
            let diff_src = BlockMut::new(diff_src, [1, rows, classes]);
            diff_src.for_each_piece(cuts, par, &mut [], 0, &|[_, rows, _], mut diff, _| {
                let (first, mut sum) = (rows.start, 0.0);
                for i in rows {
                    let (row, to) = (&src[i * classes..][..classes], diff.row(0, i - first));
                    let sums = dispatch!(isa, s => gradient(s, row, labels[i], scale as f32, to, update));
                    sum += loss(i, sums);
                }
                store(first, sum);
            });
        }
        None => par.for_each(rows.div_ceil(block), &mut [], 0, &|task, _| {
            let (first, mut sum) = (task * block, 0.0);
            for i in first..(first + block).min(rows) {
                let sums = dispatch!(isa, s => sum_and_greatest(s, &src[i * classes..][..classes]));
                sum += loss(i, sums);
            }
            store(first, sum);
        }),
    }
    Ok(losses.iter().map(|loss| f64::from_bits(loss.load(Ordering::Relaxed))).sum::<f64>() * scale)
}

fn rows(operand: &'static str, got: usize, classes: usize) -> Result<(), Error> {
    if classes == 0 {
        return Err(Error::Parameter { parameter: "classes", value: 0, reason: "it must be at least 1" });
    }
    if got.is_multiple_of(classes) {
        return Ok(());
    }
    let shape = format!("rows of {classes} classes");
    let hint = "; it must be a multiple".to_string();
    Err(Error::Length { operand, shape, expected: (got / classes * classes).max(classes), got, hint })
}

fn length(operand: &'static str, expected: usize, classes: usize, got: usize) -> Result<(), Error> {
    if got == expected {
        return Ok(());
    }
    let shape = format!("[{}, {classes}]", expected / classes);
    Err(Error::Length { operand, shape, expected, got, hint: String::new() })
}

/// The greatest logit, or NaN, in every lane.
#[inline(always)]
fn greatest<S: Simd>(s: S, src: &[f32]) -> S::F32 {
    /// Lanes that far apart change places.
    const ORDERS: [[u32; LINE]; 4] = {
        let mut orders = [[0; LINE]; 4];
        let mut i = 0;
        while i < 4 * LINE {
            orders[i / LINE][i % LINE] = (i % LINE) as u32 ^ (8 >> (i / LINE));
            i += 1;
        }
        orders
    };
    let least = s.splat(f32::NEG_INFINITY);
    let (mut most, parts) = (least, src.chunks_exact(S::LANES));
    let rest = parts.remainder();
    for part in parts {
        most = s.max_nan(most, s.load(part));
    }
    if !rest.is_empty() {
        most = s.max_nan(most, s.select(s.between(0, rest.len()), s.load_first(rest), least));
    }
    for order in &ORDERS[LINE.ilog2() as usize - S::LANES.ilog2() as usize..] {
        most = s.max_nan(most, s.permute(most, order));
    }
    most
}

/// The first lane.
#[inline(always)]
fn first<S: Simd>(s: S, x: S::F32) -> f32 {
    let mut lane = [0.0];
    s.store_first(x, &mut lane);
    lane[0]
}

/// `e^(x - max)` of up to a register of logits; lanes beyond them are 0.
#[inline(always)]
fn powers<S: Simd>(s: S, src: &[f32], max: S::F32) -> S::F32 {
    let powers = math::exp(s, s.sub(s.load_first(src), max));
    if src.len() >= S::LANES {
        return powers;
    }
    s.select(s.between(0, src.len()), powers, s.splat(0.0))
}

/// The sum of exponentials of a row, at least one of which is 1, and the greatest logit in every lane.
#[inline(always)]
fn sums<S: Simd>(s: S, src: &[f32]) -> (f32, S::F32) {
    let (max, mut total) = (greatest(s, src), s.splat(0.0));
    for src in src.chunks(S::LANES) {
        total = s.add(total, powers(s, src, max));
    }
    (s.sum(total), max)
}

/// The same; `dst` becomes the exponentials.
#[inline(always)]
fn sums_kept<S: Simd>(s: S, src: &[f32], dst: &mut [f32]) -> (f32, S::F32) {
    let (max, mut total) = (greatest(s, src), s.splat(0.0));
    for (src, dst) in src.chunks(S::LANES).zip(dst.chunks_mut(S::LANES)) {
        let powers = powers(s, src, max);
        s.store_first(powers, dst);
        total = s.add(total, powers);
    }
    (s.sum(total), max)
}

/// The probabilities of a row.
fn row<S: Simd>(s: S, src: &[f32], dst: &mut [f32]) {
    s.vectorize(
        #[inline(always)]
        |s| {
            let (total, _) = sums_kept(s, src, dst);
            for dst in dst.chunks_mut(S::LANES) {
                s.store_first(s.div(s.load_first(dst), s.splat(total)), dst);
            }
        },
    );
}

/// The sum of exponentials of a row and its greatest logit.
fn sum_and_greatest<S: Simd>(s: S, src: &[f32]) -> [f32; 2] {
    s.vectorize(
        #[inline(always)]
        |s| {
            let (total, max) = sums(s, src);
            [total, first(s, max)]
        },
    )
}

/// As [`sum_and_greatest`], and the gradient of the row times `scale`. Where that is replaced, it holds the exponentials on the way; else they are
/// computed twice.
fn gradient<S: Simd>(
    s: S,
    src: &[f32],
    label: usize,
    scale: f32,
    diff: &mut [f32],
    update: Update,
) -> [f32; 2] {
    s.vectorize(
        #[inline(always)]
        |s| {
            let kept = update == Update::Overwrite;
            let before = diff[label];
            let (total, max) = if kept { sums_kept(s, src, diff) } else { sums(s, src) };
            let power = if kept { diff[label] } else { first(s, powers(s, &src[label..=label], max)) };
            for (src, diff) in src.chunks(S::LANES).zip(diff.chunks_mut(S::LANES)) {
                let powers = if kept { s.load_first(diff) } else { powers(s, src, max) };
                let gradient = s.mul(s.div(powers, s.splat(total)), s.splat(scale));
                s.store_first(if kept { gradient } else { s.add(s.load_first(diff), gradient) }, diff);
            }
            let gradient = (power / total - 1.0) * scale;
            diff[label] = if kept { gradient } else { before + gradient };
            [total, first(s, max)]
        },
    )
}
