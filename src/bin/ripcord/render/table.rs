//! Columns for people.

/// Lines of aligned columns below their headings. The last column is not padded, so that nothing wraps
/// for the sake of spaces.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let count = headings.len();
    let mut widths: Vec<usize> = headings.iter().map(|text| text.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let mut line = String::new();
        for (index, cell) in cells.iter().enumerate().take(count) {
            // A cell that spans lines would break the table.
            let cell = cell.replace(['\n', '\r', '\t'], " ");
            line.push_str(&cell);
            if index + 1 < count {
                let width = widths.get(index).copied().unwrap_or_default();
                let padding = width.saturating_sub(cell.chars().count()) + 2;
                line.extend(std::iter::repeat_n(' ', padding));
            }
        }
        line.trim_end().to_owned()
    };
    let mut lines = vec![line(headings.to_vec())];
    lines.extend(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters() {
        let rows = vec![
            vec!["a".to_owned(), "größer".to_owned(), "x".to_owned()],
            vec!["longer".to_owned(), String::new(), "two\nlines".to_owned()],
        ];
        assert_eq!(
            table(&["id", "name", "note"], &rows),
            ["id      name    note", "a       größer  x", "longer          two lines",]
        );
    }
}
