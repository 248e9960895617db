//! The read-only global `CONFIG`, which the agent fills in before the programs are loaded.

use agent_ebpf::{Config, Detail};
use aya_ebpf::Global;

#[unsafe(no_mangle)]
static CONFIG: Global<Config> = Global::new(zeroed());

const fn zeroed() -> Config {
    zerocopy::transmute!([0_u8; size_of::<Config>()])
}

/// Reads one member of `CONFIG`, without copying the rest of it to the stack.
macro_rules! config {
    ($($field:ident).+) => {{
        let config = $crate::settings::global();
        // SAFETY: `config` points to a whole `Config` that lives as long as the program; the read is volatile because
        // the compiler must not assume the zeroes it was compiled with.
        unsafe { core::ptr::read_volatile(&raw const (*config).$($field).+) }
    }};
}
pub(crate) use config;

/// Byte offset of a kernel structure's member.
macro_rules! offset {
    ($field:ident) => {
        $crate::settings::config!(offsets.$field) as usize
    };
}
pub(crate) use offset;

#[inline(always)]
pub(crate) fn global() -> *const Config {
    (&raw const CONFIG).cast()
}

/// Whether what a report does not need is left out, see [`agent_ebpf::Detail`]. The verifier knows, and cuts what is not
/// wanted.
#[inline(always)]
pub(crate) fn is_for_report() -> bool {
    config!(detail) == Detail::Report as u32
}

/// Whether every end of a connection is sent, and nothing else of it.
#[inline(always)]
pub(crate) fn is_for_ends() -> bool {
    config!(detail) == Detail::Ends as u32
}

/// Whether every transition is sent.
#[inline(always)]
pub(crate) fn is_for_states() -> bool {
    config!(detail) == Detail::States as u32
}
