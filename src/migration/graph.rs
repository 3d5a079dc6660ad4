//! What depends on what, as text, DOT and Mermaid.

use std::fmt::Write as _;

use super::Migration;

/// How a graph is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For Graphviz.
    Dot,
    /// For Markdown that draws Mermaid.
    Mermaid,
}

/// The migrations with what each depends on. A dependency that is no migration is shown as missing.
pub fn graph(migrations: &[Migration], format: Format) -> String {
    let nodes: Vec<Node<'_>> = migrations.iter().enumerate().map(|(at, one)| Node::new(migrations, at, one)).collect();
    match format {
        Format::Text => text(&nodes),
        Format::Dot => dot(&nodes),
        Format::Mermaid => mermaid(&nodes),
    }
}

struct Node<'a> {
    name: &'a str,
    after: Vec<Edge<'a>>,
}

enum Edge<'a> {
    To(usize, &'a str),
    Missing(&'a str),
}

impl<'a> Node<'a> {
    fn new(migrations: &'a [Migration], at: usize, migration: &'a Migration) -> Self {
        let edge = |wanted: &'a String| {
            let found = migrations.iter().position(|other| other.is_called(wanted)).filter(|found| *found != at);
            match found.and_then(|found| Some((found, migrations.get(found)?))) {
                Some((found, other)) => Edge::To(found, other.file_name.as_str()),
                None => Edge::Missing(wanted),
            }
        };
        Node { name: &migration.file_name, after: migration.metadata.dependencies.iter().map(edge).collect() }
    }
}

fn text(nodes: &[Node<'_>]) -> String {
    let mut text = String::new();
    for node in nodes {
        let after: Vec<String> = node
            .after
            .iter()
            .map(|edge| match edge {
                Edge::To(_, name) => (*name).to_owned(),
                Edge::Missing(name) => format!("{name} (missing)"),
            })
            .collect();
        let after = if after.is_empty() { String::new() } else { format!("  after {}", after.join(", ")) };
        let _ = writeln!(text, "{}{after}", node.name);
    }
    text
}

fn dot(nodes: &[Node<'_>]) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = "digraph migrations {\n    rankdir = LR;\n    node [shape = box];\n".to_owned();
    for node in nodes {
        let _ = writeln!(text, "    {};", quoted(node.name));
    }
    for node in nodes {
        for edge in &node.after {
            let _ = match edge {
                Edge::To(_, name) => writeln!(text, "    {} -> {};", quoted(name), quoted(node.name)),
                Edge::Missing(name) => {
                    writeln!(text, "    {} -> {} [style = dashed, label = missing];", quoted(name), quoted(node.name))
                }
            };
        }
    }
    text.push_str("}\n");
    text
}

fn mermaid(nodes: &[Node<'_>]) -> String {
    let shown = |name: &str| name.replace('"', "#quot;");
    let mut text = "flowchart LR\n".to_owned();
    for (at, node) in nodes.iter().enumerate() {
        let _ = writeln!(text, "    m{at}[\"{}\"]", shown(node.name));
    }
    let mut missing = 0;
    for (at, node) in nodes.iter().enumerate() {
        for edge in &node.after {
            let _ = match edge {
                Edge::To(other, _) => writeln!(text, "    m{other} --> m{at}"),
                Edge::Missing(name) => {
                    missing += 1;
                    writeln!(text, "    x{missing}[\"{} (missing)\"] -.-> m{at}", shown(name))
                }
            };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{Metadata, Version};
    use super::*;

    fn folder() -> Vec<Migration> {
        let one = |version: &str, after: &[&str]| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(format!("{version}_x.sql")), "SELECT 1;").unwrap();
            let mut read = super::super::source::read(folder.path(), None).unwrap().migrations.remove(0);
            let dependencies = after.iter().map(|name| (*name).to_owned()).collect();
            read.metadata = Metadata { dependencies, ..Metadata::default() };
            read.path = PathBuf::new();
            read.version = Version(version.to_owned());
            read
        };
        vec![one("001", &[]), one("002", &["001_x.sql"]), one("003", &["001", "no\"pe"])]
    }

    #[test]
    fn each_format_shows_every_edge() {
        assert_eq!(
            graph(&folder(), Format::Text),
            "001_x.sql\n002_x.sql  after 001_x.sql\n003_x.sql  after 001_x.sql, no\"pe (missing)\n"
        );
        let dot = graph(&folder(), Format::Dot);
        assert!(dot.contains("\"001_x.sql\" -> \"002_x.sql\";"), "{dot}");
        assert!(dot.contains("\"no\\\"pe\" -> \"003_x.sql\" [style = dashed"), "{dot}");
        let mermaid = graph(&folder(), Format::Mermaid);
        assert!(mermaid.contains("m0 --> m2\n    x1[\"no#quot;pe (missing)\"] -.-> m2"), "{mermaid}");
    }
}
