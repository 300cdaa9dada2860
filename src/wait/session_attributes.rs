//! libpq's `target_session_attrs`: which of several hosts an application takes. Pure.

use super::WantedRole;

/// The server's answers to the queries of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionRole {
    pub(super) in_recovery: bool,
    /// A transaction may not write.
    pub(super) read_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum SessionAttributes {
    #[default]
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl SessionAttributes {
    /// The ones that libpq calls `name`; the connection string has checked it.
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "read-write" => Self::ReadWrite,
            "read-only" => Self::ReadOnly,
            "primary" => Self::Primary,
            "standby" => Self::Standby,
            "prefer-standby" => Self::PreferStandby,
            _ => Self::Any,
        }
    }

    /// The role to wait for where none is asked for.
    pub(crate) fn role(self) -> WantedRole {
        match self {
            Self::Any | Self::ReadWrite | Self::Primary => WantedRole::Primary,
            Self::Standby => WantedRole::Replica,
            Self::ReadOnly | Self::PreferStandby => WantedRole::Any,
        }
    }

    /// One after the other: what to look for on all hosts.
    pub(super) fn passes(self) -> &'static [Self] {
        match self {
            Self::Any => &[Self::Any],
            Self::ReadWrite => &[Self::ReadWrite],
            Self::ReadOnly => &[Self::ReadOnly],
            Self::Primary => &[Self::Primary],
            Self::Standby => &[Self::Standby],
            Self::PreferStandby => &[Self::Standby, Self::Any],
        }
    }

    pub(super) fn accept(self, role: SessionRole) -> bool {
        match self {
            Self::Any | Self::PreferStandby => true,
            Self::ReadWrite => !role.read_only,
            Self::ReadOnly => role.read_only,
            Self::Primary => !role.in_recovery,
            Self::Standby => role.in_recovery,
        }
    }
}
