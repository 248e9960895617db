//! What the programs count. Every way in which they can fail to tell the agent something has a counter here.

/// Index into the per-CPU array `COUNTERS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Transition records the ring buffer had no room for.
    LostTransition = 0,
    /// Bind and listen failure records the ring buffer had no room for.
    LostSyscall = 1,
    /// Task records the ring buffer had no room for. Costs a path or a unit, never an attribution.
    LostTask = 2,
    /// Sockets whose owner could not be kept because the socket table was full.
    SocketsFull = 3,
    /// bind() or listen() calls that could not be followed because the table of calls refused them.
    CallsFull = 4,
    /// Kernel memory that could not be read: the offsets do not fit this kernel, or the object was gone.
    ReadFault = 5,
    /// Records submitted, of any kind.
    Submitted = 6,
    /// Records held back by the filter of the session.
    Filtered = 7,
    /// Transitions the kernel skipped one program for, and the other one took over.
    TakenOver = 8,
    /// Records of timewait sockets the ring buffer had no room for.
    LostTimeWait = 9,
}

impl Counter {
    /// Number of counters, the size of the array.
    pub const COUNT: u32 = 10;
}
