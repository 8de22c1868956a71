//! What a machine can do, in a dozen constants: shipped for the common CPUs, or measured on request.
//!
//! Estimates count cycles. [`Machine`] says how long a cycle is, how many fused multiply-adds fit into one, how large the caches are and how
//! fast they deliver, and what it costs to wake threads. Nothing here is measured unless [`Machine::calibrate`] is called.

use crate::{Caches, Geometry, Par, Workspace};
use convolve_simd::{Cpu, Isa, fused, loads};
use core::hint::black_box;
use std::time::{Duration, Instant};

/// A dozen constants of a machine; rates are those of one core.
///
/// ```
/// use convolve_core::Machine;
/// use convolve_simd::Isa;
/// let machine = Machine::native();
/// println!("{}: {:.0} GFLOP/s, L2 {} KiB", machine.name, machine.peak(Isa::best()), machine.caches.l2 >> 10);
/// # assert!(machine.peak(Isa::best()) > 0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// The kind of core: `Zen 4`, `Sapphire Rapids`, ...
    pub name: &'static str,
    /// Cycles in a nanosecond under vector load.
    pub ghz: f64,
    /// Vectors of fused multiply-adds in a cycle: portable, NEON, AVX2, AVX-512.
    pub fma: [f64; 4],
    /// Sizes of the caches.
    pub caches: Caches,
    /// Bytes read in a nanosecond from L1, L2, the last level, memory.
    pub bandwidth: [f64; 4],
    /// Nanoseconds to wake the threads of a pool and to wait for them.
    pub fork_ns: f64,
    /// Nanoseconds to hand one more task to a thread that is awake.
    pub task_ns: f64,
}

const fn caches(l1: usize, l2: usize, l3: usize) -> Caches {
    Caches { l1: l1 << 10, l2: l2 << 10, l3: l3 << 10 }
}

/// Constants of the maker's manuals and of published measurements; the clock is that of a server with vectors at work.
const fn shipped(
    name: &'static str,
    ghz: f64,
    fma: [f64; 4],
    caches: Caches,
    bytes_per_cycle: [f64; 3],
    memory: f64,
) -> Machine {
    let [l1, l2, l3] = bytes_per_cycle;
    let bandwidth = [l1 * ghz, l2 * ghz, l3 * ghz, memory];
    Machine { name, ghz, fma, caches, bandwidth, fork_ns: 3000.0, task_ns: 30.0 }
}

impl Machine {
    /// What estimates assume where the CPU is not known: 3.5 GHz, two vector units, small caches.
    pub const GENERIC: Self =
        shipped("generic", 3.5, [1.0, 2.0, 2.0, 2.0], caches(32, 512, 4096), [64.0, 32.0, 16.0], 12.0);
    /// AMD Zen 2 and Zen 3.
    pub const ZEN3: Self =
        shipped("Zen 2/3", 3.5, [2.0, 0.0, 2.0, 0.0], caches(32, 512, 4096), [64.0, 32.0, 16.0], 15.0);
    /// AMD Zen 4, server: AVX-512 in two halves; as [`calibrate`](Self::calibrate) finds it on an EPYC with all cores at work, but for the share of the
    /// last level and the costs of threads.
    pub const ZEN4: Self =
        shipped("Zen 4", 3.65, [1.9, 0.0, 2.0, 1.0], caches(32, 1024, 4096), [59.0, 32.0, 26.0], 16.0);
    /// AMD Zen 5, server: as [`calibrate`](Self::calibrate) finds it on an EPYC with all cores at work, but for the share of the last level and the
    /// costs of threads.
    pub const ZEN5: Self =
        shipped("Zen 5", 4.1, [1.9, 0.0, 2.0, 2.0], caches(48, 1024, 4096), [125.0, 64.0, 31.0], 45.0);
    /// Intel Haswell, Broadwell and Skylake client.
    pub const HASWELL: Self =
        shipped("Haswell", 3.2, [1.0, 0.0, 2.0, 0.0], caches(32, 256, 2048), [64.0, 28.0, 12.0], 10.0);
    /// Intel Alder Lake and later clients: AVX2 only.
    pub const ALDER_LAKE: Self =
        shipped("Alder Lake", 4.5, [1.5, 0.0, 2.0, 0.0], caches(48, 1280, 3072), [64.0, 40.0, 10.0], 20.0);
    /// Intel Skylake-X and Cascade Lake.
    pub const SKYLAKE_X: Self =
        shipped("Skylake-X", 2.8, [1.0, 0.0, 2.0, 2.0], caches(32, 1024, 1408), [128.0, 48.0, 8.0], 10.0);
    /// Intel Ice Lake, server.
    pub const ICE_LAKE: Self =
        shipped("Ice Lake", 2.9, [1.0, 0.0, 2.0, 2.0], caches(48, 1280, 1536), [128.0, 48.0, 8.0], 12.0);
    /// Intel Sapphire, Emerald and Granite Rapids.
    pub const SAPPHIRE_RAPIDS: Self = shipped(
        "Sapphire Rapids",
        3.1,
        [1.5, 0.0, 2.0, 2.0],
        caches(48, 2048, 1920),
        [128.0, 48.0, 8.0],
        12.0,
    );
    /// Arm Neoverse N1 and its successors.
    pub const NEOVERSE: Self =
        shipped("Neoverse", 2.6, [2.0, 2.0, 0.0, 0.0], caches(64, 1024, 1024), [32.0, 16.0, 8.0], 15.0);
    /// Apple's large cores.
    pub const APPLE: Self =
        shipped("Apple", 3.2, [4.0, 4.0, 0.0, 0.0], caches(128, 3072, 2048), [48.0, 32.0, 16.0], 50.0);

