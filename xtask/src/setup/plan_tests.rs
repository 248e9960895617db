//! One machine a test: what is on it, what fails there, and the way that set-up takes through it.

use std::path::PathBuf;

use super::*;

const MINIMUM: Version = (1, 95);

fn rust(name: &str, has_core: bool) -> Toolchain {
    Toolchain { name: Some(name.to_owned()), release: (1, 95), llvm: 22, has_core }
}

fn built(version: &str, llvm: u32) -> Linker {
    Linker { path: PathBuf::from("bpf-linker"), version: version.to_owned(), llvm: Some(llvm) }
}

/// Debian 12, root, rustup with a stable Rust that lacks rust-src; apt's lists are fresh.
fn debian() -> Facts {
    let known = [
        ("rustc-web", "1.96.0+dfsg1-1~deb12u2"),
        ("cargo-web", "1.96.0+dfsg1-1~deb12u2"),
        ("rust-web-src", "1.96.0+dfsg1-1~deb12u2"),
        ("llvm-22-dev", "1:22.1.8-1~deb12u1"),
        ("libpolly-22-dev", "1:22.1.8-1~deb12u1"),
    ];
    Facts {
        privilege: Privilege::Root,
        has_rustup: true,
        noted: None,
        current: Some(rust("stable", false)),
        debian: None,
        own_linker: None,
        other_linker: None,
        llvms: Vec::new(),
        has_cxx: true,
        has_apt: true,
        candidates: known.iter().map(|(package, version)| ((*package).to_owned(), (*version).to_owned())).collect(),
        has_crates: true,
        missing_tools: Vec::new(),
    }
}

fn without_apt() -> Facts {
    Facts { has_apt: false, candidates: BTreeMap::new(), ..debian() }
}

fn llvm_22() -> Llvm {
    Llvm { major: 22, prefix: PathBuf::from("/usr/lib/llvm-22") }
}

fn blocked<Done: std::fmt::Debug>(next: Next<Done>) -> Blocked {
    match next {
        Next::Blocked(blocked) => blocked,
        other => panic!("not blocked: {other:?}"),
    }
}

#[test]
fn rust_src_is_asked_of_rustup_first() {
    assert_eq!(toolchain(&debian(), &Tried::default(), MINIMUM), Next::AddRustSrc("stable".to_owned()));
    assert_eq!(toolchain(&without_apt(), &Tried::default(), MINIMUM), Next::AddRustSrc("stable".to_owned()));
}

#[test]
fn debians_packages_are_the_way_when_rustup_has_failed() {
    let tried = Tried { rust_src: Some("no network".to_owned()), ..Tried::default() };
    assert_eq!(toolchain(&debian(), &tried, MINIMUM), Next::LinkDebian(debian_packages().collect()));

    let linked = Facts { debian: Some(rust(DEBIAN_TOOLCHAIN, true)), ..debian() };
    assert_eq!(toolchain(&linked, &tried, MINIMUM), Next::Done(rust(DEBIAN_TOOLCHAIN, true)));
}

#[test]
fn a_toolchain_with_the_sources_is_taken_as_it_is() {
    let facts = Facts { current: Some(rust("stable", true)), ..debian() };
    assert_eq!(toolchain(&facts, &Tried::default(), MINIMUM), Next::Done(rust("stable", true)));
}

#[test]
fn the_toolchain_of_an_earlier_setup_stays() {
    let facts = Facts { noted: Some(rust(DEBIAN_TOOLCHAIN, true)), current: Some(rust("stable", true)), ..debian() };
    assert_eq!(toolchain(&facts, &Tried::default(), MINIMUM), Next::Done(rust(DEBIAN_TOOLCHAIN, true)));
}

