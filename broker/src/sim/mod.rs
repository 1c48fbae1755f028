//! A disk that lies, from a seed, and the small deterministic executor that runs the log's jobs on it.
