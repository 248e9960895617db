//! One file per family of hooks.

mod accept;
mod ports;
mod resets;
mod syscalls;
mod timewait;
mod transitions;
