//! The operators: how a node of ONNX becomes a problem of the library, and how far a result may be from the expected one.
//!
//! Both results are sums of the same K products, each within K u S of the exact one (S sums absolute values, u = 2^-24), so that they may
//! differ by 2 K u S. A maximum and an index are exact. Every algorithm that adds up products runs, on every instruction set of this CPU;
//! the bounds of Winograd are other ones, and `convolve-winograd` tests them.
//!
//! Lp-pooling is the root of a sum of powers: an average that is divided by 1, between two maps. Maxima of u8 are those of the same numbers
//! in f32.
//!
//! A signal `[N, C, L]` is an image of one row. What ONNX leaves out is stride 1 and dilation 1, also for pooling.

use crate::case::{Case, Tensor, Values};
use crate::{Result, Verdict};
use convolve::registry::Registered;
use convolve::{
    Accuracy, BackwardData, Conv2d, Epilogue, Forward, Isa, Padding, Par, Planner, Pool2d, Pooling,
    Reduction, Transposed2d, Update, definition, pool_definition, unpool,
};
use std::collections::BTreeSet;

/// Half a unit in the last place of 1.
const U: f64 = 1.0 / (1 << 24) as f64;

/// What any convolution or pooling may say.
const COMMON: [&str; 5] = ["auto_pad", "dilations", "kernel_shape", "pads", "strides"];

/// Runs a case, or says why not.
pub(crate) fn run(case: &Case) -> Result<Verdict> {
    let reason = match case.operator.as_str() {
        "Conv" | "ConvTranspose" | "MaxPool" | "AveragePool" | "GlobalMaxPool" | "GlobalAveragePool"
        | "LpPool" | "MaxUnpool" => None,
        "ConvInteger" | "QLinearConv" => Some("quantised".to_owned()),
        "DeformConv" => Some("deformable convolution".to_owned()),
        other => Some(format!("the operator {other}")),
    };
    let src = case.inputs.first().ok_or("a node without inputs")?;
    let reason = reason.or(match (&src.values, src.shape.len()) {
        (Values::Other(element), _) => Some(format!("elements of type {element}")),
        (Values::U8(_), _) if case.operator != "MaxPool" => Some("elements of type u8".to_owned()),
        (_, 3 | 4) => None,
        (_, rank) => Some(format!("{}-D", rank.saturating_sub(2))),
    });
    if let Some(reason) = reason {
        return Ok(Verdict::NotCovered(reason));
    }
    match case.operator.as_str() {
        "Conv" => convolution(case),
        "ConvTranspose" => transposed(case),
        "LpPool" => lp_pooling(case),
        "MaxUnpool" => unpooling(case),
        _ => pooling(case),
    }
    .map(Verdict::Passed)
}

/// `[N, C, H, W]`, where a signal has H = 1.
fn image(tensor: &Tensor) -> Result<[usize; 4]> {
    match tensor.shape[..] {
        [n, c, w] => Ok([n, c, 1, w]),
        [n, c, h, w] => Ok([n, c, h, w]),
        ref shape => Err(format!("{shape:?} is neither a batch of images nor of signals").into()),
    }
}

/// Axes of the images of this case: 2, or 1 for signals.
fn axes(case: &Case) -> usize {
    case.inputs[0].shape.len() - 2
}

/// A size per axis; the one that signals lack is `row`.
fn pair(case: &Case, name: &str, row: usize) -> Result<Option<[usize; 2]>> {
    let sizes = case.sizes(name, axes(case))?;
    Ok(sizes.map(|sizes| if let [h, w] = sizes[..] { [h, w] } else { [row, sizes[0]] }))
}

/// `[[top, bottom], [left, right]]`; ONNX has all beginnings first.
fn pads(case: &Case) -> Result<[[usize; 2]; 2]> {
    Ok(match case.sizes("pads", 2 * axes(case))?.as_deref() {
        Some(&[top, left, bottom, right]) => [[top, bottom], [left, right]],
        Some(&[left, right]) => [[0, 0], [left, right]],
        _ => [[0, 0], [0, 0]],
    })
}

