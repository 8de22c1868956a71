//! How far a result may be from the reference: nothing on integers where an algorithm adds up products, and what its transforms amplify
//! where it has some. The algorithm says how much ([`Algorithm::amplification`](convolve::Algorithm::amplification)); there is no list here.

use convolve::{Conv2d, Operand};

use crate::{Direction, Execution, reference};

const U: f64 = 1.0 / (1 << 24) as f64;

impl Execution {
    /// Whether it adds up products, so that integers come out exact.
    pub fn sums(&self) -> bool {
        self.amplification <= 1.0
    }

    /// The bound that the algorithm publishes, `a (T + 40) u B`, for each element of the result in the order of memory; operands in the
    /// order of indices.
    pub fn promise(&self, left: &[f64], right: &[f64]) -> Vec<f64> {
        self.scaled(left, right, |terms| terms + 40.0)
    }

    /// A closer one, `2 a sqrt(T) u B`: the worst seen of honest rounding is a fifth of it, and a lost tap is far beyond it.
    pub fn alarm(&self, left: &[f64], right: &[f64]) -> Vec<f64> {
        self.scaled(left, right, |terms| 2.0 * terms.sqrt())
    }

    fn scaled(&self, left: &[f64], right: &[f64], growth: impl Fn(f64) -> f64) -> Vec<f64> {
        let (conv, direction) = (&self.case.conv, self.case.direction);
        let factor = growth(terms(conv, direction).max(1) as f64) * U * self.amplification;
        let bound: Vec<f64> = planes(conv, direction, left, right)
            .into_iter()
            .map(|b| factor * b + f64::MIN_POSITIVE)
            .collect();
        reference::arrange(conv, direction.result(), &bound)
    }
}

/// Most terms that are added after a transform: channels, or tiles, of which there are at most as many as pixels.
fn terms(conv: &Conv2d, direction: Direction) -> usize {
    match direction {
        Direction::Forward => conv.in_channels / conv.groups,
        Direction::BackwardData => conv.out_channels / conv.groups,
        Direction::BackwardWeights => {
            let [n, _, h, w] = reference::shape(conv, Operand::Dst);
            n * h * w
        }
    }
}

/// B: the sum, over channels or images, of the greatest |left| of a plane times the sum of |right| of a plane.
fn planes(conv: &Conv2d, direction: Direction, left: &[f64], right: &[f64]) -> Vec<f64> {
    let [a, b, c] =
        [direction.left(), direction.right(), direction.result()].map(|o| reference::shape(conv, o));
    let plane = |shape: [usize; 4], tensor: &[f64], i: usize| -> (f64, f64) {
        let len = shape[2] * shape[3];
        let part = tensor[i * len..][..len].iter().map(|x| x.abs());
        (part.clone().fold(0.0, f64::max), part.sum())
    };
    let greatest: Vec<f64> = (0..a[0] * a[1]).map(|i| plane(a, left, i).0).collect();
    let sum: Vec<f64> = (0..b[0] * b[1]).map(|i| plane(b, right, i).1).collect();
    let [ic, oc] = [conv.in_channels, conv.out_channels].map(|channels| channels / conv.groups);
    let of = |i: usize, j: usize| -> f64 {
        match direction {
            Direction::Forward => {
                (0..ic).map(|k| greatest[i * a[1] + j / oc * ic + k] * sum[j * ic + k]).sum()
            }
            Direction::BackwardData => (0..oc)
                .map(|k| greatest[i * a[1] + j / ic * oc + k] * sum[(j / ic * oc + k) * ic + j % ic])
                .sum(),
            Direction::BackwardWeights => {
                (0..a[0]).map(|n| greatest[n * a[1] + i / oc * ic + j] * sum[n * b[1] + i]).sum()
            }
        }
    };
    let of_plane = (0..c[0] * c[1]).map(|p| of(p / c[1], p % c[1]));
    of_plane.flat_map(|bound| core::iter::repeat_n(bound, c[2] * c[3])).collect()
}
