use proptest::prelude::*;

use super::super::digest::Digest;
use super::super::rows::BlockRows;
use super::super::testing::{Data, Dump, block, entry, int};
use super::super::toc::Section;
use super::*;
use std::io::Read;

const KEY: [u8; 16] = [7; 16];

fn scan(bytes: &[u8], portion: usize) -> Result<Contents, ArchiveError> {
    let mut scanner = Scanner::new(KEY);
    for part in bytes.chunks(portion) {
        scanner.feed(part)?;
    }
    scanner.finish()
}

fn rows(lines: &[&str]) -> Digest {
    let mut rows = RowDigester::new(&KEY);
    for line in lines {
        rows.feed(format!("{line}\n").as_bytes()).unwrap();
    }
    rows.digest()
}

fn sample(minor: u8) -> Dump {
    let mut dump = Dump::new(minor);
    dump.table(2, "orders", &["1\tone", "2\t\\N", "3\tx\\\\."])
        .table(3, "empty", &[])
        .table(4, "blank", &["", "", "\\\\."])
        .large_objects(9, &[(17, &[b"abc", b"d"]), (4_000_000_000, &[])]);
    dump
}

#[test]
fn every_known_version_is_read_in_any_portions() {
    for minor in 14..=16 {
        let bytes = sample(minor).bytes();
        for portion in [1, 2, 3, 5, 7, 64, bytes.len()] {
            let contents = scan(&bytes, portion).unwrap();
            assert_eq!(contents.raw_bytes, bytes.len() as u64);
            let toc = &contents.toc;
            assert_eq!(toc.version, (1, minor));
            assert_eq!(toc.length_bytes, sample(minor).toc_bytes().len() as u64);
            assert_eq!(toc.encoding().as_deref(), Some("UTF8"));
            assert_eq!(toc.database, Text::from("shop"));
            let table = toc.entry(2).unwrap();
            assert_eq!(table.access_method, Text::from("heap"));
            assert_eq!((table.section, table.has_data), (Section::PreData, false));
            assert_eq!(table.owner, Text::from("app"));
            let data = toc.entry(1002).unwrap();
            assert_eq!((data.section, data.has_data), (Section::Data, true));
            assert_eq!(data.dependencies, [2]);

            let [orders, empty, blank, objects] = contents.blocks.as_slice() else { panic!("{:?}", contents.blocks) };
            assert_eq!(orders.digest, rows(&["1\tone", "2\t\\N", "3\tx\\\\."]));
            assert_eq!(orders.data_bytes, 6 + 5 + 7);
            assert_eq!(orders.copy_statement, Text::from("COPY public.orders (id, note) FROM stdin;\n"));
            assert_eq!(orders.start, toc.length_bytes);
            assert_eq!((empty.digest, empty.data_bytes), (Digest::default(), 0));
            assert_eq!(blank.digest, rows(&["", "", "\\\\."]));
            assert!(objects.large_objects && objects.end == contents.raw_bytes);
            assert_eq!((objects.digest.rows, objects.data_bytes), (2, 4));
        }
    }
}

use super::super::toc::Text;

#[test]
fn several_blocks_of_large_objects_are_read() {
    // From archive version 1.16 on, large objects come in groups.
    let mut dump = Dump::new(16);
    dump.add(entry(8, "BLOB METADATA", "17..18", "17\n18\n"))
        .large_objects(9, &[(17, &[b"abc"])])
        .large_objects(10, &[(18, &[b"ab", b"c"])]);
    let contents = scan(&dump.bytes(), 11).unwrap();
    assert_eq!(contents.blocks.len(), 2);
    assert_ne!(contents.blocks[0].digest.sum, contents.blocks[1].digest.sum);
    let mut one = Dump::new(14);
    one.large_objects(9, &[(18, &[b"abc"]), (17, &[b"a", b"bc"])]);
    let one = scan(&one.bytes(), 1000).unwrap();
    let mut sum = contents.blocks[0].digest;
    sum.merge(contents.blocks[1].digest);
    assert_eq!(one.blocks[0].digest, sum);
}

#[test]
fn the_table_that_passes_by_is_named() {
    let dump = sample(14);
    let bytes = dump.bytes();
    let toc = dump.toc_bytes().len();
    let mut scanner = Scanner::new(KEY);
    scanner.feed(&bytes[..toc]).unwrap();
    assert_eq!(scanner.current_table(), None);
    scanner.feed(&bytes[toc..toc + 15]).unwrap();
    assert_eq!(scanner.current_table().as_deref(), Some("public.orders"));
    scanner.feed(&bytes[toc + 15..]).unwrap();
    assert_eq!(scanner.current_table(), None);
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = sample(15).bytes();
    for cut in 0..bytes.len() {
        assert!(scan(&bytes[..cut], 13).is_err(), "cut at {cut}");
    }
}

