//! Who holds a port that was refused, looked for right after the refusal: a walk over the open files of every process, on a
//! thread of its own.

use std::net::IpAddr;

use tokio::task::JoinHandle;

use super::Session;
use crate::{
    kernel::{census::boottime, held, processes::Procfs},
    model::{Call, HeldSocket, ProcessKey, RefusedCall, SocketHolders, TcpState},
    rules,
    state::{
        Attribution, Input,
        failures::{HolderSeen, HoldersSeen, RefusedKey},
    },
};

/// Refusals whose holders are being looked for or wait for it. One that finds no room is looked for at its next time.
const MAX_PENDING_LOOKUPS: usize = 64;

/// What a search for the holders of a port brings back.
pub(super) type Found = Result<Vec<HeldSocket>, String>;

impl Session {
    pub(super) fn want_holders(&mut self, call: RefusedCall) {
        let key = RefusedKey::of(&call);
        if key.is_about_a_holder()
            && self.pending.len() < MAX_PENDING_LOOKUPS
            && self.state.wants_holders(&call)
            && !self.pending.iter().any(|pending| RefusedKey::of(pending) == key)
        {
            self.pending.push(call);
        }
    }

    pub(super) fn begin_lookup(&mut self) {
        if self.lookup.is_some() || self.pending.is_empty() {
            return;
        }
        let calls = std::mem::take(&mut self.pending);
        let procfs = self.procfs.clone();
        self.lookup = Some(tokio::task::spawn_blocking(move || {
            // Before the rows: what is listed then and not here yet has no process, and is not put behind another one.
            let holders = procfs.socket_holders();
            calls
                .into_iter()
                .map(|call| {
                    let found = look_for_holders(&procfs, &holders, &call);
                    (call, found)
                })
                .collect()
        }));
    }

    pub(super) async fn finish_lookups(&mut self) {
        while let Some(lookup) = self.lookup.take() {
            self.take_holders(lookup).await;
            self.begin_lookup();
        }
    }

    pub(super) async fn take_holders(&mut self, lookup: JoinHandle<Vec<(RefusedCall, Found)>>) {
        let answers = match lookup.await {
            Ok(answers) => answers,
            Err(error) => return log::error!("the search for holders failed: {error}"),
        };
        for (call, found) in answers {
            let holders = match found {
                Ok(sockets) => self.name_holders(&call, sockets),
                Err(why) => HoldersSeen::Failed(why),
            };
            self.feed(Input::Holders { call, holders });
        }
    }

    pub(super) fn name_holders(&mut self, call: &RefusedCall, sockets: Vec<HeldSocket>) -> HoldersSeen {
        let dumped = boottime();
        let mut seen = Vec::with_capacity(sockets.len());
        for HeldSocket { row, processes, options } in sockets {
            let mut keys: Vec<ProcessKey> = processes.iter().map(|process| process.key).collect();
            for process in processes {
                self.feed(Input::Process(process));
            }
            let (owner, options) = if keys.is_empty() {
                let owner = match self.state.attribute(&row, dumped, false) {
                    Attribution::Process(key, _) => Some(key),
                    Attribution::Unknown(_) => None,
                };
                (owner, self.state.options_kept(&row, dumped))
            } else {
                (Some(keys.remove(0)), options)
            };
            // The socket whose listen() was refused is bound to the port itself.
            let is_refused_one =
                call.call == Call::Listen && row.state == TcpState::BoundInactive && owner == Some(call.task.key);
            if !is_refused_one {
                seen.push(HolderSeen { row, owner, others: keys, options });
            }
        }
        if seen.is_empty() {
            return HoldersSeen::Failed(
                "no socket that has this address and port was found in its namespace any more: it was let go in the \
                 meantime, or (before Linux 6.8, which lists no socket that is bound and nothing else) its process may \
                 not be looked at"
                    .to_owned(),
            );
        }
        HoldersSeen::Found(seen)
    }
}

/// Every socket of the namespace that has what the call asked for. A socket whose bind() was refused has no port.
fn look_for_holders(procfs: &Procfs, holders: &SocketHolders, call: &RefusedCall) -> Found {
    let Some(asked) = call.local else { return Err("what it asked for could not be read".to_owned()) };
    let is_overlap = |held: IpAddr| rules::is_overlap(asked.ip(), call.options.v6_only, held, false);
    let mut found = held::at_port(procfs, holders, asked.port(), Some(call.netns));
    let Some(namespace) = found.namespaces.pop() else {
        let why = found.unreachable.pop().map_or_else(|| "its namespace was not found".to_owned(), |(_, why)| why);
        return Err(why);
    };
    let mut sockets = namespace.sockets;
    sockets.retain(|socket| is_overlap(socket.row.connection.local.ip()));
    Ok(sockets)
}
