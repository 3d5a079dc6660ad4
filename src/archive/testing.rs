//! Builds dumps in pg_dump's custom format, for tests. Uses nothing of the crate: what it writes is
//! from PostgreSQL's sources alone, as is what the scanner reads.
#![allow(missing_docs, dead_code)]

/// An entry of the table of contents, and the data that belongs to it.
#[derive(Clone, Default)]
pub struct Entry {
    pub dump_id: i64,
    pub description: Vec<u8>,
    pub section: i64,
    pub namespace: Option<Vec<u8>>,
    pub tag: Vec<u8>,
    pub owner: Vec<u8>,
    pub definition: Vec<u8>,
    pub copy_statement: Option<Vec<u8>>,
    pub access_method: Option<Vec<u8>>,
    pub dependencies: Vec<i64>,
    pub data: Option<Data>,
}

#[derive(Clone)]
pub enum Data {
    /// Chunks of a table's COPY text, the closing line among them.
    Rows(Vec<Vec<u8>>),
    /// Large objects: oid and chunks.
    Objects(Vec<(u32, Vec<Vec<u8>>)>),
}

/// A dump that is being put together.
#[derive(Clone)]
pub struct Dump {
    pub minor: u8,
    pub compression: u8,
    pub database: Vec<u8>,
    /// Instead of the number of entries.
    pub count: Option<i64>,
    pub entries: Vec<Entry>,
}

impl Dump {
    /// An empty one of archive version 1.`minor`.
    pub fn new(minor: u8) -> Self {
        Dump {
            minor,
            compression: 0,
            database: b"shop".to_vec(),
            count: None,
            entries: vec![entry(1, "ENCODING", "ENCODING", "SET client_encoding = 'UTF8';\n")],
        }
    }

    pub fn add(&mut self, entry: Entry) -> &mut Self {
        self.entries.push(entry);
        self
    }

    /// A table and its rows, a chunk each, as pg_dump 15 writes them.
    pub fn table(&mut self, dump_id: i64, name: &str, rows: &[&str]) -> &mut Self {
        let mut chunks: Vec<Vec<u8>> = rows.iter().map(|row| format!("{row}\n").into()).collect();
        chunks.push(b"\\.\n\n\n".to_vec());
        self.table_of_chunks(dump_id, name, chunks)
    }

    pub fn table_of_chunks(&mut self, dump_id: i64, name: &str, chunks: Vec<Vec<u8>>) -> &mut Self {
        let definition = format!("CREATE TABLE public.{name} (\n    id integer,\n    note text\n);\n");
        let mut table = entry(dump_id, "TABLE", name, &definition);
        table.namespace = Some(b"public".to_vec());
        table.access_method = Some(b"heap".to_vec());
        table.section = 2;
        let mut data = entry(dump_id + 1000, "TABLE DATA", name, "");
        data.namespace = table.namespace.clone();
        data.section = 3;
        data.copy_statement = Some(format!("COPY public.{name} (id, note) FROM stdin;\n").into());
        data.dependencies = vec![dump_id];
        data.data = Some(Data::Rows(chunks));
        self.add(table).add(data)
    }

    pub fn large_objects(&mut self, dump_id: i64, objects: &[(u32, &[&[u8]])]) -> &mut Self {
        let mut blobs = entry(dump_id, "BLOBS", "BLOBS", "");
        blobs.section = 3;
        blobs.data = Some(Data::Objects(
            objects.iter().map(|(oid, chunks)| (*oid, chunks.iter().map(|chunk| chunk.to_vec()).collect())).collect(),
        ));
        self.add(blobs)
    }

    pub fn toc_bytes(&self) -> Vec<u8> {
        let mut out = b"PGDMP".to_vec();
        out.extend([1, self.minor, 0, 4, 8, 1]);
        match self.minor {
            ..15 => int(&mut out, i64::from(self.compression)),
            _ => out.push(self.compression),
        }
        for part in [42, 30, 9, 1, 6, 126, 0] {
            int(&mut out, part);
        }
        string(&mut out, Some(&self.database));
        string(&mut out, Some(b"15.18"));
        string(&mut out, Some(b"15.18"));
        int(&mut out, self.count.unwrap_or(self.entries.len() as i64));
        for entry in &self.entries {
            self.entry_bytes(&mut out, entry);
        }
        out
    }

