//! Which CPU this is: what it says of itself, for choosing constants and for keying what was measured on it.

use core::fmt;
use std::sync::OnceLock;

/// Vendor, family, model and stepping of this CPU.
///
/// Prints as one word, `GenuineIntel-6-143-8`, the same on every machine with that CPU; `Apple-unknown` where the CPU does not say which it is.
///
/// ```
/// use convolve_simd::Cpu;
/// assert_eq!(Cpu::named("GenuineIntel", [6, 143, 8]).to_string(), "GenuineIntel-6-143-8");
/// println!("{}", Cpu::identified());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cpu {
    vendor: [u8; 12],
    /// x86-64: the family, extended part included. AArch64: the implementer, where the system was asked and tells, else 0.
    pub family: u32,
    /// x86-64: the model, extended part included. AArch64: the part, else 0.
    pub model: u32,
    /// x86-64: the stepping. AArch64: variant and revision, else 0.
    pub stepping: u32,
}

impl Cpu {
    /// This one, as far as it says itself: on AArch64 the vendor alone. It is asked once (in a virtual machine that takes some microseconds); no file is
    /// read.
    /// ```
    /// assert_eq!(convolve_simd::Cpu::current(), convolve_simd::Cpu::current());
    /// ```
    pub fn current() -> Self {
        static CPU: OnceLock<Cpu> = OnceLock::new();
        *CPU.get_or_init(ask)
    }

    /// This one, as exactly as can be found out: on AArch64 Linux the system is asked as well, in the file that holds the register MIDR, once. macOS tells
    /// it by `sysctl` alone, which takes foreign code, so there it [is not known](Self::is_known).
    /// ```
    /// use convolve_simd::Cpu;
    /// assert_eq!(Cpu::identified().vendor(), Cpu::current().vendor());
    /// ```
    pub fn identified() -> Self {
        static CPU: OnceLock<Cpu> = OnceLock::new();
        *CPU.get_or_init(|| identify(Self::current()))
    }

    /// Whether it says which CPU it is. If not, what was measured on one may be of another of the same vendor.
    /// ```
    /// use convolve_simd::Cpu;
    /// assert!(Cpu::named("ARM", [65, 3340, 49]).is_known() && !Cpu::named("Apple", [0; 3]).is_known());
    /// ```
    pub fn is_known(&self) -> bool {
        [self.family, self.model, self.stepping] != [0; 3]
    }

    /// `GenuineIntel`, `AuthenticAMD`, `Apple`, `ARM`, ...: letters and digits only.
    /// ```
    /// assert!(!convolve_simd::Cpu::current().vendor().is_empty());
    /// ```
    pub fn vendor(&self) -> &str {
        let len = self.vendor.iter().position(|&byte| byte == 0).unwrap_or(self.vendor.len());
        str::from_utf8(&self.vendor[..len]).ok().filter(|vendor| !vendor.is_empty()).unwrap_or("unknown")
    }

    /// One that is only named: for tables and tests.
    /// ```
    /// assert_eq!(convolve_simd::Cpu::named("AuthenticAMD", [25, 97, 2]).to_string(), "AuthenticAMD-25-97-2");
    /// ```
    pub fn named(name: &str, [family, model, stepping]: [u32; 3]) -> Self {
        let mut vendor = [0; 12];
        let letters = name.bytes().filter(u8::is_ascii_alphanumeric);
        vendor.iter_mut().zip(letters).for_each(|(to, letter)| *to = letter);
        Self { vendor, family, model, stepping }
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_known() {
            true => write!(f, "{}-{}-{}-{}", self.vendor(), self.family, self.model, self.stepping),
            false => write!(f, "{}-unknown", self.vendor()),
        }
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn ask() -> Cpu {
    #[allow(unused_unsafe, reason = "newer compilers have it as a safe function")]
    let leaf = |leaf| {
        // SAFETY: every x86-64 CPU has `cpuid`, and it changes nothing that a program can see.
        unsafe { core::arch::x86_64::__cpuid(leaf) }
    };
    let (name, signature) = (leaf(0), leaf(1).eax);
    let letters: Vec<u8> = [name.ebx, name.edx, name.ecx].into_iter().flat_map(u32::to_le_bytes).collect();
    Cpu::named(&String::from_utf8_lossy(&letters), signature_of(signature))
}

/// Family, model and stepping from EAX of leaf 1.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "tested everywhere"))]
#[cfg_attr(miri, allow(dead_code, reason = "Miri has no cpuid"))]
fn signature_of(eax: u32) -> [u32; 3] {
    let bits = |low: u32, count: u32| (eax >> low) & ((1 << count) - 1);
    let (family, model) = (bits(8, 4), bits(4, 4));
    let extended = if family == 6 || family == 15 { bits(16, 4) << 4 } else { 0 };
    [family + if family == 15 { bits(20, 8) } else { 0 }, model + extended, bits(0, 4)]
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn ask() -> Cpu {
    let vendor = match () {
        () if cfg!(target_vendor = "apple") => "Apple",
        () if cfg!(target_arch = "aarch64") => "ARM",
        () => "unknown",
    };
    Cpu::named(vendor, [0; 3])
}

/// Adds what the system tells of a CPU that does not say enough itself.
fn identify(cpu: Cpu) -> Cpu {
    if cpu.is_known() || !cfg!(all(target_arch = "aarch64", target_os = "linux", not(miri))) {
        return cpu;
    }
    let text = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/regs/identification/midr_el1");
    let [family, model, stepping] = text.ok().and_then(|text| midr(&text)).unwrap_or([0; 3]);
    Cpu { family, model, stepping, ..cpu }
}

/// Implementer, part, and variant with revision, from the text of the register.
fn midr(text: &str) -> Option<[u32; 3]> {
    let register = u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()?;
    let bits = |low: u32, count: u32| (register >> low) as u32 & ((1 << count) - 1);
    Some([bits(24, 8), bits(4, 12), bits(20, 4) << 4 | bits(0, 4)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_read_as_the_manuals_say() {
        // Haswell, Sapphire Rapids, Zen 4 (Raphael), Zen 2 (Rome).
        for (eax, expected) in [
            (0x0003_06c3, [6, 60, 3]),
            (0x0008_06f8, [6, 143, 8]),
            (0x00a6_0f12, [25, 97, 2]),
            (0x0083_0f10, [23, 49, 0]),
        ] {
            assert_eq!(signature_of(eax), expected, "{eax:#x}");
        }
    }

    #[test]
    fn registers_of_arm_are_read_as_the_manual_says() {
        // Neoverse N1 r3p1, Neoverse V2 r0p1.
        assert_eq!(midr("0x00000000413fd0c1\n"), Some([0x41, 0xd0c, 0x31]));
        assert_eq!(midr("0x00000000410fd4f1\n"), Some([0x41, 0xd4f, 0x01]));
        assert_eq!(["", "Cortex", "0x"].map(midr), [None; 3]);
    }

    #[test]
    fn what_is_not_known_is_called_so() {
        let cpu = Cpu::named("Apple", [0; 3]);
        assert_eq!((cpu.to_string().as_str(), cpu.is_known()), ("Apple-unknown", false));
        assert_eq!(identify(Cpu::named("Abacus", [1, 2, 3])), Cpu::named("Abacus", [1, 2, 3]));
    }

    #[test]
    fn a_name_is_one_word() {
        assert_eq!(Cpu::named("Vendor \"X\"\nand more", [1, 2, 3]).to_string(), "VendorXandmo-1-2-3");
        assert_eq!(Cpu::named("", [0; 3]).vendor(), "unknown");
    }
}