#[test]
fn what_is_no_plain_dump_is_named() {
    let with = |at: usize, byte: u8| {
        let mut bytes = sample(15).bytes();
        bytes[at] = byte;
        scan(&bytes, 4096).unwrap_err()
    };
    assert!(matches!(with(0, b'X'), ArchiveError::NotADump));
    assert!(matches!(scan(b"", 1), Err(ArchiveError::NotADump)));
    assert!(matches!(scan(b"-- SQL", 1), Err(ArchiveError::NotADump)));
    for minor in [12, 13, 17] {
        let error = with(6, minor);
        assert!(matches!(error, ArchiveError::DumpVersion { minor: found, .. } if found == minor));
    }
    assert!(matches!(with(5, 2), ArchiveError::DumpVersion { major: 2, .. }));
    assert!(matches!(with(8, 8), ArchiveError::Toc { at: 8, .. }));
    assert!(matches!(with(9, 0), ArchiveError::Toc { at: 9, .. }));
    assert!(matches!(with(10, 3), ArchiveError::NotADump));
    for minor in 14..=16 {
        let mut dump = sample(minor);
        dump.compression = 1;
        assert!(matches!(scan(&dump.bytes(), 99), Err(ArchiveError::DumpCompressed)));
    }
}

#[test]
fn counts_and_lengths_are_claims() {
    for count in [-1, 0x7fff_ffff] {
        let mut dump = sample(14);
        dump.count = Some(count);
        let refused = scan(&dump.bytes(), 4096);
        match count {
            -1 => assert!(matches!(refused, Err(ArchiveError::Toc { .. })), "{refused:?}"),
            _ => assert!(refused.is_err()),
        }
    }
    // The database's name is the first string: a sign byte, four more.
    let head = Dump::new(15).toc_bytes();
    let at = 5 + 6 + 1 + 7 * 5;
    assert_eq!(head[at..at + 5], [0, 4, 0, 0, 0]);
    for (claim, too_large) in [
        ([0, 0xff, 0xff, 0xff, 0x7f], true),
        ([0, 0xff, 0xff, 0xff, 0xff], true),
        ([0, 0, 0, 0, 0x10], true),
        ([1, 2, 0, 0, 0], false),
        ([2, 4, 0, 0, 0], false),
    ] {
        let mut bytes = sample(15).bytes();
        bytes[at..at + 5].copy_from_slice(&claim);
        let refused = scan(&bytes, 4096);
        match too_large {
            true => assert!(matches!(refused, Err(ArchiveError::TocTooLarge)), "{refused:?}"),
            false => assert!(matches!(refused, Err(ArchiveError::Toc { .. })), "{refused:?}"),
        }
    }
}

#[test]
fn entries_that_contradict_each_other_are_refused() {
    let mut twice = sample(14);
    twice.add(entry(2, "TABLE", "again", ""));
    assert!(matches!(scan(&twice.bytes(), 99), Err(ArchiveError::Toc { .. })));
    for number in [0, -5] {
        let mut odd = sample(14);
        odd.add(entry(number, "TABLE", "odd", ""));
        assert!(matches!(scan(&odd.bytes(), 99), Err(ArchiveError::Toc { .. })));
    }
    for section in [0, 5] {
        let mut odd = sample(14);
        let mut entry = entry(77, "TABLE", "odd", "");
        entry.section = section;
        odd.add(entry);
        assert!(matches!(scan(&odd.bytes(), 99), Err(ArchiveError::Toc { .. })));
    }
}

#[test]
fn blocks_belong_to_entries_once() {
    let dump = sample(14);
    let rows = Data::Rows(vec![b"\\.\n\n\n".to_vec()]);
    let objects = Data::Objects(vec![]);
    for (number, data) in [(1002, &rows), (9, &objects), (2, &rows), (555, &rows), (-1, &rows)] {
        let mut bytes = dump.bytes();
        block(&mut bytes, number, data);
        assert!(matches!(scan(&bytes, 99), Err(ArchiveError::BlockId { .. })), "{number}");
    }
    let mut other_kind = dump.toc_bytes();
    block(&mut other_kind, 1002, &objects);
    assert!(matches!(scan(&other_kind, 99), Err(ArchiveError::BlockId { dump_id: 1002, .. })));
    let mut other_kind = dump.toc_bytes();
    block(&mut other_kind, 9, &rows);
    assert!(matches!(scan(&other_kind, 99), Err(ArchiveError::BlockId { dump_id: 9, .. })));
    let mut missing = dump.toc_bytes();
    block(&mut missing, 1002, &rows);
    let Err(ArchiveError::BlockMissing { name }) = scan(&missing, 99) else { panic!("a block is missing") };
    assert_eq!(name, "`public.empty`");
    let mut unknown = dump.toc_bytes();
    unknown.push(2);
    int(&mut unknown, 1002);
    assert!(matches!(scan(&unknown, 99), Err(ArchiveError::Block { .. })));
}

