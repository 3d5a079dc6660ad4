//! PostgreSQL's grammar, by the parser of the squawk project, behind a wall: whatever text comes in,
//! the worst that happens is that there is no tree.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use squawk_syntax::{Parse, SourceFile, SyntaxKind, SyntaxNode};

use super::lexer::{Kind, Lexer};

/// Longer statements (bulk INSERTs, as a rule) are not parsed: a tree takes fifty times the text.
const MAX_BYTES: usize = 128 * 1024;
/// Files whose statements, bulk INSERTs left out, are longer than this are not linted as a whole.
const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;
/// Parentheses and brackets in each other, and prefix operators in a row, beyond which nobody writes
/// SQL by hand. The parser recurses, and a stack that overflows ends the process.
const MAX_DEPTH: usize = 200;

/// A syntax error and the byte range it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxProblem {
    pub message: String,
    pub start: usize,
}

/// Calls `look` with the tree of `sql`. `None`: too long or too deep to be parsed, or the parser failed.
pub(crate) fn with_tree<R: Send + 'static>(
    sql: &str,
    look: impl FnOnce(&SyntaxNode, &[SyntaxProblem]) -> R + Send + 'static,
) -> Option<R> {
    if !readable(sql) {
        return None;
    }
    let stack = sql.len();
    apart(sql.to_owned(), stack, move |parse, _| {
        let problems: Vec<_> = parse
            .errors()
            .iter()
            .map(|error| SyntaxProblem {
                message: error.message().to_owned(),
                start: usize::from(error.range().start()),
            })
            .collect();
        look(&parse.syntax_node(), &problems)
    })
}

/// Calls `look` with the tree of a whole file whose statements are each [`readable`], and its text. `None`: it
/// is too long, or the parser failed.
pub(crate) fn with_file<R: Send + 'static>(
    sql: String,
    look: impl FnOnce(&Parse<SourceFile>, &str) -> R + Send + 'static,
) -> Option<R> {
    if sql.len() > MAX_FILE_BYTES {
        return None;
    }
    apart(sql, MAX_BYTES, look)
}

/// Whether the parser is let near a statement.
pub(crate) fn readable(sql: &str) -> bool {
    sql.len() <= MAX_BYTES && !is_too_deep(sql)
}

/// What a thread needs of stack to parse a statement of so many bytes.
const fn stack_for(longest: usize) -> usize {
    16 * 1024 * 1024 + longest * 2048
}

/// More threads than this would only wait for each other.
const MOST_THREADS: usize = 8;

thread_local! {
    /// The stack that this thread was made with for the parser.
    static ROOM: Cell<usize> = const { Cell::new(0) };
}

/// Does the work for each item, on all cores, in threads that have room for the parser. The results come in the order
/// of the items.
pub(crate) fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(MOST_THREADS).min(items.len());
    if ROOM.get() > 0 || threads == 0 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            done.push((at, work(item)));
        }
    };
    let mut results = Vec::with_capacity(items.len());
    std::thread::scope(|scope| {
        let roomy = || {
            ROOM.set(stack_for(MAX_BYTES));
            worker()
        };
        let builder = || std::thread::Builder::new().name("sql-parser".to_owned());
        let spawn = |_| builder().stack_size(stack_for(MAX_BYTES) + 8 * 1024 * 1024).spawn_scoped(scope, roomy).ok();
        let running: Vec<_> = (0..threads).filter_map(spawn).collect();
        if running.is_empty() {
            results.extend(worker());
        }
        for thread in running {
            match thread.join() {
                Ok(done) => results.extend(done),
                Err(panic) => resume_unwind(panic),
            }
        }
    });
    results.sort_unstable_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Parses in a thread of its own, for its stack, which is made for a statement of `longest` bytes; on a thread of
/// [`each`] at once. A panic in it ends nothing else.
fn apart<R: Send + 'static>(
    sql: String,
    longest: usize,
    look: impl FnOnce(&Parse<SourceFile>, &str) -> R + Send + 'static,
) -> Option<R> {
    if ROOM.get() >= stack_for(longest) {
        return catch_unwind(AssertUnwindSafe(|| look(&SourceFile::parse(&sql), &sql))).ok();
    }
    let worker = std::thread::Builder::new().name("sql-parser".to_owned()).stack_size(stack_for(longest));
    worker.spawn(move || look(&SourceFile::parse(&sql), &sql)).ok()?.join().ok()
}

