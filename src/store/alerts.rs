//! Alerts as they stand, raised and pending.

use rusqlite::{OptionalExtension, Row, params};

use super::open::NOTICES_SINCE;
use super::{Reading, StoreError, Writing, query, time};
use crate::model::{AlertKey, AlertState, Notice, Severity};

const COLUMNS: &str =
    "key, severity, since_us, raised_us, reason, value, threshold, runbook, notice";

impl Reading<'_> {
    /// `None` when all is well there.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn alert(&self, key: &AlertKey) -> Result<Option<AlertState>, StoreError> {
        let select = || {
            self.0
                .prepare(&format!("{} WHERE key = ?1", self.select_alerts()?))?
                .query_row([key.to_string()], raw_alert)
                .optional()
        };
        let row = select().map_err(query("read an alert in"))?;
        row.map(|row| Ok(row.parse()?.1)).transpose()
    }

    /// Every alert, pending ones included, by key.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn alerts(&self) -> Result<Vec<(AlertKey, AlertState)>, StoreError> {
        let collect = || {
            let mut statement = self
                .0
                .prepare(&format!("{} ORDER BY key", self.select_alerts()?))?;
            let rows = statement.query_map([], raw_alert)?;
            rows.collect::<Result<Vec<_>, _>>()
        };
        let rows = collect().map_err(query("read the alerts in"))?;
        rows.into_iter().map(RawAlert::parse).collect()
    }
}

impl Reading<'_> {
    /// A file that this xdb cannot write may be of an older one, which could not be brought up to date.
    fn select_alerts(&self) -> rusqlite::Result<String> {
        let columns = if self.version()? < NOTICES_SINCE {
            COLUMNS.replace("notice", "NULL AS notice")
        } else {
            COLUMNS.to_owned()
        };
        Ok(format!("SELECT {columns} FROM alerts"))
    }

    /// Those that can be read, where damage hides others.
    pub(super) fn readable_alerts(&self) -> Vec<(AlertKey, AlertState)> {
        let Ok(select) = self.select_alerts() else {
            return Vec::new();
        };
        self.readable(&select, [], raw_alert, RawAlert::parse)
    }

    /// In memory: those that ended since it was filled.
    pub(super) fn ended_alerts(&self) -> Result<Vec<AlertKey>, StoreError> {
        let collect = || {
            let mut statement = self.0.prepare("SELECT key FROM ended")?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            rows.collect::<Result<Vec<_>, _>>()
        };
        let keys = collect().map_err(query("read the ended alerts in"))?;
        Ok(keys
            .iter()
            .filter_map(|key| AlertKey::parse(key).ok())
            .collect())
    }
}

impl Writing<'_> {
    /// Keeps the alert as it now stands; `None` forgets it.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn set_alert(&self, key: &AlertKey, state: Option<&AlertState>) -> Result<(), StoreError> {
        let key = key.to_string();
        let written = match state {
            None => self.0.0.execute("DELETE FROM alerts WHERE key = ?1", [key]),
            Some(state) => self.0.0.execute(
                &format!("INSERT OR REPLACE INTO alerts ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"),
                params![
                    key,
                    state.severity.word(),
                    state.since.as_microsecond(),
                    state.raised_at.map(|at| at.as_microsecond()),
                    state.reason,
                    state.value,
                    state.threshold,
                    state.runbook,
                    notice_json(state),
                ],
            ),
        };
        written.map(|_| ()).map_err(query("write an alert to"))
    }
}

fn notice_json(state: &AlertState) -> Option<String> {
    let json = || serde_json::to_string(&state.notice).expect("a notice has text keys only");
    state.raised_at.is_some().then(json)
}

struct RawAlert {
    key: String,
    severity: String,
    since: i64,
    raised: Option<i64>,
    reason: String,
    value: Option<f64>,
    threshold: Option<f64>,
    runbook: Option<String>,
    notice: Option<String>,
}

fn raw_alert(row: &Row<'_>) -> rusqlite::Result<RawAlert> {
    Ok(RawAlert {
        key: row.get("key")?,
        severity: row.get("severity")?,
        since: row.get("since_us")?,
        raised: row.get("raised_us")?,
        reason: row.get("reason")?,
        value: row.get("value")?,
        threshold: row.get("threshold")?,
        runbook: row.get("runbook")?,
        notice: row.get("notice")?,
    })
}

impl RawAlert {
    fn parse(self) -> Result<(AlertKey, AlertState), StoreError> {
        let content = |what| move |_| StoreError::Content { what };
        let key = AlertKey::parse(&self.key).map_err(content("an alert's key"))?;
        let severity = Severity::parse(&self.severity).map_err(content("a severity"))?;
        let raised_at = self.raised.map(time).transpose()?;
        // An older xdb told of each alert that it raised. Damage must not raise it again.
        let known = || raised_at.map(|at| Notice::known(severity, Some(at)));
        let notice = self
            .notice
            .as_deref()
            .and_then(|json| serde_json::from_str(json).ok());
        let state = AlertState {
            severity,
            since: time(self.since)?,
            raised_at,
            notice: notice.or_else(known).unwrap_or_default(),
            reason: self.reason,
            value: self.value,
            threshold: self.threshold,
            runbook: self.runbook,
        };
        Ok((key, state))
    }
}
