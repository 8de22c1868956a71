//! Memory that a plan may scribble on: an aligned arena of floats that the caller owns and reuses.

use crate::Error;
use core::ops::{Deref, DerefMut};

/// Floats in a cache line; lanes of a workspace are multiples of it.
pub const LINE: usize = 16;

/// An arena of f32 that starts on a cache line. Its contents are garbage before and after every call.
///
/// ```
/// use convolve_core::Workspace;
/// let workspace = Workspace::new(1000)?;
/// assert_eq!(workspace.len(), 1000);
/// assert!(workspace.as_ptr().is_aligned_to_line());
/// # trait Aligned { fn is_aligned_to_line(&self) -> bool; }
/// # impl Aligned for *const f32 { fn is_aligned_to_line(&self) -> bool { self.align_offset(64) == 0 } }
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Workspace {
    buffer: Vec<f32>,
    start: usize,
    len: usize,
}

impl Workspace {
    /// An arena of `len` floats.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when the system does not give that much.
    pub fn new(len: usize) -> Result<Self, Error> {
        let mut buffer = Vec::new();
        let padded = len.checked_add(LINE).ok_or(Error::OutOfMemory { floats: len })?;
        buffer.try_reserve_exact(padded).map_err(|_| Error::OutOfMemory { floats: len })?;
        buffer.resize(padded, 0.0);
        let start = buffer.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        Ok(Self { buffer, start, len })
    }
}

impl Deref for Workspace {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.buffer[self.start..][..self.len]
    }
}

impl DerefMut for Workspace {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[self.start..][..self.len]
    }
}

/// Rounds a number of floats up to whole cache lines.
///
/// ```
/// assert_eq!(convolve_core::lines(17), 32);
/// ```
pub const fn lines(len: usize) -> usize {
    len.next_multiple_of(LINE)
}