#[test]
fn a_toolchain_whose_linker_cannot_be_had_makes_way_for_one_whose_can() {
    let newest = Toolchain { llvm: 23, ..rust("stable", true) };
    let facts = Facts { current: Some(newest.clone()), ..debian() };
    // It may be that apt's lists are only old.
    assert_eq!(toolchain(&facts, &Tried::default(), MINIMUM), Next::RefreshLists);
    let fresh = Tried { lists: true, ..Tried::default() };
    assert_eq!(toolchain(&facts, &fresh, MINIMUM), Next::LinkDebian(debian_packages().collect()));
    // With no other way left it is taken, and the linker's own answer says what is missing.
    let fresh = Tried { lists: true, debian: Some("no".to_owned()), ..Tried::default() };
    assert_eq!(toolchain(&facts, &fresh, MINIMUM), Next::Done(newest));
}

#[test]
fn an_old_rust_is_not_taken() {
    let old = Toolchain { release: (1, 85), ..rust("stable", true) };
    let facts = Facts { current: Some(old), ..without_apt() };
    let blocked = blocked(toolchain(&facts, &Tried::default(), MINIMUM));
    assert!(blocked.because.contains("Rust 1.85, firstfin needs 1.95"), "{blocked:?}");
}

#[test]
fn an_old_rustc_web_is_not_taken() {
    let mut facts = debian();
    facts.candidates.insert("rustc-web".to_owned(), "1.85.0+dfsg3-1~deb12u3".to_owned());
    let tried = Tried { lists: true, rust_src: Some("no network".to_owned()), ..Tried::default() };
    let blocked = blocked(toolchain(&facts, &tried, MINIMUM));
    assert!(blocked.because.contains("apt-get knows no rustc-web of 1.95 or newer"), "{blocked:?}");
}

#[test]
fn without_a_way_to_the_sources_both_failures_and_both_ways_are_told() {
    let tried = Tried {
        lists: true,
        rust_src: Some("no network".to_owned()),
        debian: Some("apt-get install: exit status: 100".to_owned()),
        ..Tried::default()
    };
    let blocked = blocked(toolchain(&debian(), &tried, MINIMUM));
    assert!(blocked.because.contains("no network") && blocked.because.contains("exit status: 100"), "{blocked:?}");
    assert!(blocked.remedy.contains(&"rustup component add rust-src --toolchain stable".to_owned()), "{blocked:?}");
    assert!(blocked.remedy.iter().any(|line| line.contains("rustc-web")), "{blocked:?}");
}

#[test]
fn who_cannot_become_root_gets_the_commands() {
    let facts = Facts { privilege: Privilege::Neither, ..debian() };
    let tried = Tried { rust_src: Some("no network".to_owned()), ..Tried::default() };
    let sources = blocked(toolchain(&facts, &tried, MINIMUM));
    assert!(sources.remedy.iter().any(|line| line.starts_with("as root: apt-get install")), "{sources:?}");
    let linker = blocked(linker(&facts, &tried, 22));
    let install = "as root: apt-get install -y --no-install-recommends llvm-22-dev libpolly-22-dev";
    assert!(linker.remedy.contains(&install.to_owned()), "{linker:?}");
}

#[test]
fn llvm_then_the_linker() {
    let tried = Tried::default();
    let packages = vec!["llvm-22-dev".to_owned(), "libpolly-22-dev".to_owned()];
    assert_eq!(linker(&debian(), &tried, 22), Next::Install(packages));
    let facts = Facts { llvms: vec![llvm_22()], ..debian() };
    assert_eq!(linker(&facts, &tried, 22), Next::BuildLinker(llvm_22()));
    let facts = Facts { own_linker: Some(built(LINKER_VERSION, 22)), ..facts };
    assert_eq!(linker(&facts, &tried, 22), Next::Done(built(LINKER_VERSION, 22)));
}

#[test]
fn a_missing_compiler_of_cxx_is_installed_too() {
    let mut facts = Facts { has_cxx: false, llvms: vec![llvm_22()], ..debian() };
    facts.candidates.insert("g++".to_owned(), "4:12.2.0-3".to_owned());
    assert_eq!(linker(&facts, &Tried::default(), 22), Next::Install(vec!["g++".to_owned()]));
}

