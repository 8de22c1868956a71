//! The problem files in `testkit/problems`, made here: every family in which convolutions have been wrong somewhere, in sizes that
//! a definition can follow.
//!
//! `cargo run -p convolve-testkit --bin problems` writes them again; a test compares.

use std::collections::HashSet;
use std::path::PathBuf;

use convolve::{Conv2d, Padding};

use crate::data::Random;

/// Where the files are.
pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("problems")
}

/// One family: its file, what it is about, its problems.
pub struct Family {
    /// Name of the file.
    pub file: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// The problems; every one has a geometry.
    pub problems: Vec<Conv2d>,
}

/// What a single run of `verify` should take at most.
const MACS: u64 = 4_000_000;

/// All families, without duplicates.
pub fn families() -> Vec<Family> {
    let mut families = vec![
        Family {
            file: "tails.txt",
            about: "channels and widths at every remainder of lanes and tiles",
            problems: tails(),
        },
        Family {
            file: "padding.txt",
            about: "padding as large as the kernel and larger, on each side by itself",
            problems: padding(),
        },
        Family {
            file: "dilation.txt",
            about: "dilated kernels, also where no tap of some output lies in the image",
            problems: dilation(),
        },
        Family {
            file: "small_spatial.txt",
            about: "images of one to a few pixels under kernels that are larger",
            problems: small_spatial(),
        },
        Family {
            file: "groups.txt",
            about: "groups that are no multiple of anything, with padding and a remainder of the width",
            problems: groups(),
        },
        Family {
            file: "depthwise.txt",
            about: "one channel per group, and channel multipliers",
            problems: depthwise(),
        },
        Family {
            file: "strides.txt",
            about: "strides up to beyond the kernel, dividing and not dividing, different per axis",
            problems: strides(),
        },
        Family { file: "one_d.txt", about: "1-D: height 1, kernels along the width", problems: one_d() },
        Family {
            file: "pointwise.txt",
            about: "1x1 kernels: matrix products of every shape",
            problems: pointwise(),
        },
        Family {
            file: "first_layers.txt",
            about: "1 to 4 channels of an image, large kernels",
            problems: first_layers(),
        },
        Family {
            file: "asymmetric.txt",
            about: "everything different on the two axes and the four sides",
            problems: asymmetric(),
        },
        Family {
            file: "equal_sizes.txt",
            about: "C = H = W and its kin, where a guessed layout goes unnoticed",
            problems: equal_sizes(),
        },
        Family {
            file: "layers.txt",
            about: "layers of well-known networks, with fewer channels and pixels",
            problems: layers(),
        },
    ];
    let mut seen = HashSet::new();
    for family in &mut families {
        family.problems.retain(|conv| {
            conv.geometry().is_ok_and(|geometry| geometry.macs() <= MACS) && seen.insert(conv.to_string())
        });
    }
    families
}

/// Name and text of each file, `smoke.txt` last: a few problems of each family.
pub fn files() -> Vec<(&'static str, String)> {
    let families = families();
    let mut random = Random::new(1);
    let mut smoke = "# A few problems of every other file here; for a check in seconds.\n".to_owned();
    let mut files = Vec::new();
    for Family { file, about, problems } in &families {
        let mut text = format!(
            "# {about}\n# Made by `cargo run -p convolve-testkit --bin problems`: edit that, not this.\n"
        );
        problems.iter().for_each(|conv| text += &format!("{conv}\n"));
        files.push((*file, text));
        smoke += &format!("\n# {about}\n");
        let small: Vec<_> =
            problems.iter().filter(|c| c.geometry().is_ok_and(|g| g.macs() < 200_000)).collect();
        let mut chosen: Vec<usize> = (0..12).map(|_| random.below(small.len())).collect();
        chosen.sort_unstable();
        chosen.dedup();
        chosen.into_iter().for_each(|i| smoke += &format!("{}\n", small[i]));
    }
    files.push(("smoke.txt", smoke));
    files
}

fn sides(top: usize, bottom: usize, left: usize, right: usize) -> Padding {
    Padding::Explicit { top, bottom, left, right }
}

