//! A wire between two namespaces whose packets a test holds back, drops and delivers one by one.
//!
//! Some endings hang on two packets crossing each other, or on one arriving before another. On the loopback that is a
//! matter of luck. Here both ends are TUN devices, and what one sends reaches the other only when the test says so.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketType, socket};

use crate::netns::{Net, interface_request, set_up};

const DEVICE: &str = "/dev/net/tun";
const INTERFACE: &str = "wire0";
/// Address of the left end
pub(crate) const LEFT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Address of the right end
pub(crate) const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);

const WAIT: Duration = Duration::from_secs(10);

/// Whether this host has TUN devices, or why not.
pub(crate) fn is_usable() -> Result<(), String> {
    open().map(drop).map_err(|error| format!("{DEVICE}: {error}"))
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    LeftToRight,
    RightToLeft,
}

/// A TCP segment in an IPv4 packet.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    packet: Vec<u8>,
}

impl Segment {
    /// A packet that is IPv4 and TCP; everything else (IPv6's router solicitations, for one) is not of interest.
    fn of(packet: &[u8]) -> Option<Self> {
        let is_tcp = packet.first()? >> 4 == 4 && packet.get(9) == Some(&6) && packet.len() >= 40;
        is_tcp.then(|| Self { packet: packet.to_vec() })
    }

    fn header_length(&self) -> usize {
        usize::from(self.packet[0] & 0xf) * 4
    }

    fn flags(&self) -> u8 {
        self.packet[self.header_length() + 13]
    }

    /// It has the FIN bit.
    pub(crate) fn is_fin(&self) -> bool {
        self.flags() & 1 != 0
    }

    /// It has the RST bit.
    pub(crate) fn is_reset(&self) -> bool {
        self.flags() & 4 != 0
    }

    /// Bytes of data in it.
    pub(crate) fn payload(&self) -> usize {
        let tcp = self.header_length();
        self.packet.len() - tcp - usize::from(self.packet[tcp + 12] >> 4) * 4
    }
}

/// One direction of the wire.
struct Lane {
    state: Mutex<LaneState>,
    arrived: Condvar,
    /// The device of the receiving end
    to: File,
}

#[derive(Default)]
struct LaneState {
    holds: bool,
    held: Vec<Segment>,
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a packet from the sending end.
    fn take(&self, packet: &[u8]) {
        let Some(segment) = Segment::of(packet) else { return };
        let mut state = self.lock();
        if state.holds {
            state.held.push(segment);
            self.arrived.notify_all();
        } else {
            // A receiver that is going away refuses; TCP sends again, or the test is over.
            let _ = (&self.to).write_all(&segment.packet);
        }
    }
}

/// The wire; closed when dropped.
pub(crate) struct Wire {
    left_to_right: Arc<Lane>,
    right_to_left: Arc<Lane>,
    is_over: Arc<AtomicBool>,
    carriers: Vec<JoinHandle<()>>,
}

impl Wire {
    /// Connects two namespaces.
    pub(crate) fn between(left: &Net, right: &Net) -> io::Result<Self> {
        let (left, right) = (attach(left, LEFT)?, attach(right, RIGHT)?);
        let lane = |to: &File| -> io::Result<Arc<Lane>> {
            Ok(Arc::new(Lane { state: Mutex::default(), arrived: Condvar::new(), to: to.try_clone()? }))
        };
        let (left_to_right, right_to_left) = (lane(&right)?, lane(&left)?);
        let is_over = Arc::new(AtomicBool::new(false));
        let carriers = vec![
            carry(left, Arc::clone(&left_to_right), Arc::clone(&is_over)),
            carry(right, Arc::clone(&right_to_left), Arc::clone(&is_over)),
        ];
        Ok(Self { left_to_right, right_to_left, is_over, carriers })
    }

    fn lane(&self, way: Way) -> &Lane {
        match way {
            Way::LeftToRight => &self.left_to_right,
            Way::RightToLeft => &self.right_to_left,
        }
    }

    /// From now on keeps what goes this way.
    pub(crate) fn hold(&self, way: Way) {
        self.lane(way).lock().holds = true;
    }

