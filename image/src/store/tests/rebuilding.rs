//! Archives made again from layers.

use std::fs;

use super::*;
use crate::store::rebuild::Part;
use crate::unpack::tests::tar::Item;

async fn archive(fixture: &Fixture, layer: &Layer) -> Result<Vec<u8>, Error> {
    let mut pieces = fixture.store.archive(layer, Part::WHOLE);
    let mut whole = Vec::new();
    while let Some(piece) = pieces.recv().await {
        whole.extend_from_slice(&piece?);
    }
    Ok(whole)
}

fn everything() -> Tar {
    let long = "n".repeat(200);
    Tar::new()
        .item(&Item::new(b'5', "./").mode(0o701).owner(3, 4))
        .item(&Item::new(b'0', "d/big").data(vec![b'x'; 700_001]).owner(5, 6))
        .pax(&[("path", long.as_bytes()), ("SCHILY.xattr.user.note", b"a")])
        .file("short", "content")
        .hard_link("hard", "d/big")
        .symlink("soft", "/etc")
        .file("empty", "")
        .item(&Item::new(b'0', "d/.wh.gone").data("whiteouts may have data"))
        .file("d/.wh..wh..opq", "")
        .item(&Item::new(b'3', "dev/null"))
        .item(&Item::new(b'6', "fifo"))
}

#[tokio::test]
async fn an_archive_is_made_again_byte_by_byte() {
    let fixture = Fixture::new().await;
    let layer = fixture.layer(None, &everything()).await.unwrap();
    let original = everything().end();
    assert_eq!(layer.record().archive_bytes, Some(original.len() as u64));
    assert!(archive(&fixture, &layer).await.unwrap() == original);
    // An archive may also end without the blocks that end it.
    for tar in [Tar::new(), Tar::new().file("a", "1")] {
        let layer = fixture.layer(None, &tar).await.unwrap();
        assert!(archive(&fixture, &layer).await.unwrap() == tar.end());
    }
}

#[tokio::test]
async fn what_was_changed_is_found() {
    let fixture = Fixture::new().await;
    let layer = fixture.layer(None, &everything()).await.unwrap();
    let file = fixture.data.path().join("layers").join(&layer.record().name).join("d/big");
    let check = async |reason: &str| {
        let error = archive(&fixture, &layer).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{error} should speak of {reason}");
    };
    let mut content = fs::read(&file).unwrap();
    content[400_000] = b'y';
    fs::write(&file, &content).unwrap();
    check("its digest is sha256:").await;
    fs::write(&file, "short").unwrap();
    check("d/big: its size is another").await;
    fs::remove_file(&file).unwrap();
    check("d/big: it is gone").await;
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    check("d/big: it is gone").await;
    fs::write(layer.skeleton(), "garbage").unwrap();
    check("").await;
}

#[tokio::test]
async fn files_that_their_own_layer_replaced_are_made_again_too() {
    let fixture = Fixture::new().await;
    let tar = Tar::new()
        .file("twice", "1")
        .item(&Item::new(b'0', "large").data(vec![b'x'; 300_000]).mode(0))
        .file("twice", "22")
        .file("linked", "of two names")
        .hard_link("other", "linked")
        .symlink("linked", "twice")
        .file("other", "its own")
        .item(&Item::new(b'0', "large").data(vec![b'y'; 300_000]))
        .file("becomes-dir", "a file at first")
        .dir("becomes-dir")
        .file("twice", "333")
        .file("becomes-link", "a file at first")
        .hard_link("becomes-link", "twice")
        .file("becomes-link", "and a file again");
    let layer = fixture.layer(None, &tar).await.unwrap();
    assert!(archive(&fixture, &layer).await.unwrap() == tar.end());
    assert_eq!(
        fixture.store.check(&layer.record().chain).await.unwrap().unwrap().found.err().map(|e| e.to_string()),
        None
    );
}

#[tokio::test]
async fn directories_that_their_own_layer_replaced_are_made_again_too() {
    let fixture = Fixture::new().await;
    let tar = Tar::new()
        .dir("d")
        .file("d/f", "1")
        .file("d/empty", "")
        .symlink("d/soft", "f")
        .item(&Item::new(b'6', "d/fifo"))
        .item(&Item::new(b'0', "d/deep/er/large").data(vec![b'x'; 300_000]).mode(0))
        .file("d/deep/er/beside", "2")
        .file("d/deep/twice", "at first")
        .file("d/deep/twice", "and again")
        .hard_link("outside", "d/deep/twice")
        .file("d/.wh.gone", "")
        .symlink("d", "elsewhere")
        .file("d", "a file for a while")
        .dir("d")
        .file("d/f", "another")
        .file("d/deep/twice", "of the second directory")
        .file("outside", "its own")
        .file("e/f/g", "goes with its directory")
        .hard_link("e/f", "d/f");
    let layer = fixture.layer(None, &tar).await.unwrap();
    assert!(archive(&fixture, &layer).await.unwrap() == tar.end());
    let check = async || fixture.store.check(&layer.record().chain).await.unwrap().unwrap().found;
    assert_eq!(check().await.err().map(|e| e.to_string()), None);
    let file = fixture.data.path().join("layers").join(&layer.record().name).join("d/deep/twice");
    fs::remove_file(file).unwrap();
    assert!(check().await.unwrap_err().to_string().contains("d/deep/twice: it is gone"));
}