#[test]
fn rows_end_with_their_closing_line() {
    for chunks in [
        vec![b"1\tx\n".to_vec()],
        vec![b"1\tx".to_vec()],
        vec![b"1\tx\n\\.".to_vec()],
        vec![b"\\.\n\n\n".to_vec(), b"1\tx\n".to_vec()],
        vec![],
    ] {
        let mut dump = Dump::new(14);
        dump.table_of_chunks(2, "orders", chunks.clone());
        assert!(matches!(scan(&dump.bytes(), 99), Err(ArchiveError::Block { .. })), "{chunks:?}");
    }
    let mut negative = sample(14).toc_bytes();
    negative.push(1);
    int(&mut negative, 1002);
    int(&mut negative, -3);
    assert!(matches!(scan(&negative, 99), Err(ArchiveError::Block { .. })));
}

#[test]
fn an_error_stays_an_error() {
    let mut scanner = Scanner::new(KEY);
    assert!(scanner.feed(b"nonsense").is_err());
    assert!(scanner.feed(&sample(14).bytes()).is_err());
    assert!(scanner.finish().is_err());
}

#[test]
fn an_entry_that_comes_in_many_portions_is_parsed_once_it_is_there() {
    let mut dump = Dump::new(14);
    dump.add(entry(5, "FUNCTION", "long()", &"x".repeat(3 << 20)));
    let contents = scan(&dump.bytes(), 100).unwrap();
    assert_eq!(contents.toc.entry(5).unwrap().definition.0.len(), 3 << 20);
}

fn text_of(bytes: &[u8], entry: &BlockEntry, key: [u8; 16], portion: usize) -> std::io::Result<Vec<u8>> {
    let block = &bytes[entry.start as usize..entry.end as usize];
    let mut rows = BlockRows::new(block, entry, key).map_err(ArchiveError::into_io)?;
    let mut text = Vec::new();
    let mut buffer = vec![0; portion];
    loop {
        match rows.read(&mut buffer)? {
            0 => {
                assert_eq!(rows.read(&mut buffer)?, 0);
                return Ok(text);
            }
            count => text.extend_from_slice(&buffer[..count]),
        }
    }
}

#[test]
fn block_rows_are_the_copy_text_alone() {
    let bytes = sample(14).bytes();
    let contents = scan(&bytes, 4096).unwrap();
    for portion in [1, 2, 7, 4096, 1 << 20] {
        let texts: Vec<_> =
            contents.blocks[..3].iter().map(|block| text_of(&bytes, block, KEY, portion).unwrap()).collect();
        assert_eq!(texts[0], b"1\tone\n2\t\\N\n3\tx\\\\.\n");
        assert_eq!(texts[1], b"");
        assert_eq!(texts[2], b"\n\n\\\\.\n");
    }
    assert!(text_of(&bytes, &contents.blocks[3], KEY, 99).is_err());
}

#[test]
fn block_rows_that_are_not_those_of_the_index_are_an_error_at_the_end() {
    let bytes = sample(14).bytes();
    let contents = scan(&bytes, 4096).unwrap();
    let orders = &contents.blocks[0];
    type Change = fn(&mut BlockEntry);
    let changes: [Change; 8] = [
        |entry| entry.digest.rows += 1,
        |entry| entry.digest.sum ^= 1,
        |entry| entry.data_bytes += 1,
        |entry| entry.data_bytes -= 1,
        |entry| entry.data_bytes = 6,
        |entry| entry.dump_id += 1,
        |entry| entry.end -= 1,
        |entry| entry.end += 1,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut entry = orders.clone();
        change(&mut entry);
        let error = text_of(&bytes, &entry, KEY, 5).expect_err(&number.to_string());
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        let error = ArchiveError::from_io(error);
        assert!(matches!(error, ArchiveError::Rows { .. } | ArchiveError::TrailingBytes), "{number}: {error}");
    }
    assert!(text_of(&bytes, orders, [8; 16], 5).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_bytes_make_it_panic(
        minor in 14u8..=16,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        portion in 1usize..300,
    ) {
        let mut bytes = sample(minor).bytes();
        for (position, byte) in changes {
            let position = position.index(bytes.len());
            bytes[position] = byte;
        }
        if let Ok(contents) = scan(&bytes, portion) {
            for block in contents.blocks.iter().filter(|block| !block.large_objects) {
                text_of(&bytes, block, KEY, portion).unwrap();
            }
        }
    }

    #[test]
    fn chunks_make_no_difference(
        lines in prop::collection::vec("[a-z\\\\\t]{0,30}", 0..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        portion in 1usize..200,
    ) {
        let mut text = String::new();
        for line in &lines {
            text.push_str(line);
            text.push('\n');
        }
        let copied = text.clone();
        text.push_str("\\.\n\n\n");
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        cuts.dedup();
        let chunks = cuts.windows(2).map(|cut| text.as_bytes()[cut[0]..cut[1]].to_vec()).collect();
        let mut dump = Dump::new(16);
        dump.table_of_chunks(2, "orders", chunks);
        let bytes = dump.bytes();
        let contents = scan(&bytes, portion).unwrap();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        prop_assert_eq!(contents.blocks[0].digest, rows(&lines));
        let read = text_of(&bytes, &contents.blocks[0], KEY, portion).unwrap();
        prop_assert_eq!(read, copied.as_bytes());
    }
}
