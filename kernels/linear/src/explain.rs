//! A problem, and how its plan computes, a line for each pass: `fwd: 64 x 1000, sums of 1024, in tiles of 6x16, 512 steps and 128 columns at a time`.

use crate::{FullyConnected, Linear};
use core::fmt;

/// ```
/// use convolve_linear::Linear;
/// assert_eq!(Linear::new(1024, 1000).batch(64).to_string(), "linear 1024 -> 1000, batch 64");
/// ```
impl fmt::Display for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "linear {} -> {}, batch {}", self.in_features, self.out_features, self.batch)
    }
}

/// ```
/// use convolve_linear::Linear;
/// let plan = Linear::new(1024, 1000).batch(64).plan(convolve_simd::Isa::best(), 1)?;
/// assert!(plan.to_string().contains("fwd: 64 x 1000, sums of 1024, in tiles of "), "{plan}");
/// let plan = Linear::new(1024, 1000).plan(convolve_simd::Isa::best(), 1)?;
/// assert!(plan.to_string().contains("fwd: 1 x 1000, sums of 1024, a vector times panels of "), "{plan}");
/// assert!(plan.to_string().ends_with("bwd_w: 1000 x 1024, sums of 1, a column times a row"), "{plan}");
/// # Ok::<(), convolve_core::Error>(())
/// ```
impl fmt::Display for FullyConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, ..] = self.passes();
        let kib = self.workspace_len() as f64 * size_of::<f32>() as f64 / 1024.0;
        write!(f, "{} on {}: {kib:.1} KiB of workspace", self.linear(), first.isa)?;
        for pass in self.passes() {
            let ([rows, columns, depth], kernel) = (pass.size, &pass.kernel);
            write!(f, "\n  {}: {rows} x {columns}, sums of {depth}, ", pass.name)?;
            if self.is_outer(pass) {
                f.write_str("a column times a row")?;
            } else if pass.is_vector() {
                write!(f, "a vector times panels of {} columns", kernel.nr())?;
            } else {
                let (mr, nr, blocking) = (kernel.mr(), kernel.nr(), pass.blocking);
                let (kc, nc) = (blocking.kc, blocking.nc);
                write!(f, "in tiles of {mr}x{nr}, {kc} steps and {nc} columns at a time")?;
            }
        }
        Ok(())
    }
}
