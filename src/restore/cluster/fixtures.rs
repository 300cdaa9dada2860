//! What tests of this room begin with.

use crate::model::{SegmentSize, Timeline};
use crate::postgres::ControlData;

pub(crate) fn control() -> ControlData {
    ControlData {
        system_identifier: 7,
        timeline: Timeline(1),
        segment_size: SegmentSize::default(),
        checksums: true,
        ended_before: 745,
        limits: vec![("max_connections", 50)],
        wal_level: "replica".to_owned(),
        track_commit_timestamp: false,
    }
}
