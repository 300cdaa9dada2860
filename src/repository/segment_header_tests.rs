use std::path::PathBuf;

use super::*;

const NAME: &str = "000000020000000000000003";
const CLUSTER: u64 = 7_710_554_067_872_419_855;
const BYTES: usize = 1 << 20;
const PAGE: usize = 8192;

/// Segment 3 of timeline 2, of 1 MiB, whose last `zeros` pages were never written.
fn segment(zeros: usize) -> Vec<u8> {
    let mut segment = vec![0; BYTES];
    let pages = BYTES / PAGE;
    for (number, page) in segment.chunks_mut(PAGE).take(pages - zeros).enumerate() {
        page[..2].copy_from_slice(&0xD116_u16.to_ne_bytes());
        page[4..8].copy_from_slice(&2_u32.to_ne_bytes());
        let address = (3 * BYTES + number * PAGE) as u64;
        page[8..16].copy_from_slice(&address.to_ne_bytes());
        page[100..].fill(7);
    }
    segment[2..4].copy_from_slice(&IS_LONG.to_ne_bytes());
    segment[24..32].copy_from_slice(&CLUSTER.to_ne_bytes());
    segment[32..36].copy_from_slice(&u32::try_from(BYTES).unwrap().to_ne_bytes());
    segment[36..40].copy_from_slice(&u32::try_from(PAGE).unwrap().to_ne_bytes());
    segment
}

fn with(mut segment: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    segment[at..at + bytes.len()].copy_from_slice(bytes);
    segment
}

fn written(directory: &Path, content: &[u8]) -> PathBuf {
    let path = directory.join("segment");
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn a_segment_is_what_its_name_says_or_the_reason_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let whole = segment(0);
    for (what, name, content, reason) in [
        ("whole", NAME, whole.clone(), ""),
        (
            "cut",
            NAME,
            whole[..BYTES - 8].to_vec(),
            "which is no segment",
        ),
        (
            "half",
            NAME,
            whole[..BYTES / 2].to_vec(),
            "which is no segment",
        ),
        ("empty", NAME, Vec::new(), "which is no segment"),
        (
            "twice as long",
            NAME,
            [whole.clone(), whole.clone()].concat(),
            "its header says 1048576",
        ),
        (
            "zeros",
            NAME,
            vec![0; BYTES],
            "does not begin with the header",
        ),
        (
            "another",
            "000000020000000000000004",
            whole.clone(),
            "its name stands for 0/400000",
        ),
        (
            "older timeline",
            "000000010000000000000003",
            whole.clone(),
            "WAL of timeline 2",
        ),
        // The first segment of timeline 3 begins with pages of timeline 2.
        (
            "newer timeline",
            "000000030000000000000003",
            whole.clone(),
            "",
        ),
        (
            "foreign",
            NAME,
            with(whole.clone(), 24, &[1; 8]),
            "of another cluster",
        ),
        (
            "a history",
            "00000002.history",
            b"1\t0/3000000\tr\n".to_vec(),
            "",
        ),
    ] {
        let path = written(directory.path(), &content);
        let judged = judge_file(name, &path, Some(CLUSTER));
        let said = judged.clone().err().unwrap_or_default();
        assert_eq!(judged.is_ok(), reason.is_empty(), "{what}: {said}");
        assert!(said.contains(reason), "{what}: {said}");
        let start = &content[..content.len().min(LONG_HEADER)];
        let same = judge_start(name, start, content.len() as u64, Some(CLUSTER));
        assert_eq!(same, judged, "{what}");
    }
    let path = written(directory.path(), &with(whole, 24, &[1; 8]));
    assert_eq!(
        judge_file(NAME, &path, None),
        Ok(()),
        "of a cluster that is not known"
    );
}

#[test]
fn every_page_of_a_segment_is_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let at = |page: usize, offset: usize| page * PAGE + offset;
    let address = |address: usize| (address as u64).to_ne_bytes();
    for (what, content, good) in [
        ("whole", segment(0), true),
        ("ended by a switch", segment(100), true),
        (
            "recycled",
            with(segment(0), at(60, 8), &address(BYTES)),
            false,
        ),
        (
            "zeros in between",
            with(segment(0), at(60, 0), &[0; PAGE]),
            false,
        ),
        (
            "not all zeros behind the switch",
            with(segment(10), BYTES - 9, &[1]),
            false,
        ),
        (
            "another version's",
            with(segment(0), at(9, 0), &[1, 2]),
            false,
        ),
        (
            "an older timeline after a newer",
            with(segment(0), at(9, 4), &1_u32.to_ne_bytes()),
            false,
        ),
        (
            "a newer timeline",
            with(segment(0), at(9, 4), &3_u32.to_ne_bytes()),
            false,
        ),
        (
            "begun on the timeline before",
            with(segment(0), 4, &1_u32.to_ne_bytes()),
            true,
        ),
        ("odd pages", with(segment(0), 36, &[1, 2, 3, 4]), false),
    ] {
        let path = written(directory.path(), &content);
        let judged = judge_pages(NAME, &path, CLUSTER);
        assert_eq!(judged.is_ok(), good, "{what}: {judged:?}");
    }
    let path = written(directory.path(), &segment(0));
    assert!(judge_pages(NAME, &path, 1).is_err());
    assert!(judge_pages("00000002.history", &path, CLUSTER).is_err());
    assert_eq!(
        size_of(NAME, &path, CLUSTER).map(SegmentSize::bytes),
        Some(BYTES as u64)
    );
    assert_eq!(size_of("00000002.history", &path, CLUSTER), None);
}

#[test]
fn the_control_file_names_the_cluster() {
    let data = tempfile::tempdir().unwrap();
    assert_eq!(cluster_in(data.path()), None);
    std::fs::create_dir(data.path().join("global")).unwrap();
    let content = [&CLUSTER.to_ne_bytes()[..], &[0; 100]].concat();
    std::fs::write(data.path().join(CONTROL_FILE), content).unwrap();
    assert_eq!(cluster_in(data.path()), Some(CLUSTER));
}
