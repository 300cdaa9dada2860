//! The names of a cluster's databases, read from the catalog's file: for a server that lets xdb into none that it knows.

use std::fs;
use std::path::Path;

/// `RELMAPPER_FILEMAGIC`, and `pg_database`'s object identifier (`catalog/pg_database.h`).
const MAP_MAGIC: u32 = 0x0059_2717;
const PG_DATABASE: u32 = 1262;

/// `BLCKSZ`; a server of another page size gives no names.
const PAGE: usize = 8192;
const PAGE_HEADER: usize = 24;
/// `lp_flags` of an item that is in use.
const NORMAL: u32 = 1;
/// `t_hoff` in a tuple's header, and `NAMEDATALEN`.
const HEADER_LENGTH_AT: usize = 22;
const NAME_LENGTH: usize = 64;

/// Names of databases in `data`, dropped ones among them: candidates to try. Empty where the file cannot be read.
pub(crate) fn database_names(data: &Path) -> Vec<String> {
    let global = data.join("global");
    let map = fs::read(global.join("pg_filenode.map")).unwrap_or_default();
    let file = file_of(&map).unwrap_or(PG_DATABASE);
    let relation = fs::read(global.join(file.to_string())).unwrap_or_default();
    let mut names: Vec<String> = relation.chunks_exact(PAGE).flat_map(page_names).collect();
    names.sort();
    names.dedup();
    names
}

fn file_of(map: &[u8]) -> Option<u32> {
    let word = |at: usize| Some(u32::from_ne_bytes(map.get(at..at + 4)?.try_into().ok()?));
    if word(0)? != MAP_MAGIC {
        return None;
    }
    let count = usize::try_from(word(4)?).ok()?.min(64);
    let of = (0..count).find(|number| word(8 + number * 8) == Some(PG_DATABASE))?;
    word(12 + of * 8)
}

fn page_names(page: &[u8]) -> Vec<String> {
    let lower = usize::from(u16::from_ne_bytes([page[12], page[13]])).min(PAGE);
    let items = page.get(PAGE_HEADER..lower).unwrap_or_default();
    items
        .chunks_exact(4)
        .filter_map(|item| tuple_name(page, u32::from_ne_bytes(item.try_into().ok()?)))
        .collect()
}

/// The second column, after the object identifier.
fn tuple_name(page: &[u8], item: u32) -> Option<String> {
    if (item >> 15) & 3 != NORMAL {
        return None;
    }
    let begin = usize::try_from(item & 0x7fff).ok()?;
    let columns = begin + usize::from(*page.get(begin + HEADER_LENGTH_AT)?);
    let name = page.get(columns + 4..columns + 4 + NAME_LENGTH)?;
    let length = name.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(&name[..length]).ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(names: &[&str]) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        let lower = u16::try_from(PAGE_HEADER + 4 * names.len()).unwrap();
        page[12..14].copy_from_slice(&lower.to_ne_bytes());
        for (number, name) in names.iter().enumerate() {
            let begin = PAGE - 200 * (number + 1);
            let item = u32::try_from(begin).unwrap() | NORMAL << 15;
            let at = PAGE_HEADER + 4 * number;
            page[at..at + 4].copy_from_slice(&item.to_ne_bytes());
            page[begin + HEADER_LENGTH_AT] = 32;
            let text = begin + 32 + 4;
            page[text..text + name.len()].copy_from_slice(name.as_bytes());
        }
        page
    }

    #[test]
    fn names_are_found_where_the_map_leads() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(database_names(data.path()), Vec::<String>::new());
        let global = data.path().join("global");
        fs::create_dir(&global).unwrap();
        fs::write(global.join("1262"), page(&["old"])).unwrap();
        assert_eq!(database_names(data.path()), ["old"]);
        let words = [MAP_MAGIC, 2, 1260, 1260, PG_DATABASE, 20001];
        let map: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        fs::write(global.join("pg_filenode.map"), map).unwrap();
        fs::write(global.join("20001"), page(&["shop", "app"])).unwrap();
        assert_eq!(database_names(data.path()), ["app", "shop"]);
        fs::write(global.join("20001"), vec![0xff; PAGE]).unwrap();
        assert_eq!(database_names(data.path()), Vec::<String>::new());
    }
}
