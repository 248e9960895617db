//! The rules for Prometheus and the dashboard speak of metrics that exist.
//!
//! `docs/generated/metrics.md` is written from the program's own table, so a metric that is renamed shows here. What
//! Prometheus itself has to say is asked of the real promtool where there is one (`FIRSTFIN_PROMTOOL`; `cargo xtask test`
//! brings it).

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

const RULES: [&str; 2] = ["packaging/prometheus/recording.rules.yml", "packaging/prometheus/alerts.rules.yml"];
const TESTS: &str = "packaging/prometheus/tests.yml";
const DASHBOARD: &str = "packaging/grafana/firstfin.json";
/// What Prometheus itself makes.
const OF_PROMETHEUS: [&str; 2] = ["job", "instance"];
/// What `[metrics] labels` is by default.
const PROCESS: [&str; 3] = ["process", "unit", "container"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    let file = root().join(path);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Without comments.
fn yaml(path: &str) -> String {
    read(path).lines().filter(|line| !line.trim_start().starts_with('#')).map(|line| format!("{line}\n")).collect()
}

/// Metric -> its labels.
fn catalogue() -> BTreeMap<String, BTreeSet<String>> {
    let text = read("docs/generated/metrics.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let metrics: BTreeMap<_, _> = rows
        .map(|row| {
            let columns: Vec<_> = row.split('|').map(str::trim).collect();
            let mut labels: BTreeSet<String> = OF_PROMETHEUS.map(str::to_owned).into();
            for label in columns[3].split(", ").filter(|label| !label.is_empty()) {
                match label {
                    "PROCESS" => labels.extend(PROCESS.map(str::to_owned)),
                    label => drop(labels.insert(label.trim_matches('`').to_owned())),
                }
            }
            (columns[0].trim_end_matches('`').to_owned(), labels)
        })
        .collect();
    assert!(metrics.len() > 20, "docs/generated/metrics.md has {} metrics", metrics.len());
    metrics
}

/// A metric that a text names, and the labels it is asked for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Selector {
    metric: String,
    labels: Vec<String>,
}

/// Every metric of firstfin, recorded or not, that a text names.
fn selectors(text: &str) -> Vec<Selector> {
    let is_part = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == ':';
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_part) {
        rest = &rest[start..];
        let end = rest.find(|it| !is_part(it)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let word = word.trim_end_matches(':');
        if word.starts_with("firstfin_") || word.starts_with("process_") || word.contains(":firstfin_") {
            found.push(Selector { metric: word.to_owned(), labels: labels(after) });
        }
        rest = after;
    }
    found
}

/// `{a="x", b=~"y"} ...` -> a, b
fn labels(after: &str) -> Vec<String> {
    let Some(matchers) = after.strip_prefix('{') else { return Vec::new() };
    let (mut names, mut name, mut is_quoted, mut is_value) = (Vec::new(), String::new(), false, false);
    for it in matchers.chars() {
        match it {
            '"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            '}' => break,
            ',' => is_value = false,
            '=' | '!' if !is_value => {
                names.push(std::mem::take(&mut name));
                is_value = true;
            }
            _ if is_value || it.is_whitespace() => {}
            it => name.push(it),
        }
    }
    names
}

fn recorded() -> BTreeSet<String> {
    let text = yaml(RULES[0]);
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("- record: ").map(str::to_owned));
    let names: BTreeSet<_> = names.collect();
    assert!(names.len() > 10, "{names:?}");
    names
}

