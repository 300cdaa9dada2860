use super::*;

fn entry(id: i64, kind: &str, name: &str, needs: &[i64]) -> Entry {
    let (schema, tag) = name.split_once('/').unwrap_or(("", name));
    let section = match kind {
        "TABLE DATA" | "SEQUENCE SET" | "BLOBS" => Section::Data,
        "INDEX" | "FK CONSTRAINT" | "CONSTRAINT" => Section::PostData,
        _ => Section::PreData,
    };
    Entry {
        id,
        tag: tag.to_owned(),
        kind: kind.to_owned(),
        section,
        schema: schema.to_owned(),
        needs: needs.to_vec(),
        ..Entry::default()
    }
}

/// A shop: orders with a sequence, an enum, a check by a function; lines that refer to orders; a partitioned table.
fn shop() -> Toc {
    let entries = [
        entry(1, "EXTENSION", "citext", &[]),
        entry(2, "SCHEMA", "shop", &[]),
        entry(3, "TYPE", "shop/state", &[2]),
        entry(4, "FUNCTION", "shop/valid", &[2, 1]),
        entry(10, "TABLE", "shop/Orders", &[2, 3, 4]),
        entry(11, "SEQUENCE", "shop/orders_id_seq", &[2]),
        entry(12, "SEQUENCE OWNED BY", "shop/orders_id_seq", &[11, 10]),
        entry(13, "TABLE", "shop/lines", &[2]),
        entry(14, "VIEW", "shop/open", &[10, 13]),
        entry(15, "TABLE", "public/orders", &[]),
        entry(16, "DEFAULT", "shop/Orders id", &[10, 11]),
        entry(20, "TABLE", "public/log", &[]),
        entry(21, "TABLE", "public/log_2026", &[]),
        entry(22, "TABLE ATTACH", "public/log_2026", &[21, 20]),
        entry(30, "TABLE DATA", "shop/Orders", &[10]),
        entry(31, "TABLE DATA", "shop/lines", &[13]),
        entry(32, "TABLE DATA", "public/log_2026", &[21]),
        entry(33, "SEQUENCE SET", "shop/orders_id_seq", &[11]),
        entry(34, "BLOBS", "BLOBS", &[]),
        entry(40, "CONSTRAINT", "shop/Orders orders_pkey", &[10]),
        entry(
            41,
            "FK CONSTRAINT",
            "shop/lines lines_order_fkey",
            &[40, 13, 10],
        ),
        entry(42, "INDEX", "public/log_at", &[20]),
        entry(43, "INDEX", "public/log_2026_at", &[21]),
        entry(44, "INDEX ATTACH", "public/log_2026_at", &[43, 42, 21]),
        entry(45, "ACL", "shop/TABLE \"Orders\"", &[10]),
        entry(46, "COMMENT", "shop/TABLE lines", &[13]),
        entry(47, "ACL", "DATABASE app", &[]),
        entry(48, "PUBLICATION TABLE", "shop/p Orders", &[10]),
    ];
    Toc {
        server: "17.5".to_owned(),
        entries: entries.into(),
    }
}

fn tables(names: &[&str]) -> Part {
    Part::Tables(names.iter().map(|name| (*name).to_owned()).collect())
}

fn selected(part: &Part) -> Selection {
    select(&shop(), part, true).unwrap()
}

#[test]
fn a_table_comes_with_all_that_it_needs_and_all_that_belongs_to_it() {
    let orders = selected(&tables(&["Orders"]));
    let ids = vec![1, 2, 3, 4, 10, 11, 12, 16, 30, 33, 40, 45];
    assert_eq!(orders.ids, Some(ids));
    assert_eq!(
        orders.left_out,
        [
            "fk constraint shop.lines lines_order_fkey: it needs shop.lines",
            "large objects: they belong to no table"
        ]
    );
    let lines = selected(&tables(&["shop.lines"]));
    assert_eq!(lines.ids, Some(vec![2, 13, 31, 46]));
    assert!(lines.left_out[0].contains("it needs shop.Orders"));
    let both = selected(&tables(&["shop.lines", r#"shop."Orders""#]));
    assert!(both.ids.unwrap().contains(&41));
    let names = [("shop", "Orders"), ("shop", "lines")];
    let names = names.map(|(schema, table)| (schema.to_owned(), table.to_owned()));
    assert_eq!(both.tables, Some(names.into()));
}

#[test]
fn a_partitioned_table_comes_with_its_partitions_and_a_partition_alone() {
    let log = selected(&tables(&["log"]));
    assert_eq!(log.ids, Some(vec![20, 21, 22, 32, 42, 43, 44]));
    assert_eq!(log.tables.unwrap().len(), 2);
    let part = selected(&tables(&["log_2026"]));
    assert_eq!(part.ids, Some(vec![21, 32, 43]));
    // Detached from what is not there, which is no loss to tell of.
    assert_eq!(part.left_out.len(), 1);
}

#[test]
fn a_schema_comes_with_its_views_and_without_the_databases_own() {
    let schema = selected(&Part::Schema("shop".to_owned()));
    let ids = vec![
        1, 2, 3, 4, 10, 11, 12, 13, 14, 16, 30, 31, 33, 40, 41, 45, 46,
    ];
    assert_eq!(schema.ids, Some(ids));
    let none = select(&shop(), &Part::Schema("shp".to_owned()), true).unwrap_err();
    assert_eq!(none.reason, "the dump holds no schema shp");
    assert!(none.hint.contains(": shop, public"), "{}", none.hint);
}

#[test]
fn without_rows_neither_data_nor_values_of_sequences_come() {
    let orders = select(&shop(), &tables(&["Orders"]), false).unwrap();
    assert_eq!(orders.ids, Some(vec![1, 2, 3, 4, 10, 11, 12, 16, 40, 45]));
    let all = select(&shop(), &Part::Database, false).unwrap();
    let ids = all.ids.unwrap();
    assert!(ids.contains(&47) && !ids.iter().any(|id| (30..=34).contains(id)));
    let whole = select(&shop(), &Part::Database, true).unwrap();
    assert_eq!((whole.ids, whole.tables), (None, None));
}

#[test]
fn a_name_that_fits_no_table_or_several_is_refused() {
    let refused = |name: &str| select(&shop(), &tables(&[name]), true).unwrap_err();
    assert_eq!(refused("ordrs").reason, "the dump holds no table ordrs");
    assert!(
        refused("ordrs").hint.contains("public.orders"),
        "{:?}",
        refused("ordrs")
    );
    assert!(refused("shop.open").reason.contains("no table but a view"));
    let mut toc = shop();
    toc.entries.push(entry(60, "TABLE", "public/lines", &[]));
    let several = select(&toc, &tables(&["LINES"]), true).unwrap_err();
    assert!(
        several.hint.contains("shop.lines, public.lines"),
        "{several:?}"
    );
    // SQL folds it to the one that is written in small letters.
    let folded = selected(&tables(&["ORDERS"]));
    assert!(folded.ids.unwrap().contains(&15));
}
