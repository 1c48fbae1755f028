//! placeholder

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "outside the broker threads may block and ask the time"
)]
