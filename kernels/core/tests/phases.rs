//! Phases say the same as the definition: exactly its multiplications, each once.

use convolve_core::phase::{AxisPhase, Phase};
use convolve_core::{Conv2d, Geometry, Padding, definition::for_each_mac};
use proptest::prelude::*;

/// Pixel of `src`, tap, pixel of `dst`, of one axis.
type Triple = (usize, usize, usize);

/// Every problem of the lattice that has a geometry, along the height or along the width; the other axis is 1.
fn lattice(mut visit: impl FnMut(Geometry, usize)) {
    let mut visited = 0;
    for size in 1..=7 {
        for kernel in 1..=4 {
            for stride in 1..=4 {
                for dilation in 1..=3 {
                    for before in 0..=4 {
                        for after in 0..=4 {
                            let conv = Conv2d::new(1, 1, [1, kernel])
                                .input([1, size])
                                .stride([1, stride])
                                .dilation([1, dilation])
                                .padding(Padding::Explicit { top: 0, bottom: 0, left: before, right: after });
                            let turned = Conv2d::new(1, 1, [kernel, 1])
                                .input([size, 1])
                                .stride([stride, 1])
                                .dilation([dilation, 1])
                                .padding(Padding::Explicit { top: before, bottom: after, left: 0, right: 0 });
                            for (conv, axis) in [(turned, 0), (conv, 1)] {
                                if let Ok(geometry) = conv.geometry() {
                                    visited += 1;
                                    visit(geometry, axis);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(visited > 10_000, "only {visited} problems");
}

/// The triples of one axis, in words: output `o` reads pixel `o*stride + k*dilation - before`, if that is inside.
fn defined(geometry: &Geometry, axis: usize) -> Vec<Triple> {
    let (conv, before) = (geometry.conv(), geometry.padding()[axis][0] as i64);
    let mut triples = Vec::new();
    for o in 0..geometry.output()[axis] {
        for k in 0..conv.kernel[axis] {
            let pixel = (o * conv.stride[axis] + k * conv.dilation[axis]) as i64 - before;
            if (0..conv.input[axis] as i64).contains(&pixel) {
                triples.push((pixel as usize, k, o));
            }
        }
    }
    triples
}

/// `(input pixel of the phase, tap, output pixel of the phase)`, through `segments`.
fn triples(axis: &AxisPhase) -> Vec<Triple> {
    let mut triples = Vec::new();
    for segment in axis.segments(0..axis.count) {
        for i in segment.positions {
            for t in segment.taps.clone() {
                let pixel = (i * axis.advance) as isize + axis.taps.d(t);
                triples.push((pixel.try_into().unwrap(), axis.taps.k(t), axis.start + i * axis.step));
            }
        }
    }
    triples
}

fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort_unstable();
    items
}

#[test]
fn the_forward_phase_makes_exactly_the_multiplications_of_the_definition() {
    lattice(|geometry, axis| {
        let found = triples(&geometry.forward().axes[axis]);
        assert_eq!(sorted(found), sorted(defined(&geometry, axis)), "{}", geometry.conv());
    });
}

#[test]
fn the_backward_data_phases_make_exactly_the_multiplications_of_the_definition() {
    lattice(|geometry, axis| {
        // Their input is `dst`, their output `src`.
        let found = geometry.backward_data().flat_map(|phase| triples(&phase.axes[axis]));
        let found = found.map(|(dst, tap, src)| (src, tap, dst)).collect();
        assert_eq!(sorted(found), sorted(defined(&geometry, axis)), "{}", geometry.conv());
    });
}

#[test]
fn every_pixel_of_src_belongs_to_exactly_one_backward_data_phase() {
    lattice(|geometry, axis| {
        let conv = geometry.conv();
        let mut pixels = Vec::new();
        for phase in geometry.backward_data() {
            let axis = &phase.axes[axis];
            assert!(axis.count > 0, "{conv}: an empty phase");
            pixels.extend((0..axis.count).map(|i| axis.start + i * axis.step));
        }
        assert!(sorted(pixels).into_iter().eq(0..conv.input[axis]), "{conv}");
    });
}

#[test]
fn phases_with_taps_are_the_backward_data_phases_that_have_taps() {
    lattice(|geometry, _| {
        let expected: Vec<_> = geometry.backward_data().filter(|phase| phase.taps() > 0).collect();
        assert_eq!(geometry.backward_data_with_taps(), expected, "{}", geometry.conv());
    });
}

fn phases(geometry: &Geometry) -> impl Iterator<Item = Phase> {
    core::iter::once(geometry.forward()).chain(geometry.backward_data())
}

/// The laws of `segments` over `positions`.
fn segments_are_right(axis: &AxisPhase, positions: core::ops::Range<usize>, of: &Conv2d) {
    let inside = |i: usize, t: usize| {
        let pixel = (i * axis.advance) as isize + axis.taps.d(t);
        (0..axis.size as isize).contains(&pixel)
    };
    let mut next = positions.start;
    let mut previous = None;
    for segment in axis.segments(positions.clone()) {
        assert_eq!(segment.positions.start, next, "{of}: a gap");
        assert!(!segment.positions.is_empty(), "{of}: an empty segment");
        assert_ne!(previous, Some(segment.taps.clone()), "{of}: a segment is cut in two");
        next = segment.positions.end;
        for i in segment.positions {
            assert_eq!(axis.valid_taps(i), segment.taps, "{of}");
            assert!(segment.taps.start <= segment.taps.end && segment.taps.end <= axis.taps.count, "{of}");
            assert!(segment.taps.clone().all(|t| inside(i, t)), "{of}: a tap is outside at {i}");
            assert!(
                segment.taps.start == 0 || !inside(i, segment.taps.start - 1),
                "{of}: a tap before at {i}"
            );
            assert!(
                segment.taps.end == axis.taps.count || !inside(i, segment.taps.end),
                "{of}: a tap after at {i}"
            );
        }
        previous = Some(segment.taps);
    }
    assert_eq!(next, positions.end.max(positions.start), "{of}: the end is missing");
}

#[test]
fn segments_cover_the_positions_in_order_and_their_taps_are_all_that_are_inside() {
    lattice(|geometry, axis| {
        for phase in phases(&geometry) {
            let axis = phase.axes[axis];
            for from in 0..=axis.count {
                segments_are_right(&axis, from..axis.count, geometry.conv());
                segments_are_right(&axis, from / 2..from, geometry.conv());
            }
        }
    });
}

#[test]
fn taps_are_in_increasing_displacement() {
    lattice(|geometry, axis| {
        for phase in phases(&geometry) {
            let taps = phase.axes[axis].taps;
            for t in 1..taps.count {
                assert!(taps.d(t - 1) < taps.d(t), "{}", geometry.conv());
            }
            assert!((0..taps.count).all(|t| taps.k(t) < geometry.conv().kernel[axis]), "{}", geometry.conv());
        }
    });
}

#[test]
fn positions_are_exactly_those_whose_output_is_in_the_range() {
    lattice(|geometry, axis| {
        for phase in phases(&geometry) {
            let axis = phase.axes[axis];
            for from in 0..10 {
                for to in from..10 {
                    let found = axis.positions(from..to);
                    let inside =
                        (0..axis.count).filter(|i| (from..to).contains(&(axis.start + i * axis.step)));
                    assert!(inside.eq(found.clone()), "{}: {from}..{to} gave {found:?}", geometry.conv());
                }
            }
        }
    });
}

prop_compose! {
    fn convs()(
        batch in 0usize..3, group_in in 1usize..3, group_out in 1usize..3, groups in 1usize..3,
        input in [1usize..7, 1..7], kernel in [1usize..4, 1..4], stride in [1usize..6, 1..6],
        dilation in [1usize..4, 1..4], [top, bottom, left, right] in [0usize..5, 0..5, 0..5, 0..5],
    ) -> Conv2d {
        let padding = Padding::Explicit { top, bottom, left, right };
        Conv2d { batch, groups, stride, dilation, padding, ..Conv2d::new(group_in * groups, group_out * groups, kernel) }
            .input(input)
    }
}

/// Offsets `(in, weights, out)` of every multiplication of a pass that is made of `phases`, in two dimensions.
fn macs(geometry: &Geometry, phases: impl Iterator<Item = Phase>, backward: bool) -> Vec<Triple> {
    let (src, dst, weights) = (geometry.src(), geometry.dst(), geometry.weights());
    let (input, output) = if backward { (dst, src) } else { (src, dst) };
    let mut macs = Vec::new();
    for phase in phases {
        let [rows, columns] = phase.axes.map(|axis| triples(&axis));
        for &(in_row, ky, out_row) in &rows {
            for &(in_column, kx, out_column) in &columns {
                for n in 0..geometry.conv().batch {
                    for oc in 0..geometry.conv().out_channels {
                        for ic in 0..geometry.group_in() {
                            let channel = oc / geometry.group_out() * geometry.group_in() + ic;
                            let (from, to) = if backward { (oc, channel) } else { (channel, oc) };
                            macs.push((
                                n * input.image
                                    + from * input.channel
                                    + in_row * input.row
                                    + in_column * input.column,
                                weights.at(oc, ic, [ky, kx]),
                                n * output.image
                                    + to * output.channel
                                    + out_row * output.row
                                    + out_column * output.column,
                            ));
                        }
                    }
                }
            }
        }
    }
    macs
}

proptest! {
    #[test]
    fn in_two_dimensions_the_phases_of_both_axes_multiply(conv in convs()) {
        if let Ok(geometry) = conv.geometry() {
            let mut defined = Vec::new();
            for_each_mac(&geometry, |src, weight, dst| defined.push((src, weight, dst)));
            let defined = sorted(defined);
            prop_assert_eq!(sorted(macs(&geometry, core::iter::once(geometry.forward()), false)), &defined[..]);
            let backward = macs(&geometry, geometry.backward_data(), true);
            prop_assert_eq!(sorted(backward.into_iter().map(|(dst, w, src)| (src, w, dst)).collect()), defined);
            // Every pixel of one image is written by exactly one phase.
            let pixels = geometry.backward_data().map(|phase| phase.axes[0].count * phase.axes[1].count).sum::<usize>();
            prop_assert_eq!(pixels, conv.input[0] * conv.input[1]);
            // Phases come in row-major order of their start.
            let starts: Vec<_> = geometry.backward_data().map(|phase| phase.axes.map(|axis| axis.start)).collect();
            prop_assert_eq!(sorted(starts.clone()), starts);
            let expected: Vec<_> = geometry.backward_data().filter(|phase| phase.taps() > 0).collect();
            prop_assert_eq!(geometry.backward_data_with_taps(), expected);
        }
    }

    /// Beyond the lattice: strides, dilations and paddings that are large and share factors.
    #[test]
    fn along_one_axis_large_strides_and_dilations_are_right_too(
        size in 1usize..40, kernel in 1usize..14, stride in 1usize..31, dilation in 1usize..31, pads in [0usize..90, 0..90],
    ) {
        let conv = Conv2d::new(1, 1, [1, kernel]).input([1, size]).stride([1, stride]).dilation([1, dilation])
            .padding(Padding::Explicit { top: 0, bottom: 0, left: pads[0], right: pads[1] });
        if let Ok(geometry) = conv.geometry() {
            let defined = sorted(defined(&geometry, 1));
            prop_assert_eq!(&sorted(triples(&geometry.forward().axes[1])), &defined);
            let backward = geometry.backward_data().flat_map(|phase| triples(&phase.axes[1]));
            prop_assert_eq!(sorted(backward.map(|(dst, tap, src)| (src, tap, dst)).collect()), defined);
            for phase in phases(&geometry) {
                segments_are_right(&phase.axes[1], 0..phase.axes[1].count, &conv);
            }
        }
    }
}
