//! Tables for people, in a form that Markdown understands.

use crate::row::Row;
use comfy_table::{CellAlignment, Table, presets};

/// An empty table; all columns but the first are of numbers.
pub fn new(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The rows of one problem and pass.
pub fn rows(rows: &[Row]) -> String {
    let header = [
        "layout, algorithm",
        "median ms",
        "min ms",
        "GFLOP/s",
        "% of peak",
        "error / u S",
        "workspace MiB",
        "chosen, regret",
    ];
    let mut table = new(&header);
    for row in rows {
        let mut cells = cells(row);
        let same = |other: &&Row| other.algorithm == row.algorithm && other.layout == row.layout;
        if rows.iter().filter(same).count() > 1 {
            cells[0] = format!("{} ({})", cells[0], row.tiling);
        }
        table.add_row(cells);
    }
    table.to_string()
}

fn cells(row: &Row) -> [String; 8] {
    let unsteady = if row.steady { "" } else { "~" };
    let chosen = match row.regret {
        Some(regret) => format!("chosen, {:.1} %", 100.0 * regret),
        None if row.chosen => "chosen".into(),
        None => String::new(),
    };
    [
        format!("{} {}", row.layout, row.algorithm),
        format!("{unsteady}{:.4}", 1e3 * row.median_s),
        format!("{:.4}", 1e3 * row.min_s),
        format!("{:.1}", row.gflops),
        format!("{:.1}", 100.0 * row.peak_fraction),
        row.error.map_or(String::new(), |error| format!("{error:.1}")),
        format!("{:.2}", row.workspace_bytes as f64 / (1 << 20) as f64),
        chosen,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::row;

    #[test]
    fn a_table() {
        let mut both = [row("direct", true, 0.5), row("im2col", false, 0.25)];
        crate::row::regret(&mut both);
        both[1].steady = false;
        both[0].error = Some(1.5);
        let expected = "\
| layout, algorithm | median ms |   min ms | GFLOP/s | % of peak | error / u S | workspace MiB |  chosen, regret |
|-------------------|-----------|----------|---------|-----------|-------------|---------------|-----------------|
| NCHW direct       |  500.0000 | 250.0000 |     4.0 |      20.0 |         1.5 |          0.50 | chosen, 100.0 % |
| NCHW im2col       | ~250.0000 | 125.0000 |     8.0 |      40.0 |             |          0.50 |                 |";
        assert_eq!(rows(&both).lines().map(str::trim_end).collect::<Vec<_>>().join("\n"), expected);
    }
}