fn padding(case: &Case) -> Result<Padding> {
    match case.word("auto_pad") {
        "" | "NOTSET" => {
            let [[top, bottom], [left, right]] = pads(case)?;
            Ok(Padding::Explicit { top, bottom, left, right })
        }
        "VALID" => Ok(Padding::Valid),
        "SAME_UPPER" => Ok(Padding::Same),
        "SAME_LOWER" => Ok(Padding::SameLower),
        other => Err(format!("auto_pad = {other}: nobody knows that").into()),
    }
}

fn groups(case: &Case) -> Result<usize> {
    Ok(usize::try_from(case.int("group", 1))?)
}

/// Height and width of the weights, which `kernel_shape` may repeat.
fn kernel(case: &Case, weights: [usize; 4]) -> Result<[usize; 2]> {
    let kernel = [weights[2], weights[3]];
    match pair(case, "kernel_shape", 1)? {
        Some(said) if said != kernel => {
            Err(format!("kernel_shape = {said:?}, but the weights are {kernel:?}").into())
        }
        _ => Ok(kernel),
    }
}

/// The expected output, whose shape must be that one.
fn expected(case: &Case, shape: [usize; 4]) -> Result<&Tensor> {
    let tensor = case.outputs.first().ok_or("a node without outputs")?;
    if image(tensor)? != shape {
        return Err(format!("the output is {shape:?}, expected {:?}", tensor.shape).into());
    }
    Ok(tensor)
}

/// Whether each number is as near as its bound; a NaN must be one.
fn compare(dst: &[f32], expected: &[f32], bound: impl Fn(usize) -> f64, by: &str) -> Result<()> {
    for (i, (&got, &want)) in dst.iter().zip(expected).enumerate() {
        let error = (f64::from(got) - f64::from(want)).abs();
        if !(got == want || error <= bound(i) || got.is_nan() && want.is_nan()) {
            let most = bound(i);
            return Err(
                format!("{by}: output {i} is {got}, expected {want}; they may differ by {most:e}").into()
            );
        }
    }
    Ok(())
}

/// `|x|` in f64.
fn magnitudes(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x).abs()).collect()
}

/// The instruction sets of this CPU.
fn isas() -> Vec<Isa> {
    convolve_testkit::isas()
}

/// A planner for each algorithm that takes this problem and adds up products, on each instruction set.
fn planners<P: Registered>(conv: Conv2d) -> Result<Vec<(&'static str, Planner)>> {
    let mut planners = Vec::new();
    for isa in isas() {
        let planner = Planner::new().isa(isa).threads(1).accuracy(Accuracy::Strict);
        let problem = planner.problem(conv)?;
        for algorithm in P::algorithms() {
            if algorithm.amplification() == 1.0 && algorithm.estimate(&problem).is_ok() {
                planners.push((algorithm.name(), planner.clone().only(algorithm.name())));
            }
        }
    }
    Ok(planners)
}

