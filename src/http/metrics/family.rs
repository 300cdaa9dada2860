//! One metric: its name, type, help and labels.

/// The type of a family, as the exposition formats name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FamilyType {
    Gauge,
    /// Since the daemon began; the name ends in `_total`.
    Counter,
    /// Always 1; the name ends in `_info`.
    Info,
    Histogram,
}

/// The unit at the end of a family's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    None,
    Seconds,
    Bytes,
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Family {
    /// Without `xdb_`, unit and suffix.
    pub stem: &'static str,
    pub unit: Unit,
    pub kind: FamilyType,
    /// A sentence without its full stop.
    pub help: &'static str,
    pub labels: &'static [&'static str],
}

impl Family {
    /// As it is queried; a histogram's series add `_bucket`, `_sum` and `_count`.
    pub(super) fn name(&self) -> String {
        let unit = match self.unit {
            Unit::None => "",
            Unit::Seconds => "_seconds",
            Unit::Bytes => "_bytes",
        };
        let suffix = match self.kind {
            FamilyType::Counter => "_total",
            FamilyType::Info => "_info",
            FamilyType::Gauge | FamilyType::Histogram => "",
        };
        format!("xdb_{}{unit}{suffix}", self.stem)
    }
}

pub(super) const fn family(
    stem: &'static str,
    unit: Unit,
    kind: FamilyType,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        stem,
        unit,
        kind,
        help,
        labels,
    }
}

pub(super) const fn gauge(
    stem: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    family(stem, unit, FamilyType::Gauge, labels, help)
}

pub(super) const fn counter(
    stem: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    family(stem, unit, FamilyType::Counter, labels, help)
}
