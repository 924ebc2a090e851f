//! Container logs, in the format that the kubelet and log collectors read.

use std::fs;
use std::time::Duration;

use corten_tests::on_node;
use k8s_cri::v1 as wire;

#[test]
fn both_streams_are_logged_in_order_with_their_times() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().sh("echo one; echo two >&2; printf three").start().await?;
        container.exited().await?;
        assert_eq!(container.lines("stdout")?, ["one", "three"]);
        assert_eq!(container.lines("stderr")?, ["two"]);
        let log = container.log()?;
        let times: Vec<&str> = log.iter().map(|record| record.time.as_str()).collect();
        assert!(times.iter().all(|time| time.len() > "2026-01-02T03:04:05Z".len()), "{times:?}");
        let last = log.iter().find(|record| record.content == "three").expect("the last record");
        assert!(!last.full, "output without a newline at its end is a part");
        Ok(())
    });
}

#[test]
fn the_log_exists_as_soon_as_the_container_runs() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        assert!(container.log_path().exists());
        assert!(container.log()?.is_empty());
        Ok(())
    });
}

#[test]
fn a_long_line_is_cut_into_parts_of_16_kib() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let script = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo short";
        let container = pod.container().sh(script).start().await?;
        container.exited().await?;
        let log = container.log()?;
        assert!(log.iter().all(|record| record.content.len() <= 16384));
        assert_eq!(log.iter().filter(|record| !record.full).count(), 2, "two full parts");
        let lines = container.lines("stdout")?;
        assert_eq!((lines[0].len(), lines[1].as_str()), (40000, "short"));
        Ok(())
    });
}

#[test]
fn no_line_is_lost_of_a_container_that_writes_a_lot() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().sh("seq 1 50000").start().await?;
        container.exited().await?;
        let lines = corten_tests::eventually("all is written", async || {
            Ok(Some(container.lines("stdout")?).filter(|lines| lines.len() == 50000))
        })
        .await?;
        assert!(lines.iter().enumerate().all(|(at, line)| *line == (at + 1).to_string()));
        Ok(())
    });
}

#[test]
fn a_rotated_log_goes_on_in_a_new_file() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let script = "i=0; while true; do i=$((i+1)); echo $i; usleep 2000; done";
        let container = pod.container().sh(script).start().await?;
        container.says("10").await?;
        let rotated = container.log_path().with_extension("rotated");
        fs::rename(container.log_path(), &rotated)?;
        let request = wire::ReopenContainerLogRequest { container_id: container.id.clone() };
        kubelet.cri().runtime.reopen_container_log(request).await?;
        assert!(container.log_path().exists());
        corten_tests::eventually("the new file grows", async || {
            Ok((container.lines("stdout")?.len() > 10).then_some(()))
        })
        .await?;
        container.stop(Duration::ZERO).await?;
        let mut lines = corten_tests::log::lines(&rotated, "stdout")?;
        lines.extend(container.lines("stdout")?);
        for (at, line) in lines.iter().enumerate() {
            assert_eq!(*line, (at + 1).to_string(), "a line is lost or doubled");
        }
        Ok(())
    });
}

#[test]
fn a_log_of_a_stopped_container_is_not_opened_again() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().command(["true"]).start().await?;
        container.exited().await?;
        fs::rename(container.log_path(), container.log_path().with_extension("rotated"))?;
        let request = wire::ReopenContainerLogRequest { container_id: container.id.clone() };
        assert!(kubelet.cri().runtime.reopen_container_log(request).await.is_err());
        assert!(!container.log_path().exists(), "a log that nobody will ever write to");
        Ok(())
    });
}

#[test]
fn bytes_that_are_no_text_are_logged_as_they_are() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().sh(r"printf 'a\001\377\177b\n'").start().await?;
        container.exited().await?;
        let bytes = fs::read(container.log_path())?;
        assert!(bytes.ends_with(b"stdout F a\x01\xff\x7fb\n"), "{bytes:?}");
        Ok(())
    });
}

#[test]
fn a_pod_without_a_log_directory_runs_all_the_same() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().with(|config| config.log_directory.clear()).run().await?;
        let container = pod.container().sh("echo lost; exit 4").start().await?;
        assert_eq!(container.exited().await?.exit_code, 4);
        Ok(())
    });
}

#[test]
fn a_terminal_has_one_stream() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let script = "echo out; echo err >&2";
        let container = pod.container().sh(script).with(|config| config.tty = true).start().await?;
        container.exited().await?;
        assert_eq!(container.lines("stdout")?, ["out", "err"]);
        assert!(container.lines("stderr")?.is_empty());
        Ok(())
    });
}
