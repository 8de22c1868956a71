//! Max-unpooling is a right inverse of max-pooling, the gather of its gradient where windows do not overlap, and refuses what does not fit.

use convolve_core::{Layout, Par, Update};
use convolve_pool::{Pool2d, definition, unpool};
use convolve_simd::Isa;

/// Every number once, in no order: 7919 is a prime and divides no length here.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % len + 1) as f32).collect()
}

/// Where the first maximum of each window is.
fn maxima(pool: Pool2d, src: &[f32]) -> Vec<usize> {
    let geometry = pool.geometry().unwrap();
    let mut maxima = vec![usize::MAX; geometry.dst_len()];
    definition::for_each_window(&geometry, |output, pixels| {
        maxima[output] =
            pixels.iter().copied().reduce(|best, i| if src[i] > src[best] { i } else { best }).unwrap();
    });
    maxima
}

fn pools() -> impl Iterator<Item = Pool2d> {
    let windows = [
        Pool2d::max(3, 2).input([6, 9]),
        Pool2d::max(3, [2, 3]).input([7, 9]),
        Pool2d::max(3, 3).input([7, 9]).stride(2).padding(1),
        Pool2d::max(3, 3).input([8, 5]).stride(1),
    ];
    let layouts = |pool: Pool2d| Layout::ALL.into_iter().map(move |layout| pool.batch(2).layout(layout));
    windows.into_iter().flat_map(layouts)
}

#[test]
fn pooling_gives_back_what_was_unpooled() {
    for pool in pools() {
        let plan = pool.plan(Isa::best(), 1).unwrap();
        let src = numbers(plan.geometry().src_len());
        let mut workspace = plan.workspace().unwrap();
        let mut once = vec![f32::NAN; plan.geometry().dst_len()];
        plan.forward(&src, &mut once, &mut workspace, Par::Seq).unwrap();
        let mut unpooled = vec![f32::NAN; src.len()];
        unpool(&once, &maxima(pool, &src), &mut unpooled).unwrap();
        let mut again = vec![f32::NAN; once.len()];
        plan.forward(&unpooled, &mut again, &mut workspace, Par::Seq).unwrap();
        assert_eq!(once, again, "{pool:?}");
        assert!(unpooled.iter().zip(&src).all(|(to, from)| *to == 0.0 || to == from), "{pool:?}");
    }
}

#[test]
fn windows_side_by_side_make_it_the_gradient_of_the_maximum() {
    for pool in pools().filter(|pool| pool.stride == pool.kernel) {
        let plan = pool.plan(Isa::best(), 1).unwrap();
        let src = numbers(plan.geometry().src_len());
        let (mut workspace, len) = (plan.workspace().unwrap(), plan.geometry().dst_len());
        let (mut dst, mut taps) = (vec![f32::NAN; len], vec![0; len]);
        plan.forward_with_indices(&src, &mut dst, &mut taps, &mut workspace, Par::Seq).unwrap();
        let (mut gathered, mut unpooled) = (vec![f32::NAN; src.len()], vec![f32::NAN; src.len()]);
        plan.backward_from_indices(&taps, &dst, &mut gathered, Update::Overwrite, &mut workspace, Par::Seq)
            .unwrap();
        unpool(&dst, &maxima(pool, &src), &mut unpooled).unwrap();
        assert_eq!(gathered, unpooled, "{pool:?}");
    }
}

#[test]
fn of_values_with_one_index_the_last_stays() {
    let mut dst = [f32::NAN; 3];
    unpool(&[1.0, 2.0, 3.0], &[1, 0, 1], &mut dst).unwrap();
    assert_eq!(dst, [2.0, 3.0, 0.0]);
    unpool(&[], &[], &mut dst).unwrap();
    assert_eq!(dst, [0.0; 3]);
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_written() {
    let mut dst = [7.0; 4];
    let mut refuse = |indices: &[usize]| unpool(&[1.0, 2.0], indices, &mut dst).unwrap_err().to_string();
    assert_eq!(refuse(&[0, 1, 2]), "indices has 3 elements, but the shape of src needs 2");
    assert_eq!(refuse(&[0, 4]), "index = 4: it must be less than the elements of dst");
    assert_eq!(
        refuse(&[usize::MAX, 0]),
        format!("index = {}: it must be less than the elements of dst", usize::MAX)
    );
    assert_eq!(dst, [7.0; 4]);
}
