use std::time::Duration;

use garde::Validate as _;

use super::*;

fn read(text: &str) -> Result<Config, String> {
    let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
    config.validate().map_err(|report| report.to_string())?;
    Ok(config)
}

#[test]
fn nothing_is_the_default_and_the_default_is_valid() {
    assert_eq!(read("").unwrap(), Config::default());
}

#[test]
fn every_receiver_has_a_name() {
    let config = read(
        r#"
        minimum_severity = "critical"
        for = "30s"
        for_finding = { EphemeralPortExhaustion = "0s", BindConflict = "2m" }
        labels = { team = "payments" }
        documentation_url = "https://wiki.example/firstfin"
        journal.enabled = false
        [[alertmanager]]
        url = "http://127.0.0.1:9093"
        [[alertmanager]]
        url = "http://127.0.0.1:9093/second"
        name = "second"
        authorization_env = "ALERTMANAGER_TOKEN"
        [[pagerduty]]
        routing_key_file = "/run/credentials/firstfin/pagerduty"
        [[webhook]]
        url_env = "CHAT"
        "#,
    )
    .unwrap();
    let names: Vec<_> = config.receivers().into_keys().collect();
    let expected = [
        "alertmanager/127.0.0.1:9093",
        "alertmanager/second",
        "pagerduty//run/credentials/firstfin/pagerduty",
        "webhook/CHAT",
    ];
    assert_eq!(names, expected);
    assert_eq!(config.for_finding.get("BindConflict").map(|it| it.0), Some(Duration::from_secs(120)));
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_is_allowed() {
    let cases = [
        ("resolve = \"1m\"", "unknown field `resolve`, expected one of `minimum_severity`, `for`"),
        ("for = 30", "expected a"),
        ("for = \"30\"", "a number with a unit is needed"),
        ("minimum_severity = \"loud\"", "expected one of `info`, `warning`, `critical`"),
        ("for_finding = { TimeWait = \"1m\" }", "no finding is called `TimeWait`; there are TimeWaitBuildup"),
        ("resolve_after = \"500ms\"", "resolve_after: must be at least 1s"),
        ("timeout = \"0s\"", "timeout: must be at least 100ms"),
        ("labels = { \"a-b\" = \"x\" }", "labels: `a-b` is no label"),
        ("labels = { severity = \"x\" }", "labels: `severity` is a label that alerts have already"),
        ("group_by = [\"9\"]", "group_by[0]: `9` is no label"),
        ("max_active = 0", "max_active: lower than 1"),
        ("[[alertmanager]]\nurl = \"localhost:9093\"", "an address such as https://"),
        ("[[alertmanager]]\nurl = \"http://me:swordfish@host\"", "a user or password does not belong"),
        ("[[alertmanager]]\nurl = \"http://a\"\n[[alertmanager]]\nurl = \"http://a\"", "two are called `a`"),
        ("documentation_url = \"wiki\"", "begins with http://"),
        ("[[pagerduty]]\nname = \"x\"", "pagerduty[0].routing_key_file: routing_key_file or routing_key_env is needed"),
        ("[[pagerduty]]\nrouting_key = \"x\"", "unknown field `routing_key`"),
        ("[[webhook]]\nname = \"x\"", "webhook[0].url: url, url_file or url_env is needed"),
        ("[[webhook]]\nurl = \"http://a\"\nurl_env = \"A\"", "more than one of url, url_file and url_env"),
        (
            "[[webhook]]\nurl = \"http://a\"\nauthorization_env = \"A\"\nauthorization_file = \"b\"",
            "one of them is enough",
        ),
    ];
    for (text, expected) in cases {
        let error = read(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let error = read("[[alertmanager]]\nurl = \"http://me:swordfish@host\"").unwrap_err();
    assert!(!error.contains("swordfish"), "{error}");
}

#[test]
fn the_path_of_an_address_is_never_shown() {
    let address = Address::parse("https://hooks.example/services/T0/B0/swordfish?token=swordfish").unwrap();
    let shown = format!("{address} {address:?} {}", serde_json::to_string(&address).unwrap());
    assert!(!shown.contains("swordfish") && shown.contains("https://hooks.example/[not shown]"), "{shown}");
    let hidden = address.hidden();
    assert_eq!(hidden[1..], ["/services/T0/B0/swordfish?token=swordfish", "services", "swordfish", "swordfish"]);
    assert_eq!(Address::parse("http://[::1]:9093").unwrap().hidden(), ["http://[::1]:9093"]);
    assert_eq!(Address::parse("http://[::1]:9093/").unwrap().to_string(), "http://[::1]:9093");
}
