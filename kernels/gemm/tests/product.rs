//! The product is the product: exact on small integers, for every instruction set, tile, tail, block size and way of giving operands.

use convolve_core::{BlockMut, Caches};
use convolve_gemm::{
    Ahead, Blocking, Call, Dense, Init, Lhs, Operand, Panels, Target, To, Transposed, UNCLAMPED, Ukernel,
    Walk, cut, product, tiles, ukernel, ukernels,
};
use convolve_simd::Isa;

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + seed * 11 + i / 7) % 17) as f32 - 8.0).collect()
}

/// C[i, j] = sum over k of A[i, k] * B[j, k], by the definition.
fn defined(a: &[f32], b: &[f32], [m, n, k]: [usize; 3]) -> Vec<f32> {
    let dot = |i: usize, j: usize| (0..k).map(|s| a[i * k + s] * b[j * k + s]).sum();
    (0..m * n).map(|at| dot(at / n, at % n)).collect()
}

fn run(
    kernel: &dyn Ukernel,
    blocking: Blocking,
    a: &dyn Operand,
    b: &dyn Operand,
    [m, n, k]: [usize; 3],
) -> Vec<f32> {
    let mut workspace = vec![f32::NAN; blocking.workspace_len(kernel)];
    let mut c = vec![f32::NAN; m * n];
    let target = Target { row: &|i| [0, i], column: 0, init: Init::Zero, clamp: UNCLAMPED };
    let mut block = BlockMut::new(&mut c, [1, m, n]);
    product(kernel, blocking, a, b, [0..m, 0..n], k, target, &mut block, &mut workspace);
    c
}

/// An operand that shows no view, so that it must be packed.
struct Hidden<'a>(Dense<'a>);

impl Operand for Hidden<'_> {
    fn pack_rows(
        &self,
        outer: core::ops::Range<usize>,
        depth: core::ops::Range<usize>,
        pitch: usize,
        to: &mut [f32],
    ) {
        self.0.pack_rows(outer, depth, pitch, to);
    }
    fn pack_panel(
        &self,
        outer: core::ops::Range<usize>,
        depth: core::ops::Range<usize>,
        width: usize,
        to: &mut [f32],
    ) {
        self.0.pack_panel(outer, depth, width, to);
    }
}

fn sizes(isa: Isa) -> Vec<[usize; 3]> {
    // Rows of the last are 4 KiB apart and are packed where they are viewed else.
    let mut sizes = vec![[1, 1, 0], [3, 5, 0], [20, 40, 1024]];
    for [mr, nr] in tiles(isa) {
        let around = |x: usize| [1, x - 1, x, x + 1, 2 * x + 1];
        for m in around(mr) {
            for n in around(nr) {
                sizes.extend([1, 2, 9].map(|k| [m, n, k]));
            }
        }
    }
    sizes
}

#[test]
fn every_way_of_giving_operands_computes_the_definition() {
    for &isa in Isa::available() {
        println!("instruction set: {isa}");
        for size @ [m, n, k] in sizes(isa) {
            let (a, b) = (numbers(m * k, 1), numbers(n * k, 2));
            let expected = defined(&a, &b, size);
            for kernel in ukernels(isa) {
                let kernel = kernel.as_ref();
                let (rows, columns) =
                    (Dense { data: &a, strides: [k, 1] }, Dense { data: &b, strides: [k, 1] });
                let nr = kernel.nr();
                let mut panels = vec![0.0; n.div_ceil(nr) * k * nr];
                for (i, panel) in (0..n).step_by(nr).enumerate() {
                    columns.pack_panel(panel..n.min(panel + nr), 0..k, nr, &mut panels[i * k * nr..]);
                }
                let panels = Panels { data: &panels, depth: k, width: nr };
                // The transpose of B, so that the transpose of it is B again.
                let flipped: Vec<f32> = (0..n * k).map(|at| b[at % n * k + at / n]).collect();
                let flipped = Transposed(Dense { data: &flipped, strides: [n, 1] });
                let caches = Caches::default();
                let whole = Blocking::new(kernel, &caches, size);
                let blocks = [
                    whole,
                    Blocking { kc: 4, nc: nr, caches },
                    Blocking { kc: 3, nc: 2 * nr, caches },
                    Blocking { kc: 1, nc: nr, caches },
                ];
                for blocking in blocks {
                    let at = format!("{isa} {size:?} {blocking:?}");
                    assert_eq!(run(kernel, blocking, &rows, &columns, size), expected, "rows in place: {at}");
                    assert_eq!(
                        run(kernel, blocking, &Hidden(rows), &columns, size),
                        expected,
                        "packed: {at}"
                    );
                    assert_eq!(run(kernel, blocking, &rows, &panels, size), expected, "panels: {at}");
                    assert_eq!(run(kernel, blocking, &rows, &flipped, size), expected, "transposed: {at}");
                }
            }
        }
    }
}