    /// The shipped constants of a CPU, by vendor, family and model alone; [`GENERIC`](Self::GENERIC) if it is not known.
    /// ```
    /// use convolve_core::Machine;
    /// use convolve_simd::Cpu;
    /// assert_eq!(Machine::of(Cpu::named("AuthenticAMD", [25, 97, 2])), Machine::ZEN4);
    /// assert_eq!(Machine::of(Cpu::named("Abacus", [1, 2, 3])), Machine::GENERIC);
    /// ```
    pub fn of(cpu: Cpu) -> Self {
        match (cpu.vendor(), cpu.family, cpu.model) {
            ("AuthenticAMD", 0x17, 0x30..) => Self::ZEN3,
            ("AuthenticAMD", 0x19, 0x10..=0x1f | 0x60..=0x7f | 0xa0..=0xaf) => Self::ZEN4,
            ("AuthenticAMD", 0x19, _) => Self::ZEN3,
            ("AuthenticAMD", 0x1a, _) => Self::ZEN5,
            ("GenuineIntel", 6, 0x8f | 0xcf | 0xad | 0xae) => Self::SAPPHIRE_RAPIDS,
            ("GenuineIntel", 6, 0x6a | 0x6c | 0x7d | 0x7e | 0x8c | 0x8d | 0xa7) => Self::ICE_LAKE,
            ("GenuineIntel", 6, 0x55) => Self::SKYLAKE_X,
            ("GenuineIntel", 6, 0x97 | 0x9a | 0xaa | 0xac | 0xb7 | 0xba | 0xbf | 0xc5 | 0xc6 | 0xbd) => {
                Self::ALDER_LAKE
            }
            ("GenuineIntel", 6, 0x3c..=0x5e | 0x8e | 0x9e | 0xa5 | 0xa6) => Self::HASWELL,
            ("Apple", ..) => Self::APPLE,
            ("ARM", ..) => Self::NEOVERSE,
            _ => Self::GENERIC,
        }
    }

    /// The shipped constants of this CPU. Measures nothing and reads no file.
    /// ```
    /// assert_eq!(convolve_core::Machine::native(), convolve_core::Machine::native());
    /// ```
    pub fn native() -> Self {
        Self::of(Cpu::current())
    }

    /// How much longer than on [`GENERIC`](Self::GENERIC) it takes to move operands that L1 does not hold, in vectors of so many lanes. Half of it is
    /// instructions: at the clock's rate, or at that of L1 where it takes longer than half a cycle for a vector (Zen 4 and AVX-512, of which it reads
    /// halves). Half is bytes, from L2 or the last level: estimates do not say from which, so it is the geometric mean of the two bandwidths.
    pub(crate) fn moving(&self, lanes: usize) -> f64 {
        let slower = |level: usize| Self::GENERIC.bandwidth[level] / self.bandwidth[level];
        let vectors_in_ns = self.bandwidth[0] / (lanes * size_of::<f32>()) as f64;
        let instructions = Self::GENERIC.ghz / self.ghz.min(vectors_in_ns / 2.0);
        (instructions + (slower(1) * slower(2)).sqrt()) / 2.0
    }

