//! A section of the configuration, said once: the struct, its defaults, and what the default file says of its keys.

/// A key of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its section
    pub section: &'static str,
    /// Its name
    pub name: &'static str,
    /// The default, in TOML
    pub default: &'static str,
    /// What it means, a line each
    pub docs: &'static [&'static str],
    /// A running daemon does not take over a new value
    pub needs_restart: bool,
}

impl Key {
    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("FIRSTFIN_{}_{}", self.section, self.name).to_ascii_uppercase()
    }
}

/// A section of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its name
    pub name: &'static str,
    /// What it is about, a line each
    pub docs: &'static [&'static str],
    /// Its keys
    pub keys: &'static [Key],
}

/// Makes a section. Each key: what it means, its attributes, its name if that is a word of Rust, its type, its default in
/// Rust and in TOML, and whether a new value takes a restart.
macro_rules! section {
    (@name $field:ident) => {
        stringify!($field)
    };
    (@name $field:ident as $name:literal) => {
        $name
    };
    (
        $(#[doc = $section_doc:literal])+
        $section:literal, $type:ident {
            $(
                $(#[doc = $doc:literal])+
                [$($attribute:meta),*]
                $field:ident $(as $name:literal)?: $kind:ty = $default:expr, $text:literal, restart: $restart:literal;
            )*
        }
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, garde::Validate)]
        #[serde(deny_unknown_fields, default)]
        pub struct $type {
            $(
                $(#[doc = $doc])+
                $(#[$attribute])*
                $(#[serde(rename = $name)])?
                pub $field: $kind,
            )*
        }

        impl $type {
            /// What is said of it.
            pub const SECTION: $crate::config::Section = $crate::config::Section {
                name: $section,
                docs: &[$($section_doc),+],
                keys: &[$(
                    $crate::config::Key {
                        section: $section,
                        name: $crate::config::section!(@name $field $(as $name)?),
                        default: $text,
                        docs: &[$($doc),+],
                        needs_restart: $restart,
                    },
                )*],
            };

            /// Keys whose new value only a restart takes over.
            pub(crate) fn needing_restart(&self, new: &Self) -> Vec<&'static str> {
                let mut keys = Vec::new();
                $(
                    if $restart && self.$field != new.$field {
                        keys.push($crate::config::section!(@name $field $(as $name)?));
                    }
                )*
                keys
            }
        }

        impl Default for $type {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }
    };
}

pub(crate) use section;
