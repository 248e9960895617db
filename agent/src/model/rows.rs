//! Rows of a dump, packed: there may be hundreds of thousands of them, and nearly all are IPv4 sockets in TIME_WAIT.

use std::{
    fmt,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Connection, Inode, Netns, SocketRow, TcpState};

/// Bytes that are taken at once. Nothing is moved when there are more rows, and the last rows take no more than this too
/// much.
const CHUNK: usize = 1 << 16;
/// More than a row takes.
const MAX_ROW: usize = 128;

// What the first byte of a row says of the rest. The second one is the state.
const HAS_LEFT: u8 = 1 << 0;
const HAS_INODE: u8 = 1 << 1;
const HAS_UID: u8 = 1 << 2;
const HAS_SILENCE: u8 = 1 << 3;
/// The local address has the family IPv6; that of the other side is the same, or `OTHER_FAMILY` is set
const IS_V6: u8 = 1 << 4;
const OTHER_FAMILY: u8 = 1 << 5;
/// Numbers are written out: a duration that is not one of milliseconds, an inode of more than 32 bits, the flow and scope
/// of an IPv6 address
const IS_WIDE: u8 = 1 << 6;

/// Rows of a dump, in the order in which they were added.
///
/// A row takes as many bytes as what is known of it, 22 for a timewait socket of IPv4. [`SocketRow`] is what goes in and
/// comes out. To serde it is a sequence of them.
#[derive(Clone, Default)]
pub struct Rows {
    chunks: Vec<Vec<u8>>,
    len: usize,
}

/// Where a row is among its [`Rows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowPlace(u32);

impl Rows {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a row.
    pub fn push(&mut self, row: &SocketRow) {
        if self.chunks.last().is_none_or(|chunk| chunk.len() > CHUNK - MAX_ROW) {
            // Most namespaces have a few rows.
            self.chunks.push(if self.is_empty() { Vec::new() } else { Vec::with_capacity(CHUNK) });
        }
        if let Some(chunk) = self.chunks.last_mut() {
            write(chunk, row);
            self.len += 1;
        }
    }

    /// Adds the rows of another dump behind these.
    pub fn append(&mut self, mut other: Self) {
        self.chunks.append(&mut other.chunks);
        self.len += other.len;
    }

    /// The row at a place that these rows have told.
    #[must_use]
    pub fn get(&self, place: RowPlace) -> Option<SocketRow> {
        let chunk = self.chunks.get(place.0 as usize / CHUNK)?;
        Reader(chunk.get(place.0 as usize % CHUNK..)?).row()
    }

    /// Every row, by value.
    pub fn iter(&self) -> impl Iterator<Item = SocketRow> {
        self.iter_with_places().map(|(_, row)| row)
    }

    /// Every row with its place. Places stay what they are until a row is taken out.
    pub fn iter_with_places(&self) -> impl Iterator<Item = (RowPlace, SocketRow)> {
        (0..).zip(&self.chunks).flat_map(|(number, chunk)| {
            rows(chunk).map(move |(offset, row)| {
                // 2^32 bytes are 2^27 rows, which no kernel has.
                (RowPlace(u32::try_from(number * CHUNK + offset).unwrap_or(u32::MAX)), row)
            })
        })
    }

    /// Takes out the rows for which `stays` is false.
    pub fn retain(&mut self, mut stays: impl FnMut(&SocketRow) -> bool) {
        let chunks = std::mem::take(self).chunks;
        // Each chunk is given back before the next one is read.
        for chunk in chunks {
            for (_, row) in rows(&chunk) {
                if stays(&row) {
                    self.push(&row);
                }
            }
        }
    }
}

/// The rows of a chunk, with where they begin in it.
fn rows(chunk: &[u8]) -> impl Iterator<Item = (usize, SocketRow)> {
    let mut reader = Reader(chunk);
    std::iter::from_fn(move || {
        let offset = chunk.len() - reader.0.len();
        Some((offset, reader.row()?))
    })
}

