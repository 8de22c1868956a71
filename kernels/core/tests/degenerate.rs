//! Degenerate problems: each is either a geometry that every method can walk, or an error that says which parameter and which
//! number. Nothing panics, for any sizes.
#![cfg(target_pointer_width = "64")]

use convolve_core::{Conv2d, Error, Geometry, Layout, Operand, Padding, WeightLayout};
use proptest::prelude::*;

const MAX: usize = usize::MAX;
const TWO_62: usize = 1 << 62;
const TWO_32: usize = 1 << 32;
/// Largest padded input, extent and stride.
const AXIS: usize = isize::MAX as usize / 2;
/// Largest number of elements.
const LEN: usize = isize::MAX as usize / 8;

/// What `geometry` must say.
#[derive(Debug)]
enum Want {
    /// A geometry with this output.
    Output([usize; 2]),
    /// A geometry of an empty batch.
    Empty,
    /// `Error::Parameter` with this name and the value 0.
    Zero(&'static str),
    /// `Error::Groups` with this parameter and suggestion.
    Groups(&'static str, usize),
    /// `Error::KernelDoesNotFit` on this axis, with extent and padded input.
    DoesNotFit(&'static str, [usize; 2]),
    /// `Error::TooLarge` of this.
    TooLarge(&'static str),
}

fn sides(top: usize, bottom: usize, left: usize, right: usize) -> Padding {
    Padding::Explicit { top, bottom, left, right }
}

fn table() -> Vec<(Conv2d, Want)> {
    use Want::*;
    let base = Conv2d::new(4, 6, 3).input(8);
    let one = Conv2d::new(1, 1, 1).input(1);
    let channels = |ic, oc, groups| Conv2d { in_channels: ic, out_channels: oc, groups, ..base };
    let kernel = |kernel| Conv2d { kernel, ..base };
    let padded = "the padded input";
    vec![
        // Nothing is zero,
        (Conv2d { in_channels: 0, ..base }, Zero("in_channels")),
        (Conv2d { out_channels: 0, ..base }, Zero("out_channels")),
        (base.groups(0), Zero("groups")),
        (base.input([0, 8]), Zero("input height")),
        (base.input([8, 0]), Zero("input width")),
        (kernel([0, 3]), Zero("kernel height")),
        (kernel([3, 0]), Zero("kernel width")),
        (base.stride([0, 1]), Zero("stride height")),
        (base.stride([1, 0]), Zero("stride width")),
        (base.dilation([0, 1]), Zero("dilation height")),
        (base.dilation([1, 0]), Zero("dilation width")),
        (kernel([1, 1]).dilation(0), Zero("dilation height")),
        (Conv2d::new(3, 8, 3), Zero("input height")),
        (channels(0, 0, 0), Zero("in_channels")),
        (base.batch(0).stride(0), Zero("stride height")),
        (base.padding(Padding::Same).stride(0), Zero("stride height")),
        (base.padding(Padding::Same).input(0), Zero("input height")),
        (kernel([0, 0]).padding(Padding::SameLower), Zero("kernel height")),
        // except the batch, and the padding.
        (base.batch(0), Empty),
        (base.batch(0).padding(100), Empty),
        (base.batch(0).padding(7).layout(Layout::Nhwc), Empty),
        (base.padding(0), Output([6, 6])),
        (one, Output([1, 1])),
        (one.padding(Padding::Same).stride(MAX >> 2), Output([1, 1])),
        // Groups divide both channel counts.
        (base.groups(3), Groups("in_channels", 2)),
        (base.groups(4), Groups("out_channels", 2)),
        (base.groups(5), Groups("in_channels", 2)),
        (base.groups(TWO_32), Groups("in_channels", 2)),
        (base.groups(TWO_62), Groups("in_channels", 2)),
        (base.groups(MAX), Groups("in_channels", 2)),
        (channels(12, 12, 5), Groups("in_channels", 4)),
        (channels(12, 12, 11), Groups("in_channels", 12)),
        (channels(6, 6, 7), Groups("in_channels", 6)),
        (channels(7, 13, 7), Groups("out_channels", 1)),
        (channels(1, MAX, 2), Groups("in_channels", 1)),
        (channels(500_000, 500_000, 1_000_000), Groups("in_channels", 500_000)),
        (channels(300_000, 300_000, 149_999), Groups("in_channels", 150_000)),
        (channels(4, 6, 2), Output([6, 6])),
        (channels(TWO_32, TWO_32, TWO_32), Output([6, 6])),
        (channels(TWO_62, TWO_62, TWO_62), TooLarge("src")),
        // The kernel fits the padded input.
        (kernel([9, 3]), DoesNotFit("height", [9, 8])),
        (kernel([3, 9]), DoesNotFit("width", [9, 8])),
        (kernel([9, 9]).padding(sides(0, 1, 0, 0)), DoesNotFit("width", [9, 8])),
        (kernel([9, 9]).padding(sides(0, 1, 1, 0)), Output([1, 1])),
        (kernel([9, 9]).padding(Padding::Same), Output([8, 8])),
        (kernel([9, 9]).padding(Padding::SameLower).stride(9), Output([1, 1])),
        (base.dilation(4), DoesNotFit("height", [9, 8])),
        (base.dilation([3, 4]), DoesNotFit("width", [9, 8])),
        (base.dilation(4).padding(1), Output([2, 2])),
        (base.dilation(TWO_32), DoesNotFit("height", [2 * TWO_32 + 1, 8])),
        (kernel([TWO_32, 1]), DoesNotFit("height", [TWO_32, 8])),
        (kernel([1, AXIS]), DoesNotFit("width", [AXIS, 8])),
        (base.input(1).padding(sides(1, 0, 1, 0)), DoesNotFit("height", [3, 2])),
        (base.input([1, 8]).padding([1, 0]), Output([1, 6])),
        // Any stride,
        (base.stride(4), Output([2, 2])),
        (base.stride(100), Output([1, 1])),
        (base.stride([TWO_32, 1]), Output([1, 6])),
        (base.stride(AXIS), Output([1, 1])),
        (base.stride(AXIS).padding(Padding::Same), Output([1, 1])),
        (base.stride(AXIS + 1), TooLarge(padded)),
        (base.stride([1, TWO_62]), TooLarge(padded)),
        (base.stride(MAX), TooLarge(padded)),
        (base.stride(MAX).padding(Padding::Same), TooLarge(padded)),
        // any padding,
        (base.padding(3), Output([12, 12])),
        (base.padding(100), Output([206, 206])),
        (base.padding(sides(100, 0, 0, 100)), Output([106, 106])),
        (kernel([1, 1]).padding(1), Output([10, 10])),
        (base.padding(sides(TWO_32, 0, 0, 0)), Output([TWO_32 + 6, 6])),
        (base.padding(TWO_32).stride(TWO_32), Output([3, 3])),
        (base.padding(TWO_32), TooLarge("dst")),
        (base.padding(sides(AXIS - 8, 0, 0, 0)).stride(AXIS), Output([1, 1])),
        (base.padding(sides(AXIS - 7, 0, 0, 0)).stride(AXIS), TooLarge(padded)),
        (base.padding(sides(0, TWO_62, 0, 0)), TooLarge(padded)),
        (base.padding(sides(0, 0, MAX, 0)), TooLarge(padded)),
        (base.padding(sides(0, 0, 0, MAX)), TooLarge(padded)),
        (base.padding(sides(MAX, MAX, 0, 0)), TooLarge(padded)),
        // and any dilation of one tap.
        (kernel([1, 1]).dilation(MAX), Output([8, 8])),
        (kernel([1, 1]).dilation(TWO_62).stride(3).padding(Padding::Same), Output([3, 3])),
        (kernel([1, 3]).dilation([MAX, 1]), Output([8, 6])),
        (base.dilation(MAX), TooLarge(padded)),
        (base.dilation(TWO_62), TooLarge(padded)),
        (base.dilation(MAX).padding(Padding::Same), TooLarge(padded)),
        (base.dilation(MAX / 2 + 1), TooLarge(padded)),
        // Every size fits the address space: each is what overflows first.
        (base.batch(TWO_32), Output([6, 6])),
        (base.batch(TWO_62), TooLarge("src")),
        (base.batch(MAX), TooLarge("src")),
        (base.batch((LEN + 1) / 256), TooLarge("src")),
        (base.batch(LEN / 256), TooLarge("the number of multiplications")),
        (one.batch(LEN), Output([1, 1])),
        (one.batch(LEN + 1), TooLarge("src")),
        (channels(TWO_32, 6, 1), Output([6, 6])),
        (channels(TWO_62, 6, 1), TooLarge("src")),
        (channels(MAX, 6, 1), TooLarge("src")),
        (channels(4, TWO_32, 1), Output([6, 6])),
        (channels(4, TWO_62, 1), TooLarge("weights")),
        (channels(4, MAX, 1), TooLarge("weights")),
        (base.batch(0).groups(2).input([TWO_32, TWO_32]), TooLarge("src")),
        (channels(TWO_62, 6, 1).batch(0), TooLarge("src")),
        (Conv2d { out_channels: TWO_32, ..one }.batch(0).padding(TWO_32), TooLarge("dst")),
        (base.input([TWO_32, 8]), Output([TWO_32 - 2, 6])),
        (base.input(TWO_32), TooLarge("src")),
        (base.input([8, TWO_62]), TooLarge(padded)),
        (base.input([MAX, 8]), TooLarge(padded)),
        (one.input([1, LEN]), Output([1, LEN])),
        (one.input([1, LEN + 1]), TooLarge("src")),
        (kernel([TWO_32, TWO_32]).padding(TWO_32), TooLarge("weights")),
        (kernel([TWO_62, 1]), TooLarge(padded)),
        (kernel([1, MAX]), TooLarge(padded)),
        (kernel([MAX, MAX]).dilation(MAX).padding(MAX).stride(MAX), TooLarge(padded)),
    ]
}

#[test]
fn each_degenerate_problem_is_a_geometry_or_the_error_that_names_it() {
    let table = table();
    assert!(table.len() >= 60);
    for (conv, want) in table {
        let got = conv.geometry();
        let right = match (&got, &want) {
            (Ok(geometry), Want::Output(output)) => geometry.output() == *output && geometry.dst_len() > 0,
            (Ok(geometry), Want::Empty) => {
                [geometry.src_len(), geometry.dst_len()] == [0, 0]
                    && geometry.macs() == 0
                    && geometry.weights_len() > 0
            }
            (Err(Error::Parameter { parameter, value: 0, .. }), Want::Zero(name)) => parameter == name,
            (Err(Error::Groups { parameter, suggestion, .. }), Want::Groups(name, groups)) => {
                parameter == name && suggestion == groups
            }
            (Err(Error::KernelDoesNotFit { axis, extent, padded, .. }), Want::DoesNotFit(name, sizes)) => {
                axis == name && [*extent, *padded] == *sizes
            }
            (Err(Error::TooLarge { what, .. }), Want::TooLarge(name)) => what == name,
            _ => false,
        };
        assert!(right, "{conv:?}\nwants {want:?}\n  got {got:?}");
        match got {
            Ok(geometry) => walk(&geometry),
            Err(error) => is_explained(&conv, &error),
        }
    }
}

#[test]
fn suggested_groups_are_accepted() {
    for (conv, want) in table() {
        if let Want::Groups(..) = want
            && let Err(Error::Groups { suggestion, .. }) = conv.geometry()
        {
            assert!(!matches!(conv.groups(suggestion).geometry(), Err(Error::Groups { .. })), "{conv}");
        }
    }
}

/// The text of an error of `geometry` has the parameter and the numbers.
fn is_explained(conv: &Conv2d, error: &Error) {
    let text = error.to_string();
    let parts = match error {
        Error::Parameter { parameter, value, .. } => vec![format!("{parameter} = {value}: ")],
        Error::Groups { parameter, channels, groups, suggestion } => vec![
            format!("{parameter} = {channels} "),
            format!(" {groups} groups"),
            format!("groups = {suggestion}"),
        ],
        Error::KernelDoesNotFit { axis, kernel, dilation, extent, input, begin, end, padded } => vec![
            format!("kernel {axis} {kernel} "),
            format!("dilation {dilation}, so it covers {extent}"),
            format!("input {axis} {padded} (input {input} + padding {begin} + {end})"),
            format!("pad by at least {} more", extent - padded),
        ],
        Error::TooLarge { what, problem, bits: 64 } => {
            assert!(*problem == format!("{conv:?}") || *problem == conv.to_string(), "{text}");
            vec![what.to_string(), problem.clone(), "64 bits".into()]
        }
        other => panic!("{conv:?} gives {other:?}"),
    };
    for part in parts {
        assert!(text.contains(&part), "{text}\nshould say {part}");
    }
}

/// Every method of a geometry answers, and `check` accepts exactly one length.
fn walk(geometry: &Geometry) {
    let conv = *geometry.conv();
    let operands = [
        (Operand::Src, "src", geometry.src_len()),
        (Operand::Weights, "diff_weights", geometry.weights_len()),
        (Operand::Dst, "diff_dst", geometry.dst_len()),
        (Operand::Bias, "bias", conv.out_channels),
    ];
    for (operand, name, len) in operands {
        assert_eq!(geometry.check(operand, name, len), Ok(()), "{conv:?}");
        for wrong in [len.checked_sub(1), len.checked_add(1), Some(0), Some(MAX), Some(len / 2), Some(1)] {
            let Some(wrong) = wrong.filter(|wrong| *wrong != len) else { continue };
            let error = geometry.check(operand, name, wrong).expect_err("a wrong length");
            assert!(
                matches!(error, Error::Length { got, expected, .. } if (got, expected) == (wrong, len)),
                "{error:?}"
            );
            let text = error.to_string();
            let start = format!("{name} has {wrong} elements, but [");
            assert!(text.starts_with(&start) && text.contains(&format!(" needs {len}")), "{text}");
        }
    }
    let shapes = [geometry.src_shape(), geometry.dst_shape(), geometry.weights_shape()];
    let lens = [geometry.src_len(), geometry.dst_len(), geometry.weights_len()];
    assert_eq!(shapes.map(|shape| shape.iter().product::<usize>()), lens, "{conv:?}");
    for (strides, len) in [(geometry.src(), geometry.src_len()), (geometry.dst(), geometry.dst_len())] {
        assert_eq!(conv.batch * strides.image, len, "{conv:?}");
    }
    let last =
        geometry.weights().at(conv.out_channels - 1, geometry.group_in() - 1, conv.kernel.map(|k| k - 1));
    assert_eq!(last + 1, geometry.weights_len(), "{conv:?}");
    assert_eq!(geometry.group_in() * conv.groups, conv.in_channels);
    assert_eq!(geometry.group_out() * conv.groups, conv.out_channels);

    for phase in core::iter::once(geometry.forward()).chain(geometry.backward_data().take(5)) {
        assert!(phase.taps() <= geometry.taps());
        for axis in phase.axes {
            assert!(axis.count > 0 && axis.positions(0..MAX) == (0..axis.count), "{conv:?}");
            if let Some(last) = axis.taps.count.checked_sub(1) {
                assert!(axis.taps.d(0) <= axis.taps.d(last), "{conv:?}");
                assert!(
                    axis.taps.k(0).max(axis.taps.k(last)) < conv.kernel[0].max(conv.kernel[1]),
                    "{conv:?}"
                );
            }
            for range in [0..axis.count, axis.count - 1..axis.count, axis.count / 2..axis.count] {
                let mut next = range.start;
                for segment in axis.segments(range.clone()).take(5) {
                    assert_eq!(segment.positions.start, next, "{conv:?}");
                    assert!(segment.taps.end <= axis.taps.count, "{conv:?}");
                    next = segment.positions.end;
                }
                assert!(range.start < next && next <= range.end, "{conv:?}");
            }
        }
    }
}

#[test]
fn phases_of_a_huge_kernel_are_found_at_once() {
    for stride in [(1 << 40) + 1, (1 << 49) + 1, 3 << 47] {
        let conv = Conv2d::new(1, 1, [1, 1 << 50]).stride([1, stride]).dilation([1, 6]).padding([0, 3 << 50]);
        walk(&conv.input([1, 1 << 50]).geometry().expect("it fits"));
    }
}

#[test]
fn a_hint_never_overflows() {
    // An output channel count and an input size whose product no operand has.
    let conv = Conv2d { out_channels: 1 << 40, ..Conv2d::new(1, 1, 1).input([1 << 30, 1]).stride(1 << 30) };
    walk(&conv.geometry().expect("it fits"));
    let error =
        Conv2d::new(1, 1, 3).input(8).geometry().and_then(|g| g.check(Operand::Dst, "dst", 64)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "dst has 64 elements, but [1, 1, 6, 6] NCHW needs 36; an output as large as the input needs padding, e.g. \
         `.padding(Padding::Same)`, and gives 6x6 here"
    );
}

/// The model: the same questions in the same order, in 128 bits.
#[derive(Debug, PartialEq)]
enum Model {
    Parameter,
    Groups,
    DoesNotFit { extent: i128, padded: i128 },
    TooLarge,
    Fine { output: [i128; 2], padding: [[i128; 2]; 2], lens: [i128; 3], macs: i128 },
}

fn model(conv: &Conv2d) -> Model {
    let wide = |value: usize| value as i128;
    let pair = |values: [usize; 2]| values.map(wide);
    let (ic, oc, groups) = (wide(conv.in_channels), wide(conv.out_channels), wide(conv.groups));
    let (input, kernel) = (pair(conv.input), pair(conv.kernel));
    let (stride, dilation) = (pair(conv.stride), pair(conv.dilation));
    if [ic, oc, groups].contains(&0) || [input, kernel, stride, dilation].as_flattened().contains(&0) {
        return Model::Parameter;
    }
    if ic % groups != 0 || oc % groups != 0 {
        return Model::Groups;
    }
    let (mut output, mut padding) = ([0; 2], [[0; 2]; 2]);
    for a in 0..2 {
        let extent = (kernel[a] - 1).saturating_mul(dilation[a]).saturating_add(1);
        let same = {
            let output = (input[a] + stride[a] - 1) / stride[a];
            ((output - 1) * stride[a] - input[a]).saturating_add(extent).max(0)
        };
        padding[a] = match conv.padding {
            Padding::Valid => [0, 0],
            Padding::Same => [same / 2, same - same / 2],
            Padding::SameLower => [same - same / 2, same / 2],
            Padding::Explicit { top, bottom, left, right } => pair([[top, bottom], [left, right]][a]),
        };
        let padded = input[a].saturating_add(padding[a][0]).saturating_add(padding[a][1]);
        if padded.max(extent).max(stride[a]) > wide(AXIS) {
            return Model::TooLarge;
        }
        if extent > padded {
            return Model::DoesNotFit { extent, padded };
        }
        output[a] = (padded - extent) / stride[a] + 1;
    }
    let product = |factors: [i128; 3]| factors.into_iter().fold(1i128, i128::saturating_mul);
    // One image must fit, also when there is none.
    let one = [
        product([ic, input[0], input[1]]),
        product([oc, ic / groups, product([kernel[0], kernel[1], 1])]),
        product([oc, output[0], output[1]]),
    ];
    let batch = wide(conv.batch);
    let lens = [one[0].saturating_mul(batch), one[1], one[2].saturating_mul(batch)];
    if one.into_iter().chain(lens).any(|len| len > wide(LEN)) {
        return Model::TooLarge;
    }
    let macs = product([lens[2], ic / groups, kernel[0] * kernel[1]]);
    if macs > u64::MAX.into() {
        return Model::TooLarge;
    }
    Model::Fine { output, padding, lens, macs }
}

fn agrees(conv: Conv2d) {
    let text = conv.to_string();
    let got = match conv.geometry() {
        Ok(geometry) => {
            walk(&geometry);
            let back = text
                .parse::<Conv2d>()
                .expect("the string of a problem")
                .geometry()
                .expect("the same problem");
            assert_eq!(back.output(), geometry.output(), "{text}");
            Model::Fine {
                output: geometry.output().map(|size| size as i128),
                padding: geometry.padding().map(|sides| sides.map(|side| side as i128)),
                lens: [geometry.src_len(), geometry.weights_len(), geometry.dst_len()].map(|len| len as i128),
                macs: geometry.macs().into(),
            }
        }
        Err(error) => {
            is_explained(&conv, &error);
            match error {
                Error::Parameter { .. } => Model::Parameter,
                Error::Groups { .. } => Model::Groups,
                Error::KernelDoesNotFit { extent, padded, .. } => {
                    Model::DoesNotFit { extent: extent as i128, padded: padded as i128 }
                }
                _ => Model::TooLarge,
            }
        }
    };
    assert_eq!(got, model(&conv), "{conv:?}");
}

fn size() -> impl Strategy<Value = usize> {
    let edges: Vec<usize> = [0, 1, 1 << 16, 1 << 31, TWO_32, LEN, 1 << 61, AXIS, isize::MAX as usize, MAX]
        .into_iter()
        .flat_map(|edge| [edge.wrapping_sub(1), edge, edge.wrapping_add(1)])
        .collect();
    prop_oneof![
        4 => 1usize..12,
        2 => proptest::sample::select(edges),
        1 => any::<usize>(),
        2 => (any::<usize>(), 0u32..64).prop_map(|(bits, shift)| bits >> shift),
    ]
}

fn convs(size: impl Strategy<Value = usize> + 'static) -> impl Strategy<Value = Conv2d> {
    let size = size.boxed();
    let pair = || [size.clone(), size.clone()];
    let padding = prop_oneof![
        1 => Just(Padding::Valid),
        2 => Just(Padding::Same),
        2 => Just(Padding::SameLower),
        5 => [size.clone(), size.clone(), size.clone(), size.clone()].prop_map(|[a, b, c, d]| sides(a, b, c, d)),
    ];
    let layouts =
        (proptest::sample::select(&Layout::ALL[..]), proptest::sample::select(&WeightLayout::ALL[..]));
    (
        [size.clone(), size.clone(), size.clone(), size.clone()],
        pair(),
        pair(),
        pair(),
        pair(),
        padding,
        layouts,
    )
        .prop_map(
            |([batch, ic, oc, groups], input, kernel, stride, dilation, padding, (layout, weight_layout))| {
                Conv2d {
                    batch,
                    groups,
                    stride,
                    dilation,
                    padding,
                    layout,
                    weight_layout,
                    ..Conv2d::new(ic, oc, kernel).input(input)
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn arbitrary_sizes_never_panic_and_agree_with_the_model(conv in convs(size())) {
        agrees(conv);
    }

    /// Small problems with a few arbitrary fields: most of them get past the first checks.
    #[test]
    fn a_few_arbitrary_fields_never_panic_and_agree_with_the_model(
        small in convs(1usize..9), fields in proptest::collection::vec((0usize..16, size()), 0..4), depthwise in 0usize..4, empty in 0usize..4,
    ) {
        let mut conv = Conv2d { groups: if depthwise == 0 { small.groups } else { 1 }, ..small };
        if depthwise == 3 {
            (conv.out_channels, conv.groups) = (conv.in_channels * conv.out_channels, conv.in_channels);
        }
        for (field, value) in fields {
            let [top, bottom, left, right] = match conv.padding {
                Padding::Explicit { top, bottom, left, right } => [top, bottom, left, right],
                _ => [0; 4],
            };
            match field {
                0 => conv.batch = value,
                1 => conv.in_channels = value,
                2 => conv.out_channels = value,
                3 => conv.groups = value,
                4 | 5 => conv.input[field - 4] = value,
                6 | 7 => conv.kernel[field - 6] = value,
                8 | 9 => conv.stride[field - 8] = value,
                10 | 11 => conv.dilation[field - 10] = value,
                12 => conv.padding = sides(value, bottom, left, right),
                13 => conv.padding = sides(top, value, left, right),
                14 => conv.padding = sides(top, bottom, value, right),
                _ => conv.padding = sides(top, bottom, left, value),
            }
        }
        if empty == 0 {
            conv.batch = 0;
        }
        agrees(conv);
    }
}
