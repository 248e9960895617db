//! Hosts that lack something: one message with what is missing, what it means and what to do, status 2, nothing left
//! attached; or a smaller answer that says so. Each host is this one, with something taken from the process.

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use firstfin::kernel::plan::Observed;
use libtest_mimic::Trial;
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    process::{Pid, Signal, kill_process},
    thread::{CapabilitiesSecureBits, UnshareFlags, set_capabilities_secure_bits, unshare_unsafe},
};

use crate::{
    case::{Outcome, trials},
    rung,
};

pub(crate) fn tests() -> Vec<Trial> {
    trials!("refusals":
        without_capabilities,
        doctor_without_capabilities,
        seccomp_refuses_bpf,
        without_btf,
        without_sock_diag,
        without_tracefs,
        killed_session_leaves_nothing,
    )
}

fn firstfin(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firstfin"));
    command.args(rung::arguments()).args(arguments).stdin(Stdio::null());
    command
}

/// Does something to the process between fork and exec. `change` may only make system calls.
fn on_a_host(command: &mut Command, change: fn() -> io::Result<()>) -> io::Result<Output> {
    // SAFETY: every `change` of this file makes system calls on constants and allocates nothing.
    unsafe { command.pre_exec(change) };
    command.output()
}

/// Asserts a refusal in three parts.
fn assert_refused(output: &Output, missing: &str, remedy: &str) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    let lines: Vec<&str> = message.lines().collect();
    let [what, meaning, todo] = lines[..] else { panic!("not three lines: {message}") };
    assert!(what.starts_with("firstfin: ") && what.contains(missing), "{message}");
    assert!(meaning.starts_with("  what it means: "), "{message}");
    assert!(todo.starts_with("  what to do:    ") && todo.contains(remedy), "{message}");
}

/// root keeps its uid and gets no capabilities from it at exec.
fn drop_capabilities() -> io::Result<()> {
    Ok(set_capabilities_secure_bits(CapabilitiesSecureBits::NO_ROOT)?)
}

fn without_capabilities() -> Outcome {
    for command in [&["report", "--duration", "1s"][..], &["trace", "--count", "1"]] {
        let output = on_a_host(&mut firstfin(command), drop_capabilities)?;
        assert_refused(&output, "CAP_BPF and CAP_PERFMON", "run it as root");
    }
    Ok(())
}

/// doctor answers all the same, and tells what it could not see from what is not there.
fn doctor_without_capabilities() -> Outcome {
    let output = on_a_host(&mut firstfin(&["doctor", "--format", "json"]), drop_capabilities)?;
    assert_eq!(output.status.code(), Some(2));
    let diagnosis: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(diagnosis["schema"], "firstfin.doctor/1");
    assert_eq!(diagnosis["can_run"], false);
    assert_eq!(diagnosis["facts"]["capabilities"]["bpf"], false);
    assert_eq!(diagnosis["facts"]["btf"], "yes");
    assert_eq!(diagnosis["facts"]["raw_tracepoint"]["unknown"], "asking needs CAP_BPF and CAP_PERFMON");
    assert!(diagnosis["obstacles"][0]["missing"].as_str().is_some_and(|missing| missing.contains("CAP_BPF")));
    Ok(())
}

