//! Images: committed, found by all their names, removed, kept while leased, and there again after a restart.

use super::*;
use crate::unpack::tests::tar::Item;

fn base() -> Tar {
    Tar::new().dir("etc").file("etc/base", "base")
}

fn app(name: &str) -> Tar {
    Tar::new().file("app", name)
}

#[tokio::test]
async fn an_image_is_found_by_every_name() {
    let fixture = Fixture::new().await;
    let image = fixture.image("busybox:1", &[base()]).await;
    let hex = image.id.digest().hex().to_owned();
    let digest = &image.manifest_digest;
    for name in [
        hex.clone(),
        format!("sha256:{hex}"),
        hex[..12].to_owned(),
        format!("sha256:{}", &hex[..3]),
        "busybox:1".into(),
        "docker.io/library/busybox:1".into(),
        format!("busybox@{digest}"),
        format!("busybox:whatever@{digest}"),
    ] {
        assert_eq!(fixture.store.find(&name).as_ref(), Some(&image), "{name}");
    }
    for name in ["busybox", "busybox:2", "other:1", &hex[..2], "sha256:", "", "ffff", "../x"] {
        assert_eq!(fixture.store.find(name), None, "{name}");
    }
    assert_eq!(image.repo_tags, ["docker.io/library/busybox:1"]);
    assert_eq!(image.repo_digests, [format!("docker.io/library/busybox@{digest}")]);
    assert!(image.size_bytes > 4096 && !image.pinned);
    assert!(fixture.image("pinned:3", &[app("p")]).await.pinned);
}

#[tokio::test]
async fn the_same_content_is_one_image_with_all_its_names() {
    let fixture = Fixture::new().await;
    fixture.image("a:1", &[base()]).await;
    let image = fixture.image("localhost:5000/b:2", &[base()]).await;
    assert_eq!(image.repo_tags, ["docker.io/library/a:1", "localhost:5000/b:2"]);
    assert_eq!(fixture.store.list(), [image]);
    assert_eq!(fixture.layer_names().len(), 1);
    fixture.store.remove("a:1").await.unwrap();
    assert!(fixture.store.list().is_empty());
    assert!(fixture.layer_names().is_empty() && fixture.files().is_empty());
    fixture.store.remove("a:1").await.unwrap();
}

#[tokio::test]
async fn a_tag_moves_to_the_newer_image() {
    let fixture = Fixture::new().await;
    let old = fixture.image("a:1", &[base(), app("1")]).await;
    let new = fixture.image("a:1", &[base(), app("2")]).await;
    let check = |fixture: &Fixture| {
        assert_eq!(fixture.store.find("a:1"), Some(Arc::clone(&new)));
        let old = fixture.store.find(&old.id.to_string()).unwrap();
        assert!(old.repo_tags.is_empty() && old.repo_digests.len() == 1);
        assert_eq!(fixture.layer_names().len(), 3);
    };
    check(&fixture);
    let fixture = fixture.reopen().await;
    check(&fixture);
    fixture.store.remove(&old.id.to_string()).await.unwrap();
    assert_eq!(fixture.layer_names().len(), 2);
    assert_eq!(fixture.files().len(), 3);
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let fixture = Fixture::new().await;
    let image = fixture.image("a:1", &[base(), app("1")]).await;
    let untagged = fixture.image(&format!("b@{}", Digest::sha256(b"x")), &[app("2")]).await;
    assert!(untagged.repo_tags.is_empty());
    fixture.sync();
    let usage = fixture.store.usage().await.unwrap();
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.store.find("a:1"), Some(image.clone()));
    assert_eq!(fixture.store.find(&untagged.id.to_string()), Some(untagged));
    let again = fixture.store.usage().await.unwrap();
    assert_eq!((again.used_bytes, again.inodes_used), (usage.used_bytes, usage.inodes_used));
    assert!(usage.used_bytes > image.size_bytes && usage.mountpoint.is_dir());
    assert!(fixture.store.layer(&image.layers[1]).is_some());
    // New layers do not take the names of old ones.
    fixture.image("c:1", &[app("3")]).await;
    assert_eq!(fixture.layer_names().len(), 4);
}

#[tokio::test]
async fn a_leased_image_goes_with_its_last_lease() {
    let fixture = Fixture::new().await;
    let image = fixture.image("a:1", &[base(), app("1")]).await;
    let other = fixture.image("b:1", &[base(), app("2")]).await;
    let lease = fixture.store.lease(&image.id).unwrap();
    assert_eq!(lease.lowers(), ["2", "1"]);
    fixture.store.remove("a:1").await.unwrap();
    assert_eq!(fixture.store.find("a:1"), None);
    assert_eq!(fixture.store.list(), [Arc::clone(&other)]);
    assert_eq!(fixture.layer_names().len(), 3);
    // The daemon ends: its containers do not.
    drop(lease);
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.store.list(), [other]);
    let lease = fixture.store.lease(&image.id).unwrap();
    fixture.store.collect().await.unwrap();
    assert!(lease.layers_dir().join(&lease.lowers()[0]).join("app").exists());
    drop(lease);
    fixture.store.collect().await.unwrap();
    assert_eq!(fixture.layer_names().len(), 2);
    assert_eq!(fixture.files().len(), 3);
    assert!(matches!(fixture.store.lease(&image.id), Err(Error::Unknown { .. })));
}

