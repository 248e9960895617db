//! What the kernel's console says went wrong.

/// How much of it is quoted.
const QUOTED_LINES: usize = 12;
/// And from how many lines before: what led to it may have been written there.
const LINES_BEFORE: usize = 2;
/// How the kernel begins to say that it cannot go on.
const BEGINNINGS: [&str; 7] = [
    "Kernel panic - not syncing",
    "Oops",
    "BUG: ",
    "kernel BUG at",
    "general protection fault",
    "double fault",
    "unable to handle",
];

/// The first fault in a console's text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) quoted: Vec<String>,
    /// It has the shape of an emulator's mistake: a breakpoint met while the kernel patches its own text (TCG runs a
    /// translation that is older than the patch), or a double fault at the instruction that QEMU has no atomic way for.
    pub(super) is_the_emulators: bool,
}

/// The first fault, if there is one. Stalls of a slow machine are none: the kernel goes on after them.
pub(super) fn fault(console: &str) -> Option<Fault> {
    let lines: Vec<_> = console.lines().map(str::trim_end).collect();
    let is_stall = |line: &str| line.contains("soft lockup") || line.contains("stall");
    let first = lines.iter().position(|line| BEGINNINGS.iter().any(|said| line.contains(said)) && !is_stall(line))?;
    let before = first.saturating_sub(LINES_BEFORE);
    let quoted: Vec<_> = lines.iter().skip(before).take(QUOTED_LINES).map(|line| (*line).to_owned()).collect();
    let rest = lines.iter().skip(first);
    let mut shapes = rest.map(|line| {
        let is_double_fault = line.contains("double fault") && console.contains("cmpxchg16b");
        line.contains("Oops: int3") || line.contains("int3: 0000") || is_double_fault
    });
    Some(Fault { is_the_emulators: shapes.any(|is_so| is_so), quoted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_quoted_with_what_led_to_it() {
        let console = "[    1.1] long ago\n[    2.0] a bit before\n[    2.1] Freeing unused kernel image\n[    3.1] BUG: kernel NULL pointer dereference, \
                       address: 0000000000000000\r\n[    3.1] #PF: supervisor read access in kernel mode\r\n";
        let found = fault(console).unwrap();
        assert_eq!(found.quoted.len(), 4);
        assert!(found.quoted[2].ends_with("address: 0000000000000000"));
        assert!(!found.is_the_emulators);
    }

    #[test]
    fn the_emulators_mistakes_have_a_shape() {
        let patching = "[    5.2] Oops: int3: 0000 [#1] PREEMPT SMP\n[    5.2] RIP: 0010:text_poke_loc_init+0x1\n";
        assert!(fault(patching).unwrap().is_the_emulators);
        let exchange = "[    5.2] traps: PANIC: double fault, error_code: 0x0\n[    5.2] RIP: cmpxchg16b_emu\n";
        assert!(fault(exchange).unwrap().is_the_emulators);
    }

    #[test]
    fn a_slow_machine_is_no_fault() {
        assert_eq!(fault("[   50.1] watchdog: BUG: soft lockup - CPU#1 stuck for 22s!\n"), None);
        assert_eq!(fault("[    0.1] Linux version 6.1.0\n"), None);
    }
}
