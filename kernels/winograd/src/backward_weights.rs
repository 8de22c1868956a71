//! Backward-weights: the gradient of a tap is a correlation of `src` with `diff_dst`, r x r outputs of m x m "taps" for every tile, so
//! F(r x r, m x m), with the same points and the same B as F(m x m, r x r).
//!
//! ```text
//! for each task: some output and input channels of one group, a part of the tiles of all images   (parallel; boxes of the gradient)
//!     for each chunk of tiles
//!         V[product][tile][IC] = B^T src B,  D[product][tile][OC] = G' diff_dst G'^T
//!         M[product][OC][IC]  += sum over tiles of D * V                                    (one product per frequency)
//!     gradient[tap][OC][IC] = A^T M A                                                       (once, with the factors 1 / M'(p))
//! ```
//!
//! The sum wants to be long, a hundred tiles and more, so that M is seldom loaded and stored; V and D may then lie beyond L2, as each is read
//! in order. Parts of the tiles are tasks of their own, added in order: they cost a transform of M each and nothing else.

use crate::blocks::{even, longest, odd_lines};
use crate::shape::Shape;
use crate::transform::{Images, TileAt, Transforms};
use convolve_core::{
    BackwardWeights, BackwardWeightsArgs, BlockMut, Estimate, Execute, Geometry, Layout, Par, Problem,
    Ranked, Strides, Unsupported, WeightCuts, WeightTask, distinct, lines,
};
use convolve_gemm::{Ahead, Call, Init, Lhs, To, UNCLAMPED, Ukernel, Walk, ukernels};
use core::ops::Range;

/// Most tiles of a chunk.
const MAX_TILES: usize = 256;
/// Most floats of one lane of workspace: 4 MiB.
const MAX_LANE: usize = 1 << 20;
/// Most floats of the sums of all parts.
const MAX_PARTIAL: usize = 1 << 18;
/// Below this many multiplications a problem is one task.
const MACS: u64 = 1 << 20;

/// A weight gradient that is ready to run.
pub(crate) struct GradientRunner {
    geometry: Geometry,
    transforms: Box<dyn Transforms>,
    kernel: Box<dyn Ukernel>,
    shape: Shape,
    /// Tiles of all images.
    count: usize,
    cuts: WeightCuts,
    /// Tiles of a chunk.
    tiles: usize,
    threads: usize,
    /// Cycles of all tasks: products and transforms, streams and copies, tasks.
    parts: [f64; 3],
}

/// Sizes of the parts of a lane.
#[derive(Clone, Copy, Debug)]
struct Lens {
    /// `[tap][output channel][input channel]`.
    sums: usize,
    /// `[product][output channel][input channel]`.
    m: [usize; 3],
    /// `[product][tile][input channel]`.
    v: [usize; 3],
    /// `[product][tile][output channel]`.
    d: [usize; 3],
    /// NCHW: rows of both operands, by pixel.
    copies: [usize; 2],
}

impl Lens {
    fn new(geometry: &Geometry, shape: &Shape, [oc, ic]: [usize; 2], tiles: usize, nr: usize) -> Self {
        let copies = match geometry.conv().layout {
            Layout::Nhwc => [0, 0],
            Layout::Nchw => {
                // Tiles that follow each other touch a row more than they fill, at either end.
                let rows = (tiles.div_ceil(shape.grid[1]) + 1).min(shape.grid[0]);
                let [height, width] = geometry.conv().input;
                let reads = shape.reads(rows).min(height);
                let [out_height, out_width] = geometry.output();
                let also = (rows * shape.rows()).min(out_height);
                [reads * width * odd_lines(ic), also * out_width * odd_lines(oc)]
            }
        };
        let panels = ic.div_ceil(nr) * nr;
        Self {
            sums: geometry.taps() * oc * ic,
            m: [shape.products, oc | 1, odd_lines(panels)],
            v: [shape.products, tiles | 1, odd_lines(panels)],
            d: [shape.products, tiles | 1, odd_lines(oc)],
            copies,
        }
    }

