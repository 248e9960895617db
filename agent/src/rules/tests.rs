use std::net::SocketAddr;

use super::{Fact, Holder, HolderState, Outcome, Remedy, Request, Rule, Verdict, conflict, decide, remedies};
use crate::model::{Call, SocketOptions};

use HolderState::{Bound, Connected, Listener, TimeWait};
use Verdict::{Accepted, Refused};

const PORT: u16 = 8_080;

const PLAIN: SocketOptions = SocketOptions { reuse_address: false, reuse_port: false, v6_only: false };
const REUSE: SocketOptions = SocketOptions { reuse_address: true, ..PLAIN };
const SHARE: SocketOptions = SocketOptions { reuse_port: true, ..PLAIN };
const ONLY_V6: SocketOptions = SocketOptions { v6_only: true, ..PLAIN };

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), PORT)
}

fn bind(address: &str, options: SocketOptions) -> Request {
    Request { call: Call::Bind, local: at(address), options, uid: 0, device: 0 }
}

fn listen(address: &str, options: SocketOptions) -> Request {
    Request { call: Call::Listen, ..bind(address, options) }
}

fn held(state: HolderState, address: &str, options: SocketOptions) -> Holder {
    Holder {
        state,
        local: at(address),
        v6_only: Some(options.v6_only),
        reuse_address: Some(options.reuse_address),
        reuse_port: Some(options.reuse_port),
        uid: Some(0),
        device: Some(0),
    }
}

/// What sock_diag tells of a socket.
fn dumped(state: HolderState, address: &str) -> Holder {
    Holder { reuse_address: None, reuse_port: None, ..held(state, address, PLAIN) }
}

fn assert_all(rows: &[(Holder, Request, Verdict)]) {
    for (holder, request, verdict) in rows {
        assert_eq!(&conflict(request, holder), verdict, "{request:?} while {holder:?}");
    }
}

#[test]
fn listener_at_the_same_address_with_and_without_reuse_address() {
    assert_all(&[
        (held(Listener, "127.0.0.1", PLAIN), bind("127.0.0.1", PLAIN), Refused(Rule::HolderListens)),
        (held(Listener, "127.0.0.1", REUSE), bind("127.0.0.1", REUSE), Refused(Rule::HolderListens)),
        (held(Listener, "127.0.0.1", REUSE), bind("127.0.0.1", PLAIN), Refused(Rule::HolderListens)),
        (held(Listener, "127.0.0.1", PLAIN), bind("127.0.0.1", REUSE), Refused(Rule::HolderListens)),
    ]);
}

#[test]
fn time_wait_of_a_server_and_a_new_socket_without_reuse_address() {
    let lacks = Refused(Rule::RequestLacksReuseAddress);
    assert_all(&[
        (held(TimeWait, "127.0.0.1", PLAIN), bind("127.0.0.1", PLAIN), lacks.clone()),
        (held(TimeWait, "127.0.0.1", REUSE), bind("127.0.0.1", PLAIN), lacks),
    ]);
}

#[test]
fn time_wait_when_old_and_new_have_reuse_address() {
    assert_all(&[(held(TimeWait, "127.0.0.1", REUSE), bind("127.0.0.1", REUSE), Accepted)]);
}

#[test]
fn time_wait_of_a_listener_without_reuse_address_and_a_new_socket_with_it() {
    let kept = Refused(Rule::TimeWaitLacksReuseAddress);
    assert_all(&[(held(TimeWait, "127.0.0.1", PLAIN), bind("127.0.0.1", REUSE), kept)]);
}

#[test]
fn time_wait_when_both_have_only_reuse_port_whatever_the_user() {
    let other_user = Holder { uid: Some(1_000), ..held(TimeWait, "127.0.0.1", SHARE) };
    assert_all(&[
        (held(TimeWait, "127.0.0.1", SHARE), bind("127.0.0.1", SHARE), Accepted),
        (other_user, bind("127.0.0.1", SHARE), Accepted),
        (Holder { uid: None, ..other_user }, bind("127.0.0.1", SHARE), Accepted),
    ]);
}

