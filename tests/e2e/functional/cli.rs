//! The client commands of `corten`, as a person types them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, bail};
use corten_tests::registry::BUSYBOX;
use corten_tests::{Kubelet, Result, Setup, eventually, on_own_node};
use k8s_cri::v1 as wire;
use serde_json::{Value, json};

/// What a command that succeeds prints.
fn run(kubelet: &Kubelet, args: &[&str]) -> Result<String> {
    let output = kubelet.node().cli(args)?.output()?;
    if !output.status.success() {
        bail!("corten {args:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// What it prints as JSON.
fn json_of(kubelet: &Kubelet, args: &[&str]) -> Result<Value> {
    let args = [args, &["-o", "json"]].concat();
    serde_json::from_str(&run(kubelet, &args)?).with_context(|| format!("JSON from {args:?}"))
}

#[test]
fn run_shows_the_output_gives_the_exit_code_and_leaves_nothing() {
    on_own_node(&Setup::default(), async |kubelet| {
        let output = kubelet
            .node()
            .cli(&["run", "-e", "WORD=steel", BUSYBOX, "sh", "-c", "echo $WORD; echo no >&2; exit 6"])?
            .output()?;
        assert_eq!(output.status.code(), Some(6));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "steel\n");
        assert!(String::from_utf8_lossy(&output.stderr).contains("no\n"));
        assert_eq!(json_of(kubelet, &["pods"])?["items"], json!([]));
        Ok(())
    });
}

#[test]
fn a_pods_whole_life_is_told_in_commands() {
    on_own_node(&Setup::default(), async |kubelet| {
        let dir = kubelet.node().dir();
        let logs = dir.join("logs").display().to_string();
        // One as JSON and one as YAML: both are read.
        let pod_file = dir.join("pod.json").display().to_string();
        let metadata = json!({"name": "shell", "namespace": "people", "uid": "1", "attempt": 0});
        let pod_config = json!({
            "metadata": metadata, "hostname": "shell", "log_directory": logs, "labels": {"kind": "demo"},
            "linux": {"security_context": {"namespace_options": {"pid": 1}}},
        });
        fs::write(&pod_file, pod_config.to_string())?;
        let container_file = dir.join("container.yaml").display().to_string();
        let text = format!(
            "metadata:\n  name: talker\nimage:\n  image: {BUSYBOX}\nlog_path: talker.log\n\
             command: [sh, -c, 'echo first; while true; do sleep 1; done']\n"
        );
        fs::write(&container_file, text)?;

        run(kubelet, &["pull", BUSYBOX])?;
        assert!(run(kubelet, &["images"])?.contains("e2e-test-images/busybox"));
        let pod = run(kubelet, &["runp", &pod_file])?;
        let container = run(kubelet, &["create", &pod, &container_file, &pod_file])?;
        run(kubelet, &["start", &container])?;

        let table = run(kubelet, &["pods"])?;
        assert!(table.contains("shell") && table.contains("Ready") && table.contains(&pod[..13]), "{table}");
        let table = run(kubelet, &["ps"])?;
        assert!(table.contains("talker") && table.contains("Running"), "{table}");
        let listed = json_of(kubelet, &["ps", "--pod", &pod[..13]])?;
        assert_eq!(listed["containers"][0]["id"], json!(container));
        let short = &container[..12];
        assert_eq!(run(kubelet, &["exec", short, "echo", "hi"])?, "hi");
        let failing = kubelet.node().cli(&["exec", short, "sh", "-c", "exit 9"])?.status()?;
        assert_eq!(failing.code(), Some(9));
        eventually("the log has a line", async || {
            Ok((run(kubelet, &["logs", &container])? == "first").then_some(()))
        })
        .await?;
        assert!(run(kubelet, &["stats"])?.contains(&container[..12]));
        assert_eq!(
            json_of(kubelet, &["inspect", &container])?["status"]["metadata"]["name"],
            json!("talker")
        );
        assert_eq!(json_of(kubelet, &["inspectp", &pod])?["status"]["metadata"]["name"], json!("shell"));
        let id = &json_of(kubelet, &["inspecti", BUSYBOX])?["status"]["id"];
        assert!(id.as_str().is_some_and(|id| id.starts_with("sha256:")), "{id}");

        let refused = kubelet.node().cli(&["rmp", &pod])?.stderr(Stdio::null()).status()?;
        assert!(!refused.success(), "a running pod is removed without being asked twice");
        run(kubelet, &["stop", "--timeout", "0", &container])?;
        run(kubelet, &["rm", &container])?;
        run(kubelet, &["stopp", &pod])?;
        run(kubelet, &["rmp", &pod])?;
        assert_eq!(json_of(kubelet, &["pods"])?["items"], json!([]));
        run(kubelet, &["rmi", BUSYBOX])?;
        assert_eq!(json_of(kubelet, &["images"])?["images"], json!([]));
        Ok(())
    });
}

#[test]
fn a_followed_log_ends_with_its_container() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let script = "echo one; sleep 1; echo two; sleep 1; printf three";
        let container = pod.container().sh(script).start().await?;
        let text = run(kubelet, &["logs", "-f", &container.id])?;
        assert_eq!(text, "one\ntwo\nthree");
        assert_eq!(run(kubelet, &["logs", "--tail", "1", &container.id])?, "three");
        Ok(())
    });
}

