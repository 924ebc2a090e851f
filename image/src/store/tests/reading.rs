//! Files are read as a container would see them.

use super::*;
use crate::unpack::tests::tar::Item;

const LIMIT: u64 = 1000;

#[tokio::test]
async fn the_merged_view() {
    let fixture = Fixture::new().await;
    let base = Tar::new()
        .dir("etc")
        .file("etc/passwd", "low")
        .file("etc/gone", "low")
        .file("etc/group", "low")
        .dir("opaque")
        .file("opaque/f", "low")
        .dir("was-dir")
        .file("was-dir/f", "low")
        .file("was-file", "low")
        .symlink("abs", "/etc/passwd")
        .symlink("up", "../../../etc/passwd")
        .symlink("dir", "etc")
        .symlink("loop", "loop")
        .symlink("host", "/proc/self/root/etc/hostname")
        .item(&Item::new(b'6', "fifo"));
    let top = Tar::new()
        .file("etc/passwd", "top")
        .item(&Item::new(b'0', "etc/.wh.gone"))
        .file("opaque/new", "top")
        .item(&Item::new(b'0', "opaque/.wh..wh..opq"))
        .file("was-dir", "top")
        .dir("was-file")
        .file("big", &"x".repeat(1001))
        .file("fits", &"x".repeat(1000));
    let image = fixture.image("a:1", &[base, top]).await;
    let check = async |path: &str, expected: Option<&str>| {
        let found = fixture.store.read_file(&image.id, path, LIMIT).await.unwrap();
        assert_eq!(found.as_deref().map(String::from_utf8_lossy).as_deref(), expected, "{path}");
    };
    check("etc/passwd", Some("top")).await;
    check("/etc//./passwd", Some("top")).await;
    check("etc/group", Some("low")).await;
    check("etc/gone", None).await;
    check("opaque/f", None).await;
    check("opaque/new", Some("top")).await;
    check("was-dir", Some("top")).await;
    check("was-dir/f", None).await;
    check("was-file", None).await;
    check("abs", Some("top")).await;
    check("up", Some("top")).await;
    check("dir/group", Some("low")).await;
    check("dir/../etc/group", Some("low")).await;
    check("../../etc/group", Some("low")).await;
    check("loop", None).await;
    check("host", None).await;
    check("fifo", None).await;
    check("etc", None).await;
    check("", None).await;
    check("missing/f", None).await;
    check("etc/passwd/f", None).await;
    check(&"etc/../".repeat(2000), None).await;
    check("fits", Some(&"x".repeat(1000))).await;
    let error = fixture.store.read_file(&image.id, "big", LIMIT).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}