#[test]
fn lists_are_refreshed_once_when_a_package_is_unknown_or_its_install_failed() {
    let unknown = Facts { candidates: BTreeMap::new(), ..debian() };
    assert_eq!(linker(&unknown, &Tried::default(), 22), Next::RefreshLists);
    let fresh = Tried { lists: true, ..Tried::default() };
    assert!(blocked(linker(&unknown, &fresh, 22)).because.contains("knows no package llvm-22-dev"));

    let packages: Vec<_> = llvm_packages(22).collect();
    let failed = |lists| Tried {
        lists,
        packages: BTreeMap::from([(packages.clone(), "apt-get install: exit status: 100".to_owned())]),
        ..Tried::default()
    };
    assert_eq!(linker(&debian(), &failed(false), 22), Next::RefreshLists);
    assert!(blocked(linker(&debian(), &failed(true), 22)).because.contains("exit status: 100"));
}

#[test]
fn our_own_linker_of_another_version_or_an_older_llvm_is_built_anew() {
    for old in [built("0.12.0", 22), built(LINKER_VERSION, 21)] {
        let facts = Facts { own_linker: Some(old), llvms: vec![llvm_22()], ..debian() };
        assert_eq!(linker(&facts, &Tried::default(), 22), Next::BuildLinker(llvm_22()));
    }
}

#[test]
fn a_linker_on_the_path_is_accepted_if_its_llvm_is_known_and_not_older() {
    for (llvm, fits) in [(Some(22), true), (Some(23), true), (Some(21), false), (None, false)] {
        let other = Linker { llvm, ..built("0.9.15", 22) };
        let facts = Facts { other_linker: Some(other.clone()), ..without_apt() };
        let next = linker(&facts, &Tried::default(), 22);
        assert_eq!(next == Next::Done(other), fits, "{llvm:?}: {next:?}");
    }
}

#[test]
fn without_apt_the_packages_of_others_and_the_release_are_named() {
    let blocked = blocked(linker(&without_apt(), &Tried::default(), 22));
    for word in ["llvm-devel", "pacman", "releases"] {
        assert!(blocked.remedy.iter().any(|line| line.contains(word)), "{word}: {blocked:?}");
    }
    let facts = Facts { llvms: vec![llvm_22()], has_cxx: false, ..without_apt() };
    assert_eq!(linker(&facts, &Tried::default(), 22), Next::BuildLinker(llvm_22()));
}

#[test]
fn an_llvm_that_the_pinned_linker_does_not_know_is_said_to_be() {
    let blocked = blocked(linker(&debian(), &Tried::default(), 24));
    assert!(blocked.because.contains("21 to 23, the toolchain has 24"), "{blocked:?}");
}

#[test]
fn a_linker_that_does_not_build_is_tried_once() {
    let facts = Facts { llvms: vec![llvm_22()], ..debian() };
    let tried = Tried { linker: Some("exit status: 101".to_owned()), ..Tried::default() };
    let blocked = blocked(linker(&facts, &tried, 22));
    assert_eq!(blocked.because, "exit status: 101");
    assert!(blocked.remedy.iter().any(|line| line.contains("LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker")));
}

#[test]
fn missing_tools_are_installed() {
    let mut facts = Facts { missing_tools: vec!["iproute2"], ..debian() };
    facts.candidates.insert("iproute2".to_owned(), "6.1.0-3".to_owned());
    assert_eq!(tools(&facts, &Tried::default()), Next::Install(vec!["iproute2".to_owned()]));
    assert_eq!(tools(&debian(), &Tried::default()), Next::Done(()));
}

#[test]
fn without_the_tools_set_up_is_complete_all_the_same() {
    let facts = Facts { missing_tools: vec!["iproute2"], ..without_apt() };
    assert!(!blocked(tools(&facts, &Tried::default())).required);
    assert!(blocked(linker(&facts, &Tried::default(), 22)).required);
}

#[test]
fn crates_are_fetched_once() {
    let facts = Facts { has_crates: false, ..debian() };
    assert_eq!(crates(&facts, &Tried::default()), Next::FetchCrates);
    let tried = Tried { crates: Some("exit status: 101".to_owned()), ..Tried::default() };
    assert_eq!(blocked(crates(&facts, &tried)).remedy, ["cargo fetch --locked"]);
}
