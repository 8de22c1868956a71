//! oneDNN, loaded at run time: the one peer that can be measured in the same process, turn by turn with ours.
//!
//! The C interface of oneDNN 3, of which a convolution needs some twenty functions, by hand. All `unsafe` of this package is here.
//! A [`Primitive`] has its operands in oneDNN's memory, in the layout that was asked for, so that [`Primitive::run`] executes it and
//! nothing else.

mod layers;

use crate::case::{AnyPass, Operands};
use convolve::Geometry;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::null;
use libloading::Library;
use std::path::Path;

/// Status of a call; 0 is success, 3 means that no implementation serves the problem.
type Status = c_int;
type Handle = *mut c_void;
type Dims = [i64; 12];

/// What [`OneDnn::bind`] is told of an operand.
#[derive(Clone, Copy)]
struct Operand<'a> {
    arg: c_int,
    query: c_int,
    plain: Handle,
    /// None for what is written.
    values: Option<&'a [f32]>,
}

#[repr(C)]
struct Argument {
    arg: c_int,
    memory: Handle,
}

macro_rules! functions {
    ($($name:ident($($arg:ty),*) $(-> $result:ty)?;)*) => {
        struct Functions {
            $($name: unsafe extern "C" fn($($arg),*) $(-> $result)?,)*
        }

        impl Functions {
            fn load(library: &Library) -> Result<Self, libloading::Error> {
                Ok(Self {
                    $($name: {
                        // SAFETY: the type is that of the function in oneDNN 3's dnnl.h.
                        let function = unsafe { library.get(concat!("dnnl_", stringify!($name)).as_bytes()) };
                        *function?
                    },)*
                })
            }
        }
    };
}

functions! {
    engine_create(*mut Handle, c_int, usize) -> Status;
    stream_create(*mut Handle, Handle, u32) -> Status;
    stream_wait(Handle) -> Status;
    memory_desc_create_with_strides(*mut Handle, c_int, *const i64, c_int, *const i64) -> Status;
    memory_desc_create_with_tag(*mut Handle, c_int, *const i64, c_int, c_int) -> Status;
    memory_desc_get_size(Handle) -> usize;
    memory_create(*mut Handle, Handle, Handle, *mut c_void) -> Status;
    memory_get_data_handle(Handle, *mut *mut c_void) -> Status;
    reorder_primitive_desc_create(*mut Handle, Handle, Handle, Handle, Handle, Handle) -> Status;
    convolution_forward_primitive_desc_create(*mut Handle, Handle, c_int, c_int, Handle, Handle, Handle, Handle, *const i64, *const i64, *const i64, *const i64, Handle) -> Status;
    convolution_backward_data_primitive_desc_create(*mut Handle, Handle, c_int, Handle, Handle, Handle, *const i64, *const i64, *const i64, *const i64, Handle, Handle) -> Status;
    convolution_backward_weights_primitive_desc_create(*mut Handle, Handle, c_int, Handle, Handle, Handle, Handle, *const i64, *const i64, *const i64, *const i64, Handle, Handle) -> Status;
    pooling_forward_primitive_desc_create(*mut Handle, Handle, c_int, c_int, Handle, Handle, *const i64, *const i64, *const i64, *const i64, *const i64, Handle) -> Status;
    pooling_backward_primitive_desc_create(*mut Handle, Handle, c_int, Handle, Handle, *const i64, *const i64, *const i64, *const i64, *const i64, Handle, Handle) -> Status;
    inner_product_forward_primitive_desc_create(*mut Handle, Handle, c_int, Handle, Handle, Handle, Handle, Handle) -> Status;
    inner_product_backward_data_primitive_desc_create(*mut Handle, Handle, Handle, Handle, Handle, Handle, Handle) -> Status;
    inner_product_backward_weights_primitive_desc_create(*mut Handle, Handle, Handle, Handle, Handle, Handle, Handle, Handle) -> Status;
    eltwise_forward_primitive_desc_create(*mut Handle, Handle, c_int, c_int, Handle, Handle, f32, f32, Handle) -> Status;
    eltwise_backward_primitive_desc_create(*mut Handle, Handle, c_int, Handle, Handle, Handle, f32, f32, Handle, Handle) -> Status;
    primitive_desc_query_md(Handle, c_int, c_int) -> Handle;
    primitive_desc_query(Handle, c_int, c_int, *mut c_void) -> Status;
    primitive_create(*mut Handle, Handle) -> Status;
    primitive_execute(Handle, Handle, c_int, *const Argument) -> Status;
    version() -> *const Version;
}

#[repr(C)]
struct Version {
    major: c_int,
    minor: c_int,
    patch: c_int,
}

