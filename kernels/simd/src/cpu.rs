//! Which CPU this is: what it says of itself, for choosing constants and for keying what was measured on it.

use core::fmt;
use std::sync::OnceLock;

/// Vendor, family, model and stepping of this CPU.
///
/// Prints as one word, `GenuineIntel-6-143-8`, the same on every machine with that CPU.
///
/// ```
/// use convolve_simd::Cpu;
/// let cpu = Cpu::current();
/// assert_eq!(cpu.to_string(), format!("{}-{}-{}-{}", cpu.vendor(), cpu.family, cpu.model, cpu.stepping));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cpu {
    vendor: [u8; 12],
    /// x86-64: the family, extended part included. AArch64: the implementer, where the system tells, else 0.
    pub family: u32,
    /// x86-64: the model, extended part included. AArch64: the part, else 0.
    pub model: u32,
    /// x86-64: the stepping. AArch64: variant and revision, else 0.
    pub stepping: u32,
}

impl Cpu {
    /// This one. The CPU is asked once (in a virtual machine that takes some microseconds).
    /// ```
    /// assert_eq!(convolve_simd::Cpu::current(), convolve_simd::Cpu::current());
    /// ```
    pub fn current() -> Self {
        static CPU: OnceLock<Cpu> = OnceLock::new();
        *CPU.get_or_init(ask)
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
        write!(f, "{}-{}-{}-{}", self.vendor(), self.family, self.model, self.stepping)
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
    if cfg!(target_vendor = "apple") {
        return Cpu::named("Apple", [0; 3]);
    }
    let vendor = if cfg!(target_arch = "aarch64") { "ARM" } else { "unknown" };
    let path = "/sys/devices/system/cpu/cpu0/regs/identification/midr_el1";
    let register = if cfg!(miri) { None } else { std::fs::read_to_string(path).ok() };
    let midr = register.and_then(|text| u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok());
    let bits = |low: u32, count: u32| (midr.unwrap_or(0) >> low) as u32 & ((1 << count) - 1);
    Cpu::named(vendor, [bits(24, 8), bits(4, 12), bits(20, 4) << 4 | bits(0, 4)])
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
    fn a_name_is_one_word() {
        assert_eq!(Cpu::named("Vendor \"X\"\nand more", [1, 2, 3]).to_string(), "VendorXandmo-1-2-3");
        assert_eq!(Cpu::named("", [0; 3]).vendor(), "unknown");
    }
}
