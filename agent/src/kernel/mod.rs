//! The edge to the running kernel. Facts, then a plan, then carrying it out: [`host`] asks, [`plan`] decides without
//! touching anything, [`programs`] loads, attaches and reads. The rest are readers of what the kernel shows of itself.

pub mod addresses;
pub mod btf;
pub mod census;
pub mod cgroup;
pub mod containers;
pub mod counters;
pub mod descriptors;
pub mod heap;
pub mod held;
pub mod host;
pub mod netns;
mod offsets;
pub mod plan;
pub mod privileges;
pub mod processes;
mod programs;
pub mod sock_diag;
mod start_error;
pub mod sysctl;
mod tracefs;
pub mod usage;

pub use programs::{Losses, Programs, Settings};
pub use start_error::StartError;
