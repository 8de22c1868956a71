//! Every operation on every instruction set of this CPU, against scalar code.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::isa::{NAMES, choose};
use crate::{Isa, IsaError, Portable, Rows, Simd, Strip, dispatch};

/// Makes a test of each function: for every instruction set, outside and inside of `vectorize`.
macro_rules! on_every_isa {
    ($($check:ident)+) => {
        mod on_every_isa {
            use super::*;

            $(
                #[test]
                fn $check() {
                    for &isa in Isa::available() {
                        dispatch!(isa, s => super::$check(s));
                        dispatch!(isa, s => s.vectorize(|s| super::$check(s)));
                    }
                }
            )+
        }
    };
}

on_every_isa! {
    arithmetic
    max_and_min
    nan_in_max_and_min
    max_nan_keeps_nan_of_both_sides
    division
    comparisons_and_select
    bytes_are_lanes
    scale_multiplies_by_powers_of_two
    interleave_and_deinterleave_are_inverses
    shift_in_moves_up_by_a_lane
    mul_add
    sum_goes_by_halves
    load_and_store_at_any_alignment
    load_first_reads_only_the_slice
    strips_read_only_the_slice
    strips_read_what_is_there_and_zeros
    strips_refuse_what_is_not_there
    store_first_writes_only_the_slice
    permute_takes_any_lane
    transpose_with_any_pitch
    panics_when_too_short
}

/// What a lane may hold that is special, but for NaN.
const SPECIAL: [f32; 12] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    f32::EPSILON,
    1e-45,
    -1e-45,
    f32::INFINITY,
    f32::NEG_INFINITY,
];

/// `count` numbers of many magnitudes, the same in every run.
fn numbers(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    (0..count).map(|_| ((next() >> 8) as f32 - 8_388_608.5) * 2f32.powi((next() % 24) as i32 - 24)).collect()
}

/// Registers' worth of operands: random ones, and every pair of special ones.
fn operands<S: Simd>(_: S) -> Vec<[Vec<f32>; 3]> {
    let random = (0..64).map(|i| [3 * i, 3 * i + 1, 3 * i + 2].map(|seed| numbers(seed + 1, S::LANES)));
    let turned = |by: usize| (0..S::LANES).map(move |i| SPECIAL[(i + by) % SPECIAL.len()]).collect();
    let special =
        (0..SPECIAL.len() * SPECIAL.len()).map(|i| [turned(i), turned(i / SPECIAL.len()), turned(i % 5)]);
    random.chain(special).collect()
}

fn lanes<S: Simd>(s: S, v: S::F32) -> Vec<f32> {
    let mut lanes = vec![0.0; S::LANES];
    s.store(v, &mut lanes);
    lanes
}

fn same(a: f32, b: f32) -> bool {
    a == b || (a.is_nan() && b.is_nan())
}

#[track_caller]
fn assert_lanes<S: Simd>(s: S, got: S::F32, expected: impl Fn(usize) -> f32) {
    for (i, got) in lanes(s, got).into_iter().enumerate() {
        let expected = expected(i);
        assert!(same(got, expected), "{}, lane {i}: {got:e} instead of {expected:e}", S::NAME);
    }
}

fn arithmetic<S: Simd>(s: S) {
    for [a, b, _] in operands(s) {
        let [va, vb] = [s.load(&a), s.load(&b)];
        assert_lanes(s, va, |i| a[i]);
        assert_lanes(s, s.splat(a[1]), |_| a[1]);
        assert_lanes(s, s.add(va, vb), |i| a[i] + b[i]);
        assert_lanes(s, s.sub(va, vb), |i| a[i] - b[i]);
        assert_lanes(s, s.mul(va, vb), |i| a[i] * b[i]);
    }
}

