//! The three matrices of F(m, r), m outputs of r taps from m + r - 1 products: `y = A^T [(G g) . (B^T d)]`.
//!
//! Cook and Toom: evaluate both polynomials at points, multiply there, interpolate. With points p_0 .. p_{n-2} and infinity, n = m + r - 1
//! and M(x) = (x - p_0) .. (x - p_{n-2}):
//!
//! ```text
//! A^T[k][i] = p_i^k                  the last column is 0 .. 0 1        m x n
//! G[i][k]   = p_i^k / M'(p_i)        the last row    is 0 .. 0 1        n x r
//! B^T[i]    = coefficients of M(x) / (x - p_i), the last row those of M(x)   n x n
//! ```
//!
//! All points here are 0, pairs +-p and infinity. Then M(x) / x has only even powers, so a row of B^T for p is an even part plus an odd part,
//! the row for -p the even part minus the same odd part, and likewise the columns of A and the rows of G. That halves the work, and it is the
//! only form in which the matrices exist here.
//!
//! Points decide the error (Barabasz et al. 2018): {5/8, 3/2} is the best pair of pairs found by a scan, and dyadic, so A and B are exact in f32.
//!
//! Winograd, "Arithmetic Complexity of Computations" (1980); Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015).

/// Most pairs of points.
pub(crate) const PAIRS: usize = 3;
/// Most products of one axis.
pub(crate) const MAX_TILE: usize = 2 * PAIRS + 2;

/// One axis: m outputs of r taps from `N` products.
pub(crate) trait Scheme<const N: usize>: Copy + Send + Sync + 'static {
    /// The matrices.
    const PARTS: Parts;
}

/// F(M, R) with the points of [`points`]. F(1, 1), the axis along which a kernel has one tap, has one product, and nothing is transformed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cook<const M: usize, const R: usize>;

impl<const M: usize, const R: usize, const N: usize> Scheme<N> for Cook<M, R> {
    const PARTS: Parts = {
        assert!(M + R - 1 == N && (N == 1 || N.is_multiple_of(2)) && N <= MAX_TILE);
        Parts::new(points(N))
    };
}

/// The positive points of the pairs for n products.
pub(crate) const fn points(n: usize) -> &'static [f64] {
    match n {
        1 | 2 => &[],
        4 => &[1.0],
        6 => &[0.625, 1.5],
        _ => &[0.5, 1.0, 2.0],
    }
}

/// The matrices in even and odd parts. Index p counts pairs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    /// Pairs of points.
    pub(crate) pairs: usize,
    /// `points[p]` is the positive one.
    pub(crate) points: [f64; PAIRS],
    /// M(x) / x = sum of `all[k]` x^2k; `all[pairs]` is 1.
    pub(crate) all: [f64; PAIRS + 1],
    /// M(x) / x / (x^2 - p^2) = sum of `without[p][k]` x^2k; `without[p][pairs - 1]` is 1.
    pub(crate) without: [[f64; PAIRS]; PAIRS],
    /// 1 / M'(0).
    pub(crate) at_zero: f64,
    /// 1 / M'(p), which is also 1 / M'(-p).
    pub(crate) at_pair: [f64; PAIRS],
}

impl Parts {
    pub(crate) const fn new(points: &[f64]) -> Self {
        let pairs = points.len();
        let mut parts = Self {
            pairs,
            points: [0.0; PAIRS],
            all: product(points, pairs),
            without: [[0.0; PAIRS]; PAIRS],
            at_zero: 0.0,
            at_pair: [0.0; PAIRS],
        };
        parts.at_zero = 1.0 / parts.all[0];
        let mut p = 0;
        while p < pairs {
            parts.points[p] = points[p];
            let others = product(points, p);
            // M'(p) = 2 p^2 times the product over the other pairs q of p^2 - q^2.
            let (mut k, mut power, mut value) = (0, 1.0, 0.0);
            while k < pairs {
                parts.without[p][k] = others[k];
                value += others[k] * power;
                power *= points[p] * points[p];
                k += 1;
            }
            parts.at_pair[p] = 1.0 / (2.0 * points[p] * points[p] * value);
            p += 1;
        }
        parts
    }

    /// p^k.
    pub(crate) const fn power(&self, p: usize, k: usize) -> f64 {
        let (mut i, mut power) = (0, 1.0);
        while i < k {
            power *= self.points[p];
            i += 1;
        }
        power
    }

