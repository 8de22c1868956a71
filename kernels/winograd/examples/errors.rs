//! The error table of the crate's documentation: rms and worst error over the rms of the output, against f64, by channel count.
//!
//! ```sh
//! cargo run --release -p convolve-winograd --example errors
//! ```

use convolve_core::{
    Accuracy, Algorithm, BackwardWeights, BackwardWeightsArgs, Caches, Conv2d, Epilogue, Forward,
    ForwardArgs, Layout, Machine, Par, Problem, Update, definition,
};
use convolve_simd::Isa;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        (radius * (core::f64::consts::TAU * self.unit()).cos()) as f32
    }
}

fn main() {
    println!("| pass | channels | data | algorithm | rms | worst |\n|---|---|---|---|---|---|");
    for channels in [1, 16, 64, 256, 512] {
        for relu in [false, true] {
            let conv = Conv2d::new(channels, 16, 3).input(28).padding(1).layout(Layout::Nhwc);
            let geometry = conv.geometry().expect("it is a problem");
            let problem = Problem {
                geometry,
                isa: Isa::best(),
                threads: 1,
                accuracy: Accuracy::Relaxed,
                caches: Caches::default(),
                machine: Machine::GENERIC,
                rank: 0,
            };
            let mut random = Random(channels as u64);
            let src: Vec<f32> = (0..geometry.src_len())
                .map(|_| if relu { random.normal().max(0.0) } else { random.normal() })
                .collect();
            let weights: Vec<f32> = (0..geometry.weights_len()).map(|_| random.normal()).collect();
            let diff_dst: Vec<f32> = (0..geometry.dst_len()).map(|_| random.normal()).collect();
            let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let data = if relu { "ReLU" } else { "normal" };
            let report = |pass: &str, name: &str, exact: &[f64], got: &[f32]| {
                let rms = (exact.iter().map(|x| x * x).sum::<f64>() / exact.len() as f64).sqrt();
                let errors = || exact.iter().zip(got).map(|(x, y)| (x - f64::from(*y)).abs() / rms);
                let root = (errors().map(|e| e * e).sum::<f64>() / exact.len() as f64).sqrt();
                let worst = errors().fold(0.0, f64::max);
                println!("| {pass} | {channels} | {data} | {name} | {root:.1e} | {worst:.1e} |");
            };
            let exact = definition::forward::<f64>(&geometry, &wide(&src), &wide(&weights));
            let plain = definition::forward::<f32>(&geometry, &src, &weights);
            report("forward", "one sum", &exact, &plain);
            for winograd in convolve_winograd::ALL
                .iter()
                .filter(|w| Algorithm::<Forward>::estimate(**w, &problem).is_ok())
            {
                let executor = Algorithm::<Forward>::build(*winograd, &problem);
                let mut packed = vec![0.0; executor.packed_len()];
                executor.pack(&weights, &mut packed);
                let (mut dst, mut workspace) = (plain.clone(), vec![0.0; executor.workspace_len()]);
                let args =
                    ForwardArgs { src: &src, weights: &packed, dst: &mut dst, epilogue: Epilogue::NONE };
                executor.run(args, &mut workspace, Par::Seq);
                report("forward", Algorithm::<Forward>::name(*winograd), &exact, &dst);
            }
            let exact = definition::backward_weights::<f64>(&geometry, &wide(&src), &wide(&diff_dst));
            let plain = definition::backward_weights::<f32>(&geometry, &src, &diff_dst);
            report("backward-weights", "one sum", &exact, &plain);
            for winograd in convolve_winograd::ALL
                .iter()
                .filter(|w| Algorithm::<BackwardWeights>::estimate(**w, &problem).is_ok())
            {
                let executor = Algorithm::<BackwardWeights>::build(*winograd, &problem);
                let (mut gradient, mut workspace) = (plain.clone(), vec![0.0; executor.workspace_len()]);
                let args = BackwardWeightsArgs {
                    src: &src,
                    diff_dst: &diff_dst,
                    diff_weights: &mut gradient,
                    update: Update::Overwrite,
                };
                executor.run(args, &mut workspace, Par::Seq);
                report("backward-weights", Algorithm::<BackwardWeights>::name(*winograd), &exact, &gradient);
            }
        }
    }
}