fn bytes_are_lanes<S: Simd>(s: S) {
    let bytes: Vec<u8> = (0..=255).chain([0, 9, 9, 7, 0, 255]).collect();
    let numbers: Vec<f32> = bytes.iter().map(|&byte| byte.into()).collect();
    for (start, len) in (0..bytes.len()).flat_map(|start| (0..=S::LANES).map(move |len| (start, len))) {
        let from = &bytes[start..(start + len).min(bytes.len())];
        for byte in [0, 9, 255, from.first().copied().unwrap_or(1)] {
            let hits = s.select(s.equal_byte(from, byte), s.splat(1.0), s.splat(0.0));
            let expected = |i| f32::from(u8::from(from.get(i).copied().unwrap_or(0) == byte));
            assert_lanes(s, hits, expected);
        }
        assert_lanes(s, s.load_bytes(from), |i| from.get(i).copied().unwrap_or(0).into());
        let mut to = [77; 32];
        s.store_bytes(s.load_first(&numbers[start..]), &mut to[..from.len()]);
        assert_eq!((&to[..from.len()], to[from.len()]), (from, 77), "{}", S::NAME);
    }
}

fn max_and_min<S: Simd>(s: S) {
    for [a, b, _] in operands(s) {
        let [va, vb] = [s.load(&a), s.load(&b)];
        assert_lanes(s, s.max(va, vb), |i| a[i].max(b[i]));
        assert_lanes(s, s.min(va, vb), |i| a[i].min(b[i]));
    }
}

/// NaN on the right stays; on the left it stays or gives way to the other operand.
fn nan_in_max_and_min<S: Simd>(s: S) {
    let nan = s.splat(f32::NAN);
    for other in SPECIAL {
        let v = s.splat(other);
        for right in [s.max(v, nan), s.min(v, nan), s.max(nan, nan), s.min(nan, nan)] {
            assert_lanes(s, right, |_| f32::NAN);
        }
        for left in [s.max(nan, v), s.min(nan, v)] {
            assert!(lanes(s, left).into_iter().all(|x| x.is_nan() || x == other), "{}", S::NAME);
        }
    }

    // NaN in one lane only, through the clamp of an epilogue.
    let mut values: Vec<f32> = (0..S::LANES).map(|i| i as f32 - 1.0).collect();
    values[2] = f32::NAN;
    let clamped = s.min(s.splat(2.0), s.max(s.splat(0.0), s.load(&values)));
    assert_lanes(s, clamped, |i| if i == 2 { f32::NAN } else { values[i].clamp(0.0, 2.0) });
}

fn max_nan_keeps_nan_of_both_sides<S: Simd>(s: S) {
    for [a, b, _] in with_nan(s) {
        let expected = |i: usize| if a[i].is_nan() || b[i].is_nan() { f32::NAN } else { a[i].max(b[i]) };
        assert_lanes(s, s.max_nan(s.load(&a), s.load(&b)), expected);
    }
}

fn division<S: Simd>(s: S) {
    for [a, b, _] in with_nan(s) {
        assert_lanes(s, s.div(s.load(&a), s.load(&b)), |i| a[i] / b[i]);
    }
}

fn comparisons_and_select<S: Simd>(s: S) {
    let [yes, no] = [s.splat(1.0), s.splat(0.0)];
    for [a, b, c] in with_nan(s) {
        let [va, vb, vc] = [&a, &b, &c].map(|x| s.load(x));
        let number = |truth: bool| f32::from(u8::from(truth));
        assert_lanes(s, s.select(s.equal(va, vb), yes, no), |i| number(a[i] == b[i]));
        assert_lanes(s, s.select(s.equal(va, va), yes, no), |i| number(!a[i].is_nan()));
        assert_lanes(s, s.select(s.not_equal(va, vb), yes, no), |i| number(a[i] != b[i]));
        assert_lanes(s, s.select(s.not_equal(va, va), yes, no), |i| number(a[i].is_nan()));
        assert_lanes(s, s.select(s.less(va, vb), vb, vc), |i| if a[i] < b[i] { b[i] } else { c[i] });
        let either = s.or(s.less(va, vb), s.equal(vb, vc));
        assert_lanes(s, s.select(either, yes, no), |i| number(a[i] < b[i] || b[i] == c[i]));
    }
}

fn scale_multiplies_by_powers_of_two<S: Simd>(s: S) {
    for n in -126i32..=127 {
        let v = numbers(n.unsigned_abs() + 1, S::LANES);
        let factor = f32::from_bits(((n + 127) as u32) << 23);
        assert_lanes(s, s.scale(s.load(&v), s.splat(n as f32)), |i| v[i] * factor);
    }
}