#[test]
fn the_identity_changes_nothing() {
    for &isa in Isa::available() {
        for n in 1..40 {
            let identity: Vec<f32> = (0..n * n).map(|i| if i % (n + 1) == 0 { 1.0 } else { 0.0 }).collect();
            let a = numbers(n * n, 3);
            let kernel = ukernel(isa, [n, n]);
            let blocking = Blocking::new(kernel.as_ref(), &Caches::default(), [n; 3]);
            let (a_rows, i_rows) =
                (Dense { data: &a, strides: [n, 1] }, Dense { data: &identity, strides: [n, 1] });
            assert_eq!(run(kernel.as_ref(), blocking, &a_rows, &i_rows, [n; 3]), a, "{isa} A I, n = {n}");
            let transposed = Dense { data: &a, strides: [1, n] };
            assert_eq!(run(kernel.as_ref(), blocking, &i_rows, &transposed, [n; 3]), a, "{isa} I A, n = {n}");
        }
    }
}

/// A left operand of `rows` rows 5 apart whose steps lie next to each other, in all ways to say so; and one whose steps are 5 apart.
fn lhs_of<'a>(rows: usize, at: &'a [usize]) -> [(&'static str, Lhs<'a>); 3] {
    [
        ("list", Lhs::Rows(&at[..rows])),
        ("even", Lhs::Even { start: 0, rows, pitch: 5 }),
        ("columns", Lhs::Columns { start: 0, rows, pitch: 5 }),
    ]
}

#[test]
fn a_walk_of_runs_sums_all_of_them_and_writes_only_its_columns() {
    for &isa in Isa::available() {
        for kernel in ukernels(isa) {
            let (mr, nr) = (kernel.mr(), kernel.nr());
            // Up to three tiles, of two sizes.
            let at: Vec<usize> = (0..2 * mr + 2).map(|m| m * 5).collect();
            let (lhs, sizes) = (numbers(300, 4), 1..=2 * mr + 2);
            for (rows, columns) in sizes.flat_map(|rows| (1..=nr).map(move |columns| (rows, columns))) {
                // 2 x 3 runs of 2 steps.
                let walk = Walk { count: [2, 3], lhs: [40, 7], rhs: [6 * nr, 2 * nr], len: 2 };
                let rhs = numbers(walk.steps() * nr, 5);
                let backwards: Vec<[usize; 2]> = (0..rows).map(|m| [1, rows - 1 - m]).collect();
                for (name, at) in lhs_of(rows, &at) {
                    for to in [To::Rows(&backwards), To::Even { at: [1, 0], step: [0, 1] }] {
                        let mut dst = vec![100.0; 2 * rows * (nr + 3)];
                        let call = Call {
                            lhs: &lhs,
                            at,
                            rhs: &rhs,
                            pitch: nr,
                            walk,
                            init: Init::Dst,
                            clamp: [-50.0, 1000.0],
                            to,
                            column: 2,
                            columns,
                            fetch: None,
                            ahead: Ahead::run(&rhs, walk.steps(), 16),
                        };
                        kernel.run(&call, &mut BlockMut::new(&mut dst, [2, rows, nr + 3]));
                        let mut expected = vec![100.0f32; 2 * rows * (nr + 3)];
                        for (m, j) in (0..rows).flat_map(|m| (0..columns).map(move |j| (m, j))) {
                            let row = if let To::Rows(_) = to { rows - 1 - m } else { m };
                            let cell = &mut expected[(rows + row) * (nr + 3) + 2 + j];
                            let [row, step_of] = if name == "columns" { [1, 5] } else { [5, 1] };
                            for step in 0..walk.steps() {
                                let (outer, inner, k) = (step / 6, step / 2 % 3, step % 2);
                                *cell +=
                                    lhs[m * row + outer * 40 + inner * 7 + k * step_of] * rhs[step * nr + j];
                            }
                            *cell = cell.clamp(-50.0, 1000.0);
                        }
                        assert_eq!(dst, expected, "{isa} {rows} x {columns} of {mr} x {nr}, {name}");
                    }
                }
            }
        }
    }
}