const CPU: c_int = 1;
const F32: c_int = 3;
const ANY: c_int = 1;
const DIRECT: c_int = 1;
const FORWARD_INFERENCE: c_int = 96;
const FORWARD_TRAINING: c_int = 64;
const IMPLEMENTATION: c_int = 8;
const ALLOCATE: *mut c_void = usize::MAX as *mut c_void;

/// A tensor's number as an argument and as a query, forward and as a gradient.
#[derive(Clone, Copy)]
struct Role {
    arg: [c_int; 2],
    query: [c_int; 2],
}
const SRC: Role = Role { arg: [1, 129], query: [129, 130] };
const WEIGHTS: Role = Role { arg: [33, 161], query: [131, 132] };
const DST: Role = Role { arg: [17, 145], query: [133, 134] };
const FROM: c_int = 1;
const TO: c_int = 17;

/// The library, an engine and a stream. Their handles are never given back: a benchmark ends soon.
pub struct OneDnn {
    functions: Functions,
    engine: Handle,
    stream: Handle,
    // After its functions.
    _library: Library,
}

/// In which layout oneDNN has the activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// In that which it prefers.
    Best,
    /// In the problem's own.
    Plain,
}

/// An operation that is ready to run.
pub struct Primitive<'a> {
    one: &'a OneDnn,
    primitive: Handle,
    arguments: Vec<Argument>,
    result: Handle,
    result_desc: Handle,
    plain_desc: Handle,
    /// Which of its kernels it chose.
    pub implementation: String,
}

impl OneDnn {
    /// Loads a `libdnnl.so.3`.
    ///
    /// # Errors
    /// A sentence: the file, and what is wrong with it.
    pub fn open(path: &Path) -> Result<Self, String> {
        let wrong = |error: &dyn core::fmt::Display| format!("`{}`: {error}", path.display());
        // SAFETY: loading runs the library's initialisers; the user names the file to have it run.
        let library = unsafe { Library::new(path) }.map_err(|error| wrong(&error))?;
        let functions = Functions::load(&library).map_err(|error| wrong(&error))?;
        // SAFETY: takes nothing and returns a static.
        let version = unsafe { (functions.version)() };
        // SAFETY: as above; all versions begin with these three numbers.
        let major = unsafe { &*version }.major;
        if major != 3 {
            return Err(wrong(&format_args!("this is oneDNN {major}, but version 3 is needed")));
        }
        let (mut engine, mut stream) = (core::ptr::null_mut(), core::ptr::null_mut());
        // SAFETY: the pointer is to a handle.
        check(unsafe { (functions.engine_create)(&mut engine, CPU, 0) })?;
        // SAFETY: the pointer is to a handle; 1 asks for the default stream.
        check(unsafe { (functions.stream_create)(&mut stream, engine, 1) })?;
        Ok(Self { functions, engine, stream, _library: library })
    }