fn interleave_and_deinterleave_are_inverses<S: Simd>(s: S) {
    let data: Vec<f32> = (0..2 * S::LANES).map(|i| i as f32).collect();
    let halves = (s.load(&data), s.load(&data[S::LANES..]));
    let (even, odd) = s.deinterleave(halves.0, halves.1);
    assert_lanes(s, even, |i| data[2 * i]);
    assert_lanes(s, odd, |i| data[2 * i + 1]);
    let (first, second) = s.interleave(even, odd);
    assert_lanes(s, first, |i| data[i]);
    assert_lanes(s, second, |i| data[S::LANES + i]);
}

fn shift_in_moves_up_by_a_lane<S: Simd>(s: S) {
    let data: Vec<f32> = (0..2 * S::LANES).map(|i| i as f32).collect();
    let shifted = s.shift_in(s.load(&data), s.load(&data[S::LANES..]));
    assert_lanes(s, shifted, |i| data[S::LANES - 1 + i]);
}

/// [`operands`], and NaN in a lane of each.
fn with_nan<S: Simd>(s: S) -> Vec<[Vec<f32>; 3]> {
    let mut operands = operands(s);
    for (i, triple) in operands.iter_mut().enumerate() {
        triple[i % 3][i % S::LANES] = f32::NAN;
        triple[(i + i / 3) % 3][(i + 1) % S::LANES] = f32::NAN;
    }
    operands
}

/// Rounded once, or on `portable` possibly twice.
fn mul_add<S: Simd>(s: S) {
    let mut operands = operands(s);
    // (1 + e)(1 - e) - 1 is -e*e, and 0 when rounded twice.
    operands.push([1.0 + f32::EPSILON, 1.0 - f32::EPSILON, -1.0].map(|x| vec![x; S::LANES]));
    for [a, b, c] in operands {
        let got = lanes(s, s.mul_add(s.load(&a), s.load(&b), s.load(&c)));
        for i in 0..S::LANES {
            let once = same(got[i], a[i].mul_add(b[i], c[i]));
            let twice = same(got[i], a[i] * b[i] + c[i]);
            let right = once || (twice && S::NAME == Portable::NAME);
            assert!(right, "{}, lane {i}: {:e} * {:e} + {:e} = {:e}", S::NAME, a[i], b[i], c[i], got[i]);
        }
    }
}

fn sum_goes_by_halves<S: Simd>(s: S) {
    for [mut v, _, _] in operands(s) {
        let got = s.sum(s.load(&v));
        while v.len() > 1 {
            let upper = v.split_off(v.len() / 2);
            v.iter_mut().zip(upper).for_each(|(lower, upper)| *lower += upper);
        }
        assert!(same(got, v[0]), "{}: {got:e} instead of {:e}", S::NAME, v[0]);
    }
}

fn load_and_store_at_any_alignment<S: Simd>(s: S) {
    let data = numbers(1, 2 * S::LANES);
    for offset in 0..=S::LANES {
        let v = s.load(&data[offset..]);
        assert_lanes(s, v, |i| data[offset + i]);

        let mut to = vec![7.0; 2 * S::LANES];
        s.store(v, &mut to[offset..]);
        let expected = |i: usize| if (offset..offset + S::LANES).contains(&i) { data[i] } else { 7.0 };
        assert!((0..to.len()).all(|i| to[i] == expected(i)), "{}, offset {offset}", S::NAME);
    }
}

/// Elements around the slices below: whoever reads one gets a NaN.
const CANARY: f32 = f32::NAN;

fn load_first_reads_only_the_slice<S: Simd>(s: S) {
    for (len, offset) in lengths_and_offsets(s) {
        let mut data = vec![CANARY; offset + len + S::LANES];
        data[offset..][..len].copy_from_slice(&numbers(1, len));
        let slice = &data[offset..][..len];
        assert_lanes(s, s.load_first(slice), |i| slice.get(i).copied().unwrap_or(0.0));
    }
}

