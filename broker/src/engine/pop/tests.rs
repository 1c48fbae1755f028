//! Pops, by an engine over a log on the simulated disk.