    /// Waits for a held packet like this one and takes it out.
    pub(crate) fn take(&self, way: Way, is_wanted: impl Fn(&Segment) -> bool) -> io::Result<Segment> {
        let lane = self.lane(way);
        let (mut state, timeout) = lane
            .arrived
            .wait_timeout_while(lane.lock(), WAIT, |state| !state.held.iter().any(&is_wanted))
            .unwrap_or_else(PoisonError::into_inner);
        match state.held.iter().position(is_wanted) {
            Some(at) => Ok(state.held.remove(at)),
            None => Err(io::Error::other(format!(
                "no such packet {way:?} (timed out: {}); held: {:?}",
                timeout.timed_out(),
                state.held
            ))),
        }
    }

    /// Delivers a packet that was taken out.
    pub(crate) fn deliver(&self, way: Way, segment: &Segment) -> io::Result<()> {
        (&self.lane(way).to).write_all(&segment.packet)
    }

    /// Throws away what is held and lets pass whatever comes.
    pub(crate) fn release(&self, way: Way) {
        let mut state = self.lane(way).lock();
        state.held.clear();
        state.holds = false;
    }

    /// Answers a packet that was going right: "host unreachable", from a router in between.
    pub(crate) fn refuse_as_unreachable(&self, segment: &Segment) -> io::Result<()> {
        const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
        // RFC 792: type 3 code 1, checksum, four unused bytes, the packet's IP header and its first 64 bits.
        let quoted = segment.header_length() + 8;
        let mut icmp = vec![3, 1, 0, 0, 0, 0, 0, 0];
        icmp.extend_from_slice(&segment.packet[..quoted]);
        let sum = checksum(&icmp).to_be_bytes();
        icmp[2..4].copy_from_slice(&sum);
        let length = u16::try_from(20 + icmp.len()).map_err(io::Error::other)?.to_be_bytes();
        let mut packet = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, 1, 0, 0];
        packet.extend_from_slice(&ROUTER.octets());
        packet.extend_from_slice(&LEFT.octets());
        let sum = checksum(&packet).to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        packet.extend_from_slice(&icmp);
        (&self.lane(Way::RightToLeft).to).write_all(&packet)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for carrier in self.carriers.drain(..) {
            let _ = carrier.join();
        }
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| low.into())).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// Carries packets of one device to its lane until the wire is over.
fn carry(from: File, lane: Arc<Lane>, is_over: Arc<AtomicBool>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut packet = [0; 2048];
        while !is_over.load(Ordering::Relaxed) {
            match (&from).read(&mut packet) {
                Ok(length) => lane.take(&packet[..length]),
                // A wire has a latency; this is it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(Duration::from_micros(500)),
                Err(_) => return,
            }
        }
    })
}

fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE)
}

/// Makes a TUN device in a namespace and gives it an address.
fn attach(net: &Net, address: Ipv4Addr) -> io::Result<File> {
    net.inside(|| {
        let device = open()?;
        let mut request = interface_request(INTERFACE)?;
        let kind = libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI).map_err(io::Error::other)?;
        // SAFETY: the request is a whole `ifreq`; the union's member is the one TUNSETIFF asks for.
        let result = unsafe {
            request.ifr_ifru.ifru_flags = kind;
            libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        set_address(libc::SIOCSIFADDR, address)?;
        set_address(libc::SIOCSIFNETMASK, NETMASK)?;
        set_up(INTERFACE)?;
        Ok(device)
    })
}

fn set_address(what: libc::Ioctl, address: Ipv4Addr) -> io::Result<()> {
    let mut request = interface_request(INTERFACE)?;
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let address = socket_address(SocketAddrV4::new(address, 0));
    // SAFETY: `sockaddr` and `sockaddr_in` have the same size, and the union's member is the one these requests ask
    // for; the kernel only reads it.
    let result = unsafe {
        request.ifr_ifru.ifru_addr = std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(address);
        libc::ioctl(socket.as_raw_fd(), what, &raw const request)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn socket_address(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(),
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    }
}
