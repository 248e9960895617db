//! A line of text in columns, put together where it is kept until it is written.
//!
//! A trace of a busy host has some hundred thousand lines a second. So nothing that is in every line is formatted by
//! `std::fmt`, and most of a line is copied in pieces of fixed length, of which too much is cut off again: that is a few
//! instructions, where a copy of any length is a call.

use std::{
    io::Write as _,
    net::{SocketAddr, SocketAddrV4},
    time::Duration,
};

use crate::model::TcpState;

/// Blanks between two columns
const GAP: usize = 2;
/// Width of the column that [`write_duration`] fills
pub(super) const DURATION: usize = 7;
/// As many as a column is wide, with its gap
const BLANKS: [u8; 40] = [b' '; 40];
/// Bytes that are enough for nearly every line
const USUAL: usize = 256;

/// A line that is not ended yet.
pub(super) struct Line<'a>(&'a mut Vec<u8>);

impl<'a> Line<'a> {
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.reserve(USUAL);
        Self(out)
    }

    /// Writes a column, so many bytes wide, and the gap behind it.
    #[inline]
    pub(super) fn column(&mut self, width: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.0.len();
        write(self.0);
        let end = (start + width).max(self.0.len()) + GAP;
        while self.0.len() < end {
            self.0.extend_from_slice(&BLANKS);
            self.0.truncate(end);
        }
    }

    pub(super) fn rest(self) -> &'a mut Vec<u8> {
        self.0
    }
}

/// By how many bytes a column has to be wider for a text whose characters take more than one each.
pub(super) fn surplus(text: &str) -> usize {
    if text.is_ascii() { 0 } else { text.len() - text.chars().count() }
}

/// Text that is `N` bytes long at most.
#[derive(Clone, Copy)]
struct Short<const N: usize> {
    bytes: [u8; N],
    length: u8,
}

impl<const N: usize> Short<N> {
    const EMPTY: Self = Self { bytes: [0; N], length: 0 };

    const fn of(mut text: &[u8]) -> Self {
        let mut short = Self::EMPTY;
        while let [byte, rest @ ..] = text {
            short = short.and(*byte);
            text = rest;
        }
        short
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "only constants are made so, and one that is too long does not compile"
    )]
    const fn and(mut self, byte: u8) -> Self {
        self.bytes[self.length as usize] = byte;
        self.length += 1;
        self
    }

    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        let end = out.len() + usize::from(self.length);
        out.extend_from_slice(&self.bytes);
        out.truncate(end);
    }
}

/// By Linux's number
#[expect(clippy::indexing_slicing, reason = "a constant that is out of bounds does not compile")]
static STATES: [Short<16>; TcpState::ALL.len() + 1] = {
    let (mut names, mut states) = ([Short::EMPTY; _], TcpState::ALL.as_slice());
    while let [state, rest @ ..] = states {
        names[*state as usize] = Short::of(state.name().as_bytes());
        states = rest;
    }
    names
};

/// Each with the dot behind it
#[expect(clippy::indexing_slicing, reason = "a constant that is out of bounds does not compile")]
static OCTETS: [Short<4>; 256] = {
    let (mut octets, mut octet) = ([Short::EMPTY; 256], 0);
    while octet < octets.len() {
        let text = if octet >= 100 { Short::EMPTY.and(b'0' + (octet / 100) as u8) } else { Short::EMPTY };
        let text = if octet >= 10 { text.and(b'0' + (octet / 10 % 10) as u8) } else { text };
        octets[octet] = text.and(b'0' + (octet % 10) as u8).and(b'.');
        octet += 1;
    }
    octets
};

/// Linux's name of a state: `SYN_SENT`.
#[inline]
pub(super) fn write_state(state: TcpState, out: &mut Vec<u8>) {
    if let Some(name) = STATES.get(state as usize) {
        name.write(out);
    }
}

/// Address and port: `192.0.2.1:443`, `[2001:db8::1]:443`.
pub(super) fn write_endpoint(endpoint: &SocketAddr, out: &mut Vec<u8>) {
    match endpoint {
        SocketAddr::V4(endpoint) => write_endpoint_v4(endpoint, out),
        // Writing to memory does not fail.
        SocketAddr::V6(endpoint) => drop(write!(out, "{endpoint}")),
    }
}

#[inline]
fn write_endpoint_v4(endpoint: &SocketAddrV4, out: &mut Vec<u8>) {
    for octet in endpoint.ip().octets() {
        if let Some(text) = OCTETS.get(usize::from(octet)) {
            text.write(out);
        }
    }
    if let Some(last) = out.last_mut() {
        *last = b':';
    }
    write_port(endpoint.port(), out);
}

