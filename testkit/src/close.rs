//! Comparators. Every one is written as `!(good)`, so that a NaN is never good, and each refuses data that could not show a fault.

/// How many elements a result needs before [`telling`] judges it.
const JUDGED: usize = 32;

/// Nothing but the differences, the first of them with its place.
fn report(shape: [usize; 4], len: usize, bad: impl Iterator<Item = (usize, String)>) -> Result<(), String> {
    let mut bad = bad.peekable();
    let Some((index, what)) = bad.next() else { return Ok(()) };
    let [_, b, c, d] = shape.map(|x| x.max(1));
    let place = [index / (b * c * d), index / (c * d) % b, index / d % c, index % d];
    Err(format!("at {place:?} of {shape:?}: {what}; {} of {len} elements differ", 1 + bad.count()))
}

fn same_length(got: usize, expected: usize) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("{got} elements, expected {expected}")) }
}

/// Each element is that integer. -0 is 0; nothing else is near enough. `shape` (of the memory order) only names the place.
///
/// # Errors
/// A sentence with the first difference.
pub fn exact(shape: [usize; 4], got: &[f32], expected: &[i64]) -> Result<(), String> {
    same_length(got.len(), expected.len())?;
    let pairs = got.iter().zip(expected).enumerate();
    let bad = pairs.filter(|(_, (got, expected))| !(f64::from(**got) == **expected as f64));
    report(shape, got.len(), bad.map(|(i, (got, expected))| (i, format!("{got}, expected {expected}"))))
}

/// Each element is within its own bound of the reference.
///
/// # Errors
/// A sentence with the first difference.
pub fn within(shape: [usize; 4], got: &[f32], expected: &[f64], bound: &[f64]) -> Result<(), String> {
    same_length(got.len(), expected.len())?;
    same_length(bound.len(), expected.len())?;
    #[expect(clippy::neg_cmp_op_on_partial_ord, reason = "`>` would let a NaN pass")]
    let bad = (0..got.len()).filter(|&i| !((f64::from(got[i]) - expected[i]).abs() <= bound[i]));
    let text = |i: usize| {
        let error = (f64::from(got[i]) - expected[i]).abs();
        format!("{}, expected {}: off by {error:e}, allowed {:e}", got[i], expected[i], bound[i])
    };
    report(shape, got.len(), bad.map(|i| (i, text(i))))
}

/// The same bits; any NaN equals any NaN, because the sign and payload of a computed NaN are not determined.
///
/// # Errors
/// A sentence with the first difference.
pub fn same_bits(shape: [usize; 4], got: &[f32], expected: &[f32]) -> Result<(), String> {
    same_length(got.len(), expected.len())?;
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    let bad = (0..got.len()).filter(|&i| !same(got[i], expected[i]));
    let text = |i: usize| format!("{:e} ({:08x}), expected {:e}", got[i], got[i].to_bits(), expected[i]);
    report(shape, got.len(), bad.map(|i| (i, text(i))))
}

