//! What the package has to hold.

/// Path and mode, as `dpkg-deb --contents` writes them.
pub(super) const FILES: &[(&str, &str)] = &[
    ("./usr/bin/firstfin", "-rwxr-xr-x"),
    ("./usr/lib/systemd/system/firstfin.service", "-rw-r--r--"),
    ("./etc/firstfin/firstfin.toml", "-rw-r--r--"),
    ("./usr/share/man/man1/firstfin.1.gz", "-rw-r--r--"),
    ("./usr/share/man/man1/firstfin-report.1.gz", "-rw-r--r--"),
    ("./usr/share/bash-completion/completions/firstfin", "-rw-r--r--"),
    ("./usr/share/zsh/vendor-completions/_firstfin", "-rw-r--r--"),
    ("./usr/share/fish/vendor_completions.d/firstfin.fish", "-rw-r--r--"),
    ("./usr/share/doc/firstfin/copyright", "-rw-r--r--"),
    ("./usr/share/doc/firstfin/changelog.Debian.gz", "-rw-r--r--"),
    ("./usr/share/doc/firstfin/README.md", "-rw-r--r--"),
    ("./usr/share/doc/firstfin/docs/findings.md", "-rw-r--r--"),
    ("./usr/share/doc/firstfin/docs/deployment.md", "-rw-r--r--"),
    ("./usr/share/doc/firstfin/docs/generated/cli.md", "-rw-r--r--"),
    ("./usr/share/doc/firstfin/examples/prometheus/recording.rules.yml", "-rw-r--r--"),
    ("./usr/share/doc/firstfin/examples/prometheus/alerts.rules.yml", "-rw-r--r--"),
    ("./usr/share/doc/firstfin/examples/prometheus/prometheus.yml", "-rw-r--r--"),
    ("./usr/share/doc/firstfin/examples/prometheus/alertmanager.yml", "-rw-r--r--"),
    ("./usr/share/doc/firstfin/examples/grafana/firstfin.json", "-rw-r--r--"),
    ("./usr/share/doc/firstfin/examples/kubernetes/daemonset.yaml", "-rw-r--r--"),
];

/// What an administrator may have changed, and dpkg therefore asks about.
pub(super) const CONFFILES: &[&str] = &["/etc/firstfin/firstfin.toml"];

/// What the unit is enabled by.
pub(super) const ENABLED: &str = "etc/systemd/system/multi-user.target.wants/firstfin.service";

/// Which files are missing from what `dpkg-deb --contents` writes, or have another mode.
pub(super) fn missing(contents: &str) -> Vec<String> {
    let there: Vec<(&str, &str)> = contents
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            Some((words.next()?, words.nth(4)?))
        })
        .collect();
    FILES
        .iter()
        .filter_map(|(path, mode)| match there.iter().find(|(_, there)| there == path) {
            Some((seen, _)) if seen == mode => None,
            Some((seen, _)) => Some(format!("{path} has mode {seen} instead of {mode}")),
            None => Some(format!("{path} is missing")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_and_a_wrong_mode_are_named() {
        let line = |(path, mode): &(&str, &str)| format!("{mode} 0/0  12 2026-11-25 00:00 {path}\n");
        let all: String = FILES.iter().map(line).collect();
        assert_eq!(missing(&all), [""; 0]);
        let without: String = FILES.iter().skip(1).map(line).collect();
        assert_eq!(missing(&without), ["./usr/bin/firstfin is missing"]);
        let changed = all.replacen("-rwxr-xr-x", "-rw-r--r--", 1);
        assert_eq!(missing(&changed), ["./usr/bin/firstfin has mode -rw-r--r-- instead of -rwxr-xr-x"]);
    }
}
