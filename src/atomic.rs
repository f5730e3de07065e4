//! atomic.