    /// G as a matrix, n x r: what weights are transformed with, in f64.
    pub(crate) const fn g(&self, r: usize) -> [[f64; MAX_TILE]; MAX_TILE] {
        let n = 2 * self.pairs + 2;
        let mut g = [[0.0; MAX_TILE]; MAX_TILE];
        g[0][0] = self.at_zero;
        g[n - 1][r - 1] = 1.0;
        let mut p = 0;
        while p < self.pairs {
            let mut k = 0;
            while k < r {
                g[2 * p + 1][k] = self.power(p, k) * self.at_pair[p];
                g[2 * p + 2][k] = if k % 2 == 0 { g[2 * p + 1][k] } else { -g[2 * p + 1][k] };
                k += 1;
            }
            p += 1;
        }
        g
    }

    /// By how much rounding errors grow in one dimension: over all outputs and taps, the greatest sum over the products of |A| |G| times the
    /// sum of |B| of a row, where 1 would be the product itself. The same for weight gradients, which exchange A and G.
    pub(crate) fn amplification(&self, m: usize, r: usize) -> f64 {
        if m + r - 1 == 1 {
            return 1.0;
        }
        let (at, g, bt) = (self.at(m), self.g(r), self.bt());
        let path = |o: usize, k: usize| -> f64 {
            (0..2 * self.pairs + 2)
                .map(|i| (at[o][i] * g[i][k]).abs() * bt[i].iter().map(|b| b.abs()).sum::<f64>())
                .sum()
        };
        (0..m).flat_map(|o| (0..r).map(move |k| (o, k))).map(|(o, k)| path(o, k)).fold(1.0, f64::max)
    }

    /// A^T as a matrix, m x n.
    pub(crate) fn at(&self, m: usize) -> [[f64; MAX_TILE]; MAX_TILE] {
        let n = 2 * self.pairs + 2;
        let mut at = [[0.0; MAX_TILE]; MAX_TILE];
        at[0][0] = 1.0;
        at[m - 1][n - 1] = 1.0;
        for (k, row) in at.iter_mut().enumerate().take(m) {
            for p in 0..self.pairs {
                row[2 * p + 1] = self.power(p, k);
                row[2 * p + 2] = if k % 2 == 0 { row[2 * p + 1] } else { -row[2 * p + 1] };
            }
        }
        at
    }

    /// B^T as a matrix, n x n.
    pub(crate) fn bt(&self) -> [[f64; MAX_TILE]; MAX_TILE] {
        let n = 2 * self.pairs + 2;
        let mut bt = [[0.0; MAX_TILE]; MAX_TILE];
        for k in 0..=self.pairs {
            bt[0][2 * k] = self.all[k];
            bt[n - 1][2 * k + 1] = self.all[k];
        }
        for p in 0..self.pairs {
            for k in 0..self.pairs {
                let (even, odd) = (self.without[p][k], self.points[p] * self.without[p][k]);
                (bt[2 * p + 1][2 * k + 2], bt[2 * p + 1][2 * k + 1]) = (even, odd);
                (bt[2 * p + 2][2 * k + 2], bt[2 * p + 2][2 * k + 1]) = (even, -odd);
            }
        }
        bt
    }
}

