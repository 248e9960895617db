//! The processes of the demo, seen from outside: started in order, told to end by closing their standard input.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, bail};

/// A process of the workload. It ends when its standard input does, at the latest when this is dropped.
struct Actor {
    role: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Actor {
    fn start(role: &'static str, arguments: &[String]) -> anyhow::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg("demo-role")
            .arg(role)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {role}"))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("its output")?);
        Ok(Self { role, child, stdin, stdout })
    }

    /// Waits until it says that it is ready.
    fn ready(mut self) -> anyhow::Result<Self> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).with_context(|| format!("wait for {}", self.role))?;
        if line != "ready\n" {
            bail!("{} ended before it was ready", self.role);
        }
        Ok(self)
    }

    /// Waits until it has done its part and ended.
    fn finish(mut self) -> anyhow::Result<()> {
        let status = self.child.wait().with_context(|| format!("wait for {}", self.role))?;
        if !status.success() {
            bail!("{} failed: {status}", self.role);
        }
        Ok(())
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.stdin = None;
        // It ends by itself now, unless it ended before. There is nobody left to tell if waiting for it fails.
        let _ = self.child.wait();
    }
}

/// What stays when the clients are through.
pub(super) struct Workload {
    /// Servers first, then the keepers of the namespaces: they are let go in this order.
    _staying: Vec<Actor>,
}

impl Workload {
    /// Runs it all. Takes some three seconds.
    pub(super) fn run() -> anyhow::Result<Self> {
        let shop = Actor::start("stage", &["32768".into(), "60999".into()])?.ready()?;
        let cramped = Actor::start("stage", &["40000".into(), "40063".into()])?.ready()?;
        let in_shop = vec![shop.child.id().to_string()];
        let in_cramped = vec![cramped.child.id().to_string()];

        let mut staying = Vec::new();
        for server in ["orders-db", "legacy-api", "shop-web"] {
            staying.push(Actor::start(server, &in_shop)?.ready()?);
        }
        staying.push(Actor::start("session-cache", &in_cramped)?.ready()?);

        let clients = [
            ("checkout", &in_shop),
            ("storefront", &in_shop),
            ("billing-sync", &in_shop),
            ("shop-web-new", &in_shop),
            ("metrics-push", &in_shop),
            ("crawler", &in_cramped),
        ];
        let running = clients.map(|(role, place)| Actor::start(role, place));
        for client in running {
            client?.finish()?;
        }
        staying.extend([shop, cramped]);
        Ok(Self { _staying: staying })
    }
}