    /// Floats of V, D and the copies, in order. A run of the micro-kernel may look at a row behind its last.
    fn parts(&self) -> [usize; 4] {
        let [v, d] = [self.v, self.d].map(|extent| extent.iter().product::<usize>());
        [v + self.v[2], d + self.d[2], self.copies[0], self.copies[1]]
    }

    /// Floats of those, or of the sums, which take their place at the end.
    fn front(&self) -> usize {
        lines(self.parts().iter().sum::<usize>().max(self.sums))
    }

    fn total(&self) -> usize {
        self.front() + lines(self.m.iter().product())
    }
}

impl GradientRunner {
    /// The cheapest cut with any micro-kernel, or, by the rank of the problem, the next ones.
    pub(crate) fn new(
        problem: &Problem,
        outputs: [usize; 2],
        transforms: Box<dyn Transforms>,
    ) -> Result<Self, Unsupported> {
        let geometry = problem.geometry;
        let shape = Shape::new(outputs, geometry.conv().kernel, &geometry.forward().axes);
        let count = geometry.conv().batch * shape.grid[0] * shape.grid[1];
        let (mut ranked, mut kernels) = (Ranked::new(problem.rank), ukernels(problem.isa));
        for (i, kernel) in kernels.iter().map(AsRef::as_ref).enumerate() {
            search(problem, &shape, count, kernel, &mut |cost, found| {
                let wanted = ranked.wants(cost);
                if wanted && let Some((parts, cuts, tiles)) = found {
                    ranked.offer(cost, (i, cuts.block), (i, parts, cuts, tiles));
                }
                wanted
            });
        }
        let (i, parts, cuts, tiles) = ranked.take().ok_or(Unsupported::RANK)?;
        let (kernel, threads) = (kernels.swap_remove(i), problem.threads);
        Ok(Self { geometry, transforms, kernel, shape, count, cuts, tiles, threads, parts })
    }

    fn lens(&self) -> Lens {
        Lens::new(&self.geometry, &self.shape, self.cuts.block, self.tiles, self.kernel.nr())
    }

    pub(crate) fn estimate(&self) -> Estimate {
        let tasks = self.cuts.tasks(&self.geometry);
        let tiling = self.cuts.tiling([self.kernel.mr(), self.kernel.nr()], self.tiles);
        Estimate {
            exposed: crate::EXPOSED,
            workspace: self.workspace_len(),
            tiling,
            ..Estimate::new(self.parts, &tasks, self.threads)
        }
    }

    /// The sums of one task over one part of the tiles, at the start of its lane; how many they are.
    fn task(
        &self,
        args: &BackwardWeightsArgs<'_>,
        task: &WeightTask,
        part: usize,
        lane: &mut [f32],
    ) -> usize {
        let (oc, ic) = (task.oc.len(), task.ic.len());
        let lens = self.lens();
        let (front, m) = lane.split_at_mut(lens.front());
        let [v, d, src, dst] = split(front, lens.parts());
        let m_shape = [lens.m[0], oc | 1, lens.m[2]];
        let m = &mut m[..m_shape.iter().product()];
        let range = |part: usize| part * self.count / self.cuts.parts;
        let all = range(part)..range(part + 1);
        if all.is_empty() {
            m.fill(0.0);
        }
        for (i, chunk) in even(all.len(), self.tiles).filter(|chunk| !chunk.is_empty()).enumerate() {
            let chunk = all.start + chunk.start..all.start + chunk.end;
            self.transform(
                args,
                task,
                chunk.clone(),
                [(&mut *v, lens.v), (&mut *d, lens.d)],
                [&mut *src, &mut *dst],
            );
            let init = if i == 0 { Init::Zero } else { Init::Dst };
            self.multiply(
                chunk.len(),
                oc,
                ic,
                [(v, lens.v), (d, lens.d)],
                init,
                &mut BlockMut::new(m, m_shape),
            );
        }
        let count = self.geometry.taps() * oc * ic;
        let mut sums = BlockMut::new(&mut front[..count], [self.geometry.taps(), oc, ic]);
        self.transforms.gradient(m, [m_shape[1], m_shape[2]], &mut sums);
        count
    }

