//! The program in a real terminal.

use std::{
    env, fs,
    io::Read as _,
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    path::Path,
    process::id,
};

use firstfin::top::terminal::Screen;
use rustix::process::{Signal, kill_process};

use crate::tmux::Window;

/// Name, whether it needs root, and what is done with tmux.
type Test = (&'static str, bool, fn(&Path));

pub(crate) const TESTS: [Test; 5] = [
    ("a_recording_is_looked_at", false, a_recording_is_looked_at),
    ("a_recording_of_another_kernel_is_looked_at", false, a_recording_of_another_kernel_is_looked_at),
    ("a_signal_gives_the_terminal_back", false, a_signal_gives_the_terminal_back),
    ("a_panic_gives_the_terminal_back", false, a_panic_gives_the_terminal_back),
    ("a_running_session_is_looked_at", true, a_running_session_is_looked_at),
];

/// Connections that are made under the eyes of a running session.
const CONNECTIONS: u32 = 50;

fn firstfin() -> &'static str {
    env!("CARGO_BIN_EXE_firstfin")
}

fn recording(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(name).display().to_string()
}

fn replay() -> String {
    format!("{} replay {} --top --speed 4", firstfin(), recording("demo.jsonl"))
}

fn a_recording_is_looked_at(tmux: &Path) {
    let window = Window::open(tmux, 100, 30);
    window.line(&replay());
    // A frame comes in parts: one thing of it does not say that the rest is there.
    let screen = window.wait_for("the end of the recording", |screen| {
        screen.contains("the recording has ended") && screen.contains("EphemeralPortExhaustion")
    });
    let row = |comm: &str| screen.lines().find(|line| line.starts_with(comm)).map(str::to_owned);
    let checkout = row("checkout[21056]").unwrap_or_else(|| panic!("no row of checkout:\n{screen}"));
    assert_eq!(checkout.split_whitespace().nth(1), Some("400"), "{screen}");
    assert!(screen.contains("EphemeralPortExhaustion: crawler[21061]"), "{screen}");

    window.keys(&["2"]);
    window.wait_for("the ports", |screen| {
        screen.contains("[2 Ports]") && screen.contains("127.0.0.1 -> 127.0.0.1:6379") && screen.contains("64 of 64")
    });
    window.keys(&["?"]);
    window.wait_for("the help", |screen| screen.contains("who holds the port") && screen.contains("q Ctrl-C"));
    window.keys(&["1", "/"]);
    window.keys(&["l", "e", "g", "a", "c", "y", "Enter"]);
    window
        .wait_for("the filter", |screen| screen.contains("legacy-api[21050]") && !screen.contains("checkout[21056]  "));

    window.resize(70, 20);
    window.wait_for("what it needs", |screen| screen.contains("firstfin needs 80x24 characters, and has 70x20"));
    window.resize(120, 40);
    window.wait_for("the same again", |screen| screen.contains("legacy-api[21050]"));
    assert_eq!(window.modes(), (false, true));

    window.keys(&["q"]);
    window.wait_for_shell(0);
}

/// Where fentry programs load, what became of each timewait socket is seen.
fn a_recording_of_another_kernel_is_looked_at(tmux: &Path) {
    let window = Window::open(tmux, 100, 30);
    window.line(&format!("{} replay {} --top --speed 30", firstfin(), recording("fentry.ffrec")));
    let screen = window.wait_for("the end of the recording", |screen| {
        screen.contains("the recording has ended") && screen.contains("EphemeralPortExhaustion: crawler[147]")
    });
    let checkout = screen.lines().find(|line| line.starts_with("checkout[142]")).unwrap_or_default();
    let columns: Vec<&str> = checkout.split_whitespace().collect();
    assert_eq!(
        (columns.get(1), columns.get(3)),
        (Some(&"0"), Some(&"400")),
        "they went with their namespace:\n{screen}"
    );
    window.keys(&["q"]);
    window.wait_for_shell(0);
}

