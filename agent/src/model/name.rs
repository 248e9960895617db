//! Names that come from outside (a process chooses its own `comm`), made safe to print once, where they enter.

use std::fmt;

use compact_str::CompactString;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// A process name, path, unit or container name, in which every character that could act on a terminal is written as
/// an escape (`\n`, `\x1b`, `\u{202e}`), and every byte that is not UTF-8 as `\xNN`.
///
/// The escaping is not reversible on purpose: a backslash stays a backslash, so that ordinary names stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Name(#[schemars(with = "String")] CompactString);

impl Name {
    /// Makes a name out of arbitrary bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        if let Ok(text) = str::from_utf8(bytes)
            && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
        {
            // Nearly every name. One of up to 24 bytes, as every `comm` is, takes no allocation.
            return Self(CompactString::new(text));
        }
        let mut safe = CompactString::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                push_safe(&mut safe, character);
            }
            for byte in chunk.invalid() {
                safe.push_str(&format!("\\x{byte:02x}"));
            }
        }
        Self(safe)
    }

    /// Makes a name out of the kernel's fixed, NUL-terminated `comm`.
    #[must_use]
    pub fn from_comm(comm: &[u8]) -> Self {
        Self::from_bytes(comm.split(|&byte| byte == 0).next().unwrap_or_default())
    }

    /// The safe text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn push_safe(safe: &mut CompactString, character: char) {
    match character {
        '\n' | '\r' | '\t' => safe.extend(character.escape_default()),
        '\0'..='\x1f' | '\x7f' => safe.push_str(&format!("\\x{:02x}", u32::from(character))),
        // C1 controls (a terminal may take U+009B for ESC [), line separators, and whatever reorders text.
        '\u{80}'..='\u{9f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}' => {
            safe.extend(character.escape_unicode());
        }
        _ => safe.push(character),
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self::from_bytes(text.as_bytes())
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A recording is input like any other.
        Ok(Self::from_bytes(String::deserialize(deserializer)?.as_bytes()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in ["nginx: worker", "naïve-café", "日本", "C:\\odd", "kworker/0:1-events"] {
            assert_eq!(Name::from(name).as_str(), name);
        }
    }

    #[test]
    fn nothing_that_acts_on_a_terminal_survives() {
        assert_eq!(Name::from_comm(b"a\x1b[31m\nb\x7f\0junk").as_str(), "a\\x1b[31m\\nb\\x7f");
        assert_eq!(Name::from_bytes(b"\xff\xfeok\xc3").as_str(), "\\xff\\xfeok\\xc3");
        assert_eq!(Name::from("\u{202e}gpj.exe\u{9b}2J").as_str(), "\\u{202e}gpj.exe\\u{9b}2J");
    }
}
