//! Results as people read them: columns side by side, as psql prints them.

use std::fmt::Write;

/// Rows of text under their headings; `None` is NULL. At most `limit` rows are shown, and the last
/// line tells how many there are.
pub fn render(columns: &[String], rows: &[Vec<Option<String>>], limit: usize) -> String {
    let shown = &rows[..rows.len().min(limit)];
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| {
            let cells = shown.iter().map(|row| width(cell(row, column)));
            cells.chain([width(&columns[column])]).max().unwrap_or_default()
        })
        .collect();
    let numeric: Vec<bool> = (0..columns.len())
        .map(|column| {
            shown.iter().all(|row| {
                let text = cell(row, column);
                text.is_empty() || text.parse::<f64>().is_ok()
            })
        })
        .collect();

    let mut text = String::new();
    let headings = columns.iter().zip(&widths).map(|(name, width)| format!(" {name:^width$} "));
    push_line(&mut text, headings.collect::<Vec<_>>().join("|"));
    let rules = widths.iter().map(|width| "-".repeat(width + 2));
    push_line(&mut text, rules.collect::<Vec<_>>().join("+"));
    for row in shown {
        let cells = (0..columns.len()).map(|column| {
            let (text, width) = (cell(row, column), widths[column]);
            if numeric[column] { format!(" {text:>width$} ") } else { format!(" {text:width$} ") }
        });
        push_line(&mut text, cells.collect::<Vec<_>>().join("|"));
    }
    let _ = match (rows.len(), shown.len()) {
        (1, _) => write!(text, "(1 row)"),
        (all, some) if some < all => write!(text, "({all} rows, the first {some} shown)"),
        (all, _) => write!(text, "({all} rows)"),
    };
    text
}

fn cell(row: &[Option<String>], column: usize) -> &str {
    row.get(column).and_then(Option::as_deref).unwrap_or_default()
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn push_line(text: &mut String, line: String) {
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let columns = ["name".to_owned(), "n".to_owned()];
        let row = |name: &str, n: Option<&str>| vec![Some(name.to_owned()), n.map(str::to_owned)];
        let rows = [row("Größe", Some("1.50")), row("b", None), row("c", Some("-7"))];
        let expected = " name  |  n\n-------+------\n Größe | 1.50\n b     |\n\
                        (3 rows, the first 2 shown)";
        assert_eq!(render(&columns, &rows, 2), expected);
        assert_eq!(render(&["a".to_owned()], &[], 2), " a\n---\n(0 rows)");
    }
}