/// Whether a reference can tell a right result from a wrong one: of the elements that are sums of something (`terms` is not zero),
/// at most 70 % are zero, and there are four different values. Fewer than 32 such elements are not judged.
///
/// # Errors
/// Why it cannot.
pub fn telling(expected: &[i64], terms: &[u64]) -> Result<(), String> {
    same_length(expected.len(), terms.len())?;
    let mut sums: Vec<i64> = expected.iter().zip(terms).filter(|(_, n)| **n > 0).map(|(x, _)| *x).collect();
    if sums.len() < JUDGED {
        return Ok(());
    }
    let (zeros, all) = (sums.iter().filter(|x| **x == 0).count(), sums.len());
    sums.sort_unstable();
    sums.dedup();
    if zeros * 10 > all * 7 {
        return Err(format!("vacuous: {zeros} of {all} sums are zero"));
    }
    if sums.len() < 4 {
        return Err(format!("vacuous: only the values {sums:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 4] = [1, 1, 1, 3];

    #[test]
    fn exact_accepts_the_integers_and_minus_zero() {
        assert!(exact(SHAPE, &[1.0, -2.0, 16_777_216.0], &[1, -2, 1 << 24]).is_ok());
        assert!(exact(SHAPE, &[-0.0], &[0]).is_ok());
        assert!(exact([0, 1, 1, 1], &[], &[]).is_ok());
    }

    #[test]
    fn exact_refuses_nan_infinity_neighbours_and_lengths() {
        for wrong in
            [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0f32.next_up(), 1.0f32.next_down(), 0.0]
        {
            assert!(exact(SHAPE, &[wrong], &[1]).is_err(), "{wrong}");
        }
        assert!(exact(SHAPE, &[f32::NAN], &[0]).is_err());
        assert!(exact(SHAPE, &[1.0], &[1, 1]).is_err());
        assert!(exact(SHAPE, &[], &[1]).is_err());
        assert!(exact(SHAPE, &[1.0], &[]).is_err());
        // One more than f32 can hold: the rounded value is not the integer.
        assert!(exact(SHAPE, &[16_777_216.0], &[(1 << 24) + 1]).is_err());
    }

    #[test]
    fn a_difference_is_named_by_its_place() {
        let error =
            exact([2, 2, 2, 2], &[0.0; 16], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 6]).unwrap_err();
        assert_eq!(error, "at [1, 0, 1, 1] of [2, 2, 2, 2]: 0, expected 5; 2 of 16 elements differ");
    }

    #[test]
    fn within_refuses_nan_on_any_side() {
        assert!(within(SHAPE, &[1.0, 2.0], &[1.0, 2.5], &[0.0, 0.5]).is_ok());
        assert!(within(SHAPE, &[2.0], &[2.5], &[0.49]).is_err());
        for (got, expected, bound) in [
            (f32::NAN, 0.0, 1.0),
            (0.0, f64::NAN, 1.0),
            (0.0, 0.0, f64::NAN),
            (f32::INFINITY, f64::INFINITY, 1.0),
            (f32::INFINITY, 0.0, 1e300),
        ] {
            assert!(within(SHAPE, &[got], &[expected], &[bound]).is_err(), "{got} {expected} {bound}");
        }
        // The last of many, and one in the middle: no fold may forget it.
        assert!(within(SHAPE, &[0.0, f32::NAN, 0.0], &[0.0; 3], &[1.0; 3]).is_err());
        assert!(within(SHAPE, &[0.0; 3], &[0.0; 3], &[1.0; 2]).is_err());
        assert!(within(SHAPE, &[0.0; 2], &[0.0; 3], &[1.0; 3]).is_err());
        assert!(within([0, 1, 1, 1], &[], &[], &[]).is_ok());
    }

    #[test]
    fn same_bits_tells_zeros_apart_but_not_nans() {
        assert!(same_bits(SHAPE, &[f32::NAN, 1.0], &[-f32::NAN, 1.0]).is_ok());
        assert!(same_bits(SHAPE, &[0.0], &[-0.0]).is_err());
        assert!(same_bits(SHAPE, &[f32::NAN], &[1.0]).is_err());
        assert!(same_bits(SHAPE, &[1.0], &[f32::NAN]).is_err());
        assert!(same_bits(SHAPE, &[1.0], &[1.0, 1.0]).is_err());
    }

    #[test]
    fn vacuous_references_are_refused() {
        let terms = vec![1; 100];
        let telling_values: Vec<i64> = (0..100).collect();
        assert!(telling(&telling_values, &terms).is_ok());
        assert!(telling(&vec![0; 100], &terms).is_err());
        assert!(telling(&vec![7; 100], &terms).is_err());
        assert!(telling(&telling_values.iter().map(|x| x % 3 + 1).collect::<Vec<_>>(), &terms).is_err());
        assert!(
            telling(&telling_values.iter().map(|x| (x - 71).max(0)).collect::<Vec<_>>(), &terms).is_err()
        );
        // Elements without terms are zero by right, and too few cannot be judged.
        assert!(telling(&vec![0; 100], &vec![0; 100]).is_ok());
        assert!(telling(&[0; 31], &[1; 31]).is_ok());
        assert!(telling(&[], &[]).is_ok());
        assert!(telling(&[1], &[]).is_err());
    }
}
