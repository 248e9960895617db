//! What can be reached: namespaces by their processes, names and threads; processes and what they hold.

use std::{
    fs, io,
    net::TcpListener,
    os::fd::OwnedFd,
    path::Path,
    process::Stdio,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use firstfin::{
    kernel::{
        census,
        netns::{self, EnterError},
        processes::Procfs,
        sock_diag::{self, DumpFilter},
    },
    model::{Name, Netns, Process, Task, TcpState},
};
use libtest_mimic::{Failed, Trial};
use rustix::{
    mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount},
    thread::{CapabilitySet, UnshareFlags, capabilities, set_capabilities, unshare_unsafe},
};

use super::{Idle, inode};
use crate::{
    case::{Outcome, trials},
    netns::Net,
};

pub(super) fn tests() -> Vec<Trial> {
    trials!("readers":
        a_namespace_is_found_by_its_process_until_that_ends,
        a_namespace_is_found_by_its_mount,
        a_namespace_of_a_single_thread_is_found_if_asked_for,
        entering_without_the_capability_names_it,
        a_socket_is_held_by_all_who_inherited_it,
        a_process_is_described_while_it_runs,
    )
}

fn handle_of(net: Netns) -> Option<netns::NetnsHandle> {
    netns::discover(Path::new("/proc")).namespaces.into_iter().find(|handle| handle.netns == net)
}

fn a_namespace_is_found_by_its_process_until_that_ends() -> Outcome {
    let net = Net::new()?;
    assert_eq!(handle_of(net.id()), None, "a descriptor alone is no way to find a namespace");
    let mut idle = net.inside(|| Idle::start(Stdio::null()))?;
    let handle = handle_of(net.id()).ok_or("not found by its process")?;
    let before = netns::current()?;
    assert_ne!(before, net.id());
    assert_eq!(netns::enter(&handle, netns::current)??, net.id());
    assert_eq!(netns::current()?, before, "this thread stays where it is");
    idle.end()?;
    let error = netns::enter(&handle, || ()).err().ok_or("entered by a process that has ended")?;
    assert!(matches!(error, EnterError::Gone { .. }), "{error}");
    let census = census::take(&Procfs::host(), &DumpFilter::all(), Some(&[net.id()].into()), &census::boottime);
    assert!(
        matches!(&census.unreachable[..], [(gone, reason)] if *gone == net.id() && reason.contains("only sockets keep it")),
        "{census:?}"
    );
    Ok(())
}

fn a_namespace_is_found_by_its_mount() -> Outcome {
    let name = std::env::temp_dir().join(format!("firstfin readers {}", std::process::id()));
    let found = thread::scope(|scope| {
        let mount = || {
            // SAFETY: namespaces of this thread only, which ends with the test; descriptors stay shared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET) }?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            fs::write(&name, "")?;
            mount_bind("/proc/thread-self/ns/net", &name)?;
            let named = netns::current()?;
            // SAFETY: as above.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            let handle = handle_of(named);
            let inside = handle.as_ref().map(|handle| netns::enter(handle, netns::current));
            unmount(&name, UnmountFlags::empty())?;
            io::Result::Ok((named, handle, inside, handle_of(named)))
        };
        scope.spawn(mount).join().map_err(|_| Failed::from("the thread panicked"))
    });
    fs::remove_file(&name)?;
    let (named, handle, inside, after) = found??;
    assert_eq!(handle, Some(netns::NetnsHandle { netns: named, path: name }));
    assert_eq!(inside.ok_or("not entered")???, named);
    assert_eq!(after, None, "with its name it is gone");
    Ok(())
}

