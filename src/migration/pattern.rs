//! Sequences of migrations for changes without downtime. Their SQL stands in `pattern/`, a file each.

use crate::error::{Error, Result};

/// Which sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// A new column takes the place of another.
    ExpandContract,
    /// A new table takes the place of another.
    OnlineTable,
    /// A feature for a share of the users that grows.
    Progressive,
}

/// The names that go into the SQL. Those that are not given are written as `your_table`, `your_column`, …, to be
/// filled in.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The table; without a schema it is one of `public`.
    pub table: Option<String>,
    /// The column that is replaced.
    pub column: Option<String>,
    /// The one that replaces it.
    pub new_column: Option<String>,
    /// Its type.
    pub column_type: Option<String>,
    /// The key that the rows are walked along.
    pub key: Option<String>,
}

/// One migration of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What its file is called, behind the sequence's own name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What to run.
    pub up: String,
    /// What undoes it; a comment where nothing does.
    pub down: String,
    /// It belongs to a later deploy: when that is due.
    pub later: Option<String>,
}

/// The steps of a sequence called `name`.
pub fn steps(pattern: Pattern, name: &str, names: &Names) -> Result<Vec<Step>> {
    let text = match pattern {
        Pattern::ExpandContract => include_str!("pattern/expand-contract.sql"),
        Pattern::OnlineTable => include_str!("pattern/online-table.sql"),
        Pattern::Progressive => include_str!("pattern/progressive.sql"),
    };
    let (text, open) = fill(text, pattern, name, names)?;
    let mut steps = cut(&text);
    if !open.is_empty() {
        let note = format!("-- TODO: put the real names in place of {}.\n", open.join(", "));
        steps.iter_mut().for_each(|step| step.up.insert_str(0, &note));
    }
    Ok(steps)
}

/// `=== name: description`, `=== later: when`, the UP, `=== down`, the DOWN.
fn cut(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut in_down = false;
    for line in text.lines() {
        let head = line.strip_prefix("=== ").map(|head| head.split_once(": ").unwrap_or((head, "")));
        match (head, steps.last_mut()) {
            (Some(("down", _)), _) => in_down = true,
            (Some(("later", when)), Some(step)) => step.later = Some(when.to_owned()),
            (Some((name, description)), _) => {
                let (name, description) = (name.to_owned(), description.to_owned());
                steps.push(Step { name, description, up: String::new(), down: String::new(), later: None });
                in_down = false;
            }
            (None, Some(step)) => {
                let half = if in_down { &mut step.down } else { &mut step.up };
                half.push_str(line);
                half.push('\n');
            }
            (None, None) => {}
        }
    }
    for step in &mut steps {
        step.up.truncate(step.up.trim_end().len());
        step.down.truncate(step.down.trim_end().len());
    }
    steps
}

