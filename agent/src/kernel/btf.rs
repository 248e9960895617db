//! A reader of the kernel's BTF: offsets of structure members, values of enumerators, number of a function's arguments.
//!
//! aya parses BTF for its own relocations and keeps the members to itself, and Rust eBPF has no CO-RE, so the offsets
//! are looked up here. Only what those questions need is read. The format: Documentation/bpf/btf.rst.

use std::{ops::Range, path::Path};

use thiserror::Error;

use crate::hash::FastMap;

/// Why BTF could not be used.
#[derive(Debug, Error)]
pub enum BtfError {
    /// The file could not be read
    #[error("read {path}")]
    Read {
        /// Which file
        path: String,
        /// Why
        #[source]
        source: std::io::Error,
    },
    /// It is not BTF, or cut off
    #[error("malformed BTF: {0}")]
    Malformed(&'static str),
    /// This kernel has no such thing
    #[error("the kernel's BTF has no {0}")]
    NotFound(String),
}

const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_FLOAT: u32 = 16;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;
const KIND_PTR: u32 = 2;
const KIND_FWD: u32 = 7;

/// One entry of the type section: where its fixed part is.
#[derive(Clone, Copy)]
struct Type {
    kind: u32,
    /// Number of members, enumerators or parameters
    length: usize,
    has_bitfields: bool,
    /// Size in bytes, or the type referred to
    size_or_type: u32,
    /// Where the variable part begins, in the type section
    body: usize,
}

/// Where a structure member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the structure; of a bit field, the byte its first bit is in
    pub offset: u32,
    /// Which bit of that byte, for a bit field
    bit: u32,
    /// Size of its type in bytes
    pub size: u32,
    type_id: u32,
}

/// The kernel's types.
pub struct Btf {
    /// The file. It is some megabytes, and nothing of it is copied: every session begins with this
    bytes: Vec<u8>,
    /// Where the type section is in it
    types: Range<usize>,
    /// And where the names are
    strings: Range<usize>,
    index: Vec<Type>,
    /// By kind and by where the name is: each name is in the strings once
    by_name: FastMap<(u32, u32), usize>,
}