fn a_namespace_of_a_single_thread_is_found_if_asked_for() -> Outcome {
    let net = Net::new()?;
    let (bound, listening) = mpsc::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(|| {
            net.inside(move || {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                bound.send(listener.local_addr()?).map_err(io::Error::other)?;
                // Until the other end is dropped.
                let _ = stopped.recv();
                Ok(())
            })
        });
        let local = listening.recv()?;
        let census = census::take(&Procfs::host(), &DumpFilter::all(), Some(&[net.id()].into()), &census::boottime);
        drop(stop);
        let rows: Vec<_> = census.namespaces.iter().flat_map(|seen| seen.rows.iter()).collect();
        assert!(
            matches!(&rows[..], [row] if row.connection.local == local && row.state == TcpState::Listen),
            "{census:?}"
        );
        Ok(())
    })
}

fn entering_without_the_capability_names_it() -> Outcome {
    let net = Net::new()?;
    let _idle = net.inside(|| Idle::start(Stdio::null()))?;
    let handle = handle_of(net.id()).ok_or("not found by its process")?;
    let unprivileged = || {
        let mut sets = capabilities(None)?;
        sets.effective.remove(CapabilitySet::SYS_ADMIN);
        set_capabilities(None, sets)?;
        let own = sock_diag::dump(netns::current()?, &DumpFilter::all());
        io::Result::Ok((netns::enter(&handle, || ()), own))
    };
    let (entered, own) =
        thread::scope(|scope| scope.spawn(unprivileged).join()).map_err(|_| "the thread panicked")??;
    let error = entered.err().ok_or("entered without CAP_SYS_ADMIN")?;
    assert!(matches!(error, EnterError::NotPermitted { .. }) && error.to_string().contains("CAP_SYS_ADMIN"), "{error}");
    own.map(drop).map_err(Failed::from)
}

fn a_socket_is_held_by_all_who_inherited_it() -> Outcome {
    let net = Net::new()?;
    let (listener, heir) = net.inside(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let heir = Idle::start(Stdio::from(OwnedFd::from(listener.try_clone()?)))?;
        Ok((listener, heir))
    })?;
    let inode = inode(&listener)?.ok_or("no inode")?;
    let holders = Procfs::host().socket_holders();
    let of_listener = holders.by_inode.get(&inode).map(|holders| &holders[..]).unwrap_or_default();
    let by_pid = |pid: u32| of_listener.iter().filter(move |holder| holder.key.tgid == pid).collect::<Vec<_>>();
    assert!(matches!(&by_pid(heir.pid())[..], [heir] if heir.comm.as_str() == "sleep" && heir.netns == Some(net.id())));
    assert!(matches!(&by_pid(std::process::id())[..], [we] if we.netns != Some(net.id())), "{of_listener:?}");
    Ok(())
}

fn a_process_is_described_while_it_runs() -> Outcome {
    let procfs = Procfs::host();
    let ticks = || census::boottime().0 / 10_000_000;
    let before = ticks();
    let mut idle = Idle::start(Stdio::null())?;
    let after = ticks();
    // It has this process's name until it execs.
    let asleep = || procfs.by_pid(idle.pid()).filter(|process| process.comm.as_str() == "sleep");
    let deadline = Instant::now() + Duration::from_secs(60);
    let sleep = loop {
        match asleep() {
            Some(sleep) => break sleep,
            None if Instant::now() > deadline => return Err("it does not become sleep".into()),
            None => thread::yield_now(),
        }
    };
    assert!((before..=after).contains(&sleep.key.start_ticks), "{before} <= {} <= {after}", sleep.key.start_ticks);
    assert!(sleep.exe.as_ref().is_some_and(|exe| exe.as_str().starts_with('/')), "{sleep:?}");
    assert_eq!((sleep.uid, sleep.netns), (Some(0), Some(netns::current()?)));
    let task = Task {
        key: sleep.key,
        uid: 0,
        comm: Name::from("before"),
        cgroup_id: 0,
        is_kernel_thread: false,
        is_agent: false,
    };
    assert_eq!(procfs.describe(&task), sleep);
    assert!(procfs.is_alive(task.key));
    idle.end()?;
    assert_eq!(procfs.describe(&task), Process::from_task(&task));
    assert!(!procfs.is_alive(task.key) && procfs.by_pid(task.key.tgid).is_none_or(|other| other.key != task.key));
    Ok(())
}