fn tails() -> Vec<Conv2d> {
    let mut all = Vec::new();
    for n in 1..=70 {
        all.push(Conv2d::new(n, 19, 3).input(6).padding(1));
        all.push(Conv2d::new(19, n, 3).input(6).padding(1));
        all.push(Conv2d::new(5, 7, 3).input([3, n]).padding(1));
        all.push(Conv2d::new(7, 5, [1, 3]).input([2, n]).padding([0, 1]).stride([1, 2]));
        all.push(Conv2d::new(n, n, 1).input([3, 5]));
        all.push(Conv2d::new(2 * n, 2 * n, [2, 3]).input([4, 5]).groups(2).padding([1, 1]));
    }
    for oc in [15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65] {
        for width in [11, 12, 13, 14, 15, 27, 28, 29] {
            all.push(Conv2d::new(9, oc, 3).input([3, width]).padding(1));
        }
    }
    all
}

fn padding() -> Vec<Conv2d> {
    let mut all = Vec::new();
    for kernel in 1..=5 {
        for pad in 0..=2 * kernel + 1 {
            for input in [1, 4, 9] {
                let conv = Conv2d::new(3, 5, kernel).input(input);
                all.extend([conv.padding(pad), conv.padding(pad).stride(2)]);
                all.push(conv.padding(sides(pad, 0, 0, pad)));
                all.push(conv.padding(sides(0, pad, pad, 0)).stride([2, 3]));
            }
        }
    }
    for pad in [10, 16, 17, 33, 63, 100] {
        all.push(Conv2d::new(4, 6, [1, 3]).input([1, 1]).padding([0, pad]));
        all.push(Conv2d::new(4, 6, 3).input(2).padding([1, pad]).stride([1, 2]));
        all.push(Conv2d::new(2, 17, 3).input([5, 3]).padding(sides(pad, 1, 0, 2)));
        all.push(Conv2d::new(17, 2, [3, 5]).input([3, 5]).padding(sides(0, pad, 2, pad)));
    }
    all
}

fn dilation() -> Vec<Conv2d> {
    let mut all = Vec::new();
    for kernel in 2..=4 {
        for dilation in 2..=6 {
            for pad in [0, 1, dilation, dilation * (kernel - 1) / 2, dilation * (kernel - 1)] {
                let conv = Conv2d::new(4, 9, kernel).dilation(dilation).padding(pad);
                all.extend([
                    conv.input(13),
                    conv.input(7).stride(2),
                    conv.input([5, 18]).stride([dilation, 1]),
                ]);
                all.push(conv.input(3).padding(dilation * (kernel - 1)));
            }
        }
    }
    for dilation in [2, 5, 9, 16, 40] {
        all.push(Conv2d::new(3, 4, [1, 3]).input([2, 9]).dilation([1, dilation]).padding([0, dilation]));
        all.push(Conv2d::new(3, 4, 2).input(1).dilation(dilation).padding(dilation));
        // No tap of the middle outputs is inside.
        all.push(Conv2d::new(3, 4, 2).input(1).dilation(dilation).padding(2 * dilation));
        all.push(Conv2d::new(16, 16, 3).input(9).dilation(dilation).padding(dilation).stride(dilation));
    }
    all
}

fn small_spatial() -> Vec<Conv2d> {
    let mut all = Vec::new();
    for input in 1..=4 {
        for kernel in [1, 2, 3, 5, 7] {
            for pad in 0..=6 {
                all.push(Conv2d::new(16, 16, kernel).input(input).padding(pad));
                all.push(
                    Conv2d::new(5, 33, kernel).input([input, 5 - input]).padding(pad).stride(2).batch(2),
                );
            }
        }
    }
    all
}

fn groups() -> Vec<Conv2d> {
    let mut all = Vec::new();
    for groups in [2, 3, 4, 5, 7, 8, 16, 32] {
        for (ic, oc) in [(1, 2), (2, 1), (2, 2), (3, 5), (4, 4), (8, 8), (16, 16), (17, 9), (7, 33)] {
            let conv = Conv2d::new(groups * ic, groups * oc, 3).groups(groups);
            all.push(conv.input([4, 7]).padding(1));
            all.push(conv.input([5, 9]).padding(sides(2, 0, 1, 3)).stride([2, 1]).batch(2));
            all.push(Conv2d::new(groups * ic, groups * oc, 1).groups(groups).input([3, 5]));
            all.push(conv.input(8).padding(2).dilation(2).stride([1, 3]));
        }
    }
    all
}

