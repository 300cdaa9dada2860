//! What the table of settings becomes: typed sections, the list of keys, and [`Values`] to fill the sections from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::AgeRecipient;
use super::kind::SettingValue;
use super::receivers::Endpoint;

/// Makes each section's struct, `Config`, `SECTIONS` and `KEYS` of one table.
macro_rules! settings {
    ($(
        #[doc = $section_about:literal] $(#[$section_meta:meta])*
        $section:ident: $SettingsSection:ident {
            $(
                #[doc = $about:literal] $(#[doc = $more:literal])*
                $field:ident: $type:ty = $kind:ident $(($choices:expr))?, $preset:ident($text:literal)
                    $(, also [$($seed:literal),*])?;
            )*
            $(rest { #[doc = $rest_about:literal] $rest:ident: $rest_type:ty })?
        }
    )*) => {
        $(
            #[doc = $section_about]
            $(#[$section_meta])*
            #[derive(Debug, Clone)]
            pub struct $SettingsSection {
                $(
                    #[doc = $about]
                    $(#[doc = $more])*
                    pub $field: $type,
                )*
                $(#[doc = $rest_about] pub $rest: $rest_type,)?
            }
        )*

        /// One node's whole configuration; its `Debug` shows no secret.
        #[derive(Debug, Clone)]
        pub struct Config {
            $(#[doc = $section_about] pub $section: $SettingsSection,)*
            /// Receivers of alerts beside Redis.
            pub notify: Vec<Notify>,
            /// Empty but in a daemon that serves with wrong values.
            pub faults: Faults,
        }

        impl Config {
            /// The table guarantees that each value is there and of its kind; a test loads the configuration both empty
            /// and full.
            pub(super) fn new(mut values: Values) -> Self {
                Self {
                    $($section: $SettingsSection {
                        $($field: values.take(concat!(stringify!($section), ".", stringify!($field))),)*
                        $($rest: Default::default(),)?
                    },)*
                    notify: Vec::new(),
                    faults: Faults::default(),
                }
            }
        }

        pub(super) const SECTIONS: &[SettingsSection] = &[
            $(SettingsSection {
                name: stringify!($section),
                #[cfg(test)]
                about: $section_about.trim_ascii_start(),
            },)*
        ];

        pub(super) const KEYS: &[Key] = &[
            $($(Key {
                name: concat!(stringify!($section), ".", stringify!($field)),
                kind: ValueKind::$kind $(($choices))?,
                preset: Preset::$preset($text),
                seeds: &[$($($seed),*)?],
                #[cfg(test)]
                about: $about.trim_ascii_start(),
            },)*)*
        ];
    };
}
pub(super) use settings;

/// Parsed values by dotted name, of every key that is set or has a default.
pub(super) struct Values(pub BTreeMap<&'static str, SettingValue>);

impl Values {
    pub(super) fn take<T: Field>(&mut self, key: &str) -> T {
        let field = T::from_value(self.0.remove(key));
        field.unwrap_or_else(|| unreachable!("the table has another type for {key} than its kind"))
    }
}

/// A type that a setting can have.
pub(super) trait Field: Sized {
    /// `None` when the value is of another kind, or when there has to be one.
    fn from_value(value: Option<SettingValue>) -> Option<Self>;
}

impl<T: Field> Field for Option<T> {
    fn from_value(value: Option<SettingValue>) -> Option<Self> {
        match value {
            None => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}

impl Field for Endpoint {
    fn from_value(value: Option<SettingValue>) -> Option<Self> {
        match value? {
            SettingValue::Endpoint(endpoint) => Some(endpoint),
            _ => None,
        }
    }
}

impl Field for Vec<AgeRecipient> {
    fn from_value(value: Option<SettingValue>) -> Option<Self> {
        match value {
            None => Some(Vec::new()),
            Some(SettingValue::AgeRecipients(recipients)) => Some(recipients),
            Some(_) => None,
        }
    }
}

macro_rules! field {
    ($($type:ty = $kind:ident),*) => {$(
        impl Field for $type {
            fn from_value(value: Option<SettingValue>) -> Option<Self> {
                match value? {
                    SettingValue::$kind(value) => Some(value),
                    _ => None,
                }
            }
        }
    )*};
}

field! {
    String = Text, PathBuf = Path, u16 = Port, u32 = Count, Duration = Duration, bool = Switch, SecretString = Secret
}

/// Hosts between commas, each as `host:port`; the port of a host without one is xdb's own.
impl Field for Vec<String> {
    fn from_value(value: Option<SettingValue>) -> Option<Self> {
        let text = Option::<String>::from_value(value)?.unwrap_or_default();
        let hosts = text
            .split(',')
            .map(str::trim)
            .filter(|host| !host.is_empty());
        let with_port = hosts.map(|host| match host.rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => host.to_owned(),
            _ => format!("{host}:8009"),
        });
        Some(with_port.collect())
    }
}
