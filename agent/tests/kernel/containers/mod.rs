//! Real containers of real runtimes: their TIME_WAIT goes by the names their runtime gave them.

mod churn;
mod runtime;
mod tools;

use std::collections::HashSet;

use firstfin::{
    kernel::containers::{Containers, Reach},
    model::{Container, Name},
    output::text,
    report::{ProcessTimeWait, Report},
};
use libtest_mimic::{Failed, Trial};

use self::runtime::{CONNECTIONS, Daemon, Started};
pub(crate) use self::tools::Tools;
use crate::{
    case::{Outcome, trials},
    watch::{self, Wishes},
};

pub(crate) fn tests() -> Vec<Trial> {
    let mut tests = trials!("containers":
        pod_of_containerd needs Containerd,
        container_of_docker needs Docker,
    );
    tests.extend(churn::tests());
    tests
}

const POD_UID: &str = "0e2d1c8f-7a56-4b1e-9a43-55c1d2e3f405";

/// A pod as Kubernetes has containerd run it: its cgroup, its annotations.
fn pod_of_containerd() -> Outcome {
    let daemon = Daemon::containerd()?;
    let annotations = [
        ("container-type", "container"),
        ("container-name", "web"),
        ("image-name", "registry.example/shop/web:1.4"),
        ("sandbox-name", "web-7d4b9"),
        ("sandbox-namespace", "shop"),
        ("sandbox-uid", POD_UID),
    ];
    let (report, started) = observe(&daemon, || daemon.run_pod(POD_UID, &annotations))?;
    let seen = time_wait_of(&report, &started)?;
    for process in &seen {
        let container = process.process.container.as_ref().ok_or("no container")?;
        // The cgroup does not tell whose container it is: its files do.
        assert_eq!(container.runtime.as_str(), "containerd");
        assert_eq!(container.pod_uid.as_ref().map(Name::as_str), Some(POD_UID));
        assert_eq!(names(container), ["web", "registry.example/shop/web:1.4", "web-7d4b9", "shop"]);
    }
    let page = text::render(&report, &text::Options { width: None, colour: false, top: 1000 });
    assert!(page.contains("containerd web, pod shop/web-7d4b9"), "{page}");
    assert!(!page.contains(started.id.get(..12).unwrap_or_default()), "its id is not shown: {page}");

    let survey = Containers::new(&daemon.config()).survey();
    let source = survey.iter().find(|source| source.runtime == "containerd").ok_or("not in the survey")?;
    assert_eq!(source.reach, Reach::Readable { containers: Some(1) }, "{survey:?}");
    Ok(())
}

/// A container of Docker, which is renamed, and removed.
fn container_of_docker() -> Outcome {
    let daemon = Daemon::docker()?;
    let (report, started) = observe(&daemon, || daemon.run_container("orders"))?;
    let seen = time_wait_of(&report, &started)?;
    for process in &seen {
        let container = process.process.container.as_ref().ok_or("no container")?;
        assert_eq!((container.runtime.as_str(), &container.pod_uid), ("docker", &None));
        assert_eq!(names(container), ["orders", "firstfin/test", "-", "-"]);
    }
    let page = text::render(&report, &text::Options { width: None, colour: false, top: 1000 });
    assert!(page.contains("docker orders"), "{page}");

    let ask = |containers: &Containers| {
        let mut container =
            Container { runtime: "docker".into(), id: started.id.as_str().into(), ..Container::default() };
        containers.name(&mut container);
        container.short_name().to_owned()
    };
    let containers = Containers::new(&daemon.config());
    assert_eq!(ask(&containers), "orders");
    daemon.client(&["rename", "orders", "orders-old"])?;
    assert_eq!(ask(&Containers::new(&daemon.config())), "orders-old");
    daemon.client(&["rm", "-f", "orders-old"])?;
    assert_eq!(ask(&Containers::new(&daemon.config())), started.id.get(..12).unwrap_or_default(), "its files are gone");
    assert_eq!(ask(&containers), "orders", "one that was asked for before is spoken of for some minutes");
    Ok(())
}

/// The report of a session in which a container is started and leaves its TIME_WAIT.
fn observe(daemon: &Daemon, start: impl FnOnce() -> Result<Started, Failed>) -> Result<(Report, Started), Failed> {
    let wishes = Wishes::of_the_host()?.naming(daemon.config());
    let (seen, _) = watch::session_asked(&wishes, |asking| {
        let started = start()?;
        started.await_time_wait()?;
        Ok((asking.report()?, started))
    })?;
    Ok(seen)
}

/// The processes of the container that have TIME_WAIT: each closed first, and still runs.
fn time_wait_of<'a>(report: &'a Report, started: &Started) -> Result<Vec<&'a ProcessTimeWait>, Failed> {
    let is_its = |process: &&ProcessTimeWait| {
        process.process.container.as_ref().is_some_and(|container| container.id.as_str() == started.id)
    };
    let processes: Vec<_> = report.time_wait.by_process.iter().filter(is_its).collect();
    let sockets: u64 = processes.iter().map(|process| process.sockets + process.fin_wait2).sum();
    let pids: HashSet<u32> = processes.iter().map(|process| process.process.pid).collect();
    if sockets != CONNECTIONS || pids.len() as u64 != CONNECTIONS {
        return Err(
            format!("{CONNECTIONS} TIME_WAIT wanted of container {}: {:#?}", started.id, report.time_wait).into()
        );
    }
    assert!(processes.iter().all(|process| process.process.comm.as_str() == "leave"), "{processes:#?}");
    Ok(processes)
}

fn names(container: &Container) -> [&str; 4] {
    let Container { name, image, pod, namespace, .. } = container;
    [name, image, pod, namespace].map(|name| name.as_ref().map_or("-", Name::as_str))
}
