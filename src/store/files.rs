//! What a node must remember though its database cannot be used: small JSON files in the state directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::{ForgottenTimeline, Lsn, Supersession, Timeline};

const SUPERSESSION: &str = "superseded-by.json";
const FORGOTTEN: &str = "forgotten-timelines.json";
const LAST_ANSWER: &str = "last-answer.json";
/// A file of one length is written in place, so it needs no free space.
const ANSWER_BYTES: usize = 1024;
/// An older answer says nothing about the present.
const FRESH: SignedDuration = SignedDuration::from_secs(60);

/// The files of one node.
#[derive(Debug, Clone)]
pub struct StateFiles {
    directory: PathBuf,
}

/// That the daemon served `/primary` or `/replica` with 200 a moment ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastAnswer {
    pub v: u32,
    pub at: Timestamp,
    /// The run of the server, by the first lines of its `postmaster.pid`: one that was restarted since must be judged again.
    pub server: String,
    pub system_identifier: u64,
    pub timeline: Timeline,
    /// It was the answer of `/replica`.
    #[serde(default)]
    pub in_recovery: bool,
    /// Written by a primary, replayed by a standby.
    #[serde(default)]
    pub position: Option<Lsn>,
}

impl LastAnswer {
    /// Whether it is still of use at `now`, and about the same run of the server.
    pub fn is_of_now(&self, server: &str, now: Timestamp) -> bool {
        let age = now.duration_since(self.at);
        (SignedDuration::ZERO..=FRESH).contains(&age) && self.server == server
    }

    /// Whether it says at `now` that this very primary was served.
    pub fn holds(
        &self,
        server: &str,
        (system_identifier, timeline): (u64, Timeline),
        now: Timestamp,
    ) -> bool {
        self.is_of_now(server, now)
            && !self.in_recovery
            && (self.system_identifier, self.timeline) == (system_identifier, timeline)
    }
}

impl StateFiles {
    pub fn of(state_directory: &Path) -> Self {
        Self {
            directory: state_directory.to_owned(),
        }
    }

    /// The state directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The proof that supersedes this node's server; `None` where none is kept or it cannot be read.
    pub fn supersession(&self) -> Option<Supersession> {
        self.read(SUPERSESSION)
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn keep_supersession(&self, proof: &Supersession) -> io::Result<()> {
        self.write(SUPERSESSION, proof)
    }

    /// # Errors
    /// When the file cannot be removed.
    pub fn drop_supersession(&self) -> io::Result<()> {
        match fs::remove_file(self.directory.join(SUPERSESSION)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The timelines that a person had this cluster forget, as far as this node knows.
    pub fn forgotten(&self) -> Vec<ForgottenTimeline> {
        self.read(FORGOTTEN).unwrap_or_default()
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn keep_forgotten(&self, forgotten: &[ForgottenTimeline]) -> io::Result<()> {
        self.write(FORGOTTEN, &forgotten)
    }

    pub fn last_answer(&self) -> Option<LastAnswer> {
        self.read(LAST_ANSWER)
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn keep_last_answer(&self, answer: &LastAnswer) -> io::Result<()> {
        let mut json = serde_json::to_vec(answer)?;
        json.resize(ANSWER_BYTES.max(json.len()), b' ');
        let mut file = OpenOptions::new();
        let file = file.write(true).create(true).truncate(false);
        file.open(self.directory.join(LAST_ANSWER))?
            .write_all_at(&json, 0)
    }

    /// Takes the last answer back, in place: a full disk must not keep it.
    ///
    /// # Errors
    /// When the file is there and cannot be written.
    pub fn void_last_answer(&self) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .open(self.directory.join(LAST_ANSWER));
        match file {
            Ok(file) => {
                let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(ANSWER_BYTES);
                file.write_all_at(&vec![b' '; bytes.min(ANSWER_BYTES)], 0)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let content = fs::read(self.directory.join(name)).ok()?;
        serde_json::from_slice(&content).ok()
    }

    fn write(&self, name: &str, content: &impl Serialize) -> io::Result<()> {
        let json = serde_json::to_vec_pretty(content)?;
        let new = self
            .directory
            .join(format!("{name}.{}", std::process::id()));
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(&json)?;
            file.sync_all()
        });
        let moved = written.and_then(|()| fs::rename(&new, self.directory.join(name)));
        if moved.is_err() {
            let _ = fs::remove_file(&new);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn answer() -> LastAnswer {
        LastAnswer {
            v: 1,
            at: at(100),
            server: "42 /data 1000".to_owned(),
            system_identifier: 7,
            timeline: Timeline(1),
            in_recovery: false,
            position: Some(Lsn(200)),
        }
    }

    #[test]
    fn an_answer_holds_for_a_minute_and_for_the_same_run_of_the_same_server() {
        for (what, server, of, now, holds) in [
            ("just now", "42 /data 1000", (7, 1), 101, true),
            ("a minute ago", "42 /data 1000", (7, 1), 160, true),
            ("longer ago", "42 /data 1000", (7, 1), 161, false),
            ("in the future", "42 /data 1000", (7, 1), 99, false),
            ("restarted since", "43 /data 1050", (7, 1), 101, false),
            ("another cluster", "42 /data 1000", (8, 1), 101, false),
            ("another timeline", "42 /data 1000", (7, 2), 101, false),
        ] {
            let of = (of.0, Timeline(of.1));
            assert_eq!(answer().holds(server, of, at(now)), holds, "{what}");
            let replica = LastAnswer {
                in_recovery: true,
                ..answer()
            };
            assert!(!replica.holds(server, of, at(now)), "{what}");
        }
    }

    #[test]
    fn what_is_kept_is_read_back_and_damage_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let files = StateFiles::of(directory.path());
        assert_eq!((files.last_answer(), files.supersession()), (None, None));
        files.void_last_answer().unwrap();
        files.keep_last_answer(&answer()).unwrap();
        let shorter = LastAnswer {
            server: String::new(),
            ..answer()
        };
        files.keep_last_answer(&shorter).unwrap();
        assert_eq!(files.last_answer(), Some(shorter));
        files.void_last_answer().unwrap();
        assert_eq!(files.last_answer(), None);
        files.keep_last_answer(&answer()).unwrap();
        assert_eq!(files.last_answer(), Some(answer()));
        let proof = Supersession {
            system_identifier: 7,
            timeline: Timeline(2),
            history: "1\t0/5000000\tr\n".parse().unwrap(),
            proven_by: "db2 runs on it".to_owned(),
            at: at(100),
        };
        files.keep_supersession(&proof).unwrap();
        assert_eq!(files.supersession(), Some(proof));
        fs::write(directory.path().join(SUPERSESSION), "{").unwrap();
        assert_eq!(files.supersession(), None);
        files.drop_supersession().unwrap();
        files.drop_supersession().unwrap();
        assert_eq!(files.forgotten(), Vec::new());
        assert!(
            StateFiles::of(Path::new("/nowhere"))
                .keep_forgotten(&[])
                .is_err()
        );
    }
}
