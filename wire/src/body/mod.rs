//! Bodies that are JSON.
