//! Capabilities: the default set, what is added and dropped, and what a plain user keeps.

use corten_tests::{Container, Pod, Result, eventually, host, on_node};
use k8s_cri::v1 as wire;

/// The fourteen that containers have by default: the numbers of capabilities(7) as bits.
const DEFAULT: u64 = (1 << 0) // CHOWN
    | (1 << 1) // DAC_OVERRIDE
    | (1 << 3) // FOWNER
    | (1 << 4) // FSETID
    | (1 << 5) // KILL
    | (1 << 6) // SETGID
    | (1 << 7) // SETUID
    | (1 << 8) // SETPCAP
    | (1 << 10) // NET_BIND_SERVICE
    | (1 << 13) // NET_RAW
    | (1 << 18) // SYS_CHROOT
    | (1 << 27) // MKNOD
    | (1 << 29) // AUDIT_WRITE
    | (1 << 31); // SETFCAP
const NET_ADMIN: u64 = 1 << 12;
const CHOWN: u64 = 1 << 0;

async fn set(container: &Container<'_>, name: &str) -> Result<u64> {
    let pid = container.pid().await?;
    // Some runtimes answer the start a moment before the program is executed.
    eventually("the program runs", async || Ok((host::status_field(pid, "Name")? == "sleep").then_some(())))
        .await?;
    Ok(u64::from_str_radix(&host::status_field(pid, name)?, 16)?)
}

async fn with<'a>(pod: &'a Pod<'a>, add: &[&str], drop: &[&str]) -> Result<Container<'a>> {
    let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect();
    let capabilities = wire::Capability {
        add_capabilities: words(add),
        drop_capabilities: words(drop),
        ..Default::default()
    };
    pod.container().security(|security| security.capabilities = Some(capabilities)).start().await
}

#[test]
fn the_default_capabilities_are_fourteen() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        for name in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(set(&container, name).await?, DEFAULT, "{name}");
        }
        for name in ["CapInh", "CapAmb"] {
            assert_eq!(set(&container, name).await?, 0, "{name}");
        }
        Ok(())
    });
}

#[test]
fn capabilities_are_added_and_dropped() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let added = with(&pod, &["NET_ADMIN"], &[]).await?;
        assert_eq!(set(&added, "CapEff").await?, DEFAULT | NET_ADMIN);
        let dropped = with(&pod, &[], &["CHOWN"]).await?;
        assert_eq!(set(&dropped, "CapBnd").await?, DEFAULT & !CHOWN);
        let none = with(&pod, &[], &["ALL"]).await?;
        for name in ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"] {
            assert_eq!(set(&none, name).await?, 0, "{name}");
        }
        let one = with(&pod, &["NET_ADMIN"], &["ALL"]).await?;
        assert_eq!(set(&one, "CapEff").await?, NET_ADMIN);
        let all = with(&pod, &["ALL"], &[]).await?;
        let own = u64::from_str_radix(&host::status_field(std::process::id().try_into()?, "CapBnd")?, 16)?;
        assert_eq!(set(&all, "CapEff").await?, own);
        Ok(())
    });
}

#[test]
fn a_plain_user_has_none_but_may_gain_them() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().user(1000).start().await?;
        for name in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            assert_eq!(set(&container, name).await?, 0, "{name}");
        }
        assert_eq!(set(&container, "CapBnd").await?, DEFAULT);
        Ok(())
    });
}

#[test]
fn an_unknown_capability_is_refused_by_name() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let capabilities =
            wire::Capability { add_capabilities: vec!["FLYING".to_owned()], ..Default::default() };
        let status = pod
            .container()
            .security(|security| security.capabilities = Some(capabilities))
            .does_not_start()
            .await?;
        assert!(status.message().contains("FLYING"), "{status}");
        Ok(())
    });
}
