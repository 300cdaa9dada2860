//! `checks`: every definition in checks/ and /etc/xdb/checks that belongs to this node's role.

use jiff::Timestamp;
use serde_json::Value;

use super::{Tools, Worked};
use crate::checks::Looked;

pub(super) async fn run(tools: &Tools) -> Worked {
    let mut findings = Vec::new();
    let primary = tools.known.borrow().positions.clone();
    for definition in &tools.definitions {
        let looked = tools
            .sampler
            .look(definition, &primary, Timestamp::now())
            .await;
        if let Looked::Findings(found) = looked {
            findings.extend(found.into_iter().map(|finding| (finding, definition.hold)));
        }
    }
    Worked {
        findings,
        succeeded: true,
        lacked_prerequisite: false,
        detail: Value::Null,
    }
}
