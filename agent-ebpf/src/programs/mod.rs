//! One file per family of hooks.

mod resets;
mod syscalls;
mod transitions;