/// The product over all pairs but `skipped` of x^2 - q^2, as coefficients of x^2k.
const fn product(points: &[f64], skipped: usize) -> [f64; PAIRS + 1] {
    let mut product = [0.0; PAIRS + 1];
    product[0] = 1.0;
    let mut p = 0;
    while p < points.len() {
        if p != skipped {
            let square = points[p] * points[p];
            let mut k = PAIRS;
            while k > 0 {
                product[k] = product[k - 1] - square * product[k];
                k -= 1;
            }
            product[0] *= -square;
        }
        p += 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exact fractions.
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Fraction(i128, i128);

    impl Fraction {
        fn new(n: i128, d: i128) -> Self {
            fn gcd(a: i128, b: i128) -> i128 {
                if b == 0 { a.abs() } else { gcd(b, a % b) }
            }
            let g = gcd(n, d).max(1) * d.signum();
            Self(n / g, d / g)
        }
        fn add(self, o: Self) -> Self {
            Self::new(self.0 * o.1 + o.0 * self.1, self.1 * o.1)
        }
        fn sub(self, o: Self) -> Self {
            self.add(Self(-o.0, o.1))
        }
        fn mul(self, o: Self) -> Self {
            Self::new(self.0 * o.0, self.1 * o.1)
        }
        fn div(self, o: Self) -> Self {
            Self::new(self.0 * o.1, self.1 * o.0)
        }
        fn pow(self, k: usize) -> Self {
            (0..k).fold(Self(1, 1), |x, _| x.mul(self))
        }
        /// A double that is a small fraction of a power of two.
        fn exactly(x: f64) -> Self {
            let n = x * 2f64.powi(40);
            assert_eq!(n.fract(), 0.0, "{x} is not dyadic");
            Self::new(n as i128, 1 << 40)
        }
        fn value(self) -> f64 {
            self.0 as f64 / self.1 as f64
        }
    }

    type Matrix = Vec<Vec<Fraction>>;

    /// A^T, G, B^T from points by the definition at the head of the file: no parts, no pairs.
    fn cook_toom(points: &[Fraction], m: usize, r: usize) -> [Matrix; 3] {
        let n = m + r - 1;
        let (zero, one) = (Fraction(0, 1), Fraction(1, 1));
        let times = |polynomial: &[Fraction], root: Fraction| -> Vec<Fraction> {
            (0..=polynomial.len())
                .map(|k| {
                    let shifted = if k > 0 { polynomial[k - 1] } else { zero };
                    let here = polynomial.get(k).copied().unwrap_or(zero);
                    shifted.sub(root.mul(here))
                })
                .collect()
        };
        let all_but = |skipped: usize| -> Vec<Fraction> {
            let roots = points.iter().enumerate().filter(|(i, _)| *i != skipped);
            roots.fold(vec![one], |polynomial, (_, root)| times(&polynomial, *root))
        };
        let last =
            |len: usize, i: usize| (0..len).map(|k| if k == i { one } else { zero }).collect::<Vec<_>>();
        let at = (0..m)
            .map(|k| {
                let column = points.iter().map(|p| p.pow(k));
                column.chain([if k == m - 1 { one } else { zero }]).collect()
            })
            .collect();
        let derivative =
            |i: usize| (0..n - 1).filter(|j| *j != i).fold(one, |x, j| x.mul(points[i].sub(points[j])));
        let row = |i: usize| (0..r).map(|k| points[i].pow(k).div(derivative(i))).collect::<Vec<_>>();
        let g = (0..n - 1).map(row).chain([last(r, r - 1)]).collect();
        let wide = |mut row: Vec<Fraction>| {
            row.resize(n, zero);
            row
        };
        let bt = (0..n - 1).map(|i| wide(all_but(i))).chain([all_but(n)]).collect();
        [at, g, bt]
    }

    /// 0, p, -p, .. in the order of the rows.
    fn ordered(pairs: &[f64]) -> Vec<Fraction> {
        let pairs = pairs.iter().flat_map(|p| [*p, -p]);
        [0.0].into_iter().chain(pairs).map(Fraction::exactly).collect()
    }

    const ALL: [(usize, usize); 9] = [(2, 1), (2, 3), (4, 3), (6, 3), (2, 5), (4, 5), (3, 4), (3, 2), (5, 2)];

    #[test]
    fn the_parts_are_the_matrices_of_cook_and_toom() {
        for (m, r) in ALL {
            let n = m + r - 1;
            let parts = Parts::new(points(n));
            let [at, g, bt] = cook_toom(&ordered(points(n)), m, r);
            for i in 0..n {
                for k in 0..n {
                    assert_eq!(Fraction::exactly(parts.bt()[i][k]), bt[i][k], "B^T[{i}][{k}] of F({m},{r})");
                    assert_eq!(parts.bt()[i][k] as f32 as f64, parts.bt()[i][k], "B is exact in f32");
                    if k < r {
                        let off = (parts.g(r)[i][k] - g[i][k].value()).abs();
                        assert!(off <= 1e-15 * g[i][k].value().abs(), "G[{i}][{k}] of F({m},{r})");
                    }
                    if k < m {
                        assert_eq!(
                            Fraction::exactly(parts.at(m)[k][i]),
                            at[k][i],
                            "A^T[{k}][{i}] of F({m},{r})"
                        );
                        assert_eq!(parts.at(m)[k][i] as f32 as f64, parts.at(m)[k][i], "A is exact in f32");
                    }
                }
            }
        }
    }

    /// y[o] = sum of d[o + k] g[k], for every pair of basis vectors, in exact fractions.
    #[test]
    fn the_bilinear_identity_holds_exactly() {
        for (m, r) in ALL {
            let n = m + r - 1;
            let [at, g, bt] = cook_toom(&ordered(points(n)), m, r);
            for (i, k) in (0..n).flat_map(|i| (0..r).map(move |k| (i, k))) {
                for (o, row) in at.iter().enumerate() {
                    let products = (0..n).map(|f| row[f].mul(g[f][k]).mul(bt[f][i]));
                    let sum = products.fold(Fraction(0, 1), Fraction::add);
                    assert_eq!(sum, Fraction((i == o + k).into(), 1), "F({m},{r}): d[{i}] g[{k}] in y[{o}]");
                }
            }
        }
    }
}
