use super::super::Limits;
use super::*;

fn answer(columns: &[&str], rows: &[&[&str]]) -> Answer {
    let cell = |text: &&str| (*text != "NULL").then(|| (*text).to_owned());
    Answer {
        columns: columns.iter().map(|name| (*name).to_owned()).collect(),
        rows: rows
            .iter()
            .map(|row| row.iter().map(cell).collect())
            .collect(),
    }
}

fn columns(show: &str, names: &[&str]) -> Columns {
    let names = names
        .iter()
        .map(|names| names.split('|').map(str::to_owned).collect());
    Columns {
        show: show.to_owned(),
        columns: names.collect(),
    }
}

fn check(show: &str, names: &[&str], group: &[&str]) -> ShowCheck {
    ShowCheck {
        number: columns(show, names),
        of: None,
        group: group.iter().map(|name| (*name).to_owned()).collect(),
        fold: Fold::Sum,
        only: Vec::new(),
        detail: Vec::new(),
        measure: Measure {
            unit: String::new(),
            limits: Limits::default(),
            may_be_empty: false,
            increase: None,
        },
    }
}

fn shown(values: &[Sampled]) -> Vec<String> {
    let show = |value: &Sampled| {
        let object = value.object.as_deref().unwrap_or("-");
        let detail = value.detail.as_deref().unwrap_or("-");
        match &value.number {
            Ok(number) => format!("{object} {number} {detail}"),
            Err(reason) => format!("{object} {reason} {detail}"),
        }
    };
    values.iter().map(show).collect()
}

fn pools() -> Answer {
    answer(
        &["database", "user", "cl_waiting", "sv_active", "maxwait"],
        &[
            &["shop", "app", "2", "9", "31"],
            &["shop", "job", "1", "1", "0"],
            &["gone", "app", "0", "3", "0"],
            &["pgbouncer", "pgbouncer", "9", "0", "0"],
        ],
    )
}

fn databases(reserve: &str) -> Answer {
    answer(
        &[
            "name",
            "pool_size",
            reserve,
            "current_connections",
            "max_connections",
        ],
        &[
            &["shop", "8", "2", "3", "4"],
            &["pgbouncer", "2", "0", "0", "0"],
        ],
    )
}

#[test]
fn rows_are_grouped_summed_and_left_out_by_their_content() {
    let mut waiting = check("POOLS", &["cl_waiting"], &["database"]);
    waiting.only = vec![Condition {
        column: "database".to_owned(),
        is: false,
        content: "pgbouncer".to_owned(),
    }];
    let values = waiting.values(&pools(), None).unwrap();
    assert_eq!(shown(&values), ["shop 3 -", "gone 0 -"]);
    waiting.group = vec!["database".to_owned(), "user".to_owned()];
    waiting.detail = vec!["maxwait".to_owned()];
    let values = waiting.values(&pools(), None).unwrap();
    assert_eq!(shown(&values)[0], "shop/app 2 maxwait 31");
    // Without a group all rows are one; the largest, where that is wanted.
    waiting.group.clear();
    waiting.fold = Fold::Max;
    let values = waiting.values(&pools(), None).unwrap();
    assert!(shown(&values)[0].starts_with("- 2 "), "{values:?}");
}

#[test]
fn a_value_is_percent_of_columns_of_its_own_row_or_of_another_show() {
    let mut used = check("DATABASES", &["current_connections"], &["name"]);
    used.of = Some(Whole {
        columns: columns("DATABASES", &["max_connections"]),
        by: Vec::new(),
    });
    // 0 is no limit.
    let values = used.values(&databases("reserve_pool"), None).unwrap();
    assert_eq!(shown(&values), ["shop 75 3 of 4"]);

    let mut pool = check("POOLS", &["sv_active"], &["database", "user"]);
    pool.of = Some(Whole {
        columns: columns(
            "DATABASES",
            &["pool_size", "reserve_pool_size|reserve_pool"],
        ),
        by: vec![("database".to_owned(), "name".to_owned())],
    });
    assert_eq!(pool.shows(), ["POOLS", "DATABASES"]);
    // Under both of its names, and without one that was forgotten since.
    for reserve in ["reserve_pool", "reserve_pool_size"] {
        let values = pool.values(&pools(), Some(&databases(reserve))).unwrap();
        let expected = [
            "shop/app 90 9 of 10",
            "shop/job 10 1 of 10",
            "pgbouncer/pgbouncer 0 0 of 2",
        ];
        assert_eq!(shown(&values), expected);
    }
}

#[test]
fn names_and_values_are_read_as_one_row() {
    let lists = answer(
        &["list", "items"],
        &[&["free_clients", "48"], &["used_clients", "2"]],
    );
    let config = answer(
        &["key", "value", "default", "changeable"],
        &[
            &["max_client_conn", "100", "100", "yes"],
            &["logfile", "NULL", "", "yes"],
        ],
    );
    let mut headroom = check("LISTS", &["used_clients"], &[]);
    headroom.of = Some(Whole {
        columns: columns("CONFIG", &["max_client_conn"]),
        by: Vec::new(),
    });
    let values = headroom.values(&lists, Some(&config)).unwrap();
    assert_eq!(shown(&values), ["- 2 2 of 100"]);
    let state = answer(&["key", "value"], &[&["active", "no"], &["paused", "yes"]]);
    let paused = check("STATE", &["paused"], &[])
        .values(&state, None)
        .unwrap();
    assert_eq!(shown(&paused), ["- 1 -"]);
}

#[test]
fn an_unknown_column_is_an_error_and_null_is_no_number() {
    for (names, group) in [(["cl_wait"], ["database"]), (["cl_waiting"], ["db"])] {
        let error = check("POOLS", &names, &group)
            .values(&pools(), None)
            .unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("SHOW POOLS has no column "), "{error}");
        assert!(
            error.contains("it has database, user, cl_waiting"),
            "{error}"
        );
    }
    // Also where there is no row.
    let empty = answer(&["database"], &[]);
    assert!(
        check("POOLS", &["cl_waiting"], &[])
            .values(&empty, None)
            .is_err()
    );
    let null = answer(
        &["database", "wait"],
        &[&["shop", "NULL"], &["shop", "5"], &["app", "1"]],
    );
    let values = check("X", &["wait"], &["database"])
        .values(&null, None)
        .unwrap();
    let expected = ["shop wait: there is no value (NULL) -", "app 1 -"];
    assert_eq!(shown(&values), expected);
}
