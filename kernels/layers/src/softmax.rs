//! Softmax and the cross-entropy loss on it, stable: the greatest logit is taken from all others first.
//!
//! ```text
//! p[k] = e^(x[k] - m) / sum over j of e^(x[j] - m),    m = max over j of x[j]
//! loss = -log p[label] = log(sum over j of e^(x[j] - m)) + m - x[label]
//! d loss / d x[k] = p[k] - (1 if k is the label)
//! ```

use crate::math;
use convolve_core::{Error, Update};
use convolve_simd::{Isa, Simd, dispatch};

/// `dst[n, k] = e^src[n, k] / sum over j of e^src[n, j]`: rows of `classes` numbers become probabilities. O(elements).
///
/// A logit of -inf has probability 0. A row with NaN or +inf, or of nothing but -inf, becomes NaN.
///
/// # Errors
/// No classes, a length that is not a number of rows, or slices of different lengths.
///
/// ```
/// use convolve_layers::softmax;
/// use convolve_simd::Isa;
/// let mut dst = [0.0; 4];
/// softmax(&[1000.0, 1000.0, 0.0, f32::NEG_INFINITY], 2, &mut dst, Isa::best())?;
/// assert_eq!(dst, [0.5, 0.5, 1.0, 0.0]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
pub fn softmax(src: &[f32], classes: usize, dst: &mut [f32], isa: Isa) -> Result<(), Error> {
    rows("src", src.len(), classes)?;
    length("dst", src.len(), classes, dst.len())?;
    for (src, dst) in src.chunks_exact(classes).zip(dst.chunks_exact_mut(classes)) {
        dispatch!(isa, s => row(s, src, dst));
    }
    Ok(())
}

/// The mean cross-entropy of rows of `classes` logits, and its gradient: `diff_src = (softmax(src) - one hot label) / rows`. O(elements).
///
/// Losses are summed in f64, row by row. Of no rows the loss is 0.
///
/// # Errors
/// As [`softmax`]; not one label per row, or a label that is no class.
///
/// ```
/// use convolve_core::Update;
/// use convolve_layers::cross_entropy;
/// use convolve_simd::Isa;
/// let mut diff_src = [0.0; 4];
/// let loss = cross_entropy(&[0.0, 0.0, 100.0, 0.0], 2, &[1, 0], Some(&mut diff_src), Update::Overwrite, Isa::best())?;
/// assert_eq!((loss, diff_src), (0.5 * std::f64::consts::LN_2, [0.25, -0.25, 0.0, 0.0]));
/// # Ok::<(), convolve_core::Error>(())
/// ```
pub fn cross_entropy(
    src: &[f32],
    classes: usize,
    labels: &[usize],
    mut diff_src: Option<&mut [f32]>,
    update: Update,
    isa: Isa,
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
    let (mut sum, scale) = (0.0, 1.0 / labels.len().max(1) as f64);
    // The gradient, where it is replaced, holds the probabilities on the way.
    let own = diff_src.is_none() || update == Update::Accumulate;
    let mut row_of = vec![0.0; if own { classes } else { 0 }];
    for (i, (src, &label)) in src.chunks_exact(classes).zip(labels).enumerate() {
        let diff = diff_src.as_deref_mut().map(|diff| &mut diff[i * classes..][..classes]);
        let gradient = |k: usize, p: f32| (p - f32::from(u8::from(k == label))) * scale as f32;
        let [total, max] = match diff {
            Some(diff) if !own => {
                let sums = dispatch!(isa, s => row(s, src, diff));
                diff.iter_mut().enumerate().for_each(|(k, p)| *p = gradient(k, *p));
                sums
            }
            diff => {
                let sums = dispatch!(isa, s => row(s, src, &mut row_of));
                let added = diff.into_iter().flatten().zip(&row_of).enumerate();
                added.for_each(|(k, (to, p))| *to += gradient(k, *p));
                sums
            }
        };
        sum += f64::from(total).ln() + (f64::from(max) - f64::from(src[label]));
    }
    Ok(sum * scale)
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
    Err(Error::Length { operand, shape, expected: got / classes * classes, got, hint })
}

fn length(operand: &'static str, expected: usize, classes: usize, got: usize) -> Result<(), Error> {
    if got == expected {
        return Ok(());
    }
    let shape = format!("[{}, {classes}]", expected / classes);
    Err(Error::Length { operand, shape, expected, got, hint: String::new() })
}

/// One row; gives the sum of exponentials and the greatest logit. At least one of the exponentials is 1.
fn row<S: Simd>(s: S, src: &[f32], dst: &mut [f32]) -> [f32; 2] {
    s.vectorize(
        #[inline(always)]
        |s| {
            let max =
                src.iter().fold(f32::NEG_INFINITY, |max, x| if *x > max || x.is_nan() { *x } else { max });
            let mut total = s.splat(0.0);
            for (src, dst) in src.chunks(S::LANES).zip(dst.chunks_mut(S::LANES)) {
                s.store_first(math::exp(s, s.sub(s.load_first(src), s.splat(max))), dst);
                // Lanes beyond the end are zeros again.
                total = s.add(total, s.load_first(dst));
            }
            let total = s.sum(total);
            for dst in dst.chunks_mut(S::LANES) {
                s.store_first(s.div(s.load_first(dst), s.splat(total)), dst);
            }
            [total, max]
        },
    )
}
