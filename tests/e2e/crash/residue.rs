//! Nothing is left: the host's tables before and after many pods.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use corten_tests::registry::{BUSYBOX, NGINX};
use corten_tests::{Kubelet, Result, Setup, census, cgroup, eventually, on_own_node};

/// What of this node exists now.
fn count(kubelet: &Kubelet) -> Result<BTreeSet<String>> {
    let node = kubelet.node();
    let mut all: BTreeSet<String> = census::of_node(node)?.into_iter().collect();
    all.extend(node.network().leftovers());
    let host = |line: &String| line.contains(&node.dir().display().to_string());
    all.extend(census::of_machine()?.into_iter().filter(host));
    for root in cgroup::hierarchies()? {
        let path = root.join(node.cgroup().trim_start_matches('/'));
        all.extend(below(&path).into_iter().map(|dir| format!("cgroup {dir}")));
    }
    for place in ["root", "run"] {
        all.extend(below(&node.dir().join(place)).into_iter().map(|dir| format!("directory {dir}")));
    }
    Ok(all)
}

/// Directories below `dir`, those of image layers aside.
fn below(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir && entry.file_name() != "layers" {
            found.push(entry.path().display().to_string());
            found.extend(below(&entry.path()));
        }
    }
    found
}

/// Whether it is the kubelet's to remove: a pod's log directory or cgroup.
fn is_of_the_kubelet(line: &str) -> bool {
    ["/uid-", "-poduid_"].iter().any(|part| line.contains(part))
}

#[test]
fn after_many_pods_the_host_is_as_it_was() {
    on_own_node(&Setup::default(), async |kubelet| {
        kubelet.image(BUSYBOX).await?;
        kubelet.image(NGINX).await?;
        // The first pod makes what is kept: the bridge, Corten's own cgroup.
        kubelet.pod().run().await?.remove().await?;
        let before = count(kubelet)?;
        for round in 0..4 {
            let pod = kubelet.pod().port(kubelet.node().network().first_port() + round, 80).run().await?;
            let running = pod.container().sh("sleep 1000 & sleep 1000").start().await?;
            running.exec(["true"]).await?;
            running.exec(["/no/such/command"]).await.unwrap_err();
            pod.container().image(NGINX).start().await?;
            pod.container().create().await?;
            pod.container().command(["/no/such/command"]).does_not_start().await?;
            running.stop(Duration::ZERO).await?;
            if round % 2 == 0 {
                pod.stop().await?;
            }
            pod.remove().await?;
        }
        let mut extra: Vec<String> = Vec::new();
        let cleaned = eventually("all is as it was", async || {
            extra = count(kubelet)?
                .difference(&before)
                .filter(|line| !is_of_the_kubelet(line))
                .cloned()
                .collect();
            Ok(extra.is_empty().then_some(()))
        })
        .await;
        cleaned.map_err(|err| err.context(extra.join("\n")))
    });
}

#[test]
fn the_daemon_holds_no_more_files_after_many_execs() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let files = || -> Result<usize> {
            Ok(fs::read_dir(format!("/proc/{}/fd", kubelet.node().daemon_pid()?))?.count())
        };
        for _ in 0..5 {
            container.exec(["true"]).await?;
        }
        let before = files()?;
        for _ in 0..100 {
            container.exec(["true"]).await?;
        }
        eventually("the files are closed", async || Ok((files()? <= before + 2).then_some(()))).await?;
        Ok(())
    });
}