#[tokio::test]
async fn a_large_directory_that_its_own_layer_replaced_is_made_again_too() {
    let fixture = Fixture::new().await;
    let mut tar = Tar::new();
    for number in 0..3000 {
        tar = tar.file(&format!("d/{}/{number}", number % 7), &format!("content {number}"));
    }
    let tar = tar.file("d", "2");
    let layer = fixture.layer(None, &tar).await.unwrap();
    assert!(archive(&fixture, &layer).await.unwrap() == tar.end());
    let checked = fixture.store.check(&layer.record().chain).await.unwrap().unwrap();
    assert_eq!(checked.found.err().map(|e| e.to_string()), None);
}

#[tokio::test]
async fn names_of_one_file_that_go_again_and_again_are_not_kept_without_end() {
    let fixture = Fixture::new().await;
    let noise: Vec<u8> = (0..40_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut tar = Tar::new().item(&Item::new(b'0', "large").data(noise.clone()));
    for _ in 0..100 {
        tar = tar.hard_link("name", "large").file("name", "");
    }
    let layer = fixture.layer(None, &tar).await.unwrap();
    assert!(archive(&fixture, &layer).await.unwrap() == tar.end());
    let skeleton = fs::metadata(layer.skeleton()).unwrap().len();
    assert!(skeleton < noise.len() as u64 * 3, "{skeleton} bytes are kept of {}", noise.len());
}

#[tokio::test]
async fn a_layer_is_compared_with_its_archive() {
    let fixture = Fixture::new().await;
    let image = fixture.image("docker.io/library/a:1", &[everything(), Tar::new().file("d", "2")]).await;
    assert_eq!(fixture.store.chains().len(), 2);
    let chain = &image.layers[0];
    let root = fixture.data.path().join("layers").join(&fixture.store.layer(chain).unwrap().record().name);
    let check = async |reason: Option<&str>| {
        let checked = fixture.store.check(chain).await.unwrap().unwrap();
        assert_eq!(checked.images, ["docker.io/library/a:1"]);
        let found = checked.found.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(
            reason.map_or(found.is_empty(), |reason| found.contains(reason)),
            "{found:?}, not {reason:?}"
        );
    };
    check(None).await;
    let file = root.join("n".repeat(200));
    let permissions = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(&file, permissions(0o4644)).unwrap();
    check(Some("its mode is another")).await;
    fs::set_permissions(&file, permissions(0o644)).unwrap();
    check(None).await;
    rustix::fs::setxattr(&file, "user.note", b"b", rustix::fs::XattrFlags::empty()).unwrap();
    check(Some("extended attributes")).await;
    rustix::fs::setxattr(&file, "user.note", b"a", rustix::fs::XattrFlags::empty()).unwrap();
    fs::remove_file(root.join("soft")).unwrap();
    check(Some("soft: it is gone")).await;
    std::os::unix::fs::symlink("/elsewhere", root.join("soft")).unwrap();
    check(Some("soft: it leads elsewhere")).await;
}

#[tokio::test]
async fn a_layer_that_is_set_aside_comes_anew_for_its_images() {
    let fixture = Fixture::new().await;
    let tars = [Tar::new().file("a", "1"), Tar::new().file("b", "2")];
    let image = fixture.image("docker.io/library/a:1", &tars).await;
    let lease = fixture.store.lease(&image.id).unwrap();
    assert!(fixture.store.set_aside(&image.layers[1]).unwrap_err().to_string().contains("containers use it"));
    drop(lease);
    // Nothing came: it takes its place again.
    let (old, users) = fixture.store.set_aside(&image.layers[1]).unwrap();
    assert!(users.len() == 1 && fixture.store.layer(&image.layers[1]).is_none());
    fixture.store.settle_repair(&old);
    assert!(fixture.store.layer(&image.layers[1]).is_some());
    drop(old);
    let before = fixture.layer_names();
    let (old, _) = fixture.store.set_aside(&image.layers[1]).unwrap();
    fixture.image("docker.io/library/a:1", &tars).await;
    fixture.store.settle_repair(&old);
    drop(old);
    let after = fixture.layer_names();
    assert_eq!((after.len(), before.intersection(&after).count()), (2, 1));
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.layer_names(), after);
}

#[tokio::test]
async fn a_tag_moves_from_one_image_to_another() {
    let fixture = Fixture::new().await;
    let first = fixture.image("docker.io/library/a:1", &[Tar::new().file("a", "1")]).await;
    let second = fixture.image("docker.io/library/b:1", &[Tar::new().file("a", "2")]).await;
    fixture.store.tag("docker.io/library/b:1", "docker.io/library/a:1".parse().unwrap()).await.unwrap();
    let fixture = fixture.reopen().await;
    let owner = fixture.store.find("docker.io/library/a:1").unwrap();
    assert_eq!((&owner.id, owner.repo_tags.len()), (&second.id, 2));
    assert!(fixture.store.find(&first.id.to_string()).unwrap().repo_tags.is_empty());
}