/// Puts a row behind the others of its chunk.
fn write(to: &mut Vec<u8>, row: &SocketRow) {
    let SocketRow { connection, state, time_wait_left, inode, uid, silent_for } = row;
    let Connection { netns, local, remote } = connection;
    let is_plain = is_plain(local)
        && is_plain(remote)
        && [time_wait_left, silent_for].into_iter().flatten().all(|time| milliseconds(*time).is_some())
        && inode.is_none_or(|inode| u32::try_from(inode.0).is_ok());
    let mut flags = 0;
    for (is_so, flag) in [
        (time_wait_left.is_some(), HAS_LEFT),
        (inode.is_some(), HAS_INODE),
        (*uid != 0, HAS_UID),
        (silent_for.is_some(), HAS_SILENCE),
        (local.is_ipv6(), IS_V6),
        (local.is_ipv6() != remote.is_ipv6(), OTHER_FAMILY),
        (!is_plain, IS_WIDE),
    ] {
        flags |= if is_so { flag } else { 0 };
    }
    let mut written = Writer { bytes: [0; MAX_ROW], len: 0 };
    written.put([flags, *state as u8]);
    written.put(netns.0.to_ne_bytes());
    for end in [local, remote] {
        match end.ip() {
            IpAddr::V4(address) => written.put(address.octets()),
            IpAddr::V6(address) => written.put(address.octets()),
        }
        written.put(end.port().to_ne_bytes());
        if let (false, SocketAddr::V6(end)) = (is_plain, end) {
            written.put(end.flowinfo().to_ne_bytes());
            written.put(end.scope_id().to_ne_bytes());
        }
    }
    for time in [time_wait_left, silent_for].into_iter().flatten() {
        match milliseconds(*time).filter(|_| is_plain) {
            Some(milliseconds) => written.put(milliseconds.to_ne_bytes()),
            None => {
                written.put(time.as_secs().to_ne_bytes());
                written.put(time.subsec_nanos().to_ne_bytes());
            }
        }
    }
    if let Some(Inode(inode)) = inode {
        match u32::try_from(*inode).ok().filter(|_| is_plain) {
            Some(inode) => written.put(inode.to_ne_bytes()),
            None => written.put(inode.to_ne_bytes()),
        }
    }
    if *uid != 0 {
        written.put(uid.to_ne_bytes());
    }
    to.extend_from_slice(written.bytes());
}

/// A row that is being written. It goes behind the others as a whole: a vector looks for room each time.
struct Writer {
    bytes: [u8; MAX_ROW],
    len: usize,
}

impl Writer {
    /// There is room for every row.
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some(room) = self.bytes.get_mut(self.len..).and_then(<[u8]>::first_chunk_mut) {
            *room = bytes;
            self.len += N;
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

const fn is_plain(end: &SocketAddr) -> bool {
    match end {
        SocketAddr::V4(_) => true,
        SocketAddr::V6(end) => end.flowinfo() == 0 && end.scope_id() == 0,
    }
}

/// A time as sock_diag tells it; none if there is more to it.
fn milliseconds(time: Duration) -> Option<u32> {
    // In 32 bits, not in the 128 that `Duration` counts them in.
    let seconds = u32::try_from(time.as_secs()).ok()?.checked_mul(1_000)?;
    let nanoseconds = time.subsec_nanos();
    if nanoseconds.is_multiple_of(1_000_000) { seconds.checked_add(nanoseconds / 1_000_000) } else { None }
}

/// What is still to be read of a chunk.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn word(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_ne_bytes)
    }

    fn row(&mut self) -> Option<SocketRow> {
        let [flags, state] = self.bytes()?;
        let has = |flag| flags & flag != 0;
        let is_wide = has(IS_WIDE);
        let netns = Netns(self.word()?);
        let local = self.end(has(IS_V6), is_wide)?;
        let remote = self.end(has(IS_V6) != has(OTHER_FAMILY), is_wide)?;
        Some(SocketRow {
            connection: Connection { netns, local, remote },
            state: TcpState::from_number(state)?,
            time_wait_left: if has(HAS_LEFT) { Some(self.time(is_wide)?) } else { None },
            silent_for: if has(HAS_SILENCE) { Some(self.time(is_wide)?) } else { None },
            inode: match (has(HAS_INODE), is_wide) {
                (false, _) => None,
                (true, false) => Some(Inode(self.word()?.into())),
                (true, true) => Some(Inode(u64::from_ne_bytes(self.bytes()?))),
            },
            uid: if has(HAS_UID) { self.word()? } else { 0 },
        })
    }

    fn end(&mut self, is_v6: bool, is_wide: bool) -> Option<SocketAddr> {
        if !is_v6 {
            let address: [u8; 4] = self.bytes()?;
            return Some((address, u16::from_ne_bytes(self.bytes()?)).into());
        }
        let address: [u8; 16] = self.bytes()?;
        let port = u16::from_ne_bytes(self.bytes()?);
        let (flow, scope) = if is_wide { (self.word()?, self.word()?) } else { (0, 0) };
        Some(SocketAddrV6::new(address.into(), port, flow, scope).into())
    }

    fn time(&mut self, is_wide: bool) -> Option<Duration> {
        if is_wide {
            let seconds = u64::from_ne_bytes(self.bytes()?);
            return Some(Duration::new(seconds, self.word()?));
        }
        Some(Duration::from_millis(self.word()?.into()))
    }
}

impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Rows {}

impl Extend<SocketRow> for Rows {
    fn extend<T: IntoIterator<Item = SocketRow>>(&mut self, rows: T) {
        rows.into_iter().for_each(|row| self.push(&row));
    }
}

impl FromIterator<SocketRow> for Rows {
    fn from_iter<T: IntoIterator<Item = SocketRow>>(rows: T) -> Self {
        let mut packed = Self::default();
        packed.extend(rows);
        packed
    }
}