#[inline]
fn write_port(port: u16, out: &mut Vec<u8>) {
    let digit = |of: u16| b'0' + (port / of % 10) as u8;
    match port {
        10_000.. => out.extend_from_slice(&[digit(10_000), digit(1_000), digit(100), digit(10), digit(1)]),
        1_000.. => out.extend_from_slice(&[digit(1_000), digit(100), digit(10), digit(1)]),
        _ => out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes()),
    }
}

/// How long something took, at the right of its column: `312us`, `4.2ms`, `31.0s`, `12m05s`, `3h20m`.
#[inline]
pub(super) fn write_duration(duration: Duration, out: &mut Vec<u8>) {
    // No part of it in 128 bits.
    let seconds = duration.as_secs();
    let microseconds = seconds.saturating_mul(1_000_000).saturating_add(duration.subsec_micros().into());
    let text: [u8; DURATION] = match microseconds {
        0..1_000 => {
            let digit = |of| digit(microseconds, of);
            [b' ', b' ', digit(100), digit(10), digit(1), b'u', b's']
        }
        1_000..999_950 => {
            let tenths = (microseconds + 50) / 100;
            let digit = |of| digit(tenths, of);
            [digit(1_000), digit(100), digit(10), b'.', digit(1), b'm', b's']
        }
        999_950..99_950_000 => {
            let tenths = (microseconds + 50_000) / 100_000;
            let digit = |of| digit(tenths, of);
            [b' ', b' ', digit(100), digit(10), b'.', digit(1), b's']
        }
        _ if seconds < 3600 => return drop(write!(out, "{:>3}m{:02}s", seconds / 60, seconds % 60)),
        _ => return drop(write!(out, "{:>3}h{:02}m", seconds / 3600, seconds / 60 % 60)),
    };
    out.extend_from_slice(&text);
}

/// The digit of a number that counts ones, tens, hundreds; a blank in front of the number.
const fn digit(number: u64, of: u64) -> u8 {
    if number >= of || of == 1 { b'0' + (number / of % 10) as u8 } else { b' ' }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut text = Vec::new();
        write(&mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn durations_have_a_fitting_unit() {
        for (duration, expected) in [
            (Duration::from_nanos(400), "    0us"),
            (Duration::from_micros(7), "    7us"),
            (Duration::from_micros(312), "  312us"),
            (Duration::from_micros(1_000), "  1.0ms"),
            (Duration::from_micros(4_250), "  4.3ms"),
            (Duration::from_micros(999_949), "999.9ms"),
            (Duration::from_micros(999_950), "   1.0s"),
            (Duration::from_secs(31), "  31.0s"),
            (Duration::from_millis(99_949), "  99.9s"),
            (Duration::from_millis(99_950), "  1m39s"),
            (Duration::from_secs(725), " 12m05s"),
            (Duration::from_secs(12_000), "  3h20m"),
            (Duration::from_secs(3_600_000), "1000h00m"),
        ] {
            assert_eq!(written(|out| write_duration(duration, out)), expected);
        }
        assert!(written(|out| write_duration(Duration::MAX, out)).ends_with('m'));
    }

    #[test]
    fn states_and_endpoints_read_as_the_library_prints_them() {
        for state in TcpState::ALL {
            assert_eq!(written(|out| write_state(state, out)), state.name());
        }
        let addresses = (0..=255).map(|octet| [octet, 255 - octet, octet / 3, octet / 9]);
        let ports = [0, 9, 10, 99, 100, 999, 1_000, 9_999, 10_000, 65_535];
        for endpoint in addresses.flat_map(|address| ports.map(|port| SocketAddr::from((address, port)))) {
            assert_eq!(written(|out| write_endpoint(&endpoint, out)), endpoint.to_string());
        }
        let v6: SocketAddr = "[2001:db8::1]:443".parse().unwrap();
        assert_eq!(written(|out| write_endpoint(&v6, out)), "[2001:db8::1]:443");
    }

    #[test]
    fn a_column_that_is_too_long_keeps_its_gap() {
        for (text, expected) in [("", "       |"), ("abc", "abc    |"), ("abcdef", "abcdef  |")] {
            let line = written(|out| {
                let mut line = Line::begin(out);
                line.column(5, |out| out.extend_from_slice(text.as_bytes()));
                line.rest().push(b'|');
            });
            assert_eq!(line, expected);
        }
        let umlauts = written(|out| {
            Line::begin(out).column(5 + surplus("ää"), |out| out.extend_from_slice("ää".as_bytes()));
        });
        assert_eq!(umlauts, "ää     ");
    }
}
