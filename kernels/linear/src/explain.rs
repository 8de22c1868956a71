//! How a plan computes, a line for each pass: `fwd: 64 x 1000, sums of 1024, in tiles of 6x16, 512 steps and 128 columns at a time`.

use crate::FullyConnected;
use core::fmt;

/// ```
/// use convolve_linear::Linear;
/// let plan = Linear::new(1024, 1000).batch(64).plan(convolve_simd::Isa::best(), 1)?;
/// assert!(plan.to_string().contains("fwd: 64 x 1000, sums of 1024, in tiles of "), "{plan}");
/// # Ok::<(), convolve_core::Error>(())
/// ```
impl fmt::Display for FullyConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (linear, [first, ..]) = (self.linear(), self.passes());
        let kib = self.workspace_len() as f64 * size_of::<f32>() as f64 / 1024.0;
        let (inputs, outputs, batch) = (linear.in_features, linear.out_features, linear.batch);
        write!(
            f,
            "linear {inputs} -> {outputs}, batch {batch}, on {}: {kib:.1} KiB of workspace",
            first.isa
        )?;
        for pass in self.passes() {
            let ([rows, columns, depth], kernel) = (pass.size, &pass.kernel);
            write!(f, "\n  {}: {rows} x {columns}, sums of {depth}, ", pass.name)?;
            match rows {
                1 => write!(f, "a vector times panels of {} columns", kernel.nr())?,
                _ if depth == 1 => f.write_str("a column times a row")?,
                _ => {
                    let (mr, nr, blocking) = (kernel.mr(), kernel.nr(), pass.blocking);
                    let (kc, nc) = (blocking.kc, blocking.nc);
                    write!(f, "in tiles of {mr}x{nr}, {kc} steps and {nc} columns at a time")?;
                }
            }
        }
        Ok(())
    }
}
