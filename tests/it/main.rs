//! Integration tests.

mod fuzz_corpus;
