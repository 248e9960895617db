//! What is on the page.

use std::{fs, os::unix::fs::PermissionsExt as _};

use assert_cmd::Command;

use super::{demo, folder, page, played, recording};

/// Text as it stands on the page.
fn escaped(text: &str) -> String {
    text.replace('&', "&#38;").replace('<', "&#60;").replace('>', "&#62;").replace('"', "&#34;").replace('\'', "&#39;")
}

/// A part of the page.
fn part<'a>(page: &'a str, id: &str) -> &'a str {
    let begin = page.find(&format!("<section id=\"{id}\"")).unwrap_or_else(|| panic!("no part {id}"));
    let end = page[begin..].find("</section>").unwrap();
    &page[begin..begin + end]
}

fn has(part: &str, texts: &[&str]) {
    for text in texts {
        assert!(part.contains(text), "{text} is not in {part}");
    }
}

pub(super) fn every_part_says_what_the_recording_holds() {
    let (report, page) = demo();
    let findings = part(&page, "findings");
    assert!(report.findings.len() >= 4, "{}", report.findings.len());
    for finding in &report.findings {
        let texts = [&finding.id, &finding.summary, &finding.cause, &finding.documentation];
        for text in texts.into_iter().chain(&finding.evidence).chain(&finding.remedy).chain(&finding.avoid) {
            assert!(findings.contains(&escaped(text)), "{text} is not among the findings: {findings}");
        }
    }
    assert_eq!(findings.matches("<article").count(), report.findings.len());
    assert!(page.find("id=\"findings\"") < page.find("id=\"time-wait\""));

    let worst = &report.time_wait.by_process[0];
    let name = format!("{}[{}]", worst.process.comm, worst.process.pid);
    let sockets = worst.sockets.to_string();
    has(part(&page, "time-wait"), &[&name, &format!(">{sockets}</td>"), "class=\"area s0\" d=\"M", "127.0.0.1:5432"]);
    has(part(&page, "rates"), &["Connections per second", "class=\"line s0\" d=\"M", "Failures per second"]);
    let exhausted = report.ports.destinations.iter().find(|it| it.used == it.usable).unwrap();
    has(part(&page, "ports"), &[&exhausted.remote, "gauge full", "none left", "64 of 64"]);
    has(
        part(&page, "failures"),
        &[
            "shop-web-new[",
            "bind() to 127.0.0.1:8080: EADDRINUSE",
            "listener 127.0.0.1:8080, shop-web[",
            "no free ephemeral port",
        ],
    );
    has(part(&page, "latency"), &["It was not timed", "not observed, because"]);
    // 615 connections were closed first here, by three processes; their other ends, which are here too, by the other side.
    let first = part(&page, "first");
    has(first, &["checkout[", ">400</span>", "<tfoot>", ">615</span>"]);
    assert_eq!(first.matches(">615</span>").count(), 2, "{first}");
    let states = part(&page, "states");
    has(states, &["<svg class=\"states\"", "ESTABLISHED &#8594; FIN_WAIT1", "Linux goes by FIN_WAIT2"]);
    has(states, &["LAST_ACK &#8594; CLOSED<small>ACK of the FIN</small></th><td class=\"number\">615<"]);
    has(part(&page, "session"), &["received, none lost", &report.host.kernel.to_string(), "state transitions"]);
}

pub(super) fn names_are_text_and_never_markup() {
    let name = "<script>alert(1)</script>";
    let text = fs::read_to_string(recording("demo.jsonl")).unwrap();
    let hostile = text.replace("\"comm\":\"checkout\"", &format!("\"comm\":{}", serde_json::to_string(name).unwrap()));
    assert_ne!(text, hostile);
    let (played, course) = played(hostile.as_bytes());
    let (report, page) = page(&played, &course);
    assert!(report.time_wait.by_process.iter().any(|it| it.process.comm.as_str() == name));
    assert!(!page.contains("<script>alert"), "a name became markup");
    assert!(page.contains(&escaped(name)), "the name is not there");
    assert_eq!(page.matches("<script").count(), 1, "only the data is in one");
    let begin = page.find("id=\"data\">").unwrap() + "id=\"data\">".len();
    let data = &page[begin..begin + page[begin..].find("</script>").unwrap()];
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    let names: Vec<_> = data["time_wait"].as_array().unwrap().iter().map(|it| it[0].as_str().unwrap()).collect();
    assert!(names.iter().any(|it| it.starts_with(name)), "{names:?}");
}

pub(super) fn the_same_recording_gives_the_same_bytes() {
    let (_, first) = demo();
    let (_, second) = demo();
    assert!(first == second, "the page depends on more than the recording");
}

pub(super) fn the_page_may_load_nothing() {
    let (_, page) = demo();
    assert!(
        page.contains("http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'")
    );
    for reference in ["http://", "https://", "src=\"", "url(http", "@import", "<iframe", "<link rel=\"stylesheet"] {
        assert!(!page.contains(reference), "{reference}");
    }
    let targets: Vec<_> = page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(targets.len() > 9, "{targets:?}");
    for target in targets {
        assert!(target.starts_with('#') || target == "data:,", "{target}");
        let id = target.strip_prefix('#').unwrap_or("findings");
        assert!(page.contains(&format!("id=\"{id}\"")), "{target} leads nowhere");
    }
}

pub(super) fn the_command_writes_it_for_its_owner() {
    let folder = folder("command");
    let file = folder.join("report.html");
    let recording = recording("demo.jsonl");
    let replay = || {
        let mut command = Command::cargo_bin("firstfin").unwrap();
        command.arg("replay").arg(&recording).arg("--html");
        command
    };
    let output = replay().arg(&file).assert().success();
    assert!(String::from_utf8_lossy(&output.get_output().stdout).contains("Verdict:"));
    assert_eq!(fs::read_to_string(&file).unwrap(), demo().1);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let missing = folder.join("missing/report.html");
    let refused = replay().arg(&missing).assert().code(2);
    let said = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(said.contains(&missing.display().to_string()) && said.contains("No such file"), "{said}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}
