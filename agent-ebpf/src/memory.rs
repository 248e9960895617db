//! Two ways to read the kernel's memory.

use core::ffi::c_void;

use aya_ebpf::{
    helpers,
    helpers::generated::{
        bpf_get_current_cgroup_id, bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel,
    },
};
use zerocopy::FromZeros;

use crate::settings::offset;

/// How a program reads what a pointer of the kernel points to.
pub(crate) trait Memory {
    /// Whether the verifier knows what the pointers point to.
    const IS_TYPED: bool;

    /// The member of type `T`, `offset` bytes behind `base`; zero where it cannot be read.
    fn get<T: FromZeros>(base: u64, offset: usize) -> T;

    /// The thread that runs now, as [`get`](Memory::get) takes it.
    fn current_thread() -> u64;

    /// Its user.
    fn current_uid(thread: u64) -> u32;

    /// Its cgroup of the v2 hierarchy.
    fn current_cgroup(thread: u64) -> u64;
}

/// By a helper, which takes any address. The one way for programs that are not told types, and for members of structures
/// larger than the type a pointer has.
pub(crate) enum Probed {}

impl Memory for Probed {
    const IS_TYPED: bool = false;

    #[inline(always)]
    fn get<T: FromZeros>(base: u64, offset: usize) -> T {
        read_or_zero(base, offset)
    }

    #[inline(always)]
    fn current_thread() -> u64 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_get_current_task() }
    }

    #[inline(always)]
    fn current_uid(_: u64) -> u32 {
        helpers::bpf_get_current_uid_gid() as u32
    }

    #[inline(always)]
    fn current_cgroup(_: u64) -> u64 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_get_current_cgroup_id() }
    }
}

/// By loads, as in C: the verifier knows from BTF what each pointer points to and what is at each offset, and the kernel
/// makes a load that faults read zero. Only for pointers a program was given as arguments, and what they lead to. A load
/// takes a nanosecond, a call of the helper twenty.
pub(crate) enum Typed {}

impl Memory for Typed {
    const IS_TYPED: bool = true;

    #[inline(always)]
    fn get<T: FromZeros>(base: u64, offset: usize) -> T {
        // SAFETY: the verifier refuses the program unless `base` is a pointer of the kernel and a `T` is at that offset.
        // Volatile, so that it is one load of that size.
        unsafe { (base.wrapping_add(offset as u64) as *const T).read_volatile() }
    }

    #[inline(always)]
    fn current_thread() -> u64 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_get_current_task_btf() as u64 }
    }

    #[inline(always)]
    fn current_uid(thread: u64) -> u32 {
        Self::get(Self::get(thread, offset!(task_cred)), offset!(cred_uid))
    }

    /// As `bpf_get_current_cgroup_id()` finds it.
    #[inline(always)]
    fn current_cgroup(thread: u64) -> u64 {
        let set = Self::get(thread, offset!(task_cgroups));
        let cgroup = Self::get(set, offset!(css_set_dfl_cgrp));
        Self::get(Self::get(cgroup, offset!(cgroup_kn)), offset!(kernfs_node_id))
    }
}

/// Reads a `T` at `offset` bytes behind `base`.
#[inline(always)]
pub(crate) fn read<T>(base: u64, offset: usize) -> Result<T, i32> {
    // SAFETY: the helper checks the address itself and fails instead of faulting.
    unsafe { helpers::bpf_probe_read_kernel((base as usize).wrapping_add(offset) as *const T) }
}

/// The same, and zero where it cannot be read: the helper sees to that itself. Without a branch, because the verifier of
/// older kernels (6.1) follows each branch of a program to its end.
#[inline(always)]
pub(crate) fn read_or_zero<T: FromZeros>(base: u64, offset: usize) -> T {
    let mut value = T::new_zeroed();
    let source = (base as usize).wrapping_add(offset) as *const c_void;
    // SAFETY: `value` is writable and as long as said; the helper checks the source itself, and on failure clears
    // `value`, all of whose bits may be zero.
    let _ = unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, source) };
    value
}
