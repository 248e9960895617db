//! The sockets that are followed: what is known of a connection, by the address of its socket.
//!
//! An entry is looked for at most transitions and made and dropped once a connection, so this is where the time of the
//! programs goes. The kernel's hash table takes a function call for each of these and locks for two. So there are two
//! tables: places in an array, one for each hash of an address, reached by a few instructions; and the hash table, for
//! the sockets whose place is another one's.
//!
//! What is done to an entry is done under the lock of its socket, or by accept(), which comes once. What two sockets can do
//! to one place at the same time is to claim it.

use core::arch::asm;

use agent_ebpf::TaskNumber;
use aya_ebpf::{
    bindings::BPF_ANY,
    macros::map,
    maps::{Array, HashMap},
};

use crate::{settings::config, states::CLOSE};

/// What is known of a connection, kept by socket from process context to the softirq that ends it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Connection {
    pub(crate) opener: Who,
    pub(crate) closer: Who,
    /// `CLOCK_BOOTTIME` in nanoseconds; 0: began before the session
    pub(crate) born_ns: u64,
    /// Address of its timewait socket
    pub(crate) timewait: u64,
    /// `conn_flag` bits
    pub(crate) flags: u16,
    /// Positive errno of the search for a local port
    pub(crate) port_errno: u16,
    /// `timewait_state`
    pub(crate) timewait_state: u8,
    /// The last change of state that was dealt with: the old one in the upper four bits, the new one in the lower
    pub(crate) last_transition: u8,
    /// Local port, host order, as it was when this side closed; 0: not known
    pub(crate) local_port: u16,
    /// Inode number of its network namespace, as it was when it began; 0: not known. Read when the kernel has just counted
    /// the socket there: later another CPU has counted another one, and memory has to be waited for.
    pub(crate) netns: u32,
    /// Always zero
    pub(crate) reserved: u32,
}

impl Connection {
    /// Makes it the entry of a socket of which nothing is known, if it is of another one that had the same address: that
    /// one has ended, and this one, which is in `state` or leaves it, has not. An entry outlives its socket where the
    /// kernel runs no program at `tcp_destroy_sock`. Returns whether it was.
    #[inline(always)]
    pub(crate) fn renew_if_left_over(&mut self, state: u8) -> bool {
        let is_left_over = self.last_transition & 0xf == CLOSE && state != CLOSE;
        if is_left_over {
            self.clear();
        }
        is_left_over
    }

    /// Nothing is known any more: as [`UNSEEN`].
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        let words = (&raw mut *self).cast::<u64>();
        for number in 0..size_of::<Self>() / size_of::<u64>() {
            // SAFETY: one of the words of a live, aligned value, all of whose bits may be zero. Volatile, as what the
            // compiler makes of plain zeroes is a call that writes byte by byte.
            unsafe { words.add(number).write_volatile(0) };
        }
    }
}

const _: () = assert!(size_of::<Connection>() % size_of::<u64>() == 0, "a connection is so many words");

/// A process, as a connection remembers it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Who {
    /// [`TaskNumber::count`]
    pub(crate) count: u32,
    /// [`TaskNumber::origin`]
    pub(crate) origin: u16,
    /// 1: it is one of those the session's filter asks for
    pub(crate) is_wanted: u16,
}

impl Who {
    pub(crate) const NOBODY: Self = Self::of(TaskNumber::NOBODY, false);

    #[inline(always)]
    pub(crate) const fn of(number: TaskNumber, is_wanted: bool) -> Self {
        Self { count: number.count, origin: number.origin, is_wanted: is_wanted as u16 }
    }

    #[inline(always)]
    pub(crate) const fn is_somebody(self) -> bool {
        self.count != 0
    }
}

/// Nothing is known: the source of new entries, in read-only memory because the stack has no room for it.
pub(crate) static UNSEEN: Connection = Connection {
    opener: Who::NOBODY,
    closer: Who::NOBODY,
    born_ns: 0,
    timewait: 0,
    flags: 0,
    port_errno: 0,
    timewait_state: 0,
    last_transition: 0,
    local_port: 0,
    netns: 0,
    reserved: 0,
};

/// Where a socket has its entry, if no other one has it there.
#[repr(C)]
struct Place {
    /// Whose it is, 0: nobody's. Written by whoever has claimed it
    sk: u64,
    /// How many have claimed it, or are about to find out that they have not
    claims: Count,
    /// Entries of the hash table that would have their place here
    elsewhere: Count,
    connection: Connection,
}