fn a_signal_gives_the_terminal_back(tmux: &Path) {
    let window = Window::open(tmux, 80, 24);
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        window.line(&replay());
        window.wait_for("the view", |screen| screen.contains("[1 Overview]"));
        kill_process(window.foreground(), signal).expect("it runs");
        window.wait_for_shell(0);
    }
    window.line(&replay());
    window.wait_for("the view", |screen| screen.contains("[1 Overview]"));
    window.keys(&["C-c"]);
    window.wait_for_shell(0);
    // A damaged recording ends the view with an error, and not before it is there.
    window.line(&format!(
        "(head -n 200 {}; echo nonsense) > damaged.$$; {} replay damaged.$$ --top",
        recording("demo.jsonl"),
        firstfin()
    ));
    window.wait_for("the error", |screen| screen.contains("line 201 is not a line of a firstfin recording"));
    window.wait_for_shell(2);
    window.line(&format!("rm damaged.$$; {} --version", firstfin()));
    window.wait_for_shell(0);
}

/// What this program is started with to [panic](panic_in_the_view).
pub(crate) const PANIC: &str = "panic-in-the-view";

/// Takes the terminal over, waits for a key, and panics.
pub(crate) fn panic_in_the_view() -> ! {
    println!("before the view");
    let mut screen = Screen::open(false).expect("a terminal");
    screen.draw(|frame| frame.render_widget("in the view", frame.area())).expect("a frame");
    std::io::stdin().read_exact(&mut [0]).expect("a key");
    panic!("amid the view");
}

/// No input is known that makes the view panic, so this is a program of its own with the same screen.
fn a_panic_gives_the_terminal_back(tmux: &Path) {
    let window = Window::open(tmux, 80, 24);
    window.line(&format!("{} {PANIC}", env::current_exe().expect("a path").display()));
    window.wait_for("the view", |screen| screen.trim() == "in the view");
    assert_eq!(window.modes(), (false, true), "cursor, alternate screen");
    window.keys(&["x"]);
    let screen = window.wait_for("what went wrong", |screen| screen.contains("amid the view"));
    assert!(!screen.contains("in the view\n"), "{screen}");
    window.wait_for_shell_after("before the view", 101);
}

fn a_running_session_is_looked_at(tmux: &Path) {
    let window = Window::open(tmux, 100, 30);
    window.line(&format!("{} top --record top.$$", firstfin()));
    window.wait_for("the view", |screen| screen.contains("sockets looked at"));
    // This process closes first, so it has the TIME_WAITs, for a minute.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    for _ in 0..CONNECTIONS {
        let client = TcpStream::connect(address).expect("a connection");
        let (mut server, _) = listener.accept().expect("its other end");
        // Not by close(): a child of another test has it as well, until its exec(), and would be the one who closes.
        client.shutdown(Shutdown::Write).expect("a FIN");
        assert_eq!(server.read(&mut [0]).expect("the FIN"), 0);
    }
    let comm = fs::read_to_string("/proc/self/comm").expect("a name");
    let name = format!("{}[{}]", comm.trim_end(), id());
    let is_there = |screen: &str| {
        let row = screen.lines().find(|line| line.starts_with(&name)).unwrap_or_default();
        let columns: Vec<&str> = row.split_whitespace().collect();
        let count = CONNECTIONS.to_string();
        columns.get(1) == Some(&count.as_str()) && columns.get(3) == Some(&count.as_str())
    };
    window.wait_for(&format!("{CONNECTIONS} TIME_WAITs of {name}, and as many first FINs"), is_there);
    // It is selected by its name, and shows where it connected to.
    window.keys(&["/"]);
    window.line(&format!("[{}]", id()));
    window.keys(&["Enter"]);
    window.wait_for("its destination", |screen| screen.contains(&format!("{CONNECTIONS} to {address}")));
    window.keys(&["q"]);
    window.wait_for_shell(0);
    // What was seen is in the recording, and that is whole.
    let count = |what: &str| format!("$({} replay top.$$ | grep -c '{what}')", firstfin());
    let (seen, cut_off) = (count(&format!("to {address} ({CONNECTIONS})")), count("recording is cut off"));
    window.line(&format!("clear; echo seen {seen} cut off {cut_off}; rm top.$$"));
    window.wait_for("the destination, and no end that is missing", |screen| screen.contains("seen 1 cut off 0"));
}