#[test]
fn time_wait_and_the_wildcard_or_another_address() {
    let lacks = Refused(Rule::RequestLacksReuseAddress);
    assert_all(&[
        (held(TimeWait, "127.0.0.1", PLAIN), bind("0.0.0.0", PLAIN), lacks),
        (held(TimeWait, "127.0.0.1", PLAIN), bind("127.0.0.2", PLAIN), Accepted),
    ]);
}

#[test]
fn ephemeral_port_of_a_client_established_or_in_time_wait() {
    let lacks = Refused(Rule::HolderLacksReuseAddress);
    let kept = Refused(Rule::TimeWaitLacksReuseAddress);
    assert_all(&[
        (held(Connected, "127.0.0.1", PLAIN), bind("127.0.0.1", REUSE), lacks.clone()),
        (held(Connected, "127.0.0.1", PLAIN), bind("0.0.0.0", REUSE), lacks),
        (held(Connected, "127.0.0.1", PLAIN), bind("127.0.0.2", REUSE), Accepted),
        (held(TimeWait, "127.0.0.1", PLAIN), bind("127.0.0.1", REUSE), kept.clone()),
        (held(TimeWait, "127.0.0.1", PLAIN), bind("0.0.0.0", REUSE), kept),
        (held(TimeWait, "127.0.0.1", PLAIN), bind("127.0.0.2", REUSE), Accepted),
    ]);
}

#[test]
fn reuse_port_on_both_of_the_same_user_and_of_another() {
    let refused = Refused(Rule::ReusePortOfAnotherUser);
    for state in [Listener, Bound] {
        let holder = held(state, "127.0.0.1", SHARE);
        let stranger = Holder { uid: Some(1_000), ..holder };
        assert_all(&[
            (holder, bind("127.0.0.1", SHARE), Accepted),
            (holder, listen("127.0.0.1", SHARE), Accepted),
            (stranger, bind("127.0.0.1", SHARE), refused.clone()),
        ]);
    }
}

#[test]
fn reuse_address_on_both_none_listening_of_another_user() {
    let stranger = Holder { uid: Some(1_000), ..held(Bound, "127.0.0.1", REUSE) };
    assert_all(&[(stranger, bind("127.0.0.1", REUSE), Accepted)]);
}

#[test]
fn plain_socket_and_a_reuse_port_listener_and_the_other_way_round() {
    assert_all(&[
        (held(Listener, "127.0.0.1", SHARE), bind("127.0.0.1", PLAIN), Refused(Rule::RequestLacksReusePort)),
        (held(Listener, "127.0.0.1", PLAIN), bind("127.0.0.1", SHARE), Refused(Rule::HolderLacksReusePort)),
    ]);
}

#[test]
fn wildcard_listener_and_a_specific_address_and_reverse() {
    assert_all(&[
        (held(Listener, "0.0.0.0", REUSE), bind("127.0.0.1", REUSE), Refused(Rule::HolderListens)),
        (held(Listener, "127.0.0.1", REUSE), bind("0.0.0.0", REUSE), Refused(Rule::HolderListens)),
    ]);
}

#[test]
fn wildcard_bound_then_a_specific_address_bound_then_one_listens_then_the_other() {
    assert_all(&[
        (held(Bound, "0.0.0.0", REUSE), bind("127.0.0.1", REUSE), Accepted),
        (held(Bound, "0.0.0.0", REUSE), listen("127.0.0.1", REUSE), Accepted),
        (held(Listener, "127.0.0.1", REUSE), listen("0.0.0.0", REUSE), Refused(Rule::AnotherListens)),
    ]);
}

#[test]
fn two_bound_to_the_same_address_the_second_to_listen_is_refused() {
    assert_all(&[
        (held(Bound, "127.0.0.1", REUSE), bind("127.0.0.1", REUSE), Accepted),
        (held(Bound, "127.0.0.1", REUSE), listen("127.0.0.1", REUSE), Accepted),
        (held(Listener, "127.0.0.1", REUSE), listen("127.0.0.1", REUSE), Refused(Rule::AnotherListens)),
    ]);
}

#[test]
fn listener_at_another_address() {
    assert_all(&[(held(Listener, "127.0.0.1", PLAIN), bind("127.0.0.2", PLAIN), Accepted)]);
}

