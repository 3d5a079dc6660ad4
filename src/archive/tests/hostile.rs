//! Archives that were damaged, forged, cut or mixed up.

use super::*;

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let made = seal(&small_dump(), id(0), &DataKey::generate().subkeys());
    for position in 0..made.stored.len() {
        let mut flipped = made.stored.clone();
        flipped[position] ^= 1 << (position % 8);
        refusal(&flipped, &made);
        if position < HEADER_BYTES + made.index.frames[0] as usize {
            read_ranges(&flipped, &made).expect_err("the random reader took it");
        }
    }
    let made = make(2 * FRAME_BYTES + 99);
    let borders = borders(&made.stored);
    for (frame, border) in borders[..3].iter().enumerate() {
        let mut flipped = made.stored.clone();
        flipped[border + FRAME_HEADER_BYTES + 3] ^= 0x10;
        let refusal = refusal(&flipped, &made);
        assert!(
            matches!(refusal, ArchiveError::NotAuthentic { section: "data", frame: found } if found as usize == frame),
            "{refusal}"
        );
    }
    let mut flipped = made.stored.clone();
    flipped[borders[3] + 30] ^= 1;
    let refusal = refusal(&flipped, &made);
    assert!(matches!(refusal, ArchiveError::NotAuthentic { section: "index", frame: 0 }));
}

#[test]
fn a_header_of_something_else_is_named() {
    let made = make(1000);
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = made.stored.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        refusal(&changed, &made)
    };
    assert!(matches!(with(0, b"PGDMP"), ArchiveError::NotAnArchive));
    assert!(matches!(with(8, &[2]), ArchiveError::UnknownFormat { found: 2 }));
    assert!(matches!(with(12, &[0; 16]), ArchiveError::WrongLineage { .. }));
    assert!(matches!(with(28, &[0; 16]), ArchiveError::WrongBackup { .. }));
    assert!(matches!(with(44, &[7]), ArchiveError::WrongStream { found: 7, expected: 0 }));
    assert!(matches!(with(48, &[1]), ArchiveError::WrongFrameSize { .. }));
    for bytes in 0..HEADER_BYTES {
        let refusal = refusal(&made.stored[..bytes], &made);
        assert!(matches!(refusal, ArchiveError::HeaderTruncated { bytes: found } if found == bytes));
    }
}

#[test]
fn a_truncation_names_the_frame_that_it_met() {
    let made = make(2 * FRAME_BYTES + 99);
    let borders = borders(&made.stored);
    assert_eq!(borders.len(), 5);
    for (number, border) in borders[..4].iter().enumerate() {
        let (expected_section, expected) = match number {
            3 => ("index", 0),
            number => ("data", number as u32),
        };
        let at_border = refusal(&made.stored[..*border], &made);
        assert!(
            matches!(at_border, ArchiveError::EndsBetweenFrames { section, frame }
                if section == expected_section && frame == expected),
            "{at_border}"
        );
        let end = borders[number + 1];
        for cut in [border + 1, border + FRAME_HEADER_BYTES, (border + end) / 2, end - 1] {
            let inside = refusal(&made.stored[..cut], &made);
            assert!(
                matches!(inside, ArchiveError::EndsInsideFrame { section, frame }
                    if section == expected_section && frame == expected),
                "{inside}"
            );
        }
    }
    let trailing = [&made.stored[..], b"\0"].concat();
    assert!(matches!(refusal(&trailing, &made), ArchiveError::TrailingBytes));
    for cut in [0, HEADER_BYTES, borders[2], borders[3] - 1] {
        read_ranges(&made.stored[..cut], &made).expect_err("the random reader took it");
    }
}