/// A number that several CPUs change at the same time.
#[repr(transparent)]
struct Count(u32);

impl Count {
    #[inline(always)]
    fn get(&self) -> u32 {
        // SAFETY: a live, aligned value. Volatile, as another CPU may have changed it.
        unsafe { (&raw const self.0).read_volatile() }
    }

    /// At once, for every CPU. The target has no atomics in Rust's terms, as 5.10 has none that return the value.
    #[inline(always)]
    fn add(&mut self, number: i64) {
        // SAFETY: an addition to four aligned bytes of a live value.
        unsafe { asm!("lock *(u32 *)({} + 0) += {}", in(reg) &raw mut self.0, in(reg) number, options(nostack)) }
    }
}

const _: () = assert!(size_of::<Place>() == 64, "a place is a line of the cache");

/// 8 MB; the agent sets the size it wants at load.
#[map]
static PLACES: Array<Place> = Array::with_max_entries(131_072, 0);

/// Preallocated, and not an LRU: an owner must never vanish silently. A full table is counted. About 14 MB; the agent
/// sets the size it wants at load.
#[map]
static SOCKETS: HashMap<u64, Connection> = HashMap::with_max_entries(131_072, 0);

/// The address of a socket as a number to calculate with. To the verifier the argument of a typed program is a pointer,
/// which may not be multiplied; negated it is one no more.
#[inline(always)]
fn number(mut sk: u64) -> u64 {
    // SAFETY: arithmetic on a register.
    unsafe { asm!("{0} = -{0}", "{0} = -{0}", inout(reg) sk, options(nomem, nostack, pure)) };
    sk
}

/// The place of a socket, by its [`number`]. There is one for every hash, so it is always found.
#[inline(always)]
fn place(sk: u64) -> Option<&'static mut Place> {
    // The upper bits of a product by the golden ratio: what is next to each other in memory ends up far apart.
    let hash = sk.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> config!(place_shift);
    let place = PLACES.get_ptr_mut(hash as u32)?;
    // SAFETY: a live value. Whoever else uses it at the same time is kept apart by `claims`, see `claim`.
    Some(unsafe { &mut *place })
}

impl Place {
    /// Makes it this socket's, if it is nobody's.
    ///
    /// Who counts one claim after its own has been added is alone, and stays so: all that come later count two. Two at
    /// the same time may both count two, and both go elsewhere. No more is asked of the kernel than an addition that
    /// returns nothing, which 5.10 has.
    #[inline(always)]
    fn claim(&mut self, sk: u64) -> bool {
        if self.claims.get() != 0 {
            return false;
        }
        self.claims.add(1);
        if self.claims.get() == 1 {
            self.sk = sk;
            return true;
        }
        self.claims.add(-1);
        false
    }
}

/// What is known of a socket; none if nothing is.
#[inline(always)]
pub(crate) fn known(sk: u64) -> Option<*mut Connection> {
    let sk = number(sk);
    let place = place(sk)?;
    if place.sk == sk {
        return Some(&raw mut place.connection);
    }
    if place.elsewhere.get() == 0 {
        return None;
    }
    SOCKETS.get_ptr_mut(sk)
}

/// The entry of a socket, made if there is none yet; none if there is no room.
#[inline(always)]
pub(crate) fn known_or_new(sk: u64) -> Option<*mut Connection> {
    let sk = number(sk);
    if let Some(known) = known(sk) {
        return Some(known);
    }
    let place = place(sk)?;
    if place.claim(sk) {
        place.connection.clear();
        return Some(&raw mut place.connection);
    }
    place.elsewhere.add(1);
    if SOCKETS.insert(sk, &UNSEEN, u64::from(BPF_ANY)).is_err() {
        place.elsewhere.add(-1);
        return None;
    }
    SOCKETS.get_ptr_mut(sk)
}

/// Drops the entry of a socket that has one.
#[inline(always)]
pub(crate) fn forget(sk: u64) {
    let sk = number(sk);
    let Some(place) = place(sk) else { return };
    if place.sk == sk {
        place.sk = 0;
        place.claims.add(-1);
    }
    // Not instead: accept() and a RST on another CPU may each have made one.
    if place.elsewhere.get() != 0 && SOCKETS.remove(sk).is_ok() {
        place.elsewhere.add(-1);
    }
}
