//! Layers: unpacked once, checked, and gone when nobody wants them.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::unpack::tests::tar::Item;

#[tokio::test]
async fn a_layer_is_unpacked_once_for_all_that_want_it() {
    let fixture = Fixture::new().await;
    let tar = Tar::new().file("f", "x");
    let archive = tar.clone().end();
    let Begun::Write(mut writer) = fixture.store.begin_layer(expectation(None, &archive)).await.unwrap()
    else {
        panic!("a new layer has to be written");
    };
    let store = fixture.store.clone();
    let expected = expectation(None, &archive);
    let second = tokio::spawn(async move { store.begin_layer(expected).await });
    writer.write(gzip(&archive).into()).await.unwrap();
    assert!(!second.is_finished());
    let first = writer.finish().await.unwrap();
    match second.await.unwrap().unwrap() {
        Begun::Here(layer) => assert_eq!(layer.record(), first.record()),
        Begun::Write(_) => panic!("the layer is here"),
    }
    // The file, and the skeleton.
    assert_eq!(first.record().inodes, 2);
    assert_eq!(fixture.layer_names().len(), 1);
    drop(first);
    assert_eq!(fixture.layer_names().len(), 0);
    assert!(fixture.store.layer(&Digest::sha256(&archive)).is_none());
}

#[tokio::test]
async fn when_one_gives_up_the_next_goes_on() {
    let fixture = Fixture::new().await;
    let tar = Tar::new().file("f", "x");
    let archive = tar.clone().end();
    let first = fixture.store.begin_layer(expectation(None, &archive)).await.unwrap();
    let second = fixture.layer(None, &tar);
    tokio::pin!(second);
    tokio::select! {
        biased;
        _ = &mut second => panic!("the first is still at it"),
        () = std::future::ready(()) => drop(first),
    }
    second.await.unwrap();
}

#[tokio::test]
async fn what_is_dropped_leaves_nothing() {
    let fixture = Fixture::new().await;
    let archive = Tar::new().file("f", "x").end();
    let Begun::Write(mut writer) = fixture.store.begin_layer(expectation(None, &archive)).await.unwrap()
    else {
        panic!("a new layer has to be written");
    };
    writer.write(gzip(&archive)[..20].to_vec().into()).await.unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{}", writer.process_id().unwrap()));
    assert!(process.exists());
    drop(writer);
    // The directory goes when the process was waited for.
    while process.exists() || !fixture.layer_names().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_layer_that_is_not_the_one_promised_is_refused() {
    let fixture = Fixture::new().await;
    let archive = Tar::new().file("f", "x").end();
    let mut expected = expectation(None, &archive);
    expected.diff_id = Some(Digest::sha256(b"another"));
    let Begun::Write(mut writer) = fixture.store.begin_layer(expected).await.unwrap() else {
        panic!("a new layer has to be written");
    };
    writer.write(gzip(&archive).into()).await.unwrap();
    let error = writer.finish().await.unwrap_err();
    assert!(
        matches!(&error, Error::DigestMismatch { found, .. } if *found == Digest::sha256(&archive)),
        "{error}"
    );
}

#[tokio::test]
async fn hostile_and_broken_layers_are_refused_with_the_reason() {
    let fixture = Fixture::new().await;
    let error = fixture.layer(None, &Tar::new().file("../x", "")).await.unwrap_err();
    assert!(matches!(error, Error::LayerRefused { .. }));
    assert!(error.to_string().ends_with(" is refused: ../x: the name holds `..`"), "{error}");
    let archive = Tar::new().file("f", "x").end();
    let Begun::Write(mut writer) = fixture.store.begin_layer(expectation(None, &archive)).await.unwrap()
    else {
        panic!("a new layer has to be written");
    };
    writer.write(gzip(&archive)[..20].to_vec().into()).await.unwrap();
    let error = writer.finish().await.unwrap_err();
    assert!(matches!(error, Error::LayerRefused { .. }), "{error:?}");
    // The process ends at the bad entry. What is still sent then must tell of it, too.
    let tar = Tar::new().file("../x", "").item(&Item::new(b'0', "noise").data(vec![0; 64 << 20])).end();
    let Begun::Write(mut writer) = fixture.store.begin_layer(expectation(None, &tar)).await.unwrap() else {
        panic!("a new layer has to be written");
    };
    let error = writer.write(tar.into()).await.unwrap_err();
    assert!(matches!(error, Error::LayerRefused { .. }), "{error:?}");
}

#[tokio::test]
async fn a_program_that_is_not_there_or_says_nothing() {
    let data = tempfile::tempdir().unwrap();
    let archive = Tar::new().file("f", "x").end();
    for (program, expected) in
        [("/nonexistent", "start the unpacking process"), ("/bin/true", "without a report")]
    {
        let unpacker = crate::Unpacker { program: program.into(), args: Vec::new() };
        let store = Store::open(data.path(), unpacker, &[]).await.unwrap();
        let begun = store.begin_layer(expectation(None, &archive)).await;
        let error = match begun {
            Ok(Begun::Write(writer)) => writer.finish().await.unwrap_err(),
            Ok(Begun::Here(_)) => panic!("nothing was unpacked"),
            Err(e) => e,
        };
        assert!(
            error.to_string().contains(expected) || error.to_string().contains("no more input"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn implied_directories_look_as_they_do_below() {
    let fixture = Fixture::new().await;
    let tmp = Item::new(b'5', "tmp").mode(0o1777).owner(3, 4).mtime(55);
    let base = Tar::new()
        .item(&Item::new(b'5', "./").mode(0o711))
        .item(&tmp)
        .pax(&[("SCHILY.xattr.user.k", b"v")])
        .item(&Item::new(b'5', "a").mode(0o700))
        .item(&Item::new(b'5', "a/b").mode(0o701))
        .item(&Item::new(b'5', "gone").mode(0o700))
        .item(&Item::new(b'5', "gone/x").mode(0o700));
    let middle = Tar::new().file("a/f", "").item(&Item::new(b'0', "gone/.wh..wh..opq"));
    let top = Tar::new().file("tmp/f", "").file("a/b/f", "").file("gone/x/f", "").file("own/f", "");
    fixture.image("app", &[base, middle, top]).await;
    let check = |path: &str, mode, owner: (u32, u32)| {
        let metadata = fixture.data.path().join("layers").join(path).metadata().unwrap();
        assert_eq!(metadata.mode() & 0o7777, mode, "{path}");
        assert_eq!((metadata.uid(), metadata.gid()), owner, "{path}");
        metadata.mtime()
    };
    assert_eq!(check("3/tmp", 0o1777, (3, 4)), 55);
    check("2", 0o711, (0, 0));
    check("3", 0o711, (0, 0));
    check("2/a", 0o700, (0, 0));
    check("3/a", 0o700, (0, 0));
    check("3/a/b", 0o701, (0, 0));
    // What an opaque directory hides is no model.
    check("3/gone", 0o700, (0, 0));
    check("3/gone/x", 0o755, (0, 0));
    check("3/own", 0o755, (0, 0));
    let mut value = [0; 1];
    rustix::fs::lgetxattr(fixture.data.path().join("layers/3/a"), c"user.k", &mut value).unwrap();
    assert_eq!(&value, b"v");
}
