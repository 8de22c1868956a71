//! Which instruction set to use: [`Isa`], what this CPU has, and the choice of the user.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::str::FromStr;
use std::sync::OnceLock;

use crate::{Avx2, Avx512, Neon, Portable, Simd};

/// An instruction set that this CPU has: the token that proves it.
///
/// It compares, hashes and prints as its [`name`](Isa::name), and parses from it.
///
/// ```
/// use convolve_simd::{Isa, Portable};
/// let isa: Isa = "portable".parse()?;
/// assert_eq!(isa, Isa::Portable(Portable::new()));
/// assert_eq!(isa.to_string(), "portable");
/// # Ok::<(), convolve_simd::IsaError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Isa {
    /// What every CPU of the target has.
    Portable(Portable),
    /// x86-64 with AVX2 and FMA.
    Avx2(Avx2),
    /// x86-64 with AVX-512 F, VL, BW and DQ.
    Avx512(Avx512),
    /// AArch64.
    Neon(Neon),
}

/// Evaluates an expression for whichever instruction set an [`Isa`] is: `s` is its token.
///
/// The expression is compiled once for each instruction set, so keep it to one generic call.
///
/// ```
/// use convolve_simd::{Isa, Simd, dispatch};
/// fn lanes<S: Simd>(_: S) -> usize {
///     S::LANES
/// }
/// let isa = Isa::best();
/// assert_eq!(dispatch!(isa, s => lanes(s)), isa.lanes());
/// ```
#[macro_export]
macro_rules! dispatch {
    ($isa:expr, $s:ident => $body:expr) => {
        match $isa {
            $crate::Isa::Portable($s) => $body,
            $crate::Isa::Avx2($s) => $body,
            $crate::Isa::Avx512($s) => $body,
            $crate::Isa::Neon($s) => $body,
        }
    };
}

/// The environment variable that [`Isa::from_env`] reads.
const VARIABLE: &str = "CONVOLVE_ISA";

/// All names, worst to best on each architecture.
pub(crate) const NAMES: [&str; 4] = [Portable::NAME, Neon::NAME, Avx2::NAME, Avx512::NAME];

impl Isa {
    /// The name: `portable`, `avx2`, `avx512` or `neon`.
    ///
    /// ```
    /// use convolve_simd::{Isa, Portable};
    /// assert_eq!(Isa::Portable(Portable::new()).name(), "portable");
    /// ```
    pub fn name(self) -> &'static str {
        fn name<S: Simd>(_: S) -> &'static str {
            S::NAME
        }
        dispatch!(self, s => name(s))
    }

    /// How many `f32` a register holds.
    ///
    /// ```
    /// use convolve_simd::Isa;
    /// assert!([4, 8, 16].contains(&Isa::best().lanes()));
    /// ```
    pub fn lanes(self) -> usize {
        fn lanes<S: Simd>(_: S) -> usize {
            S::LANES
        }
        dispatch!(self, s => lanes(s))
    }

    /// The instruction sets this CPU has, worst to best; never empty.
    ///
    /// The CPU is asked once.
    ///
    /// ```
    /// use convolve_simd::Isa;
    /// assert_eq!(Isa::available()[0].name(), "portable");
    /// ```
    pub fn available() -> &'static [Isa] {
        static AVAILABLE: OnceLock<Vec<Isa>> = OnceLock::new();
        AVAILABLE.get_or_init(|| {
            [
                Some(Isa::Portable(Portable::new())),
                Neon::detect().map(Isa::Neon),
                Avx2::detect().map(Isa::Avx2),
                Avx512::detect().map(Isa::Avx512),
            ]
            .into_iter()
            .flatten()
            .collect()
        })
    }

    /// The best instruction set this CPU has, whatever the environment says.
    ///
    /// ```
    /// use convolve_simd::Isa;
    /// assert_eq!(Some(&Isa::best()), Isa::available().last());
    /// ```
    pub fn best() -> Isa {
        *Isa::available().last().expect("`portable` is always available")
    }

    /// The instruction set with this name.
    ///
    /// # Errors
    /// When there is none with this name, or this CPU lacks it.
    ///
    /// ```
    /// use convolve_simd::Isa;
    /// assert_eq!(Isa::by_name("portable")?.lanes(), 4);
    /// assert!(Isa::by_name("3dnow").is_err());
    /// # Ok::<(), convolve_simd::IsaError>(())
    /// ```
    pub fn by_name(name: &str) -> Result<Isa, IsaError> {
        let available = Isa::available();
        let unfit = || match NAMES.contains(&name) {
            true => IsaError::Unavailable {
                name: name.into(),
                available: list(available.iter().map(|isa| isa.name())),
            },
            false => IsaError::Unknown { name: name.into() },
        };
        available.iter().copied().find(|isa| isa.name() == name).ok_or_else(unfit)
    }

    /// The instruction set that the environment variable `CONVOLVE_ISA` names, and without it
    /// (or when it is empty) the best.
    ///
    /// ```
    /// use convolve_simd::Isa;
    /// let isa = Isa::from_env()?;
    /// assert!(Isa::available().contains(&isa));
    /// # Ok::<(), convolve_simd::IsaError>(())
    /// ```
    ///
    /// # Errors
    /// As [`by_name`](Isa::by_name): the variable may lower the choice, never raise it beyond what
    /// the CPU has.
    pub fn from_env() -> Result<Isa, IsaError> {
        let request = std::env::var_os(VARIABLE);
        choose(request.as_ref().map(|name| name.to_string_lossy()).as_deref())
    }
}

/// What [`Isa::from_env`] does with the value of the variable.
pub(crate) fn choose(request: Option<&str>) -> Result<Isa, IsaError> {
    match request {
        None | Some("") => Ok(Isa::best()),
        Some(name) => Isa::by_name(name),
    }
}

/// `a, b, c`.
fn list(names: impl IntoIterator<Item = &'static str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}

impl PartialEq for Isa {
    fn eq(&self, other: &Isa) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Isa {}

impl Hash for Isa {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Isa {
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Isa, IsaError> {
        Isa::by_name(name)
    }
}

/// Why there is no [`Isa`] to a name.
///
/// ```
/// use convolve_simd::{Isa, IsaError};
/// let error = Isa::by_name("sse9").unwrap_err();
/// assert!(matches!(error, IsaError::Unknown { .. }));
/// assert_eq!(
///     error.to_string(),
///     "`sse9` is no instruction set; known are: portable, neon, avx2, avx512",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IsaError {
    /// No instruction set has this name.
    #[error("`{name}` is no instruction set; known are: {}", list(NAMES))]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// The instruction set exists, but not on this CPU.
    #[error(
        "this CPU has no `{name}`; available here: {available}; {VARIABLE} may lower the choice, never raise it"
    )]
    Unavailable {
        /// The name asked for.
        name: String,
        /// The names that would have done.
        available: String,
    },
}
