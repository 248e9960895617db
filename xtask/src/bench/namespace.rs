//! A load in a network namespace made for it.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

/// Between two loads: the kernel takes the namespace of the last one apart, with its sockets.
const PAUSE: Duration = Duration::from_millis(600);

/// What a namespace is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// As many connections as the ports allow, however long it goes on
    Churn,
    /// As many timewait sockets as can be, none of them used again
    Stock,
}

impl Purpose {
    /// A script that makes a namespace so and becomes what it is given. Not even the loopback interface is up in a new one.
    const fn prepare(self) -> &'static str {
        match self {
            Self::Churn => "ip link set lo up && echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse && exec \"$@\"",
            Self::Stock => {
                "ip link set lo up && cd /proc/sys/net/ipv4 && echo 0 > tcp_tw_reuse && echo 1000000 > tcp_max_tw_buckets && \
                 echo '1024 65535' > ip_local_port_range && exec \"$@\""
            }
        }
    }
}

/// A load that runs. It ends with what measures it, and its namespace with it.
pub(super) struct Load(Child);

impl Load {
    /// Starts `cargo xtask load` or `scan` with these arguments.
    pub(super) fn start(purpose: Purpose, arguments: &[&str]) -> Result<Self> {
        let this = std::env::current_exe().context("which program this is")?;
        let mut command = Command::new("unshare");
        // unshare, sh and the load follow each other in one process: its id is the one that is ended.
        command.args(["--net", "sh", "-c", purpose.prepare(), "sh"]).arg(this).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Self(command.spawn().with_context(|| format!("run {command:?}"))?))
    }

    /// Waits for what it says when it is done with its connections: how many it made, in how many seconds.
    pub(super) fn made(&mut self) -> Result<(u64, f64)> {
        let mut line = String::new();
        if let Some(out) = self.0.stdout.take() {
            BufReader::new(out).read_line(&mut line).context("read from the load")?;
        }
        let mut words = line.split_whitespace();
        let made = words.next().and_then(|word| word.parse().ok());
        match (made, words.next().and_then(|word| word.parse().ok())) {
            (Some(made), Some(seconds)) if made > 0 => Ok((made, seconds)),
            _ => {
                let mut said = String::new();
                if let Some(mut errors) = self.0.stderr.take() {
                    // What it said is all there is to tell, however it ended.
                    let _ = errors.read_to_string(&mut said);
                }
                bail!("the load failed: {}", said.trim())
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
        thread::sleep(PAUSE);
    }
}