fn depthwise() -> Vec<Conv2d> {
    let mut all = Vec::new();
    for channels in [1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 20, 31, 32, 33, 48, 63, 64, 65, 100, 129, 257] {
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (2, 2)] {
            let conv = Conv2d::new(channels, channels, kernel).groups(channels).stride(stride);
            all.push(conv.input(9).padding(kernel / 2));
        }
        let conv = Conv2d::new(channels, 2 * channels, 3).groups(channels);
        all.extend([conv.input([5, 8]).padding(1), conv.input(7).dilation(2).padding([0, 2])]);
        all.push(Conv2d::new(channels, 3 * channels, [1, 5]).groups(channels).input([2, 11]).padding([0, 2]));
        all.push(Conv2d::new(channels, channels, 1).groups(channels).input([3, 6]).batch(2));
    }
    for width in 1..=35 {
        all.push(Conv2d::new(6, 6, 3).groups(6).input([4, width]).padding(1));
        all.push(Conv2d::new(3, 3, 5).groups(3).input([3, width]).padding(2).stride([1, 2]));
    }
    all
}

fn strides() -> Vec<Conv2d> {
    let mut all = Vec::new();
    for kernel in 1..=4 {
        for stride in 1..=kernel + 3 {
            for input in [7, 8, 9, 12] {
                let conv = Conv2d::new(5, 6, kernel).input(input).stride(stride);
                all.extend([conv, conv.padding(1), conv.padding(kernel).dilation(2)]);
                all.push(conv.stride([stride, 1]).padding([0, 1]));
            }
        }
    }
    for stride in [2, 3, 4] {
        for oc in [8, 16, 33] {
            all.push(Conv2d::new(17, oc, 3).input([9, 30]).padding(1).stride(stride));
            all.push(Conv2d::new(17, oc, 1).input([9, 30]).stride(stride));
            all.push(Conv2d::new(3, oc, 7).input(29).padding(3).stride(stride));
        }
    }
    for padding in [Padding::Same, Padding::SameLower] {
        for (kernel, stride, input) in [(3, 2, 8), (3, 2, 9), (4, 1, 7), (5, 3, 10), (2, 4, 9), (2, 1, 6)] {
            all.push(Conv2d::new(3, 4, kernel).input(input).stride(stride).padding(padding));
        }
    }
    all
}

fn one_d() -> Vec<Conv2d> {
    let mut all = Vec::new();
    for kernel in [1, 2, 3, 4, 5, 7, 9, 16, 25] {
        for width in [25, 31, 64, 100] {
            let conv = Conv2d::new(6, 10, [1, kernel]).input([1, width]);
            all.extend([conv, conv.padding([0, kernel / 2]), conv.padding(sides(0, 0, kernel - 1, 0))]);
            all.push(conv.stride([1, 3]).padding([0, kernel]));
        }
    }
    for dilation in [1, 2, 4, 8, 16] {
        // Causal, as in WaveNet.
        let conv = Conv2d::new(16, 32, [1, 2]).input([1, 70]).dilation([1, dilation]);
        all.push(conv.padding(sides(0, 0, dilation, 0)));
        // The same along the height.
        let conv = Conv2d::new(16, 32, [2, 1]).input([70, 1]).dilation([dilation, 1]);
        all.push(conv.padding(sides(dilation, 0, 0, 0)));
    }
    all.push(Conv2d::new(1, 16, [1, 64]).input([1, 1000]).stride([1, 4]));
    all.push(Conv2d::new(16, 1, [1, 9]).input([1, 1000]).padding([0, 4]));
    all
}

fn pointwise() -> Vec<Conv2d> {
    let mut all = Vec::new();
    let sizes = [1, 2, 3, 7, 8, 9, 15, 16, 17, 32, 33, 64, 65, 100];
    for ic in sizes {
        for oc in sizes {
            all.push(Conv2d::new(ic, oc, 1).input([3, 5]));
        }
        for pixels in 1..=16 {
            all.push(Conv2d::new(ic, 17, 1).input([1, pixels]).batch(2));
        }
    }
    for (ic, oc, size) in
        [(256, 64, 7), (64, 256, 7), (512, 32, 4), (1000, 3, 3), (3, 1000, 3), (300, 300, 2), (1024, 24, 4)]
    {
        all.push(Conv2d::new(ic, oc, 1).input(size));
        all.push(Conv2d::new(ic, oc, 1).input(2 * size).stride(2));
        all.push(Conv2d::new(ic, oc, 1).input(size).padding(1));
        all.push(Conv2d::new(ic, oc, 1).input([1, 1]).batch(size));
    }
    all
}

