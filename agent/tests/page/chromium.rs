//! The page in a real headless Chromium.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use super::{demo, folder};

const PROGRAM: &str = "FIRSTFIN_CHROMIUM";

pub(super) fn program() -> Result<PathBuf, String> {
    env::var_os(PROGRAM).map(PathBuf::from).ok_or_else(|| {
        let why = env::var("FIRSTFIN_NO_CHROMIUM").unwrap_or_else(|_| "cargo xtask test sets it".to_owned());
        format!("{PROGRAM} names no Chromium: {why}")
    })
}

/// Looks at the page as it was laid out, and writes down what it found. The page itself has no script, and lets none in.
const PROBE: &str = r#"<script>
const drawn = [...document.querySelectorAll('path.area, path.line')].filter(it => it.getTotalLength() > 0);
const width = document.documentElement.clientWidth;
const cut = [...document.querySelectorAll('.chart text, .states text')].filter(it => {
  const box = it.getBoundingClientRect();
  return box.width > 0 && (box.left < -0.5 || box.right > width + 0.5);
}).map(it => it.textContent);
const sizes = [...document.querySelectorAll('.chart text, .states text')].map(it =>
  it.getBoundingClientRect().height);
document.body.insertAdjacentHTML('beforeend', '<pre id="probe"></pre>');
document.getElementById('probe').textContent = JSON.stringify({
  drawn: drawn.length,
  flat: drawn.filter(it => it.getBoundingClientRect().height === 0).length,
  width: innerWidth,
  scroll: document.documentElement.scrollWidth,
  cut,
  smallest: Math.min(...sizes),
  requests: performance.getEntriesByType('resource').length,
  dark: matchMedia('(prefers-color-scheme: dark)').matches,
  background: getComputedStyle(document.documentElement).backgroundColor,
  headings: [...document.querySelectorAll('h1, h2, h3')].map(it => it.tagName),
  unnamed: [...document.querySelectorAll('svg:not([aria-hidden]):not([role=img]):not(svg svg)')].length,
  text: document.body.innerText,
});
</script>"#;

fn run(program: &Path, folder: &Path, page: &str, arguments: &[&str]) -> Output {
    let file = folder.join("page.html");
    fs::write(&file, page).unwrap();
    let output = Command::new(program)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--enable-logging=stderr", "--virtual-time-budget=3000"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .args(arguments)
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    // What the page, or its policy, complains of.
    let said = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<_> = said.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    output
}

/// What the probe found.
fn probe(program: &Path, name: &str, arguments: &[&str]) -> Value {
    let (_, page) = demo();
    let probed = page.replacen("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';", 1);
    let probed = probed.replacen("</body>", &format!("{PROBE}</body>"), 1);
    assert_ne!(page, probed);
    let output = run(program, &folder(name), &probed, &[arguments, &["--dump-dom"]].concat());
    let dom = String::from_utf8(output.stdout).unwrap();
    // The last one: the probe's own text has it, too.
    let (_, found) = dom.rsplit_once("<pre id=\"probe\">").unwrap_or_else(|| panic!("the probe did not run: {dom}"));
    let found = found.split("</pre>").next().unwrap();
    let found = found.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", " ").replace("&amp;", "&");
    serde_json::from_str(&found).unwrap()
}

pub(super) fn charts_are_drawn_without_an_error(program: &Path) {
    // As it is, with its own policy.
    let (report, page) = demo();
    let output = run(program, &folder("as-it-is"), &page, &["--dump-dom"]);
    assert!(String::from_utf8(output.stdout).unwrap().contains("class=\"area s0\""));

    let found = probe(program, "light", &["--window-size=1280,900", "--blink-settings=preferredColorScheme=1"]);
    // Three processes at least, two lines twice, and one.
    assert!(found["drawn"].as_u64().unwrap() >= 8, "{found}");
    assert_eq!(found["requests"], 0);
    assert_eq!(found["dark"], false);
    assert_eq!(found["cut"], serde_json::json!([]), "labels are cut");
    assert_eq!(found["unnamed"], 0, "a drawing has no name for those who do not see it");
    let headings: Vec<_> = found["headings"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert_eq!(headings.iter().filter(|it| **it == "H1").count(), 1);
    assert_eq!(headings[..3], ["H1", "H2", "H3"]);
    let text = found["text"].as_str().unwrap();
    for finding in &report.findings {
        assert!(text.contains(&finding.summary), "{} is not to be seen in {text}", finding.summary);
    }
    for what in ["checkout[", "127.0.0.1:6379", "127.0.0.1:5432", "none left"] {
        assert!(text.contains(what), "{what} is not to be seen in {text}");
    }
}

pub(super) fn dark_is_dark(program: &Path) {
    let found = probe(program, "dark", &["--window-size=1280,900", "--blink-settings=preferredColorScheme=0"]);
    assert_eq!(found["dark"], true);
    assert_eq!(found["background"], "rgb(18, 22, 29)");
    assert!(found["drawn"].as_u64().unwrap() >= 8, "{found}");
}

pub(super) fn a_narrow_page_does_not_overflow(program: &Path) {
    let found = probe(program, "narrow", &["--window-size=400,900"]);
    assert_eq!(found["width"], 400);
    assert!(found["scroll"].as_u64().unwrap() <= 400, "{} wide", found["scroll"]);
    assert_eq!(found["cut"], serde_json::json!([]), "labels are cut");
    assert!(found["smallest"].as_f64().unwrap() >= 9.0, "labels are {} pixels high", found["smallest"]);
}

pub(super) fn it_prints(program: &Path) {
    let (_, page) = demo();
    let folder = folder("print");
    let file = folder.join("page.pdf");
    run(program, &folder, &page, &[&format!("--print-to-pdf={}", file.display())]);
    let pdf = fs::read(&file).unwrap();
    assert!(pdf.starts_with(b"%PDF-"));
    let text = String::from_utf8_lossy(&pdf);
    let pages = text.matches("/Type /Page\n").count() + text.matches("/Type /Page ").count();
    assert!(pages > 1, "{pages} pages");
}
