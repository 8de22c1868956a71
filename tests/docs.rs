//! What README says about algorithms is what the registry has.
//!
//! Between `<!-- algorithms -->` and `<!-- /algorithms -->` README has a table: a row for each algorithm, its name in backticks in the
//! first column; columns headed `forward`, `backward-data` and `backward-weights`, in which an empty cell, `no` or a dash means that
//! it does not serve that pass. Between `<!-- tiles -->` and `<!-- /tiles -->`, if that is there, a row for each instruction set of
//! this CPU: its name in backticks, then its register tiles as `14x32, 14x16`.

use std::collections::{BTreeMap, BTreeSet};

use convolve_testkit::{Algorithms, Direction, NAMES, isas, strategy};

const README: &str = include_str!("../README.md");
const PASSES: [&str; 3] = ["forward", "backward-data", "backward-weights"];

/// The cells of the table in a marked section; none without the mark.
fn table(mark: &str) -> Option<Vec<Vec<String>>> {
    let rest = README.split(&format!("<!-- {mark} -->")).nth(1)?;
    let section = rest.split(&format!("<!-- /{mark} -->")).next()?;
    let rows = section.lines().map(str::trim).filter(|line| line.starts_with('|') && !line.starts_with("|-"));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    Some(rows.map(cells).collect::<Vec<_>>()).filter(|rows: &Vec<Vec<String>>| !rows.is_empty())
}

/// The table as it should be.
fn registered() -> BTreeMap<String, [bool; 3]> {
    let algorithms = Algorithms::registered();
    let mut table = BTreeMap::<String, [bool; 3]>::new();
    for (i, direction) in Direction::ALL.into_iter().enumerate() {
        for name in algorithms.names(direction) {
            table.entry(name.to_owned()).or_default()[i] = true;
        }
    }
    table
}

fn expected() -> String {
    let mut text =
        format!("<!-- algorithms -->\n| algorithm | {} |\n|---|---|---|---|\n", PASSES.join(" | "));
    for (name, passes) in registered() {
        text += &format!("| `{name}` | {} |\n", passes.map(|has| if has { "yes" } else { "" }).join(" | "));
    }
    text + "<!-- /algorithms -->"
}

#[test]
fn readme_lists_exactly_the_registered_algorithms() {
    let hint = format!("README.md should have a section such as\n\n{}", expected());
    let rows = table("algorithms").unwrap_or_else(|| panic!("no marked table. {hint}"));
    let columns = PASSES.map(|pass| {
        let heads = rows[0].iter().map(|cell| cell.to_lowercase().replace(' ', "-"));
        let found = heads.enumerate().find(|(_, cell)| cell == pass);
        found.unwrap_or_else(|| panic!("no column is headed `{pass}`. {hint}")).0
    });
    let mut found = BTreeMap::new();
    for row in &rows[1..] {
        let name = row[0].split('`').nth(1).unwrap_or_else(|| panic!("{row:?} names no algorithm. {hint}"));
        let has = columns.map(|column| {
            let cell = row.get(column).map_or("", |cell| cell.as_str());
            !["", "no", "-", "–", "—"].contains(&cell)
        });
        assert!(found.insert(name.to_owned(), has).is_none(), "`{name}` is listed twice");
    }
    assert_eq!(found, registered(), "README on the left, registry on the right. {hint}");
}

#[test]
fn readme_says_the_tiles_that_kernels_have() {
    let Some(rows) = table("tiles") else { return };
    for isa in isas() {
        let name = format!("`{isa}`");
        let row =
            rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("README has no tiles of {name}"));
        let said: BTreeSet<String> =
            row.iter().skip(1).flat_map(|cell| cell.split(',')).map(|tile| tile.trim().to_owned()).collect();
        let tiles: BTreeSet<String> =
            strategy::tiles_of(isa).iter().map(|[mr, nr]| format!("{mr}x{nr}")).collect();
        assert_eq!(said, tiles, "the tiles of {name}");
    }
}

/// `convolve_testkit::NAMES` is a list by hand; it must not miss an instruction set.
#[test]
fn every_instruction_set_of_this_cpu_is_known_by_name() {
    assert!(isas().iter().all(|isa| NAMES.contains(&isa.name())));
    let error = convolve::Isa::by_name("none").unwrap_err().to_string();
    assert!(NAMES.iter().all(|name| error.contains(name)), "{error}");
}
