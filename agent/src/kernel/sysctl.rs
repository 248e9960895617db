//! Settings under `/proc/sys/net` that decide about ports and TIME_WAIT, as the calling thread's network namespace has
//! them.
//!
//! A setting that is missing, unreadable or not understood is `None`: older kernels show some of them in the initial
//! namespace only. Nothing is ever written, and no default is put in the place of what could not be read.

use std::{fs, ops::RangeInclusive, path::Path};

use crate::model::NetnsSettings;

/// Reads the settings of the calling thread's network namespace. `root` is `/proc/sys`.
#[must_use]
pub fn settings(root: &Path) -> NetnsSettings {
    let ipv4 = root.join("net/ipv4");
    let read = |name: &str| fs::read_to_string(ipv4.join(name)).ok();
    let port_range = read("ip_local_port_range").and_then(|text| port_range(&text));
    let reserved = read("ip_local_reserved_ports");
    let usable_ports =
        port_range.zip(reserved.as_deref()).and_then(|((low, high), reserved)| usable_ports(low..=high, reserved));
    NetnsSettings {
        max_tw_buckets: read("tcp_max_tw_buckets").and_then(|text| text.trim().parse().ok()),
        port_range,
        usable_ports,
        reserved_ports: reserved
            .and_then(|text| port_list(&text))
            .map(|ranges| ranges.iter().map(|ports| (*ports.start(), *ports.end())).collect()),
        tw_reuse: read("tcp_tw_reuse").and_then(|text| text.trim().parse().ok()),
        tw_reuse_delay_ms: read("tcp_tw_reuse_delay").and_then(|text| text.trim().parse().ok()),
        timestamps: read("tcp_timestamps").and_then(|text| text.trim().parse().ok()),
        fin_timeout_s: read("tcp_fin_timeout").and_then(|text| text.trim().parse().ok()),
    }
}

/// The two ends of `ip_local_port_range`, both inclusive.
fn port_range(text: &str) -> Option<(u16, u16)> {
    let mut ends = text.split_ascii_whitespace().map(|end| end.parse::<u16>().ok());
    let (Some(Some(low)), Some(Some(high)), None) = (ends.next(), ends.next(), ends.next()) else { return None };
    (low <= high).then_some((low, high))
}

/// How many ports of `range` the list `reserved` leaves. `reserved` is in the syntax of `ip_local_reserved_ports`:
/// `8080,9148-9150`, empty for none. `None` if it is not.
#[must_use]
pub fn usable_ports(range: RangeInclusive<u16>, reserved: &str) -> Option<u32> {
    let reserved = port_list(reserved)?;
    let is_usable = |port: &u16| !reserved.iter().any(|ports| ports.contains(port));
    u32::try_from(range.filter(is_usable).count()).ok()
}

/// A list of ports and port ranges as the kernel writes and takes it (`proc_do_large_bitmap`, kernel/sysctl.c).
fn port_list(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Vec::new());
    }
    text.split(',')
        .map(|item| {
            let (low, high) = item.split_once('-').unwrap_or((item, item));
            let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
            (low <= high).then_some(low..=high)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reserved_ports_are_taken_off() {
        assert_eq!(usable_ports(32768..=60999, "\n"), Some(28_232));
        assert_eq!(usable_ports(32768..=60999, "8080,9148-9150\n"), Some(28_232));
        assert_eq!(usable_ports(32768..=60999, "32768,40000-40009,60999-65535\n"), Some(28_220));
        assert_eq!(usable_ports(1..=65535, "1-65535"), Some(0));
        assert_eq!(usable_ports(0..=65535, ""), Some(65_536));
        assert_eq!(usable_ports(100..=109, "100-105,103-107"), Some(2), "ranges that overlap count once");
    }

    #[test]
    fn what_is_not_a_list_of_ports_is_not_guessed() {
        for list in ["x", "1-", "-1", "2-1", "65536", "1,,2", "1-2-3", "1;2"] {
            assert_eq!(usable_ports(1..=10, list), None, "{list}");
        }
    }

    #[test]
    fn port_ranges() {
        assert_eq!(port_range("32768\t60999\n"), Some((32768, 60999)));
        assert_eq!(port_range("4000 4000"), Some((4000, 4000)));
        for text in ["", "1", "1 2 3", "2 1", "1 65536", "a b"] {
            assert_eq!(port_range(text), None, "{text}");
        }
    }

    #[test]
    fn this_host_shows_its_settings() {
        let settings = settings(Path::new("/proc/sys"));
        let (low, high) = settings.port_range.unwrap();
        assert!(settings.usable_ports.unwrap() <= u32::from(high - low) + 1);
        assert!(settings.reserved_ports.is_some());
        assert!(settings.tw_reuse.unwrap() <= 2);
        assert!(settings.timestamps.unwrap() <= 2);
        assert!(settings.fin_timeout_s.is_some());
    }

    #[test]
    fn nothing_is_made_up_where_nothing_can_be_read() {
        assert_eq!(settings(Path::new("/nowhere")), NetnsSettings::default());
    }

    proptest! {
        #[test]
        fn usable_ports_are_those_not_listed(
            (low, length) in (0u16..60_000, 0u16..5_000),
            items in prop::collection::vec((0u16..65_000, 0u16..300), 0..12),
        ) {
            let high = low + length;
            let text = items.iter().map(|(at, more)| format!("{at}-{}", at + more)).collect::<Vec<_>>().join(",");
            let reserved: HashSet<u16> = items.iter().flat_map(|&(at, more)| at..=at + more).collect();
            let expected = (low..=high).filter(|port| !reserved.contains(port)).count();
            prop_assert_eq!(usable_ports(low..=high, &text), Some(u32::try_from(expected).unwrap()));
        }

        #[test]
        fn no_list_makes_it_panic(text in "[-,0-9 a]{0,30}") {
            let _ = usable_ports(1000..=1010, &text);
        }
    }
}
