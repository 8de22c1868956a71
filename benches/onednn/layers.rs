//! Pooling, inner products and elementwise functions of oneDNN: what a network has around its convolutions.

use super::{
    ALLOCATE, Argument, DST, Data, Dims, FORWARD_INFERENCE, FORWARD_TRAINING, Handle, OneDnn, Operand,
    Primitive, SRC, check, dims,
};
use crate::case::AnyPass;
use convolve::{Function, Isa, Layout, Linear, PoolGeometry, Reduction, WeightOrder};
use core::ffi::c_int;

const POOLING_MAX: c_int = 0x1ff;
const POOLING_AVERAGE_INCLUDE: c_int = 0x2ff;
const POOLING_AVERAGE_EXCLUDE: c_int = 0x3ff;
/// Channels in blocks of 8 and of 16, "nChw8c" and "nChw16c".
const BLOCKED: [(usize, c_int); 2] = [(8, 102), (16, 78)];
const WORKSPACE: c_int = 64;
const WORKSPACE_MD: c_int = 135;

impl OneDnn {
    /// Channels of a block where it has kernels for blocks: as many as its registers have lanes.
    #[must_use]
    pub fn block() -> usize {
        if Isa::available().iter().any(|isa| matches!(isa, Isa::Avx512(_))) { 16 } else { 8 }
    }

