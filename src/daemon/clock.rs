//! The tick: `tokio-cron-scheduler` each second, restarted when it stops ticking.
//!
//! It is a ticker and nothing more: its own timetable freezes time zones, forgets missed runs and lets jobs overlap.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// Ten ticks without one.
const SILENCE: Duration = Duration::from_secs(10);

pub(super) struct Clock {
    running: Option<(JobScheduler, mpsc::Receiver<()>)>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { running: None }
    }

    /// Waits for the next tick.
    pub(super) async fn tick(&mut self) {
        if self.running.is_none() {
            match start().await {
                Ok(running) => self.running = Some(running),
                Err(error) => tracing::warn!("the scheduler cannot start: {error}"),
            }
        }
        let Some((scheduler, ticks)) = &mut self.running else {
            tokio::time::sleep(Duration::from_secs(1)).await;
            return;
        };
        if timeout(SILENCE, ticks.recv())
            .await
            .ok()
            .flatten()
            .is_none()
        {
            tracing::warn!("the scheduler stopped ticking and is restarted");
            let _ = scheduler.shutdown().await;
            self.running = None;
        }
    }
}

async fn start() -> Result<(JobScheduler, mpsc::Receiver<()>), JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    let (sender, ticks) = mpsc::channel(1);
    let tick = Job::new("* * * * * *", move |_, _| {
        // A tick that nobody has taken yet is as good as two.
        let _ = sender.try_send(());
    })?;
    scheduler.add(tick).await?;
    scheduler.start().await?;
    Ok((scheduler, ticks))
}
