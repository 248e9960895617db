//! Tests on the running kernel: real connections, each test in a network namespace of its own, with real programs
//! attached. They assert what is reported *and whose it is*.
//!
//! A test that this host cannot run says `SKIP <name>: <why>` and counts as ignored. A test that fails shows the events
//! of its namespace. Nothing waits for time to pass: what must come is waited for until a deadline, and that something
//! does not come is known when a later connection of the same namespace has been reported.
#![allow(
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    reason = "a test that cannot go on has failed: clippy.toml allows it in tests, but does not know this harness; and \
              a command reads best where it is given away"
)]

mod actor;
mod attribution;
mod bind_matrix;
mod case;
mod closes;
mod commands;
mod connect_matrix;
mod containers;
mod cut_off;
mod daemon;
mod destroy;
mod failures;
mod families;
mod leaves;
mod ledger;
mod netns;
mod ports;
mod readers;
mod refusals;
mod rung;
mod scene;
mod sessions;
mod stories;
mod verdicts;
mod watch;
mod what_if;
mod wire;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(|first| first.to_str()) {
        Some("actor") => return actor::run(arguments.next()),
        Some("burn") => burn(),
        _ => {}
    }
    // Tests run side by side in this one process, some with hundreds of sockets.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
        eprintln!("the limit of open files stays as it is: {error}");
    }
    // The harness shows the message of a panic; here only its place is missing.
    std::panic::set_hook(Box::new(|panic| {
        if let Some(place) = panic.location() {
            eprintln!("panicked at {place}");
        }
    }));
    let mut tests = rung::tests();
    // First, since one of them waits a minute, while the others run.
    tests.extend(leaves::tests());
    tests.extend(bind_matrix::tests());
    tests.extend(connect_matrix::tests());
    tests.extend(closes::tests());
    tests.extend(cut_off::tests());
    tests.extend(failures::tests());
    tests.extend(families::tests());
    tests.extend(attribution::tests());
    tests.extend(ledger::tests());
    tests.extend(sessions::tests());
    tests.extend(stories::tests());
    tests.extend(ports::tests());
    tests.extend(readers::tests());
    tests.extend(verdicts::tests());
    tests.extend(commands::tests());
    tests.extend(daemon::tests());
    tests.extend(refusals::tests());
    tests.extend(containers::tests());
    tests.extend(what_if::tests());
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

/// Keeps a CPU busy until it is ended. The pause now and then is for emulators that run all CPUs in one thread: at a
/// pause they go on with the next one, and what waits for an answer of this CPU does not wait for a tenth of a second.
fn burn() -> ! {
    loop {
        for number in 0..20_000_u32 {
            std::hint::black_box(number);
        }
        std::hint::spin_loop();
    }
}
