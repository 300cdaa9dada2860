//! What tests begin with.

use jiff::Timestamp;

use super::{Backup, Sentinel, Tests};
use crate::model::Timeline;

const SEGMENT: u64 = 16 << 20;

impl Backup {
    /// One that starts and finishes in the segment `number` of `timeline`, in as many seconds; its sentinel has `more` keys.
    pub fn sample(timeline: u32, number: u64, more: &str) -> Self {
        let (start, finish) = (number * SEGMENT + 40, number * SEGMENT + 80);
        let json = format!(r#"{{"LSN":{start},"FinishLSN":{finish},"PgVersion":170011{more}}}"#);
        let second = i64::try_from(number).unwrap();
        Self {
            name: format!("base_{timeline:08X}{number:016X}"),
            timeline: Timeline(timeline),
            sentinel: Some(Sentinel::parse(json.as_bytes()).unwrap()),
            damage: None,
            finished_at: Some(Timestamp::from_second(second).unwrap()),
            stored: None,
            tests: Tests::default(),
        }
    }
}
