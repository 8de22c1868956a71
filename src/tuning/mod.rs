//! Tuning on request: the model's best few candidates are timed, and the winners are kept in a file of the caller's.
//!
//! Nothing here runs by itself. [`Planner::tune`](crate::Planner::tune) times; [`TuningCache`] keeps, in memory and in a file; a planner
//! [`with_cache`](crate::Planner::with_cache) plans by it.

mod cache;
mod entry;
mod trial;
mod tune;

pub use cache::TuningCache;
pub use entry::{Ignored, Note, TunedEntry};
pub use trial::Tunable;
pub use tune::Budget;