impl Btf {
    /// Reads BTF from a file, `/sys/kernel/btf/vmlinux` for the running kernel.
    ///
    /// # Errors
    /// The file cannot be read or is not BTF of this machine's byte order.
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        let bytes =
            std::fs::read(path).map_err(|source| BtfError::Read { path: path.display().to_string(), source })?;
        Self::parse(bytes)
    }

    /// Parses BTF of this machine's byte order.
    ///
    /// # Errors
    /// The bytes are not BTF or cut off.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        const MAGIC: u16 = 0xeb9f;
        let short = |at| u16_at(&bytes, at).ok_or(BtfError::Malformed("header cut off"));
        let word = |at| u32_at(&bytes, at).ok_or(BtfError::Malformed("header cut off")).map(|value| value as usize);
        if short(0)? != MAGIC {
            return Err(BtfError::Malformed("wrong magic number"));
        }
        let header = word(4)?;
        let section = |offset: usize, length: usize| {
            let start = header.checked_add(offset)?;
            let section = start..start.checked_add(length)?;
            bytes.get(section.clone()).map(|_| section)
        };
        let types = section(word(8)?, word(12)?).ok_or(BtfError::Malformed("types cut off"))?;
        let strings = section(word(16)?, word(20)?).ok_or(BtfError::Malformed("strings cut off"))?;
        let mut btf = Self { bytes, types, strings, index: Vec::new(), by_name: FastMap::default() };
        btf.build_index()?;
        Ok(btf)
    }

    fn build_index(&mut self) -> Result<(), BtfError> {
        let mut at = 0;
        let types = self.bytes.get(self.types.clone()).unwrap_or_default();
        // Type 0 is void.
        self.index.push(Type { kind: 0, length: 0, has_bitfields: false, size_or_type: 0, body: 0 });
        while at < types.len() {
            let word = |offset| u32_at(types, at + offset).ok_or(BtfError::Malformed("type cut off"));
            let (name, info, size_or_type) = (word(0)?, word(4)?, word(8)?);
            let (kind, length) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            let body = at + 12;
            let body_size = match kind {
                KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * length,
                KIND_ENUM | KIND_FUNC_PROTO => 8 * length,
                KIND_PTR | KIND_FWD | KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_FUNC
                | KIND_FLOAT | KIND_TYPE_TAG => 0,
                _ => return Err(BtfError::Malformed("unknown kind of type")),
            };
            if matches!(kind, KIND_STRUCT | KIND_FUNC | KIND_ENUM) && name != 0 {
                self.by_name.entry((kind, name)).or_insert(self.index.len());
            }
            self.index.push(Type { kind, length, has_bitfields: info >> 31 == 1, size_or_type, body });
            at = body + body_size;
        }
        Ok(())
    }

    /// Where a member is. `path` may lead through structures (`ns.inum`); anonymous structures and unions on the way
    /// need not be named.
    ///
    /// # Errors
    /// There is no such structure or member.
    pub fn member(&self, structure: &str, path: &str) -> Result<Member, BtfError> {
        let not_found = || BtfError::NotFound(format!("{structure}.{path}"));
        let mut type_id = self.named(KIND_STRUCT, structure).ok_or_else(not_found)? as u32;
        let mut offset = 0;
        let mut found = None;
        for name in path.split('.') {
            let member = self.find(type_id, name, 0).ok_or_else(not_found)?;
            offset += member.offset;
            type_id = member.type_id;
            found = Some(Member { offset, ..member });
        }
        found.ok_or_else(not_found)
    }

    fn find(&self, type_id: u32, wanted: &str, depth: u32) -> Option<Member> {
        // Anonymous members nest two or three deep; a file that says otherwise is malformed.
        if depth > 8 {
            return None;
        }
        let structure = self.resolve(type_id)?;
        if !matches!(structure.kind, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        for number in 0..structure.length {
            let at = structure.body + 12 * number;
            let (name, type_id, raw) = (self.word(at)?, self.word(at + 4)?, self.word(at + 8)?);
            let bits = if structure.has_bitfields { raw & 0x00ff_ffff } else { raw };
            let name = self.string(name)?;
            if name == wanted {
                return Some(Member { offset: bits / 8, bit: bits % 8, size: self.size(type_id, 0)?, type_id });
            }
            if name.is_empty()
                && let Some(inner) = self.find(type_id, wanted, depth + 1)
            {
                return Some(Member { offset: bits / 8 + inner.offset, ..inner });
            }
        }
        None
    }

    /// Where the first bit of a bit field is, in bits from the start of the structure.
    ///
    /// # Errors
    /// There is no such structure or member.
    pub fn bit(&self, structure: &str, member: &str) -> Result<u32, BtfError> {
        self.member(structure, member).map(|member| member.offset * 8 + member.bit)
    }

    /// Value of an enumerator, for example `SOCK_DONE` of `sock_flags`.
    ///
    /// # Errors
    /// There is no such enumeration or enumerator.
    pub fn enumerator(&self, enumeration: &str, name: &str) -> Result<u32, BtfError> {
        let not_found = || BtfError::NotFound(format!("enumerator {enumeration}::{name}"));
        let number = self.named(KIND_ENUM, enumeration).ok_or_else(not_found)?;
        let enumeration = self.index.get(number).ok_or_else(not_found)?;
        self.value(enumeration, name).ok_or_else(not_found)
    }

    /// Value of an enumerator of an enumeration without a name.
    ///
    /// # Errors
    /// There is none.
    pub fn any_enumerator(&self, name: &str) -> Result<u32, BtfError> {
        let mut enumerations = self.index.iter().filter(|found| found.kind == KIND_ENUM);
        let value = enumerations.find_map(|enumeration| self.value(enumeration, name));
        value.ok_or_else(|| BtfError::NotFound(format!("enumerator {name}")))
    }

    fn value(&self, enumeration: &Type, name: &str) -> Option<u32> {
        (0..enumeration.length)
            .map(|number| enumeration.body + 8 * number)
            .find(|&at| self.word(at).and_then(|name| self.string(name)) == Some(name))
            .and_then(|at| self.word(at + 4))
    }

    /// Number of arguments of a function, none if the kernel has no such function (or inlined every copy of it).
    #[must_use]
    pub fn argument_count(&self, function: &str) -> Option<usize> {
        let number = self.named(KIND_FUNC, function)?;
        let function = self.index.get(number)?;
        let prototype = self.index.get(function.size_or_type as usize)?;
        (prototype.kind == KIND_FUNC_PROTO).then_some(prototype.length)
    }

    /// Number of the first type of that kind and name.
    fn named(&self, kind: u32, name: &str) -> Option<usize> {
        let name = format!("\0{name}\0");
        let at = memchr::memmem::find(self.strings(), name.as_bytes())? + 1;
        self.by_name.get(&(kind, u32::try_from(at).ok()?)).copied()
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, mut type_id: u32) -> Option<Type> {
        for _ in 0..32 {
            let found = *self.index.get(type_id as usize)?;
            match found.kind {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    type_id = found.size_or_type;
                }
                _ => return Some(found),
            }
        }
        None
    }

    fn size(&self, type_id: u32, depth: u32) -> Option<u32> {
        let found = self.resolve(type_id)?;
        match found.kind {
            KIND_PTR => Some(8),
            KIND_ARRAY if depth < 8 => {
                let (element, count) = (self.word(found.body)?, self.word(found.body + 8)?);
                self.size(element, depth + 1)?.checked_mul(count)
            }
            _ => Some(found.size_or_type),
        }
    }

    fn word(&self, at: usize) -> Option<u32> {
        u32_at(self.bytes.get(self.types.clone())?, at)
    }

    fn strings(&self) -> &[u8] {
        self.bytes.get(self.strings.clone()).unwrap_or_default()
    }

    fn string(&self, at: u32) -> Option<&str> {
        let bytes = self.strings().get(at as usize..)?;
        std::str::from_utf8(bytes.split(|&byte| byte == 0).next()?).ok()
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with `struct outer { int a; union { struct { char pad; u16 deep; }; }; struct inner in; }`.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0outer\0a\0char\0pad\0deep\0inner\0x\0in\0sock_flags\0SOCK_DONE\0f\0";
        let name = |text: &str| {
            let wanted = format!("\0{text}\0");
            (strings.windows(wanted.len()).position(|window| window == wanted.as_bytes()).expect("in the table") + 1)
                as u32
        };
        let mut types: Vec<u32> = Vec::new();
        let mut add = |words: &[u32]| types.extend_from_slice(words);
        add(&[name("int"), KIND_INT << 24, 4, 32]); // 1
        add(&[name("char"), KIND_INT << 24, 1, 8]); // 2
        add(&[0, KIND_INT << 24, 2, 16]); // 3
        add(&[0, KIND_STRUCT << 24 | 2, 4, name("pad"), 2, 0, name("deep"), 3, 16]); // 4
        add(&[0, KIND_UNION << 24 | 1, 4, 0, 4, 0]); // 5
        add(&[name("inner"), KIND_STRUCT << 24 | 1, 4, name("x"), 1, 0]); // 6
        add(&[name("outer"), KIND_STRUCT << 24 | 3, 12, name("a"), 1, 0, 0, 5, 32, name("in"), 6, 64]); // 7
        add(&[name("sock_flags"), KIND_ENUM << 24 | 1, 4, name("SOCK_DONE"), 1]); // 8
        add(&[0, KIND_FUNC_PROTO << 24 | 2, 1, 0, 1, 0, 1]); // 9
        add(&[name("f"), KIND_FUNC << 24, 9]); // 10
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut file = Vec::new();
        file.extend_from_slice(&0xeb9f_u16.to_ne_bytes());
        file.extend_from_slice(&[1, 0]);
        for word in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32] {
            file.extend_from_slice(&word.to_ne_bytes());
        }
        file.extend_from_slice(&types);
        file.extend_from_slice(strings);
        file
    }

    #[test]
    fn members_are_found_through_anonymous_and_named_structures() {
        let btf = Btf::parse(sample()).expect("well formed");
        let offset = |path| btf.member("outer", path).map(|member| (member.offset, member.size)).expect(path);
        assert_eq!(offset("a"), (0, 4));
        assert_eq!(offset("deep"), (6, 2));
        assert_eq!(offset("in.x"), (8, 4));
        assert_eq!(btf.enumerator("sock_flags", "SOCK_DONE").expect("there"), 1);
        assert_eq!(btf.any_enumerator("SOCK_DONE").expect("there"), 1);
        assert_eq!(btf.bit("outer", "deep").expect("there"), 48);
        assert_eq!(btf.argument_count("f"), Some(2));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let btf = Btf::parse(sample()).expect("well formed");
        let error = btf.member("outer", "in.y").expect_err("no such member").to_string();
        assert_eq!(error, "the kernel's BTF has no outer.in.y");
        assert_eq!(btf.argument_count("g"), None);
    }

    #[test]
    fn any_cut_is_an_error_and_no_panic() {
        let whole = sample();
        for length in 0..whole.len() {
            assert!(Btf::parse(whole[..length].to_vec()).is_err(), "{length} bytes");
        }
    }
}