    /// Prepares a pass. `operands` are read once, in the layouts of the geometry.
    ///
    /// # Errors
    /// A sentence, when oneDNN has no implementation.
    pub fn prepare(
        &self,
        geometry: &Geometry,
        pass: AnyPass,
        data: Data,
        operands: &Operands,
    ) -> Result<Primitive<'_>, String> {
        let conv = geometry.conv();
        let tensor = |[n, c, h, w]: [usize; 4], s: convolve::Strides| {
            (dims(&[n, c, h, w]), dims(&[s.image, s.channel, s.row, s.column]), 4)
        };
        let (out, size) = (geometry.output(), conv.input);
        let src = tensor([conv.batch, conv.in_channels, size[0], size[1]], geometry.src());
        let dst = tensor([conv.batch, conv.out_channels, out[0], out[1]], geometry.dst());
        let w = geometry.weights();
        let [kh, kw] = conv.kernel;
        let weights = match conv.groups {
            1 => (
                dims(&[conv.out_channels, conv.in_channels, kh, kw]),
                dims(&[w.oc, w.ic, w.tap[0], w.tap[1]]),
                4,
            ),
            g => (
                dims(&[g, geometry.group_out(), geometry.group_in(), kh, kw]),
                dims(&[geometry.group_out() * w.oc, w.oc, w.ic, w.tap[0], w.tap[1]]),
                5,
            ),
        };
        let plain = [self.strided(&src)?, self.strided(&weights)?, self.strided(&dst)?];
        let any = [self.any(&src)?, self.any(&weights)?, self.any(&dst)?];
        let [src_md, dst_md] = match data {
            Data::Best => [any[0], any[2]],
            Data::Plain => [plain[0], plain[2]],
        };
        let desc = self.describe(geometry, pass, src_md, any[1], dst_md)?;
        self.bind_pass(desc, pass, plain, operands.tensors())
    }

    /// The operands of a pass over `src`, weights and `dst`.
    fn bind_pass(
        &self,
        desc: Handle,
        pass: AnyPass,
        plain: [Handle; 3],
        tensors: [&[f32]; 3],
    ) -> Result<Primitive<'_>, String> {
        // Which of the three is written, and which are gradients.
        let (written, gradient) = match pass {
            AnyPass::Forward => (2, [0, 0, 0]),
            AnyPass::BackwardData => (0, [1, 0, 1]),
            AnyPass::BackwardWeights => (1, [0, 1, 1]),
        };
        let roles = [SRC, WEIGHTS, DST];
        let operands = core::array::from_fn::<_, 3, _>(|i| Operand {
            arg: roles[i].arg[gradient[i]],
            query: roles[i].query[gradient[i]],
            plain: plain[i],
            values: (i != written).then_some(tensors[i]),
        });
        self.bind(desc, &operands, Vec::new())
    }

    /// Gives a primitive its memory, and the operands that it reads their values; `arguments` are there already.
    fn bind(
        &self,
        desc: Handle,
        operands: &[Operand<'_>],
        mut arguments: Vec<Argument>,
    ) -> Result<Primitive<'_>, String> {
        let mut written = [core::ptr::null_mut(); 3];
        for &Operand { arg, query, plain, values } in operands {
            // SAFETY: the primitive descriptor is valid and owns what is returned.
            let md = unsafe { (self.functions.primitive_desc_query_md)(desc, query, 0) };
            let memory = self.memory(md)?;
            match values {
                None => written = [memory, md, plain],
                Some(values) => {
                    let from = self.memory(plain)?;
                    self.fill(from, values)?;
                    self.reorder(plain, from, md, memory)?;
                }
            }
            arguments.push(Argument { arg, memory });
        }
        let mut name: *const c_char = null();
        // SAFETY: this query writes a pointer to a string that the descriptor owns.
        check(unsafe {
            (self.functions.primitive_desc_query)(desc, IMPLEMENTATION, 0, (&raw mut name).cast())
        })?;
        // SAFETY: it ends with a zero.
        let implementation = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        let primitive = self.primitive(desc)?;
        let [result, result_desc, plain_desc] = written;
        Ok(Primitive { one: self, primitive, arguments, result, result_desc, plain_desc, implementation })
    }

    fn describe(
        &self,
        geometry: &Geometry,
        pass: AnyPass,
        src: Handle,
        weights: Handle,
        dst: Handle,
    ) -> Result<Handle, String> {
        let (conv, none, f) = (geometry.conv(), core::ptr::null_mut(), &self.functions);
        let [vertical, horizontal] = geometry.padding();
        let strides = dims(&conv.stride);
        let dilations = dims(&conv.dilation.map(|dilation| dilation - 1));
        let (before, after) = (dims(&[vertical[0], horizontal[0]]), dims(&[vertical[1], horizontal[1]]));
        let (s, d, l, r) = (strides.as_ptr(), dilations.as_ptr(), before.as_ptr(), after.as_ptr());
        let (mut desc, kind) =
            (none, if pass == AnyPass::Forward { FORWARD_INFERENCE } else { FORWARD_TRAINING });
        // SAFETY: descriptors are valid, arrays have 12 elements, there is no bias and there are no attributes.
        let forward = unsafe {
            (f.convolution_forward_primitive_desc_create)(
                &mut desc,
                self.engine,
                kind,
                DIRECT,
                src,
                weights,
                none,
                dst,
                s,
                d,
                l,
                r,
                none,
            )
        };
        check(forward)?;
        let hint = desc;
        match pass {
            AnyPass::Forward => return Ok(desc),
            AnyPass::BackwardData => {
                // SAFETY: as above; the hint is the forward descriptor.
                check(unsafe {
                    (f.convolution_backward_data_primitive_desc_create)(
                        &mut desc,
                        self.engine,
                        DIRECT,
                        src,
                        weights,
                        dst,
                        s,
                        d,
                        l,
                        r,
                        hint,
                        none,
                    )
                })?;
            }
            AnyPass::BackwardWeights => {
                // SAFETY: as above; the hint is the forward descriptor.
                check(unsafe {
                    (f.convolution_backward_weights_primitive_desc_create)(
                        &mut desc,
                        self.engine,
                        DIRECT,
                        src,
                        weights,
                        none,
                        dst,
                        s,
                        d,
                        l,
                        r,
                        hint,
                        none,
                    )
                })?;
            }
        }
        Ok(desc)
    }

    fn strided(&self, (dims, strides, rank): &(Dims, Dims, c_int)) -> Result<Handle, String> {
        let mut md = core::ptr::null_mut();
        // SAFETY: both arrays have 12 elements, more than the rank.
        check(unsafe {
            (self.functions.memory_desc_create_with_strides)(
                &mut md,
                *rank,
                dims.as_ptr(),
                F32,
                strides.as_ptr(),
            )
        })?;
        Ok(md)
    }

    fn any(&self, tensor: &(Dims, Dims, c_int)) -> Result<Handle, String> {
        self.tagged(tensor, ANY)
    }

    fn tagged(&self, (dims, _, rank): &(Dims, Dims, c_int), tag: c_int) -> Result<Handle, String> {
        let mut md = core::ptr::null_mut();
        // SAFETY: the array has 12 elements, more than the rank.
        check(unsafe {
            (self.functions.memory_desc_create_with_tag)(&mut md, *rank, dims.as_ptr(), F32, tag)
        })?;
        Ok(md)
    }

    fn memory(&self, md: Handle) -> Result<Handle, String> {
        let mut memory = core::ptr::null_mut();
        // SAFETY: the descriptor is valid; oneDNN allocates.
        check(unsafe { (self.functions.memory_create)(&mut memory, md, self.engine, ALLOCATE) })?;
        Ok(memory)
    }

    fn data(&self, memory: Handle) -> Result<*mut f32, String> {
        let mut data = core::ptr::null_mut();
        // SAFETY: the memory is valid.
        check(unsafe { (self.functions.memory_get_data_handle)(memory, &mut data) })?;
        Ok(data.cast())
    }

    fn fill(&self, memory: Handle, values: &[f32]) -> Result<(), String> {
        let data = self.data(memory)?;
        // SAFETY: a memory of plain strides has as many elements as the tensor.
        unsafe { data.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        Ok(())
    }

    fn primitive(&self, desc: Handle) -> Result<Handle, String> {
        let mut primitive = core::ptr::null_mut();
        // SAFETY: the descriptor is valid.
        check(unsafe { (self.functions.primitive_create)(&mut primitive, desc) })?;
        Ok(primitive)
    }

    fn execute(&self, primitive: Handle, arguments: &[Argument]) -> Result<(), String> {
        let (count, arguments) = (arguments.len() as c_int, arguments.as_ptr());
        // SAFETY: the arguments are memories of the descriptors that the primitive was created with.
        check(unsafe { (self.functions.primitive_execute)(primitive, self.stream, count, arguments) })?;
        // SAFETY: the stream is valid.
        check(unsafe { (self.functions.stream_wait)(self.stream) })
    }

    fn reorder(&self, from_md: Handle, from: Handle, to_md: Handle, to: Handle) -> Result<(), String> {
        let mut desc = core::ptr::null_mut();
        // SAFETY: the descriptors are valid, and there are no attributes.
        check(unsafe {
            (self.functions.reorder_primitive_desc_create)(
                &mut desc,
                from_md,
                self.engine,
                to_md,
                self.engine,
                core::ptr::null_mut(),
            )
        })?;
        let arguments = [Argument { arg: FROM, memory: from }, Argument { arg: TO, memory: to }];
        self.execute(self.primitive(desc)?, &arguments)
    }
}

