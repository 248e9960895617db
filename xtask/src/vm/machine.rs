//! One emulated machine, from power on to its end.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    console,
    kernels::Kernel,
    progress::Progress,
    reading::{Reading, Source},
    rounds::Round,
    tools::Tools,
};

/// Booting takes 5 to 20 seconds.
const UP_WITHIN: Duration = Duration::from_secs(180);
/// Nothing written for this long: the longest test takes two minutes on a slow machine.
const SILENT_FOR: Duration = Duration::from_secs(420);
/// A machine with all its rounds.
const DONE_WITHIN: Duration = Duration::from_secs(40 * 60);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// One thread and no `cmpxchg16b`: with several, or with it, QEMU has been seen to break kernels that are fine. Nor fast
/// string operations: a kernel that has them clears its pages by the byte, which takes an emulator a sixth of its time.
const EMULATION: [&str; 8] =
    ["-accel", "tcg,thread=single", "-cpu", "max,-cx16,-erms,-fsrm", "-smp", "2", "-m", "1536"];
const DEVICES: [&str; 6] = ["-nodefaults", "-no-reboot", "-display", "none", "-nic", "none"];
/// A panic ends the machine (with `-no-reboot`). The kernel's tables follow its memory, and so does how many timewait
/// sockets it allows: as many as on a host with memory enough.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 oops=panic thash_entries=131072 mitigations=off tsc=reliable";

/// How a machine came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It has run all rounds and powered off
    Done,
    /// It has not, and this is why
    Broken(String),
}

/// What came of a machine.
pub(super) struct Run {
    pub(super) reading: Reading,
    pub(super) end: End,
    /// It was started a second time: the first had met a mistake of the emulator
    pub(super) is_second: bool,
    /// The folder with all it wrote
    pub(super) logs: PathBuf,
}

/// Runs a machine, and once again if it was the emulator's fault.
pub(super) fn run(tools: &Tools, kernel: &Kernel, initramfs: &Path, rounds: &[Round], logs: &Path) -> Result<Run> {
    let (run, is_the_emulators) = once(tools, kernel, initramfs, rounds, logs)?;
    if !is_the_emulators {
        return Ok(run);
    }
    println!("{} | a mistake of the emulator, started again", kernel.series);
    let (again, _) = once(tools, kernel, initramfs, rounds, logs)?;
    Ok(Run { is_second: true, ..again })
}

fn once(tools: &Tools, kernel: &Kernel, initramfs: &Path, rounds: &[Round], logs: &Path) -> Result<(Run, bool)> {
    fs::create_dir_all(logs).with_context(|| format!("create {}", logs.display()))?;
    let [console, out, error] = ["console", "out", "err"].map(|name| logs.join(format!("{name}.log")));
    let mut qemu = tools.qemu();
    qemu.args(EMULATION).args(DEVICES).args(["-append", COMMAND_LINE]);
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initramfs);
    for port in [&console, &out, &error] {
        // There from the start, and without what the last machine wrote.
        File::create(port).with_context(|| format!("create {}", port.display()))?;
        qemu.arg("-serial").arg(format!("file:{}", port.display()));
    }
    let mut machine = Machine::start(&mut qemu, &logs.join("qemu.log"))?;
    let mut reading = Reading::of(rounds.len());
    let mut ports = [(Source::Out, Tail::new(&out)?), (Source::Error, Tail::new(&error)?)];
    let mut said = Tail::new(&console)?;
    let mut progress: Vec<_> = rounds.iter().map(|_| Progress::default()).collect();
    let started = Instant::now();
    let mut heard = started;
    let ended = loop {
        thread::sleep(LOOK_EVERY);
        // Asked before the last look, so that nothing is missed.
        let ended = machine.ended()?;
        let now = Instant::now();
        for (source, tail) in &mut ports {
            for line in tail.lines()? {
                heard = now;
                if let Some((number, line)) = reading.line(*source, &line, now)
                    && let (Some(round), Some(progress)) = (rounds.get(number), progress.get_mut(number))
                    && let Some(line) = progress.line(line)
                {
                    println!("{} {} | {line}", kernel.series, round.title());
                }
            }
        }
        if !said.lines()?.is_empty() {
            heard = now;
        }
        let exceeded = [
            (reading.release.is_none() && started.elapsed() > UP_WITHIN, "it did not come up", UP_WITHIN),
            (heard.elapsed() > SILENT_FOR, "it was silent", SILENT_FOR),
            (started.elapsed() > DONE_WITHIN, "it did not come to an end", DONE_WITHIN),
        ];
        if let Some((_, what, limit)) = exceeded.into_iter().find(|(is_so, ..)| *is_so) {
            break format!("{what} for {} s, stopped", limit.as_secs());
        }
        if let Some(how) = ended {
            break how;
        }
    };
    // It is stopped, if it has not ended.
    drop(machine);

    let text = fs::read(&console).with_context(|| format!("read {}", console.display()))?;
    let fault = console::fault(&String::from_utf8_lossy(&text));
    let is_the_emulators = fault.as_ref().is_some_and(|fault| fault.is_the_emulators) && !reading.is_down;
    let end = match fault {
        Some(fault) => End::Broken(format!("its kernel failed:\n    {}", fault.quoted.join("\n    "))),
        None if reading.is_down => End::Done,
        None => End::Broken(ended),
    };
    Ok((Run { reading, end, is_second: false, logs: logs.to_path_buf() }, is_the_emulators))
}

/// A running emulator. Dropped, it is stopped.
struct Machine(Child);

impl Machine {
    fn start(qemu: &mut Command, log: &Path) -> Result<Self> {
        let own = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let same = own.try_clone().with_context(|| format!("open {}", log.display()))?;
        let child = qemu.stdin(Stdio::null()).stdout(own).stderr(same).spawn();
        child.map(Self).with_context(|| format!("start {qemu:?}"))
    }

    /// How it ended, if it has.
    fn ended(&mut self) -> Result<Option<String>> {
        let status = self.0.try_wait().context("wait for the emulator")?;
        Ok(status.map(|status| format!("the emulator ended before its rounds were done ({status})")))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads a file while it grows, in whole lines.
struct Tail {
    file: File,
    begun: Vec<u8>,
}

impl Tail {
    fn new(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self { file, begun: Vec::new() })
    }

    /// The lines that have been completed since.
    fn lines(&mut self) -> Result<Vec<String>> {
        self.file.read_to_end(&mut self.begun).context("read what the machine writes")?;
        let whole = self.begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let rest = self.begun.split_off(whole);
        let whole = std::mem::replace(&mut self.begun, rest);
        let text = String::from_utf8_lossy(&whole);
        Ok(text.lines().map(|line| line.trim_end().to_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::{env, io::Write as _, process};

    use super::*;

    #[test]
    fn a_line_is_read_when_it_is_complete() {
        let path = env::temp_dir().join(format!("firstfin-tail-{}", process::id()));
        let mut file = File::create(&path).unwrap();
        let mut tail = Tail::new(&path).unwrap();
        let mut write = |text: &str| {
            file.write_all(text.as_bytes()).unwrap();
            tail.lines().unwrap()
        };
        assert_eq!(write("first\r\nsec"), ["first"]);
        assert_eq!(write("ond"), [""; 0]);
        assert_eq!(write("\n\nthird"), ["second", ""]);
        fs::remove_file(&path).unwrap();
    }
}