fn is_too_deep(sql: &str) -> bool {
    let mut depth = 0_usize;
    let mut deepest = 0_usize;
    let mut row = 0_usize;
    for token in Lexer::new(sql) {
        let Ok(token) = token else { return false };
        let text = token.text(sql);
        match token.kind {
            Kind::Space | Kind::Comment => continue,
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            Kind::Other if text == "[" => depth += 1,
            Kind::Other if text == "]" => depth = depth.saturating_sub(1),
            // A CASE is counted as one level that never ends.
            Kind::Word if text.eq_ignore_ascii_case("case") => deepest += 1,
            _ => {}
        }
        let prefix = match token.kind {
            Kind::Other => true,
            Kind::Word => ["not", "explain", "case", "when", "union", "select", "all"]
                .iter()
                .any(|word| text.eq_ignore_ascii_case(word)),
            _ => false,
        };
        row = if prefix { row + 1 } else { 0 };
        if depth + row > MAX_DEPTH || deepest > 20 * MAX_DEPTH {
            return true;
        }
    }
    false
}

/// The node's first child of a kind.
pub(crate) fn child(node: &SyntaxNode, kind: SyntaxKind) -> Option<SyntaxNode> {
    node.children().find(|child| child.kind() == kind)
}

/// Whether the node has a child of a kind.
pub(crate) fn has(node: &SyntaxNode, kind: SyntaxKind) -> bool {
    child(node, kind).is_some()
}

/// The first child whose kind is one of these, as a normalised name.
pub(crate) fn name_among(node: &SyntaxNode, kinds: &[SyntaxKind]) -> Option<String> {
    node.children().find(|child| kinds.contains(&child.kind())).map(|child| name(&child))
}

/// A name as the catalog would spell it: unquoted parts in lower case, quotes only where they are
/// needed, the schema when it is written. `ONLY` and `*` are left out.
pub(crate) fn name(node: &SyntaxNode) -> String {
    let mut spelled = String::new();
    for element in node.descendants_with_tokens() {
        let Some(token) = element.as_token() else {
            continue;
        };
        match token.kind() {
            SyntaxKind::WHITESPACE | SyntaxKind::COMMENT => {}
            SyntaxKind::ONLY_KW | SyntaxKind::STAR => {}
            _ => spelled.push_str(&normal(token.text())),
        }
    }
    spelled
}

fn normal(text: &str) -> String {
    let plain = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    match plain {
        None => text.to_ascii_lowercase(),
        Some(plain) => {
            let simple = plain.bytes().enumerate().all(|(at, byte)| {
                byte.is_ascii_lowercase() || byte == b'_' || byte >= 0x80 || (at > 0 && byte.is_ascii_digit())
            });
            if simple && !plain.is_empty() { plain.to_owned() } else { text.to_owned() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_brings_the_parser_down() {
        for sql in [
            "(".repeat(300_000),
            "select ".to_owned() + &"(".repeat(10_000),
            "select ".to_owned() + &"not ".repeat(50_000) + "true",
            "select ".to_owned() + &"- ".repeat(50_000) + "1",
            "select ".to_owned() + &"case when ".repeat(20_000),
            "select ".to_owned() + &"array[".repeat(20_000),
            "select 1".to_owned() + &" + 1".repeat(30_000),
            "select 1".to_owned() + &" union select 1".repeat(8_000),
            "explain ".repeat(30_000),
            "with a as ".repeat(12_000),
            "select a".to_owned() + &".a".repeat(15_000),
            "select a".to_owned() + &"::int".repeat(10_000),
            "create function f() begin atomic ".repeat(5_000),
        ] {
            with_tree(&sql, |root, _| root.descendants().count());
        }
    }

    #[test]
    fn names_are_spelled_as_the_catalog_does() {
        let sql = "drop table ONLY_ME, \"Big\".\"small\" , S . T";
        let names = with_tree(sql, |root, _| {
            let drop = root.first_child().unwrap();
            drop.children().map(|child| name(&child)).collect::<Vec<_>>()
        });
        assert_eq!(names.unwrap(), ["only_me", "\"Big\".small", "s.t"]);
    }
}
