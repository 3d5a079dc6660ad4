//! `name=value` settings as pg_db_role_setting keeps them, and the SQL that sets them again.

use crate::postgres::quote;

/// Settings whose value is a list of quoted names; as in `variable_is_guc_list_quote` of pg_dump's
/// dumputils.c. Lists such as DateStyle are kept as plain text and are none of these.
const QUOTED_LISTS: &[&str] = &[
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// `name` and `value` of a setting; `None` when there is no `=`.
pub(super) fn parse(setting: &str) -> Option<(&str, &str)> {
    setting.split_once('=')
}

/// What follows `SET`: the name and the value as it is written in SQL.
pub(super) fn assignment(name: &str, value: &str) -> String {
    let value = if QUOTED_LISTS.iter().any(|list| name.eq_ignore_ascii_case(list)) {
        match split_list(value) {
            Some(items) if !items.is_empty() => quote::literals(items),
            _ => quote::literal(value),
        }
    } else {
        quote::literal(value)
    };
    format!("{} TO {value}", quote::ident(name))
}

/// Elements of a list as the server keeps it, quotes taken off (`SplitGUCList` in pg_dump's
/// dumputils.c: no case folding, no truncation). `None` when it is no such list.
fn split_list(text: &str) -> Option<Vec<String>> {
    let mut items = Vec::new();
    let mut rest = text.trim_start();
    if rest.is_empty() {
        return Some(items);
    }
    loop {
        let item;
        if let Some(quoted) = rest.strip_prefix('"') {
            (item, rest) = split_quoted(quoted)?;
        } else {
            let end = rest.find(|c: char| c == ',' || c.is_ascii_whitespace()).unwrap_or(rest.len());
            if end == 0 {
                return None;
            }
            let (name, after) = rest.split_at(end);
            item = name.to_owned();
            rest = after;
        }
        items.push(item);
        rest = rest.trim_start();
        if rest.is_empty() {
            return Some(items);
        }
        rest = rest.strip_prefix(',')?.trim_start();
    }
}

/// What stands before the closing quote, doubled quotes made single, and what stands after it.
pub(super) fn split_quoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_taken_apart_and_plain_values_are_not() {
        assert_eq!(
            assignment("search_path", "\"$user\", app, \"It\"\"s, mine\""),
            "\"search_path\" TO '$user', 'app', 'It\"s, mine'"
        );
        assert_eq!(assignment("search_path", "\"\""), "\"search_path\" TO ''");
        assert_eq!(assignment("DateStyle", "ISO, DMY"), "\"DateStyle\" TO 'ISO, DMY'");
        assert_eq!(assignment("my.setting", "it's"), "\"my.setting\" TO 'it''s'");
        assert_eq!(assignment("temp_tablespaces", ""), "\"temp_tablespaces\" TO ''");
    }

    #[test]
    fn broken_lists_stay_whole() {
        for broken in ["\"open", "a b", ",a", "a,"] {
            assert_eq!(split_list(broken), None, "{broken}");
        }
        assert_eq!(split_list(" a ,\"b\" ").unwrap(), ["a", "b"]);
    }

    #[test]
    fn settings_split_at_the_first_equals_sign() {
        assert_eq!(parse("work_mem=7MB"), Some(("work_mem", "7MB")));
        assert_eq!(parse("a.b=c=d"), Some(("a.b", "c=d")));
        assert_eq!(parse("nothing"), None);
    }
}