/// The names that occur.
fn names(planners: &[(&'static str, Planner)]) -> String {
    let names: BTreeSet<_> = planners.iter().map(|(name, _)| *name).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

fn convolution(case: &Case) -> Result<String> {
    case.knows_only(&[&COMMON[..], &["group"]].concat())?;
    let (src, weights) = (&case.inputs[0], case.inputs.get(1).ok_or("a convolution without weights")?);
    let ([batch, in_channels, height, width], shape) = (image(src)?, image(weights)?);
    let conv = Conv2d {
        stride: pair(case, "strides", 1)?.unwrap_or([1, 1]),
        dilation: pair(case, "dilations", 1)?.unwrap_or([1, 1]),
        padding: padding(case)?,
        groups: groups(case)?,
        ..Conv2d::new(in_channels, shape[0], kernel(case, shape)?).batch(batch).input([height, width])
    };
    let geometry = conv.geometry()?;
    let [oh, ow] = geometry.output();
    let expected = expected(case, [batch, shape[0], oh, ow])?.f32()?;
    let (src, weights) = (src.f32()?, weights.f32()?);
    let bias = case.inputs.get(2).map(Tensor::f32).transpose()?;

    let sums = definition::forward(&geometry, &magnitudes(src), &magnitudes(weights));
    let terms = shape[1] * shape[2] * shape[3] + 1;
    let bound = |i: usize| {
        let bias = bias.map_or(0.0, |bias| f64::from(bias[i / (oh * ow) % bias.len()]).abs());
        2.0 * terms as f64 * U * (sums[i] + bias)
    };
    let planners = planners::<Forward>(conv)?;
    for (name, planner) in &planners {
        let plan = planner.plan::<Forward>(conv)?;
        let packed = plan.pack(weights)?;
        let mut dst = vec![f32::NAN; expected.len()];
        let epilogue = bias.map_or(Epilogue::NONE, Epilogue::bias);
        plan.run(&packed, src, &mut dst, epilogue, &mut plan.workspace()?, Par::Seq)?;
        compare(&dst, expected, bound, &format!("{name} on {}", plan.isa()))?;
    }
    Ok(names(&planners))
}

/// The layer of a case. ONNX may say its output instead of its padding:
/// `begin + end = (input - 1) * stride + dilation * (kernel - 1) + 1 + output_padding - output`; if that is negative, it is output padding.
fn layer(case: &Case, src: [usize; 4], weights: [usize; 4]) -> Result<Transposed2d> {
    let ([batch, in_channels, height, width], groups) = (src, groups(case)?);
    let mut layer = Transposed2d {
        stride: pair(case, "strides", 1)?.unwrap_or([1, 1]),
        dilation: pair(case, "dilations", 1)?.unwrap_or([1, 1]),
        padding: pads(case)?,
        groups,
        output_padding: pair(case, "output_padding", 0)?.unwrap_or([0, 0]),
        ..Transposed2d::new(in_channels, groups * weights[1], kernel(case, weights)?)
            .batch(batch)
            .input([height, width])
    };
    let same = ["SAME_UPPER", "SAME_LOWER"].contains(&case.word("auto_pad"));
    let output = match pair(case, "output_shape", 1)? {
        Some(output) => output,
        None if same => [height * layer.stride[0], width * layer.stride[1]],
        None => return Ok(layer),
    };
    layer.padding = [[0, 0], [0, 0]];
    let full = layer.output()?;
    for axis in 0..2 {
        let cut = full[axis].saturating_sub(output[axis]);
        let (less, more) = (cut / 2, cut - cut / 2);
        layer.padding[axis] = if case.word("auto_pad") == "SAME_UPPER" { [less, more] } else { [more, less] };
        layer.output_padding[axis] += output[axis].saturating_sub(full[axis]);
    }
    Ok(layer)
}

fn transposed(case: &Case) -> Result<String> {
    case.knows_only(&[&COMMON[..], &["group", "output_padding", "output_shape"]].concat())?;
    let (src, weights) = (&case.inputs[0], case.inputs.get(1).ok_or("a convolution without weights")?);
    let shape = image(weights)?;
    let layer = layer(case, image(src)?, shape)?;
    let [oh, ow] = layer.output()?;
    let expected = expected(case, [layer.batch, layer.out_channels, oh, ow])?.f32()?;
    let (src, weights) = (src.f32()?, weights.f32()?);
    let bias = match case.inputs.get(2) {
        Some(bias) => bias.f32()?.to_vec(),
        None => vec![0.0; layer.out_channels],
    };

    let conv = layer.conv()?;
    let sums = definition::backward_data(&conv.geometry()?, &magnitudes(src), &magnitudes(weights));
    let terms = shape[0] / layer.groups * shape[2] * shape[3] + 1;
    let channel = |i: usize| i / (oh * ow) % bias.len();
    let bound = |i: usize| 2.0 * terms as f64 * U * (sums[i] + f64::from(bias[channel(i)]).abs());
    let planners = planners::<BackwardData>(conv)?;
    for (name, planner) in &planners {
        let plan = planner.plan::<BackwardData>(conv)?;
        let packed = plan.pack(weights)?;
        let mut dst: Vec<_> = (0..expected.len()).map(|i| bias[channel(i)]).collect();
        plan.run(&packed, src, &mut dst, Update::Accumulate, &mut plan.workspace()?, Par::Seq)?;
        compare(&dst, expected, bound, &format!("{name} on {}", plan.isa()))?;
    }
    Ok(names(&planners))
}

/// A pooling with the windows of a case.
fn windows(case: &Case, pool: fn(usize, [usize; 2]) -> Pool2d) -> Result<Pool2d> {
    let [batch, channels, height, width] = image(&case.inputs[0])?;
    let kernel = pair(case, "kernel_shape", 1)?.ok_or("a pooling without kernel_shape")?;
    Ok(pool(channels, kernel)
        .batch(batch)
        .input([height, width])
        .stride(pair(case, "strides", 1)?.unwrap_or([1, 1]))
        .dilation(pair(case, "dilations", 1)?.unwrap_or([1, 1]))
        .padding(padding(case)?)
        .ceil_mode(case.int("ceil_mode", 0) != 0))
}

/// `dst = (sum of |src|^p)^(1/p)`. p - 1 products and K - 1 additions of numbers that are not negative are off by (K + p) u of the sum at most,
/// which the root divides by p; its own rounding is 2 u with any usual library. So both results are within (K + p + 2) u of the exact one.
fn lp_pooling(case: &Case) -> Result<String> {
    case.knows_only(&[&COMMON[..], &["ceil_mode", "p"]].concat())?;
    let p = i32::try_from(case.int("p", 2))?;
    if p < 1 {
        return Err(format!("p = {p}: it should be at least 1").into());
    }
    let pool = windows(case, Pool2d::average)?.divisor(1);
    let geometry = pool.geometry()?;
    let [oh, ow] = geometry.output();
    let expected = expected(case, [pool.batch, pool.channels, oh, ow])?.f32()?;
    let power = |x: &f32| (1..p).fold(x.abs(), |power, _| power * x.abs());
    let powers: Vec<f32> = case.inputs[0].f32()?.iter().map(power).collect();

    let terms = pool.kernel[0] * pool.kernel[1];
    let bound = |i: usize| 2.0 * (terms as f64 + f64::from(p) + 2.0) * U * f64::from(expected[i]).abs();
    for isa in isas() {
        let plan = Planner::new().isa(isa).threads(1).pool(pool)?;
        let mut dst = vec![f32::NAN; expected.len()];
        plan.forward(&powers, &mut dst, &mut plan.workspace()?, Par::Seq)?;
        dst.iter_mut().for_each(|sum| *sum = f64::from(*sum).powf(1.0 / f64::from(p)) as f32);
        compare(&dst, expected, bound, isa.name())?;
    }
    Ok("pool, between powers and roots".into())
}

/// Indices are those of an image of `(input - 1) * stride + kernel - begin - end` pixels. If an output is said, that image is its corner, and
/// zeros follow.
fn unpooling(case: &Case) -> Result<String> {
    case.knows_only(&["kernel_shape", "pads", "strides"])?;
    let [batch, channels, height, width] = image(&case.inputs[0])?;
    let kernel = pair(case, "kernel_shape", 1)?.ok_or("an unpooling without kernel_shape")?;
    let (stride, pads) = (pair(case, "strides", 1)?.unwrap_or([1, 1]), pads(case)?);
    let size = |axis: usize| {
        let full = ([height, width][axis].max(1) - 1) * stride[axis] + kernel[axis];
        full.saturating_sub(pads[axis][0] + pads[axis][1])
    };
    let (rows, columns) = (size(0), size(1));
    let said = match case.inputs.get(2) {
        Some(output) => {
            let shape: Vec<_> = output.i64()?.iter().filter_map(|&size| usize::try_from(size).ok()).collect();
            image(&Tensor { shape, values: Values::I64(Vec::new()) })?
        }
        None => [batch, channels, rows, columns],
    };
    let [_, _, oh, ow] = said;
    if said[..2] != [batch, channels] || oh < rows || ow < columns {
        return Err(format!("an image of {rows} x {columns} does not fit the output {said:?}").into());
    }
    let expected = expected(case, said)?.f32()?;
    let indices = case.inputs.get(1).ok_or("an unpooling without indices")?.i64()?;
    let indices: Vec<_> =
        indices.iter().map(|&i| usize::try_from(i)).collect::<std::result::Result<_, _>>()?;
    let mut corner = vec![f32::NAN; batch * channels * rows * columns];
    unpool(case.inputs[0].f32()?, &indices, &mut corner)?;
    let mut dst = vec![0.0; expected.len()];
    for (i, row) in corner.chunks_exact(columns.max(1)).enumerate() {
        dst[(i / rows * oh + i % rows) * ow..][..columns].copy_from_slice(row);
    }
    compare(&dst, expected, |_| 0.0, "unpool")?;
    Ok("unpool".into())
}

fn pooling(case: &Case) -> Result<String> {
    let src = &case.inputs[0];
    let [batch, channels, height, width] = image(src)?;
    let pool = match case.operator.as_str() {
        "GlobalMaxPool" | "GlobalAveragePool" => {
            case.knows_only(&[])?;
            let input = [height, width];
            match case.operator.as_str() {
                "GlobalMaxPool" => Pool2d::global_max(channels, input),
                _ => Pool2d::global_average(channels, input),
            }
        }
        operator => {
            case.knows_only(&[&COMMON[..], &["ceil_mode", "count_include_pad", "storage_order"]].concat())?;
            let pool = if operator == "MaxPool" { Pool2d::max } else { Pool2d::average };
            windows(case, pool)?.count_include_pad(case.int("count_include_pad", 0) != 0)
        }
    };
    let pool = pool.batch(batch).input([height, width]);
    let geometry = pool.geometry()?;
    let [oh, ow] = geometry.output();
    let expected = expected(case, [batch, channels, oh, ow])?.exact_f32()?;
    let (src, expected) = (&*src.exact_f32()?, &*expected);

    let bounds = match pool.reduction {
        Reduction::Max { .. } => vec![0.0; expected.len()],
        Reduction::Average { .. } => {
            let mut means = pool_definition::forward(&geometry, &magnitudes(src));
            // One more for the division.
            let terms = pool.kernel[0] * pool.kernel[1] + 1;
            means.iter_mut().for_each(|mean| *mean *= 2.0 * terms as f64 * U);
            means
        }
    };
    for isa in isas() {
        let plan = Planner::new().isa(isa).threads(1).pool(pool)?;
        let mut dst = vec![f32::NAN; expected.len()];
        plan.forward(src, &mut dst, &mut plan.workspace()?, Par::Seq)?;
        compare(&dst, expected, |i| bounds[i], isa.name())?;
        if let Some(indices) = case.outputs.get(1) {
            let by_columns = case.int("storage_order", 0) != 0;
            positions(&plan, src, indices.i64()?, by_columns).map_err(|error| format!("{isa}: {error}"))?;
        }
    }
    Ok(match case.outputs.len() {
        1 => "pool".into(),
        _ => "pool, and its gradient for the indices".into(),
    })
}

/// Whether each maximum is where ONNX says: the pixel that its gradient goes to. Images are counted row by row or column by column.
fn positions(plan: &Pooling, src: &[f32], expected: &[i64], by_columns: bool) -> Result<()> {
    let [height, width] = plan.geometry().pool().input;
    let mut workspace = plan.workspace()?;
    if expected.len() != plan.geometry().dst_len() {
        return Err("there is not one index for each output".into());
    }
    for (i, &want) in expected.iter().enumerate() {
        let mut diff_dst = vec![0.0; expected.len()];
        diff_dst[i] = 1.0;
        let mut diff_src = vec![f32::NAN; src.len()];
        plan.backward(src, &diff_dst, &mut diff_src, Update::Overwrite, &mut workspace, Par::Seq)?;
        let hits: Vec<_> = (0..src.len()).filter(|&i| diff_src[i] != 0.0).collect();
        let [hit] = hits[..] else {
            return Err(format!("output {i} is the maximum of {} pixels", hits.len()).into());
        };
        let (plane, row, column) = (hit / (height * width), hit / width % height, hit % width);
        let got = if by_columns { plane * height * width + column * height + row } else { hit };
        if usize::try_from(want) != Ok(got) {
            return Err(format!("output {i} is the pixel {got}, expected {want}").into());
        }
    }
    Ok(())
}