/// The text with its names, and those that are to be filled in.
fn fill(text: &str, pattern: Pattern, name: &str, names: &Names) -> Result<(String, Vec<&'static str>)> {
    let mut open = Vec::new();
    let mut given = |what: &str, value: &Option<String>, otherwise: &'static str| match value {
        Some(value) => plain(what, value),
        None => {
            if otherwise.starts_with("your_") && text.contains(&format!("{{{what}}}")) {
                open.push(otherwise);
            }
            Ok(otherwise.to_owned())
        }
    };
    let own_table = pattern == Pattern::Progressive;
    let table = given("table", &names.table, if own_table { "migration_progress" } else { "your_table" })?;
    let (schema, bare) = table.split_once('.').unwrap_or(("public", &table));
    let column = given("column", &names.column, "your_column")?;
    let new = match (&names.new_column, &names.column) {
        (None, Some(_)) => format!("{column}_new"),
        (new, _) => given("new", new, "your_new_column")?,
    };
    let key = given("key", &names.key, "id")?;
    let by_key = names.key.as_ref().map_or_else(String::new, |_| format!(" key={key}"));
    let column_type = names.column_type.as_deref().unwrap_or("text");
    // Names end at 63 bytes.
    let derived = |name: String, ending: &str| format!("{}{ending}", name.get(..48).unwrap_or(&name));
    let of_schema = |name: &str| format!("{schema}.{name}");
    let (next, old) = (derived(bare.to_owned(), "_new"), derived(bare.to_owned(), "_old"));
    let carry = |from: &str, to: &str| {
        include_str!("pattern/carry.sql").replace("{from}", &of_schema(from)).replace("{to}", &of_schema(to))
    };
    let swap = |comes: &str, aside: &str| {
        let swapped = include_str!("pattern/swap.sql").replace("{comes}", &of_schema(comes));
        let swapped = swapped.replace("{aside}", &of_schema(aside)).replace("{aside_bare}", aside);
        format!("{swapped}{}", carry(bare, aside))
    };
    let filled = text
        .replace("{carry_to_next}", carry(bare, &next).trim_end())
        .replace("{switch}", swap(&next, &old).trim_end())
        .replace("{switch_back}", swap(&old, &next).trim_end())
        .replace("{table}", &of_schema(bare))
        .replace("{schema}", schema)
        .replace("{bare}", bare)
        .replace("{next}", &of_schema(&next))
        .replace("{old}", &of_schema(&old))
        .replace("{carry}", &derived(bare.to_owned(), "_carry"))
        .replace("{in_step}", &derived(format!("{bare}_{new}"), "_in_step"))
        .replace("{column}", &column)
        .replace("{new}", &new)
        .replace("{by_key}", &by_key)
        .replace("{key}", &key)
        .replace("{type}", &column_type.split_whitespace().collect::<Vec<_>>().join(" "))
        .replace("{feature}", name);
    Ok((filled, open))
}

/// A name that needs no quotes, which the SQL has in many places and in texts.
fn plain(what: &str, name: &str) -> Result<String> {
    let begins = |part: &str| part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let simple = |part: &str| begins(part) && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let most = if what == "table" { 2 } else { 1 };
    if name.split('.').count() <= most && name.split('.').all(simple) {
        return Ok(name.to_ascii_lowercase());
    }
    Err(Error::usage(format!("`{name}` is no plain name for the {what}"))
        .hint("leave it out, and fill it in with its quotes in the files"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::Script;

    fn all(names: &Names) -> Vec<(Pattern, Vec<Step>)> {
        let patterns = [Pattern::ExpandContract, Pattern::OnlineTable, Pattern::Progressive];
        patterns.into_iter().map(|pattern| (pattern, steps(pattern, "new_feature", names).unwrap())).collect()
    }

    #[test]
    fn every_step_is_sql_without_a_hole() {
        let given = |name: &str| Some(name.to_owned());
        let names = Names {
            table: given("Shop.Orders"),
            column: given("note"),
            new_column: None,
            column_type: given("varchar(20)"),
            key: given("order_id"),
        };
        for (pattern, steps) in all(&names) {
            assert!(steps.iter().any(|step| step.later.is_some()) && steps[0].later.is_none(), "{pattern:?}");
            for step in steps {
                for text in [&step.up, &step.down, &step.description] {
                    assert!(!text.contains('{') && !text.contains("your_"), "{pattern:?} {}: {text}", step.name);
                }
                let up = Script::parse(&step.up, "up", 1).unwrap();
                assert!(!up.is_empty(), "{pattern:?} {}", step.name);
                Script::parse(&step.down, "down", 1).unwrap();
            }
        }
    }

    #[test]
    fn what_is_not_given_is_marked() {
        for (pattern, steps) in all(&Names::default()) {
            let marked = steps.iter().all(|step| step.up.starts_with("-- TODO: put the real names"));
            assert_eq!(marked, pattern != Pattern::Progressive, "{pattern:?}");
        }
    }

    #[test]
    fn names_that_need_quotes_are_refused() {
        for name in ["Order Lines", "a.b.c", "\"x\"", "1a", "", "a;drop table b"] {
            let names = Names { table: Some(name.to_owned()), ..Names::default() };
            assert!(steps(Pattern::OnlineTable, "x", &names).is_err(), "{name}");
        }
        let names = Names { key: Some("a.b".to_owned()), ..Names::default() };
        assert!(steps(Pattern::OnlineTable, "x", &names).is_err());
    }
}