#[test]
fn dual_stack_listener_and_ipv4_and_reverse() {
    let refused = Refused(Rule::HolderListens);
    assert_all(&[
        (held(Listener, "::", PLAIN), bind("0.0.0.0", PLAIN), refused.clone()),
        (held(Listener, "::", PLAIN), bind("127.0.0.1", PLAIN), refused.clone()),
        (held(Listener, "0.0.0.0", PLAIN), bind("::", PLAIN), refused.clone()),
        (held(Listener, "127.0.0.1", PLAIN), bind("::", PLAIN), refused.clone()),
        (held(Listener, "127.0.0.1", PLAIN), bind("::ffff:127.0.0.1", PLAIN), refused),
    ]);
}

#[test]
fn v6_only_next_to_ipv4_in_both_orders_and_loopbacks_of_both_families() {
    assert_all(&[
        (held(Listener, "::", ONLY_V6), bind("0.0.0.0", PLAIN), Accepted),
        (held(Listener, "0.0.0.0", PLAIN), bind("::", ONLY_V6), Accepted),
        (held(Listener, "127.0.0.1", PLAIN), bind("::1", PLAIN), Accepted),
    ]);
}

/// `ipv4_rcv_saddr_equal()`: the wildcard asks nothing of the other socket but that it is not V6ONLY.
#[test]
fn ipv4_wildcard_is_refused_because_of_an_ipv6_address_but_not_the_other_way_round() {
    assert_all(&[
        (held(Listener, "::1", PLAIN), bind("0.0.0.0", PLAIN), Refused(Rule::HolderListens)),
        (held(Listener, "::1", ONLY_V6), bind("0.0.0.0", PLAIN), Accepted),
        (held(Listener, "0.0.0.0", PLAIN), bind("::1", PLAIN), Accepted),
        (held(Listener, "::1", PLAIN), bind("::ffff:0.0.0.0", PLAIN), Accepted),
    ]);
}

#[test]
fn sockets_of_two_devices_do_not_meet() {
    let holder = Holder { device: Some(2), ..held(Listener, "0.0.0.0", PLAIN) };
    let request = Request { device: 3, ..bind("0.0.0.0", PLAIN) };
    assert_all(&[
        (holder, request, Accepted),
        (holder, Request { device: 2, ..request }, Refused(Rule::HolderListens)),
        (holder, bind("0.0.0.0", PLAIN), Refused(Rule::HolderListens)),
        (held(Listener, "0.0.0.0", PLAIN), request, Refused(Rule::HolderListens)),
        (Holder { device: None, ..holder }, request, Verdict::Undecided(vec![Fact::Device])),
    ]);
}

#[test]
fn another_port_is_in_nobodys_way() {
    let request = Request { local: SocketAddr::new(at("127.0.0.1").ip(), PORT + 1), ..bind("127.0.0.1", PLAIN) };
    assert_all(&[(held(Listener, "127.0.0.1", PLAIN), request, Accepted)]);
}

#[test]
fn what_is_not_known_is_named_only_where_it_decides() {
    let undecided = |facts: &[Fact]| Verdict::Undecided(facts.to_vec());
    let timewait = Holder { v6_only: None, ..dumped(TimeWait, "::1") };
    assert_all(&[
        (dumped(Listener, "127.0.0.1"), bind("127.0.0.1", REUSE), Refused(Rule::HolderListens)),
        (dumped(Listener, "127.0.0.1"), bind("127.0.0.1", SHARE), undecided(&[Fact::ReusePort])),
        (dumped(Bound, "127.0.0.1"), bind("127.0.0.1", PLAIN), Refused(Rule::RequestLacksReuseAddress)),
        (dumped(TimeWait, "127.0.0.1"), bind("127.0.0.1", REUSE), undecided(&[Fact::ReuseAddress])),
        (dumped(TimeWait, "127.0.0.1"), bind("127.0.0.2", REUSE), Accepted),
        (timewait, bind("::1", PLAIN), Refused(Rule::RequestLacksReuseAddress)),
        (timewait, bind("0.0.0.0", PLAIN), undecided(&[Fact::V6Only])),
        (timewait, bind("0.0.0.0", REUSE), undecided(&[Fact::V6Only, Fact::ReuseAddress])),
    ]);
}

