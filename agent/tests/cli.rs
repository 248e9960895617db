//! The real binary: its exit statuses, and what it does with bad input and with output nobody reads.
//!
//! Nothing here needs a privilege or the eBPF programs; what does is in `tests/kernel`.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as the tests do")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use assert_cmd::assert::OutputAssertExt as _;
use firstfin::analysis::IDS;
use serde_json::Value;

fn firstfin(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firstfin"));
    command.args(arguments).env_remove("RUST_LOG").env_remove("CLICOLOR_FORCE").stdin(Stdio::null());
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A folder of this test alone, empty.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    folder
}

#[test]
fn help_names_the_commands_and_the_exit_status() {
    for flag in ["-h", "--help"] {
        let output = firstfin(&[flag]).assert().success().get_output().clone();
        let text = stdout(&output);
        for word in ["doctor", "trace", "report", "serve", "demo", "Exit status:"] {
            assert!(text.contains(word), "{word} is missing:\n{text}");
        }
        assert!(!text.contains("demo-role") && !text.contains("generate"), "{text}");
        assert!(!text.contains('\x1b'), "escape sequences in a pipe: {text:?}");
        assert_eq!(stderr(&output), "");
    }
}

#[test]
fn every_command_has_help() {
    for command in ["doctor", "trace", "report", "serve", "demo"] {
        let output = firstfin(&[command, "--help"]).assert().success().get_output().clone();
        assert!(stdout(&output).contains(&format!("Usage: firstfin {command}")), "{}", stdout(&output));
    }
}

