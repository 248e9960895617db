//! A recording without the names and addresses in it, to be given away.
//!
//! Each name and each address is replaced by another one of its kind, everywhere by the same: who did what towards whom can
//! be read as before, and not who that is. What decides is kept: ports, times, numbers of processes and users, and what
//! sort of address it is (the wildcard, loopback, multicast, link-local; IPv4 or IPv6). The types are taken apart field by field,
//! so that a new one does not pass unseen.

use std::{
    collections::HashMap,
    io::{self, BufRead, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use thiserror::Error;

use super::{Destination, Line, ReplayError, Writer, lines::Lines};
use crate::{
    model::{
        Census, ClosedByPeer, Connection, Container, Event, Name, NetnsCensus, Process, RefusedCall, Retraction, Rows,
        SocketHolders, SocketRow, Task, TimeWaitEvent, Transition,
    },
    report::{Host, SessionFacts},
    state::{
        Input,
        failures::{HolderSeen, HoldersSeen},
    },
};

/// Names, and addresses, that one recording can have replaced: memory is bounded, and so is what a port scan takes of it.
const MOST: u32 = 1 << 20;
/// The range for measuring networks (RFC 2544), the reserved one for what does not fit, and the one for documentation (RFC
/// 3849): nobody has any of them.
const IPV4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const IPV4_ADDRESSES: u32 = 1 << 17;
const MORE_IPV4: Ipv4Addr = Ipv4Addr::new(240, 0, 0, 0);
const IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);

/// There are more of them than can be replaced.
#[derive(Debug, Error)]
#[error("there are more than {MOST} different {0} in it: it cannot be redacted")]
pub struct TooMany(&'static str);

/// Why a recording could not be redacted.
#[derive(Debug, Error)]
pub enum RedactError {
    /// It is none, or damaged
    #[error(transparent)]
    Read(#[from] ReplayError),
    /// The copy could not be written, or there is [too much](TooMany) to replace
    #[error("write the copy")]
    Write(#[from] io::Error),
}

/// Copies a recording without the names and addresses in it. The copy of one that is cut off is cut off, too.
///
/// # Errors
/// It cannot be read, or the copy not be written.
pub fn redact(recording: impl BufRead, copy: Box<dyn Write>) -> Result<(), RedactError> {
    let mut lines = Lines::of(recording);
    let Some(Line::Header { started, .. }) = lines.next()? else { return Err(ReplayError::NoHeader.into()) };
    let mut writer = Writer::begin(Destination { out: copy, is_redacted: true }, started)?;
    while let Some(line) = lines.next()? {
        let is_last = matches!(line, Line::End { .. });
        writer.line(line)?;
        // Nobody reads on from there.
        if is_last {
            break;
        }
    }
    writer.settle()?;
    Ok(())
}

/// What a name is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Host,
    Process,
    Executable,
    Cgroup,
    Unit,
    ContainerId,
    Container,
    Image,
    PodUid,
    Pod,
    Namespace,
}

impl Kind {
    const fn substitute(self) -> &'static str {
        match self {
            Self::Host => "host-",
            Self::Process => "process-",
            Self::Executable => "/executable-",
            Self::Cgroup => "/cgroup-",
            Self::Unit => "unit-",
            Self::ContainerId => "id-",
            Self::Container => "container-",
            Self::Image => "image-",
            Self::PodUid => "uid-",
            Self::Pod => "pod-",
            Self::Namespace => "namespace-",
        }
    }
}

/// What replaces what, so far.
#[derive(Debug, Default)]
pub(super) struct Redactor {
    names: HashMap<(Kind, Name), Name>,
    /// How many there are of a kind
    counts: HashMap<Kind, u32>,
    addresses: HashMap<IpAddr, IpAddr>,
}

type Redacted = Result<(), TooMany>;

impl Redactor {
    /// Replaces what is in a line.
    pub(super) fn line(&mut self, line: &mut Line<'_>) -> Redacted {
        match line {
            Line::Header { format: _, version: _, started: _ } => Ok(()),
            Line::Input(input) => self.input(input.to_mut()),
            Line::Facts(facts) => self.facts(facts.to_mut()),
            Line::End { census, facts } => {
                self.census(census.to_mut())?;
                self.facts(facts.to_mut())
            }
        }
    }

    fn input(&mut self, input: &mut Input) -> Redacted {
        match input {
            Input::Begin { census, holders } => {
                self.census(census)?;
                let SocketHolders { by_inode, unreadable: _ } = holders;
                by_inode.values_mut().flatten().try_for_each(|process| self.process(process))
            }
            Input::Event(event) => self.event(event),
            Input::Process(process) => self.process(process),
            Input::Holders { call, holders } => {
                self.call(call)?;
                match holders {
                    HoldersSeen::NotLooked | HoldersSeen::Failed(_) => Ok(()),
                    HoldersSeen::Found(sockets) => sockets.iter_mut().try_for_each(|socket| {
                        let HolderSeen { row, owner: _, others: _, options: _ } = socket;
                        self.row(row)
                    }),
                }
            }
            Input::Census(census) | Input::Window { at: _, census, gone: _ } => self.census(census),
        }
    }

    fn event(&mut self, event: &mut Event) -> Redacted {
        match event {
            Event::Transition(Transition {
                at: _,
                socket: _,
                connection,
                old: _,
                new: _,
                opened: _,
                born: _,
                opener,
                accepter,
                closer,
                timewait: _,
                facts: _,
            }) => {
                self.connection(connection)?;
                let mut tasks = [opener, accepter, closer].into_iter().flatten();
                tasks.try_for_each(|task| self.task(Arc::make_mut(task)))
            }
            Event::ClosedByPeer(ClosedByPeer { at: _, netns: _, local, remote }) => {
                *local = self.address(*local)?;
                self.socket_address(remote)
            }
            Event::Retraction(Retraction { at: _, socket: _, connection }) => self.connection(connection),
            Event::Refused(call) => self.call(call),
            Event::ProcessSeen(task) => self.task(task),
            Event::TimeWait(TimeWaitEvent { at: _, id: _, connection, change: _ }) => self.connection(connection),
        }
    }

    fn call(&mut self, call: &mut RefusedCall) -> Redacted {
        let RefusedCall { at: _, call: _, netns: _, local, errno: _, options: _, asker: _, task } = call;
        self.task(task)?;
        local.as_mut().map_or(Ok(()), |local| self.socket_address(local))
    }

    fn facts(&mut self, facts: &mut SessionFacts) -> Redacted {
        let SessionFacts {
            host: Host { name, kernel: _, version: _ },
            started_at: _,
            duration: _,
            interrupted: _,
            hooks: _,
            blind_spots: _,
            lost: _,
            sockets_not_followed: _,
            malformed: _,
            bytes: _,
            alive: _,
            socket_owners: _,
            port_searches: _,
            handshakes: _,
            is_window: _,
            lost_before: _,
        } = facts;
        self.name(Kind::Host, name)
    }

    fn census(&mut self, census: &mut Census) -> Redacted {
        let Census { at: _, namespaces, unreachable: _ } = census;
        for namespace in namespaces {
            let NetnsCensus { netns: _, at: _, rows, kernel_time_wait: _, time_wait_overflow: _, settings: _ } =
                namespace;
            let mut replaced = Rows::default();
            for mut row in rows.iter() {
                self.row(&mut row)?;
                replaced.push(&row);
            }
            *rows = replaced;
        }
        Ok(())
    }

    fn row(&mut self, row: &mut SocketRow) -> Redacted {
        let SocketRow { connection, state: _, time_wait_left: _, inode: _, uid: _, silent_for: _ } = row;
        self.connection(connection)
    }

    fn task(&mut self, task: &mut Task) -> Redacted {
        let Task { key: _, uid: _, comm, cgroup_id: _, is_kernel_thread, is_agent: _ } = task;
        // The kernel's own names are the same everywhere.
        if *is_kernel_thread { Ok(()) } else { self.name(Kind::Process, comm) }
    }

    fn process(&mut self, process: &mut Process) -> Redacted {
        let Process { key: _, comm, uid: _, exe, cgroup, unit, container, netns: _ } = process;
        self.name(Kind::Process, comm)?;
        self.optional(Kind::Executable, exe)?;
        self.optional(Kind::Cgroup, cgroup)?;
        self.optional(Kind::Unit, unit)?;
        let Some(Container { runtime: _, id, pod_uid, name, image, pod, namespace }) = container else { return Ok(()) };
        self.name(Kind::ContainerId, id)?;
        self.optional(Kind::PodUid, pod_uid)?;
        self.optional(Kind::Container, name)?;
        self.optional(Kind::Image, image)?;
        self.optional(Kind::Pod, pod)?;
        self.optional(Kind::Namespace, namespace)
    }

    fn optional(&mut self, kind: Kind, name: &mut Option<Name>) -> Redacted {
        name.as_mut().map_or(Ok(()), |name| self.name(kind, name))
    }

    fn name(&mut self, kind: Kind, name: &mut Name) -> Redacted {
        if name.as_str().is_empty() {
            return Ok(());
        }
        let key = (kind, std::mem::take(name));
        if let Some(known) = self.names.get(&key) {
            *name = known.clone();
            return Ok(());
        }
        if self.names.len() >= MOST as usize {
            return Err(TooMany("names"));
        }
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        // A service and a scope are shown and grouped as what they are.
        let suffix = key.1.as_str().rsplit_once('.').map_or("", |(_, suffix)| suffix);
        let suffix = match (kind, suffix) {
            (Kind::Unit, "service" | "scope" | "slice" | "socket") => format!(".{suffix}"),
            _ => String::new(),
        };
        *name = Name::from(format!("{}{count}{suffix}", kind.substitute()).as_str());
        self.names.insert(key, name.clone());
        Ok(())
    }

    fn connection(&mut self, connection: &mut Connection) -> Redacted {
        let Connection { netns: _, local, remote } = connection;
        self.socket_address(local)?;
        self.socket_address(remote)
    }

    fn socket_address(&mut self, address: &mut SocketAddr) -> Redacted {
        address.set_ip(self.address(address.ip())?);
        Ok(())
    }

    fn address(&mut self, address: IpAddr) -> Result<IpAddr, TooMany> {
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            return Ok(address);
        }
        if let IpAddr::V6(address) = address
            && let Some(inner) = address.to_ipv4_mapped()
        {
            return Ok(match self.address(inner.into())? {
                IpAddr::V4(inner) => inner.to_ipv6_mapped().into(),
                IpAddr::V6(inner) => inner.into(),
            });
        }
        if let Some(known) = self.addresses.get(&address) {
            return Ok(*known);
        }
        let number = u32::try_from(self.addresses.len() + 1).unwrap_or(MOST);
        if number >= MOST {
            return Err(TooMany("addresses"));
        }
        let substitute = match address {
            IpAddr::V4(_) if number < IPV4_ADDRESSES => Ipv4Addr::from_bits(IPV4.to_bits() | number).into(),
            IpAddr::V4(_) => Ipv4Addr::from_bits(MORE_IPV4.to_bits() | number).into(),
            IpAddr::V6(address) if address.is_unicast_link_local() => {
                Ipv6Addr::from_bits(LINK_LOCAL.to_bits() | u128::from(number)).into()
            }
            IpAddr::V6(_) => Ipv6Addr::from_bits(IPV6.to_bits() | u128::from(number)).into(),
        };
        self.addresses.insert(address, substitute);
        Ok(substitute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stays_of_its_sort() {
        let mut redactor = Redactor::default();
        let mut replaced = |address: &str| redactor.address(address.parse().unwrap()).unwrap().to_string();
        for kept in ["127.0.0.53", "::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1"] {
            assert_eq!(replaced(kept), kept);
        }
        assert_eq!(replaced("10.0.0.1"), "198.18.0.1");
        assert_eq!(replaced("2606:4700::1111"), "2001:db8::2");
        assert_eq!(replaced("fe80::42"), "fe80::3");
        assert_eq!(replaced("::ffff:10.0.0.1"), "::ffff:198.18.0.1", "the same host");
        assert_eq!(replaced("10.0.0.1"), "198.18.0.1");
    }

    #[test]
    fn no_two_addresses_become_one() {
        let mut redactor = Redactor::default();
        let many = IPV4_ADDRESSES + 2_000;
        let addresses =
            (0..many).map(|number| redactor.address(Ipv4Addr::from_bits(0x0a00_0000 + number).into()).unwrap());
        assert_eq!(addresses.collect::<std::collections::HashSet<_>>().len(), many as usize);
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let mut redactor = Redactor::default();
        let mut replaced = |number| redactor.address(Ipv4Addr::from_bits(0x0a00_0000 + number).into());
        assert!((0..MOST - 1).all(|number| replaced(number).is_ok()));
        assert_eq!(
            replaced(MOST).unwrap_err().to_string(),
            "there are more than 1048576 different addresses in it: it cannot be redacted"
        );
        assert!(replaced(0).is_ok(), "what is known already is no more");
    }

    #[test]
    fn a_unit_stays_what_it_is() {
        let mut redactor = Redactor::default();
        let mut replaced = |kind, name: &str| {
            let mut name = Name::from(name);
            redactor.name(kind, &mut name).unwrap();
            name.to_string()
        };
        assert_eq!(replaced(Kind::Unit, "shop.service"), "unit-1.service");
        assert_eq!(replaced(Kind::Unit, "session-7.scope"), "unit-2.scope");
        assert_eq!(replaced(Kind::Unit, "a.secret"), "unit-3");
        assert_eq!(replaced(Kind::Process, "shop.service"), "process-1");
    }
}