fn strips_read_only_the_slice<S: Simd>(s: S) {
    for (len, offset) in lengths_and_offsets(s) {
        let mut data = vec![CANARY; offset + len + S::LANES];
        data[offset..][..len].copy_from_slice(&numbers(1, len));
        let slice = &data[offset..][..len];
        let lanes = 2 * S::LANES as isize;
        for at in (-lanes..=lanes).chain([isize::MIN, isize::MAX]) {
            let element = |i: usize| usize::try_from(at.checked_add_unsigned(i)?).ok();
            let expected = |i| element(i).and_then(|i| slice.get(i)).copied().unwrap_or(0.0);
            // A row alone, and one with an absent row on each side.
            for (start, present) in [(0, 0..1), (-(len as isize), 1..2)] {
                let strip: Strip<'_, 3> = Strip::new(slice, start, len, present.clone());
                let mut across = strip.across(s, at, at, len);
                let v = (0..=present.start).fold(None, |_, _| across.next_row());
                assert_lanes(s, v.unwrap_or(s.splat(0.0)), expected);
            }
        }
    }
}

/// An image of rows of 5 pixels, 3 above it and 2 below are absent; a window of 4 rows slides over all of it.
fn strips_read_what_is_there_and_zeros<S: Simd>(s: S) {
    let (height, width) = (6_isize, 5_isize);
    let image = numbers(1, (height * width) as usize);
    for top in -3..height - 1 {
        let present = (-top).clamp(0, 4) as usize..(height - top).clamp(0, 4) as usize;
        let strip: Strip<'_, 4> = Strip::new(&image, top * width, width as usize, present);
        assert_eq!(strip.is_whole(), (0..=height - 4).contains(&top));
        for left in -2 * S::LANES as isize..=width + 1 {
            for skipped in 0..=4 {
                let mut across = strip.across(s, left, left, width as usize);
                (0..skipped).for_each(|_| _ = across.next_row());
                for row in skipped as isize..5 {
                    let there = row < 4 && (0..height).contains(&(top + row));
                    match across.next_row() {
                        Some(v) => assert_lanes(s, v, |lane| {
                            let column = left + lane as isize;
                            let inside = (0..width).contains(&column);
                            if inside { image[((top + row) * width + column) as usize] } else { 0.0 }
                        }),
                        None => assert!(!there || left >= width || left <= -(S::LANES as isize)),
                    }
                    assert!(there || row == 4 || !(0..height).contains(&(top + row)));
                }
            }
        }
    }
}

#[test]
fn rows_apart_refuse_what_is_not_there() {
    let data = [0.0; 10];
    let len = |start: usize, pitch: usize| catch_unwind(|| Rows::<3>::apart(&data, start, pitch).len()).ok();
    assert_eq!([len(0, 4), len(2, 4), len(0, 5), len(10, 0)], [Some(2), Some(0), Some(0), Some(0)]);
    assert_eq!([len(3, 4), len(11, 0), len(0, 6), len(1, usize::MAX), len(usize::MAX, 1)], [None; 5]);
    assert_eq!(Rows::<1>::apart(&data, 7, usize::MAX).len(), 3);
}

fn strips_refuse_what_is_not_there<S: Simd>(s: S) {
    let refuses = |f: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
    let lanes = S::LANES;
    let data = numbers(1, 3 * lanes);
    let strip: Strip<'_, 2> = Strip::new(&data, 0, lanes, 0..2);
    let _ = strip.at(s, lanes as isize);
    let _ = strip.across(s, lanes as isize + 1, 0, lanes - 1);
    for x in [-1, lanes as isize + 1, isize::MAX, isize::MIN] {
        assert!(refuses(&|| _ = strip.at(s, x)), "{}, at {x}", S::NAME);
        assert!(refuses(&|| _ = strip.across(s, x, 0, lanes)), "{}, across {x}", S::NAME);
    }
    let absent: Strip<'_, 2> = Strip::new(&data, 0, lanes, 0..1);
    assert!(refuses(&|| _ = absent.at(s, 0)));
    assert!(refuses(&|| _ = Strip::<2>::new(&data, 0, usize::MAX / 2, 0..2)));
    assert!(refuses(&|| _ = Strip::<2>::new(&data, isize::MIN, 1, 0..2)));
    assert!(refuses(&|| _ = Strip::<2>::new(&data, 0, 1, 0..3)));
    assert!(refuses(&|| {
        let mut at = strip.at(s, 0);
        (0..3).for_each(|_| _ = at.next_row());
    }));
}