#[test]
fn frames_stay_at_their_place() {
    let made = make(3 * FRAME_BYTES + 99);
    let borders = borders(&made.stored);
    let frame = |number: usize| &made.stored[borders[number]..borders[number + 1]];
    let header = &made.stored[..HEADER_BYTES];

    let swapped = [header, frame(0), frame(2), frame(1), frame(3), frame(4)].concat();
    let refused = refusal(&swapped, &made);
    assert!(matches!(refused, ArchiveError::FrameOrder { frame: 1, found: 2, .. }), "{refused}");
    let left_out = [header, frame(0), frame(2), frame(3), frame(4)].concat();
    assert!(matches!(refusal(&left_out, &made), ArchiveError::FrameOrder { frame: 1, found: 2, .. }));
    let repeated = [header, frame(0), frame(0), frame(1), frame(2), frame(3), frame(4)].concat();
    assert!(matches!(refusal(&repeated, &made), ArchiveError::FrameOrder { frame: 1, found: 0, .. }));
    let without_last = [header, frame(0), frame(1), frame(2), frame(4)].concat();
    let refused = refusal(&without_last, &made);
    assert!(matches!(refused, ArchiveError::LastFrameMissing { frame: 3, .. }), "{refused}");

    // The same with headers that were made to fit.
    let renumbered = |number: usize, counter: u32, kind: u8| {
        let mut forged = frame(number).to_vec();
        forged[4] = kind;
        forged[5..9].copy_from_slice(&counter.to_le_bytes());
        forged
    };
    for forged in [
        [header, frame(0), &renumbered(2, 1, 0), &renumbered(1, 2, 0), frame(3), frame(4)].concat(),
        [header, frame(0), &renumbered(1, 1, 1), frame(4)].concat(),
        [header, frame(0), frame(1), frame(2), &renumbered(3, 3, 0), frame(4)].concat(),
        [header, frame(0), &renumbered(4, 1, 0), frame(2), frame(3), frame(4)].concat(),
        [header, frame(0), frame(1), frame(2), frame(3), &renumbered(1, 0, 3)].concat(),
    ] {
        let refused = refusal(&forged, &made);
        assert!(matches!(refused, ArchiveError::NotAuthentic { .. }), "{refused}");
    }
    let unknown = [header, &renumbered(0, 0, 9)].concat();
    assert!(matches!(refusal(&unknown, &made), ArchiveError::FrameKind { found: 9, .. }));
}

#[test]
fn frames_of_other_streams_are_refused() {
    let made = make(2 * FRAME_BYTES + 99);
    let other_stream = StreamId { stream: 1, ..made.id };
    let other_backup = StreamId { backup: BackupId::new(), ..made.id };
    let other_lineage = StreamId { lineage: Lineage::new(), ..made.id };
    for (what, other) in [
        ("an earlier attempt", seal(&made.dump, made.id, &made.keys)),
        ("another stream", seal(&made.dump, other_stream, &made.keys)),
        ("another backup", seal(&made.dump, other_backup, &DataKey::generate().subkeys())),
        ("another backup under the same key", seal(&made.dump, other_backup, &made.keys)),
        ("another lineage", seal(&made.dump, other_lineage, &made.keys)),
    ] {
        let (ours, theirs) = (borders(&made.stored), borders(&other.stored));
        for number in 0..4 {
            let spliced = |from: &[u8]| {
                let mut spliced = made.stored[..ours[number]].to_vec();
                spliced.extend_from_slice(from);
                spliced.extend_from_slice(&made.stored[ours[number + 1]..]);
                spliced
            };
            let mut frame = other.stored[theirs[number]..theirs[number + 1]].to_vec();
            let refused = refusal(&spliced(&frame), &made);
            assert!(
                matches!(refused, ArchiveError::ForeignFrame { frame, .. } if frame == (number % 3) as u32),
                "{what}: {refused}"
            );
            // With the mark made to fit, authentication is what refuses it.
            frame[9..17].copy_from_slice(&made.stored[ours[0] + 9..ours[0] + 17]);
            let refused = refusal(&spliced(&frame), &made);
            assert!(
                matches!(refused, ArchiveError::NotAuthentic { .. } | ArchiveError::ManifestDisagrees(_)),
                "{what}: {refused}"
            );
        }
        // The whole of it, under our header's ids. An earlier attempt was a stream of this backup: its
        // stored bytes are told apart by their SHA-256.
        let mut whole = other.stored.clone();
        whole[..52].copy_from_slice(&made.stored[..52]);
        match what {
            "an earlier attempt" => {
                let ours = check(&made.stored, &made).unwrap();
                assert!(check(&whole, &made).ok() != Some(ours), "{what}");
            }
            _ => {
                let refused = refusal(&whole, &made);
                assert!(matches!(refused, ArchiveError::NotAuthentic { frame: 0, .. }), "{what}: {refused}");
            }
        }
    }
    let wrong_key = read(&made.stored, made.id, &DataKey::generate().subkeys());
    assert!(matches!(wrong_key, Err(ArchiveError::NotAuthentic { frame: 0, .. })));
}