    fn entry_bytes(&self, out: &mut Vec<u8>, entry: &Entry) {
        int(out, entry.dump_id);
        int(out, i64::from(entry.data.is_some()));
        string(out, Some(b"1259"));
        string(out, Some((16384 + entry.dump_id).to_string().as_bytes()));
        string(out, Some(&entry.tag));
        string(out, Some(&entry.description));
        int(out, entry.section);
        string(out, Some(&entry.definition));
        string(out, Some(b""));
        string(out, entry.copy_statement.as_deref());
        string(out, entry.namespace.as_deref());
        string(out, None);
        string(out, entry.access_method.as_deref());
        if self.minor >= 16 {
            int(out, i64::from(b'r'));
        }
        string(out, Some(&entry.owner));
        string(out, Some(b"false"));
        for dependency in &entry.dependencies {
            string(out, Some(dependency.to_string().as_bytes()));
        }
        string(out, None);
        out.push(if entry.data.is_some() { 1 } else { 3 });
        out.extend([0; 8]);
    }

    /// The whole dump.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.toc_bytes();
        for entry in &self.entries {
            if let Some(data) = &entry.data {
                block(&mut out, entry.dump_id, data);
            }
        }
        out
    }
}

pub fn entry(dump_id: i64, description: &str, tag: &str, definition: &str) -> Entry {
    Entry {
        dump_id,
        description: description.into(),
        section: 1,
        tag: tag.into(),
        owner: b"app".to_vec(),
        definition: definition.into(),
        ..Entry::default()
    }
}

/// A data block.
pub fn block(out: &mut Vec<u8>, dump_id: i64, data: &Data) {
    match data {
        Data::Rows(rows) => {
            out.push(1);
            int(out, dump_id);
            chunks(out, rows);
        }
        Data::Objects(objects) => {
            out.push(3);
            int(out, dump_id);
            for (oid, content) in objects {
                int(out, i64::from(oid.cast_signed()));
                chunks(out, content);
            }
            int(out, 0);
        }
    }
}

fn chunks(out: &mut Vec<u8>, chunks: &[Vec<u8>]) {
    for chunk in chunks {
        int(out, chunk.len() as i64);
        out.extend_from_slice(chunk);
    }
    int(out, 0);
}

pub fn int(out: &mut Vec<u8>, value: i64) {
    out.push(u8::from(value < 0));
    out.extend_from_slice(&(value.unsigned_abs() as u32).to_le_bytes());
}

pub fn string(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        None => int(out, -1),
        Some(text) => {
            int(out, text.len() as i64);
            out.extend_from_slice(text);
        }
    }
}

/// Every place of a JSON text: its path, with the value there.
pub fn places(value: &serde_json::Value, path: &str, found: &mut Vec<(String, serde_json::Value)>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, inner) in fields {
                found.push((format!("{path}/{name}"), inner.clone()));
                places(inner, &format!("{path}/{name}"), found);
            }
        }
        serde_json::Value::Array(items) => {
            for (number, inner) in items.iter().enumerate().take(2) {
                found.push((format!("{path}/{number}"), inner.clone()));
                places(inner, &format!("{path}/{number}"), found);
            }
        }
        _ => {}
    }
}

/// The text without the field, and with values that no field of ours has.
pub fn wrong_at(whole: &serde_json::Value, path: &str, good: &serde_json::Value) -> Vec<(String, Vec<u8>)> {
    use serde_json::json;
    let mut wrong = Vec::new();
    let (above, name) = path.rsplit_once('/').unwrap();
    let mut without = whole.clone();
    if let Some(fields) = without.pointer_mut(above).and_then(serde_json::Value::as_object_mut) {
        fields.remove(name);
        wrong.push(("missing".to_owned(), serde_json::to_vec(&without).unwrap()));
    }
    let mut values = vec![json!({ "nothing": "of ours" }), json!([[]])];
    if good.is_number() {
        values.extend([json!(-1), json!(-9_223_372_036_854_775_808_i64), json!(1e30), json!(0.5), json!("7")]);
    } else {
        values.extend([json!(7), json!(-1)]);
    }
    for value in values {
        let mut changed = whole.clone();
        *changed.pointer_mut(path).unwrap() = value.clone();
        wrong.push((value.to_string(), serde_json::to_vec(&changed).unwrap()));
    }
    wrong
}