/// Rows of a window that slides over an image from above it to below; and what lies outside of the slice is refused, whatever the numbers.
#[test]
fn spaced_rows_are_those_of_the_image_or_the_absent_one() {
    let (image, absent, [height, width]) = (numbers(1, 30), [7.0; 5], [6_isize, 5_isize]);
    for top in -5..height + 2 {
        let present = (-top).clamp(0, 3) as usize..(height - top).clamp(0, 3) as usize;
        let rows = Rows::<3>::spaced(&image, top * width, width as usize, present, &absent);
        for i in 0..3 {
            let y = top + i as isize;
            let there = (0..height).contains(&y);
            let expected = if there { &image[(y * width) as usize..][..5] } else { &absent };
            assert_eq!(rows.at(0, 5).row(i), expected, "row {i} from {top} on");
        }
    }
    let refused = |start: isize, pitch: usize, present: core::ops::Range<usize>| {
        std::panic::catch_unwind(|| Rows::<3>::spaced(&image, start, pitch, present, &absent)).is_err()
    };
    assert!(!refused(25, 5, 0..1) && !refused(isize::MIN, usize::MAX, 0..0));
    for (start, pitch, present) in [
        (26, 5, 0..1),
        (-1, 5, 0..1),
        (-6, 5, 1..2),
        (20, 5, 0..3),
        (0, 5, 0..4),
        (0, usize::MAX, 1..2),
        (isize::MAX, 5, 0..2),
        (isize::MIN, 5, 0..1),
        (10, usize::MAX / 2, 0..3),
    ] {
        assert!(refused(start, pitch, present.clone()), "{start}, {pitch}, {present:?}");
    }
}

fn store_first_writes_only_the_slice<S: Simd>(s: S) {
    let values = numbers(1, S::LANES);
    for (len, offset) in lengths_and_offsets(s) {
        let mut data = vec![CANARY; offset + len + S::LANES];
        s.store_first(s.load(&values), &mut data[offset..][..len]);
        for (i, &got) in data.iter().enumerate() {
            let value = i.checked_sub(offset).filter(|&lane| lane < len).and_then(|lane| values.get(lane));
            let expected = value.copied().unwrap_or(CANARY);
            assert!(same(got, expected), "{}, {len} elements, at {i} - {offset}", S::NAME);
        }
    }
}

fn lengths_and_offsets<S: Simd>(_: S) -> impl Iterator<Item = (usize, usize)> {
    (0..=S::LANES + 3).flat_map(|len| (0..=S::LANES).map(move |offset| (len, offset)))
}

fn permute_takes_any_lane<S: Simd>(s: S) {
    let from: Vec<f32> = (0..S::LANES).map(|i| i as f32 - 3.0).collect();
    for start in 0..3 * S::LANES {
        let order: Vec<u32> = (0..S::LANES + 2).map(|i| (start + i * (start / 2)) as u32).collect();
        let mut to = vec![f32::NAN; S::LANES];
        s.store(s.permute(s.load(&from), &order), &mut to);
        let expected: Vec<f32> =
            order[..S::LANES].iter().map(|&lane| from[lane as usize % S::LANES]).collect();
        assert_eq!(to, expected, "{}", S::NAME);
    }
}

fn transpose_with_any_pitch<S: Simd>(s: S) {
    let pitches = [S::LANES, S::LANES + 1, 2 * S::LANES, 3 * S::LANES + 5];
    let block = |pitch: usize| (S::LANES - 1) * pitch + S::LANES;
    for (from_pitch, to_pitch) in pitches.into_iter().flat_map(|from| pitches.map(|to| (from, to))) {
        let from: Vec<f32> = (0..block(from_pitch)).map(|i| i as f32).collect();
        let mut to = vec![-1.0; block(to_pitch) + 3];
        s.transpose(&from, from_pitch, &mut to[..block(to_pitch)], to_pitch);
        for (at, &got) in to.iter().enumerate() {
            let (j, i) = (at / to_pitch, at % to_pitch);
            let inside = i < S::LANES && j < S::LANES;
            let expected = if inside { from[i * from_pitch + j] } else { -1.0 };
            assert_eq!(got, expected, "{}, pitches {from_pitch} and {to_pitch}, at {at}", S::NAME);
        }
    }
}