#[tokio::test]
async fn a_removed_image_comes_back_while_it_is_leased() {
    let fixture = Fixture::new().await;
    let image = fixture.image("a:1", &[base()]).await;
    let lease = fixture.store.lease(&image.id).unwrap();
    fixture.store.remove("a:1").await.unwrap();
    let again = fixture.image("a:2", &[base()]).await;
    assert_eq!(again.repo_tags, ["docker.io/library/a:2"]);
    drop(lease);
    fixture.store.collect().await.unwrap();
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.store.list(), [again]);
}

#[tokio::test]
async fn a_pull_keeps_the_layers_that_it_found() {
    let fixture = Fixture::new().await;
    let image = fixture.image("a:1", &[base()]).await;
    let layer = fixture.store.layer(&image.layers[0]).unwrap();
    fixture.store.remove("a:1").await.unwrap();
    assert_eq!(fixture.layer_names().len(), 1);
    let image = fixture.store.commit(new_image("b:1", vec![layer])).await.unwrap();
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.store.list(), [image]);
    assert_eq!(fixture.layer_names().len(), 1);
}

#[tokio::test]
async fn an_image_without_layers_has_an_empty_one() {
    let fixture = Fixture::new().await;
    let image = fixture.image("scratch:1", &[]).await;
    let lease = fixture.store.lease(&image.id).unwrap();
    assert_eq!(lease.lowers(), ["0"]);
    assert_eq!(names(&lease.layers_dir().join("0")).len(), 0);
}

#[tokio::test]
async fn an_opaque_root_ends_the_stack() {
    let fixture = Fixture::new().await;
    let opaque = Tar::new().item(&Item::new(b'0', ".wh..wh..opq"));
    let image = fixture.image("a:1", &[base(), opaque, app("1")]).await;
    assert_eq!(fixture.store.lease(&image.id).unwrap().lowers(), ["3", "2"]);
}

#[tokio::test]
async fn leftovers_and_broken_records_do_not_stop_the_start() {
    let fixture = Fixture::new().await;
    let good = fixture.image("good:1", &[base()]).await;
    let broken = fixture.image("broken:1", &[app("1")]).await;
    let gone = fixture.image("gone:1", &[app("2")]).await;
    fixture.sync();
    let data = fixture.data.path();
    let record = |image: &Image| data.join(format!("images/{}.json", image.id.digest().hex()));
    std::fs::write(record(&broken), "{").unwrap();
    std::fs::remove_dir_all(data.join("layers/3")).unwrap();
    std::fs::create_dir_all(data.join("layers/zz/deep/er")).unwrap();
    std::fs::create_dir_all(data.join("layers/.trash/y/deep/er")).unwrap();
    std::fs::write(data.join("images/x.json.1.new"), "").unwrap();
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.store.list(), [good]);
    assert_eq!(fixture.layer_names(), BTreeSet::from(["1".to_owned()]));
    let files = fixture.files();
    assert_eq!(files.len(), 4, "{files:?}");
    assert!(files.contains(&format!("{}.bad", broken.id.digest().hex())));
    let again = fixture.image("gone:1", &[app("2")]).await;
    assert_eq!(again.id, gone.id);
    assert!(!fixture.layer_names().contains("zz"));
}

#[tokio::test]
async fn the_store_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new().await;
    for path in ["", "images", "layers", "layers/.trash"] {
        let mode = fixture.data.path().join(path).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{path}");
    }
}

#[tokio::test]
async fn an_image_survives_a_crash_of_the_machine_once_it_is_durable() {
    let fixture = Fixture::new().await;
    let durable = fixture.image("durable:1", &[base()]).await;
    let fresh = fixture.image("fresh:1", &[base(), app("1")]).await;
    let fixture = reboot(fixture, &fresh, "00000000-0000-0000-0000-000000000000").await;
    assert_eq!(fixture.store.list(), [durable]);
    assert_eq!(fixture.layer_names().len(), 1);
    assert_eq!(fixture.files().len(), 3);
}

#[tokio::test]
async fn an_image_that_is_not_durable_survives_the_daemon() {
    let fixture = Fixture::new().await;
    let fresh = fixture.image("fresh:1", &[base()]).await;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let fixture = reboot(fixture, &fresh, boot.trim()).await;
    assert_eq!(fixture.store.list(), [Arc::clone(&fresh)]);
    fixture.sync();
    let fixture = reboot(fixture, &fresh, "").await;
    assert!(fixture.store.list().is_empty());
}

/// Opens the store again with the record of `image` as it stood before the image was durable, in this boot.
async fn reboot(fixture: Fixture, image: &Image, boot: &str) -> Fixture {
    fixture.sync();
    let path = fixture.data.path().join(format!("images/{}.json", image.id.digest().hex()));
    let durable = std::fs::read_to_string(&path).unwrap();
    assert!(durable.contains("\"boot_id\": null"), "{durable}");
    std::fs::write(&path, durable.replace("\"boot_id\": null", &format!("\"boot_id\": {boot:?}"))).unwrap();
    fixture.reopen().await
}
