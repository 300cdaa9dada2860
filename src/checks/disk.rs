//! How full the volumes of a node are, and when they will be.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytesize::ByteSize;

use super::values::Sampled;

/// Growth is measured over this time: a burst of some minutes says nothing of the next hours.
const SHORTEST: Duration = Duration::from_secs(1800);
const LONGEST: Duration = Duration::from_secs(7200);

/// What is kept on a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    /// As "data, WAL".
    pub name: String,
    pub size: Result<Size, String>,
    /// The server fills it: others are used for a while and emptied again.
    pub grows: bool,
}

/// Bytes as `df` counts them: `used` of `used + left`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub used: u64,
    /// For a user that is not root.
    pub left: u64,
}

/// Reads the sizes; directories on one volume are one. It blocks while a volume hangs.
pub(super) fn read_volumes(directories: &[(&str, PathBuf)]) -> Vec<Volume> {
    let mut found: Vec<(Option<u64>, Volume)> = Vec::new();
    for (name, directory) in directories {
        let read = read(directory).map_err(|error| format!("{}: {error}", directory.display()));
        let device = read.as_ref().ok().map(|(device, _)| *device);
        let grows = matches!(*name, "data" | "WAL");
        let same = found
            .iter_mut()
            .find(|(other, _)| device.is_some() && *other == device);
        if let Some((_, volume)) = same {
            volume.name = format!("{}, {name}", volume.name);
            volume.grows |= grows;
            continue;
        }
        let volume = Volume {
            name: (*name).to_owned(),
            size: read.map(|(_, size)| size),
            grows,
        };
        found.push((device, volume));
    }
    found.into_iter().map(|(_, volume)| volume).collect()
}

fn read(directory: &Path) -> io::Result<(u64, Size)> {
    // One that is made when it is needed will be on the volume of the directory above.
    let there = directory.ancestors().find(|directory| directory.exists());
    let there = there.unwrap_or(directory);
    let device = rustix::fs::stat(there)?.st_dev;
    let volume = rustix::fs::statvfs(there)?;
    let size = Size {
        used: (volume.f_blocks - volume.f_bfree) * volume.f_frsize,
        left: volume.f_bavail * volume.f_frsize,
    };
    Ok((device, size))
}

/// How full each volume is, in percent.
pub(super) fn used(volumes: &[Volume]) -> Vec<Sampled> {
    let value = |volume: &Volume| Sampled {
        object: Some(volume.name.clone()),
        number: volume.size.clone().map(|size| {
            let all = size.used + size.left;
            100.0 * number(size.used) / number(all.max(1))
        }),
        detail: volume.size.as_ref().ok().map(|size| {
            let all = ByteSize(size.used + size.left);
            format!("{} of {all} are left", ByteSize(size.left))
        }),
    };
    volumes.iter().map(value).collect()
}

/// What was used before, by volume.
#[derive(Debug, Default)]
pub(super) struct Growth(HashMap<String, VecDeque<(Instant, u64)>>);

impl Growth {
    /// Seconds until each volume that grows is full, at the rate of the last hours; without those that are not known yet.
    pub(super) fn until_full(&mut self, volumes: &[Volume], now: Instant) -> Vec<Sampled> {
        let forecast = |volume: &Volume| {
            let size = match &volume.size {
                Ok(size) if volume.grows => size,
                _ => return None,
            };
            let samples = self.0.entry(volume.name.clone()).or_default();
            samples.push_back((now, size.used));
            while samples
                .get(1)
                .is_some_and(|(at, _)| now.duration_since(*at) >= LONGEST)
            {
                samples.pop_front();
            }
            let (since, before) = *samples.front()?;
            let time = now.duration_since(since);
            let grown = size.used.saturating_sub(before);
            if time < SHORTEST {
                return None;
            }
            // Without growth it is never full.
            let secs = match grown {
                0 => f64::INFINITY,
                grown => number(size.left) * time.as_secs_f64() / number(grown),
            };
            Some(Sampled {
                object: Some(volume.name.clone()),
                number: Ok(secs),
                detail: Some(format!(
                    "it grew by {} in {} min, and {} are left",
                    ByteSize(grown),
                    time.as_secs() / 60,
                    ByteSize(size.left)
                )),
            })
        };
        volumes.iter().filter_map(forecast).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
fn number(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str, used: u64, left: u64) -> Volume {
        Volume {
            name: name.to_owned(),
            size: Ok(Size { used, left }),
            grows: name != "scratch",
        }
    }

    #[test]
    fn directories_on_one_volume_are_one_and_a_missing_one_is_where_it_would_be_made() {
        let directory = tempfile::tempdir().unwrap();
        let directories = [
            ("data", directory.path().to_owned()),
            ("scratch", directory.path().join("not/made/yet")),
        ];
        let volumes = read_volumes(&directories);
        assert_eq!(volumes.len(), 1, "{volumes:?}");
        assert_eq!(volumes[0].name, "data, scratch");
        assert!(volumes[0].grows);
        let values = used(&volumes);
        let percent = values[0].number.clone().unwrap();
        assert!((0.0..=100.0).contains(&percent), "{percent}");
    }

    #[test]
    fn a_volume_is_judged_by_what_is_left_for_others_than_root() {
        let mut broken = volume("WAL", 0, 0);
        broken.size = Err("/wal: no such file".to_owned());
        let values = used(&[volume("data", 90, 10), broken]);
        assert_eq!(values[0].number, Ok(90.0));
        assert_eq!(values[0].detail.as_deref(), Some("10 B of 100 B are left"));
        assert_eq!(values[1].number, Err("/wal: no such file".to_owned()));
    }

    #[test]
    fn the_forecast_needs_half_an_hour_and_growth() {
        let mut growth = Growth::default();
        let begin = Instant::now();
        let mut until = |minutes: u64, used: u64, left: u64| {
            let volumes = [volume("data", used, left), volume("scratch", used, left)];
            let now = begin + Duration::from_secs(60 * minutes);
            let values = growth.until_full(&volumes, now);
            assert!(values.len() <= 1, "{values:?}");
            values.first().map(|value| value.number.clone().unwrap())
        };
        assert_eq!(until(0, 1000, 9000), None);
        assert_eq!(until(29, 2000, 8000), None);
        // 2,000 bytes in 40 minutes; 8,000 are left.
        assert_eq!(until(40, 3000, 8000), Some(9600.0));
        assert_eq!(until(161, 3000, 8000), Some(f64::INFINITY));
    }
}