#[test]
fn version_is_the_packages() {
    let output = firstfin(&["--version"]).assert().success().get_output().clone();
    assert_eq!(stdout(&output), format!("firstfin {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn bad_usage_exits_with_2_and_says_what_would_do() {
    for (arguments, hint) in [
        (&["report", "--duration", "soon"][..], "such as 500ms, 30s, 5m or 1h30m"),
        (&["report", "--duration", "0s"], "from 1ms"),
        (&["report", "--duration=-5s"], "from 1ms"),
        (&["report", "--ring-size", "1000"], "powers of two"),
        (&["report", "--fail-on", "bad"], "info, warning, critical"),
        (&["report", "--frobnicate"], "--frobnicate"),
        (&["trace", "--netns", "blue"], "/run/netns/blue"),
        (&["trace", "--comm", "longer-than-the-kernel-keeps"], "15 bytes"),
        (&["frobnicate"], "frobnicate"),
        (&[], "Usage:"),
    ] {
        let output = firstfin(arguments).assert().code(2).get_output().clone();
        assert!(stderr(&output).contains(hint), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

/// Standard output as `firstfin ... | true` leaves it.
fn pipe_without_reader() -> Stdio {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    Stdio::from(writer)
}

#[test]
fn output_nobody_reads_is_no_failure() {
    for arguments in [&["--help"][..], &["--version"], &["doctor"], &["doctor", "--format", "json"]] {
        let output = firstfin(arguments).stdout(pipe_without_reader()).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {:?} {}", output.status, stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn output_that_cannot_be_written_is_one() {
    // Every write to it fails with ENOSPC.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = firstfin(&["doctor"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("standard output"), "{}", stderr(&output));
}

/// Path below `root` -> content, of every file there.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

#[test]
fn generate_writes_the_same_documents_every_time() {
    let (first, second) = (folder("generate-1"), folder("generate-2").join("not/there/yet"));
    for folder in [&first, &second] {
        firstfin(&["generate", folder.to_str().unwrap()]).assert().success();
    }
    let written = files(&first);
    assert_eq!(written, files(&second));
    for name in [
        "cli.md",
        "completions/_firstfin",
        "completions/firstfin.bash",
        "completions/firstfin.fish",
        "event.schema.json",
        "firstfin.toml",
        "man/firstfin-report.1",
        "man/firstfin-serve.1",
        "man/firstfin.1",
        "metrics.md",
        "report.schema.json",
        "what-if.schema.json",
    ] {
        assert!(written.get(Path::new(name)).is_some_and(|content| !content.is_empty()), "{name}");
    }
    for (name, content) in &written {
        let text = String::from_utf8(content.clone()).unwrap();
        for hidden in ["demo-role", "firstfin-generate", "firstfin generate"] {
            assert!(!text.contains(hidden), "{hidden} is in {}", name.display());
        }
    }
}

#[test]
fn generated_schemas_are_schemas_and_name_their_versions() {
    let folder = folder("schemas");
    firstfin(&["generate", folder.to_str().unwrap()]).assert().success();
    for (name, required, version) in [
        ("report.schema.json", "time_wait", "firstfin.report/1"),
        ("event.schema.json", "type", "firstfin.event/1"),
        ("what-if.schema.json", "today", "firstfin.what-if/1"),
    ] {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        let schema: Value = serde_json::from_str(&text).unwrap();
        jsonschema::meta::validate(&schema).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        assert!(!validator.is_valid(&Value::Object(serde_json::Map::new())), "{name} takes an empty object");
        assert!(schema["required"].as_array().unwrap().contains(&Value::from(required)), "{name}");
        assert!(text.contains(version), "{name}");
    }
}

/// Names of fields, and the words that can be values.
fn names(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            found.extend(
                object.get("properties").and_then(Value::as_object).into_iter().flat_map(|it| it.keys().cloned()),
            );
            found.extend(object.get("const").and_then(Value::as_str).map(str::to_owned));
            let words = object.get("enum").and_then(Value::as_array).into_iter().flatten();
            found.extend(words.filter_map(Value::as_str).map(str::to_owned));
            object.values().for_each(|value| names(value, found));
        }
        Value::Array(array) => array.iter().for_each(|value| names(value, found)),
        _ => {}
    }
}

#[test]
fn the_guide_names_every_field_and_every_word() {
    let folder = folder("guide");
    firstfin(&["generate", folder.to_str().unwrap()]).assert().success();
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/report.md")).unwrap();
    let words: BTreeSet<_> = guide.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    for name in ["report.schema.json", "event.schema.json", "why.schema.json"] {
        let mut found = BTreeSet::new();
        names(&serde_json::from_str(&fs::read_to_string(folder.join(name)).unwrap()).unwrap(), &mut found);
        assert!(found.len() > 20, "{name}: {found:?}");
        let missing: Vec<_> = found.iter().filter(|it| !words.contains(it.as_str())).collect();
        assert!(missing.is_empty(), "docs/report.md does not say what these of {name} mean: {missing:?}");
    }
}

#[test]
fn every_finding_is_explained_with_an_example() {
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/findings.md")).unwrap();
    let sections: BTreeMap<&str, &str> = guide.split("\n## ").filter_map(|section| section.split_once('\n')).collect();
    for id in IDS {
        let text = sections.get(id).unwrap_or_else(|| panic!("docs/findings.md has no section {id}"));
        let is_headline = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            matches!(words[..], ["CRITICAL" | "WARNING" | "INFO", name] if name == id)
        };
        assert!(text.lines().any(is_headline), "docs/findings.md has no example of {id}");
        assert!(guide.contains(&format!("| [{id}](#{}) |", id.to_lowercase())), "{id} is not in its table");
    }
    assert_eq!(sections.len(), IDS.len() + 1, "a section that is no finding's: {:?}", sections.keys());
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let output = firstfin(&["generate", "/dev/null/documents"]).assert().code(2).get_output().clone();
    assert!(stderr(&output).contains("/dev/null/documents"), "{}", stderr(&output));
}

#[test]
fn a_configuration_is_checked_without_observing_anything() {
    let folder = folder("check-config");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("firstfin.toml");
    let path = file.to_str().unwrap();

    let default = firstfin(&["serve", "--print-default-config"]).assert().success().get_output().clone();
    fs::write(&file, stdout(&default)).unwrap();
    let fine = firstfin(&["serve", "--check-config", "--config", path]).assert().success().get_output().clone();
    assert_eq!((stdout(&fine).as_str(), stderr(&fine).as_str()), ("the configuration is fine\n", ""));

    fs::write(&file, "[observe]\nring_size = \"8MB\"\n").unwrap();
    let bad = firstfin(&["serve", "--check-config", "--config", path]).assert().code(78).get_output().clone();
    let expected = format!("firstfin: {path}:2:13: observe.ring_size: `8MB`: the suffixes are KiB, MiB and GiB\n");
    assert_eq!((stdout(&bad), stderr(&bad)), (String::new(), expected));

    // What beats the file is checked as well, and named.
    fs::write(&file, "").unwrap();
    for (option, said) in [
        (["--set", "metrics.top=999"], "firstfin: --set metrics.top: metrics.top: greater than 200\n"),
        (["--interval", "1ms"], "firstfin: --interval: observe.interval: `1ms`: a time from 1s to 10m is needed\n"),
    ] {
        let arguments = [&["serve", "--check-config", "--config", path][..], &option].concat();
        let refused = firstfin(&arguments).assert().code(78).get_output().clone();
        assert_eq!(stderr(&refused), said);
    }
    let variable = firstfin(&["serve", "--check-config"]).env("FIRSTFIN_METRICS_TOP", "x").output().unwrap();
    assert_eq!(variable.status.code(), Some(78));
    assert!(stderr(&variable).starts_with("firstfin: FIRSTFIN_METRICS_TOP: metrics.top: "), "{}", stderr(&variable));
}

#[test]
fn a_port_that_is_taken_is_named_with_its_holder() {
    let taken = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let output = firstfin(&["serve", "--listen", &at]).assert().code(2).get_output().clone();
    let said = stderr(&output);
    assert!(said.contains(&format!("cannot listen at {at} (http.listen)")), "{said}");
    assert!(
        said.contains(&format!("{at} is held by ")) && said.contains(&format!("[{}]", std::process::id())),
        "{said}"
    );
}

#[test]
fn a_recording_is_redacted_into_a_copy_and_never_into_itself() {
    let folder = folder("redact");
    fs::create_dir(&folder).unwrap();
    let recording = folder.join("demo.jsonl");
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/demo.jsonl"), &recording).unwrap();
    let before = fs::read(&recording).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();

    let output = firstfin(&["replay", "--redact", &path(&recording), &path(&recording)]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("demo.jsonl is the recording itself"), "{}", stderr(&output));
    assert_eq!(fs::read(&recording).unwrap(), before);

    let copy = folder.join("copy.ffrec");
    let output = firstfin(&["replay", "--redact", &path(&copy), &path(&recording)]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let output = firstfin(&["replay", &path(&copy)]).output().unwrap();
    let report = stdout(&output);
    assert!(report.contains("process-") && !report.contains("checkout"), "{report}");

    let broken = folder.join("broken.jsonl");
    let end = before[..before.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    fs::write(&broken, [&before[..end], b"nonsense\n"].concat()).unwrap();
    let output = firstfin(&["replay", "--redact", &path(&copy), &path(&broken)]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("is not a line of a firstfin recording"), "{}", stderr(&output));
    assert!(!copy.exists(), "what was written of it looks like a recording that was cut off");
}

/// Made with `firstfin record` on Linux 7.3 with fentry programs, while the demo ran: what only these see is in it, too.
#[test]
fn a_recording_of_another_kernel_can_be_reported_shown_and_changed() {
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/fentry.ffrec");
    let recording = recording.to_str().unwrap();
    let folder = folder("another-kernel");
    fs::create_dir(&folder).unwrap();
    let page = folder.join("page.html");

    let output = firstfin(&["replay", recording, "--html", page.to_str().unwrap()]).output().unwrap();
    let report = stdout(&output);
    for said in [
        "crawler[147] (exited) cannot connect to 127.0.0.1:6379: no ephemeral port is free towards it",
        "held by billing-sync[144] (exited): TIME_WAIT 127.0.0.1:25000 -> 127.0.0.1:5432, 58 s left",
        "left: 400 gone with their namespace",
        "of 650 connect() on this host half found a port within 128 us",
    ] {
        assert!(report.contains(said), "{said}: {report}");
    }
    let page = fs::read_to_string(page).unwrap();
    for said in ["crawler[147] (exited) cannot connect to 127.0.0.1:6379", "gone with their namespace", "fentry"] {
        assert!(page.contains(said), "{said} is not on the page");
    }

    let output = firstfin(&["what-if", recording, "--port-range", "1024-65535", "--format", "json"]).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures = |pointer: &str| answer.pointer(pointer).and_then(Value::as_u64);
    assert_eq!(
        (figures("/today/connect_failures"), figures("/what_if/connect_failures")),
        (Some(16), Some(0)),
        "{answer:#}"
    );
}
