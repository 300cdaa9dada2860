//! The page of clusters made by hand.

use tokio::sync::watch;

use super::*;
use crate::cluster::tests::{NOW, at, view};
use crate::cluster::{ArchiveExtent, BackupMark, Standing, Stretch, StretchKind};
use crate::http::metrics::tests::{all_known, observed};
use crate::model::{AlertMarks, Lsn, Severity, Silence, Silenced, SilencedBy};

fn rendered(view: &View, known: &Knowledge, observed: &Observed) -> String {
    let status = evaluate("main", "db1", view, known, at(NOW));
    page(&Facts {
        status: &status,
        hostname: "db1",
        view,
        known,
        observed,
        now: at(NOW),
    })
    .into_string()
}

fn shown(known: &Knowledge) -> String {
    rendered(&view(false, 1), known, &observed())
}

fn standing(key: &str, reason: &str, runbook: Option<&str>) -> Standing {
    Standing {
        key: key.to_owned(),
        severity: Severity::Critical,
        since: at(NOW - 600),
        reason: reason.to_owned(),
        runbook: runbook.map(str::to_owned),
        marks: AlertMarks::default(),
    }
}

#[test]
fn the_answer_the_nodes_and_the_jobs_are_on_the_page() {
    let page = shown(&all_known());
    for part in [
        "If db1 is lost now: recoverable to 0/3000000",
        "about 1.6 s",
        "40 s ago",
        ">db2</th><td>replica</td>",
        "<th scope=\"row\">dump</th>",
        "base_1",
        "nothing is known",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
}

#[test]
fn an_alert_is_shown_with_its_runbook_and_its_text_is_no_markup() {
    let mut known = all_known();
    let evil = "<script>alert(1)</script>";
    known.alerts.push(standing(
        &format!("s3/db1/{evil}\" onx=\""),
        evil,
        Some("runbooks/s3.md"),
    ));
    known
        .alerts
        .push(standing("own/db1/", "own", Some("https://wiki/own")));
    let page = shown(&known);
    assert!(
        page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"),
        "{page}"
    );
    assert!(!page.contains(evil) && !page.contains("\" onx="), "{page}");
    assert!(
        page.contains("did not answer, or refused, when this node asked it"),
        "{page}"
    );
    assert!(page.contains("10 min ago") && page.contains("href=\"https://wiki/own\""));
}

#[test]
fn what_is_silenced_or_acknowledged_is_shown_with_who_and_why() {
    let mut known = all_known();
    let until = at(NOW + 3600);
    let silence = |of, expires_at| Silence {
        v: Silence::VERSION,
        id: "1".to_owned(),
        of,
        severity: Severity::Warning,
        author: "eve".to_owned(),
        comment: "a <disk>".to_owned(),
        created_at: at(NOW - 60),
        expires_at,
        ended: None,
    };
    let pattern = |pattern: &str| Silenced::Silence {
        pattern: pattern.to_owned(),
    };
    known.silences = vec![
        silence(pattern("lag/*"), until),
        silence(pattern("over"), at(NOW - 1)),
        silence(
            Silenced::Acknowledgement {
                alert: "s3/db1/".to_owned(),
                since: at(NOW - 600),
            },
            until,
        ),
    ];
    known.alerts[0].marks.silenced = Some(SilencedBy {
        id: "1".to_owned(),
        severity: Severity::Warning,
        by: "eve".to_owned(),
        comment: "a <disk>".to_owned(),
        until,
    });
    let page = shown(&known);
    for part in [
        "1 of them silenced or acknowledged",
        "(silenced by eve until ",
        "a &lt;disk&gt;",
        "Silences and acknowledgements (2)",
        "silenced: <code>lag/*</code>",
        "acknowledged: <code>s3/db1/</code>",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    assert!(!page.contains("<code>over</code>"), "{page}");
    let none = shown(&all_known());
    assert!(none.contains("None is in force") && !none.contains("of them silenced"));
}

#[test]
fn what_is_of_earlier_is_marked_and_what_is_of_now_is_not() {
    assert!(!shown(&all_known()).contains("STALE</span>"));
    let mut known = all_known();
    let evidence = known.evidence.as_mut().unwrap();
    evidence.base_backup_error = Some("S3 refuses".to_owned());
    evidence.base_backup_read_at = Some(at(NOW - 600));
    let page = shown(&known);
    // The two answers, and the archive; proofs were read.
    let mark = "STALE</span> Last read 10 min ago: S3 refuses";
    assert_eq!(page.matches(mark).count(), 3, "{page}");

    let mut known = all_known();
    known.evidence.as_mut().unwrap().proof_error = Some("S3 refuses".to_owned());
    let page = shown(&known);
    let mark = "STALE</span> Not read now: S3 refuses";
    assert_eq!(page.matches(mark).count(), 2, "{page}");

    let mut hangs = observed();
    hangs.at = Some(at(NOW - 300));
    let page = rendered(&view(false, 1), &all_known(), &hangs);
    let mark = "STALE</span> As it was 5 min ago";
    assert_eq!(page.matches(mark).count(), 3, "{page}");
}

#[test]
fn before_anything_is_known_the_page_says_so() {
    let page = rendered(
        &View::default(),
        &Knowledge::default(),
        &Observed::default(),
    );
    for part in [
        "the buckets have not been checked yet",
        "It has not been read yet",
        "unknown",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    assert!(!page.contains("0 s:"), "{page}");
}

#[test]
fn a_gap_is_told_in_words() {
    let mut known = all_known();
    let stretch = |kind, from: u64, to: u64, name: &str| Stretch {
        kind,
        from: Lsn(from),
        to: Lsn(to),
        name: name.to_owned(),
    };
    let evidence = known.evidence.as_mut().unwrap();
    let extent = evidence.extent.as_mut().unwrap();
    extent.stretches = vec![
        stretch(StretchKind::Stored, 0, 50, "000000010000000000000001"),
        stretch(StretchKind::Gap, 50, 60, "000000010000000000000002"),
        stretch(
            StretchKind::AcknowledgedGap,
            60,
            70,
            "000000010000000000000003: known",
        ),
    ];
    extent.base_backups = vec![BackupMark {
        name: "base_1".to_owned(),
        at: Some(at(NOW - 5000)),
        lsn: Lsn(10),
        state: "complete",
    }];
    let page = shown(&known);
    assert!(
        page.contains("<strong>Gap</strong>: 000000010000000000000002"),
        "{page}"
    );
    assert!(page.contains("<strong>Acknowledged gap</strong>: 000000010000000000000003: known"));
    assert!(
        page.contains("Base backups: 1, gaps: 2, proven points: 0"),
        "{page}"
    );
}

#[test]
fn a_page_full_of_everything_is_below_100_kb() {
    let mut known = all_known();
    for (name, _) in crate::model::RUNBOOKS {
        let reason = "a reason of some length ".repeat(8);
        let runbook = format!("runbooks/{name}.md");
        for object in 0..4 {
            let key = format!("{name}/db1/{object}");
            known.alerts.push(standing(&key, &reason, Some(&runbook)));
        }
    }
    let evidence = known.evidence.as_mut().unwrap();
    let extent = evidence.extent.as_mut().unwrap();
    let test = extent.tests[0].clone();
    extent.tests = vec![test; ArchiveExtent::LIMIT];
    let mut observed = observed();
    let values = |value| ["rpo", "rto", "lag", "waiting-wal"].map(|name| (name, Some(value)));
    let mut plots = crate::http::Plots::default();
    for step in 0..700_000 / 30 {
        let value = f64::from(step % 977) * 1234.567;
        plots.take(&values(value), at(NOW - 700_000 + i64::from(step) * 30));
    }
    observed.plots = plots;
    let page = rendered(&view(false, 1), &known, &observed);
    assert!(page.len() < 100_000, "{} bytes", page.len());
}

#[test]
fn the_policy_names_no_other_place_and_the_page_asks_none() {
    let policy = frame::policy();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-"),
        "{policy}"
    );
    assert!(
        !policy.contains("unsafe") && !policy.contains("http"),
        "{policy}"
    );
    let page = shown(&all_known());
    assert!(
        !page.contains(" style=") && !page.contains("src="),
        "{page}"
    );
    let elsewhere = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"));
}

#[tokio::test]
async fn the_runbook_of_a_check_of_ones_own_is_where_its_file_says() {
    let mut known = all_known();
    known
        .alerts
        .push(standing("own/db1/", "own", Some("https://wiki/own")));
    let shown = Shown {
        cluster: "main".to_owned(),
        hostname: "db1".to_owned(),
        listen: String::new(),
        view: watch::channel(view(false, 1)).1,
        known: watch::channel(known).1,
        observed: watch::channel(observed()).1,
    };
    for (name, code, part) in [
        ("s3", 200, "when this node asked it"),
        ("own", 200, "<a href=\"https://wiki/own\">"),
        ("lag", 200, "This check has no runbook"),
        ("none", 404, "There is no runbook of this name"),
    ] {
        let answer = one_runbook(State(shown.clone()), Path(name.to_owned())).await;
        assert_eq!(answer.status(), code, "{name}");
        let body = axum::body::to_bytes(answer.into_body(), 100_000).await;
        let body = String::from_utf8(body.unwrap().to_vec()).unwrap();
        assert!(body.contains(part), "{part} is not in {body}");
    }
}
