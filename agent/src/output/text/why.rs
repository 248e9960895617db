//! `firstfin why` as text.

use super::{Context, failures::holder, layout::Page};
use crate::{
    output::words,
    report::Holder,
    why::{Answer, Attempt, AttemptOutcome, BindAnswer, ConnectAnswer, InNetns},
};

/// The answer, for people.
#[must_use]
pub fn why(answer: &Answer, width: Option<u16>, colour: bool) -> String {
    let mut page = Page::new(width, colour);
    if let Some(answer) = &answer.bind {
        for namespace in &answer.namespaces {
            in_netns(&mut page, answer, namespace);
        }
    }
    if let Some(answer) = &answer.connect {
        connect(&mut page, answer);
    }
    for spot in &answer.blind_spots {
        page.labelled("not seen", 8, spot);
    }
    page.into_text().trim_start().to_owned()
}

fn in_netns(page: &mut Page, answer: &BindAnswer, namespace: &InNetns) {
    let place = answer.address.map_or_else(
        || format!("Port {}", answer.port),
        |address| std::net::SocketAddr::new(address, answer.port).to_string(),
    );
    let which = if namespace.is_own { ", this one" } else { "" };
    page.section(&place, &format!(" in network namespace {}{which}", namespace.netns));
    if namespace.holders.is_empty() {
        page.paragraph("nobody has it");
    }
    for held in &namespace.holders {
        page.paragraph(&described(held));
    }
    if namespace.holders_omitted > 0 {
        page.paragraph(&format!("and {} more", namespace.holders_omitted));
    }
    if namespace.address_is_local == Some(false) {
        page.paragraph("bind() fails with EADDRNOTAVAIL whoever has the port: the address is none of this host's");
    }
    for attempt in &namespace.attempts {
        self::attempt(page, answer, namespace, attempt);
    }
    if namespace.is_ephemeral == Some(true) {
        page.paragraph(&format!(
            "connect() may give it to any client at any time: it is in net.ipv4.ip_local_port_range. For a service: \
             sysctl net.ipv4.ip_local_reserved_ports={} (added to what is there)",
            answer.port
        ));
    }
}

fn described(held: &Holder) -> String {
    let context = Context { top: usize::MAX, with_netns: false };
    let mut text = holder(held, context);
    let options = [(held.options.reuse_address, "SO_REUSEADDR"), (held.options.reuse_port, "SO_REUSEPORT")];
    for (is_set, name) in options {
        let said = is_set.map_or("not known", |is_set| if is_set { "on" } else { "off" });
        text.push_str(&format!(", {name} {said}"));
    }
    if !held.also_open_in.is_empty() {
        let others: Vec<_> = held.also_open_in.iter().map(words::process).collect();
        text.push_str(&format!("; also open in {}", others.join(", ")));
    }
    text
}

fn attempt(page: &mut Page, answer: &BindAnswer, namespace: &InNetns, attempt: &Attempt) {
    let said = match attempt.outcome {
        AttemptOutcome::Granted => "is granted",
        AttemptOutcome::Refused => "fails with EADDRINUSE",
        AttemptOutcome::Undecided => "may fail with EADDRINUSE",
    };
    let options = words::options(attempt.options);
    page.paragraph(&format!("bind() to {} as user {}, options {options}: {said}", attempt.local, answer.uid));
    if let Some(refusal) = &attempt.refusal {
        let holder = attempt.holder.and_then(|place| namespace.holders.get(usize::try_from(place).ok()?));
        let holder =
            holder.map_or_else(String::new, |holder| format!("{} {}: ", words::holder(holder.kind), holder.local));
        page.below(&match refusal.rule {
            Some(rule) => format!("{holder}{}", rule.explain()),
            None => {
                let unknown: Vec<_> = refusal.unknown.iter().map(|fact| fact.name()).collect();
                format!("{holder}not known of it: {}", unknown.join(", "))
            }
        });
    }
    if let Some(seconds) = attempt.free_in_s {
        page.below(&format!("granted in {seconds} s with nothing changed, when TIME_WAIT is over"));
    }
}

fn connect(page: &mut Page, answer: &ConnectAnswer) {
    page.section(&format!("connect() to {}", answer.remote), &format!(" in network namespace {}", answer.netns));
    let (Some((low, high)), Some(usable)) = (answer.port_range, answer.usable) else {
        page.paragraph("not known: net.ipv4.ip_local_port_range and what is reserved of it could not be read");
        return;
    };
    page.paragraph(&format!(
        "{usable} ports usable: {low} to {high}, less those reserved and {} that listeners and bound sockets have",
        answer.bound
    ));
    if answer.from.is_empty() {
        page.paragraph("none of them is in use towards it");
    }
    for from in &answer.from {
        let next = from.next_in_s.map_or_else(String::new, |next| format!("; the next one is free in {next} s"));
        page.paragraph(&format!(
            "from {}: {} left; {} have live connections, {} are in TIME_WAIT, {} of these can be taken over \
             (tcp_tw_reuse){next}",
            from.local, from.left, from.live, from.time_wait, from.reusable
        ));
        if from.left == 0 {
            page.paragraph("connect() fails with EADDRNOTAVAIL");
        }
    }
}
