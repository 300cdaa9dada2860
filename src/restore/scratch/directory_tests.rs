//! The directory of a restore test: what is removed, what is kept, what is never touched.

use super::*;

#[test]
fn two_tests_never_share_a_directory_and_nothing_stays() {
    let parent = tempfile::tempdir().unwrap();
    let live = Path::new("/nonexistent");
    let scratch = Scratch::open(parent.path(), live).unwrap();
    assert!(scratch.data().is_dir());
    assert!(matches!(
        Scratch::open(parent.path(), live),
        Err(RestoreError::Busy { .. })
    ));
    drop(scratch);
    let left: Vec<_> = fs::read_dir(parent.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["lock"]);
}

#[test]
fn what_a_killed_test_left_goes_at_the_next_start_and_what_is_not_marked_stays() {
    let parent = tempfile::tempdir().unwrap();
    let run = |name: &str| {
        let path = parent.path().join(name);
        fs::create_dir_all(path.join("data")).unwrap();
        path
    };
    let marker = Marker::new(Timestamp::UNIX_EPOCH);
    marker.write(&run("run-1")).unwrap();
    fs::create_dir(parent.path().join("run-5")).unwrap();
    for name in ["run-3", "notes"] {
        run(name);
    }
    marker.write(&run("run-mine")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    marker.write(elsewhere.path()).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), parent.path().join("run-2")).unwrap();
    let scratch = Scratch::open(parent.path(), Path::new("/nonexistent")).unwrap();
    for gone in ["run-1", "run-5"] {
        assert!(!parent.path().join(gone).exists(), "{gone}");
    }
    for stays in ["notes", "run-mine", "run-2", "run-3/data"] {
        assert!(parent.path().join(stays).exists(), "{stays}");
    }
    assert!(Marker::of(elsewhere.path()).is_some());
    drop(scratch);
}

#[test]
fn a_kept_test_stays_and_the_next_one_works_beside_it() {
    let parent = tempfile::tempdir().unwrap();
    let live = Path::new("/nonexistent");
    let mut scratch = Scratch::open(parent.path(), live).unwrap();
    let noted = scratch.update_marker(|marker| marker.backup = Some("base_1".to_owned()));
    noted.unwrap();
    scratch.keep().unwrap();
    let kept = scratch.path().to_owned();
    drop(scratch);
    let marker = Marker::of(&kept).unwrap();
    assert_eq!(
        (marker.kept, marker.backup.as_deref()),
        (true, Some("base_1"))
    );

    let next = Scratch::open(parent.path(), live).unwrap();
    assert_eq!(next.kept(), [kept.as_path()]);
    assert_ne!(next.path(), kept);
    drop(next);
    assert!(kept.join("data").is_dir());
}

#[test]
fn without_its_marker_nothing_is_removed() {
    let parent = tempfile::tempdir().unwrap();
    let scratch = Scratch::open(parent.path(), Path::new("/nonexistent")).unwrap();
    fs::remove_file(scratch.path().join(MARKER_FILE)).unwrap();
    assert!(scratch.remove().is_err());
    assert!(scratch.data().is_dir());
}

#[test]
fn the_live_data_directory_is_kept_at_a_distance() {
    let parent = tempfile::tempdir().unwrap();
    let inside = parent.path().join("live/scratch");
    for (directory, live) in [
        (inside.as_path(), parent.path().join("live")),
        (parent.path(), parent.path().join("live")),
    ] {
        fs::create_dir_all(&live).unwrap();
        assert!(matches!(
            Scratch::open(directory, &live),
            Err(RestoreError::Refused { .. })
        ));
    }
}
