//! A real terminal: a tmux server of its own, with one window.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, id},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::Pid;

/// Names tmux, where it is not the one on PATH.
const PROGRAM: &str = "FIRSTFIN_TMUX";
/// How long something may take to be seen: a debug build, in an emulator.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the shell shows that the program was started from.
const PROMPT: &str = "ready$ ";

/// Where tmux is; or why a test with it cannot be run.
pub(crate) fn find(needs_root: bool) -> Result<PathBuf, String> {
    if needs_root && !rustix::process::geteuid().is_root() {
        return Err("not root: programs cannot be attached".to_owned());
    }
    if let Some(program) = env::var_os(PROGRAM) {
        return Ok(program.into());
    }
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders).map(|folder| folder.join("tmux")).find(|file| file.is_file());
    found.ok_or_else(|| {
        let why = env::var("FIRSTFIN_NO_TERMINAL").unwrap_or_else(|_| "cargo xtask test brings it".to_owned());
        format!("tmux is not on PATH, and {PROGRAM} names none: {why}")
    })
}

/// A window with a shell in it. Its server ends when this is dropped.
pub(crate) struct Window {
    program: PathBuf,
    /// Of its socket
    folder: PathBuf,
}

impl Window {
    pub(crate) fn open(program: &Path, width: u16, height: u16) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("firstfin-tmux-{}-{}", id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a folder of its own");
        let this = Self { program: program.to_owned(), folder };
        let size = [width.to_string(), height.to_string()];
        let shell = format!("env PS1='{PROMPT}' sh");
        let started = this.run(&["-f", "/dev/null", "new-session", "-d", "-x", &size[0], "-y", &size[1], &shell]);
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        this.wait_for("the shell", |screen| screen.contains(PROMPT.trim_end()));
        this
    }

    fn run(&self, arguments: &[&str]) -> Output {
        // In UTF-8 whatever the locale is, and not as if it ran in another tmux.
        let mut command = Command::new(&self.program);
        let own = ["-u", "-L", "firstfin"];
        command
            .args(own)
            .args(arguments)
            .env_remove("TMUX")
            .env("TMUX_TMPDIR", &self.folder)
            .env("TERM", "xterm-256color");
        command.output().expect("tmux runs")
    }

    /// Types a line.
    pub(crate) fn line(&self, text: &str) {
        self.run(&["send-keys", "-l", text]);
        self.keys(&["Enter"]);
    }

    /// Presses keys, as tmux names them.
    pub(crate) fn keys(&self, names: &[&str]) {
        let sent = self.run(&[&["send-keys"], names].concat());
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    }

    pub(crate) fn resize(&self, width: u16, height: u16) {
        let resized = self.run(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
        assert!(resized.status.success(), "{}", String::from_utf8_lossy(&resized.stderr));
    }

    /// What is on the screen.
    pub(crate) fn screen(&self) -> String {
        String::from_utf8(self.run(&["capture-pane", "-p"]).stdout).expect("UTF-8")
    }

    /// Whether the cursor is shown, and the alternate screen is.
    pub(crate) fn modes(&self) -> (bool, bool) {
        let told = self.run(&["display-message", "-p", "#{cursor_flag} #{alternate_on}"]);
        let told = String::from_utf8_lossy(&told.stdout).trim().to_owned();
        let (cursor, alternate) = told.split_once(' ').expect("two flags");
        (cursor == "1", alternate == "1")
    }

    /// Waits until the screen is as wanted, and says what was there if it never is.
    pub(crate) fn wait_for(&self, what: &str, is_there: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if is_there(&screen) {
                return screen;
            }
            assert!(Instant::now() < end, "{what} did not come:\n{screen}");
            sleep(Duration::from_millis(100));
        }
    }

    /// The process that has the terminal: the last of the shell's line of children.
    pub(crate) fn foreground(&self) -> Pid {
        let told = self.run(&["display-message", "-p", "#{pane_pid}"]);
        let mut pid: i32 = String::from_utf8_lossy(&told.stdout).trim().parse().expect("a pid");
        loop {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            match children.split_whitespace().next() {
                Some(child) => pid = child.parse().expect("a pid"),
                None => return Pid::from_raw(pid).expect("a pid"),
            }
        }
    }

    /// Waits for the shell to be back after firstfin: with the screen of before, its cursor, and a terminal that edits lines
    /// and has signals.
    pub(crate) fn wait_for_shell(&self, status: u8) {
        self.wait_for_shell_after("/firstfin ", status);
    }

    /// The same after another program, with what was `before` it on the screen.
    pub(crate) fn wait_for_shell_after(&self, before: &str, status: u8) {
        // Not before: what is typed would be taken for keys of the view.
        let screen = self.wait_for("the prompt", |screen| screen.trim_end().ends_with(PROMPT.trim_end()));
        assert!(screen.contains(before), "{before:?} is not on the screen any more:\n{screen}");
        assert_eq!(self.modes(), (true, false), "cursor, alternate screen:\n{screen}");
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        self.line(&format!("echo {number}: $? $(stty -a | grep -o -w -e '-*icanon' -e '-*isig' -e '-*echo')"));
        let told = format!("{number}: {status} isig icanon echo");
        self.wait_for(&format!("\"{told}\""), |screen| screen.contains(&told));
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
        let _ = fs::remove_dir_all(&self.folder);
    }
}
