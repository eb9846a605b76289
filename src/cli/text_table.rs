//! Results as people read them: columns side by side, as psql prints them.

use std::fmt::Write;

use unicode_width::UnicodeWidthStr;

use crate::wording::counted;

/// Rows of text under their headings; `None` is NULL. At most `limit` rows are shown, and the last
/// line tells how many there are.
pub fn render(columns: &[String], rows: &[Vec<Option<String>>], limit: usize) -> String {
    let shown = &rows[..rows.len().min(limit)];
    let numeric: Vec<bool> = (0..columns.len())
        .map(|column| {
            shown.iter().all(|row| {
                let text = cell(row, column, "");
                text.is_empty() || text.parse::<f64>().is_ok()
            })
        })
        .collect();
    let mut text = aligned(Some(columns), &numeric, shown, "");
    let _ = match (rows.len(), shown.len()) {
        (all, some) if some < all => {
            write!(text, "({}, the first {some} shown)", counted(all as u64, "row"))
        }
        (all, _) => write!(text, "({})", counted(all as u64, "row")),
    };
    text
}

/// Rows of text side by side, below their headings if there are any; `numeric` ones are aligned to
/// the right. Values of several lines take several lines, each but the last with a `+` behind it.
pub fn aligned(
    headings: Option<&[String]>,
    numeric: &[bool],
    rows: &[Vec<Option<String>>],
    null: &str,
) -> String {
    let widths: Vec<usize> = (0..numeric.len())
        .map(|column| {
            let cells = rows.iter().map(|row| width(cell(row, column, null)));
            let heading = headings.map_or(0, |headings| width(&headings[column]));
            cells.chain([heading]).max().unwrap_or_default()
        })
        .collect();
    let mut text = String::new();
    if let Some(headings) = headings {
        let cells = headings.iter().zip(&widths).map(|(name, &wide)| {
            let space = wide.saturating_sub(width(name));
            format!(" {}{name}{} ", " ".repeat(space / 2), " ".repeat(space - space / 2))
        });
        push_line(&mut text, cells.collect::<Vec<_>>().join("|"));
        let rules = widths.iter().map(|width| "-".repeat(width + 2));
        push_line(&mut text, rules.collect::<Vec<_>>().join("+"));
    }
    for row in rows {
        let cells: Vec<Vec<&str>> = (0..numeric.len())
            .map(|column| cell(row, column, null).split('\n').collect())
            .collect();
        for line in 0..cells.iter().map(Vec::len).max().unwrap_or(1) {
            let parts = cells.iter().enumerate().map(|(column, lines)| {
                let part = lines.get(line).copied().unwrap_or_default();
                let space = " ".repeat(widths[column].saturating_sub(part.width()));
                let more = if line + 1 < lines.len() { '+' } else { ' ' };
                match numeric[column] {
                    true => format!(" {space}{part}{more}"),
                    false => format!(" {part}{space}{more}"),
                }
            });
            push_line(&mut text, parts.collect::<Vec<_>>().join("|"));
        }
    }
    text
}

fn cell<'a>(row: &'a [Option<String>], column: usize, null: &'a str) -> &'a str {
    row.get(column).and_then(Option::as_deref).unwrap_or(null)
}

/// Of the widest line.
fn width(text: &str) -> usize {
    text.split('\n').map(UnicodeWidthStr::width).max().unwrap_or_default()
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
        let row = vec![Some("1".to_owned()), Some("x\nyz".to_owned())];
        let rows = [row, vec![None, Some("日".to_owned())]];
        let text = aligned(None, &[true, false], &rows, "-");
        assert_eq!(text, " 1 | x +\n   | yz\n - | 日\n");
    }
}
