//! The archive as a strip over its window, by position in the WAL.

use jiff::Timestamp;
use maud::{Markup, html};

use super::words::{or_dash, point, stale};
use crate::cluster::{ArchiveEnd, ArchiveExtent, StretchKind};
use crate::model::Lsn;

const WIDTH: f64 = 1000.0;

pub(super) fn archive(
    (extent, unread): (Option<&ArchiveExtent>, Option<&str>),
    end: Option<ArchiveEnd>,
    now: Timestamp,
) -> Markup {
    html! {
        section aria-labelledby="archive" {
            h2 #archive { "Archive" }
            (stale(unread))
            @match extent {
                None => { p.muted { "It has not been read yet." } }
                Some(extent) => {
                    (strip(extent, now))
                    (key())
                    (sizes(extent, end))
                    (gaps(extent))
                }
            }
        }
    }
}

/// Where positions are on the strip: `None` while nothing is stored.
struct Scale {
    from: f64,
    to: f64,
}

impl Scale {
    fn of(extent: &ArchiveExtent) -> Option<Self> {
        let marks = extent.base_backups.iter().map(|mark| mark.lsn);
        let from = extent
            .stretches
            .iter()
            .map(|it| it.from)
            .chain(marks.clone());
        // What precedes the first backup serves no restore.
        let from = marks.min().or(from.min())?;
        let to = extent.stretches.iter().map(|it| it.to).max()?;
        (to > from).then(|| Self {
            from: number(from),
            to: number(to),
        })
    }

    fn x(&self, lsn: Lsn) -> f64 {
        let part = (number(lsn) - self.from) / (self.to - self.from);
        (part.clamp(0.0, 1.0) * WIDTH * 10.0).round() / 10.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "a tenth of a pixel is enough")]
fn number(lsn: Lsn) -> f64 {
    lsn.0 as f64
}

fn strip(extent: &ArchiveExtent, now: Timestamp) -> Markup {
    let Some(scale) = Scale::of(extent) else {
        return html! { p.muted { "Nothing is stored." } };
    };
    let gaps = extent
        .stretches
        .iter()
        .filter(|it| it.kind != StretchKind::Stored);
    let proven: Vec<_> = extent
        .tests
        .iter()
        .filter(|test| test.proves && test.lsn.is_some())
        .collect();
    let label = format!(
        "WAL from the oldest base backup to the end of the archive. Base backups: {}, gaps: {}, proven points: {}",
        extent.base_backups.len(),
        gaps.count(),
        proven.len()
    );
    html! {
        svg.strip viewBox="0 0 1000 64" role="img" aria-label=(label) preserveAspectRatio="none" {
            @for stretch in &extent.stretches {
                @let (class, y, height) = match stretch.kind {
                    StretchKind::Stored => ("stored", 22, 20),
                    StretchKind::Gap => ("gap", 16, 32),
                    StretchKind::AcknowledgedGap => ("acknowledged", 19, 26),
                };
                @let x = scale.x(stretch.from);
                rect class=(class) x=(x) y=(y) height=(height) width=((scale.x(stretch.to) - x).max(2.0)) {
                    title { (class) ": " (stretch.name) }
                }
            }
            @for mark in &extent.base_backups {
                @let x = scale.x(mark.lsn);
                line.mark x1=(x) x2=(x) y1="10" y2="54" {
                    title { "base backup " (mark.name) ", " (mark.state) ", " (or_dash(mark.at.map(point))) }
                }
            }
            @for test in &proven {
                @if let Some(lsn) = test.lsn {
                    @let x = scale.x(lsn);
                    path.proven d={ "M" (x) " 22l-6 -14h12z" } {
                        title { "proven: " (test.backup) " to " (lsn) " on " (test.node) ", " (crate::model::ago(test.at, now)) }
                    }
                }
            }
        }
    }
}

fn key() -> Markup {
    let entry = |shape: Markup, text: &str| {
        html! {
            span.key { svg viewBox="0 0 12 12" aria-hidden="true" { (shape) } (text) }
        }
    };
    html! {
        p.muted {
            (entry(html! { rect.stored y="3" width="12" height="6" {} }, "stored"))
            (entry(html! { rect.gap width="12" height="12" {} }, "gap"))
            (entry(html! { rect.acknowledged y="1" width="12" height="10" {} }, "acknowledged gap"))
            (entry(html! { line.mark x1="6" x2="6" y1="0" y2="12" {} }, "base backup"))
            (entry(html! { path.proven d="M6 12l-6 -11h12z" {} }, "proven by a restore test"))
        }
    }
}

fn sizes(extent: &ArchiveExtent, end: Option<ArchiveEnd>) -> Markup {
    let complete: u64 = extent
        .backups
        .iter()
        .filter(|(state, _)| *state == "complete")
        .map(|(_, count)| count)
        .sum();
    let all: u64 = extent.backups.iter().map(|(_, count)| count).sum();
    let bytes = |bytes: u64| bytesize::ByteSize(bytes).to_string();
    html! {
        p {
            "From " (or_dash(extent.from.map(point))) " to "
            (or_dash(end.map(|end| format!("{}, archived {}", end.lsn, point(end.archived_at))))) ". "
            "Base backups: " (all) " (" (complete) " complete, " (bytes(extent.backup_bytes)) "). WAL segments: "
            (extent.wal_segments) " (" (bytes(extent.wal_bytes)) ")."
        }
    }
}

/// In words, too: a gap must not be told by its colour alone.
fn gaps(extent: &ArchiveExtent) -> Markup {
    html! {
        @for gap in extent.stretches.iter().filter(|it| it.kind != StretchKind::Stored) {
            p { strong { @if gap.kind == StretchKind::Gap { "Gap" } @else { "Acknowledged gap" } } ": " (gap.name) }
        }
    }
}