impl From<Vec<SocketRow>> for Rows {
    fn from(rows: Vec<SocketRow>) -> Self {
        rows.into_iter().collect()
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for Rows {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sequence;

        impl<'de> de::Visitor<'de> for Sequence {
            type Value = Rows;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence of rows")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut sequence: A) -> Result<Rows, A::Error> {
                let mut rows = Rows::default();
                while let Some(row) = sequence.next_element()? {
                    rows.push(&row);
                }
                Ok(rows)
            }
        }

        deserializer.deserialize_seq(Sequence)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn end() -> impl Strategy<Value = SocketAddr> {
        prop_oneof![
            (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from),
            (any::<[u8; 16]>(), any::<u16>()).prop_map(SocketAddr::from),
            (any::<Ipv4Addr>(), any::<u16>()).prop_map(|(address, port)| (address.to_ipv6_mapped(), port).into()),
            (any::<Ipv6Addr>(), any::<u16>(), any::<u32>(), any::<u32>())
                .prop_map(|(address, port, flow, scope)| SocketAddrV6::new(address, port, flow, scope).into()),
        ]
    }

    fn time() -> impl Strategy<Value = Option<Duration>> {
        prop::option::of(prop_oneof![
            any::<u32>().prop_map(|milliseconds| Duration::from_millis(milliseconds.into())),
            any::<u64>().prop_map(Duration::from_nanos),
            any::<u64>().prop_map(Duration::from_secs),
        ])
    }

    fn row() -> impl Strategy<Value = SocketRow> {
        let inode = prop::option::of(prop_oneof![any::<u64>(), any::<u32>().prop_map(u64::from)]);
        let uid = prop_oneof![Just(0), any::<u32>()];
        (any::<u32>(), end(), end(), prop::sample::select(&TcpState::ALL[..]), time(), inode, uid, time()).prop_map(
            |(netns, local, remote, state, time_wait_left, inode, uid, silent_for)| SocketRow {
                connection: Connection { netns: Netns(netns), local, remote },
                state,
                time_wait_left,
                inode: inode.map(Inode),
                uid,
                silent_for,
            },
        )
    }

    fn time_wait(port: u16) -> SocketRow {
        SocketRow {
            connection: Connection {
                netns: Netns(1),
                local: ([10, 0, 0, 1], port).into(),
                remote: ([10, 0, 0, 2], 80).into(),
            },
            state: TcpState::TimeWait,
            time_wait_left: Some(Duration::from_millis(59_123)),
            inode: None,
            uid: 0,
            silent_for: None,
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(rows in prop::collection::vec(row(), 0..40), mask in any::<u64>()) {
            let mut packed = Rows::from(rows.clone());
            prop_assert_eq!((packed.len(), packed.is_empty()), (rows.len(), rows.is_empty()));
            prop_assert_eq!(&packed.iter().collect::<Vec<_>>(), &rows);
            for (place, row) in packed.iter_with_places() {
                prop_assert_eq!(packed.get(place), Some(row));
            }
            let json = serde_json::to_string(&packed).unwrap();
            prop_assert_eq!(&json, &serde_json::to_string(&rows).unwrap());
            // As text an address has no flow label.
            let plain: Vec<SocketRow> = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(serde_json::from_str::<Rows>(&json).unwrap(), Rows::from(plain));
            let mut twice = packed.clone();
            twice.append(packed.clone());
            prop_assert_eq!(twice.iter().collect::<Vec<_>>(), rows.repeat(2));
            for (place, row) in twice.iter_with_places() {
                prop_assert_eq!(twice.get(place), Some(row));
            }
            let mut number = 0;
            packed.retain(|_| {
                number += 1;
                mask >> (number % 64) & 1 == 1
            });
            let kept = (1..).zip(&rows).filter(|(number, _)| mask >> (number % 64) & 1 == 1).map(|(_, row)| *row);
            prop_assert_eq!(packed, kept.collect::<Rows>());
        }

        #[test]
        fn no_row_is_longer_than_its_room(row in row()) {
            let mut bytes = Vec::new();
            write(&mut bytes, &row);
            prop_assert!(bytes.len() < MAX_ROW, "{}", bytes.len());
            prop_assert_eq!(Reader(&bytes).row(), Some(row), "nothing was left out for want of room");
        }
    }

    #[test]
    fn many_rows_take_22_bytes_each() {
        let rows: Rows = (0..60_000).map(time_wait).collect();
        let bytes: usize = rows.chunks.iter().map(Vec::capacity).sum();
        assert!((60_000 * 22..60_000 * 22 + 2 * CHUNK).contains(&bytes), "{bytes}");
        assert_eq!(rows.iter().collect::<Vec<_>>(), (0..60_000).map(time_wait).collect::<Vec<_>>());
        let last = rows.iter_with_places().last().unwrap();
        assert_eq!((rows.get(last.0), last.1), (Some(time_wait(59_999)), time_wait(59_999)));
        assert_eq!(rows.get(RowPlace(u32::MAX)), None);
    }
}