fn first_layers() -> Vec<Conv2d> {
    let mut all = Vec::new();
    for channels in 1..=4 {
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (7, 2), (7, 1), (11, 4), (4, 4), (16, 16)] {
            for oc in [6, 16, 32] {
                let conv = Conv2d::new(channels, oc, kernel).stride(stride);
                all.extend([conv.input(32).padding(kernel / 2), conv.input([18, 27])]);
            }
        }
    }
    all
}

fn asymmetric() -> Vec<Conv2d> {
    let mut random = Random::new(2);
    let mut all = Vec::new();
    while all.len() < 320 {
        let mut below = |n: usize| random.below(n);
        let groups = [1, 1, 1, 2, 3][below(5)];
        let conv = Conv2d {
            batch: 1 + below(3),
            in_channels: groups * (1 + below(20)),
            out_channels: groups * (1 + below(40)),
            groups,
            input: [1 + below(14), 1 + below(30)],
            kernel: [1 + below(5), 1 + below(7)],
            stride: [1 + below(4), 1 + below(3)],
            dilation: [1 + below(3), 1 + below(2)],
            padding: sides(below(6), below(6), below(9), below(9)),
            ..Conv2d::new(1, 1, 1)
        };
        if conv.geometry().is_ok() {
            all.push(conv);
        }
    }
    all
}

fn equal_sizes() -> Vec<Conv2d> {
    let mut all = Vec::new();
    for n in [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24] {
        let conv = Conv2d::new(n, n, 3).input(n).padding(1);
        all.extend([conv, conv.batch(n.min(4)), conv.groups(n), conv.stride(2)]);
        if n <= 9 {
            all.extend([
                Conv2d::new(n, n, n).input(n),
                Conv2d::new(n, n, n).input(n).padding(n - 1).batch(n),
            ]);
            all.push(Conv2d::new(n, n, n).input(2 * n - 1).batch(n));
        }
        all.push(Conv2d::new(n, n, 1).input(n).batch(n.min(9)));
    }
    all
}

/// The layers of the suites, divided until the definition can follow.
fn layers() -> Vec<Conv2d> {
    let all = crate::shapes::SUITES.into_iter().filter_map(crate::shapes::suite).flatten();
    all.map(|problem| {
        let mut conv = problem.conv;
        conv.batch = conv.batch.min(2);
        while conv.geometry().is_ok_and(|geometry| geometry.macs() > MACS) {
            let depthwise = conv.groups == conv.in_channels && conv.groups > 1;
            if depthwise && conv.groups.is_multiple_of(2) && conv.groups > 32 {
                conv.groups /= 2;
                conv.in_channels /= 2;
                conv.out_channels /= 2;
            } else if conv.input[1] > 28 {
                conv.input = conv.input.map(|size| size.div_ceil(2));
            } else {
                conv.in_channels =
                    if conv.in_channels > 16 { conv.in_channels / 2 } else { conv.in_channels };
                conv.out_channels /= 2;
                conv.groups = conv.groups.min(conv.in_channels).min(conv.out_channels);
            }
        }
        conv
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_those_that_are_made_here() {
        for (name, text) in files() {
            let found = std::fs::read_to_string(directory().join(name)).unwrap_or_default();
            assert!(
                found.lines().eq(text.lines()),
                "{name} is not what `cargo run -p convolve-testkit --bin problems` writes: run it"
            );
        }
    }

    #[test]
    fn there_are_two_thousand_problems_and_every_line_parses() {
        let mut count = 0;
        for (name, text) in files() {
            for (line, problem) in convolve::problems(&text) {
                let problem = problem.unwrap_or_else(|error| panic!("{name}:{line}: {error}"));
                assert!(problem.conv.geometry().is_ok(), "{name}:{line}");
                count += usize::from(name != "smoke.txt");
            }
        }
        assert!(count >= 2000, "{count}");
    }
}
