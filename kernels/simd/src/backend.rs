//! The two macros that make an instruction set: `backend!` where it exists, `absent!` elsewhere.

/// A token and its `Simd`, from the names that `core::arch` gives the operations.
///
/// The list of features is stated once: detection asks for what `vectorize` enables.
///
/// The module that calls it provides what the instruction sets do each in their own way:
/// - `load_part(from)` and `store_part(v, to)`, for slices shorter than a register,
/// - `between(first, end)` and `load_where(from, mask)`,
/// - `sum(v)`,
/// - `permute(v, order)`,
/// - `equal(a, b)`, `not_equal(a, b)`, `less(a, b)`, `at_least(a, b)`, `or(a, b)`, `select(mask, then, otherwise)`
///   and `keep(mask, v)`,
/// - `equal_byte(from, byte)`, `load_bytes(from)` and `store_bytes(v, to)`, for slices of any length,
/// - `max_nan(a, b)`, `scale(v, n)`, `deinterleave(a, b)`, `interleave(a, b)` and `shift_in(before, v)`,
/// - `transpose_quads(rows)`: with 4 x 4 blocks already transposed, transposes the matrix of
///   such blocks.
#[allow(unused_macros, reason = "an architecture might have none of them")]
macro_rules! backend {
    (
        $(#[$doc:meta])*
        $Token:ident = $name:literal, features [$($feature:tt),+] by $is_detected:ident,
        $registers:literal registers of $lanes:literal lanes: $F32:ty, in $class:ident $mention:literal, masks $Mask:ty,
        splat $splat:ident, load $load:ident, store $store:ident, past the caches $past:ident,
        add $add:ident, sub $sub:ident, mul $mul:ident, max $max:ident, min $min:ident,
        div $div:ident, mul_add $mul_add:ident,
        zip low halves $zip_low:ident, zip high halves $zip_high:ident,
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $Token(());

        impl $Token {
            /// The token, if this CPU and its operating system provide the instructions.
            ///
            /// ```
            #[doc = concat!("use convolve_simd::{", stringify!($Token), ", Isa, Simd};")]
            #[doc = concat!("match ", stringify!($Token), "::detect() {")]
            ///     Some(s) => assert!(s.vectorize(|s| s.sum(s.splat(0.5))) > 1.0),
            #[doc = concat!("    None => assert!(Isa::by_name(", stringify!($name), ").is_err()),")]
            /// }
            /// ```
            pub fn detect() -> Option<Self> {
                ($(std::arch::$is_detected!($feature))&&+).then_some(Self(()))
            }
        }

        impl $crate::Simd for $Token {
            const NAME: &'static str = $name;
            const LANES: usize = $lanes;
            const REGISTERS: usize = $registers;
            type F32 = $F32;
            type Mask = $Mask;

            #[inline(always)]
            fn vectorize<R>(self, f: impl FnOnce(Self) -> R) -> R {
                #[target_feature($(enable = $feature),+)]
                fn inner<S, R>(s: S, f: impl FnOnce(S) -> R) -> R {
                    f(s)
                }
                // SAFETY: the token proves that the CPU has these features.
                unsafe { inner(self, f) }
            }

            #[inline(always)]
            fn load(self, from: &[f32]) -> $F32 {
                assert!(from.len() >= Self::LANES);
                // SAFETY: the token proves the feature, the assertion that `LANES` elements can
                // be read; the instruction needs no alignment.
                unsafe { $load(from.as_ptr()) }
            }

            #[inline(always)]
            fn store(self, v: $F32, to: &mut [f32]) {
                assert!(to.len() >= Self::LANES);
                // SAFETY: the token proves the feature, the assertion that `LANES` elements can
                // be written; the instruction needs no alignment.
                unsafe { $store(to.as_mut_ptr(), v) }
            }

            #[inline(always)]
            fn goes_past(self, to: &[f32]) -> bool {
                const LINE: usize = 64;
                let whole = Self::LANES * size_of::<f32>() == LINE && to.len() >= Self::LANES;
                cfg!(not(miri)) && whole && to.as_ptr().addr().is_multiple_of(LINE)
            }

            #[inline(always)]
            fn store_past(self, v: $F32, to: &mut [f32], _: &$crate::Bypass) {
                if !self.goes_past(to) {
                    return self.store(v, to);
                }
                // SAFETY: the token proves the feature, `goes_past` that `LANES` elements can be written
                // and that they are a line. (Where a vector is no line, this is never reached.) Who
                // has a `Bypass` is fenced before anybody else hears of the memory: see `bypass`.
                unsafe { $past(to.as_mut_ptr(), v) }
            }

            #[inline(always)]
            fn load_first(self, from: &[f32]) -> $F32 {
                if from.len() >= Self::LANES {
                    return self.load(from);
                }
                // SAFETY: the token proves the feature.
                unsafe { load_part(from) }
            }

            backend! { @method between(first: usize, end: usize) -> $Mask = between }

            #[inline(always)]
            unsafe fn load_where(self, from: *const f32, mask: $Mask) -> $F32 {
                // SAFETY: the token proves the feature, the caller that selected elements can be read.
                unsafe { load_where(from, mask) }
            }

            #[inline(always)]
            fn store_first(self, v: $F32, to: &mut [f32]) {
                if to.len() >= Self::LANES {
                    return self.store(v, to);
                }
                // SAFETY: the token proves the feature.
                unsafe { store_part(v, to) }
            }

            backend! { @method equal_byte(from: &[u8], byte: u8) -> $Mask = equal_byte }
            backend! { @method load_bytes(from: &[u8]) -> $F32 = load_bytes }
            backend! { @method store_bytes(v: $F32, to: &mut [u8]) -> () = store_bytes }

            #[cfg(not(miri))]
            #[inline(always)]
            fn prefetch(self, data: &[f32], at: usize) {
                prefetch(data.as_ptr().wrapping_add(at));
            }

            #[cfg(not(miri))]
            backend! { @method in_order(v: $F32) -> $F32 = in_order }
            backend! { @method splat(x: f32) -> $F32 = $splat }
            backend! { @method add(a: $F32, b: $F32) -> $F32 = $add }
            backend! { @method sub(a: $F32, b: $F32) -> $F32 = $sub }
            backend! { @method mul(a: $F32, b: $F32) -> $F32 = $mul }
            backend! { @method max(a: $F32, b: $F32) -> $F32 = $max }
            backend! { @method min(a: $F32, b: $F32) -> $F32 = $min }
            backend! { @method max_nan(a: $F32, b: $F32) -> $F32 = max_nan }
            backend! { @method mul_add(a: $F32, b: $F32, c: $F32) -> $F32 = $mul_add }
            backend! { @method sum(v: $F32) -> f32 = sum }
            backend! { @method div(a: $F32, b: $F32) -> $F32 = $div }
            backend! { @method equal(a: $F32, b: $F32) -> $Mask = equal }
            backend! { @method not_equal(a: $F32, b: $F32) -> $Mask = not_equal }
            backend! { @method less(a: $F32, b: $F32) -> $Mask = less }
            backend! { @method at_least(a: $F32, b: $F32) -> $Mask = at_least }
            backend! { @method or(a: $Mask, b: $Mask) -> $Mask = or }
            backend! { @method select(mask: $Mask, then: $F32, otherwise: $F32) -> $F32 = select }
            backend! { @method keep(mask: $Mask, v: $F32) -> $F32 = keep }
            backend! { @method scale(v: $F32, n: $F32) -> $F32 = scale }
            backend! { @method deinterleave(a: $F32, b: $F32) -> ($F32, $F32) = deinterleave }
            backend! { @method interleave(a: $F32, b: $F32) -> ($F32, $F32) = interleave }
            backend! { @method shift_in(before: $F32, v: $F32) -> $F32 = shift_in }

            #[inline(always)]
            fn permute(self, v: $F32, order: &[u32]) -> $F32 {
                let order: &[u32; $lanes] = order.first_chunk().expect("an entry for every lane");
                // SAFETY: the token proves the feature.
                unsafe { permute(v, order) }
            }

            #[inline(always)]
            fn transpose(self, from: &[f32], from_pitch: usize, to: &mut [f32], to_pitch: usize) {
                // SAFETY: the token proves the feature.
                unsafe { transpose(from, from_pitch, to, to_pitch) }
            }
        }

        #[cfg(not(miri))]
        #[inline]
        #[target_feature($(enable = $feature),+)]
        fn in_order(v: $F32) -> $F32 {
            let mut v = v;
            // SAFETY: there is no instruction in it. That it might touch memory is what keeps the order.
            unsafe { core::arch::asm!($mention, inout($class) v, options(nostack, preserves_flags)) };
            v
        }

        /// Transposes 4 x 4 blocks by zipping halves of rows, then the matrix of blocks.
        #[inline]
        #[target_feature($(enable = $feature),+)]
        fn transpose(from: &[f32], from_pitch: usize, to: &mut [f32], to_pitch: usize) {
            $crate::simd::assert_block($lanes, from.len(), from_pitch);
            $crate::simd::assert_block($lanes, to.len(), to_pitch);
            let mut rows = [$splat(0.0); $lanes];
            for i in 0..$lanes {
                // SAFETY: the slice contains the block, hence `LANES` elements of row `i`.
                rows[i] = unsafe { $load(from.as_ptr().wrapping_add(i * from_pitch)) };
            }
            for i in (0..$lanes).step_by(4) {
                let low = [$zip_low(rows[i], rows[i + 2]), $zip_low(rows[i + 1], rows[i + 3])];
                let high = [$zip_high(rows[i], rows[i + 2]), $zip_high(rows[i + 1], rows[i + 3])];
                rows[i] = $zip_low(low[0], low[1]);
                rows[i + 1] = $zip_high(low[0], low[1]);
                rows[i + 2] = $zip_low(high[0], high[1]);
                rows[i + 3] = $zip_high(high[0], high[1]);
            }
            let columns = transpose_quads(rows);
            for j in 0..$lanes {
                // SAFETY: the slice contains the block, hence `LANES` elements of row `j`.
                unsafe { $store(to.as_mut_ptr().wrapping_add(j * to_pitch), columns[j]) };
            }
        }
    };

    (@method $method:ident($($x:ident: $X:ty),+) -> $R:ty = $operation:ident) => {
        #[inline(always)]
        fn $method(self, $($x: $X),+) -> $R {
            // SAFETY: the token proves the feature, and the operation touches no memory but slices.
            unsafe { $operation($($x),+) }
        }
    };
}

/// The token of an instruction set that other architectures have: a type without values.
macro_rules! absent {
    (
        $(#[$doc:meta])*
        $Token:ident = $name:literal, $registers:literal registers of $lanes:literal lanes
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $Token {}

        impl $Token {
            /// `None`: this architecture does not have it.
            ///
            /// ```
            #[doc = concat!("assert!(convolve_simd::", stringify!($Token), "::detect().is_none());")]
            /// ```
            pub fn detect() -> Option<Self> {
                None
            }
        }

        impl $crate::Simd for $Token {
            const NAME: &'static str = $name;
            const LANES: usize = $lanes;
            const REGISTERS: usize = $registers;
            type F32 = [f32; $lanes];
            type Mask = [bool; $lanes];

            absent! { @methods
                splat(_x: f32) -> Self::F32;
                load(_from: &[f32]) -> Self::F32;
                store(_v: Self::F32, _to: &mut [f32]) -> ();
                load_first(_from: &[f32]) -> Self::F32;
                between(_first: usize, _end: usize) -> Self::Mask;
                store_first(_v: Self::F32, _to: &mut [f32]) -> ();
                add(_a: Self::F32, _b: Self::F32) -> Self::F32;
                sub(_a: Self::F32, _b: Self::F32) -> Self::F32;
                mul(_a: Self::F32, _b: Self::F32) -> Self::F32;
                max(_a: Self::F32, _b: Self::F32) -> Self::F32;
                min(_a: Self::F32, _b: Self::F32) -> Self::F32;
                max_nan(_a: Self::F32, _b: Self::F32) -> Self::F32;
                mul_add(_a: Self::F32, _b: Self::F32, _c: Self::F32) -> Self::F32;
                sum(_v: Self::F32) -> f32;
                permute(_v: Self::F32, _order: &[u32]) -> Self::F32;
                div(_a: Self::F32, _b: Self::F32) -> Self::F32;
                equal(_a: Self::F32, _b: Self::F32) -> Self::Mask;
                not_equal(_a: Self::F32, _b: Self::F32) -> Self::Mask;
                less(_a: Self::F32, _b: Self::F32) -> Self::Mask;
                at_least(_a: Self::F32, _b: Self::F32) -> Self::Mask;
                equal_byte(_from: &[u8], _byte: u8) -> Self::Mask;
                load_bytes(_from: &[u8]) -> Self::F32;
                store_bytes(_v: Self::F32, _to: &mut [u8]) -> ();
                or(_a: Self::Mask, _b: Self::Mask) -> Self::Mask;
                select(_mask: Self::Mask, _then: Self::F32, _otherwise: Self::F32) -> Self::F32;
                keep(_mask: Self::Mask, _v: Self::F32) -> Self::F32;
                scale(_v: Self::F32, _n: Self::F32) -> Self::F32;
                deinterleave(_a: Self::F32, _b: Self::F32) -> (Self::F32, Self::F32);
                interleave(_a: Self::F32, _b: Self::F32) -> (Self::F32, Self::F32);
                shift_in(_before: Self::F32, _v: Self::F32) -> Self::F32;
                transpose(_from: &[f32], _from_pitch: usize, _to: &mut [f32], _to_pitch: usize) -> ();
            }

            unsafe fn load_where(self, _from: *const f32, _mask: Self::Mask) -> Self::F32 {
                match self {}
            }

            fn vectorize<R>(self, _f: impl FnOnce(Self) -> R) -> R {
                match self {}
            }
        }
    };

    (@methods $($method:ident($($x:ident: $X:ty),+) -> $R:ty;)+) => {
        $(
            fn $method(self, $($x: $X),+) -> $R {
                match self {}
            }
        )+
    };
}
