//! Max-unpooling: every value goes back to where its maximum was, and all else is zero.
//!
//! ```text
//! dst = 0,    dst[indices[i]] = src[i]    for i = 0, 1, ..
//! ```
//!
//! A partial inverse of max-pooling (M. Zeiler, R. Fergus, "Visualizing and understanding convolutional networks", 2014), as ONNX's `MaxUnpool`
//! has it: an index counts all numbers of `dst`, over images and channels, so that neither layout nor windows matter here. One pass, bound by memory.

use convolve_core::Error;

/// `dst[indices[i]] = src[i]`, and zero elsewhere. O(elements).
///
/// Where windows overlap, an index may occur more than once, with the same maximum; ONNX does not say what becomes of different values. Here the
/// last one stays.
///
/// For windows side by side whose maxima are known as taps, by [`Pooling::forward_with_indices`](crate::Pooling::forward_with_indices), this is
/// [`Pooling::backward_from_indices`](crate::Pooling::backward_from_indices) with `src` as the gradient.
///
/// # Errors
/// Not one index per value, or an index beyond `dst`, which is then not touched.
///
/// ```
/// use convolve_pool::unpool;
/// let mut dst = [f32::NAN; 8];
/// unpool(&[9.0, 5.0], &[4, 3], &mut dst)?;
/// assert_eq!(dst, [0.0, 0.0, 0.0, 5.0, 9.0, 0.0, 0.0, 0.0]);
/// let error = unpool(&[9.0], &[8], &mut dst).unwrap_err();
/// assert_eq!(error.to_string(), "index = 8: it must be less than the elements of dst");
/// # Ok::<(), convolve_core::Error>(())
/// ```
pub fn unpool(src: &[f32], indices: &[usize], dst: &mut [f32]) -> Result<(), Error> {
    if indices.len() != src.len() {
        let (expected, got, shape) = (src.len(), indices.len(), "the shape of src".into());
        return Err(Error::Length { operand: "indices", shape, expected, got, hint: String::new() });
    }
    if let Some(&value) = indices.iter().find(|&&index| index >= dst.len()) {
        let reason = "it must be less than the elements of dst";
        return Err(Error::Parameter { parameter: "index", value, reason });
    }
    dst.fill(0.0);
    indices.iter().zip(src).for_each(|(&index, &x)| dst[index] = x);
    Ok(())
}