/// The expressions, and queries of variables, of the dashboard.
fn queries_of_dashboard() -> Vec<String> {
    fn walk(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => {
                for (key, value) in map {
                    match value.as_str() {
                        Some(text) if key == "expr" || key == "query" => found.push(text.to_owned()),
                        _ => walk(value, found),
                    }
                }
            }
            serde_json::Value::Array(list) => list.iter().for_each(|value| walk(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(&serde_json::from_str(&read(DASHBOARD)).unwrap(), &mut found);
    assert!(found.len() > 20, "{found:?}");
    found
}

#[test]
fn every_metric_and_label_exists() {
    let (catalogue, recorded) = (catalogue(), recorded());
    let mut texts: Vec<_> = RULES.iter().chain([&TESTS]).map(|path| (*path, yaml(path))).collect();
    texts.extend(queries_of_dashboard().into_iter().map(|query| (DASHBOARD, query)));
    let mut wrong = BTreeSet::new();
    let mut seen = 0;
    for (file, text) in &texts {
        for Selector { metric, labels } in selectors(text) {
            seen += 1;
            if metric.contains(':') {
                if !recorded.contains(&metric) {
                    wrong.insert(format!("{file}: {metric} is not recorded"));
                }
            } else if let Some(known) = catalogue.get(&metric) {
                let unknown = labels.iter().filter(|label| !known.contains(*label));
                wrong.extend(unknown.map(|label| format!("{file}: {metric} has no label {label}")));
            } else {
                wrong.insert(format!("{file}: {metric} does not exist"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 100, "only {seen} metrics were found");
}

#[test]
fn selectors_are_read() {
    let text = r#"sum(a:firstfin_x:sum{job=~"$j", errno!="E,}"}) / rate(firstfin_y_total[5m]) > firstfin: process"#;
    let read = |metric: &str, labels: &[&str]| Selector {
        metric: metric.to_owned(),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
    };
    assert_eq!(selectors(text), [read("a:firstfin_x:sum", &["job", "errno"]), read("firstfin_y_total", &[])]);
}

/// The lines of each alert.
fn alerts() -> Vec<(String, String)> {
    let text = yaml(RULES[1]);
    let mut blocks = text.split("- alert: ").skip(1);
    let mut alerts = Vec::new();
    while let Some((name, block)) = blocks.next().and_then(|block| block.split_once('\n')) {
        alerts.push((name.to_owned(), block.to_owned()));
    }
    assert!(alerts.len() > 10);
    alerts
}

#[test]
fn every_alert_says_how_bad_what_and_where_to_read_on() {
    let text = yaml(RULES[1]);
    for (name, block) in alerts() {
        assert!(name.starts_with("Firstfin"), "{name}");
        let severity = block.lines().find_map(|line| line.trim().strip_prefix("severity: "));
        assert!(matches!(severity, Some("info" | "warning" | "critical")), "{name}: {severity:?}");
        // One alias stands for the annotations of another alert.
        let whole = match block.lines().find_map(|line| line.trim().strip_prefix("annotations: *")) {
            Some(alias) => text.split_once(&format!("annotations: &{alias}")).unwrap().1,
            None => &block,
        };
        for part in ["summary: ", "description: ", "runbook_url: "] {
            assert!(whole.contains(part), "{name} has no {part}");
        }
    }
}

#[test]
fn every_runbook_is_a_section_of_the_documents() {
    let addresses: BTreeSet<_> = yaml(RULES[1])
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook_url: https://wiki.example/firstfin/").map(str::to_owned))
        .collect();
    assert!(addresses.len() > 5, "{addresses:?}");
    for address in addresses {
        let (file, section) = address.split_once('#').unwrap();
        let anchor = |title: &str| title.trim().to_lowercase().replace(' ', "-");
        let text = read(file);
        let is_there = text.lines().any(|line| line.starts_with('#') && anchor(line.trim_matches('#')) == section);
        assert!(is_there, "{file} has no section #{section}");
    }
}

#[test]
fn every_alert_is_tested_to_fire_and_not_to_fire() {
    let tests = yaml(TESTS);
    for (name, _) in alerts() {
        let silent = format!("alertname: {name}, eval_time: ");
        assert!(tests.lines().any(|line| line.contains(&silent) && line.contains("exp_alerts: []")), "{name}: silent");
        assert!(tests.contains(&format!("- alertname: {name}\n")), "{name}: nothing says that it fires");
    }
}

#[test]
fn promtool_agrees() {
    let Some(promtool) = env::var_os("FIRSTFIN_PROMTOOL") else {
        // Not eprintln!, which the harness keeps to itself when a test passes.
        let why = env::var("FIRSTFIN_NO_SERVERS").unwrap_or_else(|_| "FIRSTFIN_PROMTOOL is not set".to_owned());
        writeln!(io::stderr(), "SKIP promtool_agrees: {why}").unwrap();
        return;
    };
    let folder = root().join("packaging/prometheus");
    for arguments in [
        ["check", "rules", "--lint=all", "--lint-fatal", "recording.rules.yml", "alerts.rules.yml"].as_slice(),
        &["test", "rules", "tests.yml"],
        &["check", "config", "prometheus.yml"],
    ] {
        let output = Command::new(&promtool).args(arguments).current_dir(&folder).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success(), "promtool {arguments:?}: {said}");
    }
    // The dashboard's expressions, as rules: promtool parses no other thing.
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    for (number, query) in queries_of_dashboard().iter().enumerate().filter(|(_, query)| !query.starts_with("label_")) {
        let query = serde_json::to_string(&query.replace("$__rate_interval", "5m")).unwrap();
        rules += &format!("      - record: dashboard:{number}\n        expr: {query}\n");
    }
    let file = env::temp_dir().join(format!("firstfin-dashboard-{}.yml", std::process::id()));
    fs::write(&file, rules).unwrap();
    let output = Command::new(&promtool).args(["check", "rules"]).arg(&file).output().unwrap();
    fs::remove_file(&file).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
