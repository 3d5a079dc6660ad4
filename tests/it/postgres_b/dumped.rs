//! A dump in memory as a source for loading, taken apart by a reader that is not ours.

use std::io::{self, Cursor, Read};
use std::process::Command;
use std::sync::Arc;

use ripcord::archive::Toc;
use ripcord::error::{Error, Result};
use ripcord::postgres::load::{DataSource, LoadPlan, TableLoad};

use crate::support::Cluster;

pub struct Dumped {
    whole: Vec<u8>,
    contents: usize,
    tables: Vec<Vec<u8>>,
    /// What may be built as soon as their rows are in.
    indexes: Vec<Vec<i32>>,
    /// Table of contents and the large objects' blocks.
    with_large_objects: Option<Vec<u8>>,
    /// The block whose reading breaks off in the middle.
    pub breaks: Option<usize>,
}

impl DataSource for Dumped {
    fn table_of_contents(&self) -> Result<Vec<u8>> {
        Ok(self.whole[..self.contents].to_vec())
    }

    fn with_large_objects(&self) -> Result<Option<Box<dyn Read + Send>>> {
        Ok(self.with_large_objects.clone().map(|bytes| Box::new(Cursor::new(bytes)) as Box<dyn Read + Send>))
    }

    fn whole(&self, contents: Vec<u8>) -> Result<Box<dyn Read + Send>> {
        let contents = Cursor::new(contents);
        Ok(match self.breaks {
            Some(at) => Box::new(contents.chain(Cursor::new(self.whole[self.contents..at].to_vec())).chain(Broken)),
            None => Box::new(contents.chain(Cursor::new(self.whole[self.contents..].to_vec()))),
        })
    }

    fn rows(&self, block: usize) -> Result<Box<dyn Read + Send>> {
        let bytes = self.tables.get(block).ok_or_else(|| Error::failed("no such block"))?.clone();
        Ok(if self.breaks == Some(block) {
            Box::new(Cursor::new(bytes).chain(Broken))
        } else {
            Box::new(Cursor::new(bytes))
        })
    }

    fn indexes_of(&self, block: usize) -> Vec<i32> {
        self.indexes.get(block).cloned().unwrap_or_default()
    }
}

/// A frame that does not authenticate.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("frame 1 is damaged"))
    }
}

pub fn dump(cluster: &Cluster, database: &str) -> Vec<u8> {
    let output = Command::new(cluster.bin().join("pg_dump"))
        .args(["-Fc", "-Z0", "-h"])
        .arg(cluster.socket())
        .args(["-p", &cluster.port().to_string(), "-U", "postgres", "-d"])
        .arg(format!("dbname='{database}'"))
        .env("PGOPTIONS", "-c TimeZone=UTC -c bytea_output=hex -c lc_monetary=C")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Takes the dump apart.
pub fn split(whole: Vec<u8>) -> (Dumped, Vec<TableLoad>) {
    let mut reader = Cursor::new(whole.as_slice());
    let archive = pgarchive::Archive::parse(&mut reader).unwrap();
    let contents = usize::try_from(reader.position()).unwrap();
    let mut at = contents;
    let (mut tables, mut loads, mut large) = (Vec::new(), Vec::new(), Vec::new());
    let own_indexes = Toc::parse(&whole[..contents]).unwrap().own_indexes();
    let mut indexes = Vec::new();
    while at < whole.len() {
        let (begin, kind) = (at, whole[at]);
        at += 1;
        let id = integer(&whole, &mut at);
        if kind == 1 {
            let data = chunks(&whole, &mut at);
            let entry = archive.toc_entries.iter().find(|entry| entry.id == id).unwrap();
            let end = data.windows(3).rposition(|w| w == b"\\.\n").unwrap();
            loads.push(TableLoad {
                block: tables.len(),
                table: format!("{}.{}", entry.namespace, entry.tag),
                copy_statement: entry.copy_stmt.clone().into_bytes(),
                rows: data[..end].iter().filter(|byte| **byte == b'\n').count() as u64,
                bytes: data.len() as u64,
            });
            tables.push(data);
            indexes.push(own_indexes.get(&i32::try_from(id).unwrap()).cloned().unwrap_or_default());
        } else {
            while integer(&whole, &mut at) != 0 {
                chunks(&whole, &mut at);
            }
            large.extend_from_slice(&whole[begin..at]);
        }
    }
    let with_large_objects = (!large.is_empty()).then(|| [&whole[..contents], &large].concat());
    (Dumped { whole, contents, tables, indexes, with_large_objects, breaks: None }, loads)
}

fn integer(bytes: &[u8], at: &mut usize) -> i64 {
    let value = i64::from(u32::from_le_bytes(bytes[*at + 1..*at + 5].try_into().unwrap()));
    let negative = bytes[*at] != 0;
    *at += 5;
    if negative { -value } else { value }
}

fn chunks(bytes: &[u8], at: &mut usize) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        let length = usize::try_from(integer(bytes, at)).unwrap();
        if length == 0 {
            return data;
        }
        data.extend_from_slice(&bytes[*at..*at + length]);
        *at += length;
    }
}

pub fn plan(source: Dumped, tables: Vec<TableLoad>, encoding: &str) -> LoadPlan {
    let total_bytes = source.whole.len() as u64;
    LoadPlan { source: Arc::new(source), tables, encoding: encoding.to_owned(), jobs: 2, role: None, total_bytes }
}

/// The plan to load a database as it is now.
pub fn plan_of(cluster: &Cluster, database: &str) -> LoadPlan {
    let (source, tables) = split(dump(cluster, database));
    plan(source, tables, "UTF8")
}

impl Dumped {
    pub fn replace_whole(&mut self, whole: Vec<u8>) {
        self.whole = whole;
    }

    pub fn damage_rows(&mut self, block: usize, old: &[u8], new: &[u8]) {
        let data = &mut self.tables[block];
        let at = data.windows(old.len() + 1).position(|w| w[0] == b'\n' && &w[1..] == old).unwrap() + 1;
        data.splice(at..at + old.len(), new.iter().copied());
    }
}