#[test]
fn numbers_are_told_in_tables_and_as_json() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().limits(|limits| limits.memory_limit_in_bytes = 64 << 20);
        let container = container.start().await?;
        let short = &container.id[..12];
        let table = run(kubelet, &["stats", "--id", short, "-o", "table"])?;
        assert!(table.contains("CPU %") && table.contains(short), "{table}");
        let table = run(kubelet, &["statsp", "-s", "0"])?;
        assert!(table.contains("POD ID") && table.contains(&pod.id[..12]), "{table}");
        let stats = json_of(kubelet, &["statsp", "--id", &pod.id])?;
        assert_eq!(stats["stats"][0]["attributes"]["id"], json!(pod.id));
        assert_eq!(stats["stats"][0]["linux"]["containers"][0]["attributes"]["id"], json!(container.id));
        let metrics = json_of(kubelet, &["metricsp"])?;
        assert_eq!(metrics["podMetrics"][0]["podSandboxId"], json!(pod.id));
        let known = json_of(kubelet, &["metricdescs"])?;
        assert!(known["descriptors"].as_array().is_some_and(|known| known.len() > 50));
        let usage = json_of(kubelet, &["imagefsinfo"])?;
        assert!(usage["status"]["imageFilesystems"][0]["fsId"]["mountpoint"].is_string(), "{usage}");
        assert!(run(kubelet, &["imagefsinfo", "-o", "table"])?.contains("MOUNTPOINT"));
        let driver = format!("cgroup driver: {}", kubelet.node().driver().as_str_name());
        assert!(run(kubelet, &["runtime-config"])?.contains(&driver), "{driver}");
        assert_eq!(run(kubelet, &["update", "--memory", "33554432", short])?, short);
        assert_eq!(container.cgroup().await?.memory_limit()?, Some(32 << 20));
        Ok(())
    });
}

#[test]
fn events_are_told_one_a_line_as_they_happen() {
    on_own_node(&Setup::default(), async |kubelet| {
        let mut command = kubelet.node().cli(&["events"])?;
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        // What happened before it listened is not told: there is a pod again and again until one is.
        let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
        let reader = std::thread::spawn(move || {
            lines.map_while(std::result::Result::ok).try_for_each(|line| sender.send(line))
        });
        let first = eventually("an event is told", async || {
            let pod = kubelet.pod().run().await?;
            kubelet.remove_pod(&pod.id).await?;
            Ok(told.try_recv().ok())
        })
        .await?;
        let event: Value = serde_json::from_str(&first)?;
        assert!(event["containerEventType"].as_str().is_some_and(|kind| kind.ends_with("_EVENT")), "{event}");
        assert_eq!(event["containerId"], event["podSandboxStatus"]["id"]);
        child.kill()?;
        child.wait()?;
        drop(told);
        // Its pipe is closed, so that it has nothing more to read.
        drop(reader.join());
        Ok(())
    });
}

#[test]
fn info_and_version_say_what_runs() {
    on_own_node(&Setup::default(), async |kubelet| {
        assert!(run(kubelet, &["version"])?.to_lowercase().contains("corten"));
        let info = json_of(kubelet, &["info"])?;
        let conditions = info["status"]["conditions"].as_array().context("conditions")?;
        assert!(conditions.iter().any(|condition| condition["type"] == "RuntimeReady"));
        Ok(())
    });
}