#[test]
fn user_of_a_connection_does_not_decide_alone() {
    let accepted_by_a_worker = Holder { uid: Some(33), ..held(Connected, "127.0.0.1", SHARE) };
    assert_all(&[
        (accepted_by_a_worker, bind("127.0.0.1", SHARE), Verdict::Undecided(vec![Fact::Bucket])),
        (Holder { uid: None, ..accepted_by_a_worker }, bind("127.0.0.1", SHARE), Verdict::Undecided(vec![Fact::User])),
        (Holder { uid: Some(0), ..accepted_by_a_worker }, bind("127.0.0.1", SHARE), Accepted),
    ]);
}

#[test]
fn among_many_the_first_that_is_in_the_way_for_certain() {
    let (elsewhere, unknown) = (held(Listener, "127.0.0.2", PLAIN), dumped(TimeWait, "127.0.0.1"));
    let listener = held(Listener, "127.0.0.1", PLAIN);
    let request = bind("127.0.0.1", REUSE);
    assert_eq!(decide(&request, &[]), Outcome::Accepted);
    assert_eq!(decide(&request, &[elsewhere]), Outcome::Accepted);
    let undecided = Outcome::Undecided { holder: 1, unknown: vec![Fact::ReuseAddress] };
    assert_eq!(decide(&request, &[elsewhere, unknown]), undecided);
    let refused = Outcome::Refused { holder: 2, rule: Rule::HolderListens };
    assert_eq!(decide(&request, &[elsewhere, unknown, listener]), refused);
}

/// `inet_csk_update_fastreuse()`: the second one's user and address are what a third one is compared with.
#[test]
fn reuse_port_of_another_holder_may_let_in() {
    let first = held(Bound, "127.0.0.1", REUSE);
    let second = held(Bound, "127.0.0.1", SocketOptions { reuse_port: true, ..REUSE });
    let request = bind("127.0.0.1", SHARE);
    let refused = Outcome::Refused { holder: 0, rule: Rule::HolderLacksReusePort };
    let undecided = Outcome::Undecided { holder: 0, unknown: vec![Fact::Bucket] };
    assert_eq!(decide(&request, &[first]), refused);
    assert_eq!(decide(&request, &[first, second]), undecided);
    let elsewhere = Holder { local: at("127.0.0.2"), ..second };
    assert_eq!(decide(&request, &[first, elsewhere]), refused);
    let stranger = Holder { uid: Some(1_000), ..second };
    assert_eq!(decide(&request, &[first, stranger]), refused);
    assert_eq!(
        decide(&bind("127.0.0.1", PLAIN), &[first, second]),
        Outcome::Refused { holder: 0, rule: Rule::RequestLacksReuseAddress }
    );
}

#[test]
fn remedies_are_those_that_help() {
    use Remedy::{OtherPort, ReuseAddress, ReuseAddressOnBoth, ReusePort, ReusePortOnBoth, TimeWaitEnds};
    let rows: [(&[Holder], Request, &[Remedy]); 7] = [
        (&[held(Listener, "127.0.0.2", PLAIN)], bind("127.0.0.1", PLAIN), &[]),
        (&[held(Listener, "127.0.0.1", PLAIN)], bind("127.0.0.1", PLAIN), &[ReusePortOnBoth, OtherPort]),
        (&[held(Listener, "127.0.0.1", SHARE)], bind("127.0.0.1", PLAIN), &[ReusePort, OtherPort]),
        (&[held(Bound, "127.0.0.1", REUSE)], bind("127.0.0.1", PLAIN), &[ReuseAddress, ReusePortOnBoth, OtherPort]),
        (
            &[held(TimeWait, "127.0.0.1", PLAIN)],
            bind("127.0.0.1", REUSE),
            &[ReuseAddressOnBoth, ReusePortOnBoth, TimeWaitEnds, OtherPort],
        ),
        (
            &[held(TimeWait, "127.0.0.1", PLAIN), held(Listener, "127.0.0.1", PLAIN)],
            bind("127.0.0.1", REUSE),
            &[ReusePortOnBoth, OtherPort],
        ),
        (&[Holder { uid: Some(1_000), ..held(Listener, "127.0.0.1", SHARE) }], bind("127.0.0.1", SHARE), &[OtherPort]),
    ];
    for (holders, request, expected) in rows {
        assert_eq!(remedies(&request, holders), expected, "{request:?} while {holders:?}");
    }
}