    /// What it takes at least to bring near and to write, once, tensors that L2 does not hold: a line that is written is read before, so half of them count
    /// twice. What the last level does not hold moves by its [`traffic`](crate::Estimate::traffic).
    /// Each thread has its way to the last level, and two fill that to memory.
    pub(crate) fn moved_ns(&self, geometry: &Geometry, threads: usize, traffic: f64) -> f64 {
        let (bytes, threads) = (tensor_bytes(geometry) as f64, threads.max(1));
        if !self.caches.hold(geometry) {
            traffic * bytes / self.bandwidth[3] / threads.min(2) as f64
        } else if tensor_bytes(geometry) > self.caches.l2.saturating_mul(threads) {
            1.5 * bytes / self.bandwidth[2] / threads as f64
        } else {
            0.0
        }
    }

    /// What it takes to read tensors once, as far as L2 does not hold them, for who comes back to them after so many nanoseconds. The last level is
    /// shared: what is not touched for long is gone, half of it after [`KEPT_NS`], and comes from memory.
    pub(crate) fn far_ns(&self, geometry: &Geometry, threads: usize, after: f64) -> f64 {
        let threads = threads.max(1);
        let far = tensor_bytes(geometry).saturating_sub(self.caches.l2.saturating_mul(threads));
        far as f64 / self.bandwidth[3] / threads.min(2) as f64 * after / (after + KEPT_NS)
    }

    /// Vectors of fused multiply-adds that a core does in a cycle with that instruction set.
    /// ```
    /// assert_eq!(convolve_core::Machine::GENERIC.fma(convolve_simd::Isa::available()[0]), 1.0);
    /// ```
    pub fn fma(&self, isa: Isa) -> f64 {
        self.fma[slot(isa)]
    }

    /// Peak of one core with that instruction set, in 1e9 floating-point operations a second.
    /// ```
    /// use convolve_core::Machine;
    /// let portable = convolve_simd::Isa::available()[0];
    /// assert_eq!(Machine::GENERIC.peak(portable), 28.0); // 3.5 GHz, one multiplication and addition, four lanes
    /// ```
    pub fn peak(&self, isa: Isa) -> f64 {
        2.0 * isa.lanes() as f64 * self.fma[slot(isa)] * self.ghz
    }

    /// The constants as they are here and now, in about a second: peak of every instruction set, bandwidths, what waking the current
    /// pool costs, and the cache sizes that the system tells (Linux). What cannot be found out stays as shipped. Call it when nothing
    /// else runs; a core at half its clock gives half the figures. The name stays that of the shipped constants, as the kind of core does: what differs
    /// from them is in the figures.
    ///
    /// ```no_run
    /// use convolve_core::Machine;
    /// println!("{:#?}", Machine::calibrate());
    /// ```
    pub fn calibrate() -> Self {
        let mut this = Self::native();
        let best = Isa::best();
        let peaks: Vec<(Isa, f64)> = Isa::available()
            .iter()
            .map(|&isa| (isa, rate(Duration::from_millis(60), || fused(isa, 400))))
            .collect();
        // Multiply-adds tell only the product of clock and units: the units of the best instruction set are taken from the table.
        let units = if this.fma[slot(best)] > 0.0 { this.fma[slot(best)] } else { 2.0 };
        let of_best = peaks.last().map_or(0.0, |&(_, peak)| peak);
        this.ghz = of_best / (2.0 * best.lanes() as f64 * units);
        for (isa, peak) in peaks {
            this.fma[slot(isa)] = peak / (2.0 * isa.lanes() as f64 * this.ghz);
        }
        this.caches = system_caches().unwrap_or(this.caches);
        let Caches { l1, l2, l3 } = this.caches;
        let sizes = [l1 / 2, l2 / 2, (2 * l2).max(l3 / 2), (4 * l3).clamp(64 << 20, 128 << 20)];
        for (bandwidth, bytes) in this.bandwidth.iter_mut().zip(sizes) {
            // Where the memory for it is missing, the constant stays.
            if let Ok(data) = Workspace::in_pages_as_they_come(bytes / size_of::<f32>()) {
                // Reading the clock takes as long as reading all of L1.
                let times = (1usize << 20).div_ceil(bytes);
                *bandwidth = rate(Duration::from_millis(60), || (0..times).map(|_| loads(best, &data)).sum());
            }
        }
        let threads = Par::Current.threads();
        if threads > 1 {
            let fork = |tasks: usize, each: Duration| {
                let runs = (0..200).map(|_| {
                    let begin = Instant::now();
                    Par::Current.for_each(tasks, &mut [], 0, &|task, _| {
                        let begin = Instant::now();
                        while !each.is_zero() && begin.elapsed() < each {
                            black_box(task);
                        }
                    });
                    begin.elapsed().as_nanos() as f64
                });
                median(runs.collect())
            };
            // Tasks so long that every thread gets one: a thread that is awake takes short ones alone.
            let each = Duration::from_micros(50);
            this.fork_ns = (fork(threads, each) - each.as_nanos() as f64).max(1.0);
            let many = 64 * threads;
            let [few, more] = [threads, many + threads].map(|tasks| fork(tasks, Duration::ZERO));
            this.task_ns = ((more - few) / many as f64).max(1.0);
        }
        this
    }
}