#[test]
fn packed_tiles_are_the_rows_they_were_packed_from() {
    for &isa in Isa::available() {
        for kernel in ukernels(isa) {
            let (nr, depth) = (kernel.nr(), 7);
            for (rows, mr) in (1..=2 * kernel.mr() + 2).flat_map(|rows| [1, kernel.mr()].map(|mr| (rows, mr)))
            {
                let (a, rhs) = (numbers(rows * depth, 6), numbers(depth * nr, 7));
                let mut lhs = Vec::new();
                let [tiles, size, longer] = cut(rows, mr);
                let mut first = 0;
                for tile in 0..tiles {
                    let tile = first..first + size + usize::from(tile < longer);
                    lhs.extend(
                        (0..depth)
                            .flat_map(|k| tile.clone().map(move |m| (m, k)))
                            .map(|(m, k)| a[m * depth + k]),
                    );
                    first = tile.end;
                }
                assert_eq!(first, rows);
                let mut results = [vec![0.0; rows * nr], vec![0.0; rows * nr]];
                let ways =
                    [(&lhs, Lhs::Packed { rows, mr }), (&a, Lhs::Even { start: 0, rows, pitch: depth })];
                for ((lhs, at), dst) in ways.into_iter().zip(&mut results) {
                    let call = Call {
                        lhs,
                        at,
                        rhs: &rhs,
                        pitch: nr,
                        walk: Walk::run(depth),
                        init: Init::Rows(&a),
                        clamp: UNCLAMPED,
                        to: To::Even { at: [0, 0], step: [0, 1] },
                        column: 0,
                        columns: nr,
                        fetch: Some(0),
                        ahead: Ahead::NONE,
                    };
                    kernel.run(&call, &mut BlockMut::new(dst, [1, rows, nr]));
                }
                assert_eq!(results[0], results[1], "{isa} {rows} rows in tiles of {mr}");
            }
        }
    }
}

#[test]
fn transposes_move_every_element_and_no_other() {
    for &isa in Isa::available() {
        let kernel = ukernel(isa, [64, 64]);
        let sizes = (0..38).flat_map(|rows| (0..38).map(move |columns| (rows, columns)));
        // With room between rows, side by side, and both.
        let rooms = [[3, 5], [0, 0], [2, 0], [0, 4]];
        for ((rows, columns), [room, to_room]) in sizes.flat_map(|size| rooms.map(|room| (size, room))) {
            let (pitch, to_pitch) = (columns + room, rows + to_room);
            let from = numbers(rows * pitch + 1, 6);
            let mut to = vec![-99.0; columns * to_pitch + 1];
            kernel.transpose([rows, columns], &from, pitch, &mut to, to_pitch);
            let mut expected = vec![-99.0; columns * to_pitch + 1];
            for (i, j) in (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))) {
                expected[j * to_pitch + i] = from[i * pitch + j];
            }
            assert_eq!(to, expected, "{isa} {rows} x {columns}, room {room} and {to_room}");
        }
    }
}