impl Primitive<'_> {
    /// Executes the primitive.
    pub fn run(&self) {
        self.one.execute(self.primitive, &self.arguments).expect("it ran before");
    }

    /// Executes it and gives the result in the layout of the geometry.
    ///
    /// # Errors
    /// What oneDNN says.
    pub fn result(&self) -> Result<Vec<f32>, String> {
        let one = self.one;
        one.execute(self.primitive, &self.arguments)?;
        let plain = one.memory(self.plain_desc)?;
        one.reorder(self.result_desc, self.result, self.plain_desc, plain)?;
        // SAFETY: the descriptor is valid.
        let bytes = unsafe { (one.functions.memory_desc_get_size)(self.plain_desc) };
        // SAFETY: a memory of plain strides is that many bytes of f32.
        Ok(unsafe { core::slice::from_raw_parts(one.data(plain)?, bytes / size_of::<f32>()) }.to_vec())
    }
}

fn dims(values: &[usize]) -> Dims {
    let mut dims = [0; 12];
    dims.iter_mut().zip(values).for_each(|(dim, value)| *dim = *value as i64);
    dims
}

fn check(status: Status) -> Result<(), String> {
    match status {
        0 => Ok(()),
        3 => Err("oneDNN has no implementation".into()),
        status => Err(format!("oneDNN returned status {status}")),
    }
}