    /// V and D of the tiles `chunk`, counted by image, row, column.
    fn transform(
        &self,
        args: &BackwardWeightsArgs<'_>,
        task: &WeightTask,
        chunk: Range<usize>,
        [(v, v_shape), (d, d_shape)]: [(&mut [f32], [usize; 3]); 2],
        [src_copy, dst_copy]: [&mut [f32]; 2],
    ) {
        let conv = self.geometry.conv();
        let [rows, columns] = self.shape.grid;
        let step = self.shape.step;
        let first_ic = task.oc.start / self.geometry.group_out() * self.geometry.group_in() + task.ic.start;
        let (mut src_tiles, mut dst_tiles) = ([TileAt::default(); MAX_TILES], [TileAt::default(); MAX_TILES]);
        let strides = [self.geometry.src(), self.geometry.dst()];
        // In NCHW the tiles of one image at a time: their rows are transposed first.
        let mut start = chunk.start;
        while start < chunk.end {
            let image = start / (rows * columns);
            let end = match conv.layout {
                Layout::Nhwc => chunk.end,
                Layout::Nchw => chunk.end.min((image + 1) * rows * columns),
            };
            let row = |tile: usize| tile / columns % rows;
            let (mut origin, mut images_at) = ([0; 2], 0);
            let (src_images, dst_images);
            match conv.layout {
                Layout::Nhwc => {
                    let whole = |data, strides: Strides, size, channels| Images {
                        data,
                        size,
                        strides: [strides.image, strides.row, strides.column],
                        step,
                        channels,
                    };
                    src_images = whole(&args.src[first_ic..], strides[0], conv.input, task.ic.len());
                    dst_images = whole(
                        &args.diff_dst[task.oc.start..],
                        strides[1],
                        self.geometry.output(),
                        task.oc.len(),
                    );
                }
                Layout::Nchw => {
                    images_at = image;
                    let clip = |row: isize, height: usize| row.clamp(0, height as isize) as usize;
                    let [first, last] = [start, end - 1].map(row);
                    let [top, below] = [first, last].map(|row| self.shape.top(row));
                    let reads = [top, below + self.shape.reads(1) as isize];
                    let [from, to] = reads.map(|row| clip(row, conv.input[0]));
                    let height = self.geometry.output()[0];
                    let first = first * self.shape.rows();
                    let also = first..height.min((last + 1) * self.shape.rows());
                    src_images = self.copy(
                        args.src,
                        strides[0],
                        image,
                        first_ic..first_ic + task.ic.len(),
                        from..to,
                        conv.input[1],
                        src_copy,
                    );
                    dst_images = self.copy(
                        args.diff_dst,
                        strides[1],
                        image,
                        task.oc.clone(),
                        also,
                        self.geometry.output()[1],
                        dst_copy,
                    );
                    origin = [from, first];
                }
            }
            let count = end - start;
            for (i, tile) in (start..end).enumerate() {
                let (image, row, column) = (tile / (rows * columns) - images_at, row(tile), tile % columns);
                let at = |[y, x]: [isize; 2], origin: usize| TileAt {
                    image,
                    from: [y - origin as isize, x],
                    to: [0, 0],
                };
                src_tiles[i] = at(self.shape.from(row, column), origin[0]);
                dst_tiles[i] = at(self.shape.to(row, column).map(|at| at as isize), origin[1]);
            }
            let at = start - chunk.start;
            self.transforms.data(
                &src_images,
                &src_tiles[..count],
                &mut v[at * v_shape[2]..],
                [v_shape[2], v_shape[1] * v_shape[2]],
            );
            self.transforms.evaluate(
                &dst_images,
                &dst_tiles[..count],
                &mut d[at * d_shape[2]..],
                [d_shape[2], d_shape[1] * d_shape[2]],
            );
            start = end;
        }
    }

