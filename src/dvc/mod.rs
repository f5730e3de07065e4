//! dvc.
