//! The instruction set of AArch64.

#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(target_arch = "aarch64")]
pub use self::neon::Neon;

#[cfg(not(target_arch = "aarch64"))]
absent! {
    /// The token for NEON; this architecture does not have it.
    Neon = "neon", 32 registers of 4 lanes
}