    /// Some rows and channels of an image of an NCHW tensor, by pixel.
    #[expect(clippy::too_many_arguments, reason = "what of which tensor, to where")]
    fn copy<'a>(
        &self,
        tensor: &[f32],
        strides: Strides,
        image: usize,
        channels: Range<usize>,
        rows: Range<usize>,
        width: usize,
        copy: &'a mut [f32],
    ) -> Images<'a> {
        let pitch = odd_lines(channels.len());
        let from = image * strides.image + channels.start * strides.channel + rows.start * width;
        let size = [channels.len(), rows.len() * width];
        if size[1] > 0 {
            self.kernel.transpose(size, &tensor[from..], strides.channel, copy, pitch);
        }
        let strides = [rows.len() * width * pitch, width * pitch, pitch];
        Images {
            data: copy,
            size: [rows.len(), width],
            strides,
            step: self.shape.step,
            channels: channels.len(),
        }
    }

    /// `M (+)= D^T V` for every product.
    fn multiply(
        &self,
        tiles: usize,
        oc: usize,
        ic: usize,
        [(v, v_shape), (d, d_shape)]: [(&[f32], [usize; 3]); 2],
        init: Init<'_>,
        m: &mut BlockMut<'_, f32>,
    ) {
        let nr = self.kernel.nr();
        for product in 0..self.shape.products {
            for column in (0..ic).step_by(nr) {
                let call = Call {
                    lhs: &d[product * d_shape[1] * d_shape[2]..],
                    at: Lhs::Columns { start: 0, rows: oc, pitch: d_shape[2] },
                    rhs: &v[product * v_shape[1] * v_shape[2] + column..],
                    pitch: v_shape[2],
                    walk: Walk::run(tiles),
                    init,
                    clamp: UNCLAMPED,
                    to: To::Even { at: [product, 0], step: [0, 1] },
                    column,
                    columns: nr,
                    fetch: None,
                    ahead: Ahead::NONE,
                };
                self.kernel.run(&call, m);
            }
        }
    }
}

/// Consecutive parts of a lane.
fn split<const N: usize>(mut lane: &mut [f32], lens: [usize; N]) -> [&mut [f32]; N] {
    lens.map(|len| {
        let (part, rest) = core::mem::take(&mut lane).split_at_mut(len);
        lane = rest;
        part
    })
}

/// Visits boxes of the gradient, parts of the sum and tiles of a chunk whose lane takes at most 4 MiB, and the smallest in any case, each with what all its
/// tasks cost. Before the loop over tiles it visits a price that none of them beats: if the answer is no, they are left out.
fn search(
    problem: &Problem,
    shape: &Shape,
    count: usize,
    kernel: &dyn Ukernel,
    visit: &mut impl FnMut(f64, Option<([f64; 3], WeightCuts, usize)>) -> bool,
) {
    const CUTS: [usize; 8] = [1, 2, 3, 4, 6, 8, 16, 32];
    let (geometry, mr, nr, count) = (&problem.geometry, kernel.mr(), kernel.nr(), count.max(1));
    let blocks = |all: usize, unit: usize| {
        distinct(
            CUTS.map(|n| all.div_ceil(n).next_multiple_of(unit).min(all)).into_iter().chain([unit.min(all)]),
        )
    };
    for oc in blocks(geometry.group_out(), mr) {
        for ic in blocks(geometry.group_in(), nr) {
            let price = Price::new(problem, shape, kernel, [oc, ic]);
            if !visit(price.least(count), None) {
                continue;
            }
            for tiles in
                distinct([196, 147, 112, 98, 64, 49, 32].map(|most| longest(count, most)).into_iter())
            {
                let lens = Lens::new(geometry, shape, [oc, ic], tiles, nr);
                let mut cuts = WeightCuts { block: [oc, ic], parts: 1 };
                let boxes = cuts.boxes(geometry);
                if geometry.macs() >= MACS {
                    let room = MAX_PARTIAL / (boxes * lens.sums);
                    cuts.parts = 4usize.div_ceil(boxes).min(count.div_ceil(tiles)).min(room).max(1);
                }
                let smallest = oc <= mr && ic <= nr && tiles <= 32;
                if smallest || lens.total() <= MAX_LANE {
                    let parts = price.parts(count, cuts.parts, tiles, &lens);
                    let cycles = parts.iter().sum::<f64>();
                    if visit(cycles, None) {
                        visit(cycles * cuts.tasks(geometry).wait(), Some((parts, cuts, tiles)));
                    }
                }
            }
        }
    }
}

