//! What requests mean: pure and deterministic, without I/O and without a clock.

pub mod filter;
