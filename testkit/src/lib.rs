//! The oracle of `convolve`, written without looking at the kernels: references by index formula, integers that f32 holds exactly,
//! problems at the edges where kernels break, comparators that no NaN slips through, and one way to run everything that is
//! registered under poisoned conditions.
//!
//! Tests, `verify` and the fuzz targets all go through [`Scope`]; a new algorithm is covered the moment it is registered.
#![forbid(unsafe_code)]

mod bound;
pub mod close;
pub mod data;
pub mod laws;
pub mod numpy;
mod oracle;
pub mod pooling;
pub mod problems;
pub mod reference;
pub mod rough;
mod run;
pub mod shapes;
pub mod strategy;

pub use oracle::{Agree, Tally};
pub use run::{
    Algorithms, Case, Direction, Execution, How, NAMES, Refusal, Run, Scope, TINY, Where, isas, pool,
    watchdog,
};
