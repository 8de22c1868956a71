//! What happens to an output before it is written for the only time: `dst = activation(conv + bias + residual)`.
//!
//! Bias and clamp (ReLU, ReLU6, identity are all clamps) are applied in registers; the rest as a pass over rows that are still in L1.

/// The function at the end.
///
/// ```
/// use convolve_core::Activation;
/// assert_eq!(Activation::RELU.apply(-2.0), 0.0);
/// assert_eq!(Activation::LeakyRelu { slope: 0.25 }.apply(-2.0), -0.5);
/// assert!(Activation::RELU.apply(f32::NAN).is_nan());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// `min(max, max(min, x))`; NaN stays NaN.
    Clamp {
        /// Least value.
        min: f32,
        /// Greatest value.
        max: f32,
    },
    /// `x` where it is positive, else `slope * x`.
    LeakyRelu {
        /// Factor of negative values.
        slope: f32,
    },
}

impl Activation {
    /// Nothing.
    pub const IDENTITY: Self = Self::Clamp { min: f32::NEG_INFINITY, max: f32::INFINITY };
    /// `max(0, x)`.
    pub const RELU: Self = Self::Clamp { min: 0.0, max: f32::INFINITY };
    /// `min(6, max(0, x))`.
    pub const RELU6: Self = Self::Clamp { min: 0.0, max: 6.0 };

    /// The function itself.
    #[inline(always)]
    pub fn apply(self, x: f32) -> f32 {
        match self {
            // Written so that NaN passes, as the vector version does.
            Self::Clamp { min, max } => {
                let x = if x < min { min } else { x };
                if x > max { max } else { x }
            }
            Self::LeakyRelu { slope } => {
                if x > 0.0 {
                    x
                } else {
                    slope * x
                }
            }
        }
    }
}

/// `dst = activation(conv + bias[oc] + residual)`.
///
/// ```
/// use convolve_core::Epilogue;
/// let bias = [1.0, -1.0];
/// let epilogue = Epilogue::bias(&bias).relu();
/// assert_eq!(epilogue.bias, Some(&bias[..]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epilogue<'a> {
    /// One number per output channel.
    pub bias: Option<&'a [f32]>,
    /// As many numbers as `dst`, in its layout.
    pub residual: Option<&'a [f32]>,
    /// The function at the end.
    pub activation: Activation,
}

impl Default for Epilogue<'_> {
    fn default() -> Self {
        Self::NONE
    }
}

impl<'a> Epilogue<'a> {
    /// Nothing: `dst = conv`.
    pub const NONE: Self = Self { bias: None, residual: None, activation: Activation::IDENTITY };

    /// `dst = conv + bias`.
    /// ```
    /// # use convolve_core::{Activation, Epilogue};
    /// assert_eq!(Epilogue::bias(&[0.5]).activation, Activation::IDENTITY);
    /// ```
    pub fn bias(bias: &'a [f32]) -> Self {
        Self { bias: Some(bias), ..Self::NONE }
    }

    /// Adds a tensor of the shape of `dst` before the activation.
    /// ```
    /// # use convolve_core::Epilogue;
    /// assert!(Epilogue::NONE.residual(&[1.0]).residual.is_some());
    /// ```
    pub fn residual(self, residual: &'a [f32]) -> Self {
        Self { residual: Some(residual), ..self }
    }

    /// Ends with that function.
    /// ```
    /// # use convolve_core::{Activation, Epilogue};
    /// assert_eq!(Epilogue::NONE.activation(Activation::RELU6).activation, Activation::RELU6);
    /// ```
    pub fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// Ends with `max(0, x)`.
    /// ```
    /// # use convolve_core::{Activation, Epilogue};
    /// assert_eq!(Epilogue::NONE.relu().activation, Activation::RELU);
    /// ```
    pub fn relu(self) -> Self {
        self.activation(Activation::RELU)
    }

    /// The clamp that a kernel applies in registers: `[min, max]`, without effect when [`late`](Self::late) must do more.
    /// ```
    /// # use convolve_core::Epilogue;
    /// assert_eq!(Epilogue::NONE.relu().early_clamp(), [0.0, f32::INFINITY]);
    /// ```
    pub fn early_clamp(&self) -> [f32; 2] {
        match (self.late(), self.activation) {
            (false, Activation::Clamp { min, max }) => [min, max],
            _ => [f32::NEG_INFINITY, f32::INFINITY],
        }
    }

    /// Whether [`finish`](Self::finish) must be called on every row: there is a residual, or the activation is no clamp.
    /// ```
    /// # use convolve_core::Epilogue;
    /// assert!(!Epilogue::NONE.relu().late());
    /// ```
    pub fn late(&self) -> bool {
        self.residual.is_some() || !matches!(self.activation, Activation::Clamp { .. })
    }

    /// Residual and activation on consecutive elements of `dst` that start at `offset`; the bias is in them already.
    /// ```
    /// # use convolve_core::Epilogue;
    /// let mut row = [1.0, -5.0];
    /// Epilogue::NONE.residual(&[9.0, 9.0, 1.0, 2.0]).relu().finish(&mut row, 2);
    /// assert_eq!(row, [2.0, 0.0]);
    /// ```
    pub fn finish(&self, row: &mut [f32], offset: usize) {
        if !self.late() {
            return;
        }
        if let Some(residual) = self.residual {
            row.iter_mut().zip(&residual[offset..]).for_each(|(x, r)| *x += r);
        }
        match self.activation {
            Activation::IDENTITY => {}
            activation => row.iter_mut().for_each(|x| *x = activation.apply(*x)),
        }
    }
}
