//! What is accepted, what is refused, and what the refusals say: through the whole parser, as a user meets them.

use clap::{CommandFactory as _, error::ErrorKind};

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("firstfin").chain(line.split_whitespace()))
}

fn refusal(line: &str) -> String {
    let error = parse(line).expect_err(line);
    assert_eq!(error.exit_code(), 2, "{line}");
    error.to_string()
}

fn report(line: &str) -> Report {
    match parse(line).unwrap().command {
        Command::Report(report) => report,
        other => panic!("{line}: {other:?}"),
    }
}

fn trace(line: &str) -> Trace {
    match parse(line).unwrap().command {
        Command::Trace(trace) => trace,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn hidden_commands_are_not_in_the_help() {
    let help = Cli::command().render_long_help().to_string();
    for shown in ["doctor", "trace", "report", "demo", "Exit status:", "--color", "--ring-size"] {
        assert!(help.contains(shown), "{shown} is missing:\n{help}");
    }
    for hidden in ["generate", "demo-role"] {
        assert!(!help.contains(hidden), "{hidden} shows:\n{help}");
    }
}

#[test]
fn without_a_command_the_usage_is_shown() {
    assert_eq!(parse("").unwrap_err().kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
}

#[test]
fn global_options_stand_before_and_after_the_command() {
    for line in ["--color never -vv doctor", "doctor --color never -v --verbose"] {
        let global = parse(line).unwrap().global;
        assert_eq!((global.color, global.verbose), (ColorChoice::Never, 2), "{line}");
    }
    let global = parse("report").unwrap().global;
    assert_eq!((global.color, global.verbose), (ColorChoice::Auto, 0));
    assert_eq!((global.ring_size, global.max_sockets), (8 << 20, 131_072));
}

#[test]
fn options_that_were_typed_are_told_from_defaults() {
    let given =
        |line: &str| Cli::read(std::iter::once("firstfin").chain(line.split_whitespace())).unwrap().global.given;
    assert_eq!(given("serve"), Given::default());
    let ring = Given { ring_size: true, ..Given::default() };
    // The default's value, but typed.
    assert_eq!(given("serve --ring-size 8MiB"), ring);
    assert_eq!(given("--ring-size 8MiB serve"), ring);
    assert_eq!(
        given("--max-rung kprobe serve --max-sockets 5"),
        Given { max_rung: true, max_sockets: true, ..Given::default() }
    );
    assert!(refusal("serve --listen here").contains("127.0.0.1:19293"));
}

#[test]
fn ring_size_is_a_power_of_two_the_kernel_takes() {
    for (text, bytes) in [("4096", 4096), ("64KiB", 65_536), ("16MiB", 16 << 20), ("1GiB", 1 << 30)] {
        assert_eq!(parse(&format!("report --ring-size {text}")).unwrap().global.ring_size, bytes);
    }
    for text in ["2048", "5000", "2GiB", "99999999999999999999", "18446744073709551615GiB", "0"] {
        let message = refusal(&format!("report --ring-size {text}"));
        assert!(message.contains("powers of two") || message.contains("number of bytes"), "{message}");
    }
    assert!(refusal("report --ring-size 8MB").contains("KiB, MiB and GiB"));
    assert!(refusal("report --ring-size MiB").contains("number of bytes"));
}

#[test]
fn max_sockets_has_limits() {
    assert_eq!(parse("report --max-sockets 1").unwrap().global.max_sockets, 1);
    refusal("report --max-sockets 0");
    refusal("report --max-sockets 16777217");
}

#[test]
fn format_is_text_unless_asked_for() {
    assert_eq!(report("report").format, Format::Text);
    assert_eq!(trace("trace --format json").format, Format::Json);
    assert!(matches!(parse("doctor --format json").unwrap().command, Command::Doctor(it) if it.format == Format::Json));
    assert!(refusal("report --format yaml").contains("[possible values: text, json]"));
}

#[test]
fn durations_have_units_and_are_positive() {
    for (text, time) in [
        ("30s", Duration::from_secs(30)),
        ("5m", Duration::from_secs(300)),
        ("1h30m", Duration::from_secs(5400)),
        ("500ms", Duration::from_millis(500)),
        ("8784h", Duration::from_secs(8784 * 3600)),
    ] {
        assert_eq!(report(&format!("report --duration {text} --interval {text}")).duration, time, "{text}");
        assert_eq!(trace(&format!("trace --duration {text}")).duration, Some(time), "{text}");
    }
    assert_eq!(report("report").duration, Duration::from_secs(30));
    assert_eq!(report("report").interval, None);
    for text in ["30", "soon", "5parsecs"] {
        assert!(refusal(&format!("report --duration {text}")).contains("such as 500ms, 30s, 5m or 1h30m"), "{text}");
    }
    for text in ["0s", "-5s", "5s ago", "1us", "8784h1s", "9999999999999999h"] {
        let error =
            Cli::try_parse_from(["firstfin", "report", &format!("--duration={text}")]).expect_err(text).to_string();
        assert!(error.contains("from 1ms to 8784h") || error.contains("such as"), "{text}: {error}");
    }
}

#[test]
fn filters_of_trace() {
    let it = trace("trace --states --pid 42 --comm nginx --port 443 --count 7");
    assert_eq!((it.states, it.pid, it.comm.as_deref(), it.port), (true, Some(42), Some("nginx"), Some(443)));
    assert_eq!(it.count.map(NonZeroU64::get), Some(7));
    for line in ["--pid 0", "--pid -1", "--port 0", "--port 65536", "--count 0", "--pid nginx"] {
        refusal(&format!("trace {line}"));
    }
}

#[test]
fn a_name_longer_than_the_kernel_keeps_is_refused_with_the_one_it_keeps() {
    assert!(refusal("trace --comm a-very-long-name-indeed").contains("`a-very-long-nam`"));
    // Byte 15 is the second one of the last letter.
    assert!(refusal("trace --comm abcdefghijklmné").contains("`abcdefghijklmn`"));
    assert!(Cli::try_parse_from(["firstfin", "trace", "--comm", ""]).is_err());
}

#[test]
fn namespaces_by_number_or_path() {
    let netns = |text: &str| trace(&format!("trace --netns {text}")).netns.unwrap();
    assert_eq!(netns("4026531840"), NetnsArg::Inode(4_026_531_840));
    assert_eq!(netns("net:[4026531840]"), NetnsArg::Inode(4_026_531_840));
    assert_eq!(netns("/run/netns/blue"), NetnsArg::Path("/run/netns/blue".into()));
    assert_eq!(netns("/proc/1/ns/net"), NetnsArg::Path("/proc/1/ns/net".into()));
    assert!(refusal("trace --netns blue").contains("/run/netns/blue"));
    assert!(refusal("trace --netns 99999999999").contains("32 bits"));
}

#[test]
fn cgroups_by_id_or_path() {
    let cgroup = |text: &str| trace(&format!("trace --cgroup {text}")).cgroup.unwrap();
    assert_eq!(cgroup("4711"), CgroupArg::Id(4711));
    assert_eq!(cgroup("/system.slice/nginx.service"), CgroupArg::Path("/system.slice/nginx.service".into()));
    assert!(refusal("trace --cgroup nginx").contains("/system.slice/nginx.service"));
}

#[test]
fn report_and_demo_fail_on_a_severity() {
    assert_eq!(report("report").fail_on, None);
    assert_eq!(report("report --fail-on warning").fail_on, Some(Severity::Warning));
    assert!(matches!(
        parse("demo --fail-on critical").unwrap().command,
        Command::Demo(demo) if demo.fail_on == Some(Severity::Critical)
    ));
    assert!(refusal("report --fail-on bad").contains("info, warning, critical"));
}

#[test]
fn top_and_record_of_report() {
    let it = report("report --top 3 --record /tmp/it.jsonl");
    assert_eq!((it.top, it.record), (3, Some(PathBuf::from("/tmp/it.jsonl"))));
    assert_eq!(report("report").top, 10);
    refusal("report --top 0");
}

#[test]
fn replay_lists_or_shows() {
    let replay = |line: &str| match parse(line).unwrap().command {
        Command::Replay(it) => (it.top, it.speed),
        other => panic!("{other:?}"),
    };
    assert_eq!(replay("replay it"), (None, 1));
    assert_eq!(replay("replay it --top 3"), (Some(Some(3)), 1));
    assert_eq!(replay("replay it --top"), (Some(None), 1));
    assert_eq!(replay("replay it --top --speed 60"), (Some(None), 60));
    assert!(refusal("replay it --speed 60").contains("--top"));
    refusal("replay it --top --speed 0");
    refusal("replay it --top 0");
}

#[test]
fn roles_of_the_demo_take_any_arguments() {
    let Command::DemoRole(it) = parse("demo-role churn --port 80 -x").unwrap().command else { panic!("not a role") };
    assert_eq!(
        (it.role.as_str(), it.arguments.as_slice()),
        ("churn", ["--port", "80", "-x"].map(String::from).as_slice())
    );
}

fn what_if(line: &str) -> crate::what_if::Changes {
    match parse(line).unwrap().command {
        Command::WhatIf(it) => it.changes(),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn changes_can_be_combined() {
    use crate::what_if::{Changes, Who};

    assert!(what_if("what-if it.ffrec").is_none());
    assert!(what_if("what-if it.ffrec --process nginx").is_none());
    let line = "what-if it.ffrec --pool 4 --keep-alive 0.5 --port-range 10240-65535 --tw-reuse 1 --local-addresses 2 \
                --remote-addresses 3 --client-closes-first --linger0 --process 812";
    let expected = Changes {
        pool: Some(4),
        keep_alive: Some(Duration::from_millis(500)),
        port_range: Some((10_240, 65_535)),
        tw_reuse: Some(1),
        local_addresses: Some(2),
        remote_addresses: Some(3),
        client_closes_first: true,
        linger0: true,
        process: Some(Who::Pid(812)),
    };
    assert_eq!(what_if(line), expected);
    assert_eq!(what_if("what-if - --keep-alive 2m").keep_alive, Some(Duration::from_secs(120)));
    assert_eq!(what_if("what-if - --process nginx").process, Some(Who::Comm("nginx".into())));
}

#[test]
fn a_change_that_cannot_be_is_refused_with_one_that_can() {
    for (option, said) in [
        ("--pool 0", "1..=65535"),
        ("--keep-alive soon", "5, 0.5, 30s, 2m"),
        ("--keep-alive 0", "0.001 s to a year"),
        ("--port-range 60000-1024", "10240-65535"),
        ("--port-range 0-10", "from 1 to 65535"),
        ("--port-range 1024", "10240-65535"),
        ("--tw-reuse 3", "0..=2"),
        ("--local-addresses 0", "1..=1024"),
        ("--process 0", "1 or more"),
        ("--process a-name-of-more-than-15", "try `a-name-of-more-`"),
    ] {
        let refusal = refusal(&format!("what-if it.ffrec {option}"));
        assert!(refusal.contains(said), "{option}: {refusal}");
    }
    refusal("what-if --pool 1");
}

#[test]
fn a_page_can_be_had_of_every_session() {
    let html = |line: &str| match parse(line).unwrap().command {
        Command::Report(it) => it.html,
        Command::Replay(it) => it.html,
        Command::Demo(it) => it.html,
        other => panic!("{other:?}"),
    };
    for line in ["report --html a/page.html", "replay x.ffrec --html a/page.html", "demo --html a/page.html"] {
        assert_eq!(html(line), Some("a/page.html".into()), "{line}");
    }
    assert_eq!(html("report"), None);
}