/// A filter of `struct sock_filter`: errno for one system call, whatever its arguments, or for one of its arguments.
fn seccomp(call: libc::c_long, argument: Option<(u32, u32)>, errno: i32) -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    // `struct seccomp_data`: the number at 0, the arguments from 16 on, 8 bytes each, the low half first.
    let (offset, value) = argument.map_or((0, call as u32), |(number, value)| (16 + 8 * number, value));
    let mut filter = [
        step(LOAD, 0, 0, 0),
        step(JUMP_IF_EQUAL, call as u32, 0, 3),
        step(LOAD, offset, 0, 0),
        step(JUMP_IF_EQUAL, value, 0, 1),
        step(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its filter live until the call returns; the kernel copies them.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What a container's default profile does.
fn seccomp_refuses_bpf() -> Outcome {
    let output =
        on_a_host(&mut firstfin(&["report", "--duration", "1s"]), || seccomp(libc::SYS_bpf, None, libc::EPERM))?;
    assert_refused(&output, "eBPF programs cannot be loaded", "seccomp profile that allows bpf");
    Ok(())
}

fn without_btf() -> Outcome {
    let hide = || {
        // SAFETY: the process is a fork that is about to exec; nothing else runs in it.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
        mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        Ok(mount(c"none", c"/sys/kernel/btf", c"tmpfs", MountFlags::empty(), None::<&std::ffi::CStr>)?)
    };
    let output = on_a_host(&mut firstfin(&["report", "--duration", "1s"]), hide)?;
    assert_refused(&output, "/sys/kernel/btf/vmlinux is missing", "CONFIG_DEBUG_INFO_BTF");
    Ok(())
}

fn without_sock_diag() -> Outcome {
    let refuse = || {
        let is_sock_diag = Some((2, libc::NETLINK_SOCK_DIAG as u32));
        seccomp(libc::SYS_socket, is_sock_diag, libc::EPROTONOSUPPORT)
    };
    let output = on_a_host(&mut firstfin(&["report", "--duration", "1s"]), refuse)?;
    assert_refused(&output, "does not list its sockets", "modprobe tcp_diag");
    Ok(())
}

/// Only the system calls are lost, and the report says so.
fn without_tracefs() -> Outcome {
    let mounted = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .any(|path| rustix::fs::statfs(*path).is_ok_and(|fs| fs.f_type == 0x7472_6163));
    if mounted {
        // It would have to be taken from the host for this.
        return Ok(());
    }
    let refuse = || seccomp(libc::SYS_mount, None, libc::EPERM);
    let output = on_a_host(&mut firstfin(&["report", "--duration", "200ms", "--format", "json"]), refuse)?;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let hooks = report["session"]["hooks"].as_array().ok_or("no hooks")?;
    let rung = |observes: &str| {
        hooks.iter().find(|hook| hook["observes"] == observes).map(|hook| hook["rung"].as_str().unwrap_or_default())
    };
    assert_eq!(rung("other refused bind() and listen()"), Some("none"), "{hooks:#?}");
    let conflicts =
        if rung::is_upper(Observed::PortConflicts)? { rung::of(Observed::PortConflicts)?.name() } else { "none" };
    assert_eq!(rung("bind() and listen() conflicts"), Some(conflicts), "{hooks:#?}");
    assert_eq!(rung("state transitions and their processes"), Some("tracepoint"), "{hooks:#?}");
    Ok(())
}

/// Links belong to descriptors: with the process they are gone, however it ends. The kernel takes them apart in a worker,
/// one after the other, each with a grace period: on a busy host that takes its time.
fn killed_session_leaves_nothing() -> Outcome {
    let mut session = firstfin(&["report", "--duration", "60s"]).stdout(Stdio::null()).spawn()?;
    // The tracepoints alone are four (Linux 5.10 makes no other links of ours); when no more come, all are there.
    let mut before = (Vec::new(), Instant::now());
    let links = wait_for("the programs are attached", || {
        let links = links_of(session.id());
        if links != before.0 {
            before = (links, Instant::now());
            return None;
        }
        (links.len() >= 4 && before.1.elapsed() > Duration::from_millis(500)).then_some(links)
    })?;
    kill_process(Pid::from_child(&session), Signal::KILL)?;
    session.wait()?;
    wait_for("nothing is attached", || {
        let attached: Vec<u32> =
            aya::programs::loaded_links().filter_map(|link| link.ok().map(|link| link.id())).collect();
        links.iter().all(|id| !attached.contains(id)).then_some(())
    })?;
    Ok(())
}

/// Ids of the links a process has a descriptor of.
fn links_of(pid: u32) -> Vec<u32> {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return Vec::new() };
    // Before it execs, a child has those of this process.
    if std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() != "firstfin") {
        return Vec::new();
    }
    descriptors
        .filter_map(|entry| {
            let text = std::fs::read_to_string(entry.ok()?.path()).ok()?;
            let (_, rest) = text.split_once("link_id:")?;
            rest.split_whitespace().next()?.parse().ok()
        })
        .collect()
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, libtest_mimic::Failed> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(format!("{what}: not within 60 s").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