#[test]
fn an_impossible_length_allocates_nothing() {
    let made = make(FRAME_BYTES + 99);
    for length in [0, 1, 16, 1_052_689, 0x7fff_ffff, u32::MAX] {
        for (number, border) in borders(&made.stored)[..3].iter().enumerate() {
            let mut forged = made.stored.clone();
            forged[*border..border + 4].copy_from_slice(&length.to_le_bytes());
            let refused = refusal(&forged, &made);
            assert!(
                matches!(refused, ArchiveError::FrameLength { length: found, frame, .. }
                    if found == length && frame == (number % 2) as u32),
                "{refused}"
            );
        }
    }
}

#[test]
fn an_index_that_lies_is_found() {
    let made = make(2 * FRAME_BYTES + 99);
    type Change = fn(&mut Index);
    let changes: [Change; 9] = [
        |index| index.raw_bytes += 1,
        |index| index.raw_bytes = u64::MAX,
        |index| index.frames[1] += 1,
        |index| index.frames[1] = u32::MAX,
        |index| index.frames.truncate(2),
        |index| index.blocks[0].end -= 1,
        |index| index.blocks[0].start += 1,
        |index| index.blocks[0].data_bytes = u64::MAX,
        |index| index.blocks[0].digest.sum ^= 1,
    ];
    for change in changes {
        let mut index = made.index.clone();
        change(&mut index);
        let refused = verify(made.stored.as_slice(), made.id, &made.keys, &index, &mut |_| {});
        assert!(matches!(refused, Err(ArchiveError::ManifestDisagrees(_))), "{refused:?}");
        let lying = Made { index, keys: made.keys.clone(), dump: Vec::new(), stored: Vec::new(), id: made.id };
        // The digest is what [`BlockRows`] compares.
        if lying.index.blocks[0].digest == made.index.blocks[0].digest {
            assert!(read_ranges(&made.stored, &lying).is_err());
        }
    }
}

#[test]
fn every_field_of_an_index_is_missed_and_no_odd_value_is_taken() {
    let mut dump = Dump::new(15);
    dump.table(2, "orders", &["1\tone"]).large_objects(9, &[(17, &[b"abc"])]);
    let made = seal(&dump.bytes(), id(0), &DataKey::generate().subkeys());
    let whole = serde_json::to_value(&made.index).unwrap();
    let mut found = Vec::new();
    testing::places(&whole, "", &mut found);
    assert!(found.len() > 20, "{found:?}");
    for (path, good) in found {
        for (what, bytes) in testing::wrong_at(&whole, &path, &good) {
            let place = format!("{path}: {what}");
            let Err(error) = super::super::index::decode(&bytes) else {
                // A number that reads well is compared with what is there.
                let index: Index = serde_json::from_slice(&bytes).unwrap();
                let verified = verify(made.stored.as_slice(), made.id, &made.keys, &index, &mut |_| {});
                assert!(verified.is_err(), "{place} was taken");
                continue;
            };
            if what == "missing" {
                let name = path.rsplit('/').next().unwrap();
                assert!(error.to_string().contains(&format!("missing field `{name}`")), "{place}: {error}");
            }
        }
    }
}

/// Each number of a dump's header and entries in turn: negative, and larger than anything that follows.
#[test]
fn every_number_of_a_table_of_contents_is_a_claim() {
    let mut dump = Dump::new(16);
    dump.table(2, "orders", &["1\tone"]).large_objects(9, &[(17, &[b"abc"])]);
    let toc = dump.toc_bytes();
    let good = Toc::parse(&toc).unwrap();
    let same = |other: &Toc| format!("{:?}", other.entries) == format!("{:?}", good.entries);
    let mut refused = 0;
    for at in 0..toc.len() - 5 {
        for value in
            [[1, 2, 0, 0, 0], [1, 0xff, 0xff, 0xff, 0xff], [0, 0xff, 0xff, 0xff, 0x7f], [0, 0xff, 0xff, 0xff, 0xff]]
        {
            let mut forged = toc.clone();
            forged[at..at + 5].copy_from_slice(&value);
            match Toc::parse(&forged) {
                Err(_) => refused += 1,
                // Over a text, a date or an offset it is only another text.
                Ok(other) => assert!(other.length_bytes <= toc.len() as u64),
            }
            let mut scanner = Scanner::new([7; 16]);
            let taken = scanner.feed(&forged).and_then(|()| scanner.finish());
            // No data block follows here, and every entry with data has one.
            taken.map(drop).unwrap_err();
        }
    }
    assert!(refused > toc.len(), "only {refused}");
    for cut in 0..toc.len() {
        assert!(matches!(Toc::parse(&toc[..cut]), Err(ArchiveError::DumpTruncated { .. } | ArchiveError::NotADump)));
    }
    assert!(same(&Toc::parse(&toc).unwrap()));
}
