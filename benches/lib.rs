//! What the report and the criterion benchmarks share: measured peak, sampling, prepared runs, tables, the page.

pub mod args;
pub mod case;
pub mod compare;
pub mod error;
pub mod machine;
pub mod onednn;
pub mod page;
pub mod patches;
pub mod probe;
pub mod record;
pub mod row;
pub mod sample;
pub mod session;
pub mod summary;
pub mod table;
pub mod verify;
