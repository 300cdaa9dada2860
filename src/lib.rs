//! xdb: if the primary is lost now, what do we get back, how fast, and how do we know?
//!
//! The rooms, top to bottom; an arrow (`use crate::…`) points down only:
//!
//! - [`cli`]: one file a verb
//! - [`daemon`]: the long-lived loops: sampling, peers, driver, heartbeat, systemd
//! - [`http`]: what the daemon serves
//! - [`runner`]: runs a job and publishes its outcome, with or without a daemon
//! - [`jobs`]: what runs by schedule, one file a job
//! - [`restore`]: restore tests, dump tests and restores for good, of what [`archive`] and [`dump`] stored
//! - [`archive`]: WAL files, base backups, retention: what changes the repository
//! - [`dump`]: each database by pg_dump, streamed into the bucket
//! - [`checks`]: what is watched: definitions, sampling, judging
//! - [`repository`]: the WAL-G repository: what is in it, the program that writes it, what xdb keeps beside it
//! - [`alerts`]: from findings to what Redis and other receivers show, each event once
//! - [`wait`]: the probe behind `xdb wait`
//! - [`cluster`]: the node's view of itself, and what it may serve
//! - adapters, side by side: [`postgres`], [`pgbouncer`] (which uses the former), [`storage`], [`redis`], [`store`], [`webhook`]
//! - [`process`]: starts, limits and ends other programs
//! - [`log`]: how xdb speaks
//! - [`config`]: sections, sources, validation, secrets
//! - [`model`]: values, no IO
//!
//! Where a change goes:
//!
//! | change | place |
//! |---|---|
//! | a check | `checks/x.toml` at the top of the project and `runbooks/x.md`; their names in `checks/shipped.rs` and `http/runbooks.rs`, where a test asks for them. A new kind of check: `checks/definition.rs`, `parse.rs`, and a file that judges it |
//! | a job | a file in [`jobs`], and a line in its list; `jobs/mod.rs` names what belongs to it elsewhere |
//! | a verb | a file in [`cli`], and its module, variant and arm in `cli/mod.rs`; it takes its handles from `cli/handles.rs` |
//! | a setting | an entry in `config/keys.rs` |
//! | a WAL-G program | a file in `repository/program/`, and its variant in `mod.rs` there; the compiler names the other places |
//! | a loop of the daemon | a file in [`daemon`], and a line in one of the two lists of tasks in its `mod.rs` |
//!
//! Where something is done:
//!
//! | work | place |
//! |---|---|
//! | one segment is pushed | `archive/wal/push.rs`; by the daemon, `archive/archiver/upload.rs` |
//! | a backup is pushed | `archive/backup/push.rs` |
//! | retention is planned, and carried out | `archive/retention/plan.rs`, `run.rs` |
//! | the repository is listed and judged | `repository/catalog/` |
//! | a server is restored, and its recovery followed | `restore/recover/recovery.rs` |
//! | a restore test judges the end of the archive | `restore/verify/archive_end.rs` |
//! | a dump is restored: for good, as a test | `restore/dump/restore_run.rs`, `dump_test.rs` |
//! | the verdict of CLI, HTTP, Redis and alerts, and its headline | `evaluate` in `cluster/status.rs`, `headline.rs` |
//! | the page and the metrics | `http/page/`, `http/metrics/table/` |
//! | an alert is raised, and delivered to Redis | `alerts/transition.rs`, `deliver.rs` |
//! | an alert is silenced: by a person, and in the events | `cli/alerts/silence.rs`, `alerts/notice.rs` |
//!
//! Only [`storage`] sends requests to S3. A process makes one client, in `repository/shared/mod.rs` (a restore's look-ahead, which has
//! a runtime of its own, makes a second one); its `Bucket` is used by [`repository`], [`dump`] and [`restore`], and by no room above them.

pub mod alerts;
pub mod archive;
mod checks;
pub mod cli;
mod cluster;
pub mod config;
mod daemon;
mod dump;
mod http;
mod jobs;
mod log;
pub mod model;
mod pgbouncer;
mod postgres;
mod process;
pub mod redis;
mod repository;
mod restore;
mod runner;
mod storage;
pub mod store;
mod wait;
mod webhook;

#[cfg(test)]
mod layers;
