use super::*;

/// A writer whose disk fails from now on.
fn broken(store: &Local) -> Box<Writer> {
    let (_, mut partial) = store.begin_partial(&["x"]).unwrap();
    partial.break_writes();
    Box::new(Writer { name: "0.rip".to_owned(), partial, buffer: Vec::new(), written: 0, on_its_way: 0, failure: None })
}

#[test]
fn a_stream_with_a_failed_write_never_becomes_an_object() {
    let folder = tempfile::tempdir().unwrap();
    let store = Local::open(folder.path()).unwrap();
    // Found out by a write, by a flush, or only at the end.
    let mut by_write = broken(&store);
    let error = by_write.write_all(&[0; BUFFER_BYTES]).unwrap_err();
    assert!(error.to_string().contains("x/0.rip`"), "{error}");
    // What would fit into the buffer is refused too: a hole would be before it.
    assert!(by_write.write_all(b"more").is_err());
    assert!(by_write.flush().is_err());
    let mut by_flush = broken(&store);
    by_flush.write_all(b"some").unwrap();
    assert!(by_flush.flush().is_err());
    let mut at_end = broken(&store);
    at_end.write_all(b"some").unwrap();
    for writer in [by_write, by_flush, at_end] {
        let error = writer.finish().unwrap_err();
        assert!(error.message().contains("x/0.rip`"), "{error}");
    }
    assert!(store.list("").unwrap().is_empty());
    assert!(store.read("x/0.rip", 100).unwrap().is_none());
    store.delete("x/0.rip").unwrap();
    assert!(store.folders("").unwrap().is_empty(), "a leftover");
}

#[test]
fn a_folder_that_another_process_took_away_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Local::open(folder.path()).unwrap();
    store.create("a/b/one", b"1").unwrap();
    std::fs::remove_dir_all(folder.path().join("a")).unwrap();
    store.create("a/b/two", b"2").unwrap();
    assert_eq!(store.read("a/b/two", 1).unwrap().unwrap(), b"2");
}