/// After so long half of what the last level held counts as gone to make room for others: fitted to the times of the report on Zen 4 in a virtual machine, not measured
/// by itself, and not tried elsewhere.
const KEPT_NS: f64 = 1e6;

/// What is read and what is written.
pub(crate) fn tensor_bytes(geometry: &Geometry) -> usize {
    geometry.src_len().saturating_add(geometry.dst_len()).saturating_mul(size_of::<f32>())
}

fn slot(isa: Isa) -> usize {
    match isa {
        Isa::Portable(_) => 0,
        Isa::Neon(_) => 1,
        Isa::Avx2(_) => 2,
        Isa::Avx512(_) => 3,
    }
}

/// The best rate of `work` per nanosecond: of windows, as a window can look too slow but not too fast.
fn rate(time: Duration, work: impl Fn() -> usize) -> f64 {
    let (begin, mut best) = (Instant::now(), 0.0f64);
    while begin.elapsed() < time {
        let window = Instant::now();
        let mut done = 0;
        while window.elapsed() < Duration::from_micros(20) {
            done += work();
        }
        best = best.max(done as f64 / window.elapsed().as_nanos() as f64);
    }
    best
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The caches of the first core as Linux tells them. Of the last level, the share of a thread; at most 16 MiB, as a virtual machine
/// shows all of a cache that it has to share with others.
fn system_caches() -> Option<Caches> {
    const MOST: usize = 16 << 20;
    let mut levels = [None; 3];
    for index in 0..8 {
        let read = |file: &str| {
            let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}");
            std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
        };
        let (Some(level), Some(kind), Some(size)) = (read("level"), read("type"), read("size")) else {
            continue;
        };
        let level: usize = level.parse().ok()?;
        if kind != "Instruction" && (1..=3).contains(&level) {
            let sharing = read("shared_cpu_list").map_or(1, |list| cpus_of(&list));
            levels[level - 1] = Some((bytes_of(&size)?, sharing));
        }
    }
    let [Some((l1, _)), Some((l2, _)), l3] = levels else { return None };
    let l3 = l3.map_or(l2, |(size, sharing)| (size / sharing).min(MOST));
    Some(Caches { l1, l2, l3 })
}

/// `48K`, `2M` in bytes.
fn bytes_of(size: &str) -> Option<usize> {
    let (number, shift) = match size.as_bytes().last()? {
        b'K' => (&size[..size.len() - 1], 10),
        b'M' => (&size[..size.len() - 1], 20),
        _ => (size, 0),
    };
    number
        .parse::<usize>()
        .ok()
        .filter(|&number| number > 0 && number < 1 << 30)
        .map(|number| number << shift)
}

