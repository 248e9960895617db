//! Reports of windows: what a session that lasts for months is asked for, again and again.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::Session;
use crate::{
    kernel::{census::boottime, held},
    model::{Census, Inode, Netns, Process, ProcessKey, Rows},
    report::{Report, SessionFacts, build, sockets_to_name},
    state::Input,
};

/// How often it is looked, at most, who has which socket open. It is a walk over the open files of every process.
const WALK: Duration = Duration::from_secs(60);

/// What a walk over the open files of every process found for a report.
pub(super) struct Walk {
    at: Instant,
    /// Who has the sockets open that the report named; the oldest of several
    owners: HashMap<Inode, Process>,
    /// Sockets that are bound and nothing else, where sock_diag does not list them
    bound: Vec<(Netns, Rows)>,
}

impl Session {
    /// The report of the time since the last window or, for the first one, since the session began; the next window begins
    /// with it.
    ///
    /// What happened (events, losses, connections that ended, failures, peaks) is counted in the window; what is there
    /// (timewait sockets, ports in use, connections in CLOSE_WAIT, forecasts) is as of its end, and whose it is has been
    /// learned since the session began. Who has live sockets open is looked for where a report names it, and once a minute
    /// at most: a socket that is younger than the last look has no process in the report.
    ///
    /// # Errors
    /// The kernel's counters cannot be read. The window goes on.
    pub async fn window(&mut self) -> anyhow::Result<Report> {
        let mut census = self.take_stock().await?;
        let named = self.look_for_owners(&mut census).await?;
        let gone = self.look_who_is_gone().await?;
        self.finish_lookups().await;
        let (at, wall_clock) = (boottime(), jiff::Timestamp::now());
        let counted = self.counted()?;
        let mut facts = SessionFacts { is_window: true, ..self.facts(at, &counted, &gone) };
        self.name_owners(named, &mut facts);
        let report = build(&self.state, &census, &facts);
        self.feed(Input::Window { at, census, gone: gone.into_iter().collect() });
        self.told = counted.after(&self.told);
        self.window_at = wall_clock;
        self.reconciled = Instant::now();
        self.has_reconciled = true;
        self.found_no_port = false;
        Ok(report)
    }

    /// What a report of the session so far would be made from, without making it: what a live view draws is made from more
    /// than the report. Nothing ends with it. Who has live sockets open is looked for as for [windows](Self::window).
    ///
    /// # Errors
    /// The kernel's counters cannot be read.
    pub async fn look(&mut self) -> anyhow::Result<(Census, SessionFacts)> {
        let mut census = self.take_stock().await?;
        let named = self.look_for_owners(&mut census).await?;
        let mut facts = self.facts(boottime(), &self.counted()?, &HashSet::new());
        self.name_owners(named, &mut facts);
        Ok((census, facts))
    }

    fn name_owners(&mut self, named: Vec<(Inode, Process)>, facts: &mut SessionFacts) {
        for (inode, process) in named {
            facts.alive.insert(process.key);
            facts.socket_owners.push((inode, process.key));
            self.feed(Input::Process(process));
        }
        facts.socket_owners.sort_unstable_by_key(|(inode, _)| *inode);
    }

    /// Who has the sockets open that the report names. Adds to the census those that take ports and are not listed.
    async fn look_for_owners(&mut self, census: &mut Census) -> anyhow::Result<Vec<(Inode, Process)>> {
        let is_out_of_ports = self.state.has_run_out_of_ports();
        let wanted = sockets_to_name(&self.state, census);
        if !is_out_of_ports && wanted.is_empty() {
            // What there was to say is over: the next look is for something else.
            self.walk.take_if(|walk| walk.at.elapsed() >= WALK);
            return Ok(Vec::new());
        }
        let is_new = |walk: &Walk| is_out_of_ports || wanted.iter().any(|inode| !walk.owners.contains_key(inode));
        if self.walk.as_ref().is_none_or(|walk| walk.at.elapsed() >= WALK && is_new(walk)) {
            let walk = self.walk(census, is_out_of_ports).await?;
            self.walk = Some(walk);
        } else if is_out_of_ports && let Some(walk) = &self.walk {
            add(&walk.bound, census);
        }
        let Some(walk) = &self.walk else { return Ok(Vec::new()) };
        let wanted = sockets_to_name(&self.state, census);
        let known = wanted.into_iter().filter_map(|inode| Some((inode, walk.owners.get(&inode)?.clone())));
        Ok(known.filter(|(_, process)| self.procfs.is_alive(process.key)).collect())
    }

    async fn walk(&mut self, census: &mut Census, is_out_of_ports: bool) -> anyhow::Result<Walk> {
        let procfs = self.procfs.clone();
        let mut mine = std::mem::take(census);
        let walk = tokio::task::spawn_blocking(move || {
            let at = Instant::now();
            let holders = procfs.socket_holders();
            let listed: Vec<usize> = mine.namespaces.iter().map(|namespace| namespace.rows.len()).collect();
            if is_out_of_ports {
                held::add_bound_only(&procfs, || &holders, None, &mut mine);
            }
            let added = mine.namespaces.iter().zip(listed).filter(|(namespace, listed)| namespace.rows.len() > *listed);
            let bound =
                added.map(|(namespace, listed)| (namespace.netns, namespace.rows.iter().skip(listed).collect()));
            (at, bound.collect(), holders, mine)
        });
        let (at, bound, holders, mine) = self.meanwhile(walk).await?;
        *census = mine;
        let wanted = sockets_to_name(&self.state, census);
        let named = holders.by_inode.into_iter().filter(|(inode, _)| wanted.contains(inode));
        let owners = named.filter_map(|(inode, processes)| Some((inode, processes.into_iter().next()?))).collect();
        Ok(Walk { at, owners, bound })
    }

    /// Of the processes that the state knows, those that do not run any more. The numbers of the others are kept.
    async fn look_who_is_gone(&mut self) -> anyhow::Result<HashSet<ProcessKey>> {
        let procfs = self.procfs.clone();
        let known: Vec<ProcessKey> = self.state.processes().collect();
        let look = tokio::task::spawn_blocking(move || -> (Vec<ProcessKey>, HashSet<ProcessKey>) {
            let (running, gone): (Vec<_>, Vec<_>) = known.into_iter().partition(|&key| procfs.is_alive(key));
            (running, gone.into_iter().collect())
        });
        let (running, gone) = self.meanwhile(look).await?;
        self.programs.get_ref().keep(running);
        Ok(gone)
    }
}

/// Adds rows to a census that it does not have.
fn add(bound: &[(Netns, Rows)], census: &mut Census) {
    for (netns, rows) in bound {
        let Some(namespace) = census.namespaces.iter_mut().find(|namespace| namespace.netns == *netns) else {
            continue;
        };
        let listed: HashSet<Inode> = namespace.rows.iter().filter_map(|row| row.inode).collect();
        for row in rows.iter().filter(|row| row.inode.is_none_or(|inode| !listed.contains(&inode))) {
            namespace.rows.push(&row);
        }
    }
}
