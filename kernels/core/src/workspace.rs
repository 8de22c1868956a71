//! Memory that a plan may scribble on: an aligned arena of floats that the caller owns and reuses.

use crate::Error;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};

/// Floats in a cache line; lanes of a workspace are multiples of it.
pub const LINE: usize = 16;

/// An arena of f32 that starts on a cache line, in [large pages](convolve_simd::large_pages) from 4 MiB on where the system has them. Its contents are garbage
/// before and after every call.
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
        Self::prepared(len, convolve_simd::large_pages)
    }

    /// An arena in pages as the system hands them out unasked, in which the tensors of callers lie.
    pub(crate) fn in_pages_as_they_come(len: usize) -> Result<Self, Error> {
        Self::prepared(len, |_| ())
    }

    /// `prepare` sees the memory before it is written.
    fn prepared(len: usize, prepare: impl Fn(&mut [MaybeUninit<f32>])) -> Result<Self, Error> {
        let mut buffer = Vec::new();
        let padded = len.checked_add(LINE).ok_or(Error::OutOfMemory { floats: len })?;
        buffer.try_reserve_exact(padded).map_err(|_| Error::OutOfMemory { floats: len })?;
        prepare(buffer.spare_capacity_mut());
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
