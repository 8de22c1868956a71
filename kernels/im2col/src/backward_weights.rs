//! Backward-weights as a product per image and tap: `diff_weights[oc, (tap, ic)] += diff_dst[oc, pixel] x patches[pixel, (tap, ic)]`. The depth is
//! the pixels of the image, and runs on over the images into the same accumulators.

use crate::patches::Patches;
use crate::{ACCEPTED, Im2col, blocking, kernel};
use convolve_core::phase::Phase;
use convolve_core::{
    Algorithm, BackwardWeights, BackwardWeightsArgs, BlockMut, Estimate, Execute, Geometry, Layout, Par,
    Problem, Unsupported, WeightCuts, WeightTask, lines,
};
use convolve_gemm::{Blocking, Dense, Init, Target, Transposed, UNCLAMPED, Ukernel, product};

impl Algorithm<BackwardWeights> for Im2col {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
        Ok(Runner::new(problem)?.estimate(problem))
    }

    fn build(&self, problem: &Problem) -> Box<dyn Execute<BackwardWeights>> {
        Box::new(Runner::new(problem).expect(ACCEPTED))
    }
}

struct Runner {
    geometry: Geometry,
    phase: Phase,
    kernel: Box<dyn Ukernel>,
    cuts: WeightCuts,
    blocking: Blocking,
    threads: usize,
}

impl Runner {
    fn new(problem: &Problem) -> Result<Self, Unsupported> {
        let geometry = problem.geometry;
        let [height, width] = geometry.output();
        let depth = height * width;
        let kernel = kernel(problem, [geometry.group_in(), depth])?;
        let tile = [kernel.mr(), kernel.nr()];
        let cuts = WeightCuts::new(&geometry, problem.accuracy, &problem.caches, tile, 1);
        let [oc, ic] = cuts.block;
        let blocking = blocking(problem, kernel.as_ref(), [oc, ic, depth]);
        Ok(Self { geometry, phase: geometry.forward(), kernel, cuts, blocking, threads: problem.threads })
    }

    fn sums_len(&self) -> usize {
        self.geometry.taps() * self.cuts.block[0] * self.cuts.block[1]
    }

    fn lane_len(&self) -> usize {
        lines(self.sums_len()) + self.blocking.workspace_len(self.kernel.as_ref())
    }

    fn task(&self, src: &[f32], diff_dst: &[f32], task: &WeightTask, lane: &mut [f32]) -> usize {
        let WeightTask { oc, ic } = task;
        let (taps, channels) = (self.geometry.taps(), self.geometry.group_in());
        let (src_strides, dst_strides) = (self.geometry.src(), self.geometry.dst());
        let (sums, workspace) = lane.split_at_mut(lines(self.sums_len()));
        let sums = &mut sums[..taps * oc.len() * ic.len()];
        sums.fill(0.0);
        let mut sums = BlockMut::new(sums, [taps, oc.len(), ic.len()]);
        let group = oc.start / self.geometry.group_out();
        for image in 0..self.geometry.conv().batch {
            let data = &src[image * src_strides.image + group * channels * src_strides.channel..];
            let kernel = self.kernel.as_ref();
            let patches = Patches { data, strides: src_strides, channels, phase: &self.phase, kernel };
            let data = &diff_dst[image * dst_strides.image + oc.start * dst_strides.channel..];
            let gradient = Dense { data, strides: [dst_strides.channel, dst_strides.column] };
            for tap in 0..taps {
                let target = Target { row: &|o| [tap, o], column: 0, init: Init::Dst, clamp: UNCLAMPED };
                let columns = tap * channels + ic.start..tap * channels + ic.end;
                let block = [0..oc.len(), columns];
                let [height, width] = self.geometry.output();
                let depth = height * width;
                let patches = Transposed(patches);
                product(
                    kernel,
                    self.blocking,
                    &gradient,
                    &patches,
                    block,
                    depth,
                    target,
                    &mut sums,
                    workspace,
                );
            }
        }
        taps * oc.len() * ic.len()
    }

    /// Cycles of the multiply-adds by tile efficiency, plus packing, at 3.5 GHz.
    fn estimate(&self, problem: &Problem) -> Estimate {
        let (nr, mr) = (self.kernel.nr(), self.kernel.mr());
        let (conv, [height, width]) = (self.geometry.conv(), self.geometry.output());
        let per_step = self.kernel.step_cycles(mr as f64);
        let [oc, ic] = [self.geometry.group_out(), self.geometry.group_in()];
        let pixels = (height * width) as f64;
        let blocks = (pixels / self.blocking.kc as f64).ceil();
        let calls = (oc.div_ceil(mr) * ic.div_ceil(nr) * self.geometry.taps()) as f64;
        let tasks = [oc.div_ceil(self.cuts.block[0]), ic.div_ceil(self.cuts.block[1])];
        let strided = conv.stride[1].min(2) as f64;
        let (src_copy, dst_copy) =
            if conv.layout == Layout::Nhwc { (3.0, 2.0) } else { (1.2 * strided, 0.0) };
        let packs = pixels * (ic.next_multiple_of(nr) * self.geometry.taps() * tasks[0]) as f64 * src_copy
            + pixels * (oc * self.geometry.taps() * tasks[1]) as f64 * dst_copy;
        let images = (conv.batch * conv.groups) as f64;
        let memory = packs * images + self.geometry.weights_len() as f64 * 2.0;
        let parts = [calls * pixels * per_step * images, memory, calls * 80.0 * blocks * images];
        let tasks = self.cuts.tasks(&self.geometry);
        let tiling = self.cuts.tiling([self.kernel.mr(), self.kernel.nr()], self.blocking.kc);
        Estimate { workspace: self.workspace_len(), tiling, ..Estimate::new(parts, &tasks, problem.threads) }
    }
}

impl Execute<BackwardWeights> for Runner {
    fn workspace_len(&self) -> usize {
        self.lane_len().saturating_mul(self.threads)
    }

    fn run(&self, args: BackwardWeightsArgs<'_>, workspace: &mut [f32], par: Par<'_>) {
        let BackwardWeightsArgs { src, diff_dst, diff_weights, update } = args;
        let reduce = |task: &WeightTask, _: usize, lane: &mut [f32]| self.task(src, diff_dst, task, lane);
        let lens = [self.lane_len(), self.sums_len()];
        self.cuts.for_each_task(
            &self.geometry,
            diff_weights,
            update,
            par,
            workspace,
            lens,
            self.kernel.as_ref(),
            None,
            &reduce,
        );
    }
}
