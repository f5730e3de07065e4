//! The same test in every way in which opens can be answered.

use std::cell::Cell;

thread_local! {
    static OPEN_MODE: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Runs a test whose sandboxes have every mount answer opens in one way.
pub(crate) fn with_open_mode(mode: &'static str, test: fn()) {
    OPEN_MODE.set(Some(mode));
    test();
    OPEN_MODE.set(None);
}

/// The way that this thread's test is run in.
pub(super) fn open_mode() -> Option<&'static str> {
    OPEN_MODE.get()
}

/// Makes a module of tests of functions, which are run in one open mode.
macro_rules! in_open_mode {
    ($module:ident, $mode:literal: $($test:ident,)*) => {
        mod $module {
            $(#[test]
            fn $test() {
                crate::support::with_open_mode($mode, super::$test);
            })*
        }
    };
}
pub(crate) use in_open_mode;

/// Makes tests of functions: one for the best way that the user may have, which is passthrough for
/// root, and one for each that everybody may have.
macro_rules! in_each_open_mode {
    ($($test:ident,)*) => {
        crate::support::in_open_mode!(auto, "auto": $($test,)*);
        crate::support::in_open_mode!(no_open, "no-open": $($test,)*);
        crate::support::in_open_mode!(served, "served": $($test,)*);
    };
}
pub(crate) use in_each_open_mode;