    /// Prepares a pooling, forward or backward; [`Data::Best`] is channels in blocks of [`block`](Self::block).
    ///
    /// # Errors
    /// A sentence, when oneDNN has no implementation.
    pub fn pool(
        &self,
        geometry: &PoolGeometry,
        pass: AnyPass,
        data: Data,
        [src, diff_dst]: [&[f32]; 2],
    ) -> Result<Primitive<'_>, String> {
        let (pool, f) = (geometry.pool(), &self.functions);
        let tensor = |[h, w]: [usize; 2]| {
            let c = pool.channels;
            let strides = match pool.layout {
                Layout::Nchw => [c * h * w, h * w, w, 1],
                Layout::Nhwc => [h * w * c, 1, w * c, c],
            };
            (dims(&[pool.batch, c, h, w]), dims(&strides), 4)
        };
        let (small, large) = (tensor(geometry.output()), tensor(pool.input));
        let plain = [self.strided(&large)?, self.strided(&small)?];
        let [src_md, dst_md] = match data {
            Data::Plain => plain,
            Data::Best => {
                let (_, tag) =
                    BLOCKED.into_iter().find(|(len, _)| *len == Self::block()).expect("it is one of them");
                [self.tagged(&large, tag)?, self.tagged(&small, tag)?]
            }
        };
        let kind = match pool.reduction {
            Reduction::Max { .. } => POOLING_MAX,
            Reduction::Average { count_include_pad: true, .. } => POOLING_AVERAGE_INCLUDE,
            Reduction::Average { .. } => POOLING_AVERAGE_EXCLUDE,
        };
        let [[top, bottom], [left, right]] = geometry.padding();
        let window: [Dims; 5] = [
            dims(&pool.stride),
            dims(&pool.kernel),
            dims(&pool.dilation.map(|dilation| dilation - 1)),
            dims(&[top, left]),
            dims(&[bottom, right]),
        ];
        let [s, k, d, l, r] = window.each_ref().map(|dims| dims.as_ptr());
        let (none, mut desc) = (core::ptr::null_mut(), core::ptr::null_mut());
        let purpose = if pass == AnyPass::Forward { FORWARD_INFERENCE } else { FORWARD_TRAINING };
        // SAFETY: descriptors are valid, arrays have 12 elements, and there are no attributes.
        check(unsafe {
            (f.pooling_forward_primitive_desc_create)(
                &mut desc,
                self.engine,
                purpose,
                kind,
                src_md,
                dst_md,
                s,
                k,
                d,
                l,
                r,
                none,
            )
        })?;
        let operand = |role: super::Role, gradient: usize, plain: Handle, values| Operand {
            arg: role.arg[gradient],
            query: role.query[gradient],
            plain,
            values,
        };
        if pass == AnyPass::Forward {
            let operands = [operand(SRC, 0, plain[0], Some(src)), operand(DST, 0, plain[1], None)];
            return self.bind(desc, &operands, Vec::new());
        }
        let mut extra = Vec::new();
        if kind == POOLING_MAX {
            // Where each maximum was: written by a forward run, read by backward ones.
            // SAFETY: the primitive descriptor is valid and owns what is returned.
            let md = unsafe { (f.primitive_desc_query_md)(desc, WORKSPACE_MD, 0) };
            let mut memory = none;
            // SAFETY: the descriptor is valid; oneDNN allocates.
            check(unsafe { (f.memory_create)(&mut memory, md, self.engine, ALLOCATE) })?;
            let operands = [operand(SRC, 0, plain[0], Some(src)), operand(DST, 0, plain[1], None)];
            self.bind(desc, &operands, vec![Argument { arg: WORKSPACE, memory }])?.run();
            extra.push(Argument { arg: WORKSPACE, memory });
        }
        let hint = desc;
        // SAFETY: as above; the hint is the forward descriptor.
        check(unsafe {
            (f.pooling_backward_primitive_desc_create)(
                &mut desc,
                self.engine,
                kind,
                src_md,
                dst_md,
                s,
                k,
                d,
                l,
                r,
                hint,
                none,
            )
        })?;
        let operands = [operand(SRC, 1, plain[0], None), operand(DST, 1, plain[1], Some(diff_dst))];
        self.bind(desc, &operands, extra)
    }

    /// Prepares a fully connected layer; its weights are in the order that oneDNN prefers.
    ///
    /// # Errors
    /// A sentence, when oneDNN has no implementation.
    pub fn linear(
        &self,
        linear: &Linear,
        pass: AnyPass,
        tensors: [&[f32]; 3],
    ) -> Result<Primitive<'_>, String> {
        let (f, none) = (&self.functions, core::ptr::null_mut());
        let Linear { batch, in_features: k, out_features: n, weights } = *linear;
        let matrix = |rows, columns| (dims(&[rows, columns]), dims(&[columns, 1]), 2);
        let weights = match weights {
            WeightOrder::OutIn => matrix(n, k),
            WeightOrder::InOut => (dims(&[n, k]), dims(&[1, n]), 2),
        };
        let plain =
            [self.strided(&matrix(batch, k))?, self.strided(&weights)?, self.strided(&matrix(batch, n))?];
        let ([src, _, dst], any) = (plain, self.any(&weights)?);
        let purpose = if pass == AnyPass::Forward { FORWARD_INFERENCE } else { FORWARD_TRAINING };
        let mut desc = none;
        // SAFETY: descriptors are valid; there is no bias and there are no attributes.
        check(unsafe {
            (f.inner_product_forward_primitive_desc_create)(
                &mut desc,
                self.engine,
                purpose,
                src,
                any,
                none,
                dst,
                none,
            )
        })?;
        let hint = desc;
        match pass {
            AnyPass::Forward => {}
            AnyPass::BackwardData => {
                // SAFETY: as above; the hint is the forward descriptor.
                check(unsafe {
                    (f.inner_product_backward_data_primitive_desc_create)(
                        &mut desc,
                        self.engine,
                        src,
                        any,
                        dst,
                        hint,
                        none,
                    )
                })?;
            }
            AnyPass::BackwardWeights => {
                // SAFETY: as above; the hint is the forward descriptor.
                check(unsafe {
                    (f.inner_product_backward_weights_primitive_desc_create)(
                        &mut desc,
                        self.engine,
                        src,
                        any,
                        none,
                        dst,
                        hint,
                        none,
                    )
                })?;
            }
        }
        self.bind_pass(desc, pass, plain, tensors)
    }

    /// Prepares a function of so many elements, forward or backward.
    ///
    /// # Errors
    /// A sentence, when oneDNN does not have it.
    pub fn function(
        &self,
        function: Function,
        pass: AnyPass,
        [src, diff_dst]: [&[f32]; 2],
    ) -> Result<Primitive<'_>, String> {
        let (kind, alpha, beta) = match function {
            Function::Relu => (0x20, 0.0, 0.0),
            Function::LeakyRelu { slope } => (0x20, slope, 0.0),
            Function::Relu6 => (0x2f, 0.0, 6.0),
            Function::Sigmoid => (0x29, 0.0, 0.0),
            Function::Tanh => (0x21, 0.0, 0.0),
            Function::Silu => (0x2c, 1.0, 0.0),
            Function::Gelu => (0x31, 0.0, 0.0),
            other => return Err(format!("oneDNN is not asked for {other:?}")),
        };
        let (f, none, mut desc) = (&self.functions, core::ptr::null_mut(), core::ptr::null_mut());
        let md = self.strided(&(dims(&[src.len()]), dims(&[1]), 1))?;
        let purpose = if pass == AnyPass::Forward { FORWARD_INFERENCE } else { FORWARD_TRAINING };
        // SAFETY: descriptors are valid, and there are no attributes.
        check(unsafe {
            (f.eltwise_forward_primitive_desc_create)(
                &mut desc,
                self.engine,
                purpose,
                kind,
                md,
                md,
                alpha,
                beta,
                none,
            )
        })?;
        let source = Operand { arg: SRC.arg[0], query: SRC.query[0], plain: md, values: Some(src) };
        if pass == AnyPass::Forward {
            let result = Operand { arg: DST.arg[0], query: DST.query[0], plain: md, values: None };
            return self.bind(desc, &[source, result], Vec::new());
        }
        let hint = desc;
        // SAFETY: as above; the hint is the forward descriptor.
        check(unsafe {
            (f.eltwise_backward_primitive_desc_create)(
                &mut desc,
                self.engine,
                kind,
                md,
                md,
                md,
                alpha,
                beta,
                hint,
                none,
            )
        })?;
        let gradient = Operand { arg: DST.arg[1], query: DST.query[1], plain: md, values: Some(diff_dst) };
        let result = Operand { arg: SRC.arg[1], query: SRC.query[1], plain: md, values: None };
        self.bind(desc, &[source, gradient, result], Vec::new())
    }
}
