//! What forward and backward-data have in common: both are phases that read one tensor and write the other, with the weight matrix one
//! way or the other. An algorithm that runs phases ([`Phased`]) serves both passes.

use crate::phase::Phase;
use crate::{
    BackwardData, BackwardDataArgs, Cut, Epilogue, Execute, Forward, ForwardArgs, Geometry, Layout, Par,
    Strides, Tasks, Update, WeightStrides,
};

/// Which tensor is read: `src` (forward) or `diff_dst` (backward-data).
///
/// ```
/// assert_ne!(convolve_core::Direction::Forward, convolve_core::Direction::BackwardData);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Reads `src`, writes `dst`.
    Forward,
    /// Reads `diff_dst`, writes `diff_src`.
    BackwardData,
}

/// One of the two tensors.
///
/// ```
/// use convolve_core::{Conv2d, Direction, Sides};
/// let geometry = Conv2d::new(4, 6, 3).groups(2).input(8).geometry()?;
/// assert_eq!(Sides::new(&geometry, Direction::Forward).output.channels, 3);
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// Channels of one group.
    pub channels: usize,
    /// Height and width.
    pub size: [usize; 2],
    /// Distances in memory.
    pub strides: Strides,
}

/// A convolution seen in one direction: channels and pixels of what is read and of what is written, and the phases between them.
///
/// ```
/// use convolve_core::{Conv2d, Direction, Sides};
/// let geometry = Conv2d::new(4, 6, 3).stride(2).input(8).geometry()?;
/// let sides = Sides::new(&geometry, Direction::BackwardData);
/// assert_eq!((sides.input.channels, sides.output.channels, sides.phases.len()), (6, 4, 4));
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sides {
    /// Forward or backward-data.
    pub direction: Direction,
    /// The layout of both tensors.
    pub layout: Layout,
    /// Images.
    pub batch: usize,
    /// Groups.
    pub groups: usize,
    /// The tensor that is read.
    pub input: Side,
    /// The tensor that is written.
    pub output: Side,
    /// What is computed: phases that have taps.
    pub phases: Vec<Phase>,
    /// Whether some output pixels belong to no phase and are zero.
    pub gaps: bool,
    weights: WeightStrides,
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
}

impl Sides {
    /// A problem in one direction.
    pub fn new(geometry: &Geometry, direction: Direction) -> Self {
        let conv = geometry.conv();
        let src = Side { channels: geometry.group_in(), size: conv.input, strides: geometry.src() };
        let dst = Side { channels: geometry.group_out(), size: geometry.output(), strides: geometry.dst() };
        let (input, output, phases) = match direction {
            Direction::Forward => (src, dst, vec![geometry.forward()]),
            Direction::BackwardData => (dst, src, geometry.backward_data_with_taps()),
        };
        let written: usize = phases.iter().map(|phase| phase.axes[0].count * phase.axes[1].count).sum();
        let gaps = written < output.size[0] * output.size[1];
        let weights = geometry.weights();
        let (layout, batch, groups) = (conv.layout, conv.batch, conv.groups);
        let (kernel, stride, dilation) = (conv.kernel, conv.stride, conv.dilation);
        Self {
            direction,
            layout,
            batch,
            groups,
            input,
            output,
            phases,
            gaps,
            weights,
            kernel,
            stride,
            dilation,
        }
    }

    /// The same problem of a depthwise convolution, seen as one group in which every output channel has one input channel, its own.
    ///
    /// ```
    /// use convolve_core::{Conv2d, Direction, Sides};
    /// let depthwise = Conv2d::new(32, 32, 3).groups(32).input(8).geometry()?;
    /// let sides = Sides::depthwise(&depthwise, Direction::Forward).unwrap();
    /// assert_eq!((sides.groups, sides.input.channels, sides.output.channels), (1, 32, 32));
    /// assert_eq!(sides.weight(0, [0, 1]), (1, [9, 9]));
    /// assert!(Sides::depthwise(&Conv2d::new(32, 32, 3).input(8).geometry()?, Direction::Forward).is_none());
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn depthwise(geometry: &Geometry, direction: Direction) -> Option<Self> {
        if geometry.group_in() != 1 || geometry.group_out() != 1 {
            return None;
        }
        let mut sides = Self::new(geometry, direction);
        sides.groups = 1;
        sides.input.channels = geometry.conv().in_channels;
        sides.output.channels = geometry.conv().out_channels;
        sides.weights.ic = sides.weights.oc;
        Some(sides)
    }

