//! File names → versions.

use super::super::version::split_date;

/// What a file's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// As the file spells it. A date alone tells nothing apart, so that the name belongs to it.
    pub version: String,
    pub name: String,
    pub side: Side,
    pub style: Style,
}

/// Which half of a pair a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// `x.sql` or `x.up.sql`.
    Up { marked: bool },
    /// `x.down.sql`.
    Down,
}

/// How a folder numbers its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// `001_x`, `2.1_x`.
    Number,
    /// `20250726123456_x`, and `20250726_x`.
    Timestamp,
    /// `2026-01-20_x`.
    Date,
    /// `2026-1-20_x`, `2026-02-30_x`: meant as a date, and none.
    NoDate,
    /// No number at all.
    None,
}

/// The name without `.sql`, in whatever case; `None`: another kind of file.
pub(crate) fn stem(file_name: &str) -> Option<&str> {
    let (stem, ending) = file_name.split_at_checked(file_name.len().checked_sub(4)?)?;
    (ending.eq_ignore_ascii_case(".sql") && !stem.is_empty() && !stem.starts_with('.')).then_some(stem)
}

pub(crate) fn parse(stem: &str) -> Named {
    let (stem, side) = split_side(stem);
    let named = |version: &str, name: &str, style| Named {
        version: version.to_owned(),
        name: name.trim_matches(['_', '-', '.', ' ']).to_owned(),
        side,
        style,
    };
    if let Some((date, rest)) = split_date(stem) {
        let style = if date.parse::<chrono::NaiveDate>().is_ok() { Style::Date } else { Style::NoDate };
        return named(stem, rest, style);
    }
    if looks_like_date(stem) {
        return named(stem, stem, Style::NoDate);
    }
    if let Some((_, version, rest)) = super::flyway::version(stem) {
        return named(&version, rest, Style::Number);
    }
    let end = stem.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(stem.len());
    let (number, rest) = stem.split_at(end);
    let version = number.trim_end_matches('.');
    match version.bytes().next() {
        Some(first) if first.is_ascii_digit() => {
            let timestamp = version.len() >= 8 && version.find('.').is_none_or(|at| at >= 14);
            let style = if timestamp { Style::Timestamp } else { Style::Number };
            named(version, rest, style)
        }
        _ => named(stem, stem, Style::None),
    }
}

/// Three numbers with dashes between, the first of four digits: a date whose month or day lacks its zero.
fn looks_like_date(stem: &str) -> bool {
    let end = stem.find(|character: char| !character.is_ascii_digit() && character != '-').unwrap_or(stem.len());
    let numbers: Vec<&str> = stem[..end].trim_end_matches('-').split('-').collect();
    matches!(numbers.as_slice(), [year, month, day]
        if year.len() == 4 && (1..=2).contains(&month.len()) && (1..=2).contains(&day.len()))
}

fn split_side(stem: &str) -> (&str, Side) {
    let ends = |ending: &str| {
        let (head, tail) = stem.split_at_checked(stem.len().checked_sub(ending.len())?)?;
        (tail.eq_ignore_ascii_case(ending) && !head.is_empty()).then_some(head)
    };
    if let Some(head) = ends(".down") {
        (head, Side::Down)
    } else if let Some(head) = ends(".up") {
        (head, Side::Up { marked: true })
    } else {
        (stem, Side::Up { marked: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_names() {
        for (stem, version, name, style) in [
            ("001_initial_schema", "001", "initial_schema", Style::Number),
            ("1", "1", "", Style::Number),
            ("2.10_late fix", "2.10", "late fix", Style::Number),
            ("12-dash", "12", "dash", Style::Number),
            ("3__two", "3", "two", Style::Number),
            ("20250726123456_add_ratings", "20250726123456", "add_ratings", Style::Timestamp),
            (
                "2026-01-20_create_finances_table",
                "2026-01-20_create_finances_table",
                "create_finances_table",
                Style::Date,
            ),
            ("add_users", "add_users", "add_users", Style::None),
            ("ä", "ä", "ä", Style::None),
            (".5_x", ".5_x", "5_x", Style::None),
            ("2026-1-20_late", "2026-1-20_late", "2026-1-20_late", Style::NoDate),
            ("2026-02-30_late", "2026-02-30_late", "late", Style::NoDate),
            ("2026-12-orders", "2026", "12-orders", Style::Number),
        ] {
            let named = parse(stem);
            assert_eq!((named.version.as_str(), named.style), (version, style), "{stem}");
            if style != Style::None {
                assert_eq!(named.name, name, "{stem}");
            }
        }
    }

    #[test]
    fn sides() {
        assert_eq!(parse("001_a.down").side, Side::Down);
        assert_eq!(parse("001_a.UP").side, Side::Up { marked: true });
        assert_eq!(parse("001_a.down").name, "a");
        assert_eq!(parse("001_add.downloads").side, Side::Up { marked: false });
    }

    #[test]
    fn only_sql_files_count() {
        assert_eq!(stem("a.sql"), Some("a"));
        assert_eq!(stem("a.SQL"), Some("a"));
        for other in ["a.md", ".sql", "sql", "é.sq", ".hidden.sql", ""] {
            assert_eq!(stem(other), None, "{other}");
        }
    }
}
