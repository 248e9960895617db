//! Files, flags and the environment, and what the refusals say.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::*;

/// A file with this content, and what reading it gives. The place is cut to the file's name.
fn read_text(test: &str, text: &str, overrides: Vec<Override>) -> Result<Config, String> {
    let folder = std::env::temp_dir().join(format!("firstfin-config-{}-{test}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("firstfin.toml");
    fs::write(&file, text).unwrap();
    let result = read(&Source { file: Some(file), overrides });
    fs::remove_dir_all(&folder).unwrap();
    result.map_err(|error| error.to_string().replace(&format!("{}/", folder.display()), ""))
}

#[test]
fn nothing_said_is_the_default_and_so_is_the_default_file() {
    assert_eq!(read_text("empty", "", Vec::new()).unwrap(), Config::default());
    assert_eq!(read_text("document", &document(), Vec::new()).unwrap(), Config::default());
}

#[test]
fn the_default_file_shows_every_key_and_no_other() {
    let table: toml::Table = document().parse().unwrap();
    for (section, keys) in &table {
        let shown: Vec<&str> = keys.as_table().unwrap().keys().map(String::as_str).collect();
        let mut known: Vec<&str> = Config::keys().filter(|key| key.section == section).map(|key| key.name).collect();
        known.sort_unstable();
        assert_eq!(shown, known, "[{section}]");
        // What serde itself expects of the section.
        let refusal = read_text("keys", &format!("[{section}]\nno_such_key = 1\n"), Vec::new()).unwrap_err();
        let mut expected: Vec<&str> = refusal.split('`').skip(3).step_by(2).collect();
        expected.sort_unstable();
        assert_eq!(expected, known, "{refusal}");
    }
    assert_eq!(table.len(), Config::SECTIONS.len());
    for key in Config::keys() {
        assert!(document().contains(&key.variable()), "{}", key.variable());
    }
}

#[test]
fn every_key_is_read() {
    let text = "\
[observe]
interval = \"1m\"
ring_size = 65536
max_sockets = 7
max_rung = \"kprobe\"
[http]
listen = \"[::1]:80\"
[metrics]
top = 3
labels = [\"process\", \"pid\"]
";
    let config = read_text("every", text, Vec::new()).unwrap();
    let observe =
        Observe { interval: Duration::from_secs(60), ring_size: 65_536, max_sockets: 7, max_rung: Rung::Kprobe };
    assert_eq!(config.observe, observe);
    assert_eq!(config.http.listen, Listen::At("[::1]:80".parse().unwrap()));
    assert_eq!(config.metrics, Metrics { top: 3, labels: vec![ProcessLabel::Process, ProcessLabel::Pid] });
    assert_eq!(read_text("off", "http.listen = \"off\"", Vec::new()).unwrap().http.listen, Listen::Off);
}

#[test]
fn refusals_name_place_key_and_what_is_allowed() {
    let refusals: Vec<String> = [
        "[observe]\nintervall = \"10s\"\n",
        "[observe]\n\n  interval = \"10\"\n",
        "[observe]\ninterval = 10\n",
        "[observe]\ninterval = \"2h\"\n",
        "[observe]\nring_size = \"3MiB\"\n",
        "[observe]\nring_size = true\n",
        "[observe]\nmax_sockets = 0\n",
        "[observe]\nmax_sockets = -1\n",
        "[observe]\nmax_rung = \"best\"\n",
        "[http]\nlisten = \"localhost\"\n",
        "[metrics]\ntop = 1000\nlabels = [\"process\", \"process\"]\n",
        "[metrics]\nlabels = []\n",
        "[metrics]\nlabels = [\"process\", \"user\"]\n",
        "[metric]\ntop = 5\n",
        "metrics = 5\n",
        "[observe\ninterval = \"10s\"\n",
        "[http]\nlisten = \"off\"\nlisten = \"off\"\n",
    ]
    .iter()
    .map(|text| format!("{text:?}\n{}\n", read_text("refusals", text, Vec::new()).unwrap_err()))
    .collect();
    insta::assert_snapshot!(refusals.join("\n"));
}

#[test]
fn a_file_that_was_named_has_to_be_there_and_to_be_one() {
    for (file, hint) in [("/no/such/file.toml", "No such file"), ("/dev/zero", "it is not a file"), ("/", "not a file")]
    {
        let refusal = read(&Source { file: Some(PathBuf::from(file)), overrides: Vec::new() }).unwrap_err().to_string();
        assert!(refusal.starts_with(&format!("{file}: cannot be read: ")) && refusal.contains(hint), "{refusal}");
    }
    assert!(Path::new(DEFAULT_PATH).is_absolute());
}

#[test]
fn the_command_line_beats_the_environment_and_that_the_file() {
    let environment = |variable: &str| {
        let value = match variable {
            "FIRSTFIN_METRICS_TOP" => "7",
            "FIRSTFIN_OBSERVE_INTERVAL" => "7s",
            _ => return None,
        };
        Some(OsString::from(value))
    };
    let mut overrides = Override::environment(environment).unwrap();
    overrides.push(Override::flag("--interval", "observe", "interval", "8s"));
    overrides.push(Override::assignment("--set", "metrics.labels = [\"unit\"]").unwrap());
    let file = "[observe]\ninterval = \"6s\"\nmax_sockets = 6\n[metrics]\ntop = 6\nlabels = [\"exe\"]\n";
    let config = read_text("precedence", file, overrides).unwrap();
    assert_eq!((config.observe.interval, config.metrics.top), (Duration::from_secs(8), 7));
    assert_eq!((config.metrics.labels, config.observe.max_sockets), (vec![ProcessLabel::Unit], 6));
}

#[test]
fn refusals_of_overrides_name_where_they_are_from() {
    let refusal = |one: Override| read_text("overrides", "[metrics]\ntop = 5\n", vec![one]).unwrap_err();
    for (assignment, said) in [
        ("metrics.top=0", "--set metrics.top: metrics.top: lower than 1"),
        ("metrics.top=many", "--set metrics.top: metrics.top: invalid type: string \"many\""),
        ("metrics.tops=1", "--set metrics.tops: metrics.tops: unknown field `tops`, expected `top` or `labels`"),
        ("observe.interval=soon", "--set observe.interval: observe.interval: `soon`: a number with a unit"),
        ("http.listen=:80\n[metrics]", "`:80\n[metrics]` is no place to listen"),
    ] {
        let refusal = refusal(Override::assignment("--set", assignment).unwrap());
        assert!(refusal.contains(said), "{assignment}: {refusal}");
    }
    for text in ["metrics.top", "top=5", ""] {
        let refusal = Override::assignment("--set", text).unwrap_err().to_string();
        assert!(refusal.contains("SECTION.KEY=VALUE"), "{text}: {refusal}");
    }
    let environment = |variable: &str| (variable == "FIRSTFIN_OBSERVE_MAX_RUNG").then(|| OsString::from("x"));
    let from_environment = Override::environment(environment).unwrap().remove(0);
    assert!(refusal(from_environment).starts_with("FIRSTFIN_OBSERVE_MAX_RUNG: observe.max_rung: `x` is none of"));
}

#[test]
fn what_takes_a_restart_is_named() {
    let new = read_text(
        "restart",
        "[observe]\ninterval = \"1s\"\nring_size = \"16MiB\"\n[http]\nlisten = \"off\"\n[metrics]\ntop = 1\n",
        Vec::new(),
    );
    let new = new.unwrap();
    assert_eq!(Config::default().needing_restart(&new), ["observe.ring_size", "http.listen"]);
    assert!(new.needing_restart(&new).is_empty());
}

#[test]
fn the_endpoint_is_on_loopback_and_at_no_port_that_others_have() {
    let Listen::At(at) = Listen::default() else { panic!("it is off") };
    assert!(at.ip().is_loopback());
    assert!(!(9_100..=9_999).contains(&at.port()) && !(32_768..=60_999).contains(&at.port()), "{at}");
}