#[test]
fn a_mistake_is_told_on_standard_error_with_a_failing_code() {
    on_own_node(&Setup::default(), async |kubelet| {
        let unknown = "f00d".repeat(16);
        let cases: [&[&str]; 4] = [
            &["inspect", &unknown],
            &["pull", "not a name"],
            &["runp", "/no/such/file.json"],
            &["exec", &unknown, "true"],
        ];
        for args in cases {
            let output = kubelet.node().cli(args)?.output()?;
            assert!(!output.status.success(), "{args:?}");
            assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
        }
        let nobody = std::process::Command::new(corten_tests::host::corten()?)
            .args(["-r", "unix:///no/such/corten.sock", "pods"])
            .output()?;
        let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
        assert!(!nobody.status.success() && said.contains("/no/such/corten.sock"), "{said}");
        Ok(())
    });
}

#[test]
fn a_reader_that_has_had_enough_is_no_mistake() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().sh("echo said; exec sleep 1000").start().await?;
        container.says("said").await?;
        let commands: [&[&str]; 10] = [
            &["config", "default"],
            &["config", "check"],
            &["completion"],
            &["explain", BUSYBOX],
            &["pods"],
            &["info", "-o", "yaml"],
            &["logs", &container.id],
            &["exec", "--sync", &container.id, "echo", "x"],
            &["exec", &container.id, "yes"],
            &["export", "-o", "-", BUSYBOX],
        ];
        for args in commands {
            let (reader, writer) = std::io::pipe()?;
            drop(reader);
            let output = kubelet.node().cli(args)?.stdout(writer).stderr(Stdio::piped()).spawn()?;
            let output = output.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            // What shells say of a program that SIGPIPE ended.
            assert_eq!((output.status.code(), said.as_ref()), (Some(141), ""), "{args:?}");
        }
        // Nobody hears the complaint: its exit code is still its own.
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let status = kubelet.node().cli(&["inspect", "nothing"])?.stderr(writer).status()?;
        assert_eq!(status.code(), Some(1));
        Ok(())
    });
}

#[test]
fn what_scripts_read_of_other_runtimes_answers_is_there() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().sysctl("net.ipv4.ip_forward", "1").run().await?;
        let variable = wire::KeyValue { key: "WORD".to_owned(), value: "steel".to_owned() };
        let container = pod.container().with(|config| config.envs.push(variable)).start().await?;
        let shown = json_of(kubelet, &["inspectp", &pod.id])?;
        let (info, ip) = (&shown["info"], pod.ip().await?);
        let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array().context("namespaces")?;
        let network = namespaces.iter().find(|each| each["type"] == "network").context("a network")?;
        let pin = fs::metadata(network["path"].as_str().context("a path")?)?;
        let own = fs::metadata(format!("/proc/{}/ns/net", info["pid"]))?;
        assert_eq!(std::os::unix::fs::MetadataExt::ino(&pin), std::os::unix::fs::MetadataExt::ino(&own));
        assert_eq!(info["cniResult"]["Interfaces"]["eth0"]["IPConfigs"][0]["IP"], ip.as_str());
        assert_eq!((&info["processStatus"], &info["netNamespaceClosed"]), (&json!("running"), &json!(false)));
        assert_eq!(info["config"]["linux"]["sysctls"]["net.ipv4.ip_forward"], "1");
        assert_eq!(info["config"]["metadata"]["namespace"], "tests");
        let shown = json_of(kubelet, &["inspect", &container.id])?;
        let config = &shown["info"]["config"];
        assert_eq!(config["envs"], json!([{"key": "WORD", "value": "steel"}]));
        assert_eq!(config["image"]["user_specified_image"], BUSYBOX);
        let shown = json_of(kubelet, &["inspecti", BUSYBOX])?;
        let image = &shown["info"];
        assert_eq!(image["imageSpec"]["rootfs"]["diff_ids"][0], image["chainID"], "one layer");
        let shown = json_of(kubelet, &["info"])?;
        assert_eq!(shown["lastCNILoadStatus"], "OK");
        assert_eq!(shown["cniconfig"]["Networks"][0]["IFName"], "eth0");
        pod.stop().await?;
        let shown = json_of(kubelet, &["inspectp", &pod.id])?;
        let info = &shown["info"];
        assert_eq!((&info["processStatus"], &info["netNamespaceClosed"]), (&json!("deleted"), &json!(true)));
        Ok(())
    });
}
