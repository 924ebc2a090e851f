//! A configuration that is wrong is refused with file, line and key, before anything runs.

use std::fs;
use std::process::{Command, Output};

use anyhow::Context;
use corten_tests::distribution::pem;
use corten_tests::{Result, Setup, host, on_own_node};

fn check(text: &str) -> Result<(Output, String)> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("config.toml");
    fs::write(&path, text)?;
    let output = Command::new(host::corten()?).args(["config", "check"]).arg(&path).output()?;
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    Ok((output, said))
}

#[test]
fn an_error_names_file_line_and_key() {
    on_own_node(&Setup::default(), async |_| {
        for (text, line, key) in [
            ("[cni]\nconf_dirr = \"/x\"\n", "2", "conf_dirr"),
            ("\n[image]\nmax_parallel_pulls = \"many\"\n", "3", "max_parallel_pulls"),
            ("[nonsense]\n", "1", "nonsense"),
            ("[cni\n", "1", ""),
        ] {
            let (output, said) = check(text)?;
            assert!(!output.status.success(), "{text:?} is accepted");
            for part in ["config.toml", line, key] {
                assert!(said.contains(part), "{part:?} is not in: {said}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_daemon_with_a_wrong_configuration_does_not_start() {
    on_own_node(&Setup::default(), async |kubelet| {
        let node = kubelet.node();
        kubelet.stop_daemon().await?;
        let good = fs::read_to_string(node.config_file())?;
        fs::write(node.config_file(), "[cni]\nconf_dir = 7\n")?;
        let output = node.serve()?.output()?;
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("conf_dir"), "{said}");
        fs::write(node.config_file(), good)?;
        node.start_daemon()?;
        Ok(())
    });
}

#[test]
fn certificates_that_cannot_be_used_are_named_before_anything_is_served() {
    on_own_node(&Setup::default(), async |kubelet| {
        let node = kubelet.node();
        kubelet.stop_daemon().await?;
        let good = fs::read_to_string(node.config_file())?;
        let (empty, garbage) = (node.dir().join("empty.pem"), node.dir().join("garbage.pem"));
        fs::write(&empty, "")?;
        fs::write(&garbage, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")?;
        let missing = node.dir().join("missing.pem");
        let (certificate, key) = (pem("server.crt"), pem("server.key"));
        for (certificate, key, named) in [
            (&certificate, &missing, "missing.pem"),
            (&missing, &key, "missing.pem"),
            (&certificate, &empty, "empty.pem"),
            (&empty, &key, "empty.pem"),
            (&certificate, &garbage, "server.crt"),
            (&certificate, &certificate, "server.crt"),
        ] {
            let (certificate, key) = (certificate.display(), key.display());
            let text = format!("{good}\n[streaming]\ntls_cert = \"{certificate}\"\ntls_key = \"{key}\"\n");
            let (output, said) = check(&text)?;
            assert!(!output.status.success() && said.contains(named), "{certificate} {key}: {said}");
            fs::write(node.config_file(), text)?;
            let output = node.serve()?.output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains(named), "{certificate} {key}: {said}");
        }
        let (output, said) = check("[streaming]\ntls_cert = \"/a\"\n")?;
        assert!(!output.status.success() && said.contains("tls_key"), "{said}");
        fs::write(node.config_file(), good)?;
        node.start_daemon()?;
        Ok(())
    });
}

#[test]
fn a_directory_has_one_server() {
    on_own_node(&Setup::default(), async |kubelet| {
        let node = kubelet.node();
        let other = node.dir().join("second");
        for (root, state) in [(&node.root(), &other), (&other, &node.state())] {
            let mut second = Command::new(host::corten()?);
            second.arg("serve").arg("--config").arg(node.config_file());
            second.arg("--root").arg(root).arg("--state").arg(state);
            let output = second.arg("--listen").arg(format!("unix://{}/sock", other.display())).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains("another server uses"), "{said}");
        }
        fs::remove_dir_all(other)?;
        Ok(())
    });
}

#[test]
fn a_drop_in_adds_to_the_file_and_its_errors_name_it() {
    on_own_node(&Setup::default(), async |_| {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("config.toml");
        fs::write(&path, "")?;
        let drop_ins = dir.path().join("config.toml.d");
        fs::create_dir(&drop_ins)?;
        fs::write(drop_ins.join("10-wrong.toml"), "[image]\nno_such_key = 1\n")?;
        let output = Command::new(host::corten()?).args(["config", "check"]).arg(&path).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(said.contains("10-wrong.toml") && said.contains("no_such_key"), "{said}");
        fs::write(drop_ins.join("10-wrong.toml"), "[image]\nmax_parallel_pulls = 2\n")?;
        let output = Command::new(host::corten()?).args(["config", "check"]).arg(&path).status()?;
        output.success().then_some(()).context("a good drop-in is refused")
    });
}