/// How many CPUs a list such as `0-3,8` names; at least 1.
fn cpus_of(list: &str) -> usize {
    let number = |text: &str| text.parse::<usize>().ok();
    let count = |part: &str| match part.split_once('-') {
        Some((first, last)) => Some(number(last)?.checked_sub(number(first)?)?.saturating_add(1)),
        None => number(part).map(|_| 1),
    };
    list.split(',').filter_map(count).fold(0, usize::saturating_add).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_linux_are_read() {
        assert_eq!(
            ["48K", "2M", "512", "", "0K", "9x"].map(bytes_of),
            [Some(48 << 10), Some(2 << 20), Some(512), None, None, None]
        );
        assert_eq!(["0", "0-3", "0-1,8-9", "", "3-1", "x"].map(cpus_of), [1, 4, 4, 1, 1, 1]);
    }

    #[test]
    fn calibration_gives_numbers_and_keeps_the_name() {
        let machine = Machine::calibrate();
        assert_eq!(machine.name, Machine::native().name);
        assert!(
            machine.ghz > 0.0 && Isa::available().iter().all(|&isa| machine.peak(isa) > 0.0),
            "{machine:?}"
        );
        assert!(machine.bandwidth.iter().all(|&rate| rate > 0.0), "{machine:?}");
        let Caches { l1, l2, .. } = machine.caches;
        assert!(l1 > 0 && l2 >= l1, "{machine:?}");
    }

    #[test]
    fn a_core_that_reads_halves_takes_longer_to_move_whole_vectors() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} is not {b}");
        let bytes = |machine: Machine| (112.0 / machine.bandwidth[1] * 56.0 / machine.bandwidth[2]).sqrt();
        // 64 bytes a cycle: two vectors of AVX2, one of AVX-512.
        close(Machine::GENERIC.moving(8), 1.0);
        close(Machine::GENERIC.moving(16), 1.5);
        // Short vectors wait for the clock.
        close(Machine::ZEN4.moving(4), (3.5 / 3.65 + bytes(Machine::ZEN4)) / 2.0);
        close(Machine::ZEN4.moving(16), (3.5 * 128.0 / (59.0 * 3.65) + bytes(Machine::ZEN4)) / 2.0);
        // 128 bytes a cycle.
        close(Machine::SKYLAKE_X.moving(16), (3.5 / 2.8 + bytes(Machine::SKYLAKE_X)) / 2.0);
    }

    #[test]
    fn what_left_the_caches_is_waited_for_and_what_is_held_is_not() {
        let on = |size: usize, exposed: f64, traffic: f64| {
            let geometry = crate::Conv2d::new(64, 64, 3).input(size).padding(1).geometry().unwrap();
            let (isa, accuracy, machine) = (Isa::available()[0], crate::Accuracy::Strict, Machine::GENERIC);
            let problem = crate::Problem {
                geometry,
                isa,
                threads: 1,
                accuracy,
                caches: machine.caches,
                machine,
                rank: 0,
            };
            let estimate = crate::Estimate::new([1e6, 0.0, 0.0], &crate::Tasks::line(1, 1), 1);
            crate::Estimate { exposed, traffic, ..estimate }.on(&problem).alone
        };
        // 0.4 MB, 13 MB, 128 MB; L2 of 0.5 MB, a last level of 32.
        assert_eq!(on(28, 0.0, 2.0), on(28, 9.0, 9.0));
        assert!(on(160, 1.0, 2.0) > on(160, 0.0, 2.0) && on(160, 2.0, 2.0) > on(160, 1.0, 2.0));
        assert_eq!(on(160, 0.0, 2.0), on(160, 0.0, 9.0));
        assert!(on(500, 0.0, 2.0) > 1.5 * on(500, 0.0, 1.2));
    }

    #[test]
    fn well_known_cpus_have_their_constants() {
        for (cpu, name) in [
            (("GenuineIntel", [6, 0xcf, 2]), "Sapphire Rapids"),
            (("GenuineIntel", [6, 0x55, 7]), "Skylake-X"),
            (("GenuineIntel", [6, 0x6a, 6]), "Ice Lake"),
            (("GenuineIntel", [6, 0x3f, 2]), "Haswell"),
            (("GenuineIntel", [6, 0x9e, 2]), "Haswell"),
            (("AuthenticAMD", [0x17, 0x31, 0]), "Zen 2/3"),
            (("AuthenticAMD", [0x19, 0x01, 1]), "Zen 2/3"),
            (("AuthenticAMD", [0x19, 0x11, 1]), "Zen 4"),
            (("ARM", [0x41, 0xd0c, 1]), "Neoverse"),
            (("Apple", [0, 0, 0]), "Apple"),
            (("GenuineIntel", [5, 4, 3]), "generic"),
        ] {
            assert_eq!(Machine::of(Cpu::named(cpu.0, cpu.1)).name, name, "{cpu:?}");
        }
    }
}