fn panics_when_too_short<S: Simd>(s: S) {
    #[track_caller]
    fn panics(f: impl FnOnce()) {
        assert!(catch_unwind(AssertUnwindSafe(f)).is_err(), "it did not panic");
    }

    let lanes = S::LANES;
    let [from, mut to] = [vec![0.0; lanes * lanes], vec![0.0; lanes * lanes]];
    panics(|| s.store(s.load(&from[..lanes - 1]), &mut to));
    panics(|| s.store(s.splat(0.0), &mut to[..lanes - 1]));
    panics(|| s.store(s.permute(s.splat(0.0), &vec![0; lanes - 1]), &mut to));
    panics(|| s.transpose(&from[1..], lanes, &mut to, lanes));
    panics(|| s.transpose(&from, lanes, &mut to[1..], lanes));
    panics(|| s.transpose(&from, lanes - 1, &mut to, lanes));
    panics(|| s.transpose(&from, lanes, &mut to, lanes - 1));
    panics(|| s.transpose(&from, usize::MAX, &mut to, lanes));
    panics(|| s.transpose(&from, lanes, &mut to, usize::MAX / lanes + 1));
    s.transpose(&from, lanes, &mut to, lanes);
}

/// Tests nothing, but says what the others ran on; past the capture of output, to be always seen.
#[test]
fn isas_that_ran() {
    let (ran, missing): (Vec<&str>, Vec<&str>) =
        NAMES.into_iter().partition(|name| Isa::by_name(name).is_ok());
    let [ran, missing] = [ran, missing].map(|names| names.join(", "));
    writeln!(std::io::stderr(), "\nISAs that ran: {ran}; not available here: {missing}").unwrap();
}

#[test]
fn available_goes_from_worst_to_best() {
    let names: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
    let places: Vec<_> = names.iter().map(|name| NAMES.iter().position(|n| n == name)).collect();
    assert!(places.is_sorted() && places.iter().all(Option::is_some), "{names:?}");
    assert_eq!(names[0], "portable");
    assert_eq!(Isa::best().name(), *names.last().unwrap());
    assert!(Isa::available().iter().map(|isa| isa.lanes()).is_sorted());
}

#[test]
fn every_name_is_available_or_says_why_not() {
    let available: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
    let available = available.join(", ");
    for name in NAMES {
        match Isa::by_name(name) {
            Ok(isa) => assert_eq!(isa.to_string(), name),
            Err(error) => {
                let expected = IsaError::Unavailable { name: name.into(), available: available.clone() };
                assert_eq!(error, expected);
                assert_eq!(
                    error.to_string(),
                    format!(
                        "this CPU has no `{name}`; available here: {available}; \
                         CONVOLVE_ISA may lower the choice, never raise it"
                    ),
                );
            }
        }
    }
}

#[test]
fn no_request_is_a_request_for_the_best() {
    assert_eq!(choose(None), Ok(Isa::best()));
    assert_eq!(choose(Some("")), Ok(Isa::best()));
}

#[test]
fn a_request_may_lower_but_not_raise() {
    assert_eq!(choose(Some("portable")), Ok(Isa::Portable(Portable::new())));
    for &isa in Isa::available() {
        assert_eq!(choose(Some(isa.name())), Ok(isa));
    }
    // No CPU has both.
    let foreign = if cfg!(target_arch = "aarch64") { "avx512" } else { "neon" };
    assert!(matches!(choose(Some(foreign)), Err(IsaError::Unavailable { name, .. }) if name == foreign));
}

#[test]
fn an_unknown_name_is_an_error() {
    for name in ["AVX2", " avx2", "sse2", "best"] {
        let error = choose(Some(name)).unwrap_err();
        assert_eq!(error, IsaError::Unknown { name: name.into() });
        assert!(NAMES.iter().all(|known| error.to_string().contains(known)), "{error}");
    }
}

#[test]
fn an_isa_is_its_name() {
    use std::collections::HashSet;
    let isas: HashSet<Isa> = Isa::available().iter().chain(Isa::available()).copied().collect();
    assert_eq!(isas.len(), Isa::available().len());
    assert_eq!("portable".parse(), Ok(Isa::Portable(Portable::new())));
    assert_eq!(format!("{:>10}", Isa::Portable(Portable::new())), "  portable");
}