/// What a box costs, in cycles of one core. (Constants fitted to 900 cuts of 17 problems, Zen 5: standard deviation of predicted over measured 14 %, the
/// cut that is taken 2 % slower than the best in the mean.)
struct Price {
    boxes: f64,
    /// What is beyond it is not near: twice L2.
    near: f64,
    /// Of a chunk: what its calls store, and for each of its tiles products and transforms.
    chunk: [f64; 2],
    /// Of a chunk, and of each of its tiles: what begins.
    begun: [f64; 2],
    /// Of a part: what turns products into sums.
    end: f64,
    /// Floats of the gradient.
    gradient: usize,
}

impl Price {
    fn new(problem: &Problem, shape: &Shape, kernel: &dyn Ukernel, [oc, ic]: [usize; 2]) -> Self {
        let (geometry, nr) = (&problem.geometry, kernel.nr());
        let vectors = |len: usize| len.div_ceil(problem.isa.lanes()) as f64;
        let products = shape.products as f64;
        let calls = products * (oc.div_ceil(kernel.mr()) * ic.div_ceil(nr)) as f64;
        let rows = oc as f64 / oc.div_ceil(kernel.mr()) as f64;
        let tile = products * (vectors(ic) * 5.5 + vectors(oc) * 4.5);
        Self {
            boxes: WeightCuts { block: [oc, ic], parts: 1 }.boxes(geometry) as f64,
            near: 2.0 * problem.caches.l2 as f64,
            chunk: [calls * 2.0 * rows * vectors(nr), calls * 0.95 * kernel.step_cycles(rows) + tile],
            gradient: geometry.weights_len(),
            begun: [calls * 25.0, 300.0],
            end: vectors(ic) * oc as f64 * products * 2.0 + (geometry.taps() * oc * ic) as f64 * 0.5,
        }
    }

    /// No cut into such boxes costs less.
    fn least(&self, count: usize) -> f64 {
        let [chunk, tile] = [0, 1].map(|i| self.chunk[i] + self.begun[i]);
        self.boxes * (chunk + count as f64 * tile + self.end)
    }

    /// All tasks: products and transforms, streams and copies, tasks.
    fn parts(&self, count: usize, parts: usize, tiles: usize, lens: &Lens) -> [f64; 3] {
        let bytes = |extent: [usize; 3]| extent.iter().product::<usize>() as f64 * 4.0;
        let (v, d, m) = (bytes(lens.v), bytes(lens.d), bytes(lens.m));
        let stream = if v + d + m > self.near { (v + d + 2.0 * m) / 64.0 } else { 0.0 };
        // A gradient that leaves L2 comes from memory before it is written there.
        let written = if (self.gradient * size_of::<f32>()) as f64 > self.near {
            self.gradient as f64 / self.boxes
        } else {
            0.0
        };
        let copies = lens.copies[0] as f64 * 0.25 + lens.copies[1] as f64 * 0.3;
        let chunks = (count.div_ceil(parts).div_ceil(tiles) * parts) as f64;
        let [chunk, begun] = [self.chunk, self.begun].map(|[chunk, tile]| chunk + tiles as f64 * tile);
        let parts = parts as f64;
        [
            chunks * chunk + parts * self.end,
            chunks * (stream + copies) + written,
            chunks * begun + parts * 3000.0,
        ]
        .map(|cycles| self.boxes * cycles)
    }
}

impl Execute<BackwardWeights> for GradientRunner {
    fn workspace_len(&self) -> usize {
        let lens = self.lens();
        self.cuts.workspace_len(&self.geometry, self.threads, lens.total(), lens.sums)
    }

    fn run(&self, args: BackwardWeightsArgs<'_>, workspace: &mut [f32], par: Par<'_>) {
        let lens = self.lens();
        let BackwardWeightsArgs { src, diff_dst, diff_weights, update } = args;
        let operands = BackwardWeightsArgs { src, diff_dst, diff_weights: &mut [], update };
        let reduce =
            |task: &WeightTask, part: usize, lane: &mut [f32]| self.task(&operands, task, part, lane);
        self.cuts.for_each_task(
            &self.geometry,
            diff_weights,
            update,
            par,
            workspace,
            [lens.total(), lens.sums],
            self.kernel.as_ref(),
            None,
            &reduce,
        );
    }
}