    /// The output, as images, pixels and channels in the order of the layout, in tasks of some images, pixels that are cut so, and channels of a group.
    ///
    /// ```
    /// use convolve_core::{Conv2d, Cut, Direction, Sides};
    /// let sides = Sides::new(&Conv2d::new(4, 6, 3).input(8).geometry()?, Direction::Forward);
    /// let tasks = sides.tasks(1, Cut { unit: 36, block: 12 }, 4); // NCHW
    /// assert_eq!((tasks.extent, tasks.count()), ([1, 6, 36], 6));
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn tasks(&self, images: usize, pixels: Cut, channels: usize) -> Tasks {
        let Self { batch, groups, output, .. } = self;
        let (all, space) = (groups * output.channels, output.size[0] * output.size[1]);
        let images = Cut { unit: (*batch).max(1), block: images };
        let channels = Cut { unit: output.channels, block: channels };
        match self.layout {
            Layout::Nhwc => Tasks { extent: [*batch, space, all], cuts: [images, pixels, channels] },
            Layout::Nchw => Tasks { extent: [*batch, all, space], cuts: [images, channels, pixels] },
        }
    }

    /// Offset of a weight, and the distances to the next output and to the next input channel (of this direction).
    ///
    /// ```
    /// use convolve_core::{Conv2d, Direction, Sides};
    /// let geometry = Conv2d::new(4, 6, 3).input(8).geometry()?; // OIHW
    /// assert_eq!(Sides::new(&geometry, Direction::Forward).weight(0, [1, 1]), (4, [36, 9]));
    /// assert_eq!(Sides::new(&geometry, Direction::BackwardData).weight(0, [1, 1]), (4, [9, 36]));
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn weight(&self, group: usize, k: [usize; 2]) -> (usize, [usize; 2]) {
        let WeightStrides { oc, ic, .. } = self.weights;
        let (group_out, strides) = match self.direction {
            Direction::Forward => (self.output.channels, [oc, ic]),
            Direction::BackwardData => (self.input.channels, [ic, oc]),
        };
        (self.weights.at(group * group_out, 0, k), strides)
    }

    /// Most input pixels along an axis that `outputs` consecutive output pixels read: from `i + pad = o*stride + k*dilation`.
    ///
    /// ```
    /// use convolve_core::{Conv2d, Direction, Sides};
    /// let geometry = Conv2d::new(1, 1, 3).input(9).stride(2).geometry()?;
    /// assert_eq!(Sides::new(&geometry, Direction::Forward).reach(2, 0), 5);
    /// assert_eq!(Sides::new(&geometry, Direction::BackwardData).reach(5, 0), 4);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn reach(&self, outputs: usize, axis: usize) -> usize {
        let span = (self.kernel[axis] - 1) * self.dilation[axis];
        let reads = match self.direction {
            Direction::Forward => (outputs - 1) * self.stride[axis] + span + 1,
            Direction::BackwardData => (outputs - 1 + span) / self.stride[axis] + 1,
        };
        reads.min(self.input.size[axis])
    }
}

/// What an output starts from and ends with; by default nothing, and it is replaced.
///
/// ```
/// # use convolve_core::{Epilogue, Finish, Update};
/// let finish = Finish { epilogue: Epilogue::NONE, update: Update::Accumulate };
/// assert!(!finish.epilogue.late());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Finish<'a> {
    /// Bias, residual, activation (forward).
    pub epilogue: Epilogue<'a>,
    /// Replace or add (backward-data).
    pub update: Update,
}

/// An executor of phases: serves [`Forward`] and [`BackwardData`] alike.
pub trait Phased: Send + Sync {
    /// As [`Execute::packed_len`].
    fn packed_len(&self) -> usize;
    /// As [`Execute::pack`].
    fn pack(&self, weights: &[f32], packed: &mut [f32]);
    /// As [`Execute::workspace_len`].
    fn workspace_len(&self) -> usize;
    /// As [`Execute::run`].
    fn run(
        &self,
        input: &[f32],
        packed: &[f32],
        output: &mut [f32],
        finish: Finish<'_>,
        workspace: &mut [f32],
        par: Par<'_>,
    );
}

macro_rules! execute {
    ($pass:ident, $args:ident { $input:ident, $output:ident, $($finish:ident),* }) => {
        impl<T: Phased> Execute<$pass> for T {
            fn packed_len(&self) -> usize {
                Phased::packed_len(self)
            }
            fn pack(&self, weights: &[f32], packed: &mut [f32]) {
                Phased::pack(self, weights, packed);
            }
            fn workspace_len(&self) -> usize {
                Phased::workspace_len(self)
            }
            fn run(&self, args: $args<'_>, workspace: &mut [f32], par: Par<'_>) {
                let finish = Finish { $($finish: args.$finish,)* ..Finish::default() };
                Phased::run(self, args.$input, args.weights, args.$output, finish, workspace, par);
            }
        }
    };
}
execute!(Forward, ForwardArgs { src, dst, epilogue });
execute!(BackwardData, BackwardDataArgs { diff_dst, diff_src, update });
